"""No refusal of a table holds a value from it, whatever is wrong with the file."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from data_contracts.deidentification.columns import UnknownColumnError
from data_contracts.errors import GroundTruthError
from data_contracts.intake import read_tables
from data_contracts.manifest import SiteManifest

PLANTED = "Zaphod9Secret"  # planted in the data; no message may hold it
TABLES = ["pa_request", "pa_decision", "claim_payment", "clinical_outcome"]


def with_cell(frame: pl.DataFrame, column: str, value: str, row: int = 3) -> pl.DataFrame:
    here = pl.int_range(pl.len()) == row
    return frame.with_columns(pl.when(here).then(pl.lit(value)).otherwise(column).alias(column))


def written(frame: pl.DataFrame, path: Path) -> Path:
    (frame.write_csv if path.suffix == ".csv" else frame.write_parquet)(path)
    return path


@pytest.fixture
def lines(texts: dict[str, pl.DataFrame]) -> list[str]:
    return texts["pa_request"].write_csv().splitlines()


def refusal(path: Path, table: str = "pa_request") -> str:
    """The message with which a file is refused; empty if it is read."""
    try:
        read_tables(SiteManifest("site-1", "provider", {table: path}, on_error="fail"))
    except GroundTruthError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", TABLES)
def test_no_cell_of_any_column_is_ever_quoted(
    texts: dict[str, pl.DataFrame], tmp_path: Path, name: str
) -> None:
    refused = 0
    for column in texts[name].columns:
        message = refusal(
            written(with_cell(texts[name], column, PLANTED), tmp_path / "t.csv"), name
        )
        assert PLANTED not in message, column
        refused += bool(message)
    assert refused > len(texts[name].columns) // 2


@pytest.mark.parametrize(
    "value", [PLANTED, [PLANTED], [{PLANTED.lower(): PLANTED}], PLANTED.encode(), 4.25, [7]]
)
def test_no_value_of_a_wrong_type_is_ever_quoted(
    frames: dict[str, pl.DataFrame], tmp_path: Path, value: object
) -> None:
    for name in ("pa_request", "clinical_outcome"):
        one_of_each_type = {str(kind): column for column, kind in frames[name].schema.items()}
        for column in one_of_each_type.values():
            wrong = frames[name].with_columns(pl.lit(value).alias(column))
            message = refusal(written(wrong, tmp_path / "t.parquet"), name)
            assert PLANTED.lower() not in message.lower(), column


JSON_CELLS = [
    f'[{{"loinc":"{PLANTED}"',
    f'{{"loinc":"{PLANTED}"}}',
    f'["{PLANTED}"]',
    f'[{{"loinc":"4548-4","value":"{PLANTED}","ucum":"%","day_offset":0}}]',
    f'[{{"loinc":"4548-4","value":1,"ucum":"%","day_offset":0,"{PLANTED}":1}}]',
    f'"{PLANTED}"',
    PLANTED,
]


@pytest.mark.parametrize("cell", JSON_CELLS)
def test_json_that_cannot_be_read_is_never_quoted(
    texts: dict[str, pl.DataFrame], tmp_path: Path, cell: str
) -> None:
    table = with_cell(texts["clinical_outcome"], "followup_labs", cell)
    message = refusal(written(table, tmp_path / "t.csv"), "clinical_outcome")
    assert message
    assert PLANTED not in message


DAMAGE: dict[str, Callable[[str], str]] = {
    "open quote": lambda line: f'"{PLANTED}{line}',
    "ragged": lambda line: f"{line},{PLANTED},{PLANTED}",
    "short": lambda _: PLANTED,
    "quote within": lambda line: line.replace(",", f'"{PLANTED},', 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_is_never_quoted(lines: list[str], tmp_path: Path, damage: str) -> None:
    lines[5] = DAMAGE[damage](lines[5])
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    message = refusal(path)
    assert message
    assert PLANTED not in message


def test_text_in_another_encoding_is_never_quoted(lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("\n".join([*lines, PLANTED]).encode() + b"\xfc\xff")
    message = refusal(path)
    assert f"line {len(lines) + 1}: byte {len(PLANTED) + 1} there is not UTF-8" in message
    assert PLANTED not in message


def test_without_a_header_line_the_first_row_is_never_quoted(
    lines: list[str], tmp_path: Path
) -> None:
    token = lines[1].partition(",")[0]
    path = tmp_path / "t.csv"
    path.write_text("\n".join([f"{PLANTED}{lines[1]}", *lines[2:]]), encoding="utf-8")
    with pytest.raises(UnknownColumnError, match="header line") as caught:
        read_tables(SiteManifest("site-1", "provider", {"pa_request": path}))
    assert PLANTED not in str(caught.value)
    assert token not in str(caught.value)
