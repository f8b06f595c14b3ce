"""What changed between two versions of a contract, and how far its version must rise.

A contract's version says three things to two sides: to sites, whether their tables still fit; to
plans and models, whether the codes that features are made of still mean the same. Features take
their grids from declared ranges and allowed values: a value appended to a list shifts the code of
"missing", a wider range moves the edges of every cell. A model trained before would read such codes
wrongly and nobody would notice. So:

- patch: words. Descriptions, labels of codes, the standard that a field is taken from, the order of
  fields, the life cycle of the document.
- minor: what old tables already keep and old codes do not notice. A new nullable field outside the
  key; wider bounds on values or lengths of text (features clip to the declared range all the same);
  a new label.
- major: anything else. Among them: fields removed, renamed or added as required; a field that
  becomes required or nullable (somebody relied on it); types, keys, units; who holds a field, when
  it is known, how sensitive it is; patterns; allowed values and declared ranges, appended and
  widened ones too; code systems; rules and the definitions of labels.

What a document does not say no comparison sees: whoever changes the expression behind a label
changes its definition, too.

A site serves a plan whose major version is its own and whose minor version is no later.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from data_contracts.errors import GroundTruthError

Document = Mapping[str, Any]
Place = tuple[str, ...]

_ABSENT: Final = object()
_IDENTITIES: Final = ("name", "property", "url")
"""Keys by which an element of a list is known, whatever its position."""

# A place names elements as "name=x" and keys as they are, so that no field can pass for a key.
_WORDS: Final = frozenset(
    {"apiVersion", "description", "domain", "status", "property=standard", "property=valueLabels"}
)
_LABELS: Final = "property=labels"
_WIDER_BELOW: Final = ("minimum", "exclusiveMinimum", "minLength")
_WIDER_ABOVE: Final = ("maximum", "exclusiveMaximum", "maxLength")
_UNTOLD: Final = ("customProperties", "value", "arguments")


class VersionError(GroundTruthError):
    """A version is none, or does not rise as far as its contract changed."""


class Level(IntEnum):
    """How far a version must rise."""

    NONE = 0
    PATCH = 1
    MINOR = 2
    MAJOR = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two documents.

    Attributes:
        place: Where, as "table/field/...".
        level: How far it makes the version rise.
        words: What changed.
    """

    place: str
    level: Level
    words: str


def parse_version(text: str) -> tuple[int, int, int]:
    """Major, minor and patch of a semantic version.

    Raises:
        VersionError: It is none.
    """
    if not re.fullmatch(r"(0|[1-9]\d{0,5})(\.(0|[1-9]\d{0,5})){2}", text, re.ASCII):
        raise VersionError(f"{text[:20]!r} is no version: write major.minor.patch, like 1.0.0")
    major, minor, patch = map(int, text.split("."))
    return major, minor, patch


def serves(held: str, asked: str) -> bool:
    """Whether a contract of version `held` serves whoever was made for version `asked`.

    Raises:
        VersionError: One of them is no version.
    """
    (major, minor, _), (asked_major, asked_minor, _) = parse_version(held), parse_version(asked)
    return major == asked_major and minor >= asked_minor


def changes(old: Document, new: Document) -> list[Change]:
    """What changed between two documents of a contract (ODCS v3.1, one table each)."""
    before, after = _fields(old), _fields(new)
    found = list(_differences(_frame(old), _frame(new), (old["name"],)))
    for name in dict.fromkeys([*before, *after]):
        place = (old["name"], name)
        if name not in after:
            found.append(_change(place, Level.MAJOR, "field removed"))
        elif name not in before:
            if after[name].get("required") or after[name].get("primaryKey"):
                found.append(_change(place, Level.MAJOR, "required field added"))
            else:
                found.append(_change(place, Level.MINOR, "nullable field added"))
        else:
            found += _differences(before[name], after[name], place)
    if [name for name in before if name in after] != [name for name in after if name in before]:
        found.append(_change((old["name"],), Level.PATCH, "fields in another order"))
    return found


def needed(found: Sequence[Change]) -> Level:
    """The level that changes need together."""
    return max((change.level for change in found), default=Level.NONE)


def risen(old: str, new: str) -> Level:
    """How far a version has risen.

    Raises:
        VersionError: It has fallen, or is none.
    """
    before, after = parse_version(old), parse_version(new)
    if after < before:
        raise VersionError(f"version {new} is older than {old}")
    place = next((i for i in range(3) if before[i] != after[i]), 3)
    return Level(3 - place)


def check_versions(old: Document, new: Document) -> list[Change]:
    """The changes between a released document and its successor, whose version must suffice.

    Raises:
        VersionError: It does not.
    """
    found = changes(old, new)
    level, given = needed(found), risen(old["version"], new["version"])
    if given < level:
        worst = next(change for change in found if change.level == level)
        raise VersionError(
            f"contract {new['name']} {new['version']}: {worst.place} ({worst.words}) needs a "
            f"{level.name.lower()} version after {old['version']}"
        )
    return found


def _fields(document: Document) -> dict[str, Document]:
    (table,) = document["schema"]
    return {field["name"]: field for field in table["properties"]}


def _frame(document: Document) -> Document:
    """All but the fields and the version itself."""
    (table,) = document["schema"]
    return {key: document[key] for key in document if key not in ("schema", "version")} | {
        "table": {key: table[key] for key in table if key != "properties"}
    }


def _differences(old: Document, new: Document, place: Place) -> Iterator[Change]:
    before, after = dict(_facts(old)), dict(_facts(new))
    for inside in dict.fromkeys([*before, *after]):
        was, now = before.get(inside, _ABSENT), after.get(inside, _ABSENT)
        if was != now:
            words = f"{_told(was)} -> {_told(now)}"
            yield _change((*place, *inside), _level(inside, was, now), words)


def _facts(part: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every place within a part of a document, and what is said there."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            yield from _facts(value, (*place, str(key)))
    elif isinstance(part, list) and part and all(_identity(each) for each in part):
        for each in part:
            known_by = _identity(each)
            rest = {key: each[key] for key in each if key != known_by}
            yield from _facts(rest or None, (*place, f"{known_by}={each[known_by]}"))
    else:
        yield place, part


def _identity(element: Any) -> str | None:
    if not isinstance(element, Mapping):
        return None
    return next((key for key in _IDENTITIES if key in element), None)


def _level(place: Place, was: Any, now: Any) -> Level:
    if any(part in _WORDS for part in place):
        return Level.PATCH
    if _LABELS in place and was is _ABSENT:
        return Level.MINOR
    *above, last = place
    if above[-1:] == ["logicalTypeOptions"] and last in (*_WIDER_BELOW, *_WIDER_ABOVE):
        wider = now is _ABSENT or (
            was is not _ABSENT and (now < was if last in _WIDER_BELOW else now > was)
        )
        return Level.MINOR if wider else Level.MAJOR
    return Level.MAJOR


def _change(place: Place, level: Level, words: str) -> Change:
    said = [part.partition("=")[2] or part for part in place if part not in _UNTOLD]
    return Change("/".join(said), level, words)


def _told(value: Any) -> str:
    return "nothing" if value is _ABSENT else str(value)
