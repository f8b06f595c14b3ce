"""Figures of a score from its histogram: a value, and how it moves with every count.

Counts go into the figures as they came, negative ones included. Noise that is cut off at zero no
longer averages out: it would fill empty bins and pull the AUROC to one half.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.queries import sigmoid
from models.score_histogram import ScoreBins, ScoreHistogram

Vector = NDArray[np.float64]
Array = NDArray[np.float64]

SIGNAL: Final = 5.0
"""A count that is divided by must exceed the standard deviation of its noise so many times. Below,
a quotient is not near linear in the noise, and no interval means what it says."""

LEAST_OF_A_LABEL: Final = 30
"""The same for sampling: an area or a line from fewer records of a label has no normal error."""

_SLICES = 8


@dataclass(frozen=True, slots=True)
class Cells:
    """The noisy counts of one stratum.

    Attributes:
        sums: See `ScoreHistogram.sums`, shape (3, n_bins).
        noise_std: Standard deviation of the noise in each.
        middle: Middle of each bin in probability, shape (n_bins,).
        width: Its width in probability, shape (n_bins,).
        typical: Probabilities typical of each bin, ascending, shape (n_bins, n_slices).
        rates: How often label 1 occurs at each of these, as far as is known.
    """

    sums: Array
    noise_std: float
    middle: Vector
    width: Vector
    typical: Array
    rates: Array

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return int(self.middle.size)

    @property
    def rows(self) -> float:
        """Number of records."""
        return float(self.sums[:2].sum())

    @property
    def positives(self) -> float:
        """Number of records with label 1."""
        return float(self.sums[1].sum())

    @property
    def rarer(self) -> float:
        """Records of the rarer label."""
        return min(self.positives, self.rows - self.positives)

    @property
    def expected(self) -> "Cells":
        """The same records with as many positives in each bin as were predicted."""
        rows = self.sums[0] + self.sums[1]
        positives = rows * self.middle + self.sums[2] * self.width
        return replace(self, sums=np.stack([rows - positives, positives, self.sums[2]]))

    @property
    def heard(self) -> bool:
        """Do the records stand out of the noise?"""
        return self.rows > max(SIGNAL * self.noise_std * math.sqrt(2 * self.n_bins), 0.5)

    @property
    def ranked(self) -> bool:
        """Do records of either label stand out of the noise, as far as the model can tell?"""
        noise = self.noise_std * math.sqrt(self.n_bins)
        return (
            self.heard
            and self.expected.rarer > max(SIGNAL * noise, LEAST_OF_A_LABEL)
            and self.rarer > max(SIGNAL * noise, 0.5)
        )

    def bin(self, number: int) -> "Cells":
        """One bin as a stratum of its own."""
        at = slice(number, number + 1)
        return replace(
            self,
            sums=self.sums[:, at],
            middle=self.middle[at],
            width=self.width[at],
            typical=self.typical[at],
            rates=self.rates[at],
        )

    def along(self, line: tuple[float, float]) -> "Cells":
        """The rates as a calibration line gives them."""
        slope, intercept = line
        scores = np.log(self.typical / (1 - self.typical))
        return replace(self, rates=sigmoid(np.clip(slope * scores + intercept, -20.0, 20.0)))


def strata_of(histogram: ScoreHistogram) -> list[Cells]:
    """One stratum per level."""
    bins = histogram.bins
    middle, width, typical = bins.middle, bins.width, _typical(bins)
    return [
        Cells(sums, histogram.noise_std, middle, width, typical, rates=typical)
        for sums in histogram.sums
    ]


def _typical(bins: ScoreBins) -> Array:
    """Probabilities typical of each bin, ascending, shape (n_bins, n_slices).

    Fine bins hold about as many records each. Within one, scores are taken to be evenly spread; in
    the open ones they fall off exponentially, on the scale of the neighbour's width. This orders
    records within a bin, which counts alone cannot do; how many there are is counted.
    """
    share = (np.arange(_SLICES) + 0.5) / _SLICES
    widths = np.diff(bins.edges)
    lowest, highest = (widths[0], widths[-1]) if widths.size else (1.0, 1.0)
    scores = np.vstack(
        [
            bins.edges[0] + lowest * np.log(share),
            bins.edges[:-1, None] + widths[:, None] * share,
            bins.edges[-1] - highest * np.log1p(-share),
        ]
    )
    return sigmoid(np.clip(scores, -20.0, 20.0)).reshape(bins.n_bins, -1)


Figure = Callable[[Cells], tuple[float, Array]]
"""A value, and its gradient by the sums of a stratum, shape (3, n_bins)."""


def share(part: Array) -> Figure:
    """A weighted sum of the counts over the number of records."""

    def figure(cells: Cells) -> tuple[float, Array]:
        value = float((part * cells.sums).sum()) / cells.rows
        return value, (part - value * np.array([[1.0], [1.0], [0.0]])) / cells.rows

    return figure


def _smooth(formula: Callable[[Array, Cells], Array]) -> Figure:
    """A formula that maps sums (..., 3, n_bins) to (...); its gradient by central differences."""

    def figure(cells: Cells) -> tuple[float, Array]:
        n = cells.sums.size
        step = 1e-5 * cells.rows
        moves = step * np.eye(n).reshape(n, *cells.sums.shape)
        change = formula(cells.sums + moves, cells) - formula(cells.sums - moves, cells)
        return float(formula(cells.sums, cells)), (change / (2 * step)).reshape(cells.sums.shape)

    return figure


def _by_rank(sums: Array, cells: Cells) -> tuple[Array, Array]:
    """Negatives and positives in slices of ascending score, each of shape (..., slices)."""
    rates = cells.rates
    negatives = sums[..., 0, :, None] * (1 - rates) / (1 - rates).sum(axis=1, keepdims=True)
    positives = sums[..., 1, :, None] * rates / rates.sum(axis=1, keepdims=True)
    shape = (*sums.shape[:-2], -1)
    return negatives.reshape(shape), positives.reshape(shape)


@_smooth
def auroc(sums: Array, cells: Cells) -> Array:
    """Share of pairs of both labels in the right order; ties count half.

    Numerator and denominator are sums of products of counts whose noises are independent, hence
    unbiased. Source: Mann and Whitney (1947).
    """
    negatives, positives = _by_rank(sums, cells)
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    pairs = negatives.sum(axis=-1) * positives.sum(axis=-1)
    return np.asarray((positives * below).sum(axis=-1) / pairs)


@_smooth
def auprc(sums: Array, cells: Cells) -> Array:
    """Mean precision at the positives; records of equal score come in the order of chance.

    Source: Davis and Goadrich (ICML 2006), for counts that grow linearly between two points.
    """
    negatives, positives = (part[..., ::-1] for part in _by_rank(sums, cells))
    true = np.cumsum(positives, axis=-1) - positives / 2
    chosen = true + np.cumsum(negatives, axis=-1) - negatives / 2
    precision = np.clip(true / np.where(chosen == 0, 1.0, chosen), 0.0, 1.0)
    return np.asarray((positives * precision).sum(axis=-1) / positives.sum(axis=-1))


@_smooth
def brier(sums: Array, cells: Cells) -> Array:
    """Mean squared difference between label and probability.

    Taken about each bin's mean probability, and corrected for what goes on within the bin, which
    is the variance of the probabilities less twice their covariance with the rates.
    """
    mean = bin_means(sums, cells)
    negatives, positives = sums[..., 0, :], sums[..., 1, :]
    rows = negatives + positives
    spread = cells.typical - cells.typical.mean(axis=1, keepdims=True)
    within = (spread * (spread - 2 * cells.rates)).mean(axis=1)
    losses = positives * (1 - mean) ** 2 + negatives * mean**2 + rows * within
    return np.asarray(losses.sum(axis=-1) / rows.sum(axis=-1))


def bin_means(sums: Array, cells: Cells) -> Array:
    """Mean probability of each bin, as measured but held within the bin, shape (..., n_bins)."""
    rows = sums[..., 0, :] + sums[..., 1, :]
    position = np.clip(sums[..., 2, :] / np.where(rows == 0, 1.0, rows), -0.5, 0.5)
    return np.asarray(cells.middle + cells.width * position)


def calibration_slope(cells: Cells) -> tuple[float, Array]:
    """Slope of the calibration line; see `_calibration_line`."""
    return _calibration_line(cells, 0)


def calibration_intercept(cells: Cells) -> tuple[float, Array]:
    """Its intercept, in log-odds."""
    return _calibration_line(cells, 1)


def _calibration_line(cells: Cells, number: int) -> tuple[float, Array]:
    """Slope (0) or intercept (1) of the label's log-odds on the score; NaN where noise hides it.

    Solves sum of (score, 1) * (positives - expected positives) = 0. A bin expects its summed
    probabilities, and on top what the line adds to them at the bin's typical score: a perfect model
    has slope 1 and intercept 0 wherever in the bins its scores lie.

    Source: Cox (1958).
    """
    start = cells.typical.mean(axis=1)
    score = np.log(start / (1 - start))
    design = np.stack([score, np.ones_like(score)])
    rows = cells.sums[0] + cells.sums[1]
    excess = cells.sums[1] - rows * cells.middle - cells.sums[2] * cells.width
    line = np.array([1.0, 0.0])
    nowhere = math.nan, np.full_like(cells.sums, math.nan)
    for _ in range(50):
        rate = sigmoid(line @ design)
        hessian = (design * (rows * rate * (1 - rate))) @ design.T
        if not np.linalg.eigvalsh(hessian)[0] > 1e-9 * cells.rows:
            return nowhere
        move = np.linalg.solve(hessian, design @ (excess - rows * (rate - start)))
        line = line + np.clip(move, -1.0, 1.0)
        if np.abs(move).max() < 1e-10:
            break
    else:
        return nowhere
    expected = cells.middle + rate - start
    residuals = np.stack([-expected, 1 - expected, -cells.width])
    return float(line[number]), residuals * (np.linalg.inv(hessian)[number] @ design)
