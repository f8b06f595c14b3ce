"""Where a site's contract tables come from: flat files, a database, exchanges, clinical records."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Final

import polars as pl

from data_contracts.catalog import CONTRACTS
from data_contracts.crosswalk import Crosswalk
from data_contracts.deidentification.columns import UnknownColumnError
from data_contracts.errors import GroundTruthError
from data_contracts.manifest import EXCHANGED, Exchange, SiteManifest
from data_contracts.readers.assembly import ASSEMBLED
from data_contracts.readers.events import PROVENANCE, Spool, private_folder, spool
from data_contracts.readers.fhir import read_fhir
from data_contracts.readers.findings import Findings
from data_contracts.readers.omop.reading import omop_outcomes
from data_contracts.readers.postgresql import Snapshot, snapshot
from data_contracts.readers.risk import note_unscored
from data_contracts.readers.tabular import scan
from data_contracts.readers.x12 import read_x12

BATCH_ROWS: Final = 100_000
_CSV_BATCH_CELLS: Final = 2_000_000

Progress = Callable[[Path], None] | None

_MESSAGES: Final[tuple[Exchange, ...]] = ("x12", "fhir")
_NO_ZONE: Final = (
    "local times of X12 taken as UTC, as those of FHIR are: give timezone in [sources], or hours "
    "between a request in one format and its answer in the other are wrong"
)


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of one contract table as they lie at a site.

    Attributes:
        label: What messages call it.
        types: The source's columns and `PROVENANCE`; known before any row is read.
        batches: Reads the rows, about `BATCH_ROWS` at a time.
        may_be_empty: Whether it is no mistake if there are none: messages tell of some tables only.
    """

    label: str
    types: pl.Schema
    batches: Callable[[], Iterator[pl.DataFrame]]
    may_be_empty: bool = False

    @classmethod
    def told(cls, label: str, *frames: pl.LazyFrame) -> "Source":
        """Rows that messages or records tell of, one frame after the other."""

        def batches() -> Iterator[pl.DataFrame]:
            for frame in frames:
                yield from frame.collect_batches(chunk_size=BATCH_ROWS)

        return cls(label, frames[0].collect_schema(), batches, may_be_empty=True)


class Sources:
    """All sources of a site; what several tables share is opened once, when first asked for.

    Args:
        manifest: The site.
        findings: Takes what readers of exchanges refuse and note.
        stack: Closes what was opened.
        progress: Called with each file of an exchange when it has been read.
    """

    def __init__(
        self, manifest: SiteManifest, findings: Findings, stack: ExitStack, progress: Progress
    ) -> None:
        self._manifest = manifest
        self._findings = findings
        self._stack = stack
        self._progress = progress
        self._tables: Snapshot | None = None
        self._events: Spool | None = None
        self._failure: GroundTruthError | None = None

    def of(self, table: str) -> list[Source]:
        """The sources of one contract table.

        Raises:
            ReaderError: A file is missing or cannot be read.
            ManifestError: A mapping does not fit its file.
            PolicyError: Exchanges need tokens that the site's policy forbids.
        """
        manifest = self._manifest
        found = []
        if (path := manifest.tables.get(table)) is not None:
            found.append(_flat_file(manifest, table, path, self._label(table, path.name)))
        if manifest.database is not None and table in manifest.database.tables:
            if self._tables is None:
                self._tables = self._stack.enter_context(snapshot(manifest.database))
            found.append(_relation(self._tables, table, self._label(table, "postgresql")))
        told = [name for name in _MESSAGES if name in manifest.exchanges]
        if any(table in EXCHANGED[name] for name in told):
            frame = ASSEMBLED[table](self._read_exchanges())
            found.append(Source.told(self._label(table, " and ".join(told)), frame))
        if "omop" in manifest.exchanges and table in EXCHANGED["omop"]:
            folder, tokens = manifest.exchanges["omop"], manifest.policy.tokens()
            private = self._stack.enter_context(private_folder(self._scratch))
            frames = omop_outcomes(folder, tokens, manifest.name, self._findings, private)
            found.append(Source.told(self._label(table, folder.name), *frames))
        return found

    @property
    def _scratch(self) -> Path:
        return self._manifest.folder or Path(gettempdir())

    def _label(self, table: str, where: str) -> str:
        return f"site {self._manifest.name}, table {table} ({where})"

    def _read_exchanges(self) -> Spool:
        """The events of all exchanges; a reading that failed fails again for the next table."""
        if self._failure is not None:
            raise self._failure
        if self._events is None:
            try:
                self._events = self._events_of_exchanges()
            except GroundTruthError as error:
                self._failure = error
                raise
        return self._events

    def _events_of_exchanges(self) -> Spool:
        manifest = self._manifest
        crosswalk = Crosswalk.load(
            manifest.policy.tokens(),
            manifest.crosswalk,
            own=(manifest.group or manifest.name) if manifest.role == "payer" else None,
            business_line=manifest.business_line or None,
        )
        events = self._stack.enter_context(spool(self._scratch))
        into = (events, crosswalk, self._findings)
        if "x12" in manifest.exchanges:
            read_x12(
                manifest.exchanges["x12"],
                *into,
                timezone=manifest.timezone,
                with_tests=manifest.origin != "private",
                progress=self._progress,
            )
            if manifest.timezone is None and "fhir" in manifest.exchanges:
                self._findings.note(_NO_ZONE)
        if "fhir" in manifest.exchanges:
            read_fhir(manifest.exchanges["fhir"], *into, progress=self._progress)
        note_unscored(events, self._findings)
        return events


@contextmanager
def opened(
    manifest: SiteManifest, findings: Findings, progress: Progress = None
) -> Iterator[Sources]:
    """The sources of a site, until the context ends; see `Sources`."""
    with ExitStack() as stack:
        yield Sources(manifest, findings, stack, progress)


def _flat_file(manifest: SiteManifest, name: str, path: Path, label: str) -> Source:
    if (mapping := manifest.mappings.get(name)) is None:
        frame = scan(path)
    else:
        frame = scan(path, separator=mapping.separator, ignore=mapping.ignore)
        frame = mapping.apply(frame, CONTRACTS[name].schema, source=label)
    types, rows = frame.collect_schema(), BATCH_ROWS
    if path.suffix.lower() == ".csv":  # of which polars reads several batches ahead
        rows = min(rows, _CSV_BATCH_CELLS // len(types))
    return _numbered(label, path.name, types, partial(frame.collect_batches, chunk_size=rows))


def _relation(tables: Snapshot, name: str, label: str) -> Source:
    return _numbered(label, "postgresql", tables.columns(name), partial(tables.batches, name))


def _numbered(
    label: str, file: str, types: pl.Schema, batches: Callable[[], Iterator[pl.DataFrame]]
) -> Source:
    """A source whose rows are told apart by their number, counted from 1.

    Numbers are given here, as polars' own row index reads ahead of whoever takes the batches.
    """
    for column in set(PROVENANCE) & set(types):
        raise UnknownColumnError(f"{label}: no contract knows column {column!r}; remove it")

    def numbered() -> Iterator[pl.DataFrame]:
        before = 0
        for batch in batches():
            number = pl.int_range(before + 1, before + 1 + pl.len())
            where = (pl.lit(file), pl.format("row {}", number))
            before += batch.height
            yield batch.with_columns(
                value.alias(name) for name, value in zip(PROVENANCE, where, strict=True)
            )
            del batch  # before the next one is read

    return Source(label, pl.Schema({**types, **dict.fromkeys(PROVENANCE, pl.String())}), numbered)
