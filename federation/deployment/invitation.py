"""What coordinator and site hand to each other before a site takes part.

The coordinator writes an `Invitation` for each site, the site answers with a `JoinRequest`. Neither
holds a secret, so both may travel by mail; but whoever can change mail can change them. The
invitation is only as good as the authority in it, and the request as the key in it: people compare
both fingerprints aloud. A request is signed with the site's identity, so it cannot be altered.
"""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import tomli_w
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from data_contracts.catalog import CONTRACTS
from data_contracts.compatibility import serves
from data_contracts.errors import GroundTruthError
from federation.declared_patients import rounded
from federation.deployment.addresses import Address
from federation.deployment.certificates import CertificateError, read_authority
from federation.deployment.coordinator_settings import MAX_MULTIPLICITY
from federation.deployment.handed_files import (
    ROLES,
    check_contracts,
    check_pseudonym,
    check_release,
    decoded,
    read_handed,
)
from federation.identity import Identity, fingerprint
from federation.ledger_chain import canonical
from federation.private_files import write_whole

INVITATION_SUFFIX: Final = ".toml"
REQUEST_SUFFIX: Final = ".join.toml"
_DOMAIN: Final = b"groundtruth join request 1\0"
_MAX_PATIENTS: Final = 100_000_000
_INVITATION_AGAIN: Final = "ask the coordinator for the invitation again"
_REQUEST_AGAIN: Final = "let the site make it again with `groundtruth site join`"


class InvitationError(GroundTruthError):
    """An invitation cannot be used, or not here."""


class JoinRequestError(GroundTruthError):
    """A join request cannot be used, or was not made by the site that it names."""


def held_contracts() -> dict[str, str]:
    """Tables that this release knows -> version of the contract."""
    return {name: contract.version for name, contract in CONTRACTS.items()}


