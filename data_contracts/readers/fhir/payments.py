"""Claims for payment, and what payers paid: `claim` and `payment` events.

Source: CARIN Consumer Directed Payer Data Exchange (Blue Button) 2.0, ExplanationOfBenefit; FHIR R4
Claim and ClaimResponse with use "claim". Amounts are in USD.
"""

import re
from collections.abc import Iterator
from datetime import date
from typing import Any, Final

from data_contracts.crosswalk import Payer
from data_contracts.readers.fhir.codes import coded, plain_code, plain_codes
from data_contracts.readers.fhir.dates import day
from data_contracts.readers.fhir.decisions import request_of
from data_contracts.readers.fhir.element import Element
from data_contracts.readers.fhir.facts import Asked, Cover, Party
from data_contracts.readers.fhir.requests import diagnoses
from data_contracts.readers.fhir.unit import Unit

_AMOUNTS: Final = {
    # Our field -> categories of adjudication, the first that is told. What X12 835 calls the
    # patient's responsibility is CARIN's liability; what was paid at the desk may be less.
    "submitted": ("submitted",),
    "eligible": ("eligible",),
    "paid_to_provider": ("paidtoprovider", "benefit"),
    "paid_by_patient": ("memberliability", "paidbypatient"),
    "deductible": ("deductible",),
    "coinsurance": ("coinsurance",),
    "copay": ("copay",),
}
_READ: Final = frozenset(category for names in _AMOUNTS.values() for category in names)
_DRG: Final = re.compile(r"[0-9]{3}")


def claim(resource: Element, asked: Asked, unit: Unit) -> None:
    """Add a claim that a provider submitted (Claim with use "claim").

    Raises:
        ReaderError: It has no identifier, or an element that is used is not what FHIR says.
    """
    if asked.token is None:
        raise resource.wrong("identifier", "a claim needs an identifier")
    if resource.text("status") in ("cancelled", "draft"):
        unit.note("a Claim that was cancelled or never sent")
        return
    patient = _patient(resource, unit.directory.cover(resource), unit)
    served = _service_from(resource, unit)
    total = resource.child("total")
    unit.add(
        "claim",
        resource,
        claim_token=asked.token,
        patient_token=patient,
        authorization_token=_authorization(resource, asked.payer, unit),
        submitted=_usd(total) if total else _sum_of_items(resource),
        service_from=served,
        drg=_drg(resource, unit),
        revenue_code=_revenue_code(resource, unit),
    )
    _tell_diagnoses(resource, patient, served, unit)


def explanation(resource: Element, unit: Unit) -> None:
    """Add the payment that an ExplanationOfBenefit tells.

    Raises:
        ReaderError: Nothing tells its claim, or an element that is used is not what FHIR says.
    """
    if resource.text("use") != "claim":
        unit.note("an ExplanationOfBenefit that is of no claim (its use)")
        return
    directory = unit.directory
    asked = directory.find(resource.child("claim"), Asked)
    cover = directory.cover(resource)
    payer = directory.payer(resource.child("insurer")) or (cover and cover.payer)
    provider = directory.party(resource.child("provider"))
    infos = _by_category(resource)
    patient = _patient(resource, cover, unit)
    served = _service_from(resource, unit)
    unit.add(
        "payment",
        resource,
        claim_token=_claim_token(resource, asked, provider, infos, unit),
        patient_token=patient,
        authorization_token=_authorization(resource, payer, unit),
        claim_status=_status(resource),
        service_from=served,
        received_on=_received(infos, unit),
        drg=_drg(resource, unit) or _drg_of_info(infos),
        revenue_code=_revenue_code(resource, unit),
        **_adjudicated(resource, unit),
    )
    _tell_diagnoses(resource, patient, served, unit)


