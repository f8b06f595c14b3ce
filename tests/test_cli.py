"""What people type, with right and with wrong input."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from data_contracts.manifest import SiteManifest
from data_contracts.synthetic.generate import generate
from experiments import cli

Invoke = Callable[..., tuple[int, str, str]]

SETTINGS = """
tasks = ["approved"]
seed = 7

[data]
network = "{network}"
"""


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


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A small network that a test may damage."""
    folder = tmp_path / "network"
    generate(folder, preset="seed_manual", n_requests=4000, n_payers=2, n_providers=3, seed=3)
    return folder


@pytest.fixture
def settings(tmp_path: Path, network: Path) -> Path:
    file = tmp_path / "settings.toml"
    file.write_text(SETTINGS.format(network=network))
    return file


def test_a_file_where_a_folder_belongs_is_named_with_what_to_do(
    invoke: Invoke, network: Path
) -> None:
    site = network / "sites/provider-01"
    (site / "state").write_text("mine", encoding="utf-8")
    code, _, err = invoke("site", "check", site)
    assert code == 2
    assert f"{site / 'state'}: a file stands where a folder belongs; move it elsewhere" in err


def rewrite(network: Path, site: str, table: str, change: Callable[[pl.DataFrame], pl.DataFrame]):
    """Replace a site's table by a changed copy in one file."""
    folder = network / "sites" / site
    manifest = SiteManifest.load(folder)
    frame = change(pl.read_parquet(manifest.tables[table] / "*.parquet"))
    frame.write_parquet(folder / f"{table}.parquet")
    tables = {**manifest.tables, table: folder / f"{table}.parquet"}
    SiteManifest(manifest.name, manifest.role, tables, manifest.origin).write(folder)


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, one error sentence with the words, no traceback."""
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    message = re.sub(r"\s+", " ", err[err.index("error: ") :])
    for word in words:
        assert word in message


def test_help_names_every_command(invoke: Invoke) -> None:
    code, out, _ = invoke("--help")
    assert code == 0
    for command in ("demo", "run", "tasks", "network", "data", "site", "contracts", "track"):
        assert command in out


def test_version(invoke: Invoke) -> None:
    code, out, _ = invoke("--version")
    assert (code, out.strip()) == (0, "0.1.0")


def test_run_prints_the_ladder_and_leaves_everything_in_its_folder(
    invoke: Invoke, settings: Path, tmp_path: Path
) -> None:
    code, out, err = invoke("run", settings, "--out", "runs/first")
    assert code == 0, err
    for label in ("Each site alone", "Federated, private", "Pooled additive", "Report:"):
        assert label in out
    results = json.loads((tmp_path / "runs/first/results.json").read_text())
    assert f"{results['tasks']['approved']['ladder'][1]['auroc']:.4f}" in out
    assert (tmp_path / "runs/first/report.html").stat().st_size > 10_000
    assert (tmp_path / "runs/mlflow.db").is_file()
    assert "training over 3 sites" in err  # plain lines where there is no terminal


def test_settings_file_that_is_not_there(invoke: Invoke) -> None:
    assert_refused(invoke("run", "absent.toml"), "absent.toml", "no such file")


def test_settings_that_are_no_toml(invoke: Invoke, settings: Path) -> None:
    settings.write_text("tasks = [")
    assert_refused(invoke("run", settings), "not a TOML file")


def test_misspelt_key_suggests_the_nearest(invoke: Invoke, settings: Path) -> None:
    settings.write_text(settings.read_text() + "\n[privacy]\nepsilonn = 3.0\n")
    assert_refused(invoke("run", settings), "'epsilonn'", "did you mean 'epsilon'?")


@pytest.mark.parametrize("epsilon", ["0", "-1", "inf", "nan"])
def test_impossible_epsilon(invoke: Invoke, settings: Path, epsilon: str) -> None:
    assert_refused(invoke("run", settings, "--epsilon", epsilon), "epsilon")


def test_unknown_task(invoke: Invoke, settings: Path) -> None:
    settings.write_text(settings.read_text().replace("approved", "aproved"))
    assert_refused(invoke("run", settings), "'aproved'", "approved")


def test_unknown_engine(invoke: Invoke, settings: Path) -> None:
    assert_refused(invoke("run", settings, "--engine", "ray"), "in-process, simulation, deployment")


def test_folder_in_use_is_refused_resumed_or_overwritten(
    invoke: Invoke, settings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs/again"
    assert invoke("run", settings, "--out", out)[0] == 0
    before = json.loads((out / "results.json").read_text())
    assert_refused(invoke("run", settings, "--out", out), "not empty", "--resume", "--overwrite")
    code, _, err = invoke("run", "--resume", out)
    assert code == 0
    assert "finished before, kept" in err
    assert json.loads((out / "results.json").read_text())["tasks"] == before["tasks"]
    assert_refused(invoke("run", settings, "--resume", out, "--seed", "8"), "other settings")
    code, _, err = invoke("run", settings, "--out", out, "--overwrite", "--seed", "8")
    assert code == 0
    assert "finished before" not in err


def test_nobody_else_runs_in_a_folder_meanwhile(
    invoke: Invoke, settings: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    for how in (["--resume", "run"], ["--out", "run", "--overwrite"]):
        with FileLock(tmp_path / "run/.lock"):
            result = invoke("run", settings, *how)
        assert_refused(result, "a run is going on in run")
    assert (tmp_path / "run/config.json").read_text() == "{}"


def test_a_promise_that_cannot_be_kept_is_refused_before_anything_is_released(
    invoke: Invoke, settings: Path, network: Path
) -> None:
    for command in ("plan", "run"):
        asked = [command, settings, "--epsilon", "1e-9"]
        assert_refused(invoke(*asked, *(["--patients", "3000"] if command == "plan" else [])),
                       "noise would drown everything")  # fmt: skip
    assert not list(network.rglob("ledger.db"))


def test_what_earlier_runs_over_a_network_have_cost_is_not_forgotten(
    invoke: Invoke, settings: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        assert invoke("run", settings, "--out", name)[0] == 0
    first, second = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("first", "second")
    )
    assert not any("ledgers" in warning for warning in first["warnings"])
    assert first["privacy"]["spent_in_ledgers"] == pytest.approx(3.0)
    assert second["privacy"]["spent_in_ledgers"] > 4.0
    assert "ledgers hold epsilon = 4." in " ".join(second["warnings"])
    code, out, _ = invoke("site", "budget", tmp_path / "network/sites/provider-01")
    assert code == 0
    for results in (first, second):
        assert results["tasks"]["approved"]["run"][:8] in out


def test_folder_of_somebody_else_is_never_overwritten(
    invoke: Invoke, settings: Path, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").write_text("years of work")
    result = invoke("run", settings, "--out", "theirs", "--overwrite")
    assert_refused(result, "holds no run", "left alone")
    assert (tmp_path / "theirs/thesis.txt").read_text() == "years of work"


def test_overwrite_and_resume_contradict(invoke: Invoke, settings: Path) -> None:
    assert_refused(invoke("run", settings, "--overwrite", "--resume", "run"), "contradict")


def test_network_that_is_not_there(invoke: Invoke, settings: Path, network: Path) -> None:
    settings.write_text(settings.read_text().replace(str(network), "/nowhere"))
    assert_refused(invoke("run", settings), "/nowhere", "does not exist")


def test_files_of_a_public_data_set_that_are_not_there(invoke: Invoke, settings: Path) -> None:
    settings.write_text('tasks = ["readmission_30d"]\n[data]\nname = "uci-diabetes-130"\n')
    assert_refused(invoke("run", settings), "groundtruth data fetch uci-diabetes-130")


def test_table_that_is_not_there(invoke: Invoke, settings: Path, network: Path) -> None:
    folder = network / "sites/provider-02"
    manifest = SiteManifest.load(folder)
    tables = {**manifest.tables, "pa_request": folder / "gone.parquet"}
    SiteManifest(manifest.name, manifest.role, tables, manifest.origin).write(folder)
    assert_refused(invoke("run", settings), "gone.parquet", "no such file")


def test_wrong_column_names_the_site_and_the_nearest_name(
    invoke: Invoke, settings: Path, network: Path
) -> None:
    rewrite(network, "provider-02", "pa_request", lambda t: t.rename({"channel": "chanel"}))
    assert_refused(
        invoke("run", settings), "provider-02", "pa_request", "'chanel'", "did you mean 'channel'?"
    )


def test_table_without_rows(invoke: Invoke, settings: Path, network: Path) -> None:
    rewrite(network, "provider-02", "pa_request", lambda table: table.clear())
    assert_refused(invoke("run", settings), "provider-02", "no rows")


def test_one_class_only(invoke: Invoke, settings: Path, network: Path) -> None:
    for site in ("provider-01", "provider-02", "provider-03", "payer-1", "payer-2"):
        rewrite(
            network,
            site,
            "pa_decision",
            lambda table: table.filter(pl.col("action_code").cast(pl.String) == "A1"),
        )
    assert_refused(invoke("run", settings), "approved", "same label")


def test_site_with_three_patients(invoke: Invoke, settings: Path, network: Path) -> None:
    def three(table: pl.DataFrame) -> pl.DataFrame:
        tokens = table["patient_token"].unique(maintain_order=True).sort()[:3]
        return table.filter(pl.col("patient_token").is_in(tokens.implode()))

    rewrite(network, "provider-03", "pa_request", three)
    assert_refused(invoke("run", settings), "provider-03", "fewer than 20 patients", "leave it out")


def test_generate_writes_sites_and_truth_apart(invoke: Invoke, tmp_path: Path) -> None:
    code, out, _ = invoke(
        *("network", "generate", "--preset", "harmonised", "--requests", 1500),
        *("--payers", 2, "--providers", 3, "--seed", 7, "--out", "made"),
    )
    assert code == 0
    assert "truth" in out
    names = sorted(folder.name for folder in (tmp_path / "made/sites").iterdir())
    assert names == ["payer-1", "payer-2", "provider-01", "provider-02", "provider-03"]
    again = invoke("network", "generate", "--requests", 1500, "--out", "made")
    assert_refused(again, "made")


def test_unknown_preset(invoke: Invoke) -> None:
    assert_refused(
        invoke("network", "generate", "--preset", "sed_manual", "--out", "x"), "sed_manual"
    )


def test_unknown_data_set(invoke: Invoke) -> None:
    assert_refused(invoke("data", "fetch", "uci-diabetis"), "uci-diabetis", "uci-diabetes-130")


def test_fetch_from_a_folder_without_the_files(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = invoke("data", "fetch", "uci-heart-disease", "--from", "empty")
    assert_refused(result, "empty", "processed.cleveland.data")


def test_site_check_counts_what_was_set_aside(invoke: Invoke, network: Path) -> None:
    folder = network / "sites/provider-01"
    code, out, _ = invoke("site", "check", folder)
    assert code == 0
    assert "site provider-01 (provider): ready" in out
    rewrite(
        network,
        "provider-01",
        "pa_decision",
        lambda table: table.with_columns(decision_hours=-pl.col("decision_hours")),
    )
    assert_refused(invoke("site", "check", folder), "decision_hours|min", "quarantine")


def test_our_own_mistake_exits_with_1_and_no_traceback(
    invoke: Invoke, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a patient's name must not be printed")

    monkeypatch.setattr("experiments.job.run_experiment", broken)
    code, _, err = invoke("run", settings)
    assert code == 1
    assert "internal error: RuntimeError" in err
    assert "patient's name" not in err
    assert "Traceback" not in err


def test_private_data_never_enter_an_experiment(
    invoke: Invoke, settings: Path, network: Path
) -> None:
    manifest = SiteManifest.load(network / "sites/payer-1")  # a site that does not even train
    SiteManifest(manifest.name, manifest.role, manifest.tables).write(network / "sites/payer-1")
    assert_refused(invoke("run", settings), "payer-1", "private", "synthetic and public data")


def test_resume_runs_a_task_again_where_the_data_have_changed(
    invoke: Invoke, settings: Path, network: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs/changed"
    assert invoke("run", settings, "--out", out)[0] == 0
    rewrite(network, "provider-01", "pa_request", lambda table: table.head(400))
    code, _, err = invoke("run", "--resume", out)
    assert code == 0
    assert "the data have changed since" in err


def test_resume_and_overwrite_need_a_folder_that_holds_a_run(
    invoke: Invoke, settings: Path, tmp_path: Path
) -> None:
    assert_refused(invoke("run"), "--resume")
    assert_refused(invoke("run", settings, "--overwrite"), "--out")
    assert_refused(invoke("run", "--resume", "typo"), "no run to go on with")
    assert_refused(invoke("run", settings, "--resume", "typo", "--out", "other"), "--out")
    assert not (tmp_path / "typo").exists()


def test_settings_that_could_not_start_do_not_block_their_folder(
    invoke: Invoke, settings: Path, network: Path
) -> None:
    right = settings.read_text()
    settings.write_text(right.replace(str(network), "/nowhere"))
    assert_refused(invoke("run", settings, "--out", "runs/retry"), "/nowhere")
    settings.write_text(right)
    assert invoke("run", settings, "--out", "runs/retry")[0] == 0


def test_tracking_store_that_fails_takes_nothing_from_a_finished_run(
    invoke: Invoke, settings: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mlflow.db").write_text("this is no database")
    code, out, err = invoke("run", settings, "--out", "runs/kept")
    assert code == 0
    assert "Not logged" in err
    assert "The run itself is complete" in err
    assert "Federated, private" in out


def test_noise_that_can_be_drawn_again_is_said_to_be_so(
    invoke: Invoke, settings: Path, tmp_path: Path
) -> None:
    code, out, _ = invoke("run", settings, "--out", "runs/said", "--epsilon", "2")
    assert code == 0
    for text in (out, (tmp_path / "runs/said/report.html").read_text(encoding="utf-8")):
        assert "drawn from seed 7" in re.sub(r"\s+", " ", text)


def test_settings_beside_a_finished_network_are_refused(invoke: Invoke, settings: Path) -> None:
    settings.write_text(settings.read_text() + "requests = 600\n")
    assert_refused(invoke("run", settings), "leave out the other keys")


def test_epsilon_none_on_the_command_line(invoke: Invoke, settings: Path) -> None:
    code, out, _ = invoke("run", settings, "--out", "runs/open", "--epsilon", "none")
    assert code == 0
    assert "Federated, no noise" in out
    assert_refused(invoke("run", settings, "--epsilon", "three"), "a number or none")


def test_folder_that_cannot_be_written_is_the_users_to_mend(
    invoke: Invoke, settings: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(invoke("run", settings, "--out", "file/run"), "file/run")


def test_site_check_counts_the_patients_that_a_run_would_train_on(
    invoke: Invoke, network: Path
) -> None:
    site = network / "sites/provider-01"
    tokens = pl.read_parquet(SiteManifest.load(site).tables["pa_request"] / "*.parquet")
    few = tokens["patient_token"].unique().sort()[:24].to_list()
    rewrite(
        network, "provider-01", "pa_request",
        lambda frame: frame.filter(pl.col("patient_token").is_in(few)),
    )  # fmt: skip
    result = invoke("site", "check", site)
    assert_refused(result, "no task can be trained")
    assert re.search(r"\d+ patients to train on, and at least 20 are needed", result[1])
    _, out, _ = invoke("site", "check", network / "sites/payer-1")
    assert "is measured" in out
    assert "trains" not in out


def test_site_check_knows_how_many_patients_were_declared(invoke: Invoke, network: Path) -> None:
    site = network / "sites/provider-01"
    replace(SiteManifest.load(site), max_patients=100).write(site)
    result = invoke("site", "check", site)
    assert_refused(result, "no task can be trained")
    assert "site.toml says at most 100: raise max_patients" in result[1]


def test_site_check_tells_of_every_bad_table_at_once(invoke: Invoke, network: Path) -> None:
    for table in ("pa_request", "pa_decision"):
        rewrite(network, "provider-01", table, lambda frame: frame.clear())
    assert_refused(
        invoke("site", "check", network / "sites/provider-01"), "table pa_request", "pa_decision"
    )


def test_site_check_is_not_ready_where_no_tables_join(invoke: Invoke, network: Path) -> None:
    for table in ("pa_decision", "clinical_outcome"):
        rewrite(
            network,
            "provider-01",
            table,
            lambda frame: frame.with_columns(
                request_token=pl.lit("f" * 8) + pl.col("request_token").str.slice(8)
            ),
        )
    result = invoke("site", "check", network / "sites/provider-01")
    assert_refused(result, "no task can be trained")
    assert "no row has a label" in result[1]
