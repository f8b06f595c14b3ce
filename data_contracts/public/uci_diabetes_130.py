"""Diabetes 130-US hospitals: inpatient encounters, and readmission within 30 days.

The sites are payer codes: the only organisation that the source names. Encounters that ended in
death or in a hospice are left out, as nobody could be readmitted. Weight is not kept (97 % of it
is missing); age, sex and race stand in `clinical_outcome`.
"""

import csv
from pathlib import Path
from typing import Final

import dataframely as dy
import polars as pl

from data_contracts import vocabulary as v
from data_contracts.fields import Available, Classification, terms
from data_contracts.network import Network
from data_contracts.public.site_folders import (
    conform,
    file_hashes,
    new_folder,
    reading,
    source_file,
    tokens,
    write_sites,
)
from data_contracts.public.sources import UCI_DIABETES_130 as SOURCE
from data_contracts.public.uci_diabetes_codes import (
    A1C,
    ADMISSION_SOURCES,
    ADMISSION_TYPES,
    DISCHARGE_DISPOSITIONS,
    DOSES,
    DRUGS,
    EXCLUDED_DISPOSITIONS,
    GLUCOSE,
    ICD9CM_PATTERN,
    MISSING_IDS,
    RACES,
)
from data_contracts.readers.findings import ReaderError
from data_contracts.schemas import ClinicalOutcome

SUBMISSION = Available.SUBMISSION
TOKEN, CLINICAL = Classification.TOKEN, Classification.CLINICAL
OPERATIONAL = Classification.OPERATIONAL

SMALLEST_SITE: Final = 1_000
"""A payer code with fewer encounters joins the site `payer-small`."""


def _count(description: str, high: float, *, low: float = 0) -> dy.Int16:
    """A count of the stay or of the year before it."""
    return dy.Int16(
        min=int(low),
        description=description,
        metadata=terms("PV", SUBMISSION, CLINICAL, declared_range=(low, high)),
    )


def _diagnosis(description: str) -> dy.String:
    return dy.String(
        nullable=True,
        regex=ICD9CM_PATTERN,
        description=description,
        metadata=terms("PV", SUBMISSION, CLINICAL, code_systems=("ICD-9-CM",)),
    )


def _drug(name: str) -> dy.Enum:
    return dy.Enum(
        DOSES.values(),
        description=f"{name}: not prescribed, or its dose steady, up or down during the stay",
        metadata=terms("PV", SUBMISSION, CLINICAL),
    )


