"""FHIR R4 becomes events: HL7's own samples, Da Vinci PAS, CARIN Blue Button, Bulk Data."""

import gzip
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from data_contracts.crosswalk import Crosswalk, Payer
from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.answers import combined
from data_contracts.readers.events import EVENTS, spool
from data_contracts.readers.fhir import read_fhir
from data_contracts.readers.findings import Findings, ReaderError

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "fhir_pas"
needs_samples = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason=f"HL7's sample bundles are not at {SAMPLES}"
)
TOKENS = Tokens(b"a network's key, for tests only!!")
CROSSWALK = Crosswalk(TOKENS)
ORPHAN = "an answer whose request is not there, told by the payer's number of the answer"
PAS = "http://hl7.org/fhir/us/davinci-pas/StructureDefinition/"
X12 = "https://codesystem.x12.org/005010/"
HL7 = "http://terminology.hl7.org/CodeSystem/"
NPI = "http://hl7.org/fhir/sid/us-npi"
HCPCS = "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
ICD = "http://hl7.org/fhir/sid/icd-10-cm"

Json = dict[str, Any]
Events = dict[str, list[dict[str, Any]]]


def read(path: Path, folder: Path, crosswalk: Crosswalk = CROSSWALK) -> tuple[Events, Findings]:
    """All events without file and place, and without fields that are unknown."""
    findings = Findings()
    with spool(folder) as into:
        read_fhir(path, into, crosswalk, findings)
        events = {kind: into.scan(kind).collect().to_dicts() for kind in EVENTS}
    known = {
        kind: [
            {k: v for k, v in row.items() if v is not None and k not in ("file", "place")}
            for row in rows
        ]
        for kind, rows in events.items()
        if rows
    }
    return known, findings


def read_resources(
    resources: list[Json], folder: Path, crosswalk: Crosswalk = CROSSWALK
) -> tuple[Events, Findings]:
    """Events of resources as one collection bundle."""
    return read(write(bundle(*resources), folder / "bundle.json"), folder, crosswalk)


def write(content: Json, file: Path) -> Path:
    file.write_text(json.dumps(content))
    return file


def bundle(*resources: Json) -> Json:
    entries = [
        {
            "fullUrl": f"http://example.org/fhir/{each['resourceType']}/{each.get('id')}",
            "resource": each,
        }
        for each in resources
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def concept(system: str, code: str) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def extension(name: str, system: str, code: str) -> Json:
    return {"url": PAS + name, "valueCodeableConcept": concept(system, code)}


# --- HL7's samples: every file, worked out by hand ------------------------------------------------

# All of Claim.json, bundle-items.json and the three answers ask for the same two items. Nothing
# tells payer and patient: the coverage that they name has no member id, and the payer of each
# coverage is an Organization that is not in the bundle. Diagnoses are SNOMED. The provider is
# told by NPI. Priority "normal" is elective; the questionnaire's answers are one attachment.
_ITEM = {
    "provider_group_id": TOKENS.pseudonym("provider", "1122334455"),
    "request_type": "medical",
    "claim_type": "professional",
    "level_of_service": "E",
    "modifier": [],
    "dx_other": [],
    "channel": "FHIR",
    "attachments_n": 1,
    "submitted_at": datetime(2019, 8, 6),
}


def sample_items(claim_id: str, first: str = "3") -> list[Json]:
    """Both items; the first is flagged as cancelled (X12 UM02: 3) where the sample says so."""
    token = TOKENS.request("1122334455", claim_id)  # no identifier: the Claim's id stands in
    return [
        {
            "request_token": token,
            "item_sequence": number,
            "procedure_code": code,
            "certification_type": certification,
            **_ITEM,
        }
        for number, code, certification in ((1, "G0154", first), (2, "B4184", "I"))
    ]


@needs_samples
@pytest.mark.parametrize(
    ("name", "claim_id", "first"),
    [
        ("Claim.json", "451fe716-4701-4cdf-b5bb-a6eedbe43bbb", "3"),
        ("bundle-items.json", "001", "I"),  # there itemCancelled is false
    ],
)
def test_requests_of_the_reference_implementation(
    tmp_path: Path, name: str, claim_id: str, first: str
) -> None:
    events, findings = read(SAMPLES / name, tmp_path)
    assert events == {"request": sample_items(claim_id, first)}
    assert findings.notes == {
        "a Claim without identifier, told by its id, which other sites do not know": 1,
        "a request whose patient is unknown (no coverage with payer and member id)": 1,
        "a request whose payer is unknown": 1,
        "a diagnosis without ICD-10-CM code": 3,  # SNOMED 87837008, 389087006, 44054006
        "a moment without time of day, taken as 00:00 UTC": 1,  # created 2019-08-06
        "a resource of a type that is not read (QuestionnaireResponse)": 1,
        "a Patient without coverage by a known payer or without member id": 1,
        "an Observation whose patient is unknown": 2,
        "a Coverage that does not tell whether its patient is the subscriber": 5,
    }


@needs_samples
@pytest.mark.parametrize(
    ("name", "claim_id", "action", "reasons"),
    [
        # The action is a plain value of the response, a form of the guide's first drafts; the
        # request is named by a search, which the bundle's only Claim answers.
        ("GrantedResponse.json", "ee7f76f8-5e4e-4733-8f85-3fe3c29cf30f", "A1", []),
        ("DeniedResponse.json", "451fe716-4701-4cdf-b5bb-a6eedbe43bbb", "A3", ["X"]),
        ("PendedClaimResponse.json", "f57a4af7-e3b7-475e-9fae-b31cc0319e36", "A4", ["X"]),
    ],
)
def test_answers_of_the_reference_implementation(
    tmp_path: Path, name: str, claim_id: str, action: str, reasons: list[str]
) -> None:
    events, findings = read(SAMPLES / name, tmp_path)
    assert events["request"] == sample_items(claim_id)
    assert events["decision"] == [
        {
            "request_token": TOKENS.request("1122334455", claim_id),
            "action_code": action,
            "reason_codes": reasons,
            "decided_at": datetime(2019, 9, 9, 12, 59, 58),  # 08:59:58-04:00
        }
    ]
    # preAuthRef is always there, but the insurer is no more than the text "Unknown"; a number that
    # authorizes nothing is not looked at.
    assert findings.notes["an authorization number of an unknown payer"] == (action == "A1")


@needs_samples
def test_the_denied_answer_has_the_token_of_its_request(tmp_path: Path) -> None:
    request, _ = read(SAMPLES / "Claim.json", tmp_path)
    answer, _ = read(SAMPLES / "DeniedResponse.json", tmp_path)
    assert answer["decision"][0]["request_token"] == request["request"][0]["request_token"]


@needs_samples
def test_a_claim_without_items_asks_for_what_its_prescription_names(tmp_path: Path) -> None:
    events, findings = read(SAMPLES / "bundle-prior-auth.json", tmp_path)
    payer = TOKENS.pseudonym("payer", "Centers for Medicare and Medicaid Services")  # no identifier
    assert events == {
        "request": [
            {
                "request_token": TOKENS.request("1122334455", "minimal"),
                "item_sequence": 1,
                # No patient: neither relationship nor subscriber tells whose the member id is.
                "payer_id": payer,
                "procedure_code": "E0424",  # of the DeviceRequest
                "certification_type": "I",
                "dx_principal": "J44.9",  # sequence 1, of a Condition
                **_ITEM,
                "dx_other": ["R09.02"],
                "submitted_at": datetime(2019, 4, 1),
            }
        ],
    }
    unclear = "a Coverage that does not tell whether its patient is the subscriber"
    assert findings.notes[unclear] == 2


@needs_samples
def test_an_answer_that_repeats_the_trace_number_is_joined_without_its_claim(
    tmp_path: Path,
) -> None:
    content = json.loads((SAMPLES / "bundle-response.json").read_bytes())
    (identifier,) = content["entry"][0]["resource"]["identifier"]
    identifier |= {"system": "http://example.org/PATIENT_EVENT_TRACE_NUMBER", "value": "111099"}
    events, _ = read(write(content, tmp_path / "b.json"), tmp_path)
    payer = TOKENS.pseudonym("payer", "789312")
    assert events == {
        "decision": [
            {
                # The requestor is a role; its practitioner has the identifier 8189991234.
                "request_token": TOKENS.request("8189991234", "111099"),
                "action_code": "A1",
                "reason_codes": [],
                "decided_at": datetime(2019, 7, 20),
                "auth_period_days": 31,  # 2005-05-02 to 2005-06-02
            }
        ],
        # The coverage does not tell whose it is, but the Patient has a member number (type MI).
        "person": [{"patient_token": TOKENS.patient(payer, "12345678901")}],
    }


@needs_samples
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bundle-minimal.json", "Bundle.entry: the bundle holds no entry"),
        ("claim-only.json", "Claim.item: no item, and no prescription that is given"),
        (
            "claimresponse-pended.json",  # neither request nor identifier
            r"Bundle.entry\[0\].resource.request: .* which Claim is answered",
        ),
    ],
)
def test_samples_that_cannot_be_used_say_why(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ReaderError, match=rf"{name}, {message}"):
        read(SAMPLES / name, tmp_path)


