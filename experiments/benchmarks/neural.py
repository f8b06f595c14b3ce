"""The neural family against the additive one, with and without noise, and full against sampled.

Run with `python -m experiments.benchmarks.neural [SEEDS] [FOLDER]`, where FOLDER holds the files of
the UCI Diabetes-130 data. Noise is drawn as a secure sum would have it: the sum over all sites
carries that of one central Gaussian mechanism. Three data sets:

    approved     prior authorizations of a synthetic network: effects add up
    pairs        the same requests with labels made of pairs of features: effects do not add up
    readmission  30-day readmissions of the UCI data
"""

import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.features import Grid, LevelGrid, NumberGrid, grid_of
from data_contracts.manifest import SiteManifest
from data_contracts.network import site_folders
from data_contracts.public.registry import PUBLIC
from data_contracts.synthetic.generate import generate
from experiments.baselines import fit_boosting
from experiments.evaluation import metrics
from experiments.federation_data import check_sites
from experiments.progress import Reporter
from federation.plan import RunPlan
from federation.settings import PrivacySettings
from models.additive_training import AdditiveSettings, train
from models.keystream import keystream
from models.neural_queries import PatientGradientQuery
from models.neural_training import NeuralSettings, train_neural
from models.patients import PatientRows
from models.queries import sigmoid
from models.tasks import TASKS
from models.tasks.task import TaskRows, assemble
from models.training import NoisySum, Training

Vector = NDArray[np.float64]

REQUESTS, MAX_RECORDS = 60_000, 4
EPSILONS = (1.0, 3.0)
NEURAL = NeuralSettings()
# Without noise nothing keeps a network from learning single patients but smaller steps and decay.
WITHOUT_NOISE = replace(NEURAL, learning_rate=0.01, weight_decay=1.0, gradient_rounds=60)


class Data(NamedTuple):
    """All trainers' rows of a task; a patient at two sites counts once at each."""

    names: list[str]
    grids: list[Grid]
    train: PatientRows
    test: TaskRows


def main(seeds: str = "1", folder: str = "") -> None:
    """Print AUROC and calibration of every model on every data set, seed by seed."""
    for seed in range(7, 7 + int(seeds)):
        with tempfile.TemporaryDirectory() as scratch:
            network = Path(scratch) / "network"
            generate(network, preset="seed_manual", n_requests=REQUESTS, seed=seed)
            approved = _data("approved", network, seed)
        _compare("approved", approved, seed)
        _compare("pairs", _pairs(approved, seed), seed)
        _compare_sampling(approved, seed)
        if folder:
            with tempfile.TemporaryDirectory() as scratch:
                network = Path(scratch) / "network"
                PUBLIC["uci-diabetes-130"].build(Path(folder), network, seed=seed)
                _compare("readmission", _data("readmission_30d", network, seed), seed)


def _data(task: str, network: Path, seed: int) -> Data:
    manifests = [SiteManifest.load(folder) for folder in site_folders(network)]
    roster = {
        role + "s": tuple(own.group or own.name for own in manifests if own.role == role)
        for role in ("payer", "provider")
    }
    features = TASKS[task].resolve({**roster, "sites": [own.name for own in manifests]})
    rows, tokens = [], []
    for site in check_sites(network, Reporter(quiet=True)):
        if site.manifest.role == TASKS[task].train_at:
            rows.append(assemble(TASKS[task], site.tables, features, site=site.manifest.name))
            tokens.append(rows[-1].patient_tokens + site.manifest.name)
    whole = TaskRows(
        pl.concat(tokens),
        pl.concat(own.row_tokens for own in rows),
        np.concatenate([own.codes for own in rows]),
        np.concatenate([own.labels for own in rows]),
    )
    training, test = whole.split(key=f"benchmark {seed}", test_share=0.25)
    grids = [grid_of(feature) for feature in features]
    names = [feature.name for feature in features]
    return Data(names, grids, training.by_patient(max_records=MAX_RECORDS), test)


