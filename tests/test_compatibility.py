"""Versions of contracts: what a change needs, and that no release changes behind its version."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from data_contracts.catalog import CONTRACTS, Contract
from data_contracts.compatibility import (
    Level,
    VersionError,
    changes,
    check_versions,
    needed,
    parse_version,
    risen,
    serves,
)
from data_contracts.odcs import RELEASED, read, to_odcs
from experiments import cli

Document = dict[str, Any]
Edit = Callable[[Document], object]

contracts = pytest.mark.parametrize("contract", CONTRACTS.values(), ids=lambda item: item.name)


def table(document: Document) -> Document:
    found: Document = document["schema"][0]
    return found


def field(document: Document, name: str) -> Document:
    return next(each for each in table(document)["properties"] if each["name"] == name)


def custom(part: Document, name: str) -> Document:
    return next(each for each in part["customProperties"] if each["property"] == name)


def edited(name: str, edit: Edit) -> tuple[Document, Document]:
    """A contract's document, and the same after an edit."""
    old = to_odcs(CONTRACTS[name])
    new = copy.deepcopy(old)
    edit(new)
    return old, new


def put(part: Callable[[Document], Document], **values: object) -> Edit:
    return lambda document: part(document).update(values)


def of(name: str) -> Callable[[Document], Document]:
    return lambda document: field(document, name)


def options(name: str) -> Callable[[Document], Document]:
    return lambda document: field(document, name)["logicalTypeOptions"]


def allowed(name: str) -> Callable[[Document], list[str]]:
    return lambda document: field(document, name)["quality"][0]["arguments"]["validValues"]


# --- what is released --------------------------------------------------------------------------


@contracts
def test_a_contract_leaves_its_last_release_behind_only_with_a_sufficient_version(
    contract: Contract,
) -> None:
    """After a release, copy `contracts/*.yaml` to `contracts/released/`; never before."""
    check_versions(read(RELEASED / f"{contract.name}.odcs.yaml"), to_odcs(contract))


def test_every_release_is_of_a_contract_that_is_still_there() -> None:
    """A contract that is given up breaks every plan for it: that takes more than a version."""
    assert {file.name for file in RELEASED.iterdir()} == {f"{name}.odcs.yaml" for name in CONTRACTS}


@contracts
def test_every_contract_is_active_and_its_version_is_one(contract: Contract) -> None:
    assert parse_version(contract.version) >= (1, 0, 0)
    assert to_odcs(contract)["status"] == "active"


@contracts
def test_a_document_differs_from_itself_in_nothing(contract: Contract) -> None:
    assert changes(to_odcs(contract), yaml.safe_load(yaml.safe_dump(to_odcs(contract)))) == []


# --- what a change needs -----------------------------------------------------------------------

NEW = {"name": "new", "logicalType": "string", "physicalType": "string", "required": False}


