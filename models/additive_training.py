"""Training of the additive model: fifteen questions to the sites, the fewest that do.

    histogram      1 round    where the rows lie            -> knots, frequencies, basis
    gram           1 round    how features go together      -> whitening
    gradient      12 rounds   per-patient clipped gradients -> coefficients
    recalibration  1 round    scores against labels         -> slope and intercept

`train` is a generator: it yields a query and is sent the sum of the sites' answers. Whoever drives
it (one process, Flower, a test) decides how the sum comes about, so pooled and federated training
are the same code.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.features import Grid
from models.additive import AdditiveModel, Shape
from models.basis import Basis, build_basis
from models.queries import (
    GradientQuery,
    GramQuery,
    HistogramQuery,
    Query,
    ScoreQuery,
    pack_tables,
    sigmoid,
)

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AdditiveSettings:
    """Settings of the additive family. All are public; none is read from data.

    Attributes:
        max_knots: Knots of a number's tent functions.
        gradient_rounds: Gradient rounds.
        clip_factor: The clipping bound is clip_factor * sqrt(n_columns + 1) * the larger label
            share, a gradient of typical length for the rarer label.
        row_factor: Design rows are clipped to row_factor * sqrt(n_columns) in the gram round.
        ridge: Penalty on squared coefficients, per patient.
        score_bins: Bins of the recalibration histogram.

    Raises:
        ValueError: A setting is out of range.
    """

    max_knots: int = 8
    gradient_rounds: int = 12
    clip_factor: float = 1.0
    row_factor: float = 1.25
    ridge: float = 1e-4
    score_bins: int = 64

    def __post_init__(self) -> None:
        if not 2 <= self.max_knots <= 32:
            raise ValueError(f"max_knots must lie between 2 and 32, not {self.max_knots}")
        if not 1 <= self.gradient_rounds <= 1000:
            raise ValueError(f"gradient_rounds must lie in 1 to 1000, not {self.gradient_rounds}")
        if not (0 < self.clip_factor < math.inf and 0 < self.row_factor < math.inf):
            raise ValueError("clip_factor and row_factor must be positive and finite")
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"ridge must be finite and not negative, not {self.ridge}")
        if not 8 <= self.score_bins <= 1024:
            raise ValueError(f"score_bins must lie between 8 and 1024, not {self.score_bins}")


@dataclass(frozen=True, slots=True)
class NoisySum:
    """Sum of the sites' answers.

    Attributes:
        values: Shape (d,).
        noise_std: Standard deviation of the noise in each value; 0 where there is none.
    """

    values: Vector
    noise_std: float


_SCORE_LIMIT = 8.0  # log-odds; scores beyond it count at the ends

Training = Generator[Query, NoisySum, AdditiveModel]


def train(
    features: Sequence[str],
    grids: Sequence[Grid],
    settings: AdditiveSettings,
    *,
    max_records: int,
) -> Training:
    """Train an additive model by asking for noisy sums; returns the model when it stops.

    Args:
        features: Names of the features.
        grids: Their public grids.
        settings: Settings of the family.
        max_records: Records of a patient that the sites use at most.

    Source: noisy full-batch gradient descent, Bassily, Smith, Thakurta (FOCS 2014), preconditioned
    by a noisy second-moment matrix; iterates are averaged by steps of 1/t (Polyak, Juditsky 1992).
    """
    n_codes = np.array([grid.n_codes for grid in grids], dtype=np.int64)
    counts = yield HistogramQuery(n_codes)
    private = counts.noise_std > 0
    *per_feature, rest = np.split(counts.values, np.cumsum(n_codes))
    n_patients = max(float(rest[0] + rest[1]), 2.0)
    n_records = max(float(rest[2]) * max_records, n_patients)
    positives = max(float(rest[1]), 1.0)
    base_rate = float(np.clip(positives / n_patients, 0.001, 0.999))
    basis = build_basis(
        grids,
        per_feature,
        n_patients=n_patients,
        noise_std=counts.noise_std,
        max_knots=settings.max_knots,
    )
    tables, shapes = pack_tables(basis.tables)

    row_bound = settings.row_factor * math.sqrt(max(basis.n_columns, 1)) if private else math.inf
    gram = yield GramQuery(tables, shapes, row_bound)
    whitening = _whitening(basis, gram, n_patients)

    clip = settings.clip_factor * math.sqrt(basis.n_columns + 1) * max(base_rate, 1 - base_rate)
    descent = _Descent(basis, whitening, n_records, base_rate, settings.ridge, private=private)
    for step_size in _step_sizes(settings.gradient_rounds, private=private):
        gradient = yield GradientQuery(
            tables, shapes, whitening, descent.coefficients, clip if private else math.inf
        )
        descent.step(gradient, step_size)

    intercept, coefficients, covariance = descent.result()
    contributions = basis.shapes(coefficients)
    scores = yield ScoreQuery(
        shapes=np.concatenate(contributions),
        n_codes=n_codes,
        intercept=intercept,
        bins=settings.score_bins,
        limit=_SCORE_LIMIT,
        clip=math.sqrt(max_records),
    )
    slope, shift = _recalibrate(scores)
    return AdditiveModel(
        features=tuple(features),
        intercept=slope * intercept + shift,
        shapes=tuple(
            Shape(
                log_odds=slope * contribution,
                std=slope * np.sqrt(np.einsum("ij,jk,ik->i", table, covariance[at, at], table)),
                frequency=frequency,
            )
            for contribution, table, at, frequency in zip(
                contributions, basis.tables, basis.slices, basis.frequencies, strict=True
            )
        ),
    )


class _Descent:
    """Preconditioned gradient descent on noisy gradients, and how sure its result is."""

    def __init__(
        self,
        basis: Basis,
        whitening: Matrix,
        n_records: float,
        base_rate: float,
        ridge: float,
        *,
        private: bool,
    ) -> None:
        self._whitening = whitening
        self._n = n_records
        self._ridge = ridge
        # The logistic loss curves by p(1 - p) <= 1/4. Noisy steps shrink like 1/t and may start a
        # little above that bound's inverse; steps without noise do not shrink and may not.
        self._curvature = 0.2 if private else 0.25
        if whitening.size:
            self._curvature += ridge * float(np.linalg.norm(whitening, 2)) ** 2
        self._noise_variance = 0.0
        self.coefficients = np.zeros(basis.n_columns + 1)
        self.coefficients[0] = math.log(base_rate / (1 - base_rate))

    def step(self, gradient: NoisySum, size: float) -> None:
        """One step against the gradient."""
        scale = size / (self._curvature * self._n)
        penalty = np.concatenate(
            [[0.0], self._whitening.T @ (self._whitening @ self.coefficients[1:])]
        )
        self.coefficients = self.coefficients - scale * (
            gradient.values + self._ridge * self._n * penalty
        )
        self._noise_variance = (1 - size) ** 2 * self._noise_variance + (
            scale * gradient.noise_std
        ) ** 2

    def result(self) -> tuple[float, Vector, Matrix]:
        """Intercept, coefficients of the basis and their covariance (noise plus sampling)."""
        variance = self._noise_variance + 1.0 / (self._curvature * self._n)
        covariance = variance * (self._whitening @ self._whitening.T)
        return float(self.coefficients[0]), self._whitening @ self.coefficients[1:], covariance


def _step_sizes(rounds: int, *, private: bool) -> list[float]:
    """Two full steps, then 1/2, 1/3, ...: an average over rounds; all full without noise."""
    if not private:
        return [1.0] * rounds
    return [1.0 / max(1, t - 1) for t in range(1, rounds + 1)]


def _whitening(basis: Basis, gram: NoisySum, n_patients: float) -> Matrix:
    """Symmetric inverse root of the columns' correlation matrix, shape (n_columns, n_columns).

    Within a feature the basis is white already, so only blocks between features are taken from the
    noisy sum. Eigenvalues below the spectral norm that the noise alone would have are raised to it.
    """
    d = basis.n_columns
    upper = np.triu_indices(d)
    correlation = np.zeros((d, d))
    correlation[upper] = gram.values / n_patients / math.sqrt(2.0)
    correlation += correlation.T
    for columns in basis.slices:
        correlation[columns, columns] = np.eye(columns.stop - columns.start)
    # Spectral norm of a symmetric Gaussian matrix with entries of variance s^2: 2 s sqrt(d).
    noise = 2.0 * math.sqrt(d / 2.0) * gram.noise_std / n_patients
    values, vectors = np.linalg.eigh(correlation)
    floor = max(noise, 0.02)
    return np.asarray((vectors / np.sqrt(np.maximum(values, floor))) @ vectors.T)


def _recalibrate(scores: NoisySum) -> tuple[float, float]:
    """Slope and shift that fit the noisy counts of labels by score (Platt 1999, by Newton steps).

    Bins that noise drowns are left out. Without enough counts nothing is changed.
    """
    negatives, positives = np.split(scores.values, 2)
    bins = negatives.size
    centers = np.linspace(-1, 1, bins, endpoint=False) * _SCORE_LIMIT + _SCORE_LIMIT / bins
    heard = negatives + positives > 3 * math.sqrt(2) * scores.noise_std
    centers, negatives, positives = centers[heard], negatives[heard], positives[heard]
    slope, shift = 1.0, 0.0
    for _ in range(25):
        rate = sigmoid(slope * centers + shift)
        residual = (negatives + positives) * rate - positives
        weight = (negatives + positives) * rate * (1 - rate)
        design = np.stack([centers, np.ones_like(centers)])
        hessian = (design * weight) @ design.T
        smallest, largest = np.linalg.eigvalsh(hessian)
        if not smallest > 1e-12 * largest:  # one bin has no slope
            return 1.0, 0.0
        move = np.linalg.solve(hessian, design @ residual)
        slope, shift = slope - float(move[0]), shift - float(move[1])
        if np.abs(move).max() < 1e-10:
            break
    sane = 0.2 < slope < 5.0 and abs(shift) < 5.0
    return (slope, shift) if sane else (1.0, 0.0)


def drive(training: Training, answer: Callable[[Query], NoisySum]) -> AdditiveModel:
    """Run a training to its end with a function that answers its queries."""
    query = next(training)
    while True:
        try:
            query = training.send(answer(query))
        except StopIteration as done:
            model: AdditiveModel = done.value
            return model
