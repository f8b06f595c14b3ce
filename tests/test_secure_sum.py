"""The secure sum: exact to the last integer, opened whole or not at all, and nothing else seen.

`Site` and `Coordinator` below play both parties in memory with the real objects; whatever crosses
between them is kept in the coordinator's `seen`.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import chi2

from data_contracts.errors import GroundTruthError
from federation.identity import Identity, Registry
from federation.roster import (
    ForgeryError,
    KeyOffer,
    ReplayError,
    Roster,
    RosterError,
    RunKeys,
    SecureSumError,
    TooFewSitesError,
    WeakKeyError,
)
from federation.secure_sum import Attempt, MissingUploadsError, Upload, UploadError, mask, open_sum
from models.keystream import keystream

Words = NDArray[np.uint64]

RUN, PLAN, QUERY = "run-7", "plan-of-run-7", hashlib.sha256(b"what do the sites count?").digest()
LARGEST = 2**64 - 1


# --- the parties ---------------------------------------------------------------------------------


def seeded(*names: object) -> bytes:
    """32 bytes that follow from names, so that statistical tests see the same masks every time."""
    return hashlib.sha256(repr(names).encode()).digest()


@dataclass
class Site:
    """A site of the network. Its `answers` are what it would release, one per attempt."""

    name: str
    identity: Identity
    registry: Registry
    keys: RunKeys = field(default_factory=RunKeys.generate)

    def offer(self, run: str = RUN, plan: str = PLAN) -> KeyOffer:
        return self.keys.offer(self.identity, self.name, run, plan)

    def answer(self, words: Words, attempt: Attempt, roster: Roster) -> Upload:
        masked = mask(words, attempt, self.keys, roster, self.name)
        return Upload.signed(self.name, attempt, masked, self.identity)


@dataclass
class Network:
    """Sites whose keys follow from their names, and what they agreed on before the run."""

    names: tuple[str, ...]
    minimum: int = 2
    sites: dict[str, Site] = field(init=False)
    registry: Registry = field(init=False)
    _rosters: dict[object, Roster] = field(default_factory=dict)

    def __post_init__(self) -> None:
        identities = {
            name: Identity(Ed25519PrivateKey.from_private_bytes(seeded("identity", name)))
            for name in self.names
        }
        self.registry = Registry({name: each.public_key for name, each in identities.items()})
        self.sites = {
            name: Site(
                name, each, self.registry, RunKeys.from_private_bytes(seeded("run keys", name))
            )
            for name, each in identities.items()
        }

    def offers(self, names: Iterable[str] | None = None) -> tuple[KeyOffer, ...]:
        return tuple(self.sites[name].offer() for name in (self.names if names is None else names))

    def roster(self, offers: Iterable[KeyOffer] | None = None, **changes: object) -> Roster:
        shown = self.offers() if offers is None else tuple(offers)
        defaults = {"run": RUN, "plan": PLAN, "sites": self.names, "minimum": self.minimum}
        arguments = defaults | changes
        # All sites check the same offers and find the same; tests of many runs check once.
        key = (shown, *arguments.values())
        if key not in self._rosters:
            self._rosters[key] = Roster.verified(shown, self.registry, **arguments)  # type: ignore[arg-type] # by name
        return self._rosters[key]

    def attempt(self, present: Iterable[str] | None = None, **changes: object) -> Attempt:
        names = tuple(sorted(self.names if present is None else present))
        return replace(Attempt(RUN, PLAN, "gradient", 1, 0, QUERY, names), **changes)  # type: ignore[arg-type] # by name

    def uploads(self, answers: Mapping[str, Words], attempt: Attempt) -> dict[str, Upload]:
        roster = self.roster()
        return {
            name: self.sites[name].answer(answers[name], attempt, roster)
            for name in attempt.present
        }


@dataclass
class Coordinator:
    """Asks a round until all sites present have answered; keeps every message that it sees."""

    network: Network
    seen: list[KeyOffer | Attempt | Upload] = field(default_factory=list)

    def run(
        self,
        fresh: Callable[[str, int], Words],
        vanishes: Mapping[str, int],
        n_values: int,
    ) -> tuple[Words, tuple[str, ...]]:
        """The opened sum and the sites in it.

        Args:
            fresh: What a site answers in an attempt: its sum with noise drawn anew.
            vanishes: Site -> when it vanishes: 0 before it offers a key, k before its upload in
                attempt k. The others stay.
            n_values: Length of the answers.
        """
        network = self.network
        present = [name for name in network.names if vanishes.get(name, math.inf) > 0]
        offers = network.offers(present)
        self.seen += offers
        roster = network.roster(offers)
        for number in itertools.count(1):
            attempt = network.attempt(present, retry=number - 1)
            self.seen.append(attempt)
            alive = [name for name in present if vanishes.get(name, math.inf) > number]
            # Every site checks the offers for itself, as it trusts no roster of the coordinator's.
            uploads = [
                network.sites[name].answer(fresh(name, number), attempt, network.roster(offers))
                for name in alive
            ]
            self.seen += uploads
            try:
                return open_sum(uploads, attempt, network.registry, n_values), attempt.present
            except MissingUploadsError as missing:
                present = [name for name in present if name not in missing.sites]
                roster.check_number(present)
        raise AssertionError


def names_of(n: int) -> tuple[str, ...]:
    return tuple(f"site-{number:02d}" for number in range(n))


def random_words(seed: object, n: int) -> Words:
    # Another generator than the masks', so that a mask left out cannot hide among them.
    number = int.from_bytes(seeded(seed), "big")
    return np.random.default_rng(number).integers(0, LARGEST, n, dtype=np.uint64, endpoint=True)


def wrapped_sum(vectors: Iterable[Words]) -> list[int]:
    """The sum modulo 2^64, in Python's integers."""
    columns = zip(*(vector.tolist() for vector in vectors), strict=True)
    return [sum(column) % 2**64 for column in columns]


