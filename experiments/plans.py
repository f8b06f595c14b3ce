"""From an experiment's settings to the plans of its runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, Protocol

from experiments.config import ExperimentConfig
from federation.plan import RunPlan
from federation.settings import ConfigError, PrivacySettings
from models.accounting import gdp_epsilon, gdp_mu
from models.tasks import TASKS
from models.tasks.task import TaskDataError

SPLIT_KEY: Final = "groundtruth split 1"
"""Key of the hash that holds patients out: the same in all experiments, so that a patient stays on
one side."""

MIN_PATIENTS: Final = 20
"""A site with fewer training patients adds more noise than knowledge to a run."""

_WITHOUT_SECURE_SUM = (
    "No secure sum: every site adds the full noise to whatever it releases, so each release is "
    "private by itself, and the sum is noisier than it has to be (by the square root of the "
    "number of sites)."
)


class Participant(Protocol):
    """What a plan has to know of a site."""

    @property
    def name(self) -> str:
        """Its pseudonym."""
        ...

    @property
    def role(self) -> str:
        """Payer or provider."""
        ...

    @property
    def group(self) -> str:
        """Its name in the tables, or "" where that is the same."""
        ...


def make_plan(
    config: ExperimentConfig,
    task: str,
    sites: Sequence[Participant],
    patients: Mapping[str, int] | None = None,
    others: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> RunPlan:
    """The run plan of a task: every site of the role that trains it takes part.

    Args:
        config: The experiment.
        task: The task.
        sites: The network's sites.
        patients: Patients that each has declared, where they lie elsewhere: then noise is drawn
            there, and never from a seed.
        others: Role -> names in the sites' tables that are no sites.

    The experiment's epsilon is for all its tasks together. They share the budget evenly, so each
    gets mu / sqrt(number of tasks).

    Raises:
        TaskDataError: No site has that role.
        ConfigError: See `share_of`.
    """
    names = {
        role: tuple(site.name for site in sites if site.role == role)
        for role in ("payer", "provider")
    }
    members = {
        role: (
            *(site.group or site.name for site in sites if site.role == role),
            *others.get(role, ()),
        )
        for role in names
    }
    trained_by = TASKS[task].train_at
    if not names[trained_by]:
        raise TaskDataError(f"task {task} is trained by {trained_by}s, and the network has none")
    return RunPlan(
        task=task,
        payers=members["payer"],
        providers=members["provider"],
        sites=names[trained_by],
        privacy=share_of(config.privacy, len(config.tasks)),
        family=config.family,
        additive=config.additive,
        neural=config.neural,
        split_key=SPLIT_KEY,
        test_share=config.test_share,
        contracts=TASKS[task].contracts,
        patients={site: patients[site] for site in names[trained_by]} if patients else {},
        noise_seed=config.seed if patients is None else None,
    )


def share_of(privacy: PrivacySettings, parts: int) -> PrivacySettings:
    """One of several equal parts of a privacy budget, which together compose to all of it.

    Raises:
        ConfigError: The budget is so small that a part of it is none.
    """
    if privacy.epsilon is None or parts == 1:
        return privacy
    mu = gdp_mu(privacy.epsilon, privacy.delta) / math.sqrt(parts)
    if (epsilon := gdp_epsilon(mu, privacy.delta)) == 0:
        raise ConfigError(
            f"privacy.epsilon = {privacy.epsilon:g} is too small for {parts} tasks: delta = "
            f"{privacy.delta:g} covers each part of it"
        )
    return replace(privacy, epsilon=epsilon)


def noise_in_words(plan: RunPlan) -> str:
    """How the noise comes about."""
    if plan.mu is None:
        return "No noise at all: not for private data."
    words = _WITHOUT_SECURE_SUM
    if plan.secure_sum:
        least, most = plan.minimum_sites, len(plan.sites)
        sites = f"{least} to {most}" if least < most else f"all {most}"
        words = (
            f"Secure sums: the coordinator sees only sums over {sites} sites, and the noise of "
            f"any {plan.noise_shares} of them suffices."
        )
    if plan.noise_seed is None:
        return words
    return (
        f"{words} Here the noise is drawn from seed {plan.noise_seed} so that the run can be "
        "repeated: whoever knows the seed can remove it, which is why only synthetic and public "
        "data may be used so."
    )
