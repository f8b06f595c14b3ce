"""What a table holds, value by value: columns, and the fields inside their lists and structures.

Every value comes as text, with what the contract says of the field that it stands in.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import dataframely as dy
import polars as pl

from data_contracts.deidentification.ages import OLDEST_AGE
from data_contracts.vocabulary import PSEUDONYM_PATTERN, TOKEN_PATTERN

LIST_SEPARATOR: Final = "|"
"""Separates the values of a list in a CSV cell."""

LONGEST_CODE: Final = 64
"""Characters that a code has at most; a field that takes more is meant for words."""

VALUE: Final = pl.col("value")

_KEYED_PSEUDONYM = r"^n[0-9a-f]{15}$"  # as `Tokens.pseudonym` makes them
_SHORT_NUMBER = r"^[+-]?[0-9]{0,7}(?:\.[0-9]*)?$"
_EXPONENT = r"^[+-]?[0-9]*\.?[0-9]+[eE][+-]?[0-9]{1,3}$"
_LONG_NUMBER = 10_000_000
_AGE_OVER_89 = r"^(?:9[0-9]|1[0-9]{2})(?:\.[0-9]+)?\s*(?:[+-].*)?$"
_JSON_TEXT = r'"(?:[^"\\]|\\.)*"'
_JSON_NUMBER = r"[0-9][0-9.]{7,}(?:[eE][+-]?[0-9]+)?"

_Step = Callable[[pl.LazyFrame], pl.LazyFrame]


def leaves_of(rows: pl.DataFrame, schema: type[dy.Schema]) -> list["Leaf"]:
    """All leaves of the table's columns that the contract knows, in its order."""
    return [
        leaf
        for name, column in schema.columns().items()
        if name in rows.columns
        for leaf in _leaves(Leaf(name, name, (column,), rows.schema[name]))
    ]


