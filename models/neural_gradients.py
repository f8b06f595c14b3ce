"""Per-patient gradients of the network, by Opacus. The only module that needs torch.

A patient's records are one example: their losses are added up, their gradient is one vector, and
that vector is clipped.
"""

import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule  # type: ignore[import-untyped] # Opacus ships no types
from opacus.optimizers import DPOptimizer  # type: ignore[import-untyped] # likewise
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from models.neural import Architecture
from models.patients import PatientRows

Vector = NDArray[np.float64]

_MEMORY = 2**25  # bytes of one block's gradients; larger blocks leave the cache and are slower


class Network(nn.Module):
    """The network of `models.neural` in torch, in double precision.

    Args:
        architecture: Its shape.
        parameters: Shape (n_parameters,).
    """

    def __init__(self, architecture: Architecture, parameters: Vector) -> None:
        super().__init__()
        levels = architecture.n_levels
        self.embedding = (
            nn.Embedding(levels, architecture.width + 1, dtype=torch.float64) if levels else None
        )
        self.layers = nn.ModuleList(
            nn.Linear(n_in, n_out, dtype=torch.float64) for n_in, n_out in architecture.layer_sizes
        )
        parts = architecture.split(parameters)
        with torch.no_grad():
            for own, part in zip(self.parameters(), parts if levels else parts[1:], strict=True):
                own.copy_(torch.tensor(part))

    def forward(self, levels: Tensor, numbers: Tensor) -> Tensor:
        """Score of each record.

        Args:
            levels: Rows of the embedding table, shape (..., n_embedded).
            numbers: Columns of the numbers, shape (..., n_columns).

        Returns:
            Log-odds, shape (...).
        """
        hidden, direct = numbers, numbers.new_zeros(())
        if self.embedding is not None:
            found = self.embedding(levels)
            hidden = torch.cat([found[..., :-1].flatten(-2), numbers], dim=-1)
            direct = found[..., -1].sum(dim=-1)
        *inner, last = self.layers
        for layer in inner:
            sums = layer(hidden)
            hidden = sums / torch.sqrt(1.0 + torch.square(sums))
        score: Tensor = last(torch.cat([hidden, numbers], dim=-1)).squeeze(-1) + direct
        return score


def clipped_gradient_sum(
    architecture: Architecture, parameters: Vector, rows: PatientRows, clip: float
) -> Vector:
    """Sum over patients of the gradient of their records' log loss, each clipped in L2.

    Args:
        architecture: The network's shape.
        parameters: Where the gradient is taken, shape (n_parameters,).
        rows: The patients.
        clip: L2 bound on a patient's gradient; math.inf adds up what is, for public data.

    Returns:
        Shape (n_parameters,).

    Guarantees:
        Adding or removing one patient with any number of records changes the exact result by at
        most `clip` in L2. Every patient's gradient is complete and clipped before it meets
        another's; `models.neural_rounding` bounds what rounding adds to that.

    Source: Abadi et al., "Deep Learning with Differential Privacy" (CCS 2016), Algorithm 1, with
    the patient in the place of the example; clipping and adding up are Opacus's.
    """
    total = np.zeros(architecture.n_parameters)
    for block in rows.blocks():
        network = Network(architecture, parameters)
        if math.isinf(clip):
            total += _plain_sum(network, architecture, block)
        else:
            total += _clipped_sum(network, architecture, block, clip)
    return total


def _plain_sum(network: Network, architecture: Architecture, rows: PatientRows) -> Vector:
    levels, numbers = architecture.inputs(rows.codes)
    scores = network(torch.from_numpy(levels), torch.from_numpy(numbers))
    loss = binary_cross_entropy_with_logits(scores, torch.tensor(rows.labels), reduction="sum")
    return _flat(list(torch.autograd.grad(loss, list(network.parameters()))))


def _clipped_sum(
    network: Network, architecture: Architecture, rows: PatientRows, clip: float
) -> Vector:
    samples = GradSampleModule(network, loss_reduction="sum")
    # It clips and adds up; noise is added where sites meet, and the step is the coordinator's.
    optimizer = DPOptimizer(
        torch.optim.SGD(network.parameters(), lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    for levels, numbers, labels, there in _batches(
        architecture, rows, batch_size(architecture, rows)
    ):
        samples.zero_grad(set_to_none=True)
        losses = binary_cross_entropy_with_logits(
            samples(levels, numbers), labels, reduction="none"
        )
        with warnings.catch_warnings():
            # torch warns that inputs need no gradient; Opacus reads gradients of outputs.
            warnings.filterwarnings("ignore", "Full backward hook", UserWarning)
            (losses * there).sum().backward()  # type: ignore[no-untyped-call] # torch leaves it so
        optimizer.clip_and_accumulate()
    return _flat([parameter.summed_grad for parameter in optimizer.params])


def batch_size(architecture: Architecture, rows: PatientRows) -> int:
    """Patients of a batch: by what one may need, never by what they have.

    A patient with many records would tell of itself if memory failed because of it.
    """
    of_record = architecture.n_embedded * (architecture.width + 1)
    of_record += sum(n_in + n_out for n_in, n_out in architecture.layer_sizes)
    values = max(architecture.n_parameters, 2 * rows.max_records * of_record)
    return max(1, _MEMORY // (8 * values))


def _batches(
    architecture: Architecture, rows: PatientRows, size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Levels, numbers, labels and whether the record exists, each (n_patients, n_records, ...).

    Patients with equally many records come together, so that little is padded.
    """
    levels, numbers = architecture.inputs(rows.codes)
    counts = np.diff(rows.starts, append=rows.n_rows)
    order = np.argsort(counts, kind="stable")
    for first in range(0, order.size, size):
        patients = order[first : first + size]
        own = counts[patients, None]
        record = np.arange(own[-1, 0])
        there = record < own
        at = rows.starts[patients, None] + np.where(there, record, 0)
        yield (
            torch.from_numpy(levels[at]),
            torch.from_numpy(numbers[at]),
            torch.from_numpy(rows.labels[at]),
            torch.from_numpy(there.astype(np.float64)),
        )


def _flat(parts: list[Tensor]) -> Vector:
    return np.concatenate([part.detach().numpy().ravel() for part in parts])
