"""How finely an additive model may look, and what noise will cost it: from public numbers alone.

    kappa = columns of the design / (mu * training patients)

is noise against knowledge: a gradient over N patients carries noise of (clip / mu) sqrt(d) in all,
and clip itself grows with sqrt(d). No table is read, so nothing here costs privacy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from data_contracts.features import Grid, NumberGrid

LARGE_KAPPA: Final = 0.05
"""Above it noise costs more than about 0.003 of AUROC, and 0.009 where outcomes are rare."""

FINE_KNOTS: Final = 8
COARSE_KNOTS: Final = 4
FINE_KAPPA: Final = 0.015
"""Up to this kappa 8 knots lose nothing to 4 (0.0002 +- 0.0003 of AUROC over three tasks). Beyond,
4 were better in each of five tasks on average: by 0.001 at 0.02, 0.002 at 0.05, 0.004 at 0.1 and
0.2, 0.01 at 0.4. Two knots are better still where the truth is a straight line and lose up to 0.014
where it is not, which kappa does not tell."""


@dataclass(frozen=True, slots=True)
class ExpectedLoss:
    """What noise takes from the AUROC, against the same training without noise.

    Attributes:
        mean: Mean over the measured tasks.
        worst: The same for the task that lost most.
        noise_std: Standard deviation of the AUROC from one draw of noise to another.
    """

    mean: float
    worst: float
    noise_std: float


_MEASURED: Final = np.array(
    [
        # kappa, mean loss, loss of the worst task, standard deviation
        (0.000, 0.0000, 0.0000, 0.0000),
        (0.014, 0.0014, 0.0031, 0.0009),
        (0.025, 0.0020, 0.0051, 0.0017),
        (0.052, 0.0031, 0.0092, 0.0026),
        (0.101, 0.0084, 0.0244, 0.0082),
        (0.211, 0.0184, 0.0727, 0.0210),
        (0.357, 0.0291, 0.1063, 0.0284),
        (0.782, 0.0536, 0.1343, 0.0980),
    ]
)
"""Approval, first answer and emergency visit of synthetic networks (540 to 34 000 patients),
readmission (4 000 to 50 000) and heart disease (690), epsilon 1 and 3, 4 and 8 knots, 3 to 12
draws, noise as a secure sum has it, columns as `most_columns` counts them. Rare outcomes and few
patients are at the worst end, an AUROC of 0.87 at the best. For the synthetic networks:
`python -m experiments.benchmarks.resolution`."""


MEASURED_KAPPA: Final = float(_MEASURED[-1, 0])
"""Largest kappa at which losses were measured."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Knots of an additive model, and what they come to.

    Attributes:
        knots: Knots of a number's tent functions.
        columns: Columns of the design at most.
        kappa: Columns / (mu * patients).
    """

    knots: int
    columns: int
    kappa: float


def kappa(n_columns: int, mu: float, n_patients: float) -> float:
    """Noise against knowledge.

    Args:
        n_columns: Columns of the design.
        mu: Sensitivity over standard deviation of the noise in the sum, of all of a run's training
            releases together.
        n_patients: Training patients at all sites.

    Raises:
        ValueError: A number is not positive and finite.
    """
    if not (n_columns >= 0 and 0 < mu < math.inf and 0 < n_patients < math.inf):
        raise ValueError(f"no kappa for {n_columns} columns, mu {mu}, {n_patients} patients")
    return n_columns / (mu * n_patients)


def most_columns(grids: Sequence[Grid], max_knots: int) -> int:
    """Columns of the design at most; noise and rare levels leave fewer.

    A number has a column per knot but one, and one for "missing"; there are no more knots than
    cells. A category has one per code but one: centred, indicators of all codes add up to nothing.
    """
    return sum(
        min(max_knots, grid.cells) if isinstance(grid, NumberGrid) else grid.n_codes - 1
        for grid in grids
    )


def expected_loss(kappa: float) -> ExpectedLoss:
    """What noise takes from the AUROC, between measured points in a straight line.

    Beyond the last point its figures are given, which are then too low.
    """
    points, *columns = _MEASURED.T
    mean, worst, std = (float(np.interp(kappa, points, column)) for column in columns)
    return ExpectedLoss(mean, worst, std)


def resolution_for(grids: Sequence[Grid], knots: int, mu: float, n_patients: float) -> Resolution:
    """What a number of knots comes to (see `kappa`)."""
    columns = most_columns(grids, knots)
    return Resolution(knots, columns, kappa(columns, mu, n_patients))


def choose_resolution(grids: Sequence[Grid], mu: float, n_patients: float) -> Resolution:
    """As many knots as the noise lets speak: 8 where kappa is 0.015 at most, else 4."""
    fine = resolution_for(grids, FINE_KNOTS, mu, n_patients)
    if fine.kappa <= FINE_KAPPA:
        return fine
    return resolution_for(grids, COARSE_KNOTS, mu, n_patients)
