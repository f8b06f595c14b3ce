"""The contracts as Open Data Contract Standard documents."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
import yaml
from jsonschema import Draft201909Validator, ValidationError

from data_contracts.catalog import CONTRACTS, Contract
from data_contracts.fields import Available, Classification, terms
from data_contracts.labels import LABELS
from data_contracts.odcs import FOLDER, DocumentError, export, read, render, to_odcs
from data_contracts.vocabulary import CODE_SYSTEMS

# A copy of schema/odcs-json-schema-v3.1.0.json of github.com/bitol-io/open-data-contract-standard
# (Apache-2.0), as datacontract-cli 1.2.8 ships it.
STANDARD = json.loads((Path(__file__).parent / "odcs/odcs-json-schema-v3.1.0.json").read_text())

TYPES: dict[str, Callable[..., dy.Column]] = {
    "string": dy.String,
    "bool": dy.Bool,
    "float64": dy.Float64,
    "int8": dy.Int8,
    "int16": dy.Int16,
    "int32": dy.Int32,
}
OPTIONS = {
    "pattern": "regex",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minimum": "min",
    "maximum": "max",
    "exclusiveMinimum": "min_exclusive",
    "exclusiveMaximum": "max_exclusive",
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
def test_a_document_is_one_that_the_standard_allows(contract: Contract) -> None:
    document = yaml.safe_load(render(contract))
    assert document["apiVersion"] == "v3.1.0"
    Draft201909Validator(STANDARD).validate(document)


def test_the_standard_refuses_what_it_does_not_know() -> None:
    document = to_odcs(CONTRACTS["pa_request"])
    document["schema"][0]["properties"][0]["sites"] = "PV"
    with pytest.raises(ValidationError, match="sites"):
        Draft201909Validator(STANDARD).validate(document)


def rebuilt(field: dict[str, Any]) -> dy.Column:
    """The column that a property of a document describes."""
    said: dict[str, Any] = {"nullable": not field["required"]}
    said["primary_key"] = field.get("primaryKey", False)
    if "classification" in field:
        more = custom(field)
        said["metadata"] = terms(
            more["sites"],
            Available(more["availableAt"]),
            Classification(field["classification"]),
            unit=more.get("unit"),
            declared_range=tuple(more["declaredRange"]) if "declaredRange" in more else None,
            standard=more.get("standard"),
            code_systems=tuple(
                name
                for link in field.get("authoritativeDefinitions", [])
                for name, uri in CODE_SYSTEMS.items()
                if (link["type"], link["url"]) == ("codeSystem", uri)
            ),
            labels=more.get("valueLabels"),
        )
    said |= {OPTIONS[key]: value for key, value in field.get("logicalTypeOptions", {}).items()}
    match field["physicalType"]:
        case "enum":
            (rule,) = field["quality"]
            assert (rule["metric"], rule["mustBe"]) == ("invalidValues", 0)
            return dy.Enum(rule["arguments"]["validValues"], **said)
        case "list":
            return dy.List(rebuilt(field["items"]), **said)
        case "struct":
            inner = {each["name"]: rebuilt(each) for each in field["properties"]}
            return dy.Struct(inner, **said)
        case kind:
            return TYPES[kind](**said)


@contracts
def test_the_schema_can_be_rebuilt_from_the_yaml(contract: Contract) -> None:
    columns = contract.schema.columns()
    assert [field["name"] for field in fields(contract)] == list(columns)
    for field in fields(contract):
        name = field["name"]
        assert rebuilt(field).matches(columns[name], pl.col(name)), name
        assert rebuilt(field).dtype == columns[name].dtype
        assert field["description"] == columns[name].description
    rules = {name: rule for name, rule in vars(contract.schema).items() if is_rule(rule)}
    (table,) = to_odcs(contract)["schema"]
    written = {rule["name"]: rule["implementation"] for rule in table.get("quality", [])}
    assert written == {
        name: str(rule.validation_fn(contract.schema)) for name, rule in rules.items()
    }
    assert all(rule["description"] for rule in table.get("quality", []))


def is_rule(attribute: object) -> bool:
    return hasattr(attribute, "validation_fn")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("required", True),
        ("classification", "operational"),
        ("logicalTypeOptions", {"pattern": "^x$"}),
        ("customProperties", [{"property": "sites", "value": "P"},
                              {"property": "availableAt", "value": "submission"}]),
    ],
)  # fmt: skip
def test_a_document_that_says_otherwise_rebuilds_another_column(key: str, value: object) -> None:
    field = next(each for each in fields(CONTRACTS["pa_request"]) if each["name"] == "dx_principal")
    column = CONTRACTS["pa_request"].schema.columns()["dx_principal"]
    assert not rebuilt(field | {key: value}).matches(column, pl.col("dx_principal"))


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
def test_every_code_has_a_label_where_one_has(contract: Contract) -> None:
    for field in fields(contract):
        column = contract.schema.columns()[field["name"]]
        labels = custom(field).get("valueLabels")
        if labels and isinstance(column, dy.Enum):
            assert list(labels) == list(column.categories), field["name"]


@pytest.mark.parametrize("name", ["pa_decision", "clinical_outcome", "claim_payment"])
def test_a_table_lists_its_labels_with_their_definitions(name: str) -> None:
    (table,) = to_odcs(CONTRACTS[name])["schema"]
    (labels,) = (each["value"] for each in table["customProperties"])
    assert labels == [
        {"name": label.name, "definition": label.definition}
        for label in LABELS
        if label.table == name
    ]
    assert labels


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("a: [", "is not a YAML file"),
        ("", "is no data contract"),
        ("[1]", "is no data contract"),
        ("schema: []", "is no data contract"),
        ("{name: t, version: 1.0, schema: [{name: t, properties: []}]}", "is no data contract"),
        ("{name: t, version: 1.0.0, schema: [{properties: [{}]}]}", "is no data contract"),
    ],
)
def test_a_file_that_is_no_contract_is_refused(
    tmp_path: Path, text: str | None, words: str
) -> None:
    file = tmp_path / "t.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DocumentError, match=words):
        read(file)


def test_codes_of_digits_stay_texts_for_every_reader_of_yaml() -> None:
    # YAML 1.2 (10.3.2) resolves 09 to the integer 9; PyYAML follows 1.1, where it is a text.
    assert "'09': Out of network" in render(CONTRACTS["pa_decision"])


@contracts
def test_a_document_reads_back_as_it_was_written(contract: Contract) -> None:
    assert read(FOLDER / f"{contract.name}.odcs.yaml") == to_odcs(contract)


@contracts
def test_structures_within_lists_are_described(contract: Contract) -> None:
    for field in nested(fields(contract)):
        if field["logicalType"] == "object":
            assert field["properties"]
            assert all("name" in inner for inner in field["properties"])
