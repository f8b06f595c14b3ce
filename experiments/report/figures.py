"""The pictures of the run report. Each is drawn once per width at which it must be readable."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.report.drawing import SMALL, Canvas, Ink, bare, write
from experiments.report.findings import drawable, headline
from experiments.report.formats import count, decimal, known, percent, signed
from experiments.report.gains import SiteGain
from experiments.report.rows import Rows, limits

PANEL = 340.0

# Above this many sites, a row for each is no longer a picture.
MOST_ROWS = 30
EXTREMES = 10

Record = Mapping[str, Any]


def ladder(task: Record, width: float, name: str) -> Markup | None:
    """AUROC of every model as a dot on one line each; the headline model stands out."""
    entries = [entry for entry in task["ladder"] if known(entry["auroc"])]
    best = headline(task)
    if not entries or best is None:
        return None
    rows = Rows(len(entries), width, narrow_row=44, wide_row=34, columns=(52.0, 124.0))
    axes = rows.canvas_axes(name, [entry["auroc"] for entry in entries])
    axes.set_xlabel("AUROC (0.5 is a coin toss, 1 is perfect)" if not rows.narrow else "AUROC")
    axes.axvline(best["auroc"], color=Ink.PRIVATE, linewidth=1, dashes=(3, 3))
    rows.titles("AUROC", "difference")
    for y, entry in enumerate(entries):
        chosen = entry is best
        ink = Ink.PRIVATE if chosen else Ink.OTHER
        value = float(entry["auroc"])
        spot = rows.spot(y)
        axes.plot([best["auroc"], value], [spot, spot], color=Ink.GRID, linewidth=3, zorder=2)
        axes.plot(
            value,
            spot,
            # Shape as well as colour tells the kinds of model apart.
            "D" if entry["model"].startswith("pooled") else "o",
            color=ink,
            markerfacecolor=Ink.SURFACE if entry["model"] == "local_only" else ink,
            markersize=11 if chosen else 8,
            markeredgewidth=2,
            clip_on=False,
            zorder=3,
        )
        gap = "" if chosen else signed(value - best["auroc"])
        rows.row(y, entry["label"], decimal(value), gap, bold=chosen)
    return rows.canvas.svg(
        "Dot plot of AUROC: "
        + ", ".join(f"{entry['label']} {decimal(entry['auroc'])}" for entry in entries)
    )


def reliability(bins: Sequence[Record], label: str, limit: float, name: str) -> Markup | None:
    """Observed against predicted rate, bin by bin, over the number of rows in each bin."""
    usable = drawable(bins)
    if not usable:
        return None
    canvas = Canvas(PANEL, 402, name)
    top = canvas.axes(58, 8, 272, 272)
    low = canvas.axes(58, 304, 272, 56)
    predicted = np.array([entry["mean_score"] for entry in usable], dtype=float)
    observed = np.array([entry["observed"] for entry in usable], dtype=float)
    rows = np.array([entry["rows"] for entry in usable], dtype=float)
    bare(top, "left", "bottom")
    top.plot([0, limit], [0, limit], color=Ink.MUTED, linewidth=1, dashes=(4, 3))
    top.vlines(predicted, predicted, observed, color=Ink.GRID, linewidth=2)
    top.plot(predicted, observed, "o", color=Ink.PRIVATE, markersize=7, clip_on=False, zorder=3)
    bare(low, "bottom")
    low.bar(predicted, rows, width=limit / 60, color=Ink.OTHER)
    low.set_ylim(0, rows.max())
    low.set_yticks([rows.max()], [count(rows.max())])
    low.set_ylabel("rows")
    low.set_xlabel("predicted chance")
    top.set_ylabel("observed rate")
    top.tick_params(labelbottom=False)
    for axes in (top, low):
        axes.set_xlim(0, limit)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(_percents)
    top.set_ylim(0, limit)
    top.yaxis.set_major_locator(MaxNLocator(5))
    top.yaxis.set_major_formatter(_percents)
    return canvas.svg(
        f"Reliability of {label} in {len(usable)} bins: predicted chances from "
        f"{percent(predicted.min(), 0)} to {percent(predicted.max(), 0)}, observed rates from "
        f"{percent(observed.min(), 0)} to {percent(observed.max(), 0)}"
    )


def reliability_limit(task: Record) -> float:
    """The end of the axes that all reliability panels of a task share."""
    ends = [
        max(entry["mean_score"], entry["observed"])
        for bins in task["reliability"].values()
        for entry in drawable(bins)
    ]
    return min(1.0, math.ceil(max(ends, default=1.0) * 10) / 10) or 1.0


def dumbbell(gains: Sequence[SiteGain], width: float, name: str) -> Markup | None:
    """AUROC alone and together for each site; with very many sites, for the extremes."""
    compared = [one for one in gains if one.comparable]
    if not compared:
        return None
    shown: list[SiteGain | None] = list(compared)
    if len(compared) > MOST_ROWS:
        shown = [*compared[:EXTREMES], None, *compared[-EXTREMES:]]
    drawn = [one for one in shown if one is not None]
    rows = Rows(len(shown), width, narrow_row=40, wide_row=27, columns=(76.0,))
    axes = rows.canvas_axes(
        name, [value for one in drawn for value in (one.alone, one.together) if known(value)]
    )
    axes.set_xlabel("AUROC at the site")
    rows.titles("difference")
    for y, one in enumerate(shown):
        if one is None:
            between = len(compared) - len(drawn)
            write(
                axes,
                f"⋯ {between} sites in between ⋯",
                y,
                edge="left",
                align="left",
                shift=(-rows.left, 0),
                ink=Ink.MUTED,
            )
            continue
        spot = rows.spot(y)
        ends = [value for value in (one.alone, one.together) if known(value)]
        ink = Ink.PRIVATE if (one.gain or 0.0) >= 0 else Ink.ALONE
        axes.plot(ends, [spot, spot], color=ink, linewidth=2.5, zorder=2)
        for value, colour, fill in zip(
            ends, (Ink.ALONE, Ink.PRIVATE), (Ink.SURFACE, Ink.PRIVATE), strict=True
        ):
            axes.plot(
                value,
                spot,
                "o",
                color=colour,
                markerfacecolor=fill,
                markersize=8,
                markeredgewidth=2,
                clip_on=False,
                zorder=3,
            )
        rows.row(y, one.site, signed(one.gain))
    return rows.canvas.svg(
        "Dumbbell plot of AUROC, each site alone and together: "
        + ", ".join(f"{one.site} {decimal(one.alone)} to {decimal(one.together)}" for one in drawn)
    )


def all_sites(gains: Sequence[SiteGain], name: str) -> Markup | None:
    """Every site as one dot, together against alone: for networks too large for a dumbbell."""
    compared = [one for one in gains if one.comparable]
    if len(compared) <= MOST_ROWS:
        return None
    canvas = Canvas(PANEL, PANEL, name)
    axes = canvas.axes(58, 8, PANEL - 68, PANEL - 58)
    bare(axes, "left", "bottom")
    alone = np.array([one.alone for one in compared], dtype=float)
    together = np.array([one.together for one in compared], dtype=float)
    low, high = limits([*alone, *together])
    axes.plot([low, high], [low, high], color=Ink.MUTED, linewidth=1, dashes=(4, 3))
    axes.plot(alone, together, "o", color=Ink.PRIVATE, alpha=0.55, markersize=5, markeredgewidth=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("AUROC, each site alone")
    axes.set_ylabel("AUROC, together")
    write(
        axes,
        "gained",
        high - (high - low) * 0.04,
        edge="left",
        shift=(8, 0),
        align="left",
        ink=Ink.MUTED,
        size=SMALL,
    )
    write(
        axes,
        "lost",
        low + (high - low) * 0.04,
        edge="right",
        shift=(-8, 0),
        ink=Ink.MUTED,
        size=SMALL,
    )
    gained = int((together > alone).sum())
    return canvas.svg(f"Scatter of {len(compared)} sites; {gained} lie above the diagonal")


_percents = FuncFormatter(lambda at, _: percent(at, 0))
