"""An append-only file of entries, each chained by its hash to the one before: the ledger on disk.

`ledger.db` is an SQLite file of rows (seq, body, hash). The body is canonical JSON: sorted keys, no
spaces, ASCII. The chain is

    hash = SHA-256(hash of the entry before, as 64 hexadecimal digits, followed by the body)

in hexadecimal, where the first entry follows 64 zeros. `ledger.head` beside it holds seq and hash
of the last entry.

**Durable.** A commit returns when the entry is on the disk: rollback journal, synchronous = EXTRA,
which also syncs the folder after the journal is gone (FULL does not: a journal that a power cut
brings back would undo the entry).

**One at a time.** All reading and writing happens inside BEGIN IMMEDIATE, so two processes never
decide on the same state. (Who may only read the file gets a read lock, and can write nothing.)
Nothing is kept open in between, so a file that is replaced under a running process is noticed. The
file belongs on a local disk: locks of network file systems cannot be trusted.

**The head file** is written while the lock is held, after the entry's commit, and before the next
entry. Hence it may lag behind the chain (a crash came between), and never leads it: a chain that is
shorter than its head file, or differs from it, is an older or another copy and is refused. A head
file older than the chain is brought up to it, so neither a crash nor an old backup of this small
file locks a site out.

What this does and does not protect against is said in `federation.ledger`.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from data_contracts.errors import GroundTruthError

_BUSY_SECONDS = 30.0
_DECODER: Final = json.JSONDecoder()
_LONGEST_BODY: Final = 1_000_000
_SCHEMA: Final = (
    (
        *("table", "entry", "entry"),
        "CREATE TABLE entry (seq INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL)",
    ),
    (
        *("trigger", "entries_are_in_order", "entry"),
        "CREATE TRIGGER entries_are_in_order BEFORE INSERT ON entry "
        "WHEN NEW.seq IS NOT (SELECT ifnull(max(seq), 0) + 1 FROM entry) "
        "BEGIN SELECT RAISE(ABORT, 'entries of a ledger are only appended'); END",
    ),
    (
        *("trigger", "entries_never_change", "entry"),
        "CREATE TRIGGER entries_never_change BEFORE UPDATE ON entry "
        "BEGIN SELECT RAISE(ABORT, 'entries of a ledger never change'); END",
    ),
    (
        *("trigger", "entries_are_never_deleted", "entry"),
        "CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entry "
        "BEGIN SELECT RAISE(ABORT, 'entries of a ledger are never deleted'); END",
    ),
)
_NOT_THE_CONTENT: Final = {
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written, or is full",
    sqlite3.SQLITE_PERM: "access is denied",
    sqlite3.SQLITE_READONLY: "it cannot be written",
}


class LedgerError(GroundTruthError):
    """The site's ledger refuses. Then nothing is released."""


class LedgerUnavailableError(LedgerError):
    """The ledger cannot be read or written just now; what is in it is not in doubt."""


class LedgerDamagedError(LedgerError):
    """The ledger is not what was written: unreadable, altered or cut short."""


class LedgerRolledBackError(LedgerDamagedError):
    """The ledger is older than its head file, or than this process has seen it."""


class Head(NamedTuple):
    """The last entry of a chain."""

    seq: int
    hash: str


ORIGIN: Final = Head(0, "0" * 64)
"""What the first entry follows."""


class Entry(NamedTuple):
    """An entry whose place in the chain has been verified.

    Attributes:
        seq: Its number, from 1.
        text: Its body as it was hashed.
        prev: Hash of the entry before.
        hash: Its own.
    """

    seq: int
    text: str
    prev: str
    hash: str

    @property
    def body(self) -> dict[str, Any]:
        """What it says.

        Raises:
            ValueError: The text is not JSON.
        """
        body: dict[str, Any] = _DECODER.raw_decode(self.text)[0]
        return body

    @property
    def head(self) -> Head:
        """The chain up to here."""
        return Head(self.seq, self.hash)


