"""How many patients a site declares to its network: a round and public number."""

from collections.abc import Iterable

import polars as pl


def declared_patients(tables: Iterable[pl.DataFrame]) -> int:
    """Number of different patients in a site's tables, rounded as it is declared."""
    tokens = [table["patient_token"] for table in tables if "patient_token" in table.columns]
    return rounded(pl.concat(tokens).drop_nulls().n_unique() if tokens else 0)


def rounded(patients: int) -> int:
    """A number of patients to two significant digits, so that it tells of no single one.

    >>> rounded(12_345)
    12000
    """
    return int(float(f"{patients:.1e}"))
