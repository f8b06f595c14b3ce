"""Codes in FHIR's elements: which system they are of, and whether they have its shape.

What has not the shape of its system's codes is left out and noted, so that no free text passes as
a code. Systems are told by their canonical address, with http or https.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from data_contracts.readers.fhir.element import Element
from data_contracts.vocabulary import ICD10CM_PATTERN

_ADDRESSES: Final = {
    "procedure": (
        "www.ama-assn.org/go/cpt",
        "bluebutton.cms.gov/resources/codesystem/hcpcs",
        "www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
        "terminology.hl7.org/CodeSystem/HCPCS-all-codes",
        "urn:oid:2.16.840.1.113883.6.285",
        "urn:oid:2.16.840.1.113883.6.12",
    ),
    "ndc": ("hl7.org/fhir/sid/ndc", "urn:oid:2.16.840.1.113883.6.69"),
    "rxnorm": ("www.nlm.nih.gov/research/umls/rxnorm", "urn:oid:2.16.840.1.113883.6.88"),
    "icd10": ("hl7.org/fhir/sid/icd-10-cm", "hl7.org/fhir/sid/icd-10"),
    "loinc": ("loinc.org", "urn:oid:2.16.840.1.113883.6.1"),
    "ucum": ("unitsofmeasure.org",),
    "taxonomy": ("nucc.org/provider-taxonomy", "www.nucc.org/provider-taxonomy"),
    "carc": ("x12.org/codes/claim-adjustment-reason-codes",),
    "rarc": ("x12.org/codes/remittance-advice-remark-codes",),
    "revenue": ("www.nubc.org/CodeSystem/RevenueCodes",),
    "drg": (
        "www.cms.gov/Medicare/Medicare-Fee-for-Service-Payment/AcuteInpatientPPS/"
        "MS-DRG-Classifications-and-Software",
        "terminology.hl7.org/CodeSystem/MSDRG",
    ),
    "payer_type": ("nahdo.org/sopt", "www.nubc.org/CodeSystem/SOPT"),
}
_SYSTEMS: Final = {
    scheme + address: system
    for system, addresses in _ADDRESSES.items()
    for address in addresses
    for scheme in (("",) if address.startswith("urn:") else ("http://", "https://"))
}
_SHAPES: Final = {
    "procedure": re.compile(r"[A-Z0-9]{5}"),
    "ndc": re.compile(r"[0-9]{11}"),
    "rxnorm": re.compile(r"[0-9]{1,8}"),
    "icd10": re.compile(ICD10CM_PATTERN),
    "loinc": re.compile(r"[0-9]{1,7}-[0-9]"),
    "taxonomy": re.compile(r"[0-9A-Z]{10}"),
    "carc": re.compile(r"[A-Z]{0,2}[0-9]{1,3}"),
    "rarc": re.compile(r"[A-Z]{1,2}[0-9]{1,4}"),
    "revenue": re.compile(r"[0-9]{4}"),
    "drg": re.compile(r"[0-9]{3}"),
    "payer_type": re.compile(r"[0-9]{1,5}"),
}
UNIT: Final = re.compile(r"[A-Za-z0-9\[\]{}%/*'.^_+-]{1,24}")
"""Units (UCUM, X12): no blanks."""
_NDC: Final = re.compile(r"([0-9]{4,5})-([0-9]{3,4})-([0-9]{1,2})")


def coded(element: Element, system: str, notes: Counter[str]) -> str | None:
    """The first code of a CodeableConcept that is of `system` and has its shape."""
    for coding in element.children("coding"):
        if system_of(coding) != system:
            continue
        code = coding.text("code")
        if code is None:
            continue
        code = code.strip().upper()
        shaped = _WRITTEN.get(system, str)(code)
        if shaped and _SHAPES[system].fullmatch(shaped):
            return shaped
        notes[f"a code that has not the shape of its system ({system})"] += 1
    return None


def system_of(coding: Element) -> str | None:
    """Our name of a coding's system, or None."""
    address = coding.text("system")
    return None if address is None else _SYSTEMS.get(address.partition("|")[0].rstrip("/"))


def plain_codes(element: Element | None) -> Iterator[str]:
    """All codes of a CodeableConcept, of whatever system: where the element says what they are."""
    if element is not None:
        for coding in element.children("coding"):
            code = coding.text("code")
            if code is not None:
                yield code


def plain_code(element: Element, name: str) -> str | None:
    """The first code of a CodeableConcept field, of whatever system."""
    return next(plain_codes(element.child(name)), None)


def extensions(element: Element, name: str = "extension") -> Iterator[tuple[str, Element]]:
    """The last part of each extension's address, and the extension."""
    for extension in element.children(name):
        url = extension.text("url")
        if url is not None:
            yield url.rpartition("/")[2], extension


def extension_codes(extension: Element) -> Iterator[str]:
    """Codes that are an extension's value: versions of a guide differ in its type."""
    for name in ("valueCode", "valueString"):
        code = extension.text(name)
        if code is not None:
            yield code
    coding = extension.child("valueCoding")
    if coding is not None and (code := coding.text("code")) is not None:
        yield code
    yield from plain_codes(extension.child("valueCodeableConcept"))


def ndc11(code: str) -> str | None:
    """A National Drug Code with 11 digits (5-4-2); None for ten digits without hyphens.

    Ten digits are 4-4-2, 5-3-2 or 5-4-1: hyphens alone tell where the zero is missing.

    >>> ndc11("0002-8215-01"), ndc11("00002821501"), ndc11("0002821501")
    ('00002821501', '00002821501', None)
    """
    if (parts := _NDC.fullmatch(code)) and len(code) in (12, 13):
        return f"{parts[1]:0>5}{parts[2]:0>4}{parts[3]:0>2}"
    return code if len(code) == 11 and code.isascii() and code.isdigit() else None


def _dotted(code: str) -> str:
    """A diagnosis with its dot, which senders may leave out."""
    plain = code.replace(".", "")
    return f"{plain[:3]}.{plain[3:]}" if len(plain) > 3 else plain


def _padded(code: str) -> str:
    """A revenue code with its leading zero."""
    return code.zfill(4) if len(code) == 3 else code


# How contracts write codes that senders write in several ways.
_WRITTEN: Final[dict[str, Callable[[str], str | None]]] = {
    "icd10": _dotted,
    "ndc": ndc11,
    "revenue": _padded,
}
