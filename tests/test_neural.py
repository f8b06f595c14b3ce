"""The network, its gradients and what sites are asked of it."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from models import neural_gradients
from models.neural import LIMIT, Architecture, NeuralModel
from models.neural_gradients import Network, clipped_gradient_sum
from models.neural_queries import (
    NeuralScoreQuery,
    PatientGradientQuery,
    TorchMissingError,
)
from models.neural_rounding import _product_error, gradient_rounding
from models.patients import PatientRows
from models.queries import sigmoid

Vector = NDArray[np.float64]
RowsOf = Callable[..., PatientRows]

CODES = (3, 6, 5, 2)  # a category, a number with two columns, a category, a number with one


def architecture(*hidden: int, width: int = 3) -> Architecture:
    rng = np.random.default_rng(5)
    return Architecture(
        tables=rng.normal(size=6 * 2 + 2 * 1),
        table_shapes=np.array([[3, 0], [6, 2], [5, 0], [2, 1]]),
        width=width,
        hidden=np.array(hidden or (4, 3)),
    )


NETWORK = architecture()


def drawn(seed: int = 0, scale: float = 1.0, network: Architecture = NETWORK) -> Vector:
    return scale * np.random.default_rng(seed).normal(size=network.n_parameters)


def site(counts: list[int], seed: int = 0, max_records: int = 50) -> PatientRows:
    """Patients with so many records each; equal seeds give equal first patients."""
    rng = np.random.default_rng(seed)
    n = sum(counts)
    codes = np.stack([rng.integers(0, size, 2000) for size in CODES], axis=1)[:n]
    labels = (rng.random(2000) < 0.4)[:n]
    return PatientRows(
        codes=np.asfortranarray(codes.astype(np.uint8)),
        labels=labels.astype(np.float64),
        starts=np.cumsum([0, *counts], dtype=np.intp)[:-1],
        weights=np.repeat(1.0 / np.maximum(counts, 1), counts),
        max_records=max_records,
    )


def query(parameters: Vector, **changes: Any) -> PatientGradientQuery:
    values: dict[str, Any] = {
        "parameters": parameters,
        "tables": NETWORK.tables,
        "table_shapes": NETWORK.table_shapes,
        "width": NETWORK.width,
        "hidden": NETWORK.hidden,
        "clip": 1.0,
        "rounding": 50 * 2.0**-27,
    }
    return PatientGradientQuery(**(values | changes))


def by_loop(network: Architecture, parameters: Vector, rows: PatientRows, clip: float) -> Vector:
    """The clipped sum, patient by patient, with plain torch and no Opacus."""
    module = Network(network, parameters)
    levels, numbers = network.inputs(rows.codes)
    ends = [*rows.starts[1:].tolist(), rows.n_rows]
    total = np.zeros(network.n_parameters)
    for start, end in zip(rows.starts.tolist(), ends, strict=True):
        scores = module(torch.tensor(levels[start:end]), torch.tensor(numbers[start:end]))
        labels = torch.tensor(rows.labels[start:end])
        loss = binary_cross_entropy_with_logits(scores, labels, reduction="sum")
        parts = torch.autograd.grad(loss, list(module.parameters()))
        gradient = np.concatenate([part.numpy().ravel() for part in parts])
        total += gradient * min(1.0, clip / max(float(np.linalg.norm(gradient)), 1e-300))
    return total


# --- the network -------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [architecture(), architecture(7), architecture(2, 3, 4, 5)])
def test_scores_without_torch_are_those_of_the_network_in_torch(network: Architecture) -> None:
    parameters = drawn(1, network=network)
    codes = site([1] * 1500).codes
    levels, numbers = network.inputs(codes)
    with torch.no_grad():
        theirs = Network(network, parameters)(torch.tensor(levels), torch.tensor(numbers)).numpy()
    assert np.abs(network.log_odds(parameters, codes) - theirs).max() < 1e-12


def test_parameters_lie_in_one_vector_in_the_order_of_the_shapes() -> None:
    parameters = drawn(1)
    module = Network(NETWORK, parameters)
    flat = np.concatenate([part.detach().numpy().ravel() for part in module.parameters()])
    assert np.array_equal(flat, parameters)
    assert [tuple(part.shape) for part in module.parameters()] == list(NETWORK.shapes)
    assert NETWORK.n_parameters == parameters.size == 8 * 4 + (9 * 4 + 4) + (4 * 3 + 3) + (6 + 1)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), scale=st.sampled_from([1.0, 100.0]))
def test_a_score_is_the_same_to_the_last_bit_whatever_rows_are_beside_it(
    seed: int, n: int, scale: float
) -> None:
    network = architecture(9, 5)
    parameters, codes = drawn(seed % 100, scale, network), site([1] * 1900, seed).codes
    together = network.log_odds(parameters, codes)
    at = seed % 1800
    assert np.array_equal(network.log_odds(parameters, codes[at : at + n]), together[at : at + n])


def test_a_network_starts_at_the_base_rate_and_can_be_drawn_again() -> None:
    first, again = NETWORK.initial(3, 0.2), NETWORK.initial(3, 0.2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, NETWORK.initial(4, 0.2))
    codes = site([1] * 50).codes
    assert sigmoid(NETWORK.log_odds(first, codes)) == pytest.approx(0.2, abs=1e-12)
    embedding, weights, bias, *_ = architecture(200, width=60).split(
        architecture(200, width=60).initial(0, 0.5)
    )
    assert embedding[:, :-1].std() == pytest.approx(1.0, abs=0.1)
    assert weights.std() == pytest.approx(1 / math.sqrt(weights.shape[1]), rel=0.05)
    assert not bias.any()


def test_recalibrated_parameters_change_every_score_by_slope_and_shift() -> None:
    parameters, codes = drawn(2), site([1] * 50).codes
    before = parameters.copy()
    after = NETWORK.log_odds(NETWORK.recalibrated(parameters, 0.7, -0.3), codes)
    assert after == pytest.approx(0.7 * NETWORK.log_odds(parameters, codes) - 0.3, abs=1e-12)
    assert np.array_equal(parameters, before)


@pytest.mark.parametrize("shapes", [[[4, 0], [3, 0]], [[4, 2], [3, 1]]])
def test_features_may_all_be_categories_or_all_numbers(shapes: list[list[int]]) -> None:
    shape = np.array(shapes)
    network = Architecture(np.ones(int(shape.prod(axis=1).sum())), shape, 2, np.array([3]))
    codes = np.asfortranarray([[0, 0], [3, 2], [1, 1]], dtype=np.uint8)
    rows = PatientRows(codes, np.array([0.0, 1.0, 1.0]), np.array([0, 2]), np.ones(3), 2)
    parameters = drawn(3, network=network)
    for clip in (0.1, math.inf):
        ours = clipped_gradient_sum(network, parameters, rows, clip)
        assert np.abs(ours - by_loop(network, parameters, rows, clip)).max() < 1e-6
    assert np.isfinite(network.log_odds(parameters, codes)).all()


def test_a_code_beyond_the_last_counts_as_the_last_and_never_fails() -> None:
    last, beyond = np.array([[2, 5, 4, 1]], np.uint8), np.array([[200, 255, 5, 9]], np.uint8)
    for ours, theirs in zip(NETWORK.inputs(beyond), NETWORK.inputs(last), strict=True):
        assert np.array_equal(ours, theirs)


def test_more_levels_than_a_code_can_count_keep_rows_of_their_own() -> None:
    network = Architecture(np.zeros(0), np.array([[200, 0], [100, 0], [255, 0]]), 2, np.array([3]))
    codes = np.stack([np.arange(255) % 200, np.arange(255) % 100, np.arange(255)], axis=1)
    levels, numbers = network.inputs(np.asfortranarray(codes.astype(np.uint8)))
    assert np.array_equal(levels, codes + np.array([0, 200, 300]))
    assert numbers.shape == (255, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"tables": np.zeros(13)},
        {"tables": np.full(14, math.nan)},
        {"tables": np.full(14, math.inf)},
        {"tables": np.full(14, 1e300)},
        {"table_shapes": np.array([3, 0])},
        {"table_shapes": np.zeros((0, 2), dtype=np.int64)},
        {"table_shapes": np.array([[3.0, 0.0]])},
        {"table_shapes": np.array([[0, 0], [6, 2], [5, 0], [2, 1]])},
        {"table_shapes": np.array([[300, 0], [6, 2], [5, 0], [2, 1]])},
        {"table_shapes": np.array([[3, -1], [6, 2], [5, 0], [2, 1]])},
        {"width": 0},
        {"width": 65},
        {"width": 2.0},
        {"hidden": np.array([[3]])},
        {"hidden": np.array([3.0])},
        {"hidden": np.array([], dtype=np.int64)},
        {"hidden": np.array([3] * 5)},
        {"hidden": np.array([0])},
        {"hidden": np.array([513])},
    ],
)
def test_an_architecture_that_does_not_fit_together_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"table|columns|code|within|embedding|hidden|layers"):
        replace(NETWORK, **change)


# --- the model ---------------------------------------------------------------------------------


def test_a_model_survives_being_written_and_read_to_the_last_bit() -> None:
    model = NeuralModel(("a", "b", "c", "d"), NETWORK, drawn(4).astype(np.float32))
    text = model.to_json()
    again = NeuralModel.from_json(text)
    assert again.to_json() == text
    assert json.loads(text)["family"] == "neural"
    assert again.parameters.dtype == np.float32
    assert np.array_equal(again.parameters, model.parameters)
    assert np.array_equal(again.architecture.tables, NETWORK.tables)
    codes = site([1] * 100).codes
    assert np.array_equal(again.log_odds(codes), model.log_odds(codes))
    assert model.n_parameters == NETWORK.n_parameters
    assert model.probability(codes) == pytest.approx(1 / (1 + np.exp(-model.log_odds(codes))))


def test_a_model_that_is_not_finite_or_of_another_size_is_refused() -> None:
    good = drawn(4).astype(np.float32)
    bad = good.copy()
    bad[3] = math.nan
    for names, parameters in (("abcd", bad), ("abcd", good[:-1]), ("abc", good)):
        with pytest.raises(ValueError, match="needs"):
            NeuralModel(tuple(names), NETWORK, parameters)


# --- gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [1e-3, 0.5, 3.0, 1e6, math.inf])
def test_the_clipped_sum_is_that_of_a_plain_loop_over_patients(clip: float) -> None:
    rows = site([1, 50, 3, 1, 1, 7, 2, 2, 20, 1, 4])
    parameters = drawn(6)
    ours = clipped_gradient_sum(NETWORK, parameters, rows, clip)
    theirs = by_loop(NETWORK, parameters, rows, clip)
    # Opacus divides by the norm plus 1e-6, on the private side.
    assert np.abs(ours - theirs).max() <= 1e-6 * max(1.0, np.abs(theirs).max())
    assert np.linalg.norm(theirs) > 1e-4


def test_the_gradient_is_that_of_the_loss_by_finite_differences() -> None:
    rows, parameters = site([1, 3, 2]), drawn(7)
    gradient = clipped_gradient_sum(NETWORK, parameters, rows, math.inf)

    def loss(at: Vector) -> float:
        scores = NETWORK.log_odds(at, rows.codes)
        return float(np.logaddexp(0.0, scores).sum() - rows.labels @ scores)

    for position in range(0, parameters.size, 5):
        step = np.zeros_like(parameters)
        step[position] = 1e-5
        slope = (loss(parameters + step) - loss(parameters - step)) / 2e-5
        assert gradient[position] == pytest.approx(slope, abs=1e-7)


def test_a_clip_that_nobody_reaches_leaves_the_plain_gradient() -> None:
    rows, parameters = site([1, 3, 2, 9]), drawn(8)
    clipped = clipped_gradient_sum(NETWORK, parameters, rows, 1e6)
    assert np.abs(clipped - clipped_gradient_sum(NETWORK, parameters, rows, math.inf)).max() < 1e-9


def test_blocks_of_patients_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, parameters = site([1, 4, 2, 1, 3, 1, 1, 2] * 20), drawn(9)
    whole = clipped_gradient_sum(NETWORK, parameters, rows, 0.7)
    for bytes_of_block in (1, 8 * 3 * NETWORK.n_parameters):
        monkeypatch.setattr(neural_gradients, "_MEMORY", bytes_of_block)
        parts = clipped_gradient_sum(NETWORK, parameters, rows, 0.7)
        assert np.abs(parts - whole).max() < 1e-12


def test_large_sites_are_added_up_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, parameters = site([1, 4, 2, 1, 3, 1, 1, 2] * 20), drawn(9)
    whole = [clipped_gradient_sum(NETWORK, parameters, rows, clip) for clip in (0.7, math.inf)]
    blocks = PatientRows.blocks
    monkeypatch.setattr(PatientRows, "blocks", lambda self: blocks(self, 40))
    for clip, sums in zip((0.7, math.inf), whole, strict=True):
        parts = clipped_gradient_sum(NETWORK, parameters, rows, clip)
        assert np.abs(parts - sums).max() < 1e-11


def test_equal_parameters_give_equal_bits() -> None:
    rows, parameters = site([1, 4, 2] * 30), drawn(10)
    assert np.array_equal(
        clipped_gradient_sum(NETWORK, parameters, rows, 0.7),
        clipped_gradient_sum(NETWORK, parameters, rows, 0.7),
    )


def test_parameters_that_cannot_be_written_to_are_no_trouble() -> None:
    parameters = drawn(10)
    parameters.flags.writeable = False
    assert np.isfinite(query(parameters).answer(site([1, 2]))).all()


# --- sensitivity -------------------------------------------------------------------------------

COUNTS = st.lists(st.integers(1, 50), max_size=6)


@settings(max_examples=80, deadline=None)
@given(
    counts=COUNTS,
    patient=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.1, 1.0, 3.0]),
    clip=st.floats(0.05, 20),
)
def test_no_patient_changes_the_gradient_by_more_than_the_clip(
    counts: list[int], patient: int, seed: int, scale: float, clip: float
) -> None:
    parameters = drawn(seed, scale)
    asked = query(parameters, clip=max(clip, _least_clip(parameters)))
    without, added = site(counts, seed), site([*counts, patient], seed)
    change = asked.answer(added) - asked.answer(without)
    assert change.shape == (asked.n_values,)
    assert np.linalg.norm(change) <= asked.clip * (1 + 1e-9) <= asked.sensitivity * (1 + 1e-9)


def _least_clip(parameters: Vector) -> float:
    """The least clip at which these parameters are not refused."""
    return gradient_rounding(NETWORK, parameters, 50) / (50 * 2.0**-27) * 1.001


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=5), data=st.data())
def test_removing_any_patient_changes_the_gradient_by_no_more(
    counts: list[int], data: st.DataObject
) -> None:
    gone = data.draw(st.integers(0, len(counts) - 1))
    rows = site(counts, len(counts))
    kept = np.delete(np.arange(rows.n_rows), slice(rows.starts[gone], sum(counts[: gone + 1])))
    left = [count for number, count in enumerate(counts) if number != gone]
    rest = PatientRows(
        np.asfortranarray(rows.codes[kept]), rows.labels[kept],
        np.cumsum([0, *left], dtype=np.intp)[:-1], rows.weights[kept], 50,
    )  # fmt: skip
    asked = query(drawn(11), clip=0.3)
    assert np.linalg.norm(asked.answer(rows) - asked.answer(rest)) <= 0.3 * (1 + 1e-9)


@pytest.mark.parametrize("n", [1, 4, 50])
def test_the_clip_is_reached_whatever_the_number_of_records(n: int) -> None:
    rows = site([n])
    rows.labels[:] = 1.0
    rows.codes[:] = rows.codes[0]
    reached = np.linalg.norm(query(drawn(12), clip=0.05).answer(rows))
    assert reached == pytest.approx(0.05, rel=1e-4)


def test_clipping_is_per_patient_and_not_per_record() -> None:
    rows = site([50])
    rows.labels[:] = 1.0
    rows.codes[:] = rows.codes[0]
    as_fifty = replace(rows, starts=np.arange(50))
    one, many = (query(drawn(12), clip=0.05).answer(part) for part in (rows, as_fifty))
    assert np.linalg.norm(many) == pytest.approx(50 * np.linalg.norm(one), rel=1e-3)


def test_no_patients_answer_zero() -> None:
    for clip in (1.0, math.inf):
        answer = query(drawn(0), clip=clip).answer(site([]))
        assert np.array_equal(answer, np.zeros(NETWORK.n_parameters))
    counts = score_query(drawn(0)).answer(site([]))
    assert np.array_equal(counts, np.zeros(32))


# --- rounding ----------------------------------------------------------------------------------


def test_rounding_moves_no_gradient_by_more_than_its_bound() -> None:
    # The same patient among 0 to 11 others lies elsewhere in every block.
    network = architecture(33, 17, width=9)
    for seed, scale in enumerate((0.2, 1.0, 5.0)):
        parameters = drawn(seed, scale, network)
        bound = gradient_rounding(network, parameters, 3)
        gradients = []
        for before in range(12):
            rows = site([3] * 13, seed=1)
            start = 3 * before
            own = np.concatenate([np.arange(3), np.arange(3, 3 + start)])
            moved = np.concatenate([own[3:], own[:3]])  # the patient last, behind `before` others
            both = [
                replace(
                    rows, codes=np.asfortranarray(rows.codes[index]), labels=rows.labels[index],
                    starts=np.arange(0, index.size, 3), weights=rows.weights[index],
                )
                for index in (moved, moved[:-3])
            ]  # fmt: skip
            with_patient, others = (
                clipped_gradient_sum(network, parameters, part, 1e9) for part in both
            )
            gradients.append(with_patient - others)
        # Taking a difference of sums rounds as well, by the size of the sums.
        size = 13 * np.linalg.norm(gradients[0]) * 2.0**-50 * 10
        spread = max(np.linalg.norm(one - gradients[0]) for one in gradients)
        assert spread <= bound + size


def test_the_bound_on_rounding_covers_single_precision_in_its_own_units() -> None:
    # The same analysis with u = 2^-24 has to cover the difference of single and double precision.
    network = architecture(33, 17, width=9)
    for seed in range(20):
        parameters = drawn(seed, 0.5 + seed / 10, network).astype(np.float32).astype(np.float64)
        single = replace(network, tables=network.tables.astype(np.float32).astype(np.float64))
        rows = site([3] * 4, seed)
        module = Network(single, parameters).to(torch.float32)
        levels, numbers = single.inputs(rows.codes[:3])
        loss = binary_cross_entropy_with_logits(
            module(torch.tensor(levels), torch.tensor(numbers, dtype=torch.float32)),
            torch.tensor(rows.labels[:3], dtype=torch.float32), reduction="sum",
        )  # fmt: skip
        parts = torch.autograd.grad(loss, list(module.parameters()))
        rough = np.concatenate([part.numpy().ravel() for part in parts]).astype(np.float64)
        one = replace(rows, codes=rows.codes[:3], labels=rows.labels[:3],
                      starts=np.array([0]), weights=rows.weights[:3])  # fmt: skip
        exact = clipped_gradient_sum(single, parameters, one, math.inf)
        error = np.linalg.norm(rough - exact)
        bound = gradient_rounding(single, parameters, 3) * 2.0**29 / 2
        assert 0 < error <= bound


def test_a_product_in_another_order_stays_within_the_bound_of_a_product() -> None:
    # Each term is lost when added to 1, and all together are not: the two orders are n - 1 apart.
    n, lost = 256, 0.99 * 2.0**-53
    terms = [1.0, *[lost] * (n - 1)]
    apart = (sum(reversed(terms)) - sum(terms)) / 2.0**-53
    assert apart > 0.9 * n
    length = float(np.linalg.norm(terms))
    assert apart <= _product_error(np.ones((1, n)), length, 0.0) < n**2


def test_a_network_whose_rounding_errors_would_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="so steep"):
        query(drawn(0, scale=200.0)).answer(site([1]))
    query(drawn(0, scale=2.0)).answer(site([1]))


def test_a_network_made_of_terms_that_cancel_is_refused() -> None:
    # Weights at right angles to what every patient has: sums are rounding errors, the next layers
    # make them large, and with both labels a patient's gradient has the sign of an error. Where it
    # was answered, patients moved by 4e-7 of the clip with their place in a block.
    rng = np.random.default_rng(0)
    network = Architecture(np.zeros(0), np.array([[4, 0]] * 8), 16, np.array([64, 8]))
    embedding, *layers = (300.0 * rng.normal(size=shape) for shape in network.shapes)
    embedding = np.repeat(embedding[::4], 4, axis=0)
    alike = embedding[::4, :-1].ravel()
    layers[0] -= np.outer(layers[0] @ alike, alike) / (alike @ alike)
    parameters = np.concatenate([part.ravel() for part in (embedding, *layers)])
    parameters = np.clip(parameters, -LIMIT, LIMIT)
    asked = PatientGradientQuery(
        parameters, network.tables, network.table_shapes, network.width, network.hidden,
        clip=1.0, rounding=2 * 2.0**-27,
    )  # fmt: skip
    with pytest.raises(ValueError, match="so steep"):
        asked.answer(site([1], max_records=2))


# --- hostile values ----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 1e300, -1.1 * LIMIT])
@pytest.mark.parametrize("make", [query, lambda parameters: score_query(parameters)])
def test_parameters_that_are_not_finite_or_huge_are_refused(
    bad: float, make: Callable[[Vector], Any]
) -> None:
    parameters = drawn(0)
    parameters[7] = bad
    with pytest.raises(ValueError, match="parameters within"):
        make(parameters)
    with pytest.raises(ValueError, match="parameters within"):
        make(drawn(0)[1:])


@pytest.mark.parametrize("position", range(0, NETWORK.n_parameters, 11))
@pytest.mark.parametrize("value", [LIMIT, -LIMIT])
def test_the_largest_parameters_give_a_bounded_answer_on_any_rows_or_none_at_all(
    position: int, value: float
) -> None:
    rows = site([1, 2, 50, 4])
    one, all_of_them = drawn(0), np.full(NETWORK.n_parameters, value)
    one[position] = value
    for parameters in (one, all_of_them):
        assert np.isfinite(clipped_gradient_sum(NETWORK, parameters, rows, math.inf)).all()
        clipped = clipped_gradient_sum(NETWORK, parameters, rows, 0.2)
        assert np.linalg.norm(clipped) <= 4 * 0.2 * (1 + 1e-9)
        counts = score_query(parameters).answer(rows)
        assert np.isfinite(counts).all()


@pytest.mark.parametrize(
    "change",
    [
        {"clip": 0.0},
        {"clip": -1.0},
        {"clip": math.nan},
        {"rounding": 2.0**-32},
        {"rounding": 1.1},
        {"rounding": math.nan},
        {"width": 0},
    ],
)
def test_a_gradient_query_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"bound|rounding|embedding"):
        query(drawn(0), **change)


def test_more_records_of_a_patient_need_more_room_for_rounding() -> None:
    needed = gradient_rounding(NETWORK, drawn(0), 4)
    asked = query(drawn(0), clip=needed * 2.0**25, rounding=2.0**-25)
    asked.answer(site([1], max_records=4))
    with pytest.raises(ValueError, match="so steep"):
        asked.answer(site([1], max_records=5))


def test_a_site_without_torch_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "models.neural_gradients", None)
    with pytest.raises(TorchMissingError, match="pip install"):
        query(drawn(0)).answer(site([1]))


def test_only_gradients_need_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['opacus'] = None\n"
        "import models.neural, models.neural_queries, models.neural_training\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- scores ------------------------------------------------------------------------------------


def score_query(parameters: Vector, **changes: Any) -> NeuralScoreQuery:
    values: dict[str, Any] = {
        "parameters": parameters,
        "tables": NETWORK.tables,
        "table_shapes": NETWORK.table_shapes,
        "width": NETWORK.width,
        "hidden": NETWORK.hidden,
        "bins": 16,
        "limit": 4.0,
        "clip": 2.0,
    }
    return NeuralScoreQuery(**(values | changes))


def test_scores_are_counted_by_label_and_bin() -> None:
    rows, parameters = site([1] * 400), drawn(2)
    asked = score_query(parameters)
    scores = NETWORK.log_odds(parameters, rows.codes)
    edges = np.array([-np.inf, *np.linspace(-4, 4, 17)[1:-1], np.inf])
    expected = [np.histogram(scores[rows.labels == label], edges)[0] for label in (0, 1)]
    assert np.array_equal(asked.answer(rows), np.concatenate(expected))
    assert asked.n_values == 32


@settings(max_examples=80, deadline=None)
@given(
    counts=COUNTS, patient=st.integers(1, 50), seed=st.integers(0, 2**16), clip=st.floats(0.1, 9)
)
def test_no_patient_changes_the_counts_by_more_than_the_clip(
    counts: list[int], patient: int, seed: int, clip: float
) -> None:
    asked = score_query(drawn(seed), clip=clip)
    change = asked.answer(site([*counts, patient], seed)) - asked.answer(site(counts, seed))
    assert np.linalg.norm(change) <= asked.sensitivity * (1 + 1e-9)


def test_scores_on_the_edge_of_a_bin_stay_there_when_others_come() -> None:
    # Every score lies exactly on an edge; a matrix product would scatter them to both sides.
    rows = site([1] * 600)
    parameters = drawn(3)
    scores = NETWORK.log_odds(parameters, rows.codes[:1])
    same = replace(rows, codes=np.asfortranarray(np.repeat(rows.codes[:1], 600, axis=0)))
    asked = score_query(parameters, bins=2, limit=8.0)
    shifted = NETWORK.recalibrated(parameters, 1.0, -float(scores[0]))
    counts = score_query(shifted, bins=2, limit=8.0).answer(same)
    assert asked.bins == 2
    assert np.count_nonzero(counts) == 2  # one bin of each label


@pytest.mark.parametrize(
    "change",
    [{"bins": 0}, {"bins": 2.0}, {"limit": 0.0}, {"limit": math.inf}, {"clip": 0.0}, {"width": 0}],
)
def test_a_score_query_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"bound|bin|embedding"):
        score_query(drawn(0), **change)


def test_queries_are_arrays_and_numbers_so_they_travel() -> None:
    for asked in (query(drawn(0)), score_query(drawn(0))):
        for field in fields(asked):
            value = getattr(asked, field.name)
            if isinstance(value, np.ndarray):
                assert value.dtype in (np.float64, np.int64)
            else:
                assert type(value) in (int, float)


def test_the_queries_name_steps_that_a_plan_prices() -> None:
    assert (query(drawn(0)).step, score_query(drawn(0)).step) == ("gradient", "recalibration")
