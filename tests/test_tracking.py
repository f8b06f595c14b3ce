"""What a job leaves in MLflow, and what comes out of the models there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from experiments.config import DataSettings, ExperimentConfig
from experiments.job import run_experiment
from federation.results import read_result
from models.serving import ServedModel
from models.tasks import TASKS

CONFIG = ExperimentConfig(
    tasks=("approved", "ed_visit_90d"), data=DataSettings(requests=3000, payers=2, providers=3)
)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("tracked")
    results = run_experiment(CONFIG, folder / "first", tracking=folder / "mlflow.db")
    yield folder, results
    mlflow.set_tracking_uri(None)


@pytest.fixture
def client(tracked: tuple[Path, dict[str, Any]]) -> mlflow.MlflowClient:
    mlflow.set_tracking_uri(f"sqlite:///{tracked[0] / 'mlflow.db'}")
    return mlflow.MlflowClient()


def runs(client: mlflow.MlflowClient) -> tuple[Any, list[Any]]:
    """The parent run and its children."""
    experiment = client.get_experiment_by_name("groundtruth")
    found = client.search_runs([experiment.experiment_id])
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [
        run for run in found if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id
    ]
    return parents[0], children


def test_parent_run_holds_settings_privacy_and_provenance(
    client: mlflow.MlflowClient, tracked: tuple[Path, dict[str, Any]]
) -> None:
    results = tracked[1]
    parent, _ = runs(client)
    assert parent.data.params["epsilon"] == "3.0"
    assert parent.data.params["privacy_unit"] == "patient"
    assert parent.data.params["data_fingerprint"] == results["data"]["fingerprint"]
    assert parent.data.params["seed"] == "7"
    assert parent.data.tags["git_commit"] == (results["git_commit"] or "unknown")
    assert parent.data.tags["licence"] == results["data"]["licence"]
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {
        "results.json",
        "report.html",
    }


def test_metrics_are_those_of_the_results(
    client: mlflow.MlflowClient, tracked: tuple[Path, dict[str, Any]]
) -> None:
    parent, _ = runs(client)
    for name, task in tracked[1]["tasks"].items():
        for rung in task["ladder"]:
            assert parent.data.metrics[f"{name}.{rung['model']}.auroc"] == rung["auroc"]
        rows = task["evaluation"]["overall"]["rows"]
        assert parent.data.metrics[f"{name}.evaluation.rows"] == rows["value"]
        assert parent.data.metrics[f"{name}.evaluation.rows.high"] == rows["high"]
        history = client.get_metric_history(parent.info.run_id, f"{name}.round_noise_std")
        assert len(history) == task["privacy"]["rounds"] == 16
        assert [point.step for point in history] == list(range(1, 17))


def test_every_site_has_a_child_run(
    client: mlflow.MlflowClient, tracked: tuple[Path, dict[str, Any]]
) -> None:
    _, children = runs(client)
    assert {run.data.tags["site"] for run in children} == {
        site["name"] for site in tracked[1]["sites"]
    }
    row = tracked[1]["tasks"]["approved"]["by_site"][-1]
    child = next(run for run in children if run.data.tags["site"] == row["site"])
    assert (
        child.data.metrics["approved.federated_private.auroc"] == row["auroc"]["federated_private"]
    )


@pytest.mark.parametrize("task", CONFIG.tasks)
def test_registered_model_predicts_what_the_trained_one_does(
    client: mlflow.MlflowClient, tracked: tuple[Path, dict[str, Any]], task: str
) -> None:
    registered = client.get_model_version_by_alias(f"groundtruth-{task}", "candidate")
    assert int(registered.version) == 1
    versions = TASKS[task].contracts
    assert registered.tags == {f"contract.{name}": it for name, it in versions.items()}
    loaded = mlflow.pyfunc.load_model(f"models:/groundtruth-{task}@candidate")
    assert loaded.metadata.signature is not None
    assert loaded.metadata.metadata == {"contracts": versions}
    example = loaded.input_example
    assert isinstance(example, pd.DataFrame)
    out = loaded.predict(example)
    contributions = out.filter(like="contribution_").sum(axis=1)
    assert np.allclose(out["log_odds"], out["intercept"] + contributions, atol=1e-12)
    model = read_result(tracked[0] / "first/tasks" / task / "result.json").model
    assert out["intercept"][0] == model.intercept
    assert 0 < out["probability"][0] < 1


def test_served_model_survives_as_text_and_names_missing_columns(
    tracked: tuple[Path, dict[str, Any]],
) -> None:
    from federation.plan import RunPlan

    folder = tracked[0] / "first/tasks/approved"
    plan = RunPlan.from_json((folder / "plan.json").read_text())
    served = ServedModel.of(read_result(folder / "result.json").model, plan.features())
    again = ServedModel.from_json(served.to_json())
    assert again.predict(served.example()).equals(served.predict(served.example()))
    with pytest.raises(ValueError, match="channel"):
        served.predict(served.example().drop("channel"))


def test_second_run_adds_a_version_and_moves_the_alias(
    client: mlflow.MlflowClient, tracked: tuple[Path, dict[str, Any]]
) -> None:
    config = CONFIG.with_changes(tasks=("first_pass",))
    run_experiment(config, tracked[0] / "second", tracking=tracked[0] / "second.db")
    run_experiment(config, tracked[0] / "third", tracking=tracked[0] / "second.db")
    mlflow.set_tracking_uri(f"sqlite:///{tracked[0] / 'second.db'}")
    again = mlflow.MlflowClient()
    newest = again.get_model_version_by_alias("groundtruth-first_pass", "candidate")
    assert int(newest.version) == 2
