"""The privacy ledger among crashes, rival processes, full disks and closed folders."""

import errno
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from federation.ledger import (
    BudgetExceededError,
    Charge,
    Ledger,
    LedgerError,
    LedgerUnavailableError,
    ledger_file,
)

EPSILON, DELTA = 6.0, 1e-5

# A site at work: it charges and then releases, where a release is a line in a file as durable as
# the ledger. What it does is the same here and in the processes that get killed.
WORK = """
import os, signal, sys, time
from pathlib import Path
from federation.ledger import (
    AlreadyChargedError, BudgetExceededError, Charge, Ledger, LedgerError, Population,
)

def open_ledger(file):
    return Ledger.open(Path(file), site="provider-01", epsilon=6.0, delta=1e-5)

def charge(run, number, mu, attempt=1):
    return Charge(
        run=run, plan="fedcba98", purpose="training", task="approved", step="gradient",
        round=number, attempt=attempt, population=Population("k", 0.25, "train"),
        mechanism="Gaussian", n_values=9, sensitivity=1.0, noise_std=1.0 / mu, mu=mu,
    )

def work(file, releases, run, mu):
    ledger = open_ledger(file)
    out = os.open(releases, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while True:
        number += 1
        try:
            ledger.charge(charge(run, number, float(mu)))
        except AlreadyChargedError:
            continue
        os.write(out, f"{run} {number}\\n".encode())
        os.fsync(out)
"""
# Imports everything once, then forks a worker for every line that it is sent.
SERVER = """
for line in sys.stdin:
    if (worker := os.fork()) == 0:
        try:
            work(*line.split())
        except LedgerError as error:
            print(type(error).__name__, file=sys.stderr)
        time.sleep(60)  # until the kill
        os._exit(1)
    print(worker, flush=True)
    os.waitpid(worker, 0)
    print("dead", flush=True)
"""
_names: dict[str, object] = {}
exec(WORK, _names)  # noqa: S102 # the same lines as in the other processes


def charge(number: int, run: str = "0" * 8, mu: float = 0.05, attempt: int = 1) -> Charge:
    made = _names["charge"](run, number, mu, attempt)  # type: ignore[operator]
    assert isinstance(made, Charge)
    return made


def opened(file: Path) -> Ledger:
    return Ledger.open(file, site="provider-01", epsilon=EPSILON, delta=DELTA)


def assert_sound(file: Path, releases: Path) -> tuple[int, int]:
    """The ledger is whole, has paid for every release and kept its budget; charges and releases."""
    ledger = opened(file)
    charged = [(item.run, item.round) for _, item in ledger.charges()]
    lines = releases.read_text().splitlines() if releases.exists() else []
    released = [(run, int(number)) for run, number in (line.split() for line in lines)]
    assert len(set(released)) == len(released)
    assert set(released) <= set(charged)
    assert ledger.spent().epsilon(DELTA) <= EPSILON * (1 + 1e-9)
    return len(charged), len(released)


class Server:
    """Starts workers, one at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORK + SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_after(self, seconds: float, *words: object) -> None:
        """Let a worker work with these words for so long, and kill it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        worker = int(self.process.stdout.readline())
        time.sleep(seconds)
        os.kill(worker, signal.SIGKILL)
        assert self.process.stdout.readline() == "dead\n"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    _, errors = server.process.communicate(timeout=60)
    assert set(errors.split()) <= {"BudgetExceededError"}


@pytest.fixture
def one_charge(tmp_path: Path) -> float:
    """Seconds that a charge takes: disks differ, and kills shall hit charges, not idle time."""
    (tmp_path / "speed").mkdir()
    ledger = opened(ledger_file(tmp_path / "speed"))
    began = time.perf_counter()
    for number in range(1, 6):
        ledger.charge(charge(number))
    return (time.perf_counter() - began) / 5


@pytest.mark.slow
def test_no_kill_at_any_moment_loses_a_charge_or_locks_the_site_out(
    tmp_path: Path, server: Server, one_charge: float
) -> None:
    file, releases = ledger_file(tmp_path), tmp_path / "releases"
    rng = random.Random(20260101)  # noqa: S311 # moments, not secrets
    window, charged, released = max(0.02, 4 * one_charge), 0, 0
    for kill in range(200):
        server.kill_after(rng.uniform(0, window), file, releases, f"{kill:08x}", 0.05)
        charged, released = assert_sound(file, releases)
        assert charged - released <= kill + 1  # a kill wastes one charge at most
    assert released >= 50
    ledger = opened(file)
    for number in range(1, 1000):
        if not ledger.can_pay({charge(1).population: charge(1, mu=0.3).cost}):
            break
        ledger.charge(charge(number, mu=0.3))
    with pytest.raises(BudgetExceededError):
        ledger.charge(charge(1000, mu=0.3))
    assert_sound(file, releases)


def test_no_kill_while_a_ledger_is_made_locks_the_site_out(
    tmp_path: Path, server: Server, one_charge: float
) -> None:
    rng = random.Random(7)  # noqa: S311 # moments, not secrets
    found = set()
    for kill in range(40):
        site = tmp_path / f"{kill}"
        site.mkdir()
        file, releases = ledger_file(site), site / "releases"
        server.kill_after(rng.uniform(0, 2 * one_charge), file, releases, "f" * 8, 0.05)
        found.add((file.exists(), file.with_name("ledger.head").exists()))
        assert_sound(file, releases)
        opened(file).charge(charge(1))
    assert len(found) > 1


