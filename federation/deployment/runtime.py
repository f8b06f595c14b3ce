"""Flower's runtime interface: how a process of ours takes a task from a SuperLink or a SuperNode.

Both run with `--isolation process` and a shared secret, so nobody without that secret can start an
app on either machine, and nothing is started but by us. What is used here is what Flower's own app
processes use; it is private to Flower, which is pinned exactly for such reasons.
"""

import threading
from dataclasses import dataclass
from typing import Final

import httpx
from flwr.app import Context, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SubStatus
from flwr.common.serde import (
    context_from_proto,
    fab_from_proto,
    message_to_proto,
    run_from_proto,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient

from data_contracts.errors import GroundTruthError

_PROTECTED: Final = frozenset({"/flwr.proto.Runtime/AcquireTask"})
_HEARTBEAT_SECONDS: Final = 10.0
_MESSAGE_SECONDS: Final = 120.0


class MessageLostError(GroundTruthError):
    """A message that Flower announced does not come, as when its run has ended."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where tasks come from.

    Attributes:
        address: Address of the SuperLink or SuperNode, as host:port.
        secret: The secret that both sides know.
        certificates: The CA whose certificates to trust, as PEM; None without TLS.
    """

    address: str
    secret: bytes
    certificates: bytes | None = None

    def acquire(self, kind: TaskType) -> "Task | None":
        """The oldest task that waits, which is ours from then on; None if there is none.

        Raises:
            httpx.HTTPError: There is no connection, or it was refused.
        """
        signer = SuperExecAuthHttpInterceptor(
            master_secret=self.secret, protected_methods=_PROTECTED
        )
        with self._client(signer) as client:
            given = client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
        if not (given.HasField("task") and given.token):
            return None
        return Task(self, given.token, given.task.run_id, given.task.task_id)

    def _client(self, *interceptors: ProtobufClientInterceptor) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            server_address=self.address,
            insecure=self.certificates is None,
            root_certificates=self.certificates,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), *interceptors],
        )


class Task:
    """A task that is ours, from `begin` to `end`, or in a `with` block.

    Attributes:
        token: Shows Flower that it is ours.
        run_id: Flower's number of the run.
        task_id: Flower's number of the task.
        lost: Set when Flower has given the task up.
    """

    def __init__(self, runtime: Runtime, token: str, run_id: int, task_id: int) -> None:
        self.token, self.run_id, self.task_id = token, run_id, task_id
        self.lost = threading.Event()
        self._client = runtime._client(RuntimeTokenHttpInterceptor(token))
        self._done = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Task":
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """Tell Flower from now on that it is at work."""
        self._heart.start()

    def end(self) -> None:
        """Tell Flower so no longer, and hang up."""
        self._done.set()
        self._heart.join()
        self._client.close()

    def pull(self) -> tuple[Context, Run, Fab]:
        """What is to be run, and in which context."""
        given = self._client.PullTaskInput(PullTaskInputRequest())
        run, bundle = run_from_proto(given.run), fab_from_proto(given.fab)
        return context_from_proto(given.context), run, bundle

    def pull_message(self, context: Context) -> Message:
        """The message that a ClientApp is to answer.

        Raises:
            MessageLostError: It has not come after two minutes.
        """
        node, run = Node(node_id=context.node_id), context.run_id
        given = self._client.PullMessages(PullAppMessagesRequest())
        try:
            tree = given.message_object_trees[0]
            message = pull_and_inflate_object_from_tree(
                tree,
                make_pull_object_fn_protobuf(self._client.PullObject, node, run),
                make_confirm_message_received_fn_protobuf(
                    self._client.ConfirmMessageReceived, node, run
                ),
                return_type=Message,
                max_time=_MESSAGE_SECONDS,
            )
        except (IndexError, ObjectPullError):
            raise MessageLostError("a message was announced and did not come") from None
        # A message travels without its id, which is that of its content.
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def push_message(self, message: Message, context: Context) -> None:
        """Answer with a message."""
        message.metadata.__dict__["_message_id"] = message.object_id
        bare = message_to_proto(remove_content_from_message(message))
        with no_object_id_recompute():
            given = self._client.PushMessages(
                PushAppMessagesRequest(
                    messages_list=[bare], message_object_trees=[get_object_tree(message)]
                )
            )
            push_objects(
                get_all_nested_objects(message),
                make_push_object_fn_protobuf(
                    self._client.PushObject,
                    Node(node_id=context.node_id),
                    run_id=context.run_id,
                    session_id=given.session_id,
                ),
                object_ids_to_push=set(given.objects_to_push),
            )

    def finish(self, failure: str = "") -> None:
        """Say how it ended: well, or why not."""
        status = SubStatus.FAILED if failure else SubStatus.COMPLETED
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=failure))

    def _beat(self) -> None:
        while not self._done.wait(_HEARTBEAT_SECONDS):
            try:
                if not self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success:
                    self.lost.set()
            except httpx.HTTPError:
                pass  # the next one may get through; Flower waits for two
