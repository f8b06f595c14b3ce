"""Rows grouped by patient, and the split of patients into training and test."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.split import held_out
from models.keystream import keystream
from models.patients import PatientRows, group_by_patient

TOKENS = st.lists(st.sampled_from("abcdefg"), max_size=80)


def grouped(patients: list[str], order: list[int] | None = None, *, most: int) -> PatientRows:
    """Rows 0, 1, ... of the given patients, in the given order; a row's label is its number."""
    index = np.arange(len(patients)) if order is None else np.array(order, dtype=np.intp)
    return group_by_patient(
        (index[:, None] % 250).astype(np.uint8),
        index.astype(np.float64),
        pl.Series([patients[i] for i in index], dtype=pl.String),
        pl.Series([f"{i * 7919 % 1009:04d}" for i in index], dtype=pl.String),
        max_records=most,
    )


@given(patients=TOKENS, most=st.integers(1, 6))
def test_every_patient_keeps_its_records_up_to_the_bound(patients: list[str], most: int) -> None:
    rows = grouped(patients, most=most)
    sizes = np.diff(rows.starts, append=rows.n_rows)
    expected = [min(patients.count(name), most) for name in sorted(set(patients))]
    assert sizes.tolist() == expected
    assert rows.n_patients == len(set(patients))
    assert rows.max_records == most


@given(patients=TOKENS, most=st.integers(1, 6))
def test_the_weights_of_a_patient_are_equal_and_add_up_to_one(
    patients: list[str], most: int
) -> None:
    rows = grouped(patients, most=most)
    sums = np.bincount(rows.patient_of_row, rows.weights, minlength=rows.n_patients)
    assert sums == pytest.approx(np.ones(rows.n_patients))
    sizes = np.bincount(rows.patient_of_row, minlength=rows.n_patients)
    assert np.array_equal(rows.weights, 1.0 / sizes[rows.patient_of_row])


@given(patients=TOKENS, most=st.integers(1, 6))
def test_rows_of_a_patient_lie_together_and_keep_code_and_label(
    patients: list[str], most: int
) -> None:
    rows = grouped(patients, most=most)
    owners = [patients[int(label)] for label in rows.labels]
    names = sorted(set(patients))
    assert owners == [names[number] for number in rows.patient_of_row]
    assert np.array_equal(rows.codes[:, 0], rows.labels.astype(int) % 250)


@given(patients=TOKENS, most=st.integers(1, 6), random=st.randoms())
def test_the_order_in_which_rows_come_does_not_matter(
    patients: list[str], most: int, random: object
) -> None:
    order = list(range(len(patients)))
    random.shuffle(order)  # type: ignore[attr-defined]
    first, second = grouped(patients, most=most), grouped(patients, order, most=most)
    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.codes, second.codes)
    assert np.array_equal(first.starts, second.starts)


def test_which_records_are_kept_depends_on_their_tokens_and_not_on_their_labels() -> None:
    rows = grouped(["a"] * 30, most=4)
    smallest = sorted(range(30), key=lambda i: i * 7919 % 1009)[:4]
    assert rows.labels.astype(int).tolist() == smallest


def test_a_site_without_patients_has_empty_groups() -> None:
    rows = grouped([], most=4)
    assert (rows.n_patients, rows.n_rows, rows.patient_of_row.size) == (0, 0, 0)


@pytest.mark.parametrize("most", [0, -1])
def test_a_bound_below_one_record_is_an_error(most: int) -> None:
    with pytest.raises(ValueError, match="max_records"):
        grouped(["a"], most=most)


def test_a_row_that_belongs_to_no_patient_is_refused() -> None:
    with pytest.raises(ValueError, match="patient token"):
        group_by_patient(
            np.zeros((2, 1), dtype=np.uint8),
            np.zeros(2),
            pl.Series(["a", None]),
            pl.Series(["r", "s"]),
            max_records=4,
        )


# --- training and test -------------------------------------------------------------------------


def tokens(n: int) -> pl.Series:
    return pl.Series([f"{i:016x}" for i in range(n)])


