"""Sites and a coordinator as real processes over TLS on loopback, and what may happen to them."""

import dataclasses
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_connection import http_request_response

from data_contracts.manifest import MANIFEST_NAME
from experiments.benchmarks.local_network import LocalNetwork, wait_for
from experiments.config import DeploymentSettings, load_config
from experiments.deployed_run import run_deployed
from federation import client_app, server_app, site
from federation.deployment import deployed
from federation.deployment.audit_log import audit_file, show, verify
from federation.deployment.bundles import Bundle, installed_bundle
from federation.deployment.consent import Consent
from federation.deployment.coordinator import Coordinator
from federation.deployment.membership import AUTHORITY_FILE, COORDINATOR_FILE, NODE_KEY_FILE
from federation.deployment.runtime import Runtime
from federation.flower_processes import free_port
from federation.identity import IDENTITY_FILE
from federation.in_process import run_in_process, task_identity
from federation.ledger import Ledger, ledger_file
from federation.results import read_result
from federation.strategy import TrainingResult
from models.mechanisms import SeededNoise

pytestmark = pytest.mark.deployment

# Six exchanges and the greeting; one of the four sites may be missing.
SETTINGS = """
tasks = ["approved"]
[privacy]
epsilon = 1.0
[additive]
gradient_rounds = 2
[deployment]
quorum_minutes = 1
round_minutes = 1.5
ask_again_seconds = 3
"""
ALL = SETTINGS.replace("[deployment]", "[deployment]\nquorum = 4")
STEPS = ["histogram 1", "gram 1", "gradient 1", "gradient 2", "recalibration 1", "evaluation 1"]
VICTIM = "provider-02"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    made = LocalNetwork.make(tmp_path_factory.mktemp("net"), sites=4)
    for name in made.names:  # many runs are to come
        manifest = made.site(name) / MANIFEST_NAME
        text = manifest.read_text().replace("[site]\n", "[site]\nbudget_epsilon = 200.0\n", 1)
        manifest.write_text(text)
    with made.running():
        yield made


@pytest.fixture(autouse=True)
def all_online(request: pytest.FixtureRequest) -> None:
    """A test that failed leaves no later one without its sites."""
    if "network" not in request.fixturenames:
        return
    network: LocalNetwork = request.getfixturevalue("network")
    for name in ("coordinator", *network.names):
        process = network.processes.get(name)
        if process is None or process.poll() is not None:
            network.start_coordinator() if name == "coordinator" else network.start_site(name)
    network.wait_online(*network.names)


def stop(network: LocalNetwork, name: str) -> None:
    network.processes[name].terminate()
    network.processes.pop(name).wait(30)


_numbers = iter(range(1000))


@pytest.fixture
def out() -> str:
    return f"run-{next(_numbers)}"


def finished(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str]:
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, said


def result_of(network: LocalNetwork, out: str) -> TrainingResult:
    return read_result(network.folder / out / "tasks" / "approved" / "result.json")


def charges(network: LocalNetwork, name: str, run: str) -> Counter[str]:
    ledger = Ledger.existing(ledger_file(network.site(name)))
    return Counter(f"{c.step} {c.round}" for _, c in ledger.charges() if c.run == run)


def assert_whole(network: LocalNetwork, out: str) -> TrainingResult:
    """The run has a result, and no site has charged a release twice or not at all."""
    result = result_of(network, out)
    assert [f"{each.step} {each.round}" for each in result.rounds] == STEPS
    left = {dropout.site for dropout in result.dropouts}
    for name in network.names:
        found = charges(network, name, result.run)
        assert set(found.values()) <= {1}
        assert name in left or len(found) >= len(STEPS)
        if name not in left and not any(each.retries for each in result.rounds):
            assert list(found) == STEPS
    return result


def reaches(network: LocalNetwork, done: int) -> None:
    wait_for(
        lambda: network.progress().get("done", -1) >= done and bool(network.progress()["step"]),
        f"round {done}",
        seconds=90,
    )


# --- a good run ----------------------------------------------------------------------------------