@pytest.fixture(scope="module")
def six() -> Network:
    return Network(names_of(6), minimum=4)


# --- the sum is exact ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(2, 11))
def test_the_opened_sum_is_exact_to_the_last_integer(n: int) -> None:
    network = Network(names_of(n))
    answers = {name: random_words(("exact", name), 1000) for name in network.names}
    attempt = network.attempt()
    uploads = network.uploads(answers, attempt)
    opened = open_sum(uploads.values(), attempt, network.registry, 1000)
    assert opened.dtype == np.uint64
    assert opened.tolist() == wrapped_sum(answers.values())


THREE = Network(names_of(3))
EDGES = (0, 2**63, LARGEST)
WORD = st.sampled_from([(edge + near) % 2**64 for edge in EDGES for near in (-2, -1, 0, 1, 2)])


@settings(deadline=None)
@given(words=arrays(np.uint64, st.tuples(st.just(3), st.integers(0, 5)), elements=WORD))
@example(words=np.full((3, 1), LARGEST, dtype=np.uint64))
def test_sums_wrap_around_and_signed_values_survive(words: Words) -> None:
    answers = dict(zip(THREE.names, words, strict=True))
    attempt = THREE.attempt()
    uploads = THREE.uploads(answers, attempt)
    opened = open_sum(uploads.values(), attempt, THREE.registry, words.shape[1])
    assert opened.tolist() == wrapped_sum(answers.values())
    signed = words.view(np.int64).sum(axis=0)
    assert np.array_equal(opened.view(np.int64), signed)


def test_uploads_may_arrive_in_any_order() -> None:
    answers = {name: random_words(("order", name), 5) for name in THREE.names}
    attempt = THREE.attempt()
    uploads = THREE.uploads(answers, attempt).values()
    for order in itertools.permutations(uploads):
        opened = open_sum(order, attempt, THREE.registry, 5)
        assert opened.tolist() == wrapped_sum(answers.values())


def test_masking_leaves_the_words_as_they_are() -> None:
    words = random_words("kept", 10)
    before = words.copy()
    mask(words, THREE.attempt(), THREE.sites["site-00"].keys, THREE.roster(), "site-00")
    assert np.array_equal(words, before)


def test_run_keys_survive_between_two_processes_of_a_site() -> None:
    keys = RunKeys.generate()
    again = RunKeys.from_private_bytes(keys.private_bytes())
    assert again.public_key == keys.public_key
    assert len(keys.private_bytes()) == len(keys.public_key) == 32
    assert RunKeys.generate().public_key != keys.public_key
    assert keys.private_bytes().hex() not in repr(keys)


# --- sites vanish --------------------------------------------------------------------------------


def expected(network: Network, vanishes: Mapping[str, int]) -> tuple[set[str], int] | None:
    """Sites in the sum and the attempt that opens it, reckoned with sets; None for no sum."""
    present = {name for name in network.names if vanishes.get(name) != 0}
    for attempt in itertools.count(1):
        if len(present) < network.minimum:
            return None
        gone = {name for name in present if vanishes.get(name) == attempt}
        if not gone:
            return present, attempt
        present -= gone
    raise AssertionError


def patterns(names: tuple[str, ...], minimum: int, stage: int = 0) -> Iterator[dict[str, int]]:
    """Every way to vanish before the key offer, the upload, in a retry or in the second retry."""
    for n_gone in range(len(names) + 1):
        for gone in itertools.combinations(names, n_gone):
            vanishing = dict.fromkeys(gone, stage)
            rest = tuple(name for name in names if name not in gone)
            if len(rest) < minimum or (stage > 0 and not gone) or stage == 3:
                yield vanishing
            else:
                for later in patterns(rest, minimum, stage + 1):
                    yield vanishing | later


def check_pattern(network: Network, vanishes: Mapping[str, int]) -> bool:
    """Whether there is a sum; it is exactly that of the sites of the last attempt."""

    @cache
    def fresh(name: str, attempt: int) -> Words:
        return random_words(("fresh", name, attempt), 2)

    outcome = expected(network, vanishes)
    coordinator = Coordinator(network)
    if outcome is None:
        with pytest.raises(TooFewSitesError, match=f"a sum needs {network.minimum}"):
            coordinator.run(fresh, vanishes, 2)
        return False
    present, attempt = outcome
    opened, sites = coordinator.run(fresh, vanishes, 2)
    assert set(sites) == present, vanishes
    assert opened.tolist() == wrapped_sum(fresh(name, attempt) for name in present), vanishes
    return True


