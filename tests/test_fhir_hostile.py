"""FHIR files that are broken, cut, hostile or no FHIR: named, counted, never quoted, bounded."""

import copy
import gzip
import json
import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from data_contracts.crosswalk import Crosswalk
from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.events import EVENTS, Spool, spool
from data_contracts.readers.fhir import read_fhir
from data_contracts.readers.fhir.document import MOST_DOCUMENT_BYTES, MOST_LINE_BYTES
from data_contracts.readers.findings import Findings, ReaderError

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "fhir_pas"
needs_samples = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason=f"HL7's sample bundles are not at {SAMPLES}"
)
CROSSWALK = Crosswalk(Tokens(b"a network's key, for tests only!!"))
PLANTED = "Zaphod9Secret"  # planted in the data; no message may hold it

Json = dict[str, Any]

BUNDLE: Json = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [
        {
            "fullUrl": "http://example.org/Claim/c",
            "resource": {
                "resourceType": "Claim",
                "id": "c",
                "identifier": [{"value": PLANTED}],
                "status": "active",
                "use": "preauthorization",
                "created": "2024-03-01",
                "provider": {"reference": "Organization/o"},
                "insurance": [{"coverage": {"reference": "Coverage/v"}, "focal": True}],
                "diagnosis": [
                    {
                        "sequence": 1,
                        "diagnosisCodeableConcept": {
                            "coding": [
                                {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I10"}
                            ]
                        },
                    }
                ],
                "item": [
                    {
                        "sequence": 1,
                        "productOrService": {
                            "coding": [
                                {"system": "http://www.ama-assn.org/go/cpt", "code": "G0154"}
                            ]
                        },
                        "quantity": {"value": 3, "code": "UN"},
                    }
                ],
            },
        },
        {
            "resource": {
                "resourceType": "ClaimResponse",
                "use": "preauthorization",
                "created": "2024-03-02T10:00:00Z",
                "request": {"reference": "Claim/c"},
                "outcome": "complete",
                "preAuthRef": PLANTED,
                "item": [
                    {
                        "itemSequence": 1,
                        "extension": [
                            {"url": "http://x.org/extension-reviewAction", "valueCode": "A1"}
                        ],
                    }
                ],
            }
        },
        {
            "resource": {
                "resourceType": "Organization",
                "id": "o",
                "identifier": [{"system": "http://hl7.org/fhir/sid/us-npi", "value": PLANTED}],
            }
        },
        {
            "resource": {
                "resourceType": "Coverage",
                "id": "v",
                "subscriberId": PLANTED,
                "relationship": {"coding": [{"code": "self"}]},
                "beneficiary": {"reference": "Patient/p"},
                "payor": [{"reference": "Organization/o"}],
            }
        },
        {
            "resource": {
                "resourceType": "Patient",
                "id": "p",
                "name": [{"given": [PLANTED]}],
                "birthDate": "1980-01-02",
                "gender": "female",
            }
        },
        {
            "resource": {
                "resourceType": "Observation",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
                "subject": {"reference": "Patient/p"},
                "effectiveDateTime": "2024-01-01",
                "valueQuantity": {"value": 7.5, "code": "%"},
            }
        },
        {
            "resource": {
                "resourceType": "Encounter",
                "id": "e",
                "class": {"code": "IMP"},
                "subject": {"reference": "Patient/p"},
                "period": {"start": "2024-01-01", "end": "2024-01-03"},
            }
        },
        {
            "resource": {
                "resourceType": "ExplanationOfBenefit",
                "use": "claim",
                "status": "active",
                "identifier": [{"value": PLANTED}],
                "insurance": [{"coverage": {"reference": "Coverage/v"}, "preAuthRef": [PLANTED]}],
                "payment": {"date": "2024-02-01"},
                "diagnosis": [
                    {
                        "sequence": 1,
                        "diagnosisCodeableConcept": {
                            "coding": [
                                {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I10"}
                            ]
                        },
                    }
                ],
                "item": [
                    {
                        "adjudication": [
                            {
                                "category": {"coding": [{"code": "submitted"}]},
                                "amount": {"value": 12.5, "currency": "USD"},
                            }
                        ]
                    }
                ],
            }
        },
    ],
}
CLAIM, ANSWER, _, COVERAGE, PATIENT, LAB, STAY, EOB = (
    ("entry", number, "resource") for number in range(8)
)
MINIMAL = '{"resourceType":"Location","id":"a"}'


def changed(way: tuple[str | int, ...], value: object) -> Json:
    """The bundle with another value at a place."""
    content = copy.deepcopy(BUNDLE)
    *above, last = way
    here: Any = content
    for step in above:
        here = here[step]
    here[last] = value
    return content


def refusal(file: Path, folder: Path) -> str:
    """Why a file is refused; it leaves no events, and the message does not quote it."""
    with spool(folder) as into:
        with pytest.raises(ReaderError) as error:
            read_fhir(file, into, CROSSWALK, Findings())
        assert all(into.scan(kind).collect().is_empty() for kind in EVENTS)
    message = str(error.value)
    assert message.startswith(str(file))
    assert PLANTED not in message
    return message.removeprefix(str(file)).lstrip(",: ")


def quarantined(path: Path, folder: Path) -> tuple[dict[str, int], Findings]:
    """Numbers of events, with refusals counted."""
    findings = Findings("quarantine")
    with spool(folder) as into:
        read_fhir(path, into, CROSSWALK, findings)
        return {kind: into.scan(kind).collect().height for kind in EVENTS}, findings


def write(data: str | bytes, file: Path) -> Path:
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


def test_the_bundle_that_is_broken_below_is_whole(tmp_path: Path) -> None:
    rows, findings = quarantined(write(json.dumps(BUNDLE), tmp_path / "b.json"), tmp_path)
    assert rows == {**dict.fromkeys(EVENTS, 1), "claim": 0}
    assert findings.refused == []


# --- wrong elements -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (
            (*CLAIM, "item", 0, "quantity", "value"),
            PLANTED,
            "Bundle.entry[0].resource.item[0].quantity.value: a number is asked, but it is text",
        ),
        (
            (*CLAIM, "item", 0, "quantity", "value"),
            True,
            "Bundle.entry[0].resource.item[0].quantity.value: a number is asked, but it is true or",
        ),
        (
            (*CLAIM, "item", 0, "quantity", "value"),
            10**400,
            "Bundle.entry[0].resource.item[0].quantity.value: the number is too large",
        ),
        (
            (*CLAIM, "item"),
            {"sequence": 1},
            "Bundle.entry[0].resource.item: an array is asked, but it is an object",
        ),
        (
            (*CLAIM, "item"),
            [None],
            "Bundle.entry[0].resource.item[0]: an object is asked, but it is null",
        ),
        (
            (*CLAIM, "item", 0, "sequence"),
            0,
            "Bundle.entry[0].resource.item[0].sequence: a whole number from 1 to 32767 is asked",
        ),
        (
            (*CLAIM, "item", 0, "sequence"),
            1.0,
            "Bundle.entry[0].resource.item[0].sequence: a whole number",
        ),
        ((*CLAIM, "item"), [{}], "Bundle.entry[0].resource.item[0].sequence: the number of the"),
        (
            (*CLAIM, "item"),
            [{"sequence": 2}, {"sequence": 2}],
            "Bundle.entry[0].resource.item[1].sequence: an earlier item has the same number",
        ),
        ((*CLAIM, "created"), "03/01/2024", "Bundle.entry[0].resource.created: it is no FHIR date"),
        ((*CLAIM, "created"), "2024-02-30", "Bundle.entry[0].resource.created: no such day"),
        ((*CLAIM, "created"), "2024-13", "Bundle.entry[0].resource.created: no such year or month"),
        (
            (*CLAIM, "created"),
            "2024-03-01T10:00:00",
            "Bundle.entry[0].resource.created: it is no FHIR date",  # no offset from UTC
        ),
        (
            (*CLAIM, "created"),
            "2024-03-01T25:00:00Z",
            "Bundle.entry[0].resource.created: no such day or time of day",
        ),
        (
            (*CLAIM, "created"),
            "0001-01-01T00:00:00+14:00",  # before the first year in UTC
            "Bundle.entry[0].resource.created: no such day or time of day",
        ),
        (
            (*CLAIM, "created"),
            "2024-03-01T10:60Z",
            "Bundle.entry[0].resource.created: no such day or time of day",
        ),
        ((*CLAIM, "use"), "preauth", "Bundle.entry[0].resource.use: neither preauthorization"),
        ((*CLAIM, "use"), None, "Bundle.entry[0].resource.use: text is asked, but it is null"),
        ((*CLAIM, "identifier", 0, "value"), "", "Bundle.entry[0].resource.identifier[0].value: "),
        (
            (*CLAIM, "identifier", 0, "value"),
            "\ud800",
            "Bundle.entry[0].resource.identifier[0].value: half of a surrogate pair",
        ),
        (
            (*CLAIM, "provider", "reference"),
            "Patient/p",
            "Bundle.entry[0].resource.provider.reference: it leads to a resource of another type",
        ),
        (
            (*COVERAGE, "payor", 0, "reference"),
            "Observation/x",
            None,  # leads nowhere: noted
        ),
        (
            (*ANSWER, "request", "reference"),
            "Coverage/v",
            "Bundle.entry[1].resource.request.reference: it leads to a resource of another type",
        ),
        ((*ANSWER, "outcome"), "done", "Bundle.entry[1].resource.outcome: neither complete"),
        (
            (*ANSWER, "item", 0, "extension", 0, "valueCode"),
            "A9",
            "Bundle.entry[1].resource.item[0].extension[0]: no action code of X12",
        ),
        (
            (*ANSWER, "preAuthPeriod"),
            {"start": "2024-03-02", "end": "2024-03-01"},
            "Bundle.entry[1].resource.preAuthPeriod.end: it is before the start",
        ),
        ((*PATIENT, "gender"), PLANTED, "Bundle.entry[4].resource.gender: none of female"),
        ((*PATIENT, "name", 0, "given", 0), 7, "Bundle.entry[4].resource.name[0].given[0]: text"),
        (
            (*LAB, "valueQuantity"),
            [PLANTED],
            "Bundle.entry[5].resource.valueQuantity: an object is asked, but it is an array",
        ),
        (
            (*STAY, "period", "end"),
            "2023-12-31",
            "Bundle.entry[6].resource.period.end: it is before the start",
        ),
        (
            (*EOB, "item", 0, "adjudication", 0, "amount", "currency"),
            "EUR",
            "Bundle.entry[7].resource.item[0].adjudication[0].amount.currency: amounts are read in",
        ),
        (
            (*CLAIM, "resourceType"),
            PLANTED,
            "Bundle.entry[0].resource.resourceType: it is missing, or names no resource",
        ),
        (("type",), "history", "Bundle.type: bundles that are read are batch, "),
        (("type",), PLANTED, "Bundle.type: bundles that are read are batch, "),
        (("entry",), [], "Bundle.entry: the bundle holds no entry"),
        (("entry", 0), PLANTED, "Bundle.entry[0]: an object is asked, but it is text"),
        (("resourceType",), 3, "resource.resourceType: text is asked, but it is a number"),
        (("resourceType",), "Bundel", "resource.resourceType: it is missing, or names no resource"),
    ],
)
def test_wrong_elements_are_named_by_their_way_and_never_quoted(
    tmp_path: Path, way: tuple[str | int, ...], value: object, message: str | None
) -> None:
    file = write(json.dumps(changed(way, value)), tmp_path / "b.json")
    if message is None:
        assert quarantined(file, tmp_path)[1].refused == []
    else:
        assert refusal(file, tmp_path).startswith(message)


