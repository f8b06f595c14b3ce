"""Training of the network: what is asked, what noise does to a step, what is learned."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_contracts.features import Grid, LevelGrid, NumberGrid
from experiments.evaluation import auroc, metrics
from federation.settings import ConfigError, parse
from models.accounting import gdp_mu
from models.neural import LIMIT, Architecture, NeuralModel
from models.neural_queries import NeuralEvaluationQuery, NeuralScoreQuery, PatientGradientQuery
from models.neural_rounding import gradient_rounding
from models.neural_training import (
    _ROUNDING,
    NeuralSettings,
    NoisyAdam,
    _columns,
    _gentle,
    train_neural,
)
from models.patients import PatientRows
from models.queries import HistogramQuery, Query
from models.training import NoisySum

Vector = NDArray[np.float64]
RowsOf = Callable[..., PatientRows]

GRIDS: tuple[Grid, ...] = (
    LevelGrid(("a", "b", "c")),
    NumberGrid(0.0, 16.0, cells=16),
    LevelGrid(("no", "yes")),
)
QUICK = NeuralSettings(hidden=(6,), width=3, gradient_rounds=4)
SHARES = {"histogram": 0.05, "gradient": 0.89, "recalibration": 0.06, "evaluation": 1.0}


def draw(rng: np.random.Generator, n: int) -> tuple[NDArray[np.int_], Vector, Vector]:
    """Codes, labels and log-odds of a truth that is nothing but an interaction."""
    number = rng.binomial(15, 0.4, n)
    codes = np.stack([rng.integers(0, 3, n), number, rng.integers(0, 2, n)], axis=1)
    sign = np.where((codes[:, 0] == 0) == (codes[:, 2] == 1), 1.0, -1.0)
    true = sign * (1.0 + 0.3 * (number - 6))
    return codes, (rng.random(n) < 1 / (1 + np.exp(-true))) * 1.0, true


def fit(
    sites: Sequence[PatientRows],
    settings: NeuralSettings,
    *,
    grids: Sequence[Grid] = GRIDS,
    epsilon: float | None = None,
    seed: int = 0,
    asked: list[Query] | None = None,
) -> NeuralModel:
    """Train on the sum over sites, with the noise of a whole run at `epsilon` on that sum."""
    rng = np.random.default_rng(seed)
    rounds = {"histogram": 1, "gradient": settings.gradient_rounds, "recalibration": 1}
    names = [f"feature_{number}" for number in range(len(grids))]
    training = train_neural(names, grids, settings, max_records=4)
    query = next(training)
    while True:
        if asked is not None:
            asked.append(query)
        total, std = np.sum([query.answer(rows) for rows in sites], axis=0), 0.0
        if epsilon is not None:
            share = SHARES[query.step] / rounds.get(query.step, 1)
            mu = gdp_mu(epsilon, 1e-5) * math.sqrt(share)
            std = query.sensitivity / mu
            total = total + std * rng.standard_normal(total.size)
        try:
            query = training.send(NoisySum(total, std))
        except StopIteration as done:
            model: NeuralModel = done.value.model
            return model


@pytest.fixture(scope="module")
def pooled(rows_of: RowsOf) -> PatientRows:
    rng = np.random.default_rng(4)
    codes, labels, _ = draw(rng, 1200)
    return rows_of(codes, labels, np.sort(rng.permutation(np.arange(2400) // 4)[:1200]))


# --- what is asked -----------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [None, 3.0])
def test_a_training_asks_for_a_histogram_then_gradients_then_scores(
    pooled: PatientRows, epsilon: float | None
) -> None:
    asked: list[Query] = []
    fit([pooled], QUICK, epsilon=epsilon, asked=asked)
    steps = ["histogram", *["gradient"] * 4, "recalibration", "evaluation"]
    assert [query.step for query in asked] == steps
    gradients = [query for query in asked if isinstance(query, PatientGradientQuery)]
    clips = {query.clip for query in gradients}
    assert clips == ({2.0} if epsilon else {math.inf})
    assert {query.rounding for query in gradients} == {4 * _ROUNDING}
    assert isinstance(asked[0], HistogramQuery)
    assert isinstance(asked[-2], NeuralScoreQuery)
    assert isinstance(asked[-1], NeuralEvaluationQuery)
    assert [query.sensitivity for query in asked[-2:]] == [2.0, 2.0]  # the root of four records


def test_a_training_starts_where_its_seed_and_the_noisy_base_rate_say(pooled: PatientRows) -> None:
    asked: list[Query] = []
    fit([pooled], QUICK, asked=asked)
    first = asked[1]
    assert isinstance(first, PatientGradientQuery)
    rate = float(pooled.weights @ pooled.labels) / pooled.n_patients
    network = Architecture(first.tables, first.table_shapes, first.width, first.hidden)
    assert np.array_equal(first.parameters, network.initial(QUICK.seed, rate))


def test_the_last_sixth_of_the_iterates_is_averaged(pooled: PatientRows) -> None:
    settings = NeuralSettings(hidden=(6,), width=3, gradient_rounds=12)
    asked: list[Query] = []
    fit([pooled], settings, asked=asked)
    gradients = [query for query in asked if isinstance(query, PatientGradientQuery)]
    adam = NoisyAdam(gradients[0].parameters, settings.learning_rate, settings.weight_decay)
    iterates = []
    for query in gradients:
        assert np.array_equal(query.parameters, adam.parameters)
        adam.step(query.answer(pooled), 0.0)
        iterates.append(adam.parameters)
    final = asked[-2]
    assert isinstance(final, NeuralScoreQuery)
    assert final.parameters == pytest.approx(np.mean(iterates[-2:], axis=0), abs=1e-12)


# --- numbers -----------------------------------------------------------------------------------


def test_a_number_becomes_its_standard_score_and_a_flag_for_missing() -> None:
    grid = NumberGrid(0.0, 8.0, cells=8)
    counts = np.array([0.0, 10.0, 40.0, 80.0, 40.0, 10.0, 0.0, 0.0, 33.0])
    columns = _columns(grid, counts, 0.0)
    share = counts[:-1] / counts[:-1].sum()
    assert share @ columns[:-1, 0] == pytest.approx(0.0, abs=1e-12)
    assert share @ columns[:-1, 0] ** 2 == pytest.approx(1.0)
    assert columns[-1].tolist() == [0.0, 1.0]
    assert not columns[:-1, 1].any()


def test_counts_that_are_only_noise_say_nothing_of_a_number() -> None:
    grid = NumberGrid(0.0, 8.0, cells=8)
    noisy = np.array([3.0, -2.0, 1.0, 0.5, -4.0, 3.5, 2.0, -1.0, 0.3])
    flat = _columns(grid, np.zeros(9), 0.0)
    assert np.array_equal(_columns(grid, noisy, 2.0), flat)
    assert np.abs(flat[:-1, 0]).max() < 2.0
    # One cell that stands out; all others are far away, and still finite.
    one = _columns(grid, np.array([0, 0, 900.0, 0, 0, 0, 0, 0, 0]), 2.0)
    assert np.abs(one).max() == 4.0


def test_a_category_has_no_columns() -> None:
    assert _columns(LevelGrid(("a", "b")), np.ones(3), 0.0).shape == (3, 0)


# --- Adam --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_without_noise_it_is_adam_with_decoupled_decay(decay: float) -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=7), 10 * rng.normal(size=(30, 7))
    ours = NoisyAdam(start.copy(), 0.05, decay)
    parameter = torch.nn.Parameter(torch.tensor(start))
    betas = (NoisyAdam.FIRST, NoisyAdam.SECOND)
    theirs = torch.optim.AdamW([parameter], lr=0.05, betas=betas, eps=1e-12, weight_decay=decay)
    for gradient in gradients:
        ours.step(gradient, 0.0)
        parameter.grad = torch.tensor(gradient)
        theirs.step()
    assert np.abs(ours.parameters - parameter.detach().numpy()).max() < 1e-9


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_sums_plays_no_part(scale: float) -> None:
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(20, 5))
    one, other = NoisyAdam(np.ones(5), 0.05, 0.1), NoisyAdam(np.ones(5), 0.05, 0.1)
    for gradient in gradients:
        one.step(gradient, 0.3)
        other.step(scale * gradient, scale * 0.3)
    assert other.parameters == pytest.approx(one.parameters, rel=1e-9)


def test_steps_follow_the_gradient_and_not_the_noise_in_it() -> None:
    # A gradient of 6 under noise of 4: steps of plain Adam would shrink by 6 / sqrt(36 + 16), a
    # sixth, those of the corrected one do not. The mean of 4000 parameters: standard deviation of
    # the ratio below .01, so a false alarm is rarer than once in 1e6 (and the seed is fixed).
    rng = np.random.default_rng(2)
    adam = NoisyAdam(np.zeros(4000), 0.01, 0.0)
    adam.FLOOR = 0.5
    before = 0.0
    for number in range(60):
        adam.step(6.0 + 4.0 * rng.standard_normal(4000), 4.0)
        if number == 40:
            before = float(adam.parameters.mean())
    per_round = (before - float(adam.parameters.mean())) / 19
    assert per_round == pytest.approx(0.01, rel=0.06)


def test_parameters_whose_gradient_drowns_in_noise_hardly_move() -> None:
    rng = np.random.default_rng(3)
    adam = NoisyAdam(np.zeros(2000), 0.03, 0.0)
    for _ in range(60):
        adam.step(5.0 * rng.standard_normal(2000), 5.0)
    # Steps of noise / (2 noise) that add up as a random walk: 0.03 / 2 * sqrt(60) = 0.12.
    assert adam.parameters.std() < 0.15


def test_a_gradient_of_zero_moves_nothing() -> None:
    adam = NoisyAdam(np.ones(3), 0.1, 0.0)
    adam.step(np.zeros(3), 0.0)
    assert np.array_equal(adam.parameters, np.ones(3))


# --- steep networks ----------------------------------------------------------------------------


def test_steep_networks_are_made_gentle_and_others_left_alone(rows_of: RowsOf) -> None:
    network = Architecture(np.zeros(0), np.array([[4, 0], [3, 0]]), 4, np.array([8, 4]))
    gentle = network.initial(0, 0.5)
    assert np.array_equal(_gentle(network, gentle, 4, 2.0), gentle)
    steep = 30.0 * np.random.default_rng(0).normal(size=network.n_parameters)
    steep[0] = 10 * LIMIT
    made = _gentle(network, steep, 4, 2.0)
    assert 0 < np.abs(made).max() < LIMIT
    assert gradient_rounding(network, made, 4) <= _ROUNDING * 4 * 2.0
    PatientGradientQuery(
        made, network.tables, network.table_shapes, network.width, network.hidden,
        clip=2.0, rounding=4 * _ROUNDING,
    ).answer(rows_of(np.zeros((1, 2), dtype=int), np.ones(1)))  # fmt: skip
    assert np.array_equal(_gentle(network, gentle, 4, math.inf), gentle)


def test_a_clip_too_small_for_so_many_records_is_an_error() -> None:
    network = Architecture(np.zeros(0), np.array([[4, 0], [3, 0]]), 4, np.array([8, 4]))
    with pytest.raises(ValueError, match="1000 records"):
        _gentle(network, network.initial(0, 0.5), 1000, 1e-6)


# --- what is learned ---------------------------------------------------------------------------


def test_without_noise_it_learns_what_no_additive_model_can(rows_of: RowsOf) -> None:
    codes, labels, true = draw(np.random.default_rng(5), 4000)
    settings = NeuralSettings(hidden=(16,), learning_rate=0.05)
    model = fit([rows_of(codes, labels)], settings)
    codes, labels, true = draw(np.random.default_rng(6), 4000)
    area, best = auroc(labels, model.log_odds(codes.astype(np.uint8))), auroc(labels, true)
    assert area is not None
    assert best is not None
    assert area > best - 0.02 > 0.75


def test_under_noise_it_still_learns_it_and_its_probabilities_are_right(rows_of: RowsOf) -> None:
    # Noise of a sum over 16 000 patients at epsilon 3, where one round's is 7 clips a value.
    codes, labels, _ = draw(np.random.default_rng(7), 16_000)
    settings = NeuralSettings(hidden=(16,), gradient_rounds=40, learning_rate=0.05)
    model = fit([rows_of(codes, labels)], settings, epsilon=3.0, seed=8)
    codes, labels, true = draw(np.random.default_rng(9), 8000)
    found = metrics(labels, model.probability(codes.astype(np.uint8)))
    best = metrics(labels, 1 / (1 + np.exp(-true)))
    assert found["auroc"] is not None
    assert best["auroc"] is not None
    assert found["auroc"] > best["auroc"] - 0.04
    assert found["calibration_slope"] == pytest.approx(1.0, abs=0.15)
    assert found["calibration_intercept"] == pytest.approx(0.0, abs=0.1)


def parts(rows: PatientRows, n_sites: int) -> list[PatientRows]:
    """The patients dealt to sites, one after the other."""
    site = rows.patient_of_row % n_sites
    dealt = []
    for number in range(n_sites):
        own = site == number
        patients = rows.patient_of_row[own]
        dealt.append(
            PatientRows(
                codes=np.asfortranarray(rows.codes[own]),
                labels=rows.labels[own],
                starts=np.flatnonzero(np.diff(patients, prepend=-1)),
                weights=rows.weights[own],
                max_records=rows.max_records,
            )
        )
    return dealt


@pytest.mark.parametrize("epsilon", [None, 3.0])
def test_federated_training_gives_the_pooled_model(
    pooled: PatientRows, epsilon: float | None
) -> None:
    one, many = (fit(sites, QUICK, epsilon=epsilon) for sites in ([pooled], parts(pooled, 3)))
    assert np.abs(many.parameters - one.parameters).max() < 1e-6


def test_the_same_noise_gives_the_same_model(pooled: PatientRows) -> None:
    first, again = (fit([pooled], QUICK, epsilon=3.0, seed=1) for _ in range(2))
    assert first.to_json() == again.to_json()
    assert fit([pooled], QUICK, epsilon=3.0, seed=2).to_json() != first.to_json()


def degenerate() -> dict[str, tuple[NDArray[np.int_], Vector]]:
    codes, labels, _ = draw(np.random.default_rng(0), 300)
    return {
        "constant features": (np.tile([1, 5, 0], (300, 1)), labels),
        "empty features": (np.tile([3, 16, 2], (300, 1)), labels),
        "ones only": (codes, np.ones(300)),
        "zeros only": (codes, np.zeros(300)),
        "a perfect feature": (codes, (codes[:, 0] == 0).astype(float)),
        "two patients": (codes[:2], np.array([0.0, 1.0])),
        "nobody": (codes[:0], labels[:0]),
    }


@pytest.mark.parametrize("epsilon", [None, 0.3])
@pytest.mark.parametrize("case", degenerate())
def test_degenerate_data_give_a_finite_model(
    rows_of: RowsOf, case: str, epsilon: float | None
) -> None:
    codes, labels = degenerate()[case]
    model = fit([rows_of(codes, labels)], QUICK, epsilon=epsilon)
    grid = np.stack(np.meshgrid(range(4), range(17), range(3)), -1).reshape(-1, 3)
    probabilities = model.probability(grid.astype(np.uint8))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert NeuralModel.from_json(model.to_json()).to_json() == model.to_json()


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": ()},
        {"hidden": (8,) * 5},
        {"hidden": (0,)},
        {"hidden": (513,)},
        {"width": 0},
        {"width": 65},
        {"gradient_rounds": 0},
        {"gradient_rounds": 61},
        {"sample_rate": 0.0},
        {"sample_rate": 1.01},
        {"clip": 0.0},
        {"clip": math.inf},
        {"clip": math.nan},
        {"learning_rate": 0.0},
        {"learning_rate": 1.5},
        {"weight_decay": -0.1},
        {"weight_decay": 40.0},
        {"weight_decay": math.nan},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=name):
        NeuralSettings(**change)


def test_settings_are_read_from_a_table() -> None:
    found = parse(NeuralSettings, {"hidden": [8, 4], "clip": 1, "gradient_rounds": 30}, "neural")
    assert found == NeuralSettings(hidden=(8, 4), clip=1.0, gradient_rounds=30)
    with pytest.raises(ConfigError, match="gradient_rounds"):
        parse(NeuralSettings, {"gradient_rounds": 61}, "neural")
