"""Sites that were lost and come back: in the sum with their noise, charged within the plan."""

import dataclasses
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federation.checkpoint import Attempt, Checkpoint
from federation.ledger import Ledger, ledger_file
from federation.plan import RunPlan
from federation.settings import PrivacySettings
from federation.site import site_rows
from federation.strategy import ReconciliationError, SiteFailureError, TrainingResult
from models.mechanisms import SeededNoise
from models.queries import Query
from models.training import NoisySum

BACK = "provider-02"
UNMASKED = PrivacySettings(epsilon=3.0, secure_sum=False, dropouts=0.5)
RETRIES = 3


class Witness:
    """Sees all that a coordinator sees.

    Attributes:
        learned: Queries and their sums, in order.
        attempts: Step and round -> the last attempt at it.
        kept: The run so far.
    """

    def __init__(self) -> None:
        self.learned: list[tuple[Query, NoisySum]] = []
        self.attempts: dict[tuple[str, int], Attempt] = {}
        self.kept: Checkpoint | None = None

    def observe(self, query: Query, total: NoisySum) -> None:
        self.learned.append((query, total))

    def keep(self, now: Checkpoint) -> None:
        self.kept = now
        if now.attempt:
            self.attempts[now.attempt.step, now.attempt.round] = now.attempt

    @property
    def options(self) -> dict[str, Any]:
        return {"observe": self.observe, "keep": self.keep}


def assert_right(net: Any, plan: RunPlan, result: TrainingResult, seen: Witness) -> None:
    """Every sum is, to the last bit, that of its sites' answers, each with its own noise."""
    files = dict(zip(net.names, net.files, strict=True))
    for record, (query, total) in zip(result.rounds, seen.learned, strict=True):
        attempt = seen.attempts[record.step, record.round]
        mechanism = plan.release(query, retry=attempt.retry > 0)
        words = np.zeros(query.n_values, np.uint64)
        for name in attempt.present:
            rows = site_rows(files[name], plan, plan.population_of(query.step).side)
            stream = f"{plan.digest}/{query.step}/{record.round}/{attempt.retry}"
            noise = SeededNoise(plan.noise_seed or 0, name).key(stream)
            words += mechanism.release(query.answer(rows), noise)
        assert np.array_equal(total.values, mechanism.decode(words))
        mu = plan.mu_of("retry" if attempt.retry else record.step)
        assert record.mu == mu
        assert record.sites == len(attempt.present) >= plan.minimum_sites
        enough = query.sensitivity / (mu or 0.0)
        noise_std = enough * math.sqrt(record.sites / plan.noise_shares)
        assert record.noise_std == pytest.approx(noise_std, rel=1e-3)
        assert total.noise_std == record.noise_std


def assert_within_the_plan(net: Any, plan: RunPlan, run: str) -> None:
    """No site was charged anything twice, or anything that the plan does not pay for."""
    rounds = {f"{name} {n + 1}" for name, step in plan.steps.items() for n in range(step.rounds)}
    allowed = rounds | {f"retry {n + 1}" for n in range(plan.retries)}
    for file in net.files:
        book = ledger_file(file.parent)
        made = [
            charge
            for _, charge in (Ledger.existing(book).charges() if book.exists() else ())
            if charge.run == run
        ]
        names = Counter(f"{charge.step} {charge.round}" for charge in made)
        assert set(names) <= allowed
        assert set(names.values()) <= {1}
        for side, cost in plan.costs().items():
            spent = sum(charge.mu**2 for charge in made if charge.population == side)
            assert spent <= cost.mu_squared * (1 + 1e-9)


