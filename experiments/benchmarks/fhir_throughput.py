"""How fast FHIR Bulk Data becomes events, and in how much memory.

Run with `python -m experiments.benchmarks.fhir_throughput [PATIENTS]`. NDJSON is generated in a
temporary folder, a file per type as Bulk Data exports have it; for each patient there are a
Coverage, two Conditions, three Encounters, eight Observations, a request with two items, its
answer, a claim and an ExplanationOfBenefit.
"""

import json
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TextIO

from data_contracts.crosswalk import Crosswalk
from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.events import EVENTS, spool
from data_contracts.readers.fhir import read_fhir
from data_contracts.readers.fhir.directory import Directory
from data_contracts.readers.fhir.element import Element
from data_contracts.readers.findings import Findings

_PAS: Final = "http://hl7.org/fhir/us/davinci-pas/StructureDefinition/extension-"
_HL7: Final = "http://terminology.hl7.org/CodeSystem/"
_NPI: Final = "http://hl7.org/fhir/sid/us-npi"

_KEY: Final = b"a network's key, for a benchmark"

Resource = dict[str, Any]


def main(patients: str = "4000") -> None:
    """Print resources per second of processor time and peak memory of one reading."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bulk").mkdir()
        count, size = _write(folder / "bulk", int(patients))
        started = time.process_time()
        rows, findings = _read(folder)
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(
            f"{count} resources ({size / 1e6:.0f} MB) in {seconds:.1f} s of one core: "
            f"{count / seconds:.0f} resources/s, peak RSS {peak:.0f} MB\n"
            f"{rows}\nrefused {len(findings.refused)}, notes {dict(findings.notes)}\n"
            f"kept for references: {_kept(1000):.0f} bytes per patient, two Claims and two "
            "Conditions included\n"
        )


def _kept(patients: int) -> float:
    """Bytes that are kept for references, per patient and what belongs to one."""
    roots = [Element(each, None, each["resourceType"]) for each in _resources(patients)]
    directory = Directory(Crosswalk(Tokens(_KEY)))
    tracemalloc.start()
    directory.learn_all((root, (f"{root.path}/{root.text('id')}",)) for root in roots)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return kept / patients


def _read(folder: Path) -> tuple[dict[str, int], Findings]:
    findings = Findings()
    crosswalk = Crosswalk(Tokens(_KEY))
    with spool(folder) as into:
        read_fhir(folder / "bulk", into, crosswalk, findings)
        rows = {kind: into.scan(kind).collect().height for kind in EVENTS}
    return rows, findings


def _write(folder: Path, patients: int) -> tuple[int, int]:
    """Write NDJSON; returns the numbers of resources and bytes."""
    count = 0
    with ExitStack() as stack:
        files: dict[str, TextIO] = {}
        for each in _resources(patients):
            kind = each["resourceType"]
            if kind not in files:
                files[kind] = stack.enter_context((folder / f"{kind}.ndjson").open("w"))
            files[kind].write(json.dumps(each, separators=(",", ":")) + "\n")
            count += 1
    return count, sum(file.stat().st_size for file in folder.iterdir())


def _resources(patients: int) -> Iterator[Resource]:
    for number in range(20):
        yield {
            "resourceType": "Organization",
            "id": f"o{number}",
            "identifier": [{"system": _NPI, "value": f"19{number:08}"}],
            "name": f"Organization {number}",
        }
    for number in range(patients):
        yield from _of_patient(number)


def _of_patient(n: int) -> Iterator[Resource]:
    subject = {"reference": f"Patient/p{n}"}
    day = f"2024-{1 + n % 12:02}-{1 + n % 28:02}"
    yield {
        "resourceType": "Patient",
        "id": f"p{n}",
        "identifier": [{"type": _concept(_HL7 + "v2-0203", "MR"), "value": f"MRN{n}"}],
        "name": [{"use": "official", "family": f"Family{n}", "given": [f"Given{n}"]}],
        "gender": "female" if n % 2 else "male",
        "birthDate": f"19{30 + n % 70}-04-05",
        "address": [{"line": ["1 Way"], "city": "Town", "state": "NY", "postalCode": "10001"}],
    }
    yield {
        "resourceType": "Coverage",
        "id": f"v{n}",
        "status": "active",
        "subscriberId": f"M{n:09}",
        "relationship": _concept(_HL7 + "subscriber-relationship", "self"),
        "beneficiary": subject,
        "payor": [{"reference": f"Organization/o{n % 4}"}],
    }
    for k, code in enumerate(("E11.9", "I10")):
        yield {
            "resourceType": "Condition",
            "id": f"d{n}-{k}",
            "code": _concept("http://hl7.org/fhir/sid/icd-10-cm", code),
            "subject": subject,
        }
    for k, kind in enumerate(("AMB", "EMER", "IMP")):
        yield {
            "resourceType": "Encounter",
            "id": f"e{n}-{k}",
            "status": "finished",
            "class": {"system": _HL7 + "v3-ActCode", "code": kind},
            "subject": subject,
            "period": {"start": f"{day}T08:00:00-05:00", "end": f"{day}T18:00:00-05:00"},
            "hospitalization": {"dischargeDisposition": _concept(_HL7 + "discharge", "home")},
        }
    for k in range(8):
        yield {
            "resourceType": "Observation",
            "id": f"l{n}-{k}",
            "status": "final",
            "category": [_concept(_HL7 + "observation-category", "laboratory")],
            "code": _concept("http://loinc.org", ("4548-4", "33914-3", "8480-6")[k % 3]),
            "subject": subject,
            "effectiveDateTime": f"{day}T09:{k:02}:00Z",
            "valueQuantity": {
                "value": 5.5 + k,
                "unit": "%",
                "system": "http://unitsofmeasure.org",
                "code": "%",
            },
        }
    yield from _of_claims(n, day)


def _of_claims(n: int, day: str) -> Iterator[Resource]:
    parties = {
        "status": "active",
        "type": _concept(_HL7 + "claim-type", "professional"),
        "patient": {"reference": f"Patient/p{n}"},
        "insurer": {"reference": f"Organization/o{n % 4}"},
        "provider": {"reference": f"Organization/o{4 + n % 16}"},
        "insurance": [
            {
                "sequence": 1,
                "focal": True,
                "coverage": {"reference": f"Coverage/v{n}"},
                "preAuthRef": [f"AUTH{n}"],
            }
        ],
    }
    item = {
        "productOrService": _concept("http://www.ama-assn.org/go/cpt", "G0154"),
        "servicedDate": day,
        "quantity": {"value": 2, "code": "UN"},
        "net": {"value": 120.5, "currency": "USD"},
    }
    asked = {
        "extension": [
            _extension("serviceItemRequestType", "HS"),
            _extension("certificationType", "I"),
        ]
    }
    diagnosis = [
        {"sequence": k + 1, "diagnosisReference": {"reference": f"Condition/d{n}-{k}"}}
        for k in range(2)
    ]
    for use in ("preauthorization", "claim"):
        yield {
            "resourceType": "Claim",
            "id": f"{use[0]}{n}",
            "identifier": [{"system": "http://example.org/trace", "value": f"{use}-{n}"}],
            "use": use,
            "created": f"{day}T10:00:00-05:00",
            "priority": _concept(_HL7 + "processpriority", "normal"),
            "diagnosis": diagnosis,
            "item": [{"sequence": k, **item, **asked} for k in (1, 2)],
            **parties,
        }
    review = {
        "url": _PAS + "reviewAction",
        "extension": [
            _extension("reviewActionCode", "A1"),
            {"url": "number", "valueString": f"AUTH{n}"},
        ],
    }
    adjudication = {"extension": [review], "category": _concept(_HL7 + "adjudication", "submitted")}
    yield {
        "resourceType": "ClaimResponse",
        "id": f"r{n}",
        "status": "active",
        "use": "preauthorization",
        "created": f"{day}T20:00:00-05:00",
        "insurer": parties["insurer"],
        "request": {"reference": f"Claim/p{n}"},
        "outcome": "complete",
        "item": [{"itemSequence": k, "adjudication": [adjudication]} for k in (1, 2)],
    }
    amounts = {"submitted": 241.0, "eligible": 180.0, "paidtoprovider": 150.0, "copay": 30.0}
    yield {
        "resourceType": "ExplanationOfBenefit",
        "id": f"x{n}",
        "use": "claim",
        "outcome": "complete",
        "created": day,
        "claim": {"reference": f"Claim/c{n}"},
        "billablePeriod": {"start": day, "end": day},
        "item": [{"sequence": k, **item} for k in (1, 2)],
        "total": [
            {
                "category": _concept(_HL7 + "adjudication", name),
                "amount": {"value": value, "currency": "USD"},
            }
            for name, value in amounts.items()
        ],
        "payment": {"date": day},
        **parties,
    }


def _concept(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}


def _extension(name: str, code: str) -> Resource:
    system = "https://codesystem.x12.org/005010/306"
    return {"url": _PAS + name, "valueCodeableConcept": _concept(system, code)}


if __name__ == "__main__":
    main(*sys.argv[1:])
