"""A ClaimResponse to a request for authorization becomes a `decision` event.

Source: Da Vinci Prior Authorization Support 2.0.1 and 2.1.0 (Claim Response, reviewAction); X12
data element 306. Drafts of the guide have the action as a plain value of the response, and HL7's
reference implementation a `disposition`; they are read where no newer form is there.
"""

import re
from collections.abc import Iterator
from datetime import date
from typing import Final
from urllib.parse import parse_qs, urlsplit

from data_contracts.crosswalk import Payer
from data_contracts.readers.answers import CERTIFIED, combined
from data_contracts.readers.fhir.codes import extension_codes, extensions
from data_contracts.readers.fhir.dates import day, moment
from data_contracts.readers.fhir.element import Element
from data_contracts.readers.fhir.facts import Asked, identifiers
from data_contracts.readers.fhir.requests import extension_map
from data_contracts.readers.fhir.unit import Unit
from data_contracts.vocabulary import ACTION_CODES

_DISPOSITIONS: Final = {
    "Granted": "A1",
    "Partial": "A2",
    "Denied": "A3",
    "Pending": "A4",
    "Cancelled": "C",
}
_OUTCOMES: Final = frozenset({"complete", "queued", "partial", "error"})
_TRACE: Final = re.compile(r"^urn:trnorg:|trace[_-]?number$", re.IGNORECASE)
_REASON: Final = re.compile(r"[0-9A-Z]{1,8}")


def decision(response: Element, unit: Unit) -> None:
    """Add a payer's answer.

    Raises:
        ReaderError: It tells neither its request nor its moment, its outcome or action has a code
            that FHIR or X12 does not know, or an element that is used is not what FHIR says.
    """
    asked, token = _request(response, unit)
    if "created" not in response.fields:
        raise response.wrong("created", "the moment of the answer is missing")
    outcome = response.text("outcome")
    if outcome not in _OUTCOMES:
        raise response.wrong("outcome", "neither complete, queued, partial nor error")
    if outcome == "error":
        unit.note("a ClaimResponse with outcome error, which decides nothing")
        return
    reviews = list(_reviews(response))
    codes = {code for review in reviews for code in _actions(review)}
    if not codes:
        codes = {code for code in (_DISPOSITIONS.get(response.text("disposition") or ""),) if code}
    if outcome == "queued":
        codes.add("A4")
    if not codes:
        unit.note("a ClaimResponse that tells no action")
        return
    action, meta = combined(codes), response.child("meta")
    event: dict[str, object] = {
        "request_token": token,
        "action_code": action,
        "reason_codes": _reasons(response, reviews, unit),
        "decided_at": moment(response, "created", unit.notes),
        "updated_at": moment(meta, "lastUpdated", unit.notes) if meta else None,
    }
    if action in CERTIFIED:
        payer = unit.directory.payer(response.child("insurer")) or (asked.payer if asked else None)
        event["units_approved"] = _units(response, unit)
        event["auth_period_days"] = _period_days(response, unit)
        event["authorization_token"] = _authorization(response, reviews, payer, unit)
    unit.add("decision", response, **event)


def request_of(response: Element, unit: Unit) -> tuple[Asked | None, str | None]:
    """The Claim that is answered, and its token.

    Its `request` leads to the Claim, wherever in the reading that is: by reference, else by an
    identifier and its system, which may be the response's own (see `_numbers`). Where `request` is
    missing or a search, as in the reference implementation, the bundle's only Claim stands in;
    where it names a Claim that is not there, none does.
    """
    directory = unit.directory
    request, use = response.child("request"), response.text("use") or ""
    asked = directory.find(request, Asked)
    if asked is None:
        found = (
            directory.numbered(use, system, value) for system, value in _numbers(response) if system
        )
        asked = next((each for each in found if each), None)
    only = directory.only_claim
    if asked is None and only is not None and (request is None or _is_search(request)):
        asked = only
        unit.note("a ClaimResponse whose request is not there, taken for the bundle's only Claim")
    return asked, directory.first(asked).token if asked else None


def _is_search(request: Element) -> bool:
    return "?" in (request.text("reference") or "")


def _request(response: Element, unit: Unit) -> tuple[Asked | None, str]:
    """The Claim, and its token; where it is not there, the token of requestor and trace number.

    Where these are not told either, the payer's own number for the answer stands in, and is noted:
    no request has that token, but all answers under that number do.
    """
    asked, token = request_of(response, unit)
    if token is not None:
        return asked, token
    tokens = unit.directory.crosswalk.tokens
    number = next((value for _, value in _numbers(response)), None)
    requestor = unit.directory.party(response.child("requestor"))
    if number and requestor is not None and requestor.identifiers:
        return asked, tokens.request(requestor.identifiers[0], number)
    own = next((value for _, value in identifiers(response)), number)
    if own is None:
        raise response.wrong(
            "request",
            "the Claim is not there, and neither it nor an identifier tells which Claim is "
            "answered: read it along with its answer",
        )
    unit.note("an answer whose request is not there, told by the payer's number of the answer")
    payer = unit.directory.payer(response.child("insurer"))
    return asked, tokens.request(payer.pseudonym if payer else "", own)


