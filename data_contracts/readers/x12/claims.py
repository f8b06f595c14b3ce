"""837 professional and institutional: what providers claim.

Source: 005010X222A1 and 005010X223A2. Loops: 2000A billing provider, 2000B subscriber with the
payer (2010BB), 2000C patient, 2300 claim, 2320 other payers, 2400 service lines.
"""

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final

import polars as pl

from data_contracts.readers.events import Spool
from data_contracts.readers.findings import Findings, ReaderError
from data_contracts.readers.x12 import codes
from data_contracts.readers.x12.hierarchy import Hierarchy
from data_contracts.readers.x12.message import Message, component, element
from data_contracts.readers.x12.patients import Patients
from data_contracts.readers.x12.segments import Segment

LEVELS: Final = {"20": (), "22": ("20",), "23": ("22",)}
"""Billing provider, subscriber, patient -> levels above."""

_REPLACEMENT, _VOID = "7", "8"  # CLM05-3
_DIAGNOSES = ("ABK", "ABF")  # in HI: principal and others, in ICD-10-CM


class Claims:
    """Turns an 837 into events: one `claim` per CLM, one `person` per loop of a patient.

    A claim that voids an earlier one is counted, and leaves no row (see `assembly.claim_payment`).
    """

    def __init__(self, message: Message) -> None:
        self._message = message
        self._levels = Hierarchy(LEVELS)
        self._patients = Patients(message)
        self._provider = self._tax_id = ""
        self._payer: str | None = None
        self._named = ""  # NM101 of the NM1 that stood last
        self._submitted_at: datetime | None = None
        self._claim: dict[str, Any] | None = None
        self._claim_begin = 0
        self._other_payer = False
        self._charge: float | None = None  # the largest of a line
        self._revenue_code = ""  # of that line
        self._lines_from: date | None = None
        self._diagnoses: list[str] = []
        self.handlers: dict[str, Callable[[Segment], None]] = {
            **self._patients.handlers,
            "BHT": self._begin,
            "HL": self._level,
            "NM1": self._name,
            "REF": self._reference,
            "CLM": self._open,
            "SBR": self._subscriber,
            "LX": self._line,
            "DTP": self._date,
            "HI": self._codes,
            "SV2": self._institutional_service,
        }

    def end(self) -> None:
        """The last claim ends with the transaction set."""
        self._close()

    def _begin(self, segment: Segment) -> None:
        """BHT tells which of two claims was sent last; claims without it are claims."""
        try:
            self._submitted_at = self._message.moment(segment, 4, 5)
        except ReaderError:
            self._message.note("an 837 without a moment of submission (BHT04, BHT05)")

    def _level(self, segment: Segment) -> None:
        self._close()
        level = self._levels.enter(self._message, segment)
        self._patients.enter(level)
        self._named = ""
        if level == "20":
            self._provider = self._tax_id = ""
        elif level == "22":
            self._payer = None

    def _name(self, segment: Segment) -> None:
        """NM1 before a claim; those within it name others than payer and patient."""
        if self._claim is not None:
            return
        self._named = segment[1]
        self._patients.name(segment)
        if self._named == "85":
            self._provider = element(segment, 9)
        elif self._named == "PR" and element(segment, 9):
            self._payer = self._message.payer(segment[9]).pseudonym

    def _reference(self, segment: Segment) -> None:
        qualifier = segment[1]
        claim = self._claim
        if claim is None:
            if qualifier == "EI" and self._named == "85":
                self._tax_id = element(segment, 2)
        elif (
            qualifier == "G1"
            and self._payer
            and not self._other_payer
            and not element(segment, 4)  # REF04 names another payer, in a line
            and "authorization_token" not in claim
        ):
            number = self._message.required(segment, 2)
            tokens = self._message.crosswalk.tokens
            claim["authorization_token"] = tokens.authorization(self._payer, number)

    def _open(self, segment: Segment) -> None:
        self._close()
        message = self._message
        provider = self._provider or self._tax_id
        if not provider:
            raise message.error(segment, 1, "its billing provider has no identifier")
        control_number = message.required(segment, 1)
        frequency = component(message.composite(segment, 5), 3)
        if frequency == _VOID:
            message.note("a claim that voids an earlier one")
        self._claim_begin = message.stream.number
        self._other_payer = False
        self._charge = self._lines_from = None
        self._revenue_code = ""
        self._diagnoses = []
        self._claim = {
            "claim_token": message.crosswalk.tokens.claim(provider, control_number),
            "patient_token": self._patients.token(self._payer),
            "frequency": frequency or None,
            "submitted": message.amount(segment, 2),
            "submitted_at": self._submitted_at,
        }

    def _subscriber(self, segment: Segment) -> None:
        """SBR within a claim begins the loop of another payer."""
        self._other_payer = self._claim is not None

    def _line(self, segment: Segment) -> None:
        self._other_payer = False

    def _date(self, segment: Segment) -> None:
        claim = self._claim
        if claim is None or self._other_payer:
            return
        match segment[1]:
            case "434":
                claim["service_from"] = self._message.period(segment, 2)[0]
            case "472":
                day = self._message.period(segment, 2)[0]
                self._lines_from = min(day, self._lines_from or day)

    def _codes(self, segment: Segment) -> None:
        if self._claim is None:
            return
        for position in range(1, len(segment)):
            parts = self._message.composite(segment, position)
            if parts[0] == "DR":
                self._claim["drg"] = codes.code(component(parts, 2), codes.DRG, self._message)
            elif parts[0] in _DIAGNOSES:
                diagnosis = codes.icd10(component(parts, 2), self._message)
                if diagnosis:
                    self._diagnoses.append(diagnosis)

    def _institutional_service(self, segment: Segment) -> None:
        if self._claim is None:
            raise self._message.error(segment, 1, "a service line stands outside a claim")
        charge = self._message.amount(segment, 3)
        if self._charge is None or charge > self._charge:
            self._charge = charge
            self._revenue_code = segment[1]

    def _close(self) -> None:
        claim, self._claim = self._claim, None
        if claim is None:
            return
        claim.setdefault("service_from", self._lines_from)
        claim["revenue_code"] = codes.revenue_code(self._revenue_code, self._message)
        self._message.add("claim", self._claim_begin, claim)
        if self._diagnoses and claim["patient_token"] and claim["frequency"] != _VOID:
            sent = self._submitted_at
            told = {"codes": self._diagnoses, "told_on": sent.date() if sent else None}
            self._message.add("diagnosis", self._claim_begin, {**claim, **told})


def note_merged(events: Spool, findings: Findings) -> None:
    """Count claims that share a number (CLM01) and correct nothing: one of them is left.

    Senders may use the number of a patient's account, or send a claim again as if it were new.
    """
    corrects = pl.col("frequency").is_in((_REPLACEMENT, _VOID)).fill_null(False)
    claims = events.scan("claim").filter(~corrects)
    merged = claims.select(pl.len() - pl.col("claim_token").n_unique()).collect().item()
    if merged:
        findings.note(
            "a claim with the number (CLM01) of another, which it does not replace; the last one "
            "counts",
            merged,
        )
