"""A coordinator and its sites on this machine: the product's own processes, over TLS on loopback.

For benchmarks and tests. Whatever was started is ended with the `with` block.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from data_contracts.manifest import MANIFEST_NAME
from data_contracts.synthetic.generate import generate
from federation.deployment.bundles import Bundle, installed_bundle
from federation.deployment.consent import Consent
from federation.deployment.coordinator import Coordinator
from federation.deployment.coordinator_service import site_nodes, superlink_of
from federation.deployment.invitation import JoinRequest
from federation.deployment.members import Members
from federation.deployment.membership import join
from federation.deployment.pinning import pin
from federation.deployment.superlink import SuperLinkError
from federation.deployment.supervisor import die_with_parent, read_status
from federation.flower_processes import LOOPBACK, free_port
from federation.run_state import STATE_FOLDER

_PROGRAM: Final = Path(sys.executable).with_name("groundtruth")


@dataclass
class LocalNetwork:
    """A network of providers that all lie on this machine.

    Attributes:
        folder: Where everything lies.
        names: The sites.
        coordinator: The coordinator.
        processes: What runs: "coordinator", and sites by name.
    """

    folder: Path
    names: tuple[str, ...]
    coordinator: Coordinator
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def make(
        cls, folder: Path, *, requests: int = 1500, sites: int = 3, payers: int = 2, seed: int = 7
    ) -> "LocalNetwork":
        """Generate the sites' data, as private data, and let the sites join and be admitted."""
        network = folder / "network"
        generate(
            network,
            preset="seed_manual",
            n_requests=requests,
            n_payers=payers,
            n_providers=sites,
            seed=seed,
        )
        port = free_port()
        names = tuple(f"provider-{number:02}" for number in range(1, sites + 1))
        coordinator = Coordinator.init(
            folder / "coordinator",
            "local",
            f"{LOOPBACK}:{port}",
            sites=names,
            bind=f"{LOOPBACK}:{port}",
            payers=[f"payer-{number:02}" for number in range(1, payers + 1)],
        )
        made = cls(folder, names, coordinator)
        for name in names:
            manifest = made.site(name) / MANIFEST_NAME
            text = manifest.read_text(encoding="utf-8").replace('"synthetic"', '"private"')
            manifest.write_text(text, encoding="utf-8")
            joined = join(made.site(name), coordinator.invitation_file(name))
            Members(coordinator).admit(JoinRequest.load(joined.file))
        for name in names:
            pin(made.site(name), coordinator.peers_file)
            made.approve(name, installed_bundle())
        return made

    def site(self, name: str) -> Path:
        """The folder of a site."""
        return self.folder / "network" / "sites" / name

    def state(self, name: str) -> Path:
        """The state folder of a site."""
        return self.site(name) / STATE_FOLDER

    def approve(self, name: str, bundle: Bundle) -> None:
        """Approve an app bundle at a site."""
        consent = Consent(self.site(name) / MANIFEST_NAME)
        consent.offer(bundle, "")
        consent.decide(bundle.sha256, "approved")

    @contextmanager
    def running(self, *names: str) -> Iterator["LocalNetwork"]:
        """The coordinator and sites, all unless some are named, started and online."""
        try:
            self.start_coordinator()
            for name in names or self.names:
                self.start_site(name)
            self.wait_online(*(names or self.names))
            yield self
        finally:
            self.end()

    def start_coordinator(self) -> None:
        """Start the coordinator's service, and wait until it answers."""
        self._start("coordinator", ["coordinator", "start", str(self.coordinator.folder)])
        wait_for(self._answers, "the SuperLink answers", seconds=60)

    def start_site(self, name: str, prefix: Sequence[str] = ()) -> None:
        """Start a site's client; `prefix` is a command that runs it."""
        self._start(name, ["site", "start", str(self.site(name))], prefix)

    def wait_online(self, *names: str) -> None:
        """Wait until sites are connected."""

        def online() -> bool:
            nodes = site_nodes(self.coordinator, superlink_of(self.coordinator))
            return all(name in nodes and nodes[name].online for name in names)

        wait_for(online, f"{', '.join(names)} online", seconds=90)

    def pids(self, name: str) -> Mapping[str, int]:
        """Process -> id, of what a service keeps running."""
        folder = self.coordinator.state if name == "coordinator" else self.state(name)
        status = read_status(folder)
        return dict(status["processes"]) if status else {}

    def kill(self, name: str, process: str) -> None:
        """Kill a process of a service without a word."""
        os.kill(self.pids(name)[process], signal.SIGKILL)

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a groundtruth command in the network's folder."""
        return subprocess.Popen(  # noqa: S603 - our own program
            [str(_PROGRAM), *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, out: str, settings: str, *more: str) -> subprocess.Popen[str]:
        """Start a run with these settings (TOML)."""
        file = self.folder / f"{out}.toml"
        file.write_text(settings, encoding="utf-8")
        place = ["--engine", "deployment", "--coordinator", str(self.coordinator.folder)]
        return self.command("run", str(file), *place, "--out", str(self.folder / out), *more)

    def progress(self) -> dict[str, Any]:
        """What the run that is going on says of itself; empty if none is."""
        try:
            text = (self.coordinator.state / "run.json").read_text(encoding="utf-8")
            return dict(json.loads(text))
        except (OSError, ValueError):
            return {}

    def end(self) -> None:
        """End everything that was started."""
        for process in self.processes.values():
            process.terminate()
        for name, process in self.processes.items():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"{name} did not end when told to") from None
        self.processes.clear()

    def log(self, name: str) -> str:
        """What a service has said."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _start(self, name: str, arguments: Sequence[str], prefix: Sequence[str] = ()) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(  # noqa: S603 - our own program
                [*prefix, str(_PROGRAM), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _answers(self) -> bool:
        try:
            superlink_of(self.coordinator).nodes()
        except SuperLinkError:
            return False
        return True


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: It does not after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)
