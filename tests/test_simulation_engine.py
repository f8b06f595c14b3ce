"""Flower's simulation runtime: the same model as in one process, on loopback, nothing left over."""

import importlib.util
import io
import ipaddress
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from flwr.cli.build import build_fab_from_disk

from data_contracts.network import site_folders
from data_contracts.synthetic.generate import generate
from federation import client_app, process_tree, server_app, simulation
from federation.enrolment import enrol
from federation.identity import REGISTRY_FILE
from federation.in_process import run_in_process
from federation.plan import RunPlan
from federation.results import RunFailedError, read_result
from federation.settings import PrivacySettings
from federation.simulation import SimulationUnavailableError, run_on_simulation
from federation.strategy import SiteFailureError
from models.additive_training import AdditiveSettings
from models.tasks import TASKS

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray (extra [simulation]) is not installed"
)
CHECKOUT = Path(__file__).parents[1]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    folder = tmp_path / "network"
    generate(folder, preset="seed_manual", n_requests=3000, n_payers=3, n_providers=2, seed=1)
    enrol(site_folders(folder), folder / REGISTRY_FILE)
    return folder


@pytest.fixture
def plan(network: Path) -> RunPlan:
    names = [folder.name for folder in site_folders(network)]
    payers = tuple(name for name in names if name.startswith("payer"))
    return RunPlan(
        task="approved",
        payers=payers,
        providers=tuple(name for name in names if name not in payers),
        sites=tuple(name for name in names if name not in payers),
        privacy=PrivacySettings(),
        additive=AdditiveSettings(),
        split_key="test",
        test_share=0.2,
        contracts=TASKS["approved"].contracts,
        noise_seed=7,
    )


# --- what /proc says -----------------------------------------------------------------------------


def descendants() -> dict[int, str]:
    """Command line of every process below this one, zombies included."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found: dict[int, str] = {}
    todo = [os.getpid()]
    while todo:
        for pid in children.get(todo.pop(), []):
            try:
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
            except OSError:
                continue
            todo.append(pid)
    return found


def still_running(processes: dict[int, str]) -> dict[int, str]:
    left = {}
    for pid, line in processes.items():
        with suppress(OSError):
            if line and Path(f"/proc/{pid}/cmdline").read_text(errors="replace") == line:
                left[pid] = line
    return left


def listening(pids: set[int]) -> set[tuple[int, str]]:
    """Process and address of every TCP socket on which the processes listen."""
    sockets: dict[str, int] = {}
    for pid in pids:
        try:
            for link in Path(f"/proc/{pid}/fd").iterdir():
                sockets[os.readlink(link)] = pid
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            owner = sockets.get(f"socket:[{rest[5]}]")
            if state == "0A" and owner is not None:
                words = bytes.fromhex(local.partition(":")[0])
                order = np.frombuffer(words, dtype="<u4").astype(">u4")
                address = ipaddress.ip_address(order.tobytes())
                found.add((owner, str(getattr(address, "ipv4_mapped", None) or address)))
    return found


@contextmanager
def watching(look: Callable[[dict[int, str]], None]) -> Iterator[None]:
    """Call `look` with the processes below this one, again and again."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            look(descendants())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture
def nothing_left() -> Iterator[None]:
    before = descendants()
    yield
    left = {pid: line for pid, line in descendants().items() if pid not in before}
    assert not left


# --- whole runs ----------------------------------------------------------------------------------


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
def test_the_model_is_that_of_one_process_and_only_loopback_is_listened_on(
    plan: RunPlan, network: Path, tmp_path: Path
) -> None:
    programs: dict[int, str] = {}
    listeners: set[tuple[int, str]] = set()

    def look(processes: dict[int, str]) -> None:
        programs.update({pid: line for pid, line in processes.items() if line})
        listeners.update(listening(set(processes)))

    spread = tmp_path / "spread" / "result.json"
    with watching(look):
        run_on_simulation(plan, network / "sites", spread, timeout=300, log=tmp_path / "log")

    alone = tmp_path / "alone.json"
    nodes = [{"partition-id": number} for number in range(len(plan.sites))]
    run_config = {
        "plan": plan.to_json(),
        "sites": str(network / "sites"),
        "result": str(alone),
        "registry": str(network / REGISTRY_FILE),
        "timeout": 60.0,
    }
    run_in_process(server_app.app, client_app.app, nodes, run_config)
    ours, theirs = read_result(alone), read_result(spread)
    assert theirs.model.features == ours.model.features
    assert theirs.model.intercept == pytest.approx(ours.model.intercept, abs=1e-9)
    for feature, shape in zip(theirs.model.shapes, ours.model.shapes, strict=True):
        np.testing.assert_allclose(feature.log_odds, shape.log_odds, rtol=0, atol=1e-9)
    assert [record.step for record in theirs.rounds] == [record.step for record in ours.rounds]

    servers = [programs[pid] for pid, _ in listeners]
    for name in ("flower-superlink", "gcs_server", "raylet"):
        assert any(name in line for line in servers), f"{name} was not seen to listen"
    elsewhere = {
        (programs[pid], address)
        for pid, address in listeners
        if not ipaddress.ip_address(address).is_loopback
    }
    assert not elsewhere


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
def test_a_site_with_a_broken_table_fails_the_run_with_its_reason(
    plan: RunPlan, network: Path, tmp_path: Path
) -> None:
    table = network / "sites" / plan.sites[1] / "pa_request"
    for part in table.iterdir():
        part.write_bytes(b"this is not Parquet")
    result = tmp_path / "result.json"
    result.write_text("an older run's")
    with pytest.raises(SiteFailureError, match=rf"{plan.sites[1]}.*cannot be read as .parquet"):
        run_on_simulation(plan, network / "sites", result, timeout=300, log=tmp_path / "log")


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
def test_ctrl_c_ends_the_run_and_all_its_processes(
    plan: RunPlan, network: Path, tmp_path: Path
) -> None:
    interrupted = threading.Event()

    def look(processes: dict[int, str]) -> None:
        ray_runs = any("raylet" in line for line in processes.values())
        if ray_runs and not interrupted.is_set():
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), watching(look):
        run_on_simulation(
            plan, network / "sites", tmp_path / "result.json", timeout=300, log=tmp_path / "log"
        )
    assert not (tmp_path / "result.json").exists()


