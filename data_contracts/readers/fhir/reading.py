"""FHIR files become events: bundles and single resources as a whole, NDJSON line by line."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from data_contracts.crosswalk import Crosswalk
from data_contracts.readers.events import Spool
from data_contracts.readers.fhir import clinical, payments
from data_contracts.readers.fhir.decisions import decision
from data_contracts.readers.fhir.directory import KNOWN, STAGES, Directory
from data_contracts.readers.fhir.document import MOST_LINE_BYTES, document, lines, parsed
from data_contracts.readers.fhir.element import Element
from data_contracts.readers.fhir.facts import Person
from data_contracts.readers.fhir.requests import requests
from data_contracts.readers.fhir.resource_types import RESOURCE_TYPES
from data_contracts.readers.fhir.unit import Unit
from data_contracts.readers.files import files_below, shown
from data_contracts.readers.findings import Findings, ReaderError, at

_SUFFIXES: Final = frozenset({".json", ".ndjson"})
_TOLD: Final = frozenset(
    {"Claim", "ClaimResponse", "ExplanationOfBenefit", "Encounter", "Observation"}
)
# Bundles of type history hold several versions of one resource, each of which would count.
_BUNDLE_TYPES: Final = frozenset(
    {
        *("collection", "searchset", "document", "message"),
        *("batch", "transaction", "batch-response", "transaction-response"),
    }
)


def read_fhir(
    path: Path,
    into: Spool,
    crosswalk: Crosswalk,
    findings: Findings,
    *,
    progress: Callable[[Path], None] | None = None,
) -> None:
    """Read FHIR R4 as events.

    References of a bundle lead to its own entries; those of NDJSON lines and of single resources
    to all lines and single resources of the reading, in whatever file. So these files are read
    four times: in three stages for what references lead to, and then for events.

    Args:
        path: A file or directory of `.json` (a bundle or one resource) and `.ndjson` (Bulk Data),
            each plain or `.gz`.
        into: Where events go; a bundle, a resource or a line stands or falls as a whole.
        crosswalk: Pseudonyms and tokens.
        findings: Where refusals and notes go.
        progress: Called with each file when it has been read.

    Memory: one bundle (64 MB of JSON at most) or line (16 MB), the spool, and of NDJSON about
    0.5 kB for each patient with one coverage, and 0.3 kB for each Claim, Condition and order.

    Raises:
        ReaderError: There is no such file; or with `on_error = "fail"` the first refusal.
    """
    files = files_below(path, _SUFFIXES)
    shared = _learned(files, crosswalk)
    for file in files:
        for data, line in _units(file):
            unit = Unit(shown(file), shared, into)
            try:
                _tell(_root(data, file, line), unit)
            except ReaderError as error:
                into.rollback()
                findings.refuse(error)
            else:
                into.commit()
                findings.notes.update(unit.notes)
        if progress is not None:
            progress(file)


def _units(file: Path) -> Iterator[tuple[bytes | ReaderError, str]]:
    """Content and place of each unit of a file, or why it cannot be read."""
    try:
        if _is_ndjson(file):
            for number, line in lines(file):
                yield line or _too_long(file, number), f"line {number}"
        else:
            yield document(file), ""
    except ReaderError as error:
        yield error, ""


def _root(data: bytes | ReaderError, file: Path, line: str) -> Element:
    if isinstance(data, ReaderError):
        raise data
    fields = parsed(data, file, line)
    root = Element(fields, None, "resource", file=file, line=line)
    kind = root.text("resourceType")
    if kind not in RESOURCE_TYPES:
        raise root.wrong("resourceType", "it is missing, or names no resource of FHIR R4")
    return Element(fields, None, kind, file=file, line=line)


def _learned(files: list[Path], crosswalk: Crosswalk) -> Directory:
    """What references of lines and single resources lead to.

    Whatever cannot be read is passed over here, and refused when it is read for events.
    """
    shared = Directory(crosswalk)
    bundles: set[Path] = set()
    for stage in STAGES:
        marks = [f'"{kind}"'.encode() for kind in stage] + [b"\\u"]
        for file in files:
            if file in bundles:
                continue
            for data, line in _units(file):
                # Most lines need no parsing: they do not hold the name of a type of this stage.
                if isinstance(data, ReaderError) or not any(mark in data for mark in marks):
                    continue
                with suppress(ReaderError):
                    root = _root(data, file, line)
                    kind = root.text("resourceType")
                    if kind in stage:
                        shared.learn(root, _names(root))
                    elif kind == "Bundle" and not line:
                        bundles.add(file)
    return shared


def _tell(root: Element, unit: Unit) -> None:
    """Add the events of a bundle or of a single resource."""
    if root.text("resourceType") != "Bundle":
        if root.text("resourceType") in KNOWN:
            unit.directory.reread(root)
        _events(root, _names(root), unit)
        return
    if root.text("type") not in _BUNDLE_TYPES:
        raise root.wrong("type", f"bundles that are read are {', '.join(sorted(_BUNDLE_TYPES))}")
    resources: list[tuple[Element, tuple[str, ...]]] = []
    for entry in root.children("entry"):
        resource = entry.child("resource")
        if resource is None:
            unit.note("an entry of a bundle without resource")
            continue
        if resource.text("resourceType") not in RESOURCE_TYPES:
            raise resource.wrong("resourceType", "it is missing, or names no resource of FHIR R4")
        full_url = entry.text("fullUrl")
        resources.append((resource, (*_names(resource), *((full_url,) if full_url else ()))))
    if not resources:
        raise root.wrong("entry", "the bundle holds no entry with a resource")
    unit.directory = Directory(unit.directory.crosswalk)
    unit.directory.learn_all(resources)
    for resource, names in resources:
        _events(resource, names, unit)


def _events(resource: Element, names: tuple[str, ...], unit: Unit) -> None:
    """Add the events of one resource, with its contained ones in reach."""
    kind = resource.text("resourceType") or ""
    outer = unit.directory
    unit.directory = outer.within(resource)
    if resource.text("status") == "entered-in-error" and kind in _TOLD:
        unit.note(f"a resource that was entered in error ({kind})")
    elif kind == "Claim":
        _claim(resource, unit)
    elif kind == "ClaimResponse":
        _claim_response(resource, unit)
    elif kind == "ExplanationOfBenefit":
        payments.explanation(resource, unit)
    elif kind == "Patient":
        found = (outer.fact(name) for name in names)
        who = next((fact for fact in found if isinstance(fact, Person)), Person(None))
        clinical.person(resource, who, unit)
    elif kind == "Encounter":
        clinical.visit(resource, unit)
    elif kind == "Observation":
        clinical.labs(resource, unit)
    elif kind not in KNOWN:
        unit.note(f"a resource of a type that is not read ({kind})")
    unit.directory = outer


def _claim(claim: Element, unit: Unit) -> None:
    asked = unit.directory.asked(claim)
    if asked.use == "preauthorization":
        requests(claim, asked, unit)
    elif asked.use == "claim":
        payments.claim(claim, asked, unit)
    elif asked.use == "predetermination":
        unit.note("a Claim that asks for an estimate (predetermination)")
    else:
        raise claim.wrong("use", "neither preauthorization, claim nor predetermination")


def _claim_response(response: Element, unit: Unit) -> None:
    use = response.text("use")
    if response.text("status") == "cancelled":
        unit.note("a ClaimResponse that was cancelled")
    elif use == "preauthorization":
        decision(response, unit)
    elif use == "claim":
        payments.answer(response, unit)
    elif use == "predetermination":
        unit.note("a ClaimResponse about an estimate (predetermination)")
    else:
        raise response.wrong("use", "neither preauthorization, claim nor predetermination")


def _names(resource: Element) -> tuple[str, ...]:
    own = resource.text("id")
    return (f"{resource.text('resourceType')}/{own}",) if own else ()


def _is_ndjson(file: Path) -> bool:
    plain = file.with_suffix("") if file.suffix.lower() == ".gz" else file
    return plain.suffix.lower() == ".ndjson"


def _too_long(file: Path, number: int) -> ReaderError:
    return at(file, f"line {number}", f"more than {MOST_LINE_BYTES >> 20} MB without a line end")
