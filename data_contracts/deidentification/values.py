"""The de-identification gate: it looks for identifiers in the values of a table.

The rule, by what a field's contract says:

1. An enumeration, or the pattern of tokens: a value that fits is a code or a token, and passes.
   (But a column of tokens whose values are digits alone holds raw numbers.)
2. Any other pattern: a value that fits is tested for the sure shapes of `shapes.py` only, as where
   a code and an identifier look alike (NDC and telephone number, CPT and ZIP code) the code wins.
3. No pattern, or a value that does not fit: it is tested for all shapes, and for free text. So a
   Social Security number in `procedure_code` is an identifier, and not just a breach of contract.
4. Numbers of up to seven digits pass; longer ones are tested as text, and ages over 89 fail.

Values are a tripwire behind the allowlist of names: shapes find what looks like an identifier, and
no pattern can find a name or a number that looks like anything else.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import dataframely as dy
import polars as pl

from data_contracts.deidentification.ages import OLDEST_AGE
from data_contracts.deidentification.identifiers import CLASSES
from data_contracts.deidentification.policy import Policy
from data_contracts.deidentification.shapes import SHAPES, Shape, screen
from data_contracts.errors import GroundTruthError
from data_contracts.vocabulary import PSEUDONYM_PATTERN, TOKEN_PATTERN

LIST_SEPARATOR: Final = "|"
"""Separates the values of a list in a CSV cell."""

FREE_TEXT: Final = "free text"

_FREE_TEXT_WORDS = 4
_FREE_TEXT_LENGTH = 64
_ANY_SHAPE = screen(SHAPES)
_ANY_SURE = screen([shape for shape in SHAPES if shape.sure])
_KEYED_PSEUDONYM = r"^n[0-9a-f]{15}$"  # as `Tokens.pseudonym` makes them
_SHORT_NUMBER = (
    r"^[+-]?(?:[0-9]{0,7}(?:\.[0-9]*)?|[0-9]+\.[0-9]*[1-9][0-9]*)(?:[eE][+-]?[0-9]{1,3})?$"
)
_LONG_NUMBER = 10_000_000
_AGE_OVER_89 = r"^(?:9[0-9]|1[0-9]{2})(?:\.[0-9]+)?\s*(?:[+-].*)?$"
_JSON_PARTS = r'"(?:[^"\\]|\\.)*"|[0-9]{8,}'
_SAMPLE = 1_000
_RAW_NUMBERS_SHARE = 0.1
_VALUE = pl.col("value")

_Step = Callable[[pl.LazyFrame], pl.LazyFrame]


class IdentifierError(GroundTruthError):
    """Values of a table look like identifiers of somebody."""


def check_values(
    rows: pl.DataFrame, schema: type[dy.Schema], *, source: str, policy: Policy
) -> None:
    """Refuse a table, or a batch of one, whose values look like identifiers.

    Args:
        rows: Rows as they were read, before their columns get the contract's types. In text, lists
            are parted by "|" and lists of structures are JSON.
        schema: The contract. Columns outside it are for `columns.check_columns`.
        source: Name of the file or table, for the message.
        policy: On which ground the table is used; a limited data set may hold dates.

    Raises:
        IdentifierError: Something was found. All findings are named at once: column, class and
            number of rows, never a value.

    Source: 45 CFR 164.514(b)(2)(i).
    """
    leaves = [
        leaf
        for name, column in schema.columns().items()
        if name in rows.columns
        for leaf in _leaves(_Leaf(name, name, (column,), rows.schema[name]))
    ]
    if not leaves:
        return
    found = [*_found(rows, leaves, policy), *_raw_numbers(rows, leaves)]
    if found:
        raise IdentifierError(
            f"{source}: {'; '.join(found)}. Remove this at the source; nothing of it was kept. A "
            "code that only looks alike passes in the form that its contract asks for."
        )


@dataclass(frozen=True, slots=True)
class _Leaf:
    """All single values of a column, or of one field inside its lists and structures.

    Attributes:
        path: Its name for people, e.g. "baseline_labs.ucum".
        root: The table's column.
        columns: What the contract says of it: nothing of a field that it does not know, and several
            columns where the fields of a JSON text are not told apart.
        dtype: Type of the values.
        steps: How a frame with the root as "value" gets the leaf's single values there.
    """

    path: str
    root: str
    columns: tuple[dy.Column, ...]
    dtype: pl.DataType
    steps: tuple[_Step, ...] = ()

    @property
    def is_token(self) -> bool:
        """Whether it should hold tokens."""
        return any(_pattern(column) == TOKEN_PATTERN for column in self.columns)

    @property
    def is_age(self) -> bool:
        """Whether it should hold ages or bands of ages."""
        return "age" in self.path.split("_")

    def values(self, frame: pl.LazyFrame, *, distinct: bool = False) -> pl.LazyFrame:
        """The frame with the leaf's single values as text, beside whatever else it holds."""
        for step in self.steps:
            frame = step(frame)
        if self.dtype.is_numeric() and self.columns and not any(map(_is_text, self.columns)):
            # Only what rule 4 tests is worth being written out.
            tested = _VALUE.abs() >= _LONG_NUMBER
            frame = frame.filter(tested | (_VALUE > OLDEST_AGE) if self.is_age else tested)
        if distinct:
            frame = frame.select(_VALUE.unique())  # rows are many, and values mostly few
        return frame.with_columns(_as_text(self.dtype)).filter(_VALUE.is_not_null())

    def suspects(self, rows: pl.DataFrame) -> pl.LazyFrame:
        """Distinct values that do not pass at once, and what their contract says of each.

        Columns: value; fits (a pattern); label (in a field that is declared to hold words).
        """
        frame = rows.lazy().select(pl.col(self.root).alias("value"))
        root = rows.schema[self.root]
        if self.is_token and root == pl.String:
            frame = frame.filter(~_VALUE.str.contains(TOKEN_PATTERN))
        elif self.steps == (_split,):
            frame = frame.select(_VALUE.unique())  # before cells are split
        over_89 = _VALUE.str.contains(_AGE_OVER_89) if self.is_age else pl.lit(False)
        passes = _any(_passes(column, over_89) for column in self.columns)
        return (
            self.values(frame, distinct=True)
            .filter(~passes)
            .unique()
            .with_columns(
                fits=_any(_fits(column) for column in self.columns),
                label=_any(_is_label(column) for column in self.columns),
                over_89=over_89,
            )
        )


