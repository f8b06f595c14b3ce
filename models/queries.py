"""What a site is asked: every question is a value whose answer has a known L2 sensitivity.

A query is a frozen dataclass of arrays and numbers, so it travels as it is. Its answer is a sum
over patients; `sensitivity` bounds how far one patient can move that sum, and depends on nothing
but the query itself. Together they are all that a release needs.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.clipping import LEAST_BOUND, clipped_patient_counts, clipped_patient_sum
from models.mechanisms import LEAST_ROUNDING
from models.patients import PatientRows

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class Query(Protocol):
    """A question to every site."""

    @property
    def step(self) -> str:
        """Name of the step that it belongs to; the privacy plan prices steps."""
        ...

    @property
    def sensitivity(self) -> float:
        """L2 distance by which adding or removing one patient can change the answer."""
        ...

    @property
    def rounding(self) -> float:
        """How far rounding may move a patient's vector when others come or go, in sensitivities."""
        ...

    @property
    def n_values(self) -> int:
        """Length of the answer, d."""
        ...

    def answer(self, rows: PatientRows) -> Vector:
        """The sum over the site's patients, shape (d,), without noise."""
        ...


@dataclass(frozen=True, slots=True)
class HistogramQuery:
    """How often does each code of each feature occur, and each label?

    Attributes:
        n_codes: Number of codes of each feature, shape (n_features,), int64.
    """

    n_codes: NDArray[np.int64]
    step = "histogram"
    rounding = LEAST_ROUNDING

    @property
    def sensitivity(self) -> float:
        """A patient adds one to each histogram, to the labels and (at most) to the records."""
        return math.sqrt(self.n_codes.size + 2)

    @property
    def n_values(self) -> int:
        """A block per feature, two labels, records."""
        return int(self.n_codes.sum()) + 3

    def answer(self, rows: PatientRows) -> Vector:
        """Patient-weighted counts: a block per feature, labels 0 and 1, records / max_records."""
        total = np.zeros(self.n_values)
        for block in rows.blocks():
            counts = [
                np.bincount(block.codes[:, feature], block.weights, minlength=int(size))
                for feature, size in enumerate(self.n_codes)
            ]
            ones = float(block.weights @ block.labels)
            rest = [block.n_patients - ones, ones, block.n_rows / rows.max_records]
            total += np.concatenate([*counts, rest])
        return total


@dataclass(frozen=True, slots=True)
class GramQuery:
    """How do the columns of different features go together?

    Attributes:
        tables: Values of each feature's columns at each code; see `pack_tables`.
        table_shapes: Shape of each table, shape (n_features, 2), int64.
        row_bound: L2 bound on a design row; longer rows are scaled down.
    """

    tables: Vector
    table_shapes: NDArray[np.int64]
    row_bound: float
    step = "gram"
    rounding = LEAST_ROUNDING

    def __post_init__(self) -> None:
        if not self.row_bound >= LEAST_BOUND:
            raise ValueError(f"the bound on rows must be positive, not {self.row_bound}")

    @property
    def sensitivity(self) -> float:
        """A patient's weighted mean of outer products has Frobenius norm <= row_bound^2."""
        return self.row_bound**2

    @property
    def n_values(self) -> int:
        """The upper triangle."""
        return (d := int(self.table_shapes[:, 1].sum())) * (d + 1) // 2

    def answer(self, rows: PatientRows) -> Vector:
        """Upper triangle of the weighted Gram matrix, off-diagonal entries times sqrt(2).

        The factor makes the vector's L2 norm the matrix's Frobenius norm.
        """
        d = int(self.table_shapes[:, 1].sum())
        gram = np.zeros((d, d))
        for block in rows.blocks():
            design = design_matrix(self.tables, self.table_shapes, block)
            norms = np.sqrt(np.einsum("ij,ij->i", design, design))
            scale = 1.0 / np.maximum(norms / self.row_bound, 1.0)
            design *= (scale * np.sqrt(block.weights))[:, None]
            gram += design.T @ design
        upper = np.triu_indices(d)
        factors = np.where(upper[0] == upper[1], 1.0, math.sqrt(2.0))
        return np.asarray(gram[upper] * factors)


