"""The contracts as Open Data Contract Standard documents (ODCS v3.1, Bitol / Linux Foundation).

The YAML under `contracts/` is generated from the schemas; a test holds the two together, and
another rebuilds the schemas from it. `contracts/released/` keeps the documents of the last release:
`compatibility.py` says how far a version must rise when a document leaves its released one behind.
"""

from pathlib import Path
from typing import Any

import dataframely as dy
import yaml

from data_contracts.catalog import CONTRACTS, Contract
from data_contracts.errors import GroundTruthError
from data_contracts.fields import terms_of
from data_contracts.labels import LABELS
from data_contracts.vocabulary import CODE_SYSTEMS

FOLDER = Path(__file__).parent / "contracts"
RELEASED = FOLDER / "released"

_LOGICAL_TYPES = {
    "string": "string",
    "enum": "string",
    "bool": "boolean",
    "float64": "number",
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "list": "array",
    "struct": "object",
}


class DocumentError(GroundTruthError):
    """A file is no contract in the Open Data Contract Standard."""


def to_odcs(contract: Contract) -> dict[str, Any]:
    """One contract as an ODCS document."""
    columns = contract.schema.columns()
    primary_key = contract.schema.primary_key()
    properties = [
        {"name": name, **_property(column)}
        | (
            {"primaryKey": True, "primaryKeyPosition": primary_key.index(name) + 1}
            if name in primary_key
            else {}
        )
        for name, column in columns.items()
    ]
    table: dict[str, Any] = {
        "name": contract.name,
        "logicalType": "object",
        "physicalType": "table",
        "description": _first_line(contract.schema),
        "properties": properties,
    }
    if rules := _rules(contract.schema):
        table["quality"] = rules
    if labels := [label for label in LABELS if label.table == contract.name]:
        said = [{"name": label.name, "definition": label.definition} for label in labels]
        table["customProperties"] = [{"property": "labels", "value": said}]
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": f"groundtruth.{contract.name}",
        "name": contract.name,
        "version": contract.version,
        "status": "active",
        "domain": "prior-authorization",
        "description": {"purpose": contract.purpose},
        "schema": [table],
    }


def export(folder: Path = FOLDER) -> list[Path]:
    """Write every contract as `folder/<name>.odcs.yaml`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for contract in CONTRACTS.values():
        file = folder / f"{contract.name}.odcs.yaml"
        file.write_text(render(contract), encoding="utf-8")
        files.append(file)
    return files


def render(contract: Contract) -> str:
    """One contract as YAML text."""
    text: str = yaml.dump(
        to_odcs(contract), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True
    )
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes texts that begin with a digit: YAML 1.2 takes the code 09 for a number, 1.1 not."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="'" if text[:1].isdigit() else None
    ),
)


def read(file: Path) -> dict[str, Any]:
    """The document in a YAML file.

    Raises:
        DocumentError: The file cannot be read, or holds no contract of one table.
    """
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DocumentError(f"{file} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise DocumentError(f"{file} is not a YAML file") from None
    try:
        (table,) = document["schema"]
        names = [document["name"], document["version"], *(it["name"] for it in table["properties"])]
    except (KeyError, TypeError, ValueError):
        names = []
    if not names or not all(isinstance(name, str) for name in names):
        raise DocumentError(f"{file} is no data contract of one table (ODCS v3)")
    return dict(document)


def _property(column: dy.Column) -> dict[str, Any]:
    kind = type(column).__name__.lower()
    described: dict[str, Any] = {"logicalType": _LOGICAL_TYPES[kind], "physicalType": kind}
    if column.description:
        described["description"] = column.description
    described["required"] = not column.nullable
    if options := _options(column):
        described["logicalTypeOptions"] = options
    if isinstance(column, dy.List):
        described["items"] = _property(column.inner)
    if isinstance(column, dy.Struct):
        described["properties"] = [
            {"name": name, **_property(inner)} for name, inner in column.inner.items()
        ]
    if isinstance(column, dy.Enum):
        described["quality"] = [
            {
                "name": "allowed_values",
                "metric": "invalidValues",
                "arguments": {"validValues": list(column.categories)},
                "mustBe": 0,
            }
        ]
    if column.metadata:
        described |= _terms(column)
    return described


def _terms(column: dy.Column) -> dict[str, Any]:
    field = terms_of(column)
    custom: dict[str, Any] = {"sites": field.sites, "availableAt": str(field.available_at)}
    if field.unit:
        custom["unit"] = field.unit
    if field.declared_range:
        custom["declaredRange"] = list(field.declared_range)
    if field.standard:
        custom["standard"] = field.standard
    if field.labels:
        custom["valueLabels"] = dict(field.labels)
    described: dict[str, Any] = {"classification": str(field.classification)}
    if field.code_systems:
        described["authoritativeDefinitions"] = [
            {"url": CODE_SYSTEMS[name], "type": "codeSystem", "description": name}
            for name in field.code_systems
        ]
    described["customProperties"] = [
        {"property": name, "value": value} for name, value in custom.items()
    ]
    return described


def _options(column: dy.Column) -> dict[str, Any]:
    names = {
        "regex": "pattern",
        "min_length": "minLength",
        "max_length": "maxLength",
        "min": "minimum",
        "max": "maximum",
        "min_exclusive": "exclusiveMinimum",
        "max_exclusive": "exclusiveMaximum",
    }
    return {
        option: value
        for attribute, option in names.items()
        if (value := getattr(column, attribute, None)) is not None
    }


def _rules(schema: type[dy.Schema]) -> list[dict[str, Any]]:
    """The schema's own rules, in the words of their functions and as polars evaluates them."""
    return [
        {
            "name": name,
            "description": _first_line(rule.validation_fn),
            "type": "custom",
            "engine": "polars",
            "implementation": str(rule.validation_fn(schema)),
        }
        for name, rule in vars(schema).items()
        if hasattr(rule, "validation_fn")
    ]


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]
