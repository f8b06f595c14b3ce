"""What a site computes and releases. Nothing else in the product sees a site's rows."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from data_contracts.errors import GroundTruthError
from data_contracts.features import grid_of
from data_contracts.intake import read_tables
from data_contracts.manifest import SiteManifest
from data_contracts.split import held_out
from federation.messages import MAX_VALUES, Answer, MessageError
from federation.plan import RunPlan
from models.mechanisms import NoiseSource, SeededNoise, SystemNoise, release
from models.patients import PatientRows, group_by_patient
from models.queries import Query
from models.tasks.task import assemble

MIN_PATIENTS = 20
"""A site with fewer training patients does not take part: its noise would drown what it adds."""


class SitePolicyError(GroundTruthError):
    """The site refuses what a run asks of it."""


class TooFewPatientsError(GroundTruthError):
    """A site has too few patients to take part."""


@lru_cache(maxsize=256)
def training_rows(manifest_file: Path, plan_json: str) -> PatientRows:
    """The rows on which a site trains, read once per process and plan.

    Raises:
        GroundTruthError: The tables cannot be read, break their contract, or hold too few
            patients.
    """
    plan = RunPlan.from_json(plan_json)
    manifest = SiteManifest.load(manifest_file)
    tables = read_tables(manifest, only=plan.the_task.tables)
    valid = {name: table.rows for name, table in tables.items()}
    rows = assemble(plan.the_task, valid, plan.features(), site=manifest.name)
    test = held_out(rows.patient_tokens, key=plan.split_key, share=plan.test_share)
    train = rows.where(~test)
    grouped = group_by_patient(
        train.codes,
        train.labels,
        train.patient_tokens,
        train.row_tokens,
        max_records=plan.privacy.max_records_per_patient,
    )
    if grouped.n_patients < MIN_PATIENTS:
        raise TooFewPatientsError(
            f"site {manifest.name} has fewer than {MIN_PATIENTS} patients to train task "
            f"{plan.task} on; leave it out of the run, or merge it with another site"
        )
    return grouped


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
    """
    manifest = SiteManifest.load(manifest_file)
    noise = noise_source(manifest, plan)
    if not 1 <= round_number <= plan.rounds.get(query.step, 0):
        raise MessageError(f"the plan has no round {round_number} of step {query.step!r}")
    _rehearse(query, plan)
    rows = training_rows(manifest_file, plan.to_json())
    exact = query.answer(rows)
    mu = plan.mu_of(query.step)
    if mu is None:
        return Answer(manifest.name, exact, 0.0)
    stream = f"{plan.task}/{query.step}/{round_number}"
    noisy = release(exact, sensitivity=query.sensitivity, mu=mu, noise=noise, stream=stream)
    return Answer(manifest.name, noisy, query.sensitivity / mu)


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
    """Where the site's noise comes from.

    Raises:
        SitePolicyError: The data are private and the plan asks for reproducible noise or none.
    """
    if manifest.origin == "private" and plan.mu is None:
        raise SitePolicyError(
            f"site {manifest.name} refuses to train without privacy: its data are private. "
            "Set privacy.epsilon in the run's settings"
        )
    if manifest.origin == "private" and plan.noise_seed is not None:
        raise SitePolicyError(
            f"site {manifest.name} refuses reproducible noise: its data are private, and whoever "
            "knows the seed could remove the noise. Leave out the run's seed"
        )
    if plan.noise_seed is None:
        return SystemNoise()
    return SeededNoise(plan.noise_seed, manifest.name)
