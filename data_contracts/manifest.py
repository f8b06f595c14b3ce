"""`site.toml`: who a site is, what it allows, and where its data lie.

The file belongs to the site. It says whether the data are private (the default), public or
synthetic: only the latter two may be used with reproducible noise or without noise.

    [site]               name, role, what is allowed          see `SiteManifest`
    [tables]             a flat file per contract table       see `data_contracts.mapping`
    [sources]            x12, fhir, omop: files or folders that tell of several tables; timezone
    [sources.postgresql] tables of a database                 see `data_contracts.readers.database`
    [deidentification]   on which legal ground                see `deidentification.policy`
    [crosswalk]          payers, providers, business_line     see `data_contracts.crosswalk`
"""

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

import tomli_w

from data_contracts.deidentification.policy import Policy
from data_contracts.errors import ManifestError
from data_contracts.fields import Role
from data_contracts.mapping.table_mapping import TableMapping
from data_contracts.readers.database import Database
from data_contracts.vocabulary import BUSINESS_LINES, PSEUDONYM_PATTERN

MANIFEST_NAME = "site.toml"
_KEYS = (
    *("name", "role", "origin", "on_error", "group"),
    *("max_epsilon", "budget_epsilon", "max_patients", "min_colluders", "sampling"),
    *("min_sites", "min_patients", "tasks"),
)
_MAX_EPSILON = 3.0
_BUDGET_EPSILON = 10.0
_MAX_PATIENTS = 1_000_000
_MIN_COLLUDERS = 0.1
_MIN_SITES = 2

Exchange = Literal["x12", "fhir", "omop"]
EXCHANGED: Final[Mapping[Exchange, tuple[str, ...]]] = {
    "x12": ("pa_request", "pa_decision", "claim_payment"),
    "fhir": ("pa_request", "pa_decision", "claim_payment", "clinical_outcome"),
    "omop": ("clinical_outcome",),
}
"""What each source tells of: contract tables."""

_SECTIONS = ("site", "tables", "sources", "deidentification", "crosswalk")

Origin = Literal["private", "public", "synthetic"]
OnError = Literal["fail", "quarantine"]


