"""What to think over before a run, and what to do about it, in plain words."""

import math
from dataclasses import replace

from experiments.config import ExperimentConfig
from experiments.forecast.declarations import Declared
from experiments.forecast.releases import mu_of_sum
from experiments.plans import MIN_PATIENTS
from federation.plan import RunPlan
from federation.settings import PrivacySettings
from models.accounting import gdp_epsilon, gdp_mu
from models.resolution import LARGE_KAPPA, Resolution, expected_loss

_WIDEST = 0.1
_FEWEST_SAMPLED = 500
_LARGEST_EPSILON = 10.0  # nobody is advised to ask for more


def promise_warnings(privacy: PrivacySettings) -> list[str]:
    """What holds of a promise of privacy whatever it is made for."""
    if privacy.epsilon is None:
        return ["Trained without privacy: never do this with private data."]
    if privacy.epsilon > _LARGEST_EPSILON:
        return ["An epsilon above 10 promises little: see how it was chosen."]
    return []


def network_warnings(config: ExperimentConfig, declared: Declared) -> tuple[str, ...]:
    """What holds whatever the task."""
    privacy, warnings = config.privacy, promise_warnings(config.privacy)
    if privacy.epsilon is not None and privacy.delta * declared.patients > 1:
        warnings.append(
            f"delta = {privacy.delta:g} is above one in {declared.patients:,} patients: a promise "
            f"that may fail for somebody. Set privacy.delta to {0.1 / declared.patients:.0e}."
        )
    return tuple(warnings)


def task_warnings(
    plan: RunPlan,
    config: ExperimentConfig,
    declared: Declared,
    *,
    configured: Resolution | None,
    advised: Resolution | None,
    standard_error: float,
) -> tuple[str, ...]:
    """What holds for one task.

    Args:
        plan: Its plan.
        config: The experiment.
        declared: The network.
        configured: The resolution that the settings ask for; None without privacy.
        advised: The one that kappa calls for; None without privacy.
        standard_error: Of the AUROC.
    """
    warnings = []
    n_sites = len(plan.sites)
    per_site = declared.patients * (1 - plan.test_share) / n_sites
    if per_site < MIN_PATIENTS:
        warnings.append(
            f"{declared.patients:,} patients leave {per_site:.0f} to train on at a site; a run "
            f"refuses sites with fewer than {MIN_PATIENTS}."
        )
    if declared.patients > n_sites * plan.privacy.max_patients_per_site:
        warnings.append(
            f"{declared.patients:,} patients at {n_sites} sites are more than "
            f"privacy.max_patients_per_site = {plan.privacy.max_patients_per_site:,} allows; sums "
            "would be cut off."
        )
    rate = min((plan.sample_rate_of(step) for step in plan.steps), default=1.0)
    if (in_a_round := rate * n_sites * per_site) < _FEWEST_SAMPLED and rate < 1:
        warnings.append(
            f"neural.sample_rate = {rate:g} leaves about {in_a_round:.0f} patients of all sites in "
            "a round: too few to learn from. Take a larger rate."
        )
    if configured and configured.kappa > LARGE_KAPPA:
        loss = expected_loss(configured.kappa)
        warnings.append(
            f"kappa = {configured.kappa:.2g} is large: noise takes about {loss.mean:.3f} of AUROC, "
            f"and took {loss.worst:.3f} at worst where it was measured. For {LARGE_KAPPA:g} it "
            f"takes {_remedies(config, declared, configured)}."
        )
        together = replace(plan, privacy=replace(plan.privacy, secure_sum=True))
        if together.secure_sum and not plan.secure_sum:
            smaller = configured.kappa * (mu_of_sum(plan) or 0.0) / (mu_of_sum(together) or 1.0)
            warnings.append(f"privacy.secure_sum = true alone would make kappa {smaller:.2g}.")
    if configured and advised and advised.knots < configured.knots:
        warnings.append(
            f"additive.max_knots = {advised.knots} suits kappa better than {configured.knots}: "
            "on average it lost less in each task that was measured."
        )
    if (wide := 1.96 * standard_error) > _WIDEST:
        warnings.append(
            f"The AUROC would be known to +-{wide:.2g} only and may be withheld: more patients are "
            "needed, a larger test_share, or a larger epsilon."
        )
    return tuple(warnings)


def _remedies(config: ExperimentConfig, declared: Declared, configured: Resolution) -> str:
    """What would bring kappa down to `LARGE_KAPPA`; each does alone."""
    excess, columns = configured.kappa / LARGE_KAPPA, configured.columns
    remedies = [
        f"{_rounded_up(declared.patients * excess):,} patients instead of {declared.patients:,}",
        f"{math.floor(columns / excess)} columns instead of {columns} (fewer features or levels)",
    ]
    mu = gdp_mu(config.privacy.epsilon or 0.0, config.privacy.delta) * excess
    if (epsilon := gdp_epsilon(mu, config.privacy.delta)) <= _LARGEST_EPSILON:
        remedies.append(f"an epsilon of {epsilon:.2g} for the whole run")
    return f"{', '.join(remedies[:-1])}, or {remedies[-1]}"


def _rounded_up(number: float) -> int:
    """Two significant digits, never less."""
    unit = int(10 ** max(math.floor(math.log10(number)) - 1, 0))
    return math.ceil(number / unit) * unit
