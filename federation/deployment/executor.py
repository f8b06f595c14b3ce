"""The site's executor: takes messages from its SuperNode and runs approved app bundles on them.

    python -m federation.deployment.executor SITE.TOML RUNTIME_ADDRESS SECRET_FILE CA_CERTIFICATE

Before any code of a bundle runs, the release that is installed here reads the run's plan, holds it
against the site's policy, and the bundle against the site's consent. What is refused never starts;
the coordinator is told why in words that depend on no row. Whatever the answer is, it leaves only
after an entry about it is in the site's audit log.
"""

import hashlib
import logging
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Final

import httpx
from flwr.app import ConfigRecord, Context, Error, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.constant import TaskType

from data_contracts.manifest import SiteManifest
from federation.deployment.app import App, AppEndedError
from federation.deployment.audit_entry import Event, Fields
from federation.deployment.audit_log import site_log
from federation.deployment.bundles import Bundle, BundleError
from federation.deployment.consent import Consent
from federation.deployment.request_facts import request_facts
from federation.deployment.runtime import Runtime, Task
from federation.deployment.supervisor import stop_on_signals
from federation.identity import REGISTRY_FILE, Registry
from federation.plan import RunPlan
from federation.run_state import state_folder
from federation.settings import ConfigError
from federation.site import SitePolicyError, check_policy

logger = logging.getLogger("groundtruth.executor")

_POLL_SECONDS: Final = 0.2
_LONGEST_ANSWER_SECONDS: Final = 3600.0
_IDLE_SECONDS: Final = 900.0
_LONGEST_PLAN: Final = 200_000
"""Characters; a plan of 254 sites has a tenth of them."""


