"""What right guesses prove: a lower bound on epsilon.

Each canary is in the data or not, by a fair coin of its own. An attacker sees what a run released
and guesses some of the coins. Were the run (epsilon, delta)-DP, hardly more guesses could be right
than randomised response would give away; from more of them follows that it is not.

Source: Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run" (NeurIPS 2023),
numbered as in arXiv 2305.08846v1.
"""

import math
from statistics import NormalDist
from typing import Final

import numpy as np

CONFIDENCE: Final = 0.95
"""Confidence of every lower bound."""


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """A bound on the probability of so many right guesses, were the run (epsilon, delta)-DP.

    Args:
        canaries: m, canaries with a fair coin each.
        guesses: r, coins that were guessed; the attacker abstains from the others.
        right: v, guesses that were right.
        epsilon: Epsilon of the promise, not negative.
        delta: Delta of the promise.

    Raises:
        ValueError: Not 0 <= right <= guesses <= canaries, or a parameter is out of range.

    Source: Corollary 5.4. With W ~ Binomial(r, e^epsilon / (1 + e^epsilon)) and f(v) = P[W >= v],

        P[right >= v] <= f(v) + 2 m delta max over i >= 1 of (f(v - i) - f(v)) / i.

    Beyond i = v the numerator grows no more.
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"{right} of {guesses} guesses about {canaries} canaries")
    if not (0 <= epsilon < math.inf and 0 <= delta <= 1):
        raise ValueError(f"no promise has epsilon {epsilon} and delta {delta}")
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, guesses + 1)))])
    k = np.arange(guesses + 1)
    # log q = -log(1 + e^-epsilon) and log(1 - q) = log q - epsilon, also where q rounds to 1.
    log_mass = log_factorial[-1] - log_factorial - log_factorial[::-1]
    log_mass -= guesses * math.log1p(math.exp(-epsilon)) + (guesses - k) * epsilon
    mass = np.exp(log_mass)
    slopes = np.cumsum(mass[:right][::-1]) / np.arange(1, right + 1)
    tail = float(mass[right:].sum())
    return min(tail + 2 * canaries * delta * float(slopes.max(initial=0.0)), 1.0)


def epsilon_lower_bound(canaries: int, guesses: int, right: int, delta: float) -> float:
    """Largest epsilon, to 1e-6, that so many right guesses rule out; see `p_value`.

    Guarantees:
        If a run is (epsilon, delta)-DP, the bound is above epsilon with a probability of
        1 - `CONFIDENCE` at most, whatever the attacker does with what it sees, as long as
        `guesses` was fixed before. (Who is (epsilon, delta)-DP is so with every larger epsilon,
        so any epsilon with too small a p-value rules out all below.)
    """

    def ruled_out(epsilon: float) -> bool:
        return p_value(canaries, guesses, right, epsilon, delta) < 1 - CONFIDENCE

    if not ruled_out(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while ruled_out(high):
        low, high = high, 2 * high
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if ruled_out(middle) else (low, middle)
    return low


def best_guesses(canaries: int, mu: float, delta: float) -> int:
    """How many coins to guess, half of them as "in", before anything is seen.

    Of fewer guesses more are right, but they prove less. This many give the largest bound if scores
    are as the best attack on a mu-GDP mechanism has them: N(mu / 2, 1) where the canary is in,
    N(-mu / 2, 1) where it is out. Where so few canaries prove nothing, mu is doubled until they
    would: they may still show a leak that is larger than promised.

    Args:
        canaries: m, 2 at least.
        mu: What is promised, in Gaussian DP.
        delta: Delta of the promise.
    """
    normal = NormalDist()
    best, largest = 2 * (canaries // 2), 0.0
    while largest == 0 and mu < 100:
        for share in np.geomspace(2 / canaries, 1.0, 40).tolist():
            guesses = 2 * math.floor(share * canaries / 2 + 1e-9)
            low, high = 0.0, 100.0
            while high - low > 1e-9:  # a share of `share` of the scores lies beyond +-threshold
                threshold = (low + high) / 2
                right, wrong = normal.cdf(mu / 2 - threshold), normal.cdf(-mu / 2 - threshold)
                low, high = (threshold, high) if right + wrong > share else (low, threshold)
            expected = round(guesses * right / (right + wrong))
            bound = epsilon_lower_bound(canaries, guesses, expected, delta)
            if bound > largest:
                best, largest = guesses, bound
        mu *= 2
    return best
