"""The coordinator's side of a run: ask every site, add up what comes back, never guess."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from data_contracts.errors import GroundTruthError
from federation.checkpoint import Attempt, Checkpoint, CheckpointError, Dropout, RoundRecord
from federation.exchange import PATIENCE, Failure, Patience, Post, ask_all, reason_of
from federation.identity import IdentityError, Registry
from federation.messages import (
    Answer,
    MessageError,
    Request,
    decode_answer,
    encode_request,
    query_digest,
)
from federation.plan import RunPlan
from federation.roster import KeyOffer, Roster, SecureSumError
from federation.run_state import new_run_id
from federation.secure_sum import Upload, Words, open_sum
from federation.settings import RETRY
from models.evaluation import Evaluation
from models.queries import Query
from models.training import Model, NoisySum, drive

logger = logging.getLogger("groundtruth.rounds")
"""A line after every round, and a warning for every site that a run goes on without."""


class SiteFailureError(GroundTruthError):
    """Too many sites did not answer, refused, or answered nonsense."""


class ReconciliationError(SiteFailureError):
    """A site's ledger and what the coordinator knows of it contradict each other."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A trained model and how it came about.

    Attributes:
        run: The run's identifier, under which the sites' ledgers have its charges.
        model: The model.
        evaluation: How good it is on held-out patients, from noisy counts.
        rounds: Every round.
        dropouts: Sites that left on the way.
    """

    run: str
    model: Model
    evaluation: Evaluation
    rounds: tuple[RoundRecord, ...]
    dropouts: tuple[Dropout, ...] = ()


def run(
    grid: Grid,
    plan: RunPlan,
    *,
    registry: Registry,
    patience: Patience = PATIENCE,
    members: Mapping[int, str] = MappingProxyType({}),
    observe: Callable[[Query, NoisySum], None] = lambda query, total: None,
    keep: Callable[[Checkpoint], None] = lambda checkpoint: None,
    earlier: Checkpoint | None = None,
) -> TrainingResult:
    """Train the plan's task over the sites on the grid.

    Args:
        grid: Flower's grid, whichever engine is behind it.
        plan: The run's plan.
        registry: The public keys of the network's sites.
        patience: How long to wait for sites, and for how many. A run that goes on needs no more
            than the plan's noise does.
        members: Node -> site, where the engine knows by its own keys whose node it is.
        observe: Is shown every query and its sum: all that a coordinator learns.
        keep: Is given the run so far, before every attempt at a round and after every round, and
            must not return before it is safe.
        earlier: Where a run that was broken off goes on.

    Raises:
        SiteFailureError: More sites are missing, refuse, fail or answer nonsense than the plan or
            the quorum tolerates. No result is made from fewer.
        ReconciliationError: A site's ledger does not fit what it did in the run.
        CheckpointError: What was kept is of another plan.
    """
    if earlier is not None and earlier.plan != plan.digest:
        raise CheckpointError("the run was begun with another plan; start a new run for this one")
    sites = _Sites(grid, plan, registry, patience, members, keep, earlier)
    quorum = patience.quorum if earlier is None and patience.quorum else 0
    sites.greet(max(quorum, plan.minimum_sites))
    played = iter(earlier.sums if earlier else ())

    def ask(query: Query) -> NoisySum:
        total = next(played, None)
        if total is None:
            total = sites.ask(query)
        observe(query, total)
        return total

    trained = drive(plan.training(), ask)
    return TrainingResult(
        sites.run, trained.model, trained.evaluation, tuple(sites.rounds), tuple(sites.dropouts)
    )


@dataclass
class _Sites:
    """The sites of a run as the coordinator sees them."""

    grid: Grid
    plan: RunPlan
    registry: Registry
    patience: Patience
    members: Mapping[int, str]
    keep: Callable[[Checkpoint], None]
    earlier: Checkpoint | None
    run: str = field(default_factory=new_run_id)
    nodes: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    offers: tuple[KeyOffer, ...] = ()
    rounds: list[RoundRecord] = field(default_factory=list)
    sums: list[NoisySum] = field(default_factory=list)
    dropouts: list[Dropout] = field(default_factory=list)
    retries: int = 0
    attempt: Attempt | None = None
    asked: dict[str, set[str]] = field(default_factory=dict)
    answered: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bell = Post(self.grid)
        self._rung: dict[str, float] = {}
        if (kept := self.earlier) is None:
            return
        self.run, self.offers, self.retries = kept.run, kept.offers, kept.retries
        self.rounds, self.sums = list(kept.rounds), list(kept.sums)
        self.dropouts, self.attempt = list(kept.dropouts), kept.attempt
        self.asked = {site: set(names) for site, names in kept.asked.items()}
        self.answered = {site: set(names) for site, names in kept.answered.items()}

    # --- who takes part --------------------------------------------------------------------------

    def greet(self, quorum: int) -> None:
        """Find the plan's sites and collect their keys for the run.

        Raises:
            SiteFailureError: So many are missing or refuse that there is no quorum.
            ReconciliationError: See `_reconcile`.
        """
        start, post = time.monotonic(), Post(self.grid)
        greeted: dict[int, float] = {}
        found: dict[str, int] = {}
        offers: dict[str, KeyOffer] = {}
        reasons: dict[str, str] = {}
        strangers: dict[int, str] = {}
        wanted = self._expected()
        while True:
            now = time.monotonic()
            for node in sorted(set(self.grid.get_node_ids()) - set(found.values())):
                if now >= greeted.get(node, now) and post.send(node, self._greeting(), _QUERY):
                    greeted[node] = now + 3 * self.patience.ask_again_seconds
            for node, reply in post.collect():
                site, offer, reason = self._heard(node, reply)
                if site is None:
                    strangers[node] = reason
                elif site in found and found[site] != node:
                    raise SiteFailureError(
                        f"two nodes call themselves {site}; every site has one name"
                    )
                elif reason:
                    reasons[site] = reason
                elif site in self.plan.sites:
                    found[site] = node
                    reasons.pop(site, None)
                    if offer is not None:
                        offers[site] = offer
            # A node that does not say who it is may be any site that is missing.
            if len({*found, *reasons} & {*wanted}) + len(strangers) >= len(wanted):
                break
            if time.monotonic() - start > self.patience.quorum_seconds:
                break
            time.sleep(self.patience.poll_seconds)
        silent = f"not online within {self.patience.quorum_seconds:.0f} s"
        missing = {
            site: reasons.get(site, f"{site}: {silent}") for site in wanted if site not in found
        }
        if len(found) < quorum:
            words = sorted({*missing.values(), *strangers.values()})
            raise SiteFailureError(
                f"only {len(found)} of {len(self.plan.sites)} sites take part, and the run needs "
                f"{quorum}: {'; '.join(words)}"
            )
        self._begin(found, offers, missing)

    def _expected(self) -> Sequence[str]:
        """The sites that a run begins, or goes on, with."""
        if self.earlier is None or not self.offers:
            return self.plan.sites
        offered = {offer.site for offer in self.offers}
        return [site for site in self.plan.sites if site in offered]

    def _begin(
        self, found: Mapping[str, int], offers: Mapping[str, KeyOffer], missing: Mapping[str, str]
    ) -> None:
        if self.earlier is None:
            self.nodes = {site: found[site] for site in self.plan.sites if site in found}
            self.dropouts += [Dropout(site, "hello", 1, why) for site, why in missing.items()]
            if self.plan.secure_sum:
                self.offers = tuple(offers[site] for site in self.nodes)
        else:
            for site in self._expected():
                if site not in found or site in self.earlier.gone:
                    self.gone[site] = found.get(site, 0)
                else:
                    self.nodes[site] = found[site]
            number = 1 + len(self.rounds)
            self.dropouts += [
                Dropout(site, "resume", number, why)
                for site, why in missing.items()
                if site not in self.earlier.gone
            ]
        if self.plan.secure_sum:
            Roster.verified(
                self.offers,
                self.registry,
                run=self.run,
                plan=self.plan.digest,
                sites=self.plan.sites,
                minimum=self.plan.minimum_sites,
            )
        self.keep(self._checkpoint())

    def _greeting(self) -> RecordDict:
        return RecordDict({"config": ConfigRecord({"run": self.run})})

    def _heard(self, node: int, reply: Message) -> tuple[str | None, KeyOffer | None, str]:
        """Who a greeted node is, its key for the run, and why it cannot take part.

        Raises:
            ReconciliationError: See `_reconcile`.
        """
        owner = self.members.get(node)
        name = f"site {owner}" if owner else f"node {node}"
        if reply.has_error():
            return owner, None, reason_of(name, reply)
        record = reply.content.get("config")
        said = dict(record) if isinstance(record, ConfigRecord) else {}
        site, refusal = said.get("site"), str(said.get("refusal", ""))
        if not isinstance(site, str):
            return owner, None, f"{name} does not say which site it is"
        if owner not in (None, site):
            return owner, None, f"{name} calls itself {site[:40]!r}: its site.toml has another name"
        if site not in self.plan.sites or refusal or self.plan.mu is None:
            return site, None, refusal and (refusal if site in refusal else f"{site}: {refusal}")
        key, signature = said.get("key"), said.get("signature")
        if not (isinstance(key, bytes) and isinstance(signature, bytes)):
            return site, None, f"site {site} gave no key for the run"
        offer = KeyOffer(site, self.run, self.plan.digest, key, signature)
        try:
            self.registry.verify(site, offer.message(), offer.signature)
        except IdentityError as error:
            return site, None, str(error)
        before = next((each for each in self.offers if each.site == site), offer)
        if offer.public_key != before.public_key:
            lost = f"site {site} has lost what it kept of the run (state/runs)"
            return site, None, f"{lost}; it can take part in the next one"
        self._reconcile(site, said.get("charged"))
        return site, offer, ""

    def _reconcile(self, site: str, charged: object) -> None:
        """Hold what a site's ledger has of the run against what it was asked and has answered.

        Raises:
            ReconciliationError: A release is missing there, or was never asked for.
        """
        names = {str(each) for each in charged} if isinstance(charged, list) else set()
        if lost := sorted(self.answered.get(site, set()) - names):
            raise ReconciliationError(
                f"site {site} has answered {', '.join(lost[:3])} of run {self.run}, and its ledger "
                "does not know of it: an older copy of the ledger was put back. The run stops. At "
                "the site, put back the right ledger (`groundtruth site verify`)"
            )
        if unknown := sorted(names - self.asked.get(site, set())):
            raise ReconciliationError(
                f"the ledger of site {site} has charged {', '.join(unknown[:3])} of run "
                f"{self.run}, which this coordinator has not asked for: what was kept of the run "
                "is older than the run, or somebody else has asked. The run stops; start a new one"
            )

    def _readmit(self, step: str, number: int) -> None:
        """Take back sites that were silent and greet again; ring at those that still are away.

        Only while a retry is left, which it would take to lose one again.
        """
        for node, reply in self._bell.collect():
            site, _, reason = self._heard(node, reply)
            if site not in self.gone or self.retries >= self.plan.retries:
                continue
            if reason:
                logger.warning("site %s does not come back: %s", site, reason)
                continue
            self.nodes[site] = node
            del self.gone[site]
            self.nodes = {name: self.nodes[name] for name in self.plan.sites if name in self.nodes}
            self._mark_back(site, f"{step} {number}")
            logger.warning("%s %d: site %s takes part again", step, number, site)
        online = set(self.grid.get_node_ids())
        now = time.monotonic()
        for site, node in self.gone.items():
            if node in online and now >= self._rung.get(site, now):
                self._bell.send(node, self._greeting(), _QUERY)
                self._rung[site] = now + 3 * self.patience.ask_again_seconds

    def _mark_back(self, site: str, when: str) -> None:
        latest = max(i for i, each in enumerate(self.dropouts) if each.site == site)
        self.dropouts[latest] = replace(self.dropouts[latest], back=when)

    def _drop(self, failures: Mapping[str, Failure], step: str, number: int) -> None:
        """Go on without the sites that failed, if the plan allows it.

        Raises:
            SiteFailureError: It does not; each site is named with its reason.
        """
        left = len(self.nodes) - len(failures)
        if left < self.plan.minimum_sites:
            words = ""
            if self.plan.dropouts:
                words = (
                    f"; {left} of {len(self.plan.sites)} sites are left, and their noise is too "
                    f"little below {self.plan.minimum_sites}: the round is thrown away"
                )
            raise SiteFailureError(_listed(failures) + words)
        for site, failure in sorted(failures.items()):
            logger.warning("%s %d: goes on without site %s: %s", step, number, site, failure.reason)
            self.dropouts.append(Dropout(site, step, number, failure.reason))
            node = self.nodes.pop(site)
            if failure.silent:
                self.gone[site] = node

    # --- what is asked ---------------------------------------------------------------------------

    def ask(self, query: Query) -> NoisySum:
        """The sum of the sites' answers to a query, from as many sites as the plan asks for.

        Raises:
            SiteFailureError: Too many sites are missing, or the sum cannot be.
        """
        start = time.monotonic()
        number = 1 + sum(record.step == query.step for record in self.rounds)
        repeated = 0
        request = self._resumed(query, number)
        if request is None:
            self._readmit(query.step, number)
            request = Request(query, self.run, number, 0, self._present(), self.offers)
        answers, failures = self._ask_once(request)
        while failures:
            self._drop(failures, query.step, number)
            if not self.plan.secure_sum:
                break
            request = self._next_retry(request, _listed(failures))
            repeated += 1
            answers, failures = self._ask_once(request)
        total = self._open(request, answers)
        record = RoundRecord(
            step=query.step,
            round=number,
            seconds=time.monotonic() - start,
            values=total.values.size,
            noise_std=total.noise_std,
            sensitivity=query.sensitivity,
            sites=len(answers),
            mu=self.plan.mu_of(RETRY if request.retry else query.step),
            retries=repeated,
        )
        self.rounds.append(record)
        self.sums.append(total)
        self.attempt = None
        self.keep(self._checkpoint())
        logger.info("%s %d: %d sites in %.2f s", query.step, number, len(answers), record.seconds)
        return total

    def _next_retry(self, request: Request, why: str) -> Request:
        """The same round among those who are left.

        Raises:
            SiteFailureError: The plan has no retry left.
        """
        if self.retries == self.plan.retries:
            raise SiteFailureError(
                f"{request.query.step} {request.round}: {why}; the plan's {self.plan.retries} "
                "retries are used up. What was charged stays charged"
            )
        self.retries += 1
        return replace(request, retry=self.retries, present=self._present())

    def _resumed(self, query: Query, number: int) -> Request | None:
        """The attempt in which the run was broken off, just as it was; None if there is none."""
        if (begun := self.attempt) is None:
            return None
        present = set(begun.present)
        for site in [site for site in self.nodes if site not in present]:
            self.gone[site] = self.nodes.pop(site)
        for site in [site for site in self.gone if site in present]:
            self.nodes[site] = self.gone.pop(site)  # not there: found out, and dropped, by asking
        self.nodes = {site: self.nodes[site] for site in self.plan.sites if site in self.nodes}
        shown = tuple(sorted(begun.present)) if self.plan.secure_sum else ()
        request = Request(query, self.run, number, begun.retry, shown, self.offers)
        if (begun.step, begun.round) != (query.step, number):
            raise CheckpointError("what was kept of the run does not fit its plan; start a new run")
        if begun.query != query_digest(query).hex():
            # Another machine computes other last bits, and sites answer a question only once.
            return self._next_retry(request, "the question cannot be repeated bit for bit")
        return request

    def _ask_once(self, request: Request) -> tuple[dict[str, Answer | Upload], dict[str, Failure]]:
        """The good answers, and the reason of every site that gave none."""
        name = _release(request)
        for site in self.nodes:
            self.asked.setdefault(site, set()).add(name)
        self.attempt = Attempt(
            request.query.step,
            request.round,
            request.retry,
            tuple(self.nodes),
            query_digest(request.query).hex(),
        )
        self.keep(self._checkpoint())
        replies, failures = ask_all(
            self.grid,
            encode_request(request),
            self.nodes,
            MessageType.TRAIN,
            self.patience,
            group=f"{request.round}/{request.retry}",
        )
        answers: dict[str, Answer | Upload] = {}
        for site, reply in replies.items():
            try:
                answers[site] = self._checked(site, request, decode_answer(reply.content))
                self.answered.setdefault(site, set()).add(name)
            except (MessageError, SecureSumError) as error:
                words = f"site {site} answered nonsense: {error}"
                failures[site] = Failure(words, silent=False)
        return answers, failures

    def _checked(self, site: str, request: Request, answer: Answer | Upload) -> Answer | Upload:
        if answer.site != site:
            raise MessageError(f"site {site} answered in the name of {answer.site}")
        if isinstance(answer, Upload) != (self.plan.mu is not None):
            raise MessageError("the plan asks for noise" if self.plan.mu else "no noise is asked")
        size = request.query.n_values
        if isinstance(answer, Upload):
            answer.check(request.attempt(self.plan.digest, site), self.registry, size)
        elif answer.values.size != size:
            raise MessageError(f"{answer.values.size} values, not {size}")
        return answer

    def _open(self, request: Request, answers: Mapping[str, Answer | Upload]) -> NoisySum:
        query = request.query
        # In the plan's order, so that the result is the same bit for bit.
        ordered = [answers[site] for site in self.nodes]
        if self.plan.mu is None:
            with np.errstate(over="ignore"):  # found out below
                total = np.add.reduce([each.values for each in ordered if isinstance(each, Answer)])
            noise_std = 0.0
        else:
            mechanism = self.plan.release(query, retry=request.retry > 0)
            uploads = [each for each in ordered if isinstance(each, Upload)]
            total = mechanism.decode(self._sum_of(uploads, request))
            noise_std = mechanism.noise_std(len(uploads))
        # What more patients than all sites have could add up to, and all but impossible noise.
        most = self.plan.privacy.max_patients_per_site * len(answers)
        if not (np.abs(total) <= query.sensitivity * most + 40 * noise_std).all():
            raise SiteFailureError(
                f"{query.step} {request.round}: the sum over the sites is out of range, so a site "
                "has sent garbage. Sums are masked, so nobody can tell which: ask the sites to "
                "check their clients' versions, and start a new run"
            )
        return NoisySum(total, noise_std)

    def _sum_of(self, uploads: Sequence[Upload], request: Request) -> Words:
        """Sum of the sites' words modulo 2^64."""
        if not self.plan.secure_sum:
            return np.asarray(np.add.reduce([upload.words for upload in uploads]))
        attempt = request.attempt(self.plan.digest, uploads[0].site)
        return open_sum(uploads, attempt, self.registry, request.query.n_values)

    def _present(self) -> tuple[str, ...]:
        """The sites between which answers are masked."""
        return tuple(sorted(self.nodes)) if self.plan.secure_sum else ()

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            run=self.run,
            plan=self.plan.digest,
            offers=self.offers,
            rounds=tuple(self.rounds),
            sums=tuple(self.sums),
            dropouts=tuple(self.dropouts),
            gone=tuple(self.gone),
            retries=self.retries,
            attempt=self.attempt,
            asked={site: tuple(sorted(names)) for site, names in self.asked.items()},
            answered={site: tuple(sorted(names)) for site, names in self.answered.items()},
        )


_QUERY = MessageType.QUERY


def _release(request: Request) -> str:
    """A release's name in a site's ledger: a retry is charged as such, whatever it repeats."""
    if request.retry:
        return f"{RETRY} {request.retry}"
    return f"{request.query.step} {request.round}"


@contextmanager
def on_each_round(call: Callable[[], None]) -> Iterator[None]:
    """Call a function after every round of a run in this process."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.INFO:
                call()

    handler, level, propagate = Handler(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # some libraries print whatever reaches the root
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _listed(failures: Mapping[str, Failure]) -> str:
    return "; ".join(sorted({failure.reason for failure in failures.values()}))
