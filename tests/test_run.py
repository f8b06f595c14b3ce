"""A run with the real apps, among sites that take no part and sites that send garbage."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from data_contracts.intake import read_tables
from data_contracts.manifest import SiteManifest
from data_contracts.network import site_folders
from federation import client_app, server_app, site
from federation.identity import REGISTRY_FILE
from federation.in_process import run_in_process
from federation.messages import Answer
from federation.plan import RunPlan
from federation.results import read_result
from federation.settings import PrivacySettings
from federation.strategy import SiteFailureError
from models.tasks import TASKS
from models.tasks.task import assemble

PlanMaker = Callable[..., RunPlan]


def carry_out(plan: RunPlan, folders: list[Path], result: Path) -> str:
    """Run the plan over nodes of these sites; the model as text."""
    nodes = [{"site": str(folder / "site.toml")} for folder in folders]
    config = {
        "plan": plan.to_json(),
        "sites": "",
        "result": str(result),
        "registry": str(folders[0].parents[1] / REGISTRY_FILE),
        "timeout": 30.0,
    }
    run_in_process(server_app.app, client_app.app, nodes, config)
    return read_result(result).model.to_json()


def test_payers_that_are_online_do_not_stop_the_providers_from_training(
    make_plan: PlanMaker, small_network: Path, provider_folders: list[Path], tmp_path: Path
) -> None:
    everybody = carry_out(make_plan(), site_folders(small_network), tmp_path / "all.json")
    assert everybody == carry_out(make_plan(), provider_folders, tmp_path / "providers.json")


@pytest.mark.parametrize("garbage", [1e308, -1e308, 1e12])
def test_an_exact_answer_out_of_range_stops_the_run(
    make_plan: PlanMaker,
    provider_folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    garbage: float,
) -> None:
    honest = site.answer

    def dishonest(*arguments: object) -> Answer:
        given = honest(*arguments)  # type: ignore[arg-type]
        assert isinstance(given, Answer)
        values = given.values.copy()
        values[0] = garbage
        return dataclasses.replace(given, values=values)

    monkeypatch.setattr(client_app, "answer", dishonest)
    plan = make_plan(privacy=PrivacySettings(epsilon=None))
    with pytest.raises(SiteFailureError, match="histogram 1: the sum over the sites is out of"):
        carry_out(plan, provider_folders, tmp_path / "result.json")


@pytest.mark.parametrize("name", ["approved", "first_pass", "ed_visit_90d"])
def test_one_patients_outcomes_change_no_other_patients_rows(
    provider_folders: list[Path], name: str
) -> None:
    manifest = SiteManifest.load(provider_folders[0])
    tables = {key: table.rows for key, table in read_tables(manifest).items()}
    stranger = (
        tables["clinical_outcome"]
        .head(200)
        .with_columns(patient_token=pl.lit("f" * 32), ed_visit_90d=~pl.col("ed_visit_90d"))
    )
    crowded = {**tables, "clinical_outcome": pl.concat([tables["clinical_outcome"], stranger])}
    task = TASKS[name]
    features = task.resolve({"payers": ("p",), "providers": ("v",), "sites": ("s",)})
    before = assemble(task, tables, features, site="s")
    after = assemble(task, crowded, features, site="s")
    assert (before.codes == after.codes).all()
    assert (before.labels == after.labels).all()
