"""How a run's results, a site's budget, a preview and an audit log are told on a terminal."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.participation import declared, took_part
from experiments.site_budget import SiteBudget
from experiments.site_preview import Preview


def print_results(
    results: Mapping[str, Any], folder: Path, tracking: str, console: Console
) -> None:
    """Print what a run has found, and where the rest stands.

    Args:
        results: What results.json holds.
        folder: Folder of the run.
        tracking: URI of the MLflow store.
        console: Where to print.
    """
    deployed = results["engine"] == "deployment"
    for name, task in results["tasks"].items():
        if deployed:
            _print_measured(results, name, console)
        else:
            _print_compared(name, task, results["privacy"]["epsilon"], console)
    privacy = results["privacy"]
    if privacy["epsilon"] is not None:
        console.print(
            f"Privacy of a patient, all models together: epsilon = {privacy['epsilon']:.3g} at one "
            f"site, {privacy['epsilon_at_multiplicity']:.3g} at {privacy['multiplicity']} sites, "
            f"delta = {privacy['delta']:g}.",
            highlight=False,
        )
    for warning in results["warnings"]:
        console.print(f"Warning: {warning}", highlight=False, markup=False)
    console.print(privacy["noise"], highlight=False)
    console.print(results["advisory"], highlight=False)
    server = tracking.startswith("http")
    console.print(
        f"Report:  {folder / 'report.html'}\nFigures: {folder / 'results.json'}\n"
        f"MLflow:  {tracking if server else f'mlflow ui --backend-store-uri {tracking}'}",
        highlight=False,
        soft_wrap=True,
    )


def _print_compared(
    name: str, task: Mapping[str, Any], epsilon: float | None, console: Console
) -> None:
    """Print a task of an experiment: its models side by side, and the private figure."""
    table = Table("model", "AUROC", "AUPRC", "Brier", title=f"{name}: {task['question']}")
    for rung in task["ladder"]:
        figures = (rung["auroc"], rung["auprc"], rung["brier"])
        table.add_row(rung["label"], *(f"{value:.4f}" for value in figures))
    console.print(table)
    area = task["evaluation"]["overall"]["auroc"]
    told = "not enough data under the noise"
    if area is not None:
        told = f"{area['value']:.4f} ({area['low']:.4f} to {area['high']:.4f})"
    asked = "privately" if epsilon is not None else "without noise"
    console.print(
        "Measured exactly on held-out rows, as only an experiment can. The sites' own AUROC, "
        f"asked {asked}: {told}.",
        highlight=False,
    )


def _print_measured(results: Mapping[str, Any], name: str, console: Console) -> None:
    """Print a task over a network's own sites: what they were asked privately, and who answered."""
    task = results["tasks"][name]
    console.print(f"{name}: {task['question']}", style="bold", highlight=False, markup=False)
    measured = {**task["evaluation"], **task["evaluation"]["overall"]}
    table = Table("figure", "asked privately", "95 % interval")
    for key, label, form in _MEASURED:
        figure = measured[key]
        if figure is None:
            table.add_row(label, "not enough data", "")
            continue
        value, low, high = (form.format(figure[end]) for end in ("value", "low", "high"))
        table.add_row(label, value, f"{low} to {high}")
    console.print(table)
    present, repeated = took_part(task), task["privacy"]["retries"]
    console.print(
        f"{len(present)} of {len(task['train_sites'])} sites took part, which declared "
        f"{declared(results, present):,} patients; {len(task['rounds'])} rounds"
        f"{f', {repeated} repeated' if repeated else ''}.",
        highlight=False,
    )


_MEASURED = (
    ("auroc", "AUROC", "{:.3f}"),
    ("auprc", "AUPRC", "{:.3f}"),
    ("brier", "Brier", "{:.3f}"),
    ("calibration_slope", "calibration slope", "{:.2f}"),
    ("calibration_intercept", "calibration intercept", "{:.2f}"),
    ("calibration_error", "calibration error", "{:.1%}"),
    ("observed", "observed rate", "{:.1%}"),
    ("predicted", "mean predicted chance", "{:.1%}"),
    ("rows", "held-out rows", "{:,.0f}"),
)


