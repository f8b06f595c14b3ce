"""The main job: a network of sites in, models, figures and a report out."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_contracts.network import Network
from experiments.config import ExperimentConfig
from experiments.federation_data import Site, check_sites, fingerprint, make_network
from experiments.folders import IfPresent, open_run
from experiments.forecast.advice import promise_warnings
from experiments.forecast.releases import releases
from experiments.plans import make_plan
from experiments.progress import Reporter
from experiments.run_results import privacy_of_run, provenance, write_results
from experiments.spool import hand_in, sqlite_store
from experiments.task_run import run_task
from federation.ledger import Ledger, ledger_file
from federation.plan import RunPlan
from federation.promise import Promise, promise


def run_experiment(
    config: ExperimentConfig,
    folder: Path,
    *,
    if_present: IfPresent = "refuse",
    tracking: Path | str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Run an experiment and leave everything in `folder`; see `experiments/folders.py`.

    Args:
        config: The experiment.
        folder: Folder of the run.
        if_present: What to do where the folder holds something already.
        tracking: MLflow store to log to, its SQLite file or its URI; none unless given.
        reporter: Tells a person what is going on.

    Returns:
        What results.json holds.

    Raises:
        GroundTruthError: Something that the user can put right. Where it is in the settings,
            nothing has been released.
    """
    reporter = reporter or Reporter(quiet=True)
    with open_run(folder, config, if_present):
        results = _run(config, folder, reporter)
    if tracking is not None:
        store = sqlite_store(tracking) if isinstance(tracking, Path) else tracking
        hand_in(folder, store, reporter)
    return results


def _run(config: ExperimentConfig, folder: Path, reporter: Reporter) -> dict[str, Any]:
    start = time.monotonic()
    network = make_network(config, folder / "network", reporter)
    description = Network.load(network)
    if description.origin == "public":
        reporter.say(f"Licence: {description.licence}. Cite: {description.citation}")
    sites = check_sites(network, reporter)
    manifests = [site.manifest for site in sites]
    plans = [make_plan(config, task, manifests) for task in config.tasks]
    for plan in plans:
        releases(plan)  # what cannot be carried out is refused before anything is released
    print_of_data = fingerprint(network)
    tasks = {
        plan.task: run_task(
            plan,
            sites,
            network,
            folder / "tasks" / plan.task,
            config.engine,
            reporter,
            fingerprint=print_of_data,
        )
        for plan in plans
    }
    told, spent = promise(plans), _spent_in_ledgers(network, plans)
    results = {
        **provenance(folder, start),
        "engine": config.engine,
        "seed": config.seed,
        "config": asdict(config),
        "data": {**asdict(description), "fingerprint": print_of_data},
        "sites": [_site_row(site) for site in sites],
        "warnings": _warnings(config, sites, tasks, told, spent),
        "privacy": {**privacy_of_run(config, plans, told), "spent_in_ledgers": spent},
        "tasks": tasks,
    }
    write_results(results, folder, reporter)
    return results


def _spent_in_ledgers(network: Path, plans: Sequence[RunPlan]) -> float | None:
    """Epsilon of all that stands in the dearest ledger of the sites that train, of any run."""
    files = {ledger_file(network / "sites" / site) for plan in plans for site in plan.sites}
    delta = plans[0].privacy.delta
    return max(
        (Ledger.existing(file).spent().epsilon(delta) for file in files if file.exists()),
        default=None,
    )


def _site_row(site: Site) -> dict[str, Any]:
    return {
        "name": site.manifest.name,
        "role": site.manifest.role,
        "rows": site.raw_rows,
        "patients_declared": site.patients_declared,
        "rejected_rows": site.rejected_rows,
    }


def _warnings(
    config: ExperimentConfig,
    sites: Sequence[Site],
    tasks: Mapping[str, Mapping[str, Any]],
    told: Promise,
    spent: float | None,
) -> list[str]:
    warnings = [
        f"Task {name} went on without site {dropout['site']} from {dropout['step']} "
        f"{dropout['round']}: {dropout['reason']}"
        for name, task in tasks.items()
        for dropout in task["dropouts"]
    ]
    warnings += [
        f"There are not enough data under the noise to say privately how good the model of task "
        f"{name} is; `groundtruth plan` says what would be enough."
        for name, task in tasks.items()
        if task["evaluation"]["overall"]["auroc"] is None
    ]
    warnings += promise_warnings(config.privacy)
    if told.epsilon is not None and (spent or 0.0) > told.epsilon * (1 + 1e-6):
        warnings.append(
            f"The sites' ledgers hold epsilon = {spent:.3g} in all, more than this run's promise: "
            "they count earlier runs over the same network, too, and what a run released before "
            "it was broken off."
        )
    rejected = sum(site.rejected_rows for site in sites)
    if rejected:
        warnings.append(f"{rejected} rows broke their contract and were set aside by their sites.")
    return warnings
