"""Small cells: what may not be shown, and what may not be worked out from what is shown."""

from collections.abc import Iterator
from itertools import combinations, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.evaluation import Estimate, Evaluation, Stratum
from models.suppression import SMALLEST_SHOWN, suppress

HIDDEN = Stratum(None, None, None, None, None, None)
Table = list[tuple[int, int]]  # records of label 0 and of label 1, of each part of a whole

SIZES = st.one_of(st.integers(0, 14), st.integers(0, 60))
TABLES = st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=6)


def count(value: float) -> Estimate:
    return Estimate(value, value - 1, value + 1)


def stratum(negatives: float, positives: float) -> Stratum:
    rate = Estimate(0.5, 0.4, 0.6)
    return Stratum(count(negatives + positives), count(positives), rate, rate, rate, rate)


def evaluation(*tables: Table, patients: float = 1000, bins: Table | None = None) -> Evaluation:
    """An evaluation whose overall counts are the sums of the first table."""
    whole = [sum(part[label] for part in tables[0]) for label in (0, 1)]
    figure = Estimate(0.7, 0.6, 0.8)
    return Evaluation(
        patients=count(patients),
        overall=stratum(*whole),
        auprc=figure,
        brier=figure,
        calibration_slope=figure,
        calibration_intercept=figure,
        calibration_error=figure,
        reliability=tuple(stratum(*part) for part in bins or tables[0]),
        groups=tuple(tuple(stratum(*part) for part in table) for table in tables),
    )


def shown(table: Table) -> list[tuple[int, int] | None]:
    """The counts of each part that are shown, None where they are hidden; the whole is the last."""
    result = suppress(evaluation(table))
    assert result.reliability == result.groups[0]
    return [counts(part) for part in (*result.groups[0], result.overall)]


def counts(part: Stratum) -> tuple[int, int] | None:
    if part == HIDDEN:
        return None
    assert part.rows is not None
    assert part.positives is not None
    return int(part.rows.value - part.positives.value), int(part.positives.value)


@settings(max_examples=500)
@given(table=TABLES)
def test_no_count_from_1_to_10_is_shown_and_shown_parts_are_true_and_whole(table: Table) -> None:
    for part, told in zip(table, shown(table), strict=False):
        if min(part) < SMALLEST_SHOWN:
            assert told is None
        if told is not None:
            assert told == part


@settings(max_examples=1000, deadline=None)
@given(table=TABLES)
@example(table=[(40, 40), (50, 10), (60, 60)])
@example(table=[(40, 0), (50, 0), (60, 60), (70, 70)])
@example(table=[(0, 0), (0, 0), (0, 30), (20, 20)])
@example(table=[(10, 50), (60, 60), (60, 60)])
@example(table=[(50, 0), (50, 10)])
@example(table=[(11, 0), (0, 11)])
def test_a_hidden_count_cannot_be_worked_out_even_by_who_knows_the_rule(table: Table) -> None:
    """For every hidden count there is another table that would have been shown just the same."""
    told = shown(table)
    hidden = [number for number, part in enumerate(told[:-1]) if part is None]
    free = told[-1] is None  # without a total, a part may change by itself
    undecided = {(number, label) for number in hidden for label in (0, 1)}
    for other in others(table, hidden, free=free):
        if not undecided:
            break
        changed = {
            (number, label)
            for number, label in undecided
            if other[number][label] != table[number][label]
        }
        if changed and min(map(min, other)) >= 0 and shown(other) == told:
            undecided -= changed
    assert not undecided


def others(table: Table, hidden: list[int], *, free: bool) -> Iterator[Table]:
    """Tables in which hidden parts differ: first by a record, then two parts split in any way."""
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    for one, step in product(hidden if free else (), steps):
        yield moved(table, {one: step})
    for (one, other), step in product(combinations(hidden, 2), steps):
        yield moved(table, {one: step, other: (-step[0], -step[1])})
    for one, other in combinations(hidden, 2):
        (a, b), (c, d) = table[one], table[other]
        for step in product(range(-a, c + 1), range(-b, d + 1)):
            yield moved(table, {one: step, other: (-step[0], -step[1])})


def moved(table: Table, changes: dict[int, tuple[int, int]]) -> Table:
    zero = (0, 0)
    return [
        (part[0] + changes.get(number, zero)[0], part[1] + changes.get(number, zero)[1])
        for number, part in enumerate(table)
    ]


@given(table=TABLES)
def test_a_hidden_part_is_never_alone(table: Table) -> None:
    told = shown(table)[:-1]
    assert told.count(None) != 1 or len(told) == 1


def test_the_next_smallest_is_hidden_with_a_small_one_and_no_more() -> None:
    assert shown([(40, 40), (50, 10), (60, 60), (30, 90)]) == [
        None,
        None,
        (60, 60),
        (30, 90),
        (180, 200),
    ]


def test_where_all_that_is_hidden_is_zero_another_part_is_hidden() -> None:
    told = shown([(40, 0), (50, 0), (60, 60), (70, 70)])
    assert told[:-1] == [None, None, None, (70, 70)]


def test_a_hidden_part_shows_no_rate_either() -> None:
    result = suppress(evaluation([(500, 5), (400, 300), (500, 600), (700, 700)]))
    assert result.groups[0][0] == HIDDEN
    assert result.groups[0][1] == HIDDEN
    assert result.groups[0][2].auroc is not None


def test_noisy_counts_are_rounded_before_they_are_judged() -> None:
    table = [(99.7, 10.4), (200.2, 10.6), (300.4, 50.2), (400.0, 99.0)]
    result = suppress(evaluation([(1000, 170)], table, bins=table))  # type: ignore[list-item, arg-type]
    assert [part == HIDDEN for part in result.groups[1]] == [True, True, False, False]
    kept = result.groups[1][2]
    assert kept.rows == Estimate(351.0, pytest.approx(349.6), pytest.approx(351.6))
    assert kept.positives == Estimate(50.0, pytest.approx(49.2), pytest.approx(51.2))


def test_noise_below_zero_hides_and_does_not_break() -> None:
    table = [(-30.0, -2.0), (4.0, 12.0), (500.0, 90.0), (600.0, 95.0)]
    result = suppress(evaluation([(1000, 170)], table, bins=table))  # type: ignore[list-item, arg-type]
    assert [part == HIDDEN for part in result.groups[1]] == [True, True, False, False]


@pytest.mark.parametrize(
    ("table", "patients"), [([(500, 10)], 400), ([(7, 500)], 400), ([(500, 500)], 10)]
)
def test_without_enough_records_overall_nothing_is_shown(table: Table, patients: int) -> None:
    result = suppress(evaluation(table, [(400, 40), (300, 30)], patients=patients))
    nothing = (HIDDEN,) * 2
    assert result == Evaluation(*[None], HIDDEN, *[None] * 5, nothing[:1], (nothing[:1], nothing))  # type: ignore[arg-type, call-arg, misc]


def test_hiding_again_brings_nothing_back() -> None:
    once = suppress(evaluation([(40, 40), (50, 10), (60, 60), (30, 90), (200, 200)]))
    twice = suppress(once)
    for part, again in zip(once.groups[0], twice.groups[0], strict=True):
        assert again in (part, HIDDEN)
