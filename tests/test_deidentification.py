"""The de-identification gate: identifiers are found by name and by value, and never quoted."""

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts import vocabulary as v
from data_contracts.catalog import CONTRACTS
from data_contracts.deidentification.ages import age_band
from data_contracts.deidentification.check_digits import luhn, npi
from data_contracts.deidentification.columns import UnknownColumnError, check_columns
from data_contracts.deidentification.geography import mask_zip3, restricted_zip3
from data_contracts.deidentification.given_names import GIVEN_NAMES
from data_contracts.deidentification.identifiers import CLASSES, class_of_name
from data_contracts.deidentification.policy import Policy
from data_contracts.deidentification.shapes import SHAPES, Shape
from data_contracts.deidentification.tokens import Tokens
from data_contracts.deidentification.values import IdentifierError, check_values
from data_contracts.fields import terms_of
from data_contracts.manifest import SiteManifest
from data_contracts.network import site_folders
from data_contracts.public.registry import PUBLIC

REAL = Path(__file__).parents[2] / "shared" / "data"
SAFE_HARBOR = Policy()
LIMITED = Policy("limited_data_set", dua="DUA-7", expires=date(2100, 1, 1))

NAMES = {
    "A": ("first_name", "LastName", "patient_name", "surname", "name", "member name"),
    "B": ("addr1", "street_address", "city", "zip", "zip5", "ZipCode", "county", "latitude"),
    "C": ("dob", "BirthDate", "date_of_birth", "admit_date", "service_dt", "dod", "age"),
    "D": ("phone", "home_phone", "PhoneNumber", "telephone", "cell_phone_no"),
    "E": ("fax", "fax_number", "FaxNo"),
    "F": ("email", "e_mail", "EmailAddress"),
    "G": ("ssn", "PatientSSN", "social_security_number", "soc_sec_no"),
    "H": ("mrn", "med_rec_no", "medical_record_number", "patient_id", "PATIENT_ID"),
    "I": ("member_id", "subscriber", "SubscriberId", "mbi", "hicn", "medicaid_id"),
    "J": ("acct", "account_number", "AcctNo", "iban", "patient_control_number"),
    "K": ("license", "licence_no", "dea", "npi", "rendering_npi", "certificate_number"),
    "L": ("vin", "license_plate", "plate_no", "vehicle_id"),
    "M": ("device_id", "udi", "serial_number", "DeviceIdentifier", "imei"),
    "N": ("url", "web_site", "homepage"),
    "O": ("ip", "ip_address", "client_ip", "IPv4"),
    "P": ("biometric", "fingerprint", "voice_print", "retina"),
    "Q": ("photo", "image", "patient_photo", "selfie"),
    "R": ("uuid", "guid", "row_uuid", "user_id", "encounter_id"),
}

