"""California DMHC independent medical reviews: was a health plan's denial overturned?

The source names no plan and no provider, so the sites are artificial: groups of treatment
categories. It has no patient identifier either: every determination counts as its own person.
"""

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
from data_contracts.public.sources import CA_DMHC_IMR as SOURCE

SUBMISSION, FOLLOWUP = Available.SUBMISSION, Available.FOLLOWUP
TOKEN, QUASI = Classification.TOKEN, Classification.QUASI_IDENTIFIER
CLINICAL, OPERATIONAL = Classification.CLINICAL, Classification.OPERATIONAL

TREATMENT_GROUPS: Final = {
    "imr-pharmacy": ("Pharmacy/Prescription Drugs",),
    "imr-diagnostics": (
        "Diagnostic Imaging, Screening and Testing",
        "Diagnostic/Physician Evaluation",
        "Preventive Health Screening",
    ),
    "imr-mental-health": ("Autism Related Treatment", "Mental Health Treatment"),
    "imr-equipment": ("Durable Medical Equipment",),
    "imr-surgery": (
        "Cardio Vascular",
        "Ear, Nose and Throat Procedures",
        "General Surgery",
        "Neurosugery",
        "OB/GYN Procedures",
        "Ophthalmology",
        "Reconstructive/Plastic Surgery",
        "Special Procedure",
        "Urology",
        "Vision",
    ),
    "imr-musculoskeletal": (
        "Chiropractic",
        "Orthopedic",
        "Rehabilitation Services - Outpatient",
        "Rehabilitation Services - Skilled Nursing Facility - Inpatient",
    ),
    "imr-oncology": ("Cancer Treatment",),
    "imr-pain": (
        "Alternative Treatment",
        "Electrical/ Thermal/ Radiofreq. Interventions",
        "Pain Management",
    ),
    "imr-other": (
        "Acute Medical Services - Inpatient",
        "Acute Medical Services - Outpatient",
        "Dental/Orthodontic",
        "Emergency/Urgent Care",
        "Home Health Care",
        "Not Applicable",
    ),
}
"""Artificial site -> the source's treatment categories, as it spells them."""

UNNAMED_GROUP: Final = "imr-other"
"""Site of the reviews whose treatment category is missing."""

TREATMENT_CATEGORIES: Final = tuple(
    sorted(category for group in TREATMENT_GROUPS.values() for category in group)
)

DIAGNOSIS_CATEGORIES: Final = (
    "Alcohol and Drug Addiction",
    "Autism Spectrum",
    "Blood Related",
    "Cancer",
    "Cardiac/Circulatory",
    "Central Nervous System/ Neuromuscular",
    "Chronic Pain",
    "Dental",
    "Digestive System/ Gastrointestinal",
    "Ears, Nose, Throat",
    "Endocrine/ Metabolic",
    "Foot",
    "Genetic",
    "Genitourinary/ Kidney",
    "Immunologic",
    "Infectious",
    "Mental",
    "Morbid Obesity",
    "Not Applicable",
    "OB-Gyn/ Pregnancy",
    "Organ Failure",
    "Orthopedic/ Musculoskeletal",
    "Pediatrics",
    "Post Surgical Complication",
    "Prevention/Good Health",
    "Respiratory System",
    "Skin",
    "Trauma/Injuries",
    "Vision",
)

REVIEW_TYPES: Final = {
    "Medical Necessity": "medical_necessity",
    "Experimental/Investigational": "experimental",
    "Urgent Care": "urgent_care",
}
AGE_BANDS: Final = ("0-10", "11-20", "21-30", "31-40", "41-50", "51-64", "65+")
"""The source's own bands; they do not nest in ten-year bands."""

OUTCOMES: Final = {
    "Upheld Decision of Health Plan": "upheld",
    "Overturned Decision of Health Plan": "overturned",
}


