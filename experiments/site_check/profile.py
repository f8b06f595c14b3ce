"""How a table's fields are filled and distributed, against what the network expects of them.

No identifying value is among the figures: tokens are only counted, numbers fall into the cells of
the range that the network publishes, and of codes only the contract's own words are told.
"""

from dataclasses import dataclass, replace
from typing import Final

import dataframely as dy
import polars as pl

from data_contracts.catalog import Contract
from data_contracts.codes.diagnoses import icd10_chapter
from data_contracts.fields import Role, terms_of

CELLS: Final = 20
_MOST_LEVELS: Final = 12
_ROOT_SCALE_FROM: Final = 1000.0
"""Numbers with ranges that reach this far crowd near zero: their cells are equal in square root."""


@dataclass(frozen=True, slots=True)
class FieldProfile:
    """One field of one table at this site.

    Attributes:
        name: Name of the field.
        title: What it is, from the contract.
        unit: Unit of a number, or None.
        held: Whether sites of this role hold the field.
        rows: Valid rows of the table.
        filled: How many of them have a value; of a list, elements or an empty list.
        distinct: Different values among them.
        levels: (value, rows) of the most frequent values of a code, frequent first; empty where
            values may not be told.
        cells: Rows in each of `CELLS` cells of the declared range; empty for what is no number.
        low: Lower end of the cells.
        high: Upper end of the cells.
        outside: Rows below or above the declared range.
    """

    name: str
    title: str
    unit: str | None
    held: bool
    rows: int
    filled: int
    distinct: int
    levels: tuple[tuple[str, int], ...] = ()
    cells: tuple[int, ...] = ()
    low: float = 0.0
    high: float = 0.0
    outside: int = 0

    @property
    def missing(self) -> float:
        """Share of rows without a value."""
        return 1 - self.filled / self.rows if self.rows else 0.0


def profile(contract: Contract, rows: pl.DataFrame, role: Role) -> tuple[FieldProfile, ...]:
    """Every field of a table.

    Args:
        contract: The table's contract.
        rows: Its valid rows.
        role: The site's role.
    """
    return tuple(
        _field(name, column, rows[name], held=terms_of(column).held_by(role))
        for name, column in contract.schema.columns().items()
    )


def _field(name: str, column: dy.Column, values: pl.Series, *, held: bool) -> FieldProfile:
    terms = terms_of(column)
    filled = len(values) - values.null_count()
    title = column.description or name
    elements = _told(name, column, values)
    plain = FieldProfile(name, title, terms.unit, held, len(values), filled, elements.n_unique())
    if not filled:
        return plain
    if terms.declared_range and values.dtype.is_numeric():
        low, high = map(float, terms.declared_range)
        outside = int(((values < low) | (values > high)).sum())
        return replace(plain, cells=_cells(values, low, high), low=low, high=high, outside=outside)
    if terms.classification == "token" or isinstance(column, dy.Struct):
        return plain
    return replace(plain, levels=_levels(elements))


def _told(name: str, column: dy.Column, values: pl.Series) -> pl.Series:
    """The values one by one, as they are counted: elements of lists, chapters of diagnoses."""
    elements = values.explode() if isinstance(column, dy.List) else values
    elements = elements.drop_nulls()
    if isinstance(column, dy.List) and isinstance(column.inner, dy.Struct):
        return elements.struct.field("loinc")
    if name.startswith("dx_"):
        return elements.to_frame().select(icd10_chapter(pl.col(elements.name))).to_series()
    return elements


def _cells(values: pl.Series, low: float, high: float) -> tuple[int, ...]:
    """Rows in each cell between the bounds; those outside are counted at the ends."""
    part = (values.cast(pl.Float64).clip(low, high) - low) / (high - low)
    if high - low >= _ROOT_SCALE_FROM:
        part = part.sqrt()
    cell = (part * CELLS).floor().clip(0, CELLS - 1).cast(pl.UInt8)
    counts = dict(cell.drop_nulls().value_counts().iter_rows())
    return tuple(counts.get(number, 0) for number in range(CELLS))


def _levels(elements: pl.Series) -> tuple[tuple[str, int], ...]:
    counts = elements.cast(pl.String).value_counts(sort=True, name="rows")
    return tuple(counts.head(_MOST_LEVELS).iter_rows())
