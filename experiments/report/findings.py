"""What each section found, in one sentence.

The sentences are computed from the results, so that they stay true whichever way a run ends: a
model that was not assessed is not spoken of, and a site that lost by joining is named.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.report.formats import (
    NOT_ASSESSED,
    decimal,
    known,
    listing,
    percent,
    plural,
    points,
    shorten,
    significant,
    words,
)
from experiments.report.gains import site_gains

NO_PRIVACY = "No privacy: not for real data"

Record = Mapping[str, Any]


def model(task: Record, name: str) -> Record | None:
    """The ladder's entry for a model, where it has an AUROC."""
    for entry in task["ladder"]:
        if entry["model"] == name and known(entry["auroc"]):
            found: Record = entry
            return found
    return None


def headline(task: Record) -> Record | None:
    """The ladder's entry that the report is about.

    The private model; in a run without privacy, the federated model.
    """
    ladder = [entry for entry in task["ladder"] if known(entry["auroc"])]
    private = [entry for entry in ladder if entry["private"]]
    federated = [entry for entry in ladder if entry["model"].startswith("federated")]
    return next(iter([*private, *federated]), None)


def scope(results: Record) -> str:
    """Who took part, with what, and on which kind of data."""
    sites = results["sites"]
    roles = Counter(site["role"] for site in sites)
    cast = listing([plural(number, role) for role, number in roles.items()])
    rejected = sum(site["rejected_rows"] or 0 for site in sites)
    kind = {"synthetic": "synthetic data", "public": "public data"}.get(
        results["data"]["origin"], f"{results['data']['origin']} data"
    )
    return (
        f"{plural(len(sites), 'site')} ({cast}) took part, on {kind}; "
        f"{plural(rejected, 'row')} broke a data contract and "
        f"{'was' if rejected == 1 else 'were'} set aside."
    )


def ladder(task: Record) -> str:
    """What joining gives, what privacy costs, and what pooling would add."""
    best = headline(task)
    if best is None:
        return "The federated model was not assessed, so nothing can be said of joining."
    kind = "privately" if best["private"] else "without privacy noise"
    sentence = f"Learning together {kind} reached an AUROC of {decimal(best['auroc'])}"
    clauses = []
    if alone := model(task, "local_only"):
        clauses.append(f"{_against(best, alone)} each site alone ({decimal(alone['auroc'])})")
    noiseless = [
        entry
        for entry in task["ladder"]
        if entry["model"].startswith("federated") and not entry["private"]
    ]
    if best["private"] and noiseless and known(noiseless[0]["auroc"]):
        clauses.append(
            f"{_against(best, noiseless[0])} the same training without noise "
            f"({decimal(noiseless[0]['auroc'])})"
        )
    if clauses:
        sentence += ", " + " and ".join(clauses)
    pooled = [
        entry
        for entry in task["ladder"]
        if entry["model"].startswith("pooled") and known(entry["auroc"])
    ]
    if pooled:
        top = max(pooled, key=lambda entry: float(entry["auroc"]))
        sentence += (
            f"; the best model that needs all records in one place ({top['label']}) "
            f"reached {decimal(top['auroc'])}"
        )
    return sentence + "."


def evaluation(task: Record) -> str:
    """What the network itself learns of how good the model is."""
    overall = task["evaluation"]["overall"]
    area, gap = overall["auroc"], overall["gap"]
    if area is None or not known(area["value"]):
        return "There are not enough data under the noise to say how good the model is."
    asked = "Asked privately" if known(task["privacy"]["epsilon"]) else "Asked without any noise"
    sentence = (
        f"{asked}, the sites put the AUROC at {decimal(area['value'])} "
        f"(95 % interval {decimal(area['low'])} to {decimal(area['high'])})"
    )
    if gap is not None and known(gap["value"]):
        sentence += (
            f"; the observed rate lies {points(abs(gap['value']))} percentage points "
            f"{'above' if gap['value'] > 0 else 'below'} the predicted one"
        )
    return sentence + "."


def miscalibration(bins: Iterable[Record]) -> float | None:
    """Mean distance of predicted and observed rate, weighted by rows, as a share."""
    usable = drawable(bins)
    rows = sum(entry["rows"] for entry in usable)
    if rows <= 0:
        return None
    gaps = (entry["rows"] * abs(entry["observed"] - entry["mean_score"]) for entry in usable)
    return float(sum(gaps) / rows)


def drawable(bins: Iterable[Record]) -> list[Record]:
    """The reliability bins that have all three of their numbers, and rows in them."""
    return [
        entry
        for entry in bins
        if known(entry["mean_score"])
        and known(entry["observed"])
        and known(entry["rows"])
        and entry["rows"] > 0
    ]


def calibration(task: Record, labels: Mapping[str, str]) -> str:
    """How far predicted chances lie from what was observed, model by model."""
    gaps = {name: miscalibration(bins) for name, bins in task["reliability"].items()}
    said = [
        f"{points(gap)} percentage points off ({labels.get(name, words(name))})"
        for name, gap in gaps.items()
        if gap is not None
    ]
    if not said:
        return "Calibration was not assessed."
    return f"On average, predicted chances were {listing(said)}."


def odds_ratio(shape: Record) -> float | None:
    """Odds at the top of a shape function over the odds at its bottom."""
    values = [value for value in shape["log_odds"] if known(value)]
    return math.exp(max(values) - min(values)) if values else None