@pytest.mark.slow
def test_whoever_vanishes_whenever_the_sum_is_exact_or_refused_for_too_few(six: Network) -> None:
    outcomes = [check_pattern(six, vanishes) for vanishes in patterns(six.names, six.minimum)]
    assert len(outcomes) == 1849
    assert 100 < sum(outcomes) < len(outcomes)


@pytest.mark.parametrize("minimum", [2, 3, 5, 6])
@pytest.mark.parametrize("stage", range(4))
def test_any_sites_may_vanish_at_one_stage_down_to_any_minimum(minimum: int, stage: int) -> None:
    network = Network(names_of(6), minimum)
    # For a retry to happen somebody has to vanish before; the first site does, one stage earlier.
    before = {network.names[0]: stage - 1} if stage > 1 else {}
    rest = [name for name in network.names if name not in before]
    for n_gone in range(len(rest) + 1):
        for gone in itertools.combinations(rest, n_gone):
            check_pattern(network, before | dict.fromkeys(gone, stage))


def test_missing_uploads_are_named_and_nothing_is_opened(six: Network) -> None:
    attempt = six.attempt()
    uploads = six.uploads({name: random_words(name, 4) for name in six.names}, attempt)
    for n_missing in range(1, 7):
        for gone in itertools.combinations(six.names, n_missing):
            rest = [upload for name, upload in uploads.items() if name not in gone]
            with pytest.raises(MissingUploadsError, match=", ".join(gone)) as missing:
                open_sum(rest, attempt, six.registry, 4)
            assert missing.value.sites == gone


# --- key offers that are not what they seem ------------------------------------------------------

INTRUDER = Identity(Ed25519PrivateKey.from_private_bytes(seeded("intruder")))


def test_a_key_that_the_coordinator_puts_in_the_place_of_a_sites_is_found_out(six: Network) -> None:
    own = RunKeys.generate()
    substituted = replace(six.sites["site-02"].offer(), public_key=own.public_key)
    signed_by_another = own.offer(INTRUDER, "site-02", RUN, PLAN)
    for forged in (substituted, signed_by_another):
        with pytest.raises(ForgeryError, match="key offer of site site-02"):
            six.roster([*six.offers(six.names[:2]), forged, *six.offers(six.names[3:])])


def test_an_offer_in_another_sites_name_is_refused(six: Network) -> None:
    posing = replace(six.sites["site-01"].offer(), site="site-02")
    with pytest.raises(ForgeryError, match="key offer of site site-02"):
        six.roster([posing])
    willing = six.sites["site-01"].keys.offer(six.sites["site-01"].identity, "site-02", RUN, PLAN)
    with pytest.raises(ForgeryError, match="key offer of site site-02"):
        six.roster([willing])


@pytest.mark.parametrize("part", ["public_key", "signature"])
@settings(deadline=None)
@given(bit=st.integers(0, 255))
def test_an_offer_with_one_wrong_bit_is_refused(part: str, bit: int) -> None:
    offer = THREE.sites["site-00"].offer()
    with pytest.raises(ForgeryError, match="site-00"):
        THREE.roster([replace(offer, **{part: flipped(getattr(offer, part), bit)})])


def flipped(content: bytes, bit: int) -> bytes:
    number = int.from_bytes(content, "little") ^ (1 << bit)
    return number.to_bytes(len(content), "little")


@pytest.mark.parametrize("changes", [{"run": "run-6"}, {"plan": "plan-of-run-6"}])
def test_an_offer_for_another_run_or_plan_is_refused_and_cannot_be_relabelled(
    six: Network, changes: dict[str, str]
) -> None:
    site = six.sites["site-00"]
    old = site.offer(**changes)
    with pytest.raises(ReplayError, match="site-00 was made for another run or plan"):
        six.roster([old])
    with pytest.raises(ForgeryError, match="site-00"):
        six.roster([replace(old, run=RUN, plan=PLAN)])


def test_no_text_can_move_between_the_fields_of_an_offer(six: Network) -> None:
    site = six.sites["site-00"]
    offer = site.offer(run="run-7p", plan="lan-of-run-7")
    with pytest.raises(ForgeryError):
        six.roster([replace(offer, run="run-7", plan="plan-of-run-7")])


def test_a_signature_under_an_upload_is_none_under_an_offer(six: Network) -> None:
    site, attempt = six.sites["site-00"], six.attempt()
    upload = site.answer(random_words("x", 4), attempt, six.roster())
    with pytest.raises(ForgeryError):
        six.roster([replace(site.offer(), signature=upload.signature)])
    with pytest.raises(ForgeryError):
        replace(upload, signature=site.offer().signature).check(attempt, six.registry, 4)


def test_a_stranger_in_the_roster_is_refused(six: Network) -> None:
    stranger = RunKeys.generate().offer(INTRUDER, "stranger", RUN, PLAN)
    with pytest.raises(RosterError, match="'stranger' offers a key for a run whose plan does not"):
        six.roster([*six.offers(), stranger])
    # In the plan, but not in the registry that this site pins.
    with pytest.raises(ForgeryError, match="registry of the network's sites holds no site"):
        six.roster([*six.offers(), stranger], sites=(*six.names, "stranger"))


def test_a_site_that_is_there_twice_is_refused(six: Network) -> None:
    site = six.sites["site-03"]
    other = RunKeys.generate().offer(site.identity, "site-03", RUN, PLAN)
    for second in (site.offer(), other):
        with pytest.raises(RosterError, match="site-03 offers two keys"):
            six.roster([*six.offers(), second])


