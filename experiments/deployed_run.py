"""A run over the sites of a coordinator's network: no data here, and nothing measured exactly."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from experiments.config import ExperimentConfig
from experiments.folders import IfPresent, open_run
from experiments.forecast.advice import promise_warnings
from experiments.forecast.releases import releases
from experiments.participation import absence, why
from experiments.plans import make_plan
from experiments.progress import Reporter
from experiments.run_results import privacy_of_run, provenance, write_results
from experiments.spool import hand_in, sqlite_store
from experiments.task_figures import evaluation_figures, privacy_figures, shape_figures
from federation.checkpoint import CheckpointError
from federation.deployment.coordinator import Coordinator
from federation.deployment.coordinator_settings import NetworkSettings
from federation.deployment.deployed import Deployed
from federation.deployment.members import Member, Members
from federation.plan import RunPlan
from federation.private_files import write_whole
from federation.promise import promise
from federation.results import read_result, write_result
from federation.settings import ConfigError
from federation.strategy import on_each_round

_CHECKPOINT: Final = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class _Participant:
    """A member as plans see it."""

    name: str
    role: str
    group: str


def run_deployed(
    config: ExperimentConfig,
    folder: Path,
    *,
    if_present: IfPresent = "refuse",
    tracking: Path | str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Train an experiment's tasks over a network's sites; everything is left in `folder`.

    Args:
        config: The experiment. Its data and its seed play no part: the data are the sites' own,
            and noise is never drawn from a seed.
        folder: Folder of the run, as for `run_experiment`.
        if_present: What to do where it holds something already; "resume" goes on in the middle of
            a task.
        tracking: MLflow store to log to, its SQLite file or its URI; none unless given.
        reporter: Tells a person what is going on.

    Returns:
        What results.json holds.

    Raises:
        SiteFailureError: Too few sites take part, or are left; each that failed is named.
        GroundTruthError: Something else that somebody can put right.
    """
    reporter = reporter or Reporter(quiet=True)
    if not config.deployment.coordinator:
        raise ConfigError(
            "--engine deployment needs the coordinator's folder: --coordinator FOLDER, or "
            "coordinator under [deployment] in the settings"
        )
    coordinator = Coordinator.load(Path(config.deployment.coordinator))
    members = Members(coordinator).active()
    plans = _plans(config, members, coordinator.settings.network)
    with open_run(folder, config, if_present), Deployed(coordinator) as network:
        start = time.monotonic()
        for plan in plans:
            _train(plan, network, config, folder, reporter)
        results = {
            **provenance(folder, start),
            **network_results(config, folder, plans, coordinator.network, members),
        }
        write_results(results, folder, reporter)
    if tracking is not None:
        store = sqlite_store(tracking) if isinstance(tracking, Path) else tracking
        hand_in(folder, store, reporter)
    return results


def network_results(
    config: ExperimentConfig,
    folder: Path,
    plans: Sequence[RunPlan],
    network: str,
    members: Mapping[str, Member],
) -> dict[str, Any]:
    """What results.json holds of trained tasks; what only an experiment measures is null, or empty.

    Args:
        config: The experiment.
        folder: Folder of the run; every task has left its result there.
        plans: The plans of all tasks.
        network: Name of the network.
        members: Its sites by name, also those that train none of the tasks.
    """
    tasks = {plan.task: _figures(plan, folder / "tasks" / plan.task) for plan in plans}
    return {
        "engine": "deployment",
        "seed": None,
        "config": asdict(config),
        "data": _data(network, len(members)),
        "sites": [_site_row(member) for member in members.values()],
        "warnings": _warnings(config, tasks),
        "privacy": {**privacy_of_run(config, plans, promise(plans)), "spent_in_ledgers": None},
        "tasks": tasks,
    }