class ImrDetermination(dy.Schema):
    """One row per independent medical review of a denied request."""

    patient_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="Stands for the person; made from the reference id, as no person is named",
        metadata=terms("P", SUBMISSION, TOKEN),
    )
    request_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The review, from its reference id",
        metadata=terms("P", SUBMISSION, TOKEN),
    )
    report_year = dy.Int16(
        min=2000,
        max=2100,
        description="Calendar year of the report",
        metadata=terms("P", SUBMISSION, QUASI, unit="a", declared_range=(2000, 2030)),
    )
    diagnosis_category = dy.Enum(
        DIAGNOSIS_CATEGORIES,
        nullable=True,
        description="Diagnosis, as the source groups it",
        metadata=terms("P", SUBMISSION, CLINICAL),
    )
    diagnosis_sub_category = dy.String(
        nullable=True,
        min_length=1,
        max_length=80,
        description="Diagnosis, in the source's finer list",
        metadata=terms("P", SUBMISSION, CLINICAL),
    )
    treatment_category = dy.Enum(
        TREATMENT_CATEGORIES,
        nullable=True,
        description="Treatment that was denied, as the source groups it",
        metadata=terms("P", SUBMISSION, CLINICAL),
    )
    treatment_sub_category = dy.String(
        nullable=True,
        min_length=1,
        max_length=80,
        description="Treatment that was denied, in the source's finer list",
        metadata=terms("P", SUBMISSION, CLINICAL),
    )
    review_type = dy.Enum(
        REVIEW_TYPES.values(),
        description="Why the plan denied: not necessary, experimental, or not urgent",
        metadata=terms("P", SUBMISSION, OPERATIONAL),
    )
    age_band = dy.Enum(
        AGE_BANDS,
        nullable=True,
        description="Age in the source's own bands",
        metadata=terms("P", SUBMISSION, QUASI, unit="a"),
    )
    sex = dy.Enum(
        v.SEXES,
        nullable=True,
        description="Sex",
        metadata=terms("P", SUBMISSION, QUASI),
    )
    appeal_outcome = dy.Enum(
        OUTCOMES.values(),
        description="Whether the reviewer upheld or overturned the plan's denial",
        metadata=terms("P", FOLLOWUP, OPERATIONAL),
    )


def build(source: Path, out: Path, *, seed: int) -> Network:
    """Make the network, one artificial site per group of treatment categories.

    Args:
        source: Folder with `imr_determinations_2001_2016.csv`.
        out: Folder to make; must be empty or absent.
        seed: Kept in `network.json`; the groups are fixed and nothing is drawn.

    Returns:
        The description written to `out/network.json`.

    Raises:
        ManifestError: `out` holds something.
        ReaderError: The raw file is missing or malformed.
    """
    file = source_file(source, SOURCE.files[0].name)
    with reading(file):
        raw = pl.read_csv(file, separator=";", infer_schema=False, null_values=[""])
        reviews = conform(_reviews(raw), ImrDetermination)
        groups = {name: site for site, names in TREATMENT_GROUPS.items() for name in names}
        site = raw["Treatment Category"].replace_strict(groups).fill_null(UNNAMED_GROUP)
    new_folder(out)
    write_sites(out, {"imr_determination": reviews}, site, role="payer")
    network = Network(
        name=SOURCE.name,
        origin="public",
        title=SOURCE.title,
        partition="artificial: groups of treatment categories (the source names no plan)",
        licence=SOURCE.licence,
        citation=SOURCE.citation,
        sources=file_hashes(source, SOURCE),
        settings={"seed": seed, "rows_in_source": raw.height, "rows": reviews.height},
    )
    network.write(out)
    return network


def _reviews(raw: pl.DataFrame) -> pl.DataFrame:
    """The contract's columns from the source's."""
    reference = raw["Reference ID"]
    return raw.select(
        tokens(f"{SOURCE.name}/patient", reference).alias("patient_token"),
        tokens(f"{SOURCE.name}/review", reference).alias("request_token"),
        pl.col("Report Year").cast(pl.Int16).alias("report_year"),
        pl.col("Diagnosis Category").alias("diagnosis_category"),
        pl.col("Diagnosis Sub Category").alias("diagnosis_sub_category"),
        pl.col("Treatment Category").alias("treatment_category"),
        pl.col("Treatment Sub Category").alias("treatment_sub_category"),
        pl.col("Type").replace_strict(REVIEW_TYPES).alias("review_type"),
        # one band is spelt "11_20" in the source
        pl.col("Age Range").str.replace("_", "-", literal=True).alias("age_band"),
        pl.col("Patient Gender").str.to_lowercase().alias("sex"),
        pl.col("Determination").replace_strict(OUTCOMES).alias("appeal_outcome"),
    )