@pytest.mark.parametrize(
    ("level", "name", "edit"),
    [
        # Words.
        (Level.PATCH, "pa_request", put(of("channel"), description="Way in")),
        (Level.PATCH, "pa_request", put(table, description="Requests")),
        (Level.PATCH, "pa_request", lambda d: d["description"].update(purpose="To know")),
        (Level.PATCH, "pa_request", put(lambda d: d, status="deprecated")),
        (Level.PATCH, "pa_request", lambda d: table(d)["properties"].reverse()),
        (
            Level.PATCH,
            "pa_decision",
            lambda d: custom(field(d, "action_code"), "valueLabels")["value"].update(A1="Yes"),
        ),
        (
            Level.PATCH,
            "pa_decision",
            lambda d: custom(field(d, "action_code"), "standard").update(value="FHIR"),
        ),
        (Level.PATCH, "pa_request", lambda d: table(d)["quality"][0].update(description="As is")),
        # What old tables keep and old codes do not notice.
        (Level.MINOR, "pa_request", lambda d: table(d)["properties"].append(dict(NEW))),
        (Level.MINOR, "pa_request", put(options("service_year"), maximum=2200, minimum=1990)),
        (Level.MINOR, "pa_request", lambda d: options("service_year")(d).pop("maximum")),
        (Level.MINOR, "imr_determination", put(options("diagnosis_sub_category"), maxLength=81)),
        (Level.MINOR, "pa_request", put(options("quantity"), exclusiveMinimum=-1)),
        (
            Level.MINOR,
            "pa_decision",
            lambda d: custom(table(d), "labels")["value"].append({"name": "n", "definition": "?"}),
        ),
        # Fields that tables must have, or must no longer have.
        (
            Level.MAJOR,
            "pa_request",
            lambda d: table(d)["properties"].append(NEW | {"required": True}),
        ),
        (
            Level.MAJOR,
            "pa_request",
            lambda d: table(d)["properties"].append(NEW | {"primaryKey": True}),
        ),
        (Level.MAJOR, "pa_request", lambda d: table(d)["properties"].pop()),
        (Level.MAJOR, "pa_request", put(of("channel"), name="way")),
        (Level.MAJOR, "pa_request", put(of("dx_principal"), required=True)),
        (Level.MAJOR, "pa_request", put(of("channel"), required=False)),
        # Values that were good and are not, or nobody can tell.
        (Level.MAJOR, "pa_request", put(options("service_year"), maximum=2099)),
        (Level.MAJOR, "pa_request", put(options("service_year"), minimum=2001)),
        (Level.MAJOR, "imr_determination", put(options("diagnosis_sub_category"), minLength=2)),
        (Level.MAJOR, "pa_request", put(options("ndc"), pattern="^[0-9]{10,11}$")),
        (Level.MAJOR, "pa_request", lambda d: options("ndc")(d).pop("pattern")),
        (Level.MAJOR, "pa_request", put(of("item_sequence"), physicalType="int32")),
        (Level.MAJOR, "pa_request", put(of("item_sequence"), primaryKey=False)),
        (Level.MAJOR, "pa_request", lambda d: table(d)["quality"].pop()),
        (Level.MAJOR, "pa_request", lambda d: table(d)["quality"][0].update(implementation="1")),
        (
            Level.MAJOR,
            "pa_request",
            lambda d: field(d, "modifier")["items"]["logicalTypeOptions"].update(pattern="^X$"),
        ),
        (
            Level.MAJOR,
            "clinical_outcome",
            lambda d: field(d, "baseline_labs")["items"]["properties"].pop(),
        ),
        # What codes of features mean.
        (Level.MAJOR, "pa_request", lambda d: allowed("service_type")(d).append("98")),
        (Level.MAJOR, "pa_request", lambda d: allowed("service_type")(d).reverse()),
        (Level.MAJOR, "pa_request", lambda d: allowed("service_type")(d).pop()),
        (
            Level.MAJOR,
            "pa_request",
            lambda d: custom(field(d, "risk_score"), "declaredRange").update(value=[0.0, 9.0]),
        ),
        (
            Level.MAJOR,
            "pa_decision",
            lambda d: custom(field(d, "decision_hours"), "unit").update(value="d"),
        ),
        (
            Level.MAJOR,
            "pa_request",
            lambda d: field(d, "dx_principal")["authoritativeDefinitions"][0].update(url="urn:x"),
        ),
        # When a field may be used, who has it, how it is handled, what a label is.
        (
            Level.MAJOR,
            "pa_request",
            lambda d: custom(field(d, "channel"), "availableAt").update(value="decision"),
        ),
        (
            Level.MAJOR,
            "pa_request",
            lambda d: custom(field(d, "network_status"), "sites").update(value="PV"),
        ),
        (Level.MAJOR, "pa_request", put(of("channel"), classification="clinical")),
        (
            Level.MAJOR,
            "pa_decision",
            lambda d: custom(table(d), "labels")["value"][0].update(definition="A1 or A2"),
        ),
        (Level.MAJOR, "pa_decision", lambda d: custom(table(d), "labels")["value"].pop()),
        (Level.MAJOR, "pa_request", put(lambda d: d, id="another")),
        (Level.MAJOR, "pa_request", lambda d: table(d)["quality"].append({"name": "bare"})),
    ],
)
def test_a_change_needs_its_level(level: Level, name: str, edit: Edit) -> None:
    old, new = edited(name, edit)
    assert needed(changes(old, new)) == level
    assert all(change.words and change.place.startswith(name) for change in changes(old, new))
    major, minor, patch = parse_version(old["version"])
    versions = {
        Level.NONE: old["version"],
        Level.PATCH: f"{major}.{minor}.{patch + 1}",
        Level.MINOR: f"{major}.{minor + 1}.0",
        Level.MAJOR: f"{major + 1}.0.0",
    }
    for given, version in versions.items():
        if given >= level:
            check_versions(old, new | {"version": version})
        else:
            with pytest.raises(VersionError, match=f"needs a {level.name.lower()} version"):
                check_versions(old, new | {"version": version})


