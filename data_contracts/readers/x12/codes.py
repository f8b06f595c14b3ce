"""Codes as the contracts write them; those that are no such code are left out and counted.

Source: NUBC (revenue codes), CMS (MS-DRG, ICD-10-CM), FDA (National Drug Code; 11 digits as
5-4-2), X12 external code sources 139 (CARC) and 411 (RARC).
"""

import re
from collections.abc import Container
from typing import Final

from data_contracts.readers.x12.message import Message
from data_contracts.vocabulary import ICD10CM_PATTERN

_ICD10 = re.compile(ICD10CM_PATTERN)
_PATTERNS: Final = {
    "a diagnosis-related group that is not three digits": re.compile(r"[0-9]{3}"),
    "a procedure code that is none of HCPCS": re.compile(r"[A-Z0-9]{5}"),
    "a modifier that is not two letters or digits": re.compile(r"[A-Z0-9]{2}"),
    "a place of service that is not two digits": re.compile(r"[0-9]{2}"),
    "a taxonomy code that is not ten letters or digits": re.compile(r"[A-Z0-9]{10}"),
    "an adjustment reason that is no CARC": re.compile(r"[A-Z]{0,2}[0-9]{1,3}"),
    "a remark code that is no RARC": re.compile(r"[A-Z]{1,2}[0-9]{1,4}"),
    "a decision reason that is no code": re.compile(r"[A-Z0-9]{1,8}"),
}
DRG, PROCEDURE, MODIFIER, PLACE, TAXONOMY, CARC, RARC, REASON = _PATTERNS


def code(text: str, kind: str, message: Message) -> str | None:
    """A code of this kind; None if it is empty, or no such code, which is counted."""
    if not text or _PATTERNS[kind].fullmatch(text):
        return text or None
    message.note(kind)
    return None


def listed(text: str, allowed: Container[str], element: str, message: Message) -> str | None:
    """A code of a closed list; None if it is empty, or not listed, which is counted."""
    if not text or text in allowed:
        return text or None
    message.note(f"{element}: a code that the contract does not hold")
    return None


def revenue_code(text: str, message: Message) -> str | None:
    """A revenue code with four digits; senders may leave out the leading zero."""
    padded = text.zfill(4) if len(text) == 3 else text
    if not text or (len(padded) == 4 and padded.isascii() and padded.isdigit()):
        return padded or None
    message.note("a revenue code that is not four digits")
    return None


def icd10(text: str, message: Message) -> str | None:
    """A diagnosis in ICD-10-CM, with its dot, which X12 leaves out."""
    plain = text.replace(".", "").upper()
    if not _ICD10.fullmatch(plain):
        message.note("a diagnosis that is no code of ICD-10-CM")
        return None
    return f"{plain[:3]}.{plain[3:]}" if len(plain) > 3 else plain


def ndc(text: str, message: Message) -> str | None:
    """A National Drug Code with 11 digits; ten digits tell it only if hyphens part them."""
    parts = text.split("-")
    if len(parts) == 3:
        text = "".join(part.zfill(width) for part, width in zip(parts, (5, 4, 2), strict=True))
    if len(text) == 11 and text.isascii() and text.isdigit():
        return text
    message.note("a drug code that is no National Drug Code of 11 digits")
    return None
