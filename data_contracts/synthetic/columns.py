"""Arrays become columns: lookups in small tables of values, nulls, and the contract's types."""

from collections.abc import Sequence

import dataframely as dy
import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.synthetic.population import BoolArray, IntArray


def conform(frame: pl.DataFrame, schema: type[dy.Schema]) -> pl.DataFrame:
    """The frame with the contract's types."""
    return frame.cast({name: schema.columns()[name].dtype for name in frame.columns})


def pick(values: Sequence[object], index: NDArray[np.generic]) -> pl.Series:
    """`values[index]`; texts come as categories, which are cheap where many rows repeat few."""
    series = pl.Series(values)
    if series.dtype == pl.String:
        series = series.cast(pl.Enum(series.drop_nulls().unique(maintain_order=True)))
    return series.gather(index.astype(np.uint32))


def pick_within(
    groups: Sequence[Sequence[object]], group: IntArray, rng: np.random.Generator
) -> pl.Series:
    """One of the values of each row's group, all equally likely."""
    sizes = np.array([len(values) for values in groups])
    starts = np.cumsum(sizes) - sizes
    chosen = starts[group] + (rng.random(len(group)) * sizes[group]).astype(np.int64)
    return pick([value for values in groups for value in values], chosen)


def null_unless(keep: BoolArray, values: pl.Series | NDArray[np.generic]) -> pl.Series:
    """The values where `keep`, null elsewhere."""
    return pl.select(pl.when(pl.Series(keep)).then(pl.Series(values))).to_series()


def bits(flags: BoolArray) -> IntArray:
    """Rows of flags (n, k) as integers (n,), the first flag being the lowest bit."""
    return np.asarray(flags @ (1 << np.arange(flags.shape[1])), dtype=np.int64)


def running_count(rows: IntArray) -> IntArray:
    """0, 1, 2, ... within each run of equal values."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    lengths = np.diff(starts, append=len(rows))
    return np.arange(len(rows)) - np.repeat(starts, lengths)
