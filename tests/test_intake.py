"""Raw files become contract tables; whatever breaks is counted, named, and never quoted."""

import json
from pathlib import Path

import polars as pl
import pytest

from data_contracts.catalog import CONTRACTS
from data_contracts.deidentification.columns import UnknownColumnError
from data_contracts.errors import ManifestError
from data_contracts.intake import ContractViolationError, RowCounts, Table, read_tables
from data_contracts.manifest import OnError, SiteManifest
from data_contracts.readers.findings import ReaderError
from data_contracts.readers.tabular import reject_short_lines, scan

PLANTED = "Zaphod9Secret"  # planted in the data; no message may hold it
ROWS = 25


def read(path: Path, table: str = "pa_request", on_error: OnError = "fail") -> Table:
    manifest = SiteManifest("site-1", "provider", {table: path}, on_error=on_error)
    return read_tables(manifest)[table]


@pytest.fixture
def requests(frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return frames["pa_request"]


@pytest.fixture
def requests_text(texts: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return texts["pa_request"]


def write_csv(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_csv(path)
    return path


def write_parquet(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_parquet(path)
    return path


def with_cell(frame: pl.DataFrame, column: str, value: str | None, row: int = 3) -> pl.DataFrame:
    here = pl.int_range(pl.len()) == row
    return frame.with_columns(pl.when(here).then(pl.lit(value)).otherwise(column).alias(column))


# --- what is read ------------------------------------------------------------------------------


def test_a_table_of_several_batches_is_read_though_a_column_stops_repeating(
    requests_text: pl.DataFrame, tmp_path: Path
) -> None:
    # Batches of a file with so many columns have some 60 000 rows.
    number, many = pl.int_range(pl.len()), pl.concat([requests_text] * 6_000)
    token = pl.format("{}{}", pl.lit("a" * 16), (number + 10**15).cast(pl.String))
    score = pl.when(number < 70_000).then(number % 20).otherwise(number / 1e5).cast(pl.String)
    rows = many.with_columns(token.alias("request_token"), score.alias("risk_score"))
    table = read(write_csv(rows, tmp_path / "t.csv"))
    assert table.counts.valid == table.rows.height == rows.height
    assert table.rows["risk_score"].n_unique() > 50_000


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_restricted_zip_codes_are_masked_wherever_they_are_read(
    frames: dict[str, pl.DataFrame], texts: dict[str, pl.DataFrame], tmp_path: Path, suffix: str
) -> None:
    held = (texts if suffix == ".csv" else frames)["clinical_outcome"]
    zips = pl.Series("zip3", ["036", "606", "059", None, "000"] * 5)
    path, rows = tmp_path / f"t{suffix}", held.head(25).with_columns(zips)
    (write_csv if suffix == ".csv" else write_parquet)(rows, path)
    table = read(path, "clinical_outcome")
    assert table.rows["zip3"].to_list() == ["000", "606", "000", None, "000"] * 5


@pytest.mark.parametrize("name", ["pa_request", "pa_decision", "claim_payment", "clinical_outcome"])
def test_csv_parquet_and_a_directory_of_parts_give_the_same_table(
    frames: dict[str, pl.DataFrame], texts: dict[str, pl.DataFrame], tmp_path: Path, name: str
) -> None:
    frame = frames[name]
    parts = tmp_path / "parts [1].csv"  # brackets are no pattern here, nor does the name matter
    parts.mkdir()
    write_parquet(frame.head(10), parts / "a.parquet")
    write_parquet(frame.slice(10), parts / "b.parquet")
    tables = [
        read(write_csv(texts[name], tmp_path / "table [1].csv"), name),
        read(write_parquet(frame, tmp_path / "table [1].parquet"), name),
        read(parts, name),
    ]
    for table in tables:
        assert table.rows.equals(tables[1].rows)
        assert table.counts == RowCounts(frame.height, frame.height)
        CONTRACTS[name].schema.validate(table.rows)


def test_a_column_that_the_site_need_not_hold_may_be_absent(
    requests_text: pl.DataFrame, tmp_path: Path
) -> None:
    table = read(write_csv(requests_text.drop("risk_score", "dx_other"), tmp_path / "t.csv"))
    assert table.rows["risk_score"].null_count() == ROWS
    assert table.rows.columns == CONTRACTS["pa_request"].schema.column_names()


@pytest.mark.parametrize(
    ("word", "flag"), [("TRUE", True), (" yes ", True), ("1", True), ("f", False), ("No", False)]
)
def test_flags_are_read_as_people_write_them(
    requests_text: pl.DataFrame, tmp_path: Path, word: str, flag: bool
) -> None:
    frame = with_cell(requests_text, "eligibility_verified", word)
    assert read(write_csv(frame, tmp_path / "t.csv")).rows["eligibility_verified"][3] is flag


def test_a_list_in_a_cell_is_parted_by_bars(requests_text: pl.DataFrame, tmp_path: Path) -> None:
    frame = with_cell(with_cell(requests_text, "dx_other", "E11.9|I10"), "dx_other", None, 4)
    table = read(write_csv(frame, tmp_path / "t.csv"))
    assert table.rows["dx_other"][3].to_list() == ["E11.9", "I10"]
    assert table.rows["dx_other"][4] is None


def test_an_empty_list_is_not_an_unknown_one(requests_text: pl.DataFrame, tmp_path: Path) -> None:
    frame = with_cell(requests_text, "criteria_documented", "[]")
    cell = read(write_csv(frame, tmp_path / "t.csv")).rows["criteria_documented"][3]
    assert cell is not None
    assert cell.to_list() == []


def test_laboratory_values_in_a_cell_are_json(
    texts: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    labs = [{"loinc": "4548-4", "value": 7.5, "ucum": "%", "day_offset": -3}]
    frame = with_cell(texts["clinical_outcome"], "baseline_labs", json.dumps(labs))
    table = read(write_csv(frame, tmp_path / "t.csv"), "clinical_outcome")
    assert table.rows["baseline_labs"][3].to_list() == labs


@pytest.mark.parametrize("cell", ["{bad", "[1", "null", '{"loinc": "4548-4"}', "x"])
def test_a_cell_that_is_no_json_list_is_set_aside_and_counted(
    texts: dict[str, pl.DataFrame], tmp_path: Path, cell: str
) -> None:
    path = write_csv(
        with_cell(texts["clinical_outcome"], "baseline_labs", cell), tmp_path / "t.csv"
    )
    table = read(path, "clinical_outcome", on_error="quarantine")
    assert table.counts.rejects == {"baseline_labs|json": 1}
    assert (table.counts.raw, table.counts.valid) == (ROWS, ROWS - 1)
    assert table.counts.places == {"baseline_labs|json": [(path.name, "row 4")]}
    with pytest.raises(ContractViolationError, match=r"baseline_labs\|json \(1 rows\)"):
        read(path, "clinical_outcome")


def test_json_of_other_types_fails_the_table_and_names_the_columns(
    texts: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    frame = with_cell(texts["clinical_outcome"], "baseline_labs", f'["{PLANTED}"]')
    with pytest.raises(ReaderError, match=r"JSON.* in baseline_labs, followup_labs") as caught:
        read(write_csv(frame, tmp_path / "t.csv"), "clinical_outcome", on_error="quarantine")
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("blank_lines", [0, 1, 2])
def test_line_endings_byte_order_mark_and_blank_lines_make_no_row(
    requests_text: pl.DataFrame, tmp_path: Path, ending: str, mark: str, blank_lines: int
) -> None:
    text = mark + requests_text.write_csv() + "\n" * blank_lines
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8", newline=ending)
    assert read(path).counts.raw == ROWS


def test_only_the_tables_asked_for_are_read(provider_folders: list[Path]) -> None:
    manifest = SiteManifest.load(provider_folders[0])
    assert set(read_tables(manifest, only=["pa_decision"])) == {"pa_decision"}
    assert set(read_tables(manifest)) == set(manifest.tables)


# --- what is refused ---------------------------------------------------------------------------


def test_an_unknown_column_is_refused_with_a_suggestion_before_any_row_is_read(
    requests: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(requests.rename({"channel": "chanel"}), tmp_path / "t.parquet")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(pl.LazyFrame, "collect", never)
    with pytest.raises(UnknownColumnError, match=r"'chanel' \(did you mean 'channel'\?\)"):
        read(path)


@pytest.mark.parametrize("name", ["patient_name", "patient_id", "request_id", "patient_tokn"])
def test_what_may_identify_somebody_is_never_likened_to_a_token(
    requests: pl.DataFrame, tmp_path: Path, name: str
) -> None:
    path = write_parquet(requests.with_columns(pl.lit("x").alias(name)), tmp_path / "t.parquet")
    with pytest.raises(UnknownColumnError, match=f"'{name}'.* remove it, or rename it") as caught:
        read(path)
    assert "did you mean" not in str(caught.value)


def test_a_column_that_stands_twice_is_named(requests_text: pl.DataFrame, tmp_path: Path) -> None:
    header, rows = requests_text.write_csv().split("\n", 1)
    path = tmp_path / "t.csv"
    path.write_text(f"{header.replace('business_line', 'channel')}\n{rows}", encoding="utf-8")
    with pytest.raises(UnknownColumnError, match="column 'channel' stands twice"):
        read(path)


def test_cells_parted_by_another_character_are_thought_of(
    requests_text: pl.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    requests_text.write_csv(path, separator=";")
    with pytest.raises(UnknownColumnError, match="not parted by commas, or the file is not UTF-8"):
        read(path)


def test_a_required_column_that_is_missing_is_named(
    requests_text: pl.DataFrame, tmp_path: Path
) -> None:
    path = write_csv(requests_text.drop("channel", "business_line"), tmp_path / "t.csv")
    with pytest.raises(ContractViolationError, match="columns business_line, channel missing"):
        read(path)


def test_a_table_that_is_no_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="pa_requests"):
        read(tmp_path / "t.csv", "pa_requests")


def test_rows_that_break_the_contract_fail_the_table_or_are_set_aside_and_counted(
    requests: pl.DataFrame, requests_text: pl.DataFrame, tmp_path: Path
) -> None:
    frame = requests_text
    for row, column in ((1, "eligibility_verified"), (2, "item_sequence"), (3, "channel")):
        frame = with_cell(frame, column, PLANTED, row)
    path = write_csv(frame, tmp_path / "t.csv")
    with pytest.raises(ContractViolationError, match=f"3 of {ROWS} rows") as caught:
        read(path)
    assert PLANTED not in str(caught.value)
    table = read(path, on_error="quarantine")
    assert (table.counts.raw, table.counts.valid) == (ROWS, ROWS - 3)
    assert table.counts.rejects["eligibility_verified|flag"] == 1
    assert len(table.counts.rejects) >= 3
    assert table.rows["request_token"].to_list() == [
        token for row, token in enumerate(requests["request_token"]) if row not in (1, 2, 3)
    ]


@pytest.mark.parametrize("value", [2, 3.5])
def test_a_number_that_is_neither_0_nor_1_is_no_flag(
    requests: pl.DataFrame, tmp_path: Path, value: float
) -> None:
    frame = requests.with_columns(eligibility_verified=pl.lit(value))
    with pytest.raises(ContractViolationError, match=r"eligibility_verified\|flag"):
        read(write_parquet(frame, tmp_path / "t.parquet"), on_error="quarantine")


def test_a_key_that_stands_twice_is_counted(requests: pl.DataFrame, tmp_path: Path) -> None:
    path = write_parquet(pl.concat([requests, requests.head(1)]), tmp_path / "t.parquet")
    table = read(path, on_error="quarantine")
    assert table.counts.rejects == {"primary_key": 2}


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_an_empty_file_is_an_error_and_so_is_one_without_rows(
    requests: pl.DataFrame, requests_text: pl.DataFrame, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(ReaderError, match="empty"):
        read(path)
    if name.endswith("csv"):
        write_csv(requests_text.clear(), path)
    else:
        write_parquet(requests.clear(), path)
    with pytest.raises(ReaderError, match="no rows"):
        read(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_parquet_file_is_an_error(
    requests: pl.DataFrame, tmp_path: Path, kept: float
) -> None:
    path = write_parquet(requests, tmp_path / "t.parquet")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ReaderError, match="cut short"):
        read(path)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lines_with_fewer_cells_than_the_header_are_counted(
    requests_text: pl.DataFrame, tmp_path: Path, ending: str
) -> None:
    lines = requests_text.write_csv().splitlines()
    lines[3] = lines[3].rpartition(",")[0]
    lines[-1] = f'"{PLANTED}, {PLANTED}","a ""b"", c"'
    path = tmp_path / "t.csv"
    path.write_text(ending.join(lines), encoding="utf-8", newline="")
    with pytest.raises(ReaderError, match=r"2 lines have fewer cells.*cut short") as caught:
        read(path, on_error="quarantine")
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize("ignore", [[], ["a"], ["b", "c"]])
def test_a_line_of_more_cells_is_refused_whichever_columns_are_read(
    tmp_path: Path, ignore: list[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n1,2,3\n6,7,8,9\n", encoding="utf-8")
    with pytest.raises((ReaderError, pl.exceptions.ComputeError), match=r"more (cells|fields)"):
        scan(path, ignore=ignore).collect()
    path.write_text("a,b,c\n1,2\n6,7,8,9\n", encoding="utf-8")  # as many in all as three each
    with pytest.raises(
        (ReaderError, pl.exceptions.ComputeError), match=r"(fewer|more) (cells|fields)"
    ):
        scan(path, ignore=ignore).collect()


def test_a_long_record_is_refused_though_quoted_cells_run_over_lines_and_are_ignored(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,NOTE,b\n1,"x\ny",2\n3,z,4,5\n', encoding="utf-8")
    with pytest.raises(ReaderError, match="a record has more cells than the header line"):
        scan(path, ignore=["NOTE"])
    path.write_text('a,NOTE,b\n1,"x\ny",2\n3,"z,4",5\n', encoding="utf-8")
    assert scan(path, ignore=["NOTE"]).collect().rows() == [("1", "2"), ("3", "5")]


def test_quoted_commas_and_line_breaks_do_not_make_a_line_short(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n"x, ""y"", z",1\n5" pipe,6" pipe\n', encoding="utf-8")
    reject_short_lines(path, 2)
    path.write_text('a,b\n"x\ny",1\n', encoding="utf-8")
    reject_short_lines(path, 2)


def test_paths_that_lead_to_no_table_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="no such file"):
        scan(tmp_path / "nothing.csv")
    with pytest.raises(ReaderError, match=r"no \.parquet file"):
        scan(tmp_path)
    (tmp_path / "t.xlsx").write_bytes(b"x")
    with pytest.raises(ReaderError, match="xlsx"):
        scan(tmp_path / "t.xlsx")


def test_parts_of_a_directory_must_agree(requests: pl.DataFrame, tmp_path: Path) -> None:
    write_parquet(requests, tmp_path / "a.parquet")
    write_parquet(requests.with_columns(note=pl.lit(PLANTED)), tmp_path / "b.parquet")
    with pytest.raises(
        ReaderError, match=r"b\.parquet: its columns .* a\.parquet: note\."
    ) as caught:
        read(tmp_path)
    assert PLANTED not in str(caught.value)
    write_parquet(requests.with_columns(channel=pl.lit(1)), tmp_path / "b.parquet")
    with pytest.raises(ReaderError, match=r"b\.parquet: its columns .* a\.parquet: channel\."):
        read(tmp_path)


def test_a_directory_of_parts_holds_nothing_that_would_not_be_read(
    requests: pl.DataFrame, tmp_path: Path
) -> None:
    write_parquet(requests, tmp_path / "a.parquet")
    for name in ("_SUCCESS", ".a.parquet.crc"):
        (tmp_path / name).touch()
    assert read(tmp_path).counts.raw == ROWS
    for name in ("b.csv", "c.csv", "README"):
        (tmp_path / name).touch()
    (tmp_path / "day=1.parquet").mkdir()
    with pytest.raises(
        ReaderError, match=r"4 other .*: \.csv \(2\), folders \(1\), no suffix \(1\)"
    ):
        scan(tmp_path)


def test_a_file_that_may_not_be_read_says_so(
    requests: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(requests, tmp_path / "t.parquet")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pl.LazyFrame, "collect_schema", refuse)
    with pytest.raises(ReaderError, match="permission denied"):
        scan(path)
    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(ReaderError, match="permission denied"):
        scan(path)


@pytest.mark.parametrize("method", ["collect_schema", "collect"])
def test_a_panic_of_polars_is_an_error_of_the_file(
    requests: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    path = write_parquet(requests, tmp_path / "t.parquet")

    def panic(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException(PLANTED)

    monkeypatch.setattr(pl.LazyFrame, method, panic)
    with pytest.raises(ReaderError, match="PanicException") as caught:
        read(path)
    assert PLANTED not in str(caught.value)
