"""Standard errors that are told before anything is measured."""

import math

import numpy as np
import pytest

from models.evaluation import evaluate
from models.precision import histogram_std, sampling_std
from models.score_histogram import SCORE_BINS, AdditiveEvaluationQuery, ScoreBins


def test_the_choice_of_patients_moves_the_area_as_told() -> None:
    """Exponential scores, for which the formula is exact; AUROC 0.75.

    4000 draws: the standard deviation is known to 1.1 %; 4.5 % would be missed once in 20 000.
    """
    rng = np.random.default_rng(1)
    positives, negatives = 40, 160
    lower, upper = rng.exponential(1.0, (4000, negatives)), rng.exponential(3.0, (4000, positives))
    areas = (upper[:, :, None] > lower[:, None, :]).mean(axis=(1, 2))
    assert areas.mean() == pytest.approx(0.75, abs=0.005)
    assert areas.std() == pytest.approx(sampling_std(0.75, positives, negatives), rel=0.045)


def test_four_times_the_patients_halve_the_error() -> None:
    assert sampling_std(0.75, 4000, 36_000) == pytest.approx(
        sampling_std(0.75, 1000, 9000) / 2, rel=1e-3
    )
    assert sampling_std(0.75, 0.5, 4) > 0  # fewer than one positive to be expected


@pytest.mark.parametrize("numbers", [(0.0, 5, 5), (1.0, 5, 5), (0.7, 0, 5), (0.7, 5, math.inf)])
def test_what_cannot_be_measured_is_refused(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="no AUROC"):
        sampling_std(*numbers)
    with pytest.raises(ValueError, match="no AUROC"):
        histogram_std(*numbers, noise_std=1.0, bins=12)


def test_no_histogram_without_bins_or_with_negative_noise() -> None:
    for noise, bins in ((-1.0, 12), (math.nan, 12), (1.0, 0)):
        with pytest.raises(ValueError, match="no histogram"):
            histogram_std(0.7, 50, 500, noise_std=noise, bins=bins)
    assert histogram_std(0.7, 50, 500, noise_std=0.0, bins=12) == 0.0


@pytest.mark.parametrize("auroc", [0.6, 0.75, 0.9])
def test_noise_on_counts_moves_the_area_as_told(auroc: float) -> None:
    """2000 draws: the standard deviation is known to 1.6 %; 6 % would be missed once in 5000."""
    rng = np.random.default_rng(3)
    positives, negatives, noise, bins = 1000, 9000, 5.0, 12
    apart = math.sqrt(2) * {0.6: 0.2533, 0.75: 0.6745, 0.9: 1.2816}[auroc]
    scores = np.concatenate(
        [rng.standard_normal(negatives), apart + rng.standard_normal(positives)]
    )
    weights = np.repeat([0.5 / negatives, 0.5 / positives], [negatives, positives])
    order = np.argsort(scores)
    bin_of = np.empty(scores.size, dtype=int)
    bin_of[order] = np.minimum(np.cumsum(weights[order]) * bins, bins - 1).astype(int)
    exact = [
        np.bincount(bin_of[:negatives], minlength=bins),
        np.bincount(bin_of[negatives:], minlength=bins),
    ]
    noisy = [count + noise * rng.standard_normal((2000, bins)) for count in exact]
    below = np.cumsum(noisy[0], axis=1) - noisy[0] / 2
    areas = (noisy[1] * below).sum(axis=1) / noisy[0].sum(axis=1) / noisy[1].sum(axis=1)
    told = histogram_std(auroc, positives, negatives, noise_std=noise, bins=bins)
    assert areas.std() == pytest.approx(told, rel=0.06)


def test_an_evaluation_says_about_what_was_foretold() -> None:
    """The interval of a finished evaluation, whose own formula has nothing in common with ours.

    Its scores are nearly normal, where exponential ones err on the safe side, by 16 % at this rate.
    """
    rng = np.random.default_rng(4)
    n, noise = 8000, 5.0
    scores = -2.6 + 0.95 * rng.standard_normal(n)
    labels = rng.random(n) < 1 / (1 + np.exp(-scores))
    rates = np.linspace(0, 1, 2001)
    mass = np.array(
        [
            0.5 * (scores[labels] < cut).mean() + 0.5 * (scores[~labels] < cut).mean()
            for cut in np.quantile(scores, rates)
        ]
    )
    edges = np.quantile(scores, np.interp(np.arange(1, SCORE_BINS) / SCORE_BINS, mass, rates))
    query = AdditiveEvaluationQuery(
        shapes=np.zeros(2),
        n_codes=np.array([2], dtype=np.int64),
        intercept=0.0,
        edges=edges,
        groups=np.array([], dtype=np.int64),
        group_bins=1,
        clip=2.0,
    )
    found, positions = ScoreBins(edges).place(scores)
    sums = [
        np.bincount(found, weights=weight, minlength=SCORE_BINS)
        for weight in (~labels * 1.0, labels * 1.0, positions)
    ]
    empty = query.unpack(np.zeros(query.n_values), noise).overall
    weight = noise / empty.noise_std
    values = np.concatenate([[2.0 * n * math.sqrt(1 - weight**2)], weight * np.concatenate(sums)])
    values += noise * rng.standard_normal(values.size)
    area = evaluate(query, values, noise, max_records=4).overall.auroc
    assert area is not None
    told = math.hypot(
        sampling_std(area.value, labels.sum(), (~labels).sum()),
        histogram_std(
            area.value,
            labels.sum(),
            (~labels).sum(),
            noise_std=empty.noise_std,
            bins=SCORE_BINS,
        ),
    )
    found_out = (area.high - area.low) / 2 / 1.96
    assert found_out < told < 1.2 * found_out
