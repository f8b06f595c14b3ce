"""Keeps processes running that belong together, and says how they are.

They start together, and when one of them ends the others are ended and all start again, later each
time it happens soon. What they print goes to files that never grow large.
"""

import ctypes
import fcntl
import json
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from data_contracts.errors import GroundTruthError
from federation.private_files import private_folder, write_whole

logger = logging.getLogger("groundtruth.service")

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_STEADY_SECONDS: Final = 120.0
"""After so long without an end, the next one counts as the first."""
_TICK_SECONDS, _GRACE_SECONDS = 1.0, 8.0
_LOG_BYTES, _LOG_FILES = 5_000_000, 3
_LOCK_SECONDS: Final = 1.0  # longer than anybody takes who only looks
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class ServiceError(GroundTruthError):
    """A service cannot start, for a reason that somebody has to put right."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process to keep running.

    Attributes:
        name: For the log file and the status.
        command: The program and its arguments.
        environment: Its environment.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


class Supervisor:
    """Keeps processes running until told to stop.

    Args:
        make: Makes the processes, before each start; may raise a GroundTruthError, which ends the
            first start, and delays any later one.
        folder: Folder for logs and for the status file.
        tick: Is called about once a second while all is running, and must not block for long.
        say: Tells a person what happens.
        wait_for: What is waited for at the first start, too.

    Attributes:
        restarts: How often the processes were started again.
    """

    def __init__(
        self,
        make: Callable[[], Sequence[Process]],
        folder: Path,
        *,
        tick: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = logger.info,
        wait_for: tuple[type[GroundTruthError], ...] = (),
    ) -> None:
        self._wait_for = wait_for
        self._make, self._folder, self._tick, self._say = make, folder, tick, say
        self._running: list[tuple[Process, subprocess.Popen[bytes]]] = []
        self.restarts, self._problem = 0, ""
        self._started = _now()

    def run(self, stop: threading.Event) -> None:
        """Keep the processes running until `stop` is set.

        Raises:
            GroundTruthError: The first start failed.
        """
        pause, begun = _FIRST_PAUSE, False
        try:
            while not stop.is_set():
                try:
                    processes = self._make()
                except GroundTruthError as error:
                    if not (begun or isinstance(error, self._wait_for)):
                        raise
                    ended, lasted = str(error), 0.0
                else:
                    self.restarts += begun
                    begun, since = True, time.monotonic()
                    self._start(processes)
                    ended = self._watch(stop)
                    self._end_all()
                    lasted = time.monotonic() - since
                if stop.is_set():
                    break
                pause = _FIRST_PAUSE if lasted > _STEADY_SECONDS else pause
                self._report(f"{ended}; trying again in {pause:.0f} s")
                stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            self._end_all()
            self._write_status()

    def _start(self, processes: Sequence[Process]) -> None:
        for process in processes:
            child = subprocess.Popen(  # noqa: S603 - our own commands
                list(process.command),
                env=dict(process.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C is ours to handle
                preexec_fn=die_with_parent,
            )
            self._running.append((process, child))
            threading.Thread(target=self._log, args=(process.name, child), daemon=True).start()
        self._problem = ""
        self._write_status()

    def _watch(self, stop: threading.Event) -> str:
        """Wait until one ends, or until told to stop; says what happened."""
        while not stop.wait(_TICK_SECONDS):
            for process, child in self._running:
                if child.poll() is not None:
                    log = self._folder / "logs" / f"{process.name}.log"
                    return f"{process.name} ended ({_how(child.returncode)}); see {log}"
            try:
                self._tick()
                self._problem = ""
            except GroundTruthError as error:
                if self._problem != str(error):
                    self._report(str(error))
            self._write_status()
        return "told to stop"

    def _end_all(self) -> None:
        """End them politely, so that they can sign off; after a while, end them."""
        for _, child in self._running:
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for _, child in self._running:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._running.clear()

    def _log(self, name: str, child: subprocess.Popen[bytes]) -> None:
        folder = self._folder / "logs"
        folder.mkdir(mode=0o700, exist_ok=True)
        file = logging.handlers.RotatingFileHandler(
            folder / f"{name}.log", maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8"
        )
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        for line in child.stdout:
            text = line.decode("utf-8", errors="replace").rstrip()
            file.emit(logging.LogRecord(name, logging.INFO, "", 0, text, None, None))
        file.close()

    def _report(self, problem: str) -> None:
        self._problem = problem
        self._say(problem)
        self._write_status()

    def _write_status(self) -> None:
        status = {
            "pid": os.getpid(),
            "started": self._started,
            "seen": _now(),
            "restarts": self.restarts,
            "problem": self._problem,
            "processes": {process.name: child.pid for process, child in self._running},
        }
        try:
            write_whole(status_file(self._folder), json.dumps(status).encode())
        except OSError as error:
            logger.warning("the status cannot be written: %s", error.strerror)


@contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Let one process at a time do something in a folder.

    Args:
        folder: The folder; made if it is not there.
        what: What is done, in one word.

    Raises:
        ServiceError: Another process is doing it.
    """
    private_folder(folder)
    with (folder / f".{what}.lock").open("w") as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServiceError(f"a {what} is at work at {folder.parent} already") from None
            time.sleep(0.05)
        yield


def is_held(folder: Path, what: str) -> bool:
    """Whether a process is doing it just now; see `only_one`."""
    with (private_folder(folder) / f".{what}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def status_file(folder: Path) -> Path:
    """Where a supervisor writes how its processes are."""
    return folder / "service.json"


def read_status(folder: Path) -> dict[str, Any] | None:
    """How the processes of a supervisor are; None if none has run for a minute."""
    try:
        status: dict[str, Any] = json.loads(status_file(folder).read_text(encoding="utf-8"))
        age = datetime.now(UTC) - datetime.fromisoformat(status["seen"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return status if age.total_seconds() < 60 and status["processes"] else None


def last_problem(folder: Path) -> str:
    """What keeps the processes of a supervisor from running, or has kept them last; or ""."""
    try:
        return str(json.loads(status_file(folder).read_text(encoding="utf-8"))["problem"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def stop_on_signals(stop: threading.Event) -> None:
    """Let SIGTERM and SIGINT set an event."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent does, however that ends.

    Runs between fork and exec, where no thread of ours may hold a lock.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _how(code: int) -> str:
    if code < 0:
        return f"ended by signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
