"""What an experiment would cost and give, told before any table is read.

Everything follows from the settings, the tasks' public grids and what is declared of the network
(`experiments.forecast.declarations`): no figure here costs privacy.
"""

import math
from dataclasses import dataclass

import numpy as np

from data_contracts.catalog import CONTRACTS
from data_contracts.features import grid_of
from experiments.config import ExperimentConfig
from experiments.forecast.advice import network_warnings, task_warnings
from experiments.forecast.declarations import Declared, declare
from experiments.forecast.releases import (
    Release,
    mechanism_for,
    mu_of_sum,
    releases,
)
from experiments.plans import make_plan, noise_in_words
from federation.plan import RunPlan
from federation.promise import Promise, promise
from federation.settings import ConfigError
from models.families import EVALUATION
from models.precision import histogram_std, sampling_std
from models.queries import Query
from models.resolution import (
    ExpectedLoss,
    Resolution,
    choose_resolution,
    expected_loss,
    resolution_for,
)
from models.score_histogram import EvaluationQuery
from models.tasks.task import assemble

ASSUMED_AUROC = 0.75
ASSUMED_BASE_RATE = 0.1
"""Rarer than the outcomes of most tasks, so that the standard error is rather too large."""


@dataclass(frozen=True, slots=True)
class StandardError:
    """Standard error of the AUROC that a run will tell.

    Attributes:
        sampling: From the choice of held-out patients.
        training_noise: From the noise in the model; None where it has not been measured, as for
            networks.
        evaluation_noise: From the noise in the evaluation.
        total: From all that are known together; they are independent.
    """

    sampling: float
    training_noise: float | None
    evaluation_noise: float
    total: float


