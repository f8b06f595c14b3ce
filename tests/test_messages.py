"""What crosses the wire: round trips, and garbage refused by name."""

import dataclasses
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from data_contracts.errors import GroundTruthError
from federation import messages
from federation.messages import (
    MAX_MAGNITUDE,
    MAX_VALUES,
    Answer,
    MessageError,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    query_digest,
)
from federation.roster import KeyOffer
from federation.secure_sum import Upload
from models.neural_queries import NeuralEvaluationQuery, NeuralScoreQuery, PatientGradientQuery
from models.patients import PatientRows
from models.queries import AdditiveScoreQuery, GradientQuery, GramQuery, HistogramQuery, Query
from models.score_histogram import AdditiveEvaluationQuery

SIZES = np.array([3, 2], dtype=np.int64)
TABLES = np.linspace(-1, 1, 8)
SHAPES = np.array([[3, 2], [2, 1]], dtype=np.int64)

NETWORK = (  # a number of three codes and a category of two, an embedding of 2 and 3 hidden units
    *(np.linspace(-1, 1, 2 * 3 + 3 * 4 + 3 + 3 + 2 + 1), np.linspace(-1, 1, 6)),
    *(np.array([[3, 2], [2, 0]], dtype=np.int64), 2, np.array([3], dtype=np.int64)),
)

QUERIES: dict[str, Query] = {
    "HistogramQuery": HistogramQuery(SIZES),
    "GramQuery": GramQuery(TABLES, SHAPES, 1.5),
    "GradientQuery": GradientQuery(TABLES, SHAPES, np.eye(3), np.zeros(4), math.inf),
    "AdditiveScoreQuery": AdditiveScoreQuery(16, 8.0, 2.0, np.ones(5), SIZES, -0.5),
    "AdditiveEvaluationQuery": AdditiveEvaluationQuery(
        SIZES, np.array([-1.0, 0.0, 0.5]), np.array([1]), 2, 2.0, np.ones(5), -0.5
    ),
    "PatientGradientQuery": PatientGradientQuery(*NETWORK, 2.0, 2.0**-25),
    "NeuralScoreQuery": NeuralScoreQuery(16, 8.0, 2.0, *NETWORK),
    "NeuralEvaluationQuery": NeuralEvaluationQuery(
        SIZES, np.array([-1.0, 0.0, 0.5]), np.array([1]), 2, 2.0, *NETWORK
    ),
}
RUN, PLAN = "0123456789abcdef" * 2, "fedcba98"
OFFERS = tuple(
    KeyOffer(site, RUN, PLAN, bytes([number]) * 32, bytes([number]) * 64)
    for number, site in enumerate(("site-1", "site-2"))
)


def decode_query(content: RecordDict) -> Query:
    return decode_request(content, PLAN).query


def array(values: Any) -> Array:
    return Array(np.asarray(values))


def forged(data: bytes, shape: tuple[int, ...] = (1,)) -> Array:
    """An array whose bytes need not be what it says of them."""
    return Array(dtype="float64", shape=shape, stype="numpy.ndarray", data=data)


def message(arrays: dict[str, Array], config: dict[str, Any]) -> RecordDict:
    place = encode_request(Request(QUERIES["HistogramQuery"], RUN, 1))["place"]
    return RecordDict(
        {"arrays": ArrayRecord(arrays), "config": ConfigRecord(config), "place": place}
    )


def changed(sent: Query, /, **values: Any) -> RecordDict:
    """The query's message with some entries replaced; None drops one."""
    content = encode_request(Request(sent, RUN, 1))
    arrays, config = dict(content["arrays"]), dict(content["config"])  # type: ignore[arg-type]
    for name, value in values.items():
        arrays.pop(name, None)
        config.pop(name, None)
        if isinstance(value, np.ndarray):
            arrays[name] = Array(value)
        elif isinstance(value, Array):
            arrays[name] = value
        elif value is not None:
            config[name] = value
    return message(arrays, config)


