"""A site's side of joining a network: its keys, and the coordinator that it works with.

Both private keys are made here and stay here; what the site hands back is its join request, with
the public halves. From then on it trusts the authority that the invitation brought, and another one
only if a person says so. Which other sites it believes is pinned apart; see `pinning`.
"""

import base64
import contextlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import tomli_w
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from data_contracts.catalog import CONTRACTS
from data_contracts.errors import GroundTruthError
from data_contracts.intake import read_tables
from data_contracts.manifest import MANIFEST_NAME, SiteManifest
from federation.declared_patients import declared_patients, rounded
from federation.deployment.audit_entry import Event
from federation.deployment.audit_log import site_log
from federation.deployment.certificates import (
    authority_fingerprint,
    days_left,
    read_authority,
)
from federation.deployment.handed_files import release
from federation.deployment.invitation import (
    REQUEST_SUFFIX,
    Invitation,
    InvitationError,
    JoinRequest,
    unserved,
)
from federation.identity import IDENTITY_FILE, REGISTRY_FILE, Identity, fingerprint
from federation.private_files import private_folder, read_private, write_new, write_whole
from federation.run_state import state_folder
from federation.settings import ConfigError, parse

NODE_KEY_FILE: Final = "node.key"
COORDINATOR_FILE: Final = "coordinator.toml"
AUTHORITY_FILE: Final = "coordinator-ca.crt"


class MembershipError(GroundTruthError):
    """A site cannot join, or has not joined."""


class ChangedKeyError(MembershipError):
    """Somebody whom the site believed has another key than before."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What a site keeps of its coordinator.

    Attributes:
        network: The network's identifier.
        address: HOST:PORT of the coordinator.
        multiplicity: Sites at which a patient may stand, as the network declares it.
        release: Version of the coordinator's software when it invited the site.
        contracts: Tables that the coordinator knew then -> version of the contract.
    """

    network: str
    address: str
    multiplicity: int
    release: str
    contracts: Mapping[str, str]

    @classmethod
    def load(cls, site_folder: Path) -> "Membership":
        """What a site has joined.

        Raises:
            MembershipError: It has joined nothing, or its file cannot be used.
        """
        file = state_of(site_folder) / COORDINATOR_FILE
        try:
            return parse(cls, tomllib.loads(file.read_text(encoding="utf-8-sig")), "the file")
        except FileNotFoundError:
            raise MembershipError(
                f"{file} does not exist: join a network first, with `groundtruth site join FOLDER "
                "INVITATION`"
            ) from None
        except OSError as error:
            raise MembershipError(f"{file} cannot be read: {error.strerror}") from None
        except (ValueError, ConfigError) as error:
            raise MembershipError(
                f"{file} cannot be used ({error}): join again with the coordinator's invitation"
            ) from None


@dataclass(frozen=True, slots=True)
class Joined:
    """What joining has led to.

    Attributes:
        request: The join request.
        file: Where it lies, to be handed to the coordinator.
        authority: Fingerprint of the network's authority, to compare with the coordinator.
        fingerprint: Fingerprint of the site's identity, to compare as well.
    """

    request: JoinRequest
    file: Path
    authority: str
    fingerprint: str


def state_of(site_folder: Path) -> Path:
    """The state folder of a site, named by its folder or its site.toml."""
    return state_folder(site_folder / MANIFEST_NAME if site_folder.is_dir() else site_folder)


def join(
    site_folder: Path,
    invitation_file: Path,
    patients: int | None = None,
    *,
    new_keys: bool = False,
    accept_changes: bool = False,
) -> Joined:
    """Make a site's keys and its join request. Done again, the keys stay as they are.

    Args:
        site_folder: The site's folder, or its site.toml.
        invitation_file: What the coordinator handed over.
        patients: Patients to declare; counted from the site's tables unless given.
        new_keys: Whether to make both keys anew. The old ones are kept beside them.
        accept_changes: Whether the network's authority may be another than the one before.

    Raises:
        ManifestError: The site.toml cannot be used.
        InvitationError: The invitation is none, or not for this site.
        ChangedKeyError: The authority is another than before.
        MembershipError: The site's contracts do not serve the network, it has too many patients or
            none, or it has joined another network.
        GroundTruthError: The tables cannot be read, or a private key cannot be used.
    """
    manifest = SiteManifest.load(site_folder)
    state = state_of(site_folder)
    invitation = Invitation.load(invitation_file)
    _check_invited(manifest, invitation)
    if (state / COORDINATOR_FILE).exists():
        _check_same_network(Membership.load(site_folder), invitation, state)
    authority = _check_authority(invitation, state, accept_changes=accept_changes)
    contracts = _check_contracts(manifest, invitation)
    declared = _declared(manifest, patients)

    private_folder(state)
    if new_keys:
        _set_aside(state / IDENTITY_FILE, state / NODE_KEY_FILE)
    identity = Identity.load_or_create(state / IDENTITY_FILE)
    request = JoinRequest(
        network=invitation.network,
        site=manifest.name,
        role=manifest.role,
        patients=declared,
        identity_key=base64.b64encode(identity.public_key).decode(),
        node_key=_node_key(state / NODE_KEY_FILE),
        contracts=contracts,
        release=release(),
        group=manifest.group,
    ).signed(identity)
    told = fingerprint(identity.public_key)
    site_log(site_folder).append(Event.INVITATION_JOINED, network=invitation.network, key=told)
    write_whole(state / AUTHORITY_FILE, invitation.authority.encode())
    kept = {
        "network": invitation.network,
        "address": invitation.address,
        "multiplicity": invitation.multiplicity,
        "release": invitation.release,
        "contracts": dict(invitation.contracts),
    }
    write_whole(state / COORDINATOR_FILE, tomli_w.dumps(kept).encode())
    file = state.parent / f"{manifest.name}{REQUEST_SUFFIX}"
    request.write(file)
    return Joined(request, file, authority, told)


