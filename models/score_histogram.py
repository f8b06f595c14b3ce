"""The question behind an evaluation: how often does each label occur at each score?

One noisy histogram of the held-out patients tells how well a model ranks, how well its
probabilities fit, and both for subgroups. Nothing else is asked: every figure of
`models.evaluation` is computed from the answer.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.clipping import LEAST_BOUND
from models.mechanisms import LEAST_ROUNDING
from models.patients import PatientRows
from models.queries import scores_of, sigmoid
from models.recalibration import Recalibration

Vector = NDArray[np.float64]
Array = NDArray[np.float64]

SCORE_BINS: Final = 12
"""Score bins of an evaluation. Measured at 15 000 records with 11 % positives: the error of the
AUROC is 0.0064 with 6 to 48 bins; noise of standard deviation 3 in each value makes it 0.0070 with
12 bins and 0.0075 with 24, noise of 10 makes it 0.011 and 0.014. With 6 bins, mean precision is
0.004 too high."""

GROUP_BINS: Final = 4
"""Score bins within a subgroup. They cost up to 0.002 of AUROC, well within a subgroup's error;
noise of 10 makes the error of a subgroup of 4500 records 0.021, and 0.036 with 12 bins."""

_PATIENTS_SHARE = 0.02
"""Share of the squared budget for the number of patients, which only widens intervals."""

_OVERALL_SHARE = 0.6
"""Share for all records together; group features divide the rest evenly."""


@dataclass(frozen=True, slots=True)
class ScoreBins:
    """Bins of the score.

    Attributes:
        edges: Edges between fine bins in log-odds, ascending. The outer bins are open.
        merge: Fine bins in a bin.
    """

    edges: Vector
    merge: int = 1

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return (self.edges.size + 1) // self.merge

    @property
    def middle(self) -> Vector:
        """Probability halfway between the ends of each bin, shape (n_bins,)."""
        ends = self._ends()
        return np.asarray((ends[1:] + ends[:-1]) / 2)

    @property
    def width(self) -> Vector:
        """Width of each bin in probability, shape (n_bins,)."""
        return np.diff(self._ends())

    def place(self, scores: Vector) -> tuple[NDArray[np.intp], Vector]:
        """Bin of each score, and the position of its probability there, from -1/2 to 1/2.

        Positions are in units of the bin's width: middle + width * position is the probability.
        Their sum makes up for all that counts by bin do not tell of the mean probability.
        """
        found = np.searchsorted(self._inner(), scores, side="right")
        width = np.maximum(self.width, 1e-300)  # far out, edges may share a probability
        position = (sigmoid(scores) - self.middle[found]) / width[found]
        return found, np.clip(position, -0.5, 0.5)

    def _inner(self) -> Vector:
        return self.edges[self.merge - 1 :: self.merge]

    def _ends(self) -> Vector:
        return np.concatenate([[0.0], sigmoid(self._inner()), [1.0]])


@dataclass(frozen=True, slots=True)
class ScoreHistogram:
    """Noisy counts of records by level of a feature, label and score bin.

    Attributes:
        bins: The score bins.
        sums: Records of label 0, records of label 1, and summed positions (see
            `ScoreBins.place`) of both, shape (n_levels, 3, n_bins).
        noise_std: Standard deviation of the noise in each value.
    """

    bins: ScoreBins
    sums: Array
    noise_std: float


@dataclass(frozen=True, slots=True)
class EvaluationCounts:
    """What an answer holds, with the weights of its blocks undone.

    Attributes:
        patients: Noisy number of patients.
        patients_std: Standard deviation of the noise in it.
        overall: All records, as one level.
        groups: One histogram per group feature, its codes as levels.
    """

    patients: float
    patients_std: float
    overall: ScoreHistogram
    groups: tuple[ScoreHistogram, ...]


@dataclass(frozen=True, slots=True)
class EvaluationQuery(ABC):
    """How often does each label occur at each score, overall and in subgroups?

    The answer is one vector of weighted blocks: the number of patients, all records by bin, and for
    every group feature its levels by bin. Families say what the score of a row is.

    Attributes:
        n_codes: Number of codes of each feature, shape (n_features,), int64.
        edges: Inner edges of the score bins in log-odds, ascending, shape (n_bins - 1,).
        groups: Features whose codes, "missing" included, are subgroups, shape (n_groups,), int64.
        group_bins: Score bins within a subgroup: the score bins, merged. Divides their number.
        clip: L2 bound on a patient's counts. The square root of a patient's largest number of
            records clips hardly any but patients with several records in one cell, who count for
            less in every figure. Infinite, it clips nobody.

    Raises:
        ValueError: The fields do not fit together.

    Guarantees:
        Adding or removing one patient with any number of records changes the answer by at most
        `clip` in L2. Within block b the patient's values x_b are clipped together, so
        |x_b| <= clip. Block b is multiplied by a public weight w_b with sum of w_b^2 = 1, so the
        patient's whole vector has squared norm sum of w_b^2 |x_b|^2 <= clip^2 * sum of w_b^2 =
        clip^2.

    Source: Cormode and Markov, "Federated Calibration and Evaluation of Binary Classifiers"
    (arXiv 2210.12526, 2022), for evaluation by score histograms.
    """

    n_codes: NDArray[np.int64]
    edges: Vector
    groups: NDArray[np.int64]
    group_bins: int
    clip: float
    step = "evaluation"
    rounding = LEAST_ROUNDING

    @abstractmethod
    def scores(self, rows: PatientRows) -> Vector:
        """Log-odds of each row, shape (n_rows,): the same to the last bit whatever rows are there.

        A score on the edge of a bin would otherwise change sides when other patients come or go.
        """

    def __post_init__(self) -> None:
        for name in ("n_codes", "edges", "groups"):
            if getattr(self, name).ndim != 1:
                raise ValueError(f"{name} must be a vector")
        if self.n_codes.dtype != np.int64 or self.groups.dtype != np.int64:
            raise ValueError("n_codes and groups must be whole numbers")
        if not (self.n_codes.size and (self.n_codes >= 1).all()):
            raise ValueError("every feature needs a code at least")
        if not (self.edges.size and np.isfinite(self.edges).all()):
            raise ValueError("the score bins need an edge at least, and all edges finite")
        if not (np.diff(self.edges) > 0).all():
            raise ValueError("the edges of the score bins must ascend")
        if not ((self.groups >= 0) & (self.groups < self.n_codes.size)).all():
            raise ValueError(f"groups must be features, from 0 to {self.n_codes.size - 1}")
        if np.unique(self.groups).size != self.groups.size:
            raise ValueError("a feature may be a group once only")
        bins = self.edges.size + 1
        if not (isinstance(self.group_bins, int) and self.group_bins >= 1):
            raise ValueError(f"group_bins must be a positive number, not {self.group_bins}")
        if bins % self.group_bins:
            raise ValueError(f"{bins} score bins cannot be merged into {self.group_bins}")
        if not self.clip >= LEAST_BOUND:
            raise ValueError(f"the clipping bound must be positive, not {self.clip}")

    @property
    def sensitivity(self) -> float:
        """The clipping bound."""
        return self.clip

    @property
    def n_values(self) -> int:
        """One for the patients, then 3 per bin, overall and for each level of each group."""
        levels = int(self.n_codes[self.groups].sum())
        return 1 + 3 * (self.edges.size + 1) + 3 * self.group_bins * levels

    def answer(self, rows: PatientRows) -> Vector:
        """The weighted blocks, shape (n_values,)."""
        total = np.zeros(self.n_values)
        for block in rows.blocks():
            total += self._answer(block)
        return total

    def _answer(self, rows: PatientRows) -> Vector:
        scores = self.scores(rows)
        bins = ScoreBins(self.edges)
        everyone = np.zeros(rows.n_rows, dtype=np.intp)
        blocks = [
            np.array([rows.n_patients * self._patient]),
            self._counts(rows, scores, bins, everyone, 1),
        ]
        bins = self._merged
        for feature in self.groups.tolist():
            levels = rows.codes[:, feature].astype(np.intp)
            blocks.append(self._counts(rows, scores, bins, levels, int(self.n_codes[feature])))
        return np.concatenate(
            [weight * block for weight, block in zip(self._weights, blocks, strict=True)]
        )

    def unpack(self, values: Vector, noise_std: float) -> EvaluationCounts:
        """The counts in a noisy sum of answers.

        Args:
            values: Shape (n_values,).
            noise_std: Standard deviation of the noise in each value.

        Raises:
            ValueError: The vector has another length.
        """
        if values.shape != (self.n_values,):
            raise ValueError(f"an answer has {self.n_values} values, not {values.shape}")
        layout = [
            (ScoreBins(self.edges), 1),
            *((self._merged, size) for size in self.n_codes[self.groups].tolist()),
        ]
        first, *weights = self._weights
        histograms = []
        offset = 1
        for (own, levels), weight in zip(layout, weights, strict=True):
            end = offset + 3 * levels * own.n_bins
            sums = values[offset:end].reshape(levels, 3, own.n_bins) / weight
            histograms.append(ScoreHistogram(own, sums, noise_std / weight))
            offset = end
        unit = first * self._patient
        overall, *groups = histograms
        return EvaluationCounts(float(values[0]) / unit, noise_std / unit, overall, tuple(groups))

    @property
    def _merged(self) -> ScoreBins:
        """The bins within a subgroup."""
        return ScoreBins(self.edges, (self.edges.size + 1) // self.group_bins)

    @property
    def _patient(self) -> float:
        """What a patient adds to the count of patients: the bound itself, to drown least."""
        return self.clip if math.isfinite(self.clip) else 1.0

    @property
    def _weights(self) -> list[float]:
        """Weight of each block; their squares add up to 1."""
        n = self.groups.size
        overall = _OVERALL_SHARE if n else 1.0 - _PATIENTS_SHARE
        each = [(1.0 - _PATIENTS_SHARE - overall) / n] * n if n else []
        return [math.sqrt(share) for share in (_PATIENTS_SHARE, overall, *each)]

    def _counts(
        self,
        rows: PatientRows,
        scores: Vector,
        bins: ScoreBins,
        levels: NDArray[np.intp],
        n_levels: int,
    ) -> Vector:
        """A block: sums by level, label and bin, each patient's clipped to `clip` together."""
        found, positions = bins.place(scores)
        first = 3 * bins.n_bins * levels + found
        cells = np.concatenate([first + bins.n_bins * rows.labels.astype(np.intp),
                                first + 2 * bins.n_bins])  # fmt: skip
        values = np.concatenate([np.ones(rows.n_rows), positions])
        n_cells = 3 * bins.n_bins * n_levels
        patients = np.tile(rows.patient_of_row, 2)
        taken, where = np.unique(patients * n_cells + cells, return_inverse=True)
        sums = np.bincount(where, values, minlength=taken.size)
        patient, cell = np.divmod(taken, n_cells)
        # A patient has a record, hence a count: no norm is below 1.
        norms = np.sqrt(np.bincount(patient, sums**2))
        scale = np.minimum(1.0, self.clip / norms)
        return np.asarray(np.bincount(cell, sums * scale[patient], minlength=n_cells))