@pytest.mark.parametrize("kind", ["collection", "searchset", "transaction", "batch", "document"])
def test_bundles_of_these_types_are_read(tmp_path: Path, kind: str) -> None:
    rows, _ = quarantined(
        write(json.dumps(changed(("type",), kind)), tmp_path / "b.json"), tmp_path
    )
    assert rows["request"] == 1


def test_a_year_or_month_is_no_moment_but_no_error_either(tmp_path: Path) -> None:
    for partial in ("2024", "2024-03"):
        content = json.dumps(changed((*CLAIM, "created"), partial))
        rows, findings = quarantined(write(content, tmp_path / "b.json"), tmp_path)
        assert rows["request"] == 1
        assert findings.notes["a moment without its day"] == 1


def test_text_is_never_taken_for_a_code(tmp_path: Path) -> None:
    content = json.dumps(changed((*LAB, "code", "coding", 0, "code"), f"{PLANTED} was here"))
    rows, findings = quarantined(write(content, tmp_path / "b.json"), tmp_path)
    assert rows["lab"] == 0
    assert findings.notes["a code that has not the shape of its system (loinc)"] == 1


# --- no FHIR, no JSON, no end ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty (0 bytes)"),
        (json.dumps(BUNDLE)[:700].encode(), "no JSON at line 1 column"),
        (b"ISA*00*          *00*", "no JSON at line 1 column 1 (Expecting value)"),
        (b"[]", "a resource is asked, which is a JSON object"),
        (b"{}", "resource.resourceType: it is missing"),
        (MINIMAL.encode() + b"{", "no JSON at line 1 column 37 (Extra data)"),
        (b'{"resourceType":"Claim","resourceType":"Patient"}', "a name stands twice in one object"),
        (b'{"resourceType":"Claim","total":NaN}', "NaN or Infinity is no number of JSON"),
        (b'{"resourceType":"Claim","total":-Infinity}', "NaN or Infinity is no number of JSON"),
        (b'{"resourceType":"Claim","x":' + b"9" * 5000 + b"}", "a number has too many digits"),
        (b'{"resourceType":"Patient","id":"M\xfcller"}', "byte 34 there is not UTF-8"),
        (b'{"x":' * 100_000, "objects are nested too deeply"),
        (b"[" * 100_000, "objects are nested too deeply"),
        (b"\x00" * 100, "no JSON at line 1 column 1"),
        (MINIMAL.encode("utf-16"), "byte 1 there is not UTF-8"),
    ],
)
def test_files_that_are_no_fhir_say_what_they_are(
    tmp_path: Path, data: bytes, message: str
) -> None:
    assert refusal(write(data, tmp_path / "a.json"), tmp_path).startswith(message)


