"""Rows grouped by patient: the privacy unit made concrete.

However many records a patient has, at most `max_records` of them are used, and what they add to a
sum is bounded as one vector.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.features import Codes

Vector = NDArray[np.float64]
Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class PatientRows:
    """Model rows of one site, sorted so that a patient's rows lie together.

    Attributes:
        codes: Feature codes, shape (n_rows, n_features), uint8.
        labels: 0 or 1, shape (n_rows,), float64.
        starts: Index of each patient's first row, shape (n_patients,).
        weights: 1/m for each row of a patient with m rows, shape (n_rows,).
        max_records: Bound on m.
    """

    codes: Codes
    labels: Vector
    starts: NDArray[np.intp]
    weights: Vector
    max_records: int

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return int(self.starts.size)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.labels.size)

    def blocks(self, rows: int = 50_000) -> Iterator["PatientRows"]:
        """The same rows in blocks of about `rows`, cut between patients, so memory stays small."""
        cuts = [0, *np.searchsorted(self.starts, np.arange(rows, self.n_rows, rows)).tolist()]
        ends = [*cuts[1:], self.n_patients]
        for first, last in zip(cuts, ends, strict=True):
            if first == last:
                continue
            begin = int(self.starts[first])
            end = int(self.starts[last]) if last < self.n_patients else self.n_rows
            yield PatientRows(
                self.codes[begin:end],
                self.labels[begin:end],
                self.starts[first:last] - begin,
                self.weights[begin:end],
                self.max_records,
            )

    def sampled(self, rate: float, words: Words) -> "PatientRows":
        """The patients who take part: each independently, with all its records or none.

        Args:
            rate: Probability of each, in (0, 1); rounded down to a multiple of 2^-64.
            words: Independent uniform words, shape (n_patients,), from a key that nobody else has
                and that is used for nothing else. Who takes part must stay the site's secret:
                the price of a sampled release counts on it.

        Raises:
            ValueError: There is not one word for each patient, or the rate is out of range.
        """
        if not 0 < rate < 1:
            raise ValueError(f"a rate of sampling lies between 0 and 1, not {rate}")
        if words.shape != (self.n_patients,) or words.dtype != np.uint64:
            raise ValueError("sampling needs one word of 64 bits for each patient")
        taken = words < np.uint64(int(rate * 2.0**64))
        counts = np.diff(self.starts, append=self.n_rows)
        kept, sizes = np.repeat(taken, counts), counts[taken]
        return PatientRows(
            codes=np.asfortranarray(self.codes[kept]),
            labels=self.labels[kept],
            starts=np.cumsum(sizes) - sizes,
            weights=self.weights[kept],
            max_records=self.max_records,
        )

    @property
    def patient_of_row(self) -> NDArray[np.intp]:
        """Number of each row's patient, from 0, shape (n_rows,)."""
        first = np.zeros(self.n_rows, dtype=np.intp)
        first[self.starts[1:]] = 1
        return np.cumsum(first)


def group_by_patient(
    codes: Codes,
    labels: Vector,
    patient_tokens: pl.Series,
    row_tokens: pl.Series,
    *,
    max_records: int,
) -> PatientRows:
    """Group rows by patient and keep at most `max_records` of each.

    Args:
        codes: Feature codes, shape (n, n_features).
        labels: 0 or 1, shape (n,).
        patient_tokens: Length n.
        row_tokens: Length n; tokens are hashes, so keeping the smallest is a random choice that
            depends on nothing but the record itself.
        max_records: Bound on a patient's records, at least 1.

    Raises:
        ValueError: `max_records` is below 1, or a patient token is missing.
    """
    if max_records < 1:
        raise ValueError(f"max_records must be at least 1, not {max_records}")
    if patient_tokens.null_count():
        raise ValueError("a row without a patient token belongs to no patient and has no bound")
    order = (
        pl.DataFrame({"patient": patient_tokens, "row": row_tokens})
        .with_row_index("index")
        .sort("patient", "row", "index")
        .filter(pl.int_range(pl.len()).over("patient") < max_records)
    )
    index = order["index"].to_numpy()
    run_starts = (order["patient"] != order["patient"].shift()).fill_null(True).to_numpy()
    starts = np.flatnonzero(run_starts)
    counts = np.diff(starts, append=index.size)
    return PatientRows(
        codes=np.asfortranarray(codes[index]),
        labels=labels[index],
        starts=starts,
        weights=np.repeat(1.0 / counts, counts),
        max_records=max_records,
    )
