"""Gaussian differential privacy: one number, mu, adds up exactly over full-batch releases.

A Gaussian mechanism with L2 sensitivity C and noise standard deviation s is (C/s)-GDP. Adaptive
composition of mu_1, ..., mu_k is exactly sqrt(mu_1^2 + ... + mu_k^2)-GDP; no sampling assumption
enters.

Source: Dong, Roth, Su, "Gaussian Differential Privacy", JRSS-B 84 (2022): Theorem 2.7
(mechanism), Corollary 2.13 (conversion to epsilon and delta), Corollary 3.3 (composition).
"""

import math
from collections.abc import Callable, Iterable


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


def compose(mus: Iterable[float]) -> float:
    """Mu of several adaptive releases together (Corollary 3.3)."""
    return math.sqrt(math.fsum(mu * mu for mu in mus))


def _bracket(reached: Callable[[float], bool], high: float) -> tuple[float, float]:
    """Neighbouring floats between which `reached` turns true on [0, high]."""
    low = 0.0
    for _ in range(1100):
        middle = (low + high) / 2
        if middle in (low, high):
            break
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
