"""The coordinator's side of a run: ask every site, add up what comes back, never guess."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from data_contracts.errors import GroundTruthError
from federation.identity import Registry
from federation.messages import Answer, MessageError, Request, decode_answer, encode_request
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


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What one round cost.

    Attributes:
        step: Step of the training.
        round: Number of the round within its step, from 1.
        seconds: Wall-clock time, retries included.
        values: Values that each site sent.
        noise_std: Standard deviation of the noise in each value of the sum.
        sensitivity: L2 sensitivity of one site's answer.
        sites: Sites in the sum.
        mu: What the sum cost a patient whom it concerns; None without privacy.
        retries: How often the round was repeated because sites had vanished.
    """

    step: str
    round: int
    seconds: float
    values: int
    noise_std: float
    sensitivity: float
    sites: int
    mu: float | None
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Dropout:
    """A site that left the run.

    Attributes:
        site: Its name.
        step: Step at which it was missed; "hello" before the first.
        round: Round of the step.
        reason: Why, as far as the coordinator can know.
    """

    site: str
    step: str
    round: int
    reason: str


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
    timeout: float,
    observe: Callable[[Query, NoisySum], None] = lambda query, total: None,
) -> TrainingResult:
    """Train the plan's task over the sites on the grid.

    Args:
        grid: Flower's grid, whichever engine is behind it.
        plan: The run's plan.
        registry: The public keys of the network's sites.
        timeout: Seconds to wait for the sites, once for their hello and then per round.
        observe: Is shown every query and its sum: all that a coordinator learns.

    Raises:
        SiteFailureError: A site refuses the plan, or more sites are missing, fail or answer
            nonsense than the plan tolerates. No result is made from fewer.
    """
    sites = _Sites(grid, plan, registry, timeout)
    sites.greet()

    def ask(query: Query) -> NoisySum:
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
    timeout: float
    run: str = field(default_factory=new_run_id)
    nodes: dict[str, int] = field(default_factory=dict)
    offers: tuple[KeyOffer, ...] = ()
    rounds: list[RoundRecord] = field(default_factory=list)
    dropouts: list[Dropout] = field(default_factory=list)
    retries: int = 0

    def greet(self) -> None:
        """Find the plan's sites and collect their keys for the run.

        Raises:
            SiteFailureError: A site refuses, or too many are missing.
        """
        nodes = self._online()
        content = RecordDict({"config": ConfigRecord({"run": self.run})})
        messages = [
            Message(content, dst_node_id=node, message_type=MessageType.QUERY) for node in nodes
        ]
        replies, failures = self._exchange(messages, {f"node {node}": node for node in nodes})
        found: dict[str, int] = {}
        offers: dict[str, KeyOffer] = {}
        refusals = []
        for name, reply in replies.items():
            node = reply.metadata.src_node_id
            said = dict(record) if (record := _config(reply)) else {}
            site = said.get("site")
            if not isinstance(site, str):
                raise SiteFailureError(f"{name} does not say which site it is")
            if site not in self.plan.sites:
                continue
            if refusal := str(said.get("refusal", "")):
                refusals.append(refusal)
            if site in found:
                raise SiteFailureError(f"two nodes call themselves {site}; every site has one name")
            key, signature = said.get("key"), said.get("signature")
            if isinstance(key, bytes) and isinstance(signature, bytes):
                offers[site] = KeyOffer(site, self.run, self.plan.digest, key, signature)
            elif self.plan.mu is not None and not refusal:
                failures[site] = f"site {site} gave no key for the run"
                continue
            found[site] = node
        if refusals:
            raise SiteFailureError("; ".join(sorted(refusals)))
        missing = [site for site in self.plan.sites if site not in found]
        for site in missing:
            reason = failures.get(site, "no usable answer to the greeting")
            self.dropouts.append(Dropout(site, "hello", 1, reason))
        if len(found) < self.plan.minimum_sites:
            others = f" ({'; '.join(sorted(failures.values()))})" if failures else ""
            raise SiteFailureError(
                f"sites of the plan are not online: {', '.join(missing)}{others}"
            )
        self.nodes = {site: found[site] for site in self.plan.sites if site in found}
        if self.plan.secure_sum:
            self.offers = tuple(offers[site] for site in self.nodes)
            Roster.verified(
                self.offers,
                self.registry,
                run=self.run,
                plan=self.plan.digest,
                sites=self.plan.sites,
                minimum=self.plan.minimum_sites,
            )

    def ask(self, query: Query) -> NoisySum:
        """The sum of the sites' answers to a query, from as many sites as the plan asks for.

        Raises:
            SiteFailureError: Too many sites are missing, or the sum cannot be.
        """
        start = time.monotonic()
        number = 1 + sum(record.step == query.step for record in self.rounds)
        request = Request(query, self.run, number, 0, self._present(), self.offers)
        answers, failures = self._ask_once(request)
        repeated = 0
        while failures:
            self._drop(failures, query.step, number)
            if not self.plan.secure_sum:
                break
            if self.retries == self.plan.retries:
                raise SiteFailureError(
                    f"{query.step} {number}: {_listed(failures)}; the plan's "
                    f"{self.plan.retries} retries are used up. What was charged stays charged"
                )
            self.retries, repeated = self.retries + 1, repeated + 1
            request = replace(request, retry=self.retries, present=self._present())
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
        logger.info("%s %d: %d sites in %.2f s", query.step, number, len(answers), record.seconds)
        return total

    def _ask_once(self, request: Request) -> tuple[dict[str, Answer | Upload], dict[str, str]]:
        """The good answers, and the reason of every site that gave none."""
        content = encode_request(request)
        group = f"{request.round}/{request.retry}"
        messages = [
            Message(content, dst_node_id=node, message_type=MessageType.TRAIN, group_id=group)
            for node in self.nodes.values()
        ]
        replies, failures = self._exchange(messages, self.nodes)
        answers: dict[str, Answer | Upload] = {}
        for site, reply in replies.items():
            try:
                answers[site] = self._checked(site, request, decode_answer(reply.content))
            except (MessageError, SecureSumError) as error:
                failures[site] = f"site {site} answered nonsense: {error}"
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

    def _drop(self, failures: Mapping[str, str], step: str, number: int) -> None:
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
        for site, reason in sorted(failures.items()):
            logger.warning("%s %d: goes on without site %s: %s", step, number, site, reason)
            self.dropouts.append(Dropout(site, step, number, reason))
            del self.nodes[site]

    def _online(self) -> list[int]:
        """The nodes on the grid, once there are enough or time is up."""
        deadline = time.monotonic() + self.timeout
        while len(nodes := sorted(self.grid.get_node_ids())) < len(self.plan.sites):
            if time.monotonic() > deadline:
                if len(nodes) >= self.plan.minimum_sites:
                    break
                raise SiteFailureError(
                    f"only {len(nodes)} of {len(self.plan.sites)} sites are online after "
                    f"{self.timeout:.0f} s; start the missing sites' clients, or leave them out of "
                    "the plan"
                )
            time.sleep(0.2)
        return nodes

    def _exchange(
        self, messages: Sequence[Message], nodes: Mapping[str, int]
    ) -> tuple[dict[str, Message], dict[str, str]]:
        """The reply of every node that gave one, and the reason of every other."""
        names = {node: name for name, node in nodes.items()}
        replies: dict[str, Message] = {}
        failures: dict[str, str] = {}
        for reply in self.grid.send_and_receive(list(messages), timeout=self.timeout):
            # Flower answers in the name of node 1 for a node that it has lost; that one is silent.
            name = names.get(reply.metadata.src_node_id)
            if name is None:
                continue
            if reply.has_error():
                reason = _reason(reply.error.reason)
                failures[name] = reason if "site " in reason else f"{name}: {reason}"
            else:
                replies[name] = reply
        for name in nodes:
            if name not in replies and name not in failures:
                failures[name] = f"no answer within {self.timeout:.0f} s from {name}"
        return replies, failures


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


def _config(message: Message) -> ConfigRecord | None:
    record = message.content.get("config")
    return record if isinstance(record, ConfigRecord) else None


def _listed(failures: Mapping[str, str]) -> str:
    return "; ".join(sorted(set(failures.values())))


def _reason(text: str | None) -> str:
    """The last line of what a site reports, without Python's dressing."""
    line = (text or "").strip().splitlines()[-1] if (text or "").strip() else "no reason given"
    # Flower's client process says <class 'X'>:<'message'>, and Ray puts its own words around it.
    line = line.rpartition("ClientAppException occurred. Message: ")[2]
    if ":<" in line:
        line = line.partition(":<")[2]
    return line.removesuffix("'>").removesuffix(">").lstrip("'")
