"""What a site keeps of a run between messages: its keys, the roster it has seen, what it has sent.

Flower starts a fresh client process for every message, so what must last is in files of the site's
own. What was sent is kept so that a message that gets lost can be sent again as the same bytes: a
second answer with fresh noise would be a second release.
"""

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_contracts.errors import GroundTruthError
from federation.roster import RunKeys

STATE_FOLDER = "state"
"""Beside site.toml: the site's identity, its peers' keys, its ledger and its runs."""
RUN_ID_PATTERN = r"[0-9a-f]{32}"
_KEPT_SECONDS = 14 * 24 * 3600


class RunStateError(GroundTruthError):
    """What a site kept of a run does not fit what it is asked."""


def new_run_id() -> str:
    """A run's identifier: 128 random bits, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def state_folder(manifest_file: Path) -> Path:
    """Where a site keeps its identity, its ledger and its runs."""
    return manifest_file.parent / STATE_FOLDER


class RunState:
    """One run at one site.

    Args:
        folder: The site's state folder.
        run: The run's identifier.

    Raises:
        RunStateError: The identifier is none.
    """

    def __init__(self, folder: Path, run: str) -> None:
        if not re.fullmatch(RUN_ID_PATTERN, run):
            raise RunStateError("a run is named by 32 hexadecimal digits; this request is not")
        self._runs = folder / "runs"
        self._folder = self._runs / run

    def keys(self) -> RunKeys:
        """The site's keys for the run, made when first asked for."""
        file = self._folder / "keys"
        if not file.exists():
            self._forget_old_runs()
            self._folder.mkdir(parents=True, exist_ok=True)
            _write_once(file, RunKeys.generate().private_bytes())
        return RunKeys.from_private_bytes(file.read_bytes())

    def check_greeted(self) -> None:
        """Make sure that the run has begun here.

        Raises:
            RunStateError: The site has no keys for it.
        """
        if not (self._folder / "keys").exists():
            raise RunStateError(
                "this site has no keys for the run: the coordinator must greet it first, "
                "or the run is older than two weeks; start a new run"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time answer in the run; whoever comes second finds what was sent.

        The operating system frees the lock of a process that ends in whatever way.
        """
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            yield

    def pin(self, roster: bytes) -> None:
        """Accept the roster that the run shows first, and no other.

        Raises:
            RunStateError: The run has shown another roster.
        """
        file = self._folder / "roster"
        _write_once(file, roster)
        if file.read_bytes() != roster:
            raise RunStateError(
                "the coordinator shows another roster than before in this run; "
                "a run keeps its roster, so start a new one"
            )

    def sent(self, attempt: bytes) -> NDArray[np.uint64] | None:
        """What was sent in an attempt; None if nothing was."""
        file = self._upload(attempt)
        return np.load(file, allow_pickle=False) if file.exists() else None

    def keep(self, attempt: bytes, words: NDArray[np.uint64]) -> None:
        """Keep what is about to be sent; what was sent earlier in the run is dropped."""
        file = self._upload(attempt)
        part = self._folder / "upload.part"
        with part.open("wb") as stream:
            np.save(stream, words)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
        for older in self._folder.glob("*.npy"):
            if older != file:
                older.unlink()

    def _upload(self, attempt: bytes) -> Path:
        return self._folder / f"{attempt.hex()}.npy"

    def _forget_old_runs(self) -> None:
        oldest = time.time() - _KEPT_SECONDS
        for run in self._runs.glob("*"):
            if run.stat().st_mtime < oldest:
                shutil.rmtree(run)


def _write_once(file: Path, content: bytes) -> None:
    """Write a file readable by its owner alone, whole or not at all, unless it is there already."""
    if file.exists():
        return
    part = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(part, file)  # fails where another process was first
    except FileExistsError:
        pass
    finally:
        part.unlink()
