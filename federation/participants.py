"""Who takes part in a run: greeted, held against their ledgers, dropped and taken back."""

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from data_contracts.errors import GroundTruthError
from federation.checkpoint import Checkpoint, Dropout
from federation.exchange import AFTER_AN_ERROR_SECONDS, Failure, Patience, Post, failure_of
from federation.identity import IdentityError, Registry
from federation.plan import RunPlan
from federation.printable import printable
from federation.roster import KeyOffer, Roster, SecureSumError
from federation.waiting import Waiting

logger = logging.getLogger("groundtruth.rounds")


class SiteFailureError(GroundTruthError):
    """Too many sites did not answer, refused, or answered nonsense."""


class ReconciliationError(SiteFailureError):
    """A site's ledger and what the coordinator knows of it contradict each other."""


@dataclass(frozen=True, slots=True)
class _Hello:
    """What a node that was greeted says.

    Attributes:
        site: Whose node it is; None if nobody knows.
        offer: The site's key for the run; None without privacy.
        charged: The releases of the run that the site's ledger has.
        failure: Why it cannot take part.
    """

    site: str | None
    offer: KeyOffer | None = None
    charged: frozenset[str] = frozenset()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """What greeting has brought.

    Attributes:
        nodes: Site -> its node.
        offers: Site -> its key for the run.
        missing: Site -> why it is not there.
        strangers: Node that does not say which site it is -> why.
    """

    nodes: dict[str, int]
    offers: dict[str, KeyOffer]
    missing: dict[str, Failure]
    strangers: dict[int, Failure]


