"""The neural model: a small network with an embedding per category, beside an additive part.

    log-odds = bias + sum over categories of direct[level] + output @ [hidden, numbers]
    hidden   = layers over [embedding of each category, numbers]

Whatever an additive model with straight lines can say has a way of its own to the score and is
learned in the first rounds; the layers are left with what features do together. Activations are
z / sqrt(1 + z^2): bounded, so that gradients stay near the clip, and made of operations that round
the same everywhere. There is no normalisation over a batch: it would mix patients.

This module is NumPy alone, so a model is served without torch. Gradients are in
`models.neural_gradients`.
"""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data_contracts.features import Codes
from models.queries import sigmoid

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Levels = NDArray[np.int64]

LIMIT: Final = 1e3
"""Largest magnitude of a parameter or of a number's value. Honest ones stay below ten; far above,
products over the layers overflow."""

MAX_HIDDEN: Final = 512
"""Units of a hidden layer, at most."""

MAX_LAYERS: Final = 4
"""Hidden layers, at most."""

MAX_WIDTH: Final = 64
"""Coordinates of an embedding, at most."""

_MAX_CODES = 255


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a network looks like; with a vector of parameters it is the network.

    Attributes:
        tables: Values of each number's columns at each code, as `models.queries.pack_tables` packs
            them.
        table_shapes: Codes and columns of each feature, shape (n_features, 2), int64. A feature
            without columns is a category and gets an embedding.
        width: Coordinates of an embedding.
        hidden: Units of each hidden layer, shape (n_layers,), int64.

    Raises:
        ValueError: A field is out of range, or they do not fit together.

    Source: Cheng et al., "Wide & Deep Learning for Recommender Systems" (DLRS 2016), for the two
    ways to the score; Papernot et al., "Tempered Sigmoid Activations for Deep Learning with
    Differential Privacy" (AAAI 2021), for bounded activations; Carlile et al., "Improving Deep
    Learning by Inverse Square Root Linear Units" (2017), for this one.
    """

    tables: Vector
    table_shapes: NDArray[np.int64]
    width: int
    hidden: NDArray[np.int64]

    def __post_init__(self) -> None:
        shapes = self.table_shapes
        if shapes.ndim != 2 or shapes.shape[1] != 2 or shapes.dtype != np.int64 or not shapes.size:
            raise ValueError("table_shapes must hold codes and columns of every feature")
        codes, columns = shapes[:, 0], shapes[:, 1]
        if not ((codes >= 1) & (codes <= _MAX_CODES) & (columns >= 0) & (columns <= 64)).all():
            raise ValueError(f"a feature has 1 to {_MAX_CODES} codes and up to 64 columns")
        if self.tables.shape != (int((codes * columns).sum()),):
            raise ValueError("the tables do not have the shapes that are said of them")
        if not (np.abs(self.tables) <= LIMIT).all():
            raise ValueError(f"values of numbers must lie within {LIMIT:g}")
        if not (isinstance(self.width, int) and 1 <= self.width <= MAX_WIDTH):
            raise ValueError(f"an embedding has 1 to {MAX_WIDTH} coordinates, not {self.width}")
        if self.hidden.ndim != 1 or self.hidden.dtype != np.int64:
            raise ValueError("hidden must hold the units of each layer, as whole numbers")
        if not (
            1 <= self.hidden.size <= MAX_LAYERS
            and ((self.hidden >= 1) & (self.hidden <= MAX_HIDDEN)).all()
        ):
            raise ValueError(f"a network has 1 to {MAX_LAYERS} layers of 1 to {MAX_HIDDEN} units")

    @property
    def n_levels(self) -> int:
        """Codes of all categories together."""
        return int(self.table_shapes[self._embedded, 0].sum())

    @property
    def n_embedded(self) -> int:
        """Number of categories."""
        return int(self._embedded.sum())

    @property
    def n_columns(self) -> int:
        """Columns of all numbers together."""
        return int(self.table_shapes[:, 1].sum())

    @property
    def layer_sizes(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of each layer; the last one also sees the numbers as they are."""
        inputs = [self.n_embedded * self.width + self.n_columns, *self.hidden.tolist()]
        inputs[-1] += self.n_columns
        return tuple(zip(inputs, [*self.hidden.tolist(), 1], strict=True))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameters in their order: embeddings, then weights and biases by layer.

        The last column of the embeddings is the level's direct contribution to the log-odds.
        """
        layers = [shape for n_in, n_out in self.layer_sizes for shape in ((n_out, n_in), (n_out,))]
        return (self.n_levels, self.width + 1), *layers

    @property
    def n_parameters(self) -> int:
        """Length of the vector of parameters."""
        return sum(math.prod(shape) for shape in self.shapes)

    def split(self, parameters: Vector) -> list[NDArray[np.float64]]:
        """Views of a vector of parameters as arrays of `shapes`."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        parts = np.split(parameters, ends)
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def inputs(self, codes: Codes) -> tuple[Levels, Matrix]:
        """What the network reads of each row; codes beyond a feature's last count as its last.

        Returns:
            Rows of the embedding table, shape (n, n_embedded), and the numbers' columns, shape
            (n, n_columns).
        """
        levels = np.empty((len(codes), self.n_embedded), dtype=np.int64)
        numbers = np.empty((len(codes), self.n_columns))
        first = offset = column = category = 0
        for feature, (height, width) in enumerate(self.table_shapes.tolist()):
            if width:
                table = self.tables[offset : offset + height * width].reshape(height, width)
                numbers[:, column : column + width] = table.take(
                    codes[:, feature], axis=0, mode="clip"
                )
                offset, column = offset + height * width, column + width
            else:
                levels[:, category] = np.minimum(codes[:, feature], height - 1)
                levels[:, category] += first  # in 64 bits: codes have 8
                first, category = first + height, category + 1
        return levels, numbers

    def initial(self, seed: int, base_rate: float) -> Vector:
        """Parameters to start from, which everybody can draw again from the public seed.

        Embeddings are standard normal and weights scaled to keep that variance (LeCun et al. 1998).
        What leads to the score is zero: every row starts at the base rate.
        """
        embedding, *layers = (
            np.random.default_rng(seed).standard_normal(shape) for shape in self.shapes
        )
        embedding[:, -1] = 0.0
        for weights, bias in zip(layers[::2], layers[1::2], strict=True):
            weights /= math.sqrt(max(weights.shape[1], 1))
            bias[:] = 0.0
        layers[-2][:] = 0.0
        layers[-1][:] = math.log(base_rate / (1 - base_rate))
        return np.concatenate([part.ravel() for part in (embedding, *layers)])

    def log_odds(self, parameters: Vector, codes: Codes) -> Vector:
        """Score of each row, shape (n,).

        Guarantees:
            A row's score is the same to the last bit whatever rows are beside it: it is made value
            by value of sums, products, quotients and square roots in a fixed order, each of which
            IEEE 754 rounds in one way. A score on the edge of a histogram's bin stays on its side
            when other patients come or go.
        """
        embedding, *layers = self.split(parameters)
        *inner, last = zip(layers[::2], layers[1::2], strict=True)
        scores = np.empty(len(codes))
        for start in range(0, len(codes), 1000):
            levels, numbers = self.inputs(codes[start : start + 1000])
            found = embedding[levels]
            flat = found[..., :-1].reshape(len(levels), self.n_embedded * self.width)
            hidden = np.hstack([flat, numbers])
            for weights, bias in inner:
                sums = _layer(hidden, weights, bias)
                hidden = sums / np.sqrt(1.0 + np.square(sums))
            score = _layer(np.hstack([hidden, numbers]), *last)[:, 0]
            for category in range(self.n_embedded):
                score = score + found[:, category, -1]
            scores[start : start + len(levels)] = score
        return scores

    def recalibrated(self, parameters: Vector, slope: float, shift: float) -> Vector:
        """Parameters with which every score is slope * score + shift, shape (n_parameters,)."""
        changed = parameters.copy()
        embedding, *layers = self.split(changed)
        embedding[:, -1] *= slope
        layers[-2][:] *= slope
        layers[-1][:] = slope * layers[-1] + shift
        return changed

    @property
    def _embedded(self) -> NDArray[np.bool_]:
        return np.asarray(self.table_shapes[:, 1] == 0)


