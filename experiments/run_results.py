"""What results.json holds of every run, whatever engine has carried it out."""

import datetime
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.config import ExperimentConfig
from experiments.plans import noise_in_words
from experiments.progress import Reporter
from experiments.report import render
from federation.plan import RunPlan
from federation.promise import Promise

ADVISORY = (
    "Advisory only: a human decides. Approval labels encode past payer behaviour, not "
    "appropriateness."
)


def provenance(folder: Path, start: float) -> dict[str, Any]:
    """Which run this is, and of which software.

    Args:
        folder: Folder of the run.
        start: When it began, on the monotonic clock.
    """
    return {
        "schema_version": 3,
        "run_id": folder.resolve().name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": time.monotonic() - start,
        "git_commit": _git_commit(),
        "versions": _versions(),
        "advisory": ADVISORY,
        "files": {"report": "report.html", "results": "results.json"},
    }


def privacy_of_run(
    config: ExperimentConfig, plans: Sequence[RunPlan], told: Promise
) -> dict[str, Any]:
    """What all tasks together cost a patient."""
    return {
        **asdict(told),
        "unit": "patient",
        "neighbouring": "add/remove",
        "max_records_per_patient": config.privacy.max_records_per_patient,
        "secure_sum": plans[0].secure_sum,
        "noise": noise_in_words(plans[0]),
    }


def write_results(results: dict[str, Any], folder: Path, reporter: Reporter) -> None:
    """Write results.json and the report."""
    _write_json(folder / "results.json", results)
    reporter.say("Writing the report")
    render(results, folder / "report.html")


def _git_commit() -> str | None:
    """Commit of the checkout that the code runs from; None outside one."""
    git = shutil.which("git")
    if git is None:
        return None
    here = Path(__file__).parent
    done = subprocess.run(  # noqa: S603 - a fixed command
        [git, "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def _versions() -> dict[str, str]:
    packages = ("flwr", "numpy", "polars", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _write_json(file: Path, content: object) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
