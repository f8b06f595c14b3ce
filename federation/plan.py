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
from federation.ledger import Patients, Population, Side
from federation.settings import RETRY, ConfigError, PrivacySettings, parse
from models.accounting import PrivacyCost, gdp_mu
from models.additive_training import AdditiveSettings
from models.mechanisms import GaussianSum
from models.queries import Query
from models.tasks import TASKS
from models.tasks.task import Task

EVALUATION = "evaluation"


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

    # --- who takes part --------------------------------------------------------------------------

    @property
    def dropouts(self) -> int:
        """Sites that may vanish during the run; none where nothing is private."""
        return 0 if self.mu is None else math.floor(self.privacy.dropouts * len(self.sites) + 1e-9)

    @property
    def minimum_sites(self) -> int:
        """Sites below which a round is thrown away."""
        return len(self.sites) - self.dropouts

    @property
    def colluders(self) -> int:
        """Sites whose noise the coordinator may know without the promise failing."""
        return max(1, math.floor(self.privacy.colluders * len(self.sites) + 1e-9))

    @property
    def secure_sum(self) -> bool:
        """Whether the coordinator sees only sums over sites."""
        return self.privacy.secure_sum and self.mu is not None and self.minimum_sites >= 2

    @property
    def noise_shares(self) -> int:
        """Sites whose noise is in every sum for certain; together it suffices.

        One where every site adds the full noise.
        """
        return max(1, self.minimum_sites - self.colluders) if self.secure_sum else 1

    # --- what it costs ---------------------------------------------------------------------------

    @property
    def rounds(self) -> Mapping[str, int]:
        """Rounds of each step, in order."""
        gradients = self.additive.gradient_rounds
        return {"histogram": 1, "gram": 1, "gradient": gradients, "recalibration": 1, EVALUATION: 1}

    @property
    def retries(self) -> int:
        """Rounds that may be repeated after sites have vanished.

        None without a secure sum: there every site's answer stands alone.
        """
        return self.privacy.retries if self.secure_sum and self.dropouts else 0

    @property
    def mu(self) -> float | None:
        """Mu of the whole run for a patient at one site; None without privacy."""
        if self.privacy.epsilon is None:
            return None
        return gdp_mu(self.privacy.epsilon, self.privacy.delta)

    def mu_of(self, step: str) -> float | None:
        """Mu of one release of a step, or of one retry; None without privacy.

        A patient is either trained on or held out, so each side has the whole budget. On either
        side the shares of mu squared add up to one, retries included.
        """
        if (total := self.mu) is None:
            return None
        retry = self.privacy.shares[RETRY] if self.retries else 0.0
        if step == RETRY:
            return total * math.sqrt(retry / self.retries) if self.retries else 0.0
        if step == EVALUATION:
            return total * math.sqrt(1 - retry)
        unused = 1 - (self.privacy.shares[RETRY] - retry)
        return total * math.sqrt(self.privacy.shares[step] / unused / self.rounds[step])

    def population_of(self, step: str) -> Population:
        """The patients whom a step concerns."""
        side: Side = "held_out" if step == EVALUATION else "train"
        return Population(self.split_key, self.test_share, side)

    def mechanism_in_words(self, step: str) -> str:
        """How a step's releases are made private, as it stands in ledgers."""
        if not self.secure_sum:
            return f"{step}: discrete Gaussian, full noise at the site"
        return (
            f"{step}: discrete Gaussian, secure sum of {self.minimum_sites} to {len(self.sites)} "
            f"sites, noise of {self.noise_shares}"
        )

    def cost(self, step: str, rounds: int = 1) -> PrivacyCost:
        """What rounds of a step cost a patient whom the step concerns."""
        mu = self.mu_of(step)
        return PrivacyCost.of(mu, rounds=rounds) if mu else PrivacyCost()

    def costs(self) -> Mapping[Patients, PrivacyCost]:
        """What the run can cost at most, retries included, on each side of the split."""
        costs: dict[Patients, PrivacyCost] = {}
        for step, rounds in self.rounds.items():
            side = self.population_of(step)
            costs[side] = costs.get(side, PrivacyCost()) + self.cost(step, rounds)
        retries = self.cost(RETRY, self.retries)
        return {side: cost + retries for side, cost in costs.items()}

    def composed_mu(self) -> float | None:
        """Mu of all releases of the plan together, composed one by one, on the dearer side."""
        if self.mu is None:
            return None
        return math.sqrt(max(cost.mu_squared for cost in self.costs().values()))

    @property
    def joint_mu(self) -> float | None:
        """Mu for a patient whose records stand at `multiplicity` sites.

        In one secure sum the patient's contributions meet the same noise, so sensitivities, and
        with them mu, add up. Without, the sites' noises are independent and the releases compose.
        """
        if (total := self.mu) is None:
            return None
        return total * (self.multiplicity if self.secure_sum else math.sqrt(self.multiplicity))

    @property
    def mu_alone(self) -> float | None:
        """Mu that a site's own noise gives, should all others tell the coordinator theirs."""
        return None if self.mu is None else self.mu * math.sqrt(self.noise_shares)

    @property
    def multiplicity(self) -> int:
        """Sites of this run at which a patient may stand: no more than train."""
        return min(self.privacy.multiplicity, len(self.sites))

    def release(self, query: Query, *, retry: bool) -> GaussianSum:
        """The mechanism that releases a query's answer.

        Raises:
            ValueError: The plan promises no privacy, or the query bounds no patient's influence.
            SumOverflowError: The sums could overflow.
        """
        mu = self.mu_of(RETRY if retry else query.step)
        if mu is None:
            raise ValueError("a plan without privacy has no mechanism")
        return GaussianSum(
            sensitivity=query.sensitivity,
            mu=mu,
            n_values=query.n_values,
            shares=self.noise_shares,
            sites=len(self.sites),
            max_patients=self.privacy.max_patients_per_site,
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the plan's text, hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

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
