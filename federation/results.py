"""The file in which a coordinator leaves a run's result: a model, or a reason, never neither.

Flower's exit codes do not tell a failed run from a good one, so this file does. It is written
whole or not at all.
"""

import json
from dataclasses import asdict
from pathlib import Path

from data_contracts.errors import GroundTruthError
from federation.checkpoint import Dropout, RoundRecord
from federation.private_files import write_whole
from federation.settings import parse
from federation.strategy import SiteFailureError, TrainingResult
from models.evaluation import Evaluation
from models.families import read_model


class RunFailedError(GroundTruthError):
    """A run ended without a result."""


def write_result(file: Path, result: TrainingResult) -> None:
    """Write a trained model and its rounds."""
    _write(
        file,
        {
            "ok": True,
            "run": result.run,
            "model": json.loads(result.model.to_json()),
            "evaluation": asdict(result.evaluation),
            "rounds": [asdict(record) for record in result.rounds],
            "dropouts": [asdict(dropout) for dropout in result.dropouts],
        },
    )


def write_failure(file: Path, error: Exception) -> None:
    """Write why there is no model; `users_to_mend` tells our faults from theirs."""
    _write(
        file,
        {
            "ok": False,
            "error": str(error) or type(error).__name__,
            "users_to_mend": isinstance(error, GroundTruthError),
        },
    )


def read_result(file: Path) -> TrainingResult:
    """The result of a run.

    Raises:
        SiteFailureError: The run failed for a reason that the message says.
        RunFailedError: The run left no result, or failed for a reason inside the product.
    """
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFailedError(f"the run left no result at {file}; see its log") from None
    if not raw["ok"]:
        kind = SiteFailureError if raw["users_to_mend"] else RunFailedError
        raise kind(raw["error"])
    return TrainingResult(
        raw["run"],
        read_model(json.dumps(raw["model"])),
        parse(Evaluation, raw["evaluation"], "the evaluation"),
        tuple(RoundRecord(**record) for record in raw["rounds"]),
        tuple(Dropout(**dropout) for dropout in raw["dropouts"]),
    )


def _write(file: Path, content: object) -> None:
    write_whole(file, json.dumps(content).encode())
