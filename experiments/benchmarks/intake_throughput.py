"""How fast flat files pass the gate and their contract: rows per second, and the memory it takes.

Run with `python -m experiments.benchmarks.intake_throughput [ROWS]`. Rows are those of a synthetic
payer, again and again under new tokens. Every table is read in a process of its own, as CSV and as
Parquet, once batch by batch (as a check that keeps nothing) and once into memory (as for training).
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from data_contracts.catalog import CONTRACTS
from data_contracts.conform import EMPTY_LIST, LIST_SEPARATOR
from data_contracts.intake import RowCounts, read_table, valid_batches
from data_contracts.manifest import SiteManifest
from data_contracts.readers.findings import Findings
from data_contracts.sources import opened
from data_contracts.synthetic.generate import generate
from experiments.benchmarks.memory import anonymous_memory

REQUESTS = 50_000
TABLES = ("pa_request", "pa_decision", "claim_payment", "clinical_outcome")


def main(rows: str = "1000000") -> None:
    """Write the files, read each of them, and print rows per second and peak RSS."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(
            folder / "network",
            preset="seed_manual",
            n_requests=REQUESTS,
            n_payers=1,
            n_providers=1,
            seed=11,
        )
        for table in TABLES:
            _write(folder, table, int(rows))
            for suffix in (".parquet", ".csv"):
                for how in ("batches", "memory"):
                    command = (
                        sys.executable,
                        "-m",
                        __spec__.name,
                        str(folder / table) + suffix,
                        how,
                    )
                    subprocess.run(command, check=True)  # noqa: S603 - ourselves


def _write(folder: Path, table: str, rows: int) -> None:
    """`folder/table.parquet` and `.csv` with so many rows, no token of a request twice."""
    once = pl.read_parquet(folder / f"network/sites/payer-1/{table}/*.parquet")
    tokens = [name for name in once.columns if name in ("request_token", "claim_token")]
    frame = pl.concat(
        once.with_columns(pl.col(tokens).str.head(-6) + f"{copy:06x}")
        for copy in range(-(-rows // once.height))
    ).head(rows)
    frame.write_parquet(folder / f"{table}.parquet")
    lists = pl.selectors.by_dtype(pl.List(pl.String))
    joined = pl.when(lists.list.len() == 0).then(pl.lit(EMPTY_LIST))
    structs = [name for name, kind in frame.schema.items() if kind.is_nested()]
    text = frame.with_columns(joined.otherwise(lists.list.join(LIST_SEPARATOR)).name.keep())
    nested = [name for name in structs if text.schema[name].is_nested()]
    text.drop(nested).write_csv(folder / f"{table}.csv")


def measure(file: Path, how: str) -> None:
    """Read one file, and print how fast."""
    table = file.stem
    manifest = SiteManifest("payer-1", "payer", {table: file}, origin="synthetic")
    wall, cpu = time.perf_counter(), time.process_time()
    with anonymous_memory() as samples, opened(manifest, Findings()) as sources:
        if how == "memory":
            valid = read_table(table, sources, manifest).rows.height
        else:
            contract = CONTRACTS[table]
            batches = valid_batches(contract, sources.of(table), manifest, RowCounts())
            valid = sum(batch.height for batch in batches)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sys.stdout.write(
        f"{file.name:24} {how:8} {valid:,} rows, {file.stat().st_size / 1e6:.0f} MB: "
        f"{valid / wall / 1e6:.2f} M rows/s ({cpu / wall:.1f} cores), anonymous memory at most "
        f"{max(samples):.0f} MB\n"
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(Path(sys.argv[1]), sys.argv[2])
    else:
        main(*sys.argv[1:])
