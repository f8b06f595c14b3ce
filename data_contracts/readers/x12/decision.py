"""The payer's answer to a request, from its answers to the patient event and to each service.

Source: 005010X217, segment HCR in loops 2000E and 2000F.
"""

from dataclasses import dataclass
from typing import Any, Final

from data_contracts.readers.answers import CERTIFIED, combined

PERIODS: Final = ("007", "AAH", "472")
"""Dates (DTP01) that give the authorized period: certification, event, service; first known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HCR, and what stands beside it.

    Attributes:
        action: HCR01.
        number: HCR02, the number of the authorization; may be empty.
        reasons: HCR03.
    """

    action: str
    number: str
    reasons: list[str]


def decision(answers: list[Answer], periods: dict[str, int]) -> dict[str, Any]:
    """Fields of a decision, but for tokens, moment and units.

    Args:
        answers: All answers to the request, at least one.
        periods: DTP01 -> days from the first to the last day of the period.
    """
    action = combined(answer.action for answer in answers)
    reasons = dict.fromkeys(reason for answer in answers for reason in answer.reasons)
    days = next((periods[name] for name in PERIODS if name in periods), None)
    return {
        "action_code": action,
        "reason_codes": list(reasons),
        "auth_period_days": days if action in CERTIFIED else None,
    }
