"""Proposals of how a site's columns map onto a contract, from their names and a sample of values.

A person at the site confirms them: `to_commented_toml` gives the block for its `site.toml`, with
doubtful lines commented out. Values are never shown, with one exception: a column that is proposed
for a field with a list of codes, and has few and short values of which most are understood, shows
them, since somebody must confirm what they mean. The block belongs at the site.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import dataframely as dy
import polars as pl

from data_contracts.catalog import Contract
from data_contracts.column_names import identifier_in, readings, resemblance, words
from data_contracts.fields import terms_of
from data_contracts.intake import LIST_SEPARATOR
from data_contracts.spellings import CODE_SPELLINGS, LABELS, SPELLINGS

CONFIDENT: Final = 0.72
"""Score from which a proposal needs no doubt; see the figures in tests/test_proposal.py."""

DOUBTFUL: Final = 0.45
"""Score below which nothing is proposed."""

_MARGIN = 0.04  # a second column this near makes the first one doubtful
_WITHOUT_VALUES = 0.75  # how far an empty column counts as one whose values fit
_FITTING = 0.5  # share of values that must fit, be understood, or look like identifiers
_MOST_CODES, _LONGEST_CODE = 20, 24
_FLAG_WORDS = ("true", "t", "yes", "y", "1", "false", "f", "no", "n", "0")
_NO_WORD = re.compile(r"[\W_]+")

# A minimum until the gate's own patterns can be imported in their place.
IDENTIFIER_VALUES: Final = {
    "social security numbers (G)": r"^\d{3}-\d{2}-\d{4}$",
    "telephone numbers (D)": r"^(\+?1[-. ]?)?\(?\d{3}\)?[-. ] ?\d{3}[-. ]\d{4}$",
    "email addresses (F)": r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$",
    "web addresses (N)": r"^(https?://|www\.)",
    "IP addresses (O)": r"^(\d{1,3}\.){3}\d{1,3}$",
    "health plan beneficiary numbers (I)": (  # MBI
        r"^[1-9][A-Z][A-Z0-9]\d-?[A-Z][A-Z0-9]\d-?[A-Z]{2}\d{2}$"
    ),
    "certificate and license numbers (K)": r"^[12]\d{9}$",  # NPI
    "dates finer than a year (C)": (
        r"^((19|20)\d\d[-/]?(0[1-9]|1[0-2])[-/]?(0[1-9]|[12]\d|3[01])|\d{1,2}[-/]\d{1,2}[-/]\d{2,4}"
        r"|\d{1,2}-[A-Za-z]{3}-\d{2,4})([ T]|$)"
    ),
}
"""Class of 45 CFR 164.514(b)(2)(i) -> what its values look like."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to do with one column of a site.

    Attributes:
        column: The site's column.
        field: The contract's field that it fills; None where it is to be ignored, or unknown.
        ignore: Whether it looks like an identifier and should never be read.
        confident: Whether the proposal may stand without doubt.
        score: From 0 to 1; 0 where no field resembles it.
        reason: Why, in words that show no value.
        codes: Contract code -> the site's values, where they are not the contract's own.
        unknown_codes: The site's values for which no code is proposed.
    """

    column: str
    field: str | None
    ignore: bool
    confident: bool
    score: float
    reason: str
    codes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    unknown_codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Fit:
    """How the values of a column fit a field: the share of its distinct values, and their codes."""

    share: float
    distinct: int
    code_of: Mapping[str, str | None] = dataclasses.field(default_factory=dict)


def propose(sample: pl.DataFrame, schema: type[dy.Schema]) -> tuple[Proposal, ...]:
    """One proposal for every column, in the order of the columns.

    The score of a column and a field is the resemblance of the column's name with the nearest
    usual name of the field, lowered where values do not fit: name * (0.4 + 0.6 * share that fits).
    Pairs are chosen by falling score, every field and every column once.

    Args:
        sample: Some rows of the table; all columns are text.
        schema: The contract.
    """
    ignored = {name: kind for name in sample.columns if (kind := _identifier(sample[name]))}
    open_columns = [name for name in sample.columns if name not in ignored]
    pairs = dict(_scored(sample, open_columns, schema))
    ranked = sorted(pairs, key=lambda pair: -pairs[pair][0])
    field_of: dict[str, str] = {}
    for name, column in ranked:
        if name not in field_of.values() and column not in field_of:
            field_of[column] = name
    proposals = []
    for column in sample.columns:
        if column in ignored:
            reason = f"looks like {ignored[column]}"
            proposals.append(Proposal(column, None, True, True, 1.0, reason))
        elif column not in field_of:
            reason = "no field of the contract resembles it"
            proposals.append(Proposal(column, None, False, False, 0.0, reason))
        else:
            name = field_of[column]
            score, resembled, fit = pairs[name, column]
            rival = max(
                (
                    (other_score, other)
                    for (of, other), (other_score, _, _) in pairs.items()
                    if of == name and other != column and other not in field_of
                ),
                default=(0.0, ""),
            )
            doubts = rival[0] > score - _MARGIN
            reason = _reason(resembled, fit) + (f"; so does {rival[1]!r}" if doubts else "")
            codes, unknown = _codes(fit)
            proposals.append(
                Proposal(
                    column,
                    name,
                    ignore=False,
                    confident=score >= CONFIDENT and not doubts,
                    score=round(score, 2),
                    reason=reason,
                    codes=codes,
                    unknown_codes=unknown,
                )
            )
    return tuple(proposals)


def to_commented_toml(
    proposals: Sequence[Proposal], contract: Contract, path: str, separator: str = ","
) -> str:
    """The section [tables.NAME] of a `site.toml` for a person to confirm.

    Args:
        proposals: What `propose` gives.
        contract: The contract.
        path: The file, as it is to stand in `site.toml`.
        separator: What parts the cells of a CSV line.
    """
    table = f"tables.{contract.name}"
    lines = [
        "# Proposed from the names of columns and a sample of values. Check every line: a line in",
        "# doubt is commented out. Codes are this site's own values; keep the block at the site.",
        f"[{table}]",
        f"path = {_quoted(path)}",
    ]
    if separator != ",":
        lines.append(f"separator = {_quoted(separator)}")
    lines += ["ignore = ["]
    lines += [f"    {_quoted(p.column)},  # {p.reason}" for p in proposals if p.ignore] + ["]"]
    if unknown := [p for p in proposals if p.field is None and not p.ignore]:
        lines.append(
            "# Not recognized. Map each one or add it to ignore; else the table is refused:"
        )
        lines += [f"#   {_quoted(p.column)}" for p in unknown]
    mapped = [p for p in proposals if p.field is not None]
    lines += ["", f"[{table}.columns]"]
    for p in mapped:
        doubt = "" if p.confident else "# "
        lines.append(f"{doubt}{p.field} = {_quoted(p.column)}  # {p.score:.2f}: {p.reason}")
    for p in mapped:
        if not p.codes and not p.unknown_codes:
            continue
        doubt = "" if p.confident else "# "
        lines += ["", f"{doubt}[{table}.codes.{p.field}]"]
        for code, values in p.codes.items():
            lines.append(f"{doubt}{_key(code)} = [{', '.join(map(_quoted, values))}]")
        if p.unknown_codes:
            unread = ", ".join(map(_quoted, p.unknown_codes))
            lines.append(f"# No code is known for {unread}: such rows break the contract.")
    found = {p.field for p in mapped if p.confident}
    if missing := [
        name
        for name, column in contract.schema.columns().items()
        if not column.nullable and name not in found
    ]:
        lines += ["", "# Required, and not found for certain; if it is the same on every row:"]
        lines += [f"# [{table}.constants]", *(f"# {name} = " for name in missing)]
    return "\n".join(lines) + "\n"


def _scored(
    sample: pl.DataFrame, columns: Sequence[str], schema: type[dy.Schema]
) -> Iterator[tuple[tuple[str, str], tuple[float, float, _Fit | None]]]:
    """(field, column) -> score, resemblance of names, fit of values; all that deserve a thought."""
    spelt = {
        name: [words(phrase) for phrase in (name, *SPELLINGS.get(name, ()))]
        for name in schema.column_names()
    }
    names = readings(columns)
    for column in columns:
        values = sample[column].str.strip_chars()
        values = values.filter(values != "").unique(maintain_order=True)
        for name, phrases in spelt.items():
            alike = max(weight * resemblance(a, b) for a, weight in names[column] for b in phrases)
            if alike < DOUBTFUL:
                continue
            fit = _fit(values, name, schema.columns()[name])
            score = alike * (0.4 + 0.6 * (fit.share if fit else _WITHOUT_VALUES))
            if score >= DOUBTFUL:
                yield (name, column), (score, alike, fit)


def _identifier(column: pl.Series) -> str | None:
    """The class of identifiers that a column's name or values look like."""
    if kind := identifier_in(column.name):
        return kind
    values = column.str.strip_chars().drop_nulls().unique()
    for kind, pattern in IDENTIFIER_VALUES.items():
        if len(values) and values.str.contains(pattern).sum() >= _FITTING * len(values):
            return f"{kind}, by its values"
    return None


