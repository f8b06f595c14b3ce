"""A Claim that asks for authorization (Da Vinci PAS) becomes `request` events, one per item.

Source: Da Vinci Prior Authorization Support 2.0.1 and 2.1.0 (Claim, Claim Update, extensions);
X12 005010X217 for the codes. Older drafts of the guide name some extensions otherwise.
"""

from collections.abc import Iterator
from typing import Any, Final

from data_contracts import vocabulary as v
from data_contracts.codes.quantities import unit_of_quantity
from data_contracts.readers.fhir.codes import (
    coded,
    extension_codes,
    extensions,
    plain_code,
    plain_codes,
)
from data_contracts.readers.fhir.dates import moment
from data_contracts.readers.fhir.element import Element
from data_contracts.readers.fhir.facts import Asked, Diagnosis, Order, earlier
from data_contracts.readers.fhir.unit import Unit

_CANCELLED: Final = frozenset(
    {"modifierextension-infoCancelled", "extension-infoCancelled", "extension-itemCancelled"}
)
_CHANGED: Final = "extension-infoChanged"  # stands in updates alone
_DIAGNOSED: Final = frozenset({"diagnosisCodeableConcept", "diagnosisReference"})
_PRIORITIES: Final = {"stat": "U", "normal": "E", "deferred": "E"}


def requests(claim: Element, asked: Asked, unit: Unit) -> None:
    """Add a request's items.

    An update is a Claim that is `related` to an earlier one. It has an identifier of its own, but
    is the same request sent again: as in X12, where a revision (UM02 is S) repeats the trace
    number, it has the token of the first Claim of the chain. So `pa_request` keeps the row of the
    first submission (and those of items that were added), and answers to the update are further
    exchanges of `pa_decision`. An update repeats all items: each that is neither cancelled nor says
    otherwise is revised ("S").

    Args:
        claim: The Claim.
        asked: Its token and payer, of the first Claim if it is an update.
        unit: Where events and notes go.

    Raises:
        ReaderError: It has no identifier or moment of submission, asks for nothing, or an element
            that is used is not what FHIR says.
    """
    if asked.token is None:
        raise claim.wrong("identifier", "a request needs an identifier, which its answer repeats")
    if "identifier" not in claim.fields:
        unit.note("a Claim without identifier, told by its id, which other sites do not know")
    if "created" not in claim.fields:
        raise claim.wrong("created", "the moment of the request is missing")
    whole = _of_claim(claim, asked, unit)
    of_claim = _certification(claim)
    if asked.earlier:
        unit.note("an update whose earlier request is not there")
    revises = earlier(claim) is not None
    cancelled = claim.text("status") == "cancelled"
    seen: set[int] = set()
    for item, fields in _items(claim, unit):
        number = fields["item_sequence"]
        if number in seen:
            raise item.wrong("sequence", "an earlier item has the same number")
        seen.add(number)
        own = extension_map(item)
        certification = (
            _certification(item)
            or ("3" if cancelled or _is_cancelled(item) else None)
            or of_claim
            or ("S" if revises or _CHANGED in own else "I")
        )
        drug = bool(fields["ndc"] or fields["rxcui"]) or plain_code(claim, "type") == "pharmacy"
        event = {**whole, **fields}
        event["request_type"] = "drug" if drug and not fields["procedure_code"] else "medical"
        event["certification_type"] = _allowed(
            certification, v.CERTIFICATION_TYPES, "certification type", unit
        )
        asked_for = _first(own.get("extension-serviceItemRequestType"))
        if category := _allowed(asked_for, v.REQUEST_CATEGORIES, "request category", unit):
            event["request_category"] = category
        unit.add("request", claim, **event)


def extension_map(element: Element) -> dict[str, Element]:
    """An element's extensions by the last part of their address."""
    return dict(extensions(element)) if "extension" in element.fields else {}


