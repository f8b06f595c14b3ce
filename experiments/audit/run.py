"""An audit: real runs over synthetic sites with canaries, and what they give away."""

import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from data_contracts.fields import Role
from data_contracts.manifest import MANIFEST_NAME, SiteManifest
from data_contracts.network import site_folders
from data_contracts.synthetic.generate import generate
from experiments.audit.attack import Sight, scores
from experiments.audit.bound import best_guesses, epsilon_lower_bound
from experiments.audit.canaries import TASK, Canaries, make_canaries
from experiments.audit.sums import OpenedSum, flaws
from experiments.progress import Reporter
from federation.client_app import app as client_app
from federation.enrolment import enrol
from federation.identity import REGISTRY_FILE, Registry
from federation.in_process import run_in_process
from federation.ledger import Side, worst_cost
from federation.plan import RunPlan
from federation.settings import ConfigError, PrivacySettings
from federation.site import site_rows
from federation.strategy import run
from models.accounting import gdp_epsilon
from models.additive_training import AdditiveSettings
from models.patients import PatientRows
from models.queries import Query
from models.tasks import TASKS
from models.training import NoisySum

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]

RECORDS: Final = 16
"""Records of a patient: many, so that a bound per record instead of per patient shows."""

ROUNDS: Final = 3
"""Gradient rounds. They share one budget, so fewer give away as much, in less time."""