# --- one site, once ------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["request", "reply"])
@pytest.mark.parametrize("renumbered", [False, True], ids=["same node", "other node"])
def test_a_site_that_was_silent_in_one_round_is_back_two_rounds_later(
    net: Any, fate: Any, lost: str, renumbered: bool
) -> None:
    plan, seen = net.plan(), Witness()

    def weather(sent: Any) -> Any:
        if renumbered and sent.step == "GramQuery" and sent.retry and BACK not in moved:
            moved.append(BACK)
            grid.renumber(BACK)
            grid.activated[BACK] = "again"
        silent = (sent.site, sent.step) == (BACK, "GramQuery")
        return fate(arrives=int(lost == "reply"), answered=False) if silent else fate()

    moved: list[str] = []
    grid = net.grid(plan, weather)
    result = net.run(grid, plan, **seen.options)
    assert bool(moved) == renumbered
    assert [record.sites for record in result.rounds] == [4, 3, 3, 4, 4]
    assert [(each.step, each.back) for each in result.dropouts] == [("gram", "recalibration 1")]
    assert_right(net, plan, result, seen)
    assert_within_the_plan(net, plan, result.run)
    theirs = net.charges(result.run)[BACK]
    assert theirs == [
        *("histogram 1", *["gram 1"] * (lost == "reply")),
        *("recalibration 1", "evaluation 1"),
    ]


def test_without_masks_a_site_comes_back_too(net: Any, fate: Any) -> None:
    plan, seen = net.plan(privacy=UNMASKED), Witness()
    silent = (BACK, "GramQuery")
    grid = net.grid(plan, lambda sent: fate(answered=(sent.site, sent.step) != silent))
    result = net.run(grid, plan, **seen.options)
    assert [record.sites for record in result.rounds] == [4, 3, 3, 4, 4]
    assert {record.retries for record in result.rounds} == {0}


def test_a_site_whose_keys_are_lost_does_not_come_back(net: Any, fate: Any) -> None:
    plan, seen = net.plan(), Witness()

    def weather(sent: Any) -> Any:
        if (sent.site, sent.step) != (BACK, "GramQuery"):
            return fate()
        shutil.rmtree(net.files[1].parent / "state" / "runs", ignore_errors=True)
        return fate(arrives=0, answered=False)

    grid = net.grid(plan, weather)
    result = net.run(grid, plan, **seen.options)
    assert [record.sites for record in result.rounds] == [4, 3, 3, 3, 3]
    assert [each.back for each in result.dropouts] == [""]
    assert seen.kept is not None
    assert seen.kept.gone == ()
    assert sum(each.site == BACK and not each.step for each in grid.sent) == 2  # no third greeting
    assert_right(net, plan, result, seen)


def test_where_retries_are_used_up_nobody_comes_back(net: Any, fate: Any) -> None:
    plan, seen = net.plan(retries=1), Witness()
    silent = (BACK, "GramQuery")
    grid = net.grid(plan, lambda sent: fate(answered=(sent.site, sent.step) != silent))
    result = net.run(grid, plan, **seen.options)
    assert [record.sites for record in result.rounds] == [4, 3, 3, 3, 3]
    assert sum(each.site == BACK and not each.step for each in grid.sent) == 1
    assert_right(net, plan, result, seen)


def test_a_site_that_is_lost_and_back_again_and_again_uses_up_the_retries_and_no_more(
    net: Any, fate: Any
) -> None:
    plan, seen = net.plan(retries=2), Witness()
    steps = ("HistogramQuery", "AdditiveScoreQuery")
    grid = net.grid(plan, lambda sent: fate(answered=sent.site != BACK or sent.step not in steps))
    patience = dataclasses.replace(net.patience, ask_again_seconds=1.0)
    result = net.run(grid, plan, patience=patience, **seen.options)
    # Lost in the first round and, back for it, in the fourth.
    assert [record.sites for record in result.rounds] == [3, 3, 4, 3, 3]
    assert [(each.step, each.back) for each in result.dropouts] == [
        ("histogram", "gradient 1"),
        ("recalibration", ""),
    ]
    assert_right(net, plan, result, seen)
    assert_within_the_plan(net, plan, result.run)


