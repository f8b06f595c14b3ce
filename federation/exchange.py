"""Messages to sites and back, over a network that loses some of them.

Every request may be sent again: a site answers the same request with the same bytes and is charged
once. So silence costs time, never privacy: who does not answer is asked again until time is up.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from federation.printable import printable
from federation.waiting import Waiting

_LOST: Final = frozenset(
    {
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.NODE_UNAVAILABLE,
        ErrorCode.CLIENT_APP_CRASHED,
    }
)
"""Errors after which the same question may well be answered."""
AFTER_AN_ERROR_SECONDS: Final = 2.0
_LONGEST_REASON: Final = 1000


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a coordinator waits for sites.

    Attributes:
        quorum_seconds: For the sites to come and greet.
        round_seconds: For the answers of one round.
        ask_again_seconds: For an answer before it is asked for again; twice as long each time.
        quorum: Sites that must have come by then; as many as the plan's noise needs unless given,
            and never fewer.
        poll_seconds: Between two looks at what has come.
    """

    quorum_seconds: float = 900.0
    round_seconds: float = 900.0
    ask_again_seconds: float = 10.0
    quorum: int | None = None
    poll_seconds: float = 0.2

    def __post_init__(self) -> None:
        if min(self.quorum_seconds, self.round_seconds, self.ask_again_seconds) <= 0:
            raise ValueError("a coordinator's patience is counted in seconds above 0")


PATIENCE: Final = Patience()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a site gave no answer.

    Attributes:
        reason: In words, on one line of printable characters.
        silent: Whether nothing came from the site itself, so that it may come back as it was.
    """

    reason: str
    silent: bool

    def __post_init__(self) -> None:
        # A site may have worded it, and it goes to people's terminals, to logs and into reports.
        object.__setattr__(self, "reason", printable(self.reason, _LONGEST_REASON))


class Post:
    """Messages of one kind that were sent, and what came back.

    Args:
        grid: Flower's grid, whichever engine is behind it.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._waiting: dict[str, int] = {}

    def send(self, node: int, content: RecordDict, kind: str, group: str = "") -> bool:
        """Send a message to a node; whether the engine has taken it."""
        message = Message(content, dst_node_id=node, message_type=kind, group_id=group)
        sent = [each for each in self._grid.push_messages([message]) if each]
        self._waiting |= dict.fromkeys(sent, node)
        return bool(sent)

    def collect(self) -> list[tuple[int, Message]]:
        """The node and the reply, or the error, of every message that was answered by now."""
        if not self._waiting:
            return []
        replies = []
        for reply in self._grid.pull_messages(list(self._waiting)):
            # Not by the sender: Flower answers in its own name for a node that it has lost.
            node = self._waiting.pop(reply.metadata.reply_to_message_id, None)
            if node is not None:
                replies.append((node, reply))
        return replies

    def forget(self, node: int) -> None:
        """Let what this node may still reply to be."""
        self._waiting = {sent: to for sent, to in self._waiting.items() if to != node}


def ask_all(
    grid: Grid,
    content: RecordDict,
    nodes: Mapping[str, int],
    kind: str,
    patience: Patience,
    *,
    group: str = "",
) -> tuple[dict[str, Message], dict[str, Failure]]:
    """Ask every site the same, and again where no answer comes, until time is up.

    Args:
        grid: Flower's grid.
        content: The question.
        nodes: Site's name -> its node; 0 for a site that has none at the moment.
        kind: Type of the message.
        patience: How long to wait.
        group: Name of the round, for Flower's logs.

    Returns:
        The reply of every site that gave one, and why every other gave none.
    """
    post, start = Post(grid), time.monotonic()
    names = {node: name for name, node in nodes.items()}
    open_ = {name: node for name, node in nodes.items() if node}
    replies: dict[str, Message] = {}
    failures: dict[str, Failure] = {}
    silence = f"no answer within {patience.round_seconds:.0f} s from"
    due = dict.fromkeys(nodes, start)
    pause = dict.fromkeys(nodes, patience.ask_again_seconds)
    activated: dict[int, str | None] = {}
    waiting = Waiting("this round", patience.round_seconds, first=30.0)
    while open_:
        now = time.monotonic()
        online = {node.node_id: node.last_activated_at for node in grid.get_nodes()}
        for name, node in open_.items():
            if node not in online:  # what was sent may still reach it; no more until it is back
                activated[node] = None
                continue
            if activated.setdefault(node, online[node]) != online[node]:
                activated[node] = online[node]
                due[name] = now  # it has started anew since, and knows nothing of the question
            if now >= due[name]:
                post.send(node, content, kind, group)
                failures.setdefault(name, Failure(f"{silence} {name}", silent=True))
                due[name], pause[name] = now + pause[name], 2 * pause[name]
        for node, reply in post.collect():
            if (name := names[node]) not in open_:
                continue  # it was asked twice, and has answered twice
            if not reply.has_error():
                replies[name] = reply
            else:
                failures[name] = failure_of(name, reply)
                if failures[name].silent:
                    due[name] = min(due[name], now + AFTER_AN_ERROR_SECONDS)
                    continue
            del open_[name]
        if time.monotonic() - start > patience.round_seconds:
            break
        if open_:
            waiting.note(open_)
            time.sleep(patience.poll_seconds)
    absent = {name: Failure(f"{name}: not online", silent=True) for name in nodes}
    failures = absent | failures
    return replies, {name: failures[name] for name in nodes if name not in replies}


def failure_of(name: str, reply: Message) -> Failure:
    """What an error in place of an answer says."""
    return Failure(_reason_of(name, reply), silent=reply.error.code in _LOST)


def _reason_of(name: str, reply: Message) -> str:
    """The last line of what a site reports, without Python's dressing."""
    text = (reply.error.reason or "").strip()
    line = text.splitlines()[-1] if text else "no reason given"
    # Flower's client process says <class 'X'>:<'message'>, and Ray puts its own words around it.
    line = line.rpartition("ClientAppException occurred. Message: ")[2]
    if ":<" in line:
        line = line.partition(":<")[2]
    line = line.removesuffix("'>").removesuffix(">").lstrip("'")
    return line if "site " in line else f"{name}: {line}"
