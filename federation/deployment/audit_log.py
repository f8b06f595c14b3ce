r"""An append-only file of what a coordinator or a site did: who, what, when, and how it ended.

`audit.jsonl` holds one entry a line, each chained by its hash to the one before, as in an exported
ledger (`federation.ledger_export`):

    {"hash":"<64 hexadecimal digits>","prev":"<64 hexadecimal digits>","body":{...}}

hash = SHA-256(prev followed by the text between `"body":` and the last brace), both in ASCII; prev
is the hash of the entry before, 64 zeros for the first. An auditor checks a log without our code:

    import hashlib, json, sys

    prev, number = "0" * 64, 0
    for number, line in enumerate(open(sys.argv[1], encoding="ascii", newline="\n"), start=1):
        entry, text = json.loads(line), line[line.index('"body":') + 7 : -2]
        fits = line[-2:] == "}\n" and entry["prev"] == prev and entry["body"]["seq"] == number
        if not fits or hashlib.sha256((prev + text).encode()).hexdigest() != entry["hash"]:
            sys.exit(f"entry {number} does not fit the chain")
        prev = entry["hash"]
    print(f"{number} entries, chain intact, head {prev}")

What an entry can say, and that no value from data is among it: see `audit_entry`.

**Durable.** When `append` returns, its entry is on the disk. A crash or a full disk in the middle
of one can leave a torn last line. The next `append` sets it aside in a file of its own and writes
an entry `log repaired`, with its size and SHA-256, over it: at no moment is it lost unseen.

**One at a time.** Writers lock the file, which belongs on a local disk.

**What the chain cannot show**: that whole entries at its end are gone, or that it was written anew.
Against that somebody else must know a head: keep what `groundtruth audit-log verify` prints outside
the machine, and give it to a later `verify --head`.

    AuditLogError
    ├── AuditEntryError              an entry holds what none may hold
    ├── AuditLogUnavailableError     cannot be read or written just now
    │   └── AuditLogFullError        the disk is full
    └── AuditLogDamagedError         not what was written
        ├── AuditLogTornError        the last line alone, by a crash: the next entry repairs it
        └── AuditLogRolledBackError  a known head is not in it
"""

import errno
import fcntl
import hashlib
import json
import os
import pwd
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, Unpack

from data_contracts.manifest import MANIFEST_NAME, SiteManifest
from data_contracts.vocabulary import PSEUDONYM_PATTERN
from federation.deployment.audit_entry import (
    AuditEntryError,
    AuditLogError,
    Event,
    Fields,
    checked,
)
from federation.ledger_chain import ORIGIN, Entry, Head, canonical, chain_hash
from federation.printable import printable
from federation.run_state import state_folder

AUDIT_FILE: Final = "audit.jsonl"
"""In the coordinator's folder, or in a site's state folder."""

_BUSY_SECONDS = 30.0
_LONGEST_LINE: Final = 8192  # bytes; an entry of the longest values has fewer than 7000
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LINE: Final = re.compile(
    rb'\{"hash":"([0-9a-f]{64})","prev":"([0-9a-f]{64})","body":(\{.*\})\}\n', re.ASCII
)


class AuditLogUnavailableError(AuditLogError):
    """The log cannot be read or written just now; what is in it is not in doubt."""


class AuditLogFullError(AuditLogUnavailableError):
    """There is no room for an entry."""


class AuditLogDamagedError(AuditLogError):
    """The log is not what was written."""


class AuditLogTornError(AuditLogDamagedError):
    """The last line was not finished."""


class AuditLogRolledBackError(AuditLogDamagedError):
    """The log is an older copy, or another one."""