def canonical(body: Mapping[str, Any]) -> str:
    """A body as text: sorted keys, no spaces, ASCII."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def chain_hash(prev: str, text: str) -> str:
    """Hash of an entry with this body, after an entry with hash `prev`."""
    return hashlib.sha256((prev + text).encode()).hexdigest()


class Chain:
    """The chain while its lock is held; see `open_chain`."""

    def __init__(self, db: sqlite3.Connection, file: Path) -> None:
        self._db = db
        self._file = file
        self._head_file = file.with_suffix(".head")
        self._written = False

    def after(self, known: Head) -> Iterator[Entry]:
        """The entries after `known`, verified one by one.

        From the very first entry on, the file's structure is checked as well.

        Raises:
            LedgerRolledBackError: The entry `known` is no longer there.
            LedgerDamagedError: An entry does not fit the chain; the first one is named.
        """
        if known == ORIGIN and self._db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise self._damaged("its structure is broken")
        rows = self._db.execute(
            "SELECT seq, body, hash FROM entry WHERE seq >= ? ORDER BY seq", (known.seq,)
        )
        if known != ORIGIN:
            row = rows.fetchone()
            if row is None or (row[0], row[2]) != known:
                raise self._rolled_back(f"entry {known.seq}, which this process has seen")
        expected, prev = known
        for seq, text, stored in rows:
            expected += 1
            if seq != expected or not isinstance(text, str) or chain_hash(prev, text) != stored:
                raise self._damaged(f"entry {expected} does not fit the chain")
            yield Entry(seq, text, prev, stored)
            prev = stored

    def seal(self, head: Head) -> None:
        """Hold the head file to the chain, which ends with `head`.

        Raises:
            LedgerRolledBackError: The head file knows an entry that the chain has not.
            LedgerDamagedError: The head file is gone or unreadable.
            OSError: It cannot be written.
        """
        sealed = self._read_head()
        if sealed == head:
            return
        if sealed == ORIGIN and head.seq > 1:
            raise self._bad_head("is gone")
        row = self._db.execute("SELECT hash FROM entry WHERE seq = ?", (sealed.seq,)).fetchone()
        if sealed != ORIGIN and row != (sealed.hash,):
            raise self._rolled_back(f"entry {sealed.seq}, which {self._head_file.name} knows")
        spare = self._head_file.with_suffix(".head.new")
        with spare.open("w", encoding="ascii") as out:
            json.dump(head._asdict(), out)
            out.flush()
            os.fsync(out.fileno())
        spare.replace(self._head_file)
        _sync_folder(self._file.parent)

    def append(self, last: Head, body: Mapping[str, Any]) -> Entry:
        """Write an entry after `last`, to be kept by the next `commit`."""
        text = canonical(body)
        entry = Entry(last.seq + 1, text, last.hash, chain_hash(last.hash, text))
        self._db.execute(
            "INSERT INTO entry (seq, body, hash) VALUES (?, ?, ?)",
            (entry.seq, entry.text, entry.hash),
        )
        self._written = True
        return entry

    def commit(self) -> bool:
        """Make what was appended durable, and take the lock again; whether there was anything."""
        if not self._written:
            return False
        self._db.execute("COMMIT")
        self._written = False
        self._db.execute("BEGIN IMMEDIATE")
        return True

    def check_schema(self, *, create: bool) -> None:
        """Hold tables and triggers to what they must be, or make them in an empty file.

        Raises:
            LedgerUnavailableError: The file is empty and `create` is not set.
            LedgerDamagedError: Tables or triggers are not the ledger's.
        """
        found = tuple(
            self._db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY rowid")
        )
        if found == _SCHEMA:
            return
        if found:
            raise self._damaged("its tables or triggers have been altered")
        if self._read_head() != ORIGIN:
            raise self._rolled_back("any entry")
        if not create:
            raise _missing(self._file)
        for *_, statement in _SCHEMA:
            self._db.execute(statement)

    def _read_head(self) -> Head:
        try:
            raw = json.loads(self._head_file.read_bytes())
            head = Head(raw["seq"], raw["hash"])
        except FileNotFoundError:
            return ORIGIN
        except (KeyError, TypeError, ValueError):
            raise self._bad_head("is unreadable") from None
        if type(head.seq) is not int or not isinstance(head.hash, str):
            raise self._bad_head("is unreadable")
        return head

    def _bad_head(self, what: str) -> LedgerDamagedError:
        return LedgerDamagedError(
            f"{self._head_file} {what}, so an older copy of the ledger could not be told from the "
            "newest: nothing is released. Restore this file from a backup; it may be older than "
            f"{self._file.name}"
        )

    def _damaged(self, what: str) -> LedgerDamagedError:
        return LedgerDamagedError(_damage(self._file, what))

    def _rolled_back(self, what: str) -> LedgerRolledBackError:
        return LedgerRolledBackError(_damage(self._file, f"it does not hold {what}"))


@contextmanager
def open_chain(file: Path, *, create: bool = False) -> Iterator[Chain]:
    """The chain in a file, for as long as the lock on it is held.

    What was appended and not committed when the lock is given back is not kept.

    Args:
        file: The SQLite file.
        create: Whether to make it where there is none, and the folder that it lies in.

    Raises:
        LedgerUnavailableError: It is not there, cannot be read or written, or another process has
            held the lock for too long.
        LedgerDamagedError: It is no ledger, or an altered one.
    """
    try:
        if create and file.parent.parent.is_dir() and not file.parent.exists():
            file.parent.mkdir(exist_ok=True)
            _sync_folder(file.parent.parent)
        if not create and not file.exists():
            raise _missing(file)
        with closing(_connect(file, "rwc" if create else "rw")) as db:
            chain = Chain(db, file)
            for setting in ("trusted_schema = OFF", "journal_mode = DELETE", "synchronous = EXTRA"):
                db.execute(f"PRAGMA {setting}")
            db.execute("BEGIN IMMEDIATE")
            chain.check_schema(create=create)
            yield chain
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where SQLite quotes garbage
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise LedgerUnavailableError(
                f"ledger {file} has been in use by another process for {_BUSY_SECONDS:g} s; "
                "nothing is released. Try again when it has ended"
            ) from None
        if code in _NOT_THE_CONTENT:
            raise _unavailable(file, _NOT_THE_CONTENT[code]) from None
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        raise LedgerDamagedError(_damage(file, f"SQLite cannot read it ({name})")) from None
    except OSError as error:
        raise _unavailable(file, error.strerror or "it cannot be used") from None


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
    )
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_BODY)
    return db


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _missing(file: Path) -> LedgerUnavailableError:
    if file.with_suffix(".head").exists():
        return LedgerUnavailableError(
            f"there is no ledger {file}, and there was one: its head file is still there. Put the "
            "file back, or restore both from the newest backup; nothing is released without it"
        )
    return LedgerUnavailableError(
        f"there is no ledger {file}: nothing has been released from this site yet, or this is not "
        "its folder"
    )


def _unavailable(file: Path, what: str) -> LedgerUnavailableError:
    return LedgerUnavailableError(
        f"ledger {file} cannot be used: {what}. Nothing is released. Give it a local disk with "
        f"space, and the right to write in {file.parent}"
    )


def _damage(file: Path, what: str) -> str:
    head = file.with_suffix(".head").name
    return (
        f"ledger {file} is damaged: {what}. Nothing is released until this is put right. Restore "
        f"{file.name} and {head} together from the newest backup; what was released since is then "
        "not counted, so lower the budget by it (`groundtruth site budget`)"
    )
