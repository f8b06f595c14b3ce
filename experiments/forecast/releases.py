"""What a plan's releases cost: their noise and their length.

The figures are those of the largest queries that the plan's grids allow, so a run never asks for
more; see `federation.plan.RunPlan.largest`.
"""

import math
from dataclasses import dataclass

from data_contracts.errors import GroundTruthError
from federation.messages import MAX_VALUES
from federation.plan import RunPlan
from federation.settings import RETRY
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
        sample_rate: Probability with which a patient takes part in each.
        mu: Privacy of one release in Gaussian DP, for a patient who takes part in it; None without
            privacy.
        share: Share of the task's budget (mu squared) of all of them.
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
    sample_rate: float
    mu: float | None
    share: float | None
    sensitivity: float | None = None
    noise_std: float | None = None
    values: int | None = None
    site_bits: float | None = None
    sum_bits: float | None = None


def releases(plan: RunPlan) -> tuple[Release, ...]:
    """What a plan releases, step by step, each checked as a site would.

    Raises:
        InfeasiblePlanError: A site would refuse.
    """
    found = [_release(plan, query) for query in plan.largest().values()]
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


def mu_of_sum(plan: RunPlan) -> float | None:
    """Mu of a plan's releases by the noise of all its sites, more than the promise counts on."""
    return None if plan.mu is None else plan.mu * math.sqrt(plan.noise_shares / len(plan.sites))


def _release(plan: RunPlan, query: Query) -> Release:
    step, rounds = query.step, plan.steps[query.step].rounds
    if query.n_values > MAX_VALUES:
        raise InfeasiblePlanError(
            f"task {plan.task}: step {step} asks for {query.n_values:,} values, and a site sends "
            f"{MAX_VALUES:,} at most: leave out features, or lower additive.max_knots or "
            "neural.hidden"
        )
    side = plan.population_of(step).side
    if plan.mu is None:
        bound = query.sensitivity if math.isfinite(query.sensitivity) else None
        return Release(step, side, rounds, 1.0, None, None, bound, values=query.n_values)
    if plan.retries:
        mechanism_for(plan, query, retry=True)
    mechanism = mechanism_for(plan, query)
    largest = mechanism.max_patients * mechanism.sensitivity / mechanism.resolution
    return Release(
        step,
        side,
        rounds,
        plan.sample_rate_of(step),
        mu=mechanism.mu,
        share=plan.share_of(step),
        sensitivity=mechanism.sensitivity,
        noise_std=mechanism.noise_std(mechanism.sites),
        values=mechanism.n_values,
        site_bits=math.log2(largest),
        sum_bits=math.log2(mechanism.sites * (largest + CUT * 2.0**LOG2_STD)),
    )


def _retries(plan: RunPlan) -> Release:
    return Release(RETRY, "either", plan.retries, 1.0, plan.mu_of(RETRY), plan.share_of(RETRY))
