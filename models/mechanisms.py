"""Release of a bounded sum over patients with integer noise, by one site or by several together.

Every site rounds its sum to whole units, adds its own share of discrete Gaussian noise, and hands
out the result modulo 2^64. Shares add up to the noise of a central mechanism, whether a coordinator
adds them or a secure sum does; where a site's answer stands alone, its one share is enough.
"""

import hashlib
import math
import os
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from data_contracts.errors import GroundTruthError
from models.discrete_gaussian import CUT, discrete_gaussian
from models.keystream import KEY_BYTES

Vector = NDArray[np.float64]

LOG2_STD: Final = 22
"""Every share has the integer standard deviation 2^22. More, and the sum over 100 million patients
leaves 52 bits; less, and rounding long vectors costs visible noise."""

LEAST_ROUNDING: Final = 2.0**-31
"""The least that is allowed for rounding of a patient's vector, in sensitivities."""

_R: Final = 3.0
"""Standard deviation of the rounding in the proof at `GaussianSum`, in units."""

_POISSON_ERROR: Final = 2.01 * math.exp(-2 * math.pi**2 * _R**2)
"""A bound on e' there, 1.5e-77."""


class SumOverflowError(GroundTruthError):
    """Sums of so many patients with so little noise do not fit into 64-bit integers."""


class NoiseSource(Protocol):
    """Gives keys from which noise is drawn."""

    def key(self, stream: str) -> bytes:
        """32 bytes.

        Args:
            stream: Names the release, e.g. "run-7/gradient/3". A seeded source gives different
                keys for different names; no name may be used for two releases.
        """
        ...


class SystemNoise:
    """Keys from the operating system's cryptographic generator; nobody can draw them again."""

    def key(self, stream: str) -> bytes:
        """See `NoiseSource`; the stream's name plays no part."""
        return os.urandom(KEY_BYTES)


class SeededNoise:
    """Reproducible keys, for public and synthetic data only: who has the seed can remove the noise.

    Args:
        seed: Seed of the experiment.
        site: Name of the site; sites draw independent noise.
    """

    def __init__(self, seed: int, site: str) -> None:
        self._prefix = f"{seed}/{site!r}/"

    def key(self, stream: str) -> bytes:
        """See `NoiseSource`."""
        return hashlib.blake2b((self._prefix + stream).encode(), digest_size=KEY_BYTES).digest()


