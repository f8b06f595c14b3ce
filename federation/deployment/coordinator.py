"""The coordinator's folder: what `groundtruth coordinator init` writes and all else reads.

coordinator.toml      settings that a person may edit
tls/                  the network's authority and the server's certificate, with their keys
invitations/          one per site, to hand out
members.toml          admitted sites                          see `members`
peers.toml            their public keys, to hand to every site
state/                the engine's database and its secret; nobody else's business
audit.jsonl           what happened
deploy/               files for the reverse proxy and the service manager
"""

import secrets
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from data_contracts.errors import GroundTruthError
from federation.deployment.addresses import Address
from federation.deployment.certificates import (
    Issued,
    expiry_warnings,
    make_authority,
    make_server,
    names_in,
    read_authority,
    read_certificate,
)
from federation.deployment.handed_files import ROLES, check_pseudonym, release
from federation.deployment.invitation import INVITATION_SUFFIX, Invitation, held_contracts
from federation.private_files import private_folder, read_private, write_whole
from federation.settings import ConfigError, PrivacySettings, parse

SETTINGS_FILE: Final = "coordinator.toml"
DEFAULT_BIND: Final = "127.0.0.1:9092"
DEFAULT_MULTIPLICITY: Final = PrivacySettings().multiplicity
_MAX_MULTIPLICITY: Final = 1_000
_SECRET_BYTES: Final = 32

_SETTINGS = """\
# What sites and coordinator agree on. After a change of [network] or of the address:
# groundtruth coordinator renew FOLDER, and hand the new invitations to the sites.
[network]
id = "{network}"
multiplicity = {multiplicity}  # sites at which a patient may stand, for the joint promise

[server]
address = "{address}"  # HOST:PORT at which sites reach this coordinator
bind = "{bind}"  # HOST:PORT at which the engine listens, behind the reverse proxy
"""


class CoordinatorError(GroundTruthError):
    """A coordinator's folder cannot be made or used."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """`[network]`.

    Attributes:
        id: The network's identifier, a pseudonym.
        multiplicity: Sites at which a patient may stand, as declared to them.
    """

    id: str
    multiplicity: int = DEFAULT_MULTIPLICITY

    def __post_init__(self) -> None:
        check_pseudonym(self.id, "network id")
        if not 1 <= self.multiplicity <= _MAX_MULTIPLICITY:
            raise ValueError(f"multiplicity lies in 1 to {_MAX_MULTIPLICITY}")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`[server]`.

    Attributes:
        address: HOST:PORT that sites use.
        bind: HOST:PORT at which the engine listens.
    """

    address: str
    bind: str = DEFAULT_BIND

    def __post_init__(self) -> None:
        Address.of_server(self.address)
        if Address.parse(self.bind).ip is None:
            raise ValueError("bind takes an IP address and a port, such as 127.0.0.1:9092")


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """All of coordinator.toml."""

    network: NetworkSettings
    server: ServerSettings


