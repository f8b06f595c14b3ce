"""`coordinator.toml`: what a person may edit of a coordinator."""

import json
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
# Payers and providers that stand in the sites' tables, beside the members of the network.
payers = {payers}
providers = {providers}

[server]
address = "{address}"  # HOST:PORT at which sites reach this coordinator
bind = "{bind}"  # HOST:PORT at which the engine listens, behind the reverse proxy
exposed = {exposed}  # whether that may be more than this machine; control has no login
"""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """`[network]`.

    Attributes:
        id: The network's identifier, a pseudonym.
        multiplicity: Sites at which a patient may stand, as declared to them.
        payers: Pseudonyms of payers that stand in the sites' tables, members aside.
        providers: Pseudonyms of providers, likewise.
    """

    id: str
    multiplicity: int = DEFAULT_MULTIPLICITY
    payers: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_pseudonym(self.id, "network id")
        for name in (*self.payers, *self.providers):
            check_pseudonym(name, "payers and providers")
        if not 1 <= self.multiplicity <= MAX_MULTIPLICITY:
            raise ValueError(f"multiplicity lies in 1 to {MAX_MULTIPLICITY}")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`[server]`.

    Attributes:
        address: HOST:PORT that sites use.
        bind: HOST:PORT at which the engine listens.
        exposed: Whether it may listen where others than this machine reach it. Its control
            interface has no login.
    """

    address: str
    bind: str = DEFAULT_BIND
    exposed: bool = False

    def __post_init__(self) -> None:
        Address.of_server(self.address)
        if (ip := Address.parse(self.bind).ip) is None:
            raise ValueError("bind takes an IP address and a port, such as 127.0.0.1:9092")
        if not (ip.is_loopback or self.exposed):
            raise ValueError(
                f"at {self.bind} whoever reaches it could use Flower's control interface, which "
                "has no login: bind to 127.0.0.1 and let the reverse proxy in deploy/ stand before "
                "it, or say exposed = true under [server] (--exposed)"
            )


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
            payers=json.dumps(self.network.payers),
            providers=json.dumps(self.network.providers),
            address=self.server.address,
            bind=self.server.bind,
            exposed=str(self.server.exposed).lower(),
        )