def test_the_model_is_that_of_one_process_when_the_noise_is_the_same(
    network: LocalNetwork, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The noise is made the same by other code: a bundle that the sites approve for this test.

    No setting, variable or message reaches it.
    """
    honest = installed_bundle()
    source = honest.files["federation/site.py"].decode()
    assert source.count("return SystemNoise()") == 1
    seeded = source.replace("return SystemNoise()", "return SeededNoise(7, manifest.name)")
    bundle = repacked(honest, {"federation/site.py": seeded.encode()})
    for name in network.names:
        network.approve(name, bundle)
    monkeypatch.setattr(deployed, "installed_bundle", lambda: bundle)
    file = network.folder / f"{out}.toml"
    file.write_text(ALL)
    config = dataclasses.replace(load_config(file), engine="deployment")
    place = DeploymentSettings(**{
        **dataclasses.asdict(config.deployment), "coordinator": str(network.coordinator.folder)
    })  # fmt: skip
    run_deployed(dataclasses.replace(config, deployment=place), network.folder / out)
    over_tls = assert_whole(network, out)
    assert over_tls.dropouts == ()

    plan = (network.folder / out / "tasks" / "approved" / "plan.json").read_text()
    policy = site.check_policy
    monkeypatch.setattr(
        site,
        "check_policy",
        lambda manifest, plan: policy(manifest, plan) and SeededNoise(7, manifest.name),
    )
    nodes = [{"site": str(network.site(name) / MANIFEST_NAME)} for name in network.names]
    here = network.folder / f"{out}.json"
    run_config: dict[str, bool | float | int | str] = {
        "plan": plan,
        "result": str(here),
        "registry": str(network.coordinator.peers_file),
        "timeout": 60.0,
    }
    run_in_process(server_app.app, client_app.app, nodes, run_config)
    in_process = read_result(here)
    ours, theirs = (numbers(json.loads(each.model.to_json())) for each in (over_tls, in_process))
    assert len(ours) > 100
    assert np.allclose(ours, theirs, rtol=0, atol=1e-9)
    assert over_tls.evaluation == in_process.evaluation
    assert len(over_tls.rounds) <= 16


def numbers(value: object) -> list[float]:
    """All numbers in a document, in order."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [number for item in items for number in numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


def repacked(bundle: Bundle, files: dict[str, bytes]) -> Bundle:
    """A bundle with other content in some files."""
    from flwr.cli.build import build_fab_from_files

    content, _ = build_fab_from_files({**bundle.code, **files})
    return Bundle.read(content)


def test_nothing_listens_but_where_it_should(network: LocalNetwork) -> None:
    bind = network.coordinator.bind
    found = {}
    for name in ("coordinator", *network.names):
        for process, pid in network.pids(name).items():
            found |= dict.fromkeys(listening(pid), (name, process))
        found |= dict.fromkeys(listening(network.processes[name].pid), (name, "service"))
    assert found.pop(bind) == ("coordinator", "superlink")
    assert {process for _, process in found.values()} == {"supernode"}
    assert len(found) == len(network.names)
    assert all(address.startswith("127.0.0.1:") for address in found)


def listening(pid: int) -> set[str]:
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(os.readlink(link))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in inodes:
                address, port = local.split(":")
                host = socket.inet_ntoa(bytes.fromhex(address)[::-1]) if table == "tcp" else address
                found.add(f"{host}:{int(port, 16)}")
    return found


def test_status_shows_one_screen_and_json(network: LocalNetwork) -> None:
    code, said = finished(network.command("coordinator", "status", "coordinator"))
    assert code == 0
    assert all(name in said for name in network.names)
    assert "never came" not in said
    assert max(map(len, said.splitlines())) <= 80
    code, said = finished(network.command("coordinator", "status", "coordinator", "--json"))
    shown = json.loads(said)
    assert [site["online"] for site in shown["sites"]] == [True] * 4
    assert shown["run"] is None


# --- sites die -----------------------------------------------------------------------------------


def kill_all_of(network: LocalNetwork, name: str) -> None:
    """Kill the SuperNode, the executor and with it the app process, without a word."""
    for process in network.pids(name):
        network.kill(name, process)


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_a_site_killed_around_its_upload_comes_back_and_the_run_is_whole(
    network: LocalNetwork, out: str, moment: str
) -> None:
    running = network.run(out, SETTINGS)
    reaches(network, 2)
    run = network.progress()["run"]
    if moment == "during":
        before = sum(charges(network, VICTIM, run).values())
        wait_for(
            lambda: sum(charges(network, VICTIM, run).values()) > before, "a charge", seconds=60
        )
    if moment == "after":
        uploads = network.state(VICTIM) / "runs" / run
        last = {file.name for file in uploads.glob("*.npy")}
        wait_for(
            lambda: bool({file.name for file in uploads.glob("*.npy")} - last),
            "an upload",
            seconds=60,
        )
    kill_all_of(network, VICTIM)
    code, said = finished(running)
    assert code == 0, said
    assert_whole(network, out)
    network.wait_online(VICTIM)


def test_a_site_that_stays_away_is_named_and_the_run_goes_on_without_it(
    network: LocalNetwork, out: str
) -> None:
    running = network.run(out, SETTINGS.replace("round_minutes = 1.5", "round_minutes = 0.3"))
    reaches(network, 2)
    stop(network, VICTIM)
    code, said = finished(running)
    assert code == 0, said
    result = result_of(network, out)
    assert [dropout.site for dropout in result.dropouts] == [VICTIM]
    assert VICTIM in said


def test_without_a_quorum_the_run_fails_in_time_and_names_who_is_missing(
    network: LocalNetwork, out: str
) -> None:
    stop(network, VICTIM)
    start = time.monotonic()
    code, said = finished(
        network.run(out, ALL.replace("quorum_minutes = 1", "quorum_minutes = 0.2"))
    )
    assert (code, time.monotonic() - start < 60) == (2, True)
    assert f"{VICTIM}: not online" in said
    assert not (network.folder / out / "results.json").exists()


# --- the coordinator dies ------------------------------------------------------------------------


def test_a_run_whose_coordinator_was_killed_goes_on_where_it_was(
    network: LocalNetwork, out: str
) -> None:
    running = network.run(out, ALL)
    reaches(network, 3)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    code, said = finished(network.command("run", "--resume", out))
    assert code == 0, said
    assert assert_whole(network, out).dropouts == ()
    events = [entry["event"] for entry in show(network.coordinator.audit_log)]
    assert events[-2:] == ["run resumed", "run finished"]


def test_a_run_survives_the_death_of_the_superlink(network: LocalNetwork, out: str) -> None:
    running = network.run(out, ALL)
    reaches(network, 2)
    network.kill("coordinator", "superlink")
    code, said = finished(running)
    if code != 0:  # told so, and nothing is lost
        assert "SuperLink" in said
        wait_for(network._answers, "the SuperLink answers", seconds=60)
        network.wait_online(*network.names)
        code, said = finished(network.command("run", "--resume", out))
    assert code == 0, said
    assert_whole(network, out)


def test_one_run_at_a_time_and_one_coordinator_at_a_time(network: LocalNetwork, out: str) -> None:
    running = network.run(out, ALL)
    reaches(network, 1)
    code, said = finished(network.run(f"{out}-second", ALL))
    assert (code, "a run is at work" in said) == (2, True)
    code, said = finished(network.command("coordinator", "start", "coordinator"))
    assert (code, "a coordinator is at work" in said) == (2, True)
    code, said = finished(network.command("site", "start", str(network.site(VICTIM))))
    assert (code, "a site is at work" in said) == (2, True)
    assert finished(running)[0] == 0
    assert_whole(network, out)


# --- the network ---------------------------------------------------------------------------------


class Proxy:
    """Passes TCP connections on, until it is told not to, or slowly."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.open = threading.Event()
        self.open.set()
        self.bytes_per_second = 0.0
        self._pairs: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        self.open.clear()
        for each in self._pairs:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def close(self) -> None:
        self.cut()
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if not self.open.is_set():
                    client.close()
                    continue
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._target) as server:
            self._pairs += [client, server]
            while True:
                ready, _, _ = select.select([client, server], [], [], 60)
                for one in ready:
                    other = server if one is client else client
                    if not (content := one.recv(4096)):
                        return
                    if self.bytes_per_second:
                        time.sleep(len(content) / self.bytes_per_second)
                    other.sendall(content)


@contextmanager
def behind_a_proxy(network: LocalNetwork, name: str) -> Iterator[Proxy]:
    """A site that reaches the coordinator through a proxy."""
    proxy = Proxy(network.coordinator.bind)
    file = network.state(name) / COORDINATOR_FILE
    direct = file.read_text()
    stop(network, name)
    file.write_text(direct.replace(network.coordinator.address, proxy.address))
    network.start_site(name)
    network.wait_online(name)
    try:
        yield proxy
    finally:
        stop(network, name)
        file.write_text(direct)
        proxy.close()
        network.start_site(name)
        network.wait_online(name)


def test_a_cut_of_the_network_for_20_seconds_costs_time_only(
    network: LocalNetwork, out: str
) -> None:
    with behind_a_proxy(network, VICTIM) as proxy:
        running = network.run(out, ALL)
        reaches(network, 2)
        proxy.cut()
        time.sleep(20)
        proxy.open.set()
        code, said = finished(running)
    assert code == 0, said
    assert assert_whole(network, out).dropouts == ()


def test_a_site_a_hundred_times_slower_than_the_rest_is_waited_for(
    network: LocalNetwork, out: str
) -> None:
    with behind_a_proxy(network, VICTIM) as proxy:
        proxy.bytes_per_second = 100_000.0  # the app alone has 1.4 MB
        code, said = finished(network.run(out, ALL))
    assert code == 0, said
    assert assert_whole(network, out).dropouts == ()


# --- what a site finds when it starts ------------------------------------------------------------


def start_refused(network: LocalNetwork, name: str, *prefix: str) -> str:
    """What a site says that does not start."""
    program = shutil.which("groundtruth", path=str(Path(sys.executable).parent))
    done = subprocess.run(
        [*prefix, str(program), "site", "start", str(network.site(name))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.fixture
def stopped(network: LocalNetwork) -> Iterator[str]:
    """A site that does not run during a test, and is as it was afterwards."""
    stop(network, VICTIM)
    state = network.state(VICTIM)
    kept = state.with_name("kept")
    shutil.copytree(state, kept)
    yield VICTIM
    shutil.rmtree(state)
    kept.rename(state)


def test_a_site_with_a_stale_identity_does_not_start(network: LocalNetwork, stopped: str) -> None:
    (network.state(stopped) / IDENTITY_FILE).unlink()
    said = start_refused(network, stopped)
    assert "another key for site provider-02 than its own" in said


def test_a_key_that_others_can_read_is_refused(network: LocalNetwork, stopped: str) -> None:
    (network.state(stopped) / NODE_KEY_FILE).chmod(0o644)
    said = start_refused(network, stopped)
    assert "open to other users" in said
    assert "chmod 600" in said


needs_faketime = pytest.mark.skipif(
    shutil.which("faketime") is None, reason="Debian's faketime is not installed"
)


@needs_faketime
def test_an_expired_certificate_is_named(network: LocalNetwork, stopped: str) -> None:
    said = start_refused(network, stopped, "faketime", "-f", "+400d")
    assert "expired" in said
    assert "groundtruth coordinator renew" in said


@needs_faketime
def test_a_clock_ten_minutes_off_is_named(network: LocalNetwork, stopped: str) -> None:
    said = start_refused(network, stopped, "faketime", "-f", "+10m")
    assert "clock" in said
    assert "NTP" in said


def test_another_coordinator_at_the_same_address_is_not_believed(
    network: LocalNetwork, stopped: str, tmp_path: Path
) -> None:
    port = free_port()
    other = Coordinator.init(
        tmp_path / "other", "local", f"127.0.0.1:{port}", bind=f"127.0.0.1:{port}"
    )
    file = network.state(stopped) / COORDINATOR_FILE
    file.write_text(file.read_text().replace(network.coordinator.address, other.address))
    impostor = network.command("coordinator", "start", str(other.folder))
    try:
        host, _, number = other.bind.rpartition(":")

        def listens() -> bool:
            with suppress(OSError), closing(socket.create_connection((host, int(number)))):
                return True
            return False

        wait_for(listens, "the other coordinator listens", seconds=60)
        said = start_refused(network, stopped)
    finally:
        impostor.terminate()
        impostor.communicate(timeout=30)
    assert "not signed by the network's authority" in said


def test_the_executor_takes_no_tasks_from_whoever_else_listens_at_its_port(
    network: LocalNetwork,
) -> None:
    """The port stands in /proc for all users, and the SuperNode takes seconds to listen there."""
    wait_for(lambda: "executor" in network.pids(VICTIM), "an executor", seconds=60)
    pid = network.pids(VICTIM)["executor"]
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    address, secret, authority = command[4:7]
    assert (
        Runtime(address, Path(secret).read_bytes(), Path(authority).read_bytes()).acquire(
            TaskType.CLIENT_APP
        )
        is None
    )
    other = network.coordinator  # as good a stranger as any
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        Runtime(other.bind, b"s" * 32, Path(authority).read_bytes()).acquire(TaskType.CLIENT_APP)


# --- a hostile site ------------------------------------------------------------------------------


@contextmanager
def hostile(network: LocalNetwork, name: str, *, sends: bool) -> Iterator[None]:
    """In a site's place, with its key: announces what is no message, and sends it or does not."""
    state, stop = network.state(name), threading.Event()
    key = load_ssh_private_key((state / NODE_KEY_FILE).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    authority = (state / AUTHORITY_FILE).read_bytes()
    keys = key, key.public_key()

    def answer() -> None:
        with http_request_response(network.coordinator.address, False, authority, keys) as calls:
            TaskIdentity.node_id, receive, send, _, _, _, push_object, _ = calls
            while not stop.wait(0.3):
                if (asked := receive()) is None:
                    continue
                TaskIdentity.run_id = number = asked[0].metadata.run_id
                said = RecordDict({"config": ConfigRecord({"site": name})})
                with no_object_id_recompute():
                    reply = Message(said, reply_to=asked[0])
                    reply.metadata.__dict__["_message_id"] = said.object_id
                    wanted, session = send(reply, get_object_tree(said), 0.1)
                    parts = get_all_nested_objects(said)
                    for each in wanted if sends else ():
                        push_object(number, session, each, parts[each].deflate())

    with task_identity():
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)


@pytest.mark.parametrize(
    ("sends", "words"), [(True, "what was sent is no reply"), (False, "not online within")]
)
def test_a_site_that_sends_no_message_is_named_and_harms_no_other(
    network: LocalNetwork, out: str, sends: bool, words: str
) -> None:
    stop(network, VICTIM)
    with hostile(network, VICTIM, sends=sends):
        network.wait_online(VICTIM)
        code, said = finished(
            network.run(out, SETTINGS.replace("quorum_minutes = 1", "quorum_minutes = 0.4"))
        )
    assert code == 0, said
    (left,) = result_of(network, out).dropouts
    assert (left.site, left.step, words in left.reason) == (VICTIM, "hello", True)


# --- what a site refuses -------------------------------------------------------------------------


def test_an_app_that_was_not_approved_does_not_run_and_the_site_can_see_it(
    network: LocalNetwork, out: str
) -> None:
    consent = Consent(network.site(VICTIM) / MANIFEST_NAME)
    own = installed_bundle().sha256
    consent.decide(own, "rejected")
    try:
        code, said = finished(network.run(out, ALL))
    finally:
        consent.decide(own, "approved")
    assert code == 2
    assert f"{VICTIM} runs only app bundles that it approved" in said
    assert "refused by policy" in said
    result = network.folder / out / "tasks" / "approved" / "result.json"
    assert not result.exists()
    code, said = finished(network.command("site", "apps", str(network.site(VICTIM)), "--json"))
    plan = next(app["plan"] for app in json.loads(said) if app["sha256"] == own)
    assert (plan["task"], round(plan["epsilon"], 6)) == ("approved", 1.0)


def test_a_run_that_asks_for_more_epsilon_than_the_policy_allows_is_refused(
    network: LocalNetwork, out: str
) -> None:
    code, said = finished(network.run(out, ALL, "--epsilon", "4"))
    assert code == 2
    for name in network.names:
        assert f"site {name} refuses epsilon = 4" in said
        assert "max_epsilon = 3" in said


# --- disks ---------------------------------------------------------------------------------------


def test_a_site_without_room_to_write_is_named_and_nothing_is_charged_twice(
    network: LocalNetwork, out: str
) -> None:
    """What it keeps of runs lies on a disk of 12 kB, which an upload fills."""
    runs = network.state(VICTIM) / "runs"
    runs.mkdir(exist_ok=True)
    mount = 'mount -t tmpfs -o size=12k none "$0" && exec "$@"'
    if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this system gives no disks of our own")
    stop(network, VICTIM)
    network.start_site(VICTIM, ["unshare", "-rm", "sh", "-c", mount, str(runs)])
    network.wait_online(VICTIM)
    try:
        code, said = finished(network.run(out, SETTINGS))
    finally:
        stop(network, VICTIM)
    assert code == 0, said
    left = result_of(network, out).dropouts
    assert [dropout.site for dropout in left] == [VICTIM]
    assert f"site {VICTIM} could not answer" in left[0].reason
    assert_whole(network, out)


def test_the_audit_logs_are_intact_after_all_of_this(network: LocalNetwork) -> None:
    assert verify(network.coordinator.audit_log).seq > 10
    for name in network.names:
        file = audit_file(network.site(name))
        if file.exists():
            verify(file)


# --- the README ----------------------------------------------------------------------------------


def test_the_commands_of_the_readme_lead_from_nothing_to_a_trained_model(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = readme.split("### Over a network's own sites")[1]
    block = section.split("```bash\n")[1].split("```")[0]
    commands = [line for line in block.splitlines() if line.strip()]
    assert len(commands) <= 12
    (tmp_path / "experiments").symlink_to(Path(__file__).parents[1] / "experiments")
    script = "set -e\n" + block.replace("9092", str(free_port()))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "runs" / "deployed" / "results.json").read_text())
    assert results["engine"] == "deployment"
    assert len(results["tasks"]["approved"]["rounds"]) == 16
    assert "chain intact" in done.stdout
    assert (tmp_path / "runs" / "deployed" / "report.html").stat().st_size > 10_000
