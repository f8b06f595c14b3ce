"""The run plan: everything that the parties agree on before a site touches its data.

The plan is public, fixed for the whole run, and the same text at the coordinator and every site.
What each release costs follows from it and from nothing else.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache

import numpy as np

from data_contracts.compatibility import VersionError, parse_version, serves
from data_contracts.features import Feature, grid_of
from federation.ledger import Patients, Population, Side
from federation.settings import RETRY, ConfigError, PrivacySettings, parse
from models.accounting import PrivacyCost, gdp_mu
from models.additive_training import AdditiveSettings
from models.families import EVALUATION, FAMILIES, Step
from models.mechanisms import GaussianSum
from models.neural_training import NeuralSettings
from models.queries import Query
from models.tasks import TASKS
from models.tasks.task import Task
from models.training import Training, largest_queries


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One training run.

    Attributes:
        task: Name of the task.
        payers: Payers of the network, in the order that all parties share.
        providers: Providers of the network, likewise.
        sites: The sites that train.
        privacy: What is promised to patients.
        family: Family of the model.
        additive: Settings of the additive family.
        neural: Settings of the neural family.
        split_key: Key of the hash that assigns patients to training and test.
        test_share: Share of patients held out.
        contracts: The task's tables -> version of the contract that the plan is made for.
        patients: Site -> patients that it declared when it joined; empty in experiments.
        noise_seed: Seed of reproducible noise for synthetic and public data; None draws noise
            that nobody can reproduce. Sites with private data refuse any seed.
    """

    task: str
    payers: tuple[str, ...]
    providers: tuple[str, ...]
    sites: tuple[str, ...]
    privacy: PrivacySettings
    split_key: str
    test_share: float
    contracts: Mapping[str, str]
    family: str = "additive"
    additive: AdditiveSettings = field(default_factory=AdditiveSettings)
    neural: NeuralSettings = field(default_factory=NeuralSettings)
    patients: Mapping[str, int] = field(default_factory=dict)
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"there is no task {self.task!r}; tasks are {', '.join(TASKS)}")
        if self.family not in FAMILIES:
            raise ConfigError(
                f"there is no family {self.family!r}; families are {', '.join(FAMILIES)}"
            )
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise ConfigError(f"a run needs sites, each named once, not {list(self.sites)}")
        if not set(self.patients) <= set(self.sites) or min(self.patients.values(), default=0) < 0:
            raise ConfigError("patients must name sites of the run, and count from 0")
        if not (0 < len(self.split_key) <= 200 and self.split_key.isprintable()):
            raise ConfigError("split_key must be 1 to 200 printable characters")
        if not 0 < self.test_share < 1:
            raise ConfigError(f"test_share must lie between 0 and 1, not {self.test_share}")
        if set(self.contracts) != set(self.the_task.tables):
            raise ConfigError(
                f"contracts must name {', '.join(self.the_task.tables)}, the tables of task "
                f"{self.task}, and no others"
            )
        for table, version in self.contracts.items():
            try:
                parse_version(version)
            except VersionError as error:
                raise ConfigError(f"contracts.{table}: {error}") from None

    @property
    def the_task(self) -> Task:
        """The task itself."""
        return TASKS[self.task]

    def unserved(self) -> tuple[str, ...]:
        """The contracts here that cannot serve the plan, each in words with both versions."""
        held = self.the_task.contracts
        return tuple(
            f"{name} is {held[name]} and the plan is made for {asked}"
            for name, asked in sorted(self.contracts.items())
            if not serves(held[name], asked)
        )

    def features(self) -> tuple[Feature, ...]:
        """The task's features on this network's grids.

        Raises:
            ConfigError: The roster is no list of at most 254 different names, or the plan is made
                for other contracts than those here, whose grids may differ.
        """
        if unserved := self.unserved():
            raise ConfigError(f"contracts do not fit the run plan: {'; '.join(unserved)}")
        try:
            return _features(self.task, self.payers, self.providers, self.sites)
        except ValueError as error:
            raise ConfigError(f"the network's roster cannot be used: {error}") from None

    def training(self) -> Training:
        """The training: queries come out, noisy sums are sent in."""
        features = self.features()
        return FAMILIES[self.family].train(
            [feature.name for feature in features],
            [grid_of(feature) for feature in features],
            getattr(self, self.family),
            max_records=self.privacy.max_records_per_patient,
            groups=self.the_task.groups,
        )

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
    def steps(self) -> Mapping[str, Step]:
        """The steps of the training, in order."""
        return FAMILIES[self.family].steps(getattr(self, self.family))

    def sample_rate_of(self, step: str) -> float:
        """Probability with which a patient takes part in a round of a step.

        A retry is charged as if everybody took part, which it cannot cost more than.
        """
        return self.steps[step].sample_rate if self.mu is not None and step != RETRY else 1.0

    @property
    def retries(self) -> int:
        """Rounds that may be repeated after sites have vanished.

        0 without a secure sum: there every site's answer stands alone.
        """
        return self.privacy.retries if self.secure_sum and self.dropouts else 0

    @property
    def mu(self) -> float | None:
        """Mu that the whole promise is worth, for a patient at one site; None without privacy."""
        if self.privacy.epsilon is None:
            return None
        return gdp_mu(self.privacy.epsilon, self.privacy.delta)

    def share_of(self, step: str) -> float:
        """Share of the budget (of mu squared) of all rounds of a step, or of all retries.

        A patient is either trained on or held out, so each side has the whole budget: on either
        side the shares add up to one, retries included. Shares of steps that the family does not
        take go to the others in proportion.
        """
        shares = self.privacy.shares
        retry = shares[RETRY] if self.retries else 0.0
        if step == RETRY:
            return retry
        if step == EVALUATION:
            return 1 - retry
        taken = sum(shares[each] for each in self.steps if each != EVALUATION)
        return (1 - retry) * shares[step] / taken

    def mu_of(self, step: str) -> float | None:
        """Mu of one release of a step, or of one retry, for a patient who takes part in it.

        None without privacy; 0 for a retry where the plan has none.

        Raises:
            ConfigError: The budget is too small for a step that samples patients.
        """
        if (total := self.mu) is None:
            return None
        if step == RETRY:
            return total * math.sqrt(self.share_of(RETRY) / self.retries) if self.retries else 0.0
        share, taken = self.share_of(step), self.steps[step]
        if taken.sample_rate == 1.0:
            return total * math.sqrt(share / taken.rounds)
        return _sampled_mu(
            self.privacy.epsilon or 0.0,
            self.privacy.delta,
            (1 - share) * total**2,
            taken.rounds,
            taken.sample_rate,
        )

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

    def _cost(self, step: str, rounds: int, sharper: float, copies: int) -> PrivacyCost:
        """What rounds of a step cost a patient whom it concerns; see `costs`."""
        if not (mu := self.mu_of(step)) or not rounds:
            return PrivacyCost()
        rate = self.sample_rate_of(step)
        return PrivacyCost.of(sharper * mu, sample_rate=rate, rounds=copies * rounds)

    def costs(self, sharper: float = 1.0, copies: int = 1) -> Mapping[Patients, PrivacyCost]:
        """What the run can cost a patient at one site at most, on each side of the split.

        Retries are included.

        Args:
            sharper: Whoever looks sees each release with mu so many times larger,
            copies: and so many times.
        """
        retries = self._cost(RETRY, self.retries, sharper, copies)
        costs: dict[Patients, PrivacyCost] = {}
        for name, step in self.steps.items():
            side = self.population_of(name)
            before = costs.get(side, retries)
            costs[side] = before + self._cost(name, step.rounds, sharper, copies)
        return costs

    def costs_at_multiplicity(self) -> Mapping[Patients, PrivacyCost]:
        """The same for a patient whose records stand at `multiplicity` sites, m.

        In one secure sum the patient's contributions meet the same noise N(0, s^2), so without
        sampling mu is m times as large. With it, each site samples by itself: that noise is the sum
        of m independent parts N(0, s^2 / m), one for each site, so the sum follows from m sampled
        releases of mu sqrt(m), and costs no more than these (which is exact without sampling).
        Without a secure sum the sites' noises are independent and m releases compose.
        """
        m = self.multiplicity
        return self.costs(math.sqrt(m) if self.secure_sum else 1.0, m)

    def costs_alone(self) -> Mapping[Patients, PrivacyCost]:
        """The same by the site's own noise, should all others tell the coordinator theirs."""
        return self.costs(math.sqrt(self.noise_shares))

    @property
    def multiplicity(self) -> int:
        """Sites of this run at which a patient may stand: no more than train."""
        return min(self.privacy.multiplicity, len(self.sites))

    def largest(self) -> Mapping[str, Query]:
        """The largest query of each step that the training may ask, from public grids alone."""
        return _largest(self.to_json())

    def check_size(self, query: Query) -> None:
        """Make sure that a query is one that this plan's training may ask, and no larger.

        Raises:
            ValueError: It is of another kind, or one of its arrays or its answer is larger.
        """
        largest = self.largest().get(query.step)
        if type(query) is not type(largest):
            raise ValueError(f"step {query.step} asks no {type(query).__name__}")
        sizes, most = _sizes(query), _sizes(largest)
        if too_large := [name for name, size in sizes.items() if size > most[name]]:
            raise ValueError(
                f"{too_large[0]} holds {sizes[too_large[0]]:,} values, and in this plan "
                f"{most[too_large[0]]:,} at most"
            )

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
            rounding=query.rounding,
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
            return parse(cls, raw, "plan")
        except (ValueError, OverflowError, RecursionError) as error:  # also of huge numbers
            raise ConfigError(f"the run plan cannot be read: {error}") from None


