"""UCI heart disease: 920 cardiac work-ups at four hospitals, which are the sites.

Missing values are "?" and -9 in the source. A serum cholesterol or resting blood pressure of 0 is
missing as well: Switzerland recorded 0 for every patient's cholesterol.
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
from data_contracts.public.sources import UCI_HEART_DISEASE as SOURCE

SUBMISSION, FOLLOWUP = Available.SUBMISSION, Available.FOLLOWUP
TOKEN, QUASI = Classification.TOKEN, Classification.QUASI_IDENTIFIER
CLINICAL = Classification.CLINICAL

SITES: Final = {
    "processed.cleveland.data": "cleveland",
    "processed.hungarian.data": "hungary",
    "processed.switzerland.data": "switzerland",
    "processed.va.data": "va-long-beach",
}
"""Raw file -> site: Cleveland Clinic; Hungarian Institute of Cardiology, Budapest; University
Hospitals Zurich and Basel; Veterans Affairs Medical Center, Long Beach."""

CHEST_PAIN: Final = {
    "1": "typical_angina",
    "2": "atypical_angina",
    "3": "non_anginal",
    "4": "asymptomatic",
}
RESTING_ECG: Final = {"0": "normal", "1": "st_t_abnormality", "2": "lv_hypertrophy"}
ST_SLOPES: Final = {"1": "upsloping", "2": "flat", "3": "downsloping"}
THALLIUM: Final = {"3": "normal", "6": "fixed_defect", "7": "reversible_defect"}

_RAW: Final = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
    *("thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"),
)


class CardiacExam(dy.Schema):
    """One row per patient: the work-up, and whether angiography found disease.

    Patients carry no identifier in the source; their tokens are made from hospital and row.
    """

    patient_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The patient, from hospital and row of the source",
        metadata=terms("V", SUBMISSION, TOKEN),
    )
    request_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The work-up, from hospital and row of the source",
        metadata=terms("V", SUBMISSION, TOKEN),
    )
    age = dy.Int16(
        nullable=True,
        min=0,
        max=89,
        description="Age",
        metadata=terms("V", SUBMISSION, QUASI, unit="a", declared_range=(20, 90), standard="age"),
    )
    sex = dy.Enum(
        v.SEXES,
        nullable=True,
        description="Sex",
        metadata=terms("V", SUBMISSION, QUASI, standard="sex"),
    )
    chest_pain_type = dy.Enum(
        CHEST_PAIN.values(),
        nullable=True,
        description="Type of chest pain",
        metadata=terms("V", SUBMISSION, CLINICAL, standard="cp"),
    )
    resting_blood_pressure = dy.Int16(
        nullable=True,
        min=1,
        description="Systolic blood pressure at rest, on admission",
        metadata=terms(
            "V", SUBMISSION, CLINICAL, unit="mm[Hg]", declared_range=(80, 220), standard="trestbps"
        ),
    )
    cholesterol = dy.Int16(
        nullable=True,
        min=1,
        description="Serum cholesterol",
        metadata=terms(
            "V", SUBMISSION, CLINICAL, unit="mg/dL", declared_range=(80, 600), standard="chol"
        ),
    )
    fasting_glucose_over_120 = dy.Bool(
        nullable=True,
        description="Fasting blood sugar above 120 mg/dL",
        metadata=terms("V", SUBMISSION, CLINICAL, standard="fbs"),
    )
    resting_ecg = dy.Enum(
        RESTING_ECG.values(),
        nullable=True,
        description="Electrocardiogram at rest",
        metadata=terms("V", SUBMISSION, CLINICAL, standard="restecg"),
    )
    max_heart_rate = dy.Int16(
        nullable=True,
        min=1,
        description="Highest heart rate reached in the exercise test",
        metadata=terms(
            "V", SUBMISSION, CLINICAL, unit="/min", declared_range=(60, 220), standard="thalach"
        ),
    )
    exercise_angina = dy.Bool(
        nullable=True,
        description="Angina induced by exercise",
        metadata=terms("V", SUBMISSION, CLINICAL, standard="exang"),
    )
    st_depression = dy.Float64(
        nullable=True,
        description="ST depression induced by exercise relative to rest; negative: elevation",
        metadata=terms(
            "V", SUBMISSION, CLINICAL, unit="mm", declared_range=(-3, 7), standard="oldpeak"
        ),
    )
    st_slope = dy.Enum(
        ST_SLOPES.values(),
        nullable=True,
        description="Slope of the ST segment at peak exercise",
        metadata=terms("V", SUBMISSION, CLINICAL, standard="slope"),
    )
    major_vessels = dy.Int16(
        nullable=True,
        min=0,
        max=3,
        description="Major vessels coloured by fluoroscopy",
        metadata=terms("V", SUBMISSION, CLINICAL, declared_range=(0, 3), standard="ca"),
    )
    thallium_scan = dy.Enum(
        THALLIUM.values(),
        nullable=True,
        description="Thallium stress scan",
        metadata=terms("V", SUBMISSION, CLINICAL, standard="thal"),
    )
    disease_present = dy.Bool(
        description="A major vessel is narrowed by more than half of its diameter",
        metadata=terms("V", FOLLOWUP, CLINICAL, standard="num > 0"),
    )


def build(source: Path, out: Path, *, seed: int) -> Network:
    """Make the network of the four hospitals.

    Args:
        source: Folder with the four `processed.*.data` files.
        out: Folder to make; must be empty or absent.
        seed: Kept in `network.json`; the hospitals are given and nothing is drawn.

    Returns:
        The description written to `out/network.json`.

    Raises:
        ManifestError: `out` holds something.
        ReaderError: A raw file is missing or malformed.
    """
    raw = pl.concat(_read(source_file(source, name), site) for name, site in SITES.items())
    with reading(source):
        exams = conform(_exams(raw), CardiacExam)
    new_folder(out)
    write_sites(out, {"cardiac_exam": exams}, raw["site"], role="provider")
    network = Network(
        name=SOURCE.name,
        origin="public",
        title=SOURCE.title,
        partition="the four hospitals that collected the data",
        licence=SOURCE.licence,
        citation=SOURCE.citation,
        sources=file_hashes(source, SOURCE),
        settings={"seed": seed, "rows_in_source": raw.height, "rows": exams.height},
    )
    network.write(out)
    return network


def _read(file: Path, site: str) -> pl.DataFrame:
    """One hospital's rows: site, row and the 14 columns as numbers, missing ones null."""
    with reading(file):
        rows = pl.read_csv(
            file, has_header=False, new_columns=_RAW, infer_schema=False, null_values=["?", ""]
        )
        numbers = rows.cast(pl.Float64).select(
            pl.when(pl.col(name) != -9).then(pl.col(name)).alias(name) for name in _RAW
        )
    return numbers.with_row_index("row").with_columns(site=pl.lit(site))