def _pairs(data: Data, seed: int) -> Data:
    """The same rows with labels in which nothing adds up.

    Every pair of levels of five categories has a random effect, and a number's slope has the sign
    of a category.
    """
    rng = np.random.default_rng(seed)
    levels = [
        feature
        for feature, grid in enumerate(data.grids)
        if isinstance(grid, LevelGrid) and 4 <= grid.n_codes <= 16
    ][:5]
    number = next(n for n, grid in enumerate(data.grids) if isinstance(grid, NumberGrid))
    effects = {
        (one, other): rng.normal(0.0, 0.45, (data.grids[one].n_codes, data.grids[other].n_codes))
        for one in levels
        for other in levels
        if one < other
    }
    middle, spread = data.train.codes[:, number].mean(), data.train.codes[:, number].std()

    def labels(codes: NDArray[np.uint8]) -> Vector:
        slope = np.where(codes[:, levels[0]] % 2 == 0, 0.5, -0.5)
        score = slope * (codes[:, number] - middle) / spread
        for (one, other), effect in effects.items():
            score = score + effect[codes[:, one], codes[:, other]]
        return np.asarray(rng.random(len(codes)) < sigmoid(score), dtype=np.float64)

    return data._replace(
        train=replace(data.train, labels=labels(data.train.codes)),
        test=replace(data.test, labels=labels(data.test.codes)),
    )


def _compare(name: str, data: Data, seed: int) -> None:
    _say(f"{name}, seed {seed}: {data.train.n_patients} patients, {data.train.n_rows} records")
    boosting = fit_boosting(data.grids, data.train.codes, data.train.labels, data.test.codes)
    _report("pooled boosting", data, boosting)
    for epsilon in (None, *EPSILONS):
        words = "without noise" if epsilon is None else f"epsilon {epsilon:g}"
        additive = train(data.names, data.grids, AdditiveSettings(), max_records=MAX_RECORDS)
        trained, _ = _drive(additive, data.train, _plan(epsilon), seed)
        _report(f"additive {words}", data, trained.model.probability(data.test.codes))
        _neural(words, data, epsilon, NEURAL if epsilon else WITHOUT_NOISE, seed)


def _compare_sampling(data: Data, seed: int) -> None:
    """Fewer patients a round at the same epsilon, by Renyi divergence where they are sampled."""
    for rate in (0.5, 0.2):
        settings = replace(NEURAL, sample_rate=rate)
        for epsilon in EPSILONS:
            _neural(f"epsilon {epsilon:g}, {rate:.0%} of patients", data, epsilon, settings, seed)


def _neural(
    words: str, data: Data, epsilon: float | None, settings: NeuralSettings, seed: int
) -> None:
    training = train_neural(data.names, data.grids, settings, max_records=MAX_RECORDS)
    plan = _plan(epsilon, family="neural", neural=settings)
    start = time.process_time()
    trained, largest = _drive(training, data.train, plan, seed)
    seconds = time.process_time() - start
    note = f"{trained.model.n_parameters} parameters, {seconds:.0f} s"
    if largest:
        note += f", signal {largest:.2f} of noise"
    _report(f"neural {words}", data, trained.model.probability(data.test.codes), note)


def _plan(epsilon: float | None, **family: Any) -> RunPlan:
    """Prices the releases; one site, so that all the noise is in its answer."""
    return RunPlan(
        task="approved",
        payers=("payer",),
        providers=("all",),
        sites=("all",),
        privacy=PrivacySettings(epsilon=epsilon, max_records_per_patient=MAX_RECORDS),
        split_key="benchmark",
        test_share=0.25,
        contracts=TASKS["approved"].contracts,
        **family,
    )


def _drive(training: Training, rows: PatientRows, plan: RunPlan, seed: int) -> tuple[Any, float]:
    """What a training returns, and the mean length of a gradient without noise over its noise's."""
    rng = np.random.default_rng(seed)
    query, ratios, number = next(training), [], 0
    while True:
        number += 1
        own = rows
        if (rate := plan.sample_rate_of(query.step)) < 1:
            own = rows.sampled(rate, keystream(number.to_bytes(32, "big"), rows.n_patients))
        exact = query.answer(own)
        std = 0.0
        if mu := plan.mu_of(query.step):
            std = query.sensitivity / mu
            if isinstance(query, PatientGradientQuery):
                ratios.append(float(np.linalg.norm(exact)) / (std * math.sqrt(exact.size)))
        try:
            query = training.send(NoisySum(exact + std * rng.standard_normal(exact.size), std))
        except StopIteration as done:
            return done.value, float(np.mean(ratios)) if ratios else 0.0


def _report(model: str, data: Data, probabilities: Vector, note: str = "") -> None:
    found = metrics(data.test.labels, probabilities)
    shift = float(probabilities.mean() - data.test.labels.mean())
    _say(
        f"  {model:38} AUROC {found['auroc']:.4f}, slope {found['calibration_slope']:.2f}, "
        f"mean {shift:+.4f}  {note}"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