# --- queries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_a_query_arrives_as_it_was_sent(query: Query) -> None:
    present = ("site-1", "site-2")
    request = decode_request(encode_request(Request(query, RUN, 7, 2, present, OFFERS)), PLAN)
    assert (request.run, request.round, request.retry) == (RUN, 7, 2)
    assert (request.present, request.offers) == (present, OFFERS)
    arrived = request.query
    assert type(arrived) is type(query)
    assert query_digest(arrived) == query_digest(query)
    assert arrived.step == query.step
    assert arrived.sensitivity == query.sensitivity
    assert arrived.n_values == query.n_values
    for name in type(query).__dataclass_fields__:  # type: ignore[attr-defined]
        sent, got = getattr(query, name), getattr(arrived, name)
        assert np.array_equal(sent, got)
        assert np.asarray(sent).dtype == np.asarray(got).dtype


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_every_missing_or_unknown_part_of_a_query_is_refused(query: Query) -> None:
    for name in type(query).__dataclass_fields__:  # type: ignore[attr-defined]
        with pytest.raises(MessageError, match=name):
            decode_query(changed(query, **{name: None}))
    with pytest.raises(MessageError, match="extra"):
        decode_query(changed(query, extra=1.0))
    with pytest.raises(MessageError, match="extra"):
        decode_query(changed(query, extra=np.ones(2)))


@pytest.mark.parametrize("name", ["Query", "eval", "", 3, None, ["HistogramQuery"]])
def test_a_query_of_no_known_name_is_refused(name: Any) -> None:
    with pytest.raises(MessageError, match="one of HistogramQuery, GramQuery"):
        decode_query(changed(QUERIES["HistogramQuery"], query=name))


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("run", [None, 3, b"x"]),
        ("round", [None, "1", 1.0, -1, True, 2**31]),
        ("retry", [None, "1", 1.0, -1]),
        ("present", [None, "site-1", [1]]),
        ("offer_sites", [None, [b"site-1"], ["site-1"] * 3]),
        ("offer_keys", [None, ["text"], [b"k"]]),
        ("offer_signatures", [None, "text", []]),
    ],
)
def test_a_request_without_its_place_in_the_run_is_refused(part: str, values: list[Any]) -> None:
    for value in values:
        content = encode_request(Request(QUERIES["HistogramQuery"], RUN, 1, 0, (), OFFERS))
        place = dict(content["place"])  # type: ignore[arg-type]
        place.pop(part)
        content["place"] = ConfigRecord(place if value is None else place | {part: value})
        with pytest.raises(MessageError):
            decode_request(content, PLAN)


def test_a_request_without_any_place_is_refused() -> None:
    content = encode_request(Request(QUERIES["HistogramQuery"], RUN, 1))
    del content["place"]
    with pytest.raises(MessageError, match="'place'"):
        decode_request(content, PLAN)


def test_queries_that_differ_in_anything_have_other_digests() -> None:
    gradient = QUERIES["GradientQuery"]
    digests = {query_digest(query) for query in QUERIES.values()}
    digests |= {
        query_digest(GradientQuery(TABLES, SHAPES, np.eye(3), np.zeros(4), clip))
        for clip in (1.0, 1.0 + 2**-52)
    }
    digests.add(query_digest(GradientQuery(-TABLES, SHAPES, np.eye(3), np.zeros(4), math.inf)))
    assert len(digests) == len(QUERIES) + 3
    copy = GradientQuery(TABLES.copy(), SHAPES, np.asfortranarray(np.eye(3)), np.zeros(4), math.inf)
    assert query_digest(copy) == query_digest(gradient)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, -2 * MAX_MAGNITUDE])
def test_a_query_that_could_overflow_on_some_rows_is_refused(bad: float) -> None:
    # Whether it does would tell of the rows.
    for kind, name in (
        ("GramQuery", "tables"),
        ("GradientQuery", "tables"),
        ("GradientQuery", "whitening"),
        ("GradientQuery", "coefficients"),
        ("AdditiveScoreQuery", "shapes"),
    ):
        values = np.array(getattr(QUERIES[kind], name))
        values.flat[1] = bad
        with pytest.raises(MessageError, match=name):
            decode_query(changed(QUERIES[kind], **{name: values}))


