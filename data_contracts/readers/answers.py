"""One answer to a request, from a payer's answers to its services; the same for X12 and FHIR.

The contract holds one answer for a request, messages may answer service by service (X12 278 HCR01,
Da Vinci PAS reviewAction). The rules by which several become one are ours.
"""

from collections.abc import Iterable
from typing import Final

CERTIFIED: Final = frozenset(("A1", "A2", "A6"))
"""Actions (X12 278 HCR01) that certify something."""


def combined(actions: Iterable[str]) -> str:
    """One action for a whole request, from one or more.

    Equal actions stay. What is still open keeps the whole open: pended (A4) first, then contact
    payer (CT). Cancelled (C) and no action required (NA) say nothing of the other services. Of
    decided ones, A1 and A6 make A6 (all is certified, some of it modified); any other mixture is
    certified in part (A2).

    >>> combined(["A1", "A1"]), combined(["A1", "A3"]), combined(["A3", "A4"])
    ('A1', 'A2', 'A4')
    >>> combined(["A1", "A6"]), combined(["C", "A3"]), combined(["C", "NA"])
    ('A6', 'A3', 'C')
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
