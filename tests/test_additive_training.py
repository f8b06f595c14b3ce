"""Training of the additive model: the right optimum, from one site or many, with known noise."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from data_contracts.features import Grid, LevelGrid, NumberGrid
from models.accounting import gdp_mu
from models.additive import AdditiveModel
from models.additive_training import AdditiveSettings, train
from models.basis import Basis, build_basis
from models.patients import PatientRows
from models.queries import AdditiveScoreQuery, GradientQuery, HistogramQuery, Query
from models.recalibration import recalibrate
from models.training import NoisySum, drive

Vector = NDArray[np.float64]
RowsOf = Callable[..., PatientRows]

GRIDS: tuple[Grid, ...] = (
    LevelGrid(("a", "b", "c")),
    NumberGrid(0.0, 16.0, cells=16),
    LevelGrid(("no", "yes")),
)
ROUNDS = {"histogram": 1, "gram": 1, "gradient": 12, "recalibration": 1, "evaluation": 1}
SHARES = {"histogram": 0.05, "gram": 0.15, "gradient": 0.74, "recalibration": 0.06}
SHARES["evaluation"] = 1.0  # held-out patients, who have a budget of their own


def draw(rng: np.random.Generator, n: int) -> tuple[NDArray[np.int_], Vector, Vector]:
    """Codes of correlated features, labels, and the true log-odds of every row."""
    number = rng.binomial(15, 0.4, n)
    level = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    level = np.where(rng.random(n) < 0.3, np.minimum(number // 5, 2), level)
    codes = np.stack([level, np.where(rng.random(n) < 0.1, 16, number), rng.integers(0, 2, n)], 1)
    true = np.array([0.5, -0.2, -0.7])[level] + 0.15 * (number - 6) + 0.3 * codes[:, 2] - 0.2
    labels = (rng.random(n) < 1 / (1 + np.exp(-true))).astype(float)
    return codes, labels, true


def fit(
    sites: Sequence[PatientRows],
    settings: AdditiveSettings,
    *,
    grids: Sequence[Grid] = GRIDS,
    epsilon: float | None = None,
    seed: int = 0,
    asked: list[Query] | None = None,
) -> AdditiveModel:
    """Train on the sum over sites, with the noise of a whole run at `epsilon` on that sum."""
    rng = np.random.default_rng(seed)
    rounds = ROUNDS | {"gradient": settings.gradient_rounds}

    def answer(query: Query) -> NoisySum:
        if asked is not None:
            asked.append(query)
        total = np.sum([query.answer(rows) for rows in sites], axis=0)
        if epsilon is None:
            return NoisySum(total, 0.0)
        mu = gdp_mu(epsilon, 1e-5) * math.sqrt(SHARES[query.step] / rounds[query.step])
        std = query.sensitivity / mu
        return NoisySum(total + std * rng.standard_normal(total.size), std)

    names = [f"feature_{number}" for number in range(len(grids))]
    return drive(train(names, grids, settings, max_records=4), answer).model


def basis_of(rows: PatientRows, settings: AdditiveSettings, grids: Sequence[Grid]) -> Basis:
    sizes = np.array([grid.n_codes for grid in grids])
    *counts, _ = np.split(HistogramQuery(sizes).answer(rows), np.cumsum(sizes))
    return build_basis(
        grids, counts, n_patients=rows.n_patients, noise_std=0.0, max_knots=settings.max_knots
    )


# --- without noise -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pooled(rows_of: RowsOf) -> PatientRows:
    rng = np.random.default_rng(4)
    codes, labels, _ = draw(rng, 3000)
    return rows_of(codes, labels, np.sort(rng.permutation(np.arange(6000) // 4)[:3000]))


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


@pytest.mark.parametrize("n_sites", [2, 7])
def test_federated_training_gives_the_pooled_model(pooled: PatientRows, n_sites: int) -> None:
    settings = AdditiveSettings(gradient_rounds=12)
    one, many = fit([pooled], settings), fit(parts(pooled, n_sites), settings)
    assert many.intercept == pytest.approx(one.intercept, abs=1e-10)
    for ours, theirs in zip(many.shapes, one.shapes, strict=True):
        assert np.abs(ours.log_odds - theirs.log_odds).max() < 1e-10
        assert np.abs(ours.std - theirs.std).max() < 1e-10
        assert np.abs(ours.frequency - theirs.frequency).max() < 1e-12


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 1e-2, 1.0])
def test_with_enough_rounds_it_is_the_optimum_that_an_independent_solver_finds(
    pooled: PatientRows, ridge: float
) -> None:
    settings = AdditiveSettings(gradient_rounds=600, ridge=ridge)
    asked: list[Query] = []
    fit([pooled], settings, asked=asked)
    final = asked[-2]  # asks with the coefficients before they are recalibrated
    assert isinstance(final, AdditiveScoreQuery)
    basis = basis_of(pooled, settings, GRIDS)
    strength = 1 / (ridge * pooled.n_rows) if ridge else math.inf
    solver = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-12, max_iter=500)
    solver.fit(basis.design(pooled.codes), pooled.labels)
    blocks = np.split(final.shapes, np.cumsum(final.n_codes)[:-1])
    ours = [
        np.linalg.lstsq(table, shape, rcond=None)[0]
        for table, shape in zip(basis.tables, blocks, strict=True)
    ]
    assert np.abs(np.concatenate(ours) - solver.coef_[0]).max() < 1e-6
    assert final.intercept == pytest.approx(solver.intercept_[0], abs=1e-6)


def test_basis_columns_are_centred_uncorrelated_and_of_unit_variance(pooled: PatientRows) -> None:
    basis = basis_of(pooled, AdditiveSettings(), GRIDS)
    for table, share, columns in zip(basis.tables, basis.frequencies, basis.slices, strict=True):
        assert np.abs(share @ table).max() < 1e-10
        assert np.abs(table.T @ (share[:, None] * table) - np.eye(table.shape[1])).max() < 1e-10
        design = basis.design(pooled.codes)[:, columns]
        assert np.abs(pooled.weights @ design).max() < 1e-8
    widths = [table.shape[1] for table in basis.tables]
    assert (widths[0], widths[2]) == (2, 1)
    assert 4 <= widths[1] <= 8  # one per knot but the first, and "missing"


def test_whitened_columns_of_different_features_are_uncorrelated(pooled: PatientRows) -> None:
    asked: list[Query] = []
    fit([pooled], AdditiveSettings(), asked=asked)
    query = next(query for query in asked if isinstance(query, GradientQuery))
    white = basis_of(pooled, AdditiveSettings(), GRIDS).design(pooled.codes) @ query.whitening
    moments = white.T @ (pooled.weights[:, None] * white) / pooled.n_patients
    assert np.abs(moments - np.eye(len(moments))).max() < 1e-8


def test_training_converges_where_frequent_patients_differ(rows_of: RowsOf) -> None:
    patients = np.repeat(np.arange(5000), np.where(np.arange(5000) < 50, 4, 1))
    codes = (patients < 50).astype(int)[:, None]  # level 1: the patients with four records
    labels = (np.random.default_rng(0).random(patients.size) < 0.5 + 0.1 * codes[:, 0]) * 1.0
    model = fit([rows_of(codes, labels, patients)], AdditiveSettings(gradient_rounds=200),
                grids=[LevelGrid(("a", "b"))])  # fmt: skip
    assert model.probability(np.array([[1]], dtype=np.uint8)) == pytest.approx(0.6, abs=0.08)


def test_recalibration_changes_little_where_there_is_nothing_to_mend(pooled: PatientRows) -> None:
    # Fine bins: with few different scores, the middle of a coarse bin misses them by up to half.
    settings = AdditiveSettings(gradient_rounds=100, score_bins=1024)
    asked: list[Query] = []
    model = fit([pooled], settings, asked=asked)
    final = asked[-2]
    assert isinstance(final, AdditiveScoreQuery)
    recalibrated = np.concatenate([shape.log_odds for shape in model.shapes])
    assert recalibrated == pytest.approx(final.shapes, rel=0.01)
    assert model.probability(pooled.codes).mean() == pytest.approx(pooled.labels.mean(), abs=1e-3)


# --- with noise --------------------------------------------------------------------------------


def test_a_model_from_noisy_sums_recovers_a_known_additive_truth(rows_of: RowsOf) -> None:
    codes, labels, true = draw(np.random.default_rng(1), 30_000)
    seen = codes[:, 1] < 16  # where the number is missing its effect cannot be known
    model = fit([rows_of(codes, labels)], AdditiveSettings(), epsilon=3.0, seed=2)
    found = model.log_odds(codes.astype(np.uint8))
    assert np.corrcoef(found[seen], true[seen])[0, 1] > 0.97
    assert np.sqrt(np.mean((found - true)[seen] ** 2)) < 0.3 * true.std()


def z_scores(
    rows_of: RowsOf, settings: AdditiveSettings, base: float, epsilon: float | None
) -> Vector:
    """Error over declared standard error of every level, over 40 draws of data and noise."""
    grids = (LevelGrid(("a", "b", "c")), LevelGrid(("p", "q")))
    shares = (np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.4]))
    effects = [np.array([0.6, -0.3, -1.0]), np.array([0.4, -0.3])]
    effects = [effect - share @ effect for effect, share in zip(effects, shares, strict=True)]
    scores = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        codes = np.stack([rng.choice(share.size, 6000, p=share) for share in shares], axis=1)
        odds = base + effects[0][codes[:, 0]] + effects[1][codes[:, 1]]
        labels = (rng.random(6000) < 1 / (1 + np.exp(-odds))).astype(float)
        model = fit([rows_of(codes, labels)], settings, grids=grids, epsilon=epsilon, seed=seed)
        for shape, effect in zip(model.shapes, effects, strict=True):
            scores.append((shape.log_odds[:-1] - effect) / shape.std[:-1])
    return np.concatenate(scores)


def coverage(scores: Vector) -> float:
    return float((np.abs(scores) < 1.96).mean())


def test_bands_cover_the_truth_where_sampling_is_the_only_error(rows_of: RowsOf) -> None:
    # 40 runs x 3 degrees of freedom: at 95 % the share covered falls below 0.85 about once in 1e5.
    assert coverage(z_scores(rows_of, AdditiveSettings(), 0.0, None)) > 0.85


def test_bands_cover_the_truth_under_noise_at_the_default_settings(rows_of: RowsOf) -> None:
    assert coverage(z_scores(rows_of, AdditiveSettings(), 0.0, 3.0)) > 0.85


def test_bands_cover_the_truth_of_a_rare_outcome(rows_of: RowsOf) -> None:
    settings = AdditiveSettings(gradient_rounds=200)
    assert coverage(z_scores(rows_of, settings, -2.2, None)) > 0.85


# --- degenerate data ---------------------------------------------------------------------------


def degenerate() -> dict[str, tuple[NDArray[np.int_], Vector]]:
    rng = np.random.default_rng(0)
    n = 400
    codes, labels, _ = draw(rng, n)
    missing = np.array([3, 16, 2])
    rare = codes.copy()
    rare[:, 0] = np.where(np.arange(n) < 3, 2, 0)
    return {
        "a rare level": (rare, labels),
        "constant features": (np.tile([1, 5, 0], (n, 1)), labels),
        "empty features": (np.tile(missing, (n, 1)), labels),
        "one number": (np.where([False, True, False], 7, codes), labels),
        "ones only": (codes, np.ones(n)),
        "zeros only": (codes, np.zeros(n)),
        "a perfect feature": (codes, (codes[:, 0] == 0).astype(float)),
        "two patients": (codes[:2], np.array([0.0, 1.0])),
        "nobody": (codes[:0], labels[:0]),
    }


@pytest.mark.parametrize("epsilon", [None, 0.3, 8.0])
@pytest.mark.parametrize("case", degenerate())
def test_degenerate_data_give_a_finite_model(
    rows_of: RowsOf, case: str, epsilon: float | None
) -> None:
    codes, labels = degenerate()[case]
    for seed in range(5):
        model = fit([rows_of(codes, labels)], AdditiveSettings(), epsilon=epsilon, seed=seed)
        grid = np.stack(np.meshgrid(range(4), range(17), range(3)), -1).reshape(-1, 3)
        probabilities = model.probability(grid.astype(np.uint8))
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
        assert all(np.isfinite(shape.std).all() for shape in model.shapes)
        assert AdditiveModel.from_json(model.to_json()).to_json() == model.to_json()


def test_constant_features_leave_the_share_of_positives(rows_of: RowsOf) -> None:
    codes, labels = degenerate()["constant features"]
    model = fit([rows_of(codes, labels)], AdditiveSettings(gradient_rounds=50))
    assert model.probability(codes.astype(np.uint8)) == pytest.approx(labels.mean(), abs=1e-3)


def test_levels_too_rare_for_a_column_of_their_own_share_one_value(rows_of: RowsOf) -> None:
    codes, labels, _ = draw(np.random.default_rng(0), 400)
    codes[:, 0] = np.where(np.arange(400) < 3, 2, codes[:, 0] % 2)
    shape = fit([rows_of(codes, labels)], AdditiveSettings()).shapes[0]
    assert shape.log_odds[2] == shape.log_odds[3]


def test_one_bin_of_scores_cannot_tell_a_slope() -> None:
    for filled in range(64):
        counts = np.zeros(128)
        counts[[filled, 64 + filled]] = 50.0, 30.0
        line = recalibrate(counts, 1.0, 8.0, 0.375)
        assert (line.slope, line.shift) == (1.0, 0.0)
