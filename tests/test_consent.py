"""A site's consent to code: only a person approves, and no flood or damage changes that."""

import hashlib
import itertools
import json
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data_contracts.manifest import SiteManifest
from federation.deployment.audit_log import AUDIT_FILE, AuditLogError, show
from federation.deployment.bundles import Bundle
from federation.deployment.consent import Consent, ConsentError, NotApprovedError
from federation.deployment.site_service import undecided_apps

BundleMaker = Callable[..., Bundle]


@pytest.fixture
def file(provider_folders: list[Path], tmp_path: Path) -> Path:
    """The site.toml of a site that knows no bundle."""
    return SiteManifest.load(provider_folders[0]).write(tmp_path)


@pytest.fixture
def consent(file: Path) -> Consent:
    return Consent(file)


@pytest.fixture
def bundle(bundle_of: BundleMaker) -> Bundle:
    return bundle_of()


def bundles_of(file: Path) -> Path:
    return file.parent / "state" / "bundles"


def logged(file: Path) -> list[tuple[object, object]]:
    return [(row["event"], row["app"]) for row in show(file.parent / "state" / AUDIT_FILE)]


def test_nothing_is_approved_until_a_person_says_so_and_no_longer(
    consent: Consent, file: Path, bundle: Bundle
) -> None:
    with pytest.raises(NotApprovedError, match="was not approved yet"):
        consent.require(bundle, "plan", site="provider-01")
    assert consent.decide(bundle.sha256.upper(), "approved").decision == "approved"
    consent.require(bundle, "plan", site="provider-01")
    consent.decide(bundle.sha256, "rejected")
    with pytest.raises(NotApprovedError, match="was rejected"):
        consent.require(bundle, "plan", site="provider-01")
    events = ("app offered", "app approved", "app rejected")
    assert logged(file) == [(event, bundle.sha256) for event in events]


def test_an_approval_is_of_these_bytes_and_not_of_these_files(
    consent: Consent, bundle: Bundle
) -> None:
    consent.decide(consent.add(bundle).sha256, "approved")
    longer = Bundle.read(bundle.content[:-2] + b"\1\0 ")  # a zip archive's comment
    assert longer.files == bundle.files
    with pytest.raises(NotApprovedError):
        consent.require(longer, "plan", site="provider-01")


def test_a_bundle_is_offered_once_and_shown_with_the_plan_of_its_last_run(
    consent: Consent, file: Path, bundle: Bundle
) -> None:
    first = consent.offer(bundle, "one plan")
    second = consent.offer(bundle, "another plan")
    assert (second.seen, second.plan) == (first.seen, "another plan")
    assert consent.add(bundle).plan == "another plan"
    assert logged(file) == [("app offered", bundle.sha256)]


def test_people_at_the_site_are_told_of_a_bundle_until_they_decide(
    consent: Consent, bundle: Bundle, file: Path
) -> None:
    assert undecided_apps(file) == {}
    consent.offer(bundle, "{}")
    told = undecided_apps(file)
    assert list(told) == [bundle.sha256]
    shows = f"`groundtruth site apps {file.parent} {bundle.sha256[:16]}`"
    assert shows in told[bundle.sha256]
    consent.decide(bundle.sha256, "rejected")
    assert undecided_apps(file) == {}


def test_whoever_adds_a_bundle_at_the_site_is_no_run_that_offers_one(
    consent: Consent, bundle: Bundle
) -> None:
    consent.add(bundle)
    assert [offer.decision for offer in consent.offers()] == ["undecided"]
    with pytest.raises(NotApprovedError):
        consent.require(bundle, "", site="provider-01")


