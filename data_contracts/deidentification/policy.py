"""`[deidentification]` in site.toml: on which legal ground a site's tables may be used.

Three grounds: Safe Harbor (45 CFR 164.514(b)(2)), which is the default; an expert's determination
(164.514(b)(1)), which has a certificate and an end; a limited data set (164.514(e)), which has a
data use agreement and stays protected health information (PHI).
"""

import difflib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from data_contracts.deidentification.tokens import SCHEME, Tokens
from data_contracts.errors import GroundTruthError

Mode = Literal["safe_harbor", "expert_determination", "limited_data_set"]

RANDOM: Final = "random"
"""Tokens that are drawn, and not derived from any identifier."""

_WARNING_FROM = timedelta(days=30)
_KEY_BYTES = 32
_KEYS = ("mode", "certificate", "expires", "dua", "scheme", "key_file")
_NEEDED: Final[Mapping[Mode, tuple[str, ...]]] = {
    "safe_harbor": (),
    "expert_determination": ("certificate", "expires"),
    "limited_data_set": ("dua", "expires"),
}
_GROUND: Final[Mapping[Mode, str]] = {
    "safe_harbor": "Safe Harbor",
    "expert_determination": "the expert's determination",
    "limited_data_set": "the data use agreement",
}


class PolicyError(GroundTruthError):
    """The ground on which a site's tables may be used is missing, contradictory or has expired."""


@dataclass(frozen=True, slots=True)
class Policy:
    """On which ground a site's tables are used.

    Attributes:
        mode: The ground.
        certificate: Id of the expert's certificate; "" on other grounds.
        expires: Last day of the certificate or agreement; None under Safe Harbor.
        dua: Id of the data use agreement; "" on other grounds.
        scheme: How tokens come about: "random", or `tokens.SCHEME` where they are derived.
        key_file: File with the network's key; None for random tokens.
    """

    mode: Mode = "safe_harbor"
    certificate: str = ""
    expires: date | None = None
    dua: str = ""
    scheme: str = RANDOM
    key_file: Path | None = None

    @classmethod
    def parse(cls, section: Mapping[str, object], file: Path) -> "Policy":
        """Read the section `[deidentification]` of `file`; a relative `key_file` starts there.

        Raises:
            PolicyError: A key is unknown, missing, of another type, or contradicts the mode.
        """
        for name in section:
            if name not in _KEYS:
                near = difflib.get_close_matches(name, _KEYS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_KEYS)}"
                raise PolicyError(f"{file}: unknown key {name!r} in [deidentification]; {hint}")
        mode = cast(Mode, _choice(section, "mode", get_args(Mode), file))
        needed = _NEEDED[mode]
        for name in ("certificate", "dua", "expires"):
            if name in needed and name not in section:
                raise PolicyError(f'{file}: mode = "{mode}" needs {name} in [deidentification]')
            if name in section and name not in needed:
                raise PolicyError(
                    f'{file}: {name} in [deidentification] has no meaning under mode = "{mode}"; '
                    "remove it, or correct the mode"
                )
        scheme = _choice(section, "scheme", (RANDOM, SCHEME), file)
        if scheme != RANDOM and mode == "safe_harbor":
            raise PolicyError(f"{file}: {_NO_DERIVED_TOKENS}")
        if (scheme == RANDOM) == ("key_file" in section):
            raise PolicyError(
                f"{file}: key_file in [deidentification] belongs to scheme = {SCHEME!r}, and that "
                "scheme needs it"
            )
        key_file = file.parent / _text(section, "key_file", file) if scheme != RANDOM else None
        return cls(
            mode=mode,
            certificate=_text(section, "certificate", file) if "certificate" in needed else "",
            expires=_date(section, "expires", file) if "expires" in needed else None,
            dua=_text(section, "dua", file) if "dua" in needed else "",
            scheme=scheme,
            key_file=key_file,
        )

    def section(self, written: Callable[[Path], str]) -> dict[str, Any]:
        """What `parse` reads, nothing for the defaults; `written` says how a path stands there."""
        values: dict[str, Any] = {
            key: value
            for key in ("mode", "certificate", "expires", "dua", "scheme")
            if (value := getattr(self, key)) != getattr(Policy(), key)
        }
        if self.key_file is not None:
            values["key_file"] = written(self.key_file)
        return values

    @property
    def is_phi(self) -> bool:
        """Whether the data stay protected health information, which every report has to say."""
        return self.mode == "limited_data_set"

    @property
    def allows_dates(self) -> bool:
        """Whether dates finer than a year may stand in a table (45 CFR 164.514(e)(2))."""
        return self.mode == "limited_data_set"

    def check(self, today: date) -> str:
        """A warning if the ground is about to expire, "" otherwise.

        Raises:
            PolicyError: It has expired: nothing may be read any more.
        """
        if self.expires is None:
            return ""
        ground = _GROUND[self.mode]
        if today > self.expires:
            raise PolicyError(
                f"{ground} expired on {self.expires}: have it renewed, and enter the new id and "
                "expires under [deidentification] in site.toml"
            )
        if today >= self.expires - _WARNING_FROM:
            return f"{ground} expires on {self.expires}; have it renewed before"
        return ""

    def tokens(self) -> Tokens:
        """The network's tokens, which readers of exchanges need.

        Raises:
            PolicyError: The policy forbids derived tokens, or the key cannot be used.
        """
        if self.mode == "safe_harbor":
            raise PolicyError(_NO_DERIVED_TOKENS)
        if self.key_file is None:
            raise PolicyError(
                "X12, FHIR and OMOP name patients by identifiers, so their tokens are derived: set "
                f"scheme = {SCHEME!r} and key_file under [deidentification] in site.toml"
            )
        return Tokens(_read_key(self.key_file))


