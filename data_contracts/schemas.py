"""The four network tables, as classes that are enforced at run time.

`contracts/*.odcs.yaml` is generated from these classes (`groundtruth contracts export`), so that
lawyers, data stewards and other tools read the same contract that the code enforces.
"""

import dataframely as dy
import polars as pl

from data_contracts import vocabulary as v
from data_contracts.fields import Available, Classification, terms

SUBMISSION, DECISION, FOLLOWUP = Available.SUBMISSION, Available.DECISION, Available.FOLLOWUP
TOKEN = Classification.TOKEN
QUASI = Classification.QUASI_IDENTIFIER
CLINICAL = Classification.CLINICAL
FINANCIAL = Classification.FINANCIAL
OPERATIONAL = Classification.OPERATIONAL

_BOTH_TOKEN = terms("PV", SUBMISSION, TOKEN)
_PATIENT_TOKEN = terms("PV", SUBMISSION, TOKEN, standard="keyed hash of the patient's identity")
_REQUEST_TOKEN = terms(
    "PV", SUBMISSION, TOKEN, standard="keyed hash of X12 278 TRN02 / FHIR Claim.identifier"
)
_CODES = dy.String(min_length=1, max_length=32)


class PaRequest(dy.Schema):
    """One row per requested item of a prior-authorization request."""

    request_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The request, the same at the payer and the provider",
        metadata=_REQUEST_TOKEN,
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
        metadata=_PATIENT_TOKEN,
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
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="CMS-0057-F impacted payers"),
    )
    request_type = dy.Enum(
        v.REQUEST_TYPES,
        description="Medical item or drug; the CMS-0057-F metrics exclude drugs",
        metadata=terms("PV", SUBMISSION, OPERATIONAL),
    )
    claim_type = dy.Enum(
        v.CLAIM_TYPES,
        nullable=True,
        description="Type of the claim to follow",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="FHIR Claim.type"),
    )
    certification_type = dy.Enum(
        v.CERTIFICATION_TYPES,
        description="Initial, renewal, revision, appeal, cancellation or extension",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="X12 278 UM02"),
    )
    level_of_service = dy.Enum(
        v.LEVELS_OF_SERVICE,
        nullable=True,
        description="Elective, urgent or emergency",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="X12 278 UM06"),
    )
    request_category = dy.Enum(
        v.REQUEST_CATEGORIES,
        nullable=True,
        description="Category of the review",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="X12 278 UM01"),
    )
    service_type = dy.Enum(
        v.SERVICE_TYPES,
        nullable=True,
        description="Type of service asked for",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="X12 data element 1365"),
    )
    procedure_code = dy.String(
        nullable=True,
        regex=r"^[A-Z0-9]{5}$",
        description="HCPCS Level II or CPT code",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="HCPCS"),
    )
    ndc = dy.String(
        nullable=True,
        regex=r"^[0-9]{11}$",
        description="National Drug Code, 11 digits",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="NDC"),
    )
    rxcui = dy.String(
        nullable=True,
        regex=r"^[0-9]{1,8}$",
        description="RxNorm concept",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="RxNorm"),
    )
    modifier = dy.List(
        dy.String(regex=r"^[A-Z0-9]{2}$"),
        nullable=True,
        description="Procedure modifiers",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="HCPCS modifiers"),
    )
    dx_principal = dy.String(
        regex=v.ICD10CM_PATTERN,
        description="Principal diagnosis",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="ICD-10-CM"),
    )
    dx_other = dy.List(
        dy.String(regex=v.ICD10CM_PATTERN),
        nullable=True,
        description="Further diagnoses",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="ICD-10-CM"),
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
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="CMS place of service"),
    )
    provider_taxonomy = dy.String(
        nullable=True,
        regex=r"^[0-9A-Z]{10}$",
        description="Provider taxonomy",
        metadata=terms("PV", SUBMISSION, OPERATIONAL, standard="NUCC"),
    )
    quantity = dy.Float64(
        nullable=True,
        min_exclusive=0,
        description="Quantity asked for",
        metadata=terms("PV", SUBMISSION, CLINICAL, declared_range=(0.0, 365.0)),
    )
    quantity_unit = dy.String(
        nullable=True,
        max_length=8,
        description="Unit of the quantity",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="X12 data element 355"),
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
        _CODES,
        nullable=True,
        description="Policy elements that the policy asks to be documented",
        metadata=terms("PV", SUBMISSION, CLINICAL, standard="Da Vinci DTR questionnaire items"),
    )
    criteria_documented = dy.List(
        _CODES,
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
        """A request names a procedure, an NDC or an RxNorm concept."""
        return pl.any_horizontal(pl.col("procedure_code", "ndc", "rxcui").is_not_null())

    @dy.rule()
    def documented_within_required(cls) -> pl.Expr:
        """Only elements that the policy asks for count as documented."""
        extra = pl.col("criteria_documented").list.set_difference(pl.col("criteria_required"))
        return extra.list.len().fill_null(0) == 0


class PaDecision(dy.Schema):
    """One row per answer of the payer to a request (278 response, FHIR ClaimResponse)."""

    request_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The request that is answered",
        metadata=_REQUEST_TOKEN,
    )
    exchange_seq = dy.Int16(
        primary_key=True,
        min=0,
        description="0 is the answer to the initial exchange",
        metadata=terms("PV", DECISION, OPERATIONAL),
    )
    action_code = dy.Enum(
        v.ACTION_CODES,
        description="What was decided",
        metadata=terms("PV", DECISION, OPERATIONAL, standard="X12 278 HCR01"),
    )
    reason_codes = dy.List(
        _CODES,
        nullable=True,
        description="Reasons given",
        metadata=terms("PV", DECISION, OPERATIONAL, standard="X12 278 HCR03"),
    )
    decision_hours = dy.Float64(
        min=0,
        description="Hours from submission to this answer",
        metadata=terms("PV", DECISION, OPERATIONAL, unit="h", declared_range=(0, 1440)),
    )
    extended_flag = dy.Bool(
        nullable=True,
        description="The review time was extended",
        metadata=terms("PV", DECISION, OPERATIONAL),
    )
    auto_decided = dy.Bool(
        nullable=True,
        description="Decided without a person",
        metadata=terms("P", DECISION, OPERATIONAL),
    )
    reviewer_queue = dy.String(
        nullable=True,
        regex=v.PSEUDONYM_PATTERN,
        description="Queue that reviewed the request",
        metadata=terms("P", DECISION, OPERATIONAL),
    )
    p2p_held = dy.Bool(
        nullable=True,
        description="A peer-to-peer talk was held",
        metadata=terms("PV", DECISION, OPERATIONAL),
    )
    units_approved = dy.Float64(
        nullable=True,
        min=0,
        description="Units approved",
        metadata=terms("PV", DECISION, CLINICAL, declared_range=(0, 365)),
    )
    auth_period_days = dy.Int32(
        nullable=True,
        min=0,
        description="Days for which the authorization holds",
        metadata=terms("PV", DECISION, OPERATIONAL, unit="d", declared_range=(0, 730)),
    )
    appeal_level = dy.Int16(
        nullable=True,
        min=1,
        max=5,
        description="Level of the appeal that this answer closes; null outside appeals",
        metadata=terms("PV", DECISION, OPERATIONAL),
    )
    appeal_outcome = dy.Enum(
        v.APPEAL_OUTCOMES,
        nullable=True,
        description="Outcome of the appeal",
        metadata=terms("PV", DECISION, OPERATIONAL),
    )
    appeal_hours = dy.Float64(
        nullable=True,
        min=0,
        description="Hours from appeal to its outcome",
        metadata=terms("PV", DECISION, OPERATIONAL, unit="h", declared_range=(0, 2160)),
    )

    @dy.rule()
    def appeal_has_level(cls) -> pl.Expr:
        """An appeal outcome names its level, and a level its outcome."""
        return pl.col("appeal_outcome").is_null() == pl.col("appeal_level").is_null()


