"""Terms that several tables share, and short names for what every field says."""

import dataframely as dy

from data_contracts.fields import Available, Classification, terms

SUBMISSION, DECISION, FOLLOWUP = Available.SUBMISSION, Available.DECISION, Available.FOLLOWUP
TOKEN = Classification.TOKEN
QUASI = Classification.QUASI_IDENTIFIER
CLINICAL = Classification.CLINICAL
FINANCIAL = Classification.FINANCIAL
OPERATIONAL = Classification.OPERATIONAL

PATIENT_TOKEN = terms("PV", SUBMISSION, TOKEN, standard="keyed hash of the patient's identity")
REQUEST_TOKEN = terms(
    "PV", SUBMISSION, TOKEN, standard="keyed hash of X12 278 TRN02 / FHIR Claim.identifier"
)
CODE = dy.String(min_length=1, max_length=32)
"""One code in a list."""
