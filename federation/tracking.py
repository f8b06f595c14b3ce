"""MLflow: one parent run per job with a child run per site, the models, and nothing that leaves."""

import logging
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import requests
from filelock import FileLock
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature

from data_contracts.errors import GroundTruthError
from federation.plan import RunPlan
from federation.results import read_result
from models.serving import ServedModel

EXPERIMENT = "groundtruth"
RUN_TAG = "groundtruth.run"
REQUIREMENTS = ("dataframely", "numpy", "pandas", "polars", "pyyaml", "tomli-w")
_SQLITE = "sqlite:///"


class TrackingError(GroundTruthError):
    """A run could not be logged."""


class StoreUnavailableError(TrackingError):
    """The store cannot be reached or refuses the user: no other run would fare better."""


def log_run(results: Mapping[str, Any], folder: Path, store: str) -> str:
    """Log a finished job, unless the store holds it; what an attempt left half-done is replaced.

    Args:
        results: What results.json holds.
        folder: Folder of the run.
        store: URI of the tracking store: a server's address, which also keeps the artifacts, or
            `sqlite:///FILE`, whose artifacts go to `mlartifacts` beside it.

    Returns:
        Id of the parent run.

    Raises:
        TrackingError: The store does not take the run.
    """
    # MLflow tells of every table that it makes; only what needs attention is passed on.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    file = Path(store.removeprefix(_SQLITE)).resolve() if store.startswith(_SQLITE) else None
    mlflow.set_tracking_uri(store)
    try:
        if file:  # MLflow would try for minutes to open what cannot be opened
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA user_version = 0")
        client = mlflow.MlflowClient()
        experiment = _experiment(client, file)
        identity = _identity(results)
        for run in client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{identity}'"):
            if run.info.status == "FINISHED":
                return str(run.info.run_id)
            _remove(client, experiment, run.info.run_id)
        return _log(client, experiment, results, folder)
    except (MlflowException, requests.RequestException, sqlite3.Error) as error:
        # Not chained: MLflow's messages repeat addresses and answers in full.
        raise _told(error) from None


def _log(
    client: mlflow.MlflowClient, experiment: str, results: Mapping[str, Any], folder: Path
) -> str:
    """Log all of a job; its parent run counts as finished when nothing is missing."""
    with mlflow.start_run(
        experiment_id=experiment,
        run_name=results["run_id"],
        tags={RUN_TAG: _identity(results)},
    ) as parent:
        run_id: str = parent.info.run_id
        client.log_batch(run_id, _task_metrics(results), _params(results), _tags(results))
        mlflow.log_artifact(str(folder / "results.json"))
        mlflow.log_artifact(str(folder / "report.html"))
        for site in results["sites"]:
            name = site["name"]
            with mlflow.start_run(experiment_id=experiment, run_name=name, nested=True) as child:
                client.log_batch(
                    child.info.run_id,
                    _site_metrics(results, name),
                    [
                        Param("role", site["role"]),
                        Param("patients_declared", str(site["patients_declared"])),
                    ],
                    [RunTag("site", name)],
                )
        for task in results["tasks"]:
            _log_model(client, task, folder / "tasks" / task)
    return run_id


def _identity(results: Mapping[str, Any]) -> str:
    """The random identifiers of the tasks' runs: a folder's name is not unique in a team."""
    return ",".join(task["run"] for task in results["tasks"].values())


def _experiment(client: mlflow.MlflowClient, file: Path | None) -> str:
    """Id of the experiment, made where it is missing; a server keeps artifacts where it likes."""
    if file is None:
        return _found_or_made(client, None)
    # Two runs that make the tables at the same time would leave a database that nobody can use.
    with FileLock(f"{file}.lock"):
        return _found_or_made(client, (file.parent / "mlartifacts").as_uri())


def _found_or_made(client: mlflow.MlflowClient, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found:
        return str(found.experiment_id)
    return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))


def _remove(client: mlflow.MlflowClient, experiment: str, run: str) -> None:
    """Delete a half-logged run with all that it left; the parent last, by which it is found."""
    for version in client.search_model_versions(f"run_id = '{run}'"):
        client.delete_model_version(version.name, version.version)
    models = client.search_logged_models(
        experiment_ids=[experiment], filter_string=f"source_run_id = '{run}'"
    )
    for model in models:
        client.delete_logged_model(model.model_id)
    for child in client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run}'"):
        client.delete_run(child.info.run_id)
    client.delete_run(run)


