"""Contract fields become model features on public grids.

A feature maps each row to a small integer code: the cell of a number's grid or the level of a
category, and one more code for "missing". Grids come from the contract (declared ranges, allowed
values) or from the network's roster, never from data: a data-dependent grid would be a release
that nobody accounted for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import dataframely as dy
import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.catalog import CONTRACTS
from data_contracts.errors import GroundTruthError
from data_contracts.fields import Available, terms_of

Codes = NDArray[np.uint8]
Scale = Literal["linear", "log1p"]


class LeakError(GroundTruthError):
    """A feature is known only after the moment at which the model predicts."""


@dataclass(frozen=True, slots=True)
class NumberGrid:
    """Cells of equal width between public bounds, on a linear or log(1 + x) scale.

    Attributes:
        low: Lower bound, in `unit`; smaller values fall into the first cell.
        high: Upper bound, in `unit`; larger values fall into the last cell.
        cells: Number of cells, at most 254.
        scale: "log1p" for long-tailed counts and amounts.
        unit: Unit of the bounds.
    """

    low: float
    high: float
    cells: int = 64
    scale: Scale = "linear"
    unit: str | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a grid needs finite bounds with low < high, not {self}")
        if not 2 <= self.cells <= 254:
            raise ValueError(f"a grid has 2 to 254 cells, not {self.cells}")
        if self.scale == "log1p" and self.low < 0:
            raise ValueError(f"a log1p grid starts at 0 or above, not at {self.low}")

    @property
    def n_codes(self) -> int:
        """Number of codes, "missing" included."""
        return self.cells + 1

    def encode(self, value: pl.Expr) -> pl.Expr:
        """Cell of each value as UInt8; null and NaN become the last code."""
        low, high = self._ends()
        bounded = value.cast(pl.Float64).clip(self.low, self.high)
        scaled = bounded.log1p() if self.scale == "log1p" else bounded
        cell = ((scaled - low) * (self.cells / (high - low))).floor().clip(0, self.cells - 1)
        return cell.fill_nan(None).cast(pl.UInt8).fill_null(self.cells)

    def centers(self) -> NDArray[np.float64]:
        """Middle of each cell on the grid's own scale mapped back to `unit`, shape (cells,)."""
        steps = (np.arange(self.cells) + 0.5) / self.cells
        low, high = self._ends()
        middles = low + steps * (high - low)
        return np.expm1(middles) if self.scale == "log1p" else middles

    def _ends(self) -> tuple[float, float]:
        """The bounds on the grid's scale."""
        if self.scale == "log1p":
            return math.log1p(self.low), math.log1p(self.high)
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class LevelGrid:
    """Named levels; whatever is not among them counts as missing.

    Attributes:
        levels: The levels, at most 254, in the order of their codes.
    """

    levels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.levels) <= 254 or len(set(self.levels)) != len(self.levels):
            raise ValueError(f"a level grid has 1 to 254 different levels, not {self.levels}")

    @property
    def n_codes(self) -> int:
        """Number of codes, "missing" included."""
        return len(self.levels) + 1

    def encode(self, value: pl.Expr) -> pl.Expr:
        """Code of each value as UInt8; null and unknown levels become the last code."""
        codes = range(len(self.levels))
        return value.cast(pl.String).replace_strict(
            list(self.levels), list(codes), default=len(self.levels), return_dtype=pl.UInt8
        )


