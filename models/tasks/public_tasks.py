"""Tasks of the public data sets."""

import polars as pl

from data_contracts import labels
from data_contracts.codes.diagnoses import ICD9_CONDITIONS, icd9_condition
from data_contracts.features import category, flag, number
from data_contracts.fields import Available
from data_contracts.public.ca_dmhc_imr_codes import (
    DIAGNOSIS_SUB_CATEGORIES,
    TREATMENT_SUB_CATEGORIES,
)
from data_contracts.public.uci_diabetes_codes import ORAL_DRUGS, SPECIALTY_GROUPS
from models.tasks.task import Tables, Task

_STAY = "hospital_encounter"
_PATIENT = "clinical_outcome"
_REVIEW = "imr_determination"
_EXAM = "cardiac_exam"

_SPECIALTY = pl.col("medical_specialty").replace_strict(
    {name: group for group, names in SPECIALTY_GROUPS.items() for name in names},
    default=pl.when(pl.col("medical_specialty").is_not_null()).then(pl.lit("other")),
    return_dtype=pl.String,
)
_ORAL_DRUGS_TAKEN = pl.sum_horizontal(
    (pl.col(drug).cast(pl.String) != "no").cast(pl.Int16) for drug in ORAL_DRUGS
)


def _stays(tables: Tables) -> pl.DataFrame:
    outcome = labels.READMISSION_30D
    patients = tables[_PATIENT].select(*outcome.keys, "age_band", "sex")
    stays = tables[_STAY]
    for known in (patients, outcome.of(tables[_PATIENT])):
        stays = stays.join(known, on=outcome.keys, how="inner", maintain_order="left")
    return stays.rename({"request_token": "row_token"})


def _reviews(tables: Tables) -> pl.DataFrame:
    outcome = pl.col("appeal_outcome").cast(pl.String)
    return (
        tables[_REVIEW]
        .with_columns(
            label=pl.when(outcome.is_in(["overturned", "upheld"])).then(outcome == "overturned")
        )
        .rename({"request_token": "row_token"})
    )


def _exams(tables: Tables) -> pl.DataFrame:
    return tables[_EXAM].rename({"request_token": "row_token", "disease_present": "label"})


READMISSION_30D = Task(
    name="readmission_30d",
    question="Will the patient be back in hospital within 30 days of discharge?",
    positive="readmitted within 30 days",
    index_time=Available.SUBMISSION,
    tables=(_STAY, _PATIENT),
    rows=_stays,
    features=(
        number(f"{_STAY}.number_inpatient", "Inpatient visits, year before", scale="log1p"),
        number(f"{_STAY}.number_emergency", "Emergency visits, year before", scale="log1p"),
        number(f"{_STAY}.number_outpatient", "Outpatient visits, year before", scale="log1p"),
        category(f"{_STAY}.discharge_disposition", "Discharged to"),
        *(
            category(
                f"{_STAY}.diag_{rank}",
                f"{ordinal} diagnosis",
                value=icd9_condition(pl.col(f"diag_{rank}")),
                levels=ICD9_CONDITIONS,
            )
            for rank, ordinal in ((1, "Principal"), (2, "Second"), (3, "Third"))
        ),
        number(f"{_STAY}.length_of_stay_days", "Days in hospital", bounds=(0.5, 14.5), cells=14),
        number(f"{_STAY}.num_medications", "Drugs given during the stay", cells=40),
        number(f"{_STAY}.num_lab_procedures", "Laboratory tests", cells=35),
        number(f"{_STAY}.num_procedures", "Procedures", bounds=(-0.5, 6.5), cells=7),
        number(f"{_STAY}.number_diagnoses", "Diagnoses entered", bounds=(0.5, 16.5), cells=16),
        category(f"{_PATIENT}.age_band", "Age"),
        category(f"{_PATIENT}.sex", "Sex"),
        category(f"{_STAY}.admission_type", "Type of admission"),
        category(f"{_STAY}.admission_source", "Admitted from"),
        category(
            f"{_STAY}.medical_specialty",
            "Admitting specialty",
            value=_SPECIALTY,
            levels=(*SPECIALTY_GROUPS, "other"),
        ),
        category(f"{_STAY}.max_glu_serum", "Highest glucose"),
        category(f"{_STAY}.a1c_result", "HbA1c"),
        category(f"{_STAY}.insulin", "Insulin"),
        category(f"{_STAY}.metformin", "Metformin"),
        number(
            f"{_STAY}.metformin",
            "Oral diabetes drugs",
            name="oral_drugs_n",
            value=_ORAL_DRUGS_TAKEN,
            bounds=(-0.5, 5.5),
            cells=6,
            also=tuple(f"{_STAY}.{drug}" for drug in ORAL_DRUGS),
        ),
        flag(f"{_STAY}.change", "Diabetes drugs changed"),
        flag(f"{_STAY}.diabetes_med", "Diabetes drug prescribed"),
    ),
    train_at="payer",
    groups=("age_band", "sex"),
    note="Predicted at discharge. Readmissions are those that the data record as within 30 days, "
    "planned ones included.",
)

