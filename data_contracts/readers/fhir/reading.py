"""FHIR files become events: bundles and single resources as a whole, NDJSON line by line."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from data_contracts.crosswalk import Crosswalk
from data_contracts.readers.events import Spool
from data_contracts.readers.fhir import clinical, payments
from data_contracts.readers.fhir.addresses import identity, names
from data_contracts.readers.fhir.decisions import decision
from data_contracts.readers.fhir.directory import KNOWN, STAGES, Directory
from data_contracts.readers.fhir.document import MOST_LINE_BYTES, document, lines, parsed
from data_contracts.readers.fhir.element import Element
from data_contracts.readers.fhir.facts import Person, is_dependent
from data_contracts.readers.fhir.requests import requests
from data_contracts.readers.fhir.resource_types import RESOURCE_TYPES
from data_contracts.readers.fhir.unit import Unit
from data_contracts.readers.fhir.versions import OLDER, TWIN, UNCLEAR, Versions
from data_contracts.readers.files import files_below, shown
from data_contracts.readers.findings import Findings, ReaderError, at

_SUFFIXES: Final = frozenset({".json", ".ndjson"})
_TOLD: Final = frozenset(
    {"Claim", "ClaimResponse", "ExplanationOfBenefit", "Encounter", "Observation"}
)
_CLAIMS: Final = frozenset({"Claim"})
_COUNTED: Final = _TOLD | {"Patient"}
_READ: Final = _TOLD | KNOWN
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

    References of a bundle lead to its own entries, and to entries of other bundles by their
    address, as answers and updates come apart from requests; those of NDJSON lines and of single
    resources to all lines and single resources of the reading, in whatever file. So files are read
    several times: for copies of one resource, for what references lead to, stage by stage, and
    then for events.

    Args:
        path: A file or directory of `.json` (a bundle or one resource) and `.ndjson` (Bulk Data),
            each plain or `.gz`.
        into: Where events go; a bundle, a resource or a line stands or falls as a whole.
        crosswalk: Pseudonyms and tokens.
        findings: Where refusals and notes go.
        progress: Called with each file when it has been read.

    Of a resource that stands several times the latest copy counts, and others are noted; see
    `versions`. A line or single resource is refused if another says otherwise of the same resource,
    and nothing tells which is later; in a bundle, which may repeat in fewer words what it is about,
    that is noted, and the first counts.

    Memory: one bundle (64 MB of JSON at most) or line (16 MB), the spool, 0.1 kB for each resource
    with an id, 0.5 kB for each patient with one coverage, and 0.5 kB for each Claim, Condition and
    order, but for those in bundles without addresses.

    Raises:
        ReaderError: There is no such file; or with `on_error = "fail"` the first refusal.
    """
    files = files_below(path, _SUFFIXES)
    versions = Versions(partial(_identified, files))
    shared = _learned(files, crosswalk, versions)
    for file in files:
        for data, line in _units(file):
            unit = Unit(shown(file), shared, into)
            root: Element | None = None
            try:
                root = _root(data, file, line)
                _tell(root, unit, versions)
            except ReaderError as error:
                into.rollback()
                findings.refuse(error)
                if root is not None:
                    versions.refused(root)
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


def _identified(files: list[Path]) -> Iterator[tuple[Element, str]]:
    """All resources that are read and have an identity, and that.

    Whatever cannot be read is passed over here, and refused when it is read for events.
    """
    for file in files:
        for data, line in _units(file):
            with suppress(ReaderError):
                root = _root(data, file, line)
                for resource in (
                    _entries(root) if root.text("resourceType") == "Bundle" else (root,)
                ):
                    name = identity(resource)
                    if name is not None and resource.text("resourceType") in _READ:
                        yield resource, name


def _entries(bundle: Element) -> Iterator[Element]:
    """The resources of a bundle."""
    for entry in bundle.children("entry"):
        resource = entry.child("resource")
        if resource is not None:
            yield resource


def _learned(files: list[Path], crosswalk: Crosswalk, versions: Versions) -> Directory:
    """What references of lines and single resources lead to, and what bundles have addresses of.

    Whatever cannot be read is passed over here, and refused when it is read for events.
    """
    shared = Directory(crosswalk)
    bundles: dict[Path, None] = {}
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
                    if kind in stage and versions.fault(root) is None:
                        shared.learn(root, names(root))
                    elif kind == "Bundle" and not line:
                        bundles[file] = None
    if len(files) > 1:
        for kinds in (KNOWN - _CLAIMS, _CLAIMS):  # tokens of Claims need those of parties
            for file in bundles:
                for data, _ in _units(file):
                    with suppress(ReaderError):
                        _share(_root(data, file, ""), kinds, shared, versions)
    return shared


