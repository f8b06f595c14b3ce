"""Read a site's data end to end: valid rows, how fields are filled, and which tasks they serve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from data_contracts.catalog import CONTRACTS
from data_contracts.deidentification.policy import PolicyError
from data_contracts.errors import GroundTruthError
from data_contracts.features import Feature, grid_of
from data_contracts.intake import ContractViolationError, RowCounts, Table, read_table
from data_contracts.manifest import SiteManifest
from data_contracts.readers.findings import Findings
from data_contracts.sources import opened
from experiments.config import TEST_SHARE
from experiments.plans import MIN_PATIENTS, SPLIT_KEY
from experiments.progress import Reporter
from experiments.site_check.profile import FieldProfile, profile
from models.tasks import TASKS
from models.tasks.task import Task, TaskRows, assemble

_MOST_LEVELS = 254  # of a feature


@dataclass(frozen=True, slots=True)
class TableCheck:
    """One table of the site.

    Attributes:
        name: Name of its contract.
        version: The contract's version.
        counts: What became of its raw rows.
        fields: Its fields; none where the table could not be accepted.
    """

    name: str
    version: str
    counts: RowCounts
    fields: tuple[FieldProfile, ...]


@dataclass(frozen=True, slots=True)
class TaskCheck:
    """What the tables hold for one task.

    Attributes:
        name: Name of the task.
        question: What its model predicts.
        positive: What label 1 is called.
        rows: Rows with a label.
        patients: Patients of these rows.
        to_train: Patients on the training side.
        rate: Share of label 1; NaN without rows.
        trains: Whether sites of this role train; if not, they are measured.
        missing: Features without a value on any row, by title.
        constant: Features with the same value on every row, by title.
        obstacle: What keeps the task from being served, and what to do; "" if nothing does.
    """

    name: str
    question: str
    positive: str
    rows: int
    patients: int
    to_train: int
    rate: float
    trains: bool
    missing: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class SiteCheck:
    """Result of a check. It stays at the site.

    Attributes:
        name: Name of the site.
        role: Payer or provider.
        origin: private, public or synthetic.
        mode: The legal ground on which the tables are used.
        is_phi: Whether the data stay protected health information, as a limited data set does.
        expiring: A warning that the ground ends soon, or "".
        tables: The tables whose rows could be read.
        failures: Why tables could not be accepted, one sentence each.
        tasks: Tasks whose tables the site has.
        refused: Units of exchanges (interchanges, bundles) that were set aside, with place.
        notes: What readers noted of records that they kept -> how often.
    """

    name: str
    role: str
    origin: str
    mode: str
    is_phi: bool
    expiring: str
    tables: tuple[TableCheck, ...]
    failures: tuple[str, ...]
    tasks: tuple[TaskCheck, ...]
    refused: tuple[str, ...]
    notes: Mapping[str, int]


def check_site(manifest: SiteManifest, reporter: Reporter | None = None) -> SiteCheck:
    """Read every table of a site, and join them for every task that they could serve.

    Args:
        manifest: The site.
        reporter: Shows progress, by tables and by files of exchanges.
    """
    tables: dict[str, Table] = {}
    broken: list[TableCheck] = []
    failures = []
    findings = Findings(manifest.on_error)
    names = manifest.table_names
    title = f"Reading {len(names)} table{'s' if len(names) != 1 else ''}"
    total = len(names) + _exchange_files(manifest)
    with (
        (reporter or Reporter()).steps(title, total) as steps,
        opened(manifest, findings, progress=lambda _: steps.advance()) as sources,
    ):
        for name in names:
            try:
                tables[name] = read_table(name, sources, manifest)
            except GroundTruthError as error:
                if str(error) not in failures:  # one exchange may fail several tables
                    failures.append(str(error))
                if isinstance(error, ContractViolationError) and error.counts:
                    version = CONTRACTS[name].version
                    broken.append(TableCheck(name, version, error.counts, fields=()))
            steps.advance()
    return SiteCheck(
        name=manifest.name,
        role=manifest.role,
        origin=manifest.origin,
        mode=manifest.policy.mode,
        is_phi=manifest.policy.is_phi,
        expiring=_expiring(manifest),
        tables=(
            *(_table(table, manifest) for table in tables.values()),
            *broken,
        ),
        failures=tuple(failures),
        tasks=tuple(
            _task(task, manifest, tables)
            for task in TASKS.values()
            if set(task.tables) <= set(tables)
        ),
        refused=tuple(findings.refused),
        notes=dict(findings.notes),
    )


def _exchange_files(manifest: SiteManifest) -> int:
    """How many files X12 and FHIR are to be read from, for the progress bar."""
    roots = (path for name, path in manifest.exchanges.items() if name != "omop")
    return sum(
        file.is_file() for root in roots for file in (root.rglob("*") if root.is_dir() else (root,))
    )


def _expiring(manifest: SiteManifest) -> str:
    try:
        return manifest.policy.check(datetime.now(UTC).date())
    except PolicyError:
        return ""  # every table has failed for it


def _table(table: Table, manifest: SiteManifest) -> TableCheck:
    contract = table.contract
    fields = profile(contract, table.rows, manifest.role)
    return TableCheck(contract.name, contract.version, table.counts, fields)


def _task(task: Task, manifest: SiteManifest, tables: Mapping[str, Table]) -> TaskCheck:
    # Levels of the roster's features are not known before a run: here, those of the site itself.
    valid = {name: table.rows for name, table in tables.items()}
    features = task.resolve(own_roster(manifest, valid))
    rows = assemble(task, valid, features, site=manifest.name)
    train, _ = rows.split(key=SPLIT_KEY, test_share=TEST_SHARE)
    missing, same = _idle_features(features, rows)
    return TaskCheck(
        name=task.name,
        question=task.question,
        positive=task.positive,
        rows=len(rows),
        patients=rows.patient_tokens.n_unique(),
        to_train=train.patient_tokens.n_unique(),
        rate=float(rows.labels.mean()) if len(rows) else float("nan"),
        trains=task.train_at == manifest.role,
        missing=missing,
        constant=same,
        obstacle=_obstacle(task, manifest, rows, train),
    )


def own_roster(
    manifest: SiteManifest, tables: Mapping[str, pl.DataFrame]
) -> dict[str, tuple[str, ...]]:
    """The network as far as a site's own tables name its members; see `features.resolve`."""
    requests = tables.get("pa_request")

    def members(column: str) -> tuple[str, ...]:
        if requests is None:
            return (manifest.name,)
        return tuple(requests[column].unique().sort().head(_MOST_LEVELS)) or (manifest.name,)

    return {
        "payers": members("payer_id"),
        "providers": members("provider_group_id"),
        "sites": (manifest.name,),
    }