def answer(response: Element, unit: Unit) -> None:
    """Add the payment that a ClaimResponse with use "claim" tells.

    Raises:
        ReaderError: Nothing tells its claim, or an element that is used is not what FHIR says.
    """
    if response.text("outcome") in ("queued", "error"):
        unit.note("a ClaimResponse without adjudication (queued or error)")
        return
    asked, token = request_of(response, unit)
    if token is None:
        raise response.wrong("request", "the Claim that is answered is not there")
    payer = unit.directory.payer(response.child("insurer")) or (asked and asked.payer)
    number = response.text("preAuthRef")
    tokens = unit.directory.crosswalk.tokens
    unit.add(
        "payment",
        response,
        claim_token=token,
        patient_token=_patient(response, None, unit),
        authorization_token=tokens.authorization(payer.pseudonym, number)
        if payer and number
        else None,
        claim_status=_status(response),
        **_adjudicated(response, unit),
    )


def _claim_token(
    resource: Element,
    asked: Asked | None,
    provider: Party | None,
    infos: dict[str, Element],
    unit: Unit,
) -> str:
    """The claim by the provider's own number for it, which the Claim and X12 837 and 835 have.

    Where only the payer's number is there, it stands in, and is noted.
    """
    if asked is not None and asked.token:
        return asked.token
    who = provider.identifiers[0] if provider and provider.identifiers else ""
    account = infos.get("patientaccountnumber")
    number = account and account.text("valueString")
    logical = resource.child("claim")
    if number is None and logical and (identifier := logical.child("identifier")):
        number = identifier.text("value")
    if number is None:
        own = resource.first("identifier")
        number = own and own.text("value")
        unit.note("a payment told by the payer's number of the claim alone")
    if number is None:
        raise resource.wrong("identifier", "nothing tells which claim was paid")
    return unit.directory.crosswalk.tokens.claim(who, number)


def _adjudicated(resource: Element, unit: Unit) -> dict[str, Any]:
    """Amounts, the reason of the largest adjustment, and the payment's day."""
    totals: dict[str, float] = {}
    # Both say the same of the whole claim; which one is there is the payer's choice.
    for adjudication in resource.children("total") or resource.children("adjudication"):
        _count(adjudication, totals)
    of_items: dict[str, float] = {}
    reasons: list[tuple[float, str]] = []
    remarks: dict[str, None] = {}
    for adjudication in _adjudications(resource):
        reason = adjudication.child("reason")
        if reason is None:
            continue
        amount = adjudication.child("amount")
        if carc := coded(reason, "carc", unit.notes):
            reasons.append((abs(_usd(amount) or 0.0) if amount else 0.0, carc))
        if rarc := coded(reason, "rarc", unit.notes):
            remarks[rarc] = None
    for item in resource.children("item"):
        for adjudication in item.children("adjudication"):
            _count(adjudication, of_items)
    amounts = of_items | totals
    if others := amounts.keys() - _READ:
        unit.notes["an adjudicated amount that the contract does not hold"] += len(others)
    payment = resource.child("payment")
    return {
        **{
            field: next((amounts[name] for name in names if name in amounts), None)
            for field, names in _AMOUNTS.items()
        },
        "carc": max(reasons, key=lambda reason: reason[0])[1] if reasons else None,
        "rarc": list(remarks),
        "paid_on": day(payment, "date", unit.notes) if payment else None,
        "reversal_flag": resource.text("status") == "cancelled",
    }


def _adjudications(resource: Element) -> Iterator[Element]:
    yield from resource.children("adjudication")
    for item in resource.children("item"):
        yield from item.children("adjudication")


def _count(adjudication: Element, sums: dict[str, float]) -> None:
    """Add an amount to its category."""
    amount = adjudication.child("amount")
    if amount is None:
        return
    category = plain_code(adjudication, "category")
    value = _usd(amount)
    if category is None or value is None:
        raise adjudication.wrong("", "an amount without category or value")
    sums[category] = sums.get(category, 0.0) + value