def _leaves(leaf: _Leaf) -> Iterator[_Leaf]:
    """The leaf itself, or the leaves of what its values hold."""
    match leaf.dtype:
        case pl.List() | pl.Array():
            yield from _leaves(_below(leaf, _inner(leaf.columns), leaf.dtype.inner, _explode))
        case pl.Struct():
            for field in leaf.dtype.fields:
                known = [
                    c.inner[field.name] for c in _structs(leaf.columns) if field.name in c.inner
                ]
                # A field that the contract does not know may be named like a value.
                name = field.name if known else "(a field outside the contract)"
                inner = _below(leaf, tuple(known), field.dtype, _field(field.name))
                yield from _leaves(replace(inner, path=f"{leaf.path}.{name}"))
        case pl.String() if _holds_structs(leaf.columns):
            columns = tuple(c for s in _structs(_inner(leaf.columns)) for c in s.inner.values())
            yield _below(leaf, columns, leaf.dtype, _json_parts)
        case pl.String() if any(isinstance(column, dy.List) for column in leaf.columns):
            yield _below(leaf, _inner(leaf.columns), leaf.dtype, _split)
        case pl.Enum() if any(column.dtype == leaf.dtype for column in leaf.columns):
            pass  # of this type, values are the contract's
        case pl.Boolean() | pl.Null() | pl.Time() | pl.Duration():
            pass  # nothing identifies that is true, false, or a time without a day
        case _:
            yield leaf


