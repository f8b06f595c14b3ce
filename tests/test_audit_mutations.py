"""Mistakes that broke other people's promises, planted one by one: each must be found.

Every mistake is put into the real code while a test lasts. Most are found twice: by guessing coins
(the lower bound exceeds the claim), which needs no knowledge of the mistake, and by looking at the
sums beside the truth, which takes a second and says what is wrong.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

import federation.client_app
from data_contracts.features import Codes
from experiments.audit.run import Audit, AuditSettings, audit
from experiments.progress import Reporter
from federation.checkpoint import RoundRecord
from federation.identity import Registry
from federation.in_process import run_in_process
from federation.messages import Answer, Request
from federation.plan import RunPlan
from federation.secure_sum import Upload
from federation.settings import PrivacySettings
from federation.strategy import SiteFailureError, run
from models.clipping import clipped_patient_counts, clipped_patient_sum
from models.discrete_gaussian import discrete_gaussian
from models.mechanisms import GaussianSum, SeededNoise
from models.patients import PatientRows, group_by_patient
from models.queries import GradientQuery, Query, design_matrix

Vector = NDArray[np.float64]
Plant = Callable[[pytest.MonkeyPatch], None]

QUICK = AuditSettings(requests=2000, providers=3, canaries=20, repeats=1)
"""A second: for what shows in the sums."""

GUESSED = AuditSettings(requests=6000, providers=3, canaries=50, repeats=4)
"""Four seconds: for leaks so large that few guesses give them away."""


def quiet(settings: AuditSettings) -> Audit:
    return audit(settings, Reporter(quiet=True))


# --- the mistakes --------------------------------------------------------------------------------


def noise_times(factor: float) -> Plant:
    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        def drawn(n: int, *, log2_std: int, key: bytes) -> NDArray[np.int64]:
            noise = factor * discrete_gaussian(n, log2_std=log2_std, key=key)
            return np.rint(noise).astype(np.int64)

        monkeypatch.setattr("models.mechanisms.discrete_gaussian", drawn)

    return plant


def clip_per_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def clipped(rows: Vector, factors: Vector, starts: NDArray[np.intp], bound: float) -> Vector:
        return clipped_patient_sum(rows, factors, np.arange(factors.size), bound)

    monkeypatch.setattr("models.queries.clipped_patient_sum", clipped)


def count_per_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(
        cells: NDArray[np.intp], patient_of_row: NDArray[np.intp], *, n_cells: int, bound: float
    ) -> Vector:
        return clipped_patient_counts(cells, np.arange(cells.size), n_cells=n_cells, bound=bound)

    monkeypatch.setattr("models.queries.clipped_patient_counts", counted)


def clip_after_adding_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over patients is clipped, not each of them."""

    def clipped(rows: Vector, factors: Vector, starts: NDArray[np.intp], bound: float) -> Vector:
        total = factors @ rows
        length = float(np.linalg.norm(total))
        return np.asarray(total * min(1.0, bound * starts.size / length) if length else total)

    monkeypatch.setattr("models.queries.clipped_patient_sum", clipped)


def every_record_a_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    def grouped(
        codes: Codes, labels: Vector, _: pl.Series, row_tokens: pl.Series, *, max_records: int
    ) -> PatientRows:
        return group_by_patient(codes, labels, row_tokens, row_tokens, max_records=max_records)

    monkeypatch.setattr("models.tasks.task.group_by_patient", grouped)


def same_noise_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = SeededNoise.key
    monkeypatch.setattr(SeededNoise, "key", lambda self, stream: honest(self, "run"))


def shares_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of n sites adds sigma / n instead of sigma / sqrt(n)."""
    honest = RunPlan.release

    def release(self: RunPlan, query: Query, *, retry: bool) -> GaussianSum:
        mechanism = honest(self, query, retry=retry)
        n = self.noise_shares
        return dataclasses.replace(mechanism, shares=n * n, sites=n * len(self.sites))

    monkeypatch.setattr(RunPlan, "release", release)


def counted_at_one_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patient at several sites is promised what holds at one."""
    monkeypatch.setattr(RunPlan, "costs_at_multiplicity", RunPlan.costs)


def scaled_by_own_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled(tables: Vector, shapes: NDArray[np.int64], rows: PatientRows) -> Vector:
        design = design_matrix(tables, shapes, rows)
        deviation = design.std(axis=0)
        centred = design - design.mean(axis=0)
        return np.asarray(centred / np.where(deviation > 1e-9, deviation, 1.0))

    monkeypatch.setattr("models.queries.design_matrix", scaled)


