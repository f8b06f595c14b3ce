"""Kappa, columns and expected loss: from public numbers, and never less than a run takes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.features import Grid, LevelGrid, NumberGrid, grid_of
from models.accounting import gdp_mu
from models.additive_training import AdditiveSettings, train
from models.basis import build_basis
from models.patients import PatientRows
from models.queries import Query
from models.resolution import (
    COARSE_KNOTS,
    FINE_KAPPA,
    FINE_KNOTS,
    MEASURED_KAPPA,
    choose_resolution,
    expected_loss,
    kappa,
    most_columns,
    resolution_for,
)
from models.tasks import TASKS
from models.training import NoisySum, drive, largest_queries

ROSTER = {
    "payers": ("p1", "p2", "p3", "p4"),
    "providers": tuple(f"v{number}" for number in range(10)),
    "sites": ("s",),
}
GRIDS: tuple[Grid, ...] = (
    NumberGrid(0.0, 1.0, cells=40),
    NumberGrid(0.0, 1.0, cells=5),
    LevelGrid(("a", "b", "c")),
)


def grids_of(task: str) -> list[Grid]:
    return [grid_of(feature) for feature in TASKS[task].resolve(ROSTER)]


def test_kappa_is_columns_over_mu_times_patients() -> None:
    assert kappa(120, 0.5, 24_000) == pytest.approx(0.01)
    assert kappa(120, gdp_mu(1.0, 1e-5), 24_000) > kappa(120, gdp_mu(3.0, 1e-5), 24_000)


@pytest.mark.parametrize(
    ("columns", "mu", "patients"),
    [(-1, 0.5, 10), (5, 0.0, 10), (5, math.inf, 10), (5, math.nan, 10), (5, 0.5, 0)],
)
def test_kappa_of_nonsense_is_refused(columns: int, mu: float, patients: int) -> None:
    with pytest.raises(ValueError, match="no kappa"):
        kappa(columns, mu, patients)


def test_columns_are_counted_as_the_basis_makes_them() -> None:
    # 8 of 40 cells: 7 tents and "missing"; 5 cells: 4 tents and "missing"; 3 levels and "missing"
    # less one.
    assert most_columns(GRIDS, 8) == 8 + 5 + 3
    assert most_columns(GRIDS, 4) == 4 + 4 + 3


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("knots", [2, 5, 8, 14, 32])
def test_made_up_sums_reach_the_most_columns(task: str, knots: int) -> None:
    grids = grids_of(task)
    names = [feature.name for feature in TASKS[task].features]
    sizes = AdditiveSettings(max_knots=knots, gradient_rounds=1)
    training = train(names, grids, sizes, max_records=4)
    queries = {query.step: query for query in largest_queries(training, max_records=4)}
    assert queries["gradient"].n_values - 1 == most_columns(grids, knots)


@settings(deadline=None)
@given(
    st.lists(st.floats(-50, 1e5), min_size=41 + 6 + 4, max_size=41 + 6 + 4),
    st.integers(2, 32),
    st.sampled_from([0.0, 1.0, 30.0]),
)
def test_no_histogram_makes_more_columns(counts: list[float], knots: int, noise: float) -> None:
    blocks = np.split(np.array(counts), [41, 47])
    n_patients = max(sum(max(count, 0.0) for count in counts) / 3, 2.0)
    basis = build_basis(GRIDS, blocks, n_patients=n_patients, noise_std=noise, max_knots=knots)
    assert basis.n_columns <= most_columns(GRIDS, knots)


def some_rows(rows_of: Callable[..., PatientRows], n: int, seed: int) -> PatientRows:
    rng = np.random.default_rng(seed)
    x = rng.beta(2, 5, n)
    few, level = rng.integers(0, 6, n), rng.choice(4, n, p=[0.6, 0.3, 0.095, 0.005])
    labels = rng.random(n) < 1 / (1 + np.exp(2 - 4 * x - (level == 1)))
    codes = np.stack([(40 * x).astype(int), few, level], axis=1)
    return rows_of(codes, labels.astype(float))


@pytest.mark.parametrize("private", [True, False])
def test_a_training_asks_for_no_more_than_foreseen(
    rows_of: Callable[..., PatientRows], private: bool
) -> None:
    rows, rng, names = some_rows(rows_of, 3000, 1), np.random.default_rng(2), ["x", "few", "level"]
    chosen = AdditiveSettings(gradient_rounds=3)
    asked: list[Query] = []

    def answer(query: Query) -> NoisySum:
        asked.append(query)
        std = 10.0 * query.sensitivity if private else 0.0
        noise = std * rng.standard_normal(query.n_values) if private else 0.0
        return NoisySum(query.answer(rows) + noise, std)

    made, foretold = (
        train(names, GRIDS, chosen, max_records=4, groups=["level"]) for _ in range(2)
    )
    drive(made, answer)
    foreseen = list(largest_queries(foretold, max_records=4, private=private))
    assert [query.step for query in asked] == [query.step for query in foreseen]
    for actual, largest in zip(asked, foreseen, strict=True):
        assert actual.n_values <= largest.n_values
        assert actual.sensitivity <= largest.sensitivity
        if actual.step in ("histogram", "recalibration", "evaluation"):
            assert actual.n_values == largest.n_values
            assert actual.sensitivity == largest.sensitivity
    # The rare level has no column of its own here, so the bound is a bound and no copy.
    assert asked[1].n_values < foreseen[1].n_values


@given(st.floats(0, 2), st.floats(0, 2))
def test_a_larger_kappa_never_loses_less(one: float, other: float) -> None:
    low, high = expected_loss(min(one, other)), expected_loss(max(one, other))
    assert low.mean <= high.mean
    assert low.worst <= high.worst
    assert low.noise_std <= high.noise_std
    assert low.mean <= low.worst


def test_beyond_what_was_measured_the_last_figure_stands() -> None:
    assert expected_loss(10.0) == expected_loss(MEASURED_KAPPA)
    assert expected_loss(0.0).mean == 0.0


@pytest.mark.parametrize(
    ("columns", "epsilon", "tasks", "sites", "patients", "lost"),
    [
        # Full noise at every site, as experiments/LOG.md of 2026-11-22 has it: pooled additive
        # less federated private. None of these runs is among those that the table was made from;
        # since then features are shrunk by their noise, which saves a third.
        (122, 3.0, 2, 10, 24_000, 0.7825 - 0.7761),
        (122, 3.0, 2, 10, 24_000, 0.7293 - 0.7246),
        (319, 3.0, 1, 11, 53_600, 0.6584 - 0.6539),
        (317, 3.0, 1, 9, 14_400, 0.6812 - 0.6598),
        (65, 3.0, 1, 4, 690, 0.9057 - 0.8763),
    ],
)
def test_runs_that_were_not_used_lost_what_was_to_be_expected(
    columns: int, epsilon: float, tasks: int, sites: int, patients: int, lost: float
) -> None:
    mu = gdp_mu(epsilon, 1e-5) / math.sqrt(tasks * sites)
    loss = expected_loss(kappa(columns, mu, patients))
    assert loss.mean / 3 < lost < 1.5 * loss.worst


def test_kappa_alone_chooses_the_knots() -> None:
    grids = grids_of("approved")
    fine = most_columns(grids, FINE_KNOTS)
    mu = 0.5
    enough = fine / (FINE_KAPPA * mu)
    assert choose_resolution(grids, mu, enough * 1.001).knots == FINE_KNOTS
    chosen = choose_resolution(grids, mu, enough * 0.999)
    assert chosen.knots == COARSE_KNOTS
    assert chosen == resolution_for(grids, COARSE_KNOTS, mu, enough * 0.999)
    assert chosen.kappa == kappa(most_columns(grids, COARSE_KNOTS), mu, enough * 0.999)


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    ranks = np.argsort(np.argsort(scores)) + 1
    positives = labels.sum()
    below = ranks[labels == 1].sum() - positives * (positives + 1) / 2
    return float(below / (positives * (labels.size - positives)))


def test_few_knots_lose_less_where_kappa_is_large(rows_of: Callable[..., PatientRows]) -> None:
    """Ten numbers with gentle curves, kappa 0.13 with 8 knots, 8 draws of noise and patients.

    The mean advantage of 4 knots over 8 is 0.079 with a standard error of 0.010; the seed is fixed,
    and another one would fail with a probability far below one in a million.
    """
    grids = [NumberGrid(0.0, 1.0, cells=32)] * 10
    names = [f"x{number}" for number in range(10)]
    rng = np.random.default_rng(5)
    n, mu = 1000, 0.6

    def draw(count: int) -> tuple[PatientRows, np.ndarray]:
        x = rng.random((count, 10))
        score = 1.5 * (np.sin(2 * x) - 0.7).sum(axis=1) - 1
        labels = (rng.random(count) < 1 / (1 + np.exp(-score))).astype(float)
        return rows_of((32 * x).astype(int), labels), score

    test, _ = draw(8000)
    shares = {"histogram": 0.05, "gram": 0.14, "gradient": 0.67 / 12, "recalibration": 0.06}
    gains = []
    for _ in range(8):
        rows, _ = draw(n)
        areas = []
        for knots in (COARSE_KNOTS, FINE_KNOTS):

            def answer(query: Query, rows: PatientRows = rows) -> NoisySum:
                std = query.sensitivity / (mu * math.sqrt(shares.get(query.step, 1.0)))
                noise = std * rng.standard_normal(query.n_values)
                return NoisySum(query.answer(rows) + noise, std)

            chosen = AdditiveSettings(max_knots=knots)
            model = drive(train(names, grids, chosen, max_records=4), answer).model
            areas.append(area(model.log_odds(test.codes), test.labels))
        gains.append(areas[0] - areas[1])
    assert resolution_for(grids, FINE_KNOTS, mu, n).kappa > 0.1
    assert np.mean(gains) > 0