# Numbers with check digits, worked out by hand:
# NPI 1234567893: the CMS's own example. DEA AB1234563: 1+3+5 + 2(2+4+6) = 33, so 3.
# VIN 1M8GDM9AXKP042788: the example of 49 CFR 565, check digit X. Card 4111...: Luhn sum 30.
# IBAN GB82 WEST...: the example of ISO 13616.
VALUES = {
    "A": ("DOE, JANE", "Doe, Zaphod Q.", "Jane Q Doe", "jane doe", "DOE^JANE^Q", "Mrs. Trillian",
          "patient: Trillian"),
    "B": ("12 Main St", "4500 N. Elm Creek Blvd.", "PO Box 77", "33101", "33101-1234", "Apt 4B",
          "Miami, FL 33101", "25.761680, -80.191790", "zip 33101"),
    "C": ("2024-03-15", "2024/3/5", "03/15/2024", "3-15-2024", "15.03.2024", "3/15/24", "20240315",
          "202403151230", "20240315123000.123-0500", "2024-03-15T12:30:00Z", "03152024",
          "15 March 2024", "15-Mar-24", "March 15, 2024", "Mar 2024", "2024-03", "DOB 3/15",
          "age 93", "aged: 104", "93 yo", "91-year-old", "20240101-20240131"),
    "D": ("305-555-0123", "(305) 555-0123", "305.555.0123", "+1 305 555 0123", "3055550123",
          "13055550123", "555-0123", "tel: 555 01 23", "+49 30 901820"),
    "E": ("fax 305-555-0123", "Fax: (305) 555-0123", "FAX# 5550123"),
    "F": ("jane.doe@example.org", "j+d@mail.example.co.uk"),
    "G": ("123-45-6789", "123 45 6789", "123456789", "SSN 6789", "ssn:xxx-xx-6789", "912-34-5678"),
    "H": ("MRN 12345", "mrn#: A123456", "med rec no 99812", "12345^^^HOSP^MR"),
    "I": ("1EG4-TE5-MK73", "1eg4te5mk73", "member id 88123", "Medicaid #: AB12345", "XYZ123456789",
          "123456789A"),
    "J": ("4111 1111 1111 1111", "4111111111111111", "378282246310005", "acct 0012345",
          "GB82 WEST 1234 5698 7654 32", "GB82WEST12345698765432"),
    "K": ("1234567893", "NPI: 1234567890", "AB1234563", "license no. 55123", "A1234567"),
    "L": ("1M8GDM9AXKP042788", "plate ABC-1234", "VIN: 8812"),
    "M": ("(01)00844588003288(17)141120", "+A99912345/99", "S/N 0012345", "00:1B:44:11:3A:B7",
          "=/A9999XYZ100"),
    "N": ("https://example.org/p/7", "www.example.org", "ftp://host/file"),
    "O": ("192.168.10.254", "2001:db8::8a2e:370:7334", "fe80:0:0:0:202:b3ff:fe1e:8329"),
    "P": ("Rk1SACAyMAAAAADk", "RklSADAxMAA", "fingerprint 7", "/6D/pAA6CQcA"),
    "Q": ("data:image/png;base64,iVBORw0KGgo", "/9j/4AAQSkZJRg", "iVBORw0KGgoAAAANSUhEUg",
          "scan_7.JPG", "face.dcm", "QUJD" * 20),
    "R": ("123e4567-e89b-42d3-a456-426614174000", "123e4567e89b42d3a456426614174000",
          "998877665544"),
}  # fmt: skip

Tables = dict[str, pl.DataFrame]


def with_cell(frame: pl.DataFrame, column: str, cell: object, row: int = 3) -> pl.DataFrame:
    cells = frame[column].to_list()
    cells[row] = cell
    return frame.with_columns(pl.Series(column, cells, dtype=frame.schema[column]))


def check(table: str, frame: pl.DataFrame, policy: Policy = SAFE_HARBOR) -> None:
    check_values(frame, CONTRACTS[table].schema, source="site a", policy=policy)


def refusal(table: str, frame: pl.DataFrame, policy: Policy = SAFE_HARBOR) -> str:
    with pytest.raises(IdentifierError) as caught:
        check(table, frame, policy)
    return str(caught.value)


# --- names of columns ----------------------------------------------------------------------------


def test_there_are_18_classes() -> None:
    assert "".join(CLASSES) == "".join(NAMES) == "".join(VALUES) == "ABCDEFGHIJKLMNOPQR"


@pytest.mark.parametrize(
    ("letter", "name"), [(letter, name) for letter, names in NAMES.items() for name in names]
)
def test_a_column_named_like_an_identifier_is_told_its_class(letter: str, name: str) -> None:
    schema = CONTRACTS["pa_request"].schema
    with pytest.raises(UnknownColumnError) as caught:
        check_columns([*schema.column_names(), name], schema, source="site a")
    told = f"{name!r} (holds class {letter}, {CLASSES[letter].title}: remove it at the source)"
    assert told in str(caught.value)
    assert "did you mean" not in str(caught.value)
    assert "token" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["drug_name", "age_group", "patient_tokn", "update", "device_type", "chanel", "pages"]
)
def test_other_names_are_not_taken_for_identifiers(name: str) -> None:
    assert class_of_name(name) is None


def told(names: list[str], known: list[str]) -> str:
    """The refusal of a table with these columns of the contract, and these others behind them."""
    with pytest.raises(UnknownColumnError) as caught:
        check_columns([*known, *names], CONTRACTS["pa_request"].schema, source="site a")
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *(value for values in VALUES.values() for value in values if value != "fingerprint 7"),
        *("Jane", "MARY ANN", "0f3a9c1e77b2d455", "99213", "555", "x" * 65, "a;b", "caf\u00e9"),
    ],
)
def test_a_name_that_looks_like_a_value_is_told_by_its_place(name: str) -> None:
    message = told([name], ["channel", "quantity"])
    assert "column 3 (whose name may be a value)" in message
    assert repr(name) not in message


def test_a_name_that_no_column_bears_hides_its_neighbours_too() -> None:
    message = told(["Kowalski", "4711"], ["channel"])
    assert "Kowalski" not in message
    assert "4711" not in message