_NO_DERIVED_TOKENS: Final = (
    "under Safe Harbor a token may not be derived from an identifier (45 CFR 164.514(c)), and X12, "
    "FHIR and OMOP name patients by identifiers alone, so tables from them need derived tokens. "
    'Set mode = "expert_determination" or "limited_data_set" in section [deidentification] of '
    "site.toml, or bring tables with random tokens as CSV or Parquet"
)


def write_key(path: Path) -> None:
    """Write a new key of 256 bits, which only this account may read; keep it outside the tables.

    Raises:
        PolicyError: The file exists (a new key would orphan every token), or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise PolicyError(
            f"{path} exists and is kept: with another key all tokens would change. To make a new "
            "key, name a new file"
        ) from None
    except OSError as error:
        raise PolicyError(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="ascii") as out:
        out.write(secrets.token_hex(_KEY_BYTES) + "\n")


def _read_key(path: Path) -> bytes:
    try:
        with path.open(encoding="ascii") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise PolicyError(
                    f"{path}: others may read the network's key; close it with: chmod 600 {path}"
                )
            key = bytes.fromhex(file.read())
    except OSError as error:
        raise PolicyError(f"{path}: the network's key cannot be read: {error.strerror}") from None
    except ValueError:
        key = b""
    if len(key) < _KEY_BYTES:
        raise PolicyError(
            f"{path}: the network's key is {_KEY_BYTES} bytes or more in hexadecimal; ask for the "
            "file again, or make one where the network begins"
        )
    return key


def _choice(section: Mapping[str, object], key: str, allowed: tuple[str, ...], file: Path) -> str:
    value = section.get(key, allowed[0])
    if value not in allowed:
        raise PolicyError(f"{file}: {key} in [deidentification] is not one of {', '.join(allowed)}")
    return str(value)


def _text(section: Mapping[str, Any], key: str, file: Path) -> str:
    value = section[key]
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise PolicyError(f"{file}: {key} in [deidentification] must be a text")
    return value.strip()


def _date(section: Mapping[str, Any], key: str, file: Path) -> date:
    value = section[key]
    if not isinstance(value, date) or isinstance(value, datetime):
        raise PolicyError(
            f"{file}: {key} in [deidentification] must be a date without quotes, "
            f"as in {key} = 2030-12-31"
        )
    return value