@dataclass(frozen=True, slots=True)
class TaskForecast:
    """One task of an experiment.

    Attributes:
        task: Name of the task.
        question: What its model predicts.
        trained_by: Role of the sites that train.
        sites: Sites that are expected.
        dropouts: Sites that may vanish.
        colluders: Sites that may tell the coordinator their noise.
        minimum_sites: Sites below which a round is thrown away.
        secure_sum: Whether the coordinator sees only sums over sites.
        noise: How the noise comes about, in words.
        releases: What is released.
        rounds: Rounds without retries.
        retries: Retries at most.
        exchanges: Exchanges of messages with each site: the rounds and a greeting before.
        bytes_per_site: Bytes that a site sends in all, without retries, at most.
        promise: What is promised, this task alone.
        train_patients: Expected number of training patients.
        held_out_patients: Expected number of held-out patients.
        family: Family of the model.
        parameters: Parameters that gradients are taken of, at most.
        mu_of_sum: Mu of the task's releases by the noise of all sites; it sets kappa.
        resolution: The configured resolution; None without privacy and for other families than
            the additive, as the next two.
        advised: The resolution that kappa calls for.
        expected_loss: What noise takes from the AUROC.
        standard_error: Of the AUROC, at the assumed area and base rate.
        warnings: What to think over, and what to do.
    """

    task: str
    question: str
    trained_by: str
    sites: int
    dropouts: int
    colluders: int
    minimum_sites: int
    secure_sum: bool
    noise: str
    releases: tuple[Release, ...]
    rounds: int
    retries: int
    exchanges: int
    bytes_per_site: int
    promise: Promise
    train_patients: int
    held_out_patients: int
    family: str
    parameters: int
    mu_of_sum: float | None
    resolution: Resolution | None
    advised: Resolution | None
    expected_loss: ExpectedLoss | None
    standard_error: StandardError
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an experiment would cost and give.

    Attributes:
        name: Name of the experiment.
        patients: Expected patients of all sites together.
        basis: Where that number comes from.
        base_rate: Share of the rarer label that standard errors assume.
        auroc: Area under the ROC curve that they assume.
        promise: What is promised to a patient, all tasks together.
        tasks: The tasks.
        warnings: What to think over, whatever the task.
    """

    name: str
    patients: int
    basis: str
    base_rate: float
    auroc: float
    promise: Promise
    tasks: tuple[TaskForecast, ...]
    warnings: tuple[str, ...]


def forecast(
    config: ExperimentConfig, *, patients: int | None = None, base_rate: float | None = None
) -> Forecast:
    """Look ahead at an experiment.

    Args:
        config: Its settings.
        patients: Patients of all sites together, where whoever plans knows better.
        base_rate: Expected share of the rarer label; 0.1 unless given.

    Raises:
        ConfigError: A number is out of range, or nobody knows how many patients there are.
        TaskDataError: The network cannot train a task.
        InfeasiblePlanError: Sums could overflow, or noise would drown everything.
        GroundTruthError: See `declare`.
    """
    if base_rate is not None and not 0 < base_rate <= 0.5:
        raise ConfigError(f"--base-rate is the rarer label's share, up to 0.5, not {base_rate}")
    declared = declare(config.data, patients)
    rate = ASSUMED_BASE_RATE if base_rate is None else base_rate
    plans = [make_plan(config, task, declared.sites) for task in config.tasks]
    return Forecast(
        name=config.name,
        patients=declared.patients,
        basis=declared.basis,
        base_rate=rate,
        auroc=ASSUMED_AUROC,
        promise=promise(plans),
        tasks=tuple(_task(plan, config, declared, rate) for plan in plans),
        warnings=network_warnings(config, declared),
    )


def _task(
    plan: RunPlan, config: ExperimentConfig, declared: Declared, base_rate: float
) -> TaskForecast:
    features = plan.features()
    for manifest in declared.sites:
        # As a run would put them together, so that the same things are missing.
        empty = {
            name: CONTRACTS[name].schema.create_empty()
            for name in manifest.tables
            if name in CONTRACTS
        }
        assemble(plan.the_task, empty, features, site=manifest.name)
    grids = [grid_of(feature) for feature in features]
    largest = plan.largest()
    rounds = {name: step.rounds for name, step in plan.steps.items()}
    train = max(1, round(declared.patients * (1 - plan.test_share)))
    held_out = max(1, declared.patients - train)
    mu = mu_of_sum(plan)
    configured = advised = loss = None
    if mu is not None and plan.family == "additive":
        configured = resolution_for(grids, plan.additive.max_knots, mu, train)
        advised = choose_resolution(grids, mu, train)
        loss = expected_loss(configured.kappa)
    error = _standard_error(plan, largest[EVALUATION], base_rate * held_out, held_out, loss)
    return TaskForecast(
        task=plan.task,
        question=plan.the_task.question,
        trained_by=plan.the_task.train_at,
        sites=len(plan.sites),
        dropouts=plan.dropouts,
        colluders=plan.colluders if plan.secure_sum else 0,
        minimum_sites=plan.minimum_sites,
        secure_sum=plan.secure_sum,
        noise=noise_in_words(plan),
        releases=releases(plan),
        rounds=sum(rounds.values()),
        retries=plan.retries,
        exchanges=sum(rounds.values()) + 1,
        bytes_per_site=8 * sum(rounds[step] * query.n_values for step, query in largest.items()),
        promise=promise([plan]),
        train_patients=train,
        held_out_patients=held_out,
        family=plan.family,
        parameters=largest["gradient"].n_values,
        mu_of_sum=mu,
        resolution=configured,
        advised=advised,
        expected_loss=loss,
        standard_error=error,
        warnings=task_warnings(
            plan,
            config,
            declared,
            configured=configured,
            advised=advised,
            standard_error=error.total,
        ),
    )


def _standard_error(
    plan: RunPlan, query: Query, positives: float, held_out: int, loss: ExpectedLoss | None
) -> StandardError:
    """Standard error of the AUROC; every patient is taken to have one record."""
    negatives = held_out - positives
    sampling = sampling_std(ASSUMED_AUROC, positives, negatives)
    if plan.mu is None or not isinstance(query, EvaluationQuery):
        return StandardError(sampling, 0.0, 0.0, sampling)
    training = loss.noise_std if loss else None
    std = mechanism_for(plan, query).noise_std(len(plan.sites))
    counts = query.unpack(np.zeros(query.n_values), std).overall
    evaluation = histogram_std(
        ASSUMED_AUROC, positives, negatives, noise_std=counts.noise_std, bins=counts.bins.n_bins
    )
    return StandardError(
        sampling, training, evaluation, math.hypot(sampling, training or 0.0, evaluation)
    )