def _fit(values: pl.Series, name: str, column: dy.Column) -> _Fit | None:
    """How distinct values fit a field; None where there are none."""
    if values.is_empty():
        return None
    code_of: dict[str, str | None] = {}
    match column:
        case dy.Enum():
            known = _known_codes(name, column)
            code_of = {value: known.get(_plain(value)) for value in values}
            fits = pl.Series([code is not None for code in code_of.values()])
        case dy.Bool():
            fits = values.str.to_lowercase().is_in(_FLAG_WORDS)
        case dy.List(inner=dy.String() as inner):
            fits = _fits_text(values.str.split(LIST_SEPARATOR).explode(), inner)
        case dy.List():
            fits = values.str.starts_with("[")
        case dy.String():
            fits = _fits_text(values, column)
        case _:
            fits = _fits_number(values, column)
    share = sum(fits.cast(pl.Float64).to_list()) / len(fits)
    return _Fit(share, len(values), code_of)


def _fits_text(values: pl.Series, column: dy.String) -> pl.Series:
    fits = values.str.contains(column.regex or "")
    if column.max_length is not None:
        fits &= values.str.len_chars() <= column.max_length
    return fits


def _fits_number(values: pl.Series, column: dy.Column) -> pl.Series:
    """1 for a number that the contract allows, half where it is outside the declared range."""
    number = values.cast(pl.Float64, strict=False)
    low, high = getattr(column, "min", None), getattr(column, "max", None)
    fits = number.is_not_null()
    if column.dtype.is_integer():
        fits &= number == number.round()
    if low is not None:
        fits &= number >= low
    if high is not None:
        fits &= number <= high
    likely = pl.Series([1.0]).new_from_index(0, len(values))
    if declared := terms_of(column).declared_range:
        likely = pl.select(
            pl.when(number.is_between(*declared)).then(1.0).otherwise(0.5)
        ).to_series()
    return fits.fill_null(False).cast(pl.Float64) * likely


