"""What happens at a coordinator and its sites stands in their audit logs; what cannot, does not."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from typer.testing import CliRunner

from data_contracts.manifest import SiteManifest
from experiments.cli import app
from federation.deployment.audit_log import AUDIT_FILE, AuditLogError, audit_file, show, verify
from federation.deployment.coordinator import Coordinator
from federation.deployment.invitation import JoinRequest
from federation.deployment.members import Members, UnknownMemberError
from federation.deployment.membership import join
from federation.deployment.pinning import pin
from federation.identity import REGISTRY_FILE, Identity, fingerprint
from federation.run_state import state_folder

ADDRESS = "federation.example.org:443"


@pytest.fixture
def site(provider_folders: list[Path], tmp_path: Path) -> Path:
    """Folder of a private site that knows nobody yet."""
    folder = tmp_path / "sites" / provider_folders[0].name
    folder.mkdir(parents=True)
    dataclasses.replace(SiteManifest.load(provider_folders[0]), origin="private").write(folder)
    return folder


@pytest.fixture
def coordinator(site: Path, tmp_path: Path) -> Coordinator:
    return Coordinator.init(tmp_path / "coordinator", "net-0001", ADDRESS, [site.name])


def entries(path: Path) -> list[dict[str, object]]:
    file = audit_file(path)
    verify(file)
    return list(show(file))


def facts(entry: dict[str, object], *names: str) -> tuple[object, ...]:
    return tuple(entry[name] for name in names)


def test_the_coordinators_log_tells_of_the_network_its_members_and_its_certificates(
    coordinator: Coordinator, site: Path
) -> None:
    request = join(site, coordinator.invitation_file(site.name), 1000).request
    members, old = Members(coordinator), coordinator.authority
    members.admit(request)
    members.revoke(site.name)
    coordinator.renew()
    coordinator.renew(authority=True)
    told = entries(coordinator.folder)
    assert {entry["actor"] for entry in told} == {"coordinator"}
    assert [entry["event"] for entry in told] == [
        "network created",
        "site admitted",
        "site revoked",
        *3 * ["certificate renewed"],
    ]
    digest = old.fingerprint(SHA256()).hex()
    assert facts(told[0], "network", "certificate") == ("net-0001", digest)
    key = fingerprint(request.public_key)
    assert facts(told[1], "site", "key") == facts(told[2], "site", "key") == (site.name, key)
    server = coordinator.server
    assert facts(told[-1], "certificate", "until") == (
        server.fingerprint(SHA256()).hex(),
        f"{server.not_valid_after_utc:%Y-%m-%d}",
    )


def test_a_sites_log_tells_whom_it_has_joined_and_believed(
    coordinator: Coordinator, site: Path
) -> None:
    Members(coordinator).admit(join(site, coordinator.invitation_file(site.name), 1000).request)
    pin(site, coordinator.peers_file)
    joined, pinned = entries(site)
    assert joined["actor"] == pinned["actor"] == f"site {site.name}"
    own = Identity.load_or_create(state_folder(site / "site.toml") / "identity.pem")
    assert facts(joined, "event", "network", "key") == (
        "invitation joined",
        "net-0001",
        fingerprint(own.public_key),
    )
    assert facts(pinned, "event", "sites") == ("peers pinned", 1)


def test_what_is_refused_leaves_no_entry_as_if_it_had_happened(
    coordinator: Coordinator, site: Path
) -> None:
    with pytest.raises(UnknownMemberError):
        Members(coordinator).revoke(site.name)
    assert [entry["event"] for entry in entries(coordinator.folder)] == ["network created"]


def test_what_cannot_be_logged_is_not_done(coordinator: Coordinator, site: Path) -> None:
    invitation = coordinator.invitation_file(site.name)
    request = join(site, invitation, 1000).request
    members = Members(coordinator)
    members.admit(request)
    before = coordinator.members_file.read_bytes()
    for log in (coordinator.audit_log, site / "state" / AUDIT_FILE):
        log.write_text("not an entry\n")
    calls: list[Callable[[], object]] = [
        lambda: members.revoke(site.name),
        lambda: members.admit(request, replace=True),
        lambda: pin(site, coordinator.peers_file),
        lambda: join(site, invitation, 2000),
    ]
    for call in calls:
        with pytest.raises(AuditLogError, match="not what was written"):
            call()
    assert coordinator.members_file.read_bytes() == before
    assert not (site / "state" / REGISTRY_FILE).exists()
    kept = JoinRequest.load(site / f"{site.name}.join.toml")
    assert kept.patients == 1000


# --- commands -------------------------------------------------------------------------------------


def typed(*arguments: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def test_init_join_and_renew_write_the_files_of_services(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "coordinator"
    made = typed("coordinator", "init", folder, "--address", ADDRESS, "--site", site.name)
    assert f"to run it as a service: {folder}/deploy/" in made
    nginx = folder / "deploy" / "nginx.conf"
    assert "listen 0.0.0.0:443 ssl;" in nginx.read_text()
    settings = folder / "coordinator.toml"
    settings.write_text(settings.read_text().replace(ADDRESS, "federation.example.org:8443"))
    typed("coordinator", "renew", folder)
    assert "listen 0.0.0.0:8443 ssl;" in nginx.read_text()
    settings.write_text(
        settings.read_text().replace("federation.example.org:8443", "127.0.0.1:9092")
    )
    typed("coordinator", "renew", folder)
    assert not nginx.exists()  # sites reach the SuperLink itself: nginx would have its port
    joined = typed("site", "join", site, folder / "invitations" / f"{site.name}.toml")
    assert f"to run it as a service: {site}/deploy/groundtruth-site.service" in joined
    assert f"site start {site}\n" in (site / "deploy" / "groundtruth-site.service").read_text()


def test_why_there_are_no_files_of_services_is_told_and_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "one port twice"
    made = typed("coordinator", "init", folder, "--address", "example.org:9092")
    assert "no files to run it as a service were written: nginx would listen on" in made
    assert 'set [server] bind = "127.0.0.1:9093"' in made
    assert not (folder / "deploy").exists()
    Coordinator.load(folder)


def test_the_status_of_a_site_that_does_not_run_ends_with_exit_code_1(
    coordinator: Coordinator, site: Path
) -> None:
    join(site, coordinator.invitation_file(site.name), 1000)
    told = typed("site", "status", site, code=1)
    assert f"site {site.name} in network net-0001: the client does not run" in told
    assert f"coordinator at {ADDRESS}, not reached yet" in told
    assert "every run is refused" in told
    typed("site", "approve", site, "--installed")
    shown = json.loads(typed("site", "status", site / "site.toml", "--json", code=1))
    assert (shown["running"], shown["service"], shown["spent"]) == (False, None, 0.0)
    assert len(shown["apps_approved"]) == 1


# --- services -------------------------------------------------------------------------------------


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts commands of ours; whatever still runs at the end is ended."""
    running = []

    def begin(*arguments: str | Path) -> subprocess.Popen[bytes]:
        code = "from experiments.cli import main; main()"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        path = os.pathsep.join(each for each in sys.path if each)
        running.append(subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}))
        return running[-1]

    yield begin
    for process in running:
        process.terminate()
        process.wait(30)


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.3)