class Executor:
    """Answers the messages of one site's SuperNode, one after the other.

    Args:
        manifest_file: The site's site.toml.
        runtime: The SuperNode's runtime interface.
        longest_answer: Seconds that an app may take for one message.
        idle: Seconds without a message after which an app's process is ended.

    Raises:
        ManifestError: The site.toml cannot be used.
    """

    def __init__(
        self,
        manifest_file: Path,
        runtime: Runtime,
        *,
        longest_answer: float = _LONGEST_ANSWER_SECONDS,
        idle: float = _IDLE_SECONDS,
    ) -> None:
        self._manifest_file = manifest_file
        self._runtime = runtime
        self._longest_answer, self._idle = longest_answer, idle
        self._site = SiteManifest.load(manifest_file).name
        self._consent = Consent(manifest_file)
        self._log = site_log(manifest_file)
        self._app: App | None = None
        self._here: queue.SimpleQueue[tuple[Task, Message, Context, bytes]] = queue.SimpleQueue()

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_app()

    def serve(self, stop: threading.Event) -> None:
        """Answer until told to stop: one message at a time, while others are on their way.

        A message of a run that has ended meanwhile never comes, and must not hold up the next one.
        """
        while not stop.is_set():
            if (task := self._acquired()) is not None:
                threading.Thread(target=self._fetch, args=(task,), daemon=True).start()
            try:
                here = self._here.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                self.end_idle()
            else:
                self._carry_out(*here)

    def reply(self, message: Message, context: Context, content: bytes) -> Message:
        """The reply to one message, by the app bundle whose bytes these are.

        Where the site refuses, or cannot answer, the reply says so; nothing is raised.
        """
        facts = request_facts(message) | Fields(app=hashlib.sha256(content).hexdigest())
        try:
            try:
                bundle = self._admitted(context, content, facts)
            except (SitePolicyError, BundleError, ConfigError) as error:
                facts["reason"] = error
                self._log.append(Event.REQUEST_REFUSED, **facts)
                return self._refusal(message, str(error))
            reply = self._answer(bundle, message, context)
            if reply.has_error():
                self._log.append(Event.REQUEST_FAILED, **facts)
            elif _declined(reply):
                facts["reason"] = SitePolicyError(_BY_APP)
                self._log.append(Event.REQUEST_REFUSED, **facts)
            else:
                self._log.append(Event.REQUEST_ANSWERED, **facts)
        except Exception:
            # Whatever it is, the coordinator learns that it failed and the site why.
            logger.exception("a message could not be answered")
            return self._failure(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
        return reply

    def end_idle(self) -> None:
        """End the app's process if nobody has asked it anything for long."""
        if self._app is not None and time.monotonic() - self._app.used > self._idle:
            self._end_app()

    def _admitted(self, context: Context, content: bytes, facts: Fields) -> Bundle:
        """The bundle, if it and the run may touch this site's data; the plan joins the facts.

        Raises:
            SitePolicyError, BundleError, ConfigError: They may not. The message depends on no row.
        """
        manifest = SiteManifest.load(self._manifest_file)
        text = context.run_config.get("plan")
        if not isinstance(text, str) or len(text) > _LONGEST_PLAN:
            raise ConfigError(f"a run brings its plan, a text of {_LONGEST_PLAN:,} signs at most")
        bundle = Bundle.read(content)
        self._consent.require(bundle, text, site=manifest.name)
        plan = RunPlan.from_json(text)
        facts["plan"], facts["task"] = plan.digest, plan.task
        if plan.noise_seed is not None:
            raise SitePolicyError(
                f"site {manifest.name} draws its noise itself; a plan with noise_seed is for "
                "experiments on one machine"
            )
        check_policy(manifest, plan)
        if manifest.origin == "private":
            self._check_network(manifest, plan)
        return bundle

    def _check_network(self, manifest: SiteManifest, plan: RunPlan) -> None:
        """Refuse a plan that would show the site's own sum, or counts on sites that are none.

        Raises:
            SitePolicyError: It does.
        """
        peers = Registry.load(state_folder(self._manifest_file) / REGISTRY_FILE).keys
        if strangers := [each for each in plan.sites if each not in peers]:
            raise SitePolicyError(
                f"the plan names {len(strangers)} sites whose keys site {manifest.name} has not "
                "pinned: hand it the peers.toml of today"
            )
        if manifest.min_sites > 1 and not plan.secure_sum:
            raise SitePolicyError(
                f"site {manifest.name} gives only sums that are masked with other sites', and the "
                "plan has no secure sum: set privacy.secure_sum, and privacy.dropouts so low that "
                "two sites are left (a site gives its own with min_sites = 1)"
            )

    def _answer(self, bundle: Bundle, message: Message, context: Context) -> Message:
        """What the bundle's app says; a process that ends over it is replaced at the next one."""
        context.node_config = {"site": str(self._manifest_file)}
        if self._app is None or self._app.sha256 != bundle.sha256:
            self._end_app()
            self._app = App(bundle, self._longest_answer)
        try:
            return self._app.answer(message, context)
        except AppEndedError as error:
            logger.error("%s", error)
            self._end_app()
            return self._failure(message, ErrorCode.CLIENT_APP_CRASHED)

    def _acquired(self) -> Task | None:
        try:
            return self._runtime.acquire(TaskType.CLIENT_APP)
        except httpx.HTTPError as error:
            logger.warning("no connection to the SuperNode: %s", error)
            return None

    def _fetch(self, task: Task) -> None:
        """Take a message over from the SuperNode, in a thread of its own."""
        try:
            task.begin()
            context, _, bundle = task.pull()
            self._here.put((task, task.pull_message(context), context, bundle.content))
        except Exception as error:  # of bytes that are no message, Flower fails in many ways
            _give_up(task, error)

    def _carry_out(self, task: Task, message: Message, context: Context, content: bytes) -> None:
        try:
            task.push_message(self.reply(message, context, content), context)
            task.finish()
        except Exception as error:  # Flower has dropped the task, or cannot be reached
            _give_up(task, error)
        else:
            task.end()

    def _end_app(self) -> None:
        if self._app is not None:
            self._app.end()
            self._app = None

    def _refusal(self, message: Message, why: str) -> Message:
        """A reply that says why the site takes no part."""
        words = f"refused by policy: {why}"
        logger.warning("%s", words)
        if message.metadata.message_type == MessageType.QUERY:
            role = SiteManifest.load(self._manifest_file).role
            said = ConfigRecord({"site": self._site, "role": role, "refusal": words})
            return Message(RecordDict({"config": said}), reply_to=message)
        reason = f"{SitePolicyError}:<'site {self._site} {words}'>"
        return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)

    def _failure(self, message: Message, code: int) -> Message:
        reason = f"site {self._site} could not answer; the reason is in its own log"
        return Message(Error(code, reason), reply_to=message)


def _give_up(task: Task, error: Exception) -> None:
    """The coordinator asks again where it still wants an answer."""
    logger.warning("a message was given up: %s", type(error).__name__)
    task.end()


_BY_APP: Final = "the app itself has refused; the coordinator was told why"


def _declined(reply: Message) -> bool:
    """Whether an app that was greeted takes no part, for reasons of the budget or of the plan."""
    said = reply.content.get("config")
    return isinstance(said, ConfigRecord) and "refusal" in said


def main(arguments: list[str]) -> None:
    """Serve until ended by a signal."""
    manifest_file, address, secret_file, authority_file = arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    certificates = Path(authority_file).read_bytes()
    runtime = Runtime(address, Path(secret_file).read_bytes(), certificates)
    stop = threading.Event()
    stop_on_signals(stop)
    with Executor(Path(manifest_file), runtime) as executor:
        executor.serve(stop)


if __name__ == "__main__":
    main(sys.argv[1:])
