"""Wall time of a run over real processes and TLS on loopback, and where it goes.

    python -m experiments.benchmarks.deployment [--requests 60000] [--sites 3]

The same plan is then run in one process over the same tables; what that takes is computing, the
rest is Flower's polling and transport.
"""

import argparse
import tempfile
import time
from pathlib import Path

from data_contracts.manifest import MANIFEST_NAME
from experiments.benchmarks.local_network import LocalNetwork
from federation import client_app, server_app
from federation.in_process import run_in_process
from federation.results import read_result

_SETTINGS = 'tasks = ["approved"]\n'


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--sites", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        network = LocalNetwork.make(Path(folder), requests=asked.requests, sites=asked.sites)
        begun = time.monotonic()
        with network.running():
            online = time.monotonic() - begun
            begun = time.monotonic()
            running = network.run("run", _SETTINGS)
            said, _ = running.communicate()
            wall = time.monotonic() - begun
        if running.returncode:
            raise SystemExit(said)
        place = network.folder / "run" / "tasks" / "approved"
        rounds = read_result(place / "result.json").rounds
        in_process = _in_process(network, place / "plan.json")
    exchanges = sum(record.seconds for record in rounds)
    print(f"{asked.requests:,} requests, {asked.sites} sites")  # noqa: T201
    for what, seconds in {
        "start of the coordinator and all sites": online,
        "run, from command to report": wall,
        f"  {len(rounds)} exchanges": exchanges,
        "    a median one": sorted(record.seconds for record in rounds)[len(rounds) // 2],
        "  start, greeting, report, tracking": wall - exchanges,
        "the same in one process": in_process,
        "Flower's polling and transport": exchanges - in_process,
    }.items():
        print(f"{what:42}{seconds:8.1f} s")  # noqa: T201


def _in_process(network: LocalNetwork, plan: Path) -> float:
    nodes = [{"site": str(network.site(name) / MANIFEST_NAME)} for name in network.names]
    run_config: dict[str, bool | float | int | str] = {
        "plan": plan.read_text(encoding="utf-8"),
        "result": str(network.folder / "in-process.json"),
        "registry": str(network.coordinator.peers_file),
        "timeout": 600.0,
    }
    begun = time.monotonic()
    run_in_process(server_app.app, client_app.app, nodes, run_config)
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
