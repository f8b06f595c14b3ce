"""An engine without Ray and without sockets: a Flower grid inside one process.

The unmodified ServerApp and ClientApp run as they do elsewhere. Every message, reply and context
crosses as bytes, so nothing is shared by reference and whatever cannot travel fails here too.
"""

import hashlib
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import (
    context_from_proto,
    context_to_proto,
    message_from_proto,
    message_to_proto,
)
from flwr.proto.message_pb2 import Context as ContextProto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RunConfig = Mapping[str, bool | float | int | str]

_RUN_ID = 1
_IDENTITY = threading.RLock()


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    node_configs: Iterable[Mapping[str, str | int]],
    run_config: RunConfig,
) -> None:
    """Run a ServerApp over ClientApps in this process.

    Args:
        server_app: The coordinator's app; its exceptions come straight through.
        client_app: The sites' app.
        node_configs: Node config of each site.
        run_config: Run config of both apps.
    """
    grid = InProcessGrid(client_app, node_configs, run_config)
    context = Context(
        run_id=_RUN_ID,
        node_id=SUPERLINK_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config=dict(run_config),
    )
    with task_identity():
        server_app(grid=grid, context=context)


class InProcessGrid(Grid):
    """A grid whose nodes are calls of a ClientApp.

    Args:
        client_app: The sites' app.
        node_configs: Node config of each site.
        run_config: Run config that the sites see.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Iterable[Mapping[str, str | int]],
        run_config: RunConfig,
    ) -> None:
        self._client_app = client_app
        self._run = Run.create_empty(_RUN_ID)
        self._replies: dict[str, bytes] = {}
        self._contexts: dict[int, bytes] = {}
        for number, node_config in enumerate(node_configs):
            # As with real nodes, ids are large and their order says nothing of the sites'.
            digest = hashlib.sha256(f"node {number}".encode()).digest()
            node = int.from_bytes(digest[:8], "big") | 2
            context = Context(
                run_id=_RUN_ID,
                node_id=node,
                node_config=dict(node_config),
                state=RecordDict(),
                run_config=dict(run_config),
            )
            self._contexts[node] = context_to_proto(context).SerializeToString()

    def set_run(self, run: Run) -> None:
        """See `Grid`."""
        self._run = run

    @property
    def run(self) -> Run:
        """See `Grid`."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See `Grid`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """See `Grid`."""
        return sorted(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Call the ClientApp for every message; see `Grid`."""
        sent = []
        for message in messages:
            if message.metadata.dst_node_id not in self._contexts:
                raise ValueError(f"no node has the id {message.metadata.dst_node_id}")
            proto = message_to_proto(message)
            proto.metadata.message_id = str(uuid.uuid4())
            self._replies[proto.metadata.message_id] = self._call(proto.SerializeToString())
            sent.append(proto.metadata.message_id)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `Grid`."""
        return [
            message_from_proto(MessageProto.FromString(self._replies.pop(message_id)))
            for message_id in list(message_ids)
            if message_id in self._replies
        ]

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
    ) -> Iterable[Message]:
        """See `Grid`."""
        return self.pull_messages(self.push_messages(messages))

    def _call(self, wire: bytes) -> bytes:
        message = message_from_proto(MessageProto.FromString(wire))
        node = message.metadata.dst_node_id
        context = context_from_proto(ContextProto.FromString(self._contexts[node]))
        try:
            reply = self._client_app(message=message, context=context)
            proto = message_to_proto(reply)
            self._contexts[node] = context_to_proto(context).SerializeToString()
        except Exception as failure:
            # Code and wording are those of Flower's own client process.
            reason = f"{type(failure)}:<'{failure}'>"
            error = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason)
            proto = message_to_proto(Message(error, reply_to=message))
        proto.metadata.message_id = str(uuid.uuid4())
        return bytes(proto.SerializeToString())


@contextmanager
def task_identity() -> Iterator[None]:
    """Hold the process-wide identity that Flower reads when a ServerApp makes a message.

    The class is private to Flower (pinned exactly for this reason) and not per thread, hence the
    lock: one run at a time in a process.
    """
    with _IDENTITY:
        before = TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = (
            _RUN_ID,
            SUPERLINK_NODE_ID,
            1,
        )
        try:
            yield
        finally:
            TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before