@needs_samples
def test_an_answer_without_any_sign_of_its_request_is_kept_under_its_own_number(
    tmp_path: Path,
) -> None:
    # Its only identifier is the number of the review (HCR02).
    events, findings = read(SAMPLES / "bundle-response.json", tmp_path)
    assert [each["action_code"] for each in events["decision"]] == ["A1"]
    assert findings.notes[ORPHAN] == 1


@needs_samples
def test_no_identifier_of_the_samples_is_in_events_notes_or_messages(tmp_path: Path) -> None:
    secrets = (
        *("Smith", "Quinton", "Vlad", "Doe", "Jane", "JOE", "GARDENER", "MARYLAND", "Bedford"),
        *("1122334455", "348074389", "98765400001AZ", "10A3D58WH", "64A3D58WH01", "111099"),
        *("12345678901", "789312", "8189991234", "AUTH0001", "pat013", "451fe716", "ee7f76f8"),
        *("1979-07-04", "1956-12-01"),
    )
    findings = Findings("quarantine")
    with spool(tmp_path) as into:
        read_fhir(SAMPLES, into, CROSSWALK, findings)
        rows = [
            # File names are the site's own; the birth date of a person stays in the spool.
            {k: str(v) for k, v in row.items() if k not in ("file", "birth_date")}
            for kind in EVENTS
            for row in into.scan(kind).collect().to_dicts()
        ]
    assert len(findings.refused) == 3  # those of the test above
    told = "\n".join([str(rows), *findings.refused, *findings.notes])
    # 2 items in each of 5 files and 1 in a sixth, 4 answers, and the patient of one of them.
    assert len(rows) == 16
    assert [secret for secret in secrets if secret in told] == []


# --- Da Vinci PAS 2 -------------------------------------------------------------------------------

INSURER: Json = {
    "resourceType": "Organization",
    "id": "insurer",
    "identifier": [{"system": "http://example.org/naic", "value": "60054"}],
}
CLINIC: Json = {
    "resourceType": "Organization",
    "id": "clinic",
    "identifier": [
        {"system": "http://example.org/tin", "value": "12-3456789"},
        {"system": NPI, "value": "1234567893"},  # an NPI counts before any other identifier
    ],
}
PATIENT: Json = {
    "resourceType": "Patient",
    "id": "ann",
    "name": [
        {"use": "nickname", "given": ["Annie"]},
        {"use": "official", "family": "Lee", "given": ["Ann", "May"]},
    ],
    "gender": "female",
    "birthDate": "1980-02-29",
    "address": [{"postalCode": "10001-1234"}],
}
COVERAGE: Json = {
    "resourceType": "Coverage",
    "id": "cover",
    "status": "active",
    "subscriberId": "m-123 456",
    "relationship": concept(HL7 + "subscriber-relationship", "self"),
    "beneficiary": {"reference": "Patient/ann"},
    "payor": [{"reference": "Organization/insurer"}],
}
PAYER = TOKENS.pseudonym("payer", "60054")
ANN = TOKENS.patient(PAYER, "M123456")
PARTIES = [INSURER, CLINIC, PATIENT, COVERAGE]
REQUEST = TOKENS.request("1234567893", "TRACE-9")