def _numbers(response: Element) -> Iterator[tuple[str | None, str]]:
    """Systems and values that may be the request's trace number (X12 278 TRN02).

    Those of a logical reference and of a search are; of the response's own identifiers those whose
    system says so. FHIR has the payer's own numbers there, and so does the guide, beside the trace
    number that is sent back (its system should be urn:trnorg: and TRN03, and ends in TRACE_NUMBER
    in the guide's examples). Neither `preAuthRef` nor a number of the review (HCR02) is the
    request's.

    Source: FHIR R4, ClaimResponse.identifier; PAS 2.0.1 and 2.1.0, Claim Response Base.
    """
    request = response.child("request")
    if request is not None:
        identifier = request.child("identifier")
        if identifier is not None and (value := identifier.text("value")) is not None:
            yield identifier.text("system"), value
        try:
            query = parse_qs(urlsplit(request.text("reference") or "").query)
        except ValueError:
            query = {}
        for token in query.get("identifier", ()):
            system, _, value = token.rpartition("|")
            if value:
                yield system or None, value
    for own, number in identifiers(response):
        if own is not None and _TRACE.search(own):
            yield own, number


def _reviews(response: Element) -> Iterator[Element]:
    """All reviewAction extensions: of adjudications (2.x), items (1.x), the response (drafts)."""
    yield from _reviews_of(response)
    for name in ("item", "addItem"):
        for item in response.children(name):
            yield from _reviews_of(item)


def _reviews_of(element: Element) -> Iterator[Element]:
    for holder in (element, *element.children("adjudication")):
        for name, extension in extensions(holder):
            if name == "extension-reviewAction":
                yield extension


def _actions(review: Element) -> Iterator[str]:
    """X12 306 codes of a reviewAction."""
    parts = extension_map(review)
    code = parts.get("extension-reviewActionCode") or parts.get("code") or review
    for action in extension_codes(code):
        if action not in ACTION_CODES:
            raise code.wrong("", "no action code of X12 data element 306")
        yield action


def _reasons(response: Element, reviews: list[Element], unit: Unit) -> list[str]:
    """Reasons in order, each once."""
    found: dict[str, None] = {}
    holders = [
        extension
        for review in reviews
        for name, extension in extensions(review)
        if name in ("reasonCode", "extension-reviewActionReason")
    ]
    holders += [e for name, e in extensions(response) if name == "extension-reviewActionReason"]
    for holder in holders:
        for code in extension_codes(holder):
            if _REASON.fullmatch(code):
                found[code] = None
            else:
                unit.note("a reason for an action that is no code")
    return list(found)


def _units(response: Element, unit: Unit) -> float | None:
    """Units of the items that are certified; None if their units of measure differ."""
    total: float | None = None
    measures: set[str | None] = set()
    for name in ("item", "addItem"):
        for item in response.children(name):
            actions = {code for review in _reviews_of(item) for code in _actions(review)}
            quantity = _authorized(item)
            number = quantity and quantity.number("value")
            if quantity is None or number is None or not actions <= CERTIFIED:
                continue
            total = (total or 0.0) + number
            measures.add(quantity.text("code"))
    if len(measures) > 1:
        unit.note("units of different measures in one answer")
        return None
    return total


def _authorized(item: Element) -> Element | None:
    """The quantity that was authorized: of an added item, or in the item's detail."""
    parts = extension_map(item)
    detail = parts.get("extension-itemAuthorizedDetail") or parts.get(
        "extension-authorizedItemDetail"
    )
    if detail is None:
        return item.child("quantity")
    quantity = extension_map(detail).get("quantity")
    return quantity.child("valueQuantity") if quantity else None


def _period_days(response: Element, unit: Unit) -> int | None:
    """Days from the first to the last day of the authorization; the longest of the items'."""
    periods = [response.child("preAuthPeriod")]
    names = ("extension-itemPreAuthPeriod", "extension-authorizedEventDate")
    for holder in (response, *response.children("item")):
        periods += [e.child("valuePeriod") for name, e in extensions(holder) if name in names]
    days: list[int] = []
    for period in periods:
        if period is None:
            continue
        ends: list[date | None] = [day(period, name, unit.notes) for name in ("start", "end")]
        start, end = ends
        if start is not None and end is not None:
            if end < start:
                raise period.wrong("end", "it is before the start")
            days.append((end - start).days)
    return max(days, default=None)


def _authorization(
    response: Element, reviews: list[Element], payer: Payer | None, unit: Unit
) -> str | None:
    """The number that the payer gave, as a token: of the whole, else of the first item."""
    number = response.text("preAuthRef")
    if number is None:
        parts = (extension_map(review).get("number") for review in reviews)
        numbers = (part.text("valueString") for part in parts if part)
        number = next((each for each in numbers if each), None)
    if number is None:
        return None
    if payer is None:
        unit.note("an authorization number of an unknown payer")
        return None
    return unit.directory.crosswalk.tokens.authorization(payer.pseudonym, number)
