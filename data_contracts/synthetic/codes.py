"""Codes that synthetic rows carry, plausible for their service.

HCPCS Level II and ICD-10-CM are public code systems; codes that start with X, and the names of
policy elements, are invented. No CPT code is used.
"""

from dataclasses import dataclass
from typing import Final

import polars as pl

from data_contracts.synthetic.settings import ELEMENTS_PER_POLICY, SERVICES


@dataclass(frozen=True, slots=True)
class ServiceCodes:
    """What a request for one service looks like.

    Attributes:
        service_type: X12 data element 1365.
        claim_type: Type of the claim to follow.
        request_category: X12 278 UM01.
        place_of_service: CMS place of service.
        taxonomy: NUCC taxonomy of the provider.
        unit: Unit of the quantity (X12 data element 355).
        quantities: Usual quantities, equally likely.
        auth_days: Days for which an authorization holds.
        procedures: HCPCS Level II or invented codes, equally likely.
        diagnoses: Principal diagnoses, equally likely.
        elements: The four elements of the policy.
        revenue_code: NUBC revenue code of an institutional claim, "" without one.
        drgs: MS-DRGs of an institutional claim.
    """

    service_type: str
    claim_type: str
    request_category: str
    place_of_service: str
    taxonomy: str
    unit: str
    quantities: tuple[float, ...]
    auth_days: int
    procedures: tuple[str, ...]
    diagnoses: tuple[str, ...]
    elements: tuple[str, str, str, str]
    revenue_code: str = ""
    drgs: tuple[str, ...] = ()


BY_SERVICE: Final = {
    "imaging": ServiceCodes(
        "62", "professional", "HS", "22", "2085R0202X", "UN", (1.0,), 60,
        ("S8037", "S8042", "C8903", "C8905", "G0235"),
        ("M54.16", "M25.561", "R51.9", "M48.061", "G43.909", "S83.206A"),
        ("imaging.conservative_care", "imaging.red_flag_or_deficit", "imaging.prior_radiograph",
         "imaging.changes_management"),
    ),
    "drug": ServiceCodes(
        "88", "professional", "HS", "11", "207R00000X", "UN", (1.0, 2.0, 4.0, 12.0), 365,
        ("J0135", "J1745", "J3357", "J1438", "J9271"),
        ("M05.79", "L40.0", "K50.90", "L40.52", "C34.90"),
        ("drug.indication", "drug.step_therapy", "drug.baseline_labs", "drug.specialist"),
    ),
    "surgery": ServiceCodes(
        "2", "institutional", "AR", "21", "207X00000X", "UN", (1.0,), 90,
        ("S2118", "S2112", "G0289", "G0260", "C9600"),
        ("M17.11", "M16.11", "M48.061", "I25.119", "M23.211"),
        ("surgery.failed_conservative_care", "surgery.imaging_confirms",
         "surgery.functional_limit", "surgery.risk_assessed"),
        "0360", ("470", "321", "454"),
    ),
    "dme": ServiceCodes(
        "12", "professional", "HS", "12", "332B00000X", "UN", (1.0, 3.0, 13.0), 365,
        ("E0601", "E1390", "K0823", "E0260", "L1832"),
        ("G47.33", "J96.11", "M17.12", "G35", "I50.9"),
        ("dme.face_to_face", "dme.qualifying_test", "dme.home_use", "dme.written_order"),
    ),
    "therapy": ServiceCodes(
        "AE", "professional", "HS", "11", "225100000X", "VS", (6.0, 8.0, 12.0, 18.0), 90,
        ("G0283", "G0151", "S9131", "S8990"),
        ("M54.50", "M75.101", "S83.511A", "I69.351", "M25.511"),
        ("therapy.plan_of_care", "therapy.measured_deficit", "therapy.progress",
         "therapy.home_program"),
    ),
    "post_acute": ServiceCodes(
        "AG", "institutional", "AR", "31", "314000000X", "DA", (7.0, 10.0, 14.0, 20.0), 30,
        ("XSNF1", "XSNF2", "XIRF1", "XLTC1"),
        ("I63.9", "S72.001A", "J18.9", "I50.9", "Z47.1"),
        ("post_acute.skilled_need", "post_acute.daily_therapy", "post_acute.functional_score",
         "post_acute.discharge_plan"),
        "0191", ("057", "536", "194"),
    ),
}  # fmt: skip
"""What requests look like, by service."""

DIABETES_DIAGNOSES: Final = ("E11.65", "E11.22", "E11.42")
DIABETES_DRUGS: Final = ("1991302", "475968", "1551291")
"""RxNorm ingredients of the diabetes arm (semaglutide, liraglutide, dulaglutide)."""

COMORBIDITIES: Final = ("I10", "E78.5", "E11.9", "N18.30", "I25.10", "J44.9", "F32.A", "I48.91")
"""Further diagnoses, from the most to the least frequent."""

SDI_QUINTILES: Final = 5

ZIP3: Final = tuple(f"{n:03d}" for n in (*range(300, 340), *range(430, 459), *range(480, 500)))
"""Prefixes in use, none of them of low population (45 CFR 164.514(b)(2)(i)(B))."""

CLAIM_DENIALS: Final = ("16", "50", "96", "29", "197")
"""CARCs of denied claims: information lacking, necessity, coverage, late filing, authorization."""

UNAUTHORIZED: Final = "197"
"""CARC where the service was never authorized."""


def criteria_required() -> pl.Series:
    """The policy's elements, one list per service."""
    lists = [list(BY_SERVICE[service].elements) for service in SERVICES]
    return pl.Series(lists, dtype=pl.List(pl.String))


def criteria_documented() -> pl.Series:
    """The documented elements; entry `service * 16 + bits` has the elements of the set bits."""
    lists = [
        [element for bit, element in enumerate(BY_SERVICE[service].elements) if bits >> bit & 1]
        for service in SERVICES
        for bits in range(2**ELEMENTS_PER_POLICY)
    ]
    return pl.Series(lists, dtype=pl.List(pl.String))


def further_diagnoses() -> pl.Series:
    """Sets of comorbidities; entry `bits` has the diagnoses of the set bits."""
    lists = [
        [code for bit, code in enumerate(COMORBIDITIES) if bits >> bit & 1]
        for bits in range(2 ** len(COMORBIDITIES))
    ]
    return pl.Series(lists, dtype=pl.List(pl.String))
