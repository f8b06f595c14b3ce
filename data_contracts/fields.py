"""What a contract says of a field beside its type: who holds it, when, and how sensitive it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

import dataframely as dy

Role = Literal["payer", "provider"]


class Available(StrEnum):
    """When a field becomes known, in the order of time."""

    SUBMISSION = "submission"
    DECISION = "decision"
    FOLLOWUP = "followup"

    def known_at(self, index_time: "Available") -> bool:
        """Whether a field of this availability may be used by a prediction made at `index_time`."""
        order = list(Available)
        return order.index(self) <= order.index(index_time)


class Classification(StrEnum):
    """How a field has to be handled at a site."""

    TOKEN = "token"  # noqa: S105 - a classification, not a secret
    QUASI_IDENTIFIER = "quasi_identifier"
    CLINICAL = "clinical"
    FINANCIAL = "financial"
    OPERATIONAL = "operational"


@dataclass(frozen=True, slots=True)
class FieldTerms:
    """The terms of one field, kept as dataframely column metadata.

    Attributes:
        sites: Who holds the field: "P" payers, "V" providers, "PV" both.
        available_at: When the field becomes known.
        classification: How sensitive it is.
        unit: UCUM-like unit ("USD", "h", "d"); None for codes, flags and counts.
        declared_range: The range that the network publishes for the field, in `unit`. Features
            take their bounds from here and never from data; values outside are clipped to it.
        standard: Where the field comes from, e.g. "X12 278 UM02".
        code_systems: Whose codes it holds: names in `vocabulary.CODE_SYSTEMS`.
        labels: Code -> our own short label, where codes do not speak for themselves.
    """

    sites: Literal["P", "V", "PV"]
    available_at: Available
    classification: Classification
    unit: str | None = None
    declared_range: tuple[float, float] | None = None
    standard: str | None = None
    code_systems: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None

    def held_by(self, role: Role) -> bool:
        """Whether sites of this role hold the field."""
        return ("P" if role == "payer" else "V") in self.sites


def terms(
    sites: Literal["P", "V", "PV"],
    available_at: Available,
    classification: Classification,
    *,
    unit: str | None = None,
    declared_range: tuple[float, float] | None = None,
    standard: str | None = None,
    code_systems: tuple[str, ...] = (),
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Column metadata that `terms_of` reads back; the arguments are those of `FieldTerms`."""
    return asdict(
        FieldTerms(
            sites,
            available_at,
            classification,
            unit,
            declared_range,
            standard,
            code_systems,
            labels,
        )
    )


def terms_of(column: dy.Column) -> FieldTerms:
    """The terms of a contract column.

    Raises:
        ValueError: The column has none; every column of a contract must have them.
    """
    if not column.metadata:
        raise ValueError(f"column {column.name!r} has no terms: pass metadata=terms(...)")
    return FieldTerms(**column.metadata)
