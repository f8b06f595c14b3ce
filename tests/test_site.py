"""What a site answers and what it refuses, before it looks at a row."""

import dataclasses
import math
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from data_contracts.compatibility import parse_version
from data_contracts.features import grid_of
from data_contracts.manifest import SiteManifest
from federation import site
from federation.ledger import Ledger, LedgerError, Population, ledger_file
from federation.messages import Answer, MessageError, Request
from federation.plan import RunPlan
from federation.roster import RosterError, SecureSumError, TooFewSitesError
from federation.run_state import RunStateError, new_run_id
from federation.secure_sum import Upload
from federation.settings import PrivacySettings
from federation.site import (
    ContractVersionError,
    SiteError,
    SitePolicyError,
    TooManyPatientsError,
    answer,
    greet,
    site_rows,
)
from models.mechanisms import SeededNoise, SystemNoise
from models.neural_queries import NeuralScoreQuery
from models.patients import PatientRows
from models.queries import AdditiveScoreQuery, GradientQuery, GramQuery, HistogramQuery, Query
from models.score_histogram import AdditiveEvaluationQuery
from models.tasks.task import TaskDataError

PlanMaker = Callable[..., RunPlan]
WITHOUT = PrivacySettings(epsilon=None)
UNMASKED = PrivacySettings(epsilon=3.0, secure_sum=False)


def sizes(plan: RunPlan) -> np.ndarray:
    return np.array([grid_of(feature).n_codes for feature in plan.features()], dtype=np.int64)


def ones(plan: RunPlan) -> tuple[np.ndarray, np.ndarray]:
    """One column of ones per feature."""
    heights = sizes(plan)
    return np.ones(heights.sum()), np.stack([heights, np.ones_like(heights)], axis=1)


def gradient(plan: RunPlan, clip: float = 1.0) -> GradientQuery:
    d = len(plan.features())
    return GradientQuery(*ones(plan), np.eye(d), np.zeros(d + 1), clip)


def words(given: object) -> np.ndarray:
    assert isinstance(given, Upload)
    return given.words


def ledger(file: Path) -> Ledger:
    return Ledger.existing(ledger_file(file.parent))


@pytest.fixture
def files(provider_folders: list[Path]) -> list[Path]:
    return [folder / "site.toml" for folder in provider_folders]


# --- private data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise_seed": 0}, "refuses reproducible noise"),
        ({"noise_seed": None, "privacy": WITHOUT}, "refuses to train without privacy"),
        ({"noise_seed": None, "privacy": PrivacySettings(epsilon=4.0)}, "refuses epsilon = 4"),
        (
            {"noise_seed": None, "privacy": PrivacySettings(epsilon=3.0, delta=1e-3)},
            "refuses epsilon = 3 at delta = 0.001",
        ),
    ],
)
def test_private_data_are_not_used_as_a_plan_would_have_it(
    make_plan: PlanMaker, private_sites: list[Path], changes: dict[str, Any], words: str
) -> None:
    plan = make_plan(**changes)
    with pytest.raises(SitePolicyError, match=words):
        greet(private_sites[0], plan, "0" * 32)
    with pytest.raises(SitePolicyError, match=words):
        answer(private_sites[0], plan, Request(HistogramQuery(sizes(plan)), "0" * 32, 1))
    assert not ledger_file(private_sites[0].parent).exists()


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"max_patients_per_site": 999_999}, "declares up to 1,000,000 patients"),
        ({"colluders": 0.05}, r"refuses privacy\.colluders = 0\.05"),
    ],
)
def test_a_private_site_refuses_plans_that_are_not_made_for_it(
    make_plan: PlanMaker, private_sites: list[Path], privacy: dict[str, Any], words: str
) -> None:
    plan = make_plan(noise_seed=None, privacy=PrivacySettings(epsilon=3.0, **privacy))
    with pytest.raises(SitePolicyError, match=words):
        greet(private_sites[0], plan, "0" * 32)
    bold = dataclasses.replace(
        SiteManifest.load(private_sites[0]), max_patients=1000, min_colluders=0.0
    )
    bold.write(private_sites[0].parent)
    greet(private_sites[0], plan, "0" * 32)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"min_sites": 4}, "in runs of 4 sites or more .* the plan names 3"),
        ({"min_patients": 1501}, "over 1,501 declared patients or more .* declares 1,500"),
        ({"tasks": ("cost", "readmission")}, "takes part in cost, readmission .* is for approved"),
    ],
)
def test_a_site_keeps_to_its_own_limits(
    make_plan: PlanMaker, private_sites: list[Path], limit: dict[str, Any], words: str
) -> None:
    plan = make_plan(noise_seed=None)
    plan = dataclasses.replace(plan, patients=dict.fromkeys(plan.sites, 500))
    usual = SiteManifest.load(private_sites[0])
    dataclasses.replace(usual, **limit).write(private_sites[0].parent)
    with pytest.raises(SitePolicyError, match=words):
        greet(private_sites[0], plan, "0" * 32)
    just = {"min_sites": 3, "min_patients": 1500, "tasks": ("approved",)}
    dataclasses.replace(usual, **just).write(private_sites[0].parent)
    greet(private_sites[0], plan, "0" * 32)


