"""X12 exchanges: 278 (request and response), 837 (professional, institutional) and 835.

Read are the guides 005010X217, 005010X222A1, 005010X223A2 and 005010X221A1. An interchange is kept
or refused as a whole. Segments for which events have no field are passed over, and acknowledgments
and other transaction sets are passed over and counted.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from data_contracts.crosswalk import Crosswalk
from data_contracts.readers.events import Spool
from data_contracts.readers.files import files_below
from data_contracts.readers.findings import Findings, ReaderError
from data_contracts.readers.x12.claims import note_merged
from data_contracts.readers.x12.envelope import InterchangeReader

SUFFIXES: Final = frozenset(
    (".x12", ".edi", ".txt", ".dat", ".278", ".835", ".837", ".837p", ".837i")
)
"""Endings of the files that are read from a directory."""


def read_x12(
    path: Path,
    into: Spool,
    crosswalk: Crosswalk,
    findings: Findings,
    *,
    timezone: ZoneInfo | None = None,
    with_tests: bool = False,
    progress: Callable[[Path], None] | None = None,
) -> None:
    """Read a file, or all files of a directory and below it.

    Events are of the kinds request, decision, claim, payment and person. Memory: one block of
    bytes, one claim or request, the events that the spool holds, and about 150 bytes for each
    interchange (to find those that stand twice).

    Args:
        path: The file or directory.
        into: Where events go; each interchange is one unit.
        crosswalk: Pseudonyms and tokens.
        findings: What is refused or left out.
        timezone: The zone of all local times: X12 writes none beside them (BHT04 and BHT05). None
            if they are taken as UTC.
        with_tests: Whether test interchanges (ISA15 is not P) are read; else they are left out and
            counted. Production data must never hold them.
        progress: Called with each file when it has been read.

    Raises:
        ReaderError: There is no such file; all interchanges are tests that are not wanted; or one
            is refused, and findings say that the first refusal ends the reading.
    """
    reader = InterchangeReader(into, crosswalk, findings, timezone=timezone, with_tests=with_tests)
    for file in files_below(path, SUFFIXES):
        reader.read(file)
        if progress is not None:
            progress(file)
    if reader.left_out and not reader.kept and not findings.refused:
        raise ReaderError(
            f"{path}: nothing but {reader.left_out} test interchange(s) (ISA15 is not P), which "
            'are not read as private data. If all of this site is a test, set origin = "synthetic"'
        )
    note_merged(into, findings)
