"""Columns as a source holds them become columns as a contract asks for; nothing is dropped."""

from collections.abc import Iterable

import dataframely as dy
import polars as pl

LIST_SEPARATOR = "|"
"""Separates the values of a list in a text cell."""

EMPTY_LIST = "[]"
"""A text cell with an empty list; an empty cell is unknown (null)."""

_JSON_RULE = "|json"
_TRUE, _FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


def conformed(types: pl.Schema, schema: type[dy.Schema]) -> list[pl.Expr]:
    """The contract's columns, made of a source's.

    Text becomes flags and lists, all else is left to the contract's cast; a column that the source
    lacks is null.

    Args:
        types: The source's columns.
        schema: The contract.
    """
    columns = []
    for name, column in schema.columns().items():
        if name not in types:
            columns.append(pl.lit(None, dtype=column.dtype).alias(name))
        elif types[name] == pl.String and column.dtype != pl.String:
            columns.append(_parse_text(name, column))
        else:
            columns.append(pl.col(name))
    return columns


def unparsed(types: pl.Schema, schema: type[dy.Schema]) -> dict[str, pl.Expr]:
    """Rule -> does a cell break it, for what must be found before the contract's types are made.

    Dataframely casts every other type and counts what does not fit. But of flags held as text or
    number polars would call 2 true and refuse text altogether, and text that is no JSON list would
    fail its whole column.
    """
    checks = {}
    for name, column in schema.columns().items():
        if column.dtype == pl.Boolean and types.get(name, pl.Boolean) not in (pl.Boolean, pl.Null):
            word = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase()
            known = word.is_in((*_TRUE, *_FALSE))
            checks[f"{name}|flag"] = (word.is_not_null() & ~known).alias(f"{name}|flag")
        elif _is_list_of_structs(column) and types.get(name) == pl.String:
            text = pl.col(name).str.strip_chars()
            bad = text.is_not_null() & ~_is_json_list(text)
            checks[f"{name}{_JSON_RULE}"] = bad.alias(f"{name}{_JSON_RULE}")
    return checks


def json_hint(rules: Iterable[str]) -> str:
    """Where else to look if a table as a whole cannot be read: its columns of JSON."""
    columns = [rule.removesuffix(_JSON_RULE) for rule in rules if rule.endswith(_JSON_RULE)]
    return f", or JSON with other keys or types in {', '.join(columns)}" if columns else ""


def _parse_text(name: str, column: dy.Column) -> pl.Expr:
    """A text column as the type that its contract asks for."""
    text = pl.col(name).str.strip_chars()
    if column.dtype == pl.Boolean:
        word = text.str.to_lowercase()
        return (
            pl.when(word.is_in(_TRUE)).then(True).when(word.is_in(_FALSE)).then(False).alias(name)
        )
    if isinstance(column, dy.List):
        if _is_list_of_structs(column):
            # One cell that is no JSON would fail the whole column; `unparsed` counts it.
            lists = pl.when(_is_json_list(text)).then(text)
            return lists.str.json_decode(column.dtype).alias(name)
        values = pl.when(text == EMPTY_LIST).then([]).otherwise(text.str.split(LIST_SEPARATOR))
        return values.cast(column.dtype, strict=False).alias(name)
    return text.alias(name)


def _is_list_of_structs(column: dy.Column) -> bool:
    return isinstance(column, dy.List) and isinstance(column.inner, dy.Struct)


def _is_json_list(text: pl.Expr) -> pl.Expr:
    return text.str.starts_with("[") & text.str.json_path_match("$").is_not_null()
