"""How sites usually spell the contracts' fields and codes: warehouses, EHRs, claims systems, X12.

Names of fields are compared word by word (see `column_names.words`), so that abbreviations, order
and separators need not be listed. Codes are compared in lower case, without punctuation.
"""

from collections.abc import Mapping
from typing import Final

from data_contracts import vocabulary as v


def _numbered(*names: str, first: int = 1, last: int) -> tuple[str, ...]:
    """Names of the columns that a list lies in, side by side."""
    return tuple(f"{name} {number}" for name in names for number in range(first, last + 1))


SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    # Tokens: only what says that it is one.
    "request_token": (
        *("request token", "auth token", "referral token", "case token", "pa token"),
        *("prior auth token", "trace token"),
    ),
    "patient_token": ("patient token", "member token", "person token", "member pseudonym"),
    "claim_token": ("claim token", "encounter token"),
    # pa_request
    "item_sequence": (
        *("item sequence", "line number", "service line number", "auth line number", "line"),
        *("sequence number", "item number", "request line number", "service sequence number"),
    ),
    "payer_id": ("payer id", "payer", "plan id", "payer code", "health plan id", "carrier id"),
    "provider_group_id": (
        *("provider group id", "provider group", "group practice id", "requesting group"),
        *("practice id", "requesting provider group"),
    ),
    "business_line": (
        *("business line", "line of business", "lob", "product line", "lob code"),
        *("product type",),
    ),
    "request_type": ("request type", "auth type", "benefit type", "medical or drug", "med or rx"),
    "claim_type": ("claim type", "form type", "claim form type", "bill form"),
    "certification_type": (
        *("certification type", "um02", "certification type code", "submission type"),
        *("review type", "request action"),
    ),
    "level_of_service": (
        *("level of service", "um06", "level of service code", "priority", "urgency"),
        *("request priority", "review priority", "auth priority", "referral priority"),
    ),
    "request_category": ("request category", "um01", "request category code", "review category"),
    "service_type": (
        *("service type", "um03", "service type code", "type of service", "service category"),
    ),
    "procedure_code": (
        *("procedure code", "cpt", "cpt code", "hcpcs", "hcpcs code", "cpt hcpcs"),
        *("procedure", "service code", "sv101", "procedure cpt", "sv101 2", "ipcd id"),
    ),
    "ndc": ("ndc", "ndc code", "ndc 11", "national drug code", "drug ndc", "drug code", "lin03"),
    "rxcui": ("rxcui", "rxnorm", "rxnorm code", "rx cui", "rxnorm concept"),
    "modifier": (
        *("modifier", "sv101 3", "procedure modifier", "modifier code", "modifier list"),
        *_numbered("modifier", "procedure modifier", last=4),
    ),
    "dx_principal": (
        *("principal dx", "primary dx", "dx 1", "principal diagnosis code", "diagnosis code"),
        *("primary diagnosis code", "diagnosis", "hi01", "main diagnosis"),
        *("icd10 code", "icd10 primary", "hi01 2", "idcd id", "idcd id primary"),
    ),
    "dx_other": (
        *("dx other", "other diagnosis codes", "secondary dx", "secondary diagnoses"),
        *("dx list", "additional diagnoses", "other diagnoses", "comorbid diagnoses"),
        *_numbered("dx", "dx code", first=2, last=25),  # dx 1 is the principal one
        *_numbered("dx other", "secondary dx", last=24),
    ),
    "risk_score": ("risk score", "raf", "raf score", "hcc score", "risk adjustment factor"),
    "place_of_service": (
        *("place of service", "pos", "pos code", "place of service code", "facility code"),
        *("um04", "pscd id", "pscd id pos"),
    ),
    "provider_taxonomy": (
        *("provider taxonomy", "taxonomy", "taxonomy code", "nucc taxonomy", "prv03"),
        *("requesting provider taxonomy", "rendering taxonomy", "specialty taxonomy"),
    ),
    "quantity": (
        *("quantity", "units requested", "requested units", "requested quantity", "hsd02"),
        *("service units", "visits requested", "service unit count", "number of units"),
    ),
    "quantity_unit": (
        *("quantity unit", "unit type", "uom", "unit of measure", "quantity qualifier"),
        *("hsd01", "units type", "unit code", "unit basis"),
    ),
    "channel": (
        *("channel", "intake channel", "source channel", "submission method", "received via"),
        *("input channel", "how received", "request source", "intake method", "intake source"),
        *("submission channel", "source"),
    ),
    "policy_id": ("policy id", "coverage policy", "medical policy id", "guideline id", "policy"),
    "policy_version": ("policy version", "guideline version", "policy version number"),
    "criteria_required": ("criteria required", "required criteria"),
    "criteria_documented": ("criteria documented", "criteria met", "documented criteria"),
    "step_required_n": ("step required count", "step therapy required", "steps required"),
    "step_failed_n": (
        *("step failed count", "step therapy failed", "steps failed", "failed drugs count"),
    ),
    "attachments_n": ("attachment count", "number of attachments", "document count", "pwk count"),
    "network_status": (
        *("network status", "in network", "provider network status", "par status", "par"),
        *("network indicator", "participating status", "inn oon"),
    ),
    "eligibility_verified": (
        *("eligibility verified", "eligibility checked", "elig check", "coverage verified"),
        *("eligibility status",),
    ),
    "service_year": ("service year", "year", "request year", "year of service", "calendar year"),
    "request_day": (
        *("request day", "day of request", "relative day", "day offset", "days since index"),
    ),
    # pa_decision
    "adjudication_seq": ("adjudication seq", "adjudication number", "claim version"),
    "exchange_seq": (
        *("exchange sequence", "decision sequence", "response sequence"),
        *("determination number", "decision number", "review sequence", "review number"),
    ),
    "action_code": (
        *("action code", "hcr01", "decision", "determination", "decision status"),
        *("auth status", "status", "decision code", "auth decision", "review outcome"),
        *("referral status", "certification action", "determination code", "disposition"),
        *("review decision",),
    ),
    "reason_codes": (
        *("reason codes", "hcr03", "denial reason code", "decision reason", "reason code"),
        *("denial reason", "status reason", "determination reason"),
        *_numbered("reason code", "denial reason", last=5),
    ),
    "decision_hours": (
        *("decision hours", "turnaround hours", "tat hours", "hours to decision", "tat"),
        *("turnaround time hours", "turnaround time"),
    ),
    "extended_flag": ("extended flag", "extension flag", "extension", "tat extended", "extended"),
    "auto_decided": (
        *("auto decided", "auto approved", "auto approval", "auto adjudicated", "touchless"),
        *("auto decision", "automated decision"),
    ),
    "reviewer_queue": ("reviewer queue", "review queue", "work queue", "queue", "workqueue"),
    "p2p_held": ("p2p held", "p2p", "peer to peer", "peer review held", "p2p completed"),
    "units_approved": (
        *("units approved", "approved units", "approved quantity", "authorized units"),
        *("units authorized", "units auth", "certified quantity", "visits approved"),
        *("units certified",),
    ),
    "auth_period_days": (
        *("auth period days", "authorization days", "auth span days", "auth duration days"),
        *("approved days", "auth length days"),
    ),
    "appeal_level": ("appeal level", "level of appeal"),
    "appeal_outcome": ("appeal outcome", "appeal decision", "appeal result", "appeal status"),
    "appeal_hours": ("appeal hours", "appeal turnaround hours", "appeal tat", "appeal tat hours"),
    # claim_payment
    "claim_status": (
        *("claim status", "clp02", "claim status code", "processing status"),
        *("adjudication status",),
    ),
    "submitted": (
        *("submitted", "billed amount", "charge amount", "total charges", "clp03", "charges"),
        *("submitted amount", "submitted charge", "total charge amount"),
        *("claim charge amount", "billed", "charge"),
    ),
    "eligible": ("eligible", "allowed amount", "eligible amount", "allowed", "contract allowed"),
    "paid_to_provider": (
        *("paid to provider", "paid amount", "clp04", "plan paid amount", "payment amount"),
        *("net paid amount", "paid", "claim paid amount", "provider paid amount"),
        *("total paid", "insurance paid amount", "payer paid amount"),
    ),
    "paid_by_patient": (
        *("paid by patient", "patient responsibility", "clp05"),
        *("patient responsibility amount", "member liability", "member responsibility"),
        *("patient paid amount", "member cost share", "patient liability", "patient pay"),
        *("member paid amount",),
    ),
    "deductible": ("deductible", "deductible amount"),
    "coinsurance": ("coinsurance", "coinsurance amount"),
    "copay": ("copay", "copay amount"),
    "group_code": ("group code", "cas01", "adjustment group code", "claim adjustment group code"),
    "carc": (
        *("carc", "cas02", "adjustment reason code", "claim adjustment reason code"),
        *("carc code",),
    ),
    "rarc": (
        *("rarc", "remark code", "remark codes", "rarc code", "lq02", "remittance remark code"),
        *_numbered("rarc", "remark code", last=5),
    ),
    "days_service_to_receipt": (
        *("days service to receipt", "service to receipt days", "submission lag days"),
        *("claim lag days", "receipt lag days"),
    ),
    "days_receipt_to_payment": (
        *("days receipt to payment", "receipt to payment days", "days to pay"),
        *("days to payment", "payment lag days", "claim turnaround days"),
        *("received to paid days",),
    ),
    "payment_method": ("payment method", "bpr04", "payment method code", "payment type"),
    "reversal_flag": ("reversal flag", "reversal", "void flag", "reversal indicator"),
    "drg": ("drg", "drg code", "ms drg", "msdrg", "ms drg code"),
    "revenue_code": ("revenue code", "rev code", "sv201", "ub revenue code"),
    # clinical_outcome
    "age_band": ("age band", "age group", "age range", "age bracket", "age category", "age decade"),
    "sex": ("sex", "gender", "sex code", "gender code", "administrative sex"),
    "race": ("race", "race code", "race category"),
    "ethnicity": ("ethnicity", "ethnic group", "ethnicity code", "hispanic origin"),
    "zip3": ("zip3", "zip 3", "zip code 3", "zip3 code"),
    "sdi_quintile": ("sdi quintile", "sdi", "deprivation quintile", "social deprivation index"),
    "baseline_labs": ("baseline labs", "labs baseline", "baseline lab results"),
    "followup_labs": ("followup labs", "labs followup", "follow up labs"),
    "readmission_30d": (
        *("readmission 30d", "readmit 30", "30 day readmission", "readmitted 30 days"),
    ),
    "ed_visit_30d": (
        *("ed visit 30d", "ed 30 day", "30 day ed visit", "er visit 30 days", "ed visits 30"),
    ),
    "ed_visit_90d": (
        *("ed visit 90d", "ed 90 day", "90 day ed visit", "er visit 90 days", "ed visits 90"),
    ),
    "death_90d": ("death 90d", "mortality 90", "90 day mortality", "died 90 days", "deceased 90"),
    "cost_90d": ("cost 90d", "total cost 90 days", "90 day cost", "allowed 90 days", "tcoc 90"),
    "days_to_event": ("days to event", "time to event", "event days", "time to event days"),
    "event_observed": ("event observed", "event flag", "event", "event occurred"),
    "followup_days_observed": (
        *("followup days observed", "followup days", "days of followup", "observation days"),
        *("days observed", "days followed", "enrolled days followup"),
    ),
}
"""Contract field -> usual names, beside its own."""

