"""Text that repeats is judged once: a value that has passed the gate and its column's rules passes.

Most columns of a table hold few values again and again. Each is looked at when it is first met;
from then on a row only asks whether its value is known, and takes the typed value that was made.
Tokens do not repeat, but one look at each is enough for all rules on them. What no value can tell
alone (rules between fields, empty cells, keys) is left to the contract.
"""

from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import Final

import dataframely as dy
import polars as pl

from data_contracts.conform import conform
from data_contracts.deidentification.policy import Policy
from data_contracts.deidentification.values import IdentifierError, are_tokens, check_values
from data_contracts.readers.events import PROVENANCE
from data_contracts.vocabulary import TOKEN_PATTERN

_FEW_VALUES: Final = 1000
_ROWS_PER_VALUE: Final = 4
"""A column has few values, or as many rows of a batch as this to each; else it hardly repeats."""

_Texts = dict[str, pl.Series]


class KnownValues:
    """The values of a source's columns of text that have passed so far.

    A column in which a value fails, or values hardly repeat, is given up and judged row by row, so
    that what fails is counted and named as if there were no short cut.

    Args:
        types: Columns and types of the source.
        schema: The contract.
        policy: The ground on which the gate judges.
    """

    def __init__(self, types: pl.Schema, schema: type[dy.Schema], policy: Policy) -> None:
        self._schema = schema
        self._policy = policy
        columns = {
            name: column
            for name, column in schema.columns().items()
            if types.get(name) == pl.String and name not in PROVENANCE
        }
        self._tokens = [name for name, column in columns.items() if _is_token(column)]
        self._made = {
            name: (pl.Enum([]), pl.Series(name, [], column.dtype))
            for name, column in columns.items()
            if name not in self._tokens
        }  # column -> texts, and the typed value of each

    def typed(self, batch: pl.DataFrame) -> _Texts:
        """Columns of which all values have passed, typed as in the contract."""
        tokens = {name: batch[name] for name in self._tokens if are_tokens(batch[name])}
        batch = batch.select(list(self._made))
        codes = self._codes(batch)
        fresh = {
            column.name: column.filter(codes[column.name].is_null()).drop_nulls().unique()
            for column in batch
            if codes[column.name].null_count() > column.null_count()
        }
        if fresh:
            self._learn(fresh, batch.height)
            codes = codes.with_columns(self._codes(batch.select(fresh.keys() & self._made.keys())))
        return tokens | {
            name: batch[name] if values.dtype == pl.String else values.gather(codes[name])
            for name, (_, values) in self._made.items()
        }

    def rules_left(self, typed: Mapping[str, pl.Series]) -> type[dy.Schema]:
        """The contract without the rules that these columns are known to keep."""
        columns = self._schema.columns()
        kept = (name for name in typed if columns[name].nullable or not typed[name].null_count())
        return _without_rules(self._schema, frozenset(kept))

    def _codes(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Positions of texts among those that are known; null for any other."""
        return batch.select(
            pl.col(name).cast(self._made[name][0], strict=False).to_physical()
            for name in batch.columns
        )

    def _learn(self, fresh: _Texts, rows: int) -> None:
        made = self._judged(fresh)
        if made is None and len(fresh) > 1:
            for name, texts in fresh.items():
                self._learn({name: texts}, rows)
            return
        for name, texts in fresh.items():
            known, values = self._made.pop(name)
            most = max(_FEW_VALUES, rows // _ROWS_PER_VALUE)
            if made is not None and len(values) + len(texts) <= most:
                texts = pl.concat([known.categories, texts])
                self._made[name] = (pl.Enum(texts), values.append(made[name]))

    def _judged(self, fresh: _Texts) -> _Texts | None:
        """The texts' typed values; None where one breaks a rule."""
        rows = pl.concat([texts.to_frame() for texts in fresh.values()], how="horizontal_extend")
        schema = _values_of(self._schema, tuple(fresh))
        try:
            check_values(rows, schema, source="", policy=self._policy)
        except IdentifierError:
            return None
        made, rules = conform(rows, schema)
        valid, failure = schema.filter(made.drop(rules), cast=True)
        if len(failure) or any(made[rule].any() for rule in rules):
            return None
        return {name: valid[name].head(len(texts)) for name, texts in fresh.items()}


def _is_token(column: dy.Column) -> bool:
    return isinstance(column, dy.String) and column.regex == TOKEN_PATTERN


@cache
def _values_of(schema: type[dy.Schema], names: tuple[str, ...]) -> type[dy.Schema]:
    """The contract's columns one by one; each may be empty, and no rule is between them."""
    columns = {name: copy(schema.columns()[name]) for name in names}
    for column in columns.values():
        column.nullable = True
    return type("Values", (dy.Schema,), columns)


@cache
def _without_rules(schema: type[dy.Schema], names: frozenset[str]) -> type[dy.Schema]:
    """The contract, but these columns may hold anything."""
    return type(schema.__name__, (schema,), {name: dy.Any() for name in names})