def claim(*items: Json, **fields: object) -> Json:
    return {
        "resourceType": "Claim",
        "id": "claim",
        "identifier": [{"system": "http://example.org/trace", "value": "TRACE-9"}],
        "status": "active",
        "type": concept(HL7 + "claim-type", "professional"),
        "use": "preauthorization",
        "patient": {"reference": "Patient/ann"},
        "created": "2024-03-01T23:30:00.123456789-05:00",
        "insurer": {"reference": "Organization/insurer"},
        "provider": {"reference": "Organization/clinic"},
        "priority": concept(HL7 + "processpriority", "stat"),
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"reference": "Coverage/cover"}}],
        "item": list(items) or [item(1)],
        **fields,
    }


def item(sequence: int, code: str = "E0424", **fields: object) -> Json:
    return {"sequence": sequence, "productOrService": concept(HCPCS, code), **fields}


def answer(*codes: str, **fields: object) -> Json:
    return {
        "resourceType": "ClaimResponse",
        "id": "answer",
        "status": "active",
        "use": "preauthorization",
        "created": "2024-03-04T12:00:00Z",
        "insurer": {"reference": "Organization/insurer"},
        "request": {"reference": "http://example.org/fhir/Claim/claim"},
        "outcome": "complete",
        "item": [
            {"itemSequence": number, "adjudication": [{"extension": [review(code)]}]}
            for number, code in enumerate(codes, start=1)
        ],
        **fields,
    }


def review(code: str, *parts: Json) -> Json:
    """Extension reviewAction as PAS 2 has it."""
    action = extension("extension-reviewActionCode", X12 + "306", code)
    return {"url": PAS + "extension-reviewAction", "extension": [action, *parts]}


def test_a_request_with_all_that_the_guide_holds(tmp_path: Path) -> None:
    asked = claim(
        item(
            1,
            extension=[
                extension("extension-serviceItemRequestType", X12 + "1525", "HS"),
                extension("extension-certificationType", X12 + "1322", "R"),
            ],
            category=concept(X12 + "1365", "12"),
            modifier=[concept(HCPCS, "RR"), concept(HCPCS, "kx")],
            quantity={"value": 3, "unit": "months", "code": "MO"},
            locationCodeableConcept=concept("https://www.cms.gov/place-of-service", "12"),
        ),
        {
            "sequence": 2,
            "productOrService": concept("http://hl7.org/fhir/sid/ndc", "0002-8215-01"),
            "category": concept(X12 + "1365", "1"),
        },
        extension=[extension("extension-levelOfServiceCode", X12 + "1338", "03")],
        diagnosis=[
            {"sequence": 1, "diagnosisCodeableConcept": concept(ICD, "E11.9")},
            {
                "sequence": 2,
                "diagnosisCodeableConcept": concept(ICD, "J44.9"),
                "type": [concept(HL7 + "ex-diagnosistype", "principal")],
            },
        ],
        careTeam=[{"sequence": 1, "provider": {"reference": "#role"}}],
        contained=[
            {
                "resourceType": "PractitionerRole",
                "id": "role",
                "specialty": [concept("http://nucc.org/provider-taxonomy", "207R00000X")],
            }
        ],
        supportingInfo=[
            {"sequence": 1, "valueReference": {"reference": "DocumentReference/1"}},
            {"sequence": 2, "valueString": "no document"},
        ],
    )
    events, findings = read_resources([*PARTIES, asked], tmp_path)
    both = {
        "request_token": REQUEST,
        "patient_token": ANN,
        "payer_id": PAYER,
        "provider_group_id": TOKENS.pseudonym("provider", "1234567893"),
        "claim_type": "professional",
        "level_of_service": "03",  # UM06 by its extension, before the priority "stat"
        "dx_principal": "J44.9",  # so marked, though second
        "dx_other": ["E11.9"],
        "provider_taxonomy": "207R00000X",
        "channel": "FHIR",
        "attachments_n": 1,
        "submitted_at": datetime(2024, 3, 2, 4, 30, 0, 123456),  # UTC, the next day
    }
    assert events["request"] == [
        {
            **both,
            "item_sequence": 1,
            "request_type": "medical",
            "certification_type": "R",
            "request_category": "HS",
            "service_type": "12",
            "procedure_code": "E0424",
            "modifier": ["RR", "KX"],
            "place_of_service": "12",
            "quantity": 3.0,
            "quantity_unit": "MO",
        },
        {
            **both,
            "item_sequence": 2,
            "request_type": "drug",
            "certification_type": "I",
            "service_type": "other",  # 1 medical care: one of the types that are pooled
            "ndc": "00002821501",
            "modifier": [],
        },
    ]
    assert findings.notes == {}


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["A1", "A1"], "A1"),
        (["A3", "A3"], "A3"),
        (["A1", "A4"], "A4"),  # pended as long as one item is
        (["A1", "A3"], "A2"),
        (["A6", "A3"], "A2"),
        (["A1", "A6"], "A6"),
        (["A2", "A1"], "A2"),
        (["A1", "C"], "A1"),  # a cancelled item asks for nothing
        (["C", "C"], "C"),
        (["CT", "A1"], "CT"),
    ],
)
def test_actions_of_items_make_one_decision(
    tmp_path: Path, codes: list[str], expected: str
) -> None:
    events, _ = read_resources([*PARTIES, claim(), answer(*codes)], tmp_path)
    assert [each["action_code"] for each in events["decision"]] == [expected]
    assert combined(set(codes)) == expected