def test_no_field_passes_for_words_by_its_name() -> None:
    # A field that is called like a key whose changes are words.
    for name in ("description", "status", "standard", "valueLabels"):
        old, new = edited("pa_request", put(of("channel"), name=name))
        old = copy.deepcopy(new)
        allowed(name)(new).append("pigeon")
        assert needed(changes(old, new)) == Level.MAJOR


def test_a_field_that_comes_or_goes_is_one_change() -> None:
    old, new = edited("pa_request", lambda d: table(d)["properties"].append(dict(NEW)))
    (added,), (removed,) = changes(old, new), changes(new, old)
    assert (added.place, added.words) == ("pa_request/new", "nullable field added")
    assert (removed.place, removed.words) == ("pa_request/new", "field removed")


def test_a_change_is_told_with_its_place_and_both_values() -> None:
    old, new = edited("pa_request", put(options("service_year"), maximum=2200))
    (change,) = changes(old, new)
    assert change.place == "pa_request/service_year/logicalTypeOptions/maximum"
    assert change.words == "2100 -> 2200"


# --- versions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "asked", "good"),
    [
        ("1.0.0", "1.0.0", True),
        ("1.0.0", "1.0.9", True),  # words
        ("1.3.0", "1.2.5", True),  # the site has more fields than the plan asks for
        ("1.2.0", "1.3.0", False),  # the plan may ask for a field that the site has not
        ("2.0.0", "1.0.0", False),
        ("1.0.0", "2.0.0", False),
        ("1.10.0", "1.9.0", True),  # numbers, not text
    ],
)
def test_a_contract_serves_its_own_major_version_up_to_its_minor(
    held: str, asked: str, good: bool
) -> None:
    assert serves(held, asked) is good


@pytest.mark.parametrize(
    ("old", "new", "level"),
    [
        ("1.2.3", "1.2.3", Level.NONE),
        ("1.2.3", "1.2.4", Level.PATCH),
        ("1.2.3", "1.3.0", Level.MINOR),
        ("1.2.3", "2.0.0", Level.MAJOR),
        ("0.1.0", "1.0.0", Level.MAJOR),
    ],
)
def test_how_far_a_version_has_risen(old: str, new: str, level: Level) -> None:
    assert risen(old, new) == level


def test_a_version_that_falls_is_refused() -> None:
    with pytest.raises(VersionError, match=r"1\.1\.9 is older than 1\.2\.0"):
        risen("1.2.0", "1.1.9")


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.0", "1.0.0.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "1.0.-1", "1.0.٣", "1.0.0\n"],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(VersionError, match=r"write major\.minor\.patch"):
        parse_version(text)


# --- the command -------------------------------------------------------------------------------


def run(*arguments: Path) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["contracts", "diff", *map(str, arguments)])
    return result.exit_code, result.output + str(result.exception or "")


def test_the_command_lists_changes_and_says_whether_the_version_suffices(tmp_path: Path) -> None:
    old = RELEASED / "pa_request.odcs.yaml"
    document = read(old)
    table(document)["properties"].append(dict(NEW))
    new = tmp_path / "pa_request.odcs.yaml"
    new.write_text(yaml.safe_dump(document), encoding="utf-8")
    code, told = run(old, new)
    assert "minor  pa_request/new: nullable field added" in told
    assert "needs a minor version" in told
    assert code != 0
    major, minor, _ = parse_version(document["version"])
    document["version"] = f"{major}.{minor + 1}.0"
    new.write_text(yaml.safe_dump(document), encoding="utf-8")
    code, told = run(old, new)
    assert code == 0
    assert "enough, as minor is needed" in told
