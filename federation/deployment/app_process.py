"""A process that runs one app bundle's ClientApp and knows nothing else.

    python -I app_process.py FOLDER

It reads messages from standard input and writes replies to standard output, each as its length
(8 bytes, big-endian) and a Flower protobuf. It holds no key, no token and no connection: what the
bundle's code can reach is the site's own files. It lives for many messages, so that a round does
not cost the imports and the reading of tables again. It runs by path, outside its package: the
packages of this name that it imports are the bundle's.
"""

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO

LONGEST = 1_000_000_000
"""Bytes in one message, far above what a request or an answer needs."""


def serve(folder: Path, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer messages with the bundle's app until there are no more.

    Raises:
        ImportError: The bundle has no such app, or Python found another's code in its place.
    """
    sys.path.insert(0, str(folder))
    module = importlib.import_module("federation.client_app")
    if folder not in Path(str(module.__file__)).resolve().parents:
        raise ImportError(f"federation.client_app is not the bundle's in {folder}")
    from flwr.app import Error, Message
    from flwr.common.constant import ErrorCode
    from flwr.common.serde import context_from_proto, message_from_proto, message_to_proto
    from flwr.proto.message_pb2 import Context as ContextProto
    from flwr.proto.message_pb2 import Message as MessageProto

    while (wire := receive(requests)) is not None:
        message = message_from_proto(MessageProto.FromString(wire))
        context = context_from_proto(ContextProto.FromString(receive(requests) or b""))
        try:
            reply = module.app(message=message, context=context)
        except Exception as failure:
            traceback.print_exc()
            error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason_of(failure))
            reply = Message(error, reply_to=message)
        send(replies, message_to_proto(reply).SerializeToString())


def reason_of(failure: Exception) -> str:
    """What the coordinator is told of a failure, worded as by Flower's own client process.

    Errors of ours are sentences that repeat no value from data; others may say anything, so of them
    the class is told.
    """
    ours = any(each.__name__ == "GroundTruthError" for each in type(failure).__mro__)
    words = failure if ours else "the site could not answer; the reason is in its own log"
    return f"{type(failure)}:<'{words}'>"


def end_with_parent(parent: int) -> None:
    """End this process, and what it has started, soon after the one that started it.

    Linux could do it, but would take the end of the thread that started this for its process's.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


def send(stream: IO[bytes], content: bytes) -> None:
    """Write one message."""
    stream.write(len(content).to_bytes(8, "big") + content)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes | None:
    """Read one message; None at the end of the stream, also in the middle of one, or too long."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "big")
    content = stream.read(size) if size <= LONGEST else b""
    return content if len(content) == size else None


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    # Whatever the app prints goes to the log, and never between two replies.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(Path(sys.argv[1]).resolve(), sys.stdin.buffer, output)
