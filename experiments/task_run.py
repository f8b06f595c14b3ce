"""One task of an experiment: train over the sites, run the baselines, measure them all."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.features import Feature, Grid, grid_of
from experiments.baselines import OneLabelError, fit_additive, fit_boosting, fit_logistic
from experiments.evaluation import auroc, metrics, reliability
from experiments.federation_data import Site
from experiments.plans import MIN_PATIENTS
from experiments.progress import Reporter
from experiments.task_figures import evaluation_figures, privacy_figures, shape_figures
from federation import client_app, server_app
from federation.enrolment import enrol
from federation.identity import REGISTRY_FILE
from federation.in_process import run_in_process
from federation.plan import RunPlan
from federation.results import read_result
from federation.simulation import run_on_simulation
from federation.strategy import TrainingResult, on_each_round
from models.additive import AdditiveModel
from models.patients import PatientRows, group_by_patient
from models.tasks.task import TaskDataError, TaskRows, assemble
from models.training import Model

Vector = NDArray[np.float64]

FEDERATED, NOT_PRIVATE, LOCAL = "federated_private", "federated_no_noise", "local_only"
ADDITIVE, LOGISTIC, BOOSTING = "pooled_additive", "pooled_logistic", "pooled_boosting"
LABELS = {
    LOCAL: "Each site alone",
    FEDERATED: "Federated, private",
    NOT_PRIVATE: "Federated, no noise",
    ADDITIVE: "Pooled additive",
    LOGISTIC: "Pooled logistic",
    BOOSTING: "Pooled gradient boosting",
}
TIMEOUT_SECONDS = 900.0


class OneClassError(TaskDataError):
    """All labels of a task are the same."""


@dataclass(frozen=True, slots=True)
class Held:
    """A site's rows for a task.

    Attributes:
        name: Name of the site.
        role: Payer or provider.
        train: Rows of training patients.
        test: Rows of held-out patients.
        grouped: The training rows as the site trains on them.
    """

    name: str
    role: str
    train: TaskRows
    test: TaskRows
    grouped: PatientRows


def run_task(
    plan: RunPlan,
    sites: Sequence[Site],
    network: Path,
    folder: Path,
    engine: str,
    reporter: Reporter,
    *,
    fingerprint: str,
) -> dict[str, Any]:
    """Train, compare, measure; everything is left in `folder`.

    A task that was finished before, with the same plan on the same data, is kept as it is.

    Returns:
        The task's part of results.json.

    Raises:
        GroundTruthError: The data cannot serve the task, or a site fails.
    """
    finished, plan_file = folder / "figures.json", folder / "plan.json"
    figures: dict[str, Any]
    if finished.is_file() and plan_file.read_text(encoding="utf-8") == plan.to_json():
        figures = json.loads(finished.read_text(encoding="utf-8"))
        if figures["fingerprint"] == fingerprint:
            reporter.say(f"{plan.task}: finished before, kept")
            return figures
        reporter.say(f"{plan.task}: the data have changed since, so it runs again")
    folder.mkdir(parents=True, exist_ok=True)
    finished.unlink(missing_ok=True)
    plan_file.write_text(plan.to_json(), encoding="utf-8")
    features = plan.features()
    held = [_hold(site, plan, features) for site in sites]
    trainers = [site for site in held if site.name in plan.sites]
    _require_patients(plan, trainers)
    _require_both_labels(plan, trainers)

    start = time.monotonic()
    trained = _train(plan, network, folder, engine, reporter)
    train_seconds = time.monotonic() - start
    start = time.monotonic()
    with reporter.steps(f"{plan.task}: comparing with the baselines", 4) as steps:
        scores, by_site = _compare(plan, features, held, trainers, trained.model, steps.advance)
    figures = {
        "question": plan.the_task.question,
        "note": plan.the_task.note,
        "positive": plan.the_task.positive,
        "family": plan.family,
        "run": trained.run,
        "fingerprint": fingerprint,
        "index_time": str(plan.the_task.index_time),
        "train_sites": list(plan.sites),
        "train_patients": sum(site.grouped.n_patients for site in trainers),
        "train_rows": sum(site.grouped.n_rows for site in trainers),
        "test_rows": sum(len(site.test) for site in trainers),
        "base_rate": float(np.concatenate([site.train.labels for site in trainers]).mean()),
        "privacy": privacy_figures(plan, trained),
        **scores,
        "by_site": by_site,
        "evaluation": evaluation_figures(trained.evaluation, plan, features),
        "shapes": shape_figures(trained.model, features),
        "rounds": [asdict(record) for record in trained.rounds],
        "dropouts": [asdict(dropout) for dropout in trained.dropouts],
        "seconds": {"train": train_seconds, "baselines": time.monotonic() - start},
    }
    part = finished.with_suffix(".part")
    part.write_text(json.dumps(figures), encoding="utf-8")
    part.replace(finished)
    return figures


def _hold(site: Site, plan: RunPlan, features: Sequence[Feature]) -> Held:
    rows = assemble(plan.the_task, site.tables, features, site=site.manifest.name)
    train, test = rows.split(key=plan.split_key, test_share=plan.test_share)
    grouped = train.by_patient(max_records=plan.privacy.max_records_per_patient)
    return Held(site.manifest.name, site.manifest.role, train, test, grouped)


def _require_patients(plan: RunPlan, trainers: Sequence[Held]) -> None:
    """Checked here and in `site check`, never by a site in a run: a refusal would tell a count."""
    for site in trainers:
        if site.grouped.n_patients < MIN_PATIENTS:
            raise TaskDataError(
                f"site {site.name} has fewer than {MIN_PATIENTS} patients to train task "
                f"{plan.task} on; leave it out of the network, or merge it with another site"
            )


def _require_both_labels(plan: RunPlan, trainers: Sequence[Held]) -> None:
    for part, labels in (
        ("training", np.concatenate([site.train.labels for site in trainers])),
        ("test", np.concatenate([site.test.labels for site in trainers])),
    ):
        if labels.size == 0:
            raise OneClassError(
                f"task {plan.task}: there are no {part} rows; more data or another test_share is "
                "needed"
            )
        if labels.min() == labels.max():
            raise OneClassError(
                f"task {plan.task}: all {labels.size} {part} rows have the same label, so there "
                "is nothing to learn or to measure; check the outcome column, or take more data"
            )


def _train(
    plan: RunPlan, network: Path, folder: Path, engine: str, reporter: Reporter
) -> TrainingResult:
    result, sites = folder / "result.json", network / "sites"
    registry = enrol([sites / name for name in plan.sites], network / REGISTRY_FILE)
    title = f"{plan.task}: training over {len(plan.sites)} site" + "s" * (len(plan.sites) > 1)
    if engine == "simulation":
        reporter.say(f"{title} on Flower's simulation runtime ...")
        run_on_simulation(
            plan, sites, result, timeout=TIMEOUT_SECONDS, log=folder / "simulation.log"
        )
        return read_result(result)
    run_config: dict[str, bool | float | int | str] = {
        "plan": plan.to_json(),
        "sites": str(sites),
        "result": str(result),
        "registry": str(registry),
        "timeout": TIMEOUT_SECONDS,
    }
    nodes = [{"site": str(sites / name / "site.toml")} for name in plan.sites]
    rounds = sum(step.rounds for step in plan.steps.values())
    with reporter.steps(title, rounds) as steps, on_each_round(steps.advance):
        run_in_process(server_app.app, client_app.app, nodes, run_config)
    return read_result(result)


def _compare(
    plan: RunPlan,
    features: Sequence[Feature],
    held: Sequence[Held],
    trainers: Sequence[Held],
    federated: Model,
    advance: Callable[[], None],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    names = [feature.name for feature in features]
    grids = [grid_of(feature) for feature in features]
    train_codes = np.concatenate([site.train.codes for site in trainers])
    train_labels = np.concatenate([site.train.labels for site in trainers])
    test_codes = np.concatenate([site.test.codes for site in trainers])
    labels = np.concatenate([site.test.labels for site in trainers])

    federated_name = FEDERATED if plan.mu else NOT_PRIVATE
    # Coarse knots serve the noise; what they cost belongs to the price of privacy.
    finest = replace(plan.additive, max_knots=max(8, plan.additive.max_knots))
    pooled = fit_additive(names, grids, _pool(plan, trainers), finest if plan.mu else plan.additive)
    advance()
    local = {site.name: _local(names, grids, site, plan) for site in held}
    advance()
    probabilities = {
        federated_name: federated.probability(test_codes),
        ADDITIVE: pooled.probability(test_codes),
        LOGISTIC: fit_logistic(grids, train_codes, train_labels, test_codes),
    }
    advance()
    probabilities[BOOSTING] = fit_boosting(grids, train_codes, train_labels, test_codes)
    advance()
    # A site with one label alone knows nothing but that label's rate.
    probabilities[LOCAL] = np.concatenate(
        [
            model.probability(site.test.codes)
            if (model := local[site.name])
            else np.full(len(site.test), site.train.labels.mean() if len(site.train) else 0.5)
            for site in trainers
        ]
    )
    other = "" if plan.family == "additive" else ", additive"
    ladder = [
        {
            "model": model,
            "label": LABELS[model] + (other if model == LOCAL else ""),
            "private": model == FEDERATED,
            **metrics(labels, probabilities[model]),
        }
        for model in LABELS
        if model in probabilities
    ]
    by_site = [
        _site_figures(site, {LOCAL: local[site.name], federated_name: federated, ADDITIVE: pooled})
        for site in held
    ]
    curves = {
        model: reliability(labels, probabilities[model]) for model in (federated_name, ADDITIVE)
    }
    return {"ladder": ladder, "reliability": curves}, by_site


def _pool(plan: RunPlan, trainers: Sequence[Held]) -> PatientRows:
    """All sites' training rows as one site's; patients at several sites become one."""
    return group_by_patient(
        np.concatenate([site.train.codes for site in trainers]),
        np.concatenate([site.train.labels for site in trainers]),
        pl.concat([site.train.patient_tokens for site in trainers]),
        pl.concat([site.train.row_tokens for site in trainers]),
        max_records=plan.privacy.max_records_per_patient,
    )


def _local(
    names: Sequence[str], grids: Sequence[Grid], site: Held, plan: RunPlan
) -> AdditiveModel | None:
    """What the site learns alone; None where it has one label only."""
    try:
        return fit_additive(names, grids, site.grouped, plan.additive)
    except OneLabelError:
        return None


def _site_figures(site: Held, models: Mapping[str, Model | None]) -> dict[str, Any]:
    return {
        "site": site.name,
        "role": site.role,
        "train_patients": site.grouped.n_patients,
        "test_rows": len(site.test),
        "base_rate": float(site.test.labels.mean()) if len(site.test) else None,
        "auroc": {
            name: auroc(site.test.labels, model.probability(site.test.codes)) if model else None
            for name, model in models.items()
        },
    }