@dataclass(frozen=True, slots=True)
class GradientQuery:
    """In which direction does the logistic loss fall?

    Attributes:
        tables: Values of each feature's columns at each code, in whitened coordinates.
        table_shapes: Shape of each table, shape (n_features, 2), int64.
        whitening: Maps design rows to whitened coordinates, shape (n_columns, n_columns).
        coefficients: Current coefficients in whitened coordinates, intercept first, shape
            (n_columns + 1,).
        clip: L2 bound on a patient's gradient; math.inf only where nothing is private.
    """

    tables: Vector
    table_shapes: NDArray[np.int64]
    whitening: Matrix
    coefficients: Vector
    clip: float
    step = "gradient"
    rounding = LEAST_ROUNDING

    @property
    def sensitivity(self) -> float:
        """The clipping bound."""
        return self.clip

    @property
    def n_values(self) -> int:
        """Intercept and columns."""
        return self.coefficients.size

    def answer(self, rows: PatientRows) -> Vector:
        """Sum over patients of their clipped gradient, shape (n_columns + 1,).

        Raises:
            ValueError: Rounding alone could change a patient's gradient from one set of patients to
                another, by more than `models.mechanisms.float_slack` allows for.
        """
        if not self._moved(rows.max_records) <= self.rounding * self.clip:
            raise ValueError("terms of the gradient cancel so far that rounding would tell")
        total = np.zeros(self.coefficients.size)
        for block in rows.blocks():
            columns = design_matrix(self.tables, self.table_shapes, block)
            design = np.ones((block.n_rows, self.coefficients.size))
            np.matmul(columns, self.whitening, out=design[:, 1:])
            residuals = sigmoid(design @ self.coefficients) - block.labels
            total += (
                residuals @ design
                if math.isinf(self.clip)
                else clipped_patient_sum(design, residuals, block.starts, self.clip)
            )
        return total

    def _moved(self, max_records: int) -> float:
        """A bound on how far rounding moves a patient's gradient, in L2; follows from the query.

        A matrix product may add up in another order where a row lies elsewhere, and a query can be
        made in which little else than rounding errors is left of a row: clipped, they would be
        another vector of full length with every patient that comes or goes. The bound is that of
        Higham (2002), section 3.5, from the absolute values of all terms.
        """
        whitening, coefficients = np.abs(self.whitening), np.abs(self.coefficients)
        length = 1.0
        score = float(coefficients[0])
        offset = column = 0
        for height, width in self.table_shapes.tolist():
            table = np.abs(self.tables[offset : offset + height * width]).reshape(height, width)
            terms = table @ whitening[column : column + width]
            length += float(np.linalg.norm(terms, axis=1).max())
            score += float((terms @ coefficients[1:]).max())
            offset, column = offset + height * width, column + width
        return 2 * max_records * (column + 8) * 2.0**-53 * length * (1 + score / 4)


@dataclass(frozen=True, slots=True)
class ScoreQuery(ABC):
    """How often does the label occur at each score? Families say what the score of a row is.

    Attributes:
        bins: Number of score bins.
        limit: Scores are binned evenly on [-limit, limit] log-odds; the rest falls to the ends.
        clip: L2 bound on a patient's counts. The square root of the patient's largest number of
            records clips only patients with several records in one cell.

    Raises:
        ValueError: A field is out of range.
    """

    bins: int
    limit: float
    clip: float
    step = "recalibration"
    rounding = LEAST_ROUNDING

    @abstractmethod
    def scores(self, rows: PatientRows) -> Vector:
        """Log-odds of each row, shape (n_rows,): the same to the last bit whatever rows are there.

        A score on the edge of a bin would otherwise change sides when other patients come or go.
        """

    def __post_init__(self) -> None:
        if not (0 < self.limit < math.inf and isinstance(self.bins, int) and self.bins >= 1):
            raise ValueError("a score query needs a positive limit and one bin at least")
        if not self.clip >= LEAST_BOUND:
            raise ValueError(f"the clipping bound must be positive, not {self.clip}")

    @property
    def sensitivity(self) -> float:
        """The clipping bound."""
        return self.clip

    @property
    def n_values(self) -> int:
        """A block of bins per label."""
        return 2 * self.bins

    def answer(self, rows: PatientRows) -> Vector:
        """Counts of records by label and score bin, shape (2 * bins,)."""
        total = np.zeros(self.n_values)
        for block in rows.blocks():
            cells = np.floor((self.scores(block) / self.limit + 1.0) * (self.bins / 2))
            cells = np.clip(cells, 0, self.bins - 1) + self.bins * block.labels
            total += clipped_patient_counts(
                cells.astype(np.intp), block.patient_of_row, n_cells=self.n_values, bound=self.clip
            )
        return total


@dataclass(frozen=True, slots=True)
class AdditiveScoreQuery(ScoreQuery):
    """A `ScoreQuery` of an additive model.

    Attributes:
        shapes: Contribution of every code, all features one after the other.
        n_codes: Number of codes of each feature, shape (n_features,), int64.
        intercept: Intercept of the score, in log-odds.
    """

    shapes: Vector
    n_codes: NDArray[np.int64]
    intercept: float

    def scores(self, rows: PatientRows) -> Vector:
        """See `ScoreQuery`: contributions are added up feature by feature."""
        return scores_of(self.shapes, self.n_codes, self.intercept, rows)


def scores_of(
    shapes: Vector, n_codes: NDArray[np.int64], intercept: float, rows: PatientRows
) -> Vector:
    """Log-odds of each row, shape (n_rows,).

    Args:
        shapes: Contribution of every code, all features one after the other.
        n_codes: Number of codes of each feature, shape (n_features,).
        intercept: Intercept.
        rows: The rows.
    """
    scores = np.full(rows.n_rows, intercept)
    offset = 0
    for feature, size in enumerate(n_codes.tolist()):
        scores += np.take(shapes[offset : offset + size], rows.codes[:, feature])
        offset += size
    return scores


def pack_tables(tables: tuple[Matrix, ...]) -> tuple[Vector, NDArray[np.int64]]:
    """Tables as one vector and their shapes."""
    shapes = np.array([table.shape for table in tables], dtype=np.int64).reshape(-1, 2)
    return np.concatenate([table.ravel() for table in tables]), shapes


def design_matrix(tables: Vector, shapes: NDArray[np.int64], rows: PatientRows) -> Matrix:
    """Design matrix of packed tables, shape (n_rows, n_columns)."""
    design = np.empty((rows.n_rows, int(shapes[:, 1].sum())))
    offset = column = 0
    for feature, (height, width) in enumerate(shapes.tolist()):
        table = tables[offset : offset + height * width].reshape(height, width)
        design[:, column : column + width] = table[rows.codes[:, feature]]
        offset, column = offset + height * width, column + width
    return design


def sigmoid(scores: Vector) -> Vector:
    """1 / (1 + exp(-scores)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)))
