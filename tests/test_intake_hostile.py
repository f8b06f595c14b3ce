"""Flat files that are not what they seem: a named error with place, in bounded memory."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from data_contracts.errors import GroundTruthError
from data_contracts.intake import read_tables
from data_contracts.manifest import SiteManifest

PLANTED = "Zaphod9Secret"


def refusal(path: Path, table: str = "pa_decision") -> str:
    with pytest.raises(GroundTruthError) as caught:
        read_tables(SiteManifest("site-1", "payer", {table: path}, on_error="quarantine"))
    assert PLANTED not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def lines(texts: dict[str, pl.DataFrame]) -> list[str]:
    return texts["pa_decision"].write_csv().splitlines()


def test_a_file_of_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"")
    assert "the file is empty (0 bytes)" in refusal(tmp_path / "t.csv")


def test_a_header_alone(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "t.csv").write_text(lines[0] + "\n", encoding="utf-8")
    assert "has no rows" in refusal(tmp_path / "t.csv")


def test_a_file_cut_in_the_middle_of_a_line(tmp_path: Path, lines: list[str]) -> None:
    cut = "\n".join(lines)[: -len(lines[-1]) + 5]
    (tmp_path / "t.csv").write_text(cut, encoding="utf-8")
    assert "1 line has fewer cells than the header" in refusal(tmp_path / "t.csv")


def test_columns_shifted_by_an_index_that_has_no_name(tmp_path: Path, lines: list[str]) -> None:
    shifted = [lines[0], *(f"{number},{line}" for number, line in enumerate(lines[1:]))]
    (tmp_path / "t.csv").write_text("\n".join(shifted), encoding="utf-8")
    assert "ragged lines" in refusal(tmp_path / "t.csv")


def test_columns_shifted_within_their_number(tmp_path: Path, lines: list[str]) -> None:
    shifted = [lines[0], *(f"{line.rpartition(',')[0]}" for line in lines[1:])]
    shifted = [shifted[0], *(f"{PLANTED},{line}" for line in shifted[1:])]
    (tmp_path / "t.csv").write_text("\n".join(shifted), encoding="utf-8")
    # Hours in a column of flags look like telephone numbers to the gate, which comes first.
    assert "are its columns shifted?" in refusal(tmp_path / "t.csv")


def test_bytes_of_another_encoding_are_named_by_line(tmp_path: Path, lines: list[str]) -> None:
    text = "\n".join([lines[0], lines[1], lines[2] + "é"])
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    assert "t.csv, line 3: byte" in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["t.csv.gz", "t.zip", "t.xlsx", "t"])
def test_packed_files_and_other_types_are_not_guessed_at(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b" + bytes(100))
    assert "are not read; use .csv or .parquet" in refusal(tmp_path / name)


@pytest.mark.parametrize("header", [b"", b"request_token,exchange_seq\n"])
def test_a_line_of_two_gigabytes_is_refused_before_it_is_in_memory(
    tmp_path: Path, header: bytes
) -> None:
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(2 << 30)  # a hole: the file takes no room on the disk
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from data_contracts.readers.tabular import scan\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    scan(Path(sys.argv[1]))\n"
        "except Exception as error:\n"
        "    print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    run = (sys.executable, "-c", script, str(path))
    told = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60)
    error, grown = told.stdout.splitlines()
    assert f"t.csv, byte {len(header) + 1}: a line that begins there is longer than 8 MB" in error
    assert int(grown) < 50  # MB


def test_a_parquet_file_that_was_cut(tmp_path: Path, frames: dict[str, pl.DataFrame]) -> None:
    frames["pa_decision"].write_parquet(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as .parquet" in refusal(tmp_path / "t.parquet")


def test_dates_and_fractions_do_not_pass_for_whole_numbers(
    tmp_path: Path, frames: dict[str, pl.DataFrame]
) -> None:
    # As numbers of a contract polars would take 12.5 for 12, and a date for days since 1970.
    frame = frames["pa_decision"]
    fractions = frame.with_columns(auth_period_days=pl.lit(12.5))
    fractions.write_parquet(tmp_path / "t.parquet")
    assert "auth_period_days|whole (25 rows)" in refusal(tmp_path / "t.parquet")
    dates = frame.with_columns(auth_period_days=pl.date(2026, 1, 2))
    dates.write_parquet(tmp_path / "t.parquet")
    assert "auth_period_days" in refusal(tmp_path / "t.parquet")


def test_a_structure_does_not_pass_for_a_code(
    tmp_path: Path, frames: dict[str, pl.DataFrame]
) -> None:
    nested = frames["pa_decision"].with_columns(pl.struct(k=pl.lit("A1")).alias("action_code"))
    nested.write_parquet(tmp_path / "t.parquet")
    assert "action_code|plain (25 rows)" in refusal(tmp_path / "t.parquet")


def test_a_header_in_capitals_is_told_so(tmp_path: Path, lines: list[str]) -> None:
    text = "\n".join([lines[0].upper(), *lines[1:]])
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert "differ from those of the contract in capital letters" in refusal(tmp_path / "t.csv")
