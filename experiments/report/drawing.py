"""The canvas that figures are drawn on: pixels in, inline SVG out, colours left to the style sheet.

Colours are drawn as placeholders and become CSS variables in the SVG, so one drawing reads in
light, in dark and on paper. Text stays text, in the page's own font. The SVG has no date, no random
identifier and no reference to anything outside the page: the same results give the same bytes.
"""

import io
import re
import warnings
from enum import StrEnum
from typing import Any, Literal

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure


class Ink(StrEnum):
    """Placeholder colour -> the CSS variable of the same name (see style.css)."""

    TEXT = "#010101"
    MUTED = "#020202"
    GRID = "#030303"
    PRIVATE = "#040404"
    ALONE = "#050505"
    OTHER = "#060606"
    SURFACE = "#070707"

    @property
    def variable(self) -> str:
        """How the style sheet calls it."""
        return f"var(--{self.name.lower()})"


FONT_SIZE = 13.0
SMALL = 12.0

# Matplotlib's stubs want one literal type per key.
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,  # a "$" in a site's name is a dollar sign
    "font.size": FONT_SIZE,
    "axes.edgecolor": Ink.GRID,
    "axes.labelcolor": Ink.MUTED,
    "axes.labelsize": SMALL,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "text.color": Ink.TEXT,
    "xtick.color": Ink.GRID,
    "xtick.labelcolor": Ink.MUTED,
    "xtick.labelsize": SMALL,
    "ytick.color": Ink.GRID,
    "ytick.labelcolor": Ink.MUTED,
    "ytick.labelsize": SMALL,
    "lines.solid_capstyle": "round",
}


class Canvas:
    """A figure measured in CSS pixels from its top left corner.

    Args:
        width: Width in px, at which text has its nominal size.
        height: Height in px.
        name: Prefix of every id in the SVG; unique on the page.
    """

    def __init__(self, width: float, height: float, name: str) -> None:
        self.width = width
        self.height = height
        self._name = name
        # One inch is 72 SVG units, so a font of 13 points is 13 px high at its nominal width.
        self._figure = Figure(figsize=(width / 72, height / 72), facecolor="none")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes in a rectangle given in px."""
        with mpl.rc_context(_SETTINGS):
            return self._figure.add_axes(
                (
                    left / self.width,
                    1 - (top + height) / self.height,
                    width / self.width,
                    height / self.height,
                ),
                facecolor="none",
            )

    def svg(self, summary: str) -> Markup:
        """The drawing as inline SVG.

        Args:
            summary: What a reader who does not see it is told.
        """
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
            # The reader's browser has the glyphs; matplotlib only measures with its own font.
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            self._figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
        return Markup(  # noqa: S704 - matplotlib escapes text, and the summary is escaped here
            self._inline(buffer.getvalue(), str(escape(summary)))
        )

    def _inline(self, document: str, summary: str) -> str:
        body = document[document.index("<svg") :]
        body = body[body.index(">") + 1 :]
        # matplotlib's own style element would apply to the whole page.
        body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.S)
        body = re.sub(r'<g id="[^"]*"', "<g", body)
        body = re.sub(r'\bid="', f'id="{self._name}-', body)
        body = body.replace("url(#", f"url(#{self._name}-")
        body = body.replace('xlink:href="#', f'href="#{self._name}-')
        body = re.sub(r" font-family: [^;\"]*;?", "", body)
        body = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", body)
        # Coordinates to a hundredth of a pixel; text, which lies outside of tags, stays as it is.
        body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag.group()), body)
        body = re.sub(r"\s*\n\s*", " ", body)
        for ink in Ink:
            body = body.replace(ink.value, ink.variable)
        return (
            f'<svg role="img" aria-label="{summary}" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'style="--width:{self.width:g}px">{body}'
        )


def bare(axes: Axes, *keep: str) -> None:
    """Hide the spines but those in `keep`, and the tick marks."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in keep)
    axes.tick_params(length=0)


def write(
    axes: Axes,
    text: str,
    y: float,
    *,
    edge: Literal["left", "right"],
    shift: tuple[float, float] = (0.0, 0.0),
    align: Literal["left", "right"] = "right",
    ink: Ink = Ink.TEXT,
    size: float = FONT_SIZE,
    bold: bool = False,
) -> None:
    """Write beside the axes, on the line of a row.

    Args:
        axes: Where.
        text: What.
        y: The row, in the units of the data.
        edge: Which edge of the axes the shift starts from.
        shift: To the right and up, in px.
        align: Which end of the text lies there.
        ink: Its colour.
        size: Its size in px.
        bold: Whether it stands out.
    """
    axes.annotate(
        text,
        (0.0 if edge == "left" else 1.0, y),
        shift,
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha=align,
        va="center",
        color=ink,
        fontsize=size,
        fontweight="bold" if bold else "normal",
    )
