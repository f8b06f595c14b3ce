"""`groundtruth site start`: a SuperNode, and the executor that runs approved apps for it."""

import json
import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from data_contracts.manifest import MANIFEST_NAME, SiteManifest
from federation.deployment.addresses import Address
from federation.deployment.audit_entry import Event
from federation.deployment.audit_log import site_log
from federation.deployment.certificates import make_authority, make_server
from federation.deployment.consent import Consent
from federation.deployment.membership import (
    AUTHORITY_FILE,
    NODE_KEY_FILE,
    Membership,
    state_of,
)
from federation.deployment.node import NotAdmittedError, sign_off
from federation.deployment.server_check import UnreachableError, check_server
from federation.deployment.supervisor import Process, ServiceError, Supervisor, only_one
from federation.flower_processes import LOOPBACK, flower_environment, free_port
from federation.identity import IDENTITY_FILE, REGISTRY_FILE, Identity, Registry
from federation.private_files import private_folder, read_private, write_whole

logger = logging.getLogger("groundtruth.service")

SERVER_FILE: Final = "coordinator-seen.json"
"""When the coordinator's certificate expires, as this site has seen it last."""

_SECRET_FILE: Final = "runtime.secret"  # noqa: S105 - a name
_CHECK_SECONDS: Final = 24 * 3600.0


def serve(
    site_folder: Path, stop: threading.Event, say: Callable[[str], None] = logger.info
) -> None:
    """Keep a site's client running until told to stop.

    Raises:
        GroundTruthError: It cannot start, for a reason that the message says.
    """
    service, log = _Service(site_folder, say), site_log(site_folder)
    with only_one(service.state, "site"):
        supervisor = Supervisor(
            service.processes,
            service.state,
            tick=service.look_after,
            say=say,
            wait_for=(UnreachableError, NotAdmittedError),
        )
        log.append(Event.SERVICE_STARTED)
        try:
            supervisor.run(stop)
        finally:
            log.append(Event.SERVICE_STOPPED, restarts=supervisor.restarts)


def undecided_apps(manifest_file: Path) -> dict[str, str]:
    """SHA-256 of every app bundle that waits for a decision -> what to tell people about it."""
    site = manifest_file.parent
    return {
        offer.sha256: f"app bundle {offer.sha256[:16]} waits for a decision, and its runs are "
        f"refused: `groundtruth site apps {site} {offer.sha256[:16]}` shows it"
        for offer in Consent(manifest_file).offers()
        if offer.decision == "undecided"
    }


class _Service:
    def __init__(self, site_folder: Path, say: Callable[[str], None]) -> None:
        self.state = state_of(site_folder.resolve())
        self._manifest_file = self.state.parent / MANIFEST_NAME
        self._say = say
        self._check_due = 0.0
        self._told: set[str] = set()

    def processes(self) -> list[Process]:
        """The SuperNode and the executor, if the coordinator lets this site in.

        Raises:
            GroundTruthError: It does not, or something is missing here.
        """
        manifest = SiteManifest.load(self._manifest_file)
        membership = Membership.load(self._manifest_file)
        private_folder(self.state)
        authority, key = self.state / AUTHORITY_FILE, self.state / NODE_KEY_FILE
        read_private(key, "this site's private key towards the coordinator", _NEW_KEYS)
        self._check_peers(manifest.name)
        self._look_at_server(membership)
        sign_off(membership.address, authority.read_bytes(), key, self.state)
        secret = self.state / _SECRET_FILE
        write_whole(secret, secrets.token_bytes(32), mode=0o600)
        port = free_port()
        environment = flower_environment(self.state / "flower")
        node = [sys.executable, "-m", "federation.deployment.supernode"]
        node += ["--superlink", membership.address]
        node += ["--root-certificates", str(authority), "--auth-supernode-private-key", str(key)]
        node += ["--isolation", "process", "--superexec-auth-secret-file", str(secret)]
        node += ["--host", LOOPBACK, "--port", str(port)]
        runtime_authority, certificate, private_key = self._runtime_certificate(port)
        node += ["--ssl-ca-certfile", str(runtime_authority)]
        node += ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(private_key)]
        executor = [sys.executable, "-m", "federation.deployment.executor"]
        executor += [str(self._manifest_file), f"{LOOPBACK}:{port}", str(secret)]
        executor += [str(runtime_authority)]
        self._say(f"site {manifest.name} connects to {membership.address}")
        return [
            Process("supernode", node, environment),
            Process("executor", executor, environment),
        ]

    def _runtime_certificate(self, port: int) -> tuple[Path, Path, Path]:
        """An authority's certificate, and the SuperNode's under it with its key, for the executor.

        Whoever is logged in to this machine sees the port, and may be quicker to listen there.
        """
        files = tuple(self.state / f"runtime{suffix}" for suffix in (".ca.crt", ".crt", ".key"))
        authority = make_authority("runtime")  # its key is needed once
        made = make_server(authority, Address(LOOPBACK, port))
        write_whole(files[0], authority.certificate)
        write_whole(files[1], made.certificate)
        write_whole(files[2], made.key, mode=0o600)
        return files[0], files[1], files[2]

    def look_after(self) -> None:
        """Tell of app bundles to decide on; once a day, of what will keep this site away."""
        undecided = undecided_apps(self._manifest_file)
        for sha256 in undecided.keys() - self._told:
            self._say(undecided[sha256])
        self._told |= undecided.keys()
        if time.monotonic() >= self._check_due:
            self._look_at_server(Membership.load(self._manifest_file))

    def _look_at_server(self, membership: Membership) -> None:
        self._check_due = time.monotonic() + _CHECK_SECONDS
        checked = check_server(membership.address, self.state / AUTHORITY_FILE)
        for warning in checked.warnings:
            self._say(warning)
        seen = {"expires": checked.expires.isoformat(), "seen": datetime.now(UTC).isoformat()}
        write_whole(self.state / SERVER_FILE, json.dumps(seen).encode())

    def _check_peers(self, site: str) -> None:
        """Make sure that this site has pinned the network's keys, and its own among them.

        Raises:
            ServiceError: It has not.
        """
        identity = Identity.load_or_create(self.state / IDENTITY_FILE)
        peers = self.state / REGISTRY_FILE
        if not peers.exists():
            raise ServiceError(
                f"site {site} has not pinned the other sites' keys: groundtruth site pin "
                f"{self.state.parent} PEERS, with the peers.toml that the coordinator hands out"
            )
        if Registry.load(peers).keys.get(site) != identity.public_key:
            raise ServiceError(
                f"the pinned registry has another key for site {site} than its own: the site has "
                "new keys, or has pinned before it was admitted. Get the coordinator's peers.toml "
                f"of today, and groundtruth site pin {self.state.parent} PEERS"
            )


_NEW_KEYS = "make new keys with `groundtruth site join --new-keys`"