def test_an_approval_with_number_period_units_and_reason(tmp_path: Path) -> None:
    number = {"url": "number", "valueString": "AUTH-77"}
    reason = {"url": "reasonCode", "valueCodeableConcept": concept(X12 + "886", "0V")}
    detail = {
        "url": PAS + "extension-itemAuthorizedDetail",
        "extension": [{"url": "quantity", "valueQuantity": {"value": 2.5}}],
    }
    response = answer(
        preAuthPeriod={"start": "2024-03-04", "end": "2024-06-02"},
        item=[
            {
                "itemSequence": n,
                "extension": [detail],
                "adjudication": [{"extension": [review("A1", number, reason)]}],
            }
            for n in (1, 2)
        ],
    )
    events, findings = read_resources([*PARTIES, claim(), response], tmp_path)
    assert events["decision"] == [
        {
            "request_token": REQUEST,
            "action_code": "A1",
            "reason_codes": ["0V"],
            "decided_at": datetime(2024, 3, 4, 12),
            "units_approved": 5.0,
            "auth_period_days": 90,  # 27 in March, 30, 31 and 2 in June
            "authorization_token": TOKENS.authorization(PAYER, "AUTH77"),
        }
    ]
    assert findings.notes == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"disposition": "Granted"}, "A1"),
        ({"disposition": "Denied"}, "A3"),
        ({"disposition": "Pending", "outcome": "queued"}, "A4"),
        ({"outcome": "queued"}, "A4"),
        ({"disposition": "Granted", "outcome": "queued"}, "A4"),  # the outcome says: not done
    ],
)
def test_older_answers_are_told_by_disposition_and_outcome(
    tmp_path: Path, fields: Json, expected: str
) -> None:
    events, _ = read_resources([*PARTIES, claim(), answer(**fields)], tmp_path)
    assert events["decision"][0]["action_code"] == expected


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"outcome": "error"}, "a ClaimResponse with outcome error, which decides nothing"),
        ({"disposition": "See letter"}, "a ClaimResponse that tells no action"),
        ({"status": "cancelled"}, "a ClaimResponse that was cancelled"),
        ({"use": "predetermination"}, "a ClaimResponse about an estimate (predetermination)"),
        ({"status": "entered-in-error"}, "a resource that was entered in error (ClaimResponse)"),
    ],
)
def test_answers_that_decide_nothing_are_noted(tmp_path: Path, fields: Json, note: str) -> None:
    events, findings = read_resources([*PARTIES, claim(), answer(**fields)], tmp_path)
    assert "decision" not in events
    assert findings.notes == {note: 1}


@pytest.mark.parametrize(
    "response",
    [
        {"request": {"reference": "http://example.org/fhir/Claim/claim"}},
        {"request": {"reference": "Claim/claim"}},
        {"request": {"reference": "Claim/claim/_history/2"}},
    ],
)
def test_an_answer_has_the_token_of_its_request(tmp_path: Path, response: Json) -> None:
    events, findings = read_resources([*PARTIES, claim(), answer("A1", **response)], tmp_path)
    assert events["decision"][0]["request_token"] == events["request"][0]["request_token"]
    assert findings.notes == {}


@pytest.mark.parametrize(
    "response",
    [
        # The guide: "should use a scheme of urn:trnorg:<TRN03>"; its examples have another.
        {"identifier": [{"system": "urn:trnorg:1234567893", "value": "trace-9"}]},
        {
            "identifier": [
                {"value": "PAYER-1"},
                {"system": "http://example.org/PATIENT_EVENT_TRACE_NUMBER", "value": "TRACE-9"},
            ]
        },
        {"request": {"identifier": {"value": "TRACE-9"}}},
        {"request": {"reference": "Claim?identifier=http://example.org/trace|TRACE-9"}},
    ],
)
def test_an_answer_without_the_claim_has_the_token_of_the_request_too(
    tmp_path: Path, response: Json
) -> None:
    alone = answer(
        "A3", requestor={"reference": "Organization/clinic"}, **{"request": {}, **response}
    )
    events, _ = read_resources([*PARTIES, alone], tmp_path)
    assert events["decision"][0]["request_token"] == REQUEST


def test_an_answer_to_another_claim_is_not_taken_for_one_to_the_only_claim(tmp_path: Path) -> None:
    response = answer("A1", request={"reference": "Claim/other"})
    with pytest.raises(ReaderError, match="neither it nor an identifier tells which Claim"):
        read_resources([*PARTIES, claim(), response], tmp_path)
    elsewhere = answer("A1", request={"reference": "https://elsewhere.org/r4/Claim/claim"})
    with pytest.raises(ReaderError, match="neither it nor an identifier tells which Claim"):
        read_resources([*PARTIES, claim(), elsewhere], tmp_path)


def test_entries_are_found_by_urn(tmp_path: Path) -> None:
    urn = "urn:uuid:3f1c1f9e-0d2b-4a63-9e58-5d0f0a1b2c3d"
    content = bundle(*PARTIES, claim(), answer("A1", request={"reference": urn}))
    content["entry"][4]["fullUrl"] = urn
    events, _ = read(write(content, tmp_path / "b.json"), tmp_path)
    assert events["decision"][0]["request_token"] == REQUEST


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["S", "3"]),  # a revised request, one of whose items is cancelled
        ({"status": "cancelled"}, ["3", "3"]),
        ({"related": []}, ["I", "3"]),
        (
            {"extension": [extension("extension-certificationType", X12 + "1322", "4")]},
            ["4", "3"],
        ),
    ],
)
def test_updates_are_revised_or_cancelled(
    tmp_path: Path, fields: Json, expected: list[str]
) -> None:
    cancelled = {
        "modifierExtension": [
            {"url": PAS + "modifierextension-infoCancelled", "valueBoolean": True}
        ]
    }
    related = [
        {
            "claim": {"reference": "Claim/earlier"},
            "relationship": concept(HL7 + "ex-relatedclaimrelationship", "prior"),
        }
    ]
    update = claim(item(1), item(2, **cancelled), **{"related": related, **fields})
    events, _ = read_resources([*PARTIES, update], tmp_path)
    assert [each["certification_type"] for each in events["request"]] == expected


def test_dependents_of_a_member_are_told_apart_by_birth_date_and_first_name(
    tmp_path: Path,
) -> None:
    child = COVERAGE | {"relationship": concept(HL7 + "subscriber-relationship", "child")}
    events, _ = read_resources([INSURER, CLINIC, PATIENT, child, claim()], tmp_path)
    token = TOKENS.patient(PAYER, "M123456", dependent="19800229Ann")
    assert events["request"][0]["patient_token"] == token != ANN
    assert events["person"][0]["patient_token"] == token
    nameless = {k: v for k, v in PATIENT.items() if k != "name"}
    events, findings = read_resources([INSURER, CLINIC, nameless, child, claim()], tmp_path)
    assert "patient_token" not in events["request"][0]
    assert "person" not in events
    assert findings.notes.total() == 2


def test_a_coverage_may_name_its_patient_by_an_absolute_address(tmp_path: Path) -> None:
    for address in ("http://example.org/fhir/Patient/ann", "Patient/ann/_history/3"):
        child = COVERAGE | {
            "relationship": concept(HL7 + "subscriber-relationship", "child"),
            "beneficiary": {"reference": address},
        }
        events, _ = read_resources([INSURER, CLINIC, PATIENT, child, claim()], tmp_path)
        token = TOKENS.patient(PAYER, "M123456", dependent="19800229Ann")
        assert events["request"][0]["patient_token"] == token


