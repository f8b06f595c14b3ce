"""Canaries: made-up patients who stand out as far as a contract allows, as rows of real tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.manifest import MANIFEST_NAME, SiteManifest
from data_contracts.split import held_out
from federation.plan import RunPlan
from federation.site import site_rows
from models.patients import PatientRows
from models.queries import Query

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]

TASK: Final = "approved"
"""The task whose tables canaries are written into."""

_DRAWN: Final = {
    "pa_request": (
        ("payer_id",),
        ("business_line",),
        ("service_type",),
        ("channel",),
        ("level_of_service",),
        ("certification_type",),
        ("dx_principal",),
        ("dx_other",),
        ("risk_score",),
        ("criteria_required", "criteria_documented"),
        ("attachments_n",),
    ),
    "pa_decision": (),
    "clinical_outcome": (("age_band",), ("sex",), ("sdi_quintile",)),
}
"""Table -> fields that features read, drawn on their own but for those that a contract ties."""

_PART = "canaries.parquet"


@dataclass(frozen=True, slots=True)
class Canaries:
    """Patients of the training side who are in a run by the toss of a coin.

    Attributes:
        tables: Contract tables with the rows of all of them, in their order.
        rows: The same as a site reads and groups them, in the order of their tokens.
        records: Records of each.
        sites: Folders of the sites that train.
        copies: Sites at which each stands.
    """

    tables: Mapping[str, pl.DataFrame]
    rows: PatientRows
    records: int
    sites: Sequence[Path]
    copies: int

    @property
    def count(self) -> int:
        """Number of canaries."""
        return self.rows.n_rows // self.records

    def plant(self, included: Flags) -> None:
        """Write the canaries whose coin says so into the tables of their sites, no others.

        Canary i stands at site i modulo the number of sites, and at the next `copies` - 1.
        """
        canary = np.arange(self.count)
        for number, folder in enumerate(self.sites):
            here = included & ((number - canary) % len(self.sites) < self.copies)
            rows = pl.Series(np.repeat(here, self.records))
            for name, table in self.tables.items():
                table.filter(rows).write_parquet(folder / name / _PART)

    def effects(self, query: Query, company: PatientRows) -> Vector:
        """By how much each canary changes the sum of the sites' answers.

        Args:
            query: The query.
            company: Other patients beside whom a canary stands. They play no part where answers
                are sums over patients, and all of it where a mistake lets patients interact.

        Returns:
            Shape (n_canaries, n_values).
        """
        without = query.answer(company)
        answers = [query.answer(self._beside(company, i)) for i in range(self.count)]
        return self.copies * (np.stack(answers) - without)

    def _beside(self, company: PatientRows, canary: int) -> PatientRows:
        """The company and one canary."""
        rows = self.rows
        first, end = canary * self.records, (canary + 1) * self.records
        starts = rows.starts[(rows.starts >= first) & (rows.starts < end)]
        return PatientRows(
            np.asfortranarray(np.concatenate([company.codes, rows.codes[first:end]])),
            np.concatenate([company.labels, rows.labels[first:end]]),
            np.concatenate([company.starts, starts - first + company.n_rows]),
            np.concatenate([company.weights, rows.weights[first:end]]),
            rows.max_records,
        )


def make_canaries(
    plan: RunPlan,
    sites: Sequence[Path],
    folder: Path,
    *,
    count: int,
    copies: int,
    rng: np.random.Generator,
) -> Canaries:
    """Canaries for a synthetic network, of whom none is at a site yet.

    A canary has as many records as are used of a patient, all alike, and a label by a fair coin, so
    what it adds to a sum comes near the bound. Each field is drawn on its own from what the sites'
    patients have: fields do not go together as they do in patients, and canaries point in all
    directions evenly. (Drawn evenly from all that a contract allows, they would differ in a few
    rare codes alone and drown each other.)

    Args:
        plan: The run's plan, of task `TASK`.
        sites: Folders of the sites that train.
        folder: Where to keep the rows of all canaries; it must not exist.
        count: Number of canaries.
        copies: Sites at which each stands, no more than there are.
        rng: Where tokens, fields and labels come from.
    """
    records = plan.privacy.max_records_per_patient
    candidates = pl.Series([rng.bytes(16).hex() for _ in range(8 * count + 64)]).sort()
    held = held_out(candidates, key=plan.split_key, share=plan.test_share)
    canaries = pl.DataFrame(
        {
            "patient_token": candidates.filter(pl.Series(~held)).head(count),
            "provider_group_id": [plan.sites[i % len(plan.sites)] for i in range(count)],
            "action_code": np.where(rng.random(count) < 0.5, "A1", "A3"),
            "exchange_seq": np.zeros(count, dtype=np.int64),
        }
    )
    # Sorted by their own tokens, records are sorted by patient too: see `_beside`.
    requests = pl.Series(
        "request_token",
        [f"{token}{i:08x}" for token in canaries["patient_token"] for i in range(records)],
    )
    tables = {}
    for name, together in _DRAWN.items():
        seen = pl.concat([pl.read_parquet(site / name / "*.parquet") for site in sites])
        drawn = [seen.select(*fields)[rng.integers(seen.height, size=count)] for fields in together]
        own = canaries.select(pl.col(c).cast(seen.schema[c]) for c in canaries.columns if c in seen)
        # What no feature reads is as in the first row, a first answer.
        each = pl.concat([seen.head(1)] * count).with_columns(*own, *(c for d in drawn for c in d))
        tables[name] = each[np.repeat(np.arange(count), records)].with_columns(requests)
        (folder / name).mkdir(parents=True)
        tables[name].write_parquet(folder / name / _PART)
    names = {name: folder / name for name in tables}
    SiteManifest(folder.name, plan.the_task.train_at, names, "synthetic").write(folder)
    rows = site_rows(folder / MANIFEST_NAME, plan, "train")
    return Canaries(tables, rows, records, sites, copies)
