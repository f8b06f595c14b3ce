"""What noise costs an additive model by kappa and knots: the table of `models.resolution`.

Run with `python -m experiments.benchmarks.resolution [TASK] [DRAWS]` (tasks of synthetic networks).
Noise is drawn as a secure sum would have it, so mu is that of the sum.
"""

import math
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.features import Grid, grid_of
from data_contracts.synthetic.generate import generate
from experiments.evaluation import auroc
from experiments.federation_data import check_sites
from experiments.progress import Reporter
from federation.settings import PrivacySettings
from models.accounting import gdp_mu
from models.additive_training import AdditiveSettings, train
from models.families import EVALUATION
from models.patients import PatientRows
from models.queries import Query
from models.resolution import kappa, most_columns
from models.tasks import TASKS
from models.tasks.task import TaskRows, assemble
from models.training import NoisySum, drive

REQUESTS, HELD_OUT = 240_000, 0.25
PATIENTS = (1000, 2000, 4000, 8000, 16_000, 32_000)
KNOTS = (2, 4, 8)


class Pool(NamedTuple):
    """All providers' rows of a task; a patient at two providers counts twice."""

    names: list[str]
    grids: list[Grid]
    train: TaskRows
    test: TaskRows


def main(task: str = "approved", draws: str = "3") -> None:
    """Print kappa, and the AUROC without noise and what noise takes from it, for each size."""
    pool = _pool(task)
    rng = np.random.default_rng(1)
    for epsilon in (1.0, 3.0):
        for size in PATIENTS:
            for knots in KNOTS:
                found = [_losses(pool, size, knots, epsilon, rng) for _ in range(int(draws))]
                mean = np.mean([loss for _, loss in found])
                plain = np.mean([area for area, _ in found])
                columns = most_columns(pool.grids, knots)
                at = kappa(columns, gdp_mu(epsilon, 1e-5), size)
                sys.stdout.write(
                    f"{task} epsilon {epsilon:g}, {size:6} patients, {knots} knots: "
                    f"kappa {at:.4f}, AUROC {plain:.4f} without noise, {mean:.4f} less with\n"
                )


def _pool(task: str) -> Pool:
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "network"
        generate(network, preset="seed_manual", n_requests=REQUESTS, seed=101)
        sites = check_sites(network, Reporter(quiet=True))
    names = {
        role: tuple(site.manifest.name for site in sites if site.manifest.role == role)
        for role in ("payer", "provider")
    }
    roster = {"payers": names["payer"], "providers": names["provider"], "sites": names["provider"]}
    features = TASKS[task].resolve(roster)
    rows = [
        assemble(TASKS[task], site.tables, features, site=site.manifest.name)
        for site in sites
        if site.manifest.role == "provider"
    ]
    train_rows, test_rows = TaskRows(
        pl.concat(
            own.patient_tokens + name for own, name in zip(rows, names["provider"], strict=True)
        ),
        pl.concat(own.row_tokens for own in rows),
        np.concatenate([own.codes for own in rows]),
        np.concatenate([own.labels for own in rows]),
    ).split(key="resolution", test_share=HELD_OUT)
    grids = [grid_of(feature) for feature in features]
    return Pool([feature.name for feature in features], grids, train_rows, test_rows)


def _losses(
    pool: Pool, size: int, knots: int, epsilon: float, rng: np.random.Generator
) -> tuple[float, float]:
    """AUROC without noise, and what noise takes from it, on as many patients drawn anew."""
    tokens = pool.train.patient_tokens.unique(maintain_order=True)
    drawn = tokens.gather(rng.choice(len(tokens), size, replace=False))
    chosen = pool.train.patient_tokens.is_in(drawn.implode()).to_numpy()
    rows = pool.train.where(chosen).by_patient(max_records=4)
    plain = _area(pool, rows, knots, None, rng)
    return plain, plain - _area(pool, rows, knots, gdp_mu(epsilon, 1e-5), rng)


def _area(
    pool: Pool, rows: PatientRows, knots: int, mu: float | None, rng: np.random.Generator
) -> float:
    settings = AdditiveSettings(max_knots=knots)
    shares = {**PrivacySettings().shares, EVALUATION: 1.0}

    def answer(query: Query) -> NoisySum:
        exact: NDArray[np.float64] = query.answer(rows)
        if mu is None:
            return NoisySum(exact, 0.0)
        rounds = settings.gradient_rounds if query.step == "gradient" else 1
        std = query.sensitivity / (mu * math.sqrt(shares[query.step] / rounds))
        return NoisySum(exact + std * rng.standard_normal(exact.size), std)

    model = drive(train(pool.names, pool.grids, settings, max_records=4), answer).model
    return auroc(pool.test.labels, model.probability(pool.test.codes)) or 0.5


if __name__ == "__main__":
    main(*sys.argv[1:])