@pytest.mark.parametrize(
    ("kind", "name", "bad"),
    [
        ("GramQuery", "row_bound", math.nan),
        ("GramQuery", "row_bound", -1.0),
        ("GramQuery", "row_bound", 0.0),
        ("GramQuery", "row_bound", "1"),
        ("GradientQuery", "clip", "inf"),
        ("GradientQuery", "clip", math.nan),
        ("GradientQuery", "clip", -math.inf),
        ("GradientQuery", "clip", True),
        ("GradientQuery", "clip", [1.0]),
        ("AdditiveScoreQuery", "bins", 2.5),
        ("AdditiveScoreQuery", "bins", 0),
        ("AdditiveScoreQuery", "bins", 2**40),
        ("AdditiveScoreQuery", "limit", 0.0),
        ("AdditiveScoreQuery", "limit", math.inf),
        ("AdditiveScoreQuery", "limit", -8.0),
        ("AdditiveScoreQuery", "intercept", math.nan),
        ("AdditiveScoreQuery", "intercept", b"0"),
    ],
)
def test_a_number_of_a_query_that_is_none_or_out_of_range_is_refused(
    kind: str, name: str, bad: Any
) -> None:
    with pytest.raises(MessageError, match=kind):
        decode_query(changed(QUERIES[kind], **{name: bad}))


# --- arrays that claim more than they hold --------------------------------------------------------


@pytest.mark.parametrize("shape", [(10**7, 0), (0, 10**7), (2, 2, 2), (1, 10**6, 0), ()])
@pytest.mark.parametrize("name", ["table_shapes", "whitening"])
def test_an_array_of_no_values_claims_no_rows(name: str, shape: tuple[int, ...]) -> None:
    kind = np.int64 if name == "table_shapes" else np.float64
    content = changed(QUERIES["GradientQuery"], **{name: array(np.zeros(shape, dtype=kind))})
    with pytest.raises(MessageError):
        decode_query(content)


# --- answers -----------------------------------------------------------------------------------


def test_an_answer_arrives_as_it_was_sent() -> None:
    sent = Answer("site-1", np.array([1.5, -0.0, 5e-324, 1e308]))
    got = decode_answer(encode_answer(sent))
    assert isinstance(got, Answer)
    assert got.site == sent.site
    assert got.values.tobytes() == sent.values.tobytes()


def test_an_upload_arrives_as_it_was_sent() -> None:
    words = np.array([0, 1, 2**64 - 1], dtype=np.uint64)
    got = decode_answer(encode_answer(Upload("site-1", b"a" * 32, words, b"s" * 64)))
    assert isinstance(got, Upload)
    assert (got.site, got.attempt, got.signature) == ("site-1", b"a" * 32, b"s" * 64)
    assert got.words.tobytes() == words.tobytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": None},
        {"attempt": "a"},
        {"signature": None},
        {"signature": 1},
        {"words": array(np.ones(3))},
        {"words": array(np.ones((1, 3), dtype=np.uint64))},
        {"words": array(np.ones(3, dtype=np.int64))},
    ],
)
def test_an_upload_without_its_parts_is_refused(changes: dict[str, Any]) -> None:
    good = {"words": array(np.ones(3, dtype=np.uint64)), "attempt": b"a" * 32, "signature": b"s"}
    with pytest.raises(MessageError):
        decode_answer(answer_with(values=None, **(good | changes)))


def answer_with(**changes: Any) -> RecordDict:
    arrays: dict[str, Array] = {"values": array(np.ones(3))}
    config: dict[str, Any] = {"site": "site-1"}
    for name, value in changes.items():
        target: dict[str, Any] = arrays if isinstance(value, Array) or name in arrays else config
        target[name] = value
        if value is None:
            del target[name]
    return message(arrays, config)


