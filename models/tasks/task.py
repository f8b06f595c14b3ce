"""A task: which question, about whom, asked when, and answered from which fields."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.catalog import CONTRACTS
from data_contracts.errors import GroundTruthError
from data_contracts.features import Codes, Feature, encode, resolve
from data_contracts.fields import Available, Role
from data_contracts.split import held_out
from models.patients import PatientRows, group_by_patient

Tables = Mapping[str, pl.DataFrame]
Roster = Mapping[str, Sequence[str]]


class TaskDataError(GroundTruthError):
    """A site's tables cannot serve a task."""


@dataclass(frozen=True, slots=True)
class Task:
    """One prediction task.

    Attributes:
        name: Short name.
        question: What the model predicts, as a question.
        positive: What label 1 is called.
        index_time: When the prediction is made; later fields cannot be features.
        tables: Contract tables that a site needs for it.
        rows: Joins the tables to one row per prediction, with `patient_token`, `row_token`,
            `label` (Boolean; null where the outcome is censored or not in the population) and the
            columns that the features read.
        features: Features, in the order of the model.
        train_at: Role of the sites that train. Payers and providers hold the same requests;
            training on both copies would charge every patient twice for the same information.
        note: What readers of a result must know.
        groups: Features by whose levels the model is evaluated, too.
    """

    name: str
    question: str
    positive: str
    index_time: Available
    tables: tuple[str, ...]
    rows: Callable[[Tables], pl.DataFrame] = field(compare=False, repr=False)
    features: tuple[Feature, ...]
    train_at: Role
    note: str = ""
    groups: tuple[str, ...] = ()

    @property
    def contracts(self) -> dict[str, str]:
        """Version, here, of the contract of each of its tables."""
        return {name: CONTRACTS[name].version for name in self.tables}

    def resolve(self, roster: Roster) -> tuple[Feature, ...]:
        """Its features with the network's members filled in.

        Raises:
            LeakError: A feature is known only after `index_time`.
        """
        return resolve(self.features, self.index_time, roster)


@dataclass(frozen=True, slots=True)
class TaskRows:
    """Rows of one site for one task.

    Attributes:
        patient_tokens: Length n.
        row_tokens: Length n.
        codes: Feature codes, shape (n, n_features).
        labels: 0 or 1, shape (n,).
    """

    patient_tokens: pl.Series
    row_tokens: pl.Series
    codes: Codes
    labels: NDArray[np.float64]

    def __len__(self) -> int:
        return int(self.labels.size)

    def split(self, *, key: str, test_share: float) -> tuple["TaskRows", "TaskRows"]:
        """Rows of training patients and of held-out ones; see `data_contracts.split`."""
        test = held_out(self.patient_tokens, key=key, share=test_share)
        return self.where(~test), self.where(test)

    def by_patient(self, *, max_records: int) -> PatientRows:
        """The rows grouped by patient, at most `max_records` of each."""
        return group_by_patient(
            self.codes, self.labels, self.patient_tokens, self.row_tokens, max_records=max_records
        )

    def where(self, chosen: NDArray[np.bool_]) -> "TaskRows":
        """The chosen rows."""
        flags = pl.Series(chosen)
        return TaskRows(
            self.patient_tokens.filter(flags),
            self.row_tokens.filter(flags),
            self.codes[chosen],
            self.labels[chosen],
        )


def assemble(task: Task, tables: Tables, features: Sequence[Feature], *, site: str) -> TaskRows:
    """The rows of a site for a task: those with a label, encoded on public grids.

    Args:
        task: The task.
        tables: The site's valid contract tables.
        features: The task's resolved features.
        site: Name of the site, for the message.

    Raises:
        TaskDataError: The site lacks a table.
    """
    missing = [name for name in task.tables if name not in tables]
    if missing:
        raise TaskDataError(
            f"site {site}: task {task.name} needs table{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)}; name them under [tables] in site.toml"
        )
    rows = task.rows(tables).filter(pl.col("label").is_not_null())
    return TaskRows(
        patient_tokens=rows["patient_token"],
        row_tokens=rows["row_token"],
        codes=encode(rows, features),
        labels=rows["label"].cast(pl.Float64).to_numpy(),
    )