@dataclass(frozen=True, slots=True)
class GaussianSum:
    """One release: a bounded sum over patients, of one site or of several, with Gaussian noise.

    Attributes:
        sensitivity: L2 distance by which one patient can change the sum, in its own units.
        mu: What is promised of this release, in Gaussian DP.
        n_values: Length of the sum, d.
        shares: Noise shares that are in the sum for certain and unknown to whoever looks at it:
            sites less dropouts less colluders. 1 where each site's noise suffices alone.
        sites: Sites that may add up, at least `shares`.
        max_patients: More patients than stand at any site. Public.
        rounding: How far rounding may move one patient's vector when others come or go, in
            sensitivities; see `float_slack`.

    Raises:
        ValueError: A field is out of range, or mu is too small for so many values.
        SumOverflowError: The sum could leave 64-bit integers.

    Guarantees:
        Whoever sees the sum of the released words, and knows all but `shares` of the noise keys,
        has an answer that is mu-GDP for adding or removing one patient at one site, up to
        `epsilon_slack`, given that `sensitivity` bounds what a patient changes, that sums are made
        as `float_slack` assumes, and that ChaCha20 is a random function. (Delta grows by a factor
        1 + epsilon_slack, and by 1e-880 per value and share because noise is cut at 64 deviations.)
        Noise of more sites only adds. Words that wrap around spoil an answer, not the guarantee.

        *Rounding.* A site's sum is rounded to units of h = `resolution`: x to x/h to the nearest
        integer. That moves each value of the difference between neighbours by at most 1, so the
        integer sensitivity is D = sensitivity (1 + float_slack) / h + sqrt(d).

        *Smoothing.* By Poisson summation, with r = 3 and for every real y, the sum over all
        integers z of exp(-(z - y)^2 / (2 r^2)) lies within r sqrt(2 pi) (1 -+ e'), where e' =
        2 sum_{j >= 1} exp(-2 pi^2 r^2 j^2) < 1.5e-77; larger r only shrink e'.

        *One discrete Gaussian.* Take y = x + N(0, s^2), a Gaussian mechanism, and round y to the
        integer z with probability proportional to exp(-(z - y)^2 / (2 r^2)), which is
        post-processing. The density of y and the weight of z multiply and integrate to
        exp(-(z - x)^2 / (2 (s^2 + r^2))), and the normalisation of the weights is constant up to
        1 -+ e': the result is x + N_Z(0, s^2 + r^2), up to a factor (1 + e') / (1 - e') in each
        probability of each value. So that discrete Gaussian is (D/s)-GDP up to those factors.

        *Several shares.* The same sum, with r replaced by a b / sqrt(a^2 + b^2) > 3, shows that
        N_Z(0, a^2) + N_Z(0, b^2) is N_Z(0, a^2 + b^2) up to the same factor. So the shares
        together are N_Z(0, shares 4^k), k = `LOG2_STD`, and

            mu = D / sqrt(shares 4^k - r^2),

        which `resolution` solves for h.

    Source: Dong, Roth, Su (2022), Theorem 2.7, for the Gaussian mechanism; Peikert, "An Efficient
    and Parallel Gaussian Sampler for Lattices" (CRYPTO 2010), for smoothing and convolution;
    Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
    Secure Aggregation" (ICML 2021), for sums of shares.
    """

    sensitivity: float
    mu: float
    n_values: int
    shares: int
    sites: int
    max_patients: int
    rounding: float = LEAST_ROUNDING

    def __post_init__(self) -> None:
        if not (1e-100 <= self.sensitivity <= 1e100 and 0 < self.mu < math.inf):
            raise ValueError(
                f"sensitivity {self.sensitivity} must lie between 1e-100 and 1e100, and mu "
                f"{self.mu} be positive and finite"
            )
        if self.n_values < 1 or self.max_patients < 1 or not 1 <= self.shares <= self.sites:
            raise ValueError(
                f"no sum of {self.n_values} values over {self.max_patients} patients at "
                f"{self.sites} sites has {self.shares} noise shares"
            )
        if not LEAST_ROUNDING <= self.rounding <= 1:
            raise ValueError(f"rounding must lie between 2^-31 and 1, not {self.rounding}")
        if not self._signal > 0:
            raise ValueError(
                f"mu {self.mu} is too small for {self.n_values} values: rounding them alone "
                f"changes {math.sqrt(self.n_values):.3g} units, and {self._tolerated:.3g} may"
            )
        largest = self.max_patients * self._signal
        if largest > 2.0**52 or self.sites * (largest + CUT * 2.0**LOG2_STD) >= 2.0**63:
            raise SumOverflowError(
                f"sums at {self.sites} sites of up to {self.max_patients} patients reach 2^"
                f"{math.log2(largest):.1f} units each, and may reach 2^52 each and 2^63 together: "
                "allow for fewer patients or sites, or promise a smaller epsilon"
            )

    @property
    def resolution(self) -> float:
        """h, the size of one integer unit."""
        slack = float_slack(self.max_patients, self.n_values, self.rounding)
        return self.sensitivity * (1 + slack) / self._signal

    @property
    def epsilon_slack(self) -> float:
        """What has to be added to epsilon because the noise is discrete and its shares add up.

        Each of d values meets `shares` factors (1 + e') / (1 - e'), in either data set.
        """
        factor = math.log1p(_POISSON_ERROR) - math.log1p(-_POISSON_ERROR)
        return 2 * self.n_values * self.shares * factor

    def encode(self, vector: Vector) -> NDArray[np.int64]:
        """A site's sum in whole units, shape (d,), without noise.

        Values beyond what `max_patients` patients can add up to are cut off, which brings no two
        vectors further apart.

        Raises:
            ValueError: The vector has another shape, or a value is not finite.
        """
        if vector.shape != (self.n_values,):
            raise ValueError(f"a vector of shape {vector.shape}, not ({self.n_values},)")
        if not np.isfinite(vector).all():
            raise ValueError("a vector with a value that is not finite is never released")
        bound = self.max_patients * self.sensitivity
        units = np.rint(np.clip(vector, -bound, bound) / self.resolution)
        return np.asarray(units.astype(np.int64))

    def release(self, vector: Vector, noise_key: bytes) -> NDArray[np.uint64]:
        """A site's sum with its share of the noise, modulo 2^64, shape (d,).

        Args:
            vector: Sum over the site's patients, shape (d,).
            noise_key: 32 bytes that nobody else has and that are used for nothing else.

        Raises:
            ValueError: See `encode`; or the key has the wrong length.
        """
        noise = discrete_gaussian(self.n_values, log2_std=LOG2_STD, key=noise_key)
        return (self.encode(vector) + noise).view(np.uint64)

    def decode(self, total: NDArray[np.uint64]) -> Vector:
        """The sum behind released words, or behind their sum modulo 2^64, shape (d,)."""
        return np.asarray(total.view(np.int64) * self.resolution)

    def noise_std(self, n_sites: int) -> float:
        """Standard deviation of the noise in a sum of that many sites, in the sum's own units."""
        return self.resolution * 2.0**LOG2_STD * math.sqrt(n_sites)

    @property
    def _tolerated(self) -> float:
        """D: the integer sensitivity that mu allows."""
        return self.mu * _smooth_std(self.shares)

    @property
    def _signal(self) -> float:
        """What rounding leaves of D to the sensitivity itself."""
        return self._tolerated - math.sqrt(self.n_values)


