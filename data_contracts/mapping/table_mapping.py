"""A site's own column names and code values, mapped onto a contract in its `site.toml`.

    [tables.pa_request]
    path = "requests.csv"
    separator = ";"                          # optional, one character
    encoding = "utf8"                        # optional, and the only one
    ignore = ["INTERNAL_NOTE"]               # columns that are never read; they may be absent
    [tables.pa_request.columns]              # contract field = the site's column
    procedure_code = "PROC_CD"
    dx_other = ["DX2", "DX3", "DX4"]         # a list may lie in several columns
    [tables.pa_request.codes.network_status] # contract code = the site's values
    in = ["PAR", "IN NETWORK"]
    [tables.pa_request.constants]            # the same value on every row
    channel = "X12"

An age in years may be mapped onto `age_band` and a ZIP code onto `zip3`: what is finer is dropped
before anything else sees it.

One column may feed several fields; a field has one column, unless it is a list of codes. A column
that bears a field's own name needs no line, but may have codes. A column that is neither mapped,
nor ignored, nor a field fails the table: nothing passes, and nothing is lost, by being unknown.
Numbers are taken as they stand; currency signs and thousands separators are not guessed at.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dataframely as dy
import polars as pl

from data_contracts.conform import LIST_SEPARATOR
from data_contracts.deidentification.ages import age_band
from data_contracts.deidentification.columns import UnknownColumnError, told_by_place
from data_contracts.errors import ManifestError
from data_contracts.fields import Classification, terms_of
from data_contracts.mapping.column_names import identifier_in

ENCODING: Final = "utf8"
"""The only encoding of text that is read."""

_KEYS: Final = ("path", "separator", "encoding", "ignore", "columns", "codes", "constants")
_FLAGS: Final = ("true", "false")
_TWICE = re.compile(r"_duplicated_\d+$")  # so polars renames a column whose name it has met before

Constant = str | int | float | bool


@dataclass(frozen=True, slots=True)
class TableMapping:
    """How one flat file of a site becomes a contract table.

    Attributes:
        path: The file or directory, absolute.
        separator: What parts the cells of a CSV line.
        ignore: Columns that are never read.
        columns: Contract field -> the site's column, or the columns that a list lies in.
        codes: Contract field -> contract code -> the site's values.
        constants: Contract field -> its value on every row.
    """

    path: Path
    separator: str = ","
    ignore: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    codes: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    constants: Mapping[str, Constant] = field(default_factory=dict)

    @classmethod
    def parse(cls, section: Mapping[str, object], table: str, file: Path) -> "TableMapping":
        """Read the section [tables.TABLE] of the `site.toml` at `file`.

        Raises:
            ManifestError: A key or value is wrong; fields and codes are checked by `apply`.
        """
        where = f"{file}: [tables.{table}]"
        _reject_unknown(section, where)
        path, separator = section.get("path"), section.get("separator", ",")
        if not isinstance(path, str) or not path.strip() or "\0" in path:
            raise ManifestError(f"{where} needs a path, as text")
        if not isinstance(separator, str) or len(separator.encode()) != 1 or separator in '"\r\n':
            raise ManifestError(
                f'{where}: separator must be one ASCII character, e.g. ";" or "\\t", and no quote'
            )
        if section.get("encoding", ENCODING) != ENCODING:
            raise ManifestError(
                f'{where}: the only encoding is "{ENCODING}"; convert the file, e.g. with iconv, '
                "and leave the key out"
            )
        codes = _subsection(section, "codes", where)
        mapping = cls(
            path=(file.parent / path).resolve(),
            separator=separator,
            ignore=_texts(section.get("ignore", []), f"{where}: ignore"),
            columns={
                name: _column_names(value, f"{where}: columns.{name}")
                for name, value in _subsection(section, "columns", where).items()
            },
            codes={
                name: {
                    code: _texts(values, f"{where}: codes.{name}.{code}")
                    for code, values in _subsection(codes, name, f"{where}: codes").items()
                }
                for name in codes
            },
            constants={
                name: _constant(value, f"{where}: constants.{name}")
                for name, value in _subsection(section, "constants", where).items()
            },
        )
        mapping._reject_contradictions(where)
        return mapping

    def section(self, written: Callable[[Path], str]) -> dict[str, Any]:
        """What `parse` reads; `written` says how a path stands in site.toml."""
        section: dict[str, Any] = {"path": written(self.path)}
        if self.separator != ",":
            section["separator"] = self.separator
        if self.ignore:
            section["ignore"] = list(self.ignore)
        if self.columns:
            section["columns"] = {
                name: columns[0] if len(columns) == 1 else list(columns)
                for name, columns in self.columns.items()
            }
        if self.codes:
            section["codes"] = {
                name: {code: list(values) for code, values in codes.items()}
                for name, codes in self.codes.items()
            }
        if self.constants:
            section["constants"] = dict(self.constants)
        return section

    def apply(self, frame: pl.LazyFrame, schema: type[dy.Schema], *, source: str) -> pl.LazyFrame:
        """The frame with the contract's names and codes; only its header is read here.

        Values that `codes` does not list stay as they are, so that the contract refuses and counts
        them; one that is itself a code of the contract stays that code. Blanks around a value do
        not matter where codes are translated, upper and lower case does.

        Args:
            frame: The site's table.
            schema: The contract.
            source: Name of the file or table, for messages.

        Raises:
            ManifestError: The mapping does not fit the contract or the file.
            UnknownColumnError: A column is neither mapped, nor ignored, nor a field.
        """
        self._check(schema, source)
        present = frame.collect_schema().names()
        kept = [name for name in present if name not in self.ignore]
        own = {
            name: (name,) for name in kept if name in schema.columns() and name not in self._mapped
        }
        self._check_header(kept, own, schema, source)
        for name in own:
            if name in self.columns or name in self.constants:
                origin = "a constant" if name in self.constants else "another column"
                raise ManifestError(
                    f"{source}: field {name} is mapped from {origin}, and the file has a column of "
                    "that name, too; list the latter under ignore, or unmap the field"
                )
        origins = {**own, **self.columns}
        for name in self.codes:
            if name not in origins:
                raise ManifestError(
                    f"{source}: codes of field {name} are given, but no column; map one onto it"
                )
        return frame.select(
            *(
                self._translated(name, _together(columns), schema).alias(name)
                for name, columns in origins.items()
            ),
            *(
                self._translated(name, pl.lit(value), schema).alias(name)
                for name, value in self.constants.items()
            ),
        )

    @property
    def _mapped(self) -> set[str]:
        return {column for columns in self.columns.values() for column in columns}

    def _translated(self, name: str, values: pl.Expr, schema: type[dy.Schema]) -> pl.Expr:
        """Values of a field in the contract's codes."""
        codes = self.codes.get(name, {})
        if name in _COARSENED:
            return _COARSENED[name](values.cast(pl.String).str.strip_chars())
        if not codes and not isinstance(schema.columns()[name], dy.Enum):
            return values
        # Typed files may hold codes as numbers, which polars does not cast to codes.
        text = values.cast(pl.String).str.strip_chars()
        return text.replace({value.strip(): code for code, of in codes.items() for value in of})

    def _reject_contradictions(self, where: str) -> None:
        """Refuse what no contract and no file could make right."""
        for name in self.constants:
            if name in self.columns:
                raise ManifestError(
                    f"{where}: field {name} stands under columns and under constants; keep one"
                )
        for name, columns in self.columns.items():
            for column in columns:
                if column in self.ignore:
                    raise ManifestError(
                        f"{where}: column {column!r} is ignored and mapped onto {name}; keep one"
                    )
        for name, codes in self.codes.items():
            code_of: dict[str, str] = {}
            for code, values in codes.items():
                for value in map(str.strip, values):
                    # The value is the site's own: the codes say enough.
                    if code_of.setdefault(value, code) != code:
                        raise ManifestError(
                            f"{where}: codes.{name}: one value stands under {code_of[value]} and "
                            f"under {code}; keep one"
                        )

    def _check(self, schema: type[dy.Schema], source: str) -> None:
        """Refuse fields and codes that the contract does not know, and raw identifiers."""
        fields = schema.columns()
        # Nothing is likened to a token: a raw identifier must not be talked into passing for one.
        plain = [name for name, column in fields.items() if not _is_token(column)]
        for key in ("columns", "codes", "constants"):
            for name in getattr(self, key):
                if name not in fields:
                    near = difflib.get_close_matches(name, plain, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise ManifestError(
                        f"{source}: {key} names {name!r}, which is no field of the contract{hint}"
                    )
                if key != "columns" and _is_token(fields[name]):
                    raise ManifestError(f"{source}: {name} is a token and can have no {key}")
        for name, columns in self.columns.items():
            if len(columns) > 1 and not is_list_of_codes(fields[name]):
                raise ManifestError(
                    f"{source}: {name} has one column; only a list of codes may lie in several"
                )
            [site_column, *_] = columns
            if _is_token(fields[name]) and (identifier := identifier_in(site_column)):
                raise ManifestError(
                    f"{source}: {name} is a token, and column {site_column!r} has the name of a "
                    f"raw identifier ({identifier}); map a column of tokens, made with the "
                    "network's key"
                )
        for name, codes in self.codes.items():
            _check_codes(name, fields[name], codes, source)
        for name, value in self.constants.items():
            if code_list(fields[name]):
                code = str(value).lower() if isinstance(value, bool) else str(value)
                _check_codes(name, fields[name], [code], source)

    def _check_header(
        self, kept: Sequence[str], own: Iterable[str], schema: type[dy.Schema], source: str
    ) -> None:
        """Refuse mapped columns that are absent, and columns that nobody has spoken for."""
        spoken_for = self._mapped | set(own)
        if spoken_for.isdisjoint(kept):
            # Without a header line the first row stands in its place: these may be values.
            raise ManifestError(
                f"{source}: no mapped column is in the file: the header line is missing, or it is "
                "another table, or cells are parted by another character"
            )
        unknown = [name for name in kept if name not in spoken_for]
        places = told_by_place(unknown, kept)
        for name, columns in self.columns.items():
            for column in columns:
                if column not in kept:
                    folded = {other.casefold(): other for other in kept if other not in places}
                    near = difflib.get_close_matches(column.casefold(), folded, n=1)
                    hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
                    raise ManifestError(
                        f"{source}: column {column!r}, mapped onto {name}, is not in the file{hint}"
                    )
        for name in unknown:
            first = _TWICE.sub("", name)
            if first != name and first in spoken_for:
                raise UnknownColumnError(f"{source}: column {first!r} stands twice; keep one.")
        if unknown:
            counted = ", counted without the ignored ones" if places and self.ignore else ""
            raise UnknownColumnError(
                f"{source}: column{'s' if len(unknown) > 1 else ''} "
                f"{', '.join(places.get(name, repr(name)) for name in unknown)} neither mapped nor "
                f"ignored{counted}. Map each one onto a "
                "field under columns, or list it under ignore."
            )


def _together(columns: Sequence[str]) -> pl.Expr:
    """One column as it is; the filled cells of several as one list in text, in their order."""
    if len(columns) == 1:
        return pl.col(columns[0])
    cells = (pl.col(column).cast(pl.String).str.strip_chars() for column in columns)
    filled = [pl.when(cell != "").then(cell) for cell in cells]
    joined = pl.concat_str(filled, separator=LIST_SEPARATOR, ignore_nulls=True)
    return pl.when(joined != "").then(joined)


def _age_band(age: pl.Expr) -> pl.Expr:
    """Bands as they are; ages in whole years in their band."""
    years = age.str.extract(r"^([0-9]{1,3})$").cast(pl.Int16)
    return pl.when(years.is_null()).then(age).otherwise(age_band(years).cast(pl.String))


def _zip3(code: pl.Expr) -> pl.Expr:
    """The first three digits of ZIP codes (with five or nine); the gate masks restricted ones."""
    return pl.coalesce(code.str.extract(r"^([0-9]{3})[0-9]{2}(?:-?[0-9]{4})?$"), code)


_COARSENED: Final[Mapping[str, Callable[[pl.Expr], pl.Expr]]] = {
    "age_band": _age_band,
    "zip3": _zip3,
}
"""Fields that may be mapped from a finer column: field -> what is left of its values."""


def code_list(column: dy.Column) -> tuple[str, ...]:
    """The codes of a contract column, those of a flag being true and false; () without a list."""
    if isinstance(column, dy.Enum):
        return tuple(column.categories)
    return _FLAGS if isinstance(column, dy.Bool) else ()


def _check_codes(name: str, column: dy.Column, codes: Iterable[str], source: str) -> None:
    allowed = code_list(column)
    pattern = column.regex if isinstance(column, dy.String) else None
    if not allowed and pattern is None:
        raise ManifestError(f"{source}: field {name} holds no codes that could be translated")
    for code in codes:
        if allowed and code not in allowed:
            near = difflib.get_close_matches(code, allowed, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"codes are {', '.join(allowed)}"
            raise ManifestError(f"{source}: {code!r} is no code of field {name}; {hint}")
        if pattern is not None and not re.search(pattern, code):
            raise ManifestError(f"{source}: codes.{name}: a code does not fit {pattern}")


def _is_token(column: dy.Column) -> bool:
    return terms_of(column).classification == Classification.TOKEN


def is_list_of_codes(column: dy.Column) -> bool:
    """Whether a field holds a list that may lie in several columns."""
    return isinstance(column, dy.List) and isinstance(column.inner, dy.String)


def _reject_unknown(section: Iterable[str], where: str) -> None:
    for name in section:
        if name not in _KEYS:
            near = difflib.get_close_matches(name, _KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_KEYS)}"
            raise ManifestError(f"{where}: unknown key {name!r}; {hint}")


def _subsection(section: Mapping[str, object], key: str, where: str) -> Mapping[str, object]:
    content = section.get(key, {})
    if not isinstance(content, Mapping):
        raise ManifestError(f"{where}: {key} must be a section of its own")
    return content


def _column_names(value: object, what: str) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ManifestError(f"{what} must be the name of a column, or a list of such")
    if len(set(names)) < len(names):
        raise ManifestError(f"{what} names a column twice")
    return tuple(names)


def _texts(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ManifestError(f'{what} must be a list of texts, e.g. ["A", "B"]')
    return tuple(value)


def _constant(value: object, what: str) -> Constant:
    if not isinstance(value, str | int | float | bool):
        raise ManifestError(f"{what} must be a text, a number, true or false")
    return value