def _idle_features(
    features: Sequence[Feature], rows: TaskRows
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Titles of features without any value, and of those with one code on every row."""
    if not len(rows):
        return (), ()
    same = (rows.codes == rows.codes[0]).all(axis=0)
    missing: list[str] = []
    constant: list[str] = []
    for feature, first, idle in zip(features, rows.codes[0], same, strict=True):
        if idle:
            last_code = grid_of(feature).n_codes - 1  # the code of "missing"
            (missing if first == last_code else constant).append(feature.title)
    return tuple(missing), tuple(constant)


def _obstacle(task: Task, manifest: SiteManifest, rows: TaskRows, train: TaskRows) -> str:
    """What keeps the site from serving a task, and what to do about it; "" if nothing does."""
    if not len(rows):
        return "no row has a label: do the tables join on request_token and patient_token?"
    patients = rows.patient_tokens.n_unique()
    if patients > manifest.max_patients:
        return (
            f"{patients:,} patients, and site.toml says at most {manifest.max_patients:,}: raise "
            "max_patients before the first run"
        )
    if task.train_at != manifest.role:
        return ""
    if (to_train := train.patient_tokens.n_unique()) < MIN_PATIENTS:
        return (
            f"{to_train} patients to train on, and at least {MIN_PATIENTS} are needed: give a "
            "longer period"
        )
    if rows.labels.min() == rows.labels.max():
        return "every row has the same label: is the extract filtered by the decision?"
    return ""
