"""What crosses the wire, and what is refused there.

A query travels as its class's name, its arrays and its numbers; an answer as one vector and the
standard deviation of the noise in it. Whatever is missing, unknown, of the wrong shape or not
finite is refused by name before anybody computes with it.
"""

import dataclasses
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from data_contracts.errors import GroundTruthError
from models.queries import GradientQuery, GramQuery, HistogramQuery, Query, ScoreQuery

QUERIES: Final = {
    cls.__name__: cls for cls in (HistogramQuery, GramQuery, GradientQuery, ScoreQuery)
}
MAX_VALUES: Final = 4_000_000
"""Largest number of values in one array: 32 MB, far above what a plan can need."""
MAX_MAGNITUDE: Final = 1e9
"""Largest number in a query; products of a few such numbers stay finite."""

_ARRAYS, _CONFIG = "arrays", "config"


class MessageError(GroundTruthError):
    """A message is not what the protocol says."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a site releases for one query.

    Attributes:
        site: Name of the site.
        values: The noisy sum, shape (d,).
        noise_std: Standard deviation of the noise in each value; 0 without privacy.
    """

    site: str
    values: NDArray[np.float64]
    noise_std: float


def encode_query(query: Query, round_number: int) -> RecordDict:
    """A query of one round as Flower records."""
    arrays: dict[str, Array] = {}
    config: dict[str, Any] = {"query": type(query).__name__, "round": round_number}
    for item in dataclasses.fields(query):  # type: ignore[arg-type] # every query is one
        value = getattr(query, item.name)
        if isinstance(value, np.ndarray):
            arrays[item.name] = Array(np.ascontiguousarray(value))
        else:
            config[item.name] = value
    return RecordDict({_ARRAYS: ArrayRecord(arrays), _CONFIG: ConfigRecord(config)})


def decode_query(content: RecordDict) -> tuple[Query, int]:
    """The query and its round.

    Raises:
        MessageError: The records are no known query.
    """
    arrays, config = _records(content)
    cls = QUERIES.get(str(config.pop("query", None)))
    round_number = config.pop("round", None)
    if cls is None or not isinstance(round_number, int):
        raise MessageError(f"a query must be one of {', '.join(QUERIES)} and name its round")
    values = {name: _array(array, name) for name, array in arrays.items()} | config
    names = {item.name for item in dataclasses.fields(cls)}
    if set(values) != names:
        raise MessageError(
            f"{cls.__name__} needs {', '.join(sorted(names))}; got {', '.join(sorted(values))}"
        )
    for name, value in values.items():
        _check_range(value, f"{cls.__name__}.{name}")
    try:
        return cls(**values), round_number
    except (TypeError, ValueError) as error:
        raise MessageError(f"{cls.__name__}: {error}") from None


def encode_answer(answer: Answer) -> RecordDict:
    """An answer as Flower records."""
    arrays = ArrayRecord({"values": Array(answer.values)})
    config = ConfigRecord({"site": answer.site, "noise_std": answer.noise_std})
    return RecordDict({_ARRAYS: arrays, _CONFIG: config})


def decode_answer(content: RecordDict) -> Answer:
    """The answer behind the records.

    Raises:
        MessageError: The records are no answer, or hold a value that is not finite.
    """
    arrays, config = _records(content)
    site, noise_std = config.get("site"), config.get("noise_std")
    if set(arrays) != {"values"} or not isinstance(site, str) or not isinstance(noise_std, float):
        raise MessageError("an answer is one array 'values' with 'site' and 'noise_std'")
    values = _array(arrays["values"], "values")
    if values.ndim != 1 or values.dtype != np.float64 or not np.isfinite(values).all():
        raise MessageError(f"the answer of site {site} is not a vector of finite numbers")
    if not 0 <= noise_std < np.inf:
        raise MessageError(f"the answer of site {site} names impossible noise: {noise_std}")
    return Answer(site, values, noise_std)


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


def _array(array: Array, name: str) -> NDArray[Any]:
    # The bytes count: the shape beside them is whatever the sender claims.
    if len(array.data) > 8 * MAX_VALUES + 1024:
        raise MessageError(f"array {name!r} holds more than {MAX_VALUES} values")
    try:
        values = array.numpy()
    except Exception as error:  # NumPy's reader fails in many ways on bytes that are no array
        raise MessageError(f"array {name!r} cannot be read: {type(error).__name__}") from None
    if not isinstance(values, np.ndarray):
        raise MessageError(f"array {name!r} is no single array")
    if values.dtype not in (np.float64, np.int64):
        raise MessageError(f"array {name!r} has type {values.dtype}, not float64 or int64")
    return values
