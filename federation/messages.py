"""What crosses the wire, and what is refused there.

A request is a query (its class's name, its arrays and its numbers), its place in the run, and the
key offers of the sites between which the answer is masked. An answer is one vector of masked words
with the site's signature or, where nothing is private, one vector of numbers. Whatever is missing,
unknown, of the wrong shape or not finite is refused by name before anybody computes with it.
"""

import dataclasses
import hashlib
import typing
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from data_contracts.errors import GroundTruthError
from federation.roster import KeyOffer
from federation.secure_sum import Attempt, Upload
from models.neural_queries import NeuralEvaluationQuery, NeuralScoreQuery, PatientGradientQuery
from models.queries import AdditiveScoreQuery, GradientQuery, GramQuery, HistogramQuery, Query
from models.score_histogram import AdditiveEvaluationQuery

QUERIES: Final = {
    cls.__name__: cls
    for cls in (
        *(HistogramQuery, GramQuery, GradientQuery, AdditiveScoreQuery, AdditiveEvaluationQuery),
        *(PatientGradientQuery, NeuralScoreQuery, NeuralEvaluationQuery),
    )
}
MAX_VALUES: Final = 4_000_000
"""Largest number of values in one array: 32 MB, far above what a plan can need."""
MAX_MAGNITUDE: Final = 1e9
"""Largest number in a query; products of a few such numbers stay finite."""

_QUERY_TYPES: Final = (np.float64, np.int64)
_ARRAYS, _CONFIG, _PLACE = "arrays", "config", "place"


