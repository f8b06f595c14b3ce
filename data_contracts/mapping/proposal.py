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
from functools import reduce
from operator import or_
from typing import Final

import dataframely as dy
import polars as pl

from data_contracts.catalog import Contract
from data_contracts.conform import FLAG_WORDS, LIST_SEPARATOR
from data_contracts.deidentification.columns import told_by_place, values_among
from data_contracts.deidentification.identifiers import CLASSES
from data_contracts.deidentification.shapes import SHAPES, screen
from data_contracts.fields import Classification, terms_of
from data_contracts.mapping.column_names import identifier_in, readings, resemblance, words
from data_contracts.mapping.spellings import CODE_SPELLINGS, LABELS, SPELLINGS
from data_contracts.mapping.table_mapping import is_list_of_codes
from data_contracts.readers.findings import ReaderError

CONFIDENT: Final = 0.72
"""Score from which a proposal needs no doubt; see the figures in tests/test_proposal.py."""

DOUBTFUL: Final = 0.45
"""Score below which nothing is proposed."""

_MARGIN = 0.04  # a second column this near makes the first one doubtful
_WITHOUT_VALUES = 0.75  # how far an empty column counts as one whose values fit
_UNLIKELY = 0.5  # how far a number outside its declared range fits
_FITTING = 0.5  # share of values that must fit, be understood, or look like identifiers
_MOST_CODES, _LONGEST_CODE = 20, 24
# Shapes that are not sure are those of codes, too: telephone and NDC, ZIP code and CPT.
_SURE = [shape for shape in SHAPES if shape.sure]
_ANY_SURE = screen(_SURE)
_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to do with one column of a site.

    Attributes:
        column: The site's column.
        field: The contract's field that it fills; None where it is to be ignored, or unknown.
        ignore: Whether it looks like an identifier and should never be read.
        confident: Whether the proposal may stand without doubt.
        reason: Why, in words that show no value.
        score: How well the field fits, from 0 to 1; 0 without a field.
        codes: Contract code -> the site's values, where they are not the contract's own.
        unknown_codes: The site's values for which no code is proposed.
    """

    column: str
    field: str | None
    ignore: bool
    confident: bool
    reason: str
    score: float = 0.0
    codes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    unknown_codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Fit:
    """How the values of a column fit a field: the share of its distinct values, and their codes."""

    share: float
    distinct: int
    code_of: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    @property
    def may_show(self) -> bool:
        """Whether values are few, short and understood enough for a person to see them."""
        return (
            self.share >= _FITTING
            and self.distinct <= _MOST_CODES
            and max(map(len, self.code_of), default=0) <= _LONGEST_CODE
        )


@dataclass(frozen=True, slots=True)
class _Pair:
    """A column that may fill a field; `fit` is None where the column is empty."""

    column: str
    field: str
    resemblance: float
    fit: _Fit | None

    def is_beside(self, other: "_Pair") -> bool:
        """Whether the columns' names differ in their number only."""
        plain = {re.sub(r"[\W_]*[0-9]+$", "", name) for name in (self.column, other.column)}
        return len(plain) == 1 and plain.isdisjoint((self.column, other.column))

    @property
    def score(self) -> float:
        return self.resemblance * (0.4 + 0.6 * (self.fit.share if self.fit else _WITHOUT_VALUES))


def propose(sample: pl.DataFrame, schema: type[dy.Schema], *, source: str) -> tuple[Proposal, ...]:
    """One proposal for every column, in the order of the columns.

    The score of a column and a field is the resemblance of the column's name with the nearest
    usual name of the field, lowered where values do not fit: name * (0.4 + 0.6 * share that fits).
    Pairs are chosen by falling score, every column once, and every field; but for a list, which may
    lie in several columns whose names differ in a number only.

    Args:
        sample: Some rows of the table; all columns are text.
        schema: The contract.
        source: Name of the file or table, for messages.

    Raises:
        ReaderError: No column resembles a field: the first line may be no header.
    """
    values = values_among(sample.columns)
    named = sample.drop(values)
    ignored = {name: kind for name in named.columns if (kind := _identifier(named[name]))}
    pairs = list(_pairs(named.drop(ignored), schema))
    if not pairs:
        raise ReaderError(
            f"{source}: no column resembles a field of the contract: the header line is missing, "
            "or it is another table, or cells are parted by another character"
        )
    chosen: dict[str, _Pair] = {}
    likely = [pair for pair in pairs if pair.score >= DOUBTFUL]
    for pair in sorted(likely, key=lambda pair: -pair.score):
        rivals = [other for other in chosen.values() if other.field == pair.field]
        of_list = is_list_of_codes(schema.columns()[pair.field])
        if pair.column not in chosen and all(of_list and pair.is_beside(other) for other in rivals):
            chosen[pair.column] = pair
    proposals = []
    for column in sample.columns:
        if column in ignored:
            reason = f"looks like {ignored[column]}"
            proposals.append(Proposal(column, None, ignore=True, confident=True, reason=reason))
        elif column in chosen:
            free = [pair for pair in pairs if pair.column not in chosen]
            proposals.append(_mapped(chosen[column], free))
        else:
            reason = "no field of the contract resembles it"
            proposals.append(Proposal(column, None, ignore=False, confident=False, reason=reason))
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
        "# Proposed from the names of columns and a sample of values. Check every line; lines in",
        "# doubt are commented out. The table is refused until every column is mapped or ignored.",
        "# Codes are this site's own values: keep this block at the site.",
        f"[{table}]",
        f"path = {_quoted(path)}",
    ]
    if separator != ",":
        lines.append(f"separator = {_quoted(separator)}")
    lines += ["ignore = ["]
    lines += [f"    {_quoted(p.column)},  # {p.reason}" for p in proposals if p.ignore] + ["]"]
    if unknown := [p.column for p in proposals if p.field is None and not p.ignore]:
        places = told_by_place(unknown, [p.column for p in proposals])
        lines.append("# Not recognized; map each one onto a field, or add it to ignore:")
        lines += [f"#   {places.get(column) or _quoted(column)}" for column in unknown]
    mapped = [p for p in proposals if p.field is not None]
    lines += ["", f"[{table}.columns]"]
    for p in mapped:
        doubt = "" if p.confident else "# "
        beside = [
            other for other in mapped if (other.field, other.confident) == (p.field, p.confident)
        ]
        if p is beside[0]:
            quoted = ", ".join(_quoted(other.column) for other in beside)
            columns = f"[{quoted}]" if len(beside) > 1 else quoted
            weakest = min(beside, key=lambda other: other.score)
            lines.append(f"{doubt}{p.field} = {columns}  # {weakest.score:.2f}: {weakest.reason}")
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
        if not column.nullable
        and name not in found
        and terms_of(column).classification != Classification.TOKEN
    ]:
        lines += ["", "# Required, and not found for certain; if it is the same on every row:"]
        lines += [f"# [{table}.constants]", *(f'# {name} = ""' for name in missing)]
    return "\n".join(lines) + "\n"


