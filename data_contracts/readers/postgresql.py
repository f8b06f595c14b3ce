"""Contract tables of a PostgreSQL database: one read-only snapshot, in batches of bounded memory.

Rows come as `COPY ... TO STDOUT (FORMAT csv)`, which polars parses: in less than a fifth of the
time of a cursor (`python -m experiments.benchmarks.postgresql_throughput`).

Give the site a role of its own that may read these tables and nothing else:

    CREATE ROLE groundtruth LOGIN PASSWORD '...';
    GRANT USAGE ON SCHEMA analytics TO groundtruth;
    GRANT SELECT ON analytics.pa_request, analytics.claim_payment TO groundtruth;

The server refuses every change that a query tries, since the transaction is read-only; superusers
are refused all the same, as even their reading reaches files of the server. Where tables have
policies of row-level security, the role reads what they show to it.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from data_contracts.readers.database import SECTION, TABLES, Database, quoted
from data_contracts.readers.findings import ReaderError, at

if TYPE_CHECKING:
    import psycopg

_BATCH_ROWS = 100_000
_BATCH_BYTES = 64 << 20

_TYPES: Final[Mapping[str, Any]] = {
    "bool": pl.Boolean,
    "int2": pl.Int16,
    "int4": pl.Int32,
    "int8": pl.Int64,
    "float4": pl.Float32,
    "float8": pl.Float64,
}
"""PostgreSQL types that polars holds exactly.

Every other one comes as the server writes it, and the contract's types decide. Of these, `numeric`
keeps all digits (12.5 does not become the count 12); and a date stays one that no contract takes,
where polars would make it a number of days.
"""

_CONNECTING: Final[Mapping[str, str]] = {
    "definition of service": "pg_service.conf has no such service, or there is no such file",
    "authentication failed": "authentication failed: the role or its password is wrong",
    "no password supplied": "authentication failed: the server asks for a password, and neither "
    "the URL nor the password file (.pgpass) holds one",
    "pg_hba.conf": "authentication failed: pg_hba.conf of the server lets nobody in from here, "
    "with this role, database and encryption",
    "FATAL:  role": "authentication failed: there is no such role, or it may not log in",
    "FATAL:  database": "the server has no such database",
    "resolve host": "no host of this name is known, or the port is no number",
    "translate host name": "no host of this name is known",
    "Connection refused": "nothing listens there, or a firewall refuses it",
    "No such file": "nothing listens on this socket",
    "timeout": "the server does not answer in time",
    "certificate": "the server's certificate is not to be trusted",
    "SSL": "no encrypted connection could be agreed on",
}
"""What libpq says of a failed login -> our words. Only these have no SQLSTATE."""

_STATES: Final[Mapping[str, str]] = {
    "25P02": "an earlier reading in this snapshot failed, or was left before its end",
    "25006": "it tries to change data, and this transaction may only read",
    "22021": "the table holds text that is not UTF-8, in a database of encoding SQL_ASCII",
    "42P01": "there is no such table or view; names are taken as they stand, upper and lower case",
    "42703": "there is no such column",
    "42601": "the query is not valid SQL",
    "57014": "the server ended it, on an administrator's order or since it took longer than "
    "{seconds} s; raise timeout_seconds if the table needs more",
    "08": "the connection was lost; read the table again",
    "22": "a value in the table cannot be turned into what the query asks for",
    "40": "the server gave the reading up, e.g. a standby to keep pace; read the table again",
    "42": "the query does not fit the tables that it reads",
    "53": "the server lacks memory, disk space or connections",
    "57": "the connection was lost: the server is shutting down or restarting",
}
"""SQLSTATE, or its first two digits -> our words. What the server says itself may quote a value.

