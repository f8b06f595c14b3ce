"""Code systems of the contracts: allowed codes with our own short labels.

Sources are named beside each table. X12 and CMS codes are facts; their official
descriptions are licensed and are not reproduced. No CPT code or descriptor is shipped.
"""

from typing import Final

TOKEN_PATTERN: Final = r"^[0-9a-f]{16,64}$"  # noqa: S105 - a pattern, not a secret
"""A token: 64 to 256 bits of a keyed hash in lower-case hexadecimal."""

PSEUDONYM_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,31}$"
"""A network pseudonym of a payer, provider group or policy (never an NPI or tax id)."""

ICD10CM_PATTERN: Final = r"^[A-Z][0-9][0-9A-Z](\.?[0-9A-Z]{1,4})?$"
"""ICD-10-CM, with or without the dot (CMS/NCHS)."""

BUSINESS_LINES: Final = {
    "MA": "Medicare Advantage",
    "MCD_MCO": "Medicaid managed care",
    "CHIP": "Children's Health Insurance Program",
    "QHP_FFE": "Qualified health plan on the federal exchange",
    "COMM": "Commercial",
}
"""Payer lines; the first four are impacted payers under CMS-0057-F."""

REQUEST_TYPES: Final = {"medical": "Medical item or service", "drug": "Drug"}
CLAIM_TYPES: Final = ("institutional", "professional", "oral")

CERTIFICATION_TYPES: Final = {
    "I": "Initial",
    "R": "Renewal",
    "S": "Revised",
    "1": "Appeal, immediate",
    "2": "Appeal, standard",
    "3": "Cancel",
    "4": "Extension",
}
"""X12 278 UM02, certification type."""

LEVELS_OF_SERVICE: Final = {"E": "Elective", "U": "Urgent", "03": "Emergency"}
"""X12 278 UM06, level of service; U and 03 are the expedited ones."""

REQUEST_CATEGORIES: Final = {
    "HS": "Health services review",
    "AR": "Admission review",
    "SC": "Specialty care review",
}
"""X12 278 UM01, request category."""

SERVICE_TYPES: Final = {
    "62": "Imaging (MRI, CT)",
    "88": "Pharmacy",
    "2": "Surgery",
    "12": "Durable medical equipment",
    "AE": "Physical therapy",
    "AG": "Skilled nursing",
    "other": "Any other service type",
}
"""X12 data element 1365, service type; the ones with their own shape, the rest pooled."""

CHANNELS: Final = ("FHIR", "X12", "portal", "fax", "phone", "NCPDP_ePA")

NETWORK_STATUS: Final = ("in", "out")

ACTION_CODES: Final = {
    "A1": "Certified in total",
    "A2": "Certified in part",
    "A3": "Not certified",
    "A4": "Pended",
    "A6": "Modified",
    "C": "Cancelled",
    "CT": "Contact payer",
    "NA": "No action required",
}
"""X12 278 HCR01, action code."""

APPEAL_OUTCOMES: Final = ("upheld", "overturned", "partial", "withdrawn")

CLAIM_STATUS: Final = {
    "1": "Processed as primary",
    "2": "Processed as secondary",
    "3": "Processed as tertiary",
    "4": "Denied",
    "19": "Processed as primary, forwarded",
    "20": "Processed as secondary, forwarded",
    "21": "Processed as tertiary, forwarded",
    "22": "Reversal",
    "23": "Not our claim, forwarded",
    "25": "Predetermination",
}
"""X12 835 CLP02, claim status."""

ADJUSTMENT_GROUPS: Final = {
    "CO": "Contractual obligation",
    "OA": "Other adjustment",
    "PI": "Payer-initiated reduction",
    "PR": "Patient responsibility",
}
"""X12 835 CAS01, claim adjustment group."""

PAYMENT_METHODS: Final = {
    "ACH": "Automated clearing house",
    "BOP": "Financial institution's option",
    "CHK": "Cheque",
    "FWT": "Wire transfer",
    "NON": "No payment",
}
"""X12 835 BPR04, payment method."""

AGE_BANDS: Final = (*(f"{low}-{low + 9}" for low in range(0, 90, 10)), "90+")
"""Ten-year bands; everybody over 89 is "90+" (45 CFR 164.514(b)(2)(i)(C))."""

SEXES: Final = ("female", "male", "other", "unknown")
"""FHIR administrative gender."""

RACES: Final = ("white", "black", "asian", "native", "pacific", "other", "unknown")
"""OMB categories (1997 standards), shortened."""

ETHNICITIES: Final = ("hispanic", "not_hispanic", "unknown")

LOINC_LABS: Final = {
    "4548-4": ("HbA1c", "%"),
    "33914-3": ("eGFR", "mL/min/{1.73_m2}"),
    "8480-6": ("Systolic blood pressure", "mm[Hg]"),
}
"""LOINC code -> (our short label, UCUM unit)."""
