"""278: what providers ask a payer to authorize, and what the payer answers.

Source: 005010X217. Loops: 2000A payer, 2000B requester, 2000C subscriber, 2000D dependent, 2000E
patient event, 2000F service. Each service is an item; an event without services is one item.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from data_contracts import vocabulary as v
from data_contracts.codes.quantities import unit_of_quantity
from data_contracts.crosswalk import Payer
from data_contracts.readers.answers import CERTIFIED
from data_contracts.readers.x12 import codes
from data_contracts.readers.x12.decision import PERIODS, Answer, decision
from data_contracts.readers.x12.hierarchy import Hierarchy
from data_contracts.readers.x12.message import Message, component, element
from data_contracts.readers.x12.patients import Patients
from data_contracts.readers.x12.segments import Segment

LEVELS: Final = {
    "20": (),
    "21": ("20",),
    "22": ("21",),
    "23": ("22",),
    "EV": ("22", "23"),
    "SS": ("EV",),
}
"""Payer, requester, subscriber, dependent, patient event, service -> levels above."""

PURPOSES: Final = {"13": "request", "01": "request", "11": "response", "18": "response"}
"""BHT02: request, cancellation; response (18 is seen in practice)."""

_CANCELLATION, _CANCEL = "01", "3"
_PRINCIPAL = "ABK"
_ICD10 = (_PRINCIPAL, "ABF")
_ICD9 = ("BK", "BF", "BJ")
_SERVICES: Final = {
    # segment -> kind of claim to follow, positions of procedure, unit and quantity
    "SV1": ("professional", 1, 3, 4),
    "SV2": ("institutional", 2, 4, 5),
    "SV3": ("oral", 1, 0, 6),
}
_MOST_DIAGNOSES = 25  # the guide has 12
_MOST_ATTACHMENTS = 100  # the guide has 10 for each level

MOST_SERVICES: Final = 10_000
"""Most services of one patient event; they are held in memory until it ends."""


@dataclass(slots=True)
class _Level:
    """What a patient event (2000E) or a service (2000F) tells.

    Attributes:
        begin: Its first segment.
        fields: Fields of a request.
        delivery: Quantity and unit of HSD.
        attachments: How many PWK.
        answer: The payer's answer, if there is one.
    """

    begin: int
    fields: dict[str, Any] = field(default_factory=dict)
    delivery: tuple[float, str] | None = None
    attachments: int = 0
    answer: Answer | None = None


class Review:
    """Turns a 278 into events: one `request` per item, one `decision` per answered event."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._levels = Hierarchy(LEVELS)
        self._patients = Patients(message)
        self._level = ""  # HL03 of the open level
        self._purpose = self._transaction = ""
        self._moment: datetime | None = None
        self._payer: Payer | None = None
        self._requester = ""
        self._taxonomy: str | None = None
        self._has_untraced = False  # is an event told by the transaction's number (BHT03)?
        self._event: _Level | None = None  # the open one; what follows is of it
        self._trace = ""
        self._services: list[_Level] = []
        self._principal: str | None = None
        self._others: list[str] = []
        self._periods: dict[str, int] = {}
        self._rejected = False
        self.handlers: dict[str, Callable[[Segment], None]] = {
            **self._patients.handlers,
            "BHT": self._begin,
            "HL": self._enter,
            "NM1": self._name,
            "PRV": self._provider,
            "TRN": self._follow,
            "AAA": self._reject,
            "UM": self._review,
            "HCR": self._answer,
            "HI": self._diagnoses,
            "DTP": self._period,
            "HSD": self._delivery,
            "PWK": self._attachment,
            **dict.fromkeys(_SERVICES, self._service),
        }

    def end(self) -> None:
        """The last event ends with the transaction set."""
        self._close()
        if self._rejected:
            self._message.note("a request that the payer could not process (AAA)")

    def _begin(self, segment: Segment) -> None:
        message = self._message
        self._purpose = element(segment, 2)
        if self._purpose not in PURPOSES:
            raise message.error(segment, 2, "neither a request, a cancellation nor a response")
        self._transaction = message.required(segment, 3)
        self._moment = message.moment(segment, 4, 5)

    def _enter(self, segment: Segment) -> None:
        if not self._purpose:
            raise self._message.error(segment, 1, "the beginning (BHT) must stand before it")
        level = self._levels.enter(self._message, segment)
        self._level = level
        begin = self._message.stream.number
        if level == "SS":
            if len(self._services) == MOST_SERVICES:
                raise self._message.error(segment, 3, f"more than {MOST_SERVICES} services")
            self._services.append(_Level(begin))
            return
        self._close()
        self._patients.enter(level)
        if level == "20":
            self._payer = None
        elif level == "21":
            self._requester, self._taxonomy = "", None
        elif level == "EV":
            self._event = _Level(begin)

    def _name(self, segment: Segment) -> None:
        who = segment[1]
        if self._level == "20" and who == "X3":
            self._payer = self._message.payer(self._message.required(segment, 9))
        elif self._level == "21" and who in ("1P", "FA"):
            self._requester = element(segment, 9)
        elif self._level in ("22", "23"):
            self._patients.name(segment)

    def _provider(self, segment: Segment) -> None:
        """PRV: the taxonomy of whoever gives the service, else of whoever asks."""
        if element(segment, 2) != "PXC":
            return
        taxonomy = codes.code(element(segment, 3), codes.TAXONOMY, self._message)
        if self._level == "21":
            self._taxonomy = taxonomy
        elif self._event is not None:
            self._here(segment).fields.setdefault("provider_taxonomy", taxonomy)

    def _follow(self, segment: Segment) -> None:
        """TRN: a response repeats the requester's trace number with TRN01 = 2."""
        if self._level == "EV" and not self._trace:
            wanted = "1" if PURPOSES[self._purpose] == "request" else "2"
            if segment[1] == wanted:
                self._trace = element(segment, 2)

    def _reject(self, segment: Segment) -> None:
        self._rejected = True

    def _review(self, segment: Segment) -> None:
        """UM of the event, or of a service, where it tells what differs."""
        message, fields = self._message, self._here(segment).fields
        place = message.composite(segment, 4)
        facility = component(place, 2) == "A"
        if facility:
            message.note("a facility type (UM04-2 is A), which is no place of service")
        service_type = element(segment, 3)
        if service_type and service_type not in v.SERVICE_TYPES:
            service_type = "other"
        found = {
            "request_category": codes.listed(segment[1], v.REQUEST_CATEGORIES, "278 UM01", message),
            "certification_type": codes.listed(
                element(segment, 2), v.CERTIFICATION_TYPES, "278 UM02", message
            ),
            "service_type": service_type,
            "place_of_service": None if facility else codes.code(place[0], codes.PLACE, message),
            "level_of_service": codes.listed(
                element(segment, 6), v.LEVELS_OF_SERVICE, "278 UM06", message
            ),
        }
        fields.update((name, value) for name, value in found.items() if value)

    def _answer(self, segment: Segment) -> None:
        message = self._message
        action = codes.listed(message.required(segment, 1), v.ACTION_CODES, "278 HCR01", message)
        if action is None:
            return
        found = [codes.code(text, codes.REASON, message) for text in message.repeated(segment, 3)]
        reasons = [reason for reason in found if reason]
        self._here(segment).answer = Answer(action, element(segment, 2), reasons)

    def _diagnoses(self, segment: Segment) -> None:
        message = self._message
        self._here(segment)
        for position in range(1, len(segment)):
            parts = message.composite(segment, position)
            if parts[0] in _ICD9:
                message.note("a diagnosis in ICD-9-CM")
            if parts[0] not in _ICD10:
                continue
            diagnosis = codes.icd10(component(parts, 2), message)
            if diagnosis and parts[0] == _PRINCIPAL and self._principal is None:
                self._principal = diagnosis
            elif diagnosis and len(self._others) < _MOST_DIAGNOSES:
                self._others.append(diagnosis)
            elif diagnosis:
                message.note(f"a diagnosis beyond the first {_MOST_DIAGNOSES}")

    def _period(self, segment: Segment) -> None:
        self._here(segment)
        if segment[1] in PERIODS and element(segment, 2) == "RD8":
            first, last = self._message.period(segment, 2)
            self._periods.setdefault(segment[1], (last - first).days)

    def _delivery(self, segment: Segment) -> None:
        quantity = self._message.number(segment, 2)
        if quantity is not None:
            self._here(segment).delivery = (quantity, segment[1])

    def _attachment(self, segment: Segment) -> None:
        level = self._here(segment)
        level.attachments += 1
        if level.attachments > _MOST_ATTACHMENTS:
            raise self._message.error(segment, 1, f"more than {_MOST_ATTACHMENTS} attachments")

    def _service(self, segment: Segment) -> None:
        message, fields = self._message, self._here(segment).fields
        kind, procedure_at, unit_at, quantity_at = _SERVICES[segment[0]]
        procedure = message.composite(segment, procedure_at)
        fields["claim_type"] = kind
        text = component(procedure, 2)
        if procedure[0] == "N4":
            fields["ndc"] = codes.ndc(text, message)
        elif procedure[0] in ("HC", "AD"):
            fields["procedure_code"] = codes.code(text, codes.PROCEDURE, message)
            found = [codes.code(part, codes.MODIFIER, message) for part in procedure[2:6]]
            fields["modifier"] = [modifier for modifier in found if modifier]
        elif procedure[0]:
            message.note("a procedure in another code system than HCPCS and NDC")
        quantity = message.number(segment, quantity_at)
        if quantity is not None:
            fields["quantity"] = quantity
            unit = element(segment, unit_at) if unit_at else "UN"
            fields["quantity_unit"] = unit_of_quantity(unit, message.note)

    def _here(self, segment: Segment) -> _Level:
        """The service or event that is open."""
        if self._event is None:
            raise self._message.error(segment, 1, "no patient event (HL03 is EV) stands before it")
        return self._services[-1] if self._services else self._event

    def _close(self) -> None:
        """The open event has ended: tell what was asked, or answered."""
        event, self._event = self._event, None
        if event is None:
            return
        message, payer = self._message, self._payer
        if not self._trace:
            if self._has_untraced:
                reason = "a second event of the transaction set has no trace number (TRN02)"
                raise message.stream.error("HL", reason, event.begin)
            self._has_untraced = True
        trace = self._trace or self._transaction
        token = message.crosswalk.tokens.request(self._requester, trace)
        if payer is None:
            raise message.stream.error("HL", "its payer (NM1*X3) is not named", event.begin)
        if not self._requester:
            message.note("a 278 whose requester has no identifier")
        patient = self._patients.token(payer.pseudonym)
        if PURPOSES[self._purpose] == "request":
            self._tell_request(event, token, patient, payer)
        else:
            self._tell_decision(event, token, payer)
        self._trace, self._principal = "", None
        self._services, self._others, self._periods = [], [], {}

    def _tell_request(self, event: _Level, token: str, patient: str | None, payer: Payer) -> None:
        message = self._message
        requester = self._requester
        others = self._others
        principal = self._principal or (others[0] if others else None)
        shared = {
            "request_token": token,
            "patient_token": patient,
            "payer_id": payer.pseudonym,
            "provider_group_id": message.crosswalk.provider(requester) if requester else None,
            "business_line": payer.business_line,
            "provider_taxonomy": self._taxonomy,
            "dx_principal": principal,
            "dx_other": others if self._principal else others[1:],
            "channel": "X12",
            "submitted_at": self._moment,
        } | event.fields
        for sequence, item in enumerate(self._services or [_Level(event.begin)], start=1):
            fields = shared | item.fields
            delivery = item.delivery or event.delivery
            if delivery and "quantity" not in fields:
                fields["quantity"] = delivery[0]
                fields["quantity_unit"] = unit_of_quantity(delivery[1], message.note)
            fields["item_sequence"] = sequence
            fields["request_type"] = "drug" if fields.get("ndc") else "medical"
            fields["attachments_n"] = event.attachments + item.attachments
            if self._purpose == _CANCELLATION:
                fields["certification_type"] = _CANCEL
            message.add("request", item.begin, fields)

    def _tell_decision(self, event: _Level, token: str, payer: Payer) -> None:
        message = self._message
        answers = [level.answer for level in (event, *self._services) if level.answer]
        if not answers:
            if not self._rejected:
                message.note("a response without an answer (HCR)")
            return
        fields = decision(answers, self._periods)
        if fields["action_code"] in CERTIFIED:
            fields["units_approved"] = self._units(event)
            numbers = [a.number for a in answers if a.number and a.action in CERTIFIED]
            if numbers:
                tokens = message.crosswalk.tokens
                fields["authorization_token"] = tokens.authorization(payer.pseudonym, numbers[0])
            if len(set(numbers)) > 1:
                message.note("a further authorization number of an answer")
        fields |= {"request_token": token, "decided_at": self._moment}
        message.add("decision", event.begin, fields)

    def _units(self, event: _Level) -> float | None:
        """Units (HSD) of all that is certified; None if their units of measure differ.

        A service without an answer of its own shares that of the event.
        """
        certified = [
            level.delivery
            for level in self._services
            if level.delivery and _is_certified(level.answer or event.answer)
        ]
        if not certified and event.delivery and _is_certified(event.answer):
            certified = [event.delivery]
        if not certified:
            return None
        if len({unit for _, unit in certified}) > 1:
            self._message.note("units of different measures in one answer")
            return None
        return sum(quantity for quantity, _ in certified)


def _is_certified(answer: Answer | None) -> bool:
    return answer is not None and answer.action in CERTIFIED
