"""A coordinator's folder: made by `groundtruth coordinator init`, opened by all other commands."""

import secrets
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from data_contracts.errors import GroundTruthError
from federation.deployment.addresses import Address
from federation.deployment.audit_entry import Event
from federation.deployment.audit_log import AuditLog
from federation.deployment.certificates import (
    CertificateError,
    Issued,
    expiry_warnings,
    make_authority,
    make_server,
    names_in,
    read_authority,
    read_certificate,
)
from federation.deployment.coordinator_folder import CoordinatorFolder
from federation.deployment.coordinator_settings import (
    DEFAULT_BIND,
    DEFAULT_MULTIPLICITY,
    SETTINGS_FILE,
    CoordinatorSettings,
    NetworkSettings,
    ServerSettings,
)
from federation.deployment.handed_files import release
from federation.deployment.invitation import (
    INVITATION_SUFFIX,
    Invitation,
    Invited,
    held_contracts,
)
from federation.private_files import private_folder, read_private, write_whole
from federation.settings import ConfigError, parse

_SECRET_BYTES: Final = 32


class CoordinatorError(GroundTruthError):
    """A coordinator's folder cannot be made or used."""


@dataclass(frozen=True, slots=True)
class Coordinator(CoordinatorFolder):
    """A coordinator's folder with its settings.

    Attributes:
        settings: What its coordinator.toml says.
    """

    settings: CoordinatorSettings

    @classmethod
    def init(
        cls,
        folder: Path,
        network: str,
        address: str,
        sites: Iterable[str] = (),
        bind: str = "",
        multiplicity: int = DEFAULT_MULTIPLICITY,
        payers: Iterable[str] = (),
        providers: Iterable[str] = (),
        *,
        exposed: bool = False,
    ) -> "Coordinator":
        """Make a coordinator's folder, with new keys and an invitation for each site.

        Args:
            folder: Where; made if it is not there.
            network: The network's identifier; "" makes one.
            address: HOST:PORT at which sites reach the coordinator.
            sites: Sites to invite, each `NAME` or `NAME:ROLE`.
            bind: HOST:PORT at which the engine listens; "" is the address itself where that is this
                machine's own (no proxy stands between), and DEFAULT_BIND elsewhere.
            multiplicity: Sites at which a patient may stand.
            payers: Payers that stand in the sites' tables, members aside.
            providers: Providers, likewise.
            exposed: Whether `bind` may be reached from other machines.

        Raises:
            CoordinatorError: The folder is in use, or the network's name or an address cannot be.
            InvitationError: A site cannot be invited by this name or in this role.
        """
        invited = [Invited.parse(site) for site in sites]
        network = network or f"network-{secrets.token_hex(2)}"
        try:
            reached = Address.parse(address)
            alone = reached.ip is not None and reached.ip.is_loopback
            listens = Address.parse(bind or (address if alone else DEFAULT_BIND))
            server = ServerSettings(str(reached), str(listens), exposed)
            settings = CoordinatorSettings(
                NetworkSettings(network, multiplicity, tuple(payers), tuple(providers)), server
            )
        except ValueError as error:
            raise CoordinatorError(str(error)) from None
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CoordinatorError(
                f"{folder} is in use, and a network's keys are never overwritten: name a new folder"
            )
        made = cls(folder.resolve(), settings)
        made._renew_authority()
        made._renew_server()
        made.invite(invited)
        made.members_file.touch()
        made.log.append(Event.NETWORK_CREATED, network=network, certificate=_sha256(made.authority))
        # Last: a folder that has it is complete.
        write_whole(made.settings_file, settings.text().encode())
        return made

    @classmethod
    def load(cls, folder: Path, *, to_renew: bool = False) -> "Coordinator":
        """Open a coordinator's folder.

        Args:
            folder: The folder.
            to_renew: Whether private keys may be missing or open to others, because they are about
                to be replaced.

        Raises:
            CoordinatorError: There is none, or its coordinator.toml cannot be used.
            PrivateFileError: A private key is missing, or open to others.
            CertificateError: A certificate cannot be read.
        """
        file = folder / SETTINGS_FILE
        try:
            raw = tomllib.loads(file.read_text(encoding="utf-8-sig"))
            settings = parse(CoordinatorSettings, raw, SETTINGS_FILE)
        except FileNotFoundError:
            raise CoordinatorError(
                f"{file} does not exist: make a coordinator's folder with `groundtruth "
                "coordinator init`"
            ) from None
        except OSError as error:
            raise CoordinatorError(f"{file} cannot be read: {error.strerror}") from None
        except (ValueError, ConfigError) as error:
            raise CoordinatorError(f"{file}: {error}") from None
        loaded = cls(folder.resolve(), settings)
        if not to_renew:
            loaded._check_private_files()
        return loaded

    @property
    def network(self) -> str:
        """The network's identifier."""
        return self.settings.network.id

    @property
    def multiplicity(self) -> int:
        """Sites at which a patient may stand, as declared to them."""
        return self.settings.network.multiplicity

    @property
    def address(self) -> str:
        """HOST:PORT at which sites reach the coordinator."""
        return self.settings.server.address

    @property
    def bind(self) -> str:
        """HOST:PORT at which the engine listens."""
        return self.settings.server.bind

    def invitation_of(self, site: str) -> Invitation | None:
        """A site's invitation; None if it was not invited."""
        file = self.invitation_file(site)
        return Invitation.load(file) if file.exists() else None

    def invited(self) -> dict[str, str]:
        """Sites that hold an invitation -> the role that it names, or "".

        Raises:
            InvitationError: An invitation has been damaged.
        """
        files = sorted(self.invitations.glob(f"*{INVITATION_SUFFIX}"))
        return {each.site: each.role for each in map(Invitation.load, files)}

    def invite(self, sites: Iterable[Invited]) -> list[Path]:
        """Write an invitation for each site, in place of an older one."""
        authority = self.authority.public_bytes(Encoding.PEM).decode()
        files = []
        for each in sites:
            invitation = Invitation(
                network=self.network,
                site=each.site,
                address=self.address,
                multiplicity=self.multiplicity,
                release=release(),
                contracts=held_contracts(),
                authority=authority,
                role=each.role,
            )
            files.append(self.invitation_file(each.site))
            invitation.write(files[-1])
        return files

    def renew(self, *, authority: bool = False) -> list[Path]:
        """Make a new server certificate for the address of today, and the invitations anew.

        The server's key and the engine's secret are new, too, so the engine must be restarted.
        Sites that have joined need nothing but where the address or the authority is another.

        Args:
            authority: Make a new authority as well. No site trusts it until it has joined again.

        Returns:
            The invitations, as they are now.

        Raises:
            PrivateFileError: The authority's key is missing, or open to others.
            CertificateError: It does not belong to the authority's certificate.
        """
        invited = [Invited(site, role) for site, role in self.invited().items()]
        if authority:
            self._renew_authority()
            self._log_renewal(self.authority)
        self._renew_server()
        self._log_renewal(self.server)
        return self.invite(invited)

    @property
    def log(self) -> AuditLog:
        """The coordinator's audit log."""
        return AuditLog(self.audit_log, "coordinator")

    @property
    def authority(self) -> x509.Certificate:
        """The network's authority.

        Raises:
            CertificateError: Its certificate cannot be read.
        """
        file = self.ca_certificate
        return read_authority(_content(file), str(file))

    @property
    def server(self) -> x509.Certificate:
        """The server's certificate.

        Raises:
            CertificateError: It cannot be read.
        """
        file = self.server_certificate
        return read_certificate(_content(file), str(file))

    def expiry(self) -> dict[str, datetime]:
        """Certificate, in words -> when it expires."""
        return {
            "the server's certificate": self.server.not_valid_after_utc,
            "the network's authority": self.authority.not_valid_after_utc,
        }

    def warnings(self) -> tuple[str, ...]:
        """What will keep sites away before long: expiring certificates, another address."""
        server = self.server
        renew = f"groundtruth coordinator renew {self.folder}"
        found = expiry_warnings(server, "the server's certificate", f"run `{renew}`")
        found += expiry_warnings(
            self.authority,
            "the network's authority",
            f"run `{renew} --authority`; all sites join again",
        )
        host = Address.parse(self.address).host
        if host not in names_in(server):
            found += (
                f"the server's certificate is not for {host}, the address in {SETTINGS_FILE}: run "
                f"`{renew}` and hand out the new invitations",
            )
        return found

    def _renew_authority(self) -> None:
        made = make_authority(self.network)
        self._write_pair(self.ca_certificate, self.ca_key, made)

    def _renew_server(self) -> None:
        key = read_private(
            self.ca_key,
            "the private key of the network's authority",
            "make a new authority with `groundtruth coordinator renew FOLDER --authority`",
        )
        authority = Issued(_content(self.ca_certificate), key)
        made = make_server(authority, Address.parse(self.address))
        self._write_pair(self.server_certificate, self.server_key, made)
        private_folder(self.state)
        write_whole(self.runtime_secret, secrets.token_bytes(_SECRET_BYTES), mode=0o600)

    def _log_renewal(self, made: x509.Certificate) -> None:
        until = f"{made.not_valid_after_utc:%Y-%m-%d}"
        self.log.append(Event.CERTIFICATE_RENEWED, certificate=_sha256(made), until=until)

    def _write_pair(self, certificate: Path, key: Path, made: Issued) -> None:
        private_folder(key.parent)
        write_whole(key, made.key, mode=0o600)
        write_whole(certificate, made.certificate)

    def _check_private_files(self) -> None:
        renew = f"run `groundtruth coordinator renew {self.folder}"
        if self.ca_key.exists():  # it may be kept elsewhere between renewals
            read_private(
                self.ca_key, "the private key of the network's authority", f"{renew} --authority`"
            )
        read_private(self.server_key, "the server's private key", f"{renew}`")
        read_private(
            self.runtime_secret,
            "the secret without which nobody starts apps here",
            f"{renew}`",
        )


def _sha256(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(SHA256()).hex()


def _content(certificate: Path) -> bytes:
    try:
        return certificate.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"{certificate} cannot be read ({error.strerror}): restore it from a backup, or make "
            "it anew with `groundtruth coordinator renew FOLDER`, the authority's with --authority"
        ) from None
