"""Features on public grids: codes, levels, leaks and rosters."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import GroundTruthError
from data_contracts.features import (
    Feature,
    LeakError,
    LevelGrid,
    NumberGrid,
    category,
    contract_field,
    encode,
    flag,
    grid_of,
    number,
    resolve,
)
from data_contracts.fields import Available
from models.tasks import TASKS

ROSTER = {"payers": ("payer-1", "payer-2"), "providers": ("provider-1",), "sites": ("provider-1",)}


def codes_of(grid: NumberGrid | LevelGrid, values: list[object], dtype: object = None) -> list[int]:
    frame = pl.DataFrame({"x": pl.Series(values, dtype=dtype, strict=False)})  # type: ignore[arg-type]
    column = frame.select(grid.encode(pl.col("x")))["x"]
    assert column.dtype == pl.UInt8
    return column.to_list()


# --- numbers -----------------------------------------------------------------------------------


def test_a_number_falls_into_its_cell_and_beyond_the_bounds_into_the_last() -> None:
    grid = NumberGrid(0.0, 10.0, cells=5)
    values = [-1e300, -0.1, 0.0, 1.99, 2.0, 9.99, 10.0, 1e300]
    assert codes_of(grid, values) == [0, 0, 0, 0, 1, 4, 4, 4]


def test_missing_and_nan_share_the_last_code_and_infinity_does_not() -> None:
    grid = NumberGrid(0.0, 1.0, cells=2)
    assert codes_of(grid, [None, math.nan, math.inf, -math.inf], pl.Float64) == [2, 2, 1, 0]
    assert grid.n_codes == 3


def test_a_column_without_a_value_is_all_missing() -> None:
    assert codes_of(NumberGrid(0.0, 1.0, cells=4), [None, None], pl.Null) == [4, 4]
    assert codes_of(LevelGrid(("a",)), [None, None], pl.Null) == [1, 1]


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Int16, pl.Int32, pl.Float64])
@pytest.mark.parametrize("bounds", [(-0.5, 12.5, 13), (0.5, 5.5, 5), (0, 13, 13)])
def test_integers_have_a_cell_each_where_the_grid_gives_them_one(
    bounds: tuple[float, float, int], dtype: object
) -> None:
    low, high, cells = bounds
    first = math.ceil(low)
    values = list(range(first, first + cells))
    assert codes_of(NumberGrid(low, high, cells=cells), values, dtype) == list(range(cells))


def test_a_logarithmic_grid_has_narrow_cells_where_numbers_are_small() -> None:
    grid = NumberGrid(0.0, math.expm1(4.0), cells=4, scale="log1p")
    edges = [math.expm1(k) for k in range(5)]
    assert codes_of(grid, [edge + 1e-9 for edge in edges]) == [0, 1, 2, 3, 3]
    assert codes_of(grid, [-5.0]) == [0]
    assert grid.centers() == pytest.approx(np.expm1([0.5, 1.5, 2.5, 3.5]))


GRIDS = st.builds(
    lambda low, width, cells, scale: NumberGrid(low, low + width, cells=cells, scale=scale),
    st.floats(0, 1e4),
    st.floats(0.1, 1e6),
    st.integers(2, 254),
    st.sampled_from(["linear", "log1p"]),
)


@given(grid=GRIDS)
def test_the_middle_of_every_cell_lies_in_that_cell(grid: NumberGrid) -> None:
    assert codes_of(grid, grid.centers().tolist()) == list(range(grid.cells))


@given(grid=GRIDS, values=st.lists(st.floats(allow_nan=False), min_size=1))
def test_codes_rise_with_values_and_stay_on_the_grid(grid: NumberGrid, values: list[float]) -> None:
    codes = codes_of(grid, sorted(values), pl.Float64)
    assert codes == sorted(codes)
    assert 0 <= codes[0] <= codes[-1] < grid.cells


@pytest.mark.parametrize(
    "arguments",
    [
        {"low": 1.0, "high": 1.0},
        {"low": 2.0, "high": 1.0},
        {"low": -math.inf, "high": 1.0},
        {"low": 0.0, "high": math.nan},
        {"low": 0.0, "high": 1.0, "cells": 1},
        {"low": 0.0, "high": 1.0, "cells": 255},
        {"low": -1.0, "high": 1.0, "scale": "log1p"},
    ],
)
def test_a_grid_that_cannot_be_is_an_error(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="grid"):
        NumberGrid(**arguments)  # type: ignore[arg-type]


# --- levels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [pl.String, pl.Enum(["a", "b", "z"])])
def test_an_unknown_level_counts_as_missing(dtype: object) -> None:
    assert codes_of(LevelGrid(("b", "a")), ["a", "b", "z", None], dtype) == [1, 0, 2, 2]


@pytest.mark.parametrize("levels", [(), ("a", "a"), tuple(map(str, range(255)))])
def test_levels_are_1_to_254_and_differ(levels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="levels"):
        LevelGrid(levels)


def test_254_levels_fit_into_a_byte_with_room_for_missing() -> None:
    names = tuple(map(str, range(254)))
    assert codes_of(LevelGrid(names), [*names, "unknown"]) == list(range(255))


# --- features ----------------------------------------------------------------------------------


def test_a_number_takes_its_bounds_and_unit_from_the_contract() -> None:
    grid = grid_of(number("clinical_outcome.cost_90d", "Cost"))
    assert isinstance(grid, NumberGrid)
    assert (grid.low, grid.high, grid.unit) == (0, 250_000, "USD")


def test_a_number_without_a_declared_range_needs_bounds() -> None:
    with pytest.raises(ValueError, match="give bounds"):
        number("pa_request.dx_other", "Diagnoses")


def test_a_category_takes_its_levels_from_the_contract_or_needs_them() -> None:
    grid = grid_of(category("pa_request.request_type", "Type"))
    assert isinstance(grid, LevelGrid)
    assert grid.levels == ("medical", "drug")
    with pytest.raises(ValueError, match="give levels"):
        category("pa_request.policy_id", "Policy")


@pytest.mark.parametrize("source", ["pa_request.nothing", "nothing.payer_id", "payer_id", ""])
def test_a_source_outside_the_contracts_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match="no field"):
        contract_field(source)


def test_a_field_known_after_the_prediction_is_a_leak_at_every_earlier_moment() -> None:
    late = number("clinical_outcome.cost_90d", "Cost")
    middle = number("pa_decision.decision_hours", "Hours")
    for feature, moment in (
        (late, Available.SUBMISSION),
        (late, Available.DECISION),
        (middle, Available.SUBMISSION),
    ):
        with pytest.raises(LeakError, match=feature.name) as caught:
            resolve([feature], moment, ROSTER)
        assert isinstance(caught.value, GroundTruthError)
    assert resolve([late, middle], Available.FOLLOWUP, ROSTER) == (late, middle)


def test_the_latest_of_a_features_sources_decides() -> None:
    mixed = number(
        "pa_request.attachments_n", "x", also=("clinical_outcome.followup_days_observed",)
    )
    assert mixed.available_at == Available.FOLLOWUP
    with pytest.raises(LeakError):
        resolve([mixed], Available.SUBMISSION, ROSTER)


def test_a_feature_cannot_read_a_field_that_it_does_not_declare() -> None:
    hidden = number("pa_request.attachments_n", "x", value=pl.col("cost_90d") / 100)
    with pytest.raises(LeakError, match="cost_90d"):
        resolve([hidden], Available.SUBMISSION, ROSTER)
    with pytest.raises(LeakError, match="label"):
        resolve([flag("pa_request.eligibility_verified", "x", value=pl.col("label"))],
                Available.SUBMISSION, ROSTER)  # fmt: skip


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_resolves_to_features_of_different_names(task: object) -> None:
    features = task.resolve(ROSTER)  # type: ignore[attr-defined]
    names = [feature.name for feature in features]
    assert len(set(names)) == len(names)
    assert all(2 <= grid_of(feature).n_codes <= 255 for feature in features)


def test_roster_levels_are_the_members_in_the_order_that_all_share() -> None:
    payer = category("pa_request.payer_id", "Payer", levels="payers")
    with pytest.raises(ValueError, match="not resolved"):
        grid_of(payer)
    (resolved,) = resolve([payer], Available.SUBMISSION, ROSTER)
    assert grid_of(resolved) == LevelGrid(("payer-1", "payer-2"))


# --- codes of a table --------------------------------------------------------------------------


def features() -> tuple[Feature, ...]:
    return resolve(
        [
            category("pa_request.payer_id", "Payer", levels="payers"),
            number("pa_request.attachments_n", "Attachments", bounds=(-0.5, 20.5), cells=21),
            flag("pa_request.eligibility_verified", "Verified"),
        ],
        Available.SUBMISSION,
        ROSTER,
    )


FRAME = pl.DataFrame(
    {
        "payer_id": ["payer-2", "payer-9", None, "payer-1"],
        "attachments_n": pl.Series([0, 20, None, 99], dtype=pl.Int16),
        "eligibility_verified": [True, False, None, True],
    }
)


def test_codes_are_bytes_in_fortran_order_one_column_per_feature() -> None:
    codes = encode(FRAME, features())
    assert codes.tolist() == [[1, 0, 1], [2, 20, 0], [2, 21, 2], [0, 20, 1]]
    assert codes.dtype == np.uint8
    assert codes.flags.f_contiguous


def test_a_table_without_rows_has_codes_without_rows() -> None:
    codes = encode(FRAME.clear(), features())
    assert (codes.shape, codes.dtype) == ((0, 3), np.uint8)


def test_codes_of_a_row_do_not_depend_on_the_other_rows() -> None:
    whole = encode(FRAME, features())
    parts = np.vstack([encode(FRAME.slice(row, 1), features()) for row in range(FRAME.height)])
    assert np.array_equal(whole, parts)
