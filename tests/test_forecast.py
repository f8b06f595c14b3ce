"""What `groundtruth plan` foretells, held against what runs then do and cost."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data_contracts.errors import GroundTruthError
from data_contracts.manifest import SiteManifest
from data_contracts.network import Network, site_folders
from data_contracts.public.registry import PUBLIC
from data_contracts.synthetic.generate import generate
from data_contracts.synthetic.population import draw_patients
from data_contracts.synthetic.settings import PRESETS
from data_contracts.synthetic.sites import make_sites
from experiments import cli
from experiments.config import DataSettings, ExperimentConfig, load_config
from experiments.federation_data import PrivateDataError, check_sites
from experiments.forecast.advice import network_warnings
from experiments.forecast.declarations import declare, patients_per_request
from experiments.forecast.forecast import forecast
from experiments.forecast.releases import InfeasiblePlanError
from experiments.forecast.words import print_forecast
from experiments.job import run_experiment
from experiments.plans import make_plan
from experiments.progress import Reporter
from federation.settings import ConfigError, PrivacySettings
from models.accounting import gdp_epsilon, gdp_mu
from models.additive_training import AdditiveSettings
from models.neural_training import NeuralSettings
from models.resolution import kappa
from models.tasks.task import TaskDataError

Invoke = Callable[..., tuple[int, str, str]]

REAL = Path(__file__).parents[2] / "shared" / "data"
needs_real_files = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"the publishers' files are not at {REAL}"
)
SMALL = DataSettings(requests=2000, payers=1, providers=4)
DEMO = ExperimentConfig(tasks=("approved", "ed_visit_90d"))


def small(**changes: Any) -> ExperimentConfig:
    config = ExperimentConfig(
        tasks=("approved", "ed_visit_90d"), data=SMALL, additive=AdditiveSettings(gradient_rounds=3)
    )
    return config.with_changes(**changes)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The figures of a finished run of `small()`."""
    folder = tmp_path_factory.mktemp("forecast") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.run_results.render", lambda *_: None)
        run_experiment(small(), folder)
    figures: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return figures