def test_beside_a_name_that_looks_like_a_value_no_unknown_name_is_shown() -> None:
    message = told(["SMITH", "JANE", "A1", "ssn"], ["channel"])
    places = ", ".join(f"column {place} (whose name may be a value)" for place in (2, 3, 4))
    assert places in message
    assert "'ssn' (holds class G, Social Security numbers" in message  # no value says what it is
    assert not any(name in message for name in ("SMITH", "JANE", "A1"))


@pytest.mark.parametrize(
    "name",
    ["", "Paid ($)", "Service Dt (ICD-10-CM)", "# of visits", "age_90_plus", "dx1", "_row", "N/A"],
)
def test_a_name_that_looks_like_one_is_shown(name: str) -> None:
    assert f"unknown column {name!r}" in told([name], ["channel"])


# --- planted values ------------------------------------------------------------------------------


def labs(text: str) -> list[dict[str, object]]:
    return [{"loinc": "4548-4", "value": 7.5, "ucum": text, "day_offset": -3}]


PLACES: dict[str, tuple[str, str, bool, Callable[[str], object]]] = {
    # place -> table, column, whether as a CSV file holds it, cell
    "a code": ("pa_request", "procedure_code", True, str),
    "a number": ("pa_request", "quantity", True, str),
    "a flag": ("pa_request", "eligibility_verified", True, str),
    "an enumeration": ("pa_request", "channel", True, str),
    "a token": ("pa_request", "patient_token", True, str),
    "a list": ("pa_request", "criteria_required", True, "imaging.red_flag|{}".format),
    "JSON": (
        "clinical_outcome",
        "baseline_labs",
        True,
        lambda text: json.dumps(labs(text), ensure_ascii=False),
    ),
    "broken JSON": ("clinical_outcome", "baseline_labs", True, str),
    "a typed code": ("pa_request", "procedure_code", False, str),
    "a typed list": ("pa_request", "criteria_required", False, lambda text: ["x.y", text]),
    "a typed structure": ("clinical_outcome", "baseline_labs", False, labs),
}


