"""Where everything lies at a coordinator.

It holds:
    coordinator.toml      settings that a person may edit     see `coordinator_settings`
    tls/                  the network's authority and the server's certificate, with their keys
    invitations/          one per site, to hand out
    members.toml          admitted sites                      see `members`
    peers.toml            their public keys, to hand to every site
    state/                the engine's database and its secret; nobody else's business
    audit.jsonl           what happened
    deploy/               files for the reverse proxy and the service manager
"""

from dataclasses import dataclass
from pathlib import Path

from federation.deployment.coordinator_settings import SETTINGS_FILE
from federation.deployment.invitation import INVITATION_SUFFIX


@dataclass(frozen=True, slots=True)
class CoordinatorFolder:
    """A coordinator's folder.

    Attributes:
        folder: The folder, absolute.
    """

    folder: Path

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
