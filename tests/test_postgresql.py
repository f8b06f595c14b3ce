"""Tables of a real PostgreSQL server become frames; nothing is written, and no secret is told."""

import dataclasses
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psutil
import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from data_contracts.deidentification.columns import UnknownColumnError, check_columns
from data_contracts.errors import ManifestError
from data_contracts.intake import read_tables
from data_contracts.manifest import SiteManifest
from data_contracts.readers.database import Database, Relation
from data_contracts.readers.findings import ReaderError
from data_contracts.readers.postgresql import snapshot
from data_contracts.schemas import PaRequest
from experiments.benchmarks.postgresql_server import Server, server

PASSWORD = "Zaphod9Secret"  # noqa: S105 - of a server that lives for seconds; no message holds it
PLANTED = "123-45-6789"  # planted in the data; no message may hold it
FILE = Path("site.toml")
CONTRACT_TABLES = ["pa_request", "pa_decision", "claim_payment", "clinical_outcome"]

Config = Callable[..., Database]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    with server() as running:
        with running.admin() as admin:
            admin.execute("CREATE ROLE reader LOGIN PASSWORD 'Zaphod9Secret'")
            admin.execute("CREATE SCHEMA analytics")
            admin.execute("GRANT USAGE ON SCHEMA analytics TO reader")
        yield running


@pytest.fixture
def admin(postgresql: Server) -> Iterator[psycopg.Connection]:
    with postgresql.admin() as connection:
        yield connection


