"""Which copy of a resource counts where files or bundles hold it several times.

Exports overlap, and answers repeat what they are about. Of one resource (the same server, type and
id) its latest version counts, once; see `Versions`.

Source: FHIR R4, 2.27.3 Meta (versionId, lastUpdated), Bundle.timestamp.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, final

from data_contracts.readers.fhir.addresses import identity
from data_contracts.readers.fhir.dates import moment
from data_contracts.readers.fhir.element import Element
from data_contracts.readers.findings import ReaderError

_NO_CONTENT: Final = frozenset({"meta", "text"})
_MOST_DIGITS: Final = 18

TWIN: Final = "a resource that stands twice, counted once"
RETRACTED: Final = "a version of a resource that was entered in error, as a later one says"
OLDER: Final = "an older version of a resource, of which the latest counts"
UNCLEAR: Final = "a resource that stands twice and differs, with no later version; the first counts"


@final
@dataclass(frozen=True, slots=True)
class _Copy:
    """One copy of a resource.

    Attributes:
        where: File and place.
        bundle: The same of the bundle that holds it; None if it stands alone.
        updated: When it was as it stands here: `meta.lastUpdated`, else when its bundle was made.
        version: `meta.versionId`, where it is a number.
        in_error: Whether it says that it was entered in error.
        content: Digest of all but `meta` and narrative, whatever its order and blanks.
    """

    where: int
    bundle: int | None
    updated: datetime | None
    version: int | None
    in_error: bool
    content: bytes

    def is_later(self, other: "_Copy") -> bool:
        """Whether its time, or else its version, says that it came later."""
        if self.updated and other.updated and self.updated != other.updated:
            return self.updated > other.updated
        return (
            self.version is not None and other.version is not None and self.version > other.version
        )


class Versions:
    """The copies that count, of all resources of a reading.

    Args:
        resources: Gives all resources of the reading, in order, each time it is called: a second
            time only if a resource seems to stand twice.

    Memory: about 0.1 kB for each resource with an id while it is built, and 0.3 kB afterwards for
    each that stands several times.
    """

    def __init__(self, resources: Callable[[], Iterable[tuple[Element, str]]]) -> None:
        seen: set[int] = set()
        several: set[int] = set()
        for _, name in resources():
            # Equal hashes of two names do no harm: names themselves are compared below.
            key = hash(name)
            (several if key in seen else seen).add(key)
        del seen
        self._counts: dict[str, _Copy] = {}
        self._refused: set[int] = set()
        self._older: dict[bytes, int] = {}  # content of older versions -> where it stands first
        for resource, name in resources() if several else ():
            if hash(name) in several:
                with suppress(ReaderError):  # it is refused when it is read for events
                    copy = _copy(resource)
                    best = self._counts.setdefault(name, copy)
                    if copy.is_later(best):
                        # Of twins the first counts, so that another can if it is refused.
                        first = best if copy.content == best.content else copy
                        self._counts[name] = replace(copy, where=first.where, bundle=first.bundle)

    def fault(self, resource: Element) -> str | None:
        """Why a copy does not count: `TWIN`, `OLDER`, `RETRACTED`, `UNCLEAR`; None if it does.

        Raises:
            ReaderError: Its version or time is not what FHIR says.
        """
        name = identity(resource) if self._counts else None
        if name is None or (counting := self._counts.get(name)) is None:
            return None
        if counting.where == _where(resource):
            return None
        copy = _copy(resource)
        is_twin = copy.content == counting.content
        if not is_twin and counting.is_later(copy) and counting.bundle not in self._refused:
            if counting.in_error:
                return RETRACTED
            first = self._older.setdefault(copy.content, copy.where)
            return OLDER if first == copy.where else TWIN
        if counting.bundle in self._refused:
            self._counts[name] = copy
            return None
        return TWIN if is_twin else UNCLEAR

    def refused(self, root: Element) -> None:
        """A bundle was refused: what stands in it, and not later elsewhere, counts elsewhere."""
        self._refused.add(_where(root))


def _copy(resource: Element) -> _Copy:
    content = {k: v for k, v in resource.fields.items() if k not in _NO_CONTENT}
    meta, bundle = resource.child("meta"), resource.bundle()
    updated = moment(meta, "lastUpdated", Counter()) if meta else None
    if updated is None and bundle is not None:
        updated = moment(bundle, "timestamp", Counter())
    version = (meta and meta.text("versionId")) or ""
    is_number = version.isascii() and version.isdigit() and len(version) <= _MOST_DIGITS
    return _Copy(
        _where(resource),
        _where(bundle) if bundle else None,
        updated,
        int(version) if is_number else None,
        resource.text("status") == "entered-in-error",
        hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).digest(),
    )


def _where(element: Element) -> int:
    """File and place, as a hash: two places of one resource share it with probability 2^-64."""
    return hash((str(element.file), element.place))