def print_budget(state: SiteBudget, console: Console) -> None:
    """Print what a site's ledger adds up to."""
    budget = "no limit" if state.budget is None else f"{state.budget:g}"
    left = "" if state.left is None else f"; one more run may cost {state.left:.4g} at most"
    console.print(
        f"site {state.site}: epsilon = {state.spent:.4g} of {budget} spent in {state.releases:,} "
        f"releases{left} (delta = {state.delta:g})",
        highlight=False,
        markup=False,
    )
    by_run = Table("date", "run", "task", "purpose", "releases", "epsilon alone")
    for run in state.runs:
        by_run.add_row(
            *(run.since[:10], run.run[:8], Text(", ".join(run.tasks)), ", ".join(run.purposes)),
            *(f"{run.releases:,}", f"{run.epsilon:.4g}"),
        )
    by_purpose = Table("purpose", "releases", "epsilon alone")
    for group in state.purposes:
        by_purpose.add_row(*group.purposes, f"{group.releases:,}", f"{group.epsilon:.4g}")
    if state.releases:
        console.print(by_run, by_purpose)
    console.print(
        "Epsilons do not add up: squares of mu do, and training and evaluation concern different "
        "patients. These are the figures of this site alone; a patient may stand at several, and "
        "the joint figure is in each run's report.",
        *([state.hint] if state.hint else []),
        highlight=False,
        markup=False,
    )


def print_audit_log(rows: Iterable[Mapping[str, Any]], console: Console) -> None:
    """Print entries of an audit log, each with what it says beside who, when and what."""
    columns = ("seq", "time", "user", "actor", "event", "outcome")
    table = Table(*columns, "more")
    for column in table.columns:
        column.overflow = "fold"  # an auditor needs every character
    for row in rows:
        told = {name: value for name, value in row.items() if name not in (*columns, "hash")}
        cells = (
            *(str(row.get(name, "")) for name in columns),
            " ".join(map(_detail, told.items())),
        )
        # A forged log may hold what would steer the terminal.
        table.add_row(*(Text(cell if cell.isprintable() else ascii(cell)) for cell in cells))
    console.print(table)


def _detail(named: tuple[str, object]) -> str:
    name, value = named
    return f"{name}={value}"


def print_preview(task: str, seen: Preview, console: Console) -> None:
    """Print what a run would ask of a site for one task."""
    table = Table(
        *("step", "rounds", "values", "one patient\nchanges (L2)", "noise in\neach value"),
        *("largest exact\nvalue", "correlation\nof the two"),
        title=f"{task}: what would leave",
    )
    for step, vectors in groupby(seen.vectors, key=lambda vector: vector.step):
        first, *more = vectors
        table.add_row(
            *(step, str(1 + len(more)), f"{first.exact.size:,}", f"{first.sensitivity:.3g}"),
            *(f"{first.noise_std:.3g}", f"{np.abs(first.exact).max():.4g}"),
            f"{np.corrcoef(first.exact, first.noisy)[0, 1]:.2f}" if first.exact.size > 1 else "",
        )
    console.print(table)
    first = seen.vectors[0]
    sample = Table("value", "exact, stays here", "noisy", title=f"from the {first.step}")
    for position in np.argsort(-first.exact)[:_SHOWN]:
        meaning = first.meanings[position] if first.meanings else str(position)
        sample.add_row(
            Text(meaning), f"{first.exact[position]:,.2f}", f"{first.noisy[position]:,.2f}"
        )
    console.print(sample)
    masked = (
        f"With {len(seen.plan.sites)} sites the noisy values are masked before they leave: each "
        "alone is uniformly random, and only sums over the sites can be opened."
        if seen.plan.secure_sum
        else "Without a secure sum the noisy values leave as they are."
    )
    console.print(masked, highlight=False)
    verdict = seen.refusal or "This site's policy would allow the run."
    console.print(verdict, highlight=False, markup=False, soft_wrap=True)


def ago(moment: str) -> str:
    """How long ago a moment was, in words."""
    try:
        past = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    seconds = (datetime.now(UTC) - past).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


_SHOWN = 8