@pytest.fixture
def invoke(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Invoke:
    """Run the command as a shell would: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["groundtruth", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capfd.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def refusal(result: tuple[int, str, str]) -> str:
    """The one error sentence of a command that the user can put right."""
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    return re.sub(r"\s+", " ", err[err.index("error: ") :])


# --- against a run ------------------------------------------------------------------------------


def test_a_run_costs_what_was_foretold(ran: dict[str, Any]) -> None:
    ahead = forecast(small())
    assert [task.task for task in ahead.tasks] == list(ran["tasks"])
    for task in ahead.tasks:
        actual = ran["tasks"][task.task]["privacy"]
        rounds = ran["tasks"][task.task]["rounds"]
        assert task.rounds == actual["rounds"] == len(rounds)
        assert task.minimum_sites == actual["minimum_sites"]
        assert task.secure_sum is actual["secure_sum"] is True
        assert task.promise.epsilon == actual["epsilon"]
        assert task.promise.epsilon_at_multiplicity == actual["epsilon_at_multiplicity"]
        assert task.promise.epsilon_if_all_others_collude == actual["epsilon_if_all_others_collude"]
        assert [release.step for release in task.releases[:-1]] == [
            release["step"] for release in actual["releases"]
        ]
        for told, release in zip(task.releases, actual["releases"], strict=False):
            values = next(item["values"] for item in rounds if item["step"] == told.step)
            assert told.patients == release["patients"]
            assert told.rounds == release["rounds"]
            assert told.mu == release["mu_per_round"]
            assert told.share == release["share"]
            assert told.noise_std is not None
            if told.step in ("histogram", "recalibration", "evaluation"):
                assert told.sensitivity == release["sensitivity"]
                assert told.noise_std == release["noise_std"]
                assert told.values == values
            else:  # rare levels have no column in the run
                assert told.sensitivity > release["sensitivity"]
                assert told.noise_std > release["noise_std"]
                assert told.values > values
                per_unit = release["noise_std"] / release["sensitivity"]
                assert told.noise_std / told.sensitivity == pytest.approx(per_unit, rel=1e-3)
        assert actual["upload_bytes_per_site"] < task.bytes_per_site
    assert ahead.promise.epsilon == ran["privacy"]["epsilon"]
    assert ahead.promise.epsilon_at_multiplicity == ran["privacy"]["epsilon_at_multiplicity"]
    assert ahead.promise.multiplicity == ran["privacy"]["multiplicity"]
    assert (
        ahead.promise.epsilon_if_all_others_collude
        == ran["privacy"]["epsilon_if_all_others_collude"]
    )


def test_a_run_has_about_as_many_patients_as_foretold(ran: dict[str, Any]) -> None:
    for task in forecast(small()).tasks:
        # A patient of two providers counts twice in the run: 8 % more.
        assert ran["tasks"][task.task]["train_patients"] == pytest.approx(
            task.train_patients, rel=0.12
        )


def test_a_run_withholds_the_area_that_was_foretold_to_be_lost_in_noise(
    ran: dict[str, Any],
) -> None:
    for task in forecast(small()).tasks:
        assert 1.96 * task.standard_error.total > 0.1
        assert any("may be withheld" in warning for warning in task.warnings)
        assert ran["tasks"][task.task]["evaluation"]["overall"]["auroc"] is None


# --- what is declared ---------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_patients_per_request_are_those_of_the_generator(preset: str) -> None:
    """32 768 patients: their mean number of requests is known to 0.4 %; 2 % is five times that."""
    mechanism = PRESETS[preset]
    sites = make_sites(mechanism.sites, 4, 10)
    patients = draw_patients(mechanism.population, sites, np.random.default_rng(1), 32_768)
    drawn = 1 / patients.n_requests.mean()
    assert patients_per_request(mechanism.population) == pytest.approx(drawn, rel=0.02)


def test_a_made_network_has_about_as_many_patients_as_declared(tmp_path: Path) -> None:
    settings = DataSettings(requests=6000, payers=3, providers=12)
    network = tmp_path / "network"
    made = generate(
        network, preset="seed_manual", n_requests=6000, n_payers=3, n_providers=12, seed=2
    )
    ahead = declare(settings)
    assert ahead.patients == pytest.approx(made.settings["n_patients"], rel=0.05)
    manifests = sorted(ahead.sites, key=lambda site: site.name)
    folders = site_folders(network)
    assert [site.name for site in manifests] == [folder.name for folder in folders]
    for site, folder in zip(manifests, folders, strict=True):
        actual = SiteManifest.load(folder)
        assert (site.role, site.group, set(site.tables)) == (
            *(actual.role, actual.group),
            set(actual.tables),
        )
    # The folder itself tells the exact number, and the same sites.
    taken = declare(DataSettings(network=str(network)))
    assert taken.patients == made.settings["n_patients"]
    assert [site.name for site in taken.sites] == [folder.name for folder in folders]


def test_a_plan_ahead_is_the_plan_of_the_run(small_network: Path) -> None:
    config = ExperimentConfig(tasks=("first_pass",), data=DataSettings(network=str(small_network)))
    sites = check_sites(small_network, Reporter(quiet=True))
    plan = make_plan(config, "first_pass", [site.manifest for site in sites])
    task = forecast(config).tasks[0]
    assert task.sites == len(plan.sites) == 3
    assert task.parameters == forecast(config, patients=10**6).tasks[0].parameters
    assert task.train_patients + task.held_out_patients == forecast(config).patients


def test_no_table_is_opened(small_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a table was read")

    for name in ("read_parquet", "scan_parquet", "read_csv", "scan_csv"):
        monkeypatch.setattr(f"polars.{name}", opened)
    forecast(ExperimentConfig(tasks=("approved",), data=DataSettings(network=str(small_network))))
    forecast(ExperimentConfig(tasks=("heart_disease",), data=DataSettings("uci-heart-disease")))


@needs_real_files
@pytest.mark.parametrize("name", PUBLIC)
def test_public_data_sets_are_declared_as_they_are(name: str, tmp_path: Path) -> None:
    dataset = PUBLIC[name]
    made = dataset.build(REAL / dataset.source.folder, tmp_path / "network", seed=1)
    folders = site_folders(tmp_path / "network")
    assert list(dataset.sites) == [folder.name for folder in folders]
    for folder in folders:
        manifest = SiteManifest.load(folder)
        assert (manifest.role, set(manifest.tables)) == (dataset.role, set(dataset.tables))
    if name == "uci-diabetes-130":
        rows = (REAL / dataset.source.folder / "diabetic_data.csv").read_text().splitlines()[1:]
        assert dataset.patients == len({row.split(",")[1] for row in rows})
    else:  # nobody comes twice
        assert dataset.patients == made.settings["rows"]
    # The folder's description does not count patients; its name stands for them.
    taken = declare(DataSettings(network=str(tmp_path / "network")))
    assert taken.patients == dataset.patients == declare(DataSettings(name)).patients


def test_a_folder_that_does_not_say_how_many_patients_it_has(
    small_network: Path, tmp_path: Path
) -> None:
    (tmp_path / "sites").symlink_to(small_network / "sites")
    Network("mine", "public", "t", "p", "l", "c").write(tmp_path)
    data = DataSettings(network=str(tmp_path))
    with pytest.raises(ConfigError, match="declare them with --patients"):
        declare(data)
    assert declare(data, 700).patients == 700
    with pytest.raises(ConfigError, match="--patients starts at 1"):
        declare(data, 0)


def test_private_sites_and_misnamed_folders_are_refused_as_by_a_run(
    small_network: Path, tmp_path: Path
) -> None:
    (tmp_path / "network.json").write_text((small_network / "network.json").read_text())
    folder = tmp_path / "sites" / "provider-01"
    folder.mkdir(parents=True)
    data = DataSettings(network=str(tmp_path))
    for name, origin in (("provider-02", "public"), ("provider-01", "private")):
        SiteManifest(name, "provider", {"pa_request": folder / "t"}, origin).write(folder)
        with pytest.raises(GroundTruthError) as run:
            check_sites(tmp_path, Reporter(quiet=True))
        with pytest.raises(GroundTruthError) as ahead:
            declare(data)
        assert (type(ahead.value), str(ahead.value)) == (type(run.value), str(run.value))
    assert isinstance(ahead.value, PrivateDataError)


def test_a_task_that_the_network_cannot_serve_is_refused_as_by_a_run(
    small_network: Path, tmp_path: Path
) -> None:
    heart = DataSettings("uci-heart-disease")
    with pytest.raises(TaskDataError, match=r"trained by payers, and the network has none"):
        forecast(ExperimentConfig(tasks=("readmission_30d",), data=heart))
    config = ExperimentConfig(
        tasks=("review_overturned",), data=DataSettings(network=str(small_network))
    )
    with pytest.raises(TaskDataError) as run:
        run_experiment(config, tmp_path / "run")
    with pytest.raises(TaskDataError, match="needs table imr_determination") as ahead:
        forecast(config)
    assert str(ahead.value) == str(run.value)


def test_a_roster_too_long_for_a_grid_is_refused() -> None:
    many = DataSettings(requests=99_999, providers=255)
    with pytest.raises(ConfigError, match="roster cannot be used"):
        forecast(ExperimentConfig(tasks=("approved",), data=many))


def test_too_few_requests_are_refused_as_by_the_generator(tmp_path: Path) -> None:
    data = DataSettings(requests=100, payers=2, providers=10)
    with pytest.raises(GroundTruthError) as made:
        generate(
            tmp_path / "x", preset="seed_manual", n_requests=100, n_payers=2, n_providers=10, seed=1
        )
    with pytest.raises(GroundTruthError) as ahead:
        declare(data)
    assert str(ahead.value) == str(made.value)


# --- what it gives ------------------------------------------------------------------------------


def test_kappa_counts_the_noise_of_all_sites() -> None:
    task = forecast(DEMO).tasks[0]
    mu = gdp_mu(3.0, 1e-5) / math.sqrt(2)  # two tasks
    assert task.mu_of_sum == pytest.approx(mu * math.sqrt(6 / 10))  # 10 - 3 dropouts - 1 colluder
    assert task.resolution is not None
    assert task.resolution.kappa == pytest.approx(
        kappa(task.parameters - 1, mu * math.sqrt(0.6), task.train_patients)
    )
    gradient = next(release for release in task.releases if release.step == "gradient")
    training = [release for release in task.releases if release.patients == "train"]
    assert gradient.noise_std is not None
    squares = [
        release.rounds * ((release.sensitivity or 0) / (release.noise_std or 1)) ** 2
        for release in training
    ]
    assert math.fsum(squares) == pytest.approx(0.92 * task.mu_of_sum**2, rel=1e-3)


def test_without_secure_sums_every_sites_noise_weighs_fully() -> None:
    alone = forecast(DEMO.with_changes(privacy=PrivacySettings(secure_sum=False))).tasks[0]
    together = forecast(DEMO).tasks[0]
    assert alone.retries == 0
    assert [release.step for release in alone.releases][-1] == "evaluation"
    assert alone.mu_of_sum == pytest.approx((together.mu_of_sum or 0) / math.sqrt(6))
    privacy = PrivacySettings(secure_sum=False, epsilon=1.0)
    warned = " ".join(forecast(small(privacy=privacy)).tasks[0].warnings)
    assert "privacy.secure_sum = true alone would make kappa" in warned


def test_remedies_do_what_they_say() -> None:
    config = small(additive=AdditiveSettings(max_knots=4))
    before = forecast(config).tasks[0]
    text = " ".join(before.warnings)
    assert "max_knots" not in text
    found = re.search(r"it takes ([\d,]+) patients instead of ([\d,]+), or (\d+) columns", text)
    assert found
    needed = int(found[1].replace(",", ""))
    enough = forecast(config, patients=needed).tasks[0]
    assert enough.resolution is not None
    assert 0.045 < enough.resolution.kappa <= 0.05
    assert "kappa" not in " ".join(enough.warnings)
    assert kappa(int(found[3]), before.mu_of_sum or 0, before.train_patients) <= 0.05

    config = small(privacy=PrivacySettings(epsilon=0.5), data=DataSettings(requests=30_000))
    text = " ".join(forecast(config).tasks[0].warnings)
    found = re.search(r"an epsilon of ([\d.]+) for the whole run", text)
    assert found
    larger = PrivacySettings(epsilon=float(found[1]))
    resolution = forecast(config.with_changes(privacy=larger)).tasks[0].resolution
    assert resolution is not None
    assert resolution.kappa == pytest.approx(0.05, rel=0.05)


def test_knots_that_the_noise_drowns_are_warned_of() -> None:
    eight = forecast(small(additive=AdditiveSettings(max_knots=8))).tasks[0]
    assert eight.advised is not None
    assert eight.advised.knots == 4
    assert any("additive.max_knots = 4" in warning for warning in eight.warnings)
    plenty = forecast(DEMO.with_changes(additive=AdditiveSettings(max_knots=8))).tasks[0]
    assert plenty.advised == plenty.resolution
    assert plenty.warnings == ()


def test_a_declared_base_rate_sets_the_standard_error() -> None:
    rare, common = (forecast(DEMO, base_rate=rate).tasks[0] for rate in (0.02, 0.4))
    assert rare.standard_error.total > 2 * common.standard_error.total
    for task in (rare, common):
        parts = task.standard_error
        assert parts.total == pytest.approx(
            math.hypot(parts.sampling, parts.training_noise, parts.evaluation_noise)
        )
    for wrong in (0.0, 0.6, math.nan):
        with pytest.raises(ConfigError, match="--base-rate"):
            forecast(DEMO, base_rate=wrong)


def test_without_privacy_there_is_no_noise_to_tell_of() -> None:
    ahead = forecast(small(privacy=PrivacySettings(epsilon=None)))
    assert ahead.promise.epsilon is None
    assert "never do this with private data" in ahead.warnings[0]
    for task in ahead.tasks:
        assert task.resolution is task.advised is task.expected_loss is task.mu_of_sum is None
        assert {release.noise_std for release in task.releases} == {None}
        assert task.standard_error.total == task.standard_error.sampling


def test_what_a_promise_leaves_open_is_warned_of() -> None:
    loose = small(privacy=PrivacySettings(epsilon=20.0, delta=1e-3))
    text = " ".join(network_warnings(loose, declare(loose.data)))
    assert "above 10 promises little" in text
    assert "delta = 0.001 is above one in 1,067 patients" in text
    few = forecast(small(), patients=60).tasks[0]
    assert any("a run refuses sites with fewer than 20" in warning for warning in few.warnings)
    cut = small(privacy=PrivacySettings(max_patients_per_site=200))
    assert any("would be cut off" in warning for warning in forecast(cut).tasks[0].warnings)


# --- what cannot be -----------------------------------------------------------------------------


def test_sums_that_could_overflow_are_refused_with_their_numbers() -> None:
    big = {"max_patients_per_site": 100_000_000, "epsilon": 300.0}
    assert forecast(DEMO.with_changes(privacy=PrivacySettings(max_patients_per_site=10**8)))
    with pytest.raises(InfeasiblePlanError, match=r"task approved, .*patients reach 2\^5\d"):
        forecast(DEMO.with_changes(privacy=PrivacySettings(**big)))


def test_bounds_grow_with_the_patients_whom_a_site_may_have() -> None:
    small_sites, large_sites = (
        forecast(DEMO.with_changes(privacy=PrivacySettings(max_patients_per_site=number)))
        for number in (2**17, 2**20)
    )
    for one, other in zip(
        small_sites.tasks[0].releases, large_sites.tasks[0].releases, strict=True
    ):
        if one.site_bits is None or other.site_bits is None or other.sum_bits is None:
            assert one.step == "retry"
            continue
        assert other.site_bits - one.site_bits == pytest.approx(3, abs=0.001)
        assert other.site_bits < other.sum_bits < 63


def test_noise_that_would_drown_everything_is_refused() -> None:
    with pytest.raises(InfeasiblePlanError, match="noise would drown everything"):
        forecast(
            DEMO.with_changes(
                tasks=("approved",), privacy=PrivacySettings(epsilon=1e-6, delta=1e-9)
            )
        )


def test_more_values_than_a_site_sends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.forecast.releases.MAX_VALUES", 4000)
    with pytest.raises(InfeasiblePlanError, match=r"step gram asks for 5,671 values.* 4,000"):
        forecast(DEMO)


def test_of_a_network_only_what_is_known_is_foretold() -> None:
    sampled = NeuralSettings(sample_rate=0.2)
    ahead = forecast(replace(DEMO, tasks=("approved",), family="neural", neural=sampled))
    (task,) = ahead.tasks
    assert (task.resolution, task.advised, task.expected_loss) == (None, None, None)
    assert task.standard_error.training_noise is None
    rates = {release.step: release.sample_rate for release in task.releases}
    assert rates["gradient"] == 0.2
    assert {rate for step, rate in rates.items() if step != "gradient"} == {1.0}
    console = Console(width=100, record=True, file=StringIO())
    print_forecast(ahead, console)
    text = re.sub(r"\s+", " ", console.export_text())
    for words in (
        "train, 0.2 of them",
        f"network of {task.parameters:,} parameters",
        "what noise takes from a network has not been measured",
        "noise in the model not known",
    ):
        assert words in text


def test_too_few_patients_in_a_round_are_warned_of() -> None:
    rare = NeuralSettings(sample_rate=0.001)
    config = replace(DEMO, tasks=("approved",), family="neural", neural=rare)
    (task,) = forecast(config).tasks
    assert any("neural.sample_rate = 0.001 leaves about" in each for each in task.warnings)
    few = forecast(replace(config, neural=NeuralSettings(sample_rate=0.5))).tasks[0]
    assert not any("sample_rate" in each for each in few.warnings)


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(
        'tasks = ["approved", "ed_visit_90d"]\n[data]\nrequests = 4000\npayers = 2\nproviders = 4\n'
    )
    return file


def test_the_command_prints_the_figures(invoke: Invoke, settings: Path) -> None:
    code, out, err = invoke("plan", settings)
    assert (code, err) == (0, "")
    text = re.sub(r"\s+", " ", out)
    ahead = forecast(load_config(settings))
    for task in ahead.tasks:
        assert f"{task.bytes_per_site:,} bytes at most in 16 rounds; 17 exchanges" in text
        for release in task.releases:
            if release.noise_std is not None:
                assert f"{release.noise_std:.4g} {release.values:,}" in text
        assert task.resolution is not None
        assert f"= {task.resolution.kappa:.2g}: public numbers" in text
    assert "2 tasks together: epsilon = 3 for a patient at one site, 11 at 3 sites" in text
    assert "4 providers; 1 may vanish, no round counts below 3" in text
    assert "no table was read" in text
    assert "…" not in out  # nothing is cut off at 80 columns


def test_the_command_prints_json(invoke: Invoke, settings: Path) -> None:
    for extra in ((), ("--epsilon", "none")):
        code, out, _ = invoke("plan", settings, "--json", "--patients", 50_000, *extra)
        assert code == 0
        figures = json.loads(out, parse_constant=lambda name: pytest.fail(name))
        assert figures["patients"] == 50_000
        assert figures["tasks"][0]["train_patients"] == 37_500
        assert (figures["promise"]["epsilon"] is None) is bool(extra)


def test_the_command_says_which_knots_kappa_calls_for(invoke: Invoke, settings: Path) -> None:
    four = settings.read_text()
    settings.write_text(four + "[additive]\nmax_knots = 8\n")
    few, many = (invoke("plan", settings, "--patients", n)[1] for n in (2000, 200_000))
    assert "8 knots, and kappa calls for 4" in few
    assert "8 knots\n" in re.sub(r" +", " ", many).replace(" \n", "\n")
    settings.write_text(four)
    assert (
        "4 knots, and kappa leaves room for 8" in invoke("plan", settings, "--patients", 200_000)[1]
    )


def test_the_command_speaks_of_one_site_and_no_privacy(invoke: Invoke, settings: Path) -> None:
    settings.write_text(
        'tasks = ["approved"]\n[data]\nrequests = 4000\npayers = 1\nproviders = 1\n'
    )
    _, out, _ = invoke("plan", settings, "--base-rate", "0.3", "--epsilon", "0.2")
    assert "1 provider; none may vanish; no secure sums" in re.sub(r"\s+", " ", out)
    assert "takes more than" in re.sub(r"\s+", " ", out)  # kappa was never measured so large
    _, out, _ = invoke("plan", settings, "--epsilon", "none")
    assert "No noise at all" in out
    assert "kappa" not in out


def test_an_epsilon_on_the_command_line_changes_the_promise(invoke: Invoke, settings: Path) -> None:
    code, out, _ = invoke("plan", settings, "--epsilon", "1.5", "--json")
    assert code == 0
    promise = json.loads(out)["promise"]
    assert promise["epsilon"] == pytest.approx(1.5)
    assert promise["epsilon_at_multiplicity"] == pytest.approx(
        gdp_epsilon(3 * gdp_mu(1.5, 1e-5), 1e-5)
    )


@pytest.mark.parametrize(
    "text",
    [
        "tasks = [",
        'tasks = ["aproved"]',
        'tasks = ["approved"]\n[privacy]\nepsilonn = 3.0',
        'tasks = ["approved"]\n[data]\nnetwork = "/nowhere"',
        'tasks = ["approved"]\n[data]\nrequests = 10',
    ],
)
def test_wrong_settings_are_refused_in_the_words_of_a_run(
    invoke: Invoke, settings: Path, text: str
) -> None:
    settings.write_text(text)
    assert refusal(invoke("plan", settings)) == refusal(invoke("run", settings))


def test_wrong_arguments_are_refused(invoke: Invoke, settings: Path) -> None:
    assert "no such file" in refusal(invoke("plan", "absent.toml"))
    assert "a number or none" in refusal(invoke("plan", settings, "--epsilon", "three"))
    assert "--patients starts at 1" in refusal(invoke("plan", settings, "--patients", "0"))
    assert "--base-rate" in refusal(invoke("plan", settings, "--base-rate", "0.7"))
    settings.write_text(settings.read_text() + "[privacy]\nepsilon = 1e-5\ndelta = 1e-9\n")
    assert "drown" in refusal(invoke("plan", settings))