class Participants:
    """The sites of a run as the coordinator sees them.

    Args:
        grid: Flower's grid.
        plan: The run's plan.
        registry: The public keys of the network's sites.
        patience: How long to wait for sites.
        members: Node -> site, where the engine knows by its own keys whose node it is.
        run: The run's identifier.
        kept: What was kept of the run, where it goes on.

    Attributes:
        nodes: Site that takes part -> its node, in the plan's order.
        gone: Site that was silent and may come back -> its node; 0 for one that has none.
        offers: The sites' keys for the run.
        dropouts: Every departure.
        asked: Site -> the releases that it may have charged.
        answered: Site -> the releases that it has charged for certain.
    """

    def __init__(
        self,
        grid: Grid,
        plan: RunPlan,
        registry: Registry,
        patience: Patience,
        members: Mapping[int, str],
        run: str,
        kept: Checkpoint | None,
    ) -> None:
        self._grid, self._plan, self._registry = grid, plan, registry
        self._patience, self._members, self._run = patience, members, run
        self._digest = plan.digest
        self._bell = Post(grid)
        self._rung: dict[int, float] = {}
        self.nodes: dict[str, int] = {}
        self.gone: dict[str, int] = {}
        self.offers = kept.offers if kept else ()
        self.dropouts = list(kept.dropouts) if kept else []
        self.asked = {site: set(names) for site, names in kept.asked.items()} if kept else {}
        self.answered = {site: set(names) for site, names in kept.answered.items()} if kept else {}

    # --- at the start, and where a run goes on ---------------------------------------------------

    def begin(self, quorum: int) -> None:
        """Find the plan's sites and collect their keys for the run.

        Raises:
            SiteFailureError: So many are missing or refuse that there is no quorum.
            ReconciliationError: See `_reconcile`.
            SecureSumError: Their keys make no roster.
        """
        found = self._greet(self._plan.sites)
        self._take(found.nodes)
        self._require(quorum, found)
        self.dropouts += [
            Dropout(site, "hello", 1, failure.reason) for site, failure in found.missing.items()
        ]
        if self._plan.secure_sum:
            self.offers = tuple(found.offers[site] for site in self.nodes)
            self._check_roster()

    def go_on(self, kept: Checkpoint, step: str, number: int, *, spare: bool) -> None:
        """Find again the sites of a run that was broken off in a round, or before it.

        Sites that were gone come back, unless an attempt was going on that the others can repeat.

        Args:
            kept: What was kept of the run.
            step: Step of the round.
            number: Its number.
            spare: See `readmit`.

        Raises:
            SiteFailureError, ReconciliationError, SecureSumError: See `begin`.
        """
        if self._plan.secure_sum:
            self._check_roster()
        found = self._greet(kept.sites, also=kept.gone)
        self._take({site: found.nodes[site] for site in kept.sites if site in found.nodes})
        absent = {site: why for site, why in found.missing.items() if site in kept.sites}
        for site, failure in absent.items():
            self._note_absence(site, step, number, failure)
        self.gone = {
            site: found.nodes.get(site, 0)
            for site in (*kept.gone, *absent)
            if site in found.nodes or found.missing[site].silent
        }
        if spare and (absent or kept.attempt is None):
            for site in [site for site, node in self.gone.items() if node]:
                self._take_back(site, self.gone[site], step, number)
        self._require(self._plan.minimum_sites, found)

    def _greet(self, wanted: Collection[str], also: Collection[str] = ()) -> _Found:
        """Greet every node until all sites that are wanted have answered, or time is up."""
        start, post = time.monotonic(), Post(self._grid)
        late = f"not online within {self._patience.quorum_seconds:.0f} s"
        missing = {site: Failure(f"{site}: {late}", silent=True) for site in (*wanted, *also)}
        found = _Found({}, {}, missing, {})
        due: dict[int, float] = {}
        waiting = Waiting("the run", self._patience.quorum_seconds, first=5.0)
        while True:
            now, online = time.monotonic(), set(self._grid.get_node_ids())
            for node in sorted(online - set(found.nodes.values())):
                if now >= due.get(node, now) and post.send(node, self._greeting(), _QUERY):
                    due[node] = now + 3 * self._patience.ask_again_seconds
            for node, reply in post.collect():
                hello = self._heard(node, reply)
                if hello.failure and hello.failure.silent:
                    due[node] = min(due[node], now + AFTER_AN_ERROR_SECONDS)
                self._enter(found, node, hello, online)
            # A node that does not say who it is may be any site that is missing.
            final = sum(not failure.silent for failure in found.strangers.values())
            waited_for = [site for site in wanted if site in missing and missing[site].silent]
            if len(waited_for) <= final:
                return found
            if time.monotonic() - start > self._patience.quorum_seconds:
                return found
            waiting.note(waited_for)
            time.sleep(self._patience.poll_seconds)

    def _enter(self, found: _Found, node: int, hello: _Hello, online: Collection[int]) -> None:
        """Note what a greeted node has said.

        Raises:
            SiteFailureError: It calls itself what another node is called.
            ReconciliationError: See `_reconcile`.
        """
        found.strangers.pop(node, None)
        site = hello.site
        if site is None and hello.failure is not None:
            found.strangers[node] = hello.failure
        if site is None or (site not in found.nodes and site not in found.missing):
            return
        if found.nodes.get(site, node) != node and found.nodes[site] in online:
            raise SiteFailureError(f"two nodes call themselves {site}; every site has one name")
        if hello.failure:
            found.nodes.pop(site, None)
            found.missing[site] = hello.failure
            return
        self._reconcile(site, hello.charged)
        found.missing.pop(site, None)
        found.nodes[site] = node
        if hello.offer:
            found.offers[site] = hello.offer

    def _require(self, quorum: int, found: _Found) -> None:
        if len(self.nodes) < quorum:
            failures = (*found.missing.values(), *found.strangers.values())
            raise SiteFailureError(
                f"only {len(self.nodes)} of {len(self._plan.sites)} sites take part, and the run "
                f"needs {quorum}: {listed(failures)}"
            )

    def _check_roster(self) -> None:
        Roster.verified(
            self.offers,
            self._registry,
            run=self._run,
            plan=self._digest,
            sites=self._plan.sites,
            minimum=self._plan.minimum_sites,
        )

    # --- what a site says ------------------------------------------------------------------------

    def _greeting(self) -> RecordDict:
        return RecordDict({"config": ConfigRecord({"run": self._run})})

    def _heard(self, node: int, reply: Message) -> _Hello:
        """Who a greeted node is, its key for the run, and why it cannot take part."""
        owner = self._members.get(node)
        name = f"site {owner}" if owner else f"node {node}"
        if reply.has_error():
            return _Hello(owner, failure=failure_of(name, reply))

        def refused(site: str | None, reason: str) -> _Hello:
            return _Hello(site, failure=Failure(reason, silent=False))

        record = reply.content.get("config")
        said = dict(record) if isinstance(record, ConfigRecord) else {}
        site, refusal = said.get("site"), str(said.get("refusal", ""))
        if not isinstance(site, str):
            return refused(owner, f"{name} does not say which site it is")
        if owner not in (None, site):
            words = f"{name} calls itself {site[:40]!r}: its site.toml has another name"
            return refused(owner, words)
        if refusal:
            return refused(site, refusal if site in refusal else f"{site}: {refusal}")
        if site not in self._plan.sites or self._plan.mu is None:
            return _Hello(site)
        key, signature = said.get("key"), said.get("signature")
        if not (isinstance(key, bytes) and isinstance(signature, bytes)):
            return refused(site, f"site {site} gave no key for the run")
        offer = KeyOffer(site, self._run, self._digest, key, signature)
        try:
            self._registry.verify(site, offer.message(), offer.signature)
            offer.check_point()
        except (IdentityError, SecureSumError) as error:
            return refused(site, str(error))
        before = next((each for each in self.offers if each.site == site), offer)
        if offer.public_key != before.public_key:
            lost = f"site {site} has lost what it kept of the run (state/runs)"
            return refused(site, f"{lost}; it can take part in the next one")
        charged = said.get("charged")
        names = map(str, charged) if isinstance(charged, list) else ()
        return _Hello(site, offer, frozenset(names))

    def _reconcile(self, site: str, charged: Collection[str]) -> None:
        """Hold what a site's ledger has of the run against what it was asked and has answered.

        Raises:
            ReconciliationError: A release is missing there, or was never asked for.
        """
        if self._plan.mu is None:
            return  # nothing is charged
        if lost := sorted(self.answered.get(site, set()).difference(charged)):
            raise ReconciliationError(
                f"site {site} has answered {', '.join(lost[:3])} of run {self._run}, and its "
                "ledger does not know of it: an older copy of the ledger was put back. The run "
                "stops. At the site, put back the right ledger (`groundtruth site verify`)"
            )
        if unknown := sorted(set(charged) - self.asked.get(site, set())):
            told = printable(", ".join(unknown), 100)
            raise ReconciliationError(
                f"the ledger of site {site} has charged {told} of run {self._run}, which this "
                "coordinator has not asked for: what was kept of the run is older than the run, or "
                "somebody else has asked. The run stops; start a new one"
            )

    # --- on the way ------------------------------------------------------------------------------

    def drop(self, failures: Mapping[str, Failure], step: str, number: int) -> None:
        """Go on without the sites that failed, if the plan allows it.

        Raises:
            SiteFailureError: It does not; each site is named with its reason.
        """
        left = len(self.nodes) - len(failures)
        if left < self._plan.minimum_sites:
            words = ""
            if self._plan.dropouts:
                words = (
                    f"; {left} of {len(self._plan.sites)} sites are left, and their noise is too "
                    f"little below {self._plan.minimum_sites}: the round is thrown away"
                )
            raise SiteFailureError(listed(failures.values()) + words)
        for site, failure in sorted(failures.items()):
            self._note_absence(site, step, number, failure)
            node = self.nodes.pop(site)
            if failure.silent:
                self.gone[site] = node

    def readmit(self, step: str, number: int, *, spare: bool) -> None:
        """Take back sites that were silent and greet again; greet those that still are away.

        Args:
            step: Step of the round that is about to begin.
            number: Its number.
            spare: Whether the run can afford to lose one of them once more.

        Raises:
            ReconciliationError: See `_reconcile`.
        """
        if not (self.gone and spare):
            return
        now, online = time.monotonic(), set(self._grid.get_node_ids())
        for node, reply in self._bell.collect():
            hello = self._heard(node, reply)
            if (site := hello.site) not in self.gone or site is None:
                continue
            if hello.failure is None and node in online:
                self._reconcile(site, hello.charged)
                self._take_back(site, node, step, number)
            elif hello.failure and not hello.failure.silent:
                logger.warning("site %s does not come back: %s", site, hello.failure.reason)
                del self.gone[site]
        for node in sorted(online - set(self.nodes.values())) if self.gone else ():
            wanted = self._members.get(node) in (None, *self.gone)
            if wanted and now >= self._rung.get(node, now):
                self._bell.send(node, self._greeting(), _QUERY)
                self._rung[node] = now + 3 * self._patience.ask_again_seconds

    def _take(self, nodes: Mapping[str, int]) -> None:
        """Let sites take part, in the plan's order."""
        known = {**self.nodes, **nodes}
        self.nodes = {site: known[site] for site in self._plan.sites if site in known}

    def _take_back(self, site: str, node: int, step: str, number: int) -> None:
        self._take({site: node})
        del self.gone[site]
        # What else the node may still say is older than what it will be asked.
        self._bell.forget(node)
        self._rung.pop(node, None)
        latest = max(i for i, each in enumerate(self.dropouts) if each.site == site)
        self.dropouts[latest] = replace(self.dropouts[latest], back=f"{step} {number}")
        logger.warning("%s %d: site %s takes part again", step, number, site)

    def _note_absence(self, site: str, step: str, number: int, failure: Failure) -> None:
        logger.warning("%s %d: goes on without site %s: %s", step, number, site, failure.reason)
        self.dropouts.append(Dropout(site, step, number, failure.reason))


_QUERY = MessageType.QUERY


def listed(failures: Iterable[Failure]) -> str:
    """The reasons, each once."""
    return "; ".join(sorted({failure.reason for failure in failures}))
