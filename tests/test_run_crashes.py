"""Whole runs, killed at random moments: what left a site was charged there, and ledgers stay whole.

Coordinator and sites are one process here, so a kill takes all of them at once, whatever they are
doing. The ledger alone, and what a crash inside a write leaves, is in `test_ledger_crashes.py`.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from data_contracts.manifest import SiteManifest
from federation.enrolment import enrol
from federation.identity import REGISTRY_FILE
from federation.ledger import Charge, Ledger, ledger_file
from federation.plan import RunPlan
from federation.results import read_result

KILLS = 200
BUDGET = 1000.0

# Imports everything once, then forks a run for every line that it is sent. Before any code of the
# product sees it, whatever reaches the coordinator is written down.
SERVER = """
import json, os, signal, sys, time
from federation import strategy
from federation.client_app import app as client_app
from federation.in_process import run_in_process
from federation.secure_sum import Upload
from federation.server_app import app as server_app

received, nodes, config = json.loads(sys.stdin.readline())
log = os.open(received, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
decode, encode = strategy.decode_answer, strategy.encode_request

def encode_request(request):
    global run
    run = request.run
    return encode(request)

def decode_answer(content):
    answer = decode(content)
    assert isinstance(answer, Upload)
    os.write(log, f"{answer.site} {run} {answer.attempt.hex()}\\n".encode())
    return answer

strategy.decode_answer, strategy.encode_request = decode_answer, encode_request
for line in sys.stdin:
    if (worker := os.fork()) == 0:
        run_in_process(server_app, client_app, nodes, config)
        os._exit(0)
    if (kill_after := float(line)) >= 0:
        time.sleep(kill_after)
        os.kill(worker, signal.SIGKILL)
    _, status = os.waitpid(worker, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Runs:
    """Starts runs, one at a time."""

    def __init__(self, received: Path, files: list[Path], plan: RunPlan, result: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        config = {
            "plan": plan.to_json(),
            "result": str(result),
            "registry": str(files[0].parents[1] / REGISTRY_FILE),
            "timeout": 60.0,
        }
        nodes = [{"site": str(file)} for file in files]
        self._say(json.dumps([str(received), nodes, config]))

    def run(self, kill_after: float = -1.0) -> int:
        """Run once, to the end or, unless negative, to the kill; the exit code."""
        self._say(str(kill_after))
        return int(self._hear())

    def close(self) -> None:
        """End the server; every run has ended before."""
        self._process.communicate(timeout=60)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@pytest.fixture
def files(provider_folders: list[Path], tmp_path: Path) -> list[Path]:
    """Sites with private data and a budget for hundreds of runs."""
    files = []
    for folder in provider_folders:
        (tmp_path / folder.name).mkdir()
        manifest = dataclasses.replace(
            SiteManifest.load(folder), origin="private", budget_epsilon=BUDGET
        )
        files.append(manifest.write(tmp_path / folder.name))
    enrol([file.parent for file in files], tmp_path / REGISTRY_FILE)
    return files


@pytest.fixture
def plan(make_plan: Callable[..., RunPlan]) -> RunPlan:
    return make_plan(noise_seed=None)


@pytest.fixture
def runs(files: list[Path], plan: RunPlan, tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path / "received", files, plan, tmp_path / "result.json")
    yield runs
    runs.close()


def charges(file: Path) -> list[Charge]:
    """All charges of a site; the ledger is read and verified anew."""
    return [charge for _, charge in Ledger.existing(ledger_file(file.parent)).charges()]


def assert_sound(files: list[Path], received: Path) -> int:
    """Every ledger is whole and has a charge for whatever left its site; what left is counted."""
    lines = received.read_text().splitlines()
    for file in files:
        made = charges(file)
        assert len({charge.key for charge in made}) == len(made)
        charged = Counter(charge.run for charge in made)
        kept = (file.parent / "state" / "runs").glob("*/*.npy")  # ready to be sent again
        left = {(upload.parent.name, upload.stem) for upload in kept}
        for line in lines:
            site, run, attempt = line.split()
            if site == file.parent.name:
                left.add((run, attempt))
        assert Counter(run for run, _ in left) <= charged
    assert len(set(lines)) == len(lines)
    return len(lines)


@pytest.mark.slow
def test_no_kill_at_any_moment_of_a_run_releases_what_is_not_charged(
    runs: Runs, files: list[Path], plan: RunPlan, tmp_path: Path
) -> None:
    assert runs.run() == 0  # the first one waits for imports
    whole = len(charges(files[0]))
    assert whole == sum(step.rounds for step in plan.steps.values())
    began = time.perf_counter()
    assert runs.run() == 0
    seconds = time.perf_counter() - began

    before, cut = assert_sound(files, tmp_path / "received"), 0
    for moment in np.random.default_rng(4).uniform(0.0, 1.05 * seconds, KILLS):
        runs.run(kill_after=moment)
        cut += (found := assert_sound(files, tmp_path / "received")) - before < whole * len(files)
        before = found
    assert cut > KILLS // 2  # most kills hit a run at work

    # Nothing is left locked or half written: a run goes through, and every charge still counts.
    (tmp_path / "result.json").unlink()
    assert runs.run() == 0
    assert read_result(tmp_path / "result.json").model
    for file in files:
        made = charges(file)
        spent = Ledger.existing(ledger_file(file.parent)).spent()
        sides = {
            side: sum(charge.mu**2 for charge in made if charge.population == side)
            for side in plan.costs()
        }
        assert spent.mu_squared == pytest.approx(max(sides.values()), rel=1e-9)
        assert np.isfinite(spent.epsilon(1e-5))
        assert spent.epsilon(1e-5) < BUDGET
