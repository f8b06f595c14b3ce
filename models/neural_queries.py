"""What a site is asked while a network is trained; see `models.queries`.

Only the answer to `PatientGradientQuery` needs torch, so everybody can read and check the queries.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_contracts.errors import GroundTruthError
from models.clipping import LEAST_BOUND, clipped_patient_counts
from models.neural import LIMIT, Architecture
from models.neural_rounding import gradient_rounding
from models.patients import PatientRows

Vector = NDArray[np.float64]
Words = NDArray[np.uint64]

ROUNDING: Final = 2.0**-27
"""How far rounding may move a patient's gradient when others come or go, in clips per record. The
networks of honest trainings stay below a quarter of it."""


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
        sample_rate: Probability with which each patient takes part, independently of all others.
        max_records: Records of a patient, at most.
        max_patients: More patients than stand at any site.

    Raises:
        ValueError: The fields are out of range or do not fit together; or rounding could move a
            patient's gradient by more than `ROUNDING`.

    Guarantees:
        Adding or removing one patient with any number of records changes the answer by at most
        `sensitivity` in L2, whichever patients take part. With mu = sensitivity / noise, and where
        nobody but the site knows who takes part, a patient pays
        `PrivacyCost.of(mu, sample_rate=sample_rate)` for it.

        The patient's own gradient is at most `clip` long. All others' may come out differently by
        rounding (see `models.neural_rounding`), by ROUNDING * max_records * clip each, which
        `sensitivity` holds for `max_patients` of them.
    """

    parameters: Vector
    tables: Vector
    table_shapes: NDArray[np.int64]
    width: int
    hidden: NDArray[np.int64]
    clip: float
    sample_rate: float
    max_records: int
    max_patients: int
    step = "gradient"

    def __post_init__(self) -> None:
        _check_parameters(self.architecture, self.parameters)
        if not self.clip >= LEAST_BOUND:
            raise ValueError(f"the clipping bound must be positive, not {self.clip}")
        if not 0 < self.sample_rate <= 1:
            raise ValueError(f"the sample rate must lie above 0 and up to 1: {self.sample_rate}")
        if not all(isinstance(n, int) and n >= 1 for n in (self.max_records, self.max_patients)):
            raise ValueError("max_records and max_patients must be positive numbers")
        moved = gradient_rounding(self.architecture, self.parameters, self.max_records)
        if not moved <= ROUNDING * self.max_records * self.clip:
            raise ValueError("the network is so steep that rounding would tell of other patients")

    @property
    def architecture(self) -> Architecture:
        """The network's shape."""
        return Architecture(self.tables, self.table_shapes, self.width, self.hidden)

    @property
    def sensitivity(self) -> float:
        """The clipping bound, and what rounding may move in all other patients' gradients."""
        return self.clip * (1 + self.max_patients * self.max_records * ROUNDING)

    @property
    def n_values(self) -> int:
        """One per parameter."""
        return self.parameters.size

    def answer(self, rows: PatientRows, words: Words | None = None) -> Vector:
        """Sum of the clipped gradients of the patients who take part, shape (n_parameters,).

        Args:
            rows: The site's patients.
            words: A uniform word of the site's own for each patient, shape (n_patients,), from a
                key that nobody else has and that is used for nothing else. Needed, and read, where
                `sample_rate` is below 1.

        Raises:
            ValueError: The words are missing, or the rows are grouped with other `max_records`.
            TorchMissingError: torch or Opacus is not installed.
        """
        if rows.max_records > self.max_records:
            raise ValueError(f"patients have up to {rows.max_records} records here, not fewer")
        if self.sample_rate < 1:
            if words is None:
                raise ValueError("a query of sampled patients needs the site's own random words")
            rows = sample_patients(rows, self.sample_rate, words)
        try:
            from models.neural_gradients import clipped_gradient_sum
        except ImportError:
            raise TorchMissingError(
                "networks are trained with torch and Opacus, which are not installed here: "
                "pip install 'shared-ground-truth[neural]'"
            ) from None
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


def sample_patients(rows: PatientRows, sample_rate: float, words: Words) -> PatientRows:
    """The patients who take part: each independently, with all its records or none.

    Args:
        rows: All patients.
        sample_rate: Probability of each, below 1; rounded down to a multiple of 2^-64.
        words: Independent uniform words, shape (n_patients,).

    Raises:
        ValueError: There is not one word for each patient.
    """
    if words.shape != (rows.n_patients,) or words.dtype != np.uint64:
        raise ValueError("sampling needs one word of 64 bits for each patient")
    taken = words < np.uint64(int(sample_rate * 2.0**64))
    counts = np.diff(rows.starts, append=rows.n_rows)
    kept, sizes = np.repeat(taken, counts), counts[taken]
    return PatientRows(
        codes=np.asfortranarray(rows.codes[kept]),
        labels=rows.labels[kept],
        starts=np.cumsum(sizes) - sizes,
        weights=rows.weights[kept],
        max_records=rows.max_records,
    )


def _check_parameters(architecture: Architecture, parameters: Vector) -> None:
    n = architecture.n_parameters
    if parameters.shape != (n,) or not (np.abs(parameters) <= LIMIT).all():
        raise ValueError(f"the network needs {n} parameters within {LIMIT:g}")