def float_slack(max_patients: int, n_values: int, rounding: float = LEAST_ROUNDING) -> float:
    """By which share floating-point numbers may enlarge a sensitivity.

    A computed sum is not the sum: its rounding errors depend on all patients, so one patient may
    change more of them than its own part. With u = 2^-53, N patients and d values, relative to the
    sensitivity C:

    - *Clipping*, N-independent: norms, quotients and constants are right to 2^-30, which is more
      than gamma_n = n u / (1 - n u) for n = 2^22 columns.
    - *Adding up*, N 2^-36: every patient's vector passes through at most n = 2^16 roundings, as
      rows are added in blocks of about 50 000 and blocks after that (enough for 7e8 rows). A
      computed sum is then off by at most gamma_n times the sum of the vectors' lengths, N C
      (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, Sections 3.1 and 4.2), in
      each of two data sets.
    - *A patient's own vector*, N r: the same patient may come out differently by r C when others
      come or go, as a matrix product may add in another order where a row lies elsewhere. Queries
      say their r (`models.queries.Query.rounding`) and refuse to be answered where rounding could
      pass it. It is 2^-31 for an additive model, whose honest trainings stay below 2^-36.
    - *Division by the unit*, N sqrt(d) 2^-52: one rounding for each value, of N C at most.

    For a million patients and r = 2^-31 all this is 5e-4: it is paid for with as much more noise.

    Args:
        max_patients: N, more patients than stand at any site.
        n_values: d, length of the sum.
        rounding: r.
    """
    return 2.0**-30 + max_patients * (2.0**-36 + rounding + math.sqrt(n_values) * 2.0**-52)


def _smooth_std(shares: int) -> float:
    """s: standard deviation of the continuous Gaussian hidden in so many shares of noise."""
    return math.sqrt(shares * 4.0**LOG2_STD - _R**2)
