"""Code systems of the contracts: allowed codes with our own short labels.

Sources are named beside each table. X12 and CMS codes are facts; their official
descriptions are licensed and are not reproduced. No CPT code or descriptor is shipped.
"""

from typing import Final

TOKEN_PATTERN: Final = r"^[0-9a-f]{16,64}$"  # noqa: S105 - a pattern, not a secret
"""A token: 64 to 256 bits of a keyed hash in lower-case hexadecimal."""

PSEUDONYM_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,31}$"
"""A network pseudonym of a payer, provider group or policy (never an NPI or tax id)."""

ICD10CM_PATTERN: Final = r"^([A-Z][0-9]|QA)[0-9A-Z](\.?[0-9A-Z]{1,4})?$"
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

QUANTITY_UNITS: Final = {
    "UN": "Units",
    "VS": "Visits",
    "MJ": "Minutes",
    "HR": "Hours",
    "DA": "Days",
    "WK": "Weeks",
    "MO": "Months",
    "YR": "Years",
    "DH": "Miles",
    "GR": "Grams",
    "ME": "Milligrams",
    "ML": "Millilitres",
    "F2": "International units",
}
"""X12 data element 355, unit of measure; the ones in which services and drugs are asked for."""

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

CODE_SYSTEMS: Final = {
    "CARC": "https://x12.org/codes/claim-adjustment-reason-codes",
    "CMS place of service": (
        "https://www.cms.gov/Medicare/Coding/place-of-service-codes/Place_of_Service_Code_Set"
    ),
    "CPT": "http://www.ama-assn.org/go/cpt",
    "FHIR administrative gender": "http://hl7.org/fhir/administrative-gender",
    "FHIR claim type": "http://terminology.hl7.org/CodeSystem/claim-type",
    "HCPCS Level II": "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "ICD-10-CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD-9-CM": "http://hl7.org/fhir/sid/icd-9-cm",
    "LOINC": "http://loinc.org",
    "MS-DRG": (
        "https://www.cms.gov/Medicare/Medicare-Fee-for-Service-Payment/AcuteInpatientPPS/"
        "MS-DRG-Classifications-and-Software"
    ),
    "NDC": "http://hl7.org/fhir/sid/ndc",
    "NUBC revenue codes": "https://www.nubc.org/CodeSystem/RevenueCodes",
    "NUCC provider taxonomy": "http://nucc.org/provider-taxonomy",
    "RARC": "https://x12.org/codes/remittance-advice-remark-codes",
    "RxNorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "UCUM": "http://unitsofmeasure.org",
    "X12 306": "https://codesystem.x12.org/005010/306",
    "X12 355": "https://codesystem.x12.org/005010/355",
    "X12 591": "https://codesystem.x12.org/005010/591",
    "X12 886": "https://codesystem.x12.org/external/886",
    "X12 1029": "https://codesystem.x12.org/005010/1029",
    "X12 1033": "https://codesystem.x12.org/005010/1033",
    "X12 1322": "https://codesystem.x12.org/005010/1322",
    "X12 1338": "https://codesystem.x12.org/005010/1338",
    "X12 1365": "https://codesystem.x12.org/005010/1365",
    "X12 1525": "https://codesystem.x12.org/005010/1525",
}
"""Name -> URI, as HL7 terminology, Da Vinci PAS and CARIN Blue Button write them.

"X12 n" is the data element n of release 005010, or the external code source n.
"""

REASON_GROUPS: Final = {
    "documentation": {
        "0A": "Test results missing",
        "0P": "Information asked for never came",
        "0U": "More about the patient needed",
    },
    "clinical": {
        "0F": "No medical necessity",
        "0G": "Wrong level of care",
        "0R": "Does not fit the diagnosis",
        "0T": "Experimental",
        "0Y": "Does not fit the age",
        "0Z": "Does not fit the sex",
        "10": "Amount or frequency",
        "16": "Wrong kind of facility",
    },
    "benefit": {
        "04": "More than authorized",
        "09": "Out of network",
        "0L": "Beyond the plan's maximum",
        "0M": "Not covered",
        "0S": "Pre-existing condition",
        "12": "Patient bound to a provider",
        "15": "Outside the plan's area",
        "19": "Cosmetic",
        "20": "Covered once in a lifetime",
        "21": "Transport refused",
        "27": "Premium overdue, month 1",
        "28": "Premium overdue, month 2",
        "29": "Premium overdue, month 3",
    },
    "administrative": {
        "01": "Price authorization has run out",
        "02": "Price authorization superfluous",
        "03": "Not on the price authorization",
        "05": "Wrong special cost",
        "06": "No credit",
        "07": "Cancelled by administration",
        "08": "Resale price too high",
        "0C": "Access restricted",
        "0D": "Primary care must authorize",
        "0E": "Not the primary care physician",
        "0H": "No certification needed",
        "0K": "Belongs to primary care",
        "0N": "No approval beforehand",
        "0Q": "Asked twice",
        "0X": "Does not fit the provider's type",
        "11": "Price",
        "13": "Authorized for someone else",
        "14": "Plan's procedure not followed",
        "17": "Too late",
        "18": "Notification noted",
        "22": "Ambulance segments disagree",
        "23": "Mileage cannot be computed",
        "24": "Mileage does not fit",
        "25": "Other errors in the request",
        "26": "Provider's role missing",
    },
    "review": {
        "0B": "Sent to an external reviewer",
        "0J": "External reviewer certifies",
        "0V": "Medical review needed",
        "0W": "Review under way",
    },
}
"""X12 278 HCR03 (code source 886): our group -> code -> our short label.

The grouping is ours; a code that is not here counts as "other" (`labels.reason_group`).
"""
