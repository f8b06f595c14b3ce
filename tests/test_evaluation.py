"""Federated evaluation: what a patient can change, and figures that keep what intervals promise."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from models.evaluation import Estimate, Evaluation, Stratum, evaluate
from models.patients import PatientRows
from models.queries import AdditiveScoreQuery, sigmoid
from models.recalibration import Recalibration, recalibrate
from models.score_figures import auroc, calibration_intercept, calibration_slope, strata_of
from models.score_histogram import (
    GROUP_BINS,
    SCORE_BINS,
    AdditiveEvaluationQuery,
    ScoreBins,
    score_edges,
)

Vector = NDArray[np.float64]
RowsOf = Callable[..., PatientRows]

SMALL = AdditiveEvaluationQuery(
    shapes=np.array([-1.0, 0.0, 1.0, -2.0, -1.0, 0.0, 1.0, 2.0]),
    n_codes=np.array([3, 5]),
    intercept=-0.3,
    edges=np.array([-1.5, 0.0, 1.5]),
    groups=np.array([1, 0]),
    group_bins=2,
    clip=2.0,
)


def rows_of(codes: NDArray[np.int_], labels: Vector, patients: NDArray[np.int_]) -> PatientRows:
    """Rows whose patients already lie together; nothing is left out."""
    starts = np.flatnonzero(np.diff(patients, prepend=-1))
    counts = np.diff(starts, append=patients.size)
    weights = np.repeat(1.0 / np.maximum(counts, 1), counts)
    bound = max(int(counts.max(initial=1)), 1)
    return PatientRows(codes.astype(np.uint8), labels.astype(float), starts, weights, bound)


# --- the question ------------------------------------------------------------------------------

RECORD = st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 1))
PATIENTS = st.lists(st.lists(RECORD, min_size=1, max_size=30), max_size=5)


@st.composite
def queries(draw: st.DrawFn) -> AdditiveEvaluationQuery:
    edges = draw(st.lists(st.floats(-50, 50), min_size=1, max_size=8, unique=True))
    divisors = [number for number in range(1, 10) if (len(edges) + 1) % number == 0]
    return replace(
        SMALL,
        shapes=np.array(draw(st.lists(st.floats(-30, 30), min_size=8, max_size=8))),
        intercept=draw(st.floats(-30, 30)),
        edges=np.sort(edges),
        groups=np.array(draw(st.sampled_from([[], [0], [1], [1, 0]])), dtype=np.int64),
        group_bins=draw(st.sampled_from(divisors)),
        clip=draw(st.floats(0.01, 8)),
    )


def rows_from(patients: list[list[tuple[int, int, int]]]) -> PatientRows:
    flat = [(number, *record) for number, records in enumerate(patients) for record in records]
    table = np.array(flat, dtype=np.int64).reshape(-1, 4)
    return rows_of(table[:, 1:3], table[:, 3], table[:, 0])


@settings(max_examples=300, deadline=None)
@given(query=queries(), patients=PATIENTS, data=st.data())
def test_no_patient_changes_the_answer_by_more_than_the_clip(
    query: AdditiveEvaluationQuery, patients: list[list[tuple[int, int, int]]], data: st.DataObject
) -> None:
    added = data.draw(st.lists(RECORD, min_size=1, max_size=30))
    place = data.draw(st.integers(0, len(patients)))
    without = query.answer(rows_from(patients))
    with_one = query.answer(rows_from([*patients[:place], added, *patients[place:]]))
    assert without.shape == (query.n_values,)
    assert np.linalg.norm(with_one - without) <= query.sensitivity * (1 + 1e-9)


@pytest.mark.parametrize("groups", [[], [0], [0, 1]])
@pytest.mark.parametrize("clip", [0.5, 2.0])
def test_the_sensitivity_is_reached_so_it_is_not_needlessly_large(
    groups: list[int], clip: float
) -> None:
    query = replace(SMALL, groups=np.array(groups, dtype=np.int64), clip=clip)
    change = query.answer(rows_from([[(2, 4, 1)] * 30]))
    assert np.linalg.norm(change) == pytest.approx(clip, rel=1e-12)


def test_the_records_overall_get_most_of_the_budget_and_without_groups_nearly_all() -> None:
    with_groups = SMALL.unpack(np.zeros(SMALL.n_values), 1.0)
    assert with_groups.overall.noise_std == pytest.approx(1 / math.sqrt(0.6))
    assert [group.noise_std for group in with_groups.groups] == pytest.approx(
        [1 / math.sqrt(0.19)] * 2
    )
    alone = replace(SMALL, groups=np.array([], dtype=np.int64))
    counts = alone.unpack(np.zeros(alone.n_values), 1.0)
    assert counts.overall.noise_std == pytest.approx(1 / math.sqrt(0.98))
    assert counts.patients_std == pytest.approx(1 / math.sqrt(0.02) / alone.clip)


@settings(max_examples=100, deadline=None)
@given(query=queries(), patients=PATIENTS)
def test_the_answer_is_that_of_a_loop_over_patients(
    query: AdditiveEvaluationQuery, patients: list[list[tuple[int, int, int]]]
) -> None:
    counts = query.unpack(query.answer(rows_from(patients)), 0.0)
    assert counts.patients == pytest.approx(len(patients))
    for histogram, feature in ((counts.overall, None), *zip(counts.groups, query.groups.tolist())):  # noqa: B905
        expected = np.zeros_like(histogram.sums)
        for records in patients:
            own = np.zeros_like(expected)
            for record in records:
                score = query.intercept + query.shapes[record[0]] + query.shapes[3 + record[1]]
                found, position = histogram.bins.place(np.array([score]))
                level = 0 if feature is None else record[feature]
                own[level, record[2], found] += 1
                own[level, 2, found] += position
            expected += own * min(1.0, query.clip / np.linalg.norm(own))
        assert histogram.sums == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(query=queries())
def test_every_code_has_its_place_so_that_no_failure_tells_of_a_row(
    query: AdditiveEvaluationQuery,
) -> None:
    records = itertools.product(range(3), range(5), range(2))
    answer = query.answer(rows_from([[record] for record in records]))
    assert np.isfinite(answer).all()


def test_sites_add_up() -> None:
    rng = np.random.default_rng(1)
    patients = [[(*rng.integers(0, 3, 2), int(rng.integers(0, 2)))] * 2 for _ in range(40)]
    together = SMALL.answer(rows_from(patients))
    parts = SMALL.answer(rows_from(patients[:15])) + SMALL.answer(rows_from(patients[15:]))
    assert parts == pytest.approx(together, rel=1e-12, abs=1e-12)


def test_without_patients_the_answer_is_zero_and_nothing_is_told() -> None:
    answer = SMALL.answer(rows_from([]))
    assert np.array_equal(answer, np.zeros(SMALL.n_values))
    result = evaluate(SMALL, answer, 0.0, max_records=4)
    assert result.overall == Stratum(*[Estimate(0.0, 0.0, 0.0)] * 2, None, None, None, None)
    assert result.brier is result.auprc is result.calibration_slope is None
    assert result.calibration_error is None


@pytest.mark.parametrize(
    "change",
    [
        {"shapes": np.ones(7)},
        {"shapes": np.ones((2, 4))},
        {"shapes": np.array([*[0.0] * 7, np.nan])},
        {"intercept": math.inf},
        {"n_codes": np.array([8, 0])},
        {"n_codes": np.array([], dtype=np.int64), "shapes": np.array([])},
        {"n_codes": np.array([3.0, 5.0])},
        {"edges": np.array([])},
        {"edges": np.array([0.0, 0.0, 1.0])},
        {"edges": np.array([1.0, 0.0, 2.0])},
        {"edges": np.array([0.0, 1.0, math.inf])},
        {"groups": np.array([2])},
        {"groups": np.array([-1])},
        {"groups": np.array([0, 0])},
        {"groups": np.array([0.0])},
        {"group_bins": 0},
        {"group_bins": 3},
        {"group_bins": 8},
        {"group_bins": 2.0},
        {"clip": 0.0},
        {"clip": math.nan},
    ],
)
def test_a_query_that_does_not_fit_together_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_an_answer_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="values"):
        evaluate(SMALL, np.zeros(SMALL.n_values + 1), 1.0, max_records=4)


def test_positions_say_what_the_bins_hide() -> None:
    scores = np.linspace(-60, 60, 1001)
    for bins in (ScoreBins(np.array([-40.0, -1.0, 0.5, 2.0, 39.0])), ScoreBins(SMALL.edges, 2)):
        found, position = bins.place(scores)
        assert np.abs(position).max() <= 0.5
        assert bins.middle[found] + bins.width[found] * position == pytest.approx(sigmoid(scores))


# --- edges -------------------------------------------------------------------------------------


def score_counts(scores: Vector, noise_std: float, seed: int) -> Vector:
    counts = np.histogram(np.clip(scores, -7.99, 7.99), bins=128, range=(-8, 8))[0]
    noise = noise_std * np.random.default_rng(seed).standard_normal(256)
    return np.concatenate([0.9 * counts, 0.1 * counts]) + noise


@pytest.mark.parametrize("noise_std", [0.0, 10.0])
def test_edges_give_every_bin_the_same_share_of_both_labels_together(noise_std: float) -> None:
    scores = np.random.default_rng(2).normal(-2.5, 1.0, 45_000)
    line = Recalibration(slope=0.8, shift=0.2, slope_variance=0.0, curvature=0.1)
    edges = score_edges(score_counts(scores, noise_std, 3), noise_std, 8.0, line, 12)
    recalibrated = 0.8 * scores + 0.2
    rate = sigmoid(recalibrated)
    found = np.searchsorted(edges, recalibrated)
    share = sum(np.bincount(found, weight, 12) / weight.sum() / 2 for weight in (rate, 1 - rate))
    assert share == pytest.approx(np.full(12, 1 / 12), abs=0.012)


@pytest.mark.parametrize("slope", [0.2, 1.0, 5.0])
def test_edges_ascend_even_where_noise_drowns_everything(slope: float) -> None:
    line = Recalibration(slope, shift=-5.0, slope_variance=0.0, curvature=0.1)
    for seed in range(20):
        edges = score_edges(score_counts(np.zeros(50), 100.0, seed), 100.0, 8.0, line)
        assert edges.size == SCORE_BINS - 1
        replace(SMALL, edges=edges)  # accepts them


def test_an_evaluation_follows_from_the_recalibration_round() -> None:
    rng = np.random.default_rng(6)
    people = world(0.11, truth=(0.8, -0.1))
    asked = AdditiveScoreQuery(
        128, 8.0, 2.0, people.query.shapes, people.query.n_codes, people.query.intercept
    )
    counts = asked.answer(people.draw(rng, 45_000))
    counts = counts + 10 * rng.standard_normal(counts.size)
    line = recalibrate(counts, 10.0, 8.0, 0.1)
    query = replace(
        people.query,
        shapes=line.slope * people.query.shapes,
        intercept=line.slope * people.query.intercept + line.shift,
        edges=score_edges(counts, 10.0, 8.0, line),
    )
    values = query.answer(people.draw(rng, 15_000))
    result = evaluate(query, values + rng.standard_normal(values.size), 1.0, max_records=1)
    assert value(result.overall.auroc) == pytest.approx(truth_of(people)["auroc all"], abs=0.025)
    assert value(result.calibration_slope) == pytest.approx(1.0, abs=0.15)
    # Bins of equal mass: none is so small that its rate could not be told.
    assert all(point.observed is not None for point in result.reliability)


# --- figures -----------------------------------------------------------------------------------

CELLS = 120


@dataclass(frozen=True)
class World:
    """A population: scores of a model with two fine features and a group, and true rates."""

    codes: NDArray[np.uint8]
    scores: Vector
    rates: Vector
    query: AdditiveEvaluationQuery

    def draw(
        self, rng: np.random.Generator, n: int, repeats: NDArray[np.int_] | None = None
    ) -> PatientRows:
        """Rows of n patients, each of whose records is repeated as often as is said."""
        chosen = rng.integers(0, self.scores.size, n)
        labels = rng.random(n) < self.rates[chosen]
        repeats = np.ones(n, dtype=int) if repeats is None else repeats
        rows = np.repeat(np.arange(n), repeats)
        return rows_of(self.codes[chosen][rows], labels[rows], rows)


def world(base_rate: float, truth: tuple[float, float] = (1.0, 0.0), group: float = 0.0) -> World:
    """A model with `truth` as its calibration line, which is besides off by `group` in level 1."""
    rng = np.random.default_rng(17)
    n = 150_000
    fine = [rng.standard_normal(n), (rng.gamma(2.0, 1.0, n) - 2) / math.sqrt(2)]
    cells = [np.clip(np.round((x + 3) * CELLS / 6), 0, CELLS - 1).astype(int) for x in fine]
    levels = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    grid = np.linspace(-3, 3, CELLS)
    shapes = np.concatenate([0.8 * grid, 0.6 * grid, [0.0, 0.6, -0.3, 0.0]])
    scores = 0.8 * grid[cells[0]] + 0.6 * grid[cells[1]] + shapes[2 * CELLS + levels]
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(scores + middle).mean() < base_rate else (low, middle)
    scores = scores + low
    query = AdditiveEvaluationQuery(
        shapes=shapes,
        n_codes=np.array([CELLS, CELLS, 4]),
        intercept=low,
        edges=score_edges(score_counts(scores, 0.0, 0), 0.0, 8.0, Recalibration(1, 0, 0, 0)),
        groups=np.array([2]),
        group_bins=GROUP_BINS,
        clip=2.0,
    )
    slope, intercept = truth
    rates = sigmoid(slope * scores + intercept + group * (levels == 1))
    return World(np.stack([*cells, levels], axis=1).astype(np.uint8), scores, rates, query)


def truth_of(world: World) -> dict[str, float]:
    """The figures of the whole population, exactly."""
    predicted = sigmoid(world.scores)
    design = np.stack([world.scores, np.ones_like(world.scores)])
    line = np.array([1.0, 0.0])
    for _ in range(30):
        rate = sigmoid(line @ design)
        hessian = (design * (rate * (1 - rate))) @ design.T
        line += np.linalg.solve(hessian, design @ (world.rates - rate))
    found = np.searchsorted(world.query.edges, world.scores, side="right")
    gaps = np.bincount(found, world.rates - predicted) / np.bincount(found)
    figures = {
        "auprc": ranking(world.scores, world.rates)[1],
        "brier": float(np.mean(world.rates * (1 - predicted) ** 2
                               + (1 - world.rates) * predicted**2)),
        "slope": line[0],
        "intercept": line[1],
        "calibration error": math.sqrt(np.bincount(found) @ gaps**2 / found.size),
    }  # fmt: skip
    levels = world.codes[:, 2]
    for name, chosen in (("all", levels >= 0), *((f"level {k}", levels == k) for k in range(3))):
        figures[f"auroc {name}"] = ranking(world.scores[chosen], world.rates[chosen])[0]
        figures[f"observed {name}"] = world.rates[chosen].mean()
        figures[f"predicted {name}"] = predicted[chosen].mean()
        figures[f"gap {name}"] = (world.rates - predicted)[chosen].mean()
    for number in range(SCORE_BINS):
        figures[f"observed bin {number}"] = world.rates[found == number].mean()
    return figures


def ranking(scores: Vector, rates: Vector) -> tuple[float, float]:
    """AUROC and mean precision of an infinite population."""
    _, at = np.unique(-scores, return_inverse=True)
    positives, records = np.bincount(at, rates), np.bincount(at)
    negatives = records - positives
    above = np.cumsum(positives) - positives / 2
    precision = np.cumsum(positives) / np.cumsum(records)
    return (
        float(negatives @ above / positives.sum() / negatives.sum()),
        float(positives @ precision / positives.sum()),
    )


def figures_of(result: Evaluation) -> dict[str, Estimate | None]:
    figures = {
        "auprc": result.auprc,
        "brier": result.brier,
        "slope": result.calibration_slope,
        "intercept": result.calibration_intercept,
        "calibration error": result.calibration_error,
    }
    levels = {f"level {number}": level for number, level in enumerate(result.groups[0][:3])}
    for name, stratum in {"all": result.overall, **levels}.items():
        for figure in ("auroc", "observed", "predicted", "gap"):
            figures[f"{figure} {name}"] = getattr(stratum, figure)
    for number, point in enumerate(result.reliability):
        figures[f"observed bin {number}"] = point.observed
    return figures


@pytest.mark.parametrize("base_rate", [0.02, 0.11, 0.5, 0.9])
def test_without_noise_the_figures_are_those_of_scikit_learn_but_for_the_bins(
    base_rate: float,
) -> None:
    rng = np.random.default_rng(8)
    people = world(base_rate, truth=(0.9, 0.1))
    rows = people.draw(rng, 40_000)
    query = replace(people.query, clip=math.inf)
    result = evaluate(query, query.answer(rows), 0.0, max_records=1)

    offsets = np.array([0, CELLS, 2 * CELLS])
    scores = query.intercept + query.shapes[rows.codes + offsets].sum(axis=1)
    probabilities, labels = sigmoid(scores), rows.labels
    line = LogisticRegression(C=np.inf).fit(scores[:, None], labels)
    found = figures_of(result)
    values = {name: figure.value for name, figure in found.items() if figure}
    # Bins do not know how a sample's records happen to lie within them.
    assert values["auroc all"] == pytest.approx(roc_auc_score(labels, scores), abs=1.5e-3)
    assert values["auprc"] == pytest.approx(average_precision_score(labels, scores), abs=0.01)
    assert values["brier"] == pytest.approx(brier_score_loss(labels, probabilities), abs=4e-4)
    assert values["slope"] == pytest.approx(line.coef_[0, 0], abs=0.015)
    assert values["intercept"] == pytest.approx(line.intercept_[0], abs=0.05)
    for name, chosen in (
        ("all", rows.codes[:, 2] >= 0),
        *((f"level {level}", rows.codes[:, 2] == level) for level in range(3)),
    ):
        assert values[f"observed {name}"] == pytest.approx(labels[chosen].mean(), rel=1e-9)
        assert values[f"predicted {name}"] == pytest.approx(probabilities[chosen].mean(), rel=1e-9)
        exact = roc_auc_score(labels[chosen], probabilities[chosen])
        assert values[f"auroc {name}"] == pytest.approx(exact, abs=0.012)
    assert result.overall.rows == Estimate(*[pytest.approx(40_000)] * 3)
    assert result.overall.positives == Estimate(*[pytest.approx(labels.sum())] * 3)
    assert result.patients == Estimate(*[pytest.approx(40_000)] * 3)
    bins = np.searchsorted(query.edges, scores, side="right")
    for number, point in enumerate(result.reliability):
        assert value(point.rows) == pytest.approx((bins == number).sum())
        assert value(point.observed) == pytest.approx(labels[bins == number].mean())
        assert value(point.predicted) == pytest.approx(probabilities[bins == number].mean())
        assert point.auroc is None


@pytest.mark.parametrize("fitting", [True, False])
def test_scores_of_few_values_give_exact_rates_and_nearly_exact_areas(fitting: bool) -> None:
    """Also where edges fall right beside them, and the middle of a bin would say little."""
    rng = np.random.default_rng(5)
    codes = rng.integers(0, [3, 5], (30_000, 2))
    scores = SMALL.intercept + SMALL.shapes[codes[:, 0]] + SMALL.shapes[3 + codes[:, 1]]
    labels = (rng.random(30_000) < sigmoid(scores)).astype(float)
    counts, line = score_counts(scores, 0.0, 0), Recalibration(1, 0, 0, 0)
    edges = score_edges(counts, 0.0, 8.0, line) if fitting else np.linspace(-3, 2.4, 11) + 1e-9
    query = replace(SMALL, edges=edges, group_bins=4, clip=math.inf)
    rows = rows_of(codes, labels, np.arange(30_000))
    result = evaluate(query, query.answer(rows), 0.0, max_records=1)
    probabilities = sigmoid(scores)
    regression = LogisticRegression(C=np.inf).fit(scores[:, None], labels)
    assert value(result.overall.gap) == pytest.approx((labels - probabilities).mean(), abs=1e-12)
    assert value(result.brier) == pytest.approx(brier_score_loss(labels, probabilities), abs=1e-3)
    slope, intercept = value(result.calibration_slope), value(result.calibration_intercept)
    assert slope == pytest.approx(regression.coef_[0, 0], abs=0.01)
    assert intercept == pytest.approx(regression.intercept_[0], abs=0.01)
    loss = 2e-3 if fitting else 6e-3
    assert value(result.overall.auroc) == pytest.approx(roc_auc_score(labels, scores), abs=loss)
    # scikit-learn puts the negatives of a tie first; here a tie is in the order of chance.
    broken = average_precision_score(labels, scores + 1e-6 * rng.random(30_000))
    assert value(result.auprc) == pytest.approx(broken, abs=2 * loss)


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def test_the_auroc_of_raw_counts_is_not_pulled_to_one_half_by_noise() -> None:
    people = world(0.02)
    rng = np.random.default_rng(11)
    answer = people.query.answer(people.draw(rng, 60_000))
    exact = auroc(strata_of(people.query.unpack(answer, 0.0).overall)[0])[0]
    raw, cut = [], []
    for _ in range(400):
        noisy = answer + 60 * rng.standard_normal(answer.size)
        cells = strata_of(people.query.unpack(noisy, 60.0).overall)[0]
        raw.append(auroc(cells)[0])
        cut.append(auroc(replace(cells, sums=np.maximum(cells.sums, 0.0)))[0])
    # False alarm: 1 in 15 000 for an unbiased figure (4 standard errors).
    assert abs(np.mean(raw) - exact) < 4 * np.std(raw) / 20
    assert np.mean(cut) - exact < -6 * np.std(cut) / 20


# --- what is told, and what is not -------------------------------------------------------------


def test_whatever_noise_drowns_is_not_told() -> None:
    people = world(0.11)
    rng = np.random.default_rng(3)
    answer = people.query.answer(people.draw(rng, 5000))
    for _ in range(20):
        noisy = answer + 3000 * rng.standard_normal(answer.size)
        result = evaluate(people.query, noisy, 3000.0, max_records=4)
        assert set(figures_of(result).values()) == {None}
        assert result.overall.rows is not None  # with an interval that says how little it is worth
        assert result.overall.rows.high - result.overall.rows.low > 50_000


def test_an_area_needs_records_of_either_label() -> None:
    people = world(0.02)
    result = evaluate(
        people.query,
        people.query.answer(people.draw(np.random.default_rng(3), 1000)),
        0.0,
        max_records=1,
    )
    assert result.overall.auroc is result.auprc is result.calibration_slope is None
    assert result.overall.gap is not None


def test_labels_have_no_say_in_which_rates_are_told() -> None:
    """Otherwise those would be told that chance flatters, and intervals would not cover them."""
    people = world(0.11)
    rng = np.random.default_rng(4)
    told = set()
    for _ in range(30):
        rows = people.draw(rng, 3000)
        noise = 8 * rng.standard_normal(people.query.n_values)
        results = [
            evaluate(people.query, people.query.answer(other) + noise, 8.0, max_records=1)
            for other in (rows, replace(rows, labels=rng.permutation(rows.labels)))
        ]
        patterns = [
            tuple(
                (point.observed is None, point.predicted is None, point.gap is None)
                for point in (result.overall, *result.reliability, *result.groups[0])
            )
            for result in results
        ]
        assert patterns[0] == patterns[1]
        told |= set(patterns)
    assert len(told) > 5  # the rule was put to the test


def test_precision_is_not_told_where_the_highest_bin_drowns() -> None:
    people = world(0.5)
    counts = people.query.answer(people.draw(np.random.default_rng(6), 100_000))
    query = replace(people.query, edges=np.append(people.query.edges[:-1], 4.5))
    rows = people.draw(np.random.default_rng(6), 100_000)
    result = evaluate(query, query.answer(rows), 20.0, max_records=1)
    assert result.overall.auroc is not None
    assert result.auprc is None
    assert evaluate(people.query, counts, 20.0, max_records=1).auprc is not None


def test_there_is_no_calibration_line_where_labels_are_separated_or_scores_all_alike() -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(0, [3, 5], (4000, 2))
    scores = SMALL.intercept + SMALL.shapes[codes[:, 0]] + SMALL.shapes[3 + codes[:, 1]]
    separated = rows_of(codes, (scores > 0).astype(float), np.arange(4000))
    result = evaluate(SMALL, SMALL.answer(separated), 0.0, max_records=1)
    assert result.calibration_slope is result.calibration_intercept is None
    assert value(result.overall.auroc) > 0.99
    alike = rows_of(np.ones((4000, 2)), rng.integers(0, 2, 4000), np.arange(4000))
    result = evaluate(SMALL, SMALL.answer(alike), 0.0, max_records=1)
    assert result.calibration_slope is result.calibration_intercept is None


def test_a_calibration_line_solves_its_equation_or_is_none() -> None:
    people = world(0.11)
    rng = np.random.default_rng(5)
    answer = people.query.answer(people.draw(rng, 2000))
    clear = strata_of(people.query.unpack(answer, 0.0).overall)[0]
    found = 0
    for _ in range(300):
        cells = replace(clear, sums=clear.sums + 50 * rng.standard_normal(clear.sums.shape))
        slope, gradient = calibration_slope(cells)
        intercept, _ = calibration_intercept(cells)
        if math.isnan(slope):
            assert math.isnan(intercept)
            assert np.isnan(gradient).all()
            continue
        found += 1
        start = cells.typical.mean(axis=1)
        score = np.log(start / (1 - start))
        rows = cells.sums[0] + cells.sums[1]
        change = rows * (sigmoid(slope * score + intercept) - start)
        excess = cells.expected.sums[1] + change - cells.sums[1]
        assert abs(excess.sum()) + abs(excess @ score) < 1e-6 * rows.sum()
    assert 100 < found < 290


# --- intervals ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base_rate", "truth", "group"),
    [
        (0.02, (1.0, 0.0), 0.0),
        (0.11, (1.0, 0.0), 0.0),
        (0.5, (1.0, 0.0), 0.0),
        (0.11, (0.8, 0.3), 0.3),
    ],
)
def test_intervals_cover_the_truth_as_often_as_they_say(
    base_rate: float, truth: tuple[float, float], group: float
) -> None:
    """200 samples of each size and noise; the truth is that of the whole population.

    False alarm, where intervals cover 95 %: 1 in 10 000 for each of at most 200 shares of a case,
    so 2 % for a case; far less for the averages.
    """
    people = world(base_rate, truth, group)
    exact = truth_of(people)
    rng = np.random.default_rng(23)
    overall: dict[str, list[float]] = {}
    sizes = ((2000, 0), (2000, 2), (15_000, 0), (15_000, 8), (15_000, 30), (40_000, 2))
    for n, noise_std in sizes:
        covered: dict[str, list[bool]] = {}
        for _ in range(200):
            values = people.query.answer(people.draw(rng, n))
            values = values + noise_std * rng.standard_normal(values.size)
            result = evaluate(people.query, values, noise_std, max_records=1)
            for name, figure in figures_of(result).items():
                if figure:
                    assert figure.low <= figure.value <= figure.high
                    hit = figure.low - 1e-12 <= exact[name] <= figure.high + 1e-12
                    covered.setdefault(name, []).append(hit)
        for name, hits in covered.items():
            if len(hits) >= 180:
                assert np.mean(hits) >= 0.88, (n, noise_std, name)
            overall.setdefault(name, []).extend(hits)
    for name, hits in overall.items():
        # The error of calibration is never negative, so an interval down to 0 covers it always.
        most = 1.0 if name == "calibration error" else 0.99
        assert 0.925 <= np.mean(hits) <= most, name


def test_records_of_one_patient_count_as_alike() -> None:
    """Copies of a record add no information; taking them for independent would.

    False alarm: below 1 in 1000 for each of four figures; 300 samples.
    """
    people = world(0.11)
    query = replace(people.query, clip=4.0)
    exact = truth_of(people)
    rng = np.random.default_rng(9)
    covered: dict[tuple[int, str], list[bool]] = {}
    for _ in range(300):
        repeats = rng.choice([1, 2, 3, 4], 4000, p=[0.75, 0.13, 0.07, 0.05])
        values = query.answer(people.draw(rng, 4000, repeats))
        values = values + 2 * rng.standard_normal(values.size)
        for max_records in (1, 4):
            figures = figures_of(evaluate(query, values, 2.0, max_records=max_records))
            for name in ("auroc all", "observed all", "gap all", "brier"):
                figure = figures[name]
                assert figure is not None
                hit = figure.low <= exact[name] <= figure.high
                covered.setdefault((max_records, name), []).append(hit)
    for (max_records, name), hits in covered.items():
        if max_records == 4:
            assert np.mean(hits) > 0.91, name
        else:
            assert np.mean(hits) < 0.93, name
