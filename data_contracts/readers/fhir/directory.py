"""What references lead to: payers, providers, patients and requests, as tokens and pseudonyms.

Resources are learned in three stages, each needing those before it, so that an identifier becomes
a token as soon as it is read. What is kept of a patient is the reference and a token. Kept as they
are: identifiers of organizations and practitioners, which requests' tokens are made of, and the
member ids of dependents, until their Patient (birth date, first name) is read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar, final

from data_contracts.crosswalk import Crosswalk, Payer
from data_contracts.deidentification.tokens import normal
from data_contracts.readers.fhir.codes import coded, plain_code, plain_codes
from data_contracts.readers.fhir.element import Element

_NPI: Final = "http://hl7.org/fhir/sid/us-npi"
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
    """A Claim: its use, token and payer."""

    use: str
    token: str | None
    payer: Payer | None


Fact = Party | Cover | Person | Diagnosis | Order | Asked
FactT = TypeVar("FactT", Party, Cover, Person, Diagnosis, Order, Asked)

STAGES: Final = (
    frozenset({"Organization", "Practitioner"}),
    frozenset({"PractitionerRole", "Coverage"}),
    frozenset(
        {
            *("Patient", "Condition", "Claim"),
            *("ServiceRequest", "DeviceRequest", "MedicationRequest"),
        }
    ),
)
"""Types of resources that references lead to, in the order in which they are learned."""

KNOWN: Final = frozenset.union(*STAGES)


class Directory:
    """Facts by reference.

    Args:
        crosswalk: Pseudonyms and tokens.
        above: Where to look for what is not found here; a resource's contained ones hide it.
    """

    def __init__(self, crosswalk: Crosswalk, above: "Directory | None" = None) -> None:
        self.crosswalk = crosswalk
        self._above = above
        self._facts: dict[str, Fact] = {}
        # Beneficiary -> coverages, and the member id of each that has no token yet.
        self._waiting: dict[str, list[tuple[Cover, str | None, bool]]] = {}
        self.only_claim: Asked | None = above.only_claim if above else None

    def learn_all(self, resources: Iterable[tuple[Element, tuple[str, ...]]]) -> None:
        """Learn the resources of a bundle, each under its names, stage by stage."""
        staged = list(resources)
        claims: list[Asked] = []
        for stage in STAGES:
            for resource, names in staged:
                if resource.text("resourceType") in stage:
                    fact = self.learn(resource, names)
                    if isinstance(fact, Asked):
                        claims.append(fact)
        if len(claims) == 1:
            self.only_claim = claims[0]

    def learn(self, resource: Element, names: tuple[str, ...]) -> Fact:
        """Keep what a resource of `KNOWN` type tells, under names such as "Patient/7".

        Raises:
            ReaderError: An element that is used is of the wrong type.
        """
        kind = resource.text("resourceType")
        fact: Fact
        if kind == "Coverage":
            fact = self._coverage(resource)
        elif kind == "Patient":
            fact = self._patient(resource, names)
        elif kind == "Claim":
            fact = self.within(resource).asked(resource)
        elif kind == "Condition":
            concept = resource.child("code")
            fact = Diagnosis(concept and coded(concept, "icd10", Counter()))
        elif kind == "PractitionerRole":
            fact = self._role(resource)
        elif kind in STAGES[0]:
            fact = _party(resource)
        else:
            fact = _order(resource)
        for name in names:
            self._facts[name] = fact
        return fact

    def reread(self, resource: Element) -> None:
        """Check a resource of `KNOWN` type once more, without keeping anything.

        Raises:
            ReaderError: An element that is used is of the wrong type.
        """
        Directory(self.crosswalk, self).learn(resource, ())

    def within(self, resource: Element) -> "Directory":
        """A directory that knows a resource's contained resources, too ("#1")."""
        if "contained" not in resource.fields:
            return self
        inner = Directory(self.crosswalk, self)
        held = list(resource.children("contained"))
        for each in held:
            if "contained" in each.fields:  # FHIR R4, dom-2
                raise each.wrong("contained", "a contained resource contains none itself")
        inner.learn_all((each, (f"#{each.text('id')}",)) for each in held)
        return inner

    def find(self, reference: Element | None, kind: type[FactT]) -> FactT | None:
        """What a Reference leads to; None if it is not there or leads nowhere.

        An absolute address that is no resource's `fullUrl` is looked up by its type and id.

        Raises:
            ReaderError: It leads to a resource of another kind.
        """
        name = reference and reference.text("reference")
        if reference is None or name is None:
            return None
        name = name.partition("/_history/")[0]
        fact = self.fact(name) or self.fact("/".join(name.rsplit("/", 2)[-2:]))
        if fact is None or isinstance(fact, kind):
            return fact
        raise reference.wrong("reference", "it leads to a resource of another type than is asked")

    def party(self, reference: Element | None) -> Party | None:
        """The organization or practitioner of a Reference; its identifier may stand right there."""
        found = self.find(reference, Party)
        if found is None and reference is not None and (own := reference.child("identifier")):
            value = own.text("value")
            return None if value is None else Party((value,))
        return found

    def payer(self, reference: Element | None) -> Payer | None:
        """The payer of a Reference: by any identifier in the crosswalk, else by the first."""
        party = self.party(reference)
        identifier = party and _known(party, self.crosswalk.payers)
        return None if identifier is None else self.crosswalk.payer(identifier)

    def group(self, party: Party) -> str | None:
        """The provider group: by any identifier in the crosswalk, else by the first."""
        identifier = _known(party, self.crosswalk.providers)
        return None if identifier is None else self.crosswalk.provider(identifier)

    def fact(self, name: str) -> Fact | None:
        """What is known under a name such as "Patient/7"."""
        fact = self._facts.get(name)
        return fact if fact is not None or self._above is None else self._above.fact(name)

    def _role(self, role: Element) -> Party:
        """A role's own identifiers, else those of the practitioner, else of the organization."""
        own = _party(role)
        taxonomy = own.taxonomy
        found = own.identifiers
        for name in ("practitioner", "organization"):
            party = self.party(role.child(name))
            if party is not None:
                found = found or party.identifiers
                taxonomy = taxonomy or party.taxonomy
        return Party(found, taxonomy)

    def _coverage(self, coverage: Element) -> Cover:
        payer = None
        payor = coverage.first("payor")
        if payor is not None and not (payor.text("reference") or "").startswith("Patient/"):
            payer = self.payer(payor)  # a patient who pays is no payer
        kind = coverage.child("type")
        typology = (kind and coded(kind, "payer_type", Counter())) or ""
        line = next((v for k, v in _PAYER_TYPES.items() if typology.startswith(k)), None)
        member = coverage.text("subscriberId") or _member(coverage)
        cover = Cover(payer, line, None, coverage.text("status") in (None, "active", "draft"))
        dependent = _is_dependent(coverage)
        if payer and member and not dependent:
            cover.token = self.crosswalk.tokens.patient(payer.pseudonym, member)
            member = None
        beneficiary = coverage.child("beneficiary")
        name = beneficiary and beneficiary.text("reference")
        if name:
            self._waiting.setdefault(name.partition("/_history/")[0], []).append(
                (cover, member, dependent)
            )
        return cover

    def _patient(self, patient: Element, names: tuple[str, ...]) -> Person:
        own, dependent_name = _member(patient), _dependent(patient)
        covers = [cover for name in names for cover in self._waiting.pop(name, ())]
        for cover, member, dependent in covers:
            member = member or own
            who = dependent_name if dependent else ""
            if cover.token or not cover.payer or not member or who is None:
                continue
            cover.token = self.crosswalk.tokens.patient(
                cover.payer.pseudonym, member, dependent=who
            )
        covers.sort(key=lambda waiting: not waiting[0].active)
        return Person(next((cover.token for cover, _, _ in covers if cover.token), None))

    def asked(self, claim: Element) -> Asked:
        """Use, token and payer of a Claim."""
        use = claim.text("use") or ""
        provider = self.party(claim.child("provider"))
        who = provider.identifiers[0] if provider and provider.identifiers else ""
        number = trace_number(claim)
        tokens = self.crosswalk.tokens
        token = number and (
            tokens.claim(who, number) if use == "claim" else tokens.request(who, number)
        )
        cover = self.cover(claim)
        return Asked(use, token, self.payer(claim.child("insurer")) or (cover and cover.payer))

    def cover(self, claim: Element) -> Cover | None:
        """The coverage of a Claim or ExplanationOfBenefit: the focal one, else the first."""
        insurances = list(claim.children("insurance"))
        insurances.sort(key=lambda insurance: not insurance.flag("focal"))
        return self.find(insurances[0].child("coverage"), Cover) if insurances else None


