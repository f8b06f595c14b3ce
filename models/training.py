"""What every family's training has in common: it asks for noisy sums and gives a model.

A training is a generator: it yields a query and is sent the sum of the sites' answers. Whoever
drives it (one process, Flower, a test) decides how the sum comes about, so pooled and federated
training are the same code.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_contracts.features import Codes
from models.evaluation import Evaluation
from models.queries import HistogramQuery, Query

Vector = NDArray[np.float64]


class Model(Protocol):
    """A trained model of any family."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, in the order of the codes."""
        ...

    def log_odds(self, codes: Codes) -> Vector:
        """Score of each row, shape (n,)."""
        ...

    def probability(self, codes: Codes) -> Vector:
        """Probability of each row, shape (n,)."""
        ...

    def to_json(self) -> str:
        """The model as text, its family under "family"; see `models.families.read_model`."""
        ...


@dataclass(frozen=True, slots=True)
class NoisySum:
    """Sum of the sites' answers.

    Attributes:
        values: Shape (d,).
        noise_std: Standard deviation of the noise in each value; 0 where there is none.
    """

    values: Vector
    noise_std: float


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training gives.

    Attributes:
        model: The model.
        evaluation: How good it is on held-out patients, small cells hidden.
    """

    model: Model
    evaluation: Evaluation


Training = Generator[Query, NoisySum, Trained]


def drive(training: Training, answer: Callable[[Query], NoisySum]) -> Trained:
    """Run a training to its end with a function that answers its queries."""
    query = next(training)
    while True:
        try:
            query = training.send(answer(query))
        except StopIteration as done:
            trained: Trained = done.value
            return trained


def largest_queries(
    training: Training, *, max_records: int, private: bool = True
) -> Iterator[Query]:
    """Every query of a training, in order, with as many columns as the grids allow.

    The training itself is run on made-up sums in which every code is about equally frequent and
    nothing else is known. Its sensitivities and lengths bound those of any real run, and are those
    of a run in which no code is too rare for a column.

    Args:
        training: The training, not yet begun.
        max_records: Records of a patient that are used at most.
        private: Whether sums carry noise.
    """
    query = next(training)
    while True:
        yield query
        values = np.zeros(query.n_values)
        if isinstance(query, HistogramQuery):
            # Rising a little, so that no knot falls on the border of two cells by rounding.
            shares = [1.0 + 1e-6 * np.arange(size) for size in query.n_codes.tolist()]
            shares = [share / share.sum() for share in shares]
            values = _MANY * np.concatenate([*shares, [0.5, 0.5, 1.0 / max_records]])
        try:
            query = training.send(NoisySum(values, noise_std=1.0 if private else 0.0))
        except StopIteration:
            return


_MANY = 1e9  # patients, so that every code stands out of noise of 1