@pytest.mark.slow
def test_services_log_their_start_and_end_and_the_status_tells_how_they_are(
    site: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    folder = tmp_path / "coordinator"
    made = Coordinator.init(folder, "net-0001", address, [site.name], bind=address)
    Members(made).admit(join(site, made.invitation_file(site.name), 1000).request)
    pin(site, made.peers_file)

    def status(of: str, where: Path) -> dict[str, object]:
        done = CliRunner().invoke(app, [of, "status", str(where), "--json"])
        return {"exit code": done.exit_code, **json.loads(done.output)}

    coordinator = start("coordinator", "start", folder)
    wait_for(lambda: status("coordinator", folder)["exit code"] == 0)
    client = start("site", "start", site)
    wait_for(lambda: status("site", site)["exit code"] == 0)
    seen = status("site", site)
    assert (seen["running"], seen["problem"]) == (True, "")
    assert str(seen["certificate_expires"])[:10] == f"{made.server.not_valid_after_utc:%Y-%m-%d}"
    wait_for(lambda: bool(status("coordinator", folder)["sites"][0]["online"]))  # type: ignore[index]
    for process in (client, coordinator):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert status("site", site)["exit code"] == 1
    for path in (site, folder):
        *_, begun, ended = entries(path)
        assert (begun["event"], ended["event"]) == ("service started", "service stopped")
        assert ended["restarts"] == 0
