"""The neural family in a run: what sites sample, charge and refuse, and what comes out."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from data_contracts.features import grid_of
from data_contracts.manifest import SiteManifest
from experiments.config import DataSettings, ExperimentConfig
from experiments.forecast.forecast import forecast
from experiments.job import run_experiment
from federation.client_app import app as client_app
from federation.enrolment import enrol
from federation.identity import REGISTRY_FILE
from federation.in_process import run_in_process
from federation.ledger import Ledger, LedgerMismatchError, ledger_file
from federation.messages import MessageError, query_digest
from federation.plan import RunPlan
from federation.results import read_result
from federation.server_app import app as server_app
from federation.settings import PrivacySettings
from federation.site import SitePolicyError, greet, site_rows
from federation.strategy import SiteFailureError
from models.keystream import keystream
from models.mechanisms import SeededNoise
from models.neural import Architecture, NeuralModel
from models.neural_gradients import _batches, batch_size
from models.neural_queries import PatientGradientQuery
from models.neural_training import NeuralSettings
from models.patients import PatientRows
from models.queries import HistogramQuery
from models.serving import ServedModel
from models.training import largest_queries

PlanMaker = Callable[..., RunPlan]
SAMPLED = NeuralSettings(hidden=(6,), width=3, gradient_rounds=3, sample_rate=0.3)
NEURAL: dict[str, Any] = {"family": "neural", "neural": SAMPLED}
PRIVATE: dict[str, Any] = {**NEURAL, "noise_seed": None}


@pytest.fixture
def private_sites(private_sites: list[Path]) -> list[Path]:
    """Private sites whose ledgers count sampled releases from the first on."""
    for file in private_sites:
        replace(SiteManifest.load(file), sampling=True).write(file.parent)
    return private_sites


def gradient(plan: RunPlan, scale: float = 1.0) -> PatientGradientQuery:
    """The largest gradient query that the plan's training may ask."""
    queries = largest_queries(plan.training(), max_records=plan.privacy.max_records_per_patient)
    found = next(query for query in queries if isinstance(query, PatientGradientQuery))
    return replace(found, parameters=np.clip(scale * found.parameters, -1e3, 1e3))


def charges(file: Path) -> list[Any]:
    return [charge for _, charge in Ledger.existing(ledger_file(file.parent)).charges()]


# --- at a site -----------------------------------------------------------------------------------


def test_a_sampled_round_is_answered_for_the_patients_that_the_site_has_drawn(
    make_plan: PlanMaker, provider_folders: list[Path], coordinator: Any
) -> None:
    file = provider_folders[0] / "site.toml"
    privacy = PrivacySettings(epsilon=1e4, delta=1e-5, secure_sum=False)
    plan = make_plan(**NEURAL, privacy=privacy)
    query = gradient(plan)
    upload = coordinator(plan, [file]).ask(query)[0]
    mechanism = plan.release(query, retry=False)
    found, noise = mechanism.decode(upload.words), mechanism.noise_std(1)
    rows = site_rows(file, plan, "train")
    key = SeededNoise(5, SiteManifest.load(file).name).key(f"{plan.digest}/gradient/1/0/patients")
    drawn = rows.sampled(0.3, keystream(key, rows.n_patients))
    # Noise of standard deviation 1: 6 of them are passed once in 1e8.
    assert np.abs(found - query.answer(drawn)).max() < 6 * noise
    assert np.abs(found - query.answer(rows)).max() > 30 * noise


