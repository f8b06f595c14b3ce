"""The de-identification gate: it sees the columns of every table before anything reads a row.

An allowlist of names: a column that the contract does not know fails the table; nothing passes by
being unknown. Where the name is that of an identifier, the message says of which class. A header
line that is missing or shifted has values in the place of names: what may be one is not repeated.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Final

import dataframely as dy
import polars as pl

from data_contracts.deidentification.given_names import GIVEN_NAMES
from data_contracts.deidentification.identifiers import class_of_name
from data_contracts.deidentification.shapes import BIOMETRIC_WORDS, SHAPES
from data_contracts.errors import GroundTruthError
from data_contracts.fields import Classification, terms_of
from data_contracts.vocabulary import TOKEN_PATTERN

_NAME: Final = re.compile(r"(?:[A-Za-z_#][A-Za-z0-9_ .#$%&/()-]{0,63})?")
_WORD: Final = re.compile(r"[A-Za-z]+")


class UnknownColumnError(GroundTruthError):
    """A table has a column that its contract does not know, so it may identify somebody."""


def check_columns(columns: Sequence[str], schema: type[dy.Schema], *, source: str) -> None:
    """Refuse a table with a column outside its contract.

    Args:
        columns: Names of the table's columns. Only names are looked at; no value is read.
        schema: The contract.
        source: Name of the file or table, for the message.

    Raises:
        UnknownColumnError: At least one column is not in the contract.

    Source: 45 CFR 164.514(b)(2) lists what must go; an allowlist also stops what no list foresaw.
    """
    known = schema.column_names()
    unknown = [name for name in columns if name not in known]
    if not unknown:
        return
    if {name.lower() for name in columns} <= set(known):
        raise UnknownColumnError(
            f"{source}: its columns differ from those of the contract in capital letters; write "
            "them as the contract does, or map them in site.toml"
        )
    if len(unknown) == len(columns):
        # Without a header line the first row stands in its place: these may be values.
        raise UnknownColumnError(
            f"{source}: none of its {len(columns)} columns is in the contract: the header line is "
            "missing, or it is another table, or cells are not parted by commas, or the file is "
            "not UTF-8."
        )
    for name in unknown:
        # So polars renames a column of a CSV file whose name it has met before.
        if (first := re.sub(r"_duplicated_\d+$", "", name)) in known:
            raise UnknownColumnError(f"{source}: column {first!r} stands twice; keep one of them.")
    # A raw identifier must never be talked into passing for a token.
    may_suggest = [
        name
        for name, column in schema.columns().items()
        if terms_of(column).classification != Classification.TOKEN
    ]
    places = told_by_place(unknown, columns)
    hints = []
    for name in unknown:
        if name in places:
            hints.append(places[name])
            continue
        if identifiers := class_of_name(name):
            hints.append(f"{name!r} (holds {identifiers}: remove it at the source)")
            continue
        near = difflib.get_close_matches(name, may_suggest, n=1, cutoff=0.9)
        hints.append(f"{name!r} (did you mean {near[0]!r}?)" if near else repr(name))
    raise UnknownColumnError(
        f"{source}: unknown column{'s' if len(unknown) > 1 else ''} {', '.join(hints)}. Only "
        "columns of the contract may enter: remove it, or rename it if it is only misspelt and "
        "identifies nobody."
    )


def told_by_place(unknown: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Names of columns that no message may repeat, as they may be values, and what it says instead.

    Beside a name that looks like a value, any other may be one: only those stay that say of which
    class of identifiers they are.

    Args:
        unknown: Columns that are not in the contract.
        columns: All columns of the table.
    """
    values = values_among(unknown) | {name for name in unknown if not _NAME.fullmatch(name)}
    return {
        name: f"column {columns.index(name) + 1} (whose name may be a value)"
        for name in unknown
        if name in values or (values and class_of_name(name) is None)
    }


def values_among(names: Iterable[str]) -> set[str]:
    """Those names of columns that look like values: identifiers, tokens, and given names."""
    texts = pl.Series(list(names), dtype=pl.String)
    shapes = [shape for shape in SHAPES if shape is not BIOMETRIC_WORDS]
    found = {name for shape in shapes for name in texts.filter(shape.found_in(texts))}
    return found | {
        name
        for name in texts
        if re.search(TOKEN_PATTERN, name) or not GIVEN_NAMES.isdisjoint(_WORD.findall(name.lower()))
    }