def diagnoses(claim: Element, unit: Unit) -> tuple[str | None, list[str]]:
    """The principal diagnosis (so marked, else the first in sequence), and the others.

    A diagnosis of another system than ICD-10-CM is noted; none takes the place of the principal.
    """
    found: list[tuple[bool, int, str | None]] = []
    for diagnosis in claim.children("diagnosis"):
        if "packageCode" in diagnosis.fields and not _DIAGNOSED & diagnosis.fields.keys():
            continue  # a diagnosis-related group alone
        concept = diagnosis.child("diagnosisCodeableConcept")
        code = concept and coded(concept, "icd10", unit.notes)
        if concept is None:
            condition = unit.directory.find(diagnosis.child("diagnosisReference"), Diagnosis)
            code = condition and condition.code
            if condition is None:
                unit.note("a diagnosis whose Condition is not there")
        if code is None:
            unit.note("a diagnosis without ICD-10-CM code")
        marked = any(
            code == "principal" for kind in diagnosis.children("type") for code in plain_codes(kind)
        )
        found.append((not marked, diagnosis.whole("sequence", 1 << 31) or 0, code))
    found.sort(key=lambda each: each[:2])
    if not found:
        return None, []
    return found[0][2], [code for _, _, code in found[1:] if code]


def _of_claim(claim: Element, asked: Asked, unit: Unit) -> dict[str, Any]:
    """What holds for all items."""
    directory = unit.directory
    cover = directory.cover(claim)
    patient = directory.patient(claim, cover)
    if patient is None:
        unit.note("a request whose patient is unknown (no coverage with payer and member id)")
    if asked.payer is None:
        unit.note("a request whose payer is unknown")
    provider = directory.party(claim.child("provider"))
    group = provider and directory.group(provider)
    if group is None:
        unit.note("a request whose provider is unknown")
    line = (cover and cover.business_line) or (asked.payer and asked.payer.business_line)
    level = _first(extension_map(claim).get("extension-levelOfServiceCode"))
    principal, others = diagnoses(claim, unit)
    kind = plain_code(claim, "type")
    return {
        "request_token": asked.token,
        "patient_token": patient,
        "payer_id": asked.payer and asked.payer.pseudonym,
        "provider_group_id": group,
        "business_line": line,
        "claim_type": kind if kind in v.CLAIM_TYPES else None,
        "level_of_service": _allowed(level, v.LEVELS_OF_SERVICE, "level of service", unit)
        or _PRIORITIES.get(plain_code(claim, "priority") or ""),
        # The first drafts of the guide had the category of the request as the claim's type.
        "request_category": kind if kind in v.REQUEST_CATEGORIES else None,
        "dx_principal": principal,
        "dx_other": others,
        "provider_taxonomy": (provider and provider.taxonomy) or _team_taxonomy(claim, unit),
        "channel": "FHIR",
        "attachments_n": _attachments(claim),
        "submitted_at": moment(claim, "created", unit.notes),
    }


def _items(claim: Element, unit: Unit) -> Iterator[tuple[Element, dict[str, Any]]]:
    """Each item, and its fields; a claim without any asks for what its prescription names."""
    if claim.first("item") is None:
        order = _prescription(claim, unit)
        if order is None:
            raise claim.wrong("item", "no item, and no prescription that is given with the claim")
        unit.note("a Claim without items, told by its prescription")
        yield claim, _fields(1, order.procedure_code, order.ndc, order.rxcui)
        return
    for item in claim.children("item"):
        sequence = item.whole("sequence")
        if sequence is None:
            raise item.wrong("sequence", "the number of the item is missing")
        concept = item.child("productOrService")
        procedure, ndc, rxcui = (
            concept and coded(concept, system, unit.notes)
            for system in ("procedure", "ndc", "rxnorm")
        )
        if not (procedure or ndc or rxcui) and (order := _ordered(item, unit)):
            procedure, ndc, rxcui = order.procedure_code, order.ndc, order.rxcui
        if not (procedure or ndc or rxcui):
            unit.note("an item without HCPCS, CPT, NDC or RxNorm code")
        fields = _fields(sequence, procedure, ndc, rxcui)
        fields["modifier"] = _modifiers(item, unit)
        service = plain_code(item, "category")
        if service is not None:
            fields["service_type"] = service if service in v.SERVICE_TYPES else "other"
        fields["place_of_service"] = _place(item, unit)
        if quantity := item.child("quantity"):
            fields["quantity"] = quantity.number("value")
            fields["quantity_unit"] = unit_of(quantity, unit)
        yield item, fields