def _exams(raw: pl.DataFrame) -> pl.DataFrame:
    """The contract's columns from the source's."""
    ids = raw.select(pl.format("{}/{}", "site", "row")).to_series()
    positive = {name: pl.when(pl.col(name) > 0).then(pl.col(name)) for name in ("trestbps", "chol")}
    return raw.select(
        tokens(f"{SOURCE.name}/patient", ids).alias("patient_token"),
        tokens(f"{SOURCE.name}/exam", ids).alias("request_token"),
        pl.col("age"),
        _level("sex", {"0": "female", "1": "male"}).alias("sex"),
        _level("cp", CHEST_PAIN).alias("chest_pain_type"),
        positive["trestbps"].alias("resting_blood_pressure"),
        positive["chol"].alias("cholesterol"),
        (pl.col("fbs") == 1).alias("fasting_glucose_over_120"),
        _level("restecg", RESTING_ECG).alias("resting_ecg"),
        pl.col("thalach").alias("max_heart_rate"),
        (pl.col("exang") == 1).alias("exercise_angina"),
        pl.col("oldpeak").alias("st_depression"),
        _level("slope", ST_SLOPES).alias("st_slope"),
        pl.col("ca").alias("major_vessels"),
        _level("thal", THALLIUM).alias("thallium_scan"),
        (pl.col("num") > 0).alias("disease_present"),
    )


def _level(name: str, levels: dict[str, str]) -> pl.Expr:
    """The level that a numeric code stands for; a code without one is an error."""
    code = pl.col(name).cast(pl.Int16).cast(pl.String)
    return code.replace_strict(levels, return_dtype=pl.String)
