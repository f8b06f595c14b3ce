"""835: what payers pay, and why not all of it.

Source: 005010X221A1. Loops: 1000A payer, 1000B payee, 2100 claim, 2110 service line. Balancing is
its section 1.10.2; real remittances break it, so one that does not balance is kept and counted.

The amount eligible is what the payer deems payable before the patient's share: the sum of the
allowed amounts (AMT*B6) if all lines have one, else the charge less adjustments of the groups CO
and PI. AMT*AU does not tell it: covered charges include reductions over the fee schedule.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from data_contracts.deidentification.check_digits import npi
from data_contracts.deidentification.tokens import normal
from data_contracts.readers.x12 import codes
from data_contracts.readers.x12.message import Message, element
from data_contracts.readers.x12.patients import member_id
from data_contracts.readers.x12.segments import Segment
from data_contracts.vocabulary import ADJUSTMENT_GROUPS, CLAIM_STATUS, PAYMENT_METHODS

PAYER_IDS: Final = ("N104", "2U", "NF", "HI", "EO", "TRN03")
"""Where a payer's identifier is looked for: N104, additional identifiers (REF01), TRN03."""

PAYEE_IDS: Final = ("XX", "FI", "TJ", "N104", "PQ")
"""Where a payee's identifier is looked for: its NPI (N103 is XX) or tax number (N103 is FI, REF01
is TJ), of which an 837 has one; else N104 of another kind, or the payer's number for it (REF*PQ).
"""

_SHARES: Final = {"1": "deductible", "2": "coinsurance", "3": "copay"}  # reasons of group PR
_DATES = frozenset(("050", "232", "472", "150"))  # received; begin of claim, service, its period
_NPI = re.compile(r"[12][0-9]{9}")
_REVERSAL = "22"
_CENT = 0.005  # amounts have two decimals


@dataclass(slots=True)
class _Claim:
    """A claim (CLP) while its segments come. Amounts in USD."""

    begin: int
    token: str
    status: str | None
    reversal: bool
    submitted: float
    paid: float
    paid_by_patient: float
    drg: str | None
    member: str = ""
    subscriber: str = ""
    authorization: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    adjusted: float = 0.0
    not_eligible: float = 0.0  # adjustments of groups CO and PI
    largest: float = -1.0
    group: str = ""
    carc: str = ""
    remarks: list[str] = field(default_factory=list)
    service_from: date | None = None
    received_on: date | None = None
    lines: int = 0
    lines_from: date | None = None
    lines_allowed: int = 0
    allowed: float = 0.0
    largest_charge: float = 0.0
    largest_line: Segment = field(default_factory=list)
    line_rest: float = 0.0  # charge less payment less adjustments of the open line
    unbalanced_lines: int = 0