def test_a_flood_of_offers_leaves_ten_and_all_that_were_decided(
    consent: Consent, file: Path, bundle_of: BundleMaker
) -> None:
    flood = [bundle_of(f"return {number}") for number in range(40)]
    consent.offer(flood[0], "plan")
    consent.decide(flood[0].sha256, "approved")
    consent.offer(flood[1], "plan")
    consent.decide(flood[1].sha256, "rejected")
    for bundle in flood[2:]:
        consent.offer(bundle, "plan")
    known = {offer.sha256 for offer in consent.offers()}
    assert known == {each.sha256 for each in (*flood[:2], *flood[-10:])}
    assert {each.stem for each in bundles_of(file).glob("*.fab")} == known
    last = consent.last_approved()
    assert last is not None
    assert last.sha256 == flood[0].sha256
    with pytest.raises(ConsentError, match="0 app bundles"):
        consent.decide(flood[5].sha256, "approved")


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["", "1234567", "g" * 8, "12345678" * 9, "../../..", ".{64}"])
def test_a_bundle_is_named_by_eight_digits_or_more(
    consent: Consent, bundle: Bundle, named: str
) -> None:
    consent.add(bundle)
    with pytest.raises(ConsentError, match="name one by eight or more digits"):
        consent.decide(named, "rejected")
    with pytest.raises(ConsentError, match="name one by eight or more digits"):
        consent.decide(bundle.sha256[:7], "rejected")
    assert [offer.decision for offer in consent.offers()] == ["undecided"]


def test_what_was_looked_at_is_approved_and_not_another_that_begins_alike(
    consent: Consent, bundle: Bundle, bundle_of: BundleMaker
) -> None:
    """The birthday of 32 bits: a second of trying makes two bundles of one's own that collide."""
    shown, swapped = alike(bundle.content, bundle_of("return 'evil'").content)
    consent.offer(shown, "plan")
    for number in range(10):  # the one that people read is forgotten
        consent.offer(bundle_of(f"return {number}"), "plan")
    consent.offer(swapped, "plan")
    assert shown.sha256[:8] == swapped.sha256[:8]
    with pytest.raises(ConsentError, match="all 64 digits"):
        consent.decide(shown.sha256[:8], "approved")
    with pytest.raises(ConsentError, match="0 app bundles"):
        consent.decide(shown.sha256, "approved")
    assert consent.last_approved() is None


def alike(one: bytes, other: bytes) -> tuple[Bundle, Bundle]:
    """Both bundles with comments behind their archives that give their hashes one beginning."""
    heads = [content[:-2] + (8).to_bytes(2, "little") for content in (one, other)]
    starts = [hashlib.sha256(head) for head in heads]
    seen: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    for number in itertools.count():
        tail = f"{number:08}".encode()
        for own, start in enumerate(starts):
            tried = start.copy()
            tried.update(tail)
            begin = tried.digest()[:4]
            seen[own][begin] = tail
            if begin in seen[1 - own]:
                tails = [seen[each][begin] for each in (0, 1)]
                first, second = (Bundle.read(h + t) for h, t in zip(heads, tails, strict=True))
                return first, second
    raise AssertionError


def test_digits_with_which_two_bundles_begin_name_neither(
    consent: Consent, file: Path, bundle: Bundle
) -> None:
    consent.add(bundle)
    (row,) = json.loads((bundles_of(file) / "consent.json").read_text())
    # 32 bits of a hash are found by trying: whoever makes bundles can make two that begin alike.
    other = bundle.sha256[:20] + bundle.sha256[20:][::-1]
    text = json.dumps([row, row | {"sha256": other}])
    (bundles_of(file) / "consent.json").write_text(text)
    with pytest.raises(ConsentError, match="2 app bundles of this site begin"):
        consent.decide(bundle.sha256[:20], "rejected")
    assert consent.decide(bundle.sha256, "approved").sha256 == bundle.sha256
    assert [offer.decision for offer in consent.offers()].count("approved") == 1


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[{",
        "{}x",
        "null",
        "5",
        '{"a": 1}',
        '[{"sha256": 5}]',
        '["approved"]',
        '[{"sha256": "SHA", "seen": "", "decision": "aproved"}]',
        '[{"sha256": "SHA", "seen": 5, "decision": "approved"}]',
        '[{"sha256": "SHA", "seen": "", "decision": ["approved"]}]',
        '[{"sha256": "SHA", "seen": "", "decision": "approved", "more": ""}]',
        '[{"sha256": "../x", "seen": "", "decision": "approved"}]',
        "[" * 100_000,
        "\0",
    ],
    ids=lambda text: text[:40],
)
def test_damaged_decisions_are_no_approval_and_are_left_as_they_are(
    consent: Consent, file: Path, bundle: Bundle, text: str
) -> None:
    consent.decide(consent.add(bundle).sha256, "approved")
    text = text.replace("SHA", bundle.sha256)
    (bundles_of(file) / "consent.json").write_text(text)
    calls: list[Callable[[], object]] = [
        consent.offers,
        consent.last_approved,
        lambda: consent.require(bundle, "plan", site="provider-01"),
        lambda: consent.decide(bundle.sha256, "approved"),
        lambda: consent.add(bundle),
    ]
    for call in calls:
        with pytest.raises(ConsentError, match="nothing counts as approved"):
            call()
    assert (bundles_of(file) / "consent.json").read_text() == text


