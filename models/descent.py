"""Descent of the logistic loss in whitened coordinates, on noisy gradients and on exact ones."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class _Descent:
    """State of a descent: coefficients in whitened coordinates, the intercept first.

    Args:
        whitening: Maps basis columns to whitened coordinates, shape (d, d).
        n_records: Number of records behind a gradient.
        base_rate: Share of label 1, where the intercept starts.
        ridge: Penalty on squared coefficients of the basis, per record.
    """

    def __init__(self, whitening: Matrix, n_records: float, base_rate: float, ridge: float) -> None:
        self._penalty = ridge * n_records * (whitening.T @ whitening)
        self._n_records = n_records
        self.coefficients = np.zeros(len(whitening) + 1)
        self.coefficients[0] = math.log(base_rate / (1 - base_rate))

    def _penalized(self, gradient: Vector) -> Vector:
        total = gradient.copy()
        total[1:] += self._penalty @ self.coefficients[1:]
        return total

    def _steepest(self, curvature: float) -> float:
        """Curvature of the penalized loss in the steepest direction, all records together."""
        penalty = float(np.linalg.norm(self._penalty, 2)) if self._penalty.size else 0.0
        return curvature * self._n_records + penalty


class NoisyDescent(_Descent):
    """Two full steps, then 1/2, 1/3, ...: an average over the rounds' noise.

    The curvature is taken as 0.2 everywhere, a little below the largest that a logistic loss can
    have: the shrinking steps forgive a first one that is too long.

    Source: Polyak, Juditsky (1992) for the averaging; Bassily, Smith, Thakurta (2014) for noisy
    gradients.
    """

    CURVATURE = 0.2

    def __init__(self, whitening: Matrix, n_records: float, base_rate: float, ridge: float) -> None:
        super().__init__(whitening, n_records, base_rate, ridge)
        self._noise: list[tuple[float, float]] = []

    def step(self, gradient: Vector, noise_std: float) -> None:
        """One step against the gradient."""
        size = 1.0 / max(1, len(self._noise))
        scale = size / self._steepest(self.CURVATURE)
        self.coefficients = self.coefficients - scale * self._penalized(gradient)
        self._noise.append((size, scale * noise_std))

    def noise_variance(self, curvature: float) -> float:
        """Variance that the gradients' noise leaves in each coefficient.

        Args:
            curvature: Average curvature of the loss per record, which sets how fast old noise is
                forgotten.
        """
        variance = 0.0
        for size, std in self._noise:
            variance = (1 - size * curvature / self.CURVATURE) ** 2 * variance + std**2
        return variance


class ExactDescent(_Descent):
    """Steps whose length follows from the last two gradients.

    Source: Barzilai, Borwein, "Two-point step size gradient methods" (1988), equation 5.
    """

    def __init__(self, whitening: Matrix, n_records: float, base_rate: float, ridge: float) -> None:
        super().__init__(whitening, n_records, base_rate, ridge)
        self._before: tuple[Vector, Vector] | None = None

    def step(self, gradient: Vector, noise_std: float) -> None:
        """One step against the gradient; `noise_std` is zero."""
        total = self._penalized(gradient)
        length = 1.0 / self._steepest(0.25)
        if self._before is not None:
            moved, turned = self.coefficients - self._before[0], total - self._before[1]
            if (along := float(moved @ turned)) > 0:
                length = float(moved @ moved) / along
        self._before = self.coefficients, total
        self.coefficients = self.coefficients - length * total

    def noise_variance(self, curvature: float) -> float:
        """None: the gradients are exact."""
        return 0.0


def shrunken(coefficients: Vector, variance: float, blocks: Sequence[slice]) -> Vector:
    """Coefficients, each block of them drawn to zero by as much as its noise alone would explain.

    Blocks that hold nothing but noise vanish, strong ones stay almost as they are. This looks at
    noisy coefficients only, so it costs no privacy.

    Args:
        coefficients: In coordinates in which the noise is the same everywhere, shape (d,).
        variance: Variance of the noise in each.
        blocks: One slice per feature.

    Source: James, Stein, "Estimation with quadratic loss" (1961), with the positive part of
    Baranchik (1964), for known variance and block by block.
    """
    shrunk = coefficients.copy()
    for block in blocks:
        size = float(coefficients[block] @ coefficients[block])
        noise = variance * coefficients[block].size
        shrunk[block] *= 1.0 - noise / size if size > noise else 0.0
    return shrunk
