"""Ages: ten-year bands, and one band for everybody over 89.

Source: 45 CFR 164.514(b)(2)(i)(C): ages over 89 may only stand as "age 90 or older".
"""

from typing import Final

import polars as pl

from data_contracts.vocabulary import AGE_BANDS

OLDEST_AGE: Final = 89
"""The highest age in years that may stand in a table."""


def age_band(age: pl.Expr) -> pl.Expr:
    """The band of an age, one of `vocabulary.AGE_BANDS`.

    Args:
        age: Ages in years, whole or not. Negative ones and NaN become null, as nulls do.

    >>> frame = pl.DataFrame({"age": [0.0, 9.9, 10.0, 89.9, 90.0, 104.0, -1.0, None]})
    >>> frame.select(age_band(pl.col("age"))).to_series().to_list()
    ['0-9', '0-9', '10-19', '80-89', '90+', '90+', None, None]
    """
    years = pl.when((age >= 0) & ~age.cast(pl.Float64).is_nan()).then(age)
    band = (years.clip(upper_bound=OLDEST_AGE + 1) // 10).cast(pl.UInt8)
    names = pl.Series(AGE_BANDS, dtype=pl.Enum(AGE_BANDS))
    return band.replace_strict(range(len(AGE_BANDS)), names, return_dtype=names.dtype)