def version_after(plan: RunPlan, table: str, major: int = 0, minor: int = 0, patch: int = 0) -> str:
    now = parse_version(plan.contracts[table])
    return ".".join(str(at + step) for at, step in zip(now, (major, minor, patch), strict=True))


@pytest.mark.parametrize("step", [{"major": -1}, {"major": 1}, {"minor": 1}])
def test_a_site_refuses_a_plan_for_other_contracts_before_it_reads_a_row(
    make_plan: PlanMaker, private_sites: list[Path], step: dict[str, int]
) -> None:
    for file in private_sites:
        manifest = SiteManifest.load(file)
        gone = dict.fromkeys(manifest.tables, file.parent / "never-read")
        dataclasses.replace(manifest, tables=gone).write(file.parent)
    ours = make_plan(noise_seed=None)
    asked, held = version_after(ours, "pa_decision", **step), ours.contracts["pa_decision"]
    other = make_plan(noise_seed=None, contracts={**ours.contracts, "pa_decision": asked})
    words = f"site provider-01 holds .*pa_decision is {held} and .* made for {asked}"
    with pytest.raises(ContractVersionError, match=words):
        greet(private_sites[0], other, "0" * 32)
    with pytest.raises(ContractVersionError, match=words):
        answer(private_sites[0], other, Request(HistogramQuery(sizes(ours)), "0" * 32, 1))
    assert not ledger_file(private_sites[0].parent).exists()


def test_the_reason_why_contracts_do_not_fit_leaves_even_a_private_site(
    make_plan: PlanMaker, private_sites: list[Path]
) -> None:
    manifest = SiteManifest.load(private_sites[0])
    ours = make_plan(noise_seed=None)
    asked = version_after(ours, "pa_request", major=1)
    other = make_plan(noise_seed=None, contracts={**ours.contracts, "pa_request": asked})
    with (
        pytest.raises(ContractVersionError, match=f"made for {asked}"),
        site.reasons_kept_at_site(manifest),
    ):
        greet(private_sites[0], other, "0" * 32)


def test_a_site_serves_plans_for_other_words_of_its_contracts(
    make_plan: PlanMaker, files: list[Path]
) -> None:
    ours = make_plan()
    patched = {name: version_after(ours, name, patch=7) for name in ours.contracts}
    assert greet(files[0], make_plan(contracts=patched), "0" * 32) is not None


