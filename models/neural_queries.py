"""What a site is asked while a network is trained; see `models.queries`.

Only the answer to `PatientGradientQuery` needs torch, so everybody can read and check the queries.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.errors import GroundTruthError
from models.clipping import LEAST_BOUND
from models.mechanisms import LEAST_ROUNDING
from models.neural import LIMIT, Architecture
from models.neural_rounding import gradient_rounding
from models.patients import PatientRows
from models.queries import ScoreQuery
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
        _check_parameters(_architecture(self), self.parameters)
        if not self.clip >= LEAST_BOUND:
            raise ValueError(f"the clipping bound must be positive, not {self.clip}")
        if not LEAST_ROUNDING <= self.rounding <= 1:
            raise ValueError(f"rounding must lie between 2^-31 and 1, not {self.rounding}")

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
        moved = gradient_rounding(_architecture(self), self.parameters, rows.max_records)
        if not moved <= self.rounding * self.clip:
            raise ValueError("the network is so steep that rounding would tell of other patients")
        require_torch()
        from models.neural_gradients import clipped_gradient_sum

        return clipped_gradient_sum(_architecture(self), self.parameters, rows, self.clip)


@dataclass(frozen=True, slots=True)
class NeuralScoreQuery(ScoreQuery):
    """A `models.queries.ScoreQuery` of a network.

    Attributes:
        parameters: Shape (n_parameters,).
        tables: See `Architecture`, like the next three.
        table_shapes: Shape (n_features, 2), int64.
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
        ScoreQuery.__post_init__(self)
        _check_parameters(_architecture(self), self.parameters)

    def scores(self, rows: PatientRows) -> Vector:
        """See `ScoreQuery`, and `Architecture.log_odds`."""
        return _architecture(self).log_odds(self.parameters, rows.codes)


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
        _check_parameters(_architecture(self), self.parameters)
        if not np.array_equal(self.n_codes, self.table_shapes[:, 0]):
            raise ValueError("n_codes are not the codes of the network's features")

    def scores(self, rows: PatientRows) -> Vector:
        """See `EvaluationQuery`, and `Architecture.log_odds`."""
        return _architecture(self).log_odds(self.parameters, rows.codes)


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


def _architecture(
    query: PatientGradientQuery | NeuralScoreQuery | NeuralEvaluationQuery,
) -> Architecture:
    return Architecture(query.tables, query.table_shapes, query.width, query.hidden)


def _check_parameters(architecture: Architecture, parameters: Vector) -> None:
    n = architecture.n_parameters
    if parameters.shape != (n,) or not (np.abs(parameters) <= LIMIT).all():
        raise ValueError(f"the network needs {n} parameters within {LIMIT:g}")
