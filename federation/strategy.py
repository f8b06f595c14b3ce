"""The coordinator's side of a run: ask every site, add up what comes back, never guess."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from data_contracts.errors import GroundTruthError
from data_contracts.features import grid_of
from federation.messages import Answer, MessageError, decode_answer, encode_query
from federation.plan import RunPlan
from models.additive import AdditiveModel
from models.additive_training import NoisySum, drive, train
from models.queries import Query

MAX_PATIENTS = 100_000_000
"""More patients than any site has; a larger sum is garbage."""

logger = logging.getLogger("groundtruth.rounds")
"""One line after every round."""


class SiteFailureError(GroundTruthError):
    """A site did not answer, refused, or answered nonsense."""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What one round cost.

    Attributes:
        step: Step of the training.
        round: Number of the round within its step, from 1.
        seconds: Wall-clock time.
        values: Values that each site sent.
        noise_std: Standard deviation of the noise in each value of the sum.
        sensitivity: L2 sensitivity of one site's answer.
    """

    step: str
    round: int
    seconds: float
    values: int
    noise_std: float
    sensitivity: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A trained model and how it came about."""

    model: AdditiveModel
    rounds: tuple[RoundRecord, ...]


def run(
    grid: Grid,
    plan: RunPlan,
    *,
    timeout: float,
) -> TrainingResult:
    """Train the plan's task over the sites on the grid.

    Args:
        grid: Flower's grid, whichever engine is behind it.
        plan: The run's plan.
        timeout: Seconds to wait for the sites, once for their hello and then per round.

    Raises:
        SiteFailureError: A site of the plan is missing, refuses, fails or answers nonsense. No
            result is ever made from fewer sites than the plan names.
    """
    nodes = _find_sites(grid, plan, timeout)
    records: list[RoundRecord] = []
    rounds_of: dict[str, int] = {}

    def ask(query: Query) -> NoisySum:
        start = time.monotonic()
        number = rounds_of[query.step] = rounds_of.get(query.step, 0) + 1
        content = encode_query(query, number)
        messages = [
            Message(content, dst_node_id=node, message_type=MessageType.TRAIN, group_id=str(number))
            for node in nodes.values()
        ]
        replies = _replies(grid, messages, nodes, timeout)
        answers = [_answer_of(site, replies[node]) for site, node in nodes.items()]
        total = _add(answers, plan, query)
        record = RoundRecord(
            step=query.step,
            round=number,
            seconds=time.monotonic() - start,
            values=total.values.size,
            noise_std=total.noise_std,
            sensitivity=query.sensitivity,
        )
        records.append(record)
        logger.info("%s %d: %d sites in %.2f s", query.step, number, len(nodes), record.seconds)
        return total

    features = plan.features()
    names = [feature.name for feature in features]
    training = train(
        names,
        [grid_of(feature) for feature in features],
        plan.additive,
        max_records=plan.privacy.max_records_per_patient,
    )
    return TrainingResult(drive(training, ask), tuple(records))


@contextmanager
def on_each_round(call: Callable[[], None]) -> Iterator[None]:
    """Call a function after every round of a run in this process."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            call()

    handler, level = Handler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _find_sites(grid: Grid, plan: RunPlan, timeout: float) -> dict[str, int]:
    """Node of every site of the plan, in the plan's order."""
    deadline = time.monotonic() + timeout
    while len(nodes := sorted(grid.get_node_ids())) < len(plan.sites):
        if time.monotonic() > deadline:
            raise SiteFailureError(
                f"only {len(nodes)} of {len(plan.sites)} sites are online after {timeout:.0f} s; "
                "start the missing sites' clients, or leave them out of the plan"
            )
        time.sleep(0.2)
    content = RecordDict({"config": ConfigRecord({})})
    messages = [
        Message(content, dst_node_id=node, message_type=MessageType.QUERY) for node in nodes
    ]
    replies = _replies(grid, messages, {f"node {node}": node for node in nodes}, timeout)
    found: dict[str, int] = {}
    for node, reply in replies.items():
        record = reply.content.get("config")
        said = dict(record) if isinstance(record, ConfigRecord) else {}
        site = said.get("site")
        if not isinstance(site, str):
            raise SiteFailureError(f"node {node} does not say which site it is")
        if site in plan.sites and (refusal := str(said.get("refusal", ""))):
            raise SiteFailureError(refusal)
        if site in found:
            raise SiteFailureError(f"two nodes call themselves {site}; every site has one name")
        found[site] = node
    if missing := [site for site in plan.sites if site not in found]:
        raise SiteFailureError(f"sites of the plan are not online: {', '.join(missing)}")
    return {site: found[site] for site in plan.sites}


def _replies(
    grid: Grid, messages: Sequence[Message], nodes: dict[str, int], timeout: float
) -> dict[int, Message]:
    """Reply of every node.

    Raises:
        SiteFailureError: A node failed or did not answer in time; each is named with its reason.
    """
    names = {node: site for site, node in nodes.items()}
    failures: set[str] = set()
    replies: dict[int, Message] = {}
    for reply in grid.send_and_receive(list(messages), timeout=timeout):
        node = reply.metadata.src_node_id
        if reply.has_error():
            reason = _reason(reply.error.reason)
            failures.add(reason if "site " in reason else f"{names.get(node, node)}: {reason}")
        else:
            replies[node] = reply
    silent = [site for site, node in nodes.items() if node not in replies]
    if failures:
        raise SiteFailureError("; ".join(sorted(failures)))
    if silent:
        raise SiteFailureError(f"no answer within {timeout:.0f} s from {', '.join(silent)}")
    return replies


def _reason(text: str | None) -> str:
    """The last line of what a site reports, without Python's dressing."""
    line = (text or "").strip().splitlines()[-1] if (text or "").strip() else "no reason given"
    # Flower's client process says <class 'X'>:<'message'>, and Ray puts its own words around it.
    line = line.rpartition("ClientAppException occurred. Message: ")[2]
    if ":<" in line:
        line = line.partition(":<")[2]
    return line.removesuffix("'>").removesuffix(">").lstrip("'")


def _answer_of(site: str, reply: Message) -> Answer:
    try:
        answer = decode_answer(reply.content)
    except MessageError as error:
        raise SiteFailureError(f"site {site} answered nonsense: {error}") from None
    if answer.site != site:
        raise SiteFailureError(f"site {site} answered in the name of {answer.site}")
    return answer


def _add(answers: Sequence[Answer], plan: RunPlan, query: Query) -> NoisySum:
    """Sum in the plan's order, so that the result is the same bit for bit.

    Raises:
        SiteFailureError: An answer has the wrong length, or noise other than the plan asks for.
    """
    mu = plan.mu_of(query.step)
    expected = 0.0 if mu is None else query.sensitivity / mu
    for answer in answers:
        if answer.values.size != query.n_values:
            raise SiteFailureError(
                f"site {answer.site} answered with {answer.values.size} values, "
                f"not {query.n_values}"
            )
        if not np.isclose(answer.noise_std, expected, rtol=1e-9, atol=0.0):
            raise SiteFailureError(
                f"site {answer.site} says its noise has standard deviation {answer.noise_std:g}; "
                f"the plan asks for {expected:g}"
            )
        # What more patients than any site has could add up to, and all but impossible noise.
        limit = query.sensitivity * MAX_PATIENTS + 12 * expected
        if np.abs(answer.values).max(initial=0.0) > limit:
            raise SiteFailureError(f"site {answer.site} answered out of range")
    total = np.zeros_like(answers[0].values)
    for answer in answers:
        total += answer.values
    return NoisySum(total, expected * float(np.sqrt(len(answers))))