# Where the ledger itself syncs or renames: (re)making its folder, and every write of the head file.
@pytest.mark.parametrize("nth", range(1, 11))
def test_a_kill_between_entry_and_head_file_wastes_one_charge_at_most(
    tmp_path: Path, nth: int
) -> None:
    file, releases = ledger_file(tmp_path), tmp_path / "releases"
    trap = """
calls = 0
def trapped(call):
    def count(*words):
        global calls
        calls += 1
        if calls == int(sys.argv[5]):
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*words)
    return count
os.replace = trapped(os.replace)
import federation.ledger_chain
federation.ledger_chain.os = type("os", (), {**vars(os), "fsync": trapped(os.fsync)})
work(*sys.argv[1:5])
"""
    words = [*map(str, (file, releases)), "0" * 8, "0.05", str(nth)]
    done = subprocess.run([sys.executable, "-c", WORK + trap, *words], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    charged, released = assert_sound(file, releases)
    assert charged - released <= 1
    opened(file).charge(charge(charged + 1))
    assert_sound(file, releases)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_charge_whose_head_could_not_be_written_counts_and_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    file = ledger_file(tmp_path)
    ledger = opened(file)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"os.{failing}", full)
        for _ in range(3):  # and the next ones are not even made
            with pytest.raises(LedgerUnavailableError, match="No space left on device"):
                ledger.charge(charge(1))
    for book in (ledger, opened(file)):
        assert [item.round for _, item in book.charges()] == [1]
    with pytest.raises(LedgerError, match="charged gradient 1"):
        ledger.charge(charge(1))
    ledger.charge(charge(1, attempt=2))
    assert ledger.verify().seq == 3


# --- rivals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [("a" * 8, "b" * 8), ("c" * 8, "c" * 8)])
def test_two_processes_at_once_never_spend_more_than_the_budget_or_release_the_same_twice(
    tmp_path: Path, runs: tuple[str, str]
) -> None:
    file, releases, mu = ledger_file(tmp_path), tmp_path / "releases", 0.2
    opened(file)
    rival = """
print("ready", flush=True)
try:
    work(*sys.argv[1:])
except BudgetExceededError:
    print("refused")
"""
    with closing(sqlite3.connect(file, isolation_level=None)) as barrier:
        barrier.execute("BEGIN IMMEDIATE")
        rivals = [
            subprocess.Popen(
                [sys.executable, "-c", WORK + rival, *map(str, (file, releases, run, mu))],
                stdout=subprocess.PIPE,
                text=True,
            )
            for run in runs
        ]
        for process in rivals:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        barrier.execute("ROLLBACK")
    for process in rivals:
        assert process.communicate(timeout=120) == ("refused\n", None)
    charged, released = assert_sound(file, releases)
    assert charged == released >= 20
    with pytest.raises(BudgetExceededError):  # the budget was used up
        opened(file).charge(charge(1, mu=mu))


# --- disks and folders ------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [50, 700, 5000, 9000, 13000, 30000])
def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path, limit: int) -> None:
    file, releases = ledger_file(tmp_path), tmp_path / "releases"
    opened(file).charge(charge(1))
    limited = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[5]),) * 2)
try:
    work(*sys.argv[1:5])
except LedgerError as error:
    print(type(error).__name__, error)
"""
    words = [*map(str, (file, releases)), "a" * 8, "0.05", str(limit)]
    done = subprocess.run(
        [sys.executable, "-c", WORK + limited, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("LedgerUnavailableError")
    assert "full" in done.stdout or "large" in done.stdout
    assert "Nothing is released" in done.stdout
    charged, released = assert_sound(file, releases)
    assert charged - 1 - released <= 1
    opened(file).charge(charge(2))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of this machine can reach."""
    with tempfile.TemporaryDirectory(prefix="ledger-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("exists", [True, False])
def test_a_ledger_that_may_not_be_written_is_named(open_folder: Path, exists: bool) -> None:
    file = ledger_file(open_folder)
    if exists:  # it may be read, as by an auditor, but pays for nothing
        opened(file)
        file.chmod(0o444)
        file.parent.chmod(0o555)
    open_folder.chmod(0o555)
    closed = """
if os.geteuid() == 0:
    os.setuid(65534)  # nobody: the superuser may write everywhere
try:
    open_ledger(sys.argv[1]).charge(charge("a" * 8, 1, 0.05))
except LedgerError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", WORK + closed, str(file)], capture_output=True, text=True
    )
    open_folder.chmod(0o755)
    if exists:
        file.parent.chmod(0o755)
        assert len(opened(file).entries()) == 1
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("LedgerUnavailableError"), done.stdout
    assert "written" in done.stdout or "denied" in done.stdout
    assert f"the right to write in {file.parent}" in done.stdout


def test_a_site_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailableError, match=r"absent/state/ledger\.db cannot be used"):
        opened(ledger_file(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


def test_a_folder_in_the_place_of_the_ledger_is_named(tmp_path: Path) -> None:
    ledger_file(tmp_path).mkdir(parents=True)
    with pytest.raises(LedgerUnavailableError, match="cannot be opened"):
        opened(ledger_file(tmp_path))


def test_a_path_with_odd_characters_holds_a_ledger(tmp_path: Path) -> None:
    site = tmp_path / "a site? 100% #1 & ünï"
    site.mkdir()
    opened(ledger_file(site)).charge(charge(1))
    assert opened(ledger_file(site)).verify().seq == 2
    assert sorted(path.name for path in (site / "state").iterdir()) == ["ledger.db", "ledger.head"]


def test_entry_and_head_file_are_synced_before_a_charge_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(ledger_file(tmp_path))
    synced = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", record)
    head = ledger.charge(charge(1)).head
    assert synced == ["ledger.head.new", "state"]
    assert head.hash in (tmp_path / "state/ledger.head").read_text()