class HospitalEncounter(dy.Schema):
    """One row per inpatient encounter of 1 to 14 days with diabetes, as known at discharge.

    Predictions are made at discharge; "submission" is that moment here.
    """

    patient_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The patient, who may have several encounters, also at several sites",
        metadata=terms("PV", SUBMISSION, TOKEN),
    )
    request_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The encounter",
        metadata=terms("PV", SUBMISSION, TOKEN),
    )
    admission_type = dy.Enum(
        ADMISSION_TYPES.values(),
        nullable=True,
        description="Type of admission",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="UB-04 FL 14"),
    )
    discharge_disposition = dy.Enum(
        DISCHARGE_DISPOSITIONS.values(),
        nullable=True,
        description="Where the patient went",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="UB-04 FL 17"),
    )
    admission_source = dy.Enum(
        ADMISSION_SOURCES.values(),
        nullable=True,
        description="Where the patient came from",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="UB-04 FL 15"),
    )
    length_of_stay_days = dy.Int16(
        min=1,
        max=14,
        description="Days in hospital",
        metadata=terms("PV", SUBMISSION, CLINICAL, unit="d", declared_range=(1, 14)),
    )
    medical_specialty = dy.String(
        nullable=True,
        regex=r"^[A-Za-z&/-]{2,48}$",
        description="Specialty of the admitting physician, as the source spells it",
        metadata=terms("PV", SUBMISSION, OPERATIONAL),
    )
    num_lab_procedures = _count("Laboratory tests during the stay", 140)
    num_procedures = _count("Procedures other than laboratory tests during the stay", 6)
    num_medications = _count("Distinct generic drugs given during the stay", 80)
    number_outpatient = _count("Outpatient visits in the year before", 50)
    number_emergency = _count("Emergency visits in the year before", 80)
    number_inpatient = _count("Inpatient visits in the year before", 25)
    diag_1 = _diagnosis("Principal diagnosis")
    diag_2 = _diagnosis("Second diagnosis")
    diag_3 = _diagnosis("Third diagnosis")
    number_diagnoses = _count("Diagnoses entered into the system", 16)
    max_glu_serum = dy.Enum(
        GLUCOSE.values(),
        description="Highest serum glucose, mg/dL, in bands",
        metadata=terms("PV", SUBMISSION, CLINICAL, unit="mg/dL"),
    )
    a1c_result = dy.Enum(
        A1C.values(),
        description="HbA1c, %, in bands",
        metadata=terms("PV", SUBMISSION, CLINICAL, unit="%", standard="LOINC 4548-4"),
    )
    metformin = _drug("Metformin")
    repaglinide = _drug("Repaglinide")
    nateglinide = _drug("Nateglinide")
    chlorpropamide = _drug("Chlorpropamide")
    glimepiride = _drug("Glimepiride")
    acetohexamide = _drug("Acetohexamide")
    glipizide = _drug("Glipizide")
    glyburide = _drug("Glyburide")
    tolbutamide = _drug("Tolbutamide")
    pioglitazone = _drug("Pioglitazone")
    rosiglitazone = _drug("Rosiglitazone")
    acarbose = _drug("Acarbose")
    miglitol = _drug("Miglitol")
    troglitazone = _drug("Troglitazone")
    tolazamide = _drug("Tolazamide")
    examide = _drug("Examide")
    citoglipton = _drug("Citoglipton")
    insulin = _drug("Insulin")
    glyburide_metformin = _drug("Glyburide with metformin")
    glipizide_metformin = _drug("Glipizide with metformin")
    glimepiride_pioglitazone = _drug("Glimepiride with pioglitazone")
    metformin_rosiglitazone = _drug("Metformin with rosiglitazone")
    metformin_pioglitazone = _drug("Metformin with pioglitazone")
    change = dy.Bool(
        description="A diabetes drug or its dose was changed",
        metadata=terms("PV", SUBMISSION, CLINICAL),
    )
    diabetes_med = dy.Bool(
        description="A diabetes drug was prescribed",
        metadata=terms("PV", SUBMISSION, CLINICAL),
    )


def build(source: Path, out: Path, *, seed: int, smallest_site: int = SMALLEST_SITE) -> Network:
    """Make the network of payers, with `hospital_encounter` and `clinical_outcome` at each.

    Args:
        source: Folder with `diabetic_data.csv` and `IDs_mapping.csv`.
        out: Folder to make; must be empty or absent.
        seed: Kept in `network.json`; the payers are given and nothing is drawn.
        smallest_site: Payer codes with fewer encounters (after exclusions) are merged.

    Returns:
        The description written to `out/network.json`, exclusions counted in its settings.

    Raises:
        ManifestError: `out` holds something.
        ReaderError: A raw file is missing or malformed.
    """
    file = source_file(source, "diabetic_data.csv")
    labels = read_labels(source_file(source, "IDs_mapping.csv"))["discharge_disposition_id"]
    with reading(file):
        raw = pl.read_csv(file, infer_schema=False, null_values=["?", ""])
        ended = raw["discharge_disposition_id"].is_in(EXCLUDED_DISPOSITIONS)
        rows = raw.filter(~ended)
        keys = pl.DataFrame(
            {
                "patient_token": tokens(f"{SOURCE.name}/patient", rows["patient_nbr"]),
                "request_token": tokens(f"{SOURCE.name}/encounter", rows["encounter_id"]),
            }
        )
        encounters = conform(keys.hstack(_encounters(rows)), HospitalEncounter)
        outcomes = conform(keys.hstack(_outcomes(rows)), ClinicalOutcome)
        sites = _sites(rows["payer_code"], smallest_site)
    excluded = raw.filter(ended)["discharge_disposition_id"].value_counts(sort=True)
    new_folder(out)
    tables = {"hospital_encounter": encounters, "clinical_outcome": outcomes}
    write_sites(out, tables, sites, role="payer")
    network = Network(
        name=SOURCE.name,
        origin="public",
        title=SOURCE.title,
        partition=f"payer codes; those with fewer than {smallest_site} encounters are one site",
        licence=SOURCE.licence,
        citation=SOURCE.citation,
        sources=file_hashes(source, SOURCE),
        settings={
            "seed": seed,
            "smallest_site": smallest_site,
            "rows_in_source": raw.height,
            "rows": encounters.height,
            "excluded": {f"{code} {labels[code]}": n for code, n in excluded.iter_rows()},
        },
    )
    network.write(out)
    return network


