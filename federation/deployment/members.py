"""Which sites take part: `members.toml`, kept by the coordinator.

A site is admitted under the name that it was invited by, with the keys that its request brings.
Nothing here makes a site trust another: `peers.toml`, the public keys of all members, is handed to
every site, and each pins it itself.

**Keys never come back.** A key that was replaced or revoked may be in somebody else's hands, and
the request that once brought it can be handed in again by whoever has kept it. So the file keeps
the fingerprints of former keys, and no request with one of them is admitted.
"""

import fcntl
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Final

import tomli_w

from data_contracts.errors import GroundTruthError
from federation.deployment.audit_entry import Event
from federation.deployment.coordinator import Coordinator
from federation.deployment.handed_files import decoded
from federation.deployment.invitation import (
    JoinRequest,
    held_contracts,
    node_key_bytes,
    unserved,
)
from federation.identity import Registry, fingerprint
from federation.private_files import write_whole
from federation.settings import ConfigError, parse

_LOCK_FILE: Final = "members.lock"


class MembersError(GroundTruthError):
    """The list of members cannot be used."""


class AdmissionError(MembersError):
    """A request was refused."""


class UnknownMemberError(MembersError):
    """There is no such member."""


@dataclass(frozen=True, slots=True)
class Member:
    """A site that was admitted.

    Attributes:
        site: Its pseudonym.
        role: "payer" or "provider".
        patients: Patients that it declared, to two significant digits.
        identity_key: Public key of its identity (Ed25519), base64.
        node_key: Public key of its SuperNode, as a line of OpenSSH.
        contracts: Its tables -> version of the contract that they keep.
        release: Version of its software when it asked.
        admitted: When these keys were admitted (UTC).
        group: Pseudonym of its provider group or payer in the tables, or "".
        revoked: Since when it takes part no more (UTC); None while it does.
        former_keys: Fingerprints of the keys that it had before.
    """

    site: str
    role: str
    patients: int
    identity_key: str
    node_key: str
    contracts: Mapping[str, str]
    release: str
    admitted: date
    group: str = ""
    revoked: date | None = None
    former_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        decoded(self.identity_key, 32, "identity_key")
        node_key_bytes(self.node_key)

    @property
    def public_key(self) -> bytes:
        """Public key of its identity, 32 bytes."""
        return decoded(self.identity_key, 32, "identity_key")

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its identity, as people read it aloud."""
        return fingerprint(self.public_key)

    @property
    def keys(self) -> frozenset[str]:
        """Fingerprints of its keys of today."""
        return frozenset({self.fingerprint, fingerprint(node_key_bytes(self.node_key))})

    @property
    def spent_keys(self) -> frozenset[str]:
        """Fingerprints of keys with which it is never admitted again."""
        return frozenset(self.former_keys) | (self.keys if self.revoked else frozenset())


class Members:
    """The members of a coordinator's network; what cannot stand in its audit log is not done.

    Args:
        coordinator: The coordinator.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._log = coordinator.log

    def all(self) -> dict[str, Member]:
        """Every site that was ever admitted, by name.

        Raises:
            MembersError: members.toml cannot be read.
        """
        file = self._coordinator.members_file
        try:
            raw = tomllib.loads(file.read_text(encoding="utf-8"))
            return {
                site: parse(Member, {"site": site, **row}, site)
                for site, row in sorted(raw.items())
            }
        except OSError as error:
            raise MembersError(f"{file} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, ConfigError) as error:
            raise MembersError(
                f"{file} cannot be used ({error}): restore it from a backup"
            ) from None

    def active(self) -> dict[str, Member]:
        """The sites that take part, by name.

        Raises:
            MembersError: members.toml cannot be read.
        """
        return {site: member for site, member in self.all().items() if member.revoked is None}

    def admit(self, request: JoinRequest, *, replace: bool = False) -> Member:
        """Take a site in; peers.toml then holds its key.

        Args:
            request: What the site handed in.
            replace: Whether it may take the place of an earlier admission, with new keys, or with
                the same ones and another declaration.

        Raises:
            JoinRequestError: It was not signed with the key in it.
            AdmissionError: It is for another network, the site was not invited or is a member
                already, or a key is another member's, or a former one.
            MembersError: members.toml cannot be read.
        """
        request.verify()
        self._check_invited(request)
        with self._changed() as members:
            before = members.get(request.site)
            if before is not None and not replace:
                raise AdmissionError(_already(before))
            member = _member(request, before)
            _check_keys(member, members.values())
            self._log.append(Event.SITE_ADMITTED, site=member.site, key=member.fingerprint)
            members[member.site] = member
        return member

    def revoke(self, site: str) -> Member:
        """End a site's membership; peers.toml then lacks its key, which never comes back.

        Raises:
            UnknownMemberError: It is no member.
            MembersError: members.toml cannot be read.
        """
        with self._changed() as members:
            member = members.get(site)
            if member is None or member.revoked is not None:
                known = [name for name, each in members.items() if each.revoked is None]
                raise UnknownMemberError(
                    f"{site[:32]!r} is no member; members are {', '.join(known) or 'none yet'}"
                )
            self._log.append(Event.SITE_REVOKED, site=site, key=member.fingerprint)
            members[site] = replace(member, revoked=_today())
        return members[site]

    def _check_invited(self, request: JoinRequest) -> None:
        coordinator, site = self._coordinator, request.site
        if request.network != coordinator.network:
            raise AdmissionError(
                f"site {site} asks to join network {request.network}, and this is "
                f"{coordinator.network}: hand it this network's invitation"
            )
        invitation = coordinator.invitation_of(site)
        if invitation is None:
            raise AdmissionError(
                f"site {site} was not invited: if it should be, run `groundtruth coordinator "
                f"invite {coordinator.folder} --site {site}`; otherwise ask who sent the request"
            )
        if invitation.role not in ("", request.role):
            raise AdmissionError(
                f"site {site} was invited as {invitation.role} and asks to join as {request.role}: "
                "correct its site.toml, or invite it anew"
            )
        if flaws := unserved(request.contracts, held_contracts()):
            raise AdmissionError(
                f"site {site} cannot serve the network: {'; '.join(flaws)}. Whoever has the older "
                "release updates it; then the site joins again"
            )

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Member]]:
        """The members, to be changed by one process at a time; written unless that fails."""
        with (self._coordinator.state / _LOCK_FILE).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            members = self.all()
            yield members
            self._write(members)

    def _write(self, members: Mapping[str, Member]) -> None:
        rows = {site: _row(member) for site, member in sorted(members.items())}
        write_whole(self._coordinator.members_file, tomli_w.dumps(rows).encode())
        keys = {site: each.public_key for site, each in members.items() if each.revoked is None}
        if keys:
            Registry(keys).write(self._coordinator.peers_file)
        else:
            self._coordinator.peers_file.unlink(missing_ok=True)


