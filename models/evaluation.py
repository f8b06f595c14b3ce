"""How good a model is, from one noisy histogram: figures with intervals that own up to the noise.

Every interval holds two errors: that of sampling patients, and that of the noise which protects
them. Both are propagated to first order (the delta method): a figure is a smooth function of the
histogram, and the variance of every cell is known. A bootstrap of the noisy histogram would add
the noise a second time, and with it the bias of every quotient.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.score_figures import (
    Cells,
    Figure,
    auprc,
    auroc,
    bin_means,
    brier,
    calibration_intercept,
    calibration_slope,
    share,
    strata_of,
)
from models.score_histogram import EvaluationQuery

Vector = NDArray[np.float64]
Array = NDArray[np.float64]

_Z = 1.959963984540054
"""Quantile of the normal distribution for intervals of 95 %."""

_WIDEST = 0.1
"""Largest half-width of an interval at which a figure in [0, 1] is told. A rate must besides be
known to within the expected rate of the rarer label, overall or in its stratum."""

_WIDEST_SLOPE = 0.5
"""Likewise for the calibration slope; the intercept is told with it."""

_LEAST_FOR_PRECISION = 100
"""Positives below which the error of mean precision is too skewed for an interval."""

_ANYWHERE = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Stratum:
    """Records that belong together: all of them, those of a score bin, or those of a subgroup.

    Attributes:
        rows: Number of records. Its interval and that of `positives` hold noise only: these
            are the records that there were.
        positives: Number of records with label 1.
        observed: Share of label 1.
        predicted: Mean predicted probability.
        gap: Observed minus predicted.
        auroc: Area under the ROC curve; None for a score bin.

    Rates and areas are None where there are not enough data under the noise; everything is None
    where `models.suppression` hides the stratum.
    """

    rows: Estimate | None
    positives: Estimate | None
    observed: Estimate | None
    predicted: Estimate | None
    gap: Estimate | None
    auroc: Estimate | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model is on held-out patients.

    Attributes:
        patients: Number of patients; None where it is hidden.
        overall: All records.
        auprc: Area under the precision-recall curve.
        brier: Mean squared difference between label and probability.
        calibration_slope: Slope of the logistic regression of the label on the score. 1 is
            perfect; below 1, scores are too extreme (Cox 1958).
        calibration_intercept: Its intercept, in log-odds; 0 is perfect.
        calibration_error: Root mean square over the score bins of observed minus predicted rate,
            freed of what sampling and noise add to it.
        reliability: One stratum per score bin, from the lowest scores up.
        groups: For every group feature of the query, one stratum per code.

    A figure is None where there are not enough data under the noise: a count that it divides by
    does not stand out of the noise, or its interval is too wide to tell anything.
    """

    patients: Estimate | None
    overall: Stratum
    auprc: Estimate | None
    brier: Estimate | None
    calibration_slope: Estimate | None
    calibration_intercept: Estimate | None
    calibration_error: Estimate | None
    reliability: tuple[Stratum, ...]
    groups: tuple[tuple[Stratum, ...], ...]


def evaluate(
    query: EvaluationQuery, values: Vector, noise_std: float, *, max_records: int
) -> Evaluation:
    """The figures behind a noisy sum of answers, those of all sites or of one.

    Args:
        query: What was asked.
        values: The noisy sum, shape (query.n_values,).
        noise_std: Standard deviation of the noise in each value; 0 where there is none.
        max_records: Records of a patient that the sites use at most.

    Raises:
        ValueError: The vector does not fit the query.

    Guarantees:
        What is private in `values` stays so: this is post-processing and looks at no record.

    Records of a patient are alike. The variance of sampling is that of independent records times
    the largest factor that likeness can cause where patients with many records are no more extreme
    than others: the mean squared number of records per patient over the mean number m, which is at
    most 1 + max_records - max_records / m. A patient at two sites counts as two.
    """
    counts = query.unpack(values, noise_std)
    everyone = strata_of(counts.overall)[0]
    mean_records = everyone.rows / counts.patients if counts.patients > 0 else 1.0
    factor = 1 + max_records - max_records / min(max(mean_records, 1.0), max_records)
    rarer = everyone.expected.rarer / everyone.rows if everyone.heard else 0.0

    slope = intercept = None
    if everyone.ranked:
        slope = _estimate(
            calibration_slope, everyone, factor, widest=_WIDEST_SLOPE, within=_ANYWHERE
        )
    if slope:
        intercept = _estimate(
            calibration_intercept, everyone, factor, widest=math.inf, within=_ANYWHERE
        )
    # Within a bin, too, rates rise as the calibration line says, where it is known.
    line = (slope.value, intercept.value) if slope and intercept else (1.0, 0.0)
    everyone = everyone.along(line)
    bins = [everyone.bin(number) for number in range(everyone.n_bins)]
    # Precision starts with the records of the highest bin: they, too, are divided by.
    precise = (
        everyone.ranked and everyone.expected.positives > _LEAST_FOR_PRECISION and bins[-1].heard
    )
    return Evaluation(
        patients=_count(counts.patients, counts.patients_std),
        overall=_stratum(everyone, factor, rarer),
        auprc=_estimate(auprc, everyone, factor) if precise else None,
        brier=_estimate(brier, everyone, factor) if everyone.heard else None,
        calibration_slope=slope,
        calibration_intercept=intercept,
        calibration_error=_calibration_error(bins, factor),
        reliability=tuple(_stratum(own, factor, rarer) for own in bins),
        groups=tuple(
            tuple(_stratum(level.along(line), factor, rarer) for level in strata_of(group))
            for group in counts.groups
        ),
    )