def test_one_key_for_two_sites_is_refused(six: Network) -> None:
    copied = six.sites["site-00"].keys.offer(six.sites["site-05"].identity, "site-05", RUN, PLAN)
    with pytest.raises(RosterError, match="site-05 offers a key that another site offers too"):
        six.roster([*six.offers(six.names[:5]), copied])


# All encodings of points of low order on Curve25519 and its twist (Bernstein, "Curve25519: new
# Diffie-Hellman speed records", and RFC 7748, section 6.1), small ones and with the high bit set.
LOW_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]
LOW_ORDER += [flipped(bytes.fromhex(point), 255).hex() for point in LOW_ORDER]
NO_POINT = ["", "09" * 31, "09" * 33]
SECOND_SPELLINGS = [
    flipped(RunKeys.from_private_bytes(seeded("x")).public_key, 255).hex(),
    ((2**255 - 19) + 9).to_bytes(32, "little").hex(),
]


@pytest.mark.parametrize("point", LOW_ORDER + NO_POINT + SECOND_SPELLINGS)
def test_a_key_with_which_no_secret_can_be_agreed_on_is_refused(six: Network, point: str) -> None:
    site = six.sites["site-04"]
    unsigned = KeyOffer("site-04", RUN, PLAN, bytes.fromhex(point), b"")
    offer = replace(unsigned, signature=site.identity.sign(unsigned.message()))
    with pytest.raises(WeakKeyError, match="site-04 offers a key"):
        six.roster([*six.offers(six.names[:4]), offer])


def test_sites_may_be_missing_from_the_roster_down_to_the_minimum(six: Network) -> None:
    assert set(six.roster(six.offers(six.names[2:])).keys) == set(six.names[2:])
    with pytest.raises(TooFewSitesError, match=r"3 sites are left \(site-00.*a sum needs 4"):
        six.roster(six.offers(six.names[:3]))


@pytest.mark.parametrize("minimum", [-1, 0, 1])
def test_no_plan_can_ask_for_the_sum_of_one_site(six: Network, minimum: int) -> None:
    with pytest.raises(TooFewSitesError, match="a sum needs 2"):
        six.roster(six.offers(six.names[:1]), minimum=minimum)
    roster = six.roster(minimum=minimum)
    with pytest.raises(TooFewSitesError, match="a sum needs 2"):
        six.attempt(["site-00"]).check(roster, "site-00")


def test_the_rosters_digest_is_that_of_its_run_plan_sites_and_keys(six: Network) -> None:
    offers = six.offers()
    digest = six.roster(offers).digest
    assert len(digest) == 32
    assert six.roster(offers[::-1]).digest == digest
    again = RunKeys.generate().offer(six.sites["site-00"].identity, "site-00", RUN, PLAN)
    elsewhere = [site.offer(run="run-8") for site in six.sites.values()]
    others = [
        six.roster([again, *offers[1:]]).digest,
        six.roster(offers[1:]).digest,
        six.roster(elsewhere, run="run-8").digest,
    ]
    assert len({digest, *others}) == 4


# --- requests that a site refuses ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"run": "run-8"}, ReplayError),
        ({"plan": "plan-of-run-8"}, ReplayError),
        ({"present": names_of(6)[::-1]}, RosterError),
        ({"present": ("site-00", *names_of(6))}, RosterError),
        ({"present": (*names_of(6), "stranger")}, RosterError),
        ({"present": names_of(6)[1:]}, RosterError),
        ({"present": names_of(6)[:3]}, TooFewSitesError),
        ({"present": ("site-00",)}, TooFewSitesError),
        ({"present": ()}, RosterError),
    ],
    ids=["run", "plan", "unsorted", "twice", "stranger", "without me", "few", "alone", "nobody"],
)
def test_a_site_masks_nothing_for_an_attempt_that_it_must_not_answer(
    six: Network, changes: dict[str, object], error: type[SecureSumError]
) -> None:
    attempt, site = replace(six.attempt(), **changes), six.sites["site-00"]
    for refuse in (
        lambda: attempt.check(six.roster(), "site-00"),
        lambda: mask(random_words("x", 4), attempt, site.keys, six.roster(), "site-00"),
    ):
        with pytest.raises(SecureSumError) as refused:
            refuse()
        assert type(refused.value) is error


def test_a_site_that_has_lost_its_keys_masks_nothing(six: Network) -> None:
    with pytest.raises(RosterError, match="another key of site site-00 than the site has"):
        mask(random_words("x", 4), six.attempt(), RunKeys.generate(), six.roster(), "site-00")


# --- uploads that are not what they seem ---------------------------------------------------------

OTHER_ATTEMPTS: list[dict[str, object]] = [
    {"run": "run-6"},
    {"plan": "another"},
    {"step": "gram"},
    {"round": 2},
    {"retry": 1},
    {"query": bytes(32)},
    {"present": names_of(6)[:5]},
]


