"""An OMOP CDM extract becomes clinical outcomes; what is wrong with it is refused or counted."""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.events import EVENTS, private_folder
from data_contracts.readers.findings import Findings, ReaderError
from data_contracts.readers.omop.reading import OmopEvents, omop_outcomes, read_omop
from data_contracts.schemas import ClinicalOutcome

TOKENS = Tokens(b"k" * 32)
PLANTED = "Zaphod9Secret"  # planted in the data; no message may hold it

# Ann: in hospital through the emergency room 1-5 January 2024, back 20-22 January, in the emergency
# room on 1 June. Bob: 95 years old, dies in hospital. Cy: chemotherapy, then nothing to the end.
EXTRACT: dict[str, list[dict[str, Any]]] = {
    "person": [
        dict(
            zip(
                (
                    *("person_id", "year_of_birth", "month_of_birth", "day_of_birth"),
                    *("gender_concept_id", "race_concept_id", "ethnicity_concept_id"),
                    *("location_id", "person_source_value", "gender_source_value"),
                ),
                row,
                strict=True,
            )
        )
        for row in (
            (1, 1970, 6, 15, 8532, 8527, 38003564, 7, "MRN-0001", PLANTED),
            (2, 1928, None, None, 8507, 8516, 38003563, 8, "MRN-0002", PLANTED),
            (3, 2000, 2, 31, 8551, 38003579, 0, 9, "MRN-0003", PLANTED),
        )
    ],
    "visit_occurrence": [
        dict(
            zip(
                (
                    *("visit_occurrence_id", "person_id", "visit_concept_id", "visit_start_date"),
                    *("visit_end_date", "discharged_to_concept_id", "visit_source_value"),
                ),
                row,
                strict=True,
            )
        )
        for row in (
            (11, 1, 262, "2024-01-01", "2024-01-05", 0, PLANTED),
            (12, 1, 9201, "2024-01-20", "2024-01-22", 0, PLANTED),
            (13, 1, 9203, "2024-06-01", "2024-06-01", 0, PLANTED),
            (21, 2, 9201, "2024-02-01", "2024-02-10", 4216643, PLANTED),
            (31, 3, 9201, "2024-03-01", "2024-03-02", 0, PLANTED),
            (32, 3, 9201, "2024-03-10", "2024-03-11", 0, PLANTED),
        )
    ],
    "measurement": [
        dict(
            zip(
                (
                    *("person_id", "measurement_concept_id", "measurement_date", "value_as_number"),
                    *("unit_concept_id", "unit_source_value", "measurement_source_value"),
                    "operator_concept_id",
                ),
                row,
                strict=True,
            )
        )
        for row in (
            (1, 3004410, "2023-12-01", 8.0, 8554, "%", "x", None),
            (1, 3004410, "2024-01-05", 7.5, 0, "%", "x", 4172703),
            (1, 0, "2024-01-04", 55.0, 9117, None, "33914-3", None),
            (1, 3004249, "2024-01-10", 120.0, 8876, None, None, None),
            (1, 3004249, "2024-01-11", 250.0, 8876, None, None, 4172704),  # more than 250
            (1, 3004249, "2024-01-11", None, 8876, None, None, None),
            (1, 3004249, "2024-01-11", 16.0, None, "kPa", None, None),
            (1, 3025315, "2024-01-11", 70.0, 9529, "kg", PLANTED, None),  # no value of the contract
        )
    ],
    "condition_occurrence": [
        {"visit_occurrence_id": 32, "condition_source_value": "Z51.11"},
        {"visit_occurrence_id": 12, "condition_source_value": "I50.9"},
    ],
    "death": [{"person_id": 2, "death_date": "2024-02-10"}],
    "observation_period": [
        {
            "person_id": person,
            "observation_period_start_date": "2020-01-01",
            "observation_period_end_date": end,
        }
        for person, end in ((1, "2024-12-31"), (2, "2024-02-10"), (3, "2024-06-30"))
    ],
    "location": [
        {"location_id": 7, "zip": "33111-1234"},
        {"location_id": 8, "zip": "03601"},
        {"location_id": 9, "zip": "2139"},
    ],
    "cost": [
        {
            "cost_id": number,
            "cost_event_id": event,
            "cost_domain_id": "Visit",
            "currency_concept_id": 44818668,
            "total_paid": paid,
            "amount_allowed": allowed,
        }
        for number, event, paid, allowed in (
            (1, 11, 900.0, 1000.0),
            (2, 12, 500.5, None),
            (3, 31, None, None),
        )
    ],
    "cdm_source": [{"cdm_source_name": "x", "cdm_version": "v5.4"}],
    "note": [{"person_id": 1, "note_text": PLANTED}],
}
DATES = [name for table in EXTRACT.values() for name in table[0] if "date" in name]