@dataclass(frozen=True, slots=True)
class AdditiveEvaluationQuery(EvaluationQuery):
    """An `EvaluationQuery` of an additive model.

    Attributes:
        shapes: Contribution of every code, all features one after the other, in log-odds.
        intercept: Intercept of the score, in log-odds.

    Raises:
        ValueError: The fields do not fit together.
    """

    shapes: Vector
    intercept: float

    def __post_init__(self) -> None:
        EvaluationQuery.__post_init__(self)
        if self.shapes.shape != (sum(self.n_codes.tolist()),):
            raise ValueError(
                f"{sum(self.n_codes.tolist())} codes need as many shapes, not {self.shapes.shape}"
            )
        if not (np.isfinite(self.shapes).all() and math.isfinite(self.intercept)):
            raise ValueError("shapes and intercept must be finite")

    def scores(self, rows: PatientRows) -> Vector:
        """See `EvaluationQuery`: contributions are added up feature by feature."""
        return scores_of(self.shapes, self.n_codes, self.intercept, rows)


def score_edges(
    counts: Vector, noise_std: float, limit: float, line: Recalibration, bins: int = SCORE_BINS
) -> Vector:
    """Inner edges of score bins that hold about equal mass.

    Mass is half that of the expected positives and half that of the expected negatives. Bins of
    equal mass of the records alone would be too coarse where a rare label lies.

    Args:
        counts: The noisy sum of the answers to `ScoreQuery`. No record is looked at again.
        noise_std: Standard deviation of the noise in each count.
        limit: Limit of that query, in log-odds.
        line: What recalibration made of it; the edges are those of recalibrated scores.
        bins: Number of bins, 2 at least.

    Returns:
        Ascending, in log-odds, shape (bins - 1,).
    """
    records = counts.reshape(2, -1).sum(axis=0)
    n = records.size
    ends = line.slope * np.linspace(-limit, limit, n + 1) + line.shift
    # Noise that stands out of nothing would stretch the bins; the rest keeps the mass ascending.
    records = np.where(records > 3 * math.sqrt(2) * noise_std, records, 0.0) + 1e-6
    rate = sigmoid((ends[1:] + ends[:-1]) / 2)
    positives, negatives = records * rate, records * (1 - rate)
    mass = positives / positives.sum() + negatives / negatives.sum()
    below = np.concatenate([[0.0], np.cumsum(mass)])
    return np.asarray(np.interp(np.arange(1, bins) * (below[-1] / bins), below, ends))
