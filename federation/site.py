"""What a site computes and releases. In a run, nothing else sees a site's rows."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from data_contracts.errors import GroundTruthError
from data_contracts.features import grid_of
from data_contracts.intake import read_tables
from data_contracts.manifest import SiteManifest
from federation.identity import IDENTITY_FILE, REGISTRY_FILE, Identity, Registry
from federation.ledger import Charge, Ledger, Side, ledger_file, worst_cost
from federation.messages import MAX_VALUES, Answer, MessageError, Request
from federation.plan import RunPlan
from federation.roster import KeyOffer, Roster, SecureSumError
from federation.run_state import RunState, RunStateError, state_folder
from federation.secure_sum import Upload, mask
from federation.settings import RETRY
from models.families import EVALUATION, FAMILIES
from models.keystream import keystream
from models.mechanisms import NoiseSource, SeededNoise, SystemNoise
from models.neural_queries import TorchMissingError
from models.patients import PatientRows
from models.queries import Query
from models.tasks.task import assemble

logger = logging.getLogger("groundtruth.site")
"""The site's own log."""


POLICY_DELTA = 1e-5
"""Delta at which a site's own limits on epsilon are stated."""


class SitePolicyError(GroundTruthError):
    """The site refuses what a run asks of it."""


class ContractVersionError(SitePolicyError):
    """The site's contracts are other versions than those that the plan is made for."""


class TooManyPatientsError(GroundTruthError):
    """The site has more patients than a plan is made for; its declaration is wrong."""


class SiteError(GroundTruthError):
    """A site could not answer, for a reason that it keeps to itself."""


