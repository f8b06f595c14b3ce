"""Per-patient clipping: what bounds the influence of one patient on anything released."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

LEAST_BOUND = 1e-6
"""Smallest clipping bound. Far below it squares underflow, and a norm of zero clips nothing."""


def clipped_patient_sum(
    rows: Vector, factors: Vector, starts: NDArray[np.intp], bound: float
) -> Vector:
    """Sum over patients of their weighted rows, each patient clipped to an L2 norm of `bound`.

    Args:
        rows: Row vectors, shape (n_rows, d).
        factors: Factor of each row, its residual, shape (n_rows,).
        starts: First row of each patient, shape (n_patients,).
        bound: L2 bound, positive.

    Returns:
        Shape (d,).

    Raises:
        ValueError: `bound` is not positive and finite, or a value is not finite.

    Guarantees:
        Adding or removing one patient with any number of records changes the result by at most
        `bound` in L2.

    Source: clipping as in Abadi et al., "Deep Learning with Differential Privacy" (CCS 2016),
    Algorithm 1, with the patient in the place of the example.
    """
    if not LEAST_BOUND <= bound < np.inf:
        raise ValueError(f"the clipping bound must be positive and finite, not {bound}")
    if starts.size == 0:
        return np.zeros(rows.shape[1])
    counts = np.diff(starts, append=factors.size)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))[starts] * np.abs(factors[starts])
    # Most patients have one record; only the others' records have to be added up first.
    several = counts > 1
    if several.any():
        chosen = np.repeat(several, counts)
        firsts = np.cumsum(counts[several]) - counts[several]
        sums = np.add.reduceat(rows[chosen] * factors[chosen, None], firsts, axis=0)
        norms[several] = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    if not np.isfinite(norms).all():
        raise ValueError("a patient's contribution is not finite: nothing is released")
    scale = bound / np.maximum(norms, bound)
    # A patient's sum is made and clipped before it meets another's: huge records that cancel would
    # swallow other patients' values in a common sum.
    own, one = np.zeros(factors.size), starts[~several]
    own[one] = factors[one] * scale[~several]
    total = own @ rows  # all rows, most of them count: faster than a copy of those that do
    return np.asarray(total + scale[several] @ sums if several.any() else total)


def clipped_patient_counts(
    cells: NDArray[np.intp], patient_of_row: NDArray[np.intp], *, n_cells: int, bound: float
) -> Vector:
    """Number of rows in each cell, each patient's counts clipped to an L2 norm of `bound`.

    Args:
        cells: Cell of each row, shape (n_rows,), in [0, n_cells).
        patient_of_row: Number of each row's patient, shape (n_rows,).
        n_cells: Number of cells.
        bound: L2 bound, positive.

    Returns:
        Shape (n_cells,).

    Guarantees:
        Adding or removing one patient with any number of records changes the result by at most
        `bound` in L2.
    """
    if not bound >= LEAST_BOUND:
        raise ValueError(f"the clipping bound must be positive, not {bound}")
    occupied, counts = np.unique(patient_of_row * n_cells + cells, return_counts=True)
    patient, cell = np.divmod(occupied, n_cells)
    norms = np.sqrt(np.bincount(patient, counts.astype(np.float64) ** 2))
    scale = np.minimum(1.0, bound / np.maximum(norms, 1.0))
    return np.asarray(np.bincount(cell, counts * scale[patient], minlength=n_cells), dtype=float)