def _usd(money: Element) -> float | None:
    if money.text("currency") not in (None, "USD"):
        raise money.wrong("currency", "amounts are read in USD alone")
    return money.number("value")


def _sum_of_items(resource: Element) -> float | None:
    amounts = [_usd(net) for item in resource.children("item") if (net := item.child("net"))]
    told = [amount for amount in amounts if amount is not None]
    return sum(told) if told else None


def _status(resource: Element) -> str | None:
    """X12 CLP02: reversed, denied, else by the order of payers; None where nothing tells."""
    if resource.text("status") == "cancelled":
        return "22"
    payment = resource.child("payment")
    if payment is not None and plain_code(payment, "type") == "denied":
        return "4"
    order = resource.whole("precedence", 1 << 31)
    return str(order) if order is not None and order <= 3 else None


def _patient(resource: Element, cover: Cover | None, unit: Unit) -> str | None:
    token = unit.directory.patient(resource, cover)
    if token is None:
        unit.note("a claim or payment whose patient is unknown")
    return token


def _authorization(resource: Element, payer: Payer | None, unit: Unit) -> str | None:
    """The number of a prior authorization, as a token."""
    insured = (each.first_text("preAuthRef") for each in resource.children("insurance"))
    number = next((each for each in insured if each), None)
    if number is None and "preAuthRef" in resource.fields:
        number = resource.first_text("preAuthRef")
    if number is None:
        return None
    if payer is None:
        unit.note("an authorization number of an unknown payer")
        return None
    return unit.directory.crosswalk.tokens.authorization(payer.pseudonym, number)


def _service_from(resource: Element, unit: Unit) -> date | None:
    """The first day: of the billable period, else the earliest of the items."""
    period = resource.child("billablePeriod")
    if period is not None and (start := day(period, "start", unit.notes)) is not None:
        return start
    days: list[date | None] = []
    for item in resource.children("item"):
        days.append(day(item, "servicedDate", unit.notes))
        served = item.child("servicedPeriod")
        days.append(day(served, "start", unit.notes) if served else None)
    return min((each for each in days if each is not None), default=None)


def _by_category(resource: Element) -> dict[str, Element]:
    """`supportingInfo` by its category's codes."""
    found: dict[str, Element] = {}
    for info in resource.children("supportingInfo"):
        for code in plain_codes(info.child("category")):
            found.setdefault(code, info)
    return found


def _received(infos: dict[str, Element], unit: Unit) -> date | None:
    info = infos.get("clmrecvddate")
    return day(info, "timingDate", unit.notes) if info else None


def _tell_diagnoses(
    resource: Element, patient: str | None, served: date | None, unit: Unit
) -> None:
    """Add the diagnoses of a claim, if its patient is known."""
    principal, others = diagnoses(resource, unit)
    codes = [code for code in (principal, *others) if code]
    if patient and codes:
        unit.add(
            "diagnosis",
            resource,
            patient_token=patient,
            codes=codes,
            service_from=served,
            told_on=day(resource, "created", unit.notes),
        )


def _drg(resource: Element, unit: Unit) -> str | None:
    for diagnosis in resource.children("diagnosis"):
        package = diagnosis.child("packageCode")
        if package is not None and (code := coded(package, "drg", unit.notes)):
            return code
    return None


def _drg_of_info(infos: dict[str, Element]) -> str | None:
    info = infos.get("drg")
    code = plain_code(info, "code") if info else None
    return code if code and _DRG.fullmatch(code) else None


def _revenue_code(resource: Element, unit: Unit) -> str | None:
    """That of the line with the largest charge."""
    best: tuple[float, str] | None = None
    for item in resource.children("item"):
        concept = item.child("revenue")
        code = concept and coded(concept, "revenue", unit.notes)
        if code:
            net = item.child("net")
            charge = (_usd(net) if net else None) or 0.0
            if best is None or charge > best[0]:
                best = (charge, code)
    return best[1] if best else None