def test_more_patients_than_a_plan_is_made_for_are_no_answer(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    small = dataclasses.replace(SiteManifest.load(private_sites[0]), max_patients=10)
    for file in private_sites:
        dataclasses.replace(SiteManifest.load(file), max_patients=10).write(file.parent)
    assert SiteManifest.load(private_sites[0]).max_patients == small.max_patients
    plan = make_plan(
        noise_seed=None, privacy=PrivacySettings(epsilon=3.0, max_patients_per_site=10)
    )
    with pytest.raises(TooManyPatientsError, match="max_patients"):
        coordinator(plan, private_sites).ask(HistogramQuery(sizes(plan)))
    assert ledger(private_sites[0]).charges() == []


def test_a_run_that_has_not_greeted_is_neither_answered_nor_charged(
    make_plan: PlanMaker, private_sites: list[Path]
) -> None:
    plan = make_plan(noise_seed=None, privacy=UNMASKED)
    with pytest.raises(RunStateError, match="greet it first"):
        answer(private_sites[0], plan, Request(HistogramQuery(sizes(plan)), new_run_id(), 1))
    assert not ledger_file(private_sites[0].parent).exists()


def test_a_site_is_private_unless_it_says_otherwise(private_sites: list[Path]) -> None:
    text = private_sites[0].read_text(encoding="utf-8").replace('origin = "private"\n', "")
    private_sites[0].write_text(text, encoding="utf-8")
    assert SiteManifest.load(private_sites[0]).origin == "private"


def test_private_data_are_answered_with_noise_that_nobody_can_draw_again(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    plan = make_plan(noise_seed=None, privacy=UNMASKED)
    manifest = SiteManifest.load(private_sites[0])
    assert isinstance(site.check_policy(manifest, plan), SystemNoise)
    query = HistogramQuery(sizes(plan))
    first, second = (words(coordinator(plan, private_sites[:1]).ask(query)[0]) for _ in range(2))
    assert not np.isin(first, second).any()


@pytest.mark.parametrize("query", [GramQuery, GradientQuery, AdditiveScoreQuery])
def test_a_query_without_a_bound_is_never_answered_or_charged_where_privacy_is_promised(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any, query: type[Query]
) -> None:
    plan = make_plan(noise_seed=None)
    asked: Query = gradient(plan, math.inf)
    if query is GramQuery:
        asked = GramQuery(*ones(plan), math.inf)
    elif query is AdditiveScoreQuery:
        asked = AdditiveScoreQuery(16, 8.0, math.inf, np.zeros(sizes(plan).sum()), sizes(plan), 0.0)
    with pytest.raises(ValueError, match="must lie between"):
        coordinator(plan, private_sites).ask(asked)
    assert ledger(private_sites[0]).charges() == []


def test_a_site_outside_the_plan_or_of_the_other_role_is_not_charged(
    make_plan: PlanMaker, files: list[Path], small_network: Path
) -> None:
    plan = make_plan()
    request = Request(HistogramQuery(sizes(plan)), "0" * 32, 1)
    others = make_plan(sites=plan.sites[1:])
    with pytest.raises(SitePolicyError, match="not asked to train"):
        answer(files[0], others, request)
    payer = small_network / "sites" / plan.payers[0] / "site.toml"
    with pytest.raises(SitePolicyError, match="trained by providers"):
        answer(payer, make_plan(sites=(*plan.sites, plan.payers[0])), request)


def test_reasons_that_depend_on_private_rows_stay_at_the_site(
    private_sites: list[Path], files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    private, public = SiteManifest.load(private_sites[0]), SiteManifest.load(files[0])
    with pytest.raises(SiteError) as told, site.reasons_kept_at_site(private):
        raise TaskDataError("17 of 300 rows are wrong")
    assert "17" not in str(told.value)
    assert "TaskData" not in str(told.value)
    assert told.value.__cause__ is None
    assert "17 of 300 rows are wrong" in caplog.text
    with pytest.raises(TaskDataError, match="17"), site.reasons_kept_at_site(public):
        raise TaskDataError("17 of 300 rows are wrong")
    for error in (SitePolicyError, MessageError, SecureSumError, RunStateError):
        with pytest.raises(error, match="plan"), site.reasons_kept_at_site(private):
            raise error("the plan asks for something else")


def test_a_plan_gets_its_own_rows_whatever_another_plan_asks_meanwhile(
    make_plan: PlanMaker, provider_folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, one = provider_folders[0] / "site.toml", make_plan(split_key="one")
    privacy = PrivacySettings(max_records_per_patient=1)
    other = make_plan(split_key="other", privacy=privacy)
    expected = site_rows(file, one, "train")

    class Contested(dict[Path, Any]):
        """Whatever is put there is at once overtaken by another thread with another plan."""

        def __setitem__(self, key: Path, value: Any) -> None:
            super().__setitem__(key, value)
            monkeypatch.setattr(site, "_held", {})
            site_rows(file, other, "train")
            super().__setitem__(key, site._held[file])
            monkeypatch.setattr(site, "_held", self)

    monkeypatch.setattr(site, "_held", Contested())
    found = site_rows(file, one, "train")
    assert found.max_records == expected.max_records == 4
    assert np.array_equal(found.codes, expected.codes)


def test_changed_data_are_read_again(
    make_plan: PlanMaker, provider_folders: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(provider_folders[0], folder)
    plan = make_plan()
    before = site_rows(folder / "site.toml", plan, "train")
    assert site_rows(folder / "site.toml", plan, "train") is before
    for part in SiteManifest.load(folder).tables["pa_request"].glob("*.parquet"):
        pl.read_parquet(part).head(200).write_parquet(part)
    assert site_rows(folder / "site.toml", plan, "train").n_rows < before.n_rows


# --- noise and masks -----------------------------------------------------------------------------


@pytest.mark.parametrize("secure_sum", [True, False])
def test_answers_are_exact_sums_and_noise_as_the_plan_prices_it(
    make_plan: PlanMaker, files: list[Path], coordinator: Any, secure_sum: bool
) -> None:
    plan = make_plan(noise_seed=9, privacy=PrivacySettings(epsilon=3.0, secure_sum=secure_sum))
    query = HistogramQuery(sizes(plan))
    given = coordinator(plan, files).ask(query)
    mechanism = plan.release(query, retry=False)
    keys = [SeededNoise(9, each.site).key(f"{plan.digest}/histogram/1/0") for each in given]
    expected = [
        mechanism.release(query.answer(site_rows(file, plan, "train")), key)
        for file, key in zip(files, keys, strict=True)
    ]
    assert np.array_equal(sum(map(words, given)), sum(expected))
    for each, own in zip(given, expected, strict=True):
        assert np.array_equal(words(each), own) == (not secure_sum)
    assert mechanism.shares == (2 if secure_sum else 1)
    assert mechanism.noise_std(mechanism.shares) == pytest.approx(
        query.sensitivity / (plan.mu_of("histogram") or 0.0), rel=1e-3
    )


def test_every_round_and_every_retry_has_noise_of_its_own(
    make_plan: PlanMaker, files: list[Path], coordinator: Any
) -> None:
    plan = make_plan(noise_seed=9, privacy=UNMASKED)
    asked = coordinator(plan, files[:1])
    first, second = (words(asked.ask(gradient(plan), number)[0]) for number in (1, 2))
    assert not np.isin(first, second).any()


def test_public_data_may_be_used_without_privacy_and_then_nothing_is_added(
    make_plan: PlanMaker, files: list[Path], coordinator: Any
) -> None:
    plan = make_plan(privacy=WITHOUT)
    query = HistogramQuery(sizes(plan))
    given = coordinator(plan, files).ask(query)[0]
    assert isinstance(given, Answer)
    assert np.array_equal(given.values, query.answer(site_rows(files[0], plan, "train")))


def test_an_evaluation_is_answered_with_held_out_patients_alone(
    make_plan: PlanMaker, files: list[Path], coordinator: Any
) -> None:
    plan = make_plan(privacy=WITHOUT)
    n_codes = sizes(plan)
    query = AdditiveEvaluationQuery(
        n_codes=n_codes,
        edges=np.zeros(1),
        groups=np.zeros(0, dtype=np.int64),
        group_bins=1,
        clip=math.inf,
        shapes=np.zeros(n_codes.sum()),
        intercept=0.0,
    )
    given = coordinator(plan, files).ask(query)[0]
    train, held_out = (site_rows(files[0], plan, side) for side in ("train", "held_out"))
    assert np.array_equal(given.values, query.answer(held_out))
    assert not np.array_equal(given.values, query.answer(train))


# --- the ledger ----------------------------------------------------------------------------------


def test_every_release_is_charged_with_what_it_costs_and_whom(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    plan = make_plan(noise_seed=None)
    asked = coordinator(plan, private_sites)
    asked.ask(HistogramQuery(sizes(plan)))
    asked.ask(gradient(plan), 2)
    charges = [charge for _, charge in ledger(private_sites[0]).charges()]
    assert [(charge.step, charge.round) for charge in charges] == [
        ("histogram", 1),
        ("gradient", 2),
    ]
    for charge in charges:
        assert charge.run == asked.run
        assert charge.plan == plan.digest
        assert charge.mu == plan.mu_of(charge.step)
        assert charge.population == Population("test", 0.25, "train")
        # The noise that is charged is the one that the sum has for certain.
        assert charge.sensitivity / charge.noise_std == pytest.approx(charge.mu, rel=1e-3)


def test_a_round_is_answered_once_and_the_same_bytes_are_sent_again(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    plan = make_plan(noise_seed=None)
    asked = coordinator(plan, private_sites)
    first = asked.ask(gradient(plan))
    again = asked.ask(gradient(plan))
    assert all(np.array_equal(words(a), words(b)) for a, b in zip(first, again, strict=True))
    assert len(ledger(private_sites[0]).charges()) == 1
    other = gradient(plan, clip=2.0)
    with pytest.raises(LedgerError, match="has charged gradient 1"):
        asked.ask(other)
    asked.ask(gradient(plan), 2)
    with pytest.raises(LedgerError, match="has charged gradient 1"):
        asked.ask(gradient(plan))  # what was sent is no longer kept


def test_no_charge_no_answer(
    make_plan: PlanMaker,
    private_sites: list[Path],
    coordinator: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = make_plan(noise_seed=None)
    asked = coordinator(plan, private_sites)

    def broken(*_: object) -> None:
        raise LedgerError("disk full")

    class Untouchable(PatientRows):
        def blocks(self, rows: int = 0) -> Any:
            raise AssertionError("computed before it was charged")

    held = site_rows(private_sites[0], plan, "train")
    untouchable = Untouchable(*(getattr(held, item.name) for item in fields(held)))
    monkeypatch.setattr(Ledger, "charge", broken)
    monkeypatch.setattr(site, "site_rows", lambda *_: untouchable)
    with pytest.raises(LedgerError, match="disk full"):
        asked.ask(HistogramQuery(sizes(plan)))
    monkeypatch.undo()
    monkeypatch.setattr(site, "site_rows", lambda *_: untouchable)
    with pytest.raises(AssertionError, match="computed before"):  # it would be noticed
        asked.ask(HistogramQuery(sizes(plan)))


def test_a_plan_that_the_budget_cannot_pay_for_is_refused_before_the_first_charge(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    plan = make_plan(noise_seed=None)
    book = site.open_ledger(private_sites[0], SiteManifest.load(private_sites[0]))
    book.set_budget(2.9, approved_by="test", reason="test")
    with pytest.raises(SitePolicyError, match="budget of site provider-01 cannot pay") as told:
        coordinator(plan, private_sites)
    assert "2.9" not in str(told.value)
    assert book.charges() == []
    book.set_budget(3.0, approved_by="test", reason="test")
    coordinator(plan, private_sites)


def test_the_whole_plan_with_all_retries_costs_what_it_promises(make_plan: PlanMaker) -> None:
    settings = PrivacySettings(epsilon=3.0, dropouts=0.4)
    plan = make_plan(privacy=settings)
    assert (plan.dropouts, plan.minimum_sites, plan.noise_shares, plan.retries) == (1, 2, 1, 2)
    for cost in plan.costs().values():
        assert cost.epsilon(settings.delta) == pytest.approx(3.0, rel=1e-9)
    assert set(plan.costs()) == {
        Population("test", 0.25, "train"), Population("test", 0.25, "held_out")
    }  # fmt: skip


# --- rounds and retries --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 2, 99])
def test_a_round_that_the_plan_does_not_have_is_refused(
    make_plan: PlanMaker, files: list[Path], coordinator: Any, number: int
) -> None:
    plan = make_plan()
    with pytest.raises(MessageError, match=f"no round {number} of step 'histogram'"):
        coordinator(plan, files).ask(HistogramQuery(sizes(plan)), number)


def test_retries_are_charged_at_the_price_of_a_retry_and_counted_over_the_run(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    privacy = PrivacySettings(epsilon=3.0, dropouts=0.4, retries=1)
    plan = make_plan(noise_seed=None, privacy=privacy)
    asked = coordinator(plan, private_sites)
    asked.ask(gradient(plan))
    present = tuple(sorted(plan.sites))[1:]
    request = asked.request(gradient(plan), retry=1, present=present)
    with pytest.raises(RosterError, match="does not name site provider-01"):
        answer(private_sites[0], plan, request)
    words(answer(private_sites[1], plan, request))
    charges = [charge for _, charge in ledger(private_sites[1]).charges()]
    assert [(charge.step, charge.round) for charge in charges] == [("gradient", 1), ("retry", 1)]
    assert charges[1].mu == plan.mu_of("retry")
    # The same retry for another round is the same charge, and a second retry is not in the plan.
    with pytest.raises(LedgerError, match="has charged retry 1"):
        answer(private_sites[1], plan, asked.request(gradient(plan), 2, retry=1, present=present))
    with pytest.raises(MessageError, match="the plan has 1 retries, not 2"):
        answer(private_sites[1], plan, asked.request(gradient(plan), 2, retry=2, present=present))


def test_a_retry_has_noise_of_its_own(
    make_plan: PlanMaker, files: list[Path], coordinator: Any
) -> None:
    plan = make_plan(privacy=PrivacySettings(epsilon=3.0, dropouts=0.4))
    asked, query = coordinator(plan, files), gradient(plan)
    exact = np.sum([query.answer(site_rows(file, plan, "train")) for file in files], axis=0)
    noises = []
    for retry in (0, 1):
        total = np.add.reduce([words(each) for each in asked.ask(query, retry=retry)])
        mechanism = plan.release(query, retry=retry > 0)
        noises.append((mechanism.decode(total) - exact) / mechanism.noise_std(len(files)))
    assert len(noises[0]) == 20
    # Of independent noise the correlation is about N(0, 1/20): beyond .9 once in 1e4, fixed seed.
    assert abs(np.corrcoef(*noises)[0, 1]) < 0.9


def test_a_sum_over_too_few_sites_is_refused_and_not_charged(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    plan = make_plan(noise_seed=None)
    asked = coordinator(plan, private_sites)
    present = tuple(sorted(plan.sites))[:2]
    with pytest.raises(TooFewSitesError, match="a sum needs 3"):
        answer(private_sites[0], plan, asked.request(gradient(plan), present=present))
    assert ledger(private_sites[0]).charges() == []


def test_a_run_keeps_its_roster_and_an_unknown_run_has_none(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    plan = make_plan(noise_seed=None, privacy=PrivacySettings(epsilon=3.0, dropouts=0.4))
    asked = coordinator(plan, private_sites)
    present = tuple(sorted(plan.sites))[:2]
    asked.ask(gradient(plan))
    smaller = asked.request(gradient(plan), 2, present=present, offers=asked.offers[:2])
    with pytest.raises(RunStateError, match="another roster"):
        answer(private_sites[0], plan, smaller)
    stranger = coordinator(plan, private_sites)
    request = stranger.request(gradient(plan), present=present, offers=asked.offers)
    with pytest.raises(SecureSumError, match="another run"):
        answer(private_sites[0], plan, request)
    for bad in ("", "../../x", "0" * 31, "G" * 32):
        with pytest.raises(RunStateError, match="32 hexadecimal digits"):
            greet(private_sites[0], plan, bad)


# --- queries that do not fit -------------------------------------------------------------------


def misfits(plan: RunPlan) -> dict[str, Query]:
    """Queries that would fail, or change the answer's length, only if certain codes occur."""
    heights = sizes(plan)
    table, shapes = ones(plan)
    low = heights.copy()
    low[-1] = 1
    d = heights.size
    nan = table.copy()
    nan[-1] = np.nan
    return {
        "short histogram": HistogramQuery(low),
        "long histogram": HistogramQuery(np.append(heights, 2)),
        "endless histogram": HistogramQuery(np.full(d, 10**9)),
        "short table": GramQuery(table[: low.sum()], np.stack([low, np.ones_like(low)], 1), 1.0),
        "NaN at one code": GramQuery(nan, shapes, 1.0),
        "too few values": GradientQuery(table[:-1], shapes, np.eye(d), np.zeros(d + 1), 1.0),
        "wrong whitening": GradientQuery(table, shapes, np.eye(d - 1), np.zeros(d + 1), 1.0),
        "wrong coefficients": GradientQuery(table, shapes, np.eye(d), np.zeros(d), 1.0),
        "short shapes": AdditiveScoreQuery(16, 8.0, 1.0, np.zeros(heights.sum() - 1), heights, 0.0),
        "endless bins": AdditiveScoreQuery(10**9, 8.0, 1.0, np.zeros(heights.sum()), heights, 0.0),
        "NaN shape": AdditiveScoreQuery(16, 8.0, 1.0, nan, heights, 0.0),
        "another family's": NeuralScoreQuery(
            16, 8.0, 1.0, np.zeros(6), np.zeros(0), np.array([[1, 0]]), 1, np.array([1])
        ),
    }


@pytest.mark.parametrize("case", range(12))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_query_that_does_not_fit_the_plan_is_refused_before_a_row_is_read(
    make_plan: PlanMaker,
    files: list[Path],
    coordinator: Any,
    monkeypatch: pytest.MonkeyPatch,
    case: int,
) -> None:
    plan = make_plan()
    name, query = list(misfits(plan).items())[case]
    asked = coordinator(plan, files)

    def never(*_: object) -> None:
        raise AssertionError(f"{name}: rows were read")

    monkeypatch.setattr(site, "site_rows", never)
    with pytest.raises(MessageError, match="does not fit"):
        asked.ask(query)


# --- how many patients a site has does not show ------------------------------------------------


@pytest.mark.parametrize("share", [0.99, 1 - 1e-9])
def test_a_site_with_few_patients_or_none_answers_like_any_other(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any, share: float
) -> None:
    # A refusal would tell whether a patient is among the few that a coordinator singled out.
    plan = make_plan(test_share=share, noise_seed=None)
    for each in coordinator(plan, private_sites).ask(HistogramQuery(sizes(plan))):
        assert words(each).size == sizes(plan).sum() + 3


def test_a_site_may_allow_more_than_the_usual_epsilon(
    make_plan: PlanMaker, private_sites: list[Path], coordinator: Any
) -> None:
    for file in private_sites:
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("[site]\n", "[site]\nmax_epsilon = 8.0\n"), encoding="utf-8")
    more = make_plan(privacy=PrivacySettings(epsilon=8.0), noise_seed=None)
    assert len(coordinator(more, private_sites).ask(HistogramQuery(sizes(more)))) == 3