def test_the_crosswalk_and_the_coverage_name_payer_and_line(tmp_path: Path) -> None:
    crosswalk = Crosswalk(TOKENS, {"60054": Payer("payer-a", "COMM")}, {"123456789": "group-7"})
    events, _ = read_resources([*PARTIES, claim()], tmp_path, crosswalk)
    found = events["request"][0]
    assert (found["payer_id"], found["business_line"]) == ("payer-a", "COMM")
    assert found["provider_group_id"] == "group-7"  # by the tax id, the NPI is not listed
    assert found["patient_token"] == TOKENS.patient("payer-a", "M123456")
    managed = COVERAGE | {"type": concept("https://nahdo.org/sopt", "213")}  # Medicaid managed care
    events, _ = read_resources([INSURER, CLINIC, PATIENT, managed, claim()], tmp_path, crosswalk)
    assert events["request"][0]["business_line"] == "MCD_MCO"


def test_units_are_those_of_the_contract_or_left_out_and_counted(tmp_path: Path) -> None:
    units = {
        1: {"code": "DY"},  # HSD01, as the guide wants it
        2: {"code": "h", "system": "http://unitsofmeasure.org"},
        3: {"code": "JANE"},
    }
    asked = claim(*(item(number, quantity={"value": 2, **unit}) for number, unit in units.items()))
    events, findings = read_resources([*PARTIES, asked], tmp_path)
    assert [each.get("quantity_unit") for each in events["request"]] == ["DA", "HR", None]
    assert findings.notes == {"a unit of quantity that the contract does not hold": 1}


def test_codes_that_the_contract_does_not_hold_are_noted(tmp_path: Path) -> None:
    asked = claim(
        item(
            1,
            code="E042",
            extension=[
                extension("extension-serviceItemRequestType", X12 + "1525", "IN"),
                extension("extension-certificationType", X12 + "1322", "N"),
            ],
            modifier=[concept(HCPCS, "RENTAL")],
            locationCodeableConcept=concept(HCPCS, "home"),
            quantity={"value": 1, "unit": "months"},
        ),
        extension=[extension("extension-levelOfServiceCode", X12 + "1338", "07")],
        diagnosis=[
            {"sequence": 2, "diagnosisCodeableConcept": concept(ICD, "E119")},  # E11.9
            {"sequence": 1, "diagnosisReference": {"reference": "Condition/gone"}},
        ],
        provider={"reference": "Organization/gone"},
        careTeam=[
            {
                "sequence": 1,
                "qualification": concept("http://nucc.org/provider-taxonomy", "207R00000X"),
            }
        ],
    )
    events, findings = read_resources([*PARTIES, asked], tmp_path)
    (found,) = events["request"]
    assert found == {
        "request_token": TOKENS.request("", "TRACE-9"),
        "item_sequence": 1,
        "patient_token": ANN,
        "payer_id": PAYER,
        "request_type": "medical",
        "claim_type": "professional",
        "level_of_service": "U",  # of the priority "stat"
        "modifier": [],
        "dx_other": ["E11.9"],  # the first in sequence is unknown, and none takes its place
        "provider_taxonomy": "207R00000X",
        "quantity": 1.0,
        "channel": "FHIR",
        "attachments_n": 0,
        "submitted_at": datetime(2024, 3, 2, 4, 30, 0, 123456),
    }
    assert findings.notes == {
        "a code that has not the shape of its system (procedure)": 1,
        "a request category that the contract does not hold": 1,
        "a certification type that the contract does not hold": 1,
        "a level of service that the contract does not hold": 1,
        "a modifier that has not two characters": 1,
        "a place of service that has not two digits": 1,
        "a unit without code": 1,
        "an item without HCPCS, CPT, NDC or RxNorm code": 1,
        "a diagnosis whose Condition is not there": 1,
        "a diagnosis without ICD-10-CM code": 1,
        "a request whose provider is unknown": 1,
    }


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2024-02-29T23:59:60Z", datetime(2024, 3, 1)),  # a leap second
        ("2024-03-01T10:00+05:30", datetime(2024, 3, 1, 4, 30)),
        ("2024-03-01T00:00:00.5Z", datetime(2024, 3, 1, 0, 0, 0, 500_000)),
        ("2024-03-01", datetime(2024, 3, 1)),
    ],
)
def test_moments_are_in_utc(tmp_path: Path, created: str, expected: datetime) -> None:
    events, _ = read_resources([*PARTIES, claim(created=created)], tmp_path)
    assert events["request"][0]["submitted_at"] == expected


def test_an_item_may_refer_to_the_order_that_names_its_code(tmp_path: Path) -> None:
    order = {
        "resourceType": "MedicationRequest",
        "id": "order",
        "medicationCodeableConcept": concept(
            "http://www.nlm.nih.gov/research/umls/rxnorm", "860975"
        ),
    }
    asked = claim(
        {
            "sequence": 1,
            "productOrService": concept("http://example.org/local", "x"),
            "extension": [
                {
                    "url": PAS + "extension-requestedService",
                    "valueReference": {"reference": "MedicationRequest/order"},
                }
            ],
        }
    )
    events, _ = read_resources([*PARTIES, order, asked], tmp_path)
    assert events["request"][0]["rxcui"] == "860975"
    assert events["request"][0]["request_type"] == "drug"


@pytest.mark.parametrize(
    ("units", "actions", "expected"),
    [
        ([("UN", 2), ("UN", 3)], ["A1", "A3"], 2.0),  # the other item is denied
        ([("UN", 2), ("DA", 3)], ["A1", "A6"], None),  # visits and days cannot be added
        ([("UN", 2)], ["A3"], None),
    ],
)
def test_units_are_those_of_certified_items(
    tmp_path: Path, units: list[tuple[str, int]], actions: list[str], expected: float | None
) -> None:
    response = answer(
        addItem=[
            {
                "productOrService": concept(HCPCS, "E0424"),
                "quantity": {"value": value, "code": code},
                "adjudication": [{"extension": [review(action)]}],
            }
            for (code, value), action in zip(units, actions, strict=True)
        ]
    )
    events, _ = read_resources([*PARTIES, claim(), response], tmp_path)
    assert events["decision"][0].get("units_approved") == expected


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        ({k: v for k, v in claim().items() if k not in ("identifier", "id")}, "identifier: a requ"),
        (
            {k: v for k, v in claim().items() if k != "created"},
            "created: the moment of the request",
        ),
        (
            {
                k: v
                for k, v in answer(request={"reference": "Claim/other"}).items()
                if k != "created"
            },
            "created: the moment of the answer",
        ),
    ],
)
def test_what_requests_and_answers_cannot_do_without(
    tmp_path: Path, resource: Json, message: str
) -> None:
    with pytest.raises(ReaderError, match=message):
        read_resources([claim(id="other"), resource], tmp_path)


