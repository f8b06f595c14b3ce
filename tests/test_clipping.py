"""What one patient can change: clipping, and the sensitivity that every query declares."""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.clipping import clipped_patient_counts, clipped_patient_sum
from models.patients import PatientRows, group_by_patient
from models.queries import (
    AdditiveScoreQuery,
    GradientQuery,
    GramQuery,
    HistogramQuery,
    Query,
    pack_tables,
)

N_CODES = (3, 5)
SLACK = 1e-9

Record = tuple[int, int, bool]  # code of either feature, label
RECORD = st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans())
PATIENT = st.lists(RECORD, min_size=1, max_size=50)
VALUES = st.floats(-10, 10)


def site(patients: list[list[Record]], max_records: int) -> PatientRows:
    flat = [(number, row, *record) for number, rows in enumerate(patients) for row, record in
            enumerate(rows)]  # fmt: skip
    table = np.array(flat, dtype=np.int64).reshape(-1, 5)
    return group_by_patient(
        table[:, 2:4].astype(np.uint8),
        table[:, 4].astype(np.float64),
        pl.Series([f"{n:04d}" for n in table[:, 0]], dtype=pl.String),
        pl.Series([f"{n:04d}" for n in table[:, 1]], dtype=pl.String),
        max_records=max_records,
    )


