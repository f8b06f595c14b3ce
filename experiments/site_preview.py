"""What would leave a site in a run: every vector, as it is, with its noise. Nothing is sent.

The run is rehearsed with this site's rows alone: its own noisy sums stand in for those of the
network. So the first round is exactly what a run would ask and get; later rounds ask the same of a
model that only this site has trained. Noise is fresh and nothing is charged: what is never sent
costs nobody anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.features import Feature, LevelGrid, NumberGrid, grid_of
from data_contracts.fields import Role
from data_contracts.intake import read_tables
from data_contracts.manifest import SiteManifest
from experiments.config import ExperimentConfig
from experiments.plans import make_plan
from experiments.site_check.check import own_roster
from federation.plan import RunPlan
from federation.settings import ConfigError
from federation.site import SitePolicyError, check_policy, site_rows
from models.keystream import keystream
from models.mechanisms import GaussianSum, SystemNoise
from models.queries import HistogramQuery, Query
from models.tasks import TASKS
from models.training import NoisySum, drive

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Leaving:
    """One vector that would leave the site.

    Attributes:
        step: Step of the training.
        round: Round of the step, from 1.
        sensitivity: L2 distance by which one patient can change it.
        noise_std: Standard deviation of this site's share of the noise, in each value.
        exact: The sum over the site's patients, shape (d,); it never leaves.
        noisy: The sum as it would leave, before the masks of the secure sum, shape (d,).
        meanings: What each value is, length d; empty where position is all that can be said.
    """

    step: str
    round: int
    sensitivity: float
    noise_std: float
    exact: Vector
    noisy: Vector
    meanings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would ask of a site for one task.

    Attributes:
        plan: The plan, as if so many sites took part.
        refusal: Why the site would refuse the plan; "" if it would not.
        vectors: What would leave, in order.
    """

    plan: RunPlan
    refusal: str
    vectors: tuple[Leaving, ...]

    def write(self, file: Path) -> None:
        """Write all values as Parquet: step, round, position, meaning, exact, noisy."""
        pl.concat(
            pl.DataFrame(
                {
                    "step": pl.Series([vector.step] * vector.exact.size, dtype=pl.Categorical),
                    "round": np.full(vector.exact.size, vector.round),
                    "position": np.arange(vector.exact.size),
                    "meaning": vector.meanings or [""] * vector.exact.size,
                    "exact": vector.exact,
                    "noisy": vector.noisy,
                }
            )
            for vector in self.vectors
        ).write_parquet(file)


def preview(site: Path, config: ExperimentConfig, task: str, n_sites: int) -> Preview:
    """Rehearse a run at one site.

    Args:
        site: The site's site.toml.
        config: The experiment.
        task: One of its tasks.
        n_sites: How many sites are assumed to take part, this one included.

    Raises:
        ConfigError: The experiment promises no privacy, or the task is trained elsewhere.
        GroundTruthError: The tables cannot be read; see `federation.site.site_rows`.
    """
    manifest = SiteManifest.load(site)
    if manifest.role != (trained_at := TASKS[task].train_at):
        raise ConfigError(
            f"task {task} is trained by {trained_at}s; a {manifest.role} like {manifest.name} is "
            "only measured"
        )
    # Noise as in a run over private data: nobody can draw it again.
    plan = replace(make_plan(config, task, _network(manifest, n_sites)), noise_seed=None)
    if plan.mu is None:
        raise ConfigError("the settings promise no privacy: set privacy.epsilon")
    refusal = ""
    try:
        check_policy(manifest, plan)
    except SitePolicyError as error:
        refusal = str(error)
    rehearsal = _Rehearsal(site, plan)
    drive(plan.training(), rehearsal.answer)
    return Preview(plan, refusal, tuple(rehearsal.vectors))


def _network(manifest: SiteManifest, n_sites: int) -> list[SiteManifest]:
    """The site, others of its role, and whom its own requests name on the other side."""
    peers = [replace(manifest, name=f"other-{n}", group="") for n in range(1, n_sites)]
    requests = set(manifest.tables) & {"pa_request"}
    valid = {name: table.rows for name, table in read_tables(manifest, only=requests).items()}
    roster = own_roster(manifest, valid)
    role: Role = "payer" if manifest.role == "provider" else "provider"
    return [
        manifest,
        *peers,
        *(replace(manifest, name=name, role=role, group="") for name in roster[f"{role}s"]),
    ]


class _Rehearsal:
    """Answers queries as the site would, and keeps what would leave."""

    def __init__(self, site: Path, plan: RunPlan) -> None:
        self._site, self._plan = site, plan
        self._noise = SystemNoise()
        self.vectors: list[Leaving] = []

    def answer(self, query: Query) -> NoisySum:
        """What the site alone would make of a query."""
        plan, step = self._plan, query.step
        mechanism: GaussianSum = plan.release(query, retry=False)
        rows = site_rows(self._site, plan, plan.population_of(step).side)
        if (rate := plan.sample_rate_of(step)) < 1:
            rows = rows.sampled(rate, keystream(self._noise.key(step), rows.n_patients))
        exact = query.answer(rows)
        noisy = mechanism.decode(mechanism.release(exact, self._noise.key(step)))
        std = mechanism.noise_std(1)
        round_ = 1 + sum(vector.step == step for vector in self.vectors)
        meanings = _meanings(query, plan.features())
        self.vectors.append(Leaving(step, round_, query.sensitivity, std, exact, noisy, meanings))
        return NoisySum(noisy, std)


def _meanings(query: Query, features: Sequence[Feature]) -> tuple[str, ...]:
    """What each value of a histogram counts."""
    if not isinstance(query, HistogramQuery):
        return ()
    cells = (f"{feature.title} = {level}" for feature in features for level in _levels(feature))
    return (*cells, "label 0", "label 1", "records / most records of a patient")


def _levels(feature: Feature) -> list[str]:
    match grid_of(feature):
        case LevelGrid(levels=levels):
            return [*levels, "missing"]
        case NumberGrid() as grid:
            centers = (f"about {center:.4g}" for center in grid.centers())
            return [*centers, "missing"]
