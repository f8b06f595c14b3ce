"""What need not be guessed: the noise in the sums, and the bounds on what a patient adds.

An audit knows all rows and all coins, so it can tell every opened sum from its noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

IMPROBABLE: Final = 6.0
"""Standard normal deviations beyond which a figure is no accident: 2e-9 for a test on long sums,
1e-6 for one on a dozen values."""


@dataclass(frozen=True, slots=True)
class OpenedSum:
    """One opened sum beside the truth.

    Attributes:
        step: Step of the training.
        name: Run, step and round, for messages.
        noise: The sum less its exact value, in standard deviations that the coordinator was told
            of, shape (d,).
        told: That standard deviation.
        promised: The standard deviation that the promise needs: sensitivity over mu.
        bound: L2 bound on what a patient may change, at all sites where it stands.
        largest: L2 norm of the most that a canary would change.
        apart: L2 distance between the exact sum and what all patients add one by one.
    """

    step: str
    name: str
    noise: Vector
    told: float
    promised: float
    bound: float
    largest: float
    apart: float


def flaws(sums: Sequence[OpenedSum]) -> list[str]:
    """All that cannot be under the promise, in words, one sentence for each step and reason."""
    found = []
    for step in dict.fromkeys(each.step for each in sums):
        own = [each for each in sums if each.step == step]
        least = min(own, key=lambda each: each.told / each.promised)
        if least.told < least.promised * (1 - 1e-9):
            found.append(
                f"{step}: noise of {least.told:.4g}, and the promise needs {least.promised:.4g}"
            )
        noise = np.concatenate([each.noise for each in own])
        if abs(spread(noise)) > IMPROBABLE:
            ratio = math.sqrt(float(noise @ noise) / noise.size)
            found.append(f"{step}: the noise is {ratio:.3g} times as large as the sites say")
        most = max(own, key=lambda each: each.largest / each.bound)
        if most.largest > most.bound * (1 + 1e-9):
            found.append(
                f"{step}: a patient changes {most.largest:.4g}, and the bound is {most.bound:.4g}"
            )
        if any(each.apart > each.bound * 1e-6 for each in own):
            found.append(f"{step}: what a patient adds depends on the other patients")
    pairs = [
        f"{first.name} and {second.name}"
        for first, second in combinations(sums, 2)
        if abs(alike(first.noise, second.noise)) > IMPROBABLE
    ]
    if pairs:
        found.append(f"the noise is not independent in {len(pairs)} pairs of sums, as {pairs[0]}")
    return found


def spread(noise: Vector) -> float:
    """How far the size of standardised noise is from 1, as a standard normal deviate.

    Source: Wilson and Hilferty, "The Distribution of Chi-Square" (PNAS 1931), for sums of squares.
    """
    scale = 2 / (9 * noise.size)
    mean_square = float(noise @ noise) / noise.size
    return float(mean_square ** (1 / 3) - (1 - scale)) / math.sqrt(scale)


def alike(first: Vector, second: Vector) -> float:
    """How far two noises are from being independent, as a standard normal deviate.

    They are compared value by value, as far as both go.

    Source: Fisher's transformation of a correlation, here of values whose means are known to be 0.
    """
    size = min(first.size, second.size)
    first, second = first[:size], second[:size]
    lengths = math.sqrt(float(first @ first) * float(second @ second))
    if size < 4 or lengths == 0:
        return 0.0
    correlation = min(max(float(first @ second) / lengths, -1 + 1e-12), 1 - 1e-12)
    return math.atanh(correlation) * math.sqrt(size - 2)
