"""How processes of Flower are started: which program, in which environment, on which port."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_QUIET: Final = {
    # Nothing phones home, and nothing is installed.
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def flower_environment(home: Path, **more: str) -> Mapping[str, str]:
    """Our environment without what could change which code runs, and with a Flower home.

    Args:
        home: Folder for whatever Flower keeps.
        more: Further variables.
    """
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', os.defpath)}"
    return own | _QUIET | {"PATH": path, "FLWR_HOME": str(home)} | more


def flower_program(name: str) -> str:
    """Flower's command of this name that belongs to the Python that runs."""
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    """A port of the loopback interface on which nobody listens just now."""
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])