def test_an_infinite_number_is_refused_where_it_is_used(tmp_path: Path) -> None:
    content = json.dumps(BUNDLE).replace('"value": 7.5', '"value": 1e999')
    message = refusal(write(content, tmp_path / "b.json"), tmp_path)
    assert message == "Bundle.entry[5].resource.valueQuantity.value: the number is too large"


def test_contained_resources_nested_without_end_are_refused(tmp_path: Path) -> None:
    deep = '{"resourceType":"Claim","id":"1","contained":[' * 300 + MINIMAL + "]}" * 300
    message = refusal(write(deep, tmp_path / "a.json"), tmp_path)
    assert message == "Claim.contained[0].contained: a contained resource contains none itself"


def test_a_bundle_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with file.open("wb") as stream:
        stream.truncate(MOST_DOCUMENT_BYTES + 1)
    assert refusal(file, tmp_path) == "more than 64 MB in one bundle; export it as NDJSON"


def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.ndjson"
    with file.open("wb") as stream:
        stream.truncate(8 * MOST_LINE_BYTES)  # zeros: a sparse file
        stream.seek(0, 2)
        stream.write(f"\n{MINIMAL}\n".encode())
    tracemalloc.start()
    try:
        _, findings = quarantined(file, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert findings.refused == [f"{file}, line 1: more than 16 MB without a line end"]
    assert findings.notes == {"a resource of a type that is not read (Location)": 1}  # line 2
    assert peak < 4 * MOST_LINE_BYTES


def test_a_file_that_unpacks_beyond_measure_is_refused(tmp_path: Path) -> None:
    file = write(gzip.compress(b" " * (80 << 20)), tmp_path / "a.ndjson.gz")
    assert refusal(file, tmp_path).startswith("it unpacks to more than 200 times its size")


def test_packed_files_that_are_cut_or_not_packed_are_refused(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(BUNDLE).encode())
    for data in (packed[:-20], json.dumps(BUNDLE).encode()):
        message = refusal(write(data, tmp_path / "a.json.gz"), tmp_path)
        assert message.startswith("it cannot be unpacked")


# --- quarantine -----------------------------------------------------------------------------------


def ndjson(content: Json) -> list[str]:
    return [json.dumps(entry["resource"]) for entry in content["entry"]]


def test_a_refused_line_leaves_all_others(tmp_path: Path) -> None:
    lines = ndjson(BUNDLE)
    lines[5:5] = ["{", '{"resourceType":"Patiend"}', '{"resourceType":"Location"}', ""]
    lines.append(json.dumps(changed((*LAB, "valueQuantity"), 1)["entry"][5]["resource"]))
    rows, findings = quarantined(write("\n".join(lines), tmp_path / "a.ndjson"), tmp_path)
    assert rows == {**dict.fromkeys(EVENTS, 1), "claim": 0}
    assert [refused.removeprefix(str(tmp_path)) for refused in findings.refused] == [
        "/a.ndjson, line 6: no JSON at column 2 (Expecting property name enclosed in double "
        "quotes); was it cut short?",
        "/a.ndjson, line 7, resource.resourceType: it is missing, or names no resource of FHIR R4",
        "/a.ndjson, line 13, Observation.valueQuantity: an object is asked, but it is a number",
    ]
    assert findings.notes["a resource of a type that is not read (Location)"] == 1


@pytest.mark.parametrize(
    ("way", "value", "name"),
    [
        (("name",), "text", "Patient.name"),
        (("birthDate",), 1980, "Patient.birthDate"),
        (("identifier",), {}, "Patient.identifier"),
    ],
)
def test_a_line_that_others_refer_to_is_refused_once(
    tmp_path: Path, way: tuple[str, ...], value: object, name: str
) -> None:
    lines = ndjson(changed((*PATIENT, *way), value))
    rows, findings = quarantined(write("\n".join(lines), tmp_path / "a.ndjson"), tmp_path)
    assert len(findings.refused) == 1
    assert f"line 5, {name}: " in findings.refused[0]
    assert (rows["request"], rows["person"], rows["lab"]) == (1, 0, 0)


def test_a_refused_bundle_leaves_no_event_and_no_note(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    broken = changed((*EOB, "payment"), PLANTED)
    broken["entry"].insert(0, {"resource": {"resourceType": "Location"}})
    write(json.dumps(broken), folder / "a.json")
    write(json.dumps(BUNDLE), folder / "b.json")
    write(b"", folder / "c.json")
    rows, findings = quarantined(folder, tmp_path)
    assert rows == {**dict.fromkeys(EVENTS, 1), "claim": 0}
    assert len(findings.refused) == 2
    assert not any("Location" in note for note in findings.notes)
    with spool(tmp_path) as into, pytest.raises(ReaderError, match="payment: an object is asked"):
        read_fhir(folder, into, CROSSWALK, Findings("fail"))


def test_files_that_are_not_fhir_by_name_are_not_passed_over(tmp_path: Path) -> None:
    write(json.dumps(BUNDLE), tmp_path / "a.json")
    write("<Bundle/>", tmp_path / "b.xml")
    assert "1 file with other endings than .json, .ndjson" in refusal(tmp_path, tmp_path)


# --- mutations ------------------------------------------------------------------------------------

_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**400, 2**63, "", " ", "x" * 5000, PLANTED, "\ud800", "\x00"),
    *([], {}, [[]], [{}], [None], {"coding": 1}, {"reference": "Patient/p"}, "Claim/c", "#1"),
    *("2024", "2024-02", "2024-02-30", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z"),
    *("2016-12-31T23:59:60Z", "Bundle", "Patient", "Claim", "preauthorization", "claim", "A4"),
    *("http://[", "Claim?identifier=", "urn:uuid:1", "\u0660\u0661", "I10", "USD", "0000-00-00"),
)


def mutated_tree(content: Json, rng: random.Random) -> bytes:
    """Replace, remove, double or move one to four values of a document."""
    content = copy.deepcopy(content)
    for _ in range(rng.randint(1, 4)):
        here: Any = content
        while True:
            key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
            if not isinstance(here[key], dict | list) or not here[key] or rng.random() < 0.15:
                break
            here = here[key]
        match rng.randrange(4):
            case 0 if len(here) > 1:
                del here[key]
            case 1 if isinstance(here, list):
                here.append(copy.deepcopy(here[key]))
            case 2 if isinstance(here, dict):
                here[rng.choice(list(here))] = here[key]
            case _:
                here[key] = copy.deepcopy(rng.choice(_VALUES))
    return json.dumps(content).encode()


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change, cut, double or insert bytes."""
    changed_data = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(changed_data) + 1)
        length = rng.randint(1, 40)
        match rng.randrange(5):
            case 0:
                del changed_data[at : at + length]
            case 1:
                changed_data[at:at] = changed_data[at : at + length]
            case 2:
                changed_data[at:at] = rng.randbytes(rng.randint(1, 4))
            case 3:
                changed_data[at : at + 1] = rng.choice((b'"', b"{", b"]", b"\\", b"0", b"\n", b","))
            case _:
                del changed_data[max(at, 1) :]
    return bytes(changed_data)


def survives(data: bytes, file: Path, into: Spool) -> float:
    """Read a document or lines; only ReaderError may come of it. Seconds of the processor."""
    file.write_bytes(data)
    findings = Findings("quarantine")
    started = time.process_time()
    read_fhir(file, into, CROSSWALK, findings)
    seconds = time.process_time() - started
    told = "".join([*findings.refused, *findings.notes])
    assert PLANTED not in told
    assert not any(name in told for name in ("Quinton", "Vlad", "10A3D58WH", "1956-12-01"))
    return seconds


def fuzz(cases: int, folder: Path, seed: int, contents: list[Json]) -> float:
    """The slowest of `cases` readings."""
    rng = random.Random(seed)  # noqa: S311 - cases of a test
    slowest = 0.0
    for start in range(0, cases, 500):
        with spool(folder) as into:
            for _ in range(min(500, cases - start)):
                content = rng.choice(contents)
                if rng.random() < 0.3:
                    text = "\n".join(ndjson(content)) if "entry" in content else MINIMAL
                    data, name = mutated_bytes(text.encode(), rng), "a.ndjson"
                elif rng.random() < 0.4:
                    data, name = mutated_bytes(json.dumps(content).encode(), rng), "a.json"
                else:
                    data, name = mutated_tree(content, rng), "a.json"
                slowest = max(slowest, survives(data, folder / name, into))
            for kind in EVENTS:  # whatever was read fits the types of events
                into.scan(kind).collect()
    return slowest


def sample_contents() -> list[Json]:
    return [json.loads(file.read_bytes()) for file in sorted(SAMPLES.glob("*.json"))]


def without_text(content: Json) -> Json:
    """A bundle without questionnaires and narratives, which are most of its size and are unread."""
    content = copy.deepcopy(content)
    content["entry"] = [
        entry
        for entry in content["entry"]
        if entry["resource"]["resourceType"] != "QuestionnaireResponse"
    ]
    for entry in content["entry"]:
        entry["resource"].pop("text", None)
    return content


@needs_samples
def test_two_thousand_mutations_end_in_events_or_reader_errors(tmp_path: Path) -> None:
    assert fuzz(2000, tmp_path, 1, [BUNDLE, BUNDLE, *sample_contents()]) < 1.0


@pytest.mark.slow
@needs_samples
def test_a_hundred_thousand_mutations_end_in_events_or_reader_errors(tmp_path: Path) -> None:
    small = [without_text(content) for content in sample_contents() if "entry" in content]
    assert fuzz(100_000, tmp_path, 2, [BUNDLE] * 12 + small) < 1.0
