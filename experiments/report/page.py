"""`render`: the results of a run become one HTML file that needs nothing else."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from data_contracts.errors import GroundTruthError
from experiments.report import deployed, figures, findings, formats, gains
from experiments.report.panels import Panel, shape_panels
from experiments.report.rows import NARROW, WIDE

SCHEMA_VERSION = 3

_HERE = Path(__file__).parent
_URL = re.compile(r"https?://[^\s<>\"']*[^\s<>\"'.,;:)\]]")

Record = Mapping[str, Any]


class ReportError(GroundTruthError):
    """A report cannot be made from these results."""


def render(results: Mapping[str, Any], out: Path) -> Path:
    """Write the report of a run.

    Args:
        results: What `results.json` holds. Numbers may be None: they read "not assessed".
        out: The HTML file to write; its folder is made where it does not exist.

    Returns:
        The file written.

    Raises:
        ReportError: The results have a schema version other than this report's.
    """
    version = results.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ReportError(
            f"these results have schema version {version!r} and this report reads "
            f"{SCHEMA_VERSION}: render them with the release that ran them, or run again"
        )
    text = _environment().get_template("page.html.j2").render(**_page(results))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8", newline="\n")
    return out


@dataclass(frozen=True, slots=True)
class TaskSection:
    """A task's part of the page: its results, what they say, and its pictures."""

    name: str
    anchor: str
    task: Record
    headline: Record | None
    gains: list[gains.SiteGain]
    found: dict[str, str]
    ladder: tuple[Markup | None, Markup | None]
    dumbbell: tuple[Markup | None, Markup | None]
    scatter: Markup | None
    reliability: list[Panel]
    shapes: list[Panel]
    glass_box: bool


def _page(results: Record) -> dict[str, Any]:
    deployment = results["engine"] == "deployment"
    return {
        "results": results,
        "not_run": findings.not_run(results),
        "style": Markup((_HERE / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - ours
        "no_privacy": findings.NO_PRIVACY,
        "deployed": deployment,
        **(_of_network(results) if deployment else _of_experiment(results)),
    }


def _of_experiment(results: Record) -> dict[str, Any]:
    """What the page of a run says that has all sites' tables at hand."""
    return {
        "found_scope": findings.scope(results),
        "found_limits": findings.limits(results),
        "tables": sorted({table for site in results["sites"] for table in site["rows"]}),
        "sections": [
            _section(name, task, f"task-{number}")
            for number, (name, task) in enumerate(results["tasks"].items(), start=1)
        ],
    }


def _of_network(results: Record) -> dict[str, Any]:
    """What the page of a run over a network's own sites says."""
    return {
        "found_scope": deployed.scope(results),
        "found_limits": deployed.limits(results),
        "site_rows": deployed.site_rows(results),
        "sections": [
            deployed.section(results, name, f"task-{number}")
            for number, name in enumerate(results["tasks"], start=1)
        ],
    }


def _section(name: str, task: Record, anchor: str) -> TaskSection:
    sites = gains.site_gains(task)
    labels = {entry["model"]: entry["label"] for entry in task["ladder"]}
    limit = figures.reliability_limit(task)
    return TaskSection(
        name=name,
        anchor=anchor,
        task=task,
        headline=findings.headline(task),
        gains=sites,
        found={
            "ladder": findings.ladder(task),
            "evaluation": findings.evaluation(task),
            "calibration": findings.calibration(task, labels),
            "by_site": gains.by_site(sites),
            "chance": gains.chance(sites),
            "shapes": findings.shapes(task),
            "privacy": findings.privacy(task),
        },
        ladder=(
            figures.ladder(task, WIDE, f"{anchor}-ladder-wide"),
            figures.ladder(task, NARROW, f"{anchor}-ladder-narrow"),
        ),
        dumbbell=(
            figures.dumbbell(sites, WIDE, f"{anchor}-sites-wide"),
            figures.dumbbell(sites, NARROW, f"{anchor}-sites-narrow"),
        ),
        scatter=figures.all_sites(sites, f"{anchor}-sites-all"),
        reliability=[
            _reliability(model, bins, labels, limit, f"{anchor}-reliability-{number}")
            for number, (model, bins) in enumerate(task["reliability"].items())
        ],
        shapes=shape_panels(task, anchor),
        glass_box=findings.glass_box(task),
    )


def _reliability(
    model: str, bins: Sequence[Record], labels: Mapping[str, str], limit: float, name: str
) -> Panel:
    label = labels.get(model, formats.words(model))
    usable = findings.drawable(bins)
    if not usable:
        return Panel(label, None, "", bins)
    worst = max(usable, key=lambda entry: abs(entry["observed"] - entry["mean_score"]))
    return Panel(
        title=label,
        svg=figures.reliability(bins, label, limit, name),
        text=(
            f"On average {formats.points(findings.miscalibration(bins))} percentage points off. "
            f"Furthest: {formats.percent(worst['mean_score'])} predicted, "
            f"{formats.percent(worst['observed'])} observed, in "
            f"{formats.plural(round(worst['rows']), 'row')}."
        ),
        rows=bins,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            "decimal": formats.decimal,
            "signed": formats.signed,
            "percent": formats.percent,
            "count": formats.count,
            "significant": formats.significant,
            "kilobytes": formats.kilobytes,
            "duration": formats.seconds,
            "moment": formats.moment,
            "words": formats.words,
            "linked": _linked,
            "shown": _shown,
        }
    )
    environment.tests["known"] = formats.known
    environment.globals["NOT_ASSESSED"] = formats.NOT_ASSESSED
    return environment


def _shown(value: float, kind: str) -> str:
    shown = {"decimal": formats.decimal, "percent": formats.percent, "count": formats.count}
    return shown[kind](value)


def _linked(text: str | None) -> Markup:
    """Text whose web addresses are links; nothing is fetched unless the reader follows one."""
    if not text:
        return escape(formats.NOT_ASSESSED)
    parts, end = [], 0
    for match in _URL.finditer(text):
        url = escape(match.group())
        parts += [
            escape(text[end : match.start()]),
            Markup('<a href="{0}" rel="noreferrer">{0}</a>').format(url),
        ]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])
