"""Who the patient is, and what happened afterwards."""

import dataframely as dy
import polars as pl

from data_contracts import vocabulary as v
from data_contracts.fields import terms
from data_contracts.schemas.shared_terms import (
    CLINICAL,
    FINANCIAL,
    FOLLOWUP,
    OPERATIONAL,
    PATIENT_TOKEN,
    QUASI,
    REQUEST_TOKEN,
    SUBMISSION,
)

_LAB = dy.Struct(
    {
        "loinc": dy.String(regex=r"^[0-9]{1,5}-[0-9]$"),
        "value": dy.Float64(),
        "ucum": dy.String(max_length=24),
        "day_offset": dy.Int32(),
    }
)
_LAB_NAMES = {loinc: f"{name} ({unit})" for loinc, (name, unit) in v.LOINC_LABS.items()}


class ClinicalOutcome(dy.Schema):
    """One row per patient and request: who the patient is, and what happened afterwards.

    Laboratory values are split by time: `baseline_labs` (day 0 and before) may be used at
    submission, `followup_labs` (after day 0) never, so that a leak cannot be configured.
    """

    patient_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The patient",
        metadata=PATIENT_TOKEN,
    )
    request_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The request, stay or episode that the follow-up starts from",
        metadata=REQUEST_TOKEN,
    )
    age_band = dy.Enum(
        v.AGE_BANDS,
        nullable=True,
        description="Age in ten-year bands",
        metadata=terms("PV", SUBMISSION, QUASI, unit="a"),
    )
    sex = dy.Enum(
        v.SEXES,
        nullable=True,
        description="Administrative sex",
        metadata=terms(
            "PV",
            SUBMISSION,
            QUASI,
            standard="FHIR Patient.gender",
            code_systems=("FHIR administrative gender",),
        ),
    )
    race = dy.Enum(
        v.RACES,
        nullable=True,
        description="Race, for the neutrality audit; never a model feature",
        metadata=terms("V", SUBMISSION, QUASI, standard="US Core race"),
    )
    ethnicity = dy.Enum(
        v.ETHNICITIES,
        nullable=True,
        description="Ethnicity, for the neutrality audit; never a model feature",
        metadata=terms("V", SUBMISSION, QUASI, standard="US Core ethnicity"),
    )
    zip3 = dy.String(
        nullable=True,
        regex=r"^[0-9]{3}$",
        description="First three digits of the ZIP code",
        metadata=terms("PV", SUBMISSION, QUASI),
    )
    sdi_quintile = dy.Int8(
        nullable=True,
        min=1,
        max=5,
        description="Social deprivation, quintile of the area (5 = most deprived)",
        metadata=terms(
            "PV", SUBMISSION, QUASI, declared_range=(1, 5), standard="Graham Center SDI"
        ),
    )
    baseline_labs = dy.List(
        _LAB,
        nullable=True,
        description="Laboratory values up to day 0 (day_offset <= 0)",
        metadata=terms(
            "V", SUBMISSION, CLINICAL, code_systems=("LOINC", "UCUM"), labels=_LAB_NAMES
        ),
    )
    followup_labs = dy.List(
        _LAB,
        nullable=True,
        description="Laboratory values after day 0 (day_offset > 0)",
        metadata=terms("V", FOLLOWUP, CLINICAL, code_systems=("LOINC", "UCUM"), labels=_LAB_NAMES),
    )
    readmission_30d = dy.Bool(
        nullable=True,
        description="Unplanned readmission within 30 days of a live discharge",
        metadata=terms("PV", FOLLOWUP, CLINICAL),
    )
    ed_visit_30d = dy.Bool(
        nullable=True,
        description="Emergency visit or unplanned admission within 30 days",
        metadata=terms("PV", FOLLOWUP, CLINICAL),
    )
    ed_visit_90d = dy.Bool(
        nullable=True,
        description="Emergency visit or unplanned admission within 90 days",
        metadata=terms("PV", FOLLOWUP, CLINICAL),
    )
    death_90d = dy.Bool(
        nullable=True,
        description="Death within 90 days",
        metadata=terms("V", FOLLOWUP, CLINICAL),
    )
    cost_90d = dy.Float64(
        nullable=True,
        min=0,
        description="Eligible amount of all claims within 90 days",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 250_000)),
    )
    days_to_event = dy.Int32(
        nullable=True,
        min=0,
        description="Days to the first event, or to the end of follow-up",
        metadata=terms("V", FOLLOWUP, CLINICAL, unit="d", declared_range=(0, 365)),
    )
    event_observed = dy.Bool(
        nullable=True,
        description="Whether days_to_event ends in an event (false: censored)",
        metadata=terms("V", FOLLOWUP, CLINICAL),
    )
    followup_days_observed = dy.Int32(
        min=0,
        description="Days of follow-up that the site could observe",
        metadata=terms("PV", FOLLOWUP, OPERATIONAL, unit="d", declared_range=(0, 365)),
    )

    @dy.rule()
    def baseline_labs_before_day_0(cls) -> pl.Expr:
        """Baseline laboratory values were taken on day 0 or before."""
        days = pl.col("baseline_labs").list.eval(pl.element().struct.field("day_offset"))
        return days.list.max().fill_null(0) <= 0

    @dy.rule()
    def followup_labs_after_day_0(cls) -> pl.Expr:
        """Follow-up laboratory values were taken after day 0."""
        days = pl.col("followup_labs").list.eval(pl.element().struct.field("day_offset"))
        return days.list.min().fill_null(1) > 0
