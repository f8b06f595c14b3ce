"""The attacker: scores every canary from all the sums that a coordinator saw opened.

It knows the other patients' rows and what each canary would add. Only the coins are hidden from it,
and whatever it makes of private sums is as private as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sight:
    """One sum as the attacker sees it, in standard deviations of the noise it should have.

    Attributes:
        residual: The opened sum less the other patients' part, and less half of every canary's:
            what the coins on average add. Shape (d,).
        effects: What each canary adds, shape (n_canaries, d).
    """

    residual: Vector
    effects: Matrix


def scores(sights: Sequence[Sight]) -> Vector:
    """Log-likelihood ratio of "in" against "out" for each canary, shape (n_canaries,).

    With effects a_i, coins c_i = +-1/2 and noise of standard deviation s the residuals of all sums
    together are y = sum_i c_i a_i + s N. The other canaries' coins are noise too. Taken as
    Gaussian, they give y the covariance S = s^2 + sum_j a_j a_j' / 4, less the canary's part, and

        log ratio_i = a_i' S^-1 y / (1 - a_i' S^-1 a_i / 4)

    by the Sherman-Morrison formula. Where canaries do not overlap this is <a_i, y> / s^2.

    The noise is not taken on trust: s is the value under which y is most likely, 1 if all is well.
    """
    y = np.concatenate([sight.residual for sight in sights])
    effects = np.hstack([sight.effects for sight in sights])
    values, vectors = np.linalg.eigh(effects @ effects.T)
    keep = values > 1e-12 * values[-1]
    values, vectors = values[keep], vectors[:, keep]
    # Along the directions in which coins show, y has variance s^2 + values / 4; elsewhere s^2.
    seen = vectors.T @ (effects @ y)
    along = seen**2 / values
    beyond, spare = max(float(y @ y - along.sum()), 0.0), y.size - values.size
    sizes = np.geomspace(1e-4, 10.0, 101)
    variances = sizes[:, None] ** 2 + values / 4
    misfit = (np.log(variances) + along / variances).sum(axis=1)
    misfit += 2 * spare * np.log(sizes) + beyond / sizes**2
    weights = vectors / variances[misfit.argmin()]
    own = (weights * vectors) @ values
    return np.asarray(weights @ seen / (1 - own / 4))
