"""Raw tables become valid contract tables, and whatever breaks the contract is counted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dataframely as dy
import polars as pl

from data_contracts.catalog import CONTRACTS, Contract
from data_contracts.deidentification.columns import check_columns
from data_contracts.errors import GroundTruthError
from data_contracts.fields import terms_of
from data_contracts.manifest import ManifestError, SiteManifest
from data_contracts.readers.findings import ReaderError
from data_contracts.readers.tabular import UNREADABLE, reject_short_lines, scan

LIST_SEPARATOR = "|"
"""Separates the values of a list in a CSV cell."""

EMPTY_LIST = "[]"
"""A CSV cell with an empty list; an empty cell is unknown (null)."""

_JSON_RULE = "|json"
_TRUE, _FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


class ContractViolationError(GroundTruthError):
    """A table lacks a required column, or rows break its contract."""


@dataclass(frozen=True, slots=True)
class Table:
    """A contract table of one site.

    Attributes:
        contract: Its contract.
        rows: The valid rows, with the contract's columns and types.
        raw_rows: How many rows the source had.
        rejects: Rule -> number of rows that broke it; a row may break several.
    """

    contract: Contract
    rows: pl.DataFrame
    raw_rows: int
    rejects: Mapping[str, int] = field(default_factory=dict)

    @property
    def rejected_rows(self) -> int:
        """How many rows were set aside."""
        return self.raw_rows - self.rows.height


def read_tables(manifest: SiteManifest, only: Iterable[str] | None = None) -> dict[str, Table]:
    """The contract tables of a site, validated.

    Args:
        manifest: The site.
        only: Names of the tables to read; all that the site has unless given.

    Raises:
        ManifestError: The manifest names a table that is no contract.
        ReaderError: A file cannot be read, or holds no row.
        UnknownColumnError: The gate refused a column.
        ContractViolationError: A table breaks its contract (and `on_error` is "fail").
    """
    wanted = set(manifest.tables if only is None else only)
    return {
        name: read_table(name, path, manifest)
        for name, path in manifest.tables.items()
        if name in wanted
    }


def read_table(name: str, path: Path, manifest: SiteManifest) -> Table:
    """One contract table of a site; see `read_tables`."""
    contract = CONTRACTS.get(name)
    if contract is None:
        raise ManifestError(
            f"site {manifest.name}: [tables] names {name!r}, which is no contract; "
            f"contracts are {', '.join(CONTRACTS)}"
        )
    source = f"site {manifest.name}, table {name} ({path.name})"
    raw = scan(path)
    types = raw.collect_schema()
    check_columns(types.names(), contract.schema, source=source)
    unparsed = _unparsed(raw, contract.schema)
    try:
        reject_short_lines(path, len(types))
        conformed = _conform(raw, contract.schema, manifest, source).collect()
        parsed = conformed.filter(~pl.any_horizontal(*unparsed)) if unparsed else conformed
        valid, failure = contract.schema.filter(parsed.drop(*unparsed), cast=True)
    except UNREADABLE as error:
        # What polars says may quote a cell or a whole row: name the kind of error alone.
        raise ReaderError(
            f"{source}: the file is malformed or mistyped ({type(error).__name__}); look for "
            f"broken quotes, ragged lines, or columns of another type{_json_hint(unparsed)}"
        ) from None
    if conformed.is_empty():
        raise ReaderError(f"{source}: the table has no rows")
    bad_text = {name: count for name in unparsed if (count := int(conformed[name].sum()))}
    table = Table(contract, valid, conformed.height, failure.counts() | bad_text)
    if table.rejects and (manifest.on_error == "fail" or valid.is_empty()):
        worst = sorted(table.rejects.items(), key=lambda item: -item[1])
        rules = ", ".join(f"{rule} ({count} rows)" for rule, count in worst[:5])
        raise ContractViolationError(
            f"{source}: {table.rejected_rows} of {table.raw_rows} rows break contract "
            f"{contract.name} {contract.version}: {rules}. Mend them at the source, or set "
            'on_error = "quarantine" in site.toml to set such rows aside and count them.'
        )
    return table


def _conform(
    raw: pl.LazyFrame, schema: type[dy.Schema], manifest: SiteManifest, source: str
) -> pl.LazyFrame:
    """Give the frame the contract's columns, with text turned into flags and lists."""
    types = raw.collect_schema()
    columns, missing = [], []
    for name, column in schema.columns().items():
        if name not in types:
            if not column.nullable and terms_of(column).held_by(manifest.role):
                missing.append(name)
            columns.append(pl.lit(None, dtype=column.dtype).alias(name))
        elif types[name] == pl.String and column.dtype != pl.String:
            columns.append(_parse_text(name, column))
        else:
            columns.append(pl.col(name))
    if missing:
        raise ContractViolationError(
            f"{source}: required column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)} missing"
        )
    return raw.select(*columns, *_unparsed(raw, schema).values())


def _parse_text(name: str, column: dy.Column) -> pl.Expr:
    """A text column as the type that its contract asks for."""
    text = pl.col(name).str.strip_chars()
    if column.dtype == pl.Boolean:
        word = text.str.to_lowercase()
        return (
            pl.when(word.is_in(_TRUE)).then(True).when(word.is_in(_FALSE)).then(False).alias(name)
        )
    if isinstance(column, dy.List):
        if _is_list_of_structs(column):
            # One cell that is no JSON would fail the whole column; `_unparsed` counts it.
            lists = pl.when(_is_json_list(text)).then(text)
            return lists.str.json_decode(column.dtype).alias(name)
        values = pl.when(text == EMPTY_LIST).then([]).otherwise(text.str.split(LIST_SEPARATOR))
        return values.cast(column.dtype, strict=False).alias(name)
    return text.alias(name)


def _unparsed(raw: pl.LazyFrame, schema: type[dy.Schema]) -> dict[str, pl.Expr]:
    """Rule -> does a cell break it, for what must be found before the contract's types are made.

    Dataframely casts every other type and counts what does not fit. But of flags held as text or
    number polars would call 2 true and refuse text altogether, and text that is no JSON list would
    fail its whole column.
    """
    types = raw.collect_schema()
    checks = {}
    for name, column in schema.columns().items():
        if column.dtype == pl.Boolean and types.get(name, pl.Boolean) not in (pl.Boolean, pl.Null):
            word = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase()
            known = word.is_in((*_TRUE, *_FALSE))
            checks[f"{name}|flag"] = (word.is_not_null() & ~known).alias(f"{name}|flag")
        elif _is_list_of_structs(column) and types.get(name) == pl.String:
            text = pl.col(name).str.strip_chars()
            bad = text.is_not_null() & ~_is_json_list(text)
            checks[f"{name}{_JSON_RULE}"] = bad.alias(f"{name}{_JSON_RULE}")
    return checks


def _is_list_of_structs(column: dy.Column) -> bool:
    return isinstance(column, dy.List) and isinstance(column.inner, dy.Struct)


def _is_json_list(text: pl.Expr) -> pl.Expr:
    return text.str.starts_with("[") & text.str.json_path_match("$").is_not_null()


def _json_hint(unparsed: Iterable[str]) -> str:
    """Where else to look if a table as a whole cannot be read: its columns of JSON."""
    columns = [rule.removesuffix(_JSON_RULE) for rule in unparsed if rule.endswith(_JSON_RULE)]
    return f", or JSON with other keys or types in {', '.join(columns)}" if columns else ""