@pytest.mark.parametrize("changes", OTHER_ATTEMPTS, ids=lambda changes: next(iter(changes)))
def test_an_upload_of_another_attempt_is_refused_and_cannot_be_relabelled(
    six: Network, changes: dict[str, object]
) -> None:
    attempt, other = six.attempt(), six.attempt(**changes)
    uploads = six.uploads({name: random_words(name, 4) for name in six.names}, attempt)
    replayed = Upload.signed(
        "site-00", other, uploads["site-00"].words, six.sites["site-00"].identity
    )
    rest = [upload for name, upload in uploads.items() if name != "site-00"]
    with pytest.raises(ReplayError, match="upload of site site-00 was made for another attempt"):
        open_sum([*rest, replayed], attempt, six.registry, 4)
    with pytest.raises(ForgeryError, match="upload of site site-00"):
        open_sum([*rest, replace(replayed, attempt=attempt.digest)], attempt, six.registry, 4)


@pytest.mark.parametrize("changes", OTHER_ATTEMPTS[2:6], ids=lambda changes: next(iter(changes)))
def test_nothing_comes_out_where_one_site_was_asked_something_else(
    six: Network, changes: dict[str, object]
) -> None:
    roster, zeros = six.roster(), np.zeros(1000, dtype=np.uint64)
    attempts = dict.fromkeys(six.names, six.attempt()) | {"site-03": six.attempt(**changes)}
    masked = [
        mask(zeros, attempt, six.sites[name].keys, roster, name)
        for name, attempt in attempts.items()
    ]
    total = np.array(wrapped_sum(masked), dtype=np.uint64)
    assert np.count_nonzero(total) == 1000
    assert looks_uniform(total)


def test_nothing_comes_out_where_one_site_was_shown_another_roster(six: Network) -> None:
    # Site-05 signed two keys; whoever was shown the other one is in a sum of his own.
    again = RunKeys.generate().offer(six.sites["site-05"].identity, "site-05", RUN, PLAN)
    other = six.roster([*six.offers(six.names[:5]), again])
    attempt, zeros = six.attempt(six.names[:5]), np.zeros(1000, dtype=np.uint64)
    masked = [
        mask(zeros, attempt, six.sites[name].keys, roster, name)
        for name, roster in zip(attempt.present, [other, *[six.roster()] * 4], strict=True)
    ]
    assert looks_uniform(np.array(wrapped_sum(masked), dtype=np.uint64))


def test_an_upload_in_another_sites_name_is_refused(six: Network) -> None:
    attempt = six.attempt()
    words = random_words("x", 4)
    for name in ("site-02", "site-05"):
        posing = Upload.signed(name, attempt, words, six.sites["site-01"].identity)
        with pytest.raises(ForgeryError, match=f"upload of site {name}"):
            posing.check(attempt, six.registry, 4)


def test_an_upload_of_a_site_that_was_not_asked_is_refused(six: Network) -> None:
    attempt = six.attempt(six.names[:5])
    for name, identity in (("site-05", six.sites["site-05"].identity), ("stranger", INTRUDER)):
        uninvited = Upload.signed(name, attempt, random_words("x", 4), identity)
        with pytest.raises(UploadError, match=f"site '{name}' was not asked"):
            open_sum([uninvited], attempt, six.registry, 4)


def test_an_upload_of_a_site_without_a_registered_key_is_refused(six: Network) -> None:
    attempt = six.attempt([*six.names, "stranger"])
    upload = Upload.signed("stranger", attempt, random_words("x", 4), INTRUDER)
    with pytest.raises(ForgeryError, match="holds no site 'stranger'"):
        upload.check(attempt, six.registry, 4)


@settings(deadline=None)
@given(bit=st.integers(0, 4 * 64 - 1), where=st.sampled_from(["words", "signature"]))
def test_an_upload_with_one_wrong_bit_is_refused(bit: int, where: str) -> None:
    attempt = THREE.attempt()
    upload = THREE.sites["site-00"].answer(random_words("x", 4), attempt, THREE.roster())
    upload.check(attempt, THREE.registry, 4)
    changed: dict[str, object] = {
        "signature": {"signature": flipped(upload.signature, bit)},
        "words": {"words": np.frombuffer(flipped(upload.words.tobytes(), bit), dtype=np.uint64)},
    }[where]
    with pytest.raises(ForgeryError, match="upload of site site-00"):
        replace(upload, **changed).check(attempt, THREE.registry, 4)


@pytest.mark.parametrize(
    "words",
    [
        np.zeros(3, dtype=np.uint64),
        np.zeros(5, dtype=np.uint64),
        np.zeros(0, dtype=np.uint64),
        np.zeros((4, 1), dtype=np.uint64),
        np.zeros((), dtype=np.uint64),
        np.zeros(4, dtype=np.int64),
        np.zeros(4, dtype=np.float64),
        np.zeros(8, dtype=np.uint32),
        np.zeros(4, dtype=">u8"),
    ],
    ids=lambda words: f"{words.dtype.str}{words.shape}",
)
def test_words_of_the_wrong_length_or_type_are_refused_though_signed(
    six: Network, words: NDArray[np.generic]
) -> None:
    attempt = six.attempt()
    upload = Upload.signed("site-00", attempt, words, six.sites["site-00"].identity)  # type: ignore[arg-type] # what a faulty site sends
    with pytest.raises(UploadError, match=r"site site-00 sent .* not 4 words of 64 bits"):
        open_sum([upload], attempt, six.registry, 4)


