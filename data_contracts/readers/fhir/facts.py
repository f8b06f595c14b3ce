"""What is kept of a resource that others refer to, and how it is read."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar, final

from data_contracts.crosswalk import Payer
from data_contracts.deidentification.tokens import first_word
from data_contracts.readers.fhir.addresses import meant
from data_contracts.readers.fhir.codes import coded, plain_code, plain_codes
from data_contracts.readers.fhir.element import Element

_NPI: Final = "http://hl7.org/fhir/sid/us-npi"
_EARLIER: Final = frozenset({"prior", "replaces"})  # PAS has "prior" alone
_MEMBER_TYPES: Final = frozenset({"MB", "MI"})  # HL7 v2 table 0203; X12 NM108 in older messages
_MEMBER_SYSTEMS: Final = frozenset(
    {"http://hl7.org/fhir/sid/us-mbi", "http://hl7.org/fhir/sid/us-medicare"}
)
# Source of Payment Typology (PHDSC): first digits -> line of business.
_PAYER_TYPES: Final = {"11": "MA", "21": "MCD_MCO", "5": "COMM", "6": "COMM"}


@final
@dataclass(slots=True)
class Party:
    """An organization, a practitioner or a role: its identifiers, an NPI first."""

    identifiers: tuple[str, ...]
    taxonomy: str | None = None


@final
@dataclass(slots=True)
class Cover:
    """A coverage; its token is that of its beneficiary."""

    payer: Payer | None
    business_line: str | None
    token: str | None
    active: bool


@final
@dataclass(slots=True)
class Person:
    """A patient; the token is that of the first active coverage."""

    token: str | None


@final
@dataclass(slots=True)
class Diagnosis:
    """A condition's ICD-10-CM code, if it has one."""

    code: str | None


@final
@dataclass(slots=True)
class Order:
    """A request for a service, device or medication: what a claim without items asks for."""

    procedure_code: str | None
    ndc: str | None
    rxcui: str | None


@final
@dataclass(slots=True)
class Asked:
    """A Claim: its use, token and payer, and names of the Claim that it updates, if not found."""

    use: str
    token: str | None
    payer: Payer | None
    earlier: tuple[str, ...] = ()


Fact = Party | Cover | Person | Diagnosis | Order | Asked
FactT = TypeVar("FactT", Party, Cover, Person, Diagnosis, Order, Asked)


def trace_number(claim: Element) -> str | None:
    """The Claim's first identifier; its id stands in where it has none, noted by the caller."""
    identifier = claim.first("identifier")
    return (identifier and identifier.text("value")) or claim.text("id")


def identifiers(resource: Element) -> Iterator[tuple[str | None, str]]:
    """System and value of each identifier."""
    for identifier in resource.children("identifier"):
        value = identifier.text("value")
        if value is not None:
            yield identifier.text("system"), value


def earlier(claim: Element) -> Element | None:
    """The relation that tells which earlier Claim this one updates."""
    for related in claim.children("related"):
        if not _EARLIER.isdisjoint(plain_codes(related.child("relationship"))):
            return related
    return None


def read_party(resource: Element) -> Party:
    """Identifiers with the NPI first; an organization without any is told by its name."""
    npis: list[str] = []
    others: list[str] = []
    for system, value in identifiers(resource):
        (npis if system == _NPI else others).append(value)
    found = (*npis, *others)
    if not found and resource.text("resourceType") == "Organization":
        name = resource.text("name")
        found = (name,) if name else ()
    return Party(found, _taxonomy(resource))


def _taxonomy(resource: Element) -> str | None:
    concepts = [*resource.children("specialty")]
    for qualification in resource.children("qualification"):
        code = qualification.child("code")
        if code is not None:
            concepts.append(code)
    found = (coded(concept, "taxonomy", Counter()) for concept in concepts)
    return next((code for code in found if code), None)


def order(resource: Element) -> Order:
    """Codes of a ServiceRequest, DeviceRequest or MedicationRequest."""
    for name in ("code", "codeCodeableConcept", "medicationCodeableConcept"):
        concept = resource.child(name)
        if concept is not None:
            notes: Counter[str] = Counter()
            procedure, ndc, rxcui = (
                coded(concept, system, notes) for system in ("procedure", "ndc", "rxnorm")
            )
            return Order(procedure, ndc, rxcui)
    return Order(None, None, None)


def member_id(resource: Element) -> str | None:
    """The identifier that is a member id."""
    for identifier in resource.children("identifier"):
        types = set(plain_codes(identifier.child("type")))
        if types & _MEMBER_TYPES or identifier.text("system") in _MEMBER_SYSTEMS:
            return identifier.text("value")
    return None


def is_dependent(coverage: Element) -> bool | None:
    """Whether the beneficiary is another than the subscriber; None where nothing tells.

    Source: FHIR R4, Coverage.relationship and subscriber (both 0..1); HRex and PAS 2.1,
    self-beneficiary: who is not the subscriber has one named. A policy's holder says nothing, it
    may be an employer.
    """
    relationship = plain_code(coverage, "relationship")
    if relationship is not None:
        return relationship not in ("self", "18")  # X12 1069: 18 is self
    subscriber, beneficiary = coverage.child("subscriber"), coverage.child("beneficiary")
    one = meant(subscriber) if subscriber else []
    other = meant(beneficiary) if beneficiary else []
    if not (one and other):
        return None
    return one[0] not in other and other[0] not in one


def first_name_and_birth(patient: Element) -> str | None:
    """Birth date and first name, as readers of X12 give them; None if one is not told."""
    birth = patient.text("birthDate")
    names = sorted(patient.children("name"), key=lambda name: name.text("use") != "official")
    given = names[0].first_text("given") if names else None
    if not (birth and len(birth) == 10 and given and first_word(given)):
        return None
    return f"{birth} {given}"


def business_line(coverage: Element) -> str | None:
    """The line of business that the type of a coverage tells."""
    kind = coverage.child("type")
    typology = (kind and coded(kind, "payer_type", Counter())) or ""
    return next((line for code, line in _PAYER_TYPES.items() if typology.startswith(code)), None)