LOOKS_LIKE_A_CODE = {
    ("a code", "33101"),  # CPT
    ("a typed code", "33101"),
    ("a number", "33101"),
    ("a token", "4111111111111111"),  # hexadecimal, too
    ("a token", "123e4567e89b42d3a456426614174000"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("letter", VALUES)
def test_planted_identifiers_are_found_wherever_they_stand_and_never_quoted(
    frames: Tables, texts: Tables, letter: str, place: str
) -> None:
    table, column, as_text, cell = PLACES[place]
    values = [value for value in VALUES[letter] if (place, value) not in LOOKS_LIKE_A_CODE]
    frame = (texts if as_text else frames)[table]
    for row, value in enumerate(values):
        frame = with_cell(frame, column, cell(value), row)
    message = refusal(table, frame)
    rows = f"{len(values)} row{'s' if len(values) > 1 else ''}"
    assert re.search(rf"{column}\S* holds class {letter}, [^;]*\({rows}\)", message)
    assert not any(value in message for value in values)


@pytest.mark.parametrize(
    ("column", "value", "letter"),
    [
        ("provider_taxonomy", "1234567893", "K"),  # fits the pattern; no taxonomy is all digits
        ("provider_taxonomy", "3055550123", "D"),
        ("rxcui", "20240315", "C"),  # RxNorm has numbered seven digits so far
        ("payer_id", "p-123-45-6789", "G"),
        ("payer_id", "payer-305-555-0123", "D"),
        ("payer_id", "npi1234567893", "K"),
        ("policy_id", "mrn12345", "H"),
        ("provider_group_id", "clinic-1234567", "R"),
    ],
)
def test_a_value_that_fits_its_pattern_may_still_be_an_identifier(
    texts: Tables, column: str, value: str, letter: str
) -> None:
    message = refusal("pa_request", with_cell(texts["pa_request"], column, value))
    assert f"{column} holds class {letter}, " in message


@pytest.mark.parametrize(
    "name", ["Aaliyah", "jayden", "MATEO", "Priya", "Nevaeh", "Dolores", "Santiago"]
)
def test_a_person_is_told_by_a_given_name(texts: Tables, name: str) -> None:
    cells = [f"{name} Beeblebrox", f"{name}_q_beeblebrox", f"Beeblebrox, {name}"]
    frame = texts["pa_request"]
    for row, cell in enumerate(cells):
        frame = with_cell(frame, "procedure_code", cell, row)
    assert "procedure_code holds class A, names (3 rows)" in refusal("pa_request", frame)


@pytest.mark.parametrize(
    "label",
    [
        *(
            "Grace period",
            "Mark up",
            "Rose bengal",
            "Iris prolapse",
            "Summer camp",
            "Virginia Medicaid",
        ),
        *("Addison Disease", "Barrett Esophagus", "Wilson Disease", "Turner Syndrome", "ANA titer"),
        *(
            "TIA history",
            "Morton Neuroma",
            "Hunter Syndrome",
            "chad_score",
            "dash_score",
            "Faith based",
        ),
    ],
)
def test_a_word_that_is_also_a_given_name_tells_no_person(label: str) -> None:
    check("imr_determination", pl.DataFrame({"diagnosis_sub_category": [label]}))
    check("pa_request", pl.DataFrame({"criteria_required": [[label.lower().replace(" ", "_")]]}))


def test_given_names_are_many_and_none_is_a_word_of_the_contracts() -> None:
    assert len(GIVEN_NAMES) > 6000
    assert all(re.fullmatch("[a-z]{3,}", name) for name in GIVEN_NAMES)
    said = [*v.CODE_SYSTEMS, *v.QUANTITY_UNITS.values(), *v.SERVICE_TYPES.values()]
    for contract in CONTRACTS.values():
        for name, column in contract.schema.columns().items():
            said += [name, *(column.categories if isinstance(column, dy.Enum) else ())]
    words = {word for text in said for word in re.findall("[a-z]+", text.lower())}
    assert words & GIVEN_NAMES == set()


def test_every_shape_is_that_of_a_planted_value() -> None:
    def is_planted(shape: Shape) -> bool:
        return shape.found_in(pl.Series(VALUES[shape.letter])).any()

    assert [shape for shape in SHAPES if not is_planted(shape)] == []


def test_all_findings_are_told_at_once_with_their_rows(texts: Tables) -> None:
    frame = texts["pa_request"].with_columns(payer_id=pl.lit("jane@example.org"))
    frame = with_cell(frame, "criteria_required", "123-45-6789|305-555-0123", 3)
    frame = with_cell(frame, "criteria_required", "x|987-65-4321|123-45-6789", 4)
    message = refusal("pa_request", frame)
    assert "site a: payer_id holds class F, e-mail addresses (25 rows); " in message
    assert "criteria_required holds class D, telephone numbers (1 row); " in message
    assert "criteria_required holds class G, Social Security numbers (2 rows). " in message


@pytest.mark.parametrize(
    "text",
    ["seen in clinic again today", "word " * 13 + "a" * 5, "a" * 40 + " " + "b" * 40],
)
def test_free_text_is_a_finding_of_its_own(frames: Tables, texts: Tables, text: str) -> None:
    for table in (texts, frames):
        message = refusal("pa_request", with_cell(table["pa_request"], "procedure_code", text))
        assert "procedure_code holds free text (1 row)" in message
        assert text.strip() not in message


# --- types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "number", "letter"),
    [
        ("request_day", 123456789, "G"),  # fits Int32, and is still nine digits
        ("request_day", 20240315, "C"),
        ("policy_version", 1234567893, "K"),
        ("quantity", 3055550123.0, "D"),
        ("quantity", 998877665544.0, "R"),
        ("procedure_code", 123456789, "G"),
        ("ndc", 1234567893, "K"),
        ("rxcui", 1234567893.0, "K"),
    ],
)
def test_a_number_may_be_an_identifier(column: str, number: float, letter: str) -> None:
    for numbers in (
        pl.Series([1, None, number], strict=False),
        pl.Series(["1", None, f"{number:.0f}"]),
    ):
        message = refusal("pa_request", pl.DataFrame({column: numbers}))
        assert f"{column} holds class {letter}, " in message
        assert str(int(number)) not in message


@pytest.mark.parametrize(
    ("written", "letter"),
    [
        ("123456789.5", "G"),
        ("-123456789.25", "G"),
        ("123456789e0", "G"),
        (" 123456789e0 ", "G"),
        ("1.23456789e8", "G"),
        ("123456.789E+3", "G"),
        ("001234567.5", "G"),  # an area number of a Social Security number may begin with zeros
        ("3055550123.75", "D"),
        ("998877665544.5", "R"),
    ],
)
def test_neither_fraction_nor_exponent_hides_a_long_number(
    texts: Tables, written: str, letter: str
) -> None:
    frames = [
        ("pa_request", "quantity", pl.DataFrame({"quantity": ["1", None, written]})),
        ("claim_payment", "submitted", pl.DataFrame({"submitted": ["2.5", written]})),
    ]
    if not written.startswith("0"):  # no number is written so in a typed column, or in JSON
        numbers = pl.DataFrame({"quantity": [1.0, None, float(written)]})
        lab = f'[{{"loinc": "4548-4", "value": {written}, "ucum": "%", "day_offset": 0}}]'
        cell = with_cell(texts["clinical_outcome"], "baseline_labs", lab)
        typed = [[{"loinc": "4548-4", "value": float(written), "ucum": "%"}]]
        frames += [
            ("pa_request", "quantity", numbers),
            ("clinical_outcome", "baseline_labs", cell),
            ("clinical_outcome", "baseline_labs", pl.DataFrame({"baseline_labs": typed})),
        ]
    for table, column, frame in frames:
        message = refusal(table, frame)
        assert re.search(rf"{column}\S* holds class {letter}, [^;]*\(1 row\)", message)
        assert "1234567" not in message


def test_no_declared_range_reaches_the_numbers_that_are_tested() -> None:
    for contract in CONTRACTS.values():
        for name, column in contract.schema.columns().items():
            low, high = terms_of(column).declared_range or (0, 0)
            assert max(-low, high) < 10_000_000, (contract.name, name)


@pytest.mark.parametrize(
    "days",
    [
        pl.Series([date(2024, 3, 15)] * 2 + [None] * 23),
        pl.Series([datetime(2024, 3, 15, 12)] * 2 + [None] * 23),
        pl.Series(["2024-03-15"] * 2 + [None] * 23),
    ],
)
def test_dates_fail_unless_the_data_are_a_limited_data_set(frames: Tables, days: pl.Series) -> None:
    frame = frames["pa_request"].with_columns(days.alias("request_day"))
    message = refusal("pa_request", frame)
    assert (
        "request_day holds class C, dates finer than a year, and ages over 89 (2 rows)" in message
    )
    check("pa_request", frame, LIMITED)
    frame = with_cell(frame, "payer_id", "jane@example.org")
    assert "class F" in refusal("pa_request", frame, LIMITED)


def test_a_long_number_in_json_is_found(texts: Tables) -> None:
    cell = json.dumps([{"loinc": "4548-4", "value": 1234567893, "ucum": "%", "day_offset": 0}])
    message = refusal(
        "clinical_outcome", with_cell(texts["clinical_outcome"], "baseline_labs", cell)
    )
    assert "baseline_labs holds class K, certificate and licence numbers (1 row)" in message


def test_images_in_bytes_are_found(frames: Tables) -> None:
    jpeg = bytes.fromhex("ffd8ffe000104a464946")
    frame = frames["pa_request"].with_columns(procedure_code=pl.lit(jpeg))
    assert "procedure_code holds class Q, " in refusal("pa_request", frame)


def test_a_field_outside_the_contract_is_tested_and_not_named(frames: Tables) -> None:
    cells = [[{"loinc": "4548-4", "Zaphod": "123-45-6789"}]] * 25
    frame = frames["clinical_outcome"].with_columns(pl.Series("baseline_labs", cells))
    message = refusal("clinical_outcome", frame)
    assert "baseline_labs.(a field outside the contract) holds class G, " in message
    assert "Zaphod" not in message


@pytest.mark.parametrize("age", [90, 93, 104])
def test_ages_over_89_are_found_as_numbers_and_in_bands(texts: Tables, age: int) -> None:
    exam = {"patient_token": ["0" * 15 + "a"], "request_token": ["0" * 15 + "b"], "age": [age]}
    for dtype in (pl.Int64, pl.Float64, pl.String):
        frame = pl.DataFrame(exam).with_columns(pl.col("age").cast(dtype))
        assert "age holds class C, " in refusal("cardiac_exam", frame)
    for band in (f"{age}", f"{age}-{age + 5}"):
        frame = with_cell(texts["clinical_outcome"], "age_band", band)
        assert "age_band holds class C, " in refusal("clinical_outcome", frame)
    check("cardiac_exam", pl.DataFrame(exam | {"age": [89]}))
    check("clinical_outcome", with_cell(texts["clinical_outcome"], "age_band", "90+"))


def test_a_column_of_tokens_that_holds_plain_numbers_is_found(frames: Tables) -> None:
    numbers = pl.format("{}{}", pl.lit("0" * 9), pl.int_range(1_000_000, 1_000_025))
    frame = frames["pa_request"].with_columns(patient_token=numbers)
    message = refusal("pa_request", frame)
    assert "patient_token holds class R, " in message
    assert "codes: decimal numbers in place of hashes (25 rows)" in message


# --- no false alarms -----------------------------------------------------------------------------

LEGITIMATE = {
    "pa_request": {
        "procedure_code": ("G0289", "99213", "0001U", "33101"),
        "ndc": ("00071015523", "13055550123"),
        "rxcui": ("1991302", "161"),
        "dx_principal": ("E11.9", "S83.511A", "Z3A01"),
        "dx_other": ("I10|E78.5", "[]"),
        "provider_taxonomy": ("207R00000X", "225100000X"),
        "patient_token": ("0123456789abcdef", "f" * 64, "123e4567e89b42d3a456426614174000"),
        "payer_id": ("payer-03", "va-long-beach", "medicare_2024", "nab0123456789012"),
        "policy_id": ("l33822", "payer-03-imaging"),
        "criteria_required": (
            "imaging.red_flag_or_deficit|dme.home_use",
            "L33822|A52464",
            "/86644-4/|4548-4",
            "PROMIS_10.2",
        ),
        "quantity": (
            *("12.5", "3.0", "1e3", "33101", "-12", "0.0000012345678", "1234567.89"),
            *("1.2345678901e2", "1.2345678901e-7", "2.5E+3", "123.45678901234", "1e300", "inf"),
        ),
        "quantity_unit": ("UN", "VS", "DA"),
        "eligibility_verified": ("true", "0", "No"),
        "modifier": ("26|59", "RT"),
    },
    "pa_decision": {"reason_codes": ("0V|0P", "25", "N706"), "decision_hours": ("71.93",)},
    "claim_payment": {
        "carc": ("16", "197", "A1"),
        "rarc": ("MA130|N706", "M15"),
        "drg": ("470",),
        "revenue_code": ("0360",),
        "submitted": ("1250000.00", "12345678.90"),
    },
    "clinical_outcome": {
        "zip3": ("331", "000"),
        "baseline_labs": tuple(
            json.dumps([{"loinc": "33914-3", "value": 7.499999999999, "ucum": unit}])
            for unit in ("%", "mL/min/{1.73_m2}", "mm[Hg]", "10*3/uL", "[IU]/L", "ug/mL{FEU}")
        ),
    },
    "hospital_encounter": {
        "diag_1": ("250.4", "V45", "E812.0"),
        "medical_specialty": ("Surgery-Cardiovascular/Thoracic", "Family/GeneralPractice"),
    },
    "imr_determination": {
        "diagnosis_sub_category": ("Skin Cancer", "Dizziness, Vertigo", "Crohn's Disease"),
        "treatment_sub_category": ("Residential Treatment Center - Admission",),
    },
}  # fmt: skip


@pytest.mark.parametrize("table", LEGITIMATE)
def test_legitimate_values_raise_no_alarm(table: str) -> None:
    for column, values in LEGITIMATE[table].items():
        check(table, pl.DataFrame({column: values}, schema={column: pl.String}))


def test_legitimate_numbers_and_nothing_at_all_raise_no_alarm() -> None:
    check("claim_payment", pl.DataFrame({"submitted": [1_250_000.0, 12_345_678.9, -3.5, None]}))
    check("pa_request", pl.DataFrame({"procedure_code": [99213], "rxcui": [1991302]}))
    check("pa_request", pl.DataFrame({"channel": [None, None]}))
    check("pa_request", pl.DataFrame({"channel": pl.Series([object()], dtype=pl.Object)}))
    check("pa_request", pl.DataFrame({"another": ["123-45-6789"]}))  # `check_columns` refuses it
    check("pa_request", pl.DataFrame(schema={"channel": pl.String, "request_day": pl.Date}))


def test_keyed_pseudonyms_and_tokens_raise_no_alarm() -> None:
    tokens = Tokens(bytes(32))
    numbers = [str(number) for number in range(5_000)]
    check(
        "pa_request",
        pl.DataFrame(
            {
                "patient_token": [tokens.patient("payer-1", number) for number in numbers],
                "payer_id": [tokens.pseudonym("payer", number) for number in numbers],
            }
        ),
    )


def test_the_synthetic_network_raises_no_alarm(small_network: Path, texts: Tables) -> None:
    for folder in site_folders(small_network):
        for name, path in SiteManifest.load(folder).tables.items():
            check(name, pl.read_parquet(path / "*.parquet"))
    for name, frame in texts.items():
        check(name, frame)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the publishers' files are not at {REAL}")
@pytest.mark.parametrize("data_set", PUBLIC)
def test_public_data_raise_no_alarm(data_set: str, tmp_path: Path) -> None:
    dataset = PUBLIC[data_set]
    dataset.build(REAL / dataset.source.folder, tmp_path / "network", seed=5)
    for folder in site_folders(tmp_path / "network"):
        for name, path in SiteManifest.load(folder).tables.items():
            check(name, pl.read_parquet(path))


# --- any identifier of a kind --------------------------------------------------------------------


def all_are_found(letter: str, values: list[str]) -> bool:
    """Whether each of different values in lists of codes is found to be of the class."""
    lists = [["imaging.mri", value] for value in values]
    message = refusal("pa_request", pl.DataFrame({"criteria_documented": lists}))
    count = f"{len(values)} row{'s' if len(values) > 1 else ''}"
    return re.search(rf"class {letter}, [^;]*\({count}\)", message) is not None


def several(values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(values, min_size=1, max_size=20, unique=True)


def with_check_digit(body: int, is_valid: Callable[[str], bool]) -> str:
    return next(f"{body}{digit}" for digit in range(10) if is_valid(f"{body}{digit}"))


EXAMPLES = settings(max_examples=15, deadline=None, derandomize=True)
SSNS = st.builds(
    "{0:03}{3}{1:02}{3}{2:04}".format,
    st.integers(1, 899).filter(lambda area: area != 666),
    st.integers(1, 99),
    st.integers(1, 9999),
    st.sampled_from(["-", " ", ".", ""]),
)
NPIS = st.builds(
    lambda label, body: label + with_check_digit(body, npi),
    st.sampled_from(["", "NPI ", "npi:"]),
    st.integers(100_000_000, 299_999_999),
)
TELEPHONES = st.builds(
    lambda form, *parts: str(form.format(*parts)),
    st.sampled_from(
        ["({}) {}-{:04}", "{}-{}-{:04}", "{}.{}.{:04}", "{} {} {:04}", "{}{}{:04}", "+1{}{}{:04}"]
    ),
    st.integers(200, 999),
    st.integers(200, 999),
    st.integers(0, 9999),
)
DATES = st.builds(
    date.strftime,
    st.dates(date(1900, 1, 1), date(2099, 12, 31)),
    st.sampled_from(["%Y-%m-%d", "%m/%d/%Y", "%Y%m%d", "%d %B %Y", "%b %d, %Y", "%Y%m%d%H%M"]),
)
CARDS = st.builds(lambda body: with_check_digit(body, luhn), st.integers(10**14, 10**15 - 1))


@EXAMPLES
@given(several(SSNS))
def test_every_social_security_number_is_found(values: list[str]) -> None:
    assert all_are_found("G", values)


@EXAMPLES
@given(several(NPIS))
def test_every_npi_is_found(values: list[str]) -> None:
    assert all_are_found("K", values)


@EXAMPLES
@given(several(TELEPHONES))
def test_every_telephone_number_is_found(values: list[str]) -> None:
    assert all_are_found("D", values)


@EXAMPLES
@given(several(st.emails()))
def test_every_e_mail_address_is_found(values: list[str]) -> None:
    assert all_are_found("F", values)


@EXAMPLES
@given(several(DATES))
def test_every_date_is_found(values: list[str]) -> None:
    assert all_are_found("C", values)


@EXAMPLES
@given(several(CARDS))
def test_every_card_number_is_found(values: list[str]) -> None:
    assert all_are_found("J", values)


CODES = [
    (table, name, column.regex)
    for table, names in {
        "pa_request": "procedure_code ndc dx_principal place_of_service",
        "claim_payment": "carc drg revenue_code",
        "clinical_outcome": "zip3",
        "hospital_encounter": "diag_1 medical_specialty",
    }.items()
    for name, column in CONTRACTS[table].schema.columns().items()
    if name in names.split() and isinstance(column, dy.String) and column.regex
]


@EXAMPLES
@given(st.data())
def test_no_code_of_a_contract_s_own_pattern_raises_an_alarm(data: st.DataObject) -> None:
    for table, name, pattern in CODES:
        codes = data.draw(st.lists(st.from_regex(pattern, fullmatch=True), min_size=1))
        check(table, pl.DataFrame({name: codes}))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.text(max_size=40) | st.from_regex(r"[\w\W]?[A-Za-z\u212a\u017f0-9 ]{9,20}")))