def trace_number(claim: Element) -> str | None:
    """The Claim's first identifier; its id stands in where it has none, noted by the caller."""
    identifier = claim.first("identifier")
    return (identifier and identifier.text("value")) or claim.text("id")


def _party(resource: Element) -> Party:
    """Identifiers with the NPI first; an organization without any is told by its name."""
    npis: list[str] = []
    others: list[str] = []
    for identifier in resource.children("identifier"):
        value = identifier.text("value")
        if value is not None:
            (npis if identifier.text("system") == _NPI else others).append(value)
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


def _order(resource: Element) -> Order:
    for name in ("code", "codeCodeableConcept", "medicationCodeableConcept"):
        concept = resource.child(name)
        if concept is not None:
            notes: Counter[str] = Counter()
            procedure, ndc, rxcui = (
                coded(concept, system, notes) for system in ("procedure", "ndc", "rxnorm")
            )
            return Order(procedure, ndc, rxcui)
    return Order(None, None, None)


def _known(party: Party, crosswalk: Mapping[str, object]) -> str | None:
    known = (value for value in party.identifiers if normal(value) in crosswalk)
    return next(known, party.identifiers[0] if party.identifiers else None)


def _member(resource: Element) -> str | None:
    """The identifier that is a member id."""
    for identifier in resource.children("identifier"):
        types = set(plain_codes(identifier.child("type")))
        if types & _MEMBER_TYPES or identifier.text("system") in _MEMBER_SYSTEMS:
            return identifier.text("value")
    return None


def _is_dependent(coverage: Element) -> bool:
    relationship = plain_code(coverage, "relationship")
    if relationship is not None:
        return relationship not in ("self", "18")  # X12 1069: 18 is self
    subscriber, beneficiary = coverage.child("subscriber"), coverage.child("beneficiary")
    if subscriber is None or beneficiary is None:
        return False
    return subscriber.text("reference") != beneficiary.text("reference")


def _dependent(patient: Element) -> str | None:
    """Birth date and first name, as readers of X12 join them; None if one is not told."""
    birth = patient.text("birthDate")
    names = sorted(patient.children("name"), key=lambda name: name.text("use") != "official")
    given = names[0].first_text("given") if names else None
    return birth.replace("-", "") + given if birth and len(birth) == 10 and given else None
