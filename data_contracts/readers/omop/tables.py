"""Tables of an OMOP CDM extract: found in a folder, and read by the columns that are needed.

Only columns that `TABLES` names are read; notes and other free text are never opened. Values are
checked once, when the table is opened, and then streamed.

Source: OMOP Common Data Model 5.3 and 5.4 (OHDSI), names and types of tables and fields.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from data_contracts.readers.findings import Findings, at
from data_contracts.readers.tabular import UNREADABLE, scan

_VERSIONS: Final = ("5.3", "5.4")
_ROW: Final = "row"
_TRUTH: Final = {pl.Int64: "a whole number", pl.Float64: "a number", pl.Date: "a date"}


@dataclass(frozen=True, slots=True)
class Cell:
    """What a column of the CDM holds.

    Attributes:
        dtype: Int64, Float64, Date or String.
        needed: The column must be there.
        filled: The column must be there, without any empty cell.
        key: Its values stand once each.
        older: Its name in CDM 5.3, where that differs.
        since: A column of dates that it may not lie before.
    """

    dtype: type[pl.DataType]
    needed: bool = False
    filled: bool = False
    key: bool = False
    older: str = ""
    since: str = ""


_KEY, _ID = Cell(pl.Int64, filled=True, key=True), Cell(pl.Int64, filled=True)
_CONCEPT, _AMOUNT, _TEXT = Cell(pl.Int64), Cell(pl.Float64), Cell(pl.String)
_NEEDED, _DAY = Cell(pl.Int64, needed=True), Cell(pl.Date, filled=True)

TABLES: Final[Mapping[str, Mapping[str, Cell]]] = {
    "person": {
        "person_id": _KEY,
        "person_source_value": _TEXT,
        "year_of_birth": _ID,
        "month_of_birth": _CONCEPT,
        "day_of_birth": _CONCEPT,
        "birth_datetime": Cell(pl.Date),
        "gender_concept_id": _NEEDED,
        "race_concept_id": _NEEDED,
        "ethnicity_concept_id": _NEEDED,
        "location_id": _CONCEPT,
    },
    "visit_occurrence": {
        "visit_occurrence_id": _KEY,
        "person_id": _ID,
        "visit_concept_id": _NEEDED,
        "visit_start_date": _DAY,
        "visit_end_date": Cell(pl.Date, needed=True, since="visit_start_date"),
        "discharged_to_concept_id": Cell(pl.Int64, older="discharge_to_concept_id"),
    },
    "measurement": {
        "person_id": _ID,
        "measurement_concept_id": _NEEDED,
        "measurement_source_value": _TEXT,
        "measurement_date": _DAY,
        "operator_concept_id": _CONCEPT,
        "value_as_number": Cell(pl.Float64, needed=True),
        "unit_concept_id": _CONCEPT,
        "unit_source_value": _TEXT,
    },
    "condition_occurrence": {
        "visit_occurrence_id": _NEEDED,
        "condition_source_value": Cell(pl.String, needed=True),
    },
    "death": {"person_id": _KEY, "death_date": _DAY},
    "observation_period": {
        "person_id": _ID,
        "observation_period_start_date": _DAY,
        "observation_period_end_date": Cell(
            pl.Date, filled=True, since="observation_period_start_date"
        ),
    },
    "location": {"location_id": _KEY, "zip": Cell(pl.String, needed=True)},
    "cost": {
        "cost_id": _KEY,
        "cost_event_id": _ID,
        "cost_domain_id": Cell(pl.String, filled=True),
        "currency_concept_id": _CONCEPT,
        "total_paid": _AMOUNT,
        "amount_allowed": _AMOUNT,
    },
    "concept": {
        "concept_id": _KEY,
        "concept_code": Cell(pl.String, needed=True),
        "vocabulary_id": Cell(pl.String, needed=True),
    },
    "cdm_source": {"cdm_version": _TEXT},
}
"""Table -> the columns that are read of it."""

REQUIRED: Final = ("person", "visit_occurrence")
"""Tables without which there is nothing to read."""


@dataclass(frozen=True, slots=True)
class CdmTable:
    """An open table.

    Attributes:
        file: The file or directory.
        rows: The columns of `TABLES` with their types (null where the file lacks one), and `row`,
            the number of the row in the file, from 1.
    """

    file: Path
    rows: pl.LazyFrame


def open_tables(folder: Path, findings: Findings) -> dict[str, CdmTable]:
    """The tables of an extract that are needed, there and not empty; checked.

    Args:
        folder: Holds a `.csv` or `.parquet` file, or a directory of `.parquet` parts, per table,
            named as the table, in capitals or not. Other files are not opened.
        findings: Rows with a bad cell are refused, all those of a column together.

    Raises:
        ReaderError: A required table is missing, empty or cannot be read, a table stands twice, a
            column is missing or of another type, a key stands twice, the CDM is another version;
            or rows are refused (and `on_error` is "fail").
    """
    files = _files(folder)
    if missing := [name for name in REQUIRED if name not in files]:
        raise at(
            folder,
            "",
            f"no {' and no '.join(missing)} (as .csv or .parquet); an OMOP CDM extract needs "
            f"{' and '.join(REQUIRED)}",
        )
    opened = {name: _open(file, name, findings) for name, file in files.items()}
    tables = {name: table for name, table in opened.items() if table is not None}
    _check_version(tables.get("cdm_source"), findings)
    return tables


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise at(folder, "", "no such directory; correct it under [sources] in site.toml")
    files: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        is_table = entry.is_dir() or entry.suffix.lower() in (".csv", ".parquet")
        name = entry.stem.lower() if is_table else ""
        if name not in TABLES:
            continue
        if name in files:
            raise at(
                folder,
                "",
                f"{name} stands twice, as {files[name].name} and {entry.name}; which one is the "
                "extract's? Move the other elsewhere",
            )
        files[name] = entry
    return files


def _open(file: Path, table: str, findings: Findings) -> CdmTable | None:
    """Open a table and check its values; None where it is empty and need not be there.

    Many extracts have a file for each table of the CDM, filled or not. An empty table of deaths
    does not tell that nobody died.
    """
    cells = TABLES[table]
    raw = scan(file)
    types = raw.collect_schema()
    names = _names(file, list(types), cells)
    values = {
        column: _typed(file, names[column], pl.col(names[column]), types[names[column]], cell)
        if column in names
        else pl.lit(None, dtype=cell.dtype)
        for column, cell in cells.items()
    }
    found = [pl.col(name).alias(f"raw:{column}") for column, name in names.items()]
    rows = raw.with_row_index(_ROW, offset=1).select(
        _ROW, *found, *(value.alias(column) for column, value in values.items())
    )
    broken = {
        (column, reason): rule
        for column in names
        for reason, rule in _rules(column, cells[column]).items()
    }
    try:
        counts = _count(rows, broken, [column for column in names if cells[column].key])
    except UNREADABLE as error:
        # What polars says may quote the file: name the kind of error alone.
        raise at(file, "", f"the file is malformed ({type(error).__name__})") from None
    if not counts["rows"]:
        if table in REQUIRED:
            raise at(file, "", "the table has no rows")
        return None
    for column in names:
        if counts.get(f"twice:{column}"):
            raise at(
                file,
                f"column {column}",
                f"{counts[f'twice:{column}']} of its values stand in more than one row; it is a "
                "key. Were two extracts joined?",
            )
    bad = []
    for number, ((column, reason), rule) in enumerate(broken.items()):
        if count := counts[f"count:{number}"]:
            place = f"column {column}"
            some = f"{count} row{'s' if count > 1 else ''}, the first is row"
            findings.refuse(at(file, place, f"{reason} ({some} {counts[f'first:{number}']})"))
            bad.append(rule)
    good = rows.filter(~pl.any_horizontal(*bad)) if bad else rows
    return CdmTable(file, good.select(_ROW, *cells))


def _names(file: Path, found: list[str], cells: Mapping[str, Cell]) -> dict[str, str]:
    """Column of the CDM -> its name in the file, for those that are there."""
    names: dict[str, str] = {}
    older = {cell.older: column for column, cell in cells.items() if cell.older}
    for name in found:
        # So polars renames a column of a CSV file whose name it has met before.
        plain = re.sub(r"_duplicated_\d+$", "", name).lower()
        column = older.get(plain, plain)
        if column in names:
            raise at(file, f"column {column}", "it stands twice; keep one of them")
        if column in cells:
            names[column] = name
    needed = [column for column, cell in cells.items() if cell.needed or cell.filled]
    if missing := [column for column in needed if column not in names]:
        raise at(
            file,
            "",
            f"no column {', '.join(missing)}; the header line has the names of the CDM, and cells "
            "are parted by commas",
        )
    return names


def _typed(file: Path, name: str, value: pl.Expr, found: pl.DataType, cell: Cell) -> pl.Expr:
    """A column as the CDM types it; what does not fit becomes null."""
    target = cell.dtype
    if found == target or found == pl.Null:
        return value.cast(target)
    if found == pl.String:
        return _parsed(value.str.strip_chars(), target)
    if target == pl.Date and isinstance(found, pl.Datetime):
        return value.dt.date()
    if target == pl.Date and found.is_integer():
        return _parsed(value.cast(pl.String), target)
    if target in (pl.Int64, pl.Float64) and found.is_numeric():
        number = value.cast(target, strict=False)
        return pl.when(number == value).then(number) if target == pl.Int64 else number
    if target == pl.String and found.is_integer():
        return value.cast(pl.String)
    raise at(
        file,
        f"column {name.lower()}",
        f"it is of type {found}, but has to hold {_TRUTH.get(target, 'text')} in each row",
    )


def _parsed(text: pl.Expr, target: type[pl.DataType]) -> pl.Expr:
    """Text as a type of the CDM; dates are ISO 8601, with a time or without, or YYYYMMDD."""
    if target == pl.Date:
        iso = text.str.extract(r"^(\d{4}-\d\d-\d\d)(?:[T ]\d\d:\d\d.*)?$")
        plain = text.str.extract(r"^(\d{8})$")
        return pl.coalesce(
            iso.str.to_date("%Y-%m-%d", strict=False), plain.str.to_date("%Y%m%d", strict=False)
        )
    if target == pl.Int64:
        # So pandas writes whole numbers in a column with empty cells.
        return text.str.strip_suffix(".0").cast(pl.Int64, strict=False)
    return text.cast(target, strict=False)


def _rules(column: str, cell: Cell) -> dict[str, pl.Expr]:
    """What is wrong -> in which rows."""
    value, raw = pl.col(column), pl.col(f"raw:{column}")
    # In a column of floats, pandas writes an empty cell as NaN.
    is_empty = raw.is_null() | (raw.cast(pl.String) == "NaN")
    rules = {}
    if cell.dtype != pl.String:
        rules[f"it is not {_TRUTH[cell.dtype]}"] = value.is_null() & ~is_empty
    if cell.filled:
        rules["the cell is empty"] = is_empty
    if cell.since:
        rules[f"it lies before {cell.since}"] = value < pl.col(cell.since)
    return {reason: rule.fill_null(False) for reason, rule in rules.items()}


def _count(
    rows: pl.LazyFrame, broken: Mapping[tuple[str, str], pl.Expr], keys: list[str]
) -> dict[str, int]:
    """Count rows, broken rules and repeated keys in one pass over the file."""
    rules = broken.values()
    counts = rows.select(
        pl.len().alias("rows"),
        *(rule.sum().alias(f"count:{number}") for number, rule in enumerate(rules)),
        *(pl.col(_ROW).filter(rule).min().alias(f"first:{n}") for n, rule in enumerate(rules)),
        *((pl.col(key).count() - pl.col(key).drop_nulls().n_unique()).alias(f"twice:{key}")
          for key in keys),
    )  # fmt: skip
    return counts.collect(engine="streaming").row(0, named=True)


def _check_version(source: CdmTable | None, findings: Findings) -> None:
    """Refuse another CDM than 5.3 or 5.4; where none is told, count that."""
    texts = [] if source is None else source.rows.collect()["cdm_version"].drop_nulls().to_list()
    versions = {match[0] for text in texts if (match := re.search(r"\d+\.\d+", text))}
    if source is None or not versions:
        findings.note("OMOP extract that does not tell its CDM version, read as 5.4")
    elif not versions <= set(_VERSIONS):
        raise at(
            source.file,
            "column cdm_version",
            f"another version of the CDM than {' and '.join(_VERSIONS)}; migrate the extract",
        )