_COMPANY = 200
"""Rows of other patients beside whom the effect of a canary is measured."""


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """What is audited, and how hard.

    Attributes:
        epsilon: What a run promises to a patient at one site.
        delta: Delta of the promise.
        canaries: Canaries in a run. More prove more, until they drown each other.
        requests: Requests of the synthetic network; canaries stand out where others are many.
        providers: Sites that train.
        repeats: Runs, each with coins and noise of its own. A coin is in one run only, so all
            guesses together are held against the promise of one run.
        copies: Sites at which each canary stands.
        seed: Seed of everything drawn, noise included: the data are synthetic.

    Raises:
        ConfigError: A setting is out of range.
    """

    epsilon: float = 1.0
    delta: float = 1e-5
    canaries: int = 600
    requests: int = 20_000
    providers: int = 8
    repeats: int = 12
    copies: int = 1
    seed: int = 7

    def __post_init__(self) -> None:
        if self.canaries < 2 or self.repeats < 1:
            raise ConfigError("an audit needs two canaries and one run at least")
        if not 1 <= self.copies <= self.providers:
            raise ConfigError(f"a canary stands at 1 to {self.providers} sites, not {self.copies}")


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        claim: Epsilon that a run promises to patients who stand at as many sites as canaries do.
        delta: Delta of the promise.
        lower_bound: Epsilon that the guesses rule out; see `epsilon_lower_bound`.
        canaries: Canaries of all runs together.
        guesses: Coins that were guessed, one half "in", the other "out".
        right: Guesses that were right.
        sums: Opened sums of all runs together.
        flaws: What is wrong with these sums, in words; see `experiments.audit.sums`.
    """

    claim: float
    delta: float
    lower_bound: float
    canaries: int
    guesses: int
    right: int
    sums: int
    flaws: tuple[str, ...]

    @property
    def consistent(self) -> bool:
        """Whether nothing contradicts the promise, which is no proof of it."""
        return self.lower_bound <= self.claim and not self.flaws


def audit(settings: AuditSettings, reporter: Reporter) -> Audit:
    """Audit runs over a synthetic network that is made for it and removed afterwards.

    Everything is what sites and coordinators run elsewhere: contract tables, gate, features,
    clipping, noise, ledgers, masks, Flower messages.

    Raises:
        GroundTruthError: A setting cannot be used.
    """
    rng = np.random.default_rng(settings.seed)
    with tempfile.TemporaryDirectory(prefix="groundtruth-audit-") as name:
        network = Path(name) / "network"
        generate(
            network,
            preset="seed_manual",
            n_requests=settings.requests,
            n_payers=2,
            n_providers=settings.providers,
            seed=settings.seed,
        )
        folders = site_folders(network)
        registry = Registry.load(enrol(folders, network / REGISTRY_FILE))
        plan = _plan(settings, folders)
        sites = [folder for folder in folders if folder.name in plan.sites]
        others: dict[Side, list[PatientRows]] = {
            side: _rows(plan, sites, side) for side in get_args(Side)
        }
        canaries = make_canaries(
            plan,
            sites,
            Path(name) / "canaries",
            count=settings.canaries,
            copies=settings.copies,
            rng=rng,
        )
        coins: list[Flags] = []
        found: list[Vector] = []
        sums: list[OpenedSum] = []
        title = f"Auditing {settings.repeats} run" + "s" * (settings.repeats > 1)
        with reporter.steps(title, settings.repeats) as steps:
            for number in range(1, settings.repeats + 1):
                tossed = rng.random(settings.canaries) < 0.5
                canaries.plant(tossed)
                # Another plan has other noise.
                plan = replace(plan, noise_seed=int(rng.integers(2**62)))
                opened = _carry_out(plan, sites, registry)
                sights, truths = _examine(number, plan, opened, sites, others, canaries, tossed)
                coins.append(tossed)
                found.append(scores(sights))
                sums += truths
                steps.advance()
    return _verdict(plan, np.concatenate(coins), np.concatenate(found), sums)


def _plan(settings: AuditSettings, folders: Sequence[Path]) -> RunPlan:
    """A plan that spends all of its budget, with hardly more noise than the promise needs.

    No site may vanish, so nothing is kept for retries, and the only spare noise is what colluding
    sites could take away.
    """
    roles = {role: tuple(_named(folders, role)) for role in get_args(Role)}
    return RunPlan(
        task=TASK,
        payers=roles["payer"],
        providers=roles["provider"],
        sites=roles["provider"],
        privacy=PrivacySettings(
            epsilon=settings.epsilon,
            delta=settings.delta,
            multiplicity=settings.copies,
            max_records_per_patient=RECORDS,
            dropouts=0.0,
        ),
        additive=AdditiveSettings(gradient_rounds=ROUNDS),
        split_key="audit",
        test_share=0.25,
        contracts=TASKS[TASK].contracts,
    )


def _named(folders: Sequence[Path], role: Role) -> list[str]:
    manifests = [SiteManifest.load(folder) for folder in folders]
    return [manifest.name for manifest in manifests if manifest.role == role]


def _rows(plan: RunPlan, sites: Sequence[Path], side: Side) -> list[PatientRows]:
    return [site_rows(site / MANIFEST_NAME, plan, side) for site in sites]


def _carry_out(
    plan: RunPlan, sites: Sequence[Path], registry: Registry
) -> list[tuple[Query, NoisySum]]:
    """Every query of a run with its sum, as the coordinator sees them."""
    opened: list[tuple[Query, NoisySum]] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        run(
            grid,
            plan,
            registry=registry,
            observe=lambda query, total: opened.append((query, total)),
        )

    nodes = [{"site": str(site / MANIFEST_NAME)} for site in sites]
    run_in_process(server, client_app, nodes, {"plan": plan.to_json()})
    return opened


def _examine(
    number: int,
    plan: RunPlan,
    opened: Sequence[tuple[Query, NoisySum]],
    sites: Sequence[Path],
    others: Mapping[Side, Sequence[PatientRows]],
    canaries: Canaries,
    tossed: Flags,
) -> tuple[list[Sight], list[OpenedSum]]:
    """Every sum as the attacker sees it, and beside the truth."""
    company = next(others["train"][0].blocks(_COMPANY))
    sights, sums = [], []
    rounds: Counter[str] = Counter()
    for query, total in opened:
        rounds[query.step] += 1
        side = plan.population_of(query.step).side
        rest = sum(query.answer(rows) for rows in others[side])
        exact = sum(query.answer(rows) for rows in _rows(plan, sites, side))
        # No canary is held out.
        effects = (
            canaries.effects(query, company)
            if side == "train"
            else np.zeros((canaries.count, query.n_values))
        )
        sights.append(
            Sight(
                residual=(total.values - rest - effects.sum(axis=0) / 2) / total.noise_std,
                effects=effects / total.noise_std,
            )
        )
        sums.append(
            OpenedSum(
                step=query.step,
                name=f"run {number}, {query.step} {rounds[query.step]}",
                noise=(total.values - exact) / total.noise_std,
                told=total.noise_std,
                promised=query.sensitivity / (plan.mu_of(query.step) or math.inf),
                bound=query.sensitivity * _joint_mu(plan) / (plan.mu or math.inf),
                largest=float(np.linalg.norm(effects, axis=1).max()),
                apart=float(np.linalg.norm(exact - rest - effects[tossed].sum(axis=0))),
            )
        )
    return sights, sums


def _joint_mu(plan: RunPlan) -> float:
    """Mu for a patient at several sites; every release of an audited run is of all patients."""
    joint = worst_cost(plan.costs_at_multiplicity(), plan.privacy.delta)
    return math.sqrt(joint.mu_squared)


def _verdict(plan: RunPlan, coins: Flags, found: Vector, sums: Sequence[OpenedSum]) -> Audit:
    """Guess the coins of the highest and the lowest scores, and say what follows."""
    mu = _joint_mu(plan)
    # What shows a leak of twice the promise best shows a smaller one nearly as well.
    guesses = best_guesses(coins.size, 2 * mu, plan.privacy.delta)
    order = np.argsort(found, kind="stable")
    out, within = order[: guesses // 2], order[coins.size - guesses // 2 :]
    right = int((~coins[out]).sum() + coins[within].sum())
    return Audit(
        claim=gdp_epsilon(mu, plan.privacy.delta),
        delta=plan.privacy.delta,
        lower_bound=epsilon_lower_bound(coins.size, guesses, right, plan.privacy.delta),
        canaries=coins.size,
        guesses=guesses,
        right=right,
        sums=len(sums),
        flaws=tuple(flaws(sums)),
    )
