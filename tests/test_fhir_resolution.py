"""Answers apart from requests, servers with equal ids, copies of one resource, and updates."""

import json
import random
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from data_contracts.crosswalk import Crosswalk
from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.assembly import pa_decision, pa_request
from data_contracts.readers.events import EVENTS, spool
from data_contracts.readers.fhir import read_fhir
from data_contracts.readers.findings import Findings, ReaderError

TOKENS = Tokens(b"a network's key, for tests only!!")
PAS = "http://hl7.org/fhir/us/davinci-pas/StructureDefinition/"
TRACES = "urn:trnorg:9012345678"
A, B = "https://a.example/fhir/", "https://b.example/fhir/"
PAYER = TOKENS.pseudonym("payer", "60054")
REQUEST = TOKENS.request("1234567893", "T-1")

Json = dict[str, Any]
Read = Callable[..., tuple[dict[str, list[Json]], Findings]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Events of files, each a bundle (a dict) or lines of NDJSON (a list)."""

    def made(
        *files: Json | list[Json], on_error: str = "fail"
    ) -> tuple[dict[str, list[Json]], Findings]:
        folder = tmp_path / "in"
        if files:  # else those of the last reading
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for number, content in enumerate(files):
            if isinstance(content, dict):
                (folder / f"{number}.json").write_text(json.dumps(content, indent=1))
            else:
                lines = "\n".join(json.dumps(each) for each in content)
                (folder / f"{number}.ndjson").write_text(lines)
        findings = Findings(on_error)  # type: ignore[arg-type]
        with spool(tmp_path) as into:
            read_fhir(folder, into, Crosswalk(TOKENS), findings)
            events = {kind: into.scan(kind).collect().to_dicts() for kind in EVENTS}
            events["pa_request"] = pa_request(into).collect().to_dicts()
            events["pa_decision"] = pa_decision(into).collect().to_dicts()
        return events, findings

    return made


def bundle(*resources: Json, server: str = A, **fields: object) -> Json:
    entries = [
        {"fullUrl": f"{server}{each['resourceType']}/{each['id']}", "resource": each}
        for each in resources
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries, **fields}


def concept(code: str, system: str = "http://terminology.hl7.org/CodeSystem/x") -> Json:
    return {"coding": [{"system": system, "code": code}]}


def party(name: str, identifier: str) -> Json:
    return {"resourceType": "Organization", "id": name, "identifier": [{"value": identifier}]}


INSURER, CLINIC = party("insurer", "60054"), party("clinic", "1234567893")


def patient(number: str = "1", **fields: object) -> Json:
    return {"resourceType": "Patient", "id": number, "birthDate": "1980-01-02", **fields}


def coverage(member: str, number: str = "1") -> Json:
    return {
        "resourceType": "Coverage",
        "id": number,
        "subscriberId": member,
        "relationship": concept("self"),
        "beneficiary": {"reference": f"Patient/{number}"},
        "payor": [{"reference": "Organization/insurer"}],
    }


def claim(number: str = "c", trace: str = "T-1", **fields: object) -> Json:
    return {
        "resourceType": "Claim",
        "id": number,
        "identifier": [{"system": TRACES, "value": trace}],
        "status": "active",
        "use": "preauthorization",
        "created": "2024-03-01T10:00:00Z",
        "insurer": {"reference": "Organization/insurer"},
        "provider": {"reference": "Organization/clinic"},
        "item": [{"sequence": 1, "productOrService": concept("x")}],
        **fields,
    }


def answer(action: str = "A1", **fields: object) -> Json:
    extension = {"url": PAS + "extension-reviewAction", "valueCode": action}
    return {
        "resourceType": "ClaimResponse",
        "id": "r",
        # The payer's own number of its answer, which no request has.
        "identifier": [{"system": "http://payer.example/answers", "value": "R-77"}],
        "status": "active",
        "use": "preauthorization",
        "created": "2024-03-02T10:00:00Z",
        "outcome": "complete",
        "request": {"reference": "Claim/c"},
        "item": [{"itemSequence": 1, "extension": [extension]}],
        **fields,
    }


def observation(value: float, **fields: object) -> Json:
    return {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": concept("4548-4", "http://loinc.org"),
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2024-01-01",
        "valueQuantity": {"value": value, "system": "http://unitsofmeasure.org", "code": "%"},
        **fields,
    }


# --- answers apart from their requests ----------------------------------------------------------


@pytest.mark.parametrize(
    ("request_of", "answered"),
    [
        (bundle(INSURER, CLINIC, claim()), bundle(answer())),  # relative, of the same server
        (
            bundle(INSURER, CLINIC, claim()),
            bundle(answer(request={"reference": A + "Claim/c/_history/2"}), server=B),
        ),
        (
            bundle(INSURER, CLINIC, claim()),
            bundle(answer(request={"identifier": {"system": TRACES, "value": "T-1"}}), server=B),
        ),
        (
            bundle(INSURER, CLINIC, claim()),
            bundle(answer(request={}, identifier=[{"system": TRACES, "value": "T-1"}]), server=B),
        ),
        (bundle(INSURER, CLINIC, claim()), [answer(request={"reference": A + "Claim/c"})]),
        ([INSURER, CLINIC, claim()], [answer()]),
        ([INSURER, CLINIC, claim()], [answer(request={"reference": A + "Claim/c"})]),
    ],
)
@pytest.mark.parametrize("answer_first", [False, True])
def test_an_answer_in_another_file_has_the_token_of_its_request(
    read: Read, request_of: Json, answered: Json, answer_first: bool
) -> None:
    files = [request_of, answered]
    events, findings = read(*(files[::-1] if answer_first else files))
    assert [each["request_token"] for each in events["decision"]] == [REQUEST]
    assert [each["decision_hours"] for each in events["pa_decision"]] == [24.0]
    assert not any("ClaimResponse" in note for note in findings.notes)


def test_a_claim_is_found_by_urn_across_bundles(read: Read) -> None:
    urn = "urn:uuid:3f1c1f9e-0d2b-4a63-9e58-5d0f0a1b2c3d"
    asked = bundle(INSURER, CLINIC, claim())
    asked["entry"][2]["fullUrl"] = urn
    events, _ = read(asked, bundle(answer(request={"reference": urn}), server=B))
    assert events["decision"][0]["request_token"] == REQUEST


@pytest.mark.parametrize(
    "fields",
    [
        {},  # Claim/c of another server
        {"preAuthRef": "AUTH-1"},
        {"request": {"reference": A + "Claim/other"}},
        {"request": {"reference": "Claim?identifier=T-1"}},  # but nobody says whose T-1 it is
        {"request": {}},
    ],
)
def test_an_answer_that_cannot_be_joined_bears_the_payers_number_of_it(
    read: Read, fields: Json
) -> None:
    numbered = {"identifier": [{"value": "T-1"}], **fields}
    answers = bundle(answer("A4", **numbered), answer(**numbered, id="s"), server=B)
    events, findings = read(bundle(INSURER, CLINIC, claim()), answers)
    first, second = (each["request_token"] for each in events["decision"])
    assert first == second != REQUEST
    note = "an answer whose request is not there, told by the payer's number of the answer"
    assert findings.notes[note] == 2


def test_an_answer_without_any_number_is_refused(read: Read) -> None:
    alone = answer()
    del alone["identifier"]
    with pytest.raises(ReaderError, match=r"1.json, Bundle.entry\[0\].resource.request"):
        read(bundle(INSURER, CLINIC, claim()), bundle(alone, server=B))


def test_a_number_that_several_requests_have_joins_none(read: Read) -> None:
    other = party("other", "1999999984")
    twins = bundle(
        INSURER, CLINIC, other, claim(), claim("d", provider={"reference": "Organization/other"})
    )
    alone = answer(request={"identifier": {"system": TRACES, "value": "T-1"}})
    events, _ = read(twins, bundle(alone, server=B))
    assert events["decision"][0]["request_token"] not in {
        each["request_token"] for each in events["request"]
    }
    alone["requestor"] = {"identifier": {"value": "1999999984"}}
    events, _ = read(twins, bundle(alone, server=B))
    assert events["decision"][0]["request_token"] == TOKENS.request("1999999984", "T-1")


def test_a_claim_for_payment_with_the_same_number_is_not_the_request(read: Read) -> None:
    paid = bundle(INSURER, CLINIC, claim(use="claim"))
    alone = answer(request={"identifier": {"system": TRACES, "value": "T-1"}})
    alone["requestor"] = {"identifier": {"value": "1234567893"}}
    events, _ = read(paid, bundle(alone, server=B))
    assert events["decision"][0]["request_token"] == REQUEST


# --- servers with equal ids ---------------------------------------------------------------------


def test_equal_ids_of_two_servers_are_two_patients_even_in_one_bundle(read: Read) -> None:
    one, two = (
        bundle(INSURER, patient(), coverage(member), observation(value), server=server)
        for server, member, value in ((A, "M1", 5), (B, "M2", 6))
    )
    expected = [(TOKENS.patient(PAYER, "M1"), 5.0), (TOKENS.patient(PAYER, "M2"), 6.0)]
    for files in ([one, two], [{**one, "entry": one["entry"] + two["entry"]}]):
        events, _ = read(*files)
        assert [(lab["patient_token"], lab["value"]) for lab in events["lab"]] == expected
        assert len({person["patient_token"] for person in events["person"]}) == 2


def test_an_absolute_reference_to_another_server_leads_to_nobody_here(read: Read) -> None:
    foreign = observation(5, subject={"reference": B + "Patient/1"})
    events, findings = read(bundle(INSURER, patient(), coverage("M1"), foreign))
    assert events["lab"] == []
    assert findings.notes["an Observation whose patient is unknown"] == 1


def test_a_relative_reference_of_an_entry_without_server_is_not_guessed(read: Read) -> None:
    content = bundle(INSURER, patient(), coverage("M1"))
    content["entry"].append({"fullUrl": "urn:uuid:1", "resource": observation(5)})
    events, _ = read(content)
    assert [lab["patient_token"] for lab in events["lab"]] == [TOKENS.patient(PAYER, "M1")]
    content["entry"] += bundle(patient(), server=B)["entry"]  # now there are two Patient/1
    events, findings = read(content)
    assert events["lab"] == []
    assert findings.notes["an Observation whose patient is unknown"] == 1


def test_ids_of_a_bundle_without_addresses_are_its_own(read: Read) -> None:
    def plain(value: float, member: str) -> Json:
        content = bundle(INSURER, patient(), coverage(member), observation(value))
        for entry in content["entry"]:
            del entry["fullUrl"]
        return content

    lines = [INSURER, patient(), coverage("M3"), observation(7)]
    events, findings = read(plain(5, "M1"), plain(6, "M2"), lines)
    assert [(lab["patient_token"], lab["value"]) for lab in events["lab"]] == [
        (TOKENS.patient(PAYER, f"M{number}"), value) for number, value in enumerate((5, 6, 7), 1)
    ]
    assert findings.notes == {}


# --- copies of one resource ---------------------------------------------------------------------


def test_a_twin_counts_once_whatever_its_order_and_blanks(read: Read) -> None:
    people = [INSURER, patient(), coverage("M1")]
    twin = dict(reversed(observation(5).items()))
    events, findings = read([*people, observation(5), *people], [observation(5)], twin)
    assert [lab["value"] for lab in events["lab"]] == [5.0]
    assert [each["patient_token"] for each in events["person"]] == [TOKENS.patient(PAYER, "M1")]
    assert findings.notes == {
        "a resource that stands twice, counted once (Observation)": 2,
        "a resource that stands twice, counted once (Patient)": 1,
    }


def test_every_bundle_knows_a_patient_whom_several_repeat(read: Read) -> None:
    people = (INSURER, patient(), coverage("M1"))
    events, _ = read(bundle(*people, observation(5)), bundle(*people, observation(6, id="p")))
    assert [lab["patient_token"] for lab in events["lab"]] == [TOKENS.patient(PAYER, "M1")] * 2
    assert len(events["person"]) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"versionId": "9"}, {"versionId": "10"}),
        (
            {"versionId": "x", "lastUpdated": "2024-01-01T01:00:00+02:00"},  # 23:00 UTC, before
            {"versionId": "a", "lastUpdated": "2023-12-31T23:30:00Z"},
        ),
        (
            {"versionId": "2", "lastUpdated": "2024-01-01T00:00:00Z"},
            {"versionId": "1", "lastUpdated": "2024-01-01T00:00:01Z"},  # the time goes first
        ),
    ],
)
@pytest.mark.parametrize("newest_first", [False, True])
def test_the_latest_version_counts_wherever_it_stands(
    read: Read, old: Json, new: Json, newest_first: bool
) -> None:
    files = [
        [observation(5, meta=old), patient(meta=old, gender="male")],
        [observation(6, meta=new), patient(meta=new, gender="female")],
    ]
    events, findings = read([INSURER, coverage("M1")], *(files[::-1] if newest_first else files))
    assert [lab["value"] for lab in events["lab"]] == [6.0]
    assert [each["sex"] for each in events["person"]] == ["female"]
    older = "an older version of a resource, of which the latest counts"
    assert findings.notes == {f"{older} (Observation)": 1, f"{older} (Patient)": 1}


@pytest.mark.parametrize("newest_first", [False, True])
def test_versions_of_an_answer_with_one_moment_are_told_apart_by_their_update(
    read: Read, newest_first: bool
) -> None:
    pend = answer("A4", meta={"versionId": "1", "lastUpdated": "2024-03-02T10:00:00Z"})
    final = answer("A1", meta={"versionId": "2", "lastUpdated": "2024-03-04T10:00:00Z"})
    files = [[pend], [final]]
    asked = [INSURER, CLINIC, claim()]
    events, _ = read(asked, *(files[::-1] if newest_first else files))
    told = sorted((each["exchange_seq"], each["action_code"]) for each in events["pa_decision"])
    assert told == [(0, "A4"), (1, "A1")]


def test_an_answer_that_was_entered_in_error_later_was_none(read: Read) -> None:
    denial = answer("A3", meta={"versionId": "1"})
    error = answer("A3", meta={"versionId": "2"}, status="entered-in-error")
    events, findings = read([INSURER, CLINIC, claim()], [denial], [error])
    assert events["decision"] == []
    assert sum("in error" in note for note in findings.notes) == 2


@pytest.mark.parametrize("newest_first", [False, True])
def test_an_answer_that_was_changed_in_place_was_pended_first(
    read: Read, newest_first: bool
) -> None:
    pend = answer("A4", meta={"versionId": "1"}, created="2024-03-02T10:00:00Z")
    final = answer("A1", meta={"versionId": "2"}, created="2024-03-04T10:00:00Z")
    files = [[pend], [final], [pend]]  # and an export that overlaps
    asked = [INSURER, CLINIC, claim()]
    events, _ = read(asked, *(files[1::-1] if newest_first else files))
    told = sorted((each["exchange_seq"], each["action_code"]) for each in events["pa_decision"])
    assert told == [(0, "A4"), (1, "A1")]


def test_a_later_version_that_was_entered_in_error_leaves_nothing(read: Read) -> None:
    wrong = observation(5, meta={"versionId": "2"}, status="entered-in-error")
    events, _ = read(
        [INSURER, patient(), coverage("M1"), observation(5, meta={"versionId": "1"}), wrong]
    )
    assert events["lab"] == []


def test_lines_that_contradict_each_other_are_refused(read: Read) -> None:
    people = [INSURER, patient(), coverage("M1")]
    with pytest.raises(ReaderError, match=r"1.ndjson, line 1, Observation.id: another resource"):
        read([*people, observation(5)], [observation(6)])
    events, findings = read(on_error="quarantine")
    assert [lab["value"] for lab in events["lab"]] == [5.0]
    assert len(findings.refused) == 1


def test_entries_that_contradict_each_other_are_noted_unless_bundles_tell_their_time(
    read: Read,
) -> None:
    people = (INSURER, patient(), coverage("M1"))
    one, two = bundle(*people, observation(5)), bundle(*people, observation(6))
    events, findings = read(one, two)
    assert [lab["value"] for lab in events["lab"]] == [5.0]
    unclear = "a resource that stands twice and differs, with no later version; the first counts"
    assert findings.notes[f"{unclear} (Observation)"] == 1
    events, findings = read(
        one | {"timestamp": "2024-01-02T00:00:00Z"}, two | {"timestamp": "2024-01-03T00:00:00Z"}
    )
    assert [lab["value"] for lab in events["lab"]] == [6.0]
    assert not any(unclear in note for note in findings.notes)


def test_two_entries_of_a_bundle_with_one_id_are_not_both_counted(read: Read) -> None:
    content = bundle(INSURER, patient(), coverage("M1"), observation(5), observation(6))
    for entry in content["entry"]:
        entry.pop("fullUrl")
    events, findings = read(content)
    assert [lab["value"] for lab in events["lab"]] == [5.0]
    assert findings.notes.total() == 1


def test_a_copy_counts_if_the_bundle_of_the_other_is_refused(read: Read) -> None:
    people = (INSURER, patient(), coverage("M1"))
    broken = bundle(*people, observation(5), patient(), observation(5, id="p", code="text"))
    whole = bundle(*people, observation(5))
    early, late = ({"timestamp": f"2024-01-0{day}T00:00:00Z"} for day in (1, 2))
    for files in (
        (broken, whole),
        (broken | late, whole | early),
        (broken | early, whole | late),
        (whole | early, broken | late),
    ):
        events, findings = read(*files, on_error="quarantine")
        assert len(findings.refused) == 1
        assert [lab["value"] for lab in events["lab"]] == [5.0]


@pytest.mark.parametrize("meta", [{"lastUpdated": "now"}, {"versionId": 7}, "new", None])
def test_a_copy_with_a_broken_version_is_refused_and_the_other_counts(
    read: Read, meta: object
) -> None:
    people = [INSURER, patient(), coverage("M1")]
    events, findings = read(
        [*people, observation(6, meta=meta), observation(5)], on_error="quarantine"
    )
    assert [lab["value"] for lab in events["lab"]] == [5.0]
    assert len(findings.refused) == 1
    assert "line 4, Observation.meta" in findings.refused[0]


@pytest.mark.parametrize("reduced", [False, True])
def test_an_answer_that_repeats_its_request_and_patient_without_their_parties_takes_nothing_away(
    read: Read, reduced: bool
) -> None:
    ann = patient(gender="female")
    covered: Json = {"insurance": [{"coverage": {"reference": "Coverage/1"}}]}
    full = bundle(INSURER, CLINIC, ann, coverage("M1"), claim(**covered))
    # The later copies count, but neither payer, provider nor coverage stand beside them.
    again = claim(**covered, priority=concept("stat")) if reduced else claim(**covered)
    later = bundle(answer(), again, ann | ({"birthDate": "1980"} if reduced else {}))
    events, _ = read(
        full | {"timestamp": "2024-03-01T10:00:00Z"}, later | {"timestamp": "2024-03-02T10:00:00Z"}
    )
    token = TOKENS.patient(PAYER, "M1")
    assert [
        (row["request_token"], row["patient_token"], row["payer_id"]) for row in events["request"]
    ] == [(REQUEST, token, PAYER)]
    assert [row["request_token"] for row in events["decision"]] == [REQUEST]
    assert [row["patient_token"] for row in events["person"]] == [token]


# --- updates ------------------------------------------------------------------------------------


def update(number: str, trace: str, of: Json, **fields: object) -> Json:
    """A PAS Claim Update: an identifier of its own (111099-UPDATE in the guide's example)."""
    related = [{"claim": of, "relationship": concept(str(fields.pop("how", "prior")))}]
    return claim(number, trace, related=related, **fields)


LATER = "2024-03-03T10:00:00Z"


@pytest.mark.parametrize(
    ("of", "how"),
    [
        ({"reference": "Claim/c"}, "prior"),
        ({"reference": A + "Claim/c"}, "replaces"),
        ({"identifier": {"system": TRACES, "value": "T-1"}}, "prior"),
    ],
)
@pytest.mark.parametrize("as_lines", [False, True])
def test_an_update_is_the_same_request_sent_again(
    read: Read, of: Json, how: str, as_lines: bool
) -> None:
    first = [INSURER, CLINIC, claim()]
    changed = [update("u", "T-1-UPDATE", of, created=LATER, how=how)]
    changed[0]["item"] += [{"sequence": 2, "productOrService": concept("x")}]
    answers = [
        answer("A4"),
        answer("A1", id="s", created="2024-03-04T10:00:00Z", request={"reference": "Claim/u"}),
    ]
    # Updates are read before what they update, and answers before both.
    files = [answers, changed, first]
    parties = [INSURER, CLINIC]
    events, findings = read(*(files if as_lines else (bundle(*parties, *each) for each in files)))
    assert {each["request_token"] for each in events["request"]} == {REQUEST}
    # Item 1 as first submitted, and item 2, which the update added; as X12 UM02 has it.
    assert sorted(
        (row["item_sequence"], row["certification_type"]) for row in events["pa_request"]
    ) == [(1, "I"), (2, "S")]
    assert [
        (row["exchange_seq"], row["action_code"], row["decision_hours"])
        for row in events["pa_decision"]
    ] == [(0, "A4", 24.0), (1, "A1", 72.0)]
    assert not any("update" in note for note in findings.notes)


def test_updates_of_updates_have_the_token_of_the_first(read: Read) -> None:
    chain = [
        update(f"u{n}", f"T-{n}", {"reference": f"Claim/{f'u{n - 1}' if n > 2 else 'c'}"})
        for n in range(2, 9)
    ]
    # The last is told by an identifier alone, which is that of an update, too.
    chain[-1]["related"][0]["claim"] = {"identifier": {"system": TRACES, "value": "T-7"}}
    chain.append(update("u9", "T-9", {"reference": "Claim/u8"}))
    chain.append(answer(request={"reference": "Claim/u9"}))
    for files in ([[INSURER, CLINIC, *chain[::-1], claim()]], [[CLINIC, claim(), *chain]]):
        events, _ = read(*files)
        assert {each["request_token"] for each in events["request"]} == {REQUEST}
        assert [each["request_token"] for each in events["decision"]] == [REQUEST]
    events, _ = read(*(bundle(INSURER, CLINIC, one) for one in (*chain, claim())))
    assert {each["request_token"] for each in events["request"]} == {REQUEST}
    assert [each["request_token"] for each in events["decision"]] == [REQUEST]


def test_an_update_whose_earlier_request_nobody_has_is_noted(read: Read) -> None:
    events, findings = read([CLINIC, update("u", "T-9", {"reference": "Claim/gone"})])
    assert events["request"][0]["request_token"] == TOKENS.request("1234567893", "T-9")
    assert events["request"][0]["certification_type"] == "S"
    assert findings.notes["an update whose earlier request is not there"] == 1
    # A logical reference tells the trace number of the earlier request, wherever that is.
    of = {"identifier": {"value": "T-1"}}
    events, _ = read([CLINIC, update("u", "T-9", of)])
    assert events["request"][0]["request_token"] == REQUEST


def test_updates_in_a_ring_end(read: Read) -> None:
    ring = [
        update("a", "T-1", {"reference": "Claim/b"}),
        update("b", "T-2", {"reference": "Claim/a"}),
        update("s", "T-3", {"reference": "Claim/s"}),
    ]
    events, findings = read([CLINIC, *ring])
    assert len(events["request"]) == 3
    assert findings.notes["an update whose earlier request is not there"] >= 1


def test_an_update_of_the_same_moment_comes_after_its_request(read: Read) -> None:
    # As in the guide's example: the update stands first in its bundle, with the moment of `prior`.
    day = "2024-03-01"
    changed = update("u", "T-2", {"reference": "Claim/c"}, created=day)
    content = bundle(INSURER, CLINIC, changed, claim(created=day))
    events, _ = read(content)
    assert [row["certification_type"] for row in events["pa_request"]] == ["I"]
    assert events["request"][0]["submitted_at"] == datetime(2024, 3, 1)


def test_items_that_changed_are_revised_though_no_relation_says_so(read: Read) -> None:
    changed = claim()
    changed["item"][0]["extension"] = [
        {"url": PAS + "extension-infoChanged", "valueCode": "changed"}
    ]
    events, _ = read([CLINIC, changed])
    assert events["request"][0]["certification_type"] == "S"


# --- all of it at once --------------------------------------------------------------------------


def several(rng: random.Random) -> list[Json]:
    """Lines of a server: patients, versions of observations, a tree of updates, answers, twins."""
    lines = [patient(n, meta={"versionId": "1"}) for n in "123"] + [INSURER, CLINIC, claim()]
    lines += [coverage(f"M{n}", n) for n in "123"]
    for version in range(1, rng.randint(2, 5)):
        about = {"id": "o", "meta": {"versionId": str(version)}}
        lines.append(observation(version, **about))
    ids, traces = ["c"], ["T-1"]
    for n in range(rng.randint(1, 5)):
        of = rng.randrange(len(ids))
        literal, logical = (
            {"reference": f"Claim/{ids[of]}"},
            {"system": TRACES, "value": traces[of]},
        )
        lines.append(update(f"u{n}", f"U-{n}", rng.choice([literal, {"identifier": logical}])))
        lines.append(answer(id=f"r{n}", request=rng.choice([literal, {"identifier": logical}])))
        ids.append(f"u{n}")
        traces.append(f"U-{n}")
    return lines + rng.sample(lines, 4)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_read_does_not_depend_on_the_order_of_lines_and_files(
    read: Read, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311 - cases of a test
    lines = several(rng)
    found = []
    for _ in range(3):
        rng.shuffle(lines)
        one, two = sorted(rng.sample(range(1, len(lines)), 2))
        events, findings = read(lines[:one], lines[one:two], lines[two:])
        assert {each["request_token"] for each in events["request"]} == {REQUEST}
        assert {each["request_token"] for each in events["decision"]} == {REQUEST}
        for rows in events.values():
            for row in rows:
                del row["file"], row["place"]
        found.append(
            ({kind: sorted(map(str, rows)) for kind, rows in events.items()}, findings.notes)
        )
    assert found[0] == found[1] == found[2]