Grid = NumberGrid | LevelGrid
RosterLevels = Literal["payers", "providers", "sites"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a model.

    Attributes:
        name: Column name of the feature.
        title: What people read.
        sources: The contract fields that it is made of, as "table.field".
        value: Expression over the joined tables of a task.
        grid: Its public grid; the name of a roster list where the levels are the network's members.
    """

    name: str
    title: str
    sources: tuple[str, ...]
    value: pl.Expr = field(compare=False, repr=False)
    grid: Grid | RosterLevels

    @property
    def available_at(self) -> Available:
        """When the last of its sources becomes known."""
        order = list(Available)
        times = (terms_of(contract_field(source)).available_at for source in self.sources)
        return max(times, key=order.index)


def contract_field(source: str) -> dy.Column:
    """The contract column behind "table.field".

    Raises:
        ValueError: No contract has it.
    """
    table, _, name = source.partition(".")
    contract = CONTRACTS.get(table)
    if contract is None or name not in contract.schema.columns():
        raise ValueError(f"{source!r} is no field of a contract")
    return contract.schema.columns()[name]


def number(
    source: str,
    title: str,
    *,
    value: pl.Expr | None = None,
    name: str | None = None,
    bounds: tuple[float, float] | None = None,
    cells: int = 64,
    scale: Scale = "linear",
    also: Sequence[str] = (),
) -> Feature:
    """A number; its bounds are the field's declared range unless given.

    Args:
        source: "table.field".
        title: What people read.
        value: Expression, where the feature is derived from the field.
        name: Name of the feature; the field's unless given.
        bounds: Public bounds of a derived number.
        cells: Cells of the grid.
        scale: Scale of the grid.
        also: Further fields that a derived feature reads.
    """
    declared = terms_of(contract_field(source))
    low_high = bounds or declared.declared_range
    if low_high is None:
        raise ValueError(f"{source!r} declares no range: give bounds")
    column = source.partition(".")[2]
    return Feature(
        name=name or column,
        title=title,
        sources=(source, *also),
        value=pl.col(column) if value is None else value,
        grid=NumberGrid(*low_high, cells=cells, scale=scale, unit=declared.unit),
    )


def category(
    source: str,
    title: str,
    *,
    value: pl.Expr | None = None,
    name: str | None = None,
    levels: tuple[str, ...] | RosterLevels | None = None,
    also: Sequence[str] = (),
) -> Feature:
    """A category; its levels are the field's allowed values unless given (see `number`)."""
    column = contract_field(source)
    field_name = source.partition(".")[2]
    grid: Grid | RosterLevels
    if levels is None:
        if not isinstance(column, dy.Enum):
            raise ValueError(f"{source!r} has no list of allowed values: give levels")
        grid = LevelGrid(tuple(column.categories))
    else:
        grid = levels if isinstance(levels, str) else LevelGrid(tuple(levels))
    return Feature(
        name=name or field_name,
        title=title,
        sources=(source, *also),
        value=pl.col(field_name) if value is None else value,
        grid=grid,
    )


def flag(
    source: str,
    title: str,
    *,
    value: pl.Expr | None = None,
    name: str | None = None,
    also: Sequence[str] = (),
) -> Feature:
    """A yes/no feature (see `number`)."""
    expr = pl.col(source.partition(".")[2]) if value is None else value
    yes_no = pl.when(expr).then(pl.lit("yes")).when(expr.not_()).then(pl.lit("no"))
    return category(source, title, value=yes_no, name=name, levels=("no", "yes"), also=also)


def resolve(
    features: Sequence[Feature],
    index_time: Available,
    roster: Mapping[str, Sequence[str]],
) -> tuple[Feature, ...]:
    """The features with roster levels filled in, checked against the time of the prediction.

    Args:
        features: Features of a task.
        index_time: When the model predicts.
        roster: "payers", "providers" and "sites" -> names in the order that all sites share.

    Raises:
        LeakError: A feature is known only after `index_time`, or reads an undeclared field.
    """
    resolved = []
    for feature in features:
        if not feature.available_at.known_at(index_time):
            raise LeakError(
                f"feature {feature.name!r} is known only at {feature.available_at}, but the model "
                f"predicts at {index_time}: remove it or predict later"
            )
        declared = {source.partition(".")[2] for source in feature.sources}
        if hidden := set(feature.value.meta.root_names()) - declared:
            raise LeakError(
                f"feature {feature.name!r} reads {', '.join(sorted(hidden))} without declaring it "
                "as a source, so nobody knows when it is known: name it under `also`"
            )
        if isinstance(feature.grid, str):
            feature = replace(feature, grid=LevelGrid(tuple(roster[feature.grid])))
        resolved.append(feature)
    return tuple(resolved)


def grid_of(feature: Feature) -> Grid:
    """The grid of a resolved feature."""
    if isinstance(feature.grid, str):
        raise ValueError(f"feature {feature.name!r} is not resolved against a roster")
    return feature.grid


def encode(frame: pl.DataFrame, features: Sequence[Feature]) -> Codes:
    """Codes of every row and feature.

    Args:
        frame: Joined contract tables of a task, n rows.
        features: Resolved features.

    Returns:
        Codes of shape (n, n_features), Fortran order: a feature's codes lie together.
    """
    encoded = frame.select(
        grid_of(feature).encode(feature.value).alias(feature.name) for feature in features
    )
    return np.asfortranarray(encoded.to_numpy())