def _layer(inputs: Matrix, weights: Matrix, bias: Vector) -> Matrix:
    """A layer's sums, term by term: a matrix product adds in an order of its own."""
    total = np.tile(bias, (len(inputs), 1))
    for value, weight in zip(inputs.T, weights.T, strict=True):
        total += value[:, None] * weight
    return total


@dataclass(frozen=True, slots=True)
class NeuralModel:
    """A trained network.

    Attributes:
        features: Names of the features, in the order of the codes.
        architecture: The network's shape.
        parameters: Shape (n_parameters,), float32.

    Raises:
        ValueError: The parameters are not finite or of another number.
    """

    features: tuple[str, ...]
    architecture: Architecture
    parameters: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = self.architecture.n_parameters
        if self.parameters.shape != (n,) or not np.isfinite(self.parameters).all():
            raise ValueError(f"the network needs {n} finite parameters")
        if len(self.features) != len(self.architecture.table_shapes):
            raise ValueError("every feature of the network needs a name")

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return self.parameters.size

    def log_odds(self, codes: Codes) -> Vector:
        """Score of each row, shape (n,)."""
        return self.architecture.log_odds(self.parameters.astype(np.float64), codes)

    def probability(self, codes: Codes) -> Vector:
        """Probability of each row, shape (n,)."""
        return sigmoid(self.log_odds(codes))

    def to_json(self) -> str:
        """The model as text; numbers round-trip exactly."""
        architecture = self.architecture
        return json.dumps(
            {
                "family": "neural",
                "features": list(self.features),
                "tables": architecture.tables.tolist(),
                "table_shapes": architecture.table_shapes.tolist(),
                "width": architecture.width,
                "hidden": architecture.hidden.tolist(),
                "parameters": base64.b64encode(self.parameters.astype("<f4").tobytes()).decode(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "NeuralModel":
        """The model that `to_json` wrote."""
        raw: Mapping[str, Any] = json.loads(text)
        parameters = np.frombuffer(base64.b64decode(raw["parameters"]), dtype="<f4")
        return cls(
            features=tuple(raw["features"]),
            architecture=Architecture(
                tables=np.asarray(raw["tables"], dtype=np.float64),
                table_shapes=np.asarray(raw["table_shapes"], dtype=np.int64).reshape(-1, 2),
                width=int(raw["width"]),
                hidden=np.asarray(raw["hidden"], dtype=np.int64),
            ),
            parameters=parameters.astype(np.float32),
        )
