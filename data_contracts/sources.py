"""Where a site's contract tables come from: flat files, and exchanges that tell several tables."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from data_contracts.manifest import SiteManifest
from data_contracts.readers.findings import Findings
from data_contracts.readers.tabular import scan


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of one contract table as they lie at a site.

    Attributes:
        label: What messages call it.
        frame: The rows, with `PROVENANCE` and the columns of the file. Nothing but headers is read
            before it is collected.
    """

    label: str
    frame: pl.LazyFrame


@contextmanager
def opened(
    manifest: SiteManifest, only: Iterable[str] | None, findings: Findings
) -> Iterator[Mapping[str, list[Source]]]:
    """The sources of each table that a site has.

    Args:
        manifest: The site.
        only: Names of the tables; all that the site has unless given.
        findings: Takes what readers of exchanges refuse and note.

    Raises:
        ReaderError: A file is missing or cannot be read.
    """
    wanted = set(manifest.tables if only is None else only)
    yield {
        name: [Source(f"site {manifest.name}, table {name} ({path.name})", scan(path))]
        for name, path in manifest.tables.items()
        if name in wanted
    }
