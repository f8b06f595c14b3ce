"""Tasks of the prior-authorization network: is it approved, and what happens to the patient?"""

from functools import partial

import polars as pl

from data_contracts import labels
from data_contracts.codes.diagnoses import ICD10_CHAPTERS, icd10_chapter
from data_contracts.features import Feature, category, flag, number
from data_contracts.fields import Available
from data_contracts.labels import Label
from models.tasks.task import Tables, Task


def _lab(loinc: str) -> pl.Expr:
    """Last baseline value of a laboratory test."""
    matches = pl.col("baseline_labs").list.eval(
        pl.when(pl.element().struct.field("loinc") == loinc).then(
            pl.element().struct.field("value")
        )
    )
    return matches.list.drop_nulls().list.last()


_UNDOCUMENTED = pl.col("criteria_required").list.set_difference(pl.col("criteria_documented"))


def _undocumented(position: int) -> pl.Expr:
    """Whether the policy's element at `position` is asked for and not documented."""
    element = pl.col("criteria_required").list.get(position, null_on_oob=True)
    return ~pl.col("criteria_documented").list.contains(element)


_DEMOGRAPHICS: tuple[Feature, ...] = (
    category("clinical_outcome.age_band", "Age"),
    category("clinical_outcome.sex", "Sex"),
    number(
        "clinical_outcome.sdi_quintile",
        "Social deprivation of the area (quintile)",
        bounds=(0.5, 5.5),
        cells=5,
    ),
)

_REQUEST: tuple[Feature, ...] = (
    category("pa_request.payer_id", "Payer", levels="payers"),
    category("pa_request.provider_group_id", "Provider", levels="providers"),
    category("pa_request.business_line", "Line of business"),
    category("pa_request.service_type", "Service"),
    category("pa_request.channel", "Channel"),
    category("pa_request.level_of_service", "Urgency"),
    category("pa_request.certification_type", "Certification type"),
    category(
        "pa_request.dx_principal",
        "Principal diagnosis (chapter)",
        name="dx_chapter",
        value=icd10_chapter(pl.col("dx_principal")),
        levels=tuple(ICD10_CHAPTERS),
    ),
    number("pa_request.risk_score", "Risk score"),
    number(
        "pa_request.dx_other",
        "Further diagnoses",
        name="dx_other_n",
        value=pl.col("dx_other").list.len().fill_null(0),
        bounds=(-0.5, 12.5),
        cells=13,
    ),
    *_DEMOGRAPHICS,
)

_DOCUMENTATION: tuple[Feature, ...] = (
    number(
        "pa_request.criteria_documented",
        "Required policy elements not documented",
        name="undocumented_n",
        value=_UNDOCUMENTED.list.len(),
        bounds=(-0.5, 8.5),
        cells=9,
        also=("pa_request.criteria_required",),
    ),
    *(
        flag(
            "pa_request.criteria_documented",
            f"Policy element {position + 1} not documented",
            name=f"undocumented_{position + 1}",
            value=_undocumented(position),
            also=("pa_request.criteria_required",),
        )
        for position in range(4)
    ),
    number("pa_request.attachments_n", "Attachments", bounds=(-0.5, 20.5), cells=21),
)

_LABS: tuple[Feature, ...] = (
    number(
        "clinical_outcome.baseline_labs",
        "HbA1c (%)",
        name="hba1c",
        value=_lab("4548-4"),
        bounds=(4.0, 14.0),
    ),
    number(
        "clinical_outcome.baseline_labs",
        "eGFR (mL/min/1.73 m²)",
        name="egfr",
        value=_lab("33914-3"),
        bounds=(5.0, 130.0),
    ),
    number(
        "clinical_outcome.baseline_labs",
        "Systolic blood pressure (mmHg)",
        name="systolic",
        value=_lab("8480-6"),
        bounds=(80.0, 220.0),
    ),
)


def _labelled(label: Label, tables: Tables) -> pl.DataFrame:
    """Requests with their label and what is known of the patient.

    Joined on both keys of `clinical_outcome`: one patient's row must not depend on another's.
    """
    return (
        tables["pa_request"]
        .filter(pl.col("patient_token").is_not_null())
        .join(
            label.of(tables[label.table]),
            on=label.keys,
            how="inner",
            maintain_order="left",
        )
        .join(
            tables["clinical_outcome"],
            on=["patient_token", "request_token"],
            how="left",
            maintain_order="left",
        )
        .with_columns(
            row_token=pl.concat_str(
                "request_token", pl.col("item_sequence").cast(pl.String), separator="/"
            )
        )
    )


_GROUPS = ("age_band", "sex", "payer_id", "provider_group_id")

FIRST_PASS = Task(
    name="first_pass",
    question="Will the first answer to this request be a full approval?",
    positive="approved at the first exchange",
    index_time=Available.SUBMISSION,
    tables=("pa_request", "pa_decision", "clinical_outcome"),
    rows=partial(_labelled, labels.FIRST_PASS),
    features=(*_REQUEST, *_DOCUMENTATION),
    train_at="provider",
    groups=_GROUPS,
    note="A pend, a partial approval and a denial all count as not approved at first.",
)

APPROVED = Task(
    name="approved",
    question="Will this request be approved in full?",
    positive="approved (A1)",
    index_time=Available.SUBMISSION,
    tables=("pa_request", "pa_decision", "clinical_outcome"),
    rows=partial(_labelled, labels.APPROVED),
    features=(*_REQUEST, *_DOCUMENTATION),
    train_at="provider",
    groups=_GROUPS,
    note="First determination: A1 against A3. Pends without an answer are censored; partial "
    "approvals (A2, A6) are reported apart.",
)

ED_VISIT_90D = Task(
    name="ed_visit_90d",
    question="Will the patient need emergency care or be admitted unplanned within 90 days?",
    positive="emergency visit or unplanned admission",
    index_time=Available.SUBMISSION,
    tables=("pa_request", "clinical_outcome"),
    rows=partial(_labelled, labels.ED_VISIT_90D),
    features=(*_REQUEST, *_LABS),
    train_at="provider",
    groups=_GROUPS,
    note="Requests with fewer than 90 days of follow-up are censored.",
)
