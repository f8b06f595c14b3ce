"""How fast an OMOP extract becomes rows of `clinical_outcome`, and in how much memory.

Run with `python -m experiments.benchmarks.omop_throughput [PATIENTS] [KIND]`. The extract is made
up, as CSV or Parquet files: a patient has 8 visits on average (a tenth of them stays) in six years,
20 laboratory values, each visit a condition and a cost. It is read in a process of its own, and
memory is what no file on disk backs.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.events import private_folder
from data_contracts.readers.findings import Findings
from data_contracts.readers.omop.reading import omop_outcomes
from data_contracts.sources import Source
from experiments.benchmarks.memory import anonymous_memory

VISITS, MEASUREMENTS = 8, 20
DAYS: Final = 6 * 365


def main(patients: str = "200000", kind: str = "csv") -> None:
    """Write the extract, read it in a process of its own, and print rows per second and memory."""
    with tempfile.TemporaryDirectory() as folder:
        for command in (("write", folder, patients, kind), ("read", folder)):
            subprocess.run((sys.executable, "-m", __spec__.name, *command), check=True)  # noqa: S603 - ourselves


def write(folder: Path, patients: int, kind: str) -> None:
    """Write the tables of an extract of so many patients."""
    draw = np.random.default_rng(11)
    extract = folder / "omop"
    extract.mkdir()
    persons = np.arange(1, patients + 1)
    visits = np.arange(1, VISITS * patients + 1)
    measurements = MEASUREMENTS * patients
    start = np.datetime64("2018-01-01") + draw.integers(0, DAYS, len(visits))
    stay = draw.random(len(visits)) < 0.1
    concept = np.where(stay, 9201, draw.choice((9202, 9203), len(visits), p=(0.9, 0.1)))
    tables: dict[str, dict[str, Any]] = {
        "person": {
            "person_id": persons,
            "person_source_value": [f"MRN{number:09}" for number in persons],
            "year_of_birth": draw.integers(1930, 2015, patients),
            "gender_concept_id": draw.choice((8507, 8532), patients),
            "race_concept_id": draw.choice((8527, 8516, 0), patients),
            "ethnicity_concept_id": draw.choice((38003563, 38003564), patients),
        },
        "visit_occurrence": {
            "visit_occurrence_id": visits,
            "person_id": draw.choice(persons, len(visits)),
            "visit_concept_id": concept,
            "visit_start_date": start,
            "visit_end_date": start + stay * draw.integers(1, 10, len(visits)),
        },
        "measurement": {
            "person_id": draw.choice(persons, measurements),
            "measurement_concept_id": draw.choice((3004410, 3004249), measurements),
            "measurement_source_value": np.full(measurements, "local code"),
            "measurement_date": np.datetime64("2018-01-01") + draw.integers(0, DAYS, measurements),
            "value_as_number": np.round(draw.normal(100, 20, measurements), 1),
            "unit_concept_id": draw.choice((8554, 8876), measurements),
        },
        "condition_occurrence": {
            "visit_occurrence_id": visits,
            "condition_source_value": draw.choice(
                ("Z51.11", "I50.9", "E11.9"), len(visits), p=(0.03, 0.37, 0.6)
            ),
        },
        "cost": {
            "cost_id": visits,
            "cost_event_id": visits,
            "cost_domain_id": np.full(len(visits), "Visit"),
            "currency_concept_id": np.full(len(visits), 44818668),
            "total_paid": np.round(draw.gamma(1, 900, len(visits)), 2),
        },
        "observation_period": {
            "person_id": persons,
            "observation_period_start_date": np.full(patients, "2018-01-01"),
            "observation_period_end_date": np.full(patients, "2024-01-01"),
        },
        "death": {
            "person_id": persons[::50],
            "death_date": np.full(len(persons[::50]), "2024-01-01"),
        },
        "cdm_source": {"cdm_version": ["v5.4"]},
    }
    for name, columns in tables.items():
        frame = pl.DataFrame(columns)
        if kind == "csv":
            frame.write_csv(extract / f"{name}.csv")
        else:
            frame.write_parquet(extract / f"{name}.parquet")


def read(folder: Path) -> None:
    """Read the extract batch by batch, and print how fast."""
    wall, cpu = time.perf_counter(), time.process_time()
    with private_folder(folder) as private, anonymous_memory() as samples:
        rows = omop_outcomes(folder / "omop", Tokens(bytes(32)), "site-1", Findings(), private)
        count = sum(batch.height for batch in Source.told("extract", *rows).batches())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = sum(file.stat().st_size for file in (folder / "omop").iterdir()) / 1e6
    sys.stdout.write(
        f"{count:,} rows from {size:.0f} MB in {wall:.1f} s ({cpu / wall:.1f} cores), anonymous "
        f"memory at most {max(samples):.0f} MB, {samples[0]:.0f} MB before\n"
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder, patients, kind]:
            write(Path(folder), int(patients), kind)
        case ["read", folder]:
            read(Path(folder))
        case arguments:
            main(*arguments)