def test_a_sampled_round_is_charged_at_its_rate_and_a_retry_as_if_all_took_part(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    plan = make_plan(**PRIVATE, privacy=PrivacySettings(epsilon=3.0, dropouts=0.4))
    asked, query = coordinator(plan, private_sites), gradient(plan)
    asked.ask(HistogramQuery(np.array([grid_of(each).n_codes for each in plan.features()])))
    asked.ask(query)
    asked.ask(query, 2, retry=1)
    made = charges(private_sites[0])
    assert [(charge.step, charge.sample_rate) for charge in made] == [
        ("histogram", 1.0),
        ("gradient", 0.3),
        ("retry", 1.0),
    ]
    for charge in made:
        assert charge.mu == plan.mu_of(charge.step)
        assert charge.sensitivity / charge.noise_std == pytest.approx(charge.mu, rel=0.05)


def test_who_takes_part_is_drawn_anew_each_round(
    make_plan: PlanMaker,
    private_sites: list[Path],
    coordinator: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[np.ndarray] = []
    honest = PatientGradientQuery.answer

    def answer(query: PatientGradientQuery, rows: Any) -> Any:
        taken.append(rows.codes)
        return honest(query, rows)

    monkeypatch.setattr(PatientGradientQuery, "answer", answer)
    plan = make_plan(**PRIVATE)
    asked, query = coordinator(plan, private_sites), gradient(plan)
    for number in (1, 2):
        asked.ask(query, number)
    # Of every site a rehearsal and an answer, in either round.
    first, second = taken[1 : 2 * len(private_sites) : 2], taken[2 * len(private_sites) + 1 :: 2]
    assert [len(each) for each in (first, second)] == [len(private_sites)] * 2
    for one, other in zip(first, second, strict=True):
        assert len(one) > 10
        assert not np.array_equal(one, other)


def test_a_network_whose_rounding_would_tell_is_refused_before_a_row_is_read(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    plan = make_plan(**PRIVATE)
    with pytest.raises(MessageError, match="PatientGradientQuery does not fit"):
        coordinator(plan, private_sites).ask(gradient(plan, scale=300.0))
    assert charges(private_sites[0]) == []


def test_more_rounding_is_paid_for_with_more_noise(make_plan: PlanMaker) -> None:
    plan = make_plan(**PRIVATE)
    query = gradient(plan)
    rough = replace(query, rounding=1000 * query.rounding)
    ratio = plan.release(rough, retry=False).noise_std(1) / plan.release(
        query, retry=False
    ).noise_std(1)
    assert ratio > 20
    assert query_digest(rough) != query_digest(query)


def test_a_site_without_torch_says_so_before_anything_is_charged(
    make_plan: PlanMaker, private_sites: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "models.neural_gradients", None)
    greet(private_sites[0], make_plan(noise_seed=None), "0" * 32)
    words = r"provider-01 cannot take part.*pip install 'shared-ground-truth\[neural\]'"
    with pytest.raises(SitePolicyError, match=words):
        greet(private_sites[0], make_plan(**PRIVATE), "1" * 32)


def test_a_site_samples_only_where_its_ledger_counts_sampled_releases(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    coordinator(make_plan(**PRIVATE), private_sites)
    never = replace(SiteManifest.load(private_sites[0]), sampling=False)
    never.write(private_sites[0].parent)
    with pytest.raises(SitePolicyError, match=r"all its patients.*sample_rate = 1"):
        greet(private_sites[0], make_plan(**PRIVATE), "0" * 32)
    full = {"family": "neural", "neural": replace(SAMPLED, sample_rate=1.0), "noise_seed": None}
    with pytest.raises(LedgerMismatchError, match="opened with sampling = true"):
        greet(private_sites[0], make_plan(**full), "0" * 32)


def test_memory_does_not_tell_of_a_patient_with_many_records(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    privacy = PrivacySettings(max_records_per_patient=1000)
    plan = make_plan(**NEURAL, privacy=privacy)
    query = gradient(plan)
    network = Architecture(query.tables, query.table_shapes, query.width, query.hidden)
    rows = site_rows(provider_folders[0] / "site.toml", plan, "train")
    n = 4000
    many = PatientRows(
        codes=np.asfortranarray(np.resize(rows.codes, (n + 999, rows.codes.shape[1]))),
        labels=np.resize(rows.labels, n + 999),
        starts=np.array([0, *range(1000, n + 999)]),
        weights=np.ones(n + 999),
        max_records=1000,
    )
    largest = []
    for held in (many, replace(many, starts=np.arange(n + 999))):
        values = [
            levels.numel() + numbers.numel() + labels.numel()
            for levels, numbers, labels, _ in _batches(network, held, batch_size(network, held))
        ]
        largest.append(max(values))
    of_record = network.n_embedded + network.n_columns + 1
    assert largest[0] * 8 <= 2**25
    assert batch_size(network, many) == batch_size(network, replace(many, starts=np.arange(5)))
    assert 1000 * of_record <= largest[0]


def test_a_site_counts_what_a_sampled_plan_costs_against_its_own_limits(
    make_plan: PlanMaker, private_sites: list[Path]
) -> None:
    text = private_sites[0].read_text(encoding="utf-8")
    greet(private_sites[0], make_plan(**PRIVATE), "0" * 32)  # epsilon = 3, as allowed
    mine = 'origin = "private"\n'
    stricter = text.replace(mine, f"{mine}max_epsilon = 2.99\n")
    private_sites[0].write_text(stricter, encoding="utf-8")
    with pytest.raises(SitePolicyError, match=r"max_epsilon = 2\.99"):
        greet(private_sites[0], make_plan(**PRIVATE), "0" * 32)


# --- whole runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_private_sites_train_a_network_and_pay_what_was_promised(
    make_plan: PlanMaker, private_sites: list[Path], tmp_path: Path, rate: float
) -> None:
    plan = make_plan(**PRIVATE | {"neural": replace(SAMPLED, sample_rate=rate)})
    run(plan, private_sites, tmp_path / "result.json")
    result = read_result(tmp_path / "result.json")
    assert isinstance(result.model, NeuralModel)
    assert [record.step for record in result.rounds] == [
        "histogram", *["gradient"] * 3, "recalibration", "evaluation",
    ]  # fmt: skip
    assert result.evaluation.overall.rows is not None
    for file in private_sites:
        spent = Ledger.existing(ledger_file(file.parent)).spent()
        assert spent.epsilon(1e-5) <= 3.0 * (1 + 1e-9)
        assert len(charges(file)) == 6
    again = ServedModel.from_json(ServedModel.of(result.model, plan.features()).to_json())
    assert again.model.to_json() == result.model.to_json()


def test_a_run_without_torch_names_every_site(
    make_plan: PlanMaker, private_sites: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "models.neural_gradients", None)
    with pytest.raises(SiteFailureError, match=r"provider-01 cannot take part.*provider-03 cannot"):
        run(make_plan(**PRIVATE), private_sites, tmp_path / "result.json")


def run(plan: RunPlan, files: list[Path], result: Path) -> None:
    registry = files[0].parents[1] / REGISTRY_FILE
    enrol([file.parent for file in files], registry)
    config: dict[str, Any] = {
        "plan": plan.to_json(),
        "result": str(result),
        "registry": str(registry),
        "timeout": 60.0,
    }
    run_in_process(server_app, client_app, [{"site": str(file)} for file in files], config)


def test_an_experiment_with_a_network_is_reported_served_and_compared(tmp_path: Path) -> None:
    config = ExperimentConfig(
        tasks=("approved",),
        family="neural",
        neural=replace(SAMPLED, gradient_rounds=8),
        data=DataSettings(requests=4000, payers=2, providers=3),
    )
    results = run_experiment(config, tmp_path / "run", tracking=tmp_path / "mlflow.db")
    assert results["privacy"]["epsilon"] == pytest.approx(3.0, rel=1e-3)
    assert results["privacy"]["epsilon_at_multiplicity"] > 3.0
    task = results["tasks"]["approved"]
    assert (task["family"], task["shapes"]) == ("neural", [])
    releases = {release["step"]: release for release in task["privacy"]["releases"]}
    assert releases["gradient"]["sample_rate"] == 0.3
    train = math.fsum(
        releases[step]["share"] for step in ("histogram", "gradient", "recalibration")
    )
    assert train == pytest.approx(releases["evaluation"]["share"])
    assert [rung["model"] for rung in task["ladder"]][1] == "federated_private"
    assert task["ladder"][0]["label"] == "Each site alone, additive"
    foretold = forecast(config).tasks[0]
    assert foretold.rounds == task["privacy"]["rounds"] == 11
    for told, step in zip(foretold.releases, task["privacy"]["releases"], strict=False):
        for name in ("sample_rate", "rounds", "share", "sensitivity", "noise_std"):
            assert getattr(told, name) == step[name]
    assert task["ladder"][1]["auroc"] > 0.5
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "no feature&#39;s part in a prediction can be read off" in page
    assert "each patient in 30.0% of rounds" in page
    assert "Rényi" in page
    served(tmp_path, results)


def served(folder: Path, results: dict[str, Any]) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/groundtruth-approved@candidate")
    trained = read_result(folder / "run" / "tasks" / "approved" / "result.json").model
    plan = RunPlan.from_json((folder / "run" / "tasks" / "approved" / "plan.json").read_text())
    example = ServedModel.of(trained, plan.features()).example()
    found = model.predict(pl.DataFrame(example).to_pandas())
    assert list(found.columns) == ["probability", "log_odds"]
    codes = np.array([[grid_of(each).n_codes - 1 for each in plan.features()]], dtype=np.uint8)
    assert np.isfinite(trained.probability(codes)).all()
    parameters = mlflow.get_run((folder / "run" / "mlflow-run-id.txt").read_text().strip())
    assert parameters.data.params["family"] == "neural"
    assert parameters.data.params["neural.sample_rate"] == "0.3"
    assert json.loads(trained.to_json())["family"] == "neural"
    assert results["config"]["family"] == "neural"
