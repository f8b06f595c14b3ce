"""Columns as a source holds them become columns as a contract asks for; nothing is dropped."""

from collections.abc import Callable, Mapping
from typing import Final

import dataframely as dy
import polars as pl

LIST_SEPARATOR: Final = "|"
"""Separates the values of a list in a text cell."""

EMPTY_LIST: Final = "[]"
"""A text cell with an empty list; an empty cell is unknown (null)."""

_JSON_RULE = "|json"
_TRUE, _FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")

FLAG_WORDS: Final = (*_TRUE, *_FALSE)
"""What a flag may be written as, in lower case."""


def conform(
    batch: pl.DataFrame, schema: type[dy.Schema], typed: Mapping[str, pl.Series] | None = None
) -> tuple[pl.DataFrame, list[str]]:
    """Give a batch the contract's columns.

    Text becomes flags and lists, all else is left to the contract's cast, which counts what does
    not fit. What that cast would get wrong is told apart: of flags held as text or number polars
    would call 2 true and refuse text altogether, text that is no JSON list would fail its whole
    column, 12.5 would become the whole number 12, and a date the number of days since 1970.

    Args:
        batch: Rows as the source has them.
        schema: The contract.
        typed: Columns that have the contract's type already.

    Returns:
        The contract's columns (null where the source lacks one) followed by a flag for each rule
        that cells may break here, and the names of these rules.
    """
    made: list[pl.Series] = []
    broken: list[pl.Series] = []
    for name, column in schema.columns().items():
        if name not in batch.columns:
            made.append(pl.Series(name, [None], dtype=column.dtype).new_from_index(0, len(batch)))
            continue
        if typed and name in typed:
            made.append(typed[name])
            continue
        values = batch.get_column(name)
        if rule := broken_rule(values.dtype, column):
            flags = _BREAKS[rule](values)
            broken.append(flags.fill_null(value=False).alias(name + rule))
        if values.dtype == pl.String and column.dtype != pl.String:
            values = _parse_text(values, column)
        made.append(values.alias(name))
    return pl.DataFrame([*made, *broken]), [flags.name for flags in broken]


def broken_rule(held: pl.DataType, column: dy.Column) -> str:
    """The rule that cells of a source's type may break before the contract's types are made."""
    if column.dtype == pl.Boolean and held not in (pl.Boolean, pl.Null):
        return "|flag"
    if _is_list_of_structs(column) and held == pl.String:
        return _JSON_RULE
    if column.dtype.is_integer() and (held.is_float() or held.is_decimal()):
        return "|whole"
    if column.dtype.is_numeric() and held.is_temporal():
        return "|number"
    if held.is_nested() and not column.dtype.is_nested():
        return "|plain"
    return ""


def json_hint(types: pl.Schema, schema: type[dy.Schema]) -> str:
    """Where else to look if a table as a whole cannot be read: its columns of JSON."""
    columns = [
        name
        for name, column in schema.columns().items()
        if name in types and broken_rule(types[name], column) == _JSON_RULE
    ]
    return f", or JSON with other keys or types in {', '.join(columns)}" if columns else ""


def _typed(text: pl.Series, column: dy.Column) -> pl.Series:
    """Text in the contract's type if all of it fits; else as it is, for the contract to count."""
    typed = text.cast(column.dtype, strict=False)
    return typed if typed.null_count() == text.null_count() else text


def _parse_text(text: pl.Series, column: dy.Column) -> pl.Series:
    """Text as the type that its contract asks for."""
    if column.dtype.is_numeric() and (typed := _typed(text, column)).dtype != pl.String:
        return typed  # there was no blank to strip
    value = pl.col(text.name).str.strip_chars()
    if column.dtype == pl.Boolean:
        word = value.str.to_lowercase()
        made: pl.Expr = pl.when(word.is_in(_TRUE)).then(True).when(word.is_in(_FALSE)).then(False)
    elif _is_list_of_structs(column):
        # One cell that is no JSON would fail the whole column.
        lists = pl.when(_is_json_list(value)).then(value)
        made = lists.str.json_decode(column.dtype)
    elif isinstance(column, dy.List):
        items = pl.when(value == EMPTY_LIST).then([]).otherwise(value.str.split(LIST_SEPARATOR))
        made = items.cast(column.dtype, strict=False)
    else:
        return _typed(_evaluated(text, value), column)
    return _evaluated(text, made)


def _breaks_flag(values: pl.Series) -> pl.Series:
    word = pl.col(values.name).cast(pl.String).str.strip_chars().str.to_lowercase()
    return _evaluated(values, word.is_not_null() & ~word.is_in(FLAG_WORDS))


def _breaks_json(text: pl.Series) -> pl.Series:
    value = pl.col(text.name).str.strip_chars()
    return _evaluated(text, value.is_not_null() & ~_is_json_list(value))


def _breaks_whole(numbers: pl.Series) -> pl.Series:
    value = pl.col(numbers.name).cast(pl.Float64)
    return _evaluated(numbers, value.is_not_null() & ~(value == value.round()))


_BREAKS: Final[Mapping[str, Callable[[pl.Series], pl.Series]]] = {
    "|flag": _breaks_flag,
    _JSON_RULE: _breaks_json,
    "|whole": _breaks_whole,
    "|number": pl.Series.is_not_null,
    "|plain": pl.Series.is_not_null,
}
"""Rule -> which values break it."""


def _evaluated(values: pl.Series, made: pl.Expr) -> pl.Series:
    return values.to_frame().select(made.alias(values.name)).to_series()


def _is_list_of_structs(column: dy.Column) -> bool:
    return isinstance(column, dy.List) and isinstance(column.inner, dy.Struct)


def _is_json_list(text: pl.Expr) -> pl.Expr:
    return text.str.starts_with("[") & text.str.json_path_match("$").is_not_null()
