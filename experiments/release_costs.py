"""What a plan's releases cost: their noise, their length, and what they promise together.

The figures are those of the largest queries that the plan's grids allow, so a run never asks for
more; see `models.resolution.largest_queries`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_contracts.errors import GroundTruthError
from federation.messages import MAX_VALUES
from federation.plan import RunPlan
from federation.settings import RETRY
from models.accounting import compose, gdp_epsilon
from models.discrete_gaussian import CUT
from models.mechanisms import LOG2_STD, GaussianSum, SumOverflowError
from models.queries import Query

SITE_BITS, SUM_BITS = 52, 63
"""A site's sum stays below 2^52 units, a sum over sites below 2^63; more is refused."""


class InfeasiblePlanError(GroundTruthError):
    """A release that the settings ask for cannot be made."""


@dataclass(frozen=True, slots=True)
class Release:
    """One step's releases.

    Attributes:
        step: Name of the step; "retry" for rounds that are repeated after sites have vanished.
        patients: "train" or "held_out"; "either" for a retry.
        rounds: Number of releases; of retries, at most.
        mu: Privacy of one release in Gaussian DP; None without privacy.
        share: Share of the task's mu squared of all of them.
        sensitivity: L2 distance by which one patient can change the sum, at most.
        noise_std: Standard deviation of the noise in each value of the sum, all sites present.
        values: Values that a site sends per release, at most.
        site_bits: Logarithm to base 2 of what a site's sum can reach, in integer units.
        sum_bits: The same for the sum over sites, noise included.

    The last five are None for retries, which are like the step that they repeat, but for their mu.
    """

    step: str
    patients: str
    rounds: int
    mu: float | None
    share: float | None
    sensitivity: float | None = None
    noise_std: float | None = None
    values: int | None = None
    site_bits: float | None = None
    sum_bits: float | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised to a patient, as epsilon at `delta`; None without privacy.

    Attributes:
        delta: Probability with which the promise may fail.
        epsilon: For a patient at one site.
        multiplicity: Sites at which a patient may stand.
        epsilon_at_multiplicity: For a patient at so many sites.
        epsilon_if_all_others_collude: For a patient at one site, by this site's own noise.
    """

    delta: float
    epsilon: float | None
    multiplicity: int
    epsilon_at_multiplicity: float | None
    epsilon_if_all_others_collude: float | None


def releases(plan: RunPlan, queries: Sequence[Query]) -> tuple[Release, ...]:
    """What a plan releases, step by step, each checked as a site would.

    Args:
        plan: The plan.
        queries: The first query of every step.

    Raises:
        InfeasiblePlanError: A site would refuse.
    """
    found = [_release(plan, query) for query in queries]
    return (*found, _retries(plan)) if plan.retries else tuple(found)


def mechanism_for(plan: RunPlan, query: Query, *, retry: bool = False) -> GaussianSum:
    """The mechanism that releases a query's answer.

    Raises:
        InfeasiblePlanError: There is none.
    """
    step = f"a retry of step {query.step}" if retry else f"step {query.step}"
    try:
        return plan.release(query, retry=retry)
    except SumOverflowError as error:
        raise InfeasiblePlanError(f"task {plan.task}, {step}: {error}") from None
    except ValueError as error:
        raise InfeasiblePlanError(
            f"task {plan.task}, {step}: noise would drown everything ({error}); take a larger "
            "privacy.epsilon, fewer tasks, or fewer features"
        ) from None


def promise(plans: Sequence[RunPlan]) -> Promise:
    """What plans promise together to a patient who is in all of them; they share one delta."""
    delta = plans[0].privacy.delta

    def epsilon(mus: Iterable[float | None]) -> float | None:
        spent = [mu for mu in mus if mu is not None]
        return gdp_epsilon(compose(spent), delta) if spent else None

    return Promise(
        delta=delta,
        epsilon=epsilon(plan.composed_mu() for plan in plans),
        multiplicity=max(plan.multiplicity for plan in plans),
        epsilon_at_multiplicity=epsilon(plan.joint_mu for plan in plans),
        epsilon_if_all_others_collude=epsilon(plan.mu_alone for plan in plans),
    )


def mu_of_sum(plan: RunPlan) -> float | None:
    """Mu of a plan's releases by the noise of all its sites, more than the promise counts on."""
    return None if plan.mu is None else plan.mu * math.sqrt(plan.noise_shares / len(plan.sites))


def _release(plan: RunPlan, query: Query) -> Release:
    step, rounds = query.step, plan.rounds[query.step]
    if query.n_values > MAX_VALUES:
        raise InfeasiblePlanError(
            f"task {plan.task}: step {step} asks for {query.n_values:,} values, and a site sends "
            f"{MAX_VALUES:,} at most: leave out features, or lower additive.max_knots"
        )
    side = plan.population_of(step).side
    if (total := plan.composed_mu()) is None:
        bound = query.sensitivity if math.isfinite(query.sensitivity) else None
        return Release(step, side, rounds, None, None, bound, values=query.n_values)
    if plan.retries:
        mechanism_for(plan, query, retry=True)
    mechanism = mechanism_for(plan, query)
    largest = mechanism.max_patients * mechanism.sensitivity / mechanism.resolution
    return Release(
        step,
        side,
        rounds,
        mu=mechanism.mu,
        share=plan.cost(step, rounds).mu_squared / total**2,
        sensitivity=mechanism.sensitivity,
        noise_std=mechanism.noise_std(mechanism.sites),
        values=mechanism.n_values,
        site_bits=math.log2(largest),
        sum_bits=math.log2(mechanism.sites * (largest + CUT * 2.0**LOG2_STD)),
    )


def _retries(plan: RunPlan) -> Release:
    share = plan.cost(RETRY, plan.retries).mu_squared / (plan.composed_mu() or math.inf) ** 2
    return Release(RETRY, "either", plan.retries, plan.mu_of(RETRY), share)
