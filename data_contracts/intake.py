"""Raw tables become valid contract tables, batch by batch, and whatever breaks one is counted.

The order is source, de-identification gate, contract. Memory holds a few batches of raw rows; of
the valid ones `read_tables` keeps all, and whoever takes `valid_batches` what it wants.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from typing import Final

import dataframely as dy
import polars as pl

from data_contracts.catalog import CONTRACTS, Contract
from data_contracts.conform import conform, json_hint
from data_contracts.deidentification.columns import check_columns
from data_contracts.deidentification.geography import mask_zip3
from data_contracts.deidentification.values import check_values
from data_contracts.errors import GroundTruthError, ManifestError
from data_contracts.fields import terms_of
from data_contracts.known_values import KnownValues
from data_contracts.manifest import SiteManifest
from data_contracts.readers.events import PROVENANCE
from data_contracts.readers.findings import Findings, ReaderError
from data_contracts.readers.tabular import UNREADABLE
from data_contracts.sources import Source, Sources, opened

PLACES_KEPT: Final = 1000
_KEY_RULE: Final = "primary_key"


@dataclass(slots=True)
class RowCounts:
    """How many rows a table's sources had, and what became of them. It stays at the site.

    Attributes:
        raw: Rows that the sources had.
        valid: Rows that keep the contract.
        rejects: Rule -> rows that broke it; a row may break several.
        places: Rule -> file and place of rows that broke it, the first `PLACES_KEPT`.
    """

    raw: int = 0
    valid: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def reject(self, rule: str, rows: pl.DataFrame) -> None:
        """Count rows that broke a rule; they have the columns `PROVENANCE`."""
        if rows.height:
            self.rejects[rule] += rows.height
            kept = self.places.setdefault(rule, [])
            kept += rows.head(PLACES_KEPT - len(kept)).select(PROVENANCE).rows()


class ContractViolationError(GroundTruthError):
    """A table lacks a required column, or rows break its contract.

    Attributes:
        counts: Which rules were broken how often and where; None where a column is missing.
    """

    def __init__(self, message: str, counts: RowCounts | None = None) -> None:
        super().__init__(message)
        self.counts = counts


@dataclass(frozen=True, slots=True)
class Table:
    """A contract table of one site.

    Attributes:
        contract: Its contract.
        rows: The valid rows, with the contract's columns and types.
        provenance: Where each row comes from, same height: `file` and `place` (the row of a flat
            file, the segment of an X12 file, the path in a FHIR resource).
        counts: What became of the raw rows.
    """

    contract: Contract
    rows: pl.DataFrame
    provenance: pl.DataFrame
    counts: RowCounts


def read_tables(
    manifest: SiteManifest, only: Iterable[str] | None = None, findings: Findings | None = None
) -> dict[str, Table]:
    """The contract tables of a site, validated.

    Args:
        manifest: The site.
        only: Names of the tables to read; all that the site has unless given.
        findings: Takes what readers of exchanges refuse and note.

    Raises:
        ManifestError: The manifest names a table that is no contract.
        ReaderError: A file cannot be read, or holds no row.
        UnknownColumnError: The gate refused a column.
        IdentifierError: The gate found values that look like identifiers.
        PolicyError: The ground on which the tables may be used has expired.
        ContractViolationError: A table breaks its contract (and `on_error` is "fail").
    """
    wanted = set(manifest.table_names if only is None else only)
    with opened(manifest, findings or Findings(manifest.on_error)) as sources:
        return {
            name: read_table(name, sources, manifest)
            for name in manifest.table_names
            if name in wanted
        }


def read_table(name: str, sources: Sources, manifest: SiteManifest) -> Table:
    """One contract table of a site; see `read_tables`."""
    contract, counts = CONTRACTS.get(name), RowCounts()
    if contract is None:
        raise ManifestError(
            f"site {manifest.name}: site.toml names table {name!r}, which is no contract; "
            f"contracts are {', '.join(CONTRACTS)}"
        )
    manifest.policy.check(datetime.now(UTC).date())
    batches = list(valid_batches(contract, sources.of(name), manifest, counts))
    rows = pl.concat(batches) if batches else _traced(contract.schema).create_empty()
    if key := contract.schema.primary_key():
        twice = pl.struct(key).is_duplicated()
        counts.reject(_KEY_RULE, rows.filter(twice))
        rows = rows.filter(~twice)
    counts.valid = rows.height
    _complain(contract, counts, manifest)
    kept = rows.select(contract.schema.column_names())
    return Table(contract, kept, rows.select(PROVENANCE), counts)


def valid_batches(
    contract: Contract, sources: Iterable[Source], manifest: SiteManifest, counts: RowCounts
) -> Iterator[pl.DataFrame]:
    """The rows of a table that keep every rule of its contract but that of its key.

    Args:
        contract: The table's contract.
        sources: Where its rows come from.
        manifest: The site.
        counts: Takes the raw and the rejected rows.

    Yields:
        Batches with the contract's columns and types, and `PROVENANCE`.

    Raises:
        ReaderError: A source cannot be read, or holds no row.
        UnknownColumnError: The gate refused a column.
        ContractViolationError: A source lacks a column that the site has to give.
    """
    for source in sources:
        before = counts.raw
        try:
            yield from _of_source(contract, source, manifest, counts)
        except UNREADABLE as error:
            # What polars says may quote a cell or a whole row: name the kind of error alone.
            hint = json_hint(source.types, contract.schema)
            raise ReaderError(
                f"{source.label}: the file is malformed or mistyped ({type(error).__name__}); look "
                f"for broken quotes, ragged lines, or columns of another type{hint}"
            ) from None
        if counts.raw == before and not source.may_be_empty:
            raise ReaderError(f"{source.label}: the table has no rows")


def _of_source(
    contract: Contract, source: Source, manifest: SiteManifest, counts: RowCounts
) -> Iterator[pl.DataFrame]:
    schema = _traced(contract.schema)
    names = [name for name in source.types if name not in PROVENANCE]
    check_columns(names, contract.schema, source=source.label)
    _require_columns(source.types, contract.schema, manifest, source.label)
    known = KnownValues(source.types, schema, manifest.policy)
    gate = partial(check_values, schema=schema, source=source.label, policy=manifest.policy)
    # A loop would hold one batch while it reads the next.
    yield from map(partial(_valid_rows, schema, known, gate, counts), source.batches())


def _valid_rows(
    schema: type[dy.Schema],
    known: KnownValues,
    gate: Callable[[pl.DataFrame], None],
    counts: RowCounts,
    batch: pl.DataFrame,
) -> pl.DataFrame:
    counts.raw += batch.height
    typed = known.typed(batch)
    gate(batch.drop(*PROVENANCE, *typed))
    made, rules = conform(batch, schema, typed)
    if rules:
        for rule in rules:
            counts.reject(rule, made.filter(rule))
        made = made.filter(~pl.any_horizontal(*rules)).drop(*rules)
    if "zip3" in made.columns:
        made = made.with_columns(mask_zip3(pl.col("zip3")).alias("zip3"))
    valid, failure = known.rules_left(typed).filter(made, cast=True)
    if len(failure):
        broken = failure.details()
        for rule in failure.counts():
            counts.reject(rule, broken.filter(pl.col(rule) == "invalid"))
    return valid.select(schema.column_names())


@cache
def _traced(contract: type[dy.Schema]) -> type[dy.Schema]:
    """The contract with `PROVENANCE`, and without its key: only all rows together can break it."""
    columns: dict[str, dy.Column] = {name: dy.String(nullable=True) for name in PROVENANCE}
    for name in contract.primary_key():
        columns[name] = copy(contract.columns()[name])
        columns[name].primary_key = False
    return type(contract.__name__, (contract,), columns)


def _require_columns(
    types: pl.Schema, schema: type[dy.Schema], manifest: SiteManifest, label: str
) -> None:
    missing = [
        name
        for name, column in schema.columns().items()
        if name not in types and not column.nullable and terms_of(column).held_by(manifest.role)
    ]
    if missing:
        raise ContractViolationError(
            f"{label}: required column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)} missing"
        )


def _complain(contract: Contract, counts: RowCounts, manifest: SiteManifest) -> None:
    """Raise where rows were rejected, unless the site wants them set aside and some are left."""
    if not counts.rejects or (manifest.on_error == "quarantine" and counts.valid):
        return
    worst = counts.rejects.most_common(5)
    rules = ", ".join(f"{rule} ({count} rows)" for rule, count in worst)
    raise ContractViolationError(
        f"site {manifest.name}, table {contract.name}: {counts.raw - counts.valid} of {counts.raw} "
        f"rows break contract {contract.name} {contract.version}: {rules}. Mend them at "
        'the source, or set on_error = "quarantine" in site.toml to set them aside and count them.',
        counts,
    )
