"""Noise: where it comes from, and the release of a bounded vector with it.

Until secure sums carry shares of one common noise, every site adds its full noise to whatever it
releases: a release is private by itself, whoever sees it.
"""

import hashlib
import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class NoiseSource(Protocol):
    """Draws standard normal noise."""

    def standard_normal(self, n: int, *, stream: str) -> Vector:
        """Independent N(0, 1) values, shape (n,).

        Args:
            n: How many.
            stream: Names the release, e.g. "run-7/gradient/3". A seeded source draws different
                noise for different names; no name may be used for two releases.
        """
        ...


class SystemNoise:
    """Noise from the operating system's cryptographic generator; nobody can draw it again."""

    def standard_normal(self, n: int, *, stream: str) -> Vector:
        """See `NoiseSource`; the stream's name plays no part."""
        pairs = (n + 1) // 2
        words = np.frombuffer(os.urandom(16 * pairs), dtype="<u8").reshape(2, pairs)
        # Box-Muller on 53-bit uniforms in (0, 1).
        first, second = ((words >> 11).astype(np.float64) + 0.5) * 2.0**-53
        radius = np.sqrt(-2.0 * np.log(first))
        angle = 2.0 * np.pi * second
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]


class SeededNoise:
    """Reproducible noise, for public and synthetic data only: who has the seed can remove it.

    Args:
        seed: Seed of the experiment.
        site: Name of the site; sites draw independent noise.
    """

    def __init__(self, seed: int, site: str) -> None:
        self._prefix = f"{seed}/{site!r}/"

    def standard_normal(self, n: int, *, stream: str) -> Vector:
        """See `NoiseSource`."""
        digest = hashlib.blake2b((self._prefix + stream).encode(), digest_size=16).digest()
        key = np.frombuffer(digest, dtype="<u8")
        return np.random.Generator(np.random.Philox(key=key)).standard_normal(n)


def release(
    vector: Vector,
    *,
    sensitivity: float,
    mu: float,
    noise: NoiseSource,
    stream: str,
) -> Vector:
    """The vector with Gaussian noise of standard deviation sensitivity / mu.

    Args:
        vector: Sum over patients, shape (d,), already clipped per patient.
        sensitivity: L2 sensitivity to adding or removing one patient.
        mu: Privacy of this release in Gaussian DP.
        noise: Where the noise comes from.
        stream: Name of the release.

    Raises:
        ValueError: A value is not finite, or sensitivity, mu or their quotient is not positive and
            finite.

    Guarantees:
        mu-GDP for adding or removing one patient, provided `sensitivity` bounds what a patient
        changes in `vector` (Dong, Roth, Su 2022, Theorem 2.7). The noise is a floating-point
        Gaussian, so the guarantee is that of the real-valued mechanism: the least significant
        bits are not protected against the attack of Mironov (2012).
    """
    if not (0 < sensitivity < np.inf and 0 < mu < np.inf):
        raise ValueError(f"sensitivity {sensitivity} and mu {mu} must be positive and finite")
    if not np.isfinite(vector).all():
        raise ValueError("a vector with a value that is not finite is never released")
    std = sensitivity / mu
    if not 0 < std < np.inf:
        raise ValueError(f"sensitivity {sensitivity} over mu {mu} is no standard deviation")
    return vector + std * noise.standard_normal(vector.size, stream=stream)
