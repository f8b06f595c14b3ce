"""The site's executor: takes messages from its SuperNode and runs approved app bundles on them.

    python -m federation.deployment.executor SITE.TOML RUNTIME_ADDRESS SECRET_FILE

Before any code of a bundle runs, the release that is installed here reads the run's plan, holds it
against the site's policy, and the bundle against the site's consent. What is refused never starts;
the coordinator is told why in words that depend on no row.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import httpx
from flwr.app import ConfigRecord, Context, Error, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import context_to_proto, message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.supercore.constant import TaskType

from data_contracts.errors import GroundTruthError
from data_contracts.manifest import SiteManifest
from federation.deployment import app_process
from federation.deployment.bundles import Bundle
from federation.deployment.consent import Consent
from federation.deployment.runtime import Runtime, Task
from federation.deployment.supervisor import stop_on_signals
from federation.plan import RunPlan
from federation.run_state import state_folder
from federation.site import SitePolicyError, check_policy

logger = logging.getLogger("groundtruth.executor")

_POLL_SECONDS: Final = 0.2
_LONGEST_ANSWER_SECONDS: Final = 3600.0
_IDLE_SECONDS: Final = 900.0


class AppProcess:
    """A running process with one bundle's app; see `app_process.py`.

    Args:
        bundle: The bundle, which was approved.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.sha256 = bundle.sha256
        self.used = time.monotonic()
        self._folder = Path(tempfile.mkdtemp(prefix="groundtruth-app-"))
        bundle.unpack(self._folder)
        self._process = subprocess.Popen(  # noqa: S603 - our interpreter and our own file
            [sys.executable, "-I", app_process.__file__, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self._folder,
        )

    def answer(self, message: Message, context: Context) -> Message | None:
        """The app's reply; None if the process ended, or was ended after an hour."""
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101
        watch = threading.Timer(_LONGEST_ANSWER_SECONDS, self._process.kill)
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
        return None if wire is None else message_from_proto(MessageProto.FromString(wire))

    def end(self) -> None:
        """End the process and remove its files."""
        self._process.kill()
        self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)


class Executor:
    """Answers the messages of one site's SuperNode, one after the other.

    Args:
        manifest_file: The site's site.toml.
        runtime: The SuperNode's runtime interface.
    """

    def __init__(self, manifest_file: Path, runtime: Runtime) -> None:
        self._manifest_file = manifest_file
        self._runtime = runtime
        self._consent = Consent(state_folder(manifest_file))
        self._app: AppProcess | None = None

    def serve(self, stop: threading.Event) -> None:
        """Answer until told to stop."""
        try:
            while not stop.is_set():
                if not self._answer_one():
                    self._end_idle()
                    stop.wait(_POLL_SECONDS)
        finally:
            self._end_app()

    def reply(self, message: Message, context: Context, content: bytes) -> Message:
        """The reply to one message, by the app bundle whose bytes these are, or a refusal."""
        manifest = SiteManifest.load(self._manifest_file)
        try:
            bundle = self._admitted(manifest, context, content)
        except GroundTruthError as error:
            return _refusal(manifest, message, error)
        context.node_config = {"site": str(self._manifest_file)}
        if self._app is None or self._app.sha256 != bundle.sha256:
            self._end_app()
            self._app = AppProcess(bundle)
        if (reply := self._app.answer(message, context)) is not None:
            return reply
        self._end_app()
        logger.error("the app process of bundle %s ended without a reply", bundle.sha256)
        return _failure(message, manifest.name, ErrorCode.CLIENT_APP_CRASHED)

    def _admitted(self, manifest: SiteManifest, context: Context, content: bytes) -> Bundle:
        """The bundle, if it and the run may touch this site's data.

        Raises:
            GroundTruthError: They may not. The message depends on no row.
        """
        bundle = Bundle.read(content)
        plan_text = str(context.run_config.get("plan", ""))
        self._consent.require(bundle, plan_text, site=manifest.name)
        plan = RunPlan.from_json(plan_text)
        if plan.noise_seed is not None:
            raise SitePolicyError(
                f"site {manifest.name} draws its noise itself; a plan with noise_seed is for "
                "experiments on one machine"
            )
        check_policy(manifest, plan)
        return bundle

    def _answer_one(self) -> bool:
        """Answer a message that waits; False if there is none."""
        try:
            task = self._runtime.acquire(TaskType.CLIENT_APP)
            if task is None:
                return False
            with task:
                self._carry_out(task)
        except httpx.HTTPError as error:
            logger.warning("no connection to the SuperNode: %s", error)
            return False
        return True

    def _carry_out(self, task: Task) -> None:
        context, _, bundle = task.pull()
        message = task.pull_message(context)
        try:
            reply = self.reply(message, context, bundle.content)
        except Exception:
            # Whatever it is, the coordinator learns that it failed and the site why.
            logger.exception("a message could not be answered")
            name = SiteManifest.load(self._manifest_file).name
            reply = _failure(message, name, ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
        task.push_message(reply, context)
        task.finish()

    def _end_idle(self) -> None:
        if self._app is not None and time.monotonic() - self._app.used > _IDLE_SECONDS:
            self._end_app()

    def _end_app(self) -> None:
        if self._app is not None:
            self._app.end()
            self._app = None


def _refusal(manifest: SiteManifest, message: Message, error: GroundTruthError) -> Message:
    """A reply that says why a site takes no part."""
    words = f"refused by policy: {error}"
    logger.warning("%s", words)
    if message.metadata.message_type == MessageType.QUERY:
        said = ConfigRecord({"site": manifest.name, "role": manifest.role, "refusal": words})
        return Message(RecordDict({"config": said}), reply_to=message)
    reason = f"{SitePolicyError}:<'site {manifest.name} {words}'>"
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)


def _failure(message: Message, site: str, code: int) -> Message:
    reason = f"site {site} could not answer; the reason is in its own log"
    return Message(Error(code, reason), reply_to=message)


def main(arguments: list[str]) -> None:
    """Serve until ended by a signal."""
    manifest_file, address, secret_file = arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    runtime = Runtime(address, Path(secret_file).read_bytes())
    stop = threading.Event()
    stop_on_signals(stop)
    Executor(Path(manifest_file), runtime).serve(stop)


if __name__ == "__main__":
    main(sys.argv[1:])
