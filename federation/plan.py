"""The run plan: everything that the parties agree on before a site touches its data.

The plan is public, fixed for the whole run, and the same text at the coordinator and every site.
What each release costs follows from it and from nothing else.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from data_contracts.features import Feature
from federation.settings import ConfigError, PrivacySettings, parse
from models.accounting import compose, gdp_epsilon, gdp_mu
from models.additive_training import AdditiveSettings
from models.tasks import TASKS
from models.tasks.task import Task


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One training run.

    Attributes:
        task: Name of the task.
        payers: Payers of the network, in the order that all parties share.
        providers: Providers of the network, likewise.
        sites: The sites that train.
        privacy: What is promised to patients.
        additive: Settings of the model family.
        split_key: Key of the hash that assigns patients to training and test.
        test_share: Share of patients held out.
        noise_seed: Seed of reproducible noise for synthetic and public data; None draws noise
            that nobody can reproduce. Sites with private data refuse any seed.
    """

    task: str
    payers: tuple[str, ...]
    providers: tuple[str, ...]
    sites: tuple[str, ...]
    privacy: PrivacySettings
    additive: AdditiveSettings
    split_key: str
    test_share: float
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"there is no task {self.task!r}; tasks are {', '.join(TASKS)}")
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise ConfigError(f"a run needs sites, each named once, not {list(self.sites)}")
        if not 0 < self.test_share < 1:
            raise ConfigError(f"test_share must lie between 0 and 1, not {self.test_share}")

    @property
    def the_task(self) -> Task:
        """The task itself."""
        return TASKS[self.task]

    def features(self) -> tuple[Feature, ...]:
        """The task's features on this network's grids.

        Raises:
            ConfigError: The roster is no list of at most 254 different names.
        """
        roster = {"payers": self.payers, "providers": self.providers, "sites": self.sites}
        try:
            return self.the_task.resolve(roster)
        except ValueError as error:
            raise ConfigError(f"the network's roster cannot be used: {error}") from None

    @property
    def rounds(self) -> Mapping[str, int]:
        """Rounds of each step, in order."""
        gradients = self.additive.gradient_rounds
        return {"histogram": 1, "gram": 1, "gradient": gradients, "recalibration": 1}

    @property
    def mu(self) -> float | None:
        """Mu of the whole run for a patient at one site; None without privacy."""
        if self.privacy.epsilon is None:
            return None
        return gdp_mu(self.privacy.epsilon, self.privacy.delta)

    def mu_of(self, step: str) -> float | None:
        """Mu of one release of a step; None without privacy.

        The shares of mu squared add up to one, so the releases compose to `mu` exactly.
        """
        if (total := self.mu) is None:
            return None
        return total * math.sqrt(self.privacy.shares[step] / self.rounds[step])

    def composed_mu(self) -> float | None:
        """Mu of all releases of the plan together, composed one by one."""
        prices = [(self.mu_of(step), count) for step, count in self.rounds.items()]
        if any(price is None for price, _ in prices):
            return None
        return compose(price for price, count in prices if price for _ in range(count))

    def epsilon_at_multiplicity(self) -> float | None:
        """Epsilon for a patient whose records stand at `privacy.multiplicity` sites.

        Without a secure sum the sites' noises are independent, so their releases compose. A patient
        cannot stand at more sites than train.
        """
        if (total := self.mu) is None:
            return None
        return gdp_epsilon(compose([total] * self.multiplicity), self.privacy.delta)

    @property
    def multiplicity(self) -> int:
        """Sites of this run at which a patient may stand."""
        return min(self.privacy.multiplicity, len(self.sites))

    @property
    def digest(self) -> str:
        """BLAKE2b of the plan's text, 16 hexadecimal digits."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()

    def to_json(self) -> str:
        """The plan as canonical text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "RunPlan":
        """The plan behind the text.

        Raises:
            ConfigError: The text is no plan.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"the run plan is not JSON: {error}") from None
        return parse(cls, raw, "plan")
