"""ZIP codes: three digits, and none at all where few people live.

Source: 45 CFR 164.514(b)(2)(i)(B): the first three digits may stay where all ZIP codes with them
hold more than 20 000 people by the current census; others become 000.
"""

from typing import Final

import polars as pl

RESTRICTED_ZIP3_VERSION: Final = "2000-2020 census, union"
"""Which lists `RESTRICTED_ZIP3` joins: that of the 2000 census in HHS's guidance and later ones."""

RESTRICTED_ZIP3: Final = frozenset(
    (
        *("036", "059", "063", "102", "202", "203", "204", "205"),
        *("369", "556", "692", "753", "772", "790", "821", "823"),
        *("830", "831", "878", "879", "884", "890", "893"),
    )
)
"""Prefixes with 20 000 people or fewer in any of the published lists."""

MASKED_ZIP3: Final = "000"


def zip3(postal_code: str | None) -> str | None:
    """The three digits of a ZIP code that may stay; None for what is no US ZIP code.

    >>> zip3("33111-0000"), zip3("05901"), zip3("K1A 0B1")
    ('331', '000', None)
    """
    digits = (postal_code or "").strip()[:5]
    if len(digits) < 3 or not digits.isascii() or not digits.isdigit():
        return None
    return MASKED_ZIP3 if digits[:3] in RESTRICTED_ZIP3 else digits[:3]


def restricted_zip3(value: pl.Expr) -> pl.Expr:
    """Whether a three-digit prefix has to be masked; what is no prefix need not be."""
    return value.cast(pl.String).str.strip_chars().is_in(sorted(RESTRICTED_ZIP3))


def mask_zip3(value: pl.Expr) -> pl.Expr:
    """Three-digit prefixes with the restricted ones masked; all else stays as it is."""
    return pl.when(restricted_zip3(value)).then(pl.lit(MASKED_ZIP3)).otherwise(value)
