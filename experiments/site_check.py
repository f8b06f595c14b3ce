"""What a site learns of its own tables before it joins: valid rows, and the tasks they serve."""

from collections.abc import Mapping
from dataclasses import dataclass

from data_contracts.errors import GroundTruthError
from data_contracts.intake import Table, read_tables
from data_contracts.manifest import SiteManifest
from experiments.config import TEST_SHARE
from experiments.plans import MIN_PATIENTS, SPLIT_KEY
from models.tasks import TASKS
from models.tasks.task import Task, assemble


@dataclass(frozen=True, slots=True)
class SiteCheck:
    """Result of a check. It stays at the site.

    Attributes:
        name: Name of the site.
        role: Payer or provider.
        tables: The tables that could be read.
        failures: What is wrong with the others, one sentence each.
        tasks: Task -> what the tables hold for it, for tasks whose tables the site has.
        ready: Whether at least one task can be trained or measured.
    """

    name: str
    role: str
    tables: Mapping[str, Table]
    failures: tuple[str, ...]
    tasks: Mapping[str, str]
    ready: bool


def check_site(manifest: SiteManifest) -> SiteCheck:
    """Read every table of a site, and join them for every task that they could serve."""
    tables, failures = {}, []
    for name in manifest.tables:
        try:
            tables[name] = read_tables(manifest, only=[name])[name]
        except GroundTruthError as error:
            failures.append(str(error))
    found, ready = {}, False
    for task in TASKS.values():
        if set(task.tables) <= set(tables):
            found[task.name], serves = _rows_for(task, manifest, tables)
            ready = ready or serves
    return SiteCheck(manifest.name, manifest.role, tables, tuple(failures), found, ready)


def _rows_for(task: Task, manifest: SiteManifest, tables: Mapping[str, Table]) -> tuple[str, bool]:
    """What the tables hold for a task, in words, and whether it is enough."""
    # The roster only names levels of features; a site's own rows do not depend on it.
    roster = {"payers": ("p",), "providers": ("v",), "sites": ("s",)}
    valid = {name: table.rows for name, table in tables.items()}
    rows = assemble(task, valid, task.resolve(roster), site=manifest.name)
    if not len(rows):
        return "no row has a label (do the tables join on their tokens?)", False
    patients = rows.patient_tokens.n_unique()
    text = f"{len(rows):,} rows of {patients:,} patients, {rows.labels.mean():.1%} {task.positive}"
    if patients > manifest.max_patients:
        said = f"site.toml says at most {manifest.max_patients:,}: raise max_patients"
        return f"{text}; {said}", False
    if task.train_at != manifest.role:
        return f"{text}; {task.train_at}s train it, a {manifest.role} is measured", True
    train, _ = rows.split(key=SPLIT_KEY, test_share=TEST_SHARE)
    if (to_train := train.patient_tokens.n_unique()) < MIN_PATIENTS:
        least = f"at least {MIN_PATIENTS} are needed"
        return f"{text}; {to_train} of them to train on, {least}", False
    if rows.labels.min() == rows.labels.max():
        return f"{text}; every row has the same label", False
    return text, True
