"""How a table's fields are filled and distributed, against what the network expects of them.

No identifying value is among the figures: tokens are only counted, numbers fall into the cells of
the range that the network publishes, and of codes only the contract's own words are told.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import dataframely as dy
import polars as pl

from data_contracts.catalog import Contract
from data_contracts.codes.diagnoses import ICD10CM, icd10_chapter
from data_contracts.codes.procedures import HCPCS, service_line
from data_contracts.codes.ranges import unknown_codes
from data_contracts.codes.units import unknown_units
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
        unknown: Why codes or laboratory values are in no group that is known -> how many.
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
    unknown: Mapping[str, int] = field(default_factory=dict)

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
    elements, unknown = _told(name, column, values)
    distinct = elements.n_unique()
    plain = FieldProfile(
        name, title, terms.unit, held, len(values), filled, distinct, unknown=unknown
    )
    if not filled:
        return plain
    if terms.declared_range and values.dtype.is_numeric():
        low, high = map(float, terms.declared_range)
        outside = int(((values < low) | (values > high)).sum())
        return replace(plain, cells=_cells(values, low, high), low=low, high=high, outside=outside)
    if terms.classification == "token" or isinstance(column, dy.Struct):
        return plain
    return replace(plain, levels=_levels(elements))


def _told(name: str, column: dy.Column, values: pl.Series) -> tuple[pl.Series, dict[str, int]]:
    """Values one by one, as they are counted, and those that models know no group for.

    Lists are told by element, diagnoses by chapter, procedures by service line.
    """
    elements = values.explode() if isinstance(column, dy.List) else values
    elements = elements.drop_nulls()
    if isinstance(column, dy.List) and isinstance(column.inner, dy.Struct):
        lab = elements.struct
        return lab.field("loinc"), unknown_units(*map(lab.field, ("loinc", "value", "ucum")))
    if name.startswith("dx_"):
        return _grouped(elements, icd10_chapter), unknown_codes(elements, ICD10CM)
    if name == "procedure_code":
        return _grouped(elements, service_line), unknown_codes(elements, HCPCS)
    return elements, {}


def _grouped(codes: pl.Series, group: Callable[[pl.Expr], pl.Expr]) -> pl.Series:
    return codes.to_frame().select(group(pl.col(codes.name))).to_series().drop_nulls()


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
