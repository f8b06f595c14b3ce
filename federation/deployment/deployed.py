"""A coordinator's network, as a run uses it: one run at a time, kept after every round."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from federation.checkpoint import Checkpoint
from federation.deployment.audit_entry import Event
from federation.deployment.audit_log import AuditLog
from federation.deployment.bundles import installed_bundle
from federation.deployment.coordinator import Coordinator
from federation.deployment.coordinator_service import site_nodes, superlink_of
from federation.deployment.superlink import SuperLink
from federation.deployment.supervisor import is_held, only_one
from federation.exchange import Patience
from federation.identity import Registry
from federation.plan import RunPlan
from federation.private_files import write_whole
from federation.strategy import TrainingResult, run

_PROGRESS_FILE: Final = "run.json"


class Deployed:
    """The network, held for one run at a time.

    Args:
        coordinator: The coordinator.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._link = superlink_of(coordinator)
        self._log = coordinator.log
        self._held = ExitStack()

    def __enter__(self) -> "Deployed":
        self._held.enter_context(only_one(self._coordinator.state, "run"))
        return self

    def __exit__(self, *_: object) -> None:
        (self._coordinator.state / _PROGRESS_FILE).unlink(missing_ok=True)
        self._held.close()

    def train(
        self, plan: RunPlan, patience: Patience, checkpoint: Path, *, folder: Path
    ) -> TrainingResult:
        """Train a plan over the network's sites; goes on where the checkpoint's run was broken off.

        Args:
            plan: The plan.
            patience: How long to wait for sites, and for how many.
            checkpoint: File for the run so far; gone on with if it is there.
            folder: Folder of the run, for the status.

        Raises:
            SuperLinkError: `groundtruth coordinator start` does not run, or refuses.
            SiteFailureError: See `federation.strategy.run`.
            CheckpointError: What was kept cannot be gone on with, or cannot be written.
        """
        earlier = Checkpoint.read(checkpoint) if checkpoint.exists() else None
        bundle = installed_bundle()
        registry = Registry.load(self._coordinator.peers_file)
        self._link.wait(patience.quorum_seconds)
        seen = _Seen(self._log, plan, bundle.sha256, earlier)

        def keep(now: Checkpoint) -> None:
            now.write(checkpoint)
            seen.note(now)
            self._show(plan, now, folder)

        try:
            with self._link.run(bundle, plan.to_json()) as grid:
                result = run(
                    grid,
                    plan,
                    registry=registry,
                    patience=patience,
                    members=_NodeNames(self._coordinator, self._link),
                    keep=keep,
                    earlier=earlier,
                )
        except BaseException as error:
            seen.failed(error)
            raise
        seen.finished(result)
        return result

    def _show(self, plan: RunPlan, now: Checkpoint, folder: Path) -> None:
        """Let `groundtruth coordinator status` see how far the run is."""
        attempt = now.attempt
        shown = {
            "pid": os.getpid(),
            "run": now.run,
            "task": plan.task,
            "folder": str(folder),
            "done": len(now.rounds),
            "of": sum(step.rounds for step in plan.steps.values()),
            "step": f"{attempt.step} {attempt.round}" if attempt else "",
            "sites": [site for site in plan.sites if site in (attempt.present if attempt else ())],
            "gone": list(now.gone),
            "seen": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_whole(self._coordinator.state / _PROGRESS_FILE, json.dumps(shown).encode())


def progress(coordinator: Coordinator) -> dict[str, Any] | None:
    """How far the run is that is going on; None if none is."""
    if not is_held(coordinator.state, "run"):
        return None
    try:
        shown: dict[str, Any] = json.loads((coordinator.state / _PROGRESS_FILE).read_text())
    except (OSError, ValueError):
        return None
    return shown


class _NodeNames(Mapping[int, str]):
    """Node -> member, looked up anew where a node is unknown: members come while a run waits."""

    def __init__(self, coordinator: Coordinator, link: SuperLink) -> None:
        self._coordinator, self._link = coordinator, link
        self._known: dict[int, str] = {}

    def __getitem__(self, node: int) -> str:
        if node not in self._known:
            nodes = site_nodes(self._coordinator, self._link)
            self._known = {each.node_id: site for site, each in nodes.items()}
        return self._known[node]

    def __iter__(self) -> Iterator[int]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class _Seen:
    """Writes into the audit log what is new in a run."""

    def __init__(self, log: AuditLog, plan: RunPlan, app: str, earlier: Checkpoint | None) -> None:
        self._log, self._plan, self._app = log, plan, app
        self._run = earlier.run if earlier else ""
        self._dropouts = 0 if earlier is None else len(earlier.dropouts)
        self._back = 0 if earlier is None else _returned(earlier)
        if earlier is not None:
            log.append(Event.RUN_RESUMED, run=earlier.run, task=plan.task, app=app)

    def note(self, now: Checkpoint) -> None:
        """Tell what has happened since the last time."""
        if not self._run:
            self._run = now.run
            self._log.append(
                Event.RUN_STARTED,
                run=now.run,
                plan=self._plan.digest,
                task=self._plan.task,
                app=self._app,
                sites=len(now.offers),
            )
        for dropout in now.dropouts[self._dropouts :]:
            self._log.append(
                Event.SITE_DROPPED,
                run=now.run,
                site=dropout.site,
                step=dropout.step,
                round=dropout.round,
            )
        if (back := _returned(now)) > self._back:
            for dropout in [each for each in now.dropouts if each.back][-(back - self._back) :]:
                self._log.append(Event.SITE_READMITTED, run=now.run, site=dropout.site)
        self._dropouts, self._back = len(now.dropouts), back

    def failed(self, error: BaseException) -> None:
        """Tell that the run ended without a result."""
        if self._run:
            self._log.append(Event.RUN_FAILED, run=self._run, reason=error)

    def finished(self, result: TrainingResult) -> None:
        """Tell that the run has a result."""
        self._log.append(Event.RUN_FINISHED, run=result.run, rounds=len(result.rounds))


def _returned(now: Checkpoint) -> int:
    return sum(bool(dropout.back) for dropout in now.dropouts)