def _pairs(sample: pl.DataFrame, schema: type[dy.Schema]) -> Iterator[_Pair]:
    """All columns and fields with names that are at all alike."""
    spelt = {
        name: [words(phrase) for phrase in (name, *SPELLINGS.get(name, ()))]
        for name in schema.column_names()
    }
    names = readings(sample.columns)
    for column in sample:
        values = column.str.strip_chars()
        values = values.filter(values != "").unique(maintain_order=True)
        for name, phrases in spelt.items():
            alike = max(
                weight * resemblance(read, phrase)
                for read, weight in names[column.name]
                for phrase in phrases
            )
            if alike >= DOUBTFUL:
                fit = _fit(values, name, schema.columns()[name])
                yield _Pair(column.name, name, alike, fit)


def _mapped(pair: _Pair, free: Sequence[_Pair]) -> Proposal:
    """A pair as a proposal, with what is to be said for and against it."""
    alike = "a usual name" if pair.resemblance == 1 else f"name {pair.resemblance:.0%} alike"
    fit = pair.fit
    fits = f"{fit.share:.0%} of {fit.distinct} distinct values fit" if fit else "no values to see"
    doubts = [
        f"; {_quoted(other.column)} is as near"
        for other in free
        if other.field == pair.field and other.score > pair.score - _MARGIN
    ][:1]
    code_of = fit.code_of if fit else {}
    codes: dict[str, tuple[str, ...]] = {}
    for value, code in sorted(code_of.items()):
        if code is not None and code != value:
            codes[code] = (*codes.get(code, ()), value)
    unknown_codes = tuple(sorted(value for value, code in code_of.items() if code is None))
    if hidden := values_among(unknown_codes):
        doubts.append("; values look like identifiers")
        unknown_codes = tuple(value for value in unknown_codes if value not in hidden)
    if fit and not fit.may_show:
        if codes and fit.share >= _FITTING:
            doubts.append("; its values are too many or too long to show as codes")
        codes, unknown_codes = {}, ()
    return Proposal(
        pair.column,
        pair.field,
        ignore=False,
        confident=pair.score >= CONFIDENT and not doubts,
        reason="".join((alike, "; ", fits, *doubts)),
        score=pair.score,
        codes=codes,
        unknown_codes=unknown_codes,
    )


def _identifier(column: pl.Series) -> str | None:
    """The class of identifiers that a column's name or values look like."""
    if named := identifier_in(column.name):
        return named
    values = column.str.strip_chars().drop_nulls().unique()
    enough = _FITTING * len(values)
    if values.is_empty() or values.str.contains(_ANY_SURE).sum() < enough:
        return None
    for letter, kind in CLASSES.items():
        found = [shape.found_in(values) for shape in _SURE if shape.letter == letter]
        if found and reduce(or_, found).sum() >= enough:
            return f"{kind}, by its values"
    return None


def _fit(values: pl.Series, name: str, column: dy.Column) -> _Fit | None:
    """How distinct values fit a field, as its contract will see them; None where there are none."""
    if values.is_empty():
        return None
    if isinstance(column, dy.Enum):
        known = _known_codes(name, column)
        code_of = {value: known.get(_plain(value)) for value in values}
        return _Fit(1 - list(code_of.values()).count(None) / len(code_of), len(code_of), code_of)
    if isinstance(column, dy.Bool):
        fits = values.str.to_lowercase().is_in(FLAG_WORDS).cast(pl.Float64)
    elif isinstance(column, dy.List) and isinstance(column.inner, dy.Struct):
        fits = values.str.starts_with("[").cast(pl.Float64)
    else:
        listed = isinstance(column, dy.List)
        typed = (values.str.split(LIST_SEPARATOR) if listed else values).cast(
            column.dtype, strict=False
        )
        value = pl.col(values.name)
        allowed = pl.all_horizontal(value.is_not_null(), *column.validation_rules(value).values())
        declared = terms_of(column).declared_range
        likely = value.is_between(*declared) if declared else pl.lit(True)
        share = pl.when(allowed & likely).then(1.0).when(allowed).then(_UNLIKELY).otherwise(0.0)
        fits = typed.to_frame().select(share).to_series()
    return _Fit(sum(fits.to_list()) / len(fits), len(values), code_of={})


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


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's, whose escapes it shares, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(code: str) -> str:
    return code if re.fullmatch(r"[A-Za-z0-9_-]+", code) else _quoted(code)
