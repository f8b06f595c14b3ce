"""What the report says of a run over a network's own sites: sentences and sections.

Nobody has all sites' tables there, so all that is said of a model was asked of the sites privately.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from experiments.participation import absence, declared, presence, quorum, took_part, why
from experiments.report import findings, formats, measured, timeline
from experiments.report.panels import Panel, shape_panels
from experiments.report.rows import NARROW, WIDE

_MOST_NAMED = 4

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subgroups:
    """The levels of one feature: their drawing for wide and for narrow pages, and a text."""

    title: str
    drawing: tuple[Markup | None, Markup | None]
    text: str


@dataclass(frozen=True, slots=True)
class DeployedSection:
    """A task's part of the page: its results, what they say, and its pictures."""

    name: str
    anchor: str
    task: Record
    found: dict[str, str]
    took_part: list[str]
    declared: int
    reliability: Markup | None
    subgroups: list[Subgroups]
    timeline: tuple[Markup | None, Markup | None]
    absences: list[dict[str, str]]
    shapes: list[Panel]
    glass_box: bool


def section(results: Record, name: str, anchor: str) -> DeployedSection:
    """A task's section.

    Args:
        results: What `results.json` holds.
        name: The task.
        anchor: Prefix of the section's ids.
    """
    task: Record = results["tasks"][name]
    groups: Mapping[str, Sequence[Record]] = task["evaluation"]["groups"]
    limits = measured.gap_limits(groups)
    present = took_part(task)
    return DeployedSection(
        name=name,
        anchor=anchor,
        task=task,
        found={
            "evaluation": findings.evaluation(task),
            "calibration": calibration(task),
            "subgroups": subgroups(task),
            "shapes": findings.shapes(task),
            "rounds": rounds(task),
            "steps": steps(task),
            "lanes": lanes(task),
            "needed": needed(results, task),
            "privacy": findings.privacy(task),
        },
        took_part=present,
        declared=declared(results, present),
        reliability=measured.reliability(
            task["evaluation"]["reliability"], f"{anchor}-reliability"
        ),
        subgroups=[
            _subgroups(group, levels, limits, f"{anchor}-gaps-{number}")
            for number, (group, levels) in enumerate(groups.items())
            if measured.told(levels)
        ],
        timeline=(
            timeline.draw(task, WIDE, f"{anchor}-rounds-wide"),
            timeline.draw(task, NARROW, f"{anchor}-rounds-narrow"),
        ),
        absences=[
            {"site": left["site"], "when": absence(left), "why": why(left)}
            for left in task["dropouts"]
        ],
        shapes=shape_panels(task, anchor),
        glass_box=findings.glass_box(task),
    )


def site_rows(results: Record) -> list[dict[str, Any]]:
    """Each of the network's sites, and when it took part in which task."""
    return [
        {
            **site,
            "presence": [presence(task, site["name"]) for task in results["tasks"].values()],
        }
        for site in results["sites"]
    ]


def scope(results: Record) -> str:
    """Who took part, with data that nobody else has seen."""
    present = {site for task in results["tasks"].values() for site in took_part(task)}
    sites = [site for site in results["sites"] if site["name"] in present]
    roles = Counter(site["role"] for site in sites)
    cast = formats.listing([formats.plural(number, role) for role, number in roles.items()])
    number = formats.plural(len(sites), "site")
    if len(sites) < len(results["sites"]):
        number = f"{len(sites)} of the network's {formats.plural(len(results['sites']), 'site')}"
    return (
        f"{number} ({cast}) took part, each with tables of its own that nobody else has seen; they "
        f"declared {declared(results, present):,} patients."
    )


def limits(results: Record) -> str:
    """How far the numbers reach."""
    return (
        "These numbers hold for the sites that took part and for what their tables held; nothing "
        "in this run shows that they hold anywhere else."
    )


def calibration(task: Record) -> str:
    """How far predicted chances lie from what was observed."""
    figures = task["evaluation"]
    said = [
        f"{name} {_with_interval(figures[key])}"
        for key, name in (("calibration_slope", "slope"), ("calibration_intercept", "intercept"))
        if figures[key]
    ]
    if error := figures["calibration_error"]:
        value, low, high = (formats.points(error[end]) for end in ("value", "low", "high"))
        said.append(f"{value} percentage points off in the root mean square ({low} to {high})")
    if not said:
        return "There are not enough data under the noise to say how well chances are calibrated."
    return f"Predicted against observed, with 95 % intervals: {formats.listing(said)}."