@pytest.fixture
def database(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A site's section for the reader's role; `t` is the table under test."""
    monkeypatch.setenv("SITE_DATABASE_URL", postgresql.url("reader", PASSWORD))

    def make(t: object = "analytics.t", **keys: object) -> Database:
        return Database.parse({"url_env": "SITE_DATABASE_URL", "tables": {"t": t}} | keys, FILE)

    return make


@pytest.fixture
def table(admin: psycopg.Connection) -> Iterator[Callable[[str], None]]:
    """Makes `analytics.t` of a SELECT, readable by the reader."""

    def make(select: str) -> None:
        admin.execute(f"CREATE TABLE analytics.t AS {select}")
        admin.execute("GRANT SELECT ON analytics.t TO reader")

    yield make
    admin.execute("DROP TABLE IF EXISTS analytics.t CASCADE")


def read(database: Database) -> pl.DataFrame:
    with snapshot(database) as tables:
        schema = tables.columns("t")
        frame = pl.concat([pl.DataFrame(schema=schema), *tables.batches("t")])
    assert frame.schema == schema
    return frame


def refusal(database: Database) -> str:
    """What a person is told, with traceback; neither password nor value is in it."""
    with pytest.raises(ReaderError) as caught:
        read(database)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert PLANTED not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


# --- what is read ------------------------------------------------------------------------------


def store(admin: psycopg.Connection, name: str, frame: pl.DataFrame) -> None:
    """A frame as people keep it in PostgreSQL: amounts are numeric, codes enums, labs jsonb."""
    plain = {
        pl.String: "text",
        pl.Boolean: "boolean",
        pl.Int8: "smallint",
        pl.Int16: "smallint",
        pl.Int32: "integer",
        pl.Float64: "numeric",
        pl.List(pl.String): "text[]",
    }
    columns = []
    for column, dtype in frame.schema.items():
        if isinstance(dtype, pl.Enum):
            kind = f"analytics.{name}_{column}"
            codes = ", ".join(f"'{code}'" for code in dtype.categories)
            admin.execute(f"CREATE TYPE {kind} AS ENUM ({codes})")
        elif isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
            kind = "jsonb"
        else:
            kind = "text[]" if isinstance(dtype, pl.List) else plain[dtype]
        columns.append(f"{column} {kind}")
    admin.execute(f"CREATE TABLE analytics.{name} ({', '.join(columns)})")
    admin.execute(f"GRANT SELECT ON analytics.{name} TO reader")
    with admin.cursor() as cursor, cursor.copy(f"COPY analytics.{name} FROM STDIN") as copy:
        for row in frame.iter_rows():
            copy.write_row(
                [Jsonb(c) if isinstance(c, list) and isinstance(c[0], dict) else c for c in row]
            )


@pytest.mark.parametrize("name", CONTRACT_TABLES)
def test_a_contract_table_comes_back_from_the_database_as_it_was(
    admin: psycopg.Connection,
    database: Config,
    frames: dict[str, pl.DataFrame],
    tmp_path: Path,
    name: str,
) -> None:
    store(admin, name, frames[name])
    frames[name].write_parquet(tmp_path / "t.parquet")
    of_file = SiteManifest("site-1", "provider", {name: tmp_path / "t.parquet"})
    stored = dataclasses.replace(database(), tables={name: Relation(f"analytics.{name}")})
    of_database = SiteManifest("site-1", "provider", {}, database=stored)
    expected, found = (read_tables(site)[name] for site in (of_file, of_database))
    assert expected.rows.height == frames[name].height
    assert found.rows.equals(expected.rows)
    assert found.provenance.row(-1) == ("postgresql", f"row {frames[name].height}")


@pytest.mark.parametrize(
    ("value", "dtype", "cell"),
    [
        ("'a'::varchar(5)", pl.String, "a"),
        ("'a'::char(3)", pl.String, "a  "),
        ("7::int2", pl.Int16, 7),
        ("7::int4", pl.Int32, 7),
        ("-9223372036854775808", pl.Int64, -(2**63)),
        ("12.50::numeric(12, 2)", pl.String, "12.50"),
        ("0.1::float4", pl.Float32, pytest.approx(0.1)),
        ("0.1::float8", pl.Float64, 0.1),
        ("'-Infinity'::float8", pl.Float64, float("-inf")),
        ("true", pl.Boolean, True),
        ("false", pl.Boolean, False),
        ("'2024-02-29'::date", pl.String, "2024-02-29"),
        ("'2024-02-29 01:02:03'::timestamp", pl.String, "2024-02-29 01:02:03"),
        ("array['E11.9', NULL, 'a,\"|}']", pl.List(pl.String), ["E11.9", None, 'a,"|}']),
        ("'{}'::varchar[]", pl.List(pl.String), []),
        ("array[1, 2]", pl.List(pl.String), ["1", "2"]),
        ("""'[{"value": 7.5}]'::jsonb""", pl.String, '[{"value": 7.5}]'),
        ("""array['{"value": 7.5}'::json]""", pl.String, '[{"value": 7.5}]'),
        ("array[row('4548-4', 7.5)::lab]", pl.String, '[{"loinc":"4548-4","value":7.5}]'),
        ("'{E11.9}'::codes", pl.List(pl.String), ["E11.9"]),
        ("'up'::direction", pl.String, "up"),
        ("array['up'::direction]", pl.List(pl.String), ["up"]),
        ("NULL::int4", pl.Int32, None),
        ("NULL::text[]", pl.List(pl.String), None),
        ("''", pl.String, ""),  # as another value than NULL
        (r"E'two\nlines, \"quoted\"\\.'", pl.String, 'two\nlines, "quoted"\\.'),
        ("'Zoë 東京'", pl.String, "Zoë 東京"),
        ("'\\x00ff'::bytea", pl.String, "\\x00ff"),
    ],
)
def test_each_type_of_the_database_has_one_of_ours(
    admin: psycopg.Connection, database: Config, value: str, dtype: pl.DataType, cell: object
) -> None:
    admin.execute(
        """DO $$ BEGIN
            CREATE TYPE lab AS (loinc text, value float8);
            CREATE TYPE direction AS ENUM ('up', 'down');
            CREATE DOMAIN codes AS text[];
        EXCEPTION WHEN duplicate_object THEN NULL; END $$"""
    )
    frame = read(database({"query": f"SELECT {value} AS x, 1 AS y UNION ALL SELECT {value}, 2"}))
    assert frame.schema["x"] == dtype
    assert frame["x"].to_list() == [cell, cell]


def test_a_table_of_one_column_keeps_its_rows_without_a_value(
    database: Config, table: Callable[[str], None]
) -> None:
    table("SELECT unnest(array['a', NULL, '', NULL]) AS x")
    assert read(database())["x"].to_list() == ["a", None, "", None]


def test_names_are_taken_as_they_stand(admin: psycopg.Connection, database: Config) -> None:
    name = 'Odd "name"; {} %s'
    made = sql.SQL("CREATE OR REPLACE VIEW {} AS SELECT 1 AS {}").format(
        sql.Identifier("analytics", name), sql.Identifier(name)
    )
    admin.execute(made)
    admin.execute(sql.SQL("GRANT SELECT ON {} TO reader").format(sql.Identifier("analytics", name)))
    assert read(database(f"analytics.{name}")).to_dict(as_series=False) == {name: [1]}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS x -- and no more",
        "\n  with one as (select 1 as x) select x from one",
        "TABLE analytics.t",
    ],
)
def test_a_query_is_any_single_one_that_reads(
    database: Config, table: Callable[[str], None], query: str
) -> None:
    table("SELECT 1 AS x")
    assert read(database({"query": query})).rows() == [(1,)]


def test_the_gate_sees_all_columns_before_any_row_is_fetched(database: Config) -> None:
    # Its second row cannot be made, so whoever fetched rows would fail.
    query = "SELECT 'a' AS request_token, 1 / (2 - i) AS ssn FROM generate_series(1, 2) AS i"
    with snapshot(database({"query": query})) as tables:
        columns = tables.columns("t")
        with pytest.raises(UnknownColumnError, match="'ssn'"):
            check_columns(columns.names(), PaRequest, source="t")
        with pytest.raises(ReaderError, match="SQLSTATE 22012"):
            list(tables.batches("t"))
    assert columns == {"request_token": pl.String, "ssn": pl.Int32}


def test_all_tables_are_seen_at_one_moment(
    admin: psycopg.Connection, database: Config, table: Callable[[str], None]
) -> None:
    table("SELECT 1 AS x")
    with snapshot(database()) as tables:
        tables.columns("t")
        admin.execute("INSERT INTO analytics.t VALUES (2)")
        assert [frame.rows() for frame in tables.batches("t")] == [[(1,)]]
    assert read(database()).height == 2


def test_a_database_of_another_encoding_is_read_as_utf8(postgresql: Server) -> None:
    with postgresql.admin() as admin:
        admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATIN", postgresql.url("reader", PASSWORD, "latin"))
        config = {"url_env": "LATIN", "tables": {"t": {"query": "SELECT chr(233) AS x"}}}
        assert read(Database.parse(config, FILE)).rows() == [("é",)]


# --- how much is held --------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(database: Config) -> None:
    # 3 million rows of 170 bytes: half a gigabyte, were they kept.
    query = "SELECT i, repeat(md5(i::text), 5) AS x FROM generate_series(1, 3000000) AS i"
    process = psutil.Process()
    rows, most = 0, 0
    with snapshot(database({"query": query})) as tables:
        before = process.memory_info().rss
        for frame in tables.batches("t"):
            assert frame["i"][0] == rows + 1
            rows += frame.height
            most = max(most, process.memory_info().rss - before)
    assert rows == 3_000_000
    assert most < 200 << 20


def test_batches_of_long_rows_have_fewer_of_them(database: Config) -> None:
    # 90 MB in 90 rows: more than the 64 MiB after which a batch ends.
    query = "SELECT repeat('x', 1000000) AS x FROM generate_series(1, 90)"
    with snapshot(database({"query": query})) as tables:
        assert [frame.height for frame in tables.batches("t")] == [68, 22]


# --- nothing is written ------------------------------------------------------------------------


def test_a_function_that_writes_is_stopped_by_the_server(
    admin: psycopg.Connection, database: Config, table: Callable[[str], None]
) -> None:
    table("SELECT 1 AS x")
    admin.execute(
        "CREATE OR REPLACE FUNCTION analytics.grow() RETURNS int LANGUAGE sql SECURITY DEFINER "
        "AS 'INSERT INTO analytics.t VALUES (2) RETURNING x'"
    )
    said = refusal(database({"query": "SELECT analytics.grow() AS x"}))
    assert "tries to change data, and this transaction may only read (SQLSTATE 25006)" in said
    assert admin.execute("SELECT count(*) FROM analytics.t").fetchone() == (1,)
    # It is the transaction that stops it: the role itself may call the function.
    admin.execute("SET ROLE reader")
    assert admin.execute("SELECT analytics.grow()").fetchone() == (2,)
    admin.execute("RESET ROLE")


def test_a_query_cannot_make_its_transaction_write(database: Config) -> None:
    query = "SELECT set_config('transaction_read_only', 'off', true) AS x"
    assert "SQLSTATE 25001" in refusal(database({"query": query}))


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM analytics.t",
        "SELECT 1; DROP TABLE analytics.t",
        "SELECTED",
        "EXPLAIN SELECT 1",
        "COPY analytics.t TO PROGRAM 'true'",
        "",
    ],
)
def test_a_query_that_is_no_single_select_is_refused(database: Config, query: str) -> None:
    with pytest.raises(ManifestError, match=r"t in \[sources.postgresql.tables\].* one SELECT"):
        database({"query": query})


def test_a_query_does_not_get_out_of_its_parentheses(
    database: Config, table: Callable[[str], None]
) -> None:
    table("SELECT 1 AS x")
    query = "SELECT 1) AS t) TO PROGRAM 'true' --"
    assert "not valid SQL (SQLSTATE 42601)" in refusal(database({"query": query}))


def test_a_superuser_is_refused(
    postgresql: Server, database: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_DATABASE_URL", postgresql.url("admin", postgresql.password))
    monkeypatch.setattr(sys.modules[__name__], "PASSWORD", postgresql.password)
    assert "the role is a superuser" in refusal(database())


# --- what goes wrong ---------------------------------------------------------------------------


def test_a_table_that_is_not_there_is_named(database: Config) -> None:
    said = refusal(database("analytics.PA_Request"))
    assert said.startswith("site.toml, [sources.postgresql.tables] t (analytics.PA_Request): ")
    assert "no such table or view; names are taken as they stand" in said


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT x FROM nowhere", "no such table or view.*42P01"),
        ("SELECT y FROM analytics.t", r"no such column \(SQLSTATE 42703\)"),
        ("SELECT lower(x, x) FROM analytics.t", "does not fit the tables.*42883"),
        ("SELECT x FROM FROM analytics.t", "not valid SQL.*42601"),
        ("SELECT x::int FROM analytics.t", r"a value in the table cannot.*\(SQLSTATE 22P02\)"),
        ("SELECT x, x FROM analytics.t", "more than one column is called x"),
        (
            "SELECT array[array[x]] AS x FROM analytics.t",
            "understood.*more than one dimension",
        ),
    ],
)
def test_a_query_that_fails_is_told_without_the_servers_words(
    database: Config, table: Callable[[str], None], query: str, reason: str
) -> None:
    table(f"SELECT '{PLANTED}' AS x")
    said = refusal(database({"query": query}))
    assert re.search(r"^site.toml, .* t \(query\): .*" + reason, said)


def test_a_missing_permission_comes_with_the_grant_that_mends_it(
    admin: psycopg.Connection, database: Config
) -> None:
    admin.execute('CREATE SCHEMA "Closed"')
    admin.execute('CREATE TABLE "Closed"."T" AS SELECT 1 AS x')
    said = refusal(database("Closed.T"))
    assert "permission denied" in said
    grants = re.search(r"run (GRANT .*) \(SQLSTATE 42501\)$", said)
    assert grants
    admin.execute(grants[1])
    assert read(database("Closed.T")).rows() == [(1,)]


def test_a_query_without_permission_names_the_role(
    database: Config, table: Callable[[str], None], admin: psycopg.Connection
) -> None:
    table("SELECT 1 AS x")
    admin.execute("REVOKE SELECT ON analytics.t FROM reader")
    said = refusal(database({"query": "SELECT x FROM analytics.t"}))
    assert 'the role "reader" lacks a permission that the query needs' in said


def test_a_table_that_takes_too_long_is_given_up(database: Config) -> None:
    said = refusal(database({"query": "SELECT pg_sleep(30)::text AS x"}, timeout_seconds=1))
    assert "took longer than 1 s; raise timeout_seconds" in said


def test_a_server_that_ends_in_the_middle_is_told_and_not_taken_for_the_end() -> None:
    with server() as mortal, pytest.MonkeyPatch.context() as patch:
        with mortal.admin() as admin:
            admin.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
        patch.setenv("MORTAL", mortal.url("reader", PASSWORD))
        query = {"query": "SELECT generate_series(1, 5000000) AS x"}
        config = Database.parse({"url_env": "MORTAL", "tables": {"t": query}}, FILE)
        with snapshot(config) as tables:
            batches = tables.batches("t")
            assert next(batches).height == 100_000
            mortal.process.send_signal(signal.SIGQUIT)  # ends all connections at once
            with pytest.raises(ReaderError, match=r"t \(query\): the connection was lost"):
                list(batches)


def test_a_connection_that_is_ended_in_the_middle_is_told(
    admin: psycopg.Connection, database: Config
) -> None:
    with snapshot(database({"query": "SELECT generate_series(1, 5000000) AS x"})) as tables:
        batches = tables.batches("t")
        next(batches)
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'groundtruth'"
        )
        with pytest.raises(ReaderError, match=r"t \(query\): the connection was lost"):
            list(batches)


def test_a_reading_that_was_left_ends_the_snapshot(database: Config) -> None:
    with snapshot(database({"query": "SELECT generate_series(1, 500000) AS x"})) as tables:
        batches = tables.batches("t")
        next(batches)
        batches.close()
        with pytest.raises(ReaderError, match="was left before its end"):
            tables.columns("t")


def test_a_reading_may_still_be_open_when_the_snapshot_ends(database: Config) -> None:
    with snapshot(database({"query": "SELECT generate_series(1, 500000) AS x"})) as tables:
        batches = tables.batches("t")
        next(batches)
    batches.close()


def test_text_that_is_not_utf8_is_told(postgresql: Server) -> None:
    with postgresql.admin() as admin:
        admin.execute("CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    with postgresql.admin("bytes") as admin:
        admin.execute("CREATE VIEW t AS SELECT convert_from('\\xe9', 'SQL_ASCII') AS x")
        admin.execute("GRANT SELECT ON t TO reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTES", postgresql.url("reader", PASSWORD, "bytes"))
        said = refusal(Database.parse({"url_env": "BYTES", "tables": {"t": "t"}}, FILE))
    assert "text that is not UTF-8, in a database of encoding SQL_ASCII" in said


# --- how it connects ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://reader:Zaphod9Secret-no@127.0.0.1:{port}/postgres", "authentication failed"),
        ("postgresql://nobody:Zaphod9Secret@127.0.0.1:{port}/postgres", "authentication failed"),
        ("postgresql://reader@127.0.0.1:{port}/postgres", "asks for a password"),
        ("postgresql://reader:Zaphod9Secret@127.0.0.1:{port}/nowhere", "no such database"),
        ("postgresql://reader:Zaphod9Secret@127.0.0.1:1/postgres", "nothing listens there"),
        ("postgresql://reader:Zaphod9Secret@no.such.invalid/postgres", "no host of this name"),
        ("host=/nowhere user=reader password=Zaphod9Secret", "nothing listens on this socket"),
        ("host=127.0.0.1 port={port} user=reader password=Zaphod9Secret sslmode=require", "no enc"),
    ],
)
def test_why_nobody_can_connect_is_told_with_host_and_port(
    postgresql: Server, database: Config, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", os.devnull)
    monkeypatch.setenv("SITE_DATABASE_URL", url.format(port=postgresql.port))
    said = refusal(database())
    where = r"cannot connect to \$SITE_DATABASE_URL \(host [\w./]+, port \d+\): "
    assert re.search(where + ".*" + reason, said)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("Zaphod9Secret", "holds no URL"),
        ("postgresql://reader:%Zaphod9Secret@127.0.0.1/postgres", "holds no URL"),
        # A bare @ or / ends a password early, and its rest looks like host, port or database.
        ("postgresql://reader:x@Zaphod9Secret@127.0.0.1:1/postgres", "cannot connect"),
        ("postgresql://reader:12/Zaphod9Secret@127.0.0.1:1/postgres", "cannot connect"),
        ("", r"\$SITE_DATABASE_URL is not set"),
    ],
)
def test_a_url_that_is_broken_is_not_repeated(
    database: Config, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    monkeypatch.setenv("SITE_DATABASE_URL", url)
    said = refusal(database())
    assert re.search(reason, said)
    assert "(host" not in said


def test_a_service_keeps_the_login_out_of_the_site_file(
    postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "pg_service.conf"
    services.write_text(
        f"[here]\nhost=127.0.0.1\nport={postgresql.port}\nuser=reader\ndbname=postgres\n"
        f"password={PASSWORD}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    tables = {"t": {"query": "SELECT current_setting('application_name') AS x"}}
    assert read(Database.parse({"service": "here", "tables": tables}, FILE)).rows() == [
        ("groundtruth",)
    ]
    said = refusal(Database.parse({"service": "gone", "tables": tables}, FILE))
    assert "cannot connect to service gone: pg_service.conf has no such service" in said


def test_a_connection_that_others_could_listen_to_is_refused(
    postgresql: Server, database: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    # libpq takes the address from hostaddr, so the name is that of a server elsewhere.
    monkeypatch.setenv(
        "SITE_DATABASE_URL",
        f"host=db.example.org hostaddr=127.0.0.1 port={postgresql.port} user=reader "
        f"dbname=postgres password={PASSWORD}",
    )
    assert "the connection to host db.example.org is not encrypted" in refusal(database())


def test_without_the_driver_people_learn_what_to_install(
    database: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert r"pip install 'shared-ground-truth[postgresql]'" in refusal(database())


# --- what a site writes ------------------------------------------------------------------------


def test_a_section_is_read_as_it_is_written() -> None:
    query = {"query": "SELECT 1"}
    section = {"service": "groundtruth", "tables": {"a": "x", "b": "s.x", "c": query}}
    database = Database.parse(section, FILE)
    assert (database.service, database.url_env, database.timeout_seconds) == (
        *("groundtruth", ""),
        3600,
    )
    assert [relation.sql for relation in database.tables.values()] == [
        *('"x"', '"s"."x"'),
        "(SELECT 1\n) AS contract",
    ]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"password": PASSWORD}, "unknown key 'password'.*pg_service.conf and .pgpass"),
        ({"url": f"postgresql://reader:{PASSWORD}@h/db"}, "unknown key 'url'"),
        ({"url_env": f"postgresql://reader:{PASSWORD}@h/db"}, "url_env .* must be the name"),
        ({"service": f"x password={PASSWORD}"}, "service .* must be the name"),
        ({"service": ""}, "service .* must be the name"),
        ({"service": "here"}, "either service or url_env"),
        ({"timeout_second": 5}, "did you mean 'timeout_seconds'"),
        ({"timeout_seconds": 0}, "whole number, from 1"),
        ({"timeout_seconds": True}, "whole number, from 1"),
        ({"timeout_seconds": 1.5}, "whole number, from 1"),
        ({"timeout_seconds": 604_801}, "whole number, from 1 to 604800"),
        ({"tables": {}}, "at least one contract table"),
        ({"tables": "t"}, "at least one contract table"),
        ({"tables": {"t": 5}}, 't in .* must be "table"'),
        ({"tables": {"t": ""}}, 't in .* must be "table"'),
        ({"tables": {"t": "a..b"}}, 't in .* must be "table"'),
        ({"tables": {"t": "a.b.c"}}, 't in .* must be "table"'),
        ({"tables": {"t": {"query": "SELECT 1", "limit": 5}}}, 't in .* must be "table"'),
        ({"tables": {"t": {"query": 5}}}, 't in .* must be "table"'),
    ],
)
def test_what_is_wrong_in_a_section_is_named_and_not_repeated(
    keys: dict[str, object], reason: str
) -> None:
    section = {"url_env": "SITE_DATABASE_URL", "tables": {"t": "t"}} | keys
    with pytest.raises(ManifestError, match=r"^site.toml: .*" + reason) as caught:
        Database.parse(section, FILE)
    assert PASSWORD not in str(caught.value)


def test_a_section_that_names_no_database_is_refused() -> None:
    with pytest.raises(ManifestError, match="either service or url_env"):
        Database.parse({"tables": {"t": "t"}}, FILE)
