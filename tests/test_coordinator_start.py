"""What a coordinator's person sees where the network's server cannot start, or is not there."""

import io
import socket
import threading
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from data_contracts.errors import GroundTruthError
from experiments.cli import app
from experiments.network_status import network_status, print_status
from federation.deployment.coordinator import Coordinator
from federation.deployment.coordinator_service import serve
from federation.settings import ConfigError

ADDRESS = "federation.example.org:9092"


def test_a_port_in_use_is_named_and_waited_for(tmp_path: Path) -> None:
    stop, said = threading.Event(), []

    def say(text: str) -> None:
        said.append(text)
        stop.set()

    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        serve(Coordinator.init(tmp_path / "hub", "net-0001", ADDRESS, bind=bind), stop, say)
    settings = tmp_path / "hub" / "coordinator.toml"
    assert said == [
        f"another program listens at {bind}: end it, or set another bind in {settings}; "
        "trying again in 1 s"
    ]


def test_an_address_that_is_not_this_machines_is_named(tmp_path: Path) -> None:
    made = Coordinator.init(
        tmp_path / "hub", "net-0001", ADDRESS, bind="192.0.2.1:9092", exposed=True
    )  # RFC 5737
    with pytest.raises(GroundTruthError, match=r"192\.0\.2\.1:9092 cannot be listened at"):
        serve(made, threading.Event())


def test_the_status_of_a_network_that_is_down_says_what_to_type(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    made = Coordinator.init(tmp_path / "hub", "net-0001", ADDRESS, bind=bind)
    written = io.StringIO()
    print_status(network_status(made), Console(file=written, width=80))
    first = written.getvalue().splitlines()[0]
    assert first.endswith(
        f"does not run; start it with `groundtruth coordinator start {made.folder}`"
    )


def test_a_network_without_members_has_no_registry_to_hand_out(tmp_path: Path) -> None:
    made = Coordinator.init(tmp_path / "hub", "net-0001", ADDRESS)
    told = CliRunner().invoke(app, ["coordinator", "members", str(made.folder)]).output
    assert "peers.toml" not in told
    assert f"`groundtruth coordinator invite {made.folder} --site NAME`" in told


def test_a_coordinator_is_refused_where_the_engine_would_not_use_it(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('tasks = ["approved"]\n[data]\nname = "synthetic"\n', encoding="utf-8")
    ended = CliRunner().invoke(app, ["run", str(config), "--coordinator", str(tmp_path)])
    assert isinstance(ended.exception, ConfigError)
    assert "add --engine deployment" in str(ended.exception)