def _told(error: Exception) -> TrackingError:
    """What an error of MLflow's means, in one line."""
    # MLflow raises its own error while it handles that of the connection.
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, requests.exceptions.SSLError):
        return StoreUnavailableError(
            "its certificate is not trusted; MLFLOW_TRACKING_SERVER_CERT_PATH names a CA of yours"
        )
    if isinstance(cause, requests.ConnectionError | requests.Timeout):
        late = "timed out" in str(cause)
        return StoreUnavailableError(
            "it did not answer in time" if late else "it cannot be reached"
        )
    if isinstance(cause, requests.exceptions.RetryError):
        return TrackingError(f"it fails: {getattr(cause.args[0], 'reason', 'no reason given')}")
    status = _status(error)
    if status == 401:
        return StoreUnavailableError(
            "it refuses the user or the password (401); they are read from "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or ~/.mlflow/credentials"
        )
    if status == 403:
        return StoreUnavailableError(
            f"its user lacks a permission (403); on experiment {EXPERIMENT} and on models "
            f"{EXPERIMENT}-TASK it needs MANAGE"
        )
    return TrackingError(str(error).partition("\n")[0][:_TOLD])


def _status(error: Exception) -> int | None:
    """Status of the answer, if it was one that MLflow or its upload of artifacts refused."""
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())  # type: ignore[no-untyped-call] # MLflow types it not
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code
    return None


_TOLD = 200  # characters of an error that we do not know


def _log_model(client: mlflow.MlflowClient, task: str, folder: Path) -> None:
    """Log and register a task's model; the alias `candidate` points at it, people choose."""
    plan = RunPlan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
    served = ServedModel.of(read_result(folder / "result.json").model, plan.features())
    example = pd.DataFrame(served.example().to_dict(as_series=False))
    output = pd.DataFrame(served.predict(served.example()).to_dict(as_series=False))
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.json"
        file.write_text(served.to_json(), encoding="utf-8")
        logged = mlflow.pyfunc.log_model(
            name=task,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"model": str(file)},
            signature=infer_signature(example, output),
            input_example=example,
            metadata={"contracts": dict(plan.contracts)},
            pip_requirements=list(REQUIREMENTS),
            code_paths=[str(root / name) for name in ("data_contracts", "models", "federation")],
        )
    name = f"{EXPERIMENT}-{task}"
    # Not mlflow.register_model: it prints, and a log wants plain lines only.
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {f"contract.{table}": version for table, version in plan.contracts.items()}
    registered = client.create_model_version(
        name, logged.model_uri, logged.run_id, tags=tags, model_id=logged.model_id
    )
    client.set_registered_model_alias(name, "candidate", registered.version)


def _params(results: Mapping[str, Any]) -> list[Param]:
    config = results["config"]
    params = {
        "seed": results["seed"],
        "engine": results["engine"],
        "data": results["data"]["name"],
        "data_fingerprint": results["data"]["fingerprint"],
        "tasks": ",".join(results["tasks"]),
        "test_share": config["test_share"],
        "epsilon": config["privacy"]["epsilon"],
        "delta": config["privacy"]["delta"],
        "privacy_unit": "patient",
        "multiplicity": config["privacy"]["multiplicity"],
        "max_records_per_patient": config["privacy"]["max_records_per_patient"],
        "family": config["family"],
        **{f"{config['family']}.{key}": value for key, value in config[config["family"]].items()},
        **{f"versions.{name}": value for name, value in results["versions"].items()},
    }
    return [Param(key, str(value)) for key, value in params.items()]


def _tags(results: Mapping[str, Any]) -> list[RunTag]:
    tags = {
        "git_commit": results["git_commit"] or "unknown",
        "licence": results["data"]["licence"],
        "citation": results["data"]["citation"],
        "origin": results["data"]["origin"],
    }
    return [RunTag(key, value) for key, value in tags.items()]


def _task_metrics(results: Mapping[str, Any]) -> list[Metric]:
    now = int(time.time() * 1000)
    metrics = []
    for name, task in results["tasks"].items():
        for rung in task["ladder"]:
            metrics += [
                Metric(f"{name}.{rung['model']}.{key}", value, now, 0)
                for key, value in rung.items()
                if isinstance(value, float)
            ]
        asked = {**task["evaluation"], **task["evaluation"]["overall"]}
        metrics += [
            Metric(f"{name}.evaluation.{key}{end}", asked[key][part], now, 0)
            for key in _ASKED
            if asked[key] is not None
            for end, part in (("", "value"), (".low", "low"), (".high", "high"))
        ]
        for step, record in enumerate(task["rounds"], start=1):
            metrics.append(Metric(f"{name}.round_seconds", record["seconds"], now, step))
            metrics.append(Metric(f"{name}.round_noise_std", record["noise_std"], now, step))
    return metrics


_ASKED = (
    *("patients", "rows", "positives", "observed", "predicted", "gap", "auroc", "auprc", "brier"),
    *("calibration_slope", "calibration_intercept", "calibration_error"),
)
"""What sites are asked privately of all held-out records together; each with its 95 % interval."""


def _site_metrics(results: Mapping[str, Any], site: str) -> list[Metric]:
    now = int(time.time() * 1000)
    return [
        Metric(f"{name}.{model}.auroc", value, now, 0)
        for name, task in results["tasks"].items()
        for row in task["by_site"]
        if row["site"] == site
        for model, value in row["auroc"].items()
        if value is not None
    ]