@st.composite
def tables(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    widths = [draw(st.integers(0, 3)) for _ in N_CODES]
    return pack_tables(
        tuple(
            draw(arrays(np.float64, (n, width), elements=VALUES))
            for n, width in zip(N_CODES, widths, strict=True)
        )
    )


@st.composite
def gram_queries(draw: st.DrawFn) -> Query:
    return GramQuery(*draw(tables()), row_bound=draw(st.floats(0.01, 20)))


@st.composite
def gradient_queries(draw: st.DrawFn) -> Query:
    packed, shapes = draw(tables())
    d = int(shapes[:, 1].sum())
    return GradientQuery(
        packed,
        shapes,
        # Smaller than the tables, or terms that cancel would make it a query that is refused.
        whitening=draw(arrays(np.float64, (d, d), elements=st.floats(-1, 1))),
        coefficients=draw(arrays(np.float64, d + 1, elements=st.floats(-1, 1))),
        clip=draw(st.floats(1, 20)),
    )


@st.composite
def score_queries(draw: st.DrawFn) -> Query:
    return AdditiveScoreQuery(
        shapes=draw(arrays(np.float64, sum(N_CODES), elements=VALUES)),
        n_codes=np.array(N_CODES),
        intercept=draw(VALUES),
        bins=draw(st.integers(1, 64)),
        limit=draw(st.floats(0.1, 10)),
        clip=draw(st.floats(0.01, 5)),
    )


QUERIES = st.one_of(
    st.just(HistogramQuery(np.array(N_CODES))), gram_queries(), gradient_queries(), score_queries()
)


@settings(max_examples=300, deadline=None)
@given(
    query=QUERIES,
    others=st.lists(PATIENT, max_size=4),
    patient=PATIENT,
    max_records=st.integers(1, 50),
)
def test_no_patient_changes_an_answer_by_more_than_the_declared_sensitivity(
    query: Query, others: list[list[Record]], patient: list[Record], max_records: int
) -> None:
    without = query.answer(site(others, max_records))
    added = query.answer(site([*others, patient], max_records))
    assert added.shape == without.shape == (query.n_values,)
    assert np.linalg.norm(added - without) <= query.sensitivity + SLACK


@settings(max_examples=100, deadline=None)
@given(query=QUERIES, patients=st.lists(PATIENT, min_size=1, max_size=4), data=st.data())
def test_removing_any_patient_changes_an_answer_by_no_more(
    query: Query, patients: list[list[Record]], data: st.DataObject
) -> None:
    gone = data.draw(st.integers(0, len(patients) - 1))
    rest = [rows for number, rows in enumerate(patients) if number != gone]
    change = query.answer(site(patients, 4)) - query.answer(site(rest, 4))
    assert np.linalg.norm(change) <= query.sensitivity + SLACK


@pytest.mark.parametrize("n", [1, 4, 50])
def test_the_sensitivities_are_reached_so_none_is_needlessly_large(n: int) -> None:
    worst = [(2, 4, True)] * n
    packed = pack_tables((np.full((3, 1), 9.0), np.full((5, 1), 9.0)))
    reached = {
        "histogram": HistogramQuery(np.array(N_CODES)),
        "gram": GramQuery(*packed, row_bound=2.0),
        "gradient": GradientQuery(*packed, np.eye(2), np.zeros(3), clip=1.5),
        "recalibration": AdditiveScoreQuery(8, 4.0, 1.0, np.zeros(8), np.array(N_CODES), 0.0),
    }
    for step, query in reached.items():
        change = np.linalg.norm(query.answer(site([worst], n)))
        assert change == pytest.approx(query.sensitivity, rel=1e-12), step


def test_a_query_of_no_patients_answers_zero() -> None:
    packed = pack_tables((np.ones((3, 2)), np.ones((5, 1))))
    for query in (
        HistogramQuery(np.array(N_CODES)),
        GramQuery(*packed, row_bound=1.0),
        GradientQuery(*packed, np.eye(3), np.zeros(4), clip=1.0),
        GradientQuery(*packed, np.eye(3), np.zeros(4), clip=math.inf),
        AdditiveScoreQuery(8, 4.0, 1.0, np.zeros(8), np.array(N_CODES), 0.0),
    ):
        assert np.array_equal(query.answer(site([], 4)), np.zeros(query.n_values))


# --- the two sums ------------------------------------------------------------------------------


def one_by_one(
    rows: NDArray[np.float64], factors: NDArray[np.float64], starts: list[int], bound: float
) -> NDArray[np.float64]:
    total = np.zeros(rows.shape[1])
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        contribution = factors[start:end] @ rows[start:end]
        total += contribution * min(1.0, bound / max(np.linalg.norm(contribution), 1e-300))
    return total


@pytest.mark.parametrize("bound", [1e-3, 1.0, 1e6])
def test_the_clipped_sum_is_that_of_a_loop_over_patients(bound: float) -> None:
    rng = np.random.default_rng(1)
    rows, factors = rng.normal(size=(30, 4)), rng.normal(size=30)
    starts = [0, 1, 5, 6, 20]
    fast = clipped_patient_sum(rows, factors, np.array(starts), bound)
    assert fast == pytest.approx(one_by_one(rows, factors, starts, bound), rel=1e-12)


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    scale=st.floats(1e-3, 1e6),
    bound=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_patient_adds_at_most_the_bound_to_the_sum(
    counts: list[int], scale: float, bound: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = scale * rng.standard_cauchy((sum(counts), 3))
    factors = rng.uniform(-1, 1, sum(counts))
    starts = np.cumsum([0, *counts[:-1]])
    whole = clipped_patient_sum(rows, factors, starts, bound)
    rest = clipped_patient_sum(rows[: starts[-1]], factors[: starts[-1]], starts[:-1], bound)
    assert np.linalg.norm(whole - rest) <= bound * (1 + SLACK)
    slow = one_by_one(rows, factors, starts.tolist(), bound)
    assert whole == pytest.approx(slow, rel=1e-9, abs=1e-9 * bound)


def test_clipping_is_per_patient_and_not_per_record() -> None:
    rows, factors = np.ones((50, 1)), np.ones(50)
    assert clipped_patient_sum(rows, factors, np.array([0]), 1.0) == pytest.approx([1.0])


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 1e300])
@pytest.mark.parametrize("where", ["rows", "factors"])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_value_that_is_not_finite_or_overflows_is_rejected_and_never_passed_on(
    bad: float, where: str
) -> None:
    rows, factors = np.ones((6, 2)), np.ones(6)
    (rows if where == "rows" else factors)[3] = bad
    with pytest.raises(ValueError, match="not finite"):
        clipped_patient_sum(rows, factors, np.array([0, 2, 5]), 1.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_that_bounds_nothing_is_an_error(bound: float) -> None:
    with pytest.raises(ValueError, match="bound"):
        clipped_patient_sum(np.ones((1, 1)), np.ones(1), np.array([0]), bound)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_counts_need_a_positive_bound(bound: float) -> None:
    with pytest.raises(ValueError, match="bound"):
        clipped_patient_counts(np.array([0]), np.array([0]), n_cells=2, bound=bound)


@given(
    cells=st.lists(st.integers(0, 5), max_size=60),
    bound=st.floats(0.01, 10),
    data=st.data(),
)
def test_clipped_counts_are_those_of_a_loop_over_patients(
    cells: list[int], bound: float, data: st.DataObject
) -> None:
    n = len(cells)
    patients = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    expected = np.zeros(6)
    for patient in set(patients):
        own = [cell for cell, whose in zip(cells, patients, strict=True) if whose == patient]
        counts = np.bincount(own, minlength=6).astype(float)
        expected += counts * min(1.0, bound / np.linalg.norm(counts))
    fast = clipped_patient_counts(
        np.array(cells, dtype=np.intp), np.array(patients, dtype=np.intp), n_cells=6, bound=bound
    )
    assert fast == pytest.approx(expected, rel=1e-12)


# --- queries made to hide a patient from the clip ----------------------------------------------


def test_a_bound_so_small_that_squares_underflow_is_refused() -> None:
    # Records of 1e-170 that cancel in one column had a norm of zero and were never clipped.
    rows = np.array([[1.0, 1e-170], [1.0, 1e-170]])
    for bound in (1e-200, 5e-324, 1e-7):
        with pytest.raises(ValueError, match="bound"):
            clipped_patient_sum(rows, np.array([0.5, -0.5]), np.array([0]), bound)
    with pytest.raises(ValueError, match="bound"):
        GramQuery(np.ones(2), np.array([[2, 1]]), 1e-200)


@pytest.mark.parametrize("position", range(3))
def test_huge_records_that_cancel_do_not_swallow_other_patients(position: int) -> None:
    huge = [np.array([[5e17, 0.0], [5e17, 0.0]]), np.array([0.5, -0.5])]
    others = [np.array([[1.0, 0.0]]), np.array([1.0])]
    parts = [others, others]
    parts.insert(position, huge)
    rows = np.vstack([part[0] for part in parts])
    factors = np.concatenate([part[1] for part in parts])
    starts = np.cumsum([0, *(len(part[1]) for part in parts)])[:-1]
    total = clipped_patient_sum(rows, factors, starts, 1e-3)
    assert np.abs(total - [2e-3, 0.0]).max() <= 1e-3 * (1 + 1e-9)


def test_blocks_add_up_to_the_whole(rows_of: Callable[..., PatientRows]) -> None:
    rng = np.random.default_rng(4)
    patients = np.sort(rng.integers(0, 400, 1000))
    codes, labels = rng.integers(0, 3, (1000, 2)), rng.integers(0, 2, 1000) * 1.0
    rows = rows_of(codes, labels, patients, max_records=20)
    blocks = list(rows.blocks(90))
    assert len(blocks) > 8
    assert sum(block.n_patients for block in blocks) == rows.n_patients
    assert np.array_equal(np.concatenate([block.codes for block in blocks]), rows.codes)
    assert np.array_equal(np.concatenate([block.weights for block in blocks]), rows.weights)
    assert all(block.starts[0] == 0 for block in blocks)


# --- rounding -------------------------------------------------------------------------------------


def test_a_query_whose_answer_would_be_rounding_errors_is_refused() -> None:
    # Tables that the whitening maps to zero, times 1e18: what a row leaves is the rounding errors
    # of its place in a block, which before the check moved sums by 1.7 clips.
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 12))
    packed, shapes = pack_tables(tuple(np.repeat(row[None, :], 40, axis=0) for row in values))
    flat = values.ravel()
    whitening = rng.normal(size=(60, 60))
    whitening -= np.outer(flat, flat @ whitening) / (flat @ flat)
    codes, labels = rng.integers(0, 40, (30, 5)), np.zeros(30)
    rows = PatientRows(codes.astype(np.uint8), labels, np.arange(30), np.ones(30), max_records=4)
    query = GradientQuery(packed, shapes, whitening * 1e18, np.zeros(61), clip=7.0)
    with pytest.raises(ValueError, match="rounding would tell"):
        query.answer(rows)
    GradientQuery(packed, shapes, whitening, np.zeros(61), clip=7.0).answer(rows)


def test_blocks_are_short_enough_for_what_is_allowed_for_adding_up() -> None:
    # models.mechanisms.float_slack counts on it: no value passes through more than 2^16 additions.
    n = 120_000
    rows = PatientRows(
        np.zeros((n, 1), dtype=np.uint8), np.zeros(n), np.arange(n), np.ones(n), max_records=1000
    )
    assert max(block.n_rows for block in rows.blocks()) < 2**16
