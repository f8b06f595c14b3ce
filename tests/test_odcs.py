"""The contracts as Open Data Contract Standard documents."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.catalog import CONTRACTS, Contract
from data_contracts.fields import Available, Classification
from data_contracts.odcs import FOLDER, export, render, to_odcs

# The JSON schema of ODCS v3.1.0: required keys, and the options that each logical type allows.
REQUIRED = {"version", "apiVersion", "kind", "id", "status"}
KNOWN = REQUIRED | {"name", "domain", "description", "schema"}
PROPERTY_KEYS = {
    "name",
    "logicalType",
    "physicalType",
    "description",
    "required",
    "primaryKey",
    "primaryKeyPosition",
    "logicalTypeOptions",
    "classification",
    "customProperties",
    "items",
    "properties",
}
NUMERIC = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
OPTIONS = {
    "string": {"pattern", "minLength", "maxLength"},
    "number": NUMERIC,
    "integer": NUMERIC,
    "array": set(),
    "boolean": set(),
    "object": set(),
}

contracts = pytest.mark.parametrize("contract", CONTRACTS.values(), ids=lambda item: item.name)


def fields(contract: Contract) -> list[dict[str, Any]]:
    document = yaml.safe_load(render(contract))
    return document["schema"][0]["properties"]


def nested(properties: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Properties and whatever lies within them."""
    found = []
    for item in properties:
        inside = item.get("properties", []) + ([item["items"]] if "items" in item else [])
        found += [item, *nested(inside)]
    return found


def custom(field: dict[str, Any]) -> dict[str, Any]:
    return {item["property"]: item["value"] for item in field["customProperties"]}


@contracts
def test_the_yaml_in_the_repository_is_the_generated_one(contract: Contract) -> None:
    file = FOLDER / f"{contract.name}.odcs.yaml"
    assert file.is_file(), "run `groundtruth contracts export`"
    assert file.read_text(encoding="utf-8") == render(contract)


def test_no_yaml_is_left_of_a_contract_that_is_gone() -> None:
    names = {file.name for file in FOLDER.glob("*.yaml")}
    assert names == {f"{name}.odcs.yaml" for name in CONTRACTS}


def test_export_writes_one_file_per_contract_and_the_same_again(tmp_path: Path) -> None:
    files = export(tmp_path / "new" / "folder")
    before = [file.read_bytes() for file in files]
    assert [file.name for file in files] == [f"{name}.odcs.yaml" for name in CONTRACTS]
    assert [file.read_bytes() for file in export(tmp_path / "new" / "folder")] == before


@contracts
def test_the_text_says_what_the_document_says(contract: Contract) -> None:
    assert yaml.safe_load(render(contract)) == to_odcs(contract)


@contracts
def test_a_document_has_what_the_standard_requires_and_nothing_it_does_not_know(
    contract: Contract,
) -> None:
    document = yaml.safe_load(render(contract))
    assert REQUIRED <= set(document) <= KNOWN
    assert (document["apiVersion"], document["kind"]) == ("v3.1.0", "DataContract")
    assert all(isinstance(document[key], str) for key in REQUIRED)
    assert set(document["description"]) <= {"usage", "purpose", "limitations"}
    (table,) = document["schema"]
    assert table["name"] == contract.name
    assert table["description"]
    for rule in table.get("quality", []):
        assert rule["type"] == "text"
        assert rule["name"]
        assert rule["description"], f"rule {rule['name']} has no docstring"


@contracts
def test_every_property_is_one_that_the_standard_allows(contract: Contract) -> None:
    for field in nested(fields(contract)):
        assert set(field) <= PROPERTY_KEYS
        assert set(field.get("logicalTypeOptions", {})) <= OPTIONS[field["logicalType"]]
        assert isinstance(field["required"], bool)
        assert ("items" in field) == (field["logicalType"] == "array")
        for option, value in field.get("logicalTypeOptions", {}).items():
            assert isinstance(value, str if option == "pattern" else int | float)
    assert all("name" in field for field in fields(contract))


@contracts
def test_every_field_says_who_holds_it_when_it_is_known_and_how_sensitive_it_is(
    contract: Contract,
) -> None:
    columns = contract.schema.columns()
    assert [field["name"] for field in fields(contract)] == list(columns)
    for field in fields(contract):
        assert custom(field)["sites"] in ("P", "V", "PV")
        assert custom(field)["availableAt"] in list(Available)
        assert field["classification"] in list(Classification)
        assert field["description"]
        assert field["required"] is not columns[field["name"]].nullable
        if "declaredRange" in custom(field):
            low, high = custom(field)["declaredRange"]
            assert low < high


@contracts
def test_the_primary_key_is_numbered_from_1_in_order(contract: Contract) -> None:
    positions = {
        field["name"]: field["primaryKeyPosition"]
        for field in fields(contract)
        if field.get("primaryKey")
    }
    key = contract.schema.primary_key()
    assert positions == {name: place for place, name in enumerate(key, start=1)}


@contracts
def test_allowed_values_are_those_of_the_enumeration(contract: Contract) -> None:
    for field in fields(contract):
        column = contract.schema.columns()[field["name"]]
        allowed = getattr(column, "categories", None)
        assert custom(field).get("allowedValues") == (None if allowed is None else list(allowed))


@contracts
def test_structures_within_lists_are_described(contract: Contract) -> None:
    for field in nested(fields(contract)):
        if field["logicalType"] == "object":
            assert field["properties"]
            assert all("name" in inner for inner in field["properties"])
