"""A run over the sites of a coordinator's network: no data here, and nothing measured exactly."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from federation.deployment.deployed import Deployed

from experiments.config import ExperimentConfig
from experiments.folders import IfPresent, open_run
from experiments.job import ADVISORY, finish, privacy_of_run, provenance
from experiments.progress import Reporter
from federation.deployment.coordinator import Coordinator
from federation.deployment.members import Members
from federation.promise import promise

_CHECKPOINT: Final = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class _Participant:
    """A member as plans see it."""

    name: str
    role: str
    group: str


def run_deployed(
    config: ExperimentConfig,
    coordinator: Coordinator,
    folder: Path,
    *,
    if_present: IfPresent = "refuse",
    tracking: Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Train an experiment's tasks over a network's sites; everything is left in `folder`.

    Args:
        config: The experiment. Its data and its seed play no part: the data are the sites' own,
            and noise is never drawn from a seed.
        coordinator: The network.
        folder: Folder of the run, as for `run_experiment`.
        if_present: What to do where it holds something already; "resume" goes on in the middle of
            a task.
        tracking: MLflow database to log to; none unless given.
        reporter: Tells a person what is going on.

    Returns:
        What results.json holds.

    Raises:
        SiteFailureError: Too few sites take part, or are left; each that failed is named.
        GroundTruthError: Something else that somebody can put right.
    """
    reporter = reporter or Reporter(quiet=True)
    members = Members(coordinator).active()
    plans = _plans(config, members)
    with open_run(folder, config, if_present), Deployed(coordinator) as network:
        start = time.monotonic()
        tasks = {plan.task: _task(plan, network, config, folder, reporter) for plan in plans}
        told = promise(plans)
        results = {
            **provenance(folder, start),
            "engine": "deployment",
            "seed": None,
            "advisory": ADVISORY,
            "config": asdict(config),
            "data": _data(coordinator),
            "sites": [_site_row(site, member) for site, member in members.items()],
            "warnings": _warnings(config, tasks),
            "privacy": {**privacy_of_run(config, plans, told), "spent_in_ledgers": None},
            "tasks": tasks,
            "files": {"report": "report.html", "results": "results.json"},
        }
        return finish(results, folder, tracking, reporter)
