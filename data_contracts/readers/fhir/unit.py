"""What stands or falls together while it is mapped: a bundle, a resource, a line of NDJSON."""

from collections import Counter
from dataclasses import dataclass, field

from data_contracts.readers.events import Spool
from data_contracts.readers.fhir.directory import Directory
from data_contracts.readers.fhir.element import Element


@dataclass(slots=True)
class Unit:
    """Where events and notes of a unit go.

    Attributes:
        file: The file, for events.
        directory: What references lead to.
        into: The spool.
        notes: What is left out; they count only if the unit is kept.
    """

    file: str
    directory: Directory
    into: Spool
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, resource: Element, /, **event: object) -> None:
        """Add an event that a resource tells."""
        event["file"], event["place"] = self.file, resource.place
        self.into.add(kind, event)

    def note(self, what: str) -> None:
        """Count something that is left out, in words that repeat no value."""
        self.notes[what] += 1