def _known_codes(name: str, column: dy.Enum) -> dict[str, str]:
    """Word, as `_plain` writes it -> code: first codes themselves, then labels, then spellings."""
    known: dict[str, str] = {}
    for meanings in (
        {code: (code,) for code in column.categories},
        {code: (label,) for code, label in LABELS.get(name, {}).items()},
        CODE_SPELLINGS.get(name, {}),
    ):
        for code, spellings in meanings.items():
            for spelling in spellings:
                known.setdefault(_plain(spelling), code)
    return known


def _plain(value: str) -> str:
    return _NO_WORD.sub(" ", value.lower()).strip()


def _codes(fit: _Fit | None) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Code -> the site's values, and values without a code; nothing where values may not show."""
    if (
        fit is None
        or fit.share < _FITTING
        or fit.distinct > _MOST_CODES
        or any(len(value) > _LONGEST_CODE for value in fit.code_of)
    ):
        return {}, ()
    codes: dict[str, tuple[str, ...]] = {}
    for value, code in sorted(fit.code_of.items()):
        if code is not None and code != value:
            codes[code] = (*codes.get(code, ()), value)
    return codes, tuple(value for value, code in fit.code_of.items() if code is None)


def _reason(resembled: float, fit: _Fit | None) -> str:
    usual = "its usual name" if resembled == 1 else f"its name to {resembled:.0%}"
    if fit is None:
        return f"{usual}; no values in the sample"
    return f"{usual}; {fit.share:.0%} of {fit.distinct} distinct values fit"


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's, whose escapes it shares, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(code: str) -> str:
    return code if re.fullmatch(r"[A-Za-z0-9_-]+", code) else _quoted(code)
