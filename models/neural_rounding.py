"""How far rounding can move a patient's gradient of a network when other patients come or go.

A matrix product may add in another order where a row lies elsewhere in a block. A network can be
made in which little else than the errors of that is left of a patient: clipped, they would be
another vector of full length with every patient that comes or goes.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.neural import Architecture

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_UNIT: Final = 2.0**-53


def gradient_rounding(architecture: Architecture, parameters: Vector, max_records: int) -> float:
    """A bound on the L2 distance of two computed gradients of the same patient.

    Errors are followed through a forward and a backward pass, in units of u = 2^-53 and to first
    order. A product over n terms errs by

        |error of W a| <= (n + 4) u |W|_F |a| + |W|_2 |error of a|,

    where 4 more make up for all higher orders. Activations, their slopes and residuals lie within
    1, and a slope changes by no more than its sum.

    Args:
        architecture: The network's shape.
        parameters: Shape (n_parameters,).
        max_records: Records of a patient, at most.

    Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), Sections 3.1, 3.5.
    """
    embedding, *parts = architecture.split(parameters)
    layers = list(zip(parts[::2], parts[1::2], strict=True))
    coordinates, direct, numbers = _largest(architecture, embedding)
    length, error = [math.hypot(coordinates, numbers)], [0.0]  # of what goes into each layer
    for weights, bias in layers:
        of_bias = (weights.shape[1] + 4) * _norm(bias)
        of_activation = 4 * math.sqrt(bias.size)
        error.append(_product_error(weights, length[-1], error[-1]) + of_bias + of_activation)
        length.append(math.hypot(math.sqrt(bias.size), numbers))

    # Of the loss with respect to a layer's sums. The last is a residual: a sigmoid less a label.
    slope, slope_error = 1.0, (error[-1] + (architecture.n_embedded + 4) * direct) / 4 + 8
    directly = math.sqrt(architecture.n_embedded)
    total_error, total = directly * slope_error, directly
    for layer in reversed(range(len(layers))):
        weights = layers[layer][0]
        total_error += slope_error * (length[layer] + 1)
        total_error += slope * (error[layer] + 2 * length[layer])
        total += slope * (length[layer] + 1)
        slope_error = _product_error(weights.T, slope, slope_error)
        slope *= _spectral(weights)
        if layer:
            slope_error += slope * (error[layer] + 16)
    # What came out last is the gradient of the embeddings.
    of_record = total_error + slope_error + (max_records + 4) * (total + slope)
    return 2 * max_records * _UNIT * of_record


def _largest(architecture: Architecture, embedding: Matrix) -> tuple[float, float, float]:
    """Over all rows: length of the embeddings, sum of |direct|, length of the numbers."""
    coordinates = direct = numbers = 0.0
    first = offset = 0
    for height, width in architecture.table_shapes.tolist():
        if width:
            table = architecture.tables[offset : offset + height * width].reshape(height, width)
            numbers += float((table**2).sum(axis=1).max())
            offset += height * width
        else:
            block = embedding[first : first + height]
            coordinates += float((block[:, :-1] ** 2).sum(axis=1).max())
            direct += float(np.abs(block[:, -1]).max())
            first += height
    return math.sqrt(coordinates), direct, math.sqrt(numbers)


def _product_error(weights: Matrix, length: float, error: float) -> float:
    """Error of weights @ a, in units, where |a| <= length is known up to error."""
    gamma: int = weights.shape[1] + 4
    return gamma * _norm(weights) * (length + _UNIT * error) + _spectral(weights) * error


def _norm(values: Matrix | Vector) -> float:
    return float(np.linalg.norm(values))


def _spectral(weights: Matrix) -> float:
    return float(np.linalg.svd(weights, compute_uv=False).max())
