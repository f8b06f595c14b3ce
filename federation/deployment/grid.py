"""Flower's grid, for a network in which a site may send anything, or announce it and send nothing.

Flower's own waits for minutes, and by its limits for hours, until a reply that was announced has
come, and the run fails over one that is none. Here either is the failure of the site that was
asked, and holds up no other.
"""

from collections.abc import Iterable
from typing import Final

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.superlink.grid import HttpGrid

_LOST: Final = Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "a reply was announced and did not come")
_NONE: Final = Error(ErrorCode.UNKNOWN, "what was sent is no reply")


class DeployedGrid(HttpGrid):
    """The grid of a run over a SuperLink."""

    def __init__(self, address: str, *, root_certificates: bytes, token: str) -> None:
        super().__init__(address, root_certificates=root_certificates, token=token)
        self._announced: dict[str, ObjectTree] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come whole; whatever a site has sent, there is one or none yet."""
        asked = list(message_ids)
        request = PullAppMessagesRequest(
            message_ids=[each for each in asked if each not in self._announced]
        )
        if request.message_ids:
            # Flower announces a reply once.
            given = self._runtime_client.PullMessages(request)
            for bare, tree in zip(given.messages_list, given.message_object_trees, strict=True):
                self._announced[bare.metadata.reply_to_message_id] = tree
        found = ((each, self._reply(each)) for each in asked if each in self._announced)
        replies = [reply for _, reply in found if reply is not None]
        for reply in replies:
            del self._announced[reply.metadata.reply_to_message_id]
        return replies

    def _reply(self, asked: str) -> Message | None:
        """The reply to a message, or an error in its place; None while parts are on their way."""
        tree, parts = self._announced[asked], dict[str, bytes]()
        for each in iterate_object_tree(tree):
            part = self._runtime_client.PullObject(
                PullObjectRequest(node=self.node, run_id=self.run.run_id, object_id=each.object_id)
            )
            if not part.object_found:
                return self._failed(asked, _LOST)
            if not part.object_available:
                return None
            parts[each.object_id] = part.object_content
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self.node, run_id=self.run.run_id, message_object_id=tree.object_id
            )
        )
        try:
            reply = inflate_object_from_contents(tree.object_id, parts)
        except Exception:  # of bytes that are no message, Flower fails in many ways
            return self._failed(asked, _NONE)
        if not isinstance(reply, Message) or reply.has_content() == reply.has_error():
            return self._failed(asked, _NONE)
        # What it answers is not the site's to say.
        reply.metadata.__dict__["_reply_to_message_id"] = asked
        return reply

    def _failed(self, asked: str, error: Error) -> Message:
        place = Metadata(
            run_id=self.run.run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=SUPERLINK_NODE_ID,
            reply_to_message_id=asked,
            group_id="",
            created_at=0.0,
            ttl=0.0,
            message_type=SYSTEM_MESSAGE_TYPE,
        )
        return make_message(place, error=error)
