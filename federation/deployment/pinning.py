"""Which sites a site believes: the registry that it pinned, and no other.

The coordinator collects the public keys and hands them out, so it could hand out keys of its own.
That is why people compare fingerprints aloud, and why a key that was pinned once never changes
without a person saying so, not even if its site was gone for a while.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data_contracts.manifest import SiteManifest
from federation.deployment.audit_entry import Event
from federation.deployment.audit_log import site_log
from federation.deployment.membership import ChangedKeyError, MembershipError, state_of
from federation.identity import IDENTITY_FILE, REGISTRY_FILE, Identity, Registry, fingerprint

FORMER_PEERS_FILE: Final = "peers.former.toml"
"""Keys of sites that are in the registry no more, so that none returns with another unnoticed."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """What pinning has changed.

    Attributes:
        peers: Site -> fingerprint, of all whom this site believes now.
        new: Those who were not there before.
        changed: Those who had another key before.
        removed: Those who were there before.
    """

    peers: Mapping[str, str]
    new: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def pin(site_folder: Path, peers_file: Path, *, accept_changes: bool = False) -> Pinned:
    """Believe from now on the sites of a registry, and no others.

    Args:
        site_folder: The site's folder, or its site.toml.
        peers_file: The coordinator's peers.toml.
        accept_changes: Whether sites may have other keys than the ones pinned before.

    Raises:
        IdentityError: The registry, or this site's private key, cannot be used.
        MembershipError: This site is not in the registry with its key of today.
        ChangedKeyError: Another site has another key than before.
    """
    site, state = SiteManifest.load(site_folder).name, state_of(site_folder)
    registry = Registry.load(peers_file)
    _check_own(site, state, registry)
    pinned = _registry(state / REGISTRY_FILE)
    former = _registry(state / FORMER_PEERS_FILE)
    known = former | pinned
    changed = tuple(
        peer
        for peer, key in sorted(registry.keys.items())
        if peer != site and known.get(peer, key) != key
    )
    if changed and not accept_changes:
        told = "; ".join(
            f"{peer} had {fingerprint(known[peer])} and would have "
            f"{fingerprint(registry.keys[peer])}"
            for peer in changed
        )
        raise ChangedKeyError(
            f"{peers_file} holds other keys than this site pinned before: {told}. Call each of "
            "these sites and compare the new fingerprint aloud; if all agree, pin again with "
            "--accept-changes. Otherwise somebody is posing as them: pin nothing, and tell them"
        )
    site_log(site_folder).append(Event.PEERS_PINNED, sites=len(registry.keys))
    removed = tuple(sorted(pinned.keys() - registry.keys))
    gone = {peer: key for peer, key in known.items() if peer not in registry.keys}
    if gone:
        owners = {key: peer for peer, key in gone.items()}  # a registry has no key twice
        Registry({peer: key for key, peer in owners.items()}).write(state / FORMER_PEERS_FILE)
    registry.write(state / REGISTRY_FILE)
    return Pinned(
        peers={peer: fingerprint(key) for peer, key in sorted(registry.keys.items())},
        new=tuple(peer for peer in sorted(registry.keys) if peer not in known),
        changed=changed,
        removed=removed,
    )


def _check_own(site: str, state: Path, registry: Registry) -> None:
    if not (state / IDENTITY_FILE).exists():
        raise MembershipError(
            f"{state / IDENTITY_FILE} does not exist: join first, with `groundtruth site join`"
        )
    own = Identity.load_or_create(state / IDENTITY_FILE).public_key
    listed = registry.keys.get(site)
    if listed is None:
        raise MembershipError(
            f"the registry does not hold this site, {site}: hand its join request to the "
            "coordinator, and pin the peers.toml from after its admission"
        )
    if listed != own:
        raise MembershipError(
            f"the registry holds another key for this site, {site} ({fingerprint(listed)}), than "
            f"its own ({fingerprint(own)}). If the site made new keys, the coordinator admits its "
            "new join request first; if not, somebody is posing as this site: tell all others"
        )


def _registry(file: Path) -> dict[str, bytes]:
    return dict(Registry.load(file).keys) if file.exists() else {}
