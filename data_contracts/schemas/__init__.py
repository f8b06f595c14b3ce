"""The four network tables, as classes that are enforced at run time.

`contracts/*.odcs.yaml` is generated from these classes (`groundtruth contracts export`), so that
lawyers, data stewards and other tools read the same contract that the code enforces.
"""

from data_contracts.schemas.claim_payment import ClaimPayment
from data_contracts.schemas.clinical_outcome import ClinicalOutcome
from data_contracts.schemas.pa_decision import PaDecision
from data_contracts.schemas.pa_request import PaRequest

__all__ = ["ClaimPayment", "ClinicalOutcome", "PaDecision", "PaRequest"]
