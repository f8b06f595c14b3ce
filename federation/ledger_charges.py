"""What a release costs, and whom: the charges of a ledger, and what they add up to.

Patients are split by a keyed, public hash of their token (`data_contracts.split`), so a patient is
on one side of a split and never on the other. A release therefore concerns one side of one split,
or everybody, and what a site has spent is

    everybody's releases + sum over splits of the worse of (its training, its held-out side).

Two splits may put the same patient on any of their sides; their costs are added. Two shares of one
key are two splits.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final, Literal, get_args

from models.accounting import PrivacyCost

_LARGEST_TEXT: Final = 200
Side = Literal["train", "held_out"]
Purpose = Literal["training", "evaluation", "statistics", "audit"]


@dataclass(frozen=True, slots=True)
class Population:
    """The patients on one side of one split.

    Attributes:
        split_key: Key of the split.
        test_share: Share of patients held out, in (0, 1).
        side: Training or held out.
    """

    split_key: str
    test_share: float
    side: Side

    def __post_init__(self) -> None:
        named = len(self.split_key) <= _LARGEST_TEXT and self.split_key.isprintable()
        if not (named and 0 < self.test_share < 1 and self.side in get_args(Side)):
            raise ValueError(
                f"a side of a split has a key of {_LARGEST_TEXT} printable characters at most, a "
                f"share between 0 and 1 and a known side, not {self.test_share} and {self.side!r}"
            )


EVERYBODY: Final = "everybody"
"""All patients of a site, on whichever side of a split they are."""
Patients = Population | Literal["everybody"]

_HEX: Final = re.compile("[0-9a-f]{8,64}")
_SMALLEST_MU: Final = 1e-100
_LARGEST_MU: Final = 1e4  # far above what protects anybody; squares and exponents stay finite
_ROUNDING: Final = 1 + 1e-9
_MOST_WAYS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One release, as it is charged before it is computed.

    Attributes:
        run: Identifier of the run, hexadecimal.
        plan: Digest of the plan that the run follows, hexadecimal.
        purpose: What the release is for.
        task: Name of the task.
        step: Step of the plan.
        round: Round of the step, from 1.
        population: The patients whom the release concerns.
        mechanism: The mechanism, in words.
        n_values: Number of values released.
        sensitivity: L2 sensitivity to adding or removing one patient.
        noise_std: Standard deviation of the noise in each released value that the promise counts
            on; for a secure sum that of the sum.
        mu: Privacy of this one release in Gaussian DP for a patient who takes part in it;
            sensitivity over noise_std at least.
        attempt: Which computation of the release, from 1.
        sample_rate: Probability with which each patient takes part (Poisson); 1 where all do.
        app: Hash of the code that asked, hexadecimal; "" where it is the site's own.
        approved_by: Who approved the release; "" where the site's policy does.

    Raises:
        ValueError: A value is out of its range.
    """

    run: str
    plan: str
    purpose: Purpose
    task: str
    step: str
    round: int
    population: Patients
    mechanism: str
    n_values: int
    sensitivity: float
    noise_std: float
    mu: float
    attempt: int = 1
    sample_rate: float = 1.0
    app: str = ""
    approved_by: str = ""

    def __post_init__(self) -> None:
        if not (_HEX.fullmatch(self.run) and _HEX.fullmatch(self.plan)):
            raise ValueError("run and plan are named by 8 to 64 hexadecimal digits")
        if self.app and not _HEX.fullmatch(self.app):
            raise ValueError("app is a hexadecimal hash, or empty")
        texts = (self.task, self.step, self.mechanism, self.approved_by)
        if not all(len(text) <= _LARGEST_TEXT and text.isprintable() for text in texts):
            raise ValueError(f"texts of a charge are printable, {_LARGEST_TEXT} characters at most")
        if self.purpose not in get_args(Purpose):
            raise ValueError(f"purpose must be one of {', '.join(get_args(Purpose))}")
        if not isinstance(self.population, Population) and self.population != EVERYBODY:
            raise ValueError("population is one side of a split, or everybody")
        if min(self.round, self.attempt, self.n_values) < 1:
            raise ValueError("round, attempt and n_values start at 1")
        if not (0 < self.sensitivity < math.inf and 0 < self.noise_std < math.inf):
            raise ValueError("sensitivity and noise_std must be positive and finite")
        if not (_SMALLEST_MU <= self.mu <= _LARGEST_MU and 0 < self.sample_rate <= 1):
            raise ValueError(
                f"mu must lie in {_SMALLEST_MU:g} to {_LARGEST_MU:g}, sample_rate in (0, 1]"
            )
        if self.mu * _ROUNDING < self.sensitivity / self.noise_std:
            raise ValueError("mu claims more privacy than sensitivity over noise_std gives")

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What makes a release one of its own."""
        return self.run, self.step, self.round, self.attempt

    @property
    def cost(self) -> PrivacyCost:
        """What the release costs a patient whom it concerns."""
        return PrivacyCost.of(self.mu, sample_rate=self.sample_rate)

    def to_body(self) -> dict[str, Any]:
        """The charge as it stands in an entry."""
        return asdict(self)

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Charge":
        """The charge that stands in an entry.

        Raises:
            KeyError, TypeError, ValueError: The entry holds none.
        """
        values = {name: body[name] for name in cls.__dataclass_fields__}
        return cls(**(values | {"population": patients_of(body)}))


def patients_of(body: Mapping[str, Any]) -> Patients:
    """The patients whom a charge in an entry concerns.

    Raises:
        KeyError, TypeError, ValueError: It names none.
    """
    population = body["population"]
    return EVERYBODY if population == EVERYBODY else _population(**population)


# A long ledger names the same few populations again and again.
_population = lru_cache(maxsize=1024)(Population)


def costs_of(
    releases: Mapping[tuple[Patients, float, float], int],
) -> dict[Patients, PrivacyCost]:
    """What releases cost each population.

    Args:
        releases: (population, mu, sample rate) -> number of such releases.

    Raises:
        TypeError, ValueError: Such a release has no cost.
    """
    costs: dict[Patients, PrivacyCost] = {}
    for (patients, mu, sample_rate), count in releases.items():
        cost = PrivacyCost.of(mu, sample_rate=sample_rate, rounds=count)
        costs[patients] = costs.get(patients, PrivacyCost()) + cost
    return costs


def cost_of(charges: Iterable[Charge], delta: float, order: float | None = None) -> PrivacyCost:
    """What the releases cost together, for the patient who pays most; see `worst_cost`."""
    counts = Counter((item.population, item.mu, item.sample_rate) for item in charges)
    return worst_cost(costs_of(counts), delta, order)


def add_up(
    costs: Mapping[Patients, PrivacyCost], more: Mapping[Patients, PrivacyCost]
) -> dict[Patients, PrivacyCost]:
    """Both together, population by population."""
    return {
        patients: costs.get(patients, PrivacyCost()) + more.get(patients, PrivacyCost())
        for patients in {**costs, **more}
    }


def worst_cost(
    costs: Mapping[Patients, PrivacyCost], delta: float, order: float | None = None
) -> PrivacyCost:
    """What the releases cost the patient who pays most: the rule at the head of this file.

    Where one side of a split has sampled releases, which of the two costs more can depend on all
    the others: each way to be split is then added up by itself. Beyond `_MOST_WAYS` of them a bound
    on both sides takes the place of either.

    Args:
        costs: What has been spent on each population.
        delta: Delta at which costs are compared,
        order: and order, see `PrivacyCost.epsilon`.
    """
    splits: dict[tuple[str, float], list[PrivacyCost]] = {}
    for patients, cost in costs.items():
        if isinstance(patients, Population):
            splits.setdefault((patients.split_key, patients.test_share), []).append(cost)
    ways = [costs.get(EVERYBODY, PrivacyCost())]
    for sides in splits.values():
        first, last = sides[0], sides[-1]
        if first.covers(last) or last.covers(first) or len(ways) >= _MOST_WAYS:
            ways = [way + (first | last) for way in ways]
        else:
            ways = [way + side for way in ways for side in sides]
    return max(ways, key=lambda way: way.epsilon(delta, order)) if len(ways) > 1 else ways[0]