# --- claims and payments --------------------------------------------------------------------------


def money(value: float) -> Json:
    return {"value": value, "currency": "USD"}


def amount(category: str, value: float, **fields: object) -> Json:
    return {"category": concept(HL7 + "adjudication", category), "amount": money(value), **fields}


BILLED = claim(
    item(
        1, net=money(100), revenue=concept("https://www.nubc.org/CodeSystem/RevenueCodes", "0250")
    ),
    item(
        2, net=money(140.5), revenue=concept("https://www.nubc.org/CodeSystem/RevenueCodes", "0300")
    ),
    use="claim",
    billablePeriod={"start": "2024-02-27", "end": "2024-02-28"},
)
BILLED["insurance"][0]["preAuthRef"] = ["AUTH-77"]


def explanation(**fields: object) -> Json:
    return {
        "resourceType": "ExplanationOfBenefit",
        "id": "eob",
        "identifier": [{"value": "PAYER-OWN-1"}],
        "status": "active",
        "use": "claim",
        "outcome": "complete",
        "patient": {"reference": "Patient/ann"},
        "insurer": {"reference": "Organization/insurer"},
        "provider": {"reference": "Organization/clinic"},
        "precedence": 1,
        "insurance": BILLED["insurance"],
        "billablePeriod": BILLED["billablePeriod"],
        "supportingInfo": [
            {
                "sequence": 1,
                "category": concept("http://hl7.org/fhir/us/carin-bb/x", "clmrecvddate"),
                "timingDate": "2024-03-01",
            },
            {
                "sequence": 2,
                "category": concept("http://hl7.org/fhir/us/carin-bb/x", "patientaccountnumber"),
                "valueString": "TRACE-9",
            },
            {
                "sequence": 3,
                "category": concept("http://hl7.org/fhir/us/carin-bb/x", "drg"),
                "code": concept("https://www.cms.gov/msdrg", "470"),
            },
        ],
        "item": [
            {
                "sequence": 1,
                "adjudication": [
                    amount("copay", 15),
                    amount(
                        "noncovered",
                        60.5,
                        reason=concept("https://x12.org/codes/claim-adjustment-reason-codes", "45"),
                    ),
                ],
            },
            {"sequence": 2, "adjudication": [amount("copay", 5), amount("submitted", 1)]},
        ],
        "total": [
            amount("submitted", 240.5),
            amount("eligible", 180),
            amount("paidtoprovider", 130),
            amount("deductible", 30),
            amount("memberliability", 50),
        ],
        "payment": {"date": "2024-03-20"},
        **fields,
    }


PAYMENT = {
    "claim_token": TOKENS.claim("1234567893", "TRACE-9"),
    "patient_token": ANN,
    "authorization_token": TOKENS.authorization(PAYER, "AUTH77"),
    "claim_status": "1",
    "submitted": 240.5,  # the total, not the items
    "eligible": 180.0,
    "paid_to_provider": 130.0,
    "paid_by_patient": 50.0,
    "deductible": 30.0,
    "copay": 20.0,  # no total: the sum of the items
    "carc": "45",
    "rarc": [],
    "service_from": date(2024, 2, 27),
    "received_on": date(2024, 3, 1),
    "paid_on": date(2024, 3, 20),
    "reversal_flag": False,
    "drg": "470",
}


def test_a_claim_and_its_explanation_of_benefit(tmp_path: Path) -> None:
    events, findings = read_resources([*PARTIES, BILLED, explanation()], tmp_path)
    assert events["claim"] == [
        {
            "claim_token": PAYMENT["claim_token"],
            "patient_token": ANN,
            "authorization_token": PAYMENT["authorization_token"],
            "submitted": 240.5,
            "service_from": date(2024, 2, 27),
            "revenue_code": "0300",  # of the line with the larger charge
        }
    ]
    assert events["payment"] == [PAYMENT]
    assert findings.notes == {"an adjudicated amount that the contract does not hold": 1}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "cancelled"}, {"claim_status": "22", "reversal_flag": True}),
        (
            {"payment": {"type": concept("http://hl7.org/fhir/us/carin-bb/x", "denied")}},
            {"claim_status": "4"},
        ),
        ({"precedence": 2}, {"claim_status": "2"}),
    ],
)
def test_the_status_of_a_payment(tmp_path: Path, fields: Json, expected: Json) -> None:
    events, _ = read_resources([*PARTIES, explanation(**fields)], tmp_path)
    assert events["payment"][0].items() >= expected.items()


def test_an_answer_to_a_claim_is_a_payment(tmp_path: Path) -> None:
    response = answer(use="claim", total=[amount("submitted", 240.5), amount("benefit", 130)])
    events, _ = read_resources([*PARTIES, BILLED, response], tmp_path)
    (found,) = events["payment"]
    assert found["claim_token"] == events["claim"][0]["claim_token"]
    assert (found["submitted"], found["paid_to_provider"]) == (240.5, 130.0)


def test_an_estimate_is_noted(tmp_path: Path) -> None:
    events, findings = read_resources([*PARTIES, claim(use="predetermination")], tmp_path)
    assert events.keys() == {"person"}
    assert findings.notes == {"a Claim that asks for an estimate (predetermination)": 1}