Source: PostgreSQL documentation, appendix A, error codes.
"""


@contextmanager
def snapshot(database: Database) -> Iterator["Snapshot"]:
    """Connect, and see all tables as they are at one moment, whoever writes meanwhile.

    Raises:
        ReaderError: The driver is not installed, nobody can connect, the role is a superuser, or
            the connection leaves the machine without encryption.
    """
    try:
        import psycopg
    except ImportError:
        raise at(
            database.file,
            SECTION,
            "the driver of PostgreSQL is not installed; run pip install "
            "'shared-ground-truth[postgresql]'",
        ) from None
    if database.service:
        told, login = f"service {database.service}", f"service={database.service}"
    else:
        told, login = f"${database.url_env}", os.environ.get(database.url_env, "")
        if not login:
            raise at(database.file, SECTION, f"the environment variable {told} is not set")
    try:
        told += _address(psycopg.conninfo.conninfo_to_dict(login))
        connection = psycopg.connect(
            login,
            application_name="groundtruth",
            client_encoding="utf8",
            keepalives_idle=60,  # seconds; a connection that a firewall forgot is noticed
            prepare_threshold=None,  # poolers of connections know no prepared statements
        )
    except psycopg.ProgrammingError:
        raise at(
            database.file,
            SECTION,
            f"{told} holds no URL of PostgreSQL (postgresql://user@host:port/database; other "
            "characters than letters and digits of a password are written as %40)",
        ) from None
    except psycopg.Error as error:
        said = str(error)
        known = [words for phrase, words in _CONNECTING.items() if phrase in said]
        reason = known[0] if known else "the server cannot be reached, or refuses the login"
        raise at(database.file, SECTION, f"cannot connect to {told}: {reason}") from None
    with closing(connection):
        _check_connection(connection, database)
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        yield Snapshot(database, connection)


def _address(parts: Mapping[str, Any]) -> str:
    """Host and port, for messages.

    A password with a bare @ or / in it breaks a URL apart, and its rest would pass for these.
    """
    host, port, name = (str(parts.get(key, "")) for key in ("host", "port", "dbname"))
    if not re.fullmatch(r"[\w./:,-]+", host) or "@" in name:
        return ""
    return f" (host {host}, port {port or 5432})"


def _check_connection(connection: "psycopg.Connection[Any]", database: Database) -> None:
    """Refuse superusers, and connections that others on the network could listen to."""
    info = connection.info
    if info.parameter_status("is_superuser") == "on":
        raise at(
            database.file,
            SECTION,
            "the role is a superuser; use one that may only read these tables (GRANT SELECT)",
        )
    local = re.fullmatch(r"|[/@].*|localhost|::1|127(\.\d+){3}", info.host)
    encrypted = connection.pgconn.ssl_in_use or info.get_parameters().get("gssencmode") == "require"
    if not (local or encrypted):
        raise at(
            database.file,
            SECTION,
            f"the connection to host {info.host} is not encrypted; turn TLS on at the server and "
            "put sslmode=verify-full into the URL or service (or read through a tunnel)",
        )


class _Column(NamedTuple):
    """A column of a relation: how the server writes it out, and what it is then."""

    name: str
    sql: str
    csv: Any  # the polars type that CSV is parsed as
    dtype: Any


class Snapshot:
    """All tables of a database at one moment; read one after the other, each to its end.

    Args:
        database: Where its tables are.
        connection: Set to read only; its first statement begins the snapshot.
    """

    def __init__(self, database: Database, connection: "psycopg.Connection[Any]") -> None:
        self._database = database
        self._connection = connection

    def columns(self, table: str) -> pl.Schema:
        """Names and types of a table's columns; no row is fetched.

        Args:
            table: Name of the contract, as under `[sources.postgresql.tables]`.

        Raises:
            ReaderError: The table cannot be read, or two of its columns have one name.
        """
        return pl.Schema({column.name: column.dtype for column in self._describe(table)})

    def batches(self, table: str) -> Iterator[pl.DataFrame]:
        """The rows of a table, at most 100 000 or about 64 MB of text at a time.

        Check `columns` first: the rows of this iterator are those of the table, all of them.
        Lists of codes are lists of text; `json`, and lists of structures, are JSON text.

        Args:
            table: Name of the contract, as under `[sources.postgresql.tables]`.

        Raises:
            ReaderError: The table cannot be read, or not to its end.
        """
        columns = self._describe(table)
        select = self._select(", ".join(column.sql for column in columns), table)
        rows: list[bytes] = []  # the server sends row by row
        size = 0
        with self._errors(table), self._connection.cursor() as cursor:
            with cursor.copy(b"COPY (%b) TO STDOUT (FORMAT csv)" % select) as stream:
                for row in stream:
                    rows.append(bytes(row))
                    size += len(row)
                    if len(rows) == _BATCH_ROWS or size > _BATCH_BYTES:
                        yield self._frame(table, columns, rows)
                        rows.clear()
                        size = 0
            if rows:
                yield self._frame(table, columns, rows)

    def _describe(self, table: str) -> list[_Column]:
        milliseconds = 1000 * self._database.timeout_seconds
        with self._errors(table), self._connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {milliseconds}".encode())
            cursor.execute(b"SET LOCAL datestyle = 'ISO'")
            cursor.execute(self._select("*", table) + b" LIMIT 0")
            found = [(column.name, column.type_code) for column in cursor.description or ()]
            cursor.execute(
                "SELECT t.oid, t.typname, t.typcategory = 'A', e.typcategory = 'C' "
                "OR e.typname IN ('json', 'jsonb') FROM pg_catalog.pg_type t "
                "LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem WHERE t.oid = ANY(%s::oid[])",
                [[oid for _, oid in found]],
            )
            types = {oid: _typed(*described) for oid, *described in cursor}
        twice = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
        if twice:
            raise self._error(table, f"more than one column is called {', '.join(twice)}")
        return [
            _Column(name, sql.format(quoted(name)), csv, dtype)
            for name, oid in found
            for sql, csv, dtype in [types[oid]]
        ]

    def _select(self, columns: str, table: str) -> bytes:
        # Identifiers are quoted, and the query is the site's own.
        return f"SELECT {columns} FROM {self._database.tables[table].sql}".encode()  # noqa: S608

    def _frame(self, table: str, columns: list[_Column], rows: list[bytes]) -> pl.DataFrame:
        schema = {column.name: column.csv for column in columns}
        lists = [
            pl.col(column.name).str.json_decode(column.dtype)
            for column in columns
            if column.csv != column.dtype
        ]
        try:
            frame = pl.read_csv(b"".join(rows), has_header=False, schema=schema)
            frame = frame.with_columns(lists)
        except pl.exceptions.PolarsError as error:
            # What polars says may quote a cell.
            raise self._error(
                table,
                f"its rows cannot be understood ({type(error).__name__}); does an array have more "
                "than one dimension?",
            ) from None
        if frame.height != len(rows):
            raise self._error(table, f"{len(rows)} rows were sent and {frame.height} understood")
        return frame

    @contextmanager
    def _errors(self, table: str) -> Iterator[None]:
        """Tell errors of the server in our words."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            state = error.sqlstate or "08"
            words = _STATES.get(state) or _STATES.get(state[:2], "the server refuses it")
            if state == "42501":
                words = self._permission(table)
            words = words.replace("{seconds}", str(self._database.timeout_seconds))
            code = f" (SQLSTATE {state})" if error.sqlstate else ""
            raise self._error(table, words + code) from None

    def _permission(self, table: str) -> str:
        relation = self._database.tables[table]
        role = quoted(self._connection.info.user)
        if relation.query:
            return f"the role {role} lacks a permission that the query needs; GRANT it"
        schema, _, _ = relation.sql.rpartition(".")
        usage = f"GRANT USAGE ON SCHEMA {schema} TO {role}; " if schema else ""
        return f"permission denied; run {usage}GRANT SELECT ON {relation.sql} TO {role}"

    def _error(self, table: str, reason: str) -> ReaderError:
        name = self._database.tables[table].name or "query"
        return at(self._database.file, f"{TABLES} {table} ({name})", reason)


def _typed(name: str, is_array: bool, of_structures: bool | None) -> tuple[str, Any, Any]:
    """How a type is written out (a pattern of SQL), parsed, and held."""
    if is_array and of_structures:
        return "to_json({})::text", pl.String, pl.String
    if is_array:
        return "to_json({}::text[])::text", pl.String, pl.List(pl.String)
    dtype = _TYPES.get(name, pl.String)
    return "{}::text" if name == "bool" else "{}", dtype, dtype