def _found(rows: pl.DataFrame, leaves: list[_Leaf], policy: Policy) -> Iterator[str]:
    """Findings, in the order of columns, classes by letter."""
    suspects = pl.concat(
        frame.with_columns(leaf=pl.lit(number, dtype=pl.UInt32))
        for number, frame in enumerate(pl.collect_all([leaf.suspects(rows) for leaf in leaves]))
    )
    many_words = (_VALUE.str.count_matches(r"\S+") >= _FREE_TEXT_WORDS) | (
        (_VALUE.str.len_chars() > _FREE_TEXT_LENGTH) & _VALUE.str.contains(r"\s")
    )
    free_text = ~pl.col("fits") & ~pl.col("label") & many_words
    any_shape = (
        pl.when("fits")
        .then(_VALUE.str.contains(_ANY_SURE))
        .otherwise(_VALUE.str.contains(_ANY_SHAPE))
    )
    suspects = suspects.filter(any_shape | free_text | pl.col("over_89"))
    if suspects.is_empty():
        return
    shapes = [
        suspects.filter(_has(suspects, shape)).select("leaf", "value", what=pl.lit(shape.letter))
        for shape in SHAPES
        if not (shape.letter == "C" and policy.allows_dates)
    ]
    if not policy.allows_dates:
        shapes.append(suspects.filter("over_89").select("leaf", "value", what=pl.lit("C")))
    classes = pl.concat(shapes).unique()
    telling = classes.filter(pl.col("what") != "R")
    unnamed = suspects.filter(free_text).select("leaf", "value", what=pl.lit(FREE_TEXT))
    vague = pl.concat([classes.filter(pl.col("what") == "R"), unnamed])
    vague = vague.join(telling, on=["leaf", "value"], how="anti")
    groups = (
        pl.concat([telling, vague])
        .sort("leaf", "what")
        .group_by("leaf", "what", maintain_order=True)
    )
    for (number, what), group in groups:
        leaf = leaves[cast(int, number)]
        of_root = rows.lazy().select(pl.col(leaf.root).alias("value")).with_row_index("row")
        hit = leaf.values(of_root).filter(_VALUE.is_in(group["value"].implode()))
        count = hit.select(pl.col("row").n_unique()).collect().item()
        yield _told(leaf, str(CLASSES.get(str(what), what)), count)


def _raw_numbers(rows: pl.DataFrame, leaves: list[_Leaf]) -> Iterator[str]:
    """Findings of tokens that are no hashes.

    A hexadecimal token of 16 digits or more is all decimal with probability (10/16)^16 < 0.1 %.
    """
    for leaf in leaves:
        if leaf.is_token and leaf.dtype == pl.String:
            tokens = leaf.values(rows.lazy().head(_SAMPLE).select(pl.col(leaf.root).alias("value")))
            raw = tokens.select(_VALUE.str.contains("^[0-9]{16,}$")).collect().to_series()
            count = int(raw.sum())
            if count > _RAW_NUMBERS_SHARE * len(raw):
                yield _told(leaf, f"{CLASSES['R']}: decimal numbers in place of hashes", count)


def _told(leaf: _Leaf, what: str, count: int) -> str:
    return f"{leaf.path} holds {what} ({count} row{'s' if count != 1 else ''})"


def _has(suspects: pl.DataFrame, shape: Shape) -> pl.Series:
    """Which suspects have the shape, (n,); check digits are computed for few values, one by one."""
    found = suspects["value"].str.contains(shape.pattern)
    if not shape.sure:
        found &= ~suspects["fits"]
    if shape.check is None or not found.any():
        return found
    candidates = suspects["value"].filter(found).str.extract_all(shape.pattern)
    passed = [any(map(shape.check, cell)) for cell in candidates.to_list()]
    return found.scatter(found.arg_true(), passed)


