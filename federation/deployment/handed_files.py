"""Small TOML files that people hand to each other: read strictly, never quoted at length."""

import base64
import binascii
import re
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar, get_args

from data_contracts.compatibility import VersionError, parse_version
from data_contracts.errors import GroundTruthError
from data_contracts.fields import Role
from data_contracts.vocabulary import PSEUDONYM_PATTERN
from federation.settings import ConfigError, parse

T = TypeVar("T")

ROLES: Final = get_args(Role)
_MAX_BYTES = 65_536
_MAX_CONTRACTS = 64
_MAX_WORDS = 200


def release() -> str:
    """Version of this software, as it stands in files that are handed over."""
    return version("shared-ground-truth")


def read_handed(cls: type[T], file: Path, error: type[GroundTruthError], remedy: str) -> T:
    """A dataclass from a file that somebody else wrote.

    Args:
        cls: The dataclass; it checks its values itself and repeats none of them.
        file: TOML with the dataclass's fields, 64 KiB at most.
        error: What to raise.
        remedy: What to do if it is none.

    Raises:
        GroundTruthError: `error`, of whatever is wrong with the file.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as reason:
        raise error(f"{file} cannot be read: {reason.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise error(f"{file} is larger than {_MAX_BYTES:,} bytes: {remedy}")
    try:
        return parse(cls, tomllib.loads(content.decode("utf-8-sig")), "the file")
    except RecursionError:
        raise error(f"{file} cannot be used (nested too deeply): {remedy}") from None
    except (ValueError, ConfigError) as reason:
        words = str(reason)
        short = words if len(words) <= _MAX_WORDS else f"{words[:_MAX_WORDS]} ..."
        raise error(f"{file} cannot be used ({short}): {remedy}") from None


def check_pseudonym(text: str, what: str) -> None:
    """Make sure that a name is a network pseudonym.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(PSEUDONYM_PATTERN, text):
        raise ValueError(
            f"{what} must be a pseudonym: lower-case letters, digits, - and _, starting with a "
            "letter, 32 at most; never an NPI"
        )


def check_release(text: str) -> None:
    """Make sure that a release of this software is one.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(r"[0-9][0-9A-Za-z.+!-]{0,31}", text):
        raise ValueError("release must be a version of groundtruth, such as 0.1.0")


def check_contracts(contracts: Mapping[str, str]) -> None:
    """Make sure that contracts are names with versions.

    Raises:
        ValueError: They are not, or are none or too many.
    """
    if not 1 <= len(contracts) <= _MAX_CONTRACTS:
        raise ValueError(f"contracts must name 1 to {_MAX_CONTRACTS} tables with their versions")
    for name, text in contracts.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
            raise ValueError("contracts must name tables in lower-case letters, digits and _")
        try:
            parse_version(text)
        except VersionError as error:
            raise ValueError(f"contracts.{name}: {error}") from None


def decoded(text: str, size: int, what: str) -> bytes:
    """Bytes of base64, in the one way to write them.

    Raises:
        ValueError: It is none, or of another size.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != size or base64.b64encode(content).decode() != text:
        raise ValueError(f"{what} must be {size} bytes in base64")
    return content
