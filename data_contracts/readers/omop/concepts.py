"""Concept ids of the OHDSI Standardized Vocabularies, as words and codes of the contracts.

Concept ids and codes are facts; names are our own short labels. LOINC and ICD-10-CM codes are those
of `vocabulary.py`, with few more.
"""

from typing import Final

from data_contracts import vocabulary as v

SEXES: Final = {8507: "male", 8532: "female", 8521: "other", 8551: "unknown", 0: "unknown"}
RACES: Final = {
    8527: "white",
    8516: "black",
    8515: "asian",
    8657: "native",
    8557: "pacific",
    8522: "other",
    8552: "unknown",
    0: "unknown",
}
ETHNICITIES: Final = {38003563: "hispanic", 38003564: "not_hispanic", 0: "unknown"}
VISIT_KINDS: Final = {
    9201: "inpatient",
    262: "inpatient",  # through the emergency room
    8717: "inpatient",  # inpatient hospital, as a place of service
    32037: "inpatient",  # intensive care
    9203: "emergency",
    8870: "emergency",  # emergency room of a hospital, as a place of service
    9202: "outpatient",
    581477: "outpatient",  # office
    581476: "outpatient",  # at home
    5083: "outpatient",  # telehealth
    32036: "outpatient",  # laboratory
    38004225: "outpatient",  # pharmacy
}
"""Visit concept -> kind of the event; all others are counted, and are no inpatient stays."""

THROUGH_EMERGENCY: Final = 262
DIED: Final = (4216643, 44814686)
"""Discharged to: patient died (SNOMED), deceased (PCORnet)."""

LABS: Final = {3004410: "4548-4", 3004249: "8480-6", 40764999: "62238-1", 46236952: "77147-7"}
"""Measurement concept -> LOINC; the extract's own `concept` table adds to it."""

LOINC: Final = frozenset((*v.LOINC_LABS, "62238-1", "77147-7", "98979-8"))
"""The laboratory values that are read: those of the contract, and eGFR by other equations."""

UNITS: Final = {
    8554: "%",
    8876: "mm[Hg]",
    9117: "mL/min/{1.73_m2}",
    720870: "mL/min/{1.73_m2}",
    9579: "mmol/mol",
}
"""Unit concept -> UCUM; the extract's own `concept` table adds to it."""

PLANNED_CODES: Final = ("Z510", "Z5111", "Z5112")
"""ICD-10-CM, without dots: stays for radiotherapy, chemotherapy, immunotherapy alone."""

EQUAL: Final = (0, 4172703)
"""Operators of an exact value; a value with any other is a bound."""

US_DOLLAR: Final = (0, 44818668)
"""Currencies: none told, US dollar."""