def _check_authority(invitation: Invitation, state: Path, *, accept_changes: bool) -> str:
    """Fingerprint of the authority, which must be good today and the one from before."""
    authority = read_authority(invitation.authority.encode(), "the invitation")
    told = authority_fingerprint(authority)
    if days_left(authority) < 0:
        raise InvitationError(
            "the network's authority has expired, or this machine's clock is wrong: set the clock "
            "(NTP), or ask the coordinator for a new invitation"
        )
    file = state / AUTHORITY_FILE
    before = told
    if file.exists():
        before = authority_fingerprint(read_authority(file.read_bytes(), str(file)))
    if before != told and not accept_changes:
        raise ChangedKeyError(
            f"the invitation brings another authority ({told}) than the one that this site trusts "
            f"({before}). Call the coordinator and compare the new fingerprint aloud; if it "
            "agrees, join again with --accept-changes. Otherwise the invitation is not the "
            "coordinator's: do not use it"
        )
    return told


def _check_invited(manifest: SiteManifest, invitation: Invitation) -> None:
    if manifest.name != invitation.site:
        raise InvitationError(
            f"the invitation is for site {invitation.site}, and site.toml names this site "
            f"{manifest.name}: take the invitation of this site, or correct its name with the "
            "coordinator"
        )
    if invitation.role not in ("", manifest.role):
        raise InvitationError(
            f"the coordinator invited site {manifest.name} as {invitation.role}, and its site.toml "
            f"says {manifest.role}: correct role there, or ask the coordinator to invite it anew"
        )


def _check_same_network(joined: Membership, invitation: Invitation, state: Path) -> None:
    if joined.network != invitation.network:
        raise MembershipError(
            f"this site has joined network {joined.network}, and the invitation is for "
            f"{invitation.network}. A site takes part in one network, whose runs its ledger "
            f"counts: make another site folder, or move {state / COORDINATOR_FILE}, "
            f"{AUTHORITY_FILE} and {REGISTRY_FILE} away to leave {joined.network}"
        )


def _check_contracts(manifest: SiteManifest, invitation: Invitation) -> dict[str, str]:
    """Versions of the contracts of the site's tables, which must serve the network."""
    held = {name: CONTRACTS[name].version for name in manifest.table_names if name in CONTRACTS}
    if flaws := unserved(held, invitation.contracts):
        raise MembershipError(
            f"site {manifest.name} cannot serve network {invitation.network}: {'; '.join(flaws)}. "
            f"The coordinator runs groundtruth {invitation.release} and this site {release()}: "
            "whoever has the older release updates it"
        )
    return held


def _declared(manifest: SiteManifest, patients: int | None) -> int:
    """Number of patients to declare; no more than site.toml promises, for noise is made for it."""
    if patients is None:
        patients = declared_patients(table.rows for table in read_tables(manifest).values())
    if patients < 1:
        raise MembershipError(
            f"site {manifest.name} has no patients in its tables: check them with `groundtruth "
            "site check`, or declare a number with --patients"
        )
    declared = rounded(patients)
    if max(patients, declared) > manifest.max_patients:
        raise MembershipError(
            f"site {manifest.name} would declare {declared:,} patients, more than its site.toml "
            f"allows (max_patients = {manifest.max_patients}): raise max_patients to a round "
            "number that the tables will never pass"
        )
    return declared


def _set_aside(*files: Path) -> None:
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    for file in files:
        if file.exists():
            file.rename(file.with_name(f"{file.name}.{now}.old"))


def _node_key(file: Path) -> str:
    """Public half of the key by which the coordinator's engine knows this site's machine.

    The private half is made if it is not there: ECDSA P-384 in the format of OpenSSH, which
    Flower's SuperNode reads.
    """
    if not file.exists():
        made = ec.generate_private_key(ec.SECP384R1())
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        with contextlib.suppress(FileExistsError):
            write_new(file, pem)
    remedy = "make new keys with `groundtruth site join --new-keys`"
    content = read_private(file, "this site's private key towards the coordinator", remedy)
    try:
        key = load_ssh_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise MembershipError(
            f"{file} holds no ECDSA P-384 private key of OpenSSH without a password. Restore it "
            f"from a backup; if there is none, {remedy}"
        )
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