def _fields(
    sequence: int, procedure: str | None, ndc: str | None, rxcui: str | None
) -> dict[str, Any]:
    return {
        "item_sequence": sequence,
        "procedure_code": procedure,
        "ndc": ndc,
        "rxcui": rxcui,
        "modifier": [],
    }


def unit_of(quantity: Element, unit: Unit) -> str | None:
    """The contract's code of a Quantity's unit (X12 or UCUM); its `unit` is free text."""
    code = quantity.text("code")
    if code is not None:
        return unit_of_quantity(code, unit.note)
    if "unit" in quantity.fields:
        unit.note("a unit without code")
    return None


def _prescription(claim: Element, unit: Unit) -> Order | None:
    prescription = claim.child("prescription")
    if prescription is None:
        return None
    return unit.directory.find(prescription, Order) or _ordered(prescription, unit)


def _ordered(element: Element, unit: Unit) -> Order | None:
    """What the extension `requestedService` refers to."""
    service = extension_map(element).get("extension-requestedService")
    return unit.directory.find(service.child("valueReference"), Order) if service else None


def _modifiers(item: Element, unit: Unit) -> list[str]:
    codes = [code for modifier in item.children("modifier") for code in plain_codes(modifier)]
    found = [code for code in codes if len(code) == 2 and code.isascii() and code.isalnum()]
    if len(found) < len(codes):
        unit.notes["a modifier that has not two characters"] += len(codes) - len(found)
    return [code.upper() for code in found]


def _place(item: Element, unit: Unit) -> str | None:
    code = plain_code(item, "locationCodeableConcept")
    if code is None or (len(code) == 2 and code.isascii() and code.isdigit()):
        return code
    unit.note("a place of service that has not two digits")
    return None


def _team_taxonomy(claim: Element, unit: Unit) -> str | None:
    """The taxonomy of the care team's first member who has one."""
    for member in claim.children("careTeam"):
        concept = member.child("qualification")
        if concept is not None and (code := coded(concept, "taxonomy", unit.notes)):
            return code
        party = unit.directory.party(member.child("provider"))
        if party is not None and party.taxonomy:
            return party.taxonomy
    return None


def _attachments(claim: Element) -> int:
    """Supporting documents: those of `supportingInfo` with a reference or an attachment."""
    count = sum(
        "valueReference" in info.fields or "valueAttachment" in info.fields
        for info in claim.children("supportingInfo")
    )
    return min(count, 32_767)


def _certification(element: Element) -> str | None:
    """X12 UM02 by its extension; the first drafts of the guide had it on the primitive `use`."""
    extension = extension_map(element).get("extension-certificationType")
    if extension is None and (primitive := element.child("_use")) is not None:
        extension = extension_map(primitive).get("extension-certificationType")
    return _first(extension)


def _is_cancelled(item: Element) -> bool:
    return any(
        name in _CANCELLED and extension.flag("valueBoolean") is True
        for where in ("extension", "modifierExtension")
        for name, extension in extensions(item, where)
    )


def _first(extension: Element | None) -> str | None:
    return next(extension_codes(extension), None) if extension else None


def _allowed(code: str | None, allowed: dict[str, str], what: str, unit: Unit) -> str | None:
    if code is None or code in allowed:
        return code
    unit.note(f"a {what} that the contract does not hold")
    return None
