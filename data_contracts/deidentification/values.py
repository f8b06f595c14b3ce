"""The de-identification gate: it looks for identifiers in the values of a table.

The rule, by what a field's contract says:

1. An enumeration, or the pattern of tokens: a value that fits is a code or a token, and passes.
   (But a column of tokens whose values are digits alone holds raw numbers.)
2. Any other pattern: a value that fits is tested for the sure shapes of `shapes.py` only, as where
   a code and an identifier look alike (NDC and telephone number, CPT and ZIP code) the code wins.
3. No pattern, or a value that does not fit: it is tested for all shapes, and for free text. So a
   Social Security number in `procedure_code` is an identifier, and not just a breach of contract.
4. Numbers of up to seven digits before the point pass; longer ones are tested as text, whatever
   fraction or exponent they have, and ages over 89 fail.

Values are a tripwire behind the allowlist of names: shapes find what looks like an identifier, and
no pattern can find a name or a number that looks like anything else.
"""

from collections.abc import Iterator
from typing import Final, cast

import dataframely as dy
import polars as pl

from data_contracts.deidentification.identifiers import CLASSES
from data_contracts.deidentification.leaves import LONGEST_CODE, VALUE, Leaf, leaves_of
from data_contracts.deidentification.policy import Policy
from data_contracts.deidentification.shapes import SHAPES, Shape, named, screen
from data_contracts.errors import GroundTruthError
from data_contracts.vocabulary import TOKEN_PATTERN

FREE_TEXT: Final = "free text"

_FREE_TEXT_WORDS = 4
_ANY_SHAPE = screen(SHAPES)
_ANY_SURE = screen([shape for shape in SHAPES if shape.sure])
_HEX_WITH_LETTERS = r"^[0-9]*[a-f][0-9a-f]*$"
_FEW_DECIMALS = 10
_RAW_NUMBERS_SHARE = 0.002


class IdentifierError(GroundTruthError):
    """Values of a table look like identifiers of somebody."""


def check_values(
    rows: pl.DataFrame, schema: type[dy.Schema], *, source: str, policy: Policy
) -> None:
    """Refuse a table, or a batch of one, whose values look like identifiers.

    Args:
        rows: Rows as they were read, before their columns get the contract's types. In text, lists
            are parted by "|" and lists of structures are JSON.
        schema: The contract. Columns outside it are for `columns.check_columns`.
        source: Name of the file or table, for the message.
        policy: On which ground the table is used; a limited data set may hold dates.

    Raises:
        IdentifierError: Something was found. All findings are named at once: column, class and
            number of rows, never a value.

    Source: 45 CFR 164.514(b)(2)(i).
    """
    leaves = leaves_of(rows, schema)
    if not leaves:
        return
    found = [*_found(rows, leaves, policy), *_raw_numbers(rows, leaves)]
    if found:
        raise IdentifierError(
            f"{source}: {'; '.join(found)}. Remove this at the source, and read it again (or are "
            "its columns shifted?). A code that only looks alike passes in the form that its "
            "contract asks for."
        )


def _found(rows: pl.DataFrame, leaves: list[Leaf], policy: Policy) -> Iterator[str]:
    """Findings, in the order of columns, classes by letter."""
    # Many small queries over rows in memory: the streaming engine takes a third longer.
    suspected = pl.collect_all([leaf.suspects(rows) for leaf in leaves], engine="in-memory")
    suspects = pl.concat(
        frame.with_columns(leaf=pl.lit(number, dtype=pl.UInt32))
        for number, frame in enumerate(suspected)
    )
    many_words = (VALUE.str.count_matches(r"\S+") >= _FREE_TEXT_WORDS) | (
        (VALUE.str.len_chars() > LONGEST_CODE) & VALUE.str.contains(r"\s")
    )
    free_text = ~pl.col("fits") & ~pl.col("label") & many_words
    any_shape = (
        pl.when("fits")
        .then(VALUE.str.contains(_ANY_SURE))
        .otherwise(VALUE.str.contains(_ANY_SHAPE) | named(VALUE))
    )
    suspects = suspects.filter(any_shape | free_text | pl.col("over_89"))
    if suspects.is_empty():
        return
    shapes = [
        suspects.filter(_has(suspects, shape)).select("leaf", "value", what=pl.lit(shape.letter))
        for shape in SHAPES
        if not (shape.letter == "C" and policy.allows_dates)
    ]
    if not policy.allows_dates:
        shapes.append(suspects.filter("over_89").select("leaf", "value", what=pl.lit("C")))
    classes = pl.concat(shapes).unique()
    telling = classes.filter(pl.col("what") != "R")
    unnamed = suspects.filter(free_text).select("leaf", "value", what=pl.lit(FREE_TEXT))
    vague = pl.concat([classes.filter(pl.col("what") == "R"), unnamed])
    vague = vague.join(telling, on=["leaf", "value"], how="anti")
    groups = (
        pl.concat([telling, vague])
        .sort("leaf", "what")
        .group_by("leaf", "what", maintain_order=True)
    )
    for (number, what), group in groups:
        leaf = leaves[cast(int, number)]
        of_root = rows.lazy().select(pl.col(leaf.root).alias("value")).with_row_index("row")
        hit = leaf.values(of_root).filter(VALUE.is_in(group["value"].implode()))
        count = hit.select(pl.col("row").n_unique()).collect().item()
        yield _told(leaf, str(CLASSES.get(str(what), what)), count)


def are_tokens(values: pl.Series) -> bool:
    """Whether all values of a column are tokens, and no more than chance has are decimal numbers.

    It says what `check_values` and the pattern of tokens say, in one look at most values instead of
    three.
    """
    with_letters = values.str.contains(_HEX_WITH_LETTERS) & values.str.len_bytes().is_between(
        16, 64
    )
    others, tokens = values.filter(~with_letters), len(values) - values.null_count()
    return bool(others.str.contains(TOKEN_PATTERN).all()) and _are_few(len(others), tokens)


def _raw_numbers(rows: pl.DataFrame, leaves: list[Leaf]) -> Iterator[str]:
    """Findings of tokens that are no hashes.

    A hexadecimal token of 16 digits or more is all decimal with probability (10/16)^16 < 0.1 %.
    """
    for leaf in leaves:
        if leaf.is_token:
            tokens = leaf.values(rows.lazy().select(pl.col(leaf.root).alias("value")))
            raw = tokens.select(VALUE.str.contains("^[0-9]{16,}$")).collect().to_series()
            count = int(raw.sum())
            if not _are_few(count, len(raw)):
                yield _told(leaf, f"{CLASSES['R']}: decimal numbers in place of hashes", count)


def _are_few(decimals: int, tokens: int) -> bool:
    return decimals <= _FEW_DECIMALS + _RAW_NUMBERS_SHARE * tokens


def _told(leaf: Leaf, what: str, count: int) -> str:
    return f"{leaf.path} holds {what} ({count} row{'s' if count != 1 else ''})"


def _has(suspects: pl.DataFrame, shape: Shape) -> pl.Series:
    """Which suspects have the shape, (n,)."""
    found = shape.found_in(suspects["value"])
    return found if shape.sure else found & ~suspects["fits"]
