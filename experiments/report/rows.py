"""Rows of a picture, one per model, site or subgroup, and how wide a picture is."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.report.drawing import SMALL, Canvas, Ink, bare, write
from experiments.report.formats import shorten

WIDE = 820.0
NARROW = 328.0


class Rows:
    """A picture with one row per model or site: its label, its place on the axis, its numbers.

    On a narrow page the label stands above its row, on a wide one to its left.
    """

    canvas: Canvas
    axes: Axes

    def __init__(
        self,
        number: int,
        width: float,
        *,
        narrow_row: float,
        wide_row: float,
        columns: tuple[float, ...],
    ) -> None:
        self.number = number
        self.width = width
        self.narrow = width < WIDE
        self.height = narrow_row if self.narrow else wide_row
        self.left = 8.0 if self.narrow else 196.0
        self.columns = columns if self.narrow else tuple(18 + 1.1 * right for right in columns)

    def canvas_axes(self, name: str, values: Sequence[float]) -> Axes:
        """The axes, wide enough for the values."""
        inner = self.height * self.number
        self.canvas = Canvas(self.width, inner + 68, name)
        self.axes = self.canvas.axes(
            self.left, 26, self.width - self.left - self.columns[-1] - 2, inner
        )
        bare(self.axes, "bottom")
        self.axes.set_ylim(self.number - 0.5, -0.5)
        self.axes.set_yticks([])
        self.axes.set_xlim(*limits(values))
        self.axes.xaxis.set_major_locator(MaxNLocator(3 if self.narrow else 6))
        self.axes.grid(axis="x", color=Ink.GRID, linewidth=1, alpha=0.6)
        self.axes.set_axisbelow(True)
        return self.axes

    def spot(self, y: int) -> float:
        """The height at which a row's dots lie."""
        return y + 0.2 if self.narrow else float(y)

    def titles(self, *titles: str) -> None:
        """Write what the columns of numbers are."""
        for title, right in zip(titles, self.columns, strict=True):
            write(
                self.axes, title, -0.5, edge="right", shift=(right, 14), ink=Ink.MUTED, size=SMALL
            )

    def row(self, y: int, label: str, *numbers: str, bold: bool = False) -> None:
        """Write a row's label and numbers."""
        if self.narrow:
            write(
                self.axes,
                shorten(label, 34),
                y - 0.22,
                edge="left",
                shift=(4 - self.left, 0),
                align="left",
                bold=bold,
            )
        else:
            write(
                self.axes,
                shorten(label, 26),
                y,
                edge="left",
                shift=(-self.left, 0),
                align="left",
                bold=bold,
            )
        for at, (number, right) in enumerate(zip(numbers, self.columns, strict=True)):
            ink = Ink.MUTED if at else Ink.TEXT
            write(
                self.axes, number, self.spot(y), edge="right", shift=(right, 0), ink=ink, bold=bold
            )


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis for shares, with a margin beside the outermost values."""
    pad = max(0.12 * (max(values) - min(values)), 0.005)
    return max(min(values) - pad, 0.0), min(max(values) + pad, 1.0)
