"""Who takes part in a run, and with which keys.

Once per run every site offers an X25519 key, signed with its identity. Whoever has all offers has
the `Roster`, and can agree with every other site on a secret that the coordinator does not know.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from data_contracts.errors import GroundTruthError
from federation.identity import Identity, IdentityError, Registry

_PROTOCOL = "groundtruth secure sum 1"  # goes into every signature, digest and mask
_LEAST_SITES = 2  # a sum over fewer hides nothing
_FIELD_PRIME = 2**255 - 19


class SecureSumError(GroundTruthError):
    """A secure sum cannot be made, or not as asked."""


class ForgeryError(SecureSumError):
    """A key offer or an upload is not provably signed by the site that it names."""


class ReplayError(SecureSumError):
    """A key offer or an upload was made for another run, plan or attempt."""


class RosterError(SecureSumError):
    """The sites of a run or an attempt are not those that they must be."""


class WeakKeyError(RosterError):
    """A site offers a key with which no secret can be agreed on."""


class TooFewSitesError(SecureSumError):
    """A sum over so few sites would not hide each of them enough."""


@dataclass(frozen=True, slots=True)
class KeyOffer:
    """A site's public key for one run, signed with the site's identity.

    Attributes:
        site: Name of the site.
        run: The run's identifier.
        plan: Digest of the run's plan.
        public_key: X25519 public key, 32 bytes.
        signature: The site's signature of all the above.
    """

    site: str
    run: str
    plan: str
    public_key: bytes
    signature: bytes

    def message(self) -> bytes:
        """What is signed."""
        return encoded("key offer", self.run, self.plan, self.site, self.public_key)

    def check_point(self) -> None:
        """Refuse keys of low order, of which everybody knows the secrets, and second spellings.

        Raises:
            WeakKeyError: This is such a key, or none.
        """
        try:
            # Private keys are multiples of the cofactor, so any of them maps a point of low order
            # to zero, which `exchange` refuses.
            X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(self.public_key))
            usable = int.from_bytes(self.public_key, "little") < _FIELD_PRIME
        except ValueError:
            usable = False
        if not usable:
            raise WeakKeyError(
                f"site {self.site} offers a key with which no secret can be agreed on; its "
                "software is faulty or hostile. Start a new run without the site"
            )


@dataclass(frozen=True, slots=True)
class RunKeys:
    """A site's X25519 key pair for one run.

    Attributes:
        private_key: The private key. Delete it with the run: then nobody who breaks into the site
            later can unmask what it sent.
    """

    private_key: X25519PrivateKey

    @classmethod
    def generate(cls) -> "RunKeys":
        """A new key pair from the operating system's generator."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, content: bytes) -> "RunKeys":
        """The key pair that `private_bytes` gave."""
        return cls(X25519PrivateKey.from_private_bytes(content))

    def private_bytes(self) -> bytes:
        """The private key as 32 bytes, for the site's own files between two messages."""
        return self.private_key.private_bytes_raw()

    @property
    def public_key(self) -> bytes:
        """The public key, 32 bytes."""
        return self.private_key.public_key().public_bytes_raw()

    def offer(self, identity: Identity, site: str, run: str, plan: str) -> KeyOffer:
        """The public key, signed for a run and its plan."""
        unsigned = KeyOffer(site, run, plan, self.public_key, signature=b"")
        return replace(unsigned, signature=identity.sign(unsigned.message()))


@dataclass(frozen=True, slots=True)
class Roster:
    """The sites of a run and their keys. Made by `verified`, on every site anew.

    Attributes:
        run: The run's identifier.
        plan: Digest of the run's plan.
        minimum: Sites below which the plan's noise does not suffice.
        keys: Site's name -> X25519 public key, sorted by name.
    """

    run: str
    plan: str
    minimum: int
    keys: Mapping[str, bytes]

    @classmethod
    def verified(
        cls,
        offers: Collection[KeyOffer],
        registry: Registry,
        *,
        run: str,
        plan: str,
        sites: Collection[str],
        minimum: int,
    ) -> "Roster":
        """The roster of a run, every key checked against its site's signature.

        Args:
            offers: All key offers of the run, in any order.
            registry: The public keys of the network's sites, as the caller pins them.
            run: The run's identifier.
            plan: Digest of the run's plan.
            sites: The plan's sites. Some may be missing: who has not offered a key takes no part
                in the run.
            minimum: Sites that a sum needs.

        Raises:
            RosterError: A site is not of the plan, or is there twice.
            ReplayError: An offer was made for another run or plan.
            ForgeryError: An offer was not signed by the site that it names.
            WeakKeyError: A key is no point of X25519, or one of low order.
            TooFewSitesError: There are fewer sites than a sum needs.
        """
        keys: dict[str, bytes] = {}
        for offer in offers:
            site = offer.site
            if site not in sites:
                raise RosterError(
                    f"site {site!r} offers a key for a run whose plan does not name it; leave it "
                    "out, or start a run with a plan that names it"
                )
            if (offer.run, offer.plan) != (run, plan):
                raise ReplayError(
                    f"the key offer of site {site} was made for another run or plan; ask the site "
                    "for an offer for this one"
                )
            try:
                registry.verify(site, offer.message(), offer.signature)
            except IdentityError as error:
                raise ForgeryError(f"the key offer of site {site}: {error}") from None
            offer.check_point()
            if site in keys:
                raise RosterError(f"site {site} offers two keys for the run; each site offers one")
            if offer.public_key in keys.values():
                raise RosterError(
                    f"site {site} offers a key that another site offers too; each site makes its "
                    "own: ask it whose key this is"
                )
            keys[site] = offer.public_key
        roster = cls(run, plan, max(minimum, _LEAST_SITES), dict(sorted(keys.items())))
        roster.check_number(roster.keys)
        return roster

    @property
    def digest(self) -> bytes:
        """SHA-256 of the roster. A site keeps to the one that it saw first in a run."""
        entries = (part for entry in sorted(self.keys.items()) for part in entry)
        return digest_of("roster", self.run, self.plan, *entries)

    def check_number(self, sites: Collection[str]) -> None:
        """Refuse a sum over fewer sites than the plan asks for.

        Raises:
            TooFewSitesError: There are too few.
        """
        if len(sites) < self.minimum:
            raise TooFewSitesError(
                f"{len(sites)} sites are left ({', '.join(sites)}), and a sum needs "
                f"{self.minimum}: their noise would not suffice. What was charged stays charged; "
                "start a new run when more sites are there, or plan for fewer"
            )


def encoded(kind: str, *parts: str | bytes) -> bytes:
    """Parts with their lengths, so that no two lists of parts give the same bytes."""
    raw = [part.encode() if isinstance(part, str) else part for part in (_PROTOCOL, kind, *parts)]
    return b"".join(len(part).to_bytes(8, "big") + part for part in raw)


def digest_of(kind: str, *parts: str | bytes) -> bytes:
    """SHA-256 of parts, as `encoded`."""
    return hashlib.sha256(encoded(kind, *parts)).digest()
