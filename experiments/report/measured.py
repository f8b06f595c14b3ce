"""Pictures of what sites were asked privately: every dot has its 95 % interval, noise included."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.report.drawing import Canvas, Ink, bare
from experiments.report.formats import percent, points, signed
from experiments.report.rows import Rows

SQUARE = 340.0

# Above this many subgroups, a row for each is no longer a picture.
MOST_ROWS = 30

_ENDS = (("observed", "low"), ("observed", "high"), ("predicted", "value"))

Record = Mapping[str, Any]


def told(levels: Sequence[Record]) -> list[Record]:
    """The levels of which there are enough data to hold observed against predicted rate."""
    return [level for level in levels if level["gap"] is not None]


def largest(levels: Sequence[Record]) -> list[Record]:
    """Those of `told` that are drawn: of very many, the ones with most records, in their order."""
    drawn = told(levels)
    by_rows = sorted(drawn, key=lambda level: -float(level["rows"]["value"]))[:MOST_ROWS]
    return [level for level in drawn if level in by_rows]


def gap_limits(groups: Mapping[str, Sequence[Record]]) -> tuple[float, float]:
    """Ends of the axis that the pictures of all groups share, in percentage points."""
    ends = [0.0]
    for levels in groups.values():
        for level in largest(levels):
            ends += [100 * level["gap"]["low"], 100 * level["gap"]["high"]]
    pad = 0.06 * (max(ends) - min(ends)) or 1.0
    return min(ends) - pad, max(ends) + pad


def gaps(
    levels: Sequence[Record], limits: tuple[float, float], width: float, name: str
) -> Markup | None:
    """Observed minus predicted rate of each subgroup; on the dashed line they are the same."""
    drawn = largest(levels)
    if not drawn:
        return None
    rows = Rows(len(drawn), width, narrow_row=40, wide_row=30, columns=(52.0,))
    axes = rows.canvas_axes(name, [0.0])
    axes.set_xlim(*limits)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: signed(at, 0)))
    axes.set_xlabel("percentage points")
    axes.axvline(0, color=Ink.MUTED, linewidth=1, dashes=(4, 3))
    rows.titles("points")
    for y, level in enumerate(drawn):
        gap, spot = level["gap"], rows.spot(y)
        _interval(axes, [100 * gap["low"], 100 * gap["high"]], [spot, spot])
        axes.plot(100 * gap["value"], spot, "o", color=Ink.PRIVATE, markersize=8, zorder=3)
        rows.row(y, level["level"], signed(100 * gap["value"], 1))
    return rows.canvas.svg(
        "Observed minus predicted rate, in percentage points with 95 % intervals: "
        + ", ".join(
            f"{level['level']} {points(level['gap']['value'])} ({points(level['gap']['low'])} to "
            f"{points(level['gap']['high'])})"
            for level in drawn
        )
    )


def reliability(bins: Sequence[Record], name: str) -> Markup | None:
    """Observed against predicted rate, score bin by score bin."""
    drawn = [one for one in bins if one["observed"] is not None and one["predicted"] is not None]
    if len(drawn) < 2:  # one dot is no picture
        return None
    canvas = Canvas(SQUARE, SQUARE - 16, name)
    axes = canvas.axes(58, 8, 272, 272)
    bare(axes, "left", "bottom")
    ends = [one[rate][end] for one in drawn for rate, end in _ENDS]
    low = math.floor(10 * min(ends)) / 10
    high = max(math.ceil(10 * max(ends)) / 10, low + 0.1)
    axes.plot([low, high], [low, high], color=Ink.MUTED, linewidth=1, dashes=(4, 3))
    for one in drawn:
        at, observed = one["predicted"]["value"], one["observed"]
        _interval(axes, [at, at], [observed["low"], observed["high"]])
        axes.plot(at, observed["value"], "o", color=Ink.PRIVATE, markersize=7, zorder=3)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.tick_params(pad=6)  # the two labels of the corner stand apart
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda at, _: percent(at, 0)))
    axes.set_xlabel("predicted chance")
    axes.set_ylabel("observed rate")
    return canvas.svg(
        "Observed against predicted rate: "
        + ", ".join(
            f"{percent(one['observed']['value'], 0)} at {percent(one['predicted']['value'], 0)}"
            for one in drawn
        )
    )


def _interval(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    axes.plot(x, y, color=Ink.PRIVATE, alpha=0.35, linewidth=6, clip_on=False, zorder=2)
