"""A training over a network, round by round: how long each took, and which sites were away."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from experiments.participation import missed_rounds
from experiments.report.drawing import SMALL, Canvas, Ink, bare, write
from experiments.report.formats import plural, shorten
from experiments.report.rows import WIDE

MOST_LANES = 12
_LANE = 24.0
_BARS = 110.0

Record = Mapping[str, Any]


def leavers(task: Record) -> list[str]:
    """The sites that missed a round, each once."""
    return list(dict.fromkeys(left["site"] for left in task["dropouts"]))


def draw(task: Record, width: float, name: str) -> Markup | None:
    """Seconds of every round, over a lane for each site that was away."""
    rounds: Sequence[Record] = task["rounds"]
    if not rounds:
        return None
    lanes = leavers(task)[:MOST_LANES]
    narrow = width < WIDE
    left = 44.0 if narrow else 150.0
    inner = width - left - 10
    lane = _LANE + (16 if narrow else 0)
    below = lane * len(lanes)
    canvas = Canvas(width, 8 + _BARS + below + 46, name)
    places = np.arange(1, len(rounds) + 1)
    ends = (0.4, len(rounds) + 0.6)

    bars = canvas.axes(left, 8, inner, _BARS)
    bare(bars, "bottom")
    bars.bar(
        places,
        [record["seconds"] for record in rounds],
        width=0.7,
        color=[Ink.ALONE if record["retries"] else Ink.OTHER for record in rounds],
    )
    bars.set_ylabel("seconds")
    bars.yaxis.set_major_locator(MaxNLocator(3))
    bars.set_xlim(*ends)

    last = bars
    if lanes:
        bars.tick_params(labelbottom=False)
        last = canvas.axes(left, 8 + _BARS + 6, inner, below)
        bare(last)
        last.set_yticks([])
        last.set_ylim(len(lanes) - 0.5, -0.5)
        last.set_xlim(*ends)
        for y, site in enumerate(lanes):
            spot = y + 0.2 if narrow else float(y)
            last.hlines(spot, 0.6, len(rounds) + 0.4, color=Ink.PRIVATE, linewidth=6)
            for first, end in missed_rounds(task, site):
                # The lane is broken by the paper's colour, with a thin line for the time away.
                span = max(first + 0.5, 0.6), min(end + 0.5, len(rounds) + 0.4)
                last.hlines(spot, *span, color=Ink.SURFACE, linewidth=9)
                last.hlines(spot, *span, color=Ink.ALONE, linewidth=1.5)
            write(
                last,
                shorten(site, 34 if narrow else 20),
                y - 0.25 if narrow else y,
                edge="left",
                shift=(4.0 if narrow else -left, 0),
                align="left",
                size=SMALL,
            )
    last.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    last.set_xlabel("round")
    repeated = sum(record["retries"] for record in rounds)
    return canvas.svg(
        f"Timeline of {plural(len(rounds), 'round')}: {min(r['seconds'] for r in rounds):.1f} to "
        f"{max(r['seconds'] for r in rounds):.1f} s each, {repeated} repeated"
        + "".join(f"; {site} was away for part of it" for site in lanes)
    )