def test_a_second_upload_of_a_site_is_refused(six: Network) -> None:
    attempt = six.attempt()
    uploads = six.uploads({name: random_words(name, 4) for name in six.names}, attempt)
    with pytest.raises(UploadError, match="site-02 sent two uploads"):
        open_sum([*uploads.values(), uploads["site-02"]], attempt, six.registry, 4)


def test_all_errors_are_of_one_kind_and_can_be_mended() -> None:
    kinds = (ForgeryError, ReplayError, RosterError, WeakKeyError, TooFewSitesError)
    for kind in (*kinds, UploadError, MissingUploadsError):
        assert issubclass(kind, SecureSumError)
    assert issubclass(SecureSumError, GroundTruthError)


# --- what is signed, digested and derived --------------------------------------------------------

TEXT = st.text(max_size=6)
ATTEMPTS = st.builds(
    Attempt, TEXT, TEXT, TEXT, st.integers(0, 12), st.integers(0, 12), st.binary(max_size=4),
    st.lists(TEXT, max_size=3).map(tuple),
)  # fmt: skip


@settings(deadline=None)
@given(one=ATTEMPTS, other=ATTEMPTS)
@example(
    one=Attempt("a", "bc", "", 1, 1, b"", ("a", "b")),
    other=Attempt("ab", "c", "", 1, 1, b"", ("a", "b")),
)
@example(
    one=Attempt("a", "b", "c", 1, 1, b"", ("ab",)),
    other=Attempt("a", "b", "c", 1, 1, b"", ("a", "b")),
)
@example(one=Attempt("a", "b", "c", 1, 11, b"", ()), other=Attempt("a", "b", "c", 11, 1, b"", ()))
def test_different_attempts_have_different_digests(one: Attempt, other: Attempt) -> None:
    assert (one.digest == other.digest) == (one == other)