@dataclass(frozen=True, slots=True)
class SiteManifest:
    """What a site says of itself.

    Attributes:
        name: Network pseudonym of the site.
        role: Payer or provider.
        tables: Contract name -> flat file or directory of Parquet parts, absolute.
        origin: Where the data come from; "private" unless the file says otherwise.
        on_error: Whether a row that breaks its contract fails the table ("fail") or is set aside
            and counted ("quarantine").
        group: Pseudonym of the provider group or payer as it stands in the tables, where the site
            is one ("" where it is not).
        max_epsilon: Largest epsilon (at delta = 1e-5) that one run may ask of private data.
        budget_epsilon: Largest epsilon (at delta = 1e-5) that all releases about private data
            together may ever cost a patient; the site's ledger holds it.
        max_patients: More patients than the site's tables will ever hold, a round and public
            number. Plans that are made for fewer are refused: noise is made for so many.
        min_colluders: Share of the sites that a plan must allow to tell the coordinator their
            noise.
        sampling: Whether runs may sample patients. Decided before the first release for the life of
            the ledger, which then counts all releases more coarsely.
        min_sites: Sites that must be in every sum of a run, this one included.
        min_patients: Patients that the sites of a run must have declared, all together.
        tasks: Tasks that this site takes part in; all where there is none.
        mappings: Contract name -> how the columns of its flat file are named, where they differ.
        exchanges: "x12", "fhir" or "omop" -> file or directory, absolute.
        timezone: The zone of local times in X12, which writes none; None if they are taken as UTC,
            as moments of FHIR are. Years and days of requests are those of UTC.
        database: Tables of a database, or None.
        policy: On which legal ground the tables are used.
        crosswalk: "payers" or "providers" -> file, absolute.
        business_line: Line of business of requests whose payer has none in the crosswalk, or "".
        folder: Where the site.toml lies; None for a site that has none.
    """

    name: str
    role: Role
    tables: Mapping[str, Path]
    origin: Origin = "private"
    on_error: OnError = "fail"
    group: str = ""
    max_epsilon: float = _MAX_EPSILON
    budget_epsilon: float = _BUDGET_EPSILON
    max_patients: int = _MAX_PATIENTS
    min_colluders: float = _MIN_COLLUDERS
    sampling: bool = False
    min_sites: int = _MIN_SITES
    min_patients: int = 0
    tasks: tuple[str, ...] = ()
    mappings: Mapping[str, TableMapping] = field(default_factory=dict)
    exchanges: Mapping[Exchange, Path] = field(default_factory=dict)
    timezone: ZoneInfo | None = None
    database: Database | None = None
    policy: Policy = field(default_factory=Policy)
    crosswalk: Mapping[str, Path] = field(default_factory=dict)
    business_line: str = ""
    folder: Path | None = None

    @property
    def table_names(self) -> tuple[str, ...]:
        """Contract tables that the site has, from whatever source."""
        names = dict.fromkeys(self.tables)
        if self.database is not None:
            names |= dict.fromkeys(self.database.tables)
        for exchange in self.exchanges:
            names |= dict.fromkeys(EXCHANGED[exchange])
        return tuple(names)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files and directories that the site's tables are read from."""
        parts = (self.tables, self.exchanges, self.crosswalk)
        return tuple(path for part in parts for path in part.values())

    @classmethod
    def load(cls, path: Path) -> "SiteManifest":
        """Read `site.toml`, or the one in the folder `path`.

        Raises:
            ManifestError: It is missing, is not TOML, or has a wrong key or value.
        """
        file = path
        try:
            file = path / MANIFEST_NAME if path.is_dir() else path
            raw = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise ManifestError(f"{file} does not exist: a site needs a {MANIFEST_NAME}") from None
        except OSError as error:
            raise ManifestError(f"{file} cannot be read: {error.strerror}") from None
        except ValueError as error:  # also a NUL character in the path
            raise ManifestError(f"{str(file)!r} is not a TOML file: {error}") from None
        site = _section(raw, "site", file)
        _reject_unknown(raw, _SECTIONS, file, "section")
        _reject_unknown(site, _KEYS, file, "key")
        for key in ("name", "role"):
            if not site.get(key):
                raise ManifestError(f"{file}: [site] needs a {key}")
        tables = _section(raw, "tables", file) if "tables" in raw else {}
        sources = _section(raw, "sources", file) if "sources" in raw else {}
        if not tables and not sources.keys() - {"timezone"}:
            raise ManifestError(
                f"{file}: no data: name a contract table under [tables], or a source under "
                "[sources]"
            )
        _reject_unknown(sources, (*get_args(Exchange), "timezone", "postgresql"), file, "source")
        mappings = {
            name: TableMapping.parse(section, name, file)
            for name, section in tables.items()
            if isinstance(section, Mapping)
        }
        policy = _section(raw, "deidentification", file) if "deidentification" in raw else {}
        crosswalk = _section(raw, "crosswalk", file) if "crosswalk" in raw else {}
        _reject_unknown(crosswalk, ("payers", "providers", "business_line"), file, "key")
        return cls(
            name=_pseudonym(site, "name", file),
            role=_choice(site, "role", get_args(Role), file),
            tables={
                name: mappings[name].path if name in mappings else _path(tables, name, file)
                for name in tables
            },
            mappings=mappings,
            origin=_choice(site, "origin", get_args(Origin), file, default="private"),
            on_error=_choice(site, "on_error", get_args(OnError), file, default="fail"),
            group=_pseudonym(site, "group", file) if site.get("group", "") != "" else "",
            max_epsilon=_positive(site, "max_epsilon", file, _MAX_EPSILON),
            budget_epsilon=_positive(site, "budget_epsilon", file, _BUDGET_EPSILON),
            max_patients=_count(site, "max_patients", file, _MAX_PATIENTS),
            min_colluders=_share(site, "min_colluders", file, _MIN_COLLUDERS),
            sampling=_flag(site, "sampling", file),
            min_sites=_count(site, "min_sites", file, _MIN_SITES),
            min_patients=_count(site, "min_patients", file, 0, least=0),
            tasks=_names(site, "tasks", file),
            exchanges={
                exchange: _path(sources, exchange, file, "sources")
                for exchange in get_args(Exchange)
                if exchange in sources
            },
            timezone=_timezone(sources, file) if "timezone" in sources else None,
            database=(
                Database.parse(_section(sources, "postgresql", file), file)
                if "postgresql" in sources
                else None
            ),
            policy=Policy.parse(policy, file),
            crosswalk={
                name: _path(crosswalk, name, file, "crosswalk")
                for name in ("payers", "providers")
                if name in crosswalk
            },
            business_line=_choice(
                crosswalk, "business_line", ("", *BUSINESS_LINES), file, default=""
            ),
            folder=file.parent.resolve(),
        )

    def write(self, folder: Path) -> Path:
        """Write `folder/site.toml`; tables inside the folder are named relative to it."""
        file = folder / MANIFEST_NAME
        site: dict[str, Any] = {"name": self.name, "role": self.role, "origin": self.origin}
        if self.group:
            site["group"] = self.group
        if self.on_error != "fail":
            site["on_error"] = self.on_error
        if self.max_epsilon != _MAX_EPSILON:
            site["max_epsilon"] = self.max_epsilon
        if self.budget_epsilon != _BUDGET_EPSILON:
            site["budget_epsilon"] = self.budget_epsilon
        if self.max_patients != _MAX_PATIENTS:
            site["max_patients"] = self.max_patients
        if self.min_colluders != _MIN_COLLUDERS:
            site["min_colluders"] = self.min_colluders
        if self.sampling:
            site["sampling"] = self.sampling
        if self.min_sites != _MIN_SITES:
            site["min_sites"] = self.min_sites
        if self.min_patients:
            site["min_patients"] = self.min_patients
        if self.tasks:
            site["tasks"] = list(self.tasks)

        def written(path: Path) -> str:
            return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

        content: dict[str, Any] = {"site": site}
        if self.tables:
            content["tables"] = {
                name: self.mappings[name].section(written)
                if name in self.mappings
                else written(path)
                for name, path in self.tables.items()
            }
        sources: dict[str, Any] = {name: written(path) for name, path in self.exchanges.items()}
        if self.timezone is not None:
            sources["timezone"] = self.timezone.key
        if self.database is not None:
            sources["postgresql"] = self.database.section()
        if sources:
            content["sources"] = sources
        if policy := self.policy.section(written):
            content["deidentification"] = policy
        crosswalk = {name: written(path) for name, path in self.crosswalk.items()}
        if self.business_line:
            crosswalk["business_line"] = self.business_line
        if crosswalk:
            content["crosswalk"] = crosswalk
        file.write_text(tomli_w.dumps(content), encoding="utf-8")
        return file