def extremes(shape: Record) -> str:
    """Where a shape function is highest and lowest, and the odds ratio between the two."""
    places = shape["levels"] if shape["kind"] == "category" else shape["x"]
    pairs = [
        (value, place)
        for value, place in zip(shape["log_odds"], places or [], strict=False)
        if known(value)
    ]
    if len(pairs) < 2:
        return "The shape was not assessed."
    (low, bottom), (high, top) = (
        min(pairs, key=lambda pair: pair[0]),
        max(pairs, key=lambda pair: pair[0]),
    )
    ratio = decimal(math.exp(high - low), 2)
    if shape["kind"] == "category":
        highest, lowest = shorten(top, 40), shorten(bottom, 40)
    else:
        highest, lowest = (_place(shape, at) for at in (top, bottom))
    return f"Odds ratio {ratio}: highest at {highest}, lowest at {lowest}."


def strongest(task: Record, number: int) -> list[Record]:
    """The features that move the prediction most, by their importance."""
    shapes = [shape for shape in task["shapes"] if known(shape["importance"])]
    return sorted(shapes, key=lambda shape: -float(shape["importance"]))[:number]


def glass_box(task: Record) -> bool:
    """Whether the model is a sum of shape functions."""
    return bool(task["family"] == "additive")


def shapes(task: Record) -> str:
    """Which features move the prediction most."""
    if not glass_box(task):
        return "This model is a neural network: no feature's part in a prediction can be read off."
    ranked = [(shape["title"], odds_ratio(shape)) for shape in strongest(task, 3)]
    said = [(title, ratio) for title, ratio in ranked if ratio is not None]
    if not said:
        return "The shape functions were not assessed."
    first, *rest = said
    sentence = (
        f"On average over the rows, {first[0]} moves the prediction most: from its lowest to its "
        f"highest point the odds of “{task['positive']}” change {decimal(first[1], 1)}-fold"
    )
    if rest:
        follow = listing([f"{title} ({decimal(ratio, 1)}-fold)" for title, ratio in rest])
        sentence += f". Next {'come' if len(rest) > 1 else 'comes'} {follow}"
    return sentence + "."


def privacy(task: Record) -> str:
    """What was spent, for whom, and on what most of it went."""
    spent = task["privacy"]
    if not known(spent["epsilon"]):
        return f"{NO_PRIVACY}. No noise was added, so no privacy budget was spent."
    sentence = (
        f"Training this model and measuring it may cost ε = {significant(spent['epsilon'])} "
        f"(δ = {significant(spent['delta'])}) per {spent['unit']}"
    )
    if known(spent["epsilon_at_multiplicity"]):
        sentence += (
            f", or {significant(spent['epsilon_at_multiplicity'])} for one who stands at "
            f"{plural(spent['multiplicity'], 'site')}"
        )
    shared = [
        release
        for release in spent["releases"]
        if known(release["share"]) and release["patients"] == "train"
    ]
    if shared:
        largest = max(shared, key=lambda release: float(release["share"]))
        sentence += (
            f"; of what training may cost, the largest part, {percent(largest['share'], 0)}, is "
            f"for “{largest['step'].replace('_', ' ')}”"
        )
    return sentence + "."


def limits(results: Record) -> str:
    """How far the numbers reach."""
    origin = results["data"]["origin"]
    kind = "synthetic" if origin == "synthetic" else origin
    return (
        f"These numbers hold for {kind} data and for the {plural(len(results['sites']), 'site')} "
        "listed here; nothing in this run shows that they hold anywhere else."
    )


def not_run(results: Record) -> list[str]:
    """What was asked for and has no result."""
    missing = []
    for name, task in results["tasks"].items():
        if not known(task["privacy"]["epsilon"]):
            missing.append(f"{name}: private training. {NO_PRIVACY}.")
        missing += [
            f"{name}: {entry['label']} ({NOT_ASSESSED})."
            for entry in task["ladder"]
            if not known(entry["auroc"])
        ]
        if absent := sum(one.gain is None for one in site_gains(task)):
            missing.append(f"{name}: {plural(absent, 'site')} without a comparison.")
        missing += [
            f"{name}: calibration of {model_name.replace('_', ' ')} ({NOT_ASSESSED})."
            for model_name, bins in task["reliability"].items()
            if not drawable(bins)
        ]
        if glass_box(task) and not task["shapes"]:
            missing.append(f"{name}: shape functions ({NOT_ASSESSED}).")
    return missing


def _place(shape: Record, at: float) -> str:
    """A place on a number's axis, as finely as its range deserves."""
    ends = [x for x in shape["x"] if known(x)]
    spread = max(ends) - min(ends)
    digits = max(0, 1 - math.floor(math.log10(spread))) if spread > 0 else 2
    text = decimal(at, digits + 1 if spread < 1 else digits)
    text = text.rstrip("0").rstrip(".") if "." in text else text
    if not shape["unit"]:
        return text
    return f"{text} {shape['unit'].removesuffix('s') if text == '1' else shape['unit']}"


def _against(one: Record, other: Record) -> str:
    """By how much one AUROC is above or below another, in words."""
    gap = one["auroc"] - other["auroc"]
    if round(gap, 3) == 0:
        return "level with"
    return f"{decimal(abs(gap))} {'above' if gap > 0 else 'below'}"
