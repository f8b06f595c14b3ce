"""`coordinator.toml`: what a person may edit of a coordinator."""

from dataclasses import dataclass
from typing import Final

from federation.deployment.addresses import Address
from federation.deployment.handed_files import check_pseudonym
from federation.settings import PrivacySettings

SETTINGS_FILE: Final = "coordinator.toml"
DEFAULT_BIND: Final = "127.0.0.1:9092"
DEFAULT_MULTIPLICITY: Final = PrivacySettings().multiplicity
MAX_MULTIPLICITY: Final = 1_000

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
        if not 1 <= self.multiplicity <= MAX_MULTIPLICITY:
            raise ValueError(f"multiplicity lies in 1 to {MAX_MULTIPLICITY}")


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

    def text(self) -> str:
        """The file, with comments; addresses and names hold nothing that TOML would read."""
        return _SETTINGS.format(
            network=self.network.id,
            multiplicity=self.network.multiplicity,
            address=self.server.address,
            bind=self.server.bind,
        )
