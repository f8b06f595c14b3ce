"""Settings as frozen dataclasses, read from TOML or JSON with errors that name the key."""

import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from data_contracts.errors import GroundTruthError

T = TypeVar("T")


class ConfigError(GroundTruthError):
    """A setting is unknown, of the wrong type or out of range."""


TRAINING_STEPS = ("histogram", "gram", "gradient", "recalibration")
RETRY = "retry"


@dataclass(frozen=True, slots=True)
class PrivacySettings:
    """What is promised to every patient. Never share a class with settings of speed.

    Attributes:
        epsilon: Privacy budget of the whole run for a patient at one site, repeated rounds
            included; None trains without privacy, which sites with private data refuse.
        delta: Probability with which the promise may fail.
        multiplicity: Sites at which a patient may stand, for the joint figure.
        max_records_per_patient: Records of a patient that are used at most.
        max_patients_per_site: More patients than any site has. Noise and the room for sums are made
            for so many: a site that declares more in its site.toml, or has more, takes no part.
        secure_sum: Whether the coordinator sees only the sum over sites. Without, every site adds
            the full noise by itself.
        dropouts: Share of the sites that may vanish during a run.
        colluders: Share of the sites that may tell the coordinator their noise; one at least,
            because whoever takes part knows its own.
        retries: Rounds that may be repeated with fresh noise after sites have vanished.
        shares: Share of the budget (of mu squared) of each step and of all retries together; they
            add up to one.
    """

    epsilon: float | None = 3.0
    delta: float = 1e-5
    multiplicity: int = 3
    max_records_per_patient: int = 4
    max_patients_per_site: int = 1_000_000
    secure_sum: bool = True
    dropouts: float = 0.3
    colluders: float = 0.1
    retries: int = 2
    shares: Mapping[str, float] = field(
        default_factory=lambda: {
            "histogram": 0.05,
            "gram": 0.14,
            "gradient": 0.67,
            "recalibration": 0.06,
            RETRY: 0.08,
        }
    )

    def __post_init__(self) -> None:
        if self.epsilon is not None and not 1e-12 <= self.epsilon <= 1e4:
            raise ConfigError(
                f"privacy.epsilon must be a positive number (1e-12 to 1e4), not {self.epsilon}; "
                'to train without privacy say epsilon = "none"'
            )
        if not 1e-30 <= self.delta <= 1e-3:
            raise ConfigError(f"privacy.delta must lie in 1e-30 to 0.001, not {self.delta}")
        if self.multiplicity < 1 or not 1 <= self.max_records_per_patient <= 1000:
            raise ConfigError(
                "privacy.multiplicity starts at 1, max_records_per_patient lies in 1 to 1000"
            )
        if not 1 <= self.max_patients_per_site <= 100_000_000:
            raise ConfigError(
                "privacy.max_patients_per_site lies in 1 to 100 000 000, not "
                f"{self.max_patients_per_site}"
            )
        if not (0 <= self.dropouts < 1 and 0 <= self.colluders < 1):
            raise ConfigError(
                "privacy.dropouts and privacy.colluders are shares of the sites, from 0 to below "
                f"1, not {self.dropouts} and {self.colluders}"
            )
        if self.dropouts + self.colluders >= 1:
            raise ConfigError(
                f"privacy.dropouts = {self.dropouts:g} and privacy.colluders = "
                f"{self.colluders:g} leave no site to add noise; together they must stay below 1"
            )
        if not 0 <= self.retries <= 100:
            raise ConfigError(f"privacy.retries lies in 0 to 100, not {self.retries}")
        known = {*TRAINING_STEPS, RETRY}
        if set(self.shares) != known:
            raise ConfigError(
                f"privacy.shares must name {', '.join(sorted(known))}, not {sorted(self.shares)}"
            )
        least, together = min(self.shares.values()), sum(self.shares.values())
        if not (least >= 1e-6 and math.isclose(together, 1.0)):
            raise ConfigError("privacy.shares must be at least 1e-6 each and add up to 1")


def parse(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """A settings dataclass from a table of keys and values.

    Args:
        cls: A dataclass whose fields are str, int, float, bool, None, tuples, mappings or such
            dataclasses.
        raw: The table.
        where: Name of the table, for the message.

    Raises:
        ConfigError: A key is unknown (the nearest is suggested), missing, or of the wrong type.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where} must be a table of keys and values")
    hints = typing.get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type] # see Args
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"unknown key {key!r} in {where}: {hint}")
    values = {key: _value(hints[key], value, f"{where}.{key}") for key, value in raw.items()}
    for name, item in known.items():
        required = item.default is MISSING and item.default_factory is MISSING
        if required and name not in values:
            raise ConfigError(f"{where} lacks the key {name!r}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if type(None) in options and (value is None or value == "none"):
            return None
        hint = next(option for option in options if option is not type(None))
        return _value(hint, value, where)
    if hasattr(hint, "__dataclass_fields__"):
        return parse(hint, value, where)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            allowed = ", ".join(map(str, typing.get_args(hint)))
            raise ConfigError(f"{where} must be one of {allowed}, not {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list")
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table")
        inner = typing.get_args(hint)[1]
        return {key: _value(inner, item, f"{where}.{key}") for key, item in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} must be of type {hint.__name__}, not {value!r}")
    return value