def unserved(held: Mapping[str, str], asked: Mapping[str, str]) -> tuple[str, ...]:
    """The contracts that a site holds and that do not serve a network, in words.

    Tables that the network does not know, or the site does not have, stand in nobody's way.
    """
    return tuple(
        f"{name} is {version} at the site and {asked[name]} in the network"
        for name, version in sorted(held.items())
        if name in asked and not serves(version, asked[name])
    )


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
            InvitationError: It is neither.
        """
        site, _, role = text.partition(":")
        try:
            check_pseudonym(site, "a site's name")
        except ValueError as error:
            raise InvitationError(str(error)) from None
        if role not in ("", *ROLES):
            raise InvitationError(
                f"site {site} can be invited as {' or '.join(ROLES)}: write {site}:ROLE, or the "
                "name alone to leave it to the site"
            )
        return cls(site, role)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a site must know of a network to ask for admission.

    Attributes:
        network: The network's identifier.
        site: Pseudonym of the site that is invited.
        address: HOST:PORT at which sites reach the coordinator.
        multiplicity: Sites at which a patient may stand, as the network declares it.
        release: Version of the coordinator's software.
        contracts: Tables that this release knows -> version of the contract.
        authority: Certificate of the network's authority, PEM.
        role: "payer" or "provider"; "" if the coordinator leaves it to the site.
    """

    network: str
    site: str
    address: str
    multiplicity: int
    release: str
    contracts: Mapping[str, str]
    authority: str
    role: str = ""

    def __post_init__(self) -> None:
        check_pseudonym(self.network, "network")
        check_pseudonym(self.site, "site")
        Address.of_server(self.address)
        if not 1 <= self.multiplicity <= MAX_MULTIPLICITY:
            raise ValueError(f"multiplicity lies in 1 to {MAX_MULTIPLICITY}")
        check_release(self.release)
        check_contracts(self.contracts)
        try:
            read_authority(self.authority.encode(), "authority")
        except CertificateError as error:
            raise ValueError(str(error)) from None
        if self.role not in ("", *ROLES):
            raise ValueError(f"role must be {' or '.join(ROLES)}")

    @classmethod
    def load(cls, file: Path) -> "Invitation":
        """Read an invitation.

        Raises:
            InvitationError: It is none.
        """
        return read_handed(cls, file, InvitationError, _INVITATION_AGAIN)

    def write(self, file: Path) -> None:
        """Write it, for a site to be handed."""
        write_whole(file, tomli_w.dumps(asdict(self), multiline_strings=True).encode())


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A site's request to be admitted, with its public keys.

    Attributes:
        network: The network's identifier.
        site: The site's pseudonym.
        role: "payer" or "provider".
        patients: Number of patients that it declares, to two significant digits.
        identity_key: Public key of its identity (Ed25519), base64.
        node_key: Public key of its SuperNode (ECDSA P-384), as a line of OpenSSH.
        contracts: Its tables -> version of the contract that they keep.
        release: Version of its software.
        group: Pseudonym of its provider group or payer as it stands in the tables, or "".
        signature: The identity's signature over all of this, base64; "" before it is signed.
    """

    network: str
    site: str
    role: str
    patients: int
    identity_key: str
    node_key: str
    contracts: Mapping[str, str]
    release: str
    group: str = ""
    signature: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        check_pseudonym(self.network, "network")
        check_pseudonym(self.site, "site")
        if self.role not in ROLES:
            raise ValueError(f"role must be {' or '.join(ROLES)}")
        if self.group:
            check_pseudonym(self.group, "group")
        if not 1 <= self.patients <= _MAX_PATIENTS or rounded(self.patients) != self.patients:
            raise ValueError(
                "patients must be a number to two significant digits, from 1 to 100 000 000"
            )
        decoded(self.identity_key, 32, "identity_key")
        node_key_bytes(self.node_key)
        check_contracts(self.contracts)
        check_release(self.release)
        if self.signature:
            decoded(self.signature, 64, "signature")

    @property
    def public_key(self) -> bytes:
        """Public key of the site's identity, 32 bytes."""
        return base64.b64decode(self.identity_key)

    def signed(self, identity: Identity) -> Self:
        """The request with its signature."""
        signature = identity.sign(self._message())
        return replace(self, signature=base64.b64encode(signature).decode())

    def verify(self) -> None:
        """Make sure that the holder of the identity key made this request, as it stands.

        Raises:
            JoinRequestError: It did not.
        """
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public_key)
            key.verify(base64.b64decode(self.signature), self._message())
        except (InvalidSignature, ValueError):
            raise JoinRequestError(
                f"the join request of site {self.site} was not signed with the key in it "
                f"({fingerprint(self.public_key)}), so somebody changed it on its way: "
                f"{_REQUEST_AGAIN}, and compare the fingerprint aloud"
            ) from None

    @classmethod
    def load(cls, file: Path) -> "JoinRequest":
        """Read a join request and verify its signature.

        Raises:
            JoinRequestError: It is none, or was not signed with the key in it.
        """
        request = read_handed(cls, file, JoinRequestError, _REQUEST_AGAIN)
        request.verify()
        return request

    def write(self, file: Path) -> None:
        """Write it, to be handed to the coordinator."""
        write_whole(file, tomli_w.dumps(asdict(self)).encode())

    def _message(self) -> bytes:
        body = asdict(self)
        del body["signature"]
        return _DOMAIN + canonical(body).encode()


def node_key_bytes(line: str) -> bytes:
    """The public key of a SuperNode in the wire format of OpenSSH.

    Raises:
        ValueError: The line is not "ecdsa-sha2-nistp384 BASE64", as `ssh-keygen -t ecdsa -b 384`
            would write it without a comment.
    """
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if (
        not isinstance(key, ec.EllipticCurvePublicKey)
        or not isinstance(key.curve, ec.SECP384R1)
        or key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() != line
    ):
        raise ValueError(
            "node_key must be an ECDSA P-384 public key as OpenSSH writes it, without a comment"
        )
    return base64.b64decode(line.split()[1])