def site_rows(manifest_file: Path, plan: RunPlan, side: Side) -> PatientRows:
    """The site's rows on one side of the split, read anew where a file or what is asked changes.

    Args:
        manifest_file: The site's site.toml.
        plan: The run's plan.
        side: Training patients, or those held out.

    Raises:
        GroundTruthError: The tables cannot be read or break their contract.
        TooManyPatientsError: The plan is made for fewer patients.
    """
    manifest = SiteManifest.load(manifest_file)
    files = [manifest_file]
    for path in manifest.paths:
        files += [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    states = tuple(
        (file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists()
    )
    most = plan.privacy.max_records_per_patient
    wanted = (plan.task, plan.features(), plan.split_key, plan.test_share, most, states)
    # Looked up once: another thread may put another plan's rows there at any time.
    held, sides = _held.get(manifest_file, (None, {}))
    if held != wanted:
        sides = _read_sides(manifest, plan)
        _held[manifest_file] = wanted, sides
    if sides[side].n_patients > plan.privacy.max_patients_per_site:
        raise TooManyPatientsError(
            f"site {manifest.name} has more patients than the plan is made for, "
            f"{plan.privacy.max_patients_per_site:,}: declare max_patients in its site.toml, so "
            "that such plans are refused at once"
        )
    return sides[side]


# The rows of each site's latest plan: a process may hold several sites, and none for long.
_held: dict[Path, tuple[object, Mapping[Side, PatientRows]]] = {}


def _read_sides(manifest: SiteManifest, plan: RunPlan) -> Mapping[Side, PatientRows]:
    tables = read_tables(manifest, only=plan.the_task.tables)
    valid = {name: table.rows for name, table in tables.items()}
    rows = assemble(plan.the_task, valid, plan.features(), site=manifest.name)
    train, held_out = rows.split(key=plan.split_key, test_share=plan.test_share)
    most = plan.privacy.max_records_per_patient
    return {
        "train": train.by_patient(max_records=most),
        "held_out": held_out.by_patient(max_records=most),
    }


def greet(manifest_file: Path, plan: RunPlan, run: str) -> KeyOffer | None:
    """Whether the site takes part in a run at all, before any data are read.

    Args:
        manifest_file: The site's site.toml.
        plan: The run's plan.
        run: The run's identifier.

    Returns:
        The site's keys for the run; None where nothing is private.

    Raises:
        SitePolicyError: The plan asks for what the site's data or its budget do not allow, or for
            packages that are not installed there.
    """
    manifest = SiteManifest.load(manifest_file)
    check_policy(manifest, plan)
    try:
        FAMILIES[plan.family].require()
    except TorchMissingError as error:
        raise SitePolicyError(f"site {manifest.name} cannot take part: {error}") from None
    if plan.mu is None:
        return None
    folder = state_folder(manifest_file)
    ledger = open_ledger(manifest_file, manifest)
    # A run that has begun is greeted again when it goes on: part of it is paid for already.
    if not _charged(ledger, run) and not ledger.can_pay(plan.costs()):
        raise SitePolicyError(
            f"the privacy budget of site {manifest.name} cannot pay for this run. Nothing was "
            f"charged. Whoever keeps the budget at {manifest.name} may be asked: "
            "`groundtruth site budget` shows and changes it there"
        )
    identity = Identity.load_or_create(folder / IDENTITY_FILE)
    return RunState(folder, run).keys().offer(identity, manifest.name, run, plan.digest)


def charged(manifest_file: Path, run: str) -> list[str]:
    """The releases of a run that this site has charged, as "step number"; they tell of no row.

    A coordinator that was broken off holds them against what it has asked.
    """
    return _charged(open_ledger(manifest_file, SiteManifest.load(manifest_file)), run)


def _charged(ledger: Ledger, run: str) -> list[str]:
    return [f"{charge.step} {charge.round}" for _, charge in ledger.charges() if charge.run == run]


def answer(manifest_file: Path, plan: RunPlan, request: Request) -> Answer | Upload:
    """A site's answer to one query: a sum over its patients with the noise that the plan asks.

    Args:
        manifest_file: The site's site.toml.
        plan: The run's plan.
        request: What is asked.

    Returns:
        Noisy words, masked where the plan has secure sums; the plain sum where nothing is private.
        A request that was answered before gets the same bytes again.

    Raises:
        SitePolicyError: The plan asks for what the site's data or its budget do not allow.
        MessageError: The plan has no such round, or the query does not fit its features.
        SecureSumError: The request's sites or keys are not those of the network.
        LedgerError: The release cannot be charged; then there is none.
        GroundTruthError: See `site_rows`.

    Guarantees:
        For a patient of this site, what the site sends in a run is, to anybody who sees only the
        sums over sites, (epsilon, delta)-DP as `plan.privacy` says, whatever the coordinator asks
        and in whatever order: each release is charged before it is computed, none is charged or
        computed twice, and the rounds that may be charged come to `plan.costs()`. Where a round
        samples patients, who takes part is drawn here, after the charge, and never told. The noise
        suffices while no more than `plan.colluders` of the other sites give theirs away. Should
        all of them do, this site's own share is left: see `plan.costs_alone`.
    """
    manifest = SiteManifest.load(manifest_file)
    noise = check_policy(manifest, plan)
    query = request.query
    if query.step not in plan.steps or not 1 <= request.round <= plan.steps[query.step].rounds:
        raise MessageError(f"the plan has no round {request.round} of step {query.step!r}")
    if request.retry > plan.retries:
        raise MessageError(f"the plan has {plan.retries} retries, not {request.retry}")
    population = plan.population_of(query.step)
    if plan.mu is None:
        _rehearse(query, plan)
        return Answer(manifest.name, query.answer(site_rows(manifest_file, plan, population.side)))

    folder, digest = state_folder(manifest_file), plan.digest
    state = RunState(folder, request.run)
    state.check_greeted()
    identity = Identity.load_or_create(folder / IDENTITY_FILE)
    attempt = request.attempt(digest, manifest.name)
    if plan.secure_sum:
        roster = Roster.verified(
            request.offers,
            Registry.load(folder / REGISTRY_FILE),
            run=request.run,
            plan=digest,
            sites=plan.sites,
            minimum=plan.minimum_sites,
        )
        attempt.check(roster, manifest.name)
        state.pin(roster.digest)
    with state.locked():
        if (sent := state.sent(attempt.digest)) is not None:
            return Upload.signed(manifest.name, attempt, sent, identity)
        _rehearse(query, plan)
        mechanism = plan.release(query, retry=request.retry > 0)
        rows = site_rows(manifest_file, plan, population.side)
        retry = request.retry > 0
        open_ledger(manifest_file, manifest).charge(
            Charge(
                run=request.run,
                plan=digest,
                purpose="evaluation" if query.step == EVALUATION else "training",
                task=plan.task,
                step=RETRY if retry else query.step,
                round=request.retry if retry else request.round,
                population=population,
                mechanism=plan.mechanism_in_words(query.step),
                n_values=mechanism.n_values,
                sensitivity=mechanism.sensitivity,
                noise_std=mechanism.noise_std(mechanism.shares),
                mu=mechanism.mu,
                sample_rate=plan.sample_rate_of(RETRY if retry else query.step),
            )
        )
        # The plan is part of the name: runs that differ in anything draw different noise.
        stream = f"{digest}/{query.step}/{request.round}/{request.retry}"
        if (rate := plan.sample_rate_of(query.step)) < 1:
            rows = rows.sampled(rate, keystream(noise.key(f"{stream}/patients"), rows.n_patients))
        words = mechanism.release(query.answer(rows), noise.key(stream))
        if plan.secure_sum:
            words = mask(words, attempt, state.keys(), roster, manifest.name)
        state.keep(attempt.digest, words)
        return Upload.signed(manifest.name, attempt, words, identity)


def open_ledger(manifest_file: Path, manifest: SiteManifest) -> Ledger:
    """The site's ledger; it limits nothing where the data are public or synthetic."""
    return Ledger.open(
        ledger_file(manifest_file.parent),
        site=manifest.name,
        epsilon=manifest.budget_epsilon if manifest.origin == "private" else None,
        delta=POLICY_DELTA,
        sampling=manifest.sampling,
    )


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
    except (SitePolicyError, MessageError, SecureSumError, RunStateError):
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
        MessageError: The query is not one of the plan's, or does not fit its features.
    """
    try:
        plan.check_size(query)
    except ValueError as error:
        raise MessageError(f"{type(query).__name__} does not fit the plan: {error}") from None
    sizes = np.array([grid_of(feature).n_codes for feature in plan.features()])
    codes = np.minimum(np.arange(sizes.max())[:, None], sizes - 1).astype(np.uint8)
    n, most = codes.shape[0], plan.privacy.max_records_per_patient
    # The first patient has as many records as may be, the others one.
    starts = np.array([0, *range(min(most, n), n)])
    counts = np.diff(starts, append=n)
    weights = np.repeat(1.0 / counts, counts)
    rows = PatientRows(codes, np.zeros(n), starts, weights, max_records=most)
    try:
        result = query.answer(rows) if query.n_values <= MAX_VALUES else np.empty(0)
    except Exception:  # whatever it is, the query is to blame
        result = np.empty(0)
    if result.size != query.n_values or not np.isfinite(result).all():
        raise MessageError(f"{type(query).__name__} does not fit the features of the plan")


def _check_private(manifest: SiteManifest, plan: RunPlan) -> None:
    """Refuse a plan that does not protect private data as the site asks.

    Raises:
        SitePolicyError: See there.
    """
    site, privacy = f"site {manifest.name}", plan.privacy
    if plan.mu is None:
        raise SitePolicyError(
            f"{site} refuses to train without privacy: its data are private. "
            "Set privacy.epsilon in the run's settings"
        )
    cost = worst_cost(plan.costs(), POLICY_DELTA)
    if not cost.within(manifest.max_epsilon, POLICY_DELTA):
        raise SitePolicyError(
            f"{site} refuses epsilon = {privacy.epsilon:g} at delta = {privacy.delta:g}: its "
            f"site.toml allows max_epsilon = {manifest.max_epsilon:g} at delta = {POLICY_DELTA:g} "
            "for one run"
        )
    if privacy.max_patients_per_site < manifest.max_patients:
        raise SitePolicyError(
            f"{site} declares up to {manifest.max_patients:,} patients, and the plan is made for "
            f"{privacy.max_patients_per_site:,}: set privacy.max_patients_per_site"
        )
    if privacy.colluders < manifest.min_colluders:
        raise SitePolicyError(
            f"{site} refuses privacy.colluders = {privacy.colluders:g}: its site.toml asks for "
            f"{manifest.min_colluders:g} at least"
        )
    if plan.minimum_sites < manifest.min_sites:  # whom else it names may never come
        raise SitePolicyError(
            f"{site} takes part in runs of {manifest.min_sites} sites or more (min_sites in its "
            f"site.toml), and the plan names {len(plan.sites)} and does with {plan.minimum_sites}"
        )
    if (declared := sum(plan.patients.values())) < manifest.min_patients:
        raise SitePolicyError(
            f"{site} takes part in runs over {manifest.min_patients:,} declared patients or more "
            f"(min_patients in its site.toml), and the plan declares {declared:,}"
        )
    if manifest.tasks and plan.task not in manifest.tasks:
        raise SitePolicyError(
            f"{site} takes part in {', '.join(manifest.tasks)} (tasks in its site.toml), and the "
            f"plan is for {plan.task}"
        )
    if not manifest.sampling and any(plan.sample_rate_of(step) < 1 for step in plan.steps):
        raise SitePolicyError(
            f"{site} counts only releases of all its patients: set neural.sample_rate = 1 (a site "
            "allows sampling with sampling = true in site.toml, from its first release on)"
        )
    if plan.noise_seed is not None:
        raise SitePolicyError(
            f"{site} refuses reproducible noise: its data are private, and whoever knows the seed "
            "could remove the noise. A plan for private data has no noise_seed"
        )


def check_policy(manifest: SiteManifest, plan: RunPlan) -> NoiseSource:
    """Where the site's noise comes from, if it takes part at all.

    Raises:
        SitePolicyError: The site has no part in the plan, or its data are private and the plan does
            not protect them as the site asks.
        ContractVersionError: Its contracts cannot serve the plan; see `compatibility.py`.
    """
    if manifest.name not in plan.sites or manifest.role != plan.the_task.train_at:
        raise SitePolicyError(
            f"site {manifest.name} ({manifest.role}) is not asked to train by the plan: task "
            f"{plan.task} is trained by {plan.the_task.train_at}s, here {', '.join(plan.sites)}"
        )
    if unserved := plan.unserved():
        raise ContractVersionError(
            f"site {manifest.name} holds other data contracts: {'; '.join(unserved)}. Codes of "
            "features could mean something else there: the site and the coordinator need releases "
            "with the same major version of the contract, the site's no older"
        )
    if manifest.origin == "private":
        _check_private(manifest, plan)
    if plan.noise_seed is None:
        return SystemNoise()
    return SeededNoise(plan.noise_seed, manifest.name)
