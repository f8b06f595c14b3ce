"""The coordinator's side of a run: ask every site, add up what comes back, never guess."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
from flwr.app import MessageType
from flwr.serverapp import Grid

from federation.checkpoint import Attempt, Checkpoint, CheckpointError, Dropout, RoundRecord
from federation.exchange import PATIENCE, Failure, Patience, ask_all
from federation.identity import Registry
from federation.messages import (
    Answer,
    Lost,
    MessageError,
    Request,
    decode_answer,
    encode_request,
    query_digest,
)
from federation.participants import (
    Participants,
    ReconciliationError,
    SiteFailureError,
    listed,
)
from federation.plan import RunPlan
from federation.roster import SecureSumError
from federation.run_state import new_run_id
from federation.secure_sum import Upload, Words, open_sum
from federation.settings import RETRY
from models.evaluation import Evaluation
from models.queries import Query
from models.training import Model, NoisySum, drive

__all__ = ["ReconciliationError", "SiteFailureError", "TrainingResult", "on_each_round", "run"]

logger = logging.getLogger("groundtruth.rounds")
"""A line after every round, and a warning for every site that a run goes on without."""


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
    going = _Run(grid, plan, registry, patience, members, keep, earlier)
    if earlier is None:
        going.begin()

    def ask(query: Query) -> NoisySum:
        total = going.ask(query)
        observe(query, total)
        return total

    trained = drive(plan.training(), ask)
    dropouts = tuple(going.sites.dropouts)
    return TrainingResult(
        going.run, trained.model, trained.evaluation, tuple(going.rounds), dropouts
    )


class _Run:
    """A run on its way; its parameters are those of `run`."""

    def __init__(
        self,
        grid: Grid,
        plan: RunPlan,
        registry: Registry,
        patience: Patience,
        members: Mapping[int, str],
        keep: Callable[[Checkpoint], None],
        earlier: Checkpoint | None,
    ) -> None:
        self._grid, self._plan, self._registry = grid, plan, registry
        self._patience, self._keep, self._earlier = patience, keep, earlier
        self._digest = plan.digest
        self.run = earlier.run if earlier else new_run_id()
        self.sites = Participants(grid, plan, registry, patience, members, self.run, earlier)
        self.rounds = list(earlier.rounds) if earlier else []
        self._sums = list(earlier.sums) if earlier else []
        self._played = iter(list(zip(self.rounds, self._sums, strict=True)))
        self._retries = earlier.retries if earlier else 0
        self._attempt: Attempt | None = None

    def begin(self) -> None:
        """Find the sites.

        Raises:
            SiteFailureError, ReconciliationError: See `Participants.begin`.
        """
        self.sites.begin(max(self._patience.quorum or 0, self._plan.minimum_sites))
        self._keep(self._checkpoint())

    def ask(self, query: Query) -> NoisySum:
        """The sum of the sites' answers to a query, from as many sites as the plan asks for.

        Raises:
            SiteFailureError: Too many sites are missing, or the sum cannot be.
            CheckpointError: The query is not the one that was asked before the run was broken off.
        """
        if (played := next(self._played, None)) is not None:
            return _replayed(query, *played)
        start = time.monotonic()
        number = 1 + sum(record.step == query.step for record in self.rounds)
        request = self._first_request(query, number)
        answers, failures = self._ask_once(request)
        while failures:
            self.sites.drop(failures, query.step, number)
            if not self._plan.secure_sum:
                break
            request = self._next_retry(request, listed(failures.values()))
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
            mu=self._plan.mu_of(RETRY if request.retry else query.step),
            retries=self._retries - sum(record.retries for record in self.rounds),
        )
        self.rounds.append(record)
        self._sums.append(total)
        self._attempt = None
        self._keep(self._checkpoint())
        logger.info("%s %d: %d sites in %.2f s", query.step, number, len(answers), record.seconds)
        return total

    def _first_request(self, query: Query, number: int) -> Request:
        """A round's request; where a run goes on, its sites are found first."""
        earlier, self._earlier = self._earlier, None
        spare = not self._plan.secure_sum or self._retries < self._plan.retries
        if earlier is not None:
            begun = earlier.attempt
            if begun is not None and (begun.step, begun.round) != (query.step, number):
                raise CheckpointError(_NOT_THIS_RUN)
            self.sites.go_on(earlier, query.step, number, spare=spare)
            if begun is not None:
                return self._repeated(query, begun)
        self.sites.readmit(query.step, number, spare=spare)
        return Request(query, self.run, number, 0, self._present(), self.sites.offers)

    def _repeated(self, query: Query, begun: Attempt) -> Request:
        """The attempt in which the run was broken off, just as it was, or the next one."""
        shown = tuple(sorted(begun.present)) if self._plan.secure_sum else ()
        request = Request(query, self.run, begun.round, begun.retry, shown, self.sites.offers)
        if self._plan.mu is not None and begun.query != query_digest(query).hex():
            # Another machine computes other last bits, and sites answer a question only once.
            return self._next_retry(request, "the question cannot be repeated bit for bit")
        if shown != self._present():
            absent = sorted(set(shown) - set(self.sites.nodes))
            return self._next_retry(request, f"{', '.join(absent)} did not come back")
        return request

    def _next_retry(self, request: Request, why: str) -> Request:
        """The same round among those who are left.

        Raises:
            SiteFailureError: The plan has no retry left.
        """
        if self._retries == self._plan.retries:
            raise SiteFailureError(
                f"{request.query.step} {request.round}: {why}; the plan's {self._plan.retries} "
                "retries are used up. What was charged stays charged"
            )
        self._retries += 1
        return replace(request, retry=self._retries, present=self._present())

    def _ask_once(self, request: Request) -> tuple[dict[str, Answer | Upload], dict[str, Failure]]:
        """The good answers, and the reason of every site that gave none."""
        name = _release(request)
        for site in self.sites.nodes:
            self.sites.asked.setdefault(site, set()).add(name)
        self._attempt = Attempt(
            request.query.step,
            request.round,
            request.retry,
            tuple(self.sites.nodes),
            query_digest(request.query).hex(),
        )
        self._keep(self._checkpoint())
        replies, failures = ask_all(
            self._grid,
            encode_request(request),
            self.sites.nodes,
            MessageType.TRAIN,
            self._patience,
            group=f"{request.round}/{request.retry}",
        )
        answers: dict[str, Answer | Upload] = {}
        for site, reply in replies.items():
            try:
                answer = self._checked(site, request, decode_answer(reply.content))
                if answer is None:
                    words = f"site {site} died between charging the release and sending it"
                    failures[site] = Failure(words, silent=True)
                    continue
                answers[site] = answer
                self.sites.answered.setdefault(site, set()).add(name)
            except (MessageError, SecureSumError) as error:
                words = f"site {site} answered nonsense: {error}"
                failures[site] = Failure(words, silent=False)
        return answers, failures

    def _checked(
        self, site: str, request: Request, answer: Answer | Upload | Lost
    ) -> Answer | Upload | None:
        """The answer, if it is good; None where the site has lost it."""
        if answer.site != site:
            raise MessageError(f"site {site} answered in the name of {answer.site}")
        if isinstance(answer, Lost):
            return None
        if isinstance(answer, Upload) != (self._plan.mu is not None):
            raise MessageError("the plan asks for noise" if self._plan.mu else "no noise is asked")
        size = request.query.n_values
        if isinstance(answer, Upload):
            answer.check(request.attempt(self._digest, site), self._registry, size)
        elif answer.values.size != size:
            raise MessageError(f"{answer.values.size} values, not {size}")
        return answer

    def _open(self, request: Request, answers: Mapping[str, Answer | Upload]) -> NoisySum:
        query = request.query
        # In the plan's order, so that the result is the same bit for bit.
        ordered = [answers[site] for site in self.sites.nodes]
        if self._plan.mu is None:
            with np.errstate(over="ignore"):  # found out below
                total = np.add.reduce([each.values for each in ordered if isinstance(each, Answer)])
            noise_std = 0.0
        else:
            mechanism = self._plan.release(query, retry=request.retry > 0)
            uploads = [each for each in ordered if isinstance(each, Upload)]
            total = mechanism.decode(self._sum_of(uploads, request))
            noise_std = mechanism.noise_std(len(uploads))
        # What more patients than all sites have could add up to, and all but impossible noise.
        most = self._plan.privacy.max_patients_per_site * len(answers)
        if not (np.abs(total) <= query.sensitivity * most + 40 * noise_std).all():
            raise SiteFailureError(
                f"{query.step} {request.round}: the sum over the sites is out of range, so a site "
                "has sent garbage. Sums are masked, so nobody can tell which: ask the sites to "
                "check their clients' versions, and start a new run"
            )
        return NoisySum(total, noise_std)

    def _sum_of(self, uploads: Sequence[Upload], request: Request) -> Words:
        """Sum of the sites' words modulo 2^64."""
        if not self._plan.secure_sum:
            return np.asarray(np.add.reduce([upload.words for upload in uploads]))
        attempt = request.attempt(self._digest, uploads[0].site)
        return open_sum(uploads, attempt, self._registry, request.query.n_values)

    def _present(self) -> tuple[str, ...]:
        """The sites between which answers are masked."""
        return tuple(sorted(self.sites.nodes)) if self._plan.secure_sum else ()

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            run=self.run,
            plan=self._digest,
            offers=self.sites.offers,
            rounds=tuple(self.rounds),
            sums=tuple(self._sums),
            dropouts=tuple(self.sites.dropouts),
            sites=tuple(self.sites.nodes),
            gone=tuple(self.sites.gone),
            retries=self._retries,
            attempt=self._attempt,
            asked={site: tuple(sorted(names)) for site, names in self.sites.asked.items()},
            answered={site: tuple(sorted(names)) for site, names in self.sites.answered.items()},
        )


_NOT_THIS_RUN: Final = "what was kept of the run does not fit its plan; start a new run"


def _replayed(query: Query, record: RoundRecord, total: NoisySum) -> NoisySum:
    """A sum that was kept, in answer to the query that it answered before.

    Raises:
        CheckpointError: This is another query.
    """
    if (record.step, total.values.size) != (query.step, query.n_values):
        raise CheckpointError(_NOT_THIS_RUN)
    logger.info("%s %d: kept from before", record.step, record.round)
    return total


def _release(request: Request) -> str:
    """A release's name in a site's ledger: a retry is charged as such, whatever it repeats."""
    if request.retry:
        return f"{RETRY} {request.retry}"
    return f"{request.query.step} {request.round}"


@contextmanager
def on_each_round(
    call: Callable[[], None], tell: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Call a function after every round of a run in this process.

    Args:
        call: Called after every round.
        tell: Called with every word about sites that are waited for, leave or come back.
    """

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.INFO:
                call()
            elif tell is not None:
                tell(record.getMessage())

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