class Remittance:
    """Turns an 835 into events: one `payment` per CLP."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._claim: _Claim | None = None
        self._party = ""  # N101 of the N1 that stood last
        self._payer_ids: dict[str, str] = {}
        self._payer: str | None = None
        self._payee_ids: dict[str, str] = {}
        self._payee: str | None = None
        self._method: str | None = None
        self._paid_on: date | None = None
        self._rest = 0.0  # of the whole payment: what claims and PLB do not explain
        self.handlers: dict[str, Callable[[Segment], None]] = {
            "BPR": self._payment,
            "TRN": self._trace,
            "N1": self._name_party,
            "REF": self._reference,
            "CLP": self._open,
            "CAS": self._adjust,
            "NM1": self._name,
            "MIA": self._inpatient,
            "MOA": self._outpatient,
            "DTM": self._date,
            "SVC": self._line,
            "AMT": self._amount,
            "LQ": self._remark,
            "PLB": self._provider_adjustment,
        }

    def end(self) -> None:
        """The last claim ends with the transaction set, which must balance (1.10.2.3)."""
        self._close()
        if abs(self._rest) > _CENT:
            self._message.note("an 835 whose claims and PLB do not add up to its payment (BPR02)")

    def _payment(self, segment: Segment) -> None:
        message = self._message
        self._rest += message.amount(segment, 2)
        self._method = codes.listed(element(segment, 4), PAYMENT_METHODS, "835 BPR04", message)
        self._paid_on = message.day(segment, 16)
        if self._paid_on is None:
            message.note("an 835 without a day of payment (BPR16)")

    def _trace(self, segment: Segment) -> None:
        self._payer_ids.setdefault("TRN03", element(segment, 3))

    def _name_party(self, segment: Segment) -> None:
        self._party = segment[1]
        if self._party == "PR":
            self._payer_ids["N104"] = element(segment, 4)
        elif self._party == "PE":
            kind = element(segment, 3)
            self._payee_ids[kind if kind in ("XX", "FI") else "N104"] = element(segment, 4)

    def _reference(self, segment: Segment) -> None:
        qualifier, claim = segment[1], self._claim
        if claim is None:
            identifier = element(segment, 2)
            if self._party == "PR":
                self._payer_ids.setdefault(qualifier, identifier)
            elif self._party == "PE":
                # Payers whose own number of a payee is its NPI may name it nowhere else.
                is_npi = qualifier == "PQ" and _NPI.fullmatch(identifier) and npi(identifier)
                kind = "XX" if is_npi else qualifier
                self._payee_ids[kind] = self._payee_ids.get(kind) or identifier
        elif qualifier == "G1" and not claim.authorization:
            claim.authorization = element(segment, 2)

    def _open(self, segment: Segment) -> None:
        self._close()
        message = self._message
        if self._payee is None:
            self._payee = self._identify_payee(segment)
        if self._payer is None:
            self._payer = self._identify_payer(segment)
        number, status = message.required(segment, 1), message.required(segment, 2)
        if number == "0":  # by the guide: the claim did not have one
            message.note("a payment without the provider's number of the claim (CLP01 is 0)")
            number = message.required(segment, 7)
        paid = message.amount(segment, 4)
        self._rest -= paid
        self._claim = _Claim(
            begin=message.stream.number,
            token=message.crosswalk.tokens.claim(self._payee, number),
            status=codes.listed(status, CLAIM_STATUS, "835 CLP02", message),
            reversal=status == _REVERSAL,
            submitted=message.amount(segment, 3),
            paid=paid,
            paid_by_patient=message.number(segment, 5) or 0.0,
            drg=codes.code(element(segment, 11), codes.DRG, message),
        )

    def _identify_payee(self, claim: Segment) -> str:
        known = [self._payee_ids[name] for name in PAYEE_IDS if self._payee_ids.get(name)]
        if not known:
            raise self._message.error(
                claim, 1, "no payee with an identifier (N1*PE) stands before it"
            )
        if not self._payee_ids.get("XX"):
            self._message.note("an 835 whose payee has no NPI; its claims may match no 837")
        return known[0]

    def _identify_payer(self, claim: Segment) -> str:
        known = [self._payer_ids[name] for name in PAYER_IDS if self._payer_ids.get(name)]
        if not known:
            raise self._message.error(claim, 1, "no payer with an identifier stands before it")
        named = (one for one in known if normal(one) in self._message.crosswalk.payers)
        return self._message.payer(next(named, known[0])).pseudonym

    def _adjust(self, segment: Segment) -> None:
        claim = self._opened(segment)
        number, group = self._message.number, segment[1]
        total = 0.0
        for position in range(2, len(segment), 3):
            reason = segment[position]
            amount = number(segment, position + 1) or 0.0
            total += amount
            if group == "PR" and reason in _SHARES:
                share = _SHARES[reason]
                claim.shares[share] = claim.shares.get(share, 0.0) + amount
            if abs(amount) > claim.largest:
                claim.largest, claim.group, claim.carc = abs(amount), group, reason
        claim.adjusted += total
        claim.line_rest -= total
        if group in ("CO", "PI"):
            claim.not_eligible += total

    def _name(self, segment: Segment) -> None:
        if segment[1] == "QC":
            self._opened(segment).member = member_id(segment)
        elif segment[1] == "IL":
            self._opened(segment).subscriber = member_id(segment)

    def _inpatient(self, segment: Segment) -> None:
        self._keep_remarks(segment[5:6] + segment[20:24], segment)

    def _outpatient(self, segment: Segment) -> None:
        self._keep_remarks(segment[3:8], segment)

    def _remark(self, segment: Segment) -> None:
        if segment[1] == "HE":
            self._keep_remarks(segment[2:3], segment)

    def _keep_remarks(self, found: list[str], segment: Segment) -> None:
        remarks = self._opened(segment).remarks
        for text in found:
            remark = codes.code(text, codes.RARC, self._message)
            if remark and remark not in remarks:
                remarks.append(remark)

    def _date(self, segment: Segment) -> None:
        claim, qualifier = self._claim, segment[1]
        if claim is None or qualifier not in _DATES:
            return
        day = self._message.day(segment, 2)
        if day is None:
            return
        if qualifier == "050":
            claim.received_on = day
        elif qualifier == "232":
            claim.service_from = day
        elif claim.lines_from is None or day < claim.lines_from:
            claim.lines_from = day

    def _line(self, segment: Segment) -> None:
        claim, message = self._opened(segment), self._message
        self._end_line(claim)
        charge = message.amount(segment, 2)
        claim.lines += 1
        claim.line_rest = charge - (message.number(segment, 3) or 0.0)
        if claim.lines == 1 or abs(charge) > claim.largest_charge:
            claim.largest_charge, claim.largest_line = abs(charge), segment

    def _amount(self, segment: Segment) -> None:
        """AMT*B6 of a line: the allowed amount."""
        claim = self._claim
        if claim is not None and claim.lines and segment[1] == "B6":
            claim.lines_allowed += 1
            claim.allowed += self._message.amount(segment, 2)

    def _provider_adjustment(self, segment: Segment) -> None:
        """PLB: pairs of a reason and an amount that is taken off the payment."""
        self._close()
        for position in range(4, len(segment), 2):
            self._rest += self._message.number(segment, position) or 0.0

    def _opened(self, segment: Segment) -> _Claim:
        if self._claim is None:
            raise self._message.error(segment, 1, "no claim (CLP) stands before it")
        return self._claim

    def _end_line(self, claim: _Claim) -> None:
        """A line balances if its charge less adjustments is its payment (1.10.2.1)."""
        if claim.lines and abs(claim.line_rest) > _CENT:
            claim.unbalanced_lines += 1

    def _close(self) -> None:
        claim, self._claim = self._claim, None
        if claim is None:
            return
        message = self._message
        self._end_line(claim)
        if claim.unbalanced_lines:
            message.note("an 835 claim with a line that does not balance")
        if abs(claim.submitted - claim.adjusted - claim.paid) > _CENT:
            message.note(
                "an 835 claim that does not balance: charge less adjustments is not the payment"
            )
        by_line = claim.lines and claim.lines_allowed == claim.lines
        eligible = claim.allowed if by_line else claim.submitted - claim.not_eligible
        shares = claim.shares
        event = {
            "claim_token": claim.token,
            "patient_token": self._patient(claim),
            "authorization_token": self._authorization(claim),
            "claim_status": claim.status,
            "submitted": claim.submitted,
            "eligible": round(eligible, 2),
            "paid_to_provider": claim.paid,
            "paid_by_patient": claim.paid_by_patient,
            "deductible": round(shares.get("deductible", 0.0), 2),
            "coinsurance": round(shares.get("coinsurance", 0.0), 2),
            "copay": round(shares.get("copay", 0.0), 2),
            "group_code": codes.listed(claim.group, ADJUSTMENT_GROUPS, "835 CAS01", message),
            "carc": codes.code(claim.carc, codes.CARC, message),
            "rarc": claim.remarks,
            "service_from": claim.service_from or claim.lines_from,
            "received_on": claim.received_on,
            "paid_on": self._paid_on,
            "payment_method": self._method,
            "reversal_flag": claim.reversal,
            "drg": claim.drg,
            "revenue_code": self._revenue_code(claim.largest_line),
        }
        message.add("payment", claim.begin, event)

    def _revenue_code(self, line: Segment) -> str | None:
        """Revenue code of a line (SVC): its procedure (qualifier NU), else SVC04."""
        procedure = self._message.composite(line, 1)
        is_revenue_code = procedure[0] == "NU" and len(procedure) > 1
        text = procedure[1] if is_revenue_code else element(line, 4)
        return codes.revenue_code(text, self._message)

    def _patient(self, claim: _Claim) -> str | None:
        member = claim.member
        if not member:
            if not claim.subscriber:
                self._message.note("a payment without a member id")
                return None
            self._message.note("a payment that gives the subscriber's member id alone")
            member = claim.subscriber
        return self._message.crosswalk.tokens.patient(self._payer or "", member)

    def _authorization(self, claim: _Claim) -> str | None:
        if not claim.authorization:
            return None
        return self._message.crosswalk.tokens.authorization(self._payer or "", claim.authorization)
