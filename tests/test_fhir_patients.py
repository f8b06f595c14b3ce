"""One patient has one token, whether X12 or FHIR tells of him, and a dependent is no subscriber."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_contracts.crosswalk import Crosswalk, Payer
from data_contracts.deidentification.tokens import Tokens, first_word
from data_contracts.readers.events import spool
from data_contracts.readers.fhir import read_fhir
from data_contracts.readers.findings import Findings
from data_contracts.readers.x12 import read_x12

TOKENS = Tokens(b"a network's key, for tests only!!")
CROSSWALK = Crosswalk(TOKENS, payers={"60054": Payer("payer-1", "COMM")})
MEMBER = TOKENS.patient("payer-1", "M1")
UNCLEAR = "a Coverage that does not tell whether its patient is the subscriber"
MEMBER_NUMBER = {"type": {"coding": [{"code": "MB"}]}, "value": "M7"}
MBI = {"system": "http://hl7.org/fhir/sid/us-mbi", "value": "1EG4TE5MK73"}

Json = dict[str, Any]


def relationship(code: str) -> Json:
    return {"relationship": {"coding": [{"code": code}]}}


def fhir_token(folder: Path, patient: Json, coverage: Json) -> tuple[str | None, Findings]:
    """The token of a patient, by an Observation."""
    resources: list[Json] = [
        {"resourceType": "Organization", "id": "p", "identifier": [{"value": "60054"}]},
        {"resourceType": "Patient", "id": "1", **patient},
        {"resourceType": "Patient", "id": "2"},
        {
            "resourceType": "Coverage",
            "subscriberId": "M1",
            "beneficiary": {"reference": "Patient/1"},
            "payor": [{"reference": "Organization/p"}],
            **coverage,
        },
        {
            "resourceType": "Observation",
            "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
            "subject": {"reference": "Patient/1"},
            "effectiveDateTime": "2024-01-01",
            "valueQuantity": {"value": 5, "system": "http://unitsofmeasure.org", "code": "%"},
        },
    ]
    file = folder / "a.ndjson"
    file.write_text("\n".join(map(json.dumps, resources)))
    findings = Findings()
    with spool(folder) as into:
        read_fhir(file, into, CROSSWALK, findings)
        tokens = into.scan("lab").collect()["patient_token"].to_list()
    return (tokens[0] if tokens else None), findings


def x12_token(folder: Path, first_name: str) -> str:
    """The token of a dependent in a 278."""
    body = [
        *("BHT*0007*13*B1*20240105*0930", "HL*1**20*1", "NM1*X3*2*PAYER*****PI*60054"),
        *("HL*2*1*21*1", "NM1*1P*2*CLINIC*****XX*1234567893"),
        *("HL*3*2*22*1", "NM1*IL*1*DOE*ANN****MI*M1"),
        *("HL*4*3*23*1", f"NM1*QC*1*DOE*{first_name}", "DMG*D8*20190203*M"),
        *("HL*5*4*EV*0", "TRN*1*T1*9123456789", "UM*HS*I"),
    ]
    lines = [
        f"ISA*00*{'':10}*00*{'':10}*ZZ*{'A':15}*ZZ*{'B':15}*240105*1200*^*00501*000000001*0*P*:",
        "GS*HI*A*B*20240105*1200*7*X*005010X217",
        "ST*278*0001*005010X217",
        *body,
        f"SE*{len(body) + 2}*0001",
        "GE*1*7",
        "IEA*1*000000001",
    ]
    file = folder / "a.x12"
    file.write_text("".join(f"{line}~\n" for line in lines), encoding="utf-8")
    with spool(folder) as into:
        read_x12(file, into, CROSSWALK, Findings())
        (token,) = into.scan("request").collect()["patient_token"].to_list()
    assert isinstance(token, str)
    return token


@pytest.mark.parametrize(
    ("in_fhir", "in_x12"),
    [
        (["José"], "JOSE"),
        (["Jose\u0301", "Luis"], "JOSE"),  # e and a mark of its own
        (["Jane M"], "JANE"),
        (["Jane M."], "JANE M"),
        (["D'Andre"], "DANDRE"),
        (["Mary-Ann"], "MARY-ANN"),
        (["Søren"], "SOREN"),
        (["  jane  "], "Jane"),
    ],
)
def test_both_formats_give_a_dependent_the_same_token(
    tmp_path: Path, in_fhir: list[str], in_x12: str
) -> None:
    patient = {"birthDate": "2019-02-03", "name": [{"given": in_fhir}]}
    token, _ = fhir_token(tmp_path, patient, relationship("child"))
    assert token == x12_token(tmp_path, in_x12) != MEMBER


def test_children_with_other_names_or_days_of_birth_are_others(tmp_path: Path) -> None:
    tokens = {
        fhir_token(
            tmp_path, {"birthDate": birth, "name": [{"given": [name]}]}, relationship("child")
        )[0]
        for birth in ("2019-02-03", "2019-02-04")
        for name in ("José", "Josefa", "Mary-Ann", "Mary", "李", "王")
    }
    assert len(tokens) == 12
    assert None not in tokens


def test_a_name_without_letters_tells_no_dependent_apart(tmp_path: Path) -> None:
    patient = {"birthDate": "2019-02-03", "name": [{"given": ["-"]}]}
    assert fhir_token(tmp_path, patient, relationship("child"))[0] is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("", ""), ("'", ""), ("ﬁona", "FIONA"), ("O\u2019Neil", "ONEIL"), ("Æthel", "AETHEL")],
)
def test_first_words(name: str, expected: str) -> None:
    assert first_word(name) == expected


CHILD = TOKENS.patient("payer-1", "M1", dependent="20190203 TIM")


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [
        (relationship("self"), MEMBER),
        (relationship("18"), MEMBER),  # X12 1069
        (relationship("child"), CHILD),
        (relationship("other"), CHILD),
        ({"subscriber": {"reference": "Patient/1"}}, MEMBER),
        ({"subscriber": {"reference": "https://a.example/Patient/1"}}, MEMBER),
        ({"subscriber": {"reference": "Patient/2"}}, CHILD),
        ({"policyHolder": {"reference": "Organization/p"}}, None),  # an employer, say
        ({}, None),
    ],
)
def test_who_is_covered_is_told_by_relationship_or_subscriber_and_never_guessed(
    tmp_path: Path, coverage: Json, expected: str | None
) -> None:
    patient = {"birthDate": "2019-02-03", "name": [{"given": ["Tim"]}]}
    token, findings = fhir_token(tmp_path, patient, coverage)
    assert token == expected
    assert findings.notes[UNCLEAR] == (expected is None)


@pytest.mark.parametrize("own", [MEMBER_NUMBER, MBI])
def test_a_patients_own_member_number_needs_no_relationship(tmp_path: Path, own: Json) -> None:
    token, findings = fhir_token(tmp_path, {"identifier": [own]}, {})
    assert token == TOKENS.patient("payer-1", str(own["value"]))
    assert findings.notes[UNCLEAR] == 1
    # Where the coverage tells whose number it has, that is taken.
    token, findings = fhir_token(tmp_path, {"identifier": [own]}, relationship("self"))
    assert token == MEMBER
    assert UNCLEAR not in findings.notes