def _stratum(cells: Cells, factor: float, rarer: float) -> Stratum:
    """Counts, rates and area of a stratum; `rarer` is the rate of the rarer label overall."""
    own = cells.expected.rarer / cells.rows if cells.heard else 0.0
    widest = min(_WIDEST, max(rarer, own))
    each, zero = np.ones(cells.n_bins), np.zeros(cells.n_bins)
    positives = np.stack([zero, each, zero])
    predicted = np.stack([cells.middle, cells.middle, cells.width])
    observed_rate, predicted_rate, gap = (
        _estimate(share(part), cells, factor, widest=widest, within=(least, 1.0))
        if cells.heard
        else None
        for part, least in ((positives, 0.0), (predicted, 0.0), (positives - predicted, -1.0))
    )
    noise = cells.noise_std * math.sqrt(cells.n_bins)
    return Stratum(
        rows=_count(cells.rows, noise * math.sqrt(2)),
        positives=_count(cells.positives, noise),
        observed=observed_rate,
        predicted=predicted_rate,
        gap=gap,
        auroc=_estimate(auroc, cells, factor) if cells.n_bins > 1 and cells.ranked else None,
    )


def _count(value: float, std: float) -> Estimate:
    return Estimate(value, value - _Z * std, value + _Z * std)


def _estimate(
    figure: Figure,
    cells: Cells,
    factor: float,
    *,
    widest: float = _WIDEST,
    within: tuple[float, float] = (0.0, 1.0),
) -> Estimate | None:
    """A figure with its interval, unless that is too wide to tell anything.

    How wide it may be expected to be is computed from predictions, not from labels: figures that
    are told when chance made their interval short would be off by more than the interval says.
    """
    expected = cells.expected
    if not _Z * _std(figure(expected)[1], expected, factor) <= widest:
        return None
    value, gradient = figure(cells)
    half = _Z * _std(gradient, cells, factor)
    if not math.isfinite(half):
        return None
    return Estimate(
        *(min(max(end, within[0]), within[1]) for end in (value, value - half, value + half))
    )


def _std(gradient: Array, cells: Cells, factor: float) -> float:
    """Standard deviation of a figure with this gradient, sampling and noise together.

    A record adds 1 to a count, and its position in the bin to the sum of positions. Two records
    more of each label keep the interval of a count near zero honest.

    Source: Agresti and Coull, "Approximate is better than 'exact'" (1998), for the two records.
    """
    width = np.where(cells.width == 0, 1.0, cells.width)
    slope = gradient[2] / width
    effects = (gradient[:2] + slope * (bin_means(cells.sums, cells) - cells.middle)) ** 2
    effects += slope**2 * cells.typical.var(axis=1)
    records = cells.sums[:2] + 2 / cells.n_bins
    sampling = factor * max(float((records * effects).sum()), 0.0)
    return math.sqrt(sampling + float(cells.noise_std**2 * (gradient**2).sum()))


def _calibration_error(bins: list[Cells], factor: float) -> Estimate | None:
    """Root mean square of the bins' gaps, from their squares less their variances.

    The square is unbiased for independent records; where it is negative, the root is 0. What the
    likeness of a patient's records may add besides only lowers the lower end: taken off the figure
    itself, it could hide that a model is off.
    """
    heard = [own for own in bins if own.heard]
    rows = sum(own.rows for own in heard)
    square = likeness = by_chance = variance = 0.0
    for own in heard:
        gradient = np.stack([-own.middle, 1 - own.middle, -own.width])
        excess = float((gradient * own.sums).sum())
        independent, spread = (_std(gradient, own, each) ** 2 for each in (1.0, factor))
        weight = 1 / (own.rows * rows)
        square += weight * (excess**2 - independent)
        likeness += weight * (spread - independent)
        by_chance += 2 * (weight * spread) ** 2
        variance += 4 * weight**2 * max(excess**2 - independent, 0.0) * spread
    if not heard or not _Z * math.sqrt(by_chance) <= _WIDEST**2:
        return None
    half = _Z * math.sqrt(by_chance + variance)
    ends = (square, square - likeness - half, square + half)
    return Estimate(*(math.sqrt(max(end, 0.0)) for end in ends))