class AuditLog:
    """The audit log of a coordinator or a site.

    Args:
        file: The log; made by the first entry, in a folder that is there, for its owner alone.
        actor: Whose it is: "coordinator", or "site" and the site's pseudonym.

    Raises:
        AuditEntryError: The actor is neither.
    """

    def __init__(self, file: Path, actor: str) -> None:
        role, _, site = actor.partition(" ")
        if actor != "coordinator" and (role != "site" or not re.fullmatch(PSEUDONYM_PATTERN, site)):
            raise AuditEntryError('who acts is "coordinator", or "site" and its pseudonym')
        self._file = file
        self._actor = actor

    def append(self, event: Event, **fields: Unpack[Fields]) -> Head:
        """Write an entry, durably.

        Returns:
            Its number and hash.

        Raises:
            AuditEntryError: The entry lacks a field of its event, or has a wrong one.
            AuditLogFullError: There is no room for it.
            AuditLogUnavailableError: The log cannot be written.
            AuditLogDamagedError: The last entry is not what was written.
        """
        facts = checked(event, fields)
        with _locked(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT, fcntl.LOCK_EX) as log:
            size = os.fstat(log).st_size
            near = min(size, 2 * _LONGEST_LINE)  # a whole line and a torn one
            tail = os.pread(log, near, size - near)
            whole, newline, torn = tail.rpartition(b"\n")
            last = self._last(whole + newline)
            if torn:
                last = self._repair(last, torn, size - len(torn))
            line, head = self._entry(last, event, facts)
            if size == 0:
                _sync_folder(self._file.parent)
            if os.write(log, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(log)
        return head

    def _last(self, lines: bytes) -> Head:
        if not lines:
            return ORIGIN
        line = lines[lines.rfind(b"\n", 0, -1) + 1 :]
        try:
            return _parsed(line).head
        except ValueError:
            raise _damaged(self._file, "its last entry is not what was written") from None

    def _repair(self, last: Head, torn: bytes, at: int) -> Head:
        """Set a torn last line aside, and say so in its place.

        The entry is written over the line, and only then is what is longer cut off: whenever this
        is interrupted, the log either still ends in a torn line or says that it did.
        """
        if len(torn) > _LONGEST_LINE:
            raise _damaged(self._file, "its last line is longer than any entry")
        digest = hashlib.sha256(torn).hexdigest()
        spare = self._file.with_name(f"{self._file.name}.torn-{digest[:16]}")
        with os.fdopen(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(torn)
            out.flush()
            os.fsync(out.fileno())
        _sync_folder(spare.parent)
        repaired: Fields = {"size": len(torn), "digest": digest}
        line, head = self._entry(last, Event.LOG_REPAIRED, checked(Event.LOG_REPAIRED, repaired))
        log = os.open(self._file, os.O_WRONLY)
        try:
            if os.pwrite(log, line, at) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(log)
            os.ftruncate(log, at + len(line))
            os.fsync(log)
        finally:
            os.close(log)
        return head

    def _entry(self, last: Head, event: Event, facts: Mapping[str, object]) -> tuple[bytes, Head]:
        text = canonical(
            {
                "seq": last.seq + 1,
                "time": _stamp(datetime.now(UTC)),
                "user": user_name(),
                "actor": self._actor,
                "event": event,
                "outcome": event.outcome,
                **facts,
            }
        )
        head = Head(last.seq + 1, chain_hash(last.hash, text))
        line = f'{{"hash":"{head.hash}","prev":"{last.hash}","body":{text}}}\n'
        return line.encode("ascii"), head


def audit_file(path: Path) -> Path:
    """The log that a path stands for.

    Args:
        path: The log itself, a coordinator's folder, a site's folder, or its site.toml.
    """
    if path.name == MANIFEST_NAME:
        return state_folder(path) / AUDIT_FILE
    if (path / MANIFEST_NAME).exists():
        return state_folder(path / MANIFEST_NAME) / AUDIT_FILE
    return path / AUDIT_FILE if path.is_dir() else path


def site_log(path: Path) -> AuditLog:
    """The log of a site, named by its folder or its site.toml.

    Raises:
        ManifestError: The site.toml cannot be used.
    """
    return AuditLog(audit_file(path), f"site {SiteManifest.load(path).name}")


def entries(file: Path) -> Iterator[Entry]:
    """All entries that the log held when the first one was asked for, verified one by one.

    Raises:
        AuditLogUnavailableError: It is not there or cannot be read.
        AuditLogTornError: After the last whole entry there is a line that was not finished.
        AuditLogDamagedError: An entry does not fit the chain; the first one is named.
    """
    with _locked(file, os.O_RDONLY, fcntl.LOCK_SH) as log:
        size = os.fstat(log).st_size
        fcntl.flock(log, fcntl.LOCK_UN)  # who reads slowly must not hold up who writes
        last = ORIGIN
        with os.fdopen(log, "rb", closefd=False) as lines:
            while lines.tell() < size:
                line = lines.readline(_LONGEST_LINE)
                number = last.seq + 1
                if not line.endswith(b"\n") and lines.tell() >= size:
                    raise AuditLogTornError(
                        f"{file}: entry {number} was not finished: a crash or a full disk. The "
                        "entries before it are intact, and the next one sets it aside"
                    )
                try:
                    entry = _parsed(line)
                except ValueError:
                    raise _damaged(file, f"entry {number} is not what was written") from None
                if (entry.seq, entry.prev) != (number, last.hash):
                    raise _damaged(file, f"entry {number} does not fit the chain")
                yield entry
                last = entry.head


def verify(file: Path, *, known: str = "") -> Head:
    """Check that nothing in the log has been altered, removed or put back.

    Args:
        file: The log.
        known: Hash of an entry that was the last one earlier; it must still be there.

    Returns:
        The last entry.

    Raises:
        AuditLogRolledBackError: The known entry is not there.
        AuditLogDamagedError, AuditLogUnavailableError: See `entries`.
    """
    if known and not re.fullmatch("[0-9a-f]{64}", known):
        raise AuditLogError("a head is 64 hexadecimal digits, as an earlier verify printed it")
    head, found = ORIGIN, known in ("", ORIGIN.hash)
    for entry in entries(file):
        head, found = entry.head, found or entry.hash == known
    if not found:
        raise AuditLogRolledBackError(
            f"{file} does not hold the entry {known}: it is an older copy, or another log. Find "
            "out who put it there, and restore the newest backup that holds that entry"
        )
    return head


def show(
    file: Path, *, run: str = "", event: str = "", since: datetime | None = None
) -> Iterator[dict[str, Any]]:
    """What the entries say, with their hashes, verified one by one.

    Args:
        file: The log.
        run: First digits of a run's id; only entries about it.
        event: An event; only entries of it.
        since: Only entries of this time and later; UTC unless it says otherwise.

    Raises:
        AuditLogError: There is no such event.
        AuditLogDamagedError, AuditLogUnavailableError: See `entries`.
    """
    if event and event not in set(Event):
        raise AuditLogError(f"there is no event {event!r}; there are: {', '.join(Event)}")
    start = _stamp(since.astimezone(UTC) if since.tzinfo else since) if since else ""
    for entry in entries(file):
        body = entry.body
        about_run = str(body.get("run", "")).startswith(run)
        if about_run and event in ("", body.get("event")) and str(body.get("time", "")) >= start:
            yield {**body, "hash": entry.hash}


def user_name() -> str:
    """Name of the user whose rights this process has; unlike $USER nobody can choose it."""
    try:
        return printable(pwd.getpwuid(os.geteuid()).pw_name, 64)
    except KeyError:  # as in a container that runs as a bare number
        return f"uid {os.geteuid()}"


def _stamp(moment: datetime) -> str:
    """A time in UTC, in milliseconds; as texts they are in order."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _parsed(line: bytes) -> Entry:
    """The entry in a line, if its hash is right; its place in the chain is not yet verified.

    Raises:
        ValueError: It holds none.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError
    own, prev, text = (part.decode("ascii") for part in match.groups())
    if chain_hash(prev, text) != own:
        raise ValueError
    try:
        body = json.loads(text)
        if canonical(body) != text or type(body["seq"]) is not int:
            raise ValueError
        return Entry(body["seq"], text, prev, own)
    except (KeyError, RecursionError):
        raise ValueError from None


@contextmanager
def _locked(file: Path, flags: int, lock: int) -> Iterator[int]:
    """The file's descriptor while the lock on it is held; whatever goes wrong is named."""
    try:
        log = os.open(file, flags, 0o600)
        try:
            _wait_for(log, lock)
            yield log
        finally:
            os.close(log)
    except OSError as error:
        _explain(file, error)


def _wait_for(log: int, lock: int) -> None:
    give_up = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return fcntl.flock(log, lock | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.005)


def _explain(file: Path, error: OSError) -> NoReturn:
    if error.errno in _FULL:
        raise AuditLogFullError(
            f"{file}: the disk is full, so there is no entry about this. Make room, and check with "
            "groundtruth audit-log show what the last entry is"
        ) from None
    if isinstance(error, BlockingIOError):
        what = f"it has been in use by another process for {_BUSY_SECONDS:g} s"
    elif isinstance(error, FileNotFoundError):
        raise AuditLogUnavailableError(
            f"{file}: there is no such file or folder. An audit log is audit.jsonl in a "
            "coordinator's folder, or in the state folder of a site"
        ) from None
    else:
        what = error.strerror or "it cannot be used"
    raise AuditLogUnavailableError(
        f"{file}: {what}. The audit log needs a folder on a local disk that this user may write in"
    ) from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(file: Path, what: str) -> AuditLogDamagedError:
    return AuditLogDamagedError(
        f"{file} is not what was written: {what}. Somebody or a disk has changed it: keep this "
        "file as it is for whoever looks into it, and put a backup in its place"
    )
