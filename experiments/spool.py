"""Finished runs on their way to MLflow: each is logged once, and waits in its folder till then.

runs/<id>/mlflow-store.txt    the store that the run is meant for
runs/<id>/mlflow-run-id.txt   the receipt: the parent run's id there; until then the run waits

MLflow works in a process of its own, run as `python -m experiments.spool STORE FOLDER ...`: only a
process can be ended in time, whatever a server does.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from experiments.folders import LOCK_NAME
from experiments.progress import Reporter
from federation.settings import ConfigError

SECONDS = 120.0
_PATIENCE = 30.0
_STORE = "mlflow-store.txt"
_RECEIPT = "mlflow-run-id.txt"
_UNFIT = "MLFLOW_TRACKING_URI must be the https:// address of a tracking server, or sqlite:///FILE"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

# What holds for an attempt whatever the environment says.
_FIXED = {
    # A request that is sent again can make a second run. We start again as a whole.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def tracking_store(runs: Path) -> str:
    """Where runs are logged: the server of MLFLOW_TRACKING_URI, else an SQLite file beside them.

    Args:
        runs: Folder of the runs' folders.

    Raises:
        ConfigError: MLFLOW_TRACKING_URI is no address that we may use.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip().rstrip("/")
    if not uri:
        return sqlite_store(runs / "mlflow.db")
    # No message repeats the address: it may hold a password.
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise ConfigError(_UNFIT) from None
    if parts.scheme not in ("http", "https", "sqlite"):
        raise ConfigError(_UNFIT)
    if "@" in parts.netloc:
        raise ConfigError(
            "MLFLOW_TRACKING_URI holds a user name or a password, which would end up in files; "
            "give them as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or in "
            "~/.mlflow/credentials"
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigError(
            "MLFLOW_TRACKING_URI would send the password in the clear: use https://; http:// is "
            "for servers on this machine"
        )
    return uri


def sqlite_store(file: Path) -> str:
    """URI of a tracking store in a file."""
    return f"sqlite:///{file.resolve()}"


def hand_in(folder: Path, store: str, reporter: Reporter) -> None:
    """Log a finished run, and before it what waits for the same store; never fails the run.

    Takes `SECONDS` at most; what is not logged by then waits.
    """
    folder = folder.resolve()
    if _is_logged(folder):
        return
    reporter.say("Logging to MLflow")
    try:
        _write(folder / _STORE, store)
        left, reason = send(waiting(folder.parent, store), store)
    except OSError as error:
        reporter.say(f"Not logged to {store}: {error.strerror}. The run itself is complete.")
        return
    waits = f"{len(left)} to be sent by `groundtruth track send {shlex.quote(str(folder.parent))}`"
    if folder in left:
        reporter.say(f"Not logged to {store}: {reason}. The run itself is complete; {waits}.")
    elif left:
        reporter.say(f"Logged, but not all earlier runs are: {reason}; {waits}.")


def waiting(runs: Path, store: str | None = None) -> list[Path]:
    """Folders of the runs that wait to be logged, the one that waits longest first.

    Args:
        runs: Folder of the runs' folders.
        store: Only what is meant for this store.
    """
    notes = [note for note in runs.glob(f"*/{_STORE}") if not _is_logged(note.parent)]
    notes.sort(key=lambda note: note.stat().st_mtime_ns)
    return [note.parent for note in notes if store in (None, meant_for(note.parent))]


def meant_for(folder: Path) -> str:
    """The store that a run is meant for."""
    return (folder / _STORE).read_text(encoding="utf-8", errors="replace").strip()


def send(folders: Sequence[Path], store: str, seconds: float = SECONDS) -> tuple[list[Path], str]:
    """Log runs in this order.

    Args:
        folders: The runs' folders.
        store: URI of the tracking store.
        seconds: Limit for all of them together.

    Returns:
        Folders of the runs that still wait, and the last reason, if there is one.
    """
    reason = _attempt(folders, store, seconds) if folders else ""
    return [folder for folder in folders if not _is_logged(folder)], reason


def _attempt(folders: Sequence[Path], store: str, seconds: float) -> str:
    """Let a process of its own log runs; returns the last reason why one was not logged."""
    command = [sys.executable, "-P", "-m", "experiments.spool", store, *map(str, folders)]
    # Whoever knows that their server is slow may say so; the limit holds all the same.
    environment = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10"} | os.environ | _FIXED
    debug = bool(os.environ.get("GROUNDTRUTH_DEBUG"))
    try:
        done = subprocess.run(  # noqa: S603 - our own module and paths
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if debug else subprocess.DEVNULL,
            encoding="utf-8",
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {seconds:g} seconds"
    if done.returncode:
        return f"MLflow's process ended with {done.returncode}; GROUNDTRUTH_DEBUG=1 shows more"
    return done.stdout.rstrip().rpartition("\n")[-1]


def _log_all(store: str, folders: Sequence[str]) -> Iterator[str]:
    """Log runs one by one; yields a line for each that was not logged."""
    from federation.tracking import StoreUnavailableError, TrackingError

    for folder in map(Path, folders):
        try:
            _log_once(folder, store)
        except Timeout:
            yield f"{folder.name} is in use by another process"
        except StoreUnavailableError as error:
            yield str(error)
            return
        except TrackingError as error:
            yield f"{folder.name}: {error}"
        except Exception as error:
            # A run whose files are damaged keeps no other from being logged.
            yield f"{folder.name}: {type(error).__name__}"


def _log_once(folder: Path, store: str) -> None:
    """Log a run and leave the receipt, while no other process runs or logs there."""
    from federation.tracking import log_run

    # Who holds it may be about to log the run for us.
    with FileLock(folder / LOCK_NAME, timeout=_PATIENCE):
        if not _is_logged(folder):
            results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            _write(folder / _RECEIPT, log_run(results, folder, store))


def _is_logged(folder: Path) -> bool:
    return (folder / _RECEIPT).is_file()


def _write(file: Path, line: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(line + "\n", encoding="utf-8")
    part.replace(file)


if __name__ == "__main__":
    for line in _log_all(sys.argv[1], sys.argv[2:]):
        print(line)  # noqa: T201 - read by `_attempt`
