"""A check as one HTML file that stays at the site, and the places of rejected rows beside it."""

import csv
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from experiments.site_check.check import SiteCheck
from experiments.site_check.profile import CELLS, FieldProfile
from experiments.site_check.verdict import judge
from experiments.site_check.words import PHI, label_rate

_HERE: Final = Path(__file__).parent
_STYLE: Final = _HERE.parent / "report" / "style.css"


def write_page(check: SiteCheck, folder: Path) -> tuple[Path, Path]:
    """Write `folder/check.html` and `folder/rejected.csv`; returns both.

    The page holds counts and no value that could identify anybody; the CSV file holds rule, file
    and place of rejected rows, and nothing that stands there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, rejected = folder / "check.html", folder / "rejected.csv"
    verdict, findings = judge(check)
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bars"] = _bars
    text = environment.get_template("page.html.j2").render(
        check=check,
        verdict=verdict,
        findings=findings,
        label_rate=label_rate,
        phi=PHI if check.is_phi else "",
        style=Markup(_STYLE.read_text(encoding="utf-8")),  # noqa: S704 - ours
    )
    page.write_text(text, encoding="utf-8", newline="\n")
    with rejected.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("table", "rule", "file", "place"))
        for table in check.tables:
            for rule, places in table.counts.places.items():
                rows.writerows((table.name, rule, file, place) for file, place in places)
    return page, rejected


def _bars(field: FieldProfile) -> Markup:
    """The cells of a number as a small drawing; its text is for those who do not see it."""
    most, width, height = max(field.cells), 6, 28
    bars = "".join(
        f'<rect x="{number * width}" y="{height * (1 - count / most):.1f}" width="{width - 1}" '
        f'height="{height * count / most:.1f}"/>'
        for number, count in enumerate(field.cells)
        if count
    )
    fullest = max(range(CELLS), key=field.cells.__getitem__)
    return Markup(  # noqa: S704 - numbers alone
        f'<svg class="cells" viewBox="0 0 {CELLS * width} {height}" role="img" '
        f'aria-label="Distribution over {CELLS} cells; the fullest is cell {fullest + 1}">'
        f"{bars}</svg>"
    )
