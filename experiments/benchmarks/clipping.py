"""Per-patient clipping against the plain way of adding up every patient's rows first.

Run with `python -m experiments.benchmarks.clipping`.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.clipping import clipped_patient_sum

Vector = NDArray[np.float64]


def plain(rows: Vector, factors: Vector, starts: NDArray[np.intp], bound: float) -> Vector:
    """Add up all rows of every patient, then clip."""
    sums = np.add.reduceat(rows * factors[:, None], starts, axis=0)
    norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    return np.asarray((bound / np.maximum(norms, bound)) @ sums)


def main() -> None:
    """Print seconds of both and the median ratio, for three mixes of records per patient."""
    rng = np.random.default_rng(0)
    for share_with_several in (0.0, 0.2, 0.5):
        counts = np.where(rng.random(25_000) < share_with_several, 3, 1)
        starts = np.cumsum(counts) - counts
        rows, factors = rng.normal(size=(counts.sum(), 200)), rng.normal(size=counts.sum())
        arguments = (rows, factors, starts, 10.0)
        if not np.allclose(plain(*arguments), clipped_patient_sum(*arguments), rtol=1e-9):
            raise AssertionError("the two ways disagree")
        pairs = [
            (_seconds(plain, *arguments), _seconds(clipped_patient_sum, *arguments))
            for _ in range(9)
        ]
        ratio = statistics.median(slow / fast for slow, fast in pairs)
        sys.stdout.write(
            f"{share_with_several:4.0%} of patients with 3 records: plain {pairs[0][0]:.3f} s, "
            f"clipped_patient_sum {pairs[0][1]:.3f} s, plain takes {ratio:.1f} times as long\n"
        )


def _seconds(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