class MessageError(GroundTruthError):
    """A message is not what the protocol says."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What a coordinator asks a site.

    Attributes:
        query: The question.
        run: The run's identifier.
        round: Round of the query's step, from 1.
        retry: 0 where the round is asked for the first time; otherwise the number of the retry in
            the run, from 1.
        present: The sites between which answers are masked.
        offers: Key offers of the run's sites; none where nothing is masked.
    """

    query: Query
    run: str
    round: int
    retry: int = 0
    present: tuple[str, ...] = ()
    offers: tuple[KeyOffer, ...] = ()

    def attempt(self, plan: str, site: str) -> Attempt:
        """What a site's answer is good for; without masks every answer stands alone.

        Args:
            plan: Digest of the run's plan.
            site: Name of the site.
        """
        return Attempt(
            run=self.run,
            plan=plan,
            step=self.query.step,
            round=self.round,
            retry=self.retry,
            query=query_digest(self.query),
            present=self.present or (site,),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a site releases for one query where nothing is private.

    Attributes:
        site: Name of the site.
        values: The sum, shape (d,).
    """

    site: str
    values: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """A site's word that it has charged a release and lost it, as when it died in between.

    It is never computed again. The site can answer the next one.

    Attributes:
        site: Name of the site.
    """

    site: str


def encode_request(request: Request) -> RecordDict:
    """A request as Flower records."""
    arrays: dict[str, Array] = {}
    config: dict[str, Any] = {"query": type(request.query).__name__}
    for item in dataclasses.fields(request.query):  # type: ignore[arg-type] # every query is one
        value = getattr(request.query, item.name)
        if isinstance(value, np.ndarray):
            arrays[item.name] = Array(np.ascontiguousarray(value))
        else:
            config[item.name] = value
    place: dict[str, Any] = {
        "run": request.run,
        "round": request.round,
        "retry": request.retry,
        "present": list(request.present),
        "offer_sites": [offer.site for offer in request.offers],
        "offer_keys": [offer.public_key for offer in request.offers],
        "offer_signatures": [offer.signature for offer in request.offers],
    }
    return RecordDict(
        {_ARRAYS: ArrayRecord(arrays), _CONFIG: ConfigRecord(config), _PLACE: ConfigRecord(place)}
    )


def decode_request(content: RecordDict, plan: str) -> Request:
    """The request behind the records.

    Args:
        content: The records.
        plan: Digest of the plan that the run follows; key offers are made for it.

    Raises:
        MessageError: The records are no request.
    """
    arrays, config = _records(content)
    place = content.get(_PLACE)
    if not isinstance(place, ConfigRecord):
        raise MessageError(f"a request holds the record {_PLACE!r}")
    run, number, retry = (place.get(key) for key in ("run", "round", "retry"))
    if not (isinstance(run, str) and _is_count(number) and _is_count(retry)):
        raise MessageError("a request names its run, its round and its retry")
    sites = _texts(place, "offer_sites")
    keys, signatures = _byte_strings(place, "offer_keys"), _byte_strings(place, "offer_signatures")
    if not len(sites) == len(keys) == len(signatures):
        raise MessageError("a key offer is a site, a key and a signature; one of them is missing")
    offers = zip(sites, keys, signatures, strict=True)
    return Request(
        query=_decode_query(arrays, config),
        run=run,
        round=number,  # type: ignore[arg-type] # checked above
        retry=retry,  # type: ignore[arg-type] # checked above
        present=tuple(_texts(place, "present")),
        offers=tuple(KeyOffer(site, run, plan, key, sign) for site, key, sign in offers),
    )


def query_digest(query: Query) -> bytes:
    """SHA-256 of a query: part of what masks are made from.

    Sites that are asked different questions in the same round add masks that do not cancel, so a
    coordinator cannot single a site out by asking the others something empty.

    Source: Pasquini, Francati, Ateniese, "Eluding Secure Aggregation in Federated Learning via
    Model Inconsistency" (CCS 2022).
    """
    digest = hashlib.sha256(type(query).__name__.encode())
    for item in dataclasses.fields(query):  # type: ignore[arg-type] # every query is one
        value = getattr(query, item.name)
        if isinstance(value, np.ndarray):
            head = f"\0{item.name}\0{value.dtype.str}\0{value.shape}\0"
            digest.update(head.encode() + np.ascontiguousarray(value).tobytes())
        else:
            digest.update(f"\0{item.name}\0{value!r}\0".encode())
    return digest.digest()


def encode_answer(answer: Answer | Upload | Lost) -> RecordDict:
    """An answer as Flower records."""
    config: dict[str, Any] = {"site": answer.site}
    arrays: dict[str, Array] = {}
    if isinstance(answer, Lost):
        config["lost"] = True
    elif isinstance(answer, Upload):
        config |= {"attempt": answer.attempt, "signature": answer.signature}
        arrays = {"words": Array(answer.words)}
    else:
        arrays = {"values": Array(answer.values)}
    return RecordDict({_ARRAYS: ArrayRecord(arrays), _CONFIG: ConfigRecord(config)})


def decode_answer(content: RecordDict) -> Answer | Upload | Lost:
    """The answer behind the records.

    Raises:
        MessageError: The records are no answer, or hold a value that is not finite.
    """
    arrays, config = _records(content)
    site = config.get("site")
    if not isinstance(site, str):
        raise MessageError("an answer names its site")
    if config.get("lost") is True and not arrays:
        return Lost(site)
    if set(arrays) == {"words"}:
        attempt, signature = config.get("attempt"), config.get("signature")
        if not (isinstance(attempt, bytes) and isinstance(signature, bytes)):
            raise MessageError(f"the answer of site {site} lacks its attempt or its signature")
        words = _array(arrays["words"], "words", (np.uint64,))
        if words.ndim != 1:
            raise MessageError(f"the answer of site {site} is not a vector of 64-bit words")
        return Upload(site, attempt, words, signature)
    if set(arrays) != {"values"}:
        raise MessageError("an answer is one array, 'words' or 'values'")
    values = _array(arrays["values"], "values", (np.float64,))
    if values.ndim != 1 or not np.isfinite(values).all():
        raise MessageError(f"the answer of site {site} is not a vector of finite numbers")
    return Answer(site, values)


def _decode_query(arrays: dict[str, Array], config: dict[str, Any]) -> Query:
    cls = QUERIES.get(str(config.pop("query", None)))
    if cls is None:
        raise MessageError(f"a query must be one of {', '.join(QUERIES)}")
    values = {name: _array(array, name, _QUERY_TYPES) for name, array in arrays.items()} | config
    types = {item.name: item.type for item in dataclasses.fields(cls)}
    if set(values) != set(types):
        raise MessageError(
            f"{cls.__name__} needs {', '.join(sorted(types))}; got {', '.join(sorted(values))}"
        )
    for name, value in values.items():
        is_array = isinstance(value, np.ndarray) and value.ndim > 0
        if is_array != (wanted := typing.get_origin(types[name]) is np.ndarray):
            kind = "an array" if wanted else "a number"
            raise MessageError(f"{cls.__name__}.{name} must be {kind}")
        _check_range(value, f"{cls.__name__}.{name}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise MessageError(f"{cls.__name__}: {error}") from None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _texts(place: ConfigRecord, key: str) -> list[str]:
    values = place.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise MessageError(f"{key} in a request is a list of names")
    return [str(value) for value in values]


def _byte_strings(place: ConfigRecord, key: str) -> list[bytes]:
    values = place.get(key)
    if not isinstance(values, list) or not all(isinstance(value, bytes) for value in values):
        raise MessageError(f"{key} in a request is a list of byte strings")
    return [value for value in values if isinstance(value, bytes)]


def _records(content: RecordDict) -> tuple[dict[str, Array], dict[str, Any]]:
    arrays, config = content.get(_ARRAYS), content.get(_CONFIG)
    if not isinstance(arrays, ArrayRecord) or not isinstance(config, ConfigRecord):
        raise MessageError(f"a message holds the records {_ARRAYS!r} and {_CONFIG!r}")
    return dict(arrays), dict(config)


def _check_range(value: Any, name: str) -> None:
    """Refuse what is no number or could overflow on some rows: that it does would tell of them."""
    if isinstance(value, np.ndarray):
        fits = bool(((value >= -MAX_MAGNITUDE) & (value <= MAX_MAGNITUDE)).all())
    else:  # A bound may be infinite: a release with it is refused where data are private.
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number and (abs(value) <= MAX_MAGNITUDE or value == np.inf)
    if not fits:
        raise MessageError(f"{name} holds something other than numbers up to {MAX_MAGNITUDE:g}")


def _array(array: Array, name: str, types: tuple[type, ...]) -> NDArray[Any]:
    # The bytes count: the shape beside them is whatever the sender claims.
    if len(array.data) > 8 * MAX_VALUES + 1024:
        raise MessageError(f"array {name!r} holds more than {MAX_VALUES} values")
    try:
        values = array.numpy()
    except Exception as error:  # NumPy's reader fails in many ways on bytes that are no array
        raise MessageError(f"array {name!r} cannot be read: {type(error).__name__}") from None
    if not isinstance(values, np.ndarray):
        raise MessageError(f"array {name!r} is no single array")
    if values.ndim > 2 or (values.ndim == 2 and not values.size):
        # An array of no values may claim any number of rows.
        raise MessageError(f"array {name!r} has shape {values.shape}")
    if values.dtype not in types:
        expected = " or ".join(each.__name__ for each in types)
        raise MessageError(f"array {name!r} has type {values.dtype}, not {expected}")
    return values