def _positive(site: Mapping[str, object], key: str, file: Path, default: float) -> float:
    value = site.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ManifestError(f"{file}: {key} must be a positive number")
    return float(value)


def _count(site: Mapping[str, object], key: str, file: Path, default: int, least: int = 1) -> int:
    value = site.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 100_000_000:
        raise ManifestError(f"{file}: {key} must be a whole number, from {least} to 100 000 000")
    return value


def _names(site: Mapping[str, object], key: str, file: Path) -> tuple[str, ...]:
    value = site.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ManifestError(f'{file}: {key} must be a list of names, such as ["approved"]')
    return tuple(value)


def _share(site: Mapping[str, object], key: str, file: Path, default: float) -> float:
    value = site.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ManifestError(f"{file}: {key} must be a share, from 0 to below 1")
    return float(value)


def _flag(site: Mapping[str, object], key: str, file: Path) -> bool:
    value = site.get(key, False)
    if not isinstance(value, bool):
        raise ManifestError(f"{file}: {key} must be true or false")
    return value


def sites_in(folder: Path) -> list[Path]:
    """The site folders directly below `folder`, sorted by name.

    Raises:
        ManifestError: The folder does not exist or holds no site.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder} is not a folder of sites")
    sites = sorted(file.parent for file in folder.glob(f"*/{MANIFEST_NAME}"))
    if not sites:
        raise ManifestError(f"{folder} holds no site: no */{MANIFEST_NAME} below it")
    return sites


def _section(raw: Mapping[str, object], name: str, file: Path) -> Mapping[str, object]:
    if name not in raw:
        raise ManifestError(f"{file}: section [{name}] is missing")
    section = raw[name]
    if not isinstance(section, Mapping):
        raise ManifestError(
            f"{file}: {name} must be a section, headed [{name}], and is a {type(section).__name__}"
        )
    return section


def _pseudonym(site: Mapping[str, object], key: str, file: Path) -> str:
    value = site[key]
    if not isinstance(value, str) or not re.fullmatch(PSEUDONYM_PATTERN, value):
        # The value is not repeated: it may be the very name or number that must not travel.
        raise ManifestError(
            f"{file}: {key} in [site] must be a network pseudonym: lower-case letters, digits, - "
            "and _, starting with a letter, 32 at most; never an NPI"
        )
    return value


def _path(section: Mapping[str, object], name: str, file: Path, heading: str = "tables") -> Path:
    value = section[name]
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ManifestError(f"{file}: {name} in [{heading}] must be the path of a file, as text")
    return (file.parent / value).resolve()


def _timezone(sources: Mapping[str, object], file: Path) -> ZoneInfo:
    value = sources["timezone"]
    if not isinstance(value, str) or value not in available_timezones():
        raise ManifestError(
            f"{file}: timezone in [sources] must be a name of the IANA time zone database, such as "
            '"America/Chicago"; where the machine has none, install the package tzdata'
        )
    return ZoneInfo(value)


def _reject_unknown(
    section: Mapping[str, object], known: tuple[str, ...], file: Path, kind: str
) -> None:
    for name in section:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise ManifestError(f"{file}: unknown {kind} {name!r}{hint}")


def _choice(
    section: Mapping[str, object],
    key: str,
    allowed: tuple[Any, ...],
    file: Path,
    default: str | None = None,
) -> Any:
    value = section.get(key, default)
    for choice in allowed:
        if value == choice:
            return choice
    raise ManifestError(f"{file}: {key} = {value!r} is not one of {', '.join(allowed)}")
