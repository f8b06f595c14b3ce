"""What runs promise together to a patient who is in all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from federation.ledger_charges import Patients, add_up, worst_cost
from federation.plan import RunPlan
from models.accounting import PrivacyCost


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


def promise(plans: Sequence[RunPlan]) -> Promise:
    """What plans promise together: nothing, where one of them has no privacy.

    Raises:
        ValueError: There is no plan, or they state their promises at different deltas.
    """
    deltas = {plan.privacy.delta for plan in plans}
    if len(deltas) != 1:
        raise ValueError(f"plans promise together at one delta, not at {sorted(deltas)}")
    delta = deltas.pop()

    def epsilon(costs: Callable[[RunPlan], Mapping[Patients, PrivacyCost]]) -> float | None:
        if any(plan.mu is None for plan in plans):
            return None
        together = reduce(add_up, map(costs, plans))
        return worst_cost(together, delta).epsilon(delta)

    return Promise(
        delta=delta,
        epsilon=epsilon(RunPlan.costs),
        multiplicity=max(plan.multiplicity for plan in plans),
        epsilon_at_multiplicity=epsilon(RunPlan.costs_at_multiplicity),
        epsilon_if_all_others_collude=epsilon(RunPlan.costs_alone),
    )
