"""Pictures of shape functions: what each value of a feature adds to the log-odds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from experiments.report.drawing import SMALL, Canvas, Ink, bare, write
from experiments.report.findings import extremes, odds_ratio
from experiments.report.formats import known, percent, shorten, significant

PANEL = 340.0
MOST_LEVELS = 8

Record = Mapping[str, Any]
Numbers = NDArray[np.float64]


def common_span(shapes: Sequence[Record]) -> tuple[float, float]:
    """The range of log-odds that all panels share, so that their heights compare."""
    ends = [0.0]
    for shape in shapes:
        value, band = _curve(shape)
        ends += [*(value - band)[np.isfinite(value)], *(value + band)[np.isfinite(value)]]
    pad = 0.05 * (max(ends) - min(ends)) or 1.0
    return min(ends) - pad, max(ends) + pad


def draw(shape: Record, span: tuple[float, float], name: str) -> Markup | None:
    """One feature's contribution to the log-odds, with its band, over how often values occur."""
    value, band = _curve(shape)
    if not np.isfinite(value).any() or odds_ratio(shape) is None:
        return None
    canvas = Canvas(PANEL, 226, name)
    if shape["kind"] == "category":
        _levels(canvas, shape, value, band, span)
    else:
        _line(canvas, shape, value, band, span)
    return canvas.svg(f"Shape function of {shape['title']}. {extremes(shape)}")


def _line(
    canvas: Canvas,
    shape: Record,
    value: Numbers,
    band: Numbers,
    span: tuple[float, float],
) -> None:
    axes = canvas.axes(52, 8, PANEL - 64, 156)
    x = np.array([math.nan if at is None else at for at in shape["x"]], dtype=float)
    axes.axhline(0, color=Ink.MUTED, linewidth=1, dashes=(4, 3))
    axes.fill_between(x, value - band, value + band, color=Ink.PRIVATE, alpha=0.22, linewidth=0)
    axes.plot(x, value, color=Ink.PRIVATE, linewidth=2.2)
    axes.set_ylim(*span)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylabel("log-odds")
    bare(axes, "left")
    axes.tick_params(labelbottom=False)
    below = canvas.axes(52, 168, PANEL - 64, 22)
    bare(below, "bottom")
    below.set_yticks([])
    share = _share(shape["frequency"])
    if len(share) == len(x) and len(x) > 1:
        edges = np.concatenate([x[:1], (x[1:] + x[:-1]) / 2, x[-1:]])
    elif len(share) == len(x) - 1:
        edges = x
    else:
        edges = np.empty(0)
    if len(edges):
        # Density, so that a wide bin is not taller only for being wide.
        density = share / np.maximum(np.diff(edges), 1e-12)
        below.stairs(density, edges, fill=True, color=Ink.OTHER, linewidth=0)
        below.set_ylim(0, max(float(density.max()), 1e-12))
    below.set_xlabel(f"{shape['title']} ({shape['unit']})" if shape["unit"] else shape["title"])
    below.xaxis.set_major_locator(MaxNLocator(5))
    below.xaxis.set_major_formatter(FuncFormatter(lambda at, _: significant(at)))
    for one in (axes, below):
        one.set_xlim(np.nanmin(x), np.nanmax(x))


def _levels(
    canvas: Canvas,
    shape: Record,
    value: Numbers,
    band: Numbers,
    span: tuple[float, float],
) -> None:
    share = _share(shape["frequency"])
    share = share if len(share) == len(value) else np.zeros(len(value))
    kept = np.argsort(-share, kind="stable")[:MOST_LEVELS]
    order = kept[np.argsort(-value[kept], kind="stable")]
    axes = canvas.axes(130, 8, PANEL - 130 - 50, 178)
    bare(axes, "bottom")
    axes.axvline(0, color=Ink.MUTED, linewidth=1, dashes=(4, 3))
    places = np.arange(len(order))
    axes.hlines(
        places,
        value[order] - band[order],
        value[order] + band[order],
        color=Ink.PRIVATE,
        alpha=0.35,
        linewidth=6,
    )
    axes.plot(value[order], places, "o", color=Ink.PRIVATE, markersize=7)
    axes.set_yticks(places, [shorten(shape["levels"][place], 19) for place in order])
    axes.tick_params(axis="y", labelcolor=Ink.TEXT)
    axes.set_ylim(max(len(order), 3) - 0.5, -0.5)
    axes.set_xlim(*span)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("log-odds")
    for at, place in enumerate(order):
        write(
            axes,
            percent(float(share[place]), 0),
            at,
            edge="right",
            shift=(46, 0),
            ink=Ink.MUTED,
            size=SMALL,
        )


def _curve(
    shape: Record,
) -> tuple[Numbers, Numbers]:
    """Log-odds (n,) and the half-width of their band (n,), zero where it is not assessed."""
    value = np.array([x if known(x) else math.nan for x in shape["log_odds"]], dtype=float)
    band = np.array([x if known(x) else 0.0 for x in shape["band"] or []], dtype=float)
    return value, band if len(band) == len(value) else np.zeros(len(value))


def _share(frequency: Sequence[float | None] | None) -> Numbers:
    # A frequency released with noise may be below zero; a bar cannot be.
    counts = np.array([x if known(x) else 0.0 for x in frequency or []], dtype=float).clip(min=0)
    return counts / max(float(counts.sum()), 1e-12)
