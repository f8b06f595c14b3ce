"""A site's consent to code: which app bundles may run on its data, and which were offered.

Nothing runs unless its SHA-256 was approved by a person at the site. A bundle that was not is kept,
with the plan that it came with, so that people can read what they are asked to approve; the
coordinator is told "refused by policy".

state/bundles/consent.json      who decided what, and what was offered
state/bundles/<sha256>.fab      the bundles themselves
"""

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from data_contracts.errors import GroundTruthError
from federation.deployment.audit_entry import Event
from federation.deployment.audit_log import site_log, user_name
from federation.deployment.bundles import Bundle, BundleError
from federation.private_files import private_folder, write_whole
from federation.run_state import state_folder
from federation.site import SitePolicyError

Verdict = Literal["approved", "rejected"]
Decision = Literal[Verdict, "undecided"]

_FOLDER: Final = "bundles"
_DIGITS: Final = 64
_MOST_UNDECIDED: Final = 10
"""Offers that nobody has looked at; a flood of them must not fill the disk."""


class ConsentError(GroundTruthError):
    """A site's decisions cannot be read, or a decision cannot be made."""


class NotApprovedError(SitePolicyError):
    """A run's app bundle was not approved at the site."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An app bundle that a site knows.

    Attributes:
        sha256: Its SHA-256.
        seen: When it was offered first, UTC.
        plan: The run plan that it came with last; "" if it came with none.
        decision: What was decided.
        decided: When, UTC; "" if not yet.
        by: Who decided.
    """

    sha256: str
    seen: str
    plan: str = ""
    decision: Decision = "undecided"
    decided: str = ""
    by: str = ""


class Consent:
    """What a site has decided on app bundles; what cannot stand in its audit log is not done.

    Args:
        manifest_file: The site's site.toml.
    """

    def __init__(self, manifest_file: Path) -> None:
        self._folder = state_folder(manifest_file) / _FOLDER
        self._file = self._folder / "consent.json"
        self._log = site_log(manifest_file)

    def offers(self) -> tuple[Offer, ...]:
        """All that the site knows, the latest first."""
        with self._locked() as known:
            return tuple(sorted(known.values(), key=lambda offer: offer.seen, reverse=True))

    def add(self, bundle: Bundle) -> Offer:
        """Keep a bundle that people at the site bring."""
        with self._locked() as known:
            self._keep(bundle)
            return known.setdefault(bundle.sha256, Offer(bundle.sha256, _now()))

    def offer(self, bundle: Bundle, plan: str) -> Offer:
        """Keep a bundle that a run brings, whatever is decided on it."""
        with self._locked() as known:
            if bundle.sha256 not in known:
                self._log.append(Event.APP_OFFERED, app=bundle.sha256)
            offer = known.get(bundle.sha256) or Offer(bundle.sha256, _now())
            known[bundle.sha256] = replace(offer, plan=plan)
            self._keep(bundle)
            self._forget(known)
            return known[bundle.sha256]

    def require(self, bundle: Bundle, plan: str, *, site: str) -> None:
        """Make sure that a bundle may run here, and keep it for people to look at.

        Raises:
            NotApprovedError: It may not.
        """
        offer = self.offer(bundle, plan)
        if offer.decision != "approved":
            what = "was rejected" if offer.decision == "rejected" else "was not approved yet"
            raise NotApprovedError(
                f"site {site} runs only app bundles that it approved, and {bundle.sha256} {what}. "
                f"At the site: `groundtruth site apps` shows it, `groundtruth site approve` or "
                "`reject` decides"
            )

    def decide(self, sha256: str, decision: Verdict) -> Offer:
        """Approve or reject a bundle that the site knows.

        Args:
            sha256: Its SHA-256; to reject, the first eight digits or more of it are enough.
            decision: What is decided.

        Raises:
            ConsentError: The site knows no such bundle, or more than one, or it is to be approved
                by less than its whole name.
        """
        if decision == "approved" and len(sha256) != _DIGITS:
            # Whoever makes bundles can make two that begin alike, and have the one that was looked
            # at forgotten by a flood of offers.
            raise ConsentError(
                "an app bundle is approved by all 64 digits of its SHA-256: `groundtruth site apps "
                "SITE SHA256` shows them with what it changes"
            )
        with self._locked() as known:
            found = [each for each in known if each.startswith(sha256.lower())]
            if not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256) or len(found) != 1:
                raise ConsentError(
                    f"{len(found)} app bundles of this site begin with {sha256[:64]!r}; name one "
                    "by eight or more digits of its SHA-256, see `groundtruth site apps`"
                )
            offer = replace(known[found[0]], decision=decision, decided=_now(), by=user_name())
            self._log.append(_EVENTS[decision], app=offer.sha256)
            known[offer.sha256] = offer
            return offer

    def bundle(self, sha256: str) -> Bundle:
        """A bundle that the site knows, checked against its SHA-256.

        Raises:
            ConsentError: It is not there, or not what it was.
        """
        try:
            bundle = Bundle.read((self._folder / f"{sha256}.fab").read_bytes())
        except OSError:
            raise ConsentError(f"app bundle {sha256} is not at this site any more") from None
        except BundleError as error:
            raise ConsentError(f"app bundle {sha256} was damaged at this site: {error}") from None
        if bundle.sha256 != sha256:
            raise ConsentError(f"app bundle {sha256} was changed at this site; it is not used")
        return bundle

    def last_approved(self) -> Bundle | None:
        """The bundle that was approved last; None if none was."""
        approved = [offer for offer in self.offers() if offer.decision == "approved"]
        latest = max(approved, key=lambda offer: offer.decided, default=None)
        return self.bundle(latest.sha256) if latest else None

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Offer]]:
        """All offers; changes are written when the block ends well."""
        private_folder(self._folder.parent)
        private_folder(self._folder)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self._read()
            known = dict(before)
            yield known
            if known != before:
                text = json.dumps([asdict(each) for each in known.values()])
                write_whole(self._file, text.encode(), mode=0o600)

    def _read(self) -> dict[str, Offer]:
        try:
            rows = json.loads(self._file.read_text(encoding="utf-8"))
            offers = [_offer(row) for row in rows]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConsentError(f"{self._file} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, RecursionError):
            raise ConsentError(
                f"{self._file} is damaged, so nothing counts as approved. Move it aside and "
                "approve anew"
            ) from None
        return {offer.sha256: offer for offer in offers}

    def _keep(self, bundle: Bundle) -> None:
        file = self._folder / f"{bundle.sha256}.fab"
        if not file.exists() or file.read_bytes() != bundle.content:
            write_whole(file, bundle.content, mode=0o600)

    def _forget(self, known: dict[str, Offer]) -> None:
        """Drop the oldest offers that nobody decided on, beyond a number."""
        undecided = [offer for offer in known.values() if offer.decision == "undecided"]
        undecided.sort(key=lambda offer: offer.seen, reverse=True)
        for offer in undecided[_MOST_UNDECIDED:]:
            del known[offer.sha256]
            (self._folder / f"{offer.sha256}.fab").unlink(missing_ok=True)


_EVENTS: Final = {"approved": Event.APP_APPROVED, "rejected": Event.APP_REJECTED}


def _offer(row: dict[str, Any]) -> Offer:
    """An offer as it was written.

    Raises:
        ValueError, TypeError: It was not.
    """
    offer = Offer(**row)
    texts = all(isinstance(value, str) for value in row.values())
    if not (
        texts
        and re.fullmatch("[0-9a-f]{64}", offer.sha256)
        and offer.decision in get_args(Decision)
    ):
        raise ValueError
    return offer


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
