"""What a site computes and releases. Nothing else in the product sees a site's rows."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_contracts.errors import GroundTruthError
from data_contracts.features import grid_of
from data_contracts.intake import read_tables
from data_contracts.manifest import SiteManifest
from federation.messages import MAX_VALUES, Answer, MessageError
from federation.plan import RunPlan
from models.accounting import gdp_mu
from models.mechanisms import NoiseSource, SeededNoise, SystemNoise, release
from models.patients import PatientRows
from models.queries import Query
from models.tasks.task import assemble

logger = logging.getLogger("groundtruth.site")
"""The site's own log."""


_POLICY_DELTA = 1e-5


class SitePolicyError(GroundTruthError):
    """The site refuses what a run asks of it."""


class SiteError(GroundTruthError):
    """A site could not answer, for a reason that it keeps to itself."""


def training_rows(manifest_file: Path, plan: RunPlan) -> PatientRows:
    """The rows on which a site trains, read once per process as long as no file changes.

    Raises:
        GroundTruthError: The tables cannot be read, break their contract, or hold too few
            patients.
    """
    manifest = SiteManifest.load(manifest_file)
    files = [manifest_file]
    for path in manifest.tables.values():
        files += [path, *sorted(path.glob("*.parquet"))] if path.is_dir() else [path]
    states = tuple(
        (file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists()
    )
    return _training_rows(manifest_file, plan.to_json(), states)


@lru_cache(maxsize=256)
def _training_rows(
    manifest_file: Path, plan_json: str, _states: tuple[tuple[int, int], ...]
) -> PatientRows:
    plan = RunPlan.from_json(plan_json)
    manifest = SiteManifest.load(manifest_file)
    tables = read_tables(manifest, only=plan.the_task.tables)
    valid = {name: table.rows for name, table in tables.items()}
    rows = assemble(plan.the_task, valid, plan.features(), site=manifest.name)
    train, _ = rows.split(key=plan.split_key, test_share=plan.test_share)
    return train.by_patient(max_records=plan.privacy.max_records_per_patient)


def answer(manifest_file: Path, plan: RunPlan, query: Query, round_number: int) -> Answer:
    """A site's answer to one query: a sum over its patients with the noise that the plan asks.

    Args:
        manifest_file: The site's site.toml.
        plan: The run's plan.
        query: What is asked.
        round_number: Round of the query's step, from 1.

    Raises:
        SitePolicyError: The plan asks for what the site's data do not allow.
        MessageError: The plan has no such round, or the query does not fit its features.
        GroundTruthError: See `training_rows`.

    Guarantees:
        For a patient of this site, the answers to all queries of a plan together are
        `plan.mu`-GDP (add/remove), hence (epsilon, delta)-DP as `plan.privacy` says: the answer's
        sensitivity is taken from the query, mu from the plan, and no round exists twice in it.
        This assumes a coordinator that asks every round once: without a ledger of its own a site
        cannot tell that it has answered before.
    """
    manifest = SiteManifest.load(manifest_file)
    noise = noise_source(manifest, plan)
    if not 1 <= round_number <= plan.rounds.get(query.step, 0):
        raise MessageError(f"the plan has no round {round_number} of step {query.step!r}")
    _rehearse(query, plan)
    rows = training_rows(manifest_file, plan)
    exact = query.answer(rows)
    mu = plan.mu_of(query.step)
    if mu is None:
        return Answer(manifest.name, exact, 0.0)
    # The plan is part of the name: runs that differ in anything draw different noise.
    stream = f"{plan.digest}/{query.step}/{round_number}"
    noisy = release(exact, sensitivity=query.sensitivity, mu=mu, noise=noise, stream=stream)
    return Answer(manifest.name, noisy, query.sensitivity / mu)


@contextmanager
def reasons_kept_at_site(manifest: SiteManifest) -> Iterator[None]:
    """Let no more of a failure over private data leave the site than that it failed.

    Counts of bad rows and the like are exact figures that nobody accounted for.

    Raises:
        SiteError: In place of whatever failed. Refusals of the plan or of a message pass as they
            are: they depend on no row.
    """
    try:
        yield
    except (SitePolicyError, MessageError):
        raise
    except Exception as error:
        if manifest.origin != "private":
            raise
        logger.error("%s: %s", type(error).__name__, error)
        raise SiteError(
            f"site {manifest.name} could not answer; the reason is in its own log"
        ) from None


def _rehearse(query: Query, plan: RunPlan) -> None:
    """Answer the query on made-up rows that hold every code of every feature.

    A query that fails only on certain codes would tell by its failure whether the site's patients
    have them. What works here works on any rows.

    Raises:
        MessageError: The query does not fit the plan's features.
    """
    sizes = np.array([grid_of(feature).n_codes for feature in plan.features()])
    codes = np.minimum(np.arange(sizes.max())[:, None], sizes - 1).astype(np.uint8)
    n = codes.shape[0]
    rows = PatientRows(codes, np.zeros(n), np.arange(n), np.ones(n), max_records=1)
    try:
        result = query.answer(rows) if query.n_values <= MAX_VALUES else np.empty(0)
    except Exception:  # whatever it is, the query is to blame
        result = np.empty(0)
    if result.size != query.n_values or not np.isfinite(result).all():
        raise MessageError(f"{type(query).__name__} does not fit the features of the plan")


def noise_source(manifest: SiteManifest, plan: RunPlan) -> NoiseSource:
    """Where the site's noise comes from, if it takes part at all.

    Raises:
        SitePolicyError: The site has no part in the plan, or its data are private and the plan asks
            for reproducible noise or none.
    """
    if manifest.name not in plan.sites or manifest.role != plan.the_task.train_at:
        raise SitePolicyError(
            f"site {manifest.name} ({manifest.role}) is not asked to train by the plan: task "
            f"{plan.task} is trained by {plan.the_task.train_at}s, here {', '.join(plan.sites)}"
        )
    mu = plan.mu
    if manifest.origin == "private" and mu is None:
        raise SitePolicyError(
            f"site {manifest.name} refuses to train without privacy: its data are private. "
            "Set privacy.epsilon in the run's settings"
        )
    if manifest.origin == "private" and (mu or 0.0) > gdp_mu(manifest.max_epsilon, _POLICY_DELTA):
        raise SitePolicyError(
            f"site {manifest.name} refuses epsilon = {plan.privacy.epsilon:g} at delta = "
            f"{plan.privacy.delta:g}: its site.toml allows max_epsilon = {manifest.max_epsilon:g} "
            f"at delta = {_POLICY_DELTA:g} for one run"
        )
    if manifest.origin == "private" and plan.noise_seed is not None:
        raise SitePolicyError(
            f"site {manifest.name} refuses reproducible noise: its data are private, and whoever "
            "knows the seed could remove the noise. A plan for private data has no noise_seed"
        )
    if plan.noise_seed is None:
        return SystemNoise()
    return SeededNoise(plan.noise_seed, manifest.name)
