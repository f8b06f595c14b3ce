"""Recalibration: a slope and a shift of the score, from noisy counts of labels by score."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.queries import sigmoid

Vector = NDArray[np.float64]

_SLOPE_SPREAD = 0.5
"""How far from 1 slopes lie before any count is seen, as a standard deviation. Where noise makes
the counts less certain than that, the slope is pulled to 1."""


@dataclass(frozen=True, slots=True)
class Recalibration:
    """log-odds = slope * score + shift.

    Attributes:
        slope: Slope of the score.
        shift: Shift, in log-odds.
        slope_variance: Variance of the slope, noise and sampling together.
        curvature: Average p(1 - p) per record after recalibration.
    """

    slope: float
    shift: float
    slope_variance: float
    curvature: float


def recalibrate(counts: Vector, noise_std: float, limit: float, base_rate: float) -> Recalibration:
    """Fit slope and shift to noisy counts by score bin.

    Args:
        counts: Counts of label 0 in every bin, then of label 1, shape (2 * bins,).
        noise_std: Standard deviation of the noise in each count.
        limit: The bins lie evenly on [-limit, limit] log-odds.
        base_rate: Share of label 1, used where the counts say nothing.

    Returns:
        No change where noise drowns all but one bin, or the fit runs away.

    Source: Platt (1999), by Newton steps on bins that stand out of the noise.
    """
    unchanged = Recalibration(1.0, 0.0, _SLOPE_SPREAD**2, base_rate * (1 - base_rate))
    negatives, positives = np.split(counts, 2)
    bins = negatives.size
    centers = (np.arange(bins) + 0.5) * (2 * limit / bins) - limit
    heard = negatives + positives > 3 * math.sqrt(2) * noise_std
    centers, negatives, positives = centers[heard], negatives[heard], positives[heard]
    if centers.size < 2:
        return unchanged
    design = np.stack([centers, np.ones_like(centers)])
    line = np.array([1.0, 0.0])
    for _ in range(25):
        rate, hessian = _hessian(design, line, negatives + positives)
        smallest, largest = np.linalg.eigvalsh(hessian)
        if not smallest > 1e-12 * largest:
            return unchanged
        move = np.linalg.solve(hessian, design @ ((negatives + positives) * rate - positives))
        line = line - move
        if np.abs(move).max() < 1e-10:
            break
    rate, hessian = _hessian(design, line, negatives + positives)
    if not (0.2 < line[0] < 5.0 and abs(line[1]) < 5.0):
        return unchanged
    inverse = np.linalg.inv(hessian)
    noise = (design * (noise_std**2 * (rate**2 + (1 - rate) ** 2))) @ design.T
    variance = float((inverse @ (hessian + noise) @ inverse)[0, 0])
    pull = _SLOPE_SPREAD**2 / (_SLOPE_SPREAD**2 + variance)
    slope = 1.0 + pull * (float(line[0]) - 1.0)
    # The shift that goes with the pulled slope, to first order.
    shift = float(line[1]) - (slope - float(line[0])) * float(hessian[0, 1] / hessian[1, 1])
    weight = (negatives + positives) * rate * (1 - rate)
    curvature = float(weight.sum() / (negatives + positives).sum())
    return Recalibration(slope, shift, pull * variance, curvature)


def _hessian(design: Vector, line: Vector, totals: Vector) -> tuple[Vector, Vector]:
    """Predicted rate of every bin, and the Hessian of the logistic loss."""
    rate = sigmoid(line @ design)
    return rate, (design * (totals * rate * (1 - rate))) @ design.T