@lru_cache(maxsize=16)  # the same for every message of a run
def _largest(plan: str) -> Mapping[str, Query]:
    ours = RunPlan.from_json(plan)
    found: dict[str, Query] = {}
    records = ours.privacy.max_records_per_patient
    private = ours.mu is not None
    for query in largest_queries(ours.training(), max_records=records, private=private):
        found.setdefault(query.step, query)
    return found


def _sizes(query: Query) -> dict[str, int]:
    """Number of values in each array of a query, and in its answer."""
    sizes = {
        item.name: value.size
        for item in fields(query)  # type: ignore[arg-type] # every query is a dataclass
        if isinstance(value := getattr(query, item.name), np.ndarray)
    }
    return {**sizes, "its answer": query.n_values}


@lru_cache(maxsize=64)  # the same for every message of a run
def _features(task: str, *roster: tuple[str, ...]) -> tuple[Feature, ...]:
    return TASKS[task].resolve(dict(zip(("payers", "providers", "sites"), roster, strict=True)))


@lru_cache(maxsize=256)
def _sampled_mu(
    epsilon: float, delta: float, spent: float, rounds: int, sample_rate: float
) -> float:
    """Largest mu, nearly, of rounds over sampled patients that a budget can pay for.

    Args:
        epsilon: The budget,
        delta: at this delta.
        spent: Squared mu of the full-batch releases that it has to pay for, too.
        rounds: Number of rounds.
        sample_rate: Probability with which each patient takes part in each.

    Raises:
        ConfigError: There is none.
    """

    def fits(mu: float) -> bool:
        sampled = PrivacyCost.of(mu, sample_rate=sample_rate, rounds=rounds)
        return (PrivacyCost(spent) + sampled).epsilon(delta) <= epsilon

    low, high = 1e-6, 100.0
    if not fits(low):
        raise ConfigError(
            f"epsilon = {epsilon:g} is too small to train on samples of patients: set "
            "neural.sample_rate = 1, or take a larger privacy.epsilon"
        )
    while high > low * (1 + 1e-9):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
