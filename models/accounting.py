"""Accounting: what releases cost a patient together.

Gaussian differential privacy for full-batch releases: one number, mu, adds up exactly. A Gaussian
mechanism with L2 sensitivity C and noise standard deviation s is (C/s)-GDP. Adaptive composition
of mu_1, ..., mu_k is exactly sqrt(mu_1^2 + ... + mu_k^2)-GDP; no sampling assumption enters.

Releases over Poisson-sampled patients have no such number; their Renyi divergences add up.

Source: Dong, Roth, Su, "Gaussian Differential Privacy", JRSS-B 84 (2022): Theorem 2.7
(mechanism), Corollary 2.13 (conversion to epsilon and delta), Corollary 3.3 (composition).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray


def gdp_delta(mu: float, epsilon: float) -> float:
    """Smallest delta such that a mu-GDP mechanism is (epsilon, delta)-DP (Corollary 2.13)."""
    if not mu >= 0 or math.isnan(epsilon):
        raise ValueError(f"mu must not be negative, nor mu or epsilon NaN: {mu}, {epsilon}")
    if mu == 0:
        return 0.0
    upper = _normal_cdf(-epsilon / mu + mu / 2)
    tail = _normal_cdf(-epsilon / mu - mu / 2)
    # exp(epsilon) may overflow where the tail underflows: work on the logarithm.
    product = math.exp(epsilon + math.log(tail)) if tail > 0 else 0.0
    return max(upper - product, 0.0)


@lru_cache(maxsize=4096)
def gdp_epsilon(mu: float, delta: float) -> float:
    """Smallest epsilon >= 0 such that a mu-GDP mechanism is (epsilon, delta)-DP."""
    _check_delta(delta)
    if gdp_delta(mu, 0.0) <= delta:
        return 0.0
    high = 1.0
    while gdp_delta(mu, high) > delta:
        high *= 2
    # The upper end of the bracket: rounding errs on the private side.
    return _bracket(lambda epsilon: gdp_delta(mu, epsilon) <= delta, high)[1]


@lru_cache(maxsize=4096)
def gdp_mu(epsilon: float, delta: float) -> float:
    """Largest mu such that mu-GDP implies (epsilon, delta)-DP.

    Raises:
        ValueError: epsilon is not positive and finite, or delta not inside (0, 1).
    """
    _check_delta(delta)
    if not (0 < epsilon < math.inf):
        raise ValueError(f"epsilon must be positive and finite: {epsilon}")
    high = 1.0
    while gdp_delta(high, epsilon) < delta:
        high *= 2
    # The lower end of the bracket: rounding errs on the private side.
    return _bracket(lambda mu: gdp_delta(mu, epsilon) >= delta, high)[0]


ORDERS: Final = np.array([*range(2, 65), 80, 96, 128, 192, 256, 512], dtype=np.float64)
"""Orders at which Renyi divergences are kept."""


@dataclass(frozen=True, slots=True)
class PrivacyCost:
    """What releases together cost a patient who takes part in all of them.

    Attributes:
        mu_squared: Squared mu of all full-batch Gaussian releases.
        renyi: Renyi divergence of all subsampled releases at `ORDERS`; empty where there is none.

    Guarantees:
        Costs that are known beforehand, as those of a plan, add up whatever is asked in each
        release. Where later costs depend on earlier releases, a stop when the sum would pass a
        bound keeps the bound if it is counted in one way that was fixed before: by mu alone, where
        nothing is sampled (Koskela, Tobaben, Honkela, "Individual Privacy Accounting with Gaussian
        DP", ICLR 2023, Theorem 5), or at one order (Feldman, Zrnic, "Individual Privacy Accounting
        via a Renyi Filter", NeurIPS 2021, Section 3). Whoever may choose the way afterwards gets
        more: by mu first and then at the best order, 1.6 % of delta in a simple attack.
    """

    mu_squared: float = 0.0
    renyi: tuple[float, ...] = ()

    @classmethod
    def of(cls, mu: float, *, sample_rate: float = 1.0, rounds: int = 1) -> "PrivacyCost":
        """Cost of releases that are mu-GDP for a patient who takes part.

        Args:
            mu: Sensitivity over noise standard deviation.
            sample_rate: Probability with which each patient takes part, independently (Poisson).
            rounds: Number of such releases.

        Raises:
            ValueError: mu lies outside [1e-100, 1e100], the rate outside (0, 1], or rounds are
                negative.
        """
        if not (1e-100 <= mu <= 1e100 and 0 < sample_rate <= 1 and rounds >= 0):
            raise ValueError(f"no cost for mu {mu}, sample rate {sample_rate}, rounds {rounds}")
        if rounds == 0:
            return cls()
        if sample_rate == 1.0:
            return cls(mu_squared=rounds * mu * mu)
        return cls(renyi=tuple((rounds * sampled_gaussian_renyi(mu, sample_rate)).tolist()))

    def __add__(self, other: "PrivacyCost") -> "PrivacyCost":
        """Both together, for a patient who is in both."""
        return PrivacyCost(
            self.mu_squared + other.mu_squared,
            tuple((self._curve() + other._curve()).tolist()) if self.renyi or other.renyi else (),
        )

    def __or__(self, other: "PrivacyCost") -> "PrivacyCost":
        """An upper bound on either, for a patient who is in one of them."""
        return PrivacyCost(
            max(self.mu_squared, other.mu_squared),
            tuple(np.maximum(self._curve(), other._curve()).tolist())
            if self.renyi or other.renyi
            else (),
        )

    def covers(self, other: "PrivacyCost") -> bool:
        """Whether this is at least the other, whatever is added to both."""
        return self.mu_squared >= other.mu_squared and bool((self._curve() >= other._curve()).all())

    def epsilon(self, delta: float, order: float | None = None) -> float:
        """Smallest epsilon known such that the releases together are (epsilon, delta)-DP.

        Exact where all releases are full-batch; otherwise by Renyi divergence.

        Args:
            delta: Delta.
            order: Count at this one of `ORDERS`; else in the best way, exactly where that may be.

        Source: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy"
        (NeurIPS 2020), Proposition 12, for the conversion of Renyi divergences.
        """
        if not self.renyi and order is None:
            return gdp_epsilon(math.sqrt(self.mu_squared), delta)
        _check_delta(delta)
        curve = self._curve() + ORDERS * self.mu_squared / 2
        bounds = curve + np.log1p(-1 / ORDERS) - (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1)
        bound = bounds.min() if order is None else bounds[order == ORDERS].item()
        return max(float(bound), 0.0)

    def within(self, epsilon: float, delta: float, order: float | None = None) -> bool:
        """Whether the releases together are (epsilon, delta)-DP, as far as is known; see `epsilon`.

        What is planned to cost all of a budget must not fail on the last bit of a sum: epsilon may
        be passed by 1e-9 of it.
        """
        return self.epsilon(delta, order) <= epsilon * (1 + 1e-9)

    def _curve(self) -> NDArray[np.float64]:
        return np.asarray(self.renyi) if self.renyi else np.zeros(ORDERS.size)


def best_order(epsilon: float, delta: float) -> float:
    """The order at which a budget pays for most full-batch releases, one of `ORDERS`."""
    left = epsilon - np.log1p(-1 / ORDERS) + (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1)
    return float(ORDERS[np.argmax(left / ORDERS)])


@lru_cache(maxsize=256)
def sampled_gaussian_renyi(mu: float, sample_rate: float) -> NDArray[np.float64]:
    """Renyi divergence at `ORDERS` of one Gaussian release over Poisson-sampled patients.

    Args:
        mu: Sensitivity over noise standard deviation.
        sample_rate: Probability with which each patient takes part, in (0, 1).

    Source: Mironov, Talwar, Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism"
    (2019), Section 3.3, for integer orders.
    """
    log_q, log_rest = math.log(sample_rate), math.log1p(-sample_rate)
    curve = []
    for order in ORDERS.astype(int).tolist():
        # The moment is a binomial mean of exp(exponent). Its terms without the exponentials add up
        # to 1 and the first two exponents are 0: adding up exp(exponent) - 1 loses no digits.
        k = np.arange(2, order + 1)
        log_choose = np.array([math.log(math.comb(order, i)) for i in k.tolist()])
        exponents = (k * k - k) * (mu * mu / 2)
        log_excess = exponents + np.log(-np.expm1(-exponents))
        terms = log_choose + (order - k) * log_rest + k * log_q + log_excess
        curve.append(float(np.logaddexp(0.0, np.logaddexp.reduce(terms))) / (order - 1))
    found = np.array(curve)
    found.flags.writeable = False  # it is handed out again
    return found


def _bracket(reached: Callable[[float], bool], high: float) -> tuple[float, float]:
    """Neighbouring floats between which `reached` turns true on [0, high]."""
    low = 0.0
    while (middle := (low + high) / 2) not in (low, high):
        if reached(middle):
            high = middle
        else:
            low = middle
    return low, high


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1: {delta}")