def _member(request: JoinRequest, before: Member | None) -> Member:
    declared = asdict(request)
    del declared["network"], declared["signature"]
    member = Member(admitted=_today(), **declared)
    if before is None:
        return member
    former = before.spent_keys | (before.keys - member.keys)
    return replace(member, former_keys=tuple(sorted(former)))


def _check_keys(member: Member, members: Iterable[Member]) -> None:
    for other in members:
        if member.keys & other.spent_keys:
            raise AdmissionError(
                f"the request of site {member.site} brings a key that was replaced or revoked, and "
                "such a key never comes back: let the site make new ones with `groundtruth site "
                "join --new-keys`. If it has, this is an old request: ask who sent it"
            )
        if other.site != member.site and member.keys & other.keys:
            raise AdmissionError(
                f"the request of site {member.site} brings a key of site {other.site}, and one "
                "could pose as the other: let it make new ones with `groundtruth site join "
                "--new-keys`"
            )


def _already(member: Member) -> str:
    since = f"site {member.site} was admitted on {member.admitted} ({member.fingerprint})"
    if member.revoked is not None:
        return (
            f"{since} and revoked on {member.revoked}: if it should take part again, give --replace"
        )
    return (
        f"{since}: if its keys or its declaration are to change, give --replace, after comparing "
        "the new fingerprint with the site itself"
    )


def _row(member: Member) -> dict[str, object]:
    """What TOML holds of a member: it has no empty values, and the name is the heading."""
    row = asdict(member) | {"former_keys": list(member.former_keys)}
    del row["site"]
    return {key: value for key, value in row.items() if value not in (None, "", [])}


def _today() -> date:
    return datetime.now(UTC).date()
