"""What references lead to: payers, providers, patients and requests, as tokens and pseudonyms.

Resources are learned in three stages, each needing those before it, so that an identifier becomes
a token as soon as it is read. What is kept of a patient is the reference and a token. Kept as they
are: identifiers of organizations and practitioners, which requests' tokens are made of, and the
member ids of dependents, until their Patient (birth date, first name) is read.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from data_contracts.crosswalk import Crosswalk, Payer
from data_contracts.deidentification.tokens import normal
from data_contracts.readers.fhir.addresses import is_ambiguous, is_global, meant
from data_contracts.readers.fhir.codes import coded
from data_contracts.readers.fhir.element import Element
from data_contracts.readers.fhir.facts import (
    Asked,
    Cover,
    Diagnosis,
    Fact,
    FactT,
    Party,
    Person,
    business_line,
    earlier,
    first_name_and_birth,
    identifiers,
    is_dependent,
    member_id,
    order,
    read_party,
    trace_number,
)

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

_MOST_UPDATES: Final = 100
_SEVERAL: Final = Asked("", None, None)  # what an identifier leads to that several Claims have


class Directory:
    """Facts by reference; the first that is learned under a name stays.

    Args:
        crosswalk: Pseudonyms and tokens.
        above: Where to look for what is not found here: whatever holds a resource's contained ones,
            or what all files of the reading know of each other.
    """

    def __init__(self, crosswalk: Crosswalk, above: "Directory | None" = None) -> None:
        self.crosswalk = crosswalk
        self._above = above
        self._facts: dict[str, Fact] = {}
        # Beneficiary -> coverages, and the member id of each that has no token yet, and whether
        # it is another's; None where nothing tells.
        self._waiting: dict[str, list[tuple[Cover, str | None, bool | None]]] = {}
        self._patients: set[str] = set()  # names of those in the bundle
        self.only_claim: Asked | None = above.only_claim if above else None

    def learn_all(self, resources: Iterable[tuple[Element, tuple[str, ...]]]) -> None:
        """Learn the resources of a bundle, each under its names, stage by stage."""
        staged = list(_unambiguous(resources))
        claims: list[Asked] = []
        self._patients = {
            name
            for resource, found in staged
            if resource.text("resourceType") == "Patient"
            for name in found
        }
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
        if names and (known := self._facts.get(names[0])) is not None:
            return known
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
            fact = read_party(resource)
        else:
            fact = order(resource)
        for name in names:
            self._facts.setdefault(name, fact)
        if names and isinstance(fact, Asked):
            self._number(resource, fact)
        return fact

    def knows(self, names: tuple[str, ...]) -> bool:
        """Whether a resource with these names was learned here."""
        return bool(names) and names[0] in self._facts

    def share(self, resource: Element, names: tuple[str, ...], other: "Directory") -> None:
        """Let all files of the reading know a resource of a bundle, if it has an address.

        Args:
            resource: The resource; it goes before what is known of a copy.
            names: Its names.
            other: What all files know.
        """
        fact = self.fact(names[0]) if names else None
        if fact is None or not is_global(names[0]):
            return
        if isinstance(fact, Asked):
            first = self.first(self.within(resource).asked(resource))
            fact = replace(first, earlier=tuple(filter(is_global, first.earlier)))
            other._number(resource, fact, other._facts.get(names[0]))
        elif isinstance(fact, Cover | Person) and fact.token is None:
            return
        other._facts[names[0]] = fact

    def _number(self, claim: Element, asked: Asked, before: Fact | None = None) -> None:
        """Let a Claim be found by its identifiers, too; `before` is what was known of it."""
        for system, value in identifiers(claim):
            if system is not None:
                name = self._numbered(asked.use, system, value)
                other = self._facts.get(name)
                differs = isinstance(other, Asked) and other.token != asked.token
                self._facts[name] = _SEVERAL if differs and other is not before else asked

    def numbered(self, use: str, system: str, value: str) -> Asked | None:
        """The one Claim of a use that has this identifier."""
        found = self.fact(self._numbered(use, system, value))
        return found if isinstance(found, Asked) and found is not _SEVERAL else None

    def _numbered(self, use: str, system: str, value: str) -> str:
        tokens = self.crosswalk.tokens
        return f"number {(tokens.claim if use == 'claim' else tokens.request)(system, value)}"

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

        Raises:
            ReaderError: It leads to a resource of another kind.
        """
        if reference is None:
            return None
        found = (self.fact(name) for name in meant(reference))
        fact = next((each for each in found if each is not None), None)
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
        return self.crosswalk.own if identifier is None else self.crosswalk.payer(identifier)

    def group(self, party: Party) -> str | None:
        """The provider group: by any identifier in the crosswalk, else by the first."""
        identifier = _known(party, self.crosswalk.providers)
        return None if identifier is None else self.crosswalk.provider(identifier)

    def fact(self, name: str) -> Fact | None:
        """What is known under a name; see `addresses`."""
        fact = self._facts.get(name)
        return fact if fact is not None or self._above is None else self._above.fact(name)

    def _role(self, role: Element) -> Party:
        """A role's own identifiers, else those of the practitioner, else of the organization."""
        own = read_party(role)
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
        member = coverage.text("subscriberId") or member_id(coverage)
        cover = Cover(
            payer,
            business_line(coverage),
            None,
            coverage.text("status") in (None, "active", "draft"),
        )
        dependent = is_dependent(coverage)
        if payer and member and dependent is False:
            cover.token = self.crosswalk.tokens.patient(payer.pseudonym, member)
            member = None
        beneficiary = coverage.child("beneficiary")
        candidates = meant(beneficiary) if beneficiary else []
        if candidates:
            there = (name for name in candidates if name in self._patients)
            name = next(there, candidates[-1])
            self._waiting.setdefault(name, []).append((cover, member, dependent))
        return cover

    def _patient(self, patient: Element, names: tuple[str, ...]) -> Person:
        own, dependent_name = member_id(patient), first_name_and_birth(patient)
        covers = [cover for name in names for cover in self._waiting.pop(name, ())]
        for cover, member, dependent in covers:
            # A member number of the Patient is the patient's own, whoever subscribes.
            member = own if dependent is None else member or own
            who = dependent_name if dependent else ""
            if cover.token or not cover.payer or not member or who is None:
                continue
            cover.token = self.crosswalk.tokens.patient(
                cover.payer.pseudonym, member, dependent=who
            )
        covers.sort(key=lambda waiting: not waiting[0].active)
        token = next((cover.token for cover, _, _ in covers if cover.token), None)
        if token is None and self._above and names:  # a bundle without coverage
            known = self._above.fact(names[0])
            token = known.token if isinstance(known, Person) else None
        return Person(token)

    def asked(self, claim: Element) -> Asked:
        """Use, token and payer of a Claim; an update has the token of what it updates."""
        use = claim.text("use") or ""
        provider = self.party(claim.child("provider"))
        who = provider.identifiers[0] if provider and provider.identifiers else ""
        number = trace_number(claim)
        tokens = self.crosswalk.tokens
        token = number and (
            tokens.claim(who, number) if use == "claim" else tokens.request(who, number)
        )
        cover = self.cover(claim)
        payer = self.payer(claim.child("insurer")) or (cover and cover.payer)
        own = Asked(use, token, payer)
        related = earlier(claim) if use == "preauthorization" else None
        return own if related is None else self._update(own, related.child("claim"), who)

    def _update(self, own: Asked, updated: Element | None, provider: str) -> Asked:
        """An update as the Claim that it updates: by reference, else by identifier."""
        if updated is None:
            return replace(own, earlier=("",))
        found = self.find(updated, Asked)
        if found is not None and found.use == own.use:
            return replace(own, token=found.token, earlier=found.earlier)
        names = meant(updated)
        if (number := updated.child("identifier")) and (value := number.text("value")):
            own = replace(own, token=self.crosswalk.tokens.request(provider, value))
            if system := number.text("system"):
                names.append(self._numbered(own.use, system, value))
        return replace(own, earlier=tuple(names) or ("",))

    def first(self, asked: Asked) -> Asked:
        """A Claim with the token of the first in its chain of updates, as far as that is known.

        What is not known is left in `earlier`.
        """
        for _ in range(_MOST_UPDATES):  # a ring has no first
            found = (self.fact(name) for name in asked.earlier)
            earlier = next((each for each in found if isinstance(each, Asked)), None)
            if earlier is None or earlier.use != asked.use:
                break
            asked = replace(asked, token=earlier.token, earlier=earlier.earlier)
        return asked

    def cover(self, claim: Element) -> Cover | None:
        """The coverage of a Claim or ExplanationOfBenefit: the focal one, else the first."""
        insurances = list(claim.children("insurance"))
        insurances.sort(key=lambda insurance: not insurance.flag("focal"))
        return self.find(insurances[0].child("coverage"), Cover) if insurances else None

    def patient(self, resource: Element, cover: Cover | None) -> str | None:
        """The patient's token by the coverage that is named, else as records of care have it."""
        if cover is not None and cover.token is not None:
            return cover.token
        who = self.find(resource.child("patient"), Person)
        return who.token if who else None


def _unambiguous(
    resources: Iterable[tuple[Element, tuple[str, ...]]],
) -> Iterator[tuple[Element, tuple[str, ...]]]:
    """The resources of a bundle, without names that several of them have."""
    staged = list(resources)
    owners: dict[str, set[str]] = {}
    for _, names in staged:
        for name in filter(is_ambiguous, names):
            owners.setdefault(name, set()).add(names[0])
    for resource, names in staged:
        yield resource, tuple(name for name in names if len(owners.get(name, "1")) == 1)


def _known(party: Party, crosswalk: Mapping[str, object]) -> str | None:
    known = (value for value in party.identifiers if normal(value) in crosswalk)
    return next(known, party.identifiers[0] if party.identifiers else None)
