"""An engine on Flower's simulation runtime: the same two apps, with processes of Ray as the sites.

A run has a SuperLink, a Flower home and a temporary folder of its own, listens on loopback only
and leaves no process behind. While it lasts, every user of the machine can reach its SuperLink:
simulate with public or synthetic data.
"""

import importlib.util
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w

from data_contracts.errors import GroundTruthError
from federation import process_tree
from federation.flower_processes import LOOPBACK, flower_environment, flower_program, free_port
from federation.identity import REGISTRY_FILE
from federation.plan import RunPlan
from federation.results import RunFailedError, read_result

_CONNECTION = "simulation"

_ENVIRONMENT = {
    # No proxy is asked for a loopback address.
    "NO_PROXY": LOOPBACK,
    "no_proxy": LOOPBACK,
    # Without a "cluster", all servers of Ray bind to loopback, on Linux too.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray's coming default; without it, Ray warns.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class SimulationUnavailableError(GroundTruthError):
    """Flower's simulation runtime cannot be used here."""


def run_on_simulation(
    plan: RunPlan,
    sites_folder: Path,
    result: Path,
    *,
    cpus: int = 2,
    timeout: float = 900,
    log: Path,
) -> None:
    """Run a plan on Flower's simulation runtime, one virtual node per site, and wait for its end.

    Args:
        plan: The run's plan.
        sites_folder: Folder with the folder of every site of the plan; the coordinator's registry
            of their public keys lies beside it.
        result: File for the result, see `read_result`; an older one is removed.
        cpus: Sites that compute at the same time, on one core each.
        timeout: Seconds for the whole run.
        log: File for what Flower and Ray say; overwritten.

    Raises:
        SimulationUnavailableError: Ray or the project's checkout is missing, or this is not Linux.
        SiteFailureError: The run failed for a reason that the message says.
        RunFailedError: The run left no result, or failed for a reason inside the product.
    """
    _require_runtime()
    app = _app_folder()
    deadline = time.monotonic() + timeout
    result.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    run_config = {
        "plan": plan.to_json(),
        "sites": str(sites_folder.resolve()),
        "result": str(result.resolve()),
        "registry": str((sites_folder.parent / REGISTRY_FILE).resolve()),
        "timeout": float(timeout),
    }
    # The prefix is short: sockets of Ray lie deep below this folder, and 107 bytes are their limit.
    with tempfile.TemporaryDirectory(prefix="gt") as folder, log.open("wb") as output:
        home, port = Path(folder), free_port()
        connection = {"address": f"{LOOPBACK}:{port}", "insecure": True}
        _write(home / "config.toml", {"superlink": {_CONNECTION: connection}})
        _write(home / "run.toml", run_config)
        # An empty folder to start in: Ray's workers import from there first.
        (home / "empty").mkdir()
        options: dict[str, Any] = {
            "cwd": home / "empty",
            "env": _environment(home),
            "stdout": output,
            "stderr": subprocess.STDOUT,
        }
        submit = [flower_program("flwr"), "run", str(app), _CONNECTION, "--stream"]
        submit += ["--run-config", str(home / "run.toml")]
        submit += ["--federation-config", _federation(len(plan.sites), cpus)]
        with suppress(subprocess.TimeoutExpired), _tree(_superlink(port), options) as superlink:
            if _answers(port, superlink, deadline):
                with _tree(submit, options) as run:
                    # Its exit code is 0 after failures too: the result decides.
                    run.wait(timeout=max(0.0, deadline - time.monotonic()))
    try:
        read_result(result)
    except RunFailedError as error:
        late = not result.exists() and time.monotonic() > deadline
        what = f"the simulation did not end within {timeout:.0f} s" if late else str(error)
        raise RunFailedError(f"{what}; {log} ends with\n{_tail(log)}") from None


def _require_runtime() -> None:
    if sys.platform != "linux":
        raise SimulationUnavailableError(
            "Flower's simulation runtime is used on Linux only, because elsewhere its processes "
            "could outlive a run; use the in-process engine"
        )
    if importlib.util.find_spec("ray") is None:
        raise SimulationUnavailableError(
            "Flower's simulation runtime needs Ray, which is not installed: "
            "pip install 'shared-ground-truth[simulation]'"
        )


def _app_folder() -> Path:
    """The project's checkout, which Flower bundles for the sites."""
    folder = Path(__file__).resolve().parents[1]
    project = folder / "pyproject.toml"
    if not project.is_file() or "[tool.flwr.app]" not in project.read_text(encoding="utf-8"):
        raise SimulationUnavailableError(
            f"{folder} is no checkout of the project, which Flower's simulation runtime needs: "
            "install with `pip install -e .` in one, or use the in-process engine"
        )
    return folder


def _environment(home: Path) -> dict[str, str]:
    ours = flower_environment(home, **_ENVIRONMENT, RAY_TMPDIR=str(home))
    # No Ray cluster that happens to run elsewhere.
    return {key: value for key, value in ours.items() if key != "RAY_ADDRESS"}


def _federation(nodes: int, cpus: int) -> str:
    return f"num-supernodes={nodes} init-args-num-cpus={cpus} client-resources-num-cpus=1"


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(tomli_w.dumps(content), encoding="utf-8")


def _superlink(port: int) -> list[str]:
    command = [flower_program("flower-superlink"), "--simulation", "--isolation", "subprocess"]
    command += ["--insecure", "--host", LOOPBACK, "--port", str(port)]
    return [*command, "--disable-runtime-dependency-installation"]


@contextmanager
def _tree(command: Sequence[str], options: Mapping[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A running command; in the end it and everything that it started are gone."""
    tree: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - fixed words and our own paths
        [sys.executable, "-I", process_tree.__file__, *command],
        stdin=subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is ours to handle
        **options,
    )
    try:
        yield tree
    finally:
        tree.communicate()  # closes its standard input, which ends it


def _answers(port: int, superlink: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait until the SuperLink listens; False if it ended or time is up."""
    while superlink.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return True
        time.sleep(0.1)
    return False


def _tail(log: Path) -> str:
    """The log's last lines, without colours and the SuperLink's record of requests."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace"))
    lines = [line for line in text.splitlines() if line.strip() and "[uvicorn." not in line]
    return "\n".join(lines[-12:])
