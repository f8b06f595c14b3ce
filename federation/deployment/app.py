"""A running app bundle: the executor's side of `app_process`."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.common.serde import context_to_proto, message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto

from data_contracts.errors import GroundTruthError
from federation.deployment import app_process
from federation.deployment.bundles import Bundle


class AppEndedError(GroundTruthError):
    """An app has not answered."""


class App:
    """A process with one bundle's app, and its files; both gone after `end`.

    Args:
        bundle: The bundle, which was approved.
        longest: Seconds that it may take for one message.

    Attributes:
        sha256: The bundle's.
        used: When it was asked last, on the monotonic clock.
    """

    def __init__(self, bundle: Bundle, longest: float) -> None:
        self.sha256, self.used = bundle.sha256, time.monotonic()
        self._longest = longest
        self._folder = Path(tempfile.mkdtemp(prefix="groundtruth-app-"))
        bundle.unpack(self._folder)
        self._process = subprocess.Popen(  # noqa: S603 - our interpreter and our own file
            [sys.executable, "-I", app_process.__file__, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self._folder,
            start_new_session=True,  # what it starts is ended with it
        )

    def answer(self, message: Message, context: Context) -> Message:
        """The app's reply.

        Raises:
            AppEndedError: Its process has ended, was ended because it took too long, or has said
                what is no reply. It answers nothing more.
        """
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101
        watch = threading.Timer(self._longest, self._kill)
        watch.start()
        try:
            for content in (message_to_proto(message), context_to_proto(context)):
                app_process.send(self._process.stdin, content.SerializeToString())
            wire = app_process.receive(self._process.stdout)
        except BrokenPipeError:
            wire = None
        finally:
            watch.cancel()
            self.used = time.monotonic()
        if wire is None:
            self._kill()
            raise AppEndedError(
                f"the process of app bundle {self.sha256} ended without a reply (exit code "
                f"{self._process.wait()})"
            )
        try:
            said = message_from_proto(MessageProto.FromString(wire))
            # Whom it is for and what it answers is not the app's to say.
            if said.has_error():
                return Message(said.error, reply_to=message)
            return Message(said.content, reply_to=message)
        except (
            Exception
        ) as error:  # of bytes that are no message, protobuf and Flower fail variously
            raise AppEndedError(
                f"app bundle {self.sha256} has sent what is no reply ({type(error).__name__})"
            ) from None

    def end(self) -> None:
        """End the process, whatever it has started, and remove its files."""
        self._kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not sent is of no use now
                pipe.close()  # type: ignore[union-attr] # both are pipes
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
