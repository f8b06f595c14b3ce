"""Exact integer noise against floating-point noise, and the keystream that it is drawn from.

Run with `python -m experiments.benchmarks.noise`.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from models.discrete_gaussian import discrete_gaussian
from models.keystream import keystream
from models.mechanisms import LOG2_STD, GaussianSum

KEY = bytes(range(32))


def main() -> None:
    """Print seconds of each and the median ratio to numpy's float normal, for three lengths."""
    for n in (200, 20_000, 1_000_000):
        mechanism = GaussianSum(
            sensitivity=1.0, mu=0.1, n_values=n, shares=7, sites=10, max_patients=1_000_000
        )
        normal = partial(np.random.default_rng(0).standard_normal, n)
        ways: dict[str, Callable[[], object]] = {
            "keystream": partial(keystream, KEY, n),
            "discrete_gaussian": partial(discrete_gaussian, n, log2_std=LOG2_STD, key=KEY),
            "GaussianSum.release": partial(mechanism.release, np.zeros(n), KEY),
        }
        for name, way in ways.items():
            pairs = [(_seconds(way), _seconds(normal)) for _ in range(9)]
            ratio = statistics.median(own / plain for own, plain in pairs)
            sys.stdout.write(
                f"{n:9} values: {name:19} {min(own for own, _ in pairs):.6f} s, "
                f"{ratio:.2f} times as long as numpy's float normal\n"
            )


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