def _share(bundle: Element, kinds: frozenset[str], shared: Directory, versions: Versions) -> None:
    """Let all files know what a bundle holds of some types."""
    resources = list(_entries(bundle))
    found = [
        each
        for each in resources
        if each.text("resourceType") in kinds
        and (not shared.knows(names(each)) or versions.fault(each) is None)
    ]
    if found:
        directory = _directory(resources, shared, versions)
        for each in found:
            directory.share(each, names(each), shared)


def _directory(resources: list[Element], shared: Directory, versions: Versions) -> Directory:
    """What the references of a bundle lead to; copies that count before others."""
    directory = Directory(shared.crosswalk, shared)
    resources = sorted(resources, key=lambda each: versions.fault(each) is not None)
    directory.learn_all((each, names(each)) for each in resources)
    return directory


def _tell(root: Element, unit: Unit, versions: Versions) -> None:
    """Add the events of a bundle or of a single resource."""
    if root.text("resourceType") != "Bundle":
        if _counts(root, unit, versions):
            if root.text("resourceType") in KNOWN:
                unit.directory.reread(root)
            _events(root, unit)
        return
    if root.text("type") not in _BUNDLE_TYPES:
        raise root.wrong("type", f"bundles that are read are {', '.join(sorted(_BUNDLE_TYPES))}")
    for entry in root.children("entry"):
        resource = entry.child("resource")
        if resource is None:
            unit.note("an entry of a bundle without resource")
        elif resource.text("resourceType") not in RESOURCE_TYPES:
            raise resource.wrong("resourceType", "it is missing, or names no resource of FHIR R4")
    resources = list(_entries(root))
    if not resources:
        raise root.wrong("entry", "the bundle holds no entry with a resource")
    unit.directory = _directory(resources, unit.directory, versions)
    # Updates come last: where moments are equal, what was told first was sent first.
    for resource in sorted(resources, key=lambda each: "related" in each.fields):
        if _counts(resource, unit, versions):
            _events(resource, unit)


def _counts(resource: Element, unit: Unit, versions: Versions) -> bool:
    """Whether this copy of a resource counts; another is noted.

    Raises:
        ReaderError: It stands alone and contradicts another copy, and none is later.
    """
    fault = versions.fault(resource)
    if fault is None:
        return True
    if fault == UNCLEAR and resource.entry() is None:
        raise resource.wrong(
            "id",
            "another resource with this id says otherwise, and neither meta.lastUpdated nor "
            "meta.versionId tells which is later; export one server at a time, once",
        )
    kind = resource.text("resourceType")
    if fault == OLDER and kind == "ClaimResponse" and resource.text("use") == "preauthorization":
        return True  # an answer that changed was an answer: a pend does not vanish with its end
    if fault != TWIN or kind in _COUNTED:  # that bundles repeat their parties loses nothing
        unit.note(f"{fault} ({kind})")
    return False


def _events(resource: Element, unit: Unit) -> None:
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
        found = (outer.fact(name) for name in names(resource))
        who = next((fact for fact in found if isinstance(fact, Person)), Person(None))
        clinical.person(resource, who, unit)
    elif kind == "Encounter":
        clinical.visit(resource, unit)
    elif kind == "Observation":
        clinical.labs(resource, unit)
    elif kind == "Coverage":
        if is_dependent(resource) is None:
            unit.note("a Coverage that does not tell whether its patient is the subscriber")
    elif kind not in KNOWN:
        unit.note(f"a resource of a type that is not read ({kind})")
    unit.directory = outer


def _claim(claim: Element, unit: Unit) -> None:
    asked = unit.directory.first(unit.directory.asked(claim))
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


def _is_ndjson(file: Path) -> bool:
    plain = file.with_suffix("") if file.suffix.lower() == ".gz" else file
    return plain.suffix.lower() == ".ndjson"


def _too_long(file: Path, number: int) -> ReaderError:
    return at(file, f"line {number}", f"more than {MOST_LINE_BYTES >> 20} MB without a line end")
