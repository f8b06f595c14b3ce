"""The main job as a whole: same seed same result, and what a run promises is what it says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.config import DataSettings, ExperimentConfig
from experiments.job import run_experiment
from federation.settings import PrivacySettings
from models.accounting import gdp_epsilon

CONFIG = ExperimentConfig(
    tasks=("approved", "ed_visit_90d"), data=DataSettings(requests=4000, payers=2, providers=3)
)


def without_times(results: dict[str, Any]) -> str:
    """What a run found, without when and how fast."""
    tasks = {
        name: {
            **{key: value for key, value in task.items() if key not in ("seconds", "run")},
            "rounds": [record | {"seconds": None} for record in task["rounds"]],
        }
        for name, task in results["tasks"].items()
    }
    kept = {"sites", "data", "privacy", "warnings", "config"}
    return json.dumps([tasks, {key: results[key] for key in kept}], sort_keys=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_experiment(CONFIG, tmp_path_factory.mktemp("job") / "run")


def test_same_seed_same_result_bit_for_bit(results: dict[str, Any], tmp_path: Path) -> None:
    again = run_experiment(CONFIG, tmp_path / "again")
    assert without_times(again) == without_times(results)


def test_another_seed_another_noise(results: dict[str, Any], tmp_path: Path) -> None:
    other = run_experiment(CONFIG.with_changes(seed=8), tmp_path / "other")
    assert without_times(other) != without_times(results)


def test_budget_is_for_all_models_together(results: dict[str, Any]) -> None:
    assert results["privacy"]["epsilon"] == pytest.approx(3.0, rel=1e-9)
    parts = [task["privacy"]["mu"] for task in results["tasks"].values()]
    together = sum(mu**2 for mu in parts) ** 0.5
    assert gdp_epsilon(together, 1e-5) == pytest.approx(3.0, rel=1e-9)
    for task in results["tasks"].values():
        assert task["privacy"]["epsilon"] < 2.2
        for side in ("train", "held_out"):
            spent = sum(
                release["rounds"] * release["mu_per_round"] ** 2
                for release in task["privacy"]["releases"]
                if release["patients"] == side
            )
            assert spent == pytest.approx(task["privacy"]["mu"] ** 2)


def test_no_patient_is_on_both_sides_of_the_split_at_any_site(tmp_path: Path) -> None:
    from data_contracts.manifest import SiteManifest
    from data_contracts.network import site_folders
    from experiments.federation_data import Site, check_sites, make_network
    from experiments.plans import make_plan
    from experiments.progress import Reporter
    from experiments.task_run import _hold

    network = make_network(CONFIG, tmp_path / "network", Reporter(quiet=True))
    sites: list[Site] = check_sites(network, Reporter(quiet=True))
    assert len(site_folders(network)) == len(sites)
    assert isinstance(sites[0].manifest, SiteManifest)
    plan = make_plan(CONFIG, "approved", [site.manifest for site in sites])
    held = [_hold(site, plan, plan.features()) for site in sites]
    train = {token for site in held for token in site.train.patient_tokens}
    test = {token for site in held for token in site.test.patient_tokens}
    assert train
    assert test
    assert not train & test
    assert len(test) / (len(test) + len(train)) == pytest.approx(0.25, abs=0.03)


def test_ladder_stands_in_order_and_every_site_is_measured(results: dict[str, Any]) -> None:
    for task in results["tasks"].values():
        assert [rung["model"] for rung in task["ladder"]] == [
            "local_only",
            "federated_private",
            "pooled_additive",
            "pooled_logistic",
            "pooled_boosting",
        ]
        assert [row["site"] for row in task["by_site"]] == [
            site["name"] for site in results["sites"]
        ]
        assert task["train_sites"] == ["provider-01", "provider-02", "provider-03"]
        assert task["privacy"]["rounds"] == 16


def test_run_without_privacy_says_so(tmp_path: Path) -> None:
    config = replace(CONFIG, tasks=("approved",), privacy=PrivacySettings(epsilon=None))
    results = run_experiment(config, tmp_path / "open")
    assert results["privacy"]["epsilon"] is None
    assert "Trained without privacy" in results["warnings"][0]
    assert results["tasks"]["approved"]["ladder"][1]["model"] == "federated_no_noise"
    text = (tmp_path / "open/report.html").read_text(encoding="utf-8")
    assert "not for real data" in text
