"""Patient, Encounter and Observation become `person`, `visit` and `lab` events.

Source: US Core 6.1 (Patient, Encounter, Laboratory Result, Vital Signs); HL7 v3 ActCode for classes
of encounters; OMB race categories (CDCREC).
"""

from collections.abc import Iterator
from typing import Final

from data_contracts import vocabulary as v
from data_contracts.deidentification.geography import zip3
from data_contracts.readers.fhir.codes import (
    UNIT,
    coded,
    extensions,
    plain_code,
    plain_codes,
    system_of,
)
from data_contracts.readers.fhir.dates import day
from data_contracts.readers.fhir.element import Element
from data_contracts.readers.fhir.facts import Person
from data_contracts.readers.fhir.unit import Unit

_RACES: Final = {
    "1002-5": "native",
    "2028-9": "asian",
    "2054-5": "black",
    "2076-8": "pacific",
    "2106-3": "white",
    "2131-1": "other",
    "UNK": "unknown",
    "ASKU": "unknown",
}
_ETHNICITIES: Final = {
    "2135-2": "hispanic",
    "2186-5": "not_hispanic",
    "UNK": "unknown",
    "ASKU": "unknown",
}
_CLASSES: Final = {
    **dict.fromkeys(("IMP", "ACUTE", "NONAC"), "inpatient"),
    "EMER": "emergency",
    **dict.fromkeys(("AMB", "HH", "FLD", "VR", "OBSENC", "SS", "PRENC"), "outpatient"),
}
_DEAD: Final = frozenset(
    {"exp", "expired", "20", "40", "41", "42"}
)  # FHIR; UB-04 patient discharge status
_UNPLANNED: Final = frozenset({"EM", "UR"})
_NOT_TAKEN: Final = frozenset({"cancelled", "entered-in-error", "registered"})


def person(patient: Element, who: Person, unit: Unit) -> None:
    """Add a patient; one whose token is unknown is noted.

    Raises:
        ReaderError: An element that is used is not what FHIR says.
    """
    if who.token is None:
        unit.note("a Patient without coverage by a known payer or without member id")
        return
    born = day(patient, "birthDate", unit.notes)
    year = born.year if born else int((patient.text("birthDate") or "0")[:4]) or None
    sex = patient.text("gender")
    if sex is not None and sex not in v.SEXES:
        raise patient.wrong("gender", f"none of {', '.join(v.SEXES)}")
    codes = dict(extensions(patient))
    address = patient.first("address")
    if patient.flag("deceasedBoolean"):
        unit.note("a death without its day")
    unit.add(
        "person",
        patient,
        patient_token=who.token,
        birth_year=year,
        birth_date=born,
        sex=sex,
        race=_category(codes.get("us-core-race"), _RACES, several="other"),
        ethnicity=_category(codes.get("us-core-ethnicity"), _ETHNICITIES, several="unknown"),
        zip3=zip3(address.text("postalCode")) if address else None,
        died_on=day(patient, "deceasedDateTime", unit.notes),
    )


def visit(encounter: Element, unit: Unit) -> None:
    """Add a visit or stay that took place or goes on.

    Raises:
        ReaderError: An element that is used is not what FHIR says.
    """
    if encounter.text("status") in ("planned", "cancelled", "entered-in-error"):
        unit.note("an Encounter that did not take place")
        return
    token = _patient(encounter, unit)
    if token is None:
        unit.note("an Encounter whose patient is unknown")
        return
    coding = encounter.child("class")
    code = coding and coding.text("code")
    kind = _CLASSES.get(code or "")
    if kind is None:
        unit.note("an Encounter of a class that is neither inpatient, emergency nor outpatient")
        return
    period = encounter.child("period")
    start = day(period, "start", unit.notes) if period else None
    if period is None or start is None:
        unit.note("an Encounter without the day of its start")
        return
    end = day(period, "end", unit.notes)
    if end is not None and end < start:
        raise period.wrong("end", "it is before the start")
    stay = encounter.child("hospitalization")
    left = set(plain_codes(stay.child("dischargeDisposition"))) if stay else set()
    identifier = encounter.first("identifier")
    number = (identifier and identifier.text("value")) or encounter.text("id")
    unit.add(
        "visit",
        encounter,
        visit_token=number and unit.directory.crosswalk.tokens.visit(token, number),
        patient_token=token,
        kind=kind,
        start_on=start,
        end_on=end,
        died=bool(left & _DEAD) if left else None,
        planned=_planned(encounter, kind),
    )


def labs(observation: Element, unit: Unit) -> None:
    """Add an observation's value, or those of its components (blood pressure).

    Raises:
        ReaderError: An element that is used is not what FHIR says.
    """
    if observation.text("status") in _NOT_TAKEN:
        unit.note("an Observation that was cancelled or is not there yet")
        return
    token = _patient(observation, unit)
    if token is None:
        unit.note("an Observation whose patient is unknown")
        return
    taken_on = day(observation, "effectiveDateTime", unit.notes)
    if taken_on is None and (period := observation.child("effectivePeriod")):
        taken_on = day(period, "start", unit.notes)
    if taken_on is None:
        taken_on = day(observation, "effectiveInstant", unit.notes)
    if taken_on is None:
        unit.note("an Observation without the day when it was taken")
        return
    values = list(_values(observation, unit))
    if not values:
        unit.note("an Observation without LOINC code and numeric value")
    for loinc, value, unit_code in values:
        unit.add(
            "lab",
            observation,
            patient_token=token,
            loinc=loinc,
            value=value,
            ucum=unit_code,
            taken_on=taken_on,
        )


def _patient(resource: Element, unit: Unit) -> str | None:
    subject = resource.child("subject")
    if subject is not None and (subject.text("reference") or "").startswith("Group/"):
        return None
    who = unit.directory.find(subject, Person)
    return who.token if who else None


def _values(observation: Element, unit: Unit) -> Iterator[tuple[str, float, str | None]]:
    """LOINC code, value and UCUM unit of an observation and its components."""
    for each in (observation, *observation.children("component")):
        concept, quantity = each.child("code"), each.child("valueQuantity")
        if concept is None or quantity is None:
            continue
        loinc = coded(concept, "loinc", unit.notes)
        value = quantity.number("value")
        if loinc is None or value is None:
            continue
        if quantity.text("comparator") is not None:
            unit.note("a value that is only known to be below or above a limit")
            continue
        code = quantity.text("code")
        is_ucum = code is not None and UNIT.fullmatch(code) and system_of(quantity) == "ucum"
        if not is_ucum:
            unit.note("a value whose unit is not coded in UCUM")
        yield loinc, value, code if is_ucum else None


def _category(extension: Element | None, codes: dict[str, str], *, several: str) -> str | None:
    """The OMB category of a US Core extension; `several` for people of more than one."""
    if extension is None:
        return None
    found = set()
    for name, part in extensions(extension):
        coding = part.child("valueCoding") if name == "ombCategory" else None
        code = coding and coding.text("code")
        if code:
            found.add(codes.get(code, "unknown"))
    if len(found) > 1:
        return several
    return found.pop() if found else "unknown"


def _planned(encounter: Element, kind: str) -> bool | None:
    """Whether a stay was elective (v3 ActPriority), else unknown; emergencies never are."""
    if kind == "emergency":
        return False
    priority = plain_code(encounter, "priority")
    if priority == "EL":
        return True
    return False if priority in _UNPLANNED else None
