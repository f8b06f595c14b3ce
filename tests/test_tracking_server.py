"""A team's tracking server: results arrive once, and nothing that happens to it costs a run."""

import io
import json
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from rich.console import Console

from experiments.benchmarks import postgresql_server
from experiments.config import DataSettings, ExperimentConfig
from experiments.job import run_experiment
from experiments.progress import Reporter
from experiments.spool import SECONDS, hand_in, send, tracking_store, waiting
from experiments.tracking_server import prepare
from federation.settings import ConfigError
from federation.tracking import TrackingError, log_run

pytestmark = pytest.mark.slow

CONFIG = ExperimentConfig(
    tasks=("approved",), data=DataSettings(requests=3000, payers=2, providers=3)
)
COMMAND = [sys.executable, "-c", "from experiments.cli import main; main()"]
DATABASE_SECRET = secrets.token_hex(12)
USER_SECRET = secrets.token_hex(12)
WRONG_SECRET = secrets.token_hex(12)
RECEIPT = "mlflow-run-id.txt"


@dataclass
class Said:
    """What a person was told."""

    text: io.StringIO
    reporter: Reporter

    def __str__(self) -> str:
        return self.text.getvalue()


def listen() -> Said:
    text = io.StringIO()
    return Said(text, Reporter(Console(file=text, highlight=False, width=10_000)))


@pytest.fixture(scope="module")
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(scope="module", autouse=True)
def user() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "coordinator")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", USER_SECRET)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def spooled(address: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that ended while its server was down, and what was said."""
    folder = tmp_path_factory.mktemp("spooled") / "runs" / "first"
    said = listen()
    run_experiment(CONFIG, folder, tracking=address, reporter=said.reporter)
    return folder, str(said)


@dataclass
class Server:
    folder: Path
    log: Path
    process: psutil.Process
    client: mlflow.MlflowClient

    def parents(self, run: Path) -> list[Any]:
        """The parent runs that stand for a run's folder."""
        results = json.loads((run / "results.json").read_text())
        tag = ",".join(task["run"] for task in results["tasks"].values())
        return self.find(f"tags.`groundtruth.run` = '{tag}'")

    def children(self, parent: str) -> list[Any]:
        return self.find(f"tags.`mlflow.parentRunId` = '{parent}'")

    def find(self, words: str) -> list[Any]:
        experiment = self.client.get_experiment_by_name("groundtruth")
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], words))