class ClaimPayment(dy.Schema):
    """One row per adjudicated claim (837/835, CARIN Blue Button ExplanationOfBenefit)."""

    claim_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The claim",
        metadata=_BOTH_TOKEN,
    )
    request_token = dy.String(
        nullable=True,
        regex=v.TOKEN_PATTERN,
        description="The request that authorized the service",
        metadata=_REQUEST_TOKEN,
    )
    patient_token = dy.String(
        nullable=True,
        regex=v.TOKEN_PATTERN,
        description="The patient",
        metadata=_PATIENT_TOKEN,
    )
    claim_status = dy.Enum(
        v.CLAIM_STATUS,
        nullable=True,
        description="How the claim was processed",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, standard="X12 835 CLP02"),
    )
    submitted = dy.Float64(
        min=0,
        description="Charge submitted",
        metadata=terms(
            "PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e6), standard="835 CLP03"
        ),
    )
    eligible = dy.Float64(
        nullable=True,
        min=0,
        description="Amount eligible under the contract",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e6)),
    )
    paid_to_provider = dy.Float64(
        nullable=True,
        description="Paid by the payer to the provider; negative in a reversal",
        metadata=terms(
            "PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e6), standard="835 CLP04"
        ),
    )
    paid_by_patient = dy.Float64(
        nullable=True,
        min=0,
        description="Paid by the patient",
        metadata=terms(
            "PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e5), standard="835 CLP05"
        ),
    )
    deductible = dy.Float64(
        nullable=True,
        min=0,
        description="Share that is deductible",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e5)),
    )
    coinsurance = dy.Float64(
        nullable=True,
        min=0,
        description="Share that is coinsurance",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e5)),
    )
    copay = dy.Float64(
        nullable=True,
        min=0,
        description="Share that is copay",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e4)),
    )
    group_code = dy.Enum(
        v.ADJUSTMENT_GROUPS,
        nullable=True,
        description="Group of the adjustment",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, standard="X12 835 CAS01"),
    )
    carc = dy.String(
        nullable=True,
        regex=r"^[A-Z]{0,2}[0-9]{1,3}$",
        description="Claim adjustment reason code",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, standard="X12 835 CAS02"),
    )
    rarc = dy.List(
        dy.String(regex=r"^[A-Z]{1,2}[0-9]{1,4}$"),
        nullable=True,
        description="Remittance advice remark codes",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, standard="X12 835 LQ02"),
    )
    days_service_to_receipt = dy.Int32(
        nullable=True,
        min=0,
        description="Days from service to receipt of the claim",
        metadata=terms("PV", FOLLOWUP, OPERATIONAL, unit="d", declared_range=(0, 365)),
    )
    days_receipt_to_payment = dy.Int32(
        nullable=True,
        min=0,
        description="Days from receipt to payment; null while unpaid (right-censored)",
        metadata=terms("PV", FOLLOWUP, OPERATIONAL, unit="d", declared_range=(0, 365)),
    )
    payment_method = dy.Enum(
        v.PAYMENT_METHODS,
        nullable=True,
        description="How it was paid",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, standard="X12 835 BPR04"),
    )
    reversal_flag = dy.Bool(
        nullable=True,
        description="The payment reverses an earlier one",
        metadata=terms("PV", FOLLOWUP, FINANCIAL),
    )
    drg = dy.String(
        nullable=True,
        regex=r"^[0-9]{3}$",
        description="Diagnosis-related group",
        metadata=terms("PV", FOLLOWUP, CLINICAL, standard="MS-DRG"),
    )
    revenue_code = dy.String(
        nullable=True,
        regex=r"^[0-9]{4}$",
        description="Revenue code",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, standard="NUBC"),
    )


_LAB = dy.Struct(
    {
        "loinc": dy.String(regex=r"^[0-9]{1,5}-[0-9]$"),
        "value": dy.Float64(),
        "ucum": dy.String(max_length=24),
        "day_offset": dy.Int32(),
    }
)


class ClinicalOutcome(dy.Schema):
    """One row per patient and request: who the patient is, and what happened afterwards.

    Laboratory values are split by time: `baseline_labs` (day 0 and before) may be used at
    submission, `followup_labs` (after day 0) never, so that a leak cannot be configured.
    """

    patient_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The patient",
        metadata=_PATIENT_TOKEN,
    )
    request_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The request, stay or episode that the follow-up starts from",
        metadata=_REQUEST_TOKEN,
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
        metadata=terms("PV", SUBMISSION, QUASI, standard="FHIR Patient.gender"),
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
        metadata=terms("V", SUBMISSION, CLINICAL, standard="LOINC, UCUM"),
    )
    followup_labs = dy.List(
        _LAB,
        nullable=True,
        description="Laboratory values after day 0 (day_offset > 0)",
        metadata=terms("V", FOLLOWUP, CLINICAL, standard="LOINC, UCUM"),
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