def write(folder: Path, tables: dict[str, list[dict[str, Any]]], kind: str = "csv") -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        frame = pl.DataFrame(rows, infer_schema_length=None)
        if kind == "csv":
            frame.write_csv(folder / f"{name}.csv")
        else:
            typed = [pl.col(day).str.to_date() for day in DATES if day in frame.columns]
            frame = frame.with_columns(typed).rename(str.upper)
            frame.write_parquet(folder / f"{name.upper()}.parquet")
    return folder


def changed(table: str, row: int, **cells: Any) -> dict[str, list[dict[str, Any]]]:
    """The extract with other cells in one row (counted from 0)."""
    rows = [dict(one) for one in EXTRACT[table]]
    rows[row].update(cells)
    return EXTRACT | {table: rows}


def without(*tables: str) -> dict[str, list[dict[str, Any]]]:
    return {name: rows for name, rows in EXTRACT.items() if name not in tables}


def read(folder: Path, findings: Findings | None = None) -> OmopEvents:
    return read_omop(folder, TOKENS, "site-1", findings or Findings())


def outcomes(folder: Path, findings: Findings | None = None, **how: int) -> pl.DataFrame:
    with private_folder(folder.parent) as private:
        rows = omop_outcomes(folder, TOKENS, "site-1", findings or Findings(), private, **how)
        return pl.concat(rows).sort("place").collect(engine="streaming")


def refusal(folder: Path) -> str:
    with pytest.raises(ReaderError) as caught:
        read(folder)
    assert PLANTED not in str(caught.value)
    return str(caught.value)


# --- what is read ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_small_extract_becomes_the_outcomes_worked_out_by_hand(tmp_path: Path, kind: str) -> None:
    findings = Findings()
    rows = outcomes(write(tmp_path / "cdm", EXTRACT, kind), findings)
    ClinicalOutcome.validate(rows.drop("file", "place"), cast=True)
    file = "visit_occurrence.csv" if kind == "csv" else "VISIT_OCCURRENCE.parquet"
    assert rows["file"].unique().to_list() == [file]
    # The emergency visit, row 3, starts no follow-up.
    assert rows["place"].to_list() == [f"visit_occurrence row {n}" for n in (1, 2, 4, 5, 6)]
    told = {
        "age_band": ["50-59", "50-59", "90+", "20-29", "20-29"],
        "sex": ["female", "female", "male", "unknown", "unknown"],
        "race": ["white", "white", "black", "unknown", "unknown"],
        "ethnicity": ["not_hispanic", "not_hispanic", "hispanic", "unknown", "unknown"],
        "zip3": ["331", "331", "000", None, None],  # 036 is restricted; 2139 has lost its zero
        # 5 -> 20 January; 22 January -> none; died; 2 March -> planned; none.
        "readmission_30d": [True, False, None, False, False],
        "ed_visit_30d": [True, False, False, False, False],
        # 22 January -> 1 June are 131 days; planned chemotherapy is no emergency.
        "ed_visit_90d": [True, False, False, False, False],
        "death_90d": [False, False, True, False, False],
        # Row 1: the cost of the stay on day -4 is before the index day, that on day 15 within.
        "cost_90d": [500.5, 0.0, 0.0, 0.0, 0.0],
        "days_to_event": [15, 131, 0, 120, 111],
        "event_observed": [True, True, False, False, False],
        # To 31 December: 361 and 344 days; to the day of death; to 30 June.
        "followup_days_observed": [361, 344, 0, 120, 111],
    }
    for name, values in told.items():
        assert rows[name].to_list() == values, name
    assert rows["baseline_labs"][0].to_list() == [
        {"loinc": "33914-3", "value": 55.0, "ucum": "mL/min/{1.73_m2}", "day_offset": -1},
        {"loinc": "4548-4", "value": 7.5, "ucum": "%", "day_offset": 0},
    ]
    assert rows["followup_labs"][0].to_list() == [
        {"loinc": "8480-6", "value": 120.0, "ucum": "mm[Hg]", "day_offset": 5}
    ]
    assert findings.refused == []
    assert findings.notes == {
        "OMOP race_concept_id that the contract has no word for": 1,
        "OMOP location with a zip that is no US ZIP code of 3, 5 or 9 digits": 1,
        "OMOP measurement without a number": 1,
        "OMOP measurement that is a bound, not a value": 1,
        "OMOP measurement without a unit": 1,
        "OMOP cost without amount_allowed or total_paid in US dollars": 1,
    }