@pytest.fixture(scope="module")
def server(
    address: str, spooled: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server as `groundtruth track server` starts it, over PostgreSQL; after `spooled`."""
    pytest.importorskip("flask_wtf", reason="the extra tracking-server is not installed")
    folder = tmp_path_factory.mktemp("server") / "tracking"
    log = folder.with_name("log")
    with postgresql_server.server() as postgresql:
        with postgresql.admin() as admin:
            admin.execute(f"CREATE ROLE mlflow LOGIN PASSWORD '{DATABASE_SECRET}'")
            admin.execute("CREATE DATABASE mlflow OWNER mlflow")
        command = [*COMMAND, "track", "server", str(folder), "--port", address.rpartition(":")[2]]
        command += ["--database", f"postgresql://mlflow@127.0.0.1:{postgresql.port}/mlflow"]
        environment = os.environ | {"PGPASSWORD": DATABASE_SECRET, "MLFLOW_WORKERS": "1"}
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            wait_for(address, process, log)
            password = settings_of(folder)["MLFLOW_AUTH_ADMIN_PASSWORD"]
            make_user(address, "admin", password, name="coordinator")
            client = mlflow.MlflowClient(address, address)
            yield Server(folder, log, psutil.Process(process.pid), client)
        finally:
            process.terminate()
            process.wait(30)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/health").close()  # noqa: S310 - our own address
        except urllib.error.URLError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        else:
            return


def settings_of(folder: Path) -> dict[str, str]:
    lines = (folder / "server.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def make_user(address: str, login: str, password: str, *, name: str) -> None:
    """As the documented command does it."""
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{address}/api/2.0/mlflow/users/create",
        json.dumps({"username": name, "password": USER_SECRET}).encode(),
        {
            "Authorization": f"Basic {b64encode(f'{login}:{password}'.encode()).decode()}",
            "Content-Type": "application/json",
        },
    )
    urllib.request.urlopen(request).close()  # noqa: S310


def another_run(of: Path, runs: Path, name: str) -> Path:
    """A run like one that was carried out, under an identity of its own."""
    folder = runs / name
    shutil.copytree(of, folder, ignore=shutil.ignore_patterns("mlflow*", "network", ".lock"))
    results = json.loads((folder / "results.json").read_text())
    for task in results["tasks"].values():
        task["run"] = secrets.token_hex(16)
    (folder / "results.json").write_text(json.dumps(results | {"run_id": name}))
    return folder


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


# --- what happens to a server costs a run a line -----------------------------------------------


def test_a_server_that_is_down_costs_a_run_one_line(
    spooled: tuple[Path, str], address: str
) -> None:
    folder, said = spooled
    assert (folder / "report.html").is_file()
    assert (folder / "results.json").is_file()
    assert not (folder / RECEIPT).exists()
    assert waiting(folder.parent) == [folder]
    assert said.splitlines()[-1] == (
        f"Not logged to {address}: it cannot be reached. The run itself is complete; 1 to be sent "
        f"by `groundtruth track send {folder.parent}`."
    )


def test_a_server_that_never_answers_costs_a_bounded_time(
    spooled: tuple[Path, str], silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    run, said = another_run(spooled[0], tmp_path, "silent"), listen()
    start = time.monotonic()
    hand_in(run, silent, said.reporter)
    assert time.monotonic() - start < SECONDS
    assert f"Not logged to {silent}: it did not answer in time" in str(said)
    assert waiting(tmp_path) == [run]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (503, "it fails: too many 503 error responses"),
        (403, "its user lacks a permission (403)"),
        (200, "was successful but the response body was not in a valid JSON format"),
    ],
)
def test_what_a_server_answers_instead_is_told_in_one_line(
    status: int, told: str, spooled: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>no\nMLflow</html>")

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    results = json.loads((spooled[0] / "results.json").read_text())
    with HTTPServer(("127.0.0.1", 0), Answer) as other, ThreadPoolExecutor() as pool:
        pool.submit(other.serve_forever)
        try:
            with pytest.raises(TrackingError) as caught:
                log_run(results, spooled[0], f"http://127.0.0.1:{other.server_port}")
        finally:
            other.shutdown()
            mlflow.set_tracking_uri(None)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_takes_no_note_costs_a_run_one_line(
    spooled: tuple[Path, str], address: str, tmp_path: Path
) -> None:
    run, said = another_run(spooled[0], tmp_path, "full"), listen()
    (run / "mlflow-store.part").mkdir()
    hand_in(run, address, said.reporter)
    assert "Is a directory. The run itself is complete" in str(said)


def test_the_limit_holds_whatever_patience_mlflow_is_told_to_have(
    spooled: tuple[Path, str], silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    run = another_run(spooled[0], tmp_path, "patient")
    start = time.monotonic()
    left, reason = send([run], silent, seconds=4)
    assert time.monotonic() - start < 20
    assert (left, reason) == ([run], "it took longer than 4 seconds")


# --- what arrives ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sent(server: Server, spooled: tuple[Path, str], address: str) -> Path:
    """The run that waited, sent by two processes at the same time."""
    command = [*COMMAND, "track", "send", str(spooled[0].parent)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": address}
    with ThreadPoolExecutor() as pool:
        other = pool.submit(send, [spooled[0]], address)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert other.result() == ([], "")
    assert done.returncode == 0, done.stderr
    assert f"1 of 1 waiting runs sent to {address}" in done.stdout
    return spooled[0]


def test_what_waited_is_sent_exactly_once_though_two_processes_send_it(
    server: Server, sent: Path
) -> None:
    (parent,) = server.parents(sent)
    assert parent.info.status == "FINISHED"
    assert (sent / RECEIPT).read_text().strip() == parent.info.run_id
    assert waiting(sent.parent) == []


def test_settings_figures_and_artifacts_arrive(server: Server, sent: Path) -> None:
    (parent,) = server.parents(sent)
    results = json.loads((sent / "results.json").read_text())
    assert parent.data.params["epsilon"] == "3.0"
    assert parent.data.params["data_fingerprint"] == results["data"]["fingerprint"]
    for rung in results["tasks"]["approved"]["ladder"]:
        assert parent.data.metrics[f"approved.{rung['model']}.auroc"] == rung["auroc"]
    assert {run.data.tags["site"] for run in server.children(parent.info.run_id)} == {
        site["name"] for site in results["sites"]
    }
    assert parent.info.artifact_uri.startswith("mlflow-artifacts:/")
    for name in ("results.json", "report.html"):
        (kept,) = server.folder.glob(f"artifacts/*/{parent.info.run_id}/artifacts/{name}")
        assert kept.read_bytes() == (sent / name).read_bytes()


def test_the_model_is_registered_and_predicts(
    server: Server, sent: Path, address: str, tmp_path: Path
) -> None:
    version = server.client.get_model_version_by_alias("groundtruth-approved", "candidate")
    assert version.run_id == server.parents(sent)[0].info.run_id
    mlflow.set_tracking_uri(address)
    try:
        model = mlflow.pyfunc.load_model("models:/groundtruth-approved@candidate")
    finally:
        mlflow.set_tracking_uri(None)
    assert model.predict(model.input_example)["probability"].between(0, 1).all()


def test_a_run_sends_what_waits_and_a_damaged_one_stops_no_other(
    server: Server, sent: Path, address: str, tmp_path: Path
) -> None:
    names = ("damaged", "earlier", "now")
    damaged, earlier, now = (another_run(sent, tmp_path, name) for name in names)
    for run in (damaged, earlier):
        (run / "mlflow-store.txt").write_text(address + "\n")
    (damaged / "results.json").write_text("{")
    said = listen()
    hand_in(now, address, said.reporter)
    assert waiting(tmp_path) == [damaged]
    assert "Logged, but not all earlier runs are: damaged: JSONDecodeError" in str(said)
    for run in (earlier, now):
        assert len(server.parents(run)) == 1


# --- what is half done is put right ------------------------------------------------------------


def test_a_half_logged_run_is_replaced_and_a_lost_receipt_logs_nothing_twice(
    server: Server, sent: Path, address: str, tmp_path: Path
) -> None:
    run = another_run(sent, tmp_path, "half")
    results = json.loads((run / "results.json").read_text())
    results["tasks"]["second"] = results["tasks"]["approved"] | {"run": secrets.token_hex(16)}
    (run / "results.json").write_text(json.dumps(results))
    shutil.copytree(run / "tasks/approved", run / "tasks/second")
    plan = run / "tasks/second/plan.json"
    text = plan.read_text()
    plan.unlink()
    os.mkfifo(plan)  # where the attempt stops, its first model registered
    attempt = subprocess.Popen([sys.executable, "-m", "experiments.spool", address, str(run)])
    wait_for_reader(plan, attempt)
    attempt.kill()
    attempt.wait()
    (half,) = server.parents(run)
    assert half.info.status == "RUNNING"
    assert len(server.client.search_model_versions(f"run_id = '{half.info.run_id}'")) == 1

    plan.unlink()
    plan.write_text(text)
    assert send([run], address) == ([], "")
    (whole,) = server.parents(run)
    assert (whole.info.status, whole.info.run_id != half.info.run_id) == ("FINISHED", True)
    assert server.children(half.info.run_id) == []
    assert len(server.children(whole.info.run_id)) == len(results["sites"])
    assert list(server.client.search_model_versions(f"run_id = '{half.info.run_id}'")) == []
    assert len(server.client.search_model_versions(f"run_id = '{whole.info.run_id}'")) == 2

    # As if the process had died before it wrote the receipt.
    assert log_run(results, run, address) == whole.info.run_id
    mlflow.set_tracking_uri(None)
    assert len(server.parents(run)) == 1


def wait_for_reader(fifo: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads yet
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


# --- who gets in, and what stays secret --------------------------------------------------------


def test_a_wrong_password_is_named_and_the_run_waits(
    server: Server, sent: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", WRONG_SECRET)
    run, said = another_run(sent, tmp_path, "refused"), listen()
    hand_in(run, address, said.reporter)
    assert "it refuses the user or the password (401)" in str(said)
    assert "MLFLOW_TRACKING_PASSWORD" in str(said)
    assert WRONG_SECRET not in str(said)
    assert waiting(tmp_path) == [run]


def test_nobody_gets_in_without_a_password_nor_by_one_that_is_well_known(
    server: Server, address: str
) -> None:
    by_name = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=groundtruth"
    for path in ("/", "/signup", by_name, "/api/2.0/mlflow-artifacts/artifacts"):
        url = address + path
        assert code_of(lambda url=url: urllib.request.urlopen(url)) == 401  # noqa: S310
    for password in ("password1234", "password", ""):
        assert code_of(lambda p=password: make_user(address, "admin", p, name="guest")) == 401
    assert code_of(lambda: make_user(address, "coordinator", USER_SECRET, name="guest")) == 403


def code_of(ask: Callable[[], object]) -> int:
    """Status with which a request is refused."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask()
    refused.value.close()
    return refused.value.code


def test_the_server_listens_on_its_address_alone(server: Server, address: str) -> None:
    processes = [server.process, *server.process.children(recursive=True)]
    found = {
        f"http://{each.laddr.ip}:{each.laddr.port}"
        for process in processes
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert found == {address}


def test_secrets_stand_in_one_closed_file_only(server: Server, sent: Path) -> None:
    kept = server.folder / "server.env"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    hidden = [DATABASE_SECRET, USER_SECRET, *settings_of(server.folder).values()]
    assert len(hidden) == 4
    read = 0
    for place in (server.folder.parent, sent.parent):
        for file in place.rglob("*"):
            if file.is_file() and file != kept:
                content = file.read_bytes()
                assert not any(secret.encode() in content for secret in hidden), file
                read += 1
    assert read > 100  # a model's artifacts among them
    processes = [server.process, *server.process.children(recursive=True)]
    told = " ".join(word for process in processes for word in process.cmdline())
    assert "basic-auth" in told
    assert not any(secret in told for secret in hidden)


def test_secrets_that_others_may_read_are_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "server.env").write_text("MLFLOW_AUTH_ADMIN_PASSWORD=known\n")
    (tmp_path / "server.env").chmod(0o644)
    with pytest.raises(ConfigError, match=r"server\.env may be read by others"):
        prepare(tmp_path, "postgresql://mlflow@127.0.0.1/mlflow", "127.0.0.1", 1)
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigError, match="is open to others"):
        prepare(tmp_path, "postgresql://mlflow@127.0.0.1/mlflow", "127.0.0.1", 1)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://mlflow:Zaphod9@127.0.0.1/mlflow", "holds a password"),
        ("postgresql://127.0.0.1/mlflow?password=Zaphod9", "holds a password"),
        ("mysql://mlflow@127.0.0.1/Zaphod9", "must be postgresql://"),
        ("postgresql://Zaphod9@[::1/mlflow", "is no URL"),
        ("postgresql://Zaphod9@127.0.0.1/", "must be postgresql://"),
    ],
)
def test_an_unfit_database_is_refused_without_repeating_it(
    url: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        prepare(tmp_path / "tracking", url, "127.0.0.1", 1)
    assert "Zaphod9" not in str(refused.value)
    assert not (tmp_path / "tracking").exists()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("https://coordinator:Zaphod9@mlflow.example.org", "holds a user name or a password"),
        ("http://mlflow.example.org/Zaphod9", "in the clear"),
        ("ftp://127.0.0.1/Zaphod9", "must be the https:// address"),
        ("https://[Zaphod9", "must be the https:// address"),
    ],
)
def test_an_unfit_tracking_address_is_refused_without_repeating_it(
    uri: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match=told) as refused:
        tracking_store(tmp_path)
    assert "Zaphod9" not in str(refused.value)


def test_a_command_refuses_an_unfit_tracking_address_before_anything_is_run(
    tmp_path: Path,
) -> None:
    environment = os.environ | {"MLFLOW_TRACKING_URI": "https://me:Zaphod9@mlflow.example.org"}
    done = subprocess.run(
        [*COMMAND, "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "MLFLOW_TRACKING_URI holds a user name or a password" in done.stderr
    assert "Zaphod9" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_runs_go_to_the_named_server_and_to_a_file_beside_them_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_store(tmp_path) == f"sqlite:///{tmp_path / 'mlflow.db'}"
    for uri in ("https://mlflow.example.org", "http://127.0.0.1:5000", "http://[::1]:5000"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri + "/")
        assert tracking_store(tmp_path) == uri
