"""The basis of the additive model: tent functions for numbers, indicators for levels.

Built from the noisy histogram of a feature's codes and nothing else, so it costs no privacy beyond
that histogram. Since the histogram determines the second moments within a feature, each feature's
columns come out centred, uncorrelated and of unit variance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.features import Codes, Grid, NumberGrid

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Basis:
    """Tables that turn codes into design-matrix rows.

    Attributes:
        tables: Per feature, shape (n_codes, n_columns): the columns' values at every code.
        frequencies: Per feature, shape (n_codes,): noisy share of each code, sums to 1.
    """

    tables: tuple[Matrix, ...]
    frequencies: tuple[Vector, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """Columns of each feature in the design matrix."""
        ends = np.cumsum([table.shape[1] for table in self.tables]).tolist()
        return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))

    @property
    def n_columns(self) -> int:
        """Number of columns of the design matrix."""
        return sum(table.shape[1] for table in self.tables)

    def design(self, codes: Codes) -> Matrix:
        """Design matrix of shape (n_rows, n_columns)."""
        out = np.empty((codes.shape[0], self.n_columns))
        for feature, (table, columns) in enumerate(zip(self.tables, self.slices, strict=True)):
            np.take(table, codes[:, feature], axis=0, out=out[:, columns], mode="clip")
        return out

    def shapes(self, coefficients: Vector) -> tuple[Vector, ...]:
        """Per feature, the contribution of every code, shape (n_codes,)."""
        return tuple(
            table @ coefficients[columns]
            for table, columns in zip(self.tables, self.slices, strict=True)
        )


def build_basis(
    grids: Sequence[Grid],
    counts: Sequence[Vector],
    *,
    n_patients: float,
    noise_std: float,
    max_knots: int,
) -> Basis:
    """The basis of all features.

    Args:
        grids: Public grid of each feature.
        counts: Noisy patient-weighted count of each code, shape (n_codes,) per feature.
        n_patients: Noisy number of patients.
        noise_std: Standard deviation of the noise in each count.
        max_knots: Knots per number.
    """
    # A count below three standard deviations of its noise, or below ten patients, says nothing
    # about its level: such codes share the feature's average instead of a column of their own.
    smallest = max(3 * noise_std, 10.0)
    tables, frequencies = [], []
    for grid, noisy in zip(grids, counts, strict=True):
        share = np.maximum(noisy, 0.0)
        if noise_std > 0:
            share = np.where(share < 2 * noise_std, 0.0, share)
        if share.sum() <= 0:
            share = np.ones_like(share)
        share = share / share.sum()
        frequent = share * n_patients >= smallest
        if isinstance(grid, NumberGrid):
            tables.append(_whiten(_tents(grid, share, frequent, max_knots), share, 0.0))
        else:
            tables.append(_whiten(np.eye(frequent.size)[:, frequent], share, smallest / n_patients))
        frequencies.append(share)
    return Basis(tuple(tables), tuple(frequencies))


def _tents(grid: NumberGrid, share: Vector, frequent: NDArray[np.bool_], max_knots: int) -> Matrix:
    """Piecewise linear functions on quantile knots, and an indicator of "missing"."""
    cells = share[:-1]
    total = cells.sum()
    missing_column = [np.eye(grid.n_codes)[:, -1:]] if frequent[-1] else []
    if total <= 0:
        return np.hstack(missing_column) if missing_column else np.zeros((grid.n_codes, 0))
    cumulative = np.cumsum(cells) / total
    levels = np.linspace(0.0, 1.0, max_knots)
    positions = np.unique(np.minimum(np.searchsorted(cumulative, levels), grid.cells - 1))
    cell = np.arange(grid.cells)
    tents = np.stack(
        [np.interp(cell, positions, np.eye(positions.size)[k]) for k in range(positions.size)],
        axis=1,
    )
    # Tents add up to one; the first is dropped. Missing values take the average of the others.
    columns = np.vstack([tents[:, 1:], cells @ tents[:, 1:] / total])
    return np.hstack([columns, *missing_column])


def _whiten(raw: Matrix, share: Vector, least_variance: float) -> Matrix:
    """Centre the columns and make them uncorrelated with unit variance under `share`.

    Directions that vary by less than `least_variance` are dropped. For levels that is the variance
    of one too rare for a column: the direction that sets all rare levels against the others goes,
    and they stay near the feature's average.
    """
    if raw.shape[1] == 0:
        return raw
    centred = raw - share @ raw
    values, vectors = np.linalg.eigh(centred.T @ (share[:, None] * centred))
    keep = values > max(least_variance, 1e-6 * values[-1], 1e-12)
    return np.asarray(centred @ (vectors[:, keep] / np.sqrt(values[keep])))