@pytest.mark.parametrize(
    "values",
    [
        array([1.0, math.nan]),
        array([1.0, math.inf]),
        array([[1.0, 2.0]]),
        array(1.0),
    ],
    ids=["nan", "inf", "matrix", "scalar"],
)
def test_an_answer_that_is_no_vector_of_finite_numbers_is_refused(values: Array) -> None:
    with pytest.raises(MessageError, match="vector of finite numbers"):
        decode_answer(answer_with(values=values))


@pytest.mark.parametrize(
    "values",
    [
        array([1.0, 2.0]).data[:-4],
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04 a zip file, as NumPy's reader believes",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04N.",
    ],
    ids=["cut", "empty", "magic", "zip", "pickle 0", "pickle 4"],
)
def test_bytes_that_are_no_array_are_refused(values: bytes) -> None:
    with pytest.raises(MessageError, match="values"):
        decode_answer(answer_with(values=forged(values)))


def npy(header_shape: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f8", "fortran_order": False, "shape": (1,)}
    )
    return stream.getvalue().replace(b"(1,)", header_shape.encode()).replace(b" \n", b"\n") + data


def test_an_array_whose_header_claims_a_world_is_refused() -> None:
    with pytest.raises(MessageError, match="cannot be read"):
        decode_answer(answer_with(values=forged(npy("(99999999999999999,)", b"\0" * 8))))


@pytest.mark.parametrize("dtype", ["float32", "object", "complex128", "U4", ">f8", "bool"])
def test_arrays_of_other_types_are_refused(dtype: str) -> None:
    stream = io.BytesIO()
    np.save(stream, np.ones(2).astype(dtype), allow_pickle=True)
    with pytest.raises(MessageError, match="values"):
        decode_answer(answer_with(values=forged(stream.getvalue())))


def test_an_archive_of_arrays_is_refused() -> None:
    stream = io.BytesIO()
    np.savez(stream, values=np.ones(2))
    with pytest.raises(MessageError, match="no single array"):
        decode_answer(answer_with(values=forged(stream.getvalue())))


def test_an_array_beyond_the_limit_is_refused_whatever_shape_it_claims() -> None:
    huge = forged(b"\0" * (8 * MAX_VALUES + 2048))
    with pytest.raises(MessageError, match="more than"):
        decode_answer(answer_with(values=huge))


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({}),
        RecordDict({"arrays": ArrayRecord({}), "config": ConfigRecord({})}),
        RecordDict({"arrays": ConfigRecord({}), "config": ArrayRecord({})}),
        answer_with(site=None),
        answer_with(site=3),
        answer_with(more=array([1.0])),
    ],
)
def test_a_message_without_its_parts_is_refused(content: RecordDict) -> None:
    for decode in (decode_answer, decode_query):
        with pytest.raises(MessageError) as caught:
            decode(content)
        assert isinstance(caught.value, GroundTruthError)


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUERIES)
def test_every_answer_is_a_sum_over_blocks_of_rows(
    name: str, rows_of: Callable[..., PatientRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    # models.mechanisms.float_slack counts on it: longer sums round more than is allowed for.
    query = QUERIES[name]
    if isinstance(query, GradientQuery):
        query = dataclasses.replace(query, clip=1.0)
    rng = np.random.default_rng(0)
    codes = np.column_stack([rng.integers(0, 3, 90), rng.integers(0, 2, 90)])
    rows = rows_of(codes, rng.integers(0, 2, 90).astype(float), np.arange(90) // 3)
    whole = query.answer(rows)
    assert whole.any()
    blocks = list(rows.blocks(30))
    assert len(blocks) == 3
    assert whole == pytest.approx(sum(query.answer(block) for block in blocks), rel=1e-9, abs=1e-9)
    monkeypatch.setattr(PatientRows, "blocks", lambda self: iter(blocks[:1]))
    first = query.answer(rows)
    assert not np.allclose(first, whole)
    monkeypatch.setattr(PatientRows, "blocks", lambda self: iter(()))
    assert not query.answer(rows).any()


def test_every_query_that_may_be_asked_is_tried_here() -> None:
    assert set(QUERIES) == set(messages.QUERIES)
