"""Training of the additive model: sixteen questions to the sites, the fewest that do.

    histogram      1 round    where the rows lie            -> knots, frequencies, basis
    gram           1 round    how features go together      -> whitening
    gradient      12 rounds   per-patient clipped gradients -> coefficients
    recalibration  1 round    scores against labels         -> slope and intercept
    evaluation     1 round    the same on held-out patients -> how good it is

See `models.training` for who drives it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.features import Grid
from models.additive import AdditiveModel, Shape
from models.basis import Basis, build_basis
from models.descent import ExactDescent, NoisyDescent, shrunken
from models.evaluation import evaluate
from models.queries import (
    AdditiveScoreQuery,
    GradientQuery,
    GramQuery,
    HistogramQuery,
    pack_tables,
)
from models.recalibration import recalibrate
from models.score_histogram import GROUP_BINS, AdditiveEvaluationQuery, score_edges
from models.suppression import suppress
from models.training import NoisySum, Trained, Training

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AdditiveSettings:
    """Settings of the additive family. All are public; none is read from data.

    Attributes:
        max_knots: Knots of a number's tent functions.
        gradient_rounds: Gradient rounds.
        clip_factor: The clipping bound is clip_factor * sqrt(n_columns + 1); a whitened row has
            about that length times its residual, which is below one.
        row_factor: Design rows are clipped to row_factor * sqrt(n_columns) in the gram round.
        ridge: Penalty on squared coefficients, per record.
        score_bins: Bins of the recalibration histogram.

    Raises:
        ValueError: A setting is out of range.
    """

    max_knots: int = 4
    gradient_rounds: int = 12
    clip_factor: float = 0.9
    row_factor: float = 1.25
    ridge: float = 1e-4
    score_bins: int = 128

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


_SCORE_LIMIT = 8.0  # log-odds; scores beyond it count at the ends


def train(
    features: Sequence[str],
    grids: Sequence[Grid],
    settings: AdditiveSettings,
    *,
    max_records: int,
    groups: Sequence[str] = (),
) -> Training:
    """Train an additive model by asking for noisy sums, and measure it; returns both.

    Args:
        features: Names of the features.
        grids: Their public grids.
        settings: Settings of the family.
        max_records: Records of a patient that the sites use at most.
        groups: Features whose codes are the subgroups of the evaluation.

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

    clip = settings.clip_factor * math.sqrt(basis.n_columns + 1) if private else math.inf
    descent = (NoisyDescent if private else ExactDescent)(
        whitening, n_records, base_rate, settings.ridge
    )
    for _ in range(settings.gradient_rounds):
        gradient = yield GradientQuery(tables, shapes, whitening, descent.coefficients, clip)
        descent.step(gradient.values, gradient.noise_std)

    intercept = float(descent.coefficients[0])
    noise = descent.noise_variance(base_rate * (1 - base_rate))
    coefficients = shrunken(descent.coefficients[1:], noise, basis.slices)
    contributions = basis.shapes(whitening @ coefficients)
    scores = yield AdditiveScoreQuery(
        shapes=np.concatenate(contributions),
        n_codes=n_codes,
        intercept=intercept,
        bins=settings.score_bins,
        limit=_SCORE_LIMIT,
        clip=math.sqrt(max_records),
    )
    line = recalibrate(scores.values, scores.noise_std, _SCORE_LIMIT, base_rate)
    # Sampling error by patient: a patient's records may all be alike.
    variance = descent.noise_variance(line.curvature) + 1.0 / (line.curvature * n_patients)
    covariance = line.slope**2 * variance * (whitening @ whitening.T)
    model = AdditiveModel(
        features=tuple(features),
        intercept=line.slope * intercept + line.shift,
        shapes=tuple(
            Shape(
                log_odds=line.slope * contribution,
                std=np.sqrt(
                    np.einsum("ij,jk,ik->i", table, covariance[at, at], table)
                    + line.slope_variance * contribution**2
                ),
                frequency=frequency,
            )
            for contribution, table, at, frequency in zip(
                contributions, basis.tables, basis.slices, basis.frequencies, strict=True
            )
        ),
    )
    query = AdditiveEvaluationQuery(
        shapes=np.concatenate([shape.log_odds for shape in model.shapes]),
        n_codes=n_codes,
        intercept=model.intercept,
        edges=score_edges(scores.values, scores.noise_std, _SCORE_LIMIT, line),
        groups=np.array([features.index(name) for name in groups], dtype=np.int64),
        group_bins=GROUP_BINS,
        clip=math.sqrt(max_records),
    )
    counts = yield query
    figures = evaluate(query, counts.values, counts.noise_std, max_records=max_records)
    return Trained(model, suppress(figures))


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