@dataclass(frozen=True, slots=True)
class Invited:
    """A site to invite.

    Attributes:
        site: Its pseudonym.
        role: "payer" or "provider"; "" leaves it to the site.
    """

    site: str
    role: str = ""

    @classmethod
    def parse(cls, text: str) -> "Invited":
        """Read `NAME` or `NAME:ROLE`.

        Raises:
            CoordinatorError: It is neither.
        """
        site, _, role = text.partition(":")
        try:
            check_pseudonym(site, "a site's name")
        except ValueError as error:
            raise CoordinatorError(str(error)) from None
        if role not in ("", *ROLES):
            raise CoordinatorError(
                f"site {site} can be invited as {' or '.join(ROLES)}: write {site}:ROLE, or the "
                "name alone to leave it to the site"
            )
        return cls(site, role)


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A coordinator's folder.

    Attributes:
        folder: The folder, absolute.
        settings: What its coordinator.toml says.
    """

    folder: Path
    settings: CoordinatorSettings

    @classmethod
    def init(
        cls,
        folder: Path,
        network: str,
        address: str,
        sites: Iterable[str] = (),
        bind: str = DEFAULT_BIND,
        multiplicity: int = DEFAULT_MULTIPLICITY,
    ) -> "Coordinator":
        """Make a coordinator's folder, with new keys and an invitation for each site.

        Args:
            folder: Where; made if it is not there.
            network: The network's identifier; "" makes one.
            address: HOST:PORT at which sites reach the coordinator.
            sites: Sites to invite, each `NAME` or `NAME:ROLE`.
            bind: HOST:PORT at which the engine listens.
            multiplicity: Sites at which a patient may stand.

        Raises:
            CoordinatorError: The folder is in use, or an argument cannot be.
        """
        invited = [Invited.parse(site) for site in sites]
        network = network or f"network-{secrets.token_hex(2)}"
        try:
            server = ServerSettings(str(Address.parse(address)), str(Address.parse(bind)))
            settings = CoordinatorSettings(NetworkSettings(network, multiplicity), server)
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
        text = _SETTINGS.format(
            network=made.network,
            multiplicity=made.multiplicity,
            address=made.address,
            bind=made.bind,
        )
        write_whole(made.settings_file, text.encode())  # last: a folder that has it is complete
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

    @property
    def settings_file(self) -> Path:
        """Settings that a person may edit."""
        return self.folder / SETTINGS_FILE

    @property
    def ca_certificate(self) -> Path:
        """Certificate of the network's authority."""
        return self.folder / "tls" / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """The authority's private key. It may be kept elsewhere between renewals."""
        return self.folder / "tls" / "ca.key"

    @property
    def server_certificate(self) -> Path:
        """The server's certificate."""
        return self.folder / "tls" / "server.crt"

    @property
    def server_key(self) -> Path:
        """The server's private key."""
        return self.folder / "tls" / "server.key"

    @property
    def invitations(self) -> Path:
        """Folder of the invitations."""
        return self.folder / "invitations"

    @property
    def members_file(self) -> Path:
        """Admitted sites."""
        return self.folder / "members.toml"

    @property
    def peers_file(self) -> Path:
        """Registry of the members' public keys; missing while there is no member."""
        return self.folder / "peers.toml"

    @property
    def state(self) -> Path:
        """What the engine keeps; open to its owner alone."""
        return self.folder / "state"

    @property
    def database(self) -> Path:
        """The engine's database."""
        return self.state / "superlink.db"

    @property
    def runtime_secret(self) -> Path:
        """Secret without which nobody starts apps at the engine."""
        return self.state / "runtime.secret"

    @property
    def audit_log(self) -> Path:
        """The audit log."""
        return self.folder / "audit.jsonl"

    @property
    def deploy(self) -> Path:
        """Files for the reverse proxy and the service manager."""
        return self.folder / "deploy"

    def invitation_file(self, site: str) -> Path:
        """Where a site's invitation lies, if it was invited."""
        return self.invitations / f"{site}{INVITATION_SUFFIX}"

    def invitation_of(self, site: str) -> Invitation | None:
        """A site's invitation; None if it was not invited."""
        file = self.invitation_file(site)
        return Invitation.load(file) if file.exists() else None

    def invite(self, sites: Iterable[Invited]) -> list[Path]:
        """Write an invitation for each site, in place of an older one."""
        authority = self.ca_certificate.read_text(encoding="ascii")
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
        invited = [
            Invited(invitation.site, invitation.role)
            for file in sorted(self.invitations.glob(f"*{INVITATION_SUFFIX}"))
            for invitation in [Invitation.load(file)]
        ]
        if authority:
            self._renew_authority()
        self._renew_server()
        return self.invite(invited)

    @property
    def authority(self) -> x509.Certificate:
        """The network's authority.

        Raises:
            CertificateError: Its certificate cannot be read.
        """
        return read_authority(self.ca_certificate.read_bytes(), str(self.ca_certificate))

    def warnings(self) -> tuple[str, ...]:
        """What will keep sites away before long: expiring certificates, another address."""
        server = read_certificate(
            self.server_certificate.read_bytes(), str(self.server_certificate)
        )
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
        authority = Issued(self.ca_certificate.read_bytes(), key)
        made = make_server(authority, Address.parse(self.address))
        self._write_pair(self.server_certificate, self.server_key, made)
        private_folder(self.state)
        write_whole(self.runtime_secret, secrets.token_bytes(_SECRET_BYTES), mode=0o600)

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
