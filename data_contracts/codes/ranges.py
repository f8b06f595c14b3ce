"""Groups of a code system by ranges of codes: public tables, looked up without a loop over rows.

A table reads as it is printed in a code book, one group per line:

    "heart_other": "I00-I09 I30-I43 I51-I5A",

Codes compare as text. In ASCII digits come before letters, as in the tabular lists: C4A is in the
range C40-C4A, and not in C45-C49.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final

import polars as pl

WRONG_SHAPE: Final = "no code by its shape"
NO_GROUP: Final = "a code of no group"

_Span = tuple[str, str, str]  # first code, last code, group


def normal_code(code: pl.Expr) -> pl.Expr:
    """Codes as all sites write them: capitals, without the dot and without blanks around.

    A missing dot or a small letter is a habit of writing, never another code.
    """
    return code.str.strip_chars().str.replace(".", "", literal=True).str.to_uppercase()


class CodeGroups:
    """The groups of one code system.

    Args:
        shape: What a normal code looks like (a regular expression over the whole code).
        key: What of a normal code decides on its group, as the tables write it.
        tables: Group -> its ranges and single codes, separated by blanks. Where two tables name a
            code, the earlier one has it.

    Raises:
        ValueError: Two ranges of one table overlap, or one ends before it starts.
    """

    def __init__(
        self, shape: str, key: Callable[[pl.Expr], pl.Expr], *tables: Mapping[str, str]
    ) -> None:
        self._shape = shape
        self._key = key
        layers = [_spans(table) for table in tables]
        # Along the sorted codes the group changes only where a range starts, or just after its
        # end: no text lies between "I09" and "I09\0".
        starts = sorted(
            {code for layer in layers for low, high, _ in layer for code in (low, high + "\0")}
        )
        self._starts = pl.Series(starts, dtype=pl.String)
        names = [_name(layers, start) for start in starts]
        self._names = pl.Series([None, *names], dtype=pl.String)  # none below the first start

    def shaped(self, code: pl.Expr) -> pl.Expr:
        """Whether each code looks like one of the system."""
        return normal_code(code).str.contains(self._shape)

    def group(self, code: pl.Expr) -> pl.Expr:
        """Group of each code; null for what is no code of the system, or in none of its groups."""
        normal = normal_code(code)
        key = pl.when(normal.str.contains(self._shape)).then(self._key(normal))
        position = pl.lit(self._starts).search_sorted(key, side="right")  # 0 for null
        return pl.lit(self._names).gather(position)


def unknown_codes(codes: pl.Series, groups: CodeGroups) -> dict[str, int]:
    """How many codes no group was found for, by reason; nothing is repeated of the codes.

    Args:
        codes: Codes, or lists of codes; null is no code and not counted.
        groups: The groups of their code system.

    Returns:
        `WRONG_SHAPE` and `NO_GROUP` -> number of codes, where there are any.
    """
    flat = codes.explode() if isinstance(codes.dtype, pl.List) else codes
    code = pl.col("code")
    counts = (
        flat.drop_nulls()
        .alias("code")
        .to_frame()
        .select(shaped=groups.shaped(code), grouped=groups.group(code).is_not_null())
        .select(
            (~pl.col("shaped")).sum().alias(WRONG_SHAPE),
            (pl.col("shaped") & ~pl.col("grouped")).sum().alias(NO_GROUP),
        )
        .row(0, named=True)
    )
    return {reason: count for reason, count in counts.items() if count}


def _spans(table: Mapping[str, str]) -> list[_Span]:
    """The ranges of a table in order."""
    spans = []
    for name, ranges in table.items():
        for text in ranges.split():
            low, _, high = text.partition("-")
            spans.append((low, high or low, name))
    spans.sort()
    for low, high, name in spans:
        if high < low:
            raise ValueError(f"range {low}-{high} ({name}) ends before it starts")
    for (low, high, name), (following, _, other) in pairwise(spans):
        if following <= high:
            raise ValueError(f"{following} ({other}) lies in the range {low}-{high} ({name}), too")
    return spans


def _name(layers: list[list[_Span]], code: str) -> str | None:
    """The group of a code in the first layer that has it."""
    for spans in layers:
        position = bisect_right(spans, code, key=lambda span: span[0])
        if position and code <= spans[position - 1][1]:
            return spans[position - 1][2]
    return None