def test_a_payment_without_totals_is_told_by_its_items_and_other_numbers(tmp_path: Path) -> None:
    remark = concept("https://x12.org/codes/remittance-advice-remark-codes", "N130")
    eob = explanation(
        precedence=9,
        supportingInfo=[],
        total=[],
        insurance=[],
        preAuthRef=["AUTH-77"],
        payment={},
        billablePeriod={},
        diagnosis=[
            {
                "sequence": 1,
                "packageCode": concept(
                    "https://www.cms.gov/Medicare/Medicare-Fee-for-Service-Payment/"
                    "AcuteInpatientPPS/MS-DRG-Classifications-and-Software",
                    "291",
                ),
            }
        ],
        item=[
            {
                "sequence": 1,
                "servicedPeriod": {"start": "2024-02-28"},
                "revenue": concept("https://www.nubc.org/CodeSystem/RevenueCodes", "250"),
                "adjudication": [
                    amount("submitted", 10, reason=remark),
                    amount("paidbypatient", 2),
                    amount("submitted", 5, reason=remark),
                ],
            },
            {"sequence": 2, "servicedDate": "2024-02-27"},
        ],
    )
    events, findings = read_resources([*PARTIES, eob], tmp_path)
    assert events["payment"] == [
        {
            # No Claim and no account number: the payer's own number of the claim.
            "claim_token": TOKENS.claim("1234567893", "PAYER-OWN-1"),
            "patient_token": ANN,  # by the reference to the Patient, as no coverage is named
            "authorization_token": PAYMENT["authorization_token"],
            "submitted": 15.0,
            "paid_by_patient": 2.0,
            "rarc": ["N130"],
            "service_from": date(2024, 2, 27),
            "reversal_flag": False,
            "drg": "291",
            "revenue_code": "0250",
        }
    ]
    assert findings.notes == {"a payment told by the payer's number of the claim alone": 1}
    eob |= {"patient": {"reference": "Patient/gone"}}
    _, findings = read_resources([*PARTIES, eob], tmp_path)
    assert findings.notes["a claim or payment whose patient is unknown"] == 1


@pytest.mark.parametrize(
    ("resource", "note"),
    [
        (BILLED | {"status": "cancelled"}, "a Claim that was cancelled or never sent"),
        (
            explanation(use="preauthorization"),
            "an ExplanationOfBenefit that is of no claim (its use)",
        ),
        (
            answer(use="claim", outcome="queued"),
            "a ClaimResponse without adjudication (queued or error)",
        ),
    ],
)
def test_claims_that_were_not_paid_or_sent_are_noted(
    tmp_path: Path, resource: Json, note: str
) -> None:
    events, findings = read_resources([*PARTIES, resource], tmp_path)
    assert events.keys() == {"person"}
    assert findings.notes == {note: 1}


def test_a_logical_reference_names_the_claim_that_was_paid(tmp_path: Path) -> None:
    eob = explanation(claim={"identifier": {"value": "TRACE-9"}}, supportingInfo=[])
    events, _ = read_resources([*PARTIES, eob], tmp_path)
    assert events["payment"][0]["claim_token"] == PAYMENT["claim_token"]


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (explanation(identifier=[], supportingInfo=[]), "identifier: nothing tells which claim"),
        (answer(use="claim"), "request: the Claim that is answered is not there"),
        (
            explanation(total=[{"amount": money(3)}]),
            r"total\[0\]: an amount without category or value",
        ),
    ],
)
def test_payments_of_nothing_are_refused(tmp_path: Path, resource: Json, message: str) -> None:
    with pytest.raises(ReaderError, match=message):
        read_resources([*PARTIES, resource], tmp_path)


# --- clinical records -----------------------------------------------------------------------------

SUBJECT = {"reference": "Patient/ann"}


def test_a_person_with_race_ethnicity_area_and_death(tmp_path: Path) -> None:
    def core(name: str, *codes: str) -> Json:
        return {
            "url": f"http://hl7.org/fhir/us/core/StructureDefinition/us-core-{name}",
            "extension": [{"url": "ombCategory", "valueCoding": {"code": code}} for code in codes],
        }

    patient = PATIENT | {
        "extension": [core("race", "2054-5"), core("ethnicity", "2186-5")],
        "deceasedDateTime": "2024-05-06T23:00:00-05:00",
    }
    events, _ = read_resources([INSURER, COVERAGE, patient], tmp_path)
    assert events["person"] == [
        {
            "patient_token": ANN,
            "birth_year": 1980,
            "birth_date": date(1980, 2, 29),
            "sex": "female",
            "race": "black",
            "ethnicity": "not_hispanic",
            "zip3": "100",
            "died_on": date(2024, 5, 6),  # the day that the clock there showed
        }
    ]
    patient |= {"extension": [core("race", "2054-5", "2106-3")], "birthDate": "1980"}
    events, findings = read_resources([INSURER, COVERAGE, patient], tmp_path)
    assert events["person"][0]["race"] == "other"  # of more than one race
    assert events["person"][0]["birth_year"] == 1980
    assert findings.notes == {"a date without its day": 1}


@pytest.mark.parametrize(
    ("code", "fields", "expected"),
    [
        ("IMP", {"priority": concept(HL7 + "v3-ActPriority", "EL")}, ("inpatient", None, True)),
        ("ACUTE", {"priority": concept(HL7 + "v3-ActPriority", "UR")}, ("inpatient", None, False)),
        ("NONAC", {}, ("inpatient", None, None)),
        ("EMER", {}, ("emergency", None, False)),
        ("AMB", {}, ("outpatient", None, None)),
        (
            "IMP",
            {"hospitalization": {"dischargeDisposition": concept(HL7 + "discharge", "exp")}},
            ("inpatient", True, None),
        ),
        (
            "IMP",
            {"hospitalization": {"dischargeDisposition": concept(HL7 + "discharge", "home")}},
            ("inpatient", False, None),
        ),
    ],
)
def test_visits(tmp_path: Path, code: str, fields: Json, expected: tuple[object, ...]) -> None:
    encounter = {
        "resourceType": "Encounter",
        "id": "e1",
        "status": "finished",
        "class": {"system": HL7 + "v3-ActCode", "code": code},
        "subject": SUBJECT,
        "period": {"start": "2024-01-30T22:00:00-05:00", "end": "2024-02-01"},
        **fields,
    }
    events, _ = read_resources([*PARTIES, encounter], tmp_path)
    (found,) = events["visit"]
    assert (found["kind"], found.get("died"), found.get("planned")) == expected
    assert (found["start_on"], found["end_on"]) == (date(2024, 1, 30), date(2024, 2, 1))
    assert found["patient_token"] == ANN


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"status": "planned"}, "an Encounter that did not take place"),
        ({"subject": {"reference": "Group/g"}}, "an Encounter whose patient is unknown"),
        (
            {"class": {"code": "unheard"}},
            "an Encounter of a class that is neither inpatient, emergency nor outpatient",
        ),
        ({"period": {"end": "2024-01-01"}}, "an Encounter without the day of its start"),
    ],
)
def test_visits_that_are_left_out_are_noted(tmp_path: Path, changed: Json, note: str) -> None:
    encounter = {
        "resourceType": "Encounter",
        "class": {"code": "AMB"},
        "subject": SUBJECT,
        "period": {"start": "2024-01-01"},
    }
    events, findings = read_resources([*PARTIES, encounter | changed], tmp_path)
    assert "visit" not in events
    assert findings.notes == {note: 1}