def encoded(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def pair_stream(
    keys: RunKeys, site: str, other: str, attempt: Attempt, roster: Roster, n: int
) -> Words:
    """The mask between two sites, from the primitives: whoever has either's key can make it."""
    secret = keys.private_key.exchange(X25519PublicKey.from_public_bytes(roster.keys[other]))
    pair = [part for name in sorted((site, other)) for part in (name.encode(), roster.keys[name])]
    domain = (b"groundtruth secure sum 1", b"mask")
    info = encoded(*domain, attempt.digest, roster.digest, *pair)
    return keystream(HKDF(SHA256(), 32, salt=None, info=info).derive(secret), n)


def peeled(upload: Upload, others: Iterable[Site], attempt: Attempt, roster: Roster) -> Words:
    """An upload without the masks that it shares with sites whose keys are known."""
    words = upload.words.copy()
    for other in others:
        stream = pair_stream(
            other.keys, other.name, upload.site, attempt, roster, upload.words.size
        )
        words += -stream if upload.site < other.name else stream
    return words


def test_masks_are_what_the_protocol_says_so_that_two_versions_of_it_agree() -> None:
    attempt, roster = THREE.attempt(), THREE.roster()
    words = random_words("x", 50)
    for name, site in THREE.sites.items():
        upload = site.answer(words, attempt, roster)
        others = [other for other in THREE.sites.values() if other is not site]
        assert np.array_equal(peeled(upload, others, attempt, roster), words)
        digest = hashlib.sha256(upload.words.astype("<u8").tobytes()).digest()
        protocol, me, offer = b"groundtruth secure sum 1", name.encode(), site.offer()
        assert upload.message() == encoded(protocol, b"upload", attempt.digest, me, digest)
        said = (RUN.encode(), PLAN.encode(), me, offer.public_key)
        assert offer.message() == encoded(protocol, b"key offer", *said)
    # Golden values of the keys and coordinates above.
    assert attempt.digest.hex()[:16] == "c25c00b4dc697979"
    assert roster.digest.hex()[:16] == "5adcfddc8a57a3b3"
    zero = np.zeros(1, dtype=np.uint64)
    masked = mask(zero, attempt, THREE.sites["site-00"].keys, roster, "site-00")
    assert f"{int(masked[0]):016x}" == "3b330933310760be"


# --- what the coordinator sees -------------------------------------------------------------------

FALSE_ALARM = 1e-6


def looks_uniform(words: Words) -> bool:
    """Chi-square test of all bytes, and of those at each place in a word.

    False alarm 1e-6 for one array of uniform words: 9 two-sided tests share it.
    """
    octets = words.astype("<u8").view(np.uint8).reshape(-1, 8)
    for some in (octets.ravel(), *octets.T):
        counts = np.bincount(some, minlength=256)
        mean = some.size / 256
        statistic = float(np.sum((counts - mean) ** 2) / mean)
        low, high = chi2.ppf([FALSE_ALARM / 18, 1 - FALSE_ALARM / 18], 255)
        if not low < statistic < high:
            return False
    return True


def look_unrelated(masked: Words, plain: Words) -> bool:
    """Whether two arrays look independent; false alarm about 1e-6.

    Correlations of independent arrays are N(0, 1/n) and leave 5.2 standard deviations once in 5e6;
    so with the arrays read as signed integers and with their lowest bits. Difference and exclusive
    or of uniform words with anything are uniform.
    """
    limit = 5.2 / math.sqrt(plain.size)
    pairs = [(masked.view(np.int64) * 1.0, plain.view(np.int64) * 1.0)]
    pairs.append(((masked & np.uint64(1)) * 1.0, (plain & np.uint64(1)) * 1.0))
    for one, other in pairs:
        if other.std() > 0 and abs(np.corrcoef(one, other)[0, 1]) > limit:
            return False
    return looks_uniform(masked - plain) and looks_uniform(masked ^ plain)


N = 20_000
PLAIN: dict[str, Callable[[str], Words]] = {
    "zeros": lambda name: np.zeros(N, dtype=np.uint64),
    "ones": lambda name: np.full(N, LARGEST, dtype=np.uint64),
    "counts": lambda name: random_words(("counts", name), N) % np.uint64(100),
    "noisy": lambda name: gaussian_words(("noisy", name), 1000.0, N),
    "one patient": lambda name: (np.arange(N) == 17).astype(np.uint64),
}


def gaussian_words(seed: object, std: float, n: int) -> Words:
    rng = np.random.default_rng(int.from_bytes(seeded(seed), "big"))
    return np.rint(rng.normal(0, std, n)).astype(np.int64).view(np.uint64)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_tests_below_find_words_that_are_not_masked_or_badly_so(kind: str) -> None:
    plain = PLAIN[kind]("site-00")
    half = random_words("mask", N) >> np.uint64(32)
    for seen in (plain, plain + half, plain + np.uint64(12345), plain ^ half):
        assert not (looks_uniform(seen) and look_unrelated(seen, plain))
    assert looks_uniform(random_words("mask", N))


@pytest.mark.parametrize("kind", PLAIN)
def test_what_a_site_uploads_is_uniform_and_unrelated_to_its_words(kind: str) -> None:
    # Keys are fixed, so the outcome is too; false alarm 3e-6 per upload.
    for n in (2, 6):
        network = Network(names_of(n))
        answers = {name: PLAIN[kind](name) for name in network.names}
        for name, upload in network.uploads(answers, network.attempt()).items():
            assert looks_uniform(upload.words), name
            assert look_unrelated(upload.words, answers[name]), name


def test_masks_differ_between_attempts_pairs_and_runs(six: Network) -> None:
    zeros, roster = np.zeros(N, dtype=np.uint64), six.roster()
    attempts = [six.attempt(), *(six.attempt(**changes) for changes in OTHER_ATTEMPTS[2:])]
    masks = [
        mask(zeros, attempt, six.sites[name].keys, roster, name)
        for attempt in attempts
        for name in ("site-00", "site-04")
    ]
    # Uniform differences and sums: no mask says anything about another.
    for one, other in itertools.combinations(masks, 2):
        assert looks_uniform(one - other)
        assert looks_uniform(one + other)


def test_all_that_crosses_is_names_public_keys_signatures_and_masked_words(six: Network) -> None:
    secrets = {name: gaussian_words(("private", name), 1e6, 2000) for name in six.names}
    noisy: dict[tuple[str, int], Words] = {}

    def fresh(name: str, attempt: int) -> Words:
        words = secrets[name] + gaussian_words(("noise", name, attempt), 100.0, 2000)
        return noisy.setdefault((name, attempt), words)

    coordinator = Coordinator(six)
    opened, present = coordinator.run(fresh, {"site-01": 1, "site-04": 2}, 2000)
    assert opened.tolist() == wrapped_sum(noisy[name, 3] for name in present)

    public = {site.keys.public_key for site in six.sites.values()}
    attempts = {each.digest: each for each in coordinator.seen if isinstance(each, Attempt)}
    masked: dict[tuple[str, int], Words] = {}
    for message in coordinator.seen:
        content = {item.name: getattr(message, item.name) for item in fields(message)}
        if isinstance(message, KeyOffer):
            assert content.pop("public_key") in public
            six.registry.verify(message.site, message.message(), content.pop("signature"))
        elif isinstance(message, Upload):
            number = attempts[content.pop("attempt")].retry + 1
            six.registry.verify(message.site, message.message(), content.pop("signature"))
            masked[message.site, number] = content.pop("words")
        else:
            assert set(content.pop("present")) <= set(six.names)
            assert content.pop("query") == QUERY
            assert (content.pop("step"), content.pop("round")) == ("gradient", 1)
            assert content.pop("retry") in (0, 1, 2)
        assert set(content.items()) <= {("run", RUN), ("plan", PLAN)} | {
            ("site", name) for name in six.names
        }
    assert masked.keys() == noisy.keys()
    assert len(masked) == 5 + 4 + 4

    for key, words in masked.items():
        assert looks_uniform(words), key
        assert look_unrelated(words, noisy[key]), key
    # Of each attempt all uploads but one together: what a coordinator has before it may open.
    for number in (1, 2, 3):
        several = [words for (_, attempt), words in masked.items() if attempt == number][1:]
        assert looks_uniform(np.concatenate(several))
        assert looks_uniform(np.array(wrapped_sum(several), dtype=np.uint64))

    contents = [
        getattr(message, item.name) for message in coordinator.seen for item in fields(message)
    ]
    seen = b"".join(bytes(part) if isinstance(part, bytes | np.ndarray) else repr(part).encode()
                    for part in contents)  # fmt: skip
    assert all(key in seen for key in public)
    hidden = [site.keys.private_bytes() for site in six.sites.values()]
    hidden += [site.identity.private_key.private_bytes_raw() for site in six.sites.values()]
    for one, other in itertools.combinations(six.sites.values(), 2):
        point = X25519PublicKey.from_public_bytes(other.keys.public_key)
        hidden.append(one.keys.private_key.exchange(point))
    for words in (*secrets.values(), *noisy.values()):
        hidden += [words[start : start + 2].tobytes() for start in range(0, 2000, 2)]
    assert not any(secret in seen for secret in hidden)


# --- coalitions ----------------------------------------------------------------------------------


def test_all_sites_but_two_and_the_coordinator_see_no_more_than_the_sum_of_these_two(
    six: Network,
) -> None:
    attempt, roster = six.attempt(), six.roster()
    answers = {name: PLAIN["counts"](name) for name in six.names}
    uploads = six.uploads(answers, attempt)
    for one, two in itertools.combinations(six.names, 2):
        coalition = [site for name, site in six.sites.items() if name not in (one, two)]
        # One of the two uploads did not arrive, whichever: the other one stays uniform.
        left = {name: peeled(uploads[name], coalition, attempt, roster) for name in (one, two)}
        for name, words in left.items():
            assert looks_uniform(words)
            assert look_unrelated(words, answers[name])
        # Both arrived: the peeling was right, and their sum is all there is.
        assert np.array_equal(left[one] + left[two], answers[one] + answers[two])


def test_only_all_other_sites_together_can_unmask_a_site(six: Network) -> None:
    attempt, roster = six.attempt(), six.roster()
    answers = {name: PLAIN["counts"](name) for name in six.names}
    upload = six.uploads(answers, attempt)["site-02"]
    others = [site for name, site in six.sites.items() if name != "site-02"]
    assert np.array_equal(peeled(upload, others, attempt, roster), answers["site-02"])
    for n_known in range(len(others)):
        for known in itertools.combinations(others, n_known):
            assert looks_uniform(peeled(upload, known, attempt, roster))


# --- a coordinator that only claims that a site is missing ---------------------------------------


def open_with(network: Network, answers: Mapping[str, Words], attempt: Attempt) -> Words:
    uploads = network.uploads(answers, attempt)
    n_values = next(iter(answers.values())).size
    return open_sum(uploads.values(), attempt, network.registry, n_values)


SHARE = 1000.0
VICTIM = "site-03"


def noised(network: Network, attempt: int) -> dict[str, Words]:
    """A site's counts with its share of the noise, which alone is too small."""
    return {
        name: PLAIN["counts"](name) + gaussian_words((name, attempt), SHARE, N)
        for name in network.names
    }


def std_is(words: Words, std: float) -> bool:
    """Two-sided chi-square test; false alarm 1e-6 for integers of that Gaussian."""
    statistic = float(np.sum((words.view(np.int64) / std) ** 2))
    low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], words.size)
    return bool(low < statistic < high)