# --- what a contract's column says of a value -----------------------------------------------------


def _passes(column: dy.Column, over_89: pl.Expr) -> pl.Expr:
    """Whether a value is so clearly what the contract wants that no shape is looked for."""
    if isinstance(column, dy.Enum):
        return _VALUE.is_in(column.categories)
    if column.dtype.is_numeric():
        return _VALUE.str.contains(_SHORT_NUMBER) & ~over_89
    pattern = {TOKEN_PATTERN: TOKEN_PATTERN, PSEUDONYM_PATTERN: _KEYED_PSEUDONYM}.get(
        _pattern(column)
    )
    return pl.lit(False) if pattern is None else _VALUE.str.contains(pattern)


def _fits(column: dy.Column) -> pl.Expr:
    """Whether a value fits the pattern of a column that has one."""
    return _VALUE.str.contains(pattern) if (pattern := _pattern(column)) else pl.lit(False)


def _is_label(column: dy.Column) -> pl.Expr:
    """Whether a value is a label: its column takes more than 64 bytes, so it is meant for words."""
    most = column.max_length if isinstance(column, dy.String) else None
    if most is None or most <= _FREE_TEXT_LENGTH or _pattern(column):
        return pl.lit(False)
    return _VALUE.str.len_bytes() <= most


def _pattern(column: dy.Column) -> str:
    return (column.regex or "") if isinstance(column, dy.String) else ""


def _is_text(column: dy.Column) -> bool:
    return isinstance(column, dy.String | dy.Enum)


def _inner(columns: Iterable[dy.Column]) -> tuple[dy.Column, ...]:
    return tuple(column.inner for column in columns if isinstance(column, dy.List | dy.Array))


def _structs(columns: Iterable[dy.Column]) -> list[dy.Struct]:
    return [column for column in columns if isinstance(column, dy.Struct)]


def _holds_structs(columns: Iterable[dy.Column]) -> bool:
    return bool(_structs(_inner(columns)))


def _any(conditions: Iterable[pl.Expr]) -> pl.Expr:
    return pl.any_horizontal(pl.lit(False), *conditions)


# --- from a column to single values ---------------------------------------------------------------


def _below(leaf: _Leaf, columns: tuple[dy.Column, ...], dtype: Any, step: _Step) -> _Leaf:
    return replace(leaf, columns=columns, dtype=dtype, steps=(*leaf.steps, step))


def _explode(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame.explode("value")


def _field(name: str) -> _Step:
    return lambda frame: frame.with_columns(_VALUE.struct.field(name).alias("value"))


def _split(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame.with_columns(_VALUE.str.split(LIST_SEPARATOR)).explode("value")


def _json_parts(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Texts and long numbers of a JSON list; a cell that is none stays whole."""
    is_list = _VALUE.str.contains(r"^\s*\[") & _VALUE.str.json_path_match("$").is_not_null()
    parts = (
        pl.when(is_list).then(_VALUE.str.extract_all(_JSON_PARTS)).otherwise(pl.concat_list(_VALUE))
    )
    return frame.with_columns(parts).explode("value").with_columns(_VALUE.str.strip_chars('"'))


def _as_text(dtype: pl.DataType) -> pl.Expr:
    """Single values as text: whole numbers without a point, bytes in base64."""
    if dtype.is_float() or dtype.is_decimal():
        number = _VALUE.cast(pl.Float64)
        whole = number.cast(pl.Int64, strict=False)
        return (
            pl.when(whole == number).then(whole.cast(pl.String)).otherwise(number.cast(pl.String))
        ).alias("value")
    if dtype == pl.Binary:
        return _VALUE.bin.encode("base64")
    if dtype == pl.Object:  # Python objects cannot stand in a file
        return pl.lit(None, dtype=pl.String).alias("value")
    return _VALUE.cast(pl.String).str.strip_chars()