def subgroups(task: Record) -> str:
    """Of which subgroups the model says too much or too little."""
    told = [
        (f"{formats.words(group).lower()} {formats.shorten(level['level'], 40)}", level["gap"])
        for group, levels in task["evaluation"]["groups"].items()
        for level in measured.told(levels)
    ]
    if not told:
        return (
            "No subgroup has enough data under the noise to hold observed against predicted rate."
        )
    off = sorted(
        (each for each in told if not each[1]["low"] <= 0 <= each[1]["high"]),
        key=lambda each: -abs(each[1]["value"]),
    )
    of = formats.plural(len(told), "subgroup")
    if not off:
        return f"Of {of} with enough data, none is off by more than its 95 % interval allows for."
    named = [
        f"{name} ({formats.signed(100 * gap['value'], 1)} percentage points)"
        for name, gap in off[:_MOST_NAMED]
    ]
    if len(off) > _MOST_NAMED:
        named.append(f"{len(off) - _MOST_NAMED} more")
    return (
        f"Of {of} with enough data, {len(off)} {'is' if len(off) == 1 else 'are'} off by more than "
        f"the 95 % interval allows for: {formats.listing(named)}. "
        "By chance alone, one in 20 would be."
    )


def rounds(task: Record) -> str:
    """How long the training took, over whom, and what went wrong on the way."""
    number, repeated = len(task["rounds"]), task["privacy"]["retries"]
    present, absent = took_part(task), timeline.leavers(task)
    sentence = (
        f"{formats.plural(number, 'round')} over {formats.plural(len(present), 'site')} took "
        f"{formats.seconds(sum(record['seconds'] for record in task['rounds']))}"
    )
    if repeated:
        sentence += f"; {formats.plural(repeated, 'round')} had to be repeated"
    if not absent:
        return sentence + "; every site was in every sum."
    back = {left["site"] for left in task["dropouts"] if left["back"]}
    sentence += f"; {formats.plural(len(absent), 'site')} missed rounds"
    return sentence + (f", and {len(back)} of them came back." if back else ", and none came back.")


def steps(task: Record) -> str:
    """Which rounds belong to which step."""
    parts, first = [], 1
    for step, records in groupby(task["rounds"], key=lambda record: record["step"]):
        last = first + len(list(records)) - 1
        span = f"{first}" if first == last else f"{first} to {last}"
        parts.append(f"{formats.words(step).lower()} ({span})")
        first = last + 1
    return f"Steps, with their rounds: {formats.listing(parts)}."


def lanes(task: Record) -> str:
    """Which sites the timeline has a lane for."""
    away = timeline.leavers(task)
    if not away:
        return ""
    which = "the sites that were"
    if len(away) > timeline.MOST_LANES:
        which = f"the first {timeline.MOST_LANES} of {len(away)} sites that were"
    return f"Below, {which} away: thin and orange where they were."


def needed(results: Record, task: Record) -> str:
    """How many sites the run could not do without."""
    least, begin = task["privacy"]["minimum_sites"], quorum(results, task)
    number = len(task["train_sites"])
    if begin == least:
        which = f"All {number}" if least == number else f"{least} of {number}"
        return (
            f"{which} sites had to come before the first round and to be in every sum: the noise "
            "of fewer would not suffice."
        )
    return (
        f"{begin} of {number} sites had to come before the first round, and {least} had to be in "
        "every sum: the noise of fewer would not suffice."
    )


def _with_interval(figure: Record) -> str:
    value, low, high = (formats.decimal(figure[end], 2) for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _subgroups(
    group: str, levels: Sequence[Record], limits: tuple[float, float], name: str
) -> Subgroups:
    told, drawn = len(measured.told(levels)), len(measured.largest(levels))
    texts = []
    if drawn < told:
        texts.append(f"The {drawn} levels with most rows of {told} are drawn.")
    if told < len(levels):
        left_out = formats.plural(len(levels) - told, "level")
        texts.append(f"{left_out} not drawn: hidden, or not enough data.")
    return Subgroups(
        title=f"By {formats.words(group).lower()}",
        drawing=(
            measured.gaps(levels, limits, WIDE, f"{name}-wide"),
            measured.gaps(levels, limits, NARROW, f"{name}-narrow"),
        ),
        text=" ".join(texts),
    )