def test_a_patient_is_on_one_side_at_every_site() -> None:
    patients = tokens(500)
    everywhere = held_out(patients, key="k", share=0.3)
    some = patients.sample(200, seed=1, with_replacement=True)
    known = dict(zip(patients, everywhere, strict=True))
    assert held_out(some, key="k", share=0.3).tolist() == [known[token] for token in some]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_about_the_asked_share_is_held_out(share: float) -> None:
    n = 20_000
    held = held_out(tokens(n), key="k", share=share).mean()
    # The key is fixed; for random keys 5 standard deviations are left once in 1.7e6.
    assert abs(held - share) < 5 * np.sqrt(share * (1 - share) / n)


def test_another_key_gives_an_independent_split() -> None:
    n = 20_000
    first = held_out(tokens(n), key="k", share=0.5)
    second = held_out(tokens(n), key="l", share=0.5)
    # As above: 5 standard deviations.
    assert abs((first == second).mean() - 0.5) < 5 * np.sqrt(0.25 / n)


def test_no_rows_hold_out_nothing() -> None:
    assert held_out(pl.Series([], dtype=pl.String), key="k", share=0.5).size == 0


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_0_to_1_is_an_error(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        held_out(tokens(3), key="k", share=share)


# --- sampling ----------------------------------------------------------------------------------


def with_records(counts: list[int]) -> PatientRows:
    return grouped([f"{i:05}" for i, n in enumerate(counts) for _ in range(n)], most=max(counts))


def test_patients_take_part_each_for_itself_with_the_rate_asked_for() -> None:
    rows = with_records([1, 2, 3] * 4000)
    rates = []
    for key in range(20):
        taken = rows.sampled(0.3, keystream(bytes([key]) * 32, 12_000))
        rates.append(taken.n_patients / 12_000)
        sizes = np.diff(taken.starts, append=taken.n_rows)
        assert taken.weights == pytest.approx(np.repeat(1.0 / sizes, sizes))
        assert taken.max_records == 3
        share = np.bincount(sizes, minlength=4)[1:] / taken.n_patients
        # Standard deviation .008: wrong alarms once in 1e9.
        assert np.abs(share - 1 / 3).max() < 0.05
    # The mean of 240 000 draws: standard deviation .00094, wrong alarms once in 1e7.
    assert np.mean(rates) == pytest.approx(0.3, abs=0.005)
    # Independent patients: the count's variance is binomial, a chi square of 19 degrees of freedom;
    # outside these bounds once in 1e4 draws, and the keys are fixed.
    assert 0.2 < np.var(rates, ddof=1) / (0.3 * 0.7 / 12_000) < 2.9


def test_sampling_follows_the_words_and_nothing_else() -> None:
    rows = with_records([1, 2, 3, 1])
    words = np.array([2**63 - 1, 2**63, 0, 2**64 - 1], dtype=np.uint64)
    taken = rows.sampled(0.5, words)
    assert taken.starts.tolist() == [0, 1]
    assert np.array_equal(taken.codes, rows.codes[[0, 3, 4, 5]])
    assert np.array_equal(taken.labels, rows.labels[[0, 3, 4, 5]])
    nobody = rows.sampled(0.5, np.full(4, 2**64 - 1, dtype=np.uint64))
    assert (nobody.n_patients, nobody.n_rows, list(nobody.blocks())) == (0, 0, [])
    nearly_all = rows.sampled(math.nextafter(1.0, 0.0), words[:3].repeat([2, 1, 1]))
    assert nearly_all.n_rows == 7


@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=20), seed=st.integers(0, 2**16))
def test_whether_a_patient_takes_part_depends_on_nobody_else(counts: list[int], seed: int) -> None:
    words = keystream(seed.to_bytes(32, "big"), len(counts) + 1)
    without, added = with_records(counts), with_records([*counts, 5])
    few, more = without.sampled(0.4, words[:-1]), added.sampled(0.4, words)
    there = words[-1] < np.uint64(int(0.4 * 2.0**64))
    assert more.n_rows == few.n_rows + (5 if there else 0)
    assert np.array_equal(more.labels[: few.n_rows], few.labels)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_that_is_no_probability_samples_nobody(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        with_records([1]).sampled(rate, np.zeros(1, dtype=np.uint64))


def test_sampling_needs_a_word_for_each_patient() -> None:
    wrong: list[Any] = [np.zeros(1, dtype=np.uint64), np.zeros(2, dtype=np.int64)]
    for words in wrong:
        with pytest.raises(ValueError, match="one word"):
            with_records([1, 2]).sampled(0.5, words)