def test_a_death_without_its_day_is_noted(tmp_path: Path) -> None:
    events, findings = read_resources(
        [INSURER, COVERAGE, PATIENT | {"deceasedBoolean": True}], tmp_path
    )
    assert "died_on" not in events["person"][0]
    assert findings.notes == {"a death without its day": 1}


def quantity(value: float, code: str) -> Json:
    return {"value": value, "system": "http://unitsofmeasure.org", "code": code, "unit": "text"}


def observation(code: Json, **fields: object) -> Json:
    return {
        "resourceType": "Observation",
        "id": "o1",
        "status": "final",
        "code": code,
        "subject": SUBJECT,
        "effectiveDateTime": "2024-01-30",
        **fields,
    }


def test_laboratory_values_and_blood_pressure(tmp_path: Path) -> None:
    panel = observation(
        concept("http://loinc.org", "85354-9"),
        id="panel",
        component=[
            {"code": concept("http://loinc.org", code), "valueQuantity": quantity(value, "mm[Hg]")}
            for code, value in (("8480-6", 130), ("8462-4", 80.5))
        ],
    )
    hba1c = observation(concept("http://loinc.org", "4548-4"), valueQuantity=quantity(7.1, "%"))
    events, findings = read_resources([*PARTIES, panel, hba1c], tmp_path)
    assert [(e["loinc"], e["value"], e["ucum"]) for e in events["lab"]] == [
        ("8480-6", 130.0, "mm[Hg]"),
        ("8462-4", 80.5, "mm[Hg]"),
        ("4548-4", 7.1, "%"),
    ]
    assert {(e["patient_token"], e["taken_on"]) for e in events["lab"]} == {
        (ANN, date(2024, 1, 30))
    }
    assert findings.notes == {}


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        (
            {"code": concept("http://example.org/local", "HBA1C")},
            "an Observation without LOINC code and numeric value",
        ),
        ({"status": "cancelled"}, "an Observation that was cancelled or is not there yet"),
        ({"effectiveDateTime": "2024-01"}, "a date without its day"),
        ({"subject": {"reference": "Patient/gone"}}, "an Observation whose patient is unknown"),
        (
            {"valueQuantity": {"value": 4, "code": "%", "comparator": "<"}},
            "a value that is only known to be below or above a limit",
        ),
    ],
)
def test_observations_that_are_left_out_are_noted(tmp_path: Path, changed: Json, note: str) -> None:
    each = observation(concept("http://loinc.org", "4548-4"), valueQuantity=quantity(7, "%"))
    events, findings = read_resources([*PARTIES, each | changed], tmp_path)
    assert "lab" not in events
    assert findings.notes[note] == 1


# --- Bulk Data ------------------------------------------------------------------------------------


def test_references_of_ndjson_lead_to_other_files_in_any_order(tmp_path: Path) -> None:
    resources = [*PARTIES, claim(), answer("A1"), BILLED | {"id": "billed"}, explanation()]
    folder = tmp_path / "bulk"
    (folder / "later").mkdir(parents=True)
    # The alphabet has answers and claims before whom they name; line ends and blanks differ.
    for number, resource in enumerate(reversed(resources)):
        data = json.dumps(resource, indent=None).encode() + (b"\r\n\n" if number % 2 else b"")
        if number % 3:
            (folder / f"{number}.ndjson").write_bytes(data)
        else:
            (folder / "later" / f"{number}.ndjson.gz").write_bytes(gzip.compress(data))
    found, findings = read(folder, tmp_path)
    expected, _ = read_resources(resources, tmp_path)
    assert found.keys() == expected.keys() == {"request", "decision", "claim", "payment", "person"}
    assert found == expected
    assert findings.refused == []


def test_single_resources_of_a_directory_know_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "resources"
    folder.mkdir()
    for number, resource in enumerate([claim(), *PARTIES]):
        write(resource, folder / f"{number}.json")
    events, _ = read(folder, tmp_path)
    assert events["request"][0]["patient_token"] == ANN


def test_bundles_of_a_directory_know_each_other_by_address(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    write(bundle(claim()), folder / "a.json")
    parties = write(bundle(*PARTIES), folder / "b.json")
    events, findings = read(folder, tmp_path)
    assert events["request"][0]["patient_token"] == ANN
    assert events["request"][0]["request_token"] == REQUEST
    assert findings.notes == {}
    parties.write_text(parties.read_text().replace("http://example.org", "http://other.org"))
    events, findings = read(folder, tmp_path)
    assert "patient_token" not in events["request"][0]
    assert findings.notes["a request whose payer is unknown"] == 1


def test_events_name_file_and_place(tmp_path: Path) -> None:
    file = tmp_path / "all.ndjson"
    file.write_text("\n".join(json.dumps(each) for each in [*PARTIES, claim()]))
    seen: list[Path] = []
    with spool(tmp_path) as into:
        read_fhir(file, into, CROSSWALK, Findings(), progress=seen.append)
        row = into.scan("request").collect().to_dicts()[0]
    assert (row["file"], row["place"]) == (str(file), "line 5, Claim")
    assert seen == [file]


def test_totals_and_adjudications_of_a_claim_say_the_same_and_are_not_added(
    tmp_path: Path,
) -> None:
    both = [amount("submitted", 100), amount("paidtoprovider", 60)]
    eob = explanation(total=both, adjudication=both)
    events, _ = read_resources([*PARTIES, eob], tmp_path)
    (payment,) = events["payment"]
    assert (payment["submitted"], payment["paid_to_provider"]) == (100, 60)
