"""How fast a large table comes out of PostgreSQL, and how much memory that takes.

Run with `python -m experiments.benchmarks.postgresql_throughput [ROWS]`. A server is started for
the benchmark, on this machine; the table has 22 columns like those of requests and payments. The
cursor is what the reader would be without COPY: rows of Python objects.
"""

import os
import resource
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import psycopg

from data_contracts.readers.database import Database
from data_contracts.readers.postgresql import snapshot
from experiments.benchmarks.postgresql_server import server

_ROLE, _PASSWORD, _URL_ENV = "reader", "of-a-server-that-ends-with-this-run", "BENCHMARK_URL"
_BATCH = 100_000

_TABLE = """
CREATE TABLE requests AS SELECT
    md5(i::text) AS request_token, (i % 5)::int2 AS item_sequence,
    md5((i / 3)::text) AS patient_token, 'payer-' || i % 5 AS payer_id,
    'provider-' || i % 9 AS provider_group_id, (ARRAY['MA', 'COMM', 'CHIP'])[1 + i % 3] AS line,
    'medical' AS request_type, 'I' AS certification_type,
    CASE WHEN i % 2 = 0 THEN 'E' END AS level_of_service, 'G0' || 100 + i % 800 AS procedure_code,
    NULL::text AS ndc, CASE WHEN i % 4 = 0 THEN ARRAY['AA', 'BB'] END AS modifier,
    'E11.9' AS dx_principal, ARRAY['I10', 'E78.5', 'N18.3'] AS dx_other,
    random() * 3 AS risk_score, (random() * 100)::numeric(10, 2) AS quantity,
    (i % 20)::int2 AS attachments_n, i % 2 = 0 AS eligibility_verified, 2024::int2 AS service_year,
    (i % 365)::int4 AS request_day, (random() * 1000)::numeric(12, 2) AS submitted,
    (random() * 1000)::numeric(12, 2) AS paid_to_provider
FROM generate_series(1, %s) AS i
"""


def main(rows: str = "1000000") -> None:
    """Print seconds, rows a second and this process's peak memory, of the reader and a cursor."""
    with server() as running:
        with running.admin() as admin:
            admin.execute(f"CREATE ROLE {_ROLE} LOGIN PASSWORD '{_PASSWORD}'")
            admin.execute(_TABLE.replace("%s", str(int(rows))))
            admin.execute(f"GRANT SELECT ON requests TO {_ROLE}")
        os.environ[_URL_ENV] = running.url(_ROLE, _PASSWORD)
        tables = {"pa_request": "requests"}
        database = Database.parse({"url_env": _URL_ENV, "tables": tables}, Path("site.toml"))
        with snapshot(database) as found:
            _measure("the reader", found.batches("pa_request"))
        with psycopg.connect(os.environ[_URL_ENV]) as connection:
            _measure("a cursor", _fetched(connection))


def _fetched(connection: psycopg.Connection) -> Iterable[pl.DataFrame]:
    with connection.cursor("benchmark") as cursor:
        cursor.execute("SELECT * FROM requests")
        names = [column.name for column in cursor.description or ()]
        while rows := cursor.fetchmany(_BATCH):
            yield pl.DataFrame(rows, schema=names, orient="row")


def _measure(name: str, frames: Iterable[pl.DataFrame]) -> None:
    start, rows = time.perf_counter(), 0
    for frame in frames:
        rows += frame.height
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # of KiB, on Linux
    sys.stdout.write(
        f"{name}: {rows:,} rows in {seconds:.1f} s ({rows / seconds:,.0f} rows/s), "
        f"peak memory of the process {peak:.0f} MiB\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
