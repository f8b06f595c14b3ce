"""The section `[sources.postgresql]` of a site.toml: which tables, in which database.

    [sources.postgresql]
    service = "groundtruth"               # a name in pg_service.conf, or
    url_env = "GROUNDTRUTH_DATABASE_URL"  # the environment variable that holds the URL
    timeout_seconds = 3600                # longest time that reading one table may take

    [sources.postgresql.tables]
    pa_request = "analytics.pa_request"   # a table or view, or
    claim_payment = { query = "SELECT ... FROM ..." }

A password stands in libpq's own password file or in the variable, never in site.toml.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from data_contracts.errors import ManifestError

SECTION: Final = "[sources.postgresql]"
TABLES: Final = "[sources.postgresql.tables]"

_KEYS = ("service", "url_env", "timeout_seconds", "tables")
_TIMEOUT_SECONDS = 3600
_MOST_SECONDS = 7 * 24 * 3600


class Relation(NamedTuple):
    """Where the rows of a contract table come from.

    Attributes:
        name: Schema and table as site.toml has them; "" for a query.
        query: The query as site.toml has it; "" for a table.
    """

    name: str
    query: str = ""

    @property
    def sql(self) -> str:
        """What stands behind FROM: quoted identifiers, or the query in parentheses."""
        if self.query:
            return f"({self.query}\n) AS contract"  # it may end in a comment
        return ".".join(map(quoted, self.name.split(".")))


@dataclass(frozen=True, slots=True)
class Database:
    """The section `[sources.postgresql]` of a site.toml.

    Attributes:
        file: The site.toml, for messages.
        tables: Contract name -> table, view or query.
        service: Name in pg_service.conf, or "".
        url_env: Environment variable that holds the URL, or "".
        timeout_seconds: Longest time that reading one table may take.
    """

    file: Path
    tables: Mapping[str, Relation]
    service: str = ""
    url_env: str = ""
    timeout_seconds: int = _TIMEOUT_SECONDS

    @classmethod
    def parse(cls, section: Mapping[str, object], file: Path) -> "Database":
        """Read the section; a password or URL in it is refused and not repeated.

        Args:
            section: What TOML holds under `[sources.postgresql]`.
            file: The site.toml, for messages.

        Raises:
            ManifestError: A key or value is wrong.
        """
        for key in section:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, n=1)
                hint = f"did you mean {near[0]!r}" if near else f"known are {', '.join(_KEYS)}"
                raise ManifestError(
                    f"{file}: unknown key {key!r} in {SECTION}; {hint}. How to log in stands in "
                    "pg_service.conf and .pgpass, or in the variable that url_env names"
                )
        service = _name(section, "service", r"[\w.-]+", "a name in pg_service.conf", file)
        url_env = _name(section, "url_env", r"[A-Za-z_]\w*", "an environment variable", file)
        if bool(service) == bool(url_env):
            raise ManifestError(f"{file}: {SECTION} needs either service or url_env")
        seconds = section.get("timeout_seconds", _TIMEOUT_SECONDS)
        if type(seconds) is not int or not 1 <= seconds <= _MOST_SECONDS:
            raise ManifestError(
                f"{file}: timeout_seconds in {SECTION} must be a whole number, from 1 to "
                f"{_MOST_SECONDS} (a week)"
            )
        tables = section.get("tables")
        if not isinstance(tables, Mapping) or not tables:
            raise ManifestError(f"{file}: {TABLES} must name at least one contract table")
        relations = {name: _relation(name, value, file) for name, value in tables.items()}
        return cls(file, relations, service, url_env, seconds)

    def section(self) -> dict[str, Any]:
        """What `parse` reads."""
        section: dict[str, Any] = {"service": self.service} if self.service else {}
        if self.url_env:
            section["url_env"] = self.url_env
        if self.timeout_seconds != _TIMEOUT_SECONDS:
            section["timeout_seconds"] = self.timeout_seconds
        section["tables"] = {
            name: relation.name or {"query": relation.query}
            for name, relation in self.tables.items()
        }
        return section


def _name(section: Mapping[str, object], key: str, pattern: str, what: str, file: Path) -> str:
    value = section.get(key, "")
    if not isinstance(value, str) or (key in section and not re.fullmatch(pattern, value)):
        # Not repeated: people put the URL itself here, and with it the password.
        raise ManifestError(f"{file}: {key} in {SECTION} must be the name of {what}, nothing else")
    return value


def _relation(table: str, value: object, file: Path) -> Relation:
    where = f"{file}: {table} in {TABLES}"
    if isinstance(value, str) and all(parts := value.split(".")) and len(parts) <= 2:
        return Relation(value)
    match value:
        case {"query": str(query), **others} if not others:
            if ";" in query or not re.match(r"\s*(SELECT|WITH|TABLE)\b", query, re.IGNORECASE):
                raise ManifestError(
                    f"{where}: a query is one SELECT (or WITH ... SELECT) without any semicolon"
                )
            return Relation("", query)
    raise ManifestError(
        f'{where} must be "table", "schema.table" or {{ query = "SELECT ..." }}; a table whose '
        "name holds a dot needs a query"
    )


def quoted(identifier: str) -> str:
    """An identifier of SQL, taken as it stands."""
    return '"' + identifier.replace('"', '""') + '"'