def two_sums(
    network: Network, first: Mapping[str, Words], second: Mapping[str, Words]
) -> tuple[Words, Words]:
    """The sums of an attempt of all sites and of one from which the victim is said to be missing.

    The coordinator had the victim's upload all along; no site can know.
    """
    rest = [name for name in network.names if name != VICTIM]
    return (
        open_with(network, first, network.attempt()),
        open_with(network, second, network.attempt(rest, retry=1)),
    )


def test_sending_the_same_noisy_words_again_would_give_a_site_away(six: Network) -> None:
    same = noised(six, 1)
    all_sites, without = two_sums(six, same, same)
    difference = all_sites - without
    assert np.array_equal(difference, same[VICTIM])
    assert std_is(difference - PLAIN["counts"](VICTIM), SHARE)


def test_with_fresh_noise_the_difference_of_two_sums_hides_the_site_under_all_their_noise(
    six: Network,
) -> None:
    first, second = noised(six, 1), noised(six, 2)
    all_sites, without = two_sums(six, first, second)
    difference = all_sites - without
    assert not np.array_equal(difference, first[VICTIM])
    noise = difference - PLAIN["counts"](VICTIM)
    assert std_is(noise, SHARE * math.sqrt(6 + 5))
    assert not std_is(noise, SHARE)


def test_uploads_of_two_attempts_cannot_be_mixed(six: Network) -> None:
    first, second = six.attempt(), six.attempt(retry=1)
    zeros = dict.fromkeys(six.names, np.zeros(N, dtype=np.uint64))
    one, two = six.uploads(zeros, first), six.uploads(zeros, second)
    for n_first in range(1, 6):
        mixed = [one[name].words for name in six.names[:n_first]]
        mixed += [two[name].words for name in six.names[n_first:]]
        assert looks_uniform(np.array(wrapped_sum(mixed), dtype=np.uint64))


def test_masking_twice_for_one_attempt_would_show_the_difference(six: Network) -> None:
    # Why a site answers an attempt once: a ledger that refuses a second charge is part of it.
    site, attempt, roster = six.sites["site-00"], six.attempt(), six.roster()
    one, two = random_words("one", 5), random_words("two", 5)
    first, second = (mask(words, attempt, site.keys, roster, site.name) for words in (one, two))
    assert np.array_equal(first - second, one - two)
