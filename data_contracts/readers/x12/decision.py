"""The payer's answer to a request, from its answers to the patient event and to each service.

Source: 005010X217, segment HCR in loops 2000E and 2000F. The contract holds one answer for a
request; the rules by which several become one are ours, and stand in `combine`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

CERTIFIED: Final = frozenset(("A1", "A2", "A6"))
"""Actions (HCR01) that certify something."""

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


def combine(actions: Iterable[str]) -> str:
    """One action for a whole request.

    Equal actions stay. What is still open keeps the whole open: pended (A4) first, then contact
    payer (CT). Cancelled (C) and no action required (NA) say nothing of the other services. Of
    decided ones, A1 and A6 make A6 (all is certified, some of it modified); any other mixture is
    certified in part (A2).

    >>> combine(["A1", "A1"]), combine(["A1", "A3"]), combine(["A3", "A4"]), combine(["A1", "A6"])
    ('A1', 'A2', 'A4', 'A6')
    """
    found = set(actions)
    for undecided in ("A4", "CT"):
        if undecided in found:
            return undecided
    decided = found - {"C", "NA"}
    if not decided:
        return "NA" if found == {"NA"} else "C"
    if len(decided) == 1:
        return decided.pop()
    return "A6" if decided == {"A1", "A6"} else "A2"


def decision(answers: list[Answer], periods: dict[str, int]) -> dict[str, Any]:
    """Fields of a decision, but for tokens, moment and units.

    Args:
        answers: All answers to the request, at least one.
        periods: DTP01 -> days from the first to the last day of the period.
    """
    action = combine(answer.action for answer in answers)
    reasons = dict.fromkeys(reason for answer in answers for reason in answer.reasons)
    days = next((periods[name] for name in PERIODS if name in periods), None)
    return {
        "action_code": action,
        "reason_codes": list(reasons),
        "auth_period_days": days if action in CERTIFIED else None,
    }