REVIEW_OVERTURNED = Task(
    name="review_overturned",
    question="Will an independent reviewer overturn the health plan's denial?",
    positive="overturned",
    index_time=Available.SUBMISSION,
    tables=(_REVIEW,),
    rows=_reviews,
    features=(
        number(f"{_REVIEW}.report_year", "Year of the report", bounds=(2000.5, 2016.5), cells=16),
        category(f"{_REVIEW}.diagnosis_category", "Diagnosis"),
        category(
            f"{_REVIEW}.diagnosis_sub_category",
            "Diagnosis, detail",
            levels=DIAGNOSIS_SUB_CATEGORIES,
        ),
        category(f"{_REVIEW}.treatment_category", "Treatment"),
        category(
            f"{_REVIEW}.treatment_sub_category",
            "Treatment, detail",
            levels=TREATMENT_SUB_CATEGORIES,
        ),
        category(f"{_REVIEW}.review_type", "Type of review"),
        category(f"{_REVIEW}.age_band", "Age"),
        category(f"{_REVIEW}.sex", "Sex"),
    ),
    train_at="payer",
    groups=("age_band", "sex"),
    note="Reviews of denials that patients contested. The data name no patient: every review "
    "counts as its own.",
)

HEART_DISEASE = Task(
    name="heart_disease",
    question="Will angiography find a major vessel narrowed by more than half?",
    positive="disease present",
    index_time=Available.SUBMISSION,
    tables=(_EXAM,),
    rows=_exams,
    features=(
        number(f"{_EXAM}.age", "Age (years)", cells=35),
        category(f"{_EXAM}.sex", "Sex"),
        category(f"{_EXAM}.chest_pain_type", "Chest pain"),
        number(f"{_EXAM}.resting_blood_pressure", "Blood pressure at rest", cells=35),
        number(f"{_EXAM}.cholesterol", "Cholesterol", cells=26),
        flag(f"{_EXAM}.fasting_glucose_over_120", "Fasting glucose above 120 mg/dL"),
        category(f"{_EXAM}.resting_ecg", "Electrocardiogram at rest"),
        number(f"{_EXAM}.max_heart_rate", "Highest heart rate", cells=32),
        flag(f"{_EXAM}.exercise_angina", "Angina on exercise"),
        number(f"{_EXAM}.st_depression", "ST depression on exercise", cells=40),
        category(f"{_EXAM}.st_slope", "ST slope"),
        number(f"{_EXAM}.major_vessels", "Vessels coloured", bounds=(-0.5, 3.5), cells=4),
        category(f"{_EXAM}.thallium_scan", "Thallium scan"),
    ),
    train_at="provider",
    groups=("sex",),
    note="920 patients: a single test split of some 230 leaves an AUROC uncertain by about 0.04.",
)
