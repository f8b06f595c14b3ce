"""The de-identification gate: it sees the columns of every table before anything reads a row.

An allowlist of names: a column that the contract does not know fails the table; nothing passes by
being unknown. Where the name is that of an identifier, the message says of which class.
"""

import difflib
import re
from collections.abc import Sequence

import dataframely as dy

from data_contracts.deidentification.identifiers import class_of_name
from data_contracts.errors import GroundTruthError
from data_contracts.fields import Classification, terms_of


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
    hints = []
    for name in unknown:
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
