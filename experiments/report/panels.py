"""One picture among several, and the panels that the reports of all runs share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from experiments.report import curves, findings

STRONGEST = 6

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture among several: title, drawing (None: not assessed), text, and its numbers."""

    title: str
    svg: Markup | None
    text: str
    rows: Sequence[Record] = ()


def shape_panels(task: Record, anchor: str) -> list[Panel]:
    """The shape functions that move the prediction most; their heights compare."""
    strongest = findings.strongest(task, STRONGEST)
    span = curves.common_span(strongest)
    return [
        Panel(
            title=shape["title"],
            svg=curves.draw(shape, span, f"{anchor}-shape-{number}"),
            text=_shape_text(shape),
        )
        for number, shape in enumerate(strongest)
    ]


def _shape_text(shape: Record) -> str:
    text = findings.extremes(shape)
    levels = len(shape["levels"] or [])
    if shape["kind"] == "category" and levels > curves.MOST_LEVELS:
        text += f" The {curves.MOST_LEVELS} most frequent of {levels} levels are drawn."
    return text
