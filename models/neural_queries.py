"""What a site is asked while a network is trained; see `models.queries`.

Only the answer to `PatientGradientQuery` needs torch, so everybody can read and check the queries.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.errors import GroundTruthError
from models.clipping import LEAST_BOUND, clipped_patient_counts
from models.mechanisms import LEAST_ROUNDING
from models.neural import LIMIT, Architecture
from models.neural_rounding import gradient_rounding
from models.patients import PatientRows
from models.score_histogram import EvaluationQuery

Vector = NDArray[np.float64]


class TorchMissingError(GroundTruthError):
    """The site lacks the packages that compute gradients of networks."""


@dataclass(frozen=True, slots=True)
class PatientGradientQuery:
    """In which direction does the log loss of a network fall?

    Attributes:
        parameters: Where the gradient is taken, shape (n_parameters,).
        tables: See `Architecture`, like the next three.
        table_shapes: Shape (n_features, 2), int64.
        width: Coordinates of an embedding.
        hidden: Units of each hidden layer, shape (n_layers,), int64.
        clip: L2 bound on a patient's gradient; math.inf only where nothing is private.
        rounding: How far rounding may move a patient's gradient when others come or go, in clips.

    Raises:
        ValueError: The fields are out of range or do not fit together.

    Guarantees:
        Adding or removing one patient with any number of records changes the answer by at most
        `clip` in L2, but for rounding, which moves the gradient of each other patient by at most
        `rounding` clips: where it could move it further, there is no answer.
    """

    parameters: Vector
    tables: Vector
    table_shapes: NDArray[np.int64]
    width: int
    hidden: NDArray[np.int64]
    clip: float
    rounding: float
    step = "gradient"

    def __post_init__(self) -> None:
        _check_parameters(self.architecture, self.parameters)
        if not self.clip >= LEAST_BOUND:
            raise ValueError(f"the clipping bound must be positive, not {self.clip}")
        if not LEAST_ROUNDING <= self.rounding <= 1:
            raise ValueError(f"rounding must lie between 2^-31 and 1, not {self.rounding}")

    @property
    def architecture(self) -> Architecture:
        """The network's shape."""
        return Architecture(self.tables, self.table_shapes, self.width, self.hidden)

    @property
    def sensitivity(self) -> float:
        """The clipping bound."""
        return self.clip

    @property
    def n_values(self) -> int:
        """One per parameter."""
        return self.parameters.size

    def answer(self, rows: PatientRows) -> Vector:
        """Sum of the patients' clipped gradients, shape (n_parameters,).

        Raises:
            ValueError: Rounding could move a patient's gradient by more than `rounding` clips.
            TorchMissingError: torch or Opacus is not installed.
        """
        moved = gradient_rounding(self.architecture, self.parameters, rows.max_records)
        if not moved <= self.rounding * self.clip:
            raise ValueError("the network is so steep that rounding would tell of other patients")
        require_torch()
        from models.neural_gradients import clipped_gradient_sum

        return clipped_gradient_sum(self.architecture, self.parameters, rows, self.clip)


@dataclass(frozen=True, slots=True)
class NeuralScoreQuery:
    """How often does the label occur at each score of a network? See `models.queries.ScoreQuery`.

    Attributes:
        parameters: Shape (n_parameters,).
        tables: See `Architecture`, like the next three.
        table_shapes: Shape (n_features, 2), int64.
        width: Coordinates of an embedding.
        hidden: Units of each hidden layer, shape (n_layers,), int64.
        bins: Number of score bins.
        limit: Scores are binned evenly on [-limit, limit] log-odds; the rest falls to the ends.
        clip: L2 bound on a patient's counts.

    Raises:
        ValueError: The fields are out of range or do not fit together.
    """

    parameters: Vector
    tables: Vector
    table_shapes: NDArray[np.int64]
    width: int
    hidden: NDArray[np.int64]
    bins: int
    limit: float
    clip: float
    step = "recalibration"
    rounding = LEAST_ROUNDING

    def __post_init__(self) -> None:
        _check_parameters(self.architecture, self.parameters)
        if not (0 < self.limit < math.inf and isinstance(self.bins, int) and self.bins >= 1):
            raise ValueError("a score query needs a positive limit and one bin at least")
        if not self.clip >= LEAST_BOUND:
            raise ValueError(f"the clipping bound must be positive, not {self.clip}")

    @property
    def architecture(self) -> Architecture:
        """The network's shape."""
        return Architecture(self.tables, self.table_shapes, self.width, self.hidden)

    @property
    def sensitivity(self) -> float:
        """The clipping bound: a score does not depend on other rows, not even by rounding."""
        return self.clip

    @property
    def n_values(self) -> int:
        """A block of bins per label."""
        return 2 * self.bins

    def answer(self, rows: PatientRows) -> Vector:
        """Counts of records by label and score bin, shape (2 * bins,)."""
        scores = self.architecture.log_odds(self.parameters, rows.codes)
        cells = np.floor((scores / self.limit + 1.0) * (self.bins / 2))
        cells = np.clip(cells, 0, self.bins - 1) + self.bins * rows.labels
        return clipped_patient_counts(
            cells.astype(np.intp), rows.patient_of_row, n_cells=2 * self.bins, bound=self.clip
        )


@dataclass(frozen=True, slots=True)
class NeuralEvaluationQuery(EvaluationQuery):
    """An `EvaluationQuery` of a network.

    Attributes:
        parameters: Shape (n_parameters,).
        tables: See `Architecture`, like the next three.
        table_shapes: Shape (n_features, 2), int64; its codes are those of `n_codes`.
        width: Coordinates of an embedding.
        hidden: Units of each hidden layer, shape (n_layers,), int64.

    Raises:
        ValueError: The fields are out of range or do not fit together.
    """

    parameters: Vector
    tables: Vector
    table_shapes: NDArray[np.int64]
    width: int
    hidden: NDArray[np.int64]

    def __post_init__(self) -> None:
        EvaluationQuery.__post_init__(self)
        _check_parameters(self.architecture, self.parameters)
        if not np.array_equal(self.n_codes, self.table_shapes[:, 0]):
            raise ValueError("n_codes are not the codes of the network's features")

    @property
    def architecture(self) -> Architecture:
        """The network's shape."""
        return Architecture(self.tables, self.table_shapes, self.width, self.hidden)

    def scores(self, rows: PatientRows) -> Vector:
        """See `EvaluationQuery`, and `Architecture.log_odds`."""
        return self.architecture.log_odds(self.parameters, rows.codes)


def require_torch() -> None:
    """Make sure that gradients of networks can be computed here.

    Raises:
        TorchMissingError: They cannot.
    """
    try:
        import models.neural_gradients  # noqa: F401 - a broken installation shows only here
    except (ImportError, OSError) as error:
        raise TorchMissingError(
            f"networks are trained with torch and Opacus, which cannot be loaded here ({error}): "
            "pip install 'shared-ground-truth[neural]'"
        ) from None


def _check_parameters(architecture: Architecture, parameters: Vector) -> None:
    n = architecture.n_parameters
    if parameters.shape != (n,) or not (np.abs(parameters) <= LIMIT).all():
        raise ValueError(f"the network needs {n} parameters within {LIMIT:g}")
