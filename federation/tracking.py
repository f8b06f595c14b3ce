"""MLflow: one parent run per job with a child run per site, the models, and nothing that leaves."""

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from filelock import FileLock
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import infer_signature

from federation.plan import RunPlan
from federation.results import read_result
from models.serving import ServedModel

EXPERIMENT = "groundtruth"
REQUIREMENTS = ("dataframely", "numpy", "pandas", "polars", "pyyaml", "tomli-w")


def log_run(results: Mapping[str, Any], folder: Path, database: Path) -> str:
    """Log a finished job.

    Args:
        results: What results.json holds.
        folder: Folder of the run.
        database: SQLite file of the tracking store; artifacts go to `mlartifacts` beside it.

    Returns:
        Id of the parent run.
    """
    # MLflow tells of every table that it makes; only what needs attention is passed on.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(f"sqlite:///{database.resolve()}")
    client = mlflow.MlflowClient()
    # Two runs that make the tables at the same time would leave a database that nobody can use.
    with FileLock(f"{database}.lock"):
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = (
            found.experiment_id
            if found
            else client.create_experiment(
                EXPERIMENT, artifact_location=(database.resolve().parent / "mlartifacts").as_uri()
            )
        )
    with mlflow.start_run(experiment_id=experiment, run_name=results["run_id"]) as parent:
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
                    [Param("role", site["role"])],
                    [RunTag("site", name)],
                )
        for task in results["tasks"]:
            _log_model(client, task, folder / "tasks" / task)
    return run_id


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
    name = f"groundtruth-{task}"
    # Not mlflow.register_model: it prints, and a log wants plain lines only.
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {f"contract.{table}": version for table, version in plan.contracts.items()}
    registered = client.create_model_version(name, logged.model_uri, logged.run_id, tags=tags)
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
        for step, record in enumerate(task["rounds"], start=1):
            metrics.append(Metric(f"{name}.round_seconds", record["seconds"], now, step))
            metrics.append(Metric(f"{name}.round_noise_std", record["noise_std"], now, step))
    return metrics


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