def test_a_bundle_that_was_changed_on_the_disk_is_not_shown_as_what_was_approved(
    consent: Consent, file: Path, bundle: Bundle, bundle_of: BundleMaker
) -> None:
    consent.decide(consent.add(bundle).sha256, "approved")
    stored = bundles_of(file) / f"{bundle.sha256}.fab"
    stored.write_bytes(bundle_of("return 1").content)
    with pytest.raises(ConsentError, match="was changed at this site"):
        consent.bundle(bundle.sha256)
    stored.write_bytes(b"garbage")
    with pytest.raises(ConsentError, match="was damaged at this site"):
        consent.last_approved()
    stored.unlink()
    with pytest.raises(ConsentError, match="is not at this site any more"):
        consent.bundle(bundle.sha256)
    consent.offer(bundle, "plan")  # the next run brings it again
    assert consent.bundle(bundle.sha256).content == bundle.content


def test_what_cannot_be_logged_is_not_decided(consent: Consent, file: Path, bundle: Bundle) -> None:
    consent.add(bundle)
    log = file.parent / "state" / AUDIT_FILE
    log.write_text("not an entry\n")
    with pytest.raises(AuditLogError):
        consent.decide(bundle.sha256, "approved")
    assert consent.last_approved() is None


def test_bundles_are_their_owners_alone(consent: Consent, file: Path, bundle: Bundle) -> None:
    consent.offer(bundle, "plan")
    folder = bundles_of(file)
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    for each in folder.iterdir():
        if each.name != ".lock":
            assert each.stat().st_mode & 0o777 == 0o600, each


# --- two at once ----------------------------------------------------------------------------------


def _decide_all(file: Path, digests: list[str], decision: str) -> None:
    consent = Consent(file)
    for sha256 in digests:
        consent.decide(sha256, decision)  # type: ignore[arg-type]


def test_two_processes_that_decide_at_once_lose_no_decision(
    consent: Consent, file: Path, bundle_of: BundleMaker
) -> None:
    digests = [consent.add(bundle_of(f"return {number}")).sha256 for number in range(20)]
    spawn = multiprocessing.get_context("spawn")
    halves = ((digests[:10], "approved"), (digests[10:], "rejected"))
    workers = [
        spawn.Process(target=_decide_all, args=(file, half, decision)) for half, decision in halves
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    decided = {offer.sha256: offer.decision for offer in consent.offers()}
    assert decided == {sha: decision for half, decision in halves for sha in half}
    assert sorted(logged(file)) == sorted((f"app {what}", sha) for sha, what in decided.items())


def test_the_time_of_an_offer_is_in_utc_and_can_be_put_in_order(
    consent: Consent, bundle_of: BundleMaker
) -> None:
    made = [consent.offer(bundle_of(f"return {number}"), "").seen for number in range(3)]
    assert made == sorted(made)
    assert all(re.fullmatch(r"[0-9T:.-]+\+00:00", seen) for seen in made)
