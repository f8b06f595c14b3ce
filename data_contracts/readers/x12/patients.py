"""Subscriber and dependent of a 278 or an 837: who the patient is, as a token.

Source: 005010X222 and 005010X223, loops 2000B, 2010BA, 2000C, 2010CA; 005010X217, loops 2000C,
2010C, 2000D, 2010D. The patient is the dependent if there is one, else the subscriber; a member id
stands with the subscriber alone.
"""

from dataclasses import dataclass
from datetime import date
from typing import Final

from data_contracts.deidentification.geography import zip3
from data_contracts.readers.x12.message import Message, element
from data_contracts.readers.x12.segments import Segment

SEXES: Final = {"F": "female", "M": "male", "U": "unknown"}
"""DMG03 -> FHIR administrative gender."""

_SOCIAL_SECURITY_NUMBER = "34"


def member_id(segment: Segment) -> str:
    """Member id of an NM1; empty if there is none. A Social Security number is none."""
    return "" if element(segment, 8) == _SOCIAL_SECURITY_NUMBER else element(segment, 9)


@dataclass(slots=True)
class _Person:
    first_name: str = ""
    birth: date | None = None
    sex: str | None = None
    zip3: str | None = None
    died: date | None = None


class Patients:
    """The subscriber whose loop is open, and a dependent below.

    Attributes:
        handlers: What to do with segments of these loops.
    """

    def __init__(self, message: Message) -> None:
        self._message = message
        self._member = ""
        self._subscriber = _Person()
        self._dependent: _Person | None = None
        self._named = False  # is the patient the last one whom an NM1 named?
        self._told = 0  # segment of the last person event; one for each loop
        self._begin = 0
        self.handlers = {"N4": self._address, "DMG": self._demographics, "PAT": self._death}

    def enter(self, level: str) -> None:
        """A level has opened: 22 is a subscriber's, 23 a dependent's."""
        self._named = False
        if level == "22":
            self._member, self._subscriber, self._dependent = "", _Person(), None
        elif level == "23":
            self._dependent = _Person()
        if level in ("22", "23"):
            self._begin = self._message.stream.number

    def name(self, segment: Segment) -> None:
        """NM1 at the open level, whosever it is."""
        self._named = segment[1] == ("QC" if self._dependent else "IL")
        if self._named:
            self._patient.first_name = element(segment, 4)
            if not self._dependent:
                self._member = member_id(segment)

    def token(self, payer: str | None) -> str | None:
        """Token of the patient, and an event that tells who that is; None without a member id."""
        message, patient = self._message, self._patient
        self._named = False  # addresses from here on are those of others
        if not self._member or payer is None:
            message.note("a patient without a payer or a member id")
            return None
        dependent = ""
        if self._dependent:
            if not (patient.birth and patient.first_name):
                message.note("a dependent without a birth date or a first name")
                return None
            # Whole family, one member id: who tells them apart is the birth date and first name.
            dependent = f"{patient.birth:%Y%m%d} {patient.first_name}"
        token = message.crosswalk.tokens.patient(payer, self._member, dependent=dependent)
        if patient.birth and self._told != self._begin:
            self._told = self._begin
            event = {
                "patient_token": token,
                "birth_year": patient.birth.year,
                "birth_date": patient.birth,
                "sex": patient.sex,
                "zip3": patient.zip3,
                "died_on": patient.died,
            }
            message.add("person", self._begin, event)
        return token

    @property
    def _patient(self) -> _Person:
        return self._dependent or self._subscriber

    def _address(self, segment: Segment) -> None:
        if self._named:
            self._patient.zip3 = zip3(element(segment, 3))

    def _demographics(self, segment: Segment) -> None:
        if not self._named:
            return
        if element(segment, 2):
            self._patient.birth = self._message.period(segment, 1)[0]
        self._patient.sex = SEXES.get(element(segment, 3))

    def _death(self, segment: Segment) -> None:
        """PAT stands before the NM1 of its patient."""
        if element(segment, 6):
            self._patient.died = self._message.period(segment, 5)[0]