@dataclass(frozen=True, slots=True)
class Leaf:
    """All single values of a column, or of one field inside its lists and structures.

    Attributes:
        path: Its name for people, e.g. "baseline_labs.ucum".
        root: The table's column.
        columns: What the contract says of it: nothing of a field that it does not know, and several
            columns where a JSON text does not tell its fields apart.
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
            tested = VALUE.abs() >= _LONG_NUMBER
            frame = frame.filter(tested | (VALUE > OLDEST_AGE) if self.is_age else tested)
        if distinct:
            frame = frame.select(VALUE.unique())  # rows are many, and values mostly few
        frame = frame.with_columns(_as_text(self.dtype)).filter(VALUE.is_not_null())
        if self.dtype == pl.String and _all_numbers(self.columns):
            has_exponent = VALUE.str.contains(_EXPONENT)
            frame = frame.with_columns(
                pl.when(has_exponent).then(_as_text(pl.Float64())).otherwise(VALUE)
            )
        return frame

    def suspects(self, rows: pl.DataFrame) -> pl.LazyFrame:
        """Distinct values that do not pass at once, and what their contract says of each.

        Columns: value; fits (a pattern); label (in a field that is declared to hold words).
        """
        frame = rows.lazy().select(pl.col(self.root).alias("value"))
        root = rows.schema[self.root]
        if self.is_token and root == pl.String:
            frame = frame.filter(~VALUE.str.contains(TOKEN_PATTERN))
        elif root == pl.String and not self.steps and _all_numbers(self.columns):
            frame = frame.filter(~_is_plain_number(OLDEST_AGE if self.is_age else _LONG_NUMBER))
        elif self.steps == (_split,):
            frame = frame.select(VALUE.unique())  # before cells are split
        over_89 = VALUE.str.contains(_AGE_OVER_89) if self.is_age else pl.lit(False)
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


def _leaves(leaf: Leaf) -> Iterator[Leaf]:
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
            fields = [c for s in _structs(_inner(leaf.columns)) for c in s.inner.values()]
            texts = tuple(column for column in fields if _is_text(column))
            numbers = tuple(column for column in fields if column.dtype.is_numeric())
            yield _below(leaf, texts, leaf.dtype, _json_texts)
            yield _below(leaf, numbers, leaf.dtype, _json_numbers)
        case pl.String() if any(isinstance(column, dy.List) for column in leaf.columns):
            yield _below(leaf, _inner(leaf.columns), leaf.dtype, _split)
        case pl.Enum() if any(column.dtype == leaf.dtype for column in leaf.columns):
            pass  # of this type, values are the contract's
        case pl.Boolean() | pl.Null() | pl.Time() | pl.Duration():
            pass  # nothing identifies that is true, false, or a time without a day
        case pl.Object():
            pass  # stands in no file, and becomes no type of a contract
        case _:
            yield leaf


# --- what a contract's column says of a value -----------------------------------------------------


def _passes(column: dy.Column, over_89: pl.Expr) -> pl.Expr:
    """Whether a value is so clearly what the contract wants that no shape is looked for."""
    if isinstance(column, dy.Enum):
        return VALUE.is_in(column.categories)
    if column.dtype.is_numeric():
        return VALUE.str.contains(_SHORT_NUMBER) & ~over_89
    pattern = {TOKEN_PATTERN: TOKEN_PATTERN, PSEUDONYM_PATTERN: _KEYED_PSEUDONYM}.get(
        _pattern(column)
    )
    return pl.lit(False) if pattern is None else VALUE.str.contains(pattern)


def _fits(column: dy.Column) -> pl.Expr:
    """Whether a value fits the pattern of a column that has one."""
    return VALUE.str.contains(pattern) if (pattern := _pattern(column)) else pl.lit(False)


def _is_label(column: dy.Column) -> pl.Expr:
    """Whether a value is a label: its column takes more than 64 bytes, so it is meant for words."""
    most = column.max_length if isinstance(column, dy.String) else None
    if most is None or most <= LONGEST_CODE or _pattern(column):
        return pl.lit(False)
    return VALUE.str.len_bytes() <= most


def _all_numbers(columns: tuple[dy.Column, ...]) -> bool:
    return bool(columns) and all(column.dtype.is_numeric() for column in columns)


def _is_plain_number(limit: float) -> pl.Expr:
    """Whether a text is a number that passes by rule 4; faster than its pattern, and no wider.

    No longer than seven signs, or with a point behind as many, so that no zero in front
    hides a number of nine digits.
    """
    number = VALUE.cast(pl.Float64, strict=False)
    is_short = (VALUE.str.len_bytes() <= 7) | (VALUE.str.find(".", literal=True) <= 7)
    return ((number.abs() < limit) & is_short).fill_null(value=False)


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


def _below(leaf: Leaf, columns: tuple[dy.Column, ...], dtype: Any, step: _Step) -> Leaf:
    return replace(leaf, columns=columns, dtype=dtype, steps=(*leaf.steps, step))


def _explode(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame.explode("value")


def _field(name: str) -> _Step:
    return lambda frame: frame.with_columns(VALUE.struct.field(name).alias("value"))


def _split(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame.with_columns(VALUE.str.split(LIST_SEPARATOR)).explode("value")


def _json_texts(frame: pl.LazyFrame) -> pl.LazyFrame:
    """What stands in quotes in a JSON list; a cell that is none stays whole."""
    is_list = VALUE.str.contains(r"^\s*\[") & VALUE.str.json_path_match("$").is_not_null()
    quoted = VALUE.str.extract_all(_JSON_TEXT)
    texts = pl.when(is_list).then(quoted).otherwise(pl.concat_list(VALUE))
    plain = VALUE.map_batches(_without_escapes, return_dtype=pl.String, is_elementwise=True)
    return frame.with_columns(texts).explode("value").with_columns(plain)


def _without_escapes(texts: pl.Series) -> pl.Series:
    """Texts of JSON without their quotes and escapes, behind which a day could hide."""
    plain = texts.str.strip_chars('"')
    escaped = texts.str.contains("\\", literal=True).fill_null(value=False)
    if not escaped.any():
        return plain
    return plain.scatter(escaped.arg_true(), [_decoded(text) for text in texts.filter(escaped)])


def _decoded(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:  # a cell that is no JSON
        return text


def _json_numbers(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Numbers of eight signs or more in a JSON list."""
    is_list = VALUE.str.contains(r"^\s*\[") & VALUE.str.contains(_JSON_NUMBER)
    numbers = VALUE.str.replace_all(_JSON_TEXT, '""').str.extract_all(_JSON_NUMBER)
    return frame.filter(is_list).with_columns(numbers).explode("value")


def _as_text(dtype: pl.DataType) -> pl.Expr:
    """Single values as text.

    Whole numbers have neither point nor exponent; bytes that are no text stand in base64.
    """
    if dtype.is_float() or dtype.is_decimal():
        number = VALUE.cast(pl.Float64, strict=False)
        whole = number.cast(pl.Int64, strict=False)
        return (
            pl.when(whole == number).then(whole.cast(pl.String)).otherwise(number.cast(pl.String))
        ).alias("value")
    if dtype == pl.Binary:
        return VALUE.map_batches(_text_of_bytes, return_dtype=pl.String, is_elementwise=True)
    return VALUE.cast(pl.String).str.strip_chars()


def _text_of_bytes(values: pl.Series) -> pl.Series:
    texts = [None if value is None else _text(value) for value in values]
    return pl.Series(values.name, texts, dtype=pl.String)


def _text(value: bytes) -> str:
    """What the contract's cast makes of it, or base64."""
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        return b64encode(value).decode()