def read_labels(file: Path) -> dict[str, dict[str, str]]:
    """The publisher's labels of `IDs_mapping.csv`: id column -> id -> label.

    The file holds three tables, one below the other, each under its own header line.

    Raises:
        ReaderError: It lacks the table of discharge dispositions.
    """
    labels: dict[str, dict[str, str]] = {}
    column = ""
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        for cells in csv.reader(lines):
            match cells:
                case [code, "description"]:
                    column = code
                    labels[column] = {}
                case [code, label] if column and code:
                    labels[column][code] = label.strip()
    if not set(EXCLUDED_DISPOSITIONS) <= labels.get("discharge_disposition_id", {}).keys():
        raise ReaderError(f"{file}: the labels of deaths and hospices are missing; fetch it again")
    return labels


def _encounters(rows: pl.DataFrame) -> pl.DataFrame:
    """The columns of `hospital_encounter` from the source's, keys apart."""
    return rows.select(
        _level("admission_type_id", ADMISSION_TYPES).alias("admission_type"),
        _level("discharge_disposition_id", DISCHARGE_DISPOSITIONS).alias("discharge_disposition"),
        _level("admission_source_id", ADMISSION_SOURCES).alias("admission_source"),
        pl.col("time_in_hospital").alias("length_of_stay_days"),
        pl.col("medical_specialty").replace("PhysicianNotFound", None),
        pl.col("^num(ber)?_.*$"),
        *(_icd9(f"diag_{rank}") for rank in (1, 2, 3)),
        pl.col("max_glu_serum").replace_strict(GLUCOSE),
        pl.col("A1Cresult").replace_strict(A1C).alias("a1c_result"),
        *(pl.col(drug).replace_strict(DOSES).alias(drug.replace("-", "_")) for drug in DRUGS),
        pl.col("change").replace_strict({"Ch": True, "No": False}),
        pl.col("diabetesMed").replace_strict({"Yes": True, "No": False}).alias("diabetes_med"),
    )


def _outcomes(rows: pl.DataFrame) -> pl.DataFrame:
    """The columns of `clinical_outcome` from the source's, keys apart."""
    decade = pl.col("age").str.extract(r"^\[(\d+)-\d+\)$").cast(pl.Int16)
    hispanic = pl.col("race") == "Hispanic"
    return rows.select(
        pl.when(decade < 90)
        .then(pl.format("{}-{}", decade, decade + 9))
        .when(decade >= 90)
        .then(pl.lit("90+"))
        .alias("age_band"),
        pl.col("gender")
        .replace_strict({"Female": "female", "Male": "male", "Unknown/Invalid": "unknown"})
        .alias("sex"),
        pl.when(~hispanic).then(pl.col("race")).replace_strict(RACES).alias("race"),
        pl.when(hispanic).then(pl.lit("hispanic")).alias("ethnicity"),
        pl.col("readmitted")
        .replace_strict({"<30": True, ">30": False, "NO": False})
        .alias("readmission_30d"),
        pl.lit(30, dtype=pl.Int32).alias("followup_days_observed"),
    )


def _level(column: str, levels: dict[str, str]) -> pl.Expr:
    """The level that an id stands for; an id that the publisher does not list is an error."""
    known: dict[str, str | None] = {**levels, **dict.fromkeys(MISSING_IDS[column])}
    return pl.col(column).replace_strict(known, return_dtype=pl.String)


def _icd9(column: str) -> pl.Expr:
    """The code with the leading zeros that the source lost (8 stands for 008)."""
    category = pl.col(column).str.extract(r"^(\d+)")
    padded = category.str.zfill(3) + pl.col(column).str.slice(category.str.len_chars())
    return pl.when(category.is_null()).then(pl.col(column)).otherwise(padded).alias(column)


def _sites(payer_codes: pl.Series, smallest_site: int) -> pl.Series:
    """Name of each encounter's site, length n; a missing payer code is a site of its own."""
    payer = pl.col("payer_code")
    small = payer.count().over("payer_code") < smallest_site
    return (
        payer_codes.to_frame()
        .select(
            pl.when(payer.is_null())
            .then(pl.lit("payer-unknown"))
            .when(small)
            .then(pl.lit("payer-small"))
            .otherwise(pl.lit("payer-") + payer.str.to_lowercase())
        )
        .to_series()
    )