def _plans(
    config: ExperimentConfig, members: Mapping[str, Member], network: NetworkSettings
) -> list[RunPlan]:
    """The plans of all tasks; what cannot be carried out is refused before anything is released."""
    if config.privacy.multiplicity != network.multiplicity:
        raise ConfigError(
            f"privacy.multiplicity is {config.privacy.multiplicity} in the settings, and the "
            f"network has declared {network.multiplicity} to its sites: state the network's"
        )
    participants = [_Participant(each.site, each.role, each.group) for each in members.values()]
    given = {"payer": network.payers, "provider": network.providers}
    named = {each.group or each.name for each in participants}
    others = {role: [each for each in names if each not in named] for role, names in given.items()}
    for role, names in others.items():
        if not names and not any(each.role == role for each in participants):
            raise ConfigError(
                f"the network has no {role}, neither as a member nor under {role}s in "
                "coordinator.toml, so none could be told from another in the sites' tables"
            )
    declared = {site: member.patients for site, member in members.items()}
    plans = [make_plan(config, task, participants, declared, others) for task in config.tasks]
    for plan in plans:
        releases(plan)
    return plans


def _train(
    plan: RunPlan, network: Deployed, config: ExperimentConfig, folder: Path, reporter: Reporter
) -> None:
    """Train one task; one that was finished before is kept as it is.

    Raises:
        CheckpointError: It was begun with another plan.
    """
    place = folder / "tasks" / plan.task
    plan_file, result = place / "plan.json", place / "result.json"
    if plan_file.exists() and plan_file.read_text(encoding="utf-8") != plan.to_json():
        raise CheckpointError(
            f"{plan.task} was begun in {folder} with another plan than the one of today: members "
            "were admitted or revoked or have declared anew, or this software is another release. "
            "What its sites have released stays charged. Start a new run in another folder, which "
            "is charged anew"
        )
    if not result.is_file():
        place.mkdir(parents=True, exist_ok=True)
        write_whole(plan_file, plan.to_json().encode())
        rounds = sum(step.rounds for step in plan.steps.values())
        title = f"{plan.task}: training over {len(plan.sites)} sites"
        patience = config.deployment.patience()
        start = time.monotonic()
        with reporter.steps(title, rounds) as steps, on_each_round(steps.advance, reporter.say):
            trained = network.train(plan, patience, place / _CHECKPOINT, folder=folder)
        # The result comes last: a task that has one is complete.
        write_whole(place / "seconds.json", json.dumps(time.monotonic() - start).encode())
        write_result(result, trained)
    else:
        reporter.say(f"{plan.task}: finished before, kept")


def _figures(plan: RunPlan, place: Path) -> dict[str, Any]:
    """A task's part of results.json."""
    trained = read_result(place / "result.json")
    features = plan.features()
    return {
        "question": plan.the_task.question,
        "note": plan.the_task.note,
        "positive": plan.the_task.positive,
        "family": plan.family,
        "run": trained.run,
        "fingerprint": None,
        "index_time": str(plan.the_task.index_time),
        "train_sites": list(plan.sites),
        "train_patients": None,
        "train_rows": None,
        "test_rows": None,
        "base_rate": None,
        "privacy": privacy_figures(plan, trained),
        "ladder": [],
        "reliability": {},
        "by_site": [],
        "evaluation": evaluation_figures(trained.evaluation, plan, features),
        "shapes": shape_figures(trained.model, features),
        "rounds": [asdict(record) for record in trained.rounds],
        "dropouts": [asdict(dropout) for dropout in trained.dropouts],
        "seconds": {
            "train": json.loads((place / "seconds.json").read_text()),
            "baselines": None,
        },
    }


def _data(network: str, sites: int) -> dict[str, Any]:
    """What takes the place of a data set's description: data that nobody here has seen."""
    return {
        "name": network,
        "title": f"Network {network}",
        "origin": "private",
        "partition": f"{sites} sites, each with its own tables",
        "licence": "",
        "citation": "",
        "settings": {},
        "fingerprint": None,
    }


def _site_row(member: Member) -> dict[str, Any]:
    return {
        "name": member.site,
        "role": member.role,
        "rows": {},
        "patients_declared": member.patients,
        "rejected_rows": None,
    }


def _warnings(config: ExperimentConfig, tasks: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    warnings = []
    for name, task in tasks.items():
        warnings += [
            f"Task {name}: site {left['site']} {absence(left)} ({why(left)})."
            for left in task["dropouts"]
        ]
        if task["evaluation"]["overall"]["auroc"] is None:
            warnings.append(
                "There are not enough data under the noise to say privately how good the model of "
                f"task {name} is; `groundtruth plan` says what would be enough."
            )
    return warnings + promise_warnings(config.privacy)
