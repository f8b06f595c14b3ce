"""`groundtruth coordinator start`: a SuperLink that knows the network's members, and no others."""

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)

from federation.deployment.addresses import Address
from federation.deployment.audit_entry import Event
from federation.deployment.certificates import days_left
from federation.deployment.coordinator import Coordinator, CoordinatorError
from federation.deployment.coordinator_settings import SETTINGS_FILE
from federation.deployment.members import Members
from federation.deployment.superlink import (
    Node,
    SuperLink,
    SuperLinkError,
    SuperLinkUnreachableError,
)
from federation.deployment.supervisor import Process, Supervisor, only_one
from federation.flower_processes import flower_environment, flower_program

logger = logging.getLogger("groundtruth.service")

_MEMBERS_SECONDS: Final = 5.0
_START_SECONDS: Final = 60.0
_CERTIFICATES_SECONDS: Final = 24 * 3600.0


class PortInUseError(CoordinatorError):
    """Another program listens where the SuperLink is to listen."""


def serve(
    coordinator: Coordinator, stop: threading.Event, say: Callable[[str], None] = logger.info
) -> None:
    """Keep the network's SuperLink running until told to stop.

    Raises:
        GroundTruthError: It cannot start.
    """
    with only_one(coordinator.state, "coordinator"):
        service = _Service(coordinator, say)
        supervisor = Supervisor(
            service.processes,
            coordinator.state,
            tick=service.look_after,
            say=say,
            wait_for=(PortInUseError,),  # what a killed coordinator has left ends in a moment
        )
        coordinator.log.append(Event.SERVICE_STARTED)
        try:
            supervisor.run(stop)
        finally:
            coordinator.log.append(Event.SERVICE_STOPPED, restarts=supervisor.restarts)


def superlink_of(coordinator: Coordinator) -> SuperLink:
    """The coordinator's SuperLink, for tools on the same machine."""
    return SuperLink(
        coordinator.bind,
        coordinator.ca_certificate.read_bytes(),
        coordinator.runtime_secret.read_bytes(),
    )


def site_nodes(coordinator: Coordinator, link: SuperLink) -> dict[str, Node]:
    """The node of every active member that has one at the SuperLink."""
    by_key = {_spelt(node.public_key): node for node in link.nodes()}
    return {
        site: by_key[key]
        for site, member in Members(coordinator).active().items()
        if (key := _spelt(member.node_key.encode())) in by_key
    }


class _Service:
    def __init__(self, coordinator: Coordinator, say: Callable[[str], None]) -> None:
        self._coordinator, self._say = coordinator, say
        self._members_due = self._certificates_due = self._ready_by = 0.0
        self._listens = False

    def processes(self) -> list[Process]:
        """The SuperLink, if its certificate is good and its port free.

        Raises:
            CoordinatorError: The certificate has expired.
            PortInUseError: Somebody listens there already.
        """
        coordinator = Coordinator.load(self._coordinator.folder)  # as it is today
        if days_left(coordinator.server) < 0:
            day = coordinator.server.not_valid_after_utc.date()
            raise CoordinatorError(
                f"the server's certificate expired on {day}, and no site would connect: "
                f"groundtruth coordinator renew {coordinator.folder}"
            )
        _require_free(coordinator)
        self._coordinator = coordinator
        self._members_due, self._listens = 0.0, False
        self._ready_by = time.monotonic() + _START_SECONDS
        host, _, port = coordinator.bind.rpartition(":")
        command = [flower_program("flower-superlink")]
        command += ["--ssl-ca-certfile", str(coordinator.ca_certificate)]
        command += ["--ssl-certfile", str(coordinator.server_certificate)]
        command += ["--ssl-keyfile", str(coordinator.server_key)]
        command += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        command += ["--isolation", "process"]
        command += ["--superexec-auth-secret-file", str(coordinator.runtime_secret)]
        command += ["--database", str(coordinator.database)]
        command += ["--host", host.strip("[]"), "--port", port]
        return [Process("superlink", command, flower_environment(coordinator.state / "flower"))]

    def look_after(self) -> None:
        """Bring the SuperLink's nodes in line with members.toml, and look at the certificates.

        Raises:
            GroundTruthError: That is not possible just now.
        """
        now = time.monotonic()
        if now >= self._certificates_due:
            self._certificates_due = now + _CERTIFICATES_SECONDS
            for warning in self._coordinator.warnings():
                self._say(warning)
        if now >= self._members_due:
            self._members_due = now + 1.0  # where it fails
            try:
                self._admit(superlink_of(self._coordinator))
            except SuperLinkUnreachableError:
                if now > self._ready_by:
                    raise
                return  # it takes a while to start
            if not self._listens:
                self._listens = True
                network, bind = self._coordinator.network, self._coordinator.bind
                self._say(f"network {network}: the engine listens at {bind}")
            self._members_due = now + _MEMBERS_SECONDS

    def _admit(self, link: SuperLink) -> None:
        members = Members(self._coordinator).all()
        names = {_spelt(member.node_key.encode()): site for site, member in members.items()}
        wanted = {key: site for key, site in names.items() if not members[site].revoked}
        known = {_spelt(node.public_key): node for node in link.nodes()}
        for key in known.keys() - wanted.keys():
            link.unregister(known[key].node_id)
            who = f"site {names[key]}" if key in names else "a node with keys of no member"
            self._say(f"{who} was shut out")
        for key in wanted.keys() - known.keys():
            try:
                link.register(key, wanted[key])
            except SuperLinkError as error:
                # A key that was shut out once never comes back, here or in members.toml.
                raise SuperLinkError(f"site {wanted[key]} cannot be let in: {error}") from None
            self._say(f"site {wanted[key]} may connect")


def _require_free(coordinator: Coordinator) -> None:
    address = Address.parse(coordinator.bind)
    family = socket.AF_INET6 if address.ip and address.ip.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed a moment ago is free
        try:
            trial.bind((address.host, address.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise CoordinatorError(
                    f"{coordinator.bind} cannot be listened at ({error.strerror}): set another "
                    f"bind in {coordinator.folder / SETTINGS_FILE}"
                ) from None
            raise PortInUseError(
                f"another program listens at {coordinator.bind}: end it, or set another bind in "
                f"{coordinator.folder / SETTINGS_FILE}"
            ) from None


def _spelt(key: bytes) -> bytes:
    """A public key in the one spelling that Flower uses: PEM."""
    read = load_ssh_public_key if key.startswith(b"ecdsa-") else load_pem_public_key
    return read(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
