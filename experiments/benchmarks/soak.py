"""A run of many rounds in which sites are killed all the time: is anything lost, does memory grow?

    python -m experiments.benchmarks.soak [--rounds 200] [--every 10] [--seed 7]

Real processes over TLS on loopback. About every tenth round one process of a site, drawn from the
seed, is killed without a word. In the end every ledger must hold each release of the run exactly
once, and the run must have a result; otherwise the exit code is 1.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.benchmarks.local_network import LocalNetwork
from federation.ledger import Ledger, ledger_file
from federation.results import read_result

_OTHER_STEPS = 4  # histogram, gram, recalibration, evaluation
_KINDS = ("run", "superlink", "supernode", "executor")  # an executor's app process included


def main() -> None:
    """Run, kill, check, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)  # noqa: S311 - which process dies is no secret
    settings = (
        'tasks = ["approved"]\n[privacy]\nretries = 50\n[additive]\n'
        f"gradient_rounds = {asked.rounds - _OTHER_STEPS}\n[deployment]\nask_again_seconds = 3\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        network = LocalNetwork.make(Path(folder), sites=4)
        with network.running():
            begun = time.monotonic()
            running = network.run("run", settings)
            kills: Counter[str] = Counter()
            memory: list[dict[str, float]] = []
            due, seen = asked.every, -1
            while running.poll() is None:
                time.sleep(0.2)
                done = network.progress().get("done", -1)
                if done > seen:
                    seen = done
                    memory.append({"round": done, **_memory(network, running.pid)})
                if done >= due:
                    due += asked.every + draw.randint(-2, 2)
                    name = draw.choice(network.names)
                    process = draw.choice(["supernode", "executor"])
                    if process in network.pids(name):
                        network.kill(name, process)
                        kills[process] += 1
            said = running.communicate()[0]
            seconds = time.monotonic() - begun
        if running.returncode:
            sys.exit(f"the run failed:\n{said}")
        result = read_result(network.folder / "run" / "tasks" / "approved" / "result.json")
        faults = {name: _faults(network.site(name), result.run) for name in network.names}
    rounds = len(result.rounds)
    retried = sum(record.retries for record in result.rounds)
    back = sum(bool(dropout.back) for dropout in result.dropouts)
    print(f"{rounds} rounds in {seconds:.0f} s ({seconds / rounds:.2f} s each)")  # noqa: T201
    print(f"killed: {dict(kills)}; sites dropped {len(result.dropouts)}, back {back}; "  # noqa: T201
          f"rounds repeated {retried}")  # fmt: skip
    warm = memory[len(memory) // 4 :]
    for kind in _KINDS:
        values = [each[kind] for each in warm]
        slope = np.polynomial.Polynomial.fit([each["round"] for each in warm], values, 1)
        print(  # noqa: T201
            f"memory of {kind}: {values[0]:.0f} MB after {warm[0]['round']:.0f} rounds, "
            f"{values[-1]:.0f} MB at the end, slope {1000 * slope.deriv()(0):.1f} kB a round"
        )
    print(f"releases charged other than once: {sum(faults.values())}")  # noqa: T201
    if rounds != asked.rounds or sum(faults.values()):
        sys.exit(1)


def _faults(site: Path, run: str) -> int:
    """Releases of the run that a site's ledger holds more than once."""
    charges = Ledger.existing(ledger_file(site)).charges()
    names: Mapping[tuple[str, int], int] = Counter(
        (charge.step, charge.round) for _, charge in charges if charge.run == run
    )
    return sum(times != 1 for times in names.values())


def _memory(network: LocalNetwork, run: int) -> dict[str, float]:
    """Memory of each kind of process that no file backs, in MB."""
    kinds = {run: "run"}
    for name in ("coordinator", *network.names):
        kinds |= {pid: kind for kind, pid in network.pids(name).items()}
    found = dict.fromkeys(_KINDS, 0.0)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            status = (folder / "status").read_text(encoding="ascii")
        except OSError:
            continue
        kind = kinds.get(int(folder.name)) or kinds.get(parent)
        if kind and "RssAnon:" in status:
            size = int(status.partition("RssAnon:")[2].split()[0]) * 1024 / 1e6
            found[kind] += size
    return found


if __name__ == "__main__":
    main()
