"""Units of what is asked for, as the contract writes them: codes of X12 data element 355.

X12 itself writes some of them otherwise where a quantity is qualified (HSD01), and FHIR in UCUM.
What has no code in the contract stays out, counted.

Source: X12 005010X217 (HSD01, SV103, SV204), 005010X222 (CTP05-1, CR105); Da Vinci PAS 2.1.0,
profile PASQuantity, which takes the codes of HSD01; UCUM 2.1.
"""

from collections.abc import Callable
from typing import Final

from data_contracts.vocabulary import QUANTITY_UNITS

UNKNOWN_UNIT: Final = "a unit of quantity that the contract does not hold"

# Our code -> what else it is written as: in data element 673 (HSD01), and in UCUM.
_SPELLINGS: Final = {
    "UN": ("FL", "EA", "1", "{unit}", "{each}", "{count}", "{tbl}", "{tablet}", "{capsule}"),
    "VS": ("{visit}",),
    "MJ": ("min",),
    "HR": ("HS", "h"),
    "DA": ("DY", "d"),
    "WK": ("wk",),
    "MO": ("MN", "mo"),
    "YR": ("a",),
    "DH": ("[mi_i]", "[mi_us]"),
    "GR": ("g",),
    "ME": ("mg",),
    "ML": ("mL", "ml"),
    "F2": ("[iU]", "[IU]"),
}
_CODES: Final = {
    spelling: code for code in QUANTITY_UNITS for spelling in (code, *_SPELLINGS[code])
}


def unit_of_quantity(code: str, note: Callable[[str], None]) -> str | None:
    """A unit of X12 or UCUM as the contract's code.

    Args:
        code: The unit; capital letters tell, as in UCUM.
        note: Takes `UNKNOWN_UNIT` where the contract has no code for it.

    Returns:
        One of `vocabulary.QUANTITY_UNITS`; None if it is empty or unknown.
    """
    known = _CODES.get(code.strip())
    if known is None and code.strip():
        note(UNKNOWN_UNIT)
    return known