def test_whatever_a_cell_holds_nothing_but_a_refusal_comes_of_it(values: list[str]) -> None:
    for column in ("procedure_code", "dx_other", "quantity"):
        with suppress(IdentifierError):
            check("pa_request", pl.DataFrame({column: values}, schema={column: pl.String}))
    with suppress(IdentifierError):
        check("clinical_outcome", pl.DataFrame({"baseline_labs": [json.dumps([{"ucum": values}])]}))


# --- ages and ZIP codes --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [pl.Int16, pl.UInt8, pl.Float64])
def test_every_age_has_its_band(dtype: type[pl.DataType]) -> None:
    ages = pl.DataFrame({"age": pl.Series(range(126), dtype=dtype)})
    bands = ages.select(age_band(pl.col("age"))).to_series()
    assert bands.to_list() == [v.AGE_BANDS[min(age // 10, 9)] for age in range(126)]


def test_what_is_no_age_has_no_band() -> None:
    ages = pl.DataFrame({"age": [-1.0, float("nan"), None, float("inf")]})
    assert ages.select(age_band(pl.col("age"))).to_series().to_list() == [None, None, None, "90+"]


IDENTIFYING = ("Jane Doe", "123-45-6789", "jane@example.org", "2020-01-02")


@pytest.mark.parametrize("value", IDENTIFYING)
@pytest.mark.parametrize(
    ("table", "column", "held"),
    [
        ("pa_decision", "reason_codes", lambda data: [data]),
        ("pa_decision", "reviewer_queue", lambda data: data),
        ("clinical_outcome", "baseline_labs", lambda data: [{"loinc": b"4548-4", "ucum": data}]),
    ],
)
def test_bytes_are_read_as_the_text_that_they_become(
    texts: Tables, table: str, column: str, held: Callable[[bytes], object], value: str
) -> None:
    rows = texts[table].head(1).with_columns(pl.Series(column, [held(value.encode())]))
    with pytest.raises(IdentifierError, match=column) as caught:
        check_values(rows, CONTRACTS[table].schema, source="t", policy=Policy())
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    "escaped", [r"01\/02\/1980", r"123\u002d45\u002d6789", r"jane\u0040x.org", r"Jane\u0020Doe"]
)
def test_escapes_of_json_hide_nothing(texts: Tables, escaped: str) -> None:
    labs = f'[{{"loinc": "4548-4", "value": 7.1, "ucum": "{escaped}", "day_offset": -1}}]'
    rows = texts["clinical_outcome"].head(1).with_columns(pl.Series("baseline_labs", [labs]))
    with pytest.raises(IdentifierError, match="baseline_labs"):
        check_values(rows, CONTRACTS["clinical_outcome"].schema, source="t", policy=Policy())
    unit = pl.Series("baseline_labs", [labs.replace(escaped, r"mg\/dL")])
    check_values(
        rows.with_columns(unit),
        CONTRACTS["clinical_outcome"].schema,
        source="t",
        policy=Policy(),
    )


def test_restricted_zip3_are_masked_and_counted_and_others_stay() -> None:
    zips = pl.DataFrame({"zip3": ["331", "036", "893", None, "33101"]})
    masked = zips.select(mask_zip3(pl.col("zip3"))).to_series().to_list()
    assert masked == ["331", "000", "000", None, "33101"]
    assert zips.select(restricted_zip3(pl.col("zip3")).sum()).item() == 2


@pytest.mark.parametrize("dtype", [pl.String, pl.Int64])
def test_five_digits_in_zip3_are_a_zip_code(texts: Tables, dtype: type[pl.DataType]) -> None:
    zips = pl.Series("zip3", ["331"] * 24 + ["33101"]).cast(dtype)
    message = refusal("clinical_outcome", texts["clinical_outcome"].with_columns(zips))
    assert "zip3 holds class B, geographic units smaller than a state (1 row)" in message


@pytest.mark.parametrize("share", [1, 12])
@pytest.mark.parametrize("kind", [pl.String, pl.Int64, pl.Categorical])
def test_raw_numbers_in_place_of_tokens_are_seen_whatever_their_type_and_share(
    kind: type[pl.DataType], share: int
) -> None:
    numbers = [str(8_001_234_567_890_000 + row) for row in range(3000)]
    if kind == pl.String:
        numbers = [
            number if row % share == 0 else hashlib.sha256(number.encode()).hexdigest()
            for row, number in enumerate(numbers)
        ]
    tokens = pl.Series("patient_token", numbers).cast(kind)
    with pytest.raises(IdentifierError, match="decimal numbers in place of hashes"):
        check_values(tokens.to_frame(), CONTRACTS["pa_request"].schema, source="t", policy=Policy())