@needs_ray
@pytest.mark.usefixtures("nothing_left")
def test_a_run_that_does_not_end_in_time_is_ended_and_shows_its_log(
    plan: RunPlan, network: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with pytest.raises(RunFailedError, match="did not end within 5 s") as caught:
        run_on_simulation(plan, network / "sites", tmp_path / "result.json", timeout=5, log=log)
    assert str(log) in str(caught.value)
    assert "INFO" in str(caught.value)
    assert "\x1b" not in str(caught.value)


# --- what it needs, and what travels -------------------------------------------------------------


def test_without_ray_the_error_names_the_extra(
    plan: RunPlan, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SimulationUnavailableError, match=r"'shared-ground-truth\[simulation\]'"):
        run_on_simulation(plan, network, tmp_path / "result.json", log=tmp_path / "log")


@needs_ray
def test_without_a_checkout_the_error_says_so(
    plan: RunPlan, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "__file__", str(tmp_path / "federation" / "simulation.py"))
    with pytest.raises(SimulationUnavailableError, match="no checkout"):
        run_on_simulation(plan, network, tmp_path / "result.json", log=tmp_path / "log")


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # Flower's, not ours
def test_only_code_of_the_three_lower_floors_travels() -> None:
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(CHECKOUT))) as bundle:
        names = set(bundle.namelist())
    folders = ("data_contracts", "models", "federation")
    code = {
        str(file.relative_to(CHECKOUT))
        for top in folders
        for file in CHECKOUT.glob(f"{top}/**/*.py")
    }
    assert code <= names
    assert {name.partition("/")[0] for name in names} == {*folders, "pyproject.toml", ".info"}


# --- the process tree ----------------------------------------------------------------------------

ESCAPE = "setsid sh -c 'setsid sleep 600 & sleep 600' & sleep 0.3;"
"""Leaves processes in sessions of their own, one of which will be an orphan."""


def start_tree(script: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", process_tree.__file__, "sh", "-c", script], stdin=subprocess.PIPE
    )


@pytest.mark.usefixtures("nothing_left")
def test_a_tree_ends_with_its_command_and_has_its_exit_code() -> None:
    with start_tree(f"{ESCAPE} exit 3") as tree:
        assert tree.wait(timeout=30) == 3


@pytest.mark.usefixtures("nothing_left")
def test_a_tree_ends_when_its_input_closes_but_not_on_signals() -> None:
    with start_tree(f"{ESCAPE} sleep 600") as tree:
        while sum("sleep" in line for line in descendants().values()) < 4:
            time.sleep(0.05)
        tree.terminate()
        tree.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            tree.wait(timeout=0.5)
        tree.communicate(timeout=30)
        assert tree.returncode == 0


def test_a_tree_ends_when_whoever_started_it_is_killed() -> None:
    starter = (
        "import subprocess, sys, time;"
        "subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True);"
        "time.sleep(600)"
    )
    tree = [sys.executable, "-I", process_tree.__file__, "sh", "-c", f"{ESCAPE} sleep 600"]
    others = descendants()  # e.g. a database server of other tests
    with subprocess.Popen([sys.executable, "-c", starter, *tree]) as process:
        while sum("sleep\x00600" in line for line in descendants().values()) < 3:
            time.sleep(0.05)
        below = {pid: line for pid, line in descendants().items() if pid not in others}
        below.pop(process.pid)
        process.kill()
    deadline = time.monotonic() + 30
    while (left := still_running(below)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