def scaled_to_own_length(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = GradientQuery.answer

    def answer(self: GradientQuery, rows: PatientRows) -> Vector:
        total = honest(self, rows)
        return np.asarray(total * (20 * self.clip / max(float(np.linalg.norm(total)), 1e-9)))

    monkeypatch.setattr(GradientQuery, "answer", answer)


# --- found in the sums ---------------------------------------------------------------------------

IN_THE_SUMS: dict[str, tuple[Plant, AuditSettings, str]] = {
    "no noise": (noise_times(0.0), QUICK, "times as large as the sites say"),
    "two thirds of the noise": (noise_times(2 / 3), QUICK, "times as large as the sites say"),
    "half as much noise again": (noise_times(3 / 2), QUICK, "times as large as the sites say"),
    "clipped per record": (clip_per_record, QUICK, "gradient: a patient changes"),
    "counted per record": (count_per_record, QUICK, "recalibration: a patient changes"),
    "clipped after adding up": (clip_after_adding_up, QUICK, "gradient: a patient changes"),
    "every record a patient": (every_record_a_patient, QUICK, "histogram: a patient changes"),
    "the same noise in every round": (same_noise_in_every_round, QUICK, "is not independent"),
    "shares too small": (shares_too_small, QUICK, "and the promise needs"),
    "counted at one site of two": (
        counted_at_one_site,
        dataclasses.replace(QUICK, copies=2),
        "histogram: a patient changes 9.165, and the bound is 4.583",
    ),
    "scaled by own moments": (scaled_by_own_moments, QUICK, "depends on the other patients"),
    "scaled to own length": (scaled_to_own_length, QUICK, "depends on the other patients"),
}


@pytest.mark.parametrize("mistake", IN_THE_SUMS)
def test_a_mistake_shows_in_the_sums(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, settings, words = IN_THE_SUMS[mistake]
    plant(monkeypatch)
    found = quiet(settings)
    assert any(words in flaw for flaw in found.flaws), found
    assert not found.consistent


# --- found by guessing ---------------------------------------------------------------------------

BY_GUESSING: dict[str, tuple[Plant, AuditSettings]] = {
    "no noise": (noise_times(0.0), GUESSED),
    "clipped per record": (clip_per_record, GUESSED),
    "clipped after adding up": (clip_after_adding_up, GUESSED),
    "every record a patient": (every_record_a_patient, GUESSED),
}
SLOWLY: dict[str, tuple[Plant, AuditSettings]] = {
    "shares too small": (
        shares_too_small,
        AuditSettings(requests=4000, providers=20, canaries=400, repeats=4),
    ),
    "counted at one site of five": (
        counted_at_one_site,
        AuditSettings(requests=6000, providers=5, canaries=300, repeats=6, copies=5),
    ),
}


@pytest.mark.parametrize("mistake", BY_GUESSING)
def test_guesses_rule_out_the_claim(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, settings = BY_GUESSING[mistake]
    plant(monkeypatch)
    found = quiet(settings)
    assert found.lower_bound > found.claim == pytest.approx(1.0), found


@pytest.mark.slow
@pytest.mark.parametrize("mistake", SLOWLY)
def test_many_guesses_rule_out_the_claim(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, settings = SLOWLY[mistake]
    plant(monkeypatch)
    found = quiet(settings)
    assert found.lower_bound > found.claim == pytest.approx(1.0), found


@pytest.mark.parametrize("seed", [7, 8])
def test_the_same_guesses_do_not_rule_out_an_honest_claim(seed: int) -> None:
    found = quiet(dataclasses.replace(GUESSED, seed=seed))
    assert found.consistent, found


@pytest.mark.slow
def test_what_is_promised_at_five_sites_holds_there() -> None:
    found = quiet(SLOWLY["counted at one site of five"][1])
    assert found.consistent, found


# --- sites that vanish ---------------------------------------------------------------------------

TOLERANT = PrivacySettings(epsilon=3.0, dropouts=0.4, retries=2)


def rounds_without_a_site(
    plan: RunPlan,
    folders: list[Path],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    vanishing: dict[str, int],
) -> tuple[RoundRecord, ...]:
    """A run in which sites answer so many times, and then no more."""
    honest = federation.client_app.answer
    left = dict(vanishing)

    def answer(manifest_file: Path, plan: RunPlan, request: Request) -> Answer | Upload:
        name = manifest_file.parent.name
        if name in left:
            left[name] -= 1
            if left[name] < 0:
                raise RuntimeError("gone")
        return honest(manifest_file, plan, request)

    monkeypatch.setattr(federation.client_app, "answer", answer)
    rounds: list[RoundRecord] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        rounds.extend(run(grid, plan, registry=registry).rounds)

    nodes = [{"site": str(folder / "site.toml")} for folder in folders]
    run_in_process(server, federation.client_app.app, nodes, {"plan": plan.to_json()})
    return tuple(rounds)


def enough_noise(record: RoundRecord) -> bool:
    """Whether a sum has the noise that its price needs: what no attack of this size finds."""
    return record.noise_std >= record.sensitivity / (record.mu or math.inf) * (1 - 1e-9)


@pytest.mark.parametrize("after", [0, 1, 4, 6])
def test_sums_without_a_site_have_noise_enough(
    make_plan: Callable[..., RunPlan],
    provider_folders: list[Path],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    plan = make_plan(privacy=TOLERANT)
    rounds = rounds_without_a_site(
        plan, provider_folders, registry, monkeypatch, {"provider-02": after}
    )
    assert {record.sites for record in rounds[after:]} == {2}
    assert all(enough_noise(record) for record in rounds)


def test_noise_that_counts_on_sites_that_vanished_is_found(
    make_plan: Callable[..., RunPlan],
    provider_folders: list[Path],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RunPlan, "noise_shares", property(lambda self: len(self.sites)))
    plan = make_plan(privacy=TOLERANT)
    rounds = rounds_without_a_site(
        plan, provider_folders, registry, monkeypatch, {"provider-02": 2}
    )
    assert [enough_noise(record) for record in rounds] == [True] * 2 + [False] * 5


def test_with_too_few_sites_no_sum_is_opened(
    make_plan: Callable[..., RunPlan],
    provider_folders: list[Path],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = make_plan(privacy=TOLERANT)
    vanishing = {"provider-01": 1, "provider-02": 1}
    with pytest.raises(SiteFailureError, match="the round is thrown away"):
        rounds_without_a_site(plan, provider_folders, registry, monkeypatch, vanishing)
