"""What was asked of a payer."""

import dataframely as dy
import polars as pl

from data_contracts import vocabulary as v
from data_contracts.fields import terms
from data_contracts.schemas.shared_terms import (
    CLINICAL,
    CODE,
    OPERATIONAL,
    PATIENT_TOKEN,
    QUASI,
    REQUEST_TOKEN,
    SUBMISSION,
)


class PaRequest(dy.Schema):
    """One row per requested item of a prior-authorization request."""

    request_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The request, the same at the payer and the provider",
        metadata=REQUEST_TOKEN,
    )
    item_sequence = dy.Int16(
        primary_key=True,
        min=1,
        description="Number of the item within the request",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="FHIR Claim.item.sequence"),
    )
    patient_token = dy.String(
        nullable=True,
        regex=v.TOKEN_PATTERN,
        description="The patient; absent where tokens may not be shared (safe_harbor)",
        metadata=PATIENT_TOKEN,
    )
    payer_id = dy.String(
        regex=v.PSEUDONYM_PATTERN,
        description="Network pseudonym of the payer",
        metadata=terms("PV", SUBMISSION, OPERATIONAL),
    )
    provider_group_id = dy.String(
        regex=v.PSEUDONYM_PATTERN,
        description="Network pseudonym of the provider group, never an NPI",
        metadata=terms("PV", SUBMISSION, OPERATIONAL),
    )
    business_line = dy.Enum(
        v.BUSINESS_LINES,
        description="Line of business",
        metadata=terms(
            "PV",
            SUBMISSION,
            OPERATIONAL,
            standard="CMS-0057-F impacted payers",
            labels=v.BUSINESS_LINES,
        ),
    )
    request_type = dy.Enum(
        v.REQUEST_TYPES,
        description="Medical item or drug; the CMS-0057-F metrics exclude drugs",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, labels=v.REQUEST_TYPES),
    )
    claim_type = dy.Enum(
        v.CLAIM_TYPES,
        nullable=True,
        description="Type of the claim to follow",
        metadata=terms(
            "PV",
            SUBMISSION,
            OPERATIONAL,
            standard="FHIR Claim.type",
            code_systems=("FHIR claim type",),
        ),
    )
    certification_type = dy.Enum(
        v.CERTIFICATION_TYPES,
        description="Initial, renewal, revision, appeal, cancellation or extension",
        metadata=terms(
            "PV",
            SUBMISSION,
            OPERATIONAL,
            standard="X12 278 UM02",
            code_systems=("X12 1322",),
            labels=v.CERTIFICATION_TYPES,
        ),
    )
    level_of_service = dy.Enum(
        v.LEVELS_OF_SERVICE,
        nullable=True,
        description="Elective, urgent or emergency",
        metadata=terms(
            "PV",
            SUBMISSION,
            OPERATIONAL,
            standard="X12 278 UM06",
            code_systems=("X12 1338",),
            labels=v.LEVELS_OF_SERVICE,
        ),
    )
    request_category = dy.Enum(
        v.REQUEST_CATEGORIES,
        nullable=True,
        description="Category of the review",
        metadata=terms(
            "PV",
            SUBMISSION,
            OPERATIONAL,
            standard="X12 278 UM01",
            code_systems=("X12 1525",),
            labels=v.REQUEST_CATEGORIES,
        ),
    )
    service_type = dy.Enum(
        v.SERVICE_TYPES,
        nullable=True,
        description="Type of service asked for",
        metadata=terms(
            "PV",
            SUBMISSION,
            CLINICAL,
            standard="X12 278 UM03",
            code_systems=("X12 1365",),
            labels=v.SERVICE_TYPES,
        ),
    )
    procedure_code = dy.String(
        nullable=True,
        regex=r"^[A-Z0-9]{5}$",
        description="HCPCS Level II or CPT code",
        metadata=terms("PV", SUBMISSION, CLINICAL, code_systems=("HCPCS Level II", "CPT")),
    )
    ndc = dy.String(
        nullable=True,
        regex=r"^[0-9]{11}$",
        description="National Drug Code, 11 digits",
        metadata=terms("PV", SUBMISSION, CLINICAL, code_systems=("NDC",)),
    )
    rxcui = dy.String(
        nullable=True,
        regex=r"^[0-9]{1,8}$",
        description="RxNorm concept",
        metadata=terms("PV", SUBMISSION, CLINICAL, code_systems=("RxNorm",)),
    )
    modifier = dy.List(
        dy.String(regex=r"^[A-Z0-9]{2}$"),
        nullable=True,
        description="Procedure modifiers",
        metadata=terms("PV", SUBMISSION, CLINICAL, code_systems=("HCPCS Level II", "CPT")),
    )
    dx_principal = dy.String(
        nullable=True,
        regex=v.ICD10CM_PATTERN,
        description="Principal diagnosis; a request may come without",
        metadata=terms(
            "PV",
            SUBMISSION,
            CLINICAL,
            standard="X12 278 HI, FHIR Claim.diagnosis",
            code_systems=("ICD-10-CM",),
        ),
    )
    dx_other = dy.List(
        dy.String(regex=v.ICD10CM_PATTERN),
        nullable=True,
        description="Further diagnoses",
        metadata=terms("PV", SUBMISSION, CLINICAL, code_systems=("ICD-10-CM",)),
    )
    risk_score = dy.Float64(
        nullable=True,
        min=0,
        description="Risk-adjustment score from the diagnoses known at submission",
        metadata=terms("PV", SUBMISSION, CLINICAL, declared_range=(0.0, 6.0), standard="CMS-HCC"),
    )
    place_of_service = dy.String(
        nullable=True,
        regex=r"^[0-9]{2}$",
        description="Place of service",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, code_systems=("CMS place of service",)),
    )
    provider_taxonomy = dy.String(
        nullable=True,
        regex=r"^[0-9A-Z]{10}$",
        description="Provider taxonomy",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, code_systems=("NUCC provider taxonomy",)),
    )
    quantity = dy.Float64(
        nullable=True,
        min_exclusive=0,
        description="Quantity asked for",
        metadata=terms("PV", SUBMISSION, CLINICAL, declared_range=(0.0, 365.0)),
    )
    quantity_unit = dy.Enum(
        v.QUANTITY_UNITS,
        nullable=True,
        description="Unit of the quantity",
        metadata=terms(
            "PV",
            SUBMISSION,
            CLINICAL,
            standard="X12 278 HSD01, SV103, SV204",
            code_systems=("X12 355",),
            labels=v.QUANTITY_UNITS,
        ),
    )
    channel = dy.Enum(
        v.CHANNELS,
        description="How the request came in",
        metadata=terms("PV", SUBMISSION, OPERATIONAL),
    )
    policy_id = dy.String(
        nullable=True,
        regex=v.PSEUDONYM_PATTERN,
        description="Coverage policy that applies",
        metadata=terms("PV", SUBMISSION, OPERATIONAL),
    )
    policy_version = dy.Int16(
        nullable=True,
        min=1,
        description="Version of the coverage policy",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, declared_range=(1, 20)),
    )
    criteria_required = dy.List(
        CODE,
        nullable=True,
        description="Policy elements that the policy asks to be documented",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="Da Vinci DTR questionnaire items"),
    )
    criteria_documented = dy.List(
        CODE,
        nullable=True,
        description="Policy elements that the request documents",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="Da Vinci DTR response items"),
    )
    step_required_n = dy.Int16(
        nullable=True,
        min=0,
        description="Step-therapy steps that the policy asks for",
        metadata=terms("PV", SUBMISSION, CLINICAL, declared_range=(0, 5)),
    )
    step_failed_n = dy.Int16(
        nullable=True,
        min=0,
        description="Step-therapy steps documented as failed",
        metadata=terms("PV", SUBMISSION, CLINICAL, declared_range=(0, 5)),
    )
    attachments_n = dy.Int16(
        nullable=True,
        min=0,
        description="Attachments sent with the request",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, declared_range=(0, 20), standard="X12 275"),
    )
    network_status = dy.Enum(
        v.NETWORK_STATUS,
        nullable=True,
        description="Provider in or out of the payer's network",
        metadata=terms("P", SUBMISSION, OPERATIONAL),
    )
    eligibility_verified = dy.Bool(
        nullable=True,
        description="Eligibility was verified before submission",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="X12 270/271"),
    )
    service_year = dy.Int16(
        min=2000,
        max=2100,
        description="Calendar year of the request",
        metadata=terms("PV", SUBMISSION, QUASI, unit="a", declared_range=(2020, 2030)),
    )
    request_day = dy.Int32(
        description="Day of the request, counted from the patient's own day 0",
        metadata=terms("PV", SUBMISSION, QUASI, unit="d", declared_range=(0, 3650)),
    )

    @dy.rule()
    def one_item_code(cls) -> pl.Expr:
        """A request names a procedure, an NDC, an RxNorm concept or a type of service."""
        named = pl.col("procedure_code", "ndc", "rxcui", "service_type")
        return pl.any_horizontal(named.is_not_null())

    @dy.rule()
    def documented_within_required(cls) -> pl.Expr:
        """Only elements that the policy asks for count as documented."""
        extra = pl.col("criteria_documented").list.set_difference(pl.col("criteria_required"))
        return extra.list.len().fill_null(0) == 0
