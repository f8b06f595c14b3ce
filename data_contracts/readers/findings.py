"""What readers find wrong or have to leave out: refused, counted, and never quoted."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_contracts.errors import GroundTruthError


class ReaderError(GroundTruthError):
    """A file is missing, empty, cut short, or not what its name says.

    Messages of exchanges (X12, FHIR) name file, place and reason: "edi/a.835, segment 17 (CLP04):
    the amount paid is no number". None repeats a value.
    """


@dataclass(slots=True)
class Findings:
    """What one reading of a site's sources has found.

    Attributes:
        on_error: "fail": the first refusal ends the reading; "quarantine": the refused unit (an
            interchange, a bundle, a line of NDJSON) is set aside as a whole and counted.
        refused: Refusals, in order, each naming file and place.
        notes: What was left out of rows that were kept, e.g. "a diagnosis in ICD-9-CM" -> count.
    """

    on_error: Literal["fail", "quarantine"] = "fail"
    refused: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def refuse(self, error: ReaderError) -> None:
        """Raise the error, or keep it and let the reader go on with the next unit."""
        if self.on_error == "fail":
            raise error
        self.refused.append(str(error))

    def note(self, what: str, count: int = 1) -> None:
        """Count something that the contract does not hold, in words that repeat no value."""
        self.notes[what] += count


def at(file: Path, place: str, reason: str) -> ReaderError:
    """An error with file, place and reason."""
    return ReaderError(f"{file}, {place}: {reason}" if place else f"{file}: {reason}")
