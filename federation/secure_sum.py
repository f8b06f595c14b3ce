"""The secure sum: the coordinator learns the sum of the sites' noisy vectors and nothing else.

Once per run every site offers an X25519 key, signed with its identity. Whoever has all offers, the
`Roster`, can agree with every other site on a secret that the coordinator does not know. In a round
every pair of sites present turns its secret into a mask; one of the two adds it, the other one
subtracts it. In the sum over exactly these sites all masks cancel, modulo 2^64. A round is one
exchange: a request, an `Upload` from each site, `open_sum`.

Why not double masks and shares of keys (Bonawitz et al. 2017; Flamingo, Ma et al. 2023)? There a
second exchange opens the sum of those who stayed. With one exchange per round the coordinator can
open the sum of all n uploads as soon as it has them. If it could also open the sum of n - 1 of the
*same* uploads, it would only have to claim that one never arrived: the difference of the two sums
is that site's vector with that site's noise alone. Nobody can prove that a message did not arrive
where all messages pass through the coordinator. Therefore:

- An upload can be opened together with those of all sites that its request names, or not at all.
- If one of them is missing, the round is asked again as another attempt among those who remain,
  with fresh noise and fresh masks, and each site's ledger is charged again. Every sum that can be
  opened is a release of its own with its full noise, so composition covers whatever the coordinator
  claims. The price is privacy budget: the plan pays for every attempt.
- There are no shares of anybody's key. Only all other sites of a request together, with the
  coordinator, can unmask a site's upload; in Bonawitz et al. any coalition above the threshold can.

A site that sends garbage can spoil a sum but not learn from it: what it adds is signed, not proven.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from federation.identity import Identity, IdentityError, Registry
from federation.roster import (
    ForgeryError,
    ReplayError,
    Roster,
    RosterError,
    RunKeys,
    SecureSumError,
    digest_of,
    encoded,
)
from models.keystream import keystream

Words = NDArray[np.uint64]


class UploadError(SecureSumError):
    """An upload is not what was asked for."""


class MissingUploadsError(SecureSumError):
    """Without the uploads of all sites of an attempt nothing can be opened.

    Attributes:
        sites: The sites whose uploads are missing.
    """

    def __init__(self, sites: Collection[str]) -> None:
        self.sites = tuple(sites)
        super().__init__(
            f"no upload from {', '.join(self.sites)}: what the other sites sent cannot be opened. "
            "Ask the round again as another attempt among the sites that remain"
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which question is answered by which sites: what a mask is good for, once.

    Attributes:
        run: The run's identifier.
        plan: Digest of the run's plan.
        step: Step of the training.
        round: Round of the step.
        retry: Tells the attempts at a round apart; no two have the same.
        query: Digest of the question. Sites that are asked different questions add masks that do
            not cancel, so nobody can single a site out by asking the others for nothing (Pasquini,
            Francati, Ateniese, CCS 2022).
        present: The sites that answer, sorted by name.
    """

    run: str
    plan: str
    step: str
    round: int
    retry: int
    query: bytes
    present: tuple[str, ...]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the attempt."""
        place = self.run, self.plan, self.step, str(self.round), str(self.retry)
        return digest_of("attempt", *place, self.query, *self.present)

    def check(self, roster: Roster, site: str) -> None:
        """Make sure that a site may take part. It does so before it charges its ledger.

        Raises:
            ReplayError: The attempt belongs to another run or plan than the roster.
            RosterError: The sites present are not sorted, not all of the roster, or without `site`.
            TooFewSitesError: They are fewer than the plan asks for.
        """
        if (self.run, self.plan) != (roster.run, roster.plan):
            raise ReplayError(
                "the request belongs to another run or plan than the keys of its sites; a run "
                "keeps both from its first request to its last"
            )
        if list(self.present) != sorted(set(self.present)):
            raise RosterError(
                "the request names the sites present out of order or twice; coordinator and sites "
                "need the same version of the software"
            )
        if strangers := set(self.present) - set(roster.keys):
            raise RosterError(
                f"the request names sites without a key in this run: {', '.join(sorted(strangers))}"
            )
        if site not in self.present:
            raise RosterError(
                f"the request does not name site {site} among those present, so its answer could "
                "not be opened"
            )
        roster.check_number(self.present)


def mask(words: Words, attempt: Attempt, keys: RunKeys, roster: Roster, site: str) -> Words:
    """The words with one mask per other site present, modulo 2^64.

    Args:
        words: Noisy words, shape (n_values,). They are left as they are.
        attempt: The attempt that the words answer. Two vectors must never be masked for the same
            one: their difference would be free of masks.
        keys: The site's own keys of the run.
        roster: All sites' keys of the run.
        site: The site's name.

    Returns:
        Shape (n_values,).

    Raises:
        SecureSumError: See `Attempt.check`; also if the roster holds another key of the site.

    Guarantees:
        To anybody who lacks the private keys of two or more of the sites present, what these sites
        send in an attempt looks like uniform words with the right sum, and like uniform words as
        long as one of their uploads is missing. This rests on X25519, HKDF-SHA256 and ChaCha20, and
        on signing keys that are what the registry says.

    Source: the pairwise masks of Bonawitz et al., "Practical Secure Aggregation for
    Privacy-Preserving Machine Learning" (CCS 2017), section 4.
    """
    attempt.check(roster, site)
    if roster.keys[site] != keys.public_key:
        raise RosterError(
            f"the roster holds another key of site {site} than the site has: what the site keeps "
            "of the run was lost or replaced. Start a new run"
        )
    context = attempt.digest, roster.digest
    masked = words.copy()
    for other in attempt.present:
        if other != site:
            add_or_subtract = np.add if site < other else np.subtract
            key = _pair_key(keys, site, other, roster.keys, context)
            add_or_subtract(masked, keystream(key, words.size), out=masked)
    return masked


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """What a site answers.

    Attributes:
        site: Name of the site.
        attempt: Digest of the attempt.
        words: Words, shape (n_values,); masked where there is more than one site.
        signature: The site's signature of all the above.
    """

    site: str
    attempt: bytes
    words: Words
    signature: bytes

    @classmethod
    def signed(cls, site: str, attempt: Attempt, words: Words, identity: Identity) -> "Upload":
        """An upload with its signature."""
        unsigned = cls(site, attempt.digest, words, signature=b"")
        return replace(unsigned, signature=identity.sign(unsigned.message()))

    def message(self) -> bytes:
        """What is signed; the words stand in it by their SHA-256, little-endian."""
        words = hashlib.sha256(np.ascontiguousarray(self.words, dtype="<u8").data)
        return encoded("upload", self.attempt, self.site, words.digest())

    def check(self, attempt: Attempt, registry: Registry, n_values: int) -> None:
        """Make sure that this is the site's answer to the attempt.

        Raises:
            UploadError: The site was not asked, or the words are not `n_values` words.
            ReplayError: The upload was made for another attempt.
            ForgeryError: It was not signed by the site that it names.
        """
        if self.site not in attempt.present:
            raise UploadError(f"site {self.site!r} was not asked and sent an upload")
        if self.attempt != attempt.digest:
            raise ReplayError(
                f"the upload of site {self.site} was made for another attempt, round or run; the "
                "sites were asked something else, or an old message came again"
            )
        if self.words.dtype != np.uint64 or self.words.shape != (n_values,):
            raise UploadError(
                f"site {self.site} sent {self.words.dtype} values of shape {self.words.shape}, not "
                f"{n_values} words of 64 bits; coordinator and site need the same version of the "
                "software"
            )
        try:
            registry.verify(self.site, self.message(), self.signature)
        except IdentityError as error:
            raise ForgeryError(f"the upload of site {self.site}: {error}") from None


def open_sum(
    uploads: Collection[Upload], attempt: Attempt, registry: Registry, n_values: int
) -> Words:
    """The sum of the sites' words modulo 2^64, shape (n_values,), once all uploads are there.

    Args:
        uploads: One of every site present, in any order.
        attempt: What was asked.
        registry: The public keys of the network's sites.
        n_values: Length of the answer.

    Raises:
        SecureSumError: See `Upload.check`.
        UploadError: A site is there twice.
        MissingUploadsError: A site is not there.
    """
    total = np.zeros(n_values, dtype=np.uint64)
    arrived = set()
    for upload in uploads:
        upload.check(attempt, registry, n_values)
        if upload.site in arrived:
            raise UploadError(
                f"site {upload.site} sent two uploads for one attempt; it may be "
                "running twice. Stop one of its clients"
            )
        arrived.add(upload.site)
        np.add(total, upload.words, out=total)
    if missing := [site for site in attempt.present if site not in arrived]:
        raise MissingUploadsError(missing)
    return total


def _pair_key(
    keys: RunKeys, site: str, other: str, public: Mapping[str, bytes], context: tuple[bytes, ...]
) -> bytes:
    """Key of the mask between two sites; the same on both."""
    secret = keys.private_key.exchange(X25519PublicKey.from_public_bytes(public[other]))
    first, second = sorted((site, other))
    pair = encoded("mask", *context, first, public[first], second, public[second])
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=pair).derive(secret)
