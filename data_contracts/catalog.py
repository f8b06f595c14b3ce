"""Every contract that a network can use, by name, with its version.

What a version promises, and how far a change must raise it, stands in `compatibility.py`.
"""

from dataclasses import dataclass
from typing import Final

import dataframely as dy

from data_contracts.public.ca_dmhc_imr import ImrDetermination
from data_contracts.public.uci_diabetes_130 import HospitalEncounter
from data_contracts.public.uci_heart_disease import CardiacExam
from data_contracts.schemas import ClaimPayment, ClinicalOutcome, PaDecision, PaRequest


@dataclass(frozen=True, slots=True)
class Contract:
    """A table's contract.

    Attributes:
        name: Name of the table.
        version: Semantic version.
        schema: The dataframely schema that enforces it.
        purpose: One sentence for people who read the YAML.
    """

    name: str
    version: str
    schema: type[dy.Schema]
    purpose: str


CONTRACTS: Final = {
    contract.name: contract
    for contract in (
        Contract("pa_request", "1.0.0", PaRequest, "What was asked of a payer, item by item."),
        Contract("pa_decision", "1.0.0", PaDecision, "What the payer answered, in order."),
        Contract("claim_payment", "1.0.0", ClaimPayment, "How the claim was paid or denied."),
        Contract("clinical_outcome", "1.0.0", ClinicalOutcome, "What happened to the patient."),
        Contract(
            "hospital_encounter",
            "1.0.0",
            HospitalEncounter,
            "An inpatient stay as the Diabetes 130-US hospitals data describe it.",
        ),
        Contract(
            "imr_determination",
            "1.0.0",
            ImrDetermination,
            "An independent reviewer's decision on a denied request (California DMHC).",
        ),
        Contract(
            "cardiac_exam",
            "1.0.0",
            CardiacExam,
            "A cardiac work-up as the UCI heart-disease data describe it.",
        ),
    )
}
