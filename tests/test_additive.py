"""The additive model as a value: settings, scores, and its text."""

import math

import numpy as np
import polars as pl
import pytest

from data_contracts.features import category, encode, number, resolve
from data_contracts.fields import Available
from models.additive import AdditiveModel, Shape, shape_axis
from models.additive_training import AdditiveSettings

FEATURES = resolve(
    [
        category("pa_request.payer_id", "Payer", levels="payers"),
        number("pa_request.attachments_n", "Attachments", bounds=(-0.5, 3.5), cells=4),
    ],
    Available.SUBMISSION,
    {"payers": ("payer-1", "payer-2")},
)


@pytest.fixture
def model() -> AdditiveModel:
    rng = np.random.default_rng(6)
    shapes = [
        Shape(*(rng.normal(size=n), rng.random(n), rng.dirichlet(np.ones(n)))) for n in (3, 5)
    ]
    return AdditiveModel(("payer_id", "attachments_n"), rng.normal(), tuple(shapes))


def test_a_model_survives_json_to_the_last_bit(model: AdditiveModel) -> None:
    again = AdditiveModel.from_json(model.to_json())
    assert again.features == model.features
    assert again.intercept == model.intercept
    for ours, theirs in zip(again.shapes, model.shapes, strict=True):
        assert np.array_equal(ours.log_odds, theirs.log_odds)
        assert np.array_equal(ours.std, theirs.std)
        assert np.array_equal(ours.frequency, theirs.frequency)
    assert again.to_json() == model.to_json()


def test_a_score_is_the_intercept_and_one_number_per_feature(model: AdditiveModel) -> None:
    frame = pl.DataFrame({"payer_id": ["payer-2", "unknown"], "attachments_n": [3, None]})
    first, second = model.shapes
    scores = model.intercept + np.array(
        [first.log_odds[1] + second.log_odds[3], first.log_odds[2] + second.log_odds[4]]
    )
    codes = encode(frame, FEATURES)
    assert model.log_odds(codes) == pytest.approx(scores)
    assert model.contributions(codes).sum(axis=1) == pytest.approx(scores - model.intercept)
    assert model.probability(codes) == pytest.approx(1 / (1 + np.exp(-scores)))


def test_a_score_beyond_all_bounds_is_a_probability_without_a_warning(model: AdditiveModel) -> None:
    far = AdditiveModel(model.features, 1e6, model.shapes)
    codes = np.zeros((1, 2), dtype=np.uint8)
    assert far.probability(codes) == 1.0
    assert AdditiveModel(model.features, -1e6, model.shapes).probability(codes) == 0.0


def test_importance_is_the_mean_size_of_a_contribution(model: AdditiveModel) -> None:
    shape = Shape(np.array([1.0, -3.0]), np.zeros(2), np.array([0.75, 0.25]))
    assert shape.importance == 1.5


def test_the_axis_of_a_shape_names_levels_and_cell_centres() -> None:
    assert shape_axis(FEATURES[0]) == ["payer-1", "payer-2"]
    assert shape_axis(FEATURES[1]) == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_knots": 1},
        {"max_knots": 33},
        {"gradient_rounds": 0},
        {"gradient_rounds": 1001},
        {"clip_factor": 0.0},
        {"clip_factor": math.inf},
        {"row_factor": math.nan},
        {"row_factor": math.inf},
        {"ridge": -1e-9},
        {"ridge": math.inf},
        {"score_bins": 4},
    ],
)
def test_settings_out_of_range_are_errors(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdditiveSettings(**wrong)  # type: ignore[arg-type]