def test_a_site_whose_greeting_gets_lost_may_still_come_back(net: Any, fate: Any) -> None:
    plan, seen = net.plan(), Witness()

    def weather(sent: Any) -> Any:
        if (sent.site, sent.step) == (BACK, "GramQuery"):
            return fate(answered=False)
        return fate(error=5 if sent.site == BACK and not sent.step and sent.copy else None)

    grid = net.grid(plan, weather)
    result = net.run(grid, plan, members=grid.site_of, **seen.options)
    assert [record.sites for record in result.rounds] == [4, 3, 3, 3, 3]
    assert seen.kept is not None
    assert seen.kept.gone == (BACK,)
    assert sum(each.site == BACK and not each.step for each in grid.sent) == 2  # once in 30 s


@pytest.mark.parametrize("known", [False, True])
def test_who_has_no_part_in_the_run_is_not_taken_in_for_a_site_that_is_gone(
    net: Any, fate: Any, known: bool
) -> None:
    plan, stranger = net.plan(sites=net.names[:3], dropouts=0.4), net.names[3]
    silent = (BACK, "GramQuery")
    grid = net.grid(plan, lambda sent: fate(answered=(sent.site, sent.step) != silent))
    result = net.run(grid, plan, members=grid.site_of if known else {})
    assert [record.sites for record in result.rounds] == [3, 2, 2, 3, 3]
    steps = [each.step for each in grid.sent if each.site == stranger]
    assert steps == [""] * (1 if known else 2)


def test_a_greeting_that_is_answered_before_a_round_and_heard_after_it_stops_nothing(
    net: Any, fate: Any
) -> None:
    plan = net.plan()
    plan = dataclasses.replace(plan, additive=dataclasses.replace(plan.additive, gradient_rounds=4))

    # Rounds take 45 s and the site is rung in each. Its third answer comes first, and it is taken
    # back; then come the others, which say what its ledger held before that.
    late = {1: 150.0, 2: 160.0}

    def weather(sent: Any) -> Any:
        if not sent.step:
            gone = sent.site == "provider-03" and sent.copy
            return fate(answered=not gone, seconds=late.get(sent.copy, 0.0))
        silent = sent.site in (BACK, "provider-03") and sent.step == "GramQuery"
        return fate(answered=not silent, seconds=45.0 * (sent.step == "GradientQuery"))

    grid = net.grid(plan, weather)
    result = net.run(grid, plan)
    assert sum(each.site == BACK and not each.step for each in grid.sent) == 4
    assert [(each.site, each.back) for each in result.dropouts] == [
        (BACK, "gradient 4"),
        ("provider-03", ""),
    ]
    assert [record.sites for record in result.rounds] == [4, 2, 2, 2, 2, 3, 3, 3]


def test_a_site_that_comes_back_with_an_older_ledger_stops_the_run(
    net: Any, fate: Any, tmp_path: Path
) -> None:
    plan, state = net.plan(), net.files[1].parent / "state"

    def weather(sent: Any) -> Any:
        if (sent.site, sent.step) == (BACK, "HistogramQuery"):
            for name in ("ledger.db", "ledger.head"):
                shutil.copy(state / name, tmp_path / name)
        if (sent.site, sent.step) != (BACK, "GramQuery"):
            return fate()
        for name in ("ledger.db", "ledger.head"):
            shutil.copy(tmp_path / name, state / name)
        return fate(arrives=0, answered=False)

    with pytest.raises(ReconciliationError, match=f"site {BACK} has answered histogram 1"):
        net.run(net.grid(plan, weather), plan)


# --- many sites, many times ----------------------------------------------------------------------