def test_the_outcomes_hold_no_identifier_and_no_date(tmp_path: Path) -> None:
    rows = outcomes(write(tmp_path / "cdm", EXTRACT))
    kinds = {type(dtype) for dtype in rows.schema.values()}
    assert not kinds & {pl.Date, pl.Datetime}
    text = rows.drop("place").write_ndjson()
    for secret in ("MRN", "0001", "2024", "2023", "1970", "1928", "33111", "036", PLANTED):
        assert secret not in text


def test_events_have_the_schemas_that_all_readers_give(tmp_path: Path) -> None:
    events = read(write(tmp_path / "cdm", EXTRACT))
    for kind in ("person", "visit", "lab"):
        frame = getattr(events, kind)
        assert frame.collect_schema() == EVENTS[kind]
        assert frame.collect().schema == EVENTS[kind]
    persons = events.person.sort("place").collect()
    # 31 February is no day, and Bob's is not told.
    assert persons["birth_date"].to_list() == [date(1970, 6, 15), None, None]
    assert persons["patient_token"][0] == TOKENS.patient("omop site-1", "MRN-0001")


def test_a_token_links_within_one_site_only(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    here = read_omop(folder, TOKENS, "site-1", Findings()).visit.collect()
    there = read_omop(folder, TOKENS, "site-2", Findings()).visit.collect()
    for name in ("patient_token", "visit_token"):
        assert not set(here[name].drop_nulls()) & set(there[name].drop_nulls())
    assert here["patient_token"].n_unique() == 3
    # No visit but a stay is told by its token: making one is slow.
    assert (here["visit_token"].is_null() == (here["kind"] != "inpatient")).all()
    assert here["visit_token"].drop_nulls().n_unique() == 5


@pytest.mark.parametrize("patients", [1, 2])
@pytest.mark.parametrize("missing", [(), ("observation_period", "cost"), ("death", "measurement")])
def test_parts_of_the_patients_make_the_rows_that_all_of_them_make(
    tmp_path: Path, patients: int, missing: tuple[str, ...]
) -> None:
    # Without observation periods, the last day of the whole extract ends everybody's follow-up.
    folder = write(tmp_path / "cdm", without(*missing))
    whole, parts = outcomes(folder), outcomes(folder, patients_per_part=patients)
    assert parts.equals(whole)
    assert whole.height == 5
    assert not list(tmp_path.glob(".*"))


def test_an_event_that_cannot_be_written_is_a_readers_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    with pytest.raises(ReaderError, match="events cannot be written") as caught:
        omop_outcomes(folder, TOKENS, "site-1", Findings(), tmp_path / "gone")
    assert PLANTED not in str(caught.value)


def test_without_an_identifier_of_the_site_person_id_tells_patients_apart(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", changed("person", 1, person_source_value=None))
    findings = Findings()
    tokens = read(folder, findings).person.collect()["patient_token"].to_list()
    assert set(tokens) == {TOKENS.patient("omop site-1", str(number)) for number in (1, 2, 3)}
    (note,) = (what for what in findings.notes if "person_id, which a new extract" in what)
    assert findings.notes[note] == 3


@pytest.mark.parametrize("day", ["20240105", "2024-01-05 00:00:00", "2024-01-05T13:45:00"])
def test_dates_are_iso_or_eight_digits(tmp_path: Path, day: str) -> None:
    folder = write(tmp_path / "cdm", changed("visit_occurrence", 0, visit_end_date=day))
    assert read(folder).visit.sort("place").collect()["end_on"][0] == date(2024, 1, 5)


@pytest.mark.parametrize(
    "dtype", [pl.Datetime("us"), pl.Datetime("ns", "UTC"), pl.Int32, pl.String]
)
def test_dates_of_parquet_may_be_times_or_numbers(tmp_path: Path, dtype: pl.DataType) -> None:
    folder = write(tmp_path / "cdm", EXTRACT, "parquet")
    file = folder / "VISIT_OCCURRENCE.parquet"
    day = pl.col("VISIT_START_DATE")
    as_typed = day.dt.strftime("%Y%m%d").cast(dtype) if dtype == pl.Int32 else day.cast(dtype)
    pl.read_parquet(file).with_columns(as_typed).write_parquet(file)
    assert read(folder).visit.sort("place").collect()["start_on"][0] == date(2024, 1, 1)


def test_codes_that_parquet_holds_as_numbers_are_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    (folder / "location.csv").unlink()
    location = {"location_id": [7, 8, 9], "zip": [33111, 3601, None]}
    pl.DataFrame(location).write_parquet(folder / "location.parquet")
    # 03601 has lost its zero, and with it its place.
    assert read(folder).person.sort("place").collect()["zip3"].to_list() == ["331", None, None]


def test_whole_numbers_and_gaps_as_pandas_writes_them_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    person = pl.DataFrame(EXTRACT["person"]).with_columns(
        pl.col("gender_concept_id").cast(pl.String) + ".0"
    )
    person.write_csv(folder / "person.csv")
    (folder / "location.csv").unlink()
    location = {"location_id": [7.0, 8.0], "zip": ["33111", None]}
    pl.DataFrame(location).write_parquet(folder / "location.parquet")
    (folder / "measurement.csv").unlink()
    measurement = pl.DataFrame(EXTRACT["measurement"]).with_columns(
        pl.col("value_as_number", "operator_concept_id").cast(pl.Float64).fill_null(float("nan"))
    )
    measurement.write_parquet(folder / "measurement.parquet")
    findings = Findings()
    events = read(folder, findings)
    assert events.person.sort("place").collect()["sex"].to_list() == ["female", "male", "unknown"]
    assert events.person.sort("place").collect()["zip3"].to_list() == ["331", None, None]
    assert events.lab.collect().height == 4
    assert findings.notes["OMOP measurement without a number"] == 1


def test_names_of_cdm_5_3_are_known(tmp_path: Path) -> None:
    older = [
        {
            ("discharge_to_concept_id" if k == "discharged_to_concept_id" else k): v
            for k, v in row.items()
        }
        for row in EXTRACT["visit_occurrence"]
    ]
    source = [{"cdm_version": "CDM v5.3.1"}]
    folder = write(tmp_path / "cdm", EXTRACT | {"visit_occurrence": older, "cdm_source": source})
    assert read(folder).visit.collect()["died"].sum() == 1


def test_the_extract_s_own_concepts_name_what_is_not_known_here(tmp_path: Path) -> None:
    concepts = [
        {"concept_id": 3049187, "concept_code": "33914-3", "vocabulary_id": "LOINC"},
        {
            "concept_id": 9,
            "concept_code": "29463-7",
            "vocabulary_id": "LOINC",
        },  # not the contract's
        {"concept_id": 8, "concept_code": "mL/min", "vocabulary_id": "UCUM"},
    ]
    change = {"measurement_concept_id": 3049187, "unit_concept_id": 8}
    folder = write(tmp_path / "cdm", changed("measurement", 0, **change) | {"concept": concepts})
    lab = read(folder).lab.sort("place").collect()
    assert lab.select("loinc", "ucum").row(0) == ("33914-3", "mL/min")


def test_parquet_in_parts_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    (folder / "visit_occurrence.csv").unlink()
    (folder / "visit_occurrence").mkdir()
    frame = pl.DataFrame(EXTRACT["visit_occurrence"])
    frame.head(2).write_parquet(folder / "visit_occurrence" / "a.parquet")
    frame.slice(2).write_parquet(folder / "visit_occurrence" / "b.parquet")
    assert outcomes(folder)["place"].to_list() == [
        f"visit_occurrence row {number}" for number in (1, 2, 4, 5, 6)
    ]


# --- what is unknown ---------------------------------------------------------------------------


@pytest.mark.parametrize("are_empty", [False, True])
def test_without_optional_tables_what_they_tell_is_unknown_and_said(
    tmp_path: Path, are_empty: bool
) -> None:
    required = ("person", "visit_occurrence")
    folder = write(tmp_path / "cdm", {name: EXTRACT[name] for name in required})
    if are_empty:
        for name, table in EXTRACT.items():
            if name not in required:
                (folder / f"{name}.csv").write_text(",".join(table[0]) + "\n")
    findings = Findings()
    rows = outcomes(folder, findings)
    for name in ("zip3", "baseline_labs", "followup_labs", "cost_90d"):
        assert rows[name].null_count() == 5, name
    # Deaths are known from discharges alone, so that nobody is known to live.
    assert rows["death_90d"].to_list() == [None, None, True, None, None]
    # Row 5 -> 6 is no longer known to be planned; the last day of the extract is 1 June.
    assert rows["readmission_30d"].to_list() == [True, False, None, True, False]
    assert rows["followup_days_observed"].to_list() == [148, 131, 112, 91, 82]
    missing = [what.split(",")[0] for what in findings.notes if "without table" in what]
    assert missing == [
        f"OMOP extract without table {name}"
        for name in (
            *("death", "measurement", "condition_occurrence", "observation_period"),
            *("cost", "location"),
        )
    ]
    assert findings.notes["OMOP extract that does not tell its CDM version, read as 5.4"] == 1


def test_a_stay_through_the_emergency_room_is_never_planned(tmp_path: Path) -> None:
    tables = changed("condition_occurrence", 0, visit_occurrence_id=11)
    planned = read(write(tmp_path / "cdm", tables)).visit.sort("place").collect()["planned"]
    assert planned.to_list() == [False, False, None, False, False, False]


def test_costs_of_other_events_than_visits_leave_all_costs_unknown(tmp_path: Path) -> None:
    findings = Findings()
    folder = write(tmp_path / "cdm", changed("cost", 0, cost_domain_id="Drug"))
    assert outcomes(folder, findings)["cost_90d"].null_count() == 5
    assert (
        findings.notes["OMOP cost of another event than a visit, so that cost_90d is unknown"] == 1
    )


@pytest.mark.parametrize(
    ("paid", "allowed", "sum_"),
    [(500.5, 600.0, 600.0), (500.5, 0.0, 0.0), (0.0, None, 0.0), (-1.0, None, None)],
)
def test_the_allowed_amount_counts_before_what_was_paid(
    tmp_path: Path, paid: float, allowed: float | None, sum_: float | None
) -> None:
    folder = write(tmp_path / "cdm", changed("cost", 1, total_paid=paid, amount_allowed=allowed))
    assert outcomes(folder)["cost_90d"][0] == sum_


def test_a_cost_in_another_currency_leaves_its_sum_unknown(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", changed("cost", 1, currency_concept_id=44818568))  # euro
    assert outcomes(folder)["cost_90d"].to_list() == [None, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("table", "row", "cells", "note"),
    [
        ("visit_occurrence", 0, {"person_id": 99}, "visit_occurrence row of a person who is not"),
        ("measurement", 0, {"person_id": 99}, "measurement row of a person who is not"),
        ("death", 0, {"person_id": 99}, "death row of a person who is not"),
        ("observation_period", 0, {"person_id": 99}, "observation_period row of a person who"),
        ("cost", 0, {"cost_event_id": 99}, "cost of a visit that is not in table"),
        ("person", 0, {"year_of_birth": 2025}, "visit that begins before its patient is born"),
        ("death", 0, {"death_date": "2024-01-31"}, "visit that begins after its patient's death"),
        ("visit_occurrence", 0, {"visit_concept_id": 4}, "visit of another kind"),
        ("visit_occurrence", 0, {"visit_concept_id": None}, "visit of another kind"),
        ("visit_occurrence", 0, {"visit_end_date": None}, "visit without an end"),
    ],
)
def test_what_is_doubtful_or_belongs_to_nobody_is_counted(
    tmp_path: Path, table: str, row: int, cells: dict[str, Any], note: str
) -> None:
    findings = Findings()
    rows = outcomes(write(tmp_path / "cdm", changed(table, row, **cells)), findings)
    ClinicalOutcome.validate(rows.drop("file", "place"), cast=True)
    found = {what: count for what, count in findings.notes.items() if note in what}
    assert list(found.values()) == [3 if "born" in note else 1]


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["person", "visit_occurrence"])
def test_a_required_table_that_is_missing_is_named(tmp_path: Path, table: str) -> None:
    assert f"no {table} (as .csv or .parquet)" in refusal(write(tmp_path / "cdm", without(table)))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no such directory" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"person_id\n", b"\xff\xfe\x00"])
def test_an_empty_or_unreadable_table_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    (folder / "person.csv").write_bytes(content)
    assert "person.csv" in refusal(folder)


def test_a_table_that_breaks_off_into_another_encoding_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    with (folder / "location.csv").open("ab") as file:
        file.write(f'10,"{PLANTED}'.encode() + b'\xff\xfe"\n')
    assert "location.csv, line 5: byte 18 there is not UTF-8" in refusal(folder)


def test_a_table_with_a_header_alone_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    header = (folder / "person.csv").read_text().splitlines()[0]
    (folder / "person.csv").write_text(header + "\n")
    assert "the table has no rows" in refusal(folder)


def test_a_table_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    pl.DataFrame(EXTRACT["person"]).write_parquet(folder / "PERSON.parquet")
    assert "person stands twice, as PERSON.parquet and person.csv" in refusal(folder)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    rows = [{"person_id": row["person_id"]} for row in EXTRACT["person"]]
    message = refusal(write(tmp_path / "cdm", EXTRACT | {"person": rows}))
    assert "no column year_of_birth, gender_concept_id, race_concept_id" in message


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    text = (folder / "death.csv").read_text()
    (folder / "death.csv").write_text(text.replace("death_date", "PERSON_ID"))
    assert "column person_id: it stands twice" in refusal(folder)


def test_a_line_cut_short_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    with (folder / "visit_occurrence.csv").open("a") as file:
        file.write("41,1\n")
    assert "fewer cells than the header" in refusal(folder)


@pytest.mark.parametrize(
    ("table", "cells", "message"),
    [
        ("person", {"person_id": 2}, "person_id: 1 of its values stand"),
        ("visit_occurrence", {"visit_occurrence_id": 12}, "it is a key. Were two extracts joined?"),
        ("location", {"location_id": 8}, "it is a key"),
        ("cost", {"cost_id": 2}, "it is a key"),
        ("person", {"person_source_value": "mrn 0002"}, "two persons would be one"),
        ("cdm_source", {"cdm_version": "6.0"}, "another version of the CDM than 5.3 and 5.4"),
    ],
)
def test_repeated_keys_and_other_versions_are_refused(
    tmp_path: Path, table: str, cells: dict[str, Any], message: str
) -> None:
    assert message in refusal(write(tmp_path / "cdm", changed(table, 0, **cells)))


BROKEN = [
    ("visit_occurrence", {"visit_start_date": PLANTED}, "visit_start_date: it is not a date"),
    ("visit_occurrence", {"visit_start_date": "01/02/2024"}, "visit_start_date: it is not a date"),
    ("visit_occurrence", {"visit_start_date": "2024-02-30"}, "visit_start_date: it is not a date"),
    ("visit_occurrence", {"visit_start_date": None}, "visit_start_date: the cell is empty"),
    ("visit_occurrence", {"visit_end_date": "2023-12-31"}, "it lies before visit_start_date"),
    ("visit_occurrence", {"person_id": PLANTED}, "person_id: it is not a whole number"),
    ("visit_occurrence", {"person_id": 1.5}, "person_id: it is not a whole number"),
    ("measurement", {"value_as_number": PLANTED}, "value_as_number: it is not a number"),
    ("death", {"death_date": None}, "death_date: the cell is empty"),
]


@pytest.mark.parametrize(("table", "cells", "message"), BROKEN)
def test_a_bad_cell_is_refused_with_file_column_and_row(
    tmp_path: Path, table: str, cells: dict[str, Any], message: str
) -> None:
    rows = [{k: None if v is None else str(v) for k, v in row.items()} for row in EXTRACT[table]]
    rows[0].update({name: None if cell is None else str(cell) for name, cell in cells.items()})
    folder = write(tmp_path / "cdm", EXTRACT | {table: rows})
    told = refusal(folder)
    assert f"{table}.csv, column" in told
    assert message in told
    assert "(1 row, the first is row 1)" in told
    findings = Findings(on_error="quarantine")
    ClinicalOutcome.validate(outcomes(folder, findings).drop("file", "place"), cast=True)
    assert findings.refused == [told]


def test_a_row_set_aside_is_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", changed("visit_occurrence", 1, visit_end_date="2024-01-19"))
    rows = outcomes(folder, Findings(on_error="quarantine"))
    assert rows["place"].to_list() == [f"visit_occurrence row {n}" for n in (1, 4, 5, 6)]
    assert rows["readmission_30d"][0] is False


def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT, "parquet")
    frame = pl.read_parquet(folder / "VISIT_OCCURRENCE.parquet")
    frame.with_columns(VISIT_START_DATE=True).write_parquet(folder / "VISIT_OCCURRENCE.parquet")
    message = refusal(folder)
    assert "column visit_start_date: it is of type Boolean, but has to hold a date" in message


def test_free_text_is_never_opened(tmp_path: Path) -> None:
    folder = write(tmp_path / "cdm", EXTRACT)
    (folder / "note.csv").write_bytes(b"\xff\xff")
    (folder / "readme.txt").write_text("x")
    assert outcomes(folder).height == 5