LABELS: Final[Mapping[str, Mapping[str, str]]] = {
    "business_line": v.BUSINESS_LINES,
    "request_type": v.REQUEST_TYPES,
    "certification_type": v.CERTIFICATION_TYPES,
    "level_of_service": v.LEVELS_OF_SERVICE,
    "request_category": v.REQUEST_CATEGORIES,
    "service_type": v.SERVICE_TYPES,
    "quantity_unit": v.QUANTITY_UNITS,
    "action_code": v.ACTION_CODES,
    "claim_status": v.CLAIM_STATUS,
    "group_code": v.ADJUSTMENT_GROUPS,
    "payment_method": v.PAYMENT_METHODS,
}
"""Contract field -> code -> its label; the codes of other fields are words themselves."""

CODE_SPELLINGS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "business_line": {
        "MA": ("medicare", "mcr", "medicare adv", "mapd"),
        "MCD_MCO": ("medicaid", "mcd", "managed medicaid", "mdcd"),
        "CHIP": ("schip",),
        "QHP_FFE": ("qhp", "exchange", "marketplace", "aca", "hix"),
        "COMM": ("commercial", "com", "group commercial"),
    },
    "request_type": {
        "medical": ("med", "m", "medical benefit"),
        "drug": ("rx", "pharmacy", "d", "pharmacy benefit"),
    },
    "claim_type": {
        "institutional": ("i", "ub04", "ub", "837i", "inst", "facility", "hospital"),
        "professional": ("p", "cms1500", "hcfa", "hcfa1500", "837p", "prof", "physician"),
        "oral": ("dental", "837d", "d"),
    },
    "certification_type": {
        "I": ("init", "new", "initial request"),
        "R": ("renew", "reauth", "recertification"),
        "S": ("revision", "update", "change"),
        "3": ("cancellation", "canceled"),
        "4": ("extend", "ext", "concurrent"),
    },
    "level_of_service": {
        "E": ("routine", "standard", "non urgent", "nonurgent", "r", "std"),
        "U": ("expedited", "stat", "exp", "urg"),
        "03": ("emergent", "emer", "er", "3"),
    },
    "request_category": {
        "HS": ("health services", "outpatient", "services"),
        "AR": ("admission", "inpatient"),
        "SC": ("specialty", "specialty care", "referral"),
    },
    "service_type": {
        "62": ("imaging", "radiology", "mri", "diagnostic imaging"),
        "88": ("rx", "drug"),
        "2": ("surgical", "02"),
        "12": ("dme",),
        "AE": ("pt", "rehab pt"),
        "AG": ("snf",),
        "other": ("misc", "all other"),
    },
    "quantity_unit": {
        "UN": ("unit", "u", "ea", "each", "fl", "count", "tab", "tablet", "cap", "capsule"),
        "VS": ("visit", "v", "session", "sessions", "treatment"),
        "MJ": ("minute", "min", "mins"),
        "HR": ("hour", "h", "hs", "hrs"),
        "DA": ("day", "d", "dy"),
        "WK": ("week", "wks"),
        "MO": ("month", "mn", "mth"),
        "YR": ("year", "yrs"),
        "DH": ("mile", "mi"),
        "GR": ("gram", "g", "gm"),
        "ME": ("milligram", "mg"),
        "ML": ("milliliter", "milliliters", "millilitre"),
        "F2": ("international unit", "iu"),
    },
    "channel": {
        "FHIR": ("api", "pas"),
        "X12": ("278", "edi", "x12 278"),
        "portal": ("web", "provider portal", "online", "web portal"),
        "fax": ("f", "efax"),
        "phone": ("call", "telephone", "ivr"),
        "NCPDP_ePA": ("epa", "ncpdp", "ncpdp epa"),
    },
    "network_status": {
        "in": ("par", "in network", "inn", "participating", "i", "y"),
        "out": ("non par", "nonpar", "out of network", "oon", "nonparticipating", "o", "n"),
    },
    "action_code": {
        "A1": ("approved", "approve", "apr", "certified", "authorized", "a", "app"),
        "A2": ("partial", "partially approved", "partial approval", "partially certified"),
        "A3": ("denied", "deny", "den", "d", "non certified", "disapproved", "adverse"),
        "A4": ("pending", "pend", "in review", "pended for review", "open"),
        "A6": ("approved with modification", "approved as modified", "mod"),
        "C": ("canceled", "void", "voided", "withdrawn", "cxl"),
        "NA": ("no auth required", "not required", "nar"),
    },
    "appeal_outcome": {
        "upheld": ("uphold", "u", "affirmed", "denial upheld"),
        "overturned": ("overturn", "o", "reversed", "denial overturned"),
        "partial": ("partially overturned", "partial overturn"),
        "withdrawn": ("w", "withdraw"),
    },
    "claim_status": {
        "1": ("01", "primary", "paid", "paid primary"),
        "2": ("02", "secondary", "paid secondary"),
        "3": ("03", "tertiary"),
        "4": ("04", "deny"),
        "22": ("reversed", "void", "voided"),
    },
    "payment_method": {
        "ACH": ("eft", "electronic"),
        "CHK": ("check", "paper check"),
        "FWT": ("wire",),
        "NON": ("none", "zero pay"),
    },
    "sex": {"female": ("f", "woman", "2"), "male": ("m", "man", "1"), "unknown": ("u", "unk")},
    "race": {
        "white": ("w", "caucasian", "white or caucasian"),
        "black": ("b", "african american", "black or african american"),
        "asian": ("a",),
        "native": ("american indian", "american indian or alaska native", "aian"),
        "pacific": ("native hawaiian", "native hawaiian or other pacific islander", "nhpi"),
        "other": ("other race", "some other race", "multiracial", "o"),
        "unknown": ("u", "unk", "declined", "refused"),
    },
    "ethnicity": {
        "hispanic": ("h", "hispanic or latino", "y"),
        "not_hispanic": ("not hispanic", "non hispanic", "not hispanic or latino", "n", "nh"),
        "unknown": ("u", "unk", "declined", "refused"),
    },
}
"""Contract field -> code -> usual words for it, beside its label."""