class Schedule:
    """Losses by chance: of messages, of replies, of nodes, and of the coordinator."""

    def __init__(self, net: Any, fate: Any, plan: RunPlan, seed: int) -> None:
        self._fate, self._dice = fate, np.random.default_rng(seed)
        self._trouble = float(self._dice.uniform(0.0, 0.5))
        self._mute: set[tuple[str, str, int]] = set()
        self.grid = net.grid(plan, self.weather)
        self.seen = Witness()

    def weather(self, sent: Any) -> Any:
        dice, fate, grid = self._dice, self._fate, self.grid
        if dice.random() < self._trouble / 8:
            site = str(dice.choice(sorted(grid.activated)))
            grid.away ^= {site}
            grid.activated[site] = str(len(grid.sent))
            if dice.random() < 0.3:
                grid.renumber(site)
        if sent.step and not sent.copy and dice.random() < self._trouble / 5:
            self._mute.add((sent.site, sent.step, sent.retry))  # for the whole of an attempt
        if (sent.site, sent.step, sent.retry) in self._mute:
            return fate(arrives=int(dice.integers(2)), answered=False)
        if dice.random() > self._trouble:
            return fate()
        fates = [
            *(fate(arrives=0, answered=False), fate(answered=False), fate(arrives=2)),
            *(fate(late=True), fate(seconds=float(dice.uniform(0, 150)))),
            *(fate(error=int(code)) for code in (3, 5, 8)),
        ]
        if sent.step and dice.random() < 0.02:
            return fate(error=2)
        return fates[dice.integers(len(fates))]

    def keep(self, now: Checkpoint) -> None:
        self.seen.keep(now)
        if self._dice.random() < self._trouble / 4:
            raise InterruptedError

    def run(self, net: Any, plan: RunPlan) -> TrainingResult:
        earlier = None
        while True:
            self.seen.learned.clear()
            try:
                options = {"keep": self.keep, "observe": self.seen.observe, "earlier": earlier}
                result = net.run(self.grid, plan, **options)
                assert isinstance(result, TrainingResult)
                return result
            except InterruptedError:
                earlier = self.seen.kept


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_any_schedule_of_losses_ends_in_a_right_result_or_a_named_error_within_the_plan(
    net: Any, fate: Any, part: int
) -> None:
    net.files.pop()
    plan, ends = net.plan(retries=RETRIES), Counter[str]()
    errors: list[str] = []
    assert (plan.minimum_sites, len(plan.sites)) == (2, 3)
    for seed in range(50 * part, 50 * part + 50):
        schedule = Schedule(net, fate, plan, seed)
        try:
            result = schedule.run(net, plan)
        except ReconciliationError:
            raise  # nothing here contradicts itself
        except SiteFailureError as error:
            errors.append(str(error))
        else:
            assert_right(net, plan, result, schedule.seen)
            assert len(result.rounds) == 5
            ends["result"] += 1
            ends["retried"] += any(record.retries for record in result.rounds)
            ends["back"] += any(each.back for each in result.dropouts)
        if schedule.seen.kept is not None:
            assert_within_the_plan(net, plan, schedule.seen.kept.run)
    assert all(any(site in text for site in net.names) for text in errors), errors
    assert min(ends["result"], ends["retried"], ends["back"], len(errors)) >= 2, (ends, errors)


def test_a_site_that_died_between_charge_and_upload_says_so_and_comes_back(
    net: Any, fate: Any
) -> None:
    """Its bytes are gone for good: the release is paid for, and never computed again."""
    plan, seen = net.plan(), Witness()

    def weather(sent: Any) -> Any:
        if (sent.site, sent.step, sent.retry) != (BACK, "GramQuery", 0):
            return fate()
        if sent.copy:  # what the first one left was never written
            for upload in net.files[1].parent.glob("state/runs/*/*.npy"):
                upload.unlink()
        return fate(answered=bool(sent.copy))

    grid = net.grid(plan, weather)
    result = net.run(grid, plan, **seen.options)
    assert [record.sites for record in result.rounds] == [4, 3, 3, 4, 4]
    assert [(each.site, each.step) for each in result.dropouts] == [(BACK, "gram")]
    assert "died between charging the release and sending it" in result.dropouts[0].reason
    assert result.dropouts[0].back
    assert_right(net, plan, result, seen)
    assert net.charges(result.run)[BACK].count("gram 1") == 1
