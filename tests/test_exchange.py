"""Messages that get lost, late, twice or out of order cost time, and never privacy or a result."""

import time
from itertools import pairwise
from typing import Any

import pytest
from flwr.common.constant import ErrorCode

from federation import exchange, participants, strategy
from federation.exchange import Failure, Patience
from federation.settings import PrivacySettings
from federation.strategy import SiteFailureError, TrainingResult

BAD = "provider-02"
STEPS = (
    *("HistogramQuery", "GramQuery", "GradientQuery"),
    *("AdditiveScoreQuery", "AdditiveEvaluationQuery"),
)
ONCE = ["histogram 1", "gram 1", "gradient 1", "recalibration 1", "evaluation 1"]


_models: list[str] = []


def undisturbed(net: Any) -> str:
    """The model of a run in which nothing happens; the same every time, as its noise is seeded."""
    if not _models:
        plan = net.plan()
        _models.append(net.run(net.grid(plan), plan).model.to_json())
    return _models[0]


def assert_unharmed(net: Any, result: TrainingResult, model: str) -> None:
    """All sites are in all sums, and each was charged for each once."""
    assert result.dropouts == ()
    assert {(record.sites, record.retries) for record in result.rounds} == {(4, 0)}
    assert net.charges(result.run) == dict.fromkeys(net.names, ONCE)
    assert result.model.to_json() == model


def asked(grid: Any, site: str, step: str) -> list[Any]:
    return [each for each in grid.sent if (each.site, each.step) == (site, step)]


# --- what gets lost ------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [{"arrives": 0}, {}], ids=["request", "reply"])
@pytest.mark.parametrize("times", [1, 3])
def test_what_is_lost_is_asked_again_after_10_seconds_and_then_twice_as_long_each_time(
    net: Any, fate: Any, lost: dict[str, int], times: int
) -> None:
    model, plan = undisturbed(net), net.plan()
    grid = net.grid(
        plan,
        lambda sent: (
            fate(answered=False, **lost)
            if sent.site == BAD and sent.step and sent.copy < times
            else fate()
        ),
    )
    assert_unharmed(net, net.run(grid, plan), model)
    for step in STEPS:
        at = [each.at for each in asked(grid, BAD, step)]
        waits = [later - earlier for earlier, later in pairwise(at)]
        assert waits == pytest.approx([10, 20, 40][:times], abs=0.5)  # one look more at most
        assert len(asked(grid, "provider-01", step)) == 1


def test_a_greeting_that_is_lost_is_sent_again(net: Any, fate: Any) -> None:
    model, plan = undisturbed(net), net.plan()
    grid = net.grid(plan, lambda sent: fate(answered=bool(sent.step or sent.copy)))
    assert_unharmed(net, net.run(grid, plan), model)


def test_whatever_comes_twice_counts_once(net: Any, fate: Any) -> None:
    model, plan = undisturbed(net), net.plan()
    grid = net.grid(plan, lambda sent: fate(arrives=3))
    assert_unharmed(net, net.run(grid, plan), model)


def test_a_reply_that_flower_gives_twice_counts_once(net: Any) -> None:
    model, plan = undisturbed(net), net.plan()
    grid = net.grid(plan)
    pull = grid.pull_messages
    grid.pull_messages = lambda ids: [reply for reply in pull(ids) for _ in range(2)]
    assert_unharmed(net, net.run(grid, plan), model)


def test_a_request_that_comes_after_the_next_one_changes_nothing(net: Any, fate: Any) -> None:
    model, plan = undisturbed(net), net.plan()
    # The first copy overtakes nobody: it comes once the second one, or the next round's, is there.
    late = {("provider-01", "GramQuery", 0), (BAD, "GramQuery", 0), (BAD, "GramQuery", 1)}
    grid = net.grid(plan, lambda sent: fate(late=(sent.site, sent.step, sent.copy) in late))
    assert_unharmed(net, net.run(grid, plan), model)


def test_an_answer_to_an_earlier_attempt_that_comes_late_is_not_taken_for_this_one(
    net: Any, fate: Any
) -> None:
    plan = net.plan(retries=1)

    # One site hangs beyond the round's end; its answer comes while the others are asked again.
    def weather(sent: Any) -> Any:
        slow = sent.site == BAD and sent.step == "GramQuery"
        again = sent.step == "GramQuery" and sent.retry and sent.site == "provider-01"
        return fate(seconds=104.0 if slow else 8.0 if again else 0.0)

    result = net.run(net.grid(plan, weather), plan)
    assert [record.sites for record in result.rounds] == [4, 3, 3, 3, 3]
    # It was charged for what nobody has seen, and never again.
    assert net.charges(result.run)[BAD] == ONCE[:2]


# --- errors in place of answers ------------------------------------------------------------------

AGAIN = {
    "MESSAGE_UNAVAILABLE": ErrorCode.MESSAGE_UNAVAILABLE,
    "REPLY_MESSAGE_UNAVAILABLE": ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    "NODE_UNAVAILABLE": ErrorCode.NODE_UNAVAILABLE,
    "CLIENT_APP_CRASHED": ErrorCode.CLIENT_APP_CRASHED,
}
FINAL = {
    "UNKNOWN": ErrorCode.UNKNOWN,
    "LOAD_CLIENT_APP_EXCEPTION": ErrorCode.LOAD_CLIENT_APP_EXCEPTION,
    "CLIENT_APP_RAISED_EXCEPTION": ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
    "MOD_FAILED_PRECONDITION": ErrorCode.MOD_FAILED_PRECONDITION,
    "INVALID_FAB": ErrorCode.INVALID_FAB,
}


def test_every_code_of_flowers_is_one_or_the_other() -> None:
    codes = {name: code for name, code in vars(ErrorCode).items() if name.isupper()}
    assert codes == AGAIN | FINAL


@pytest.mark.parametrize("step", ["", "GradientQuery"], ids=["greeting", "round"])
@pytest.mark.parametrize("code", AGAIN.values(), ids=AGAIN)
def test_after_an_error_on_the_way_the_site_is_asked_again_soon(
    net: Any, fate: Any, code: int, step: str
) -> None:
    model, plan = undisturbed(net), net.plan()

    def weather(sent: Any) -> Any:
        fails = (sent.site, sent.step) == (BAD, step) and sent.copy < 2
        return fate(error=code) if fails else fate()

    grid = net.grid(plan, weather)
    assert_unharmed(net, net.run(grid, plan), model)
    at = [each.at for each in asked(grid, BAD, step)]
    assert at[2] - at[0] <= 2 * (2.0 + 0.5)


@pytest.mark.parametrize("code", AGAIN.values(), ids=AGAIN)
def test_a_site_that_gives_errors_until_the_deadline_is_dropped_with_the_last_one(
    net: Any, fate: Any, code: int
) -> None:
    plan = net.plan(retries=1)

    def weather(sent: Any) -> Any:
        return fate(error=code) if sent.site == BAD and sent.step == "GramQuery" else fate()

    begun = net.clock.now
    result = net.run(net.grid(plan, weather), plan)
    assert 100 <= net.clock.now - begun <= 101
    [dropout] = result.dropouts
    assert (dropout.site, dropout.step, dropout.reason) == (BAD, "gram", f"{BAD}: as told")


@pytest.mark.parametrize("code", FINAL.values(), ids=FINAL)
def test_a_site_that_says_that_it_cannot_is_dropped_at_once_and_for_good(
    net: Any, fate: Any, code: int
) -> None:
    plan, begun = net.plan(), net.clock.now

    def weather(sent: Any) -> Any:
        return fate(error=code) if sent.site == BAD and sent.step == "GramQuery" else fate()

    grid = net.grid(plan, weather)
    result = net.run(grid, plan)
    assert net.clock.now == begun
    assert [each.reason for each in result.dropouts] == [f"{BAD}: as told"]
    assert [record.sites for record in result.rounds] == [4, 3, 3, 3, 3]
    assert [each.step for each in grid.sent if each.site == BAD] == ["", *STEPS[:2]]


@pytest.mark.parametrize("code", FINAL.values(), ids=FINAL)
def test_a_site_that_cannot_even_greet_is_missed_at_once(net: Any, fate: Any, code: int) -> None:
    plan, begun = net.plan(dropouts=0.0), net.clock.now
    grid = net.grid(plan, lambda sent: fate(error=code if sent.site == BAD else None))
    with pytest.raises(SiteFailureError, match=r"only 3 of 4 sites.*needs 4: node \d+: as told"):
        net.run(grid, plan)
    assert net.clock.now == begun


# --- deadlines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [{"arrives": 0}, {}], ids=["request", "reply"])
def test_who_is_silent_until_the_deadline_is_named(
    net: Any, fate: Any, silent: dict[str, int]
) -> None:
    plan, begun = net.plan(dropouts=0.0), net.clock.now

    def weather(sent: Any) -> Any:
        lost = sent.site == BAD and sent.step == "GradientQuery"
        return fate(answered=False, **silent) if lost else fate()

    with pytest.raises(SiteFailureError) as told:
        net.run(net.grid(plan, weather), plan)
    assert str(told.value) == f"no answer within 100 s from {BAD}"
    assert 100 <= net.clock.now - begun <= 101


def test_a_site_a_hundred_times_slower_than_the_rest_is_waited_for(net: Any, fate: Any) -> None:
    model, plan, begun = undisturbed(net), net.plan(), net.clock.now
    slow = {BAD: 50.0, "provider-03": 15.0}
    grid = net.grid(plan, lambda sent: fate(seconds=slow.get(sent.site, 0.5)))
    assert_unharmed(net, net.run(grid, plan), model)
    assert 6 * 50 <= net.clock.now - begun <= 6 * 51
    # Asked three times in 50 s, twice in 15 s (and heard twice), and the others once.
    assert {len(asked(grid, BAD, step)) for step in STEPS} == {3}
    assert {len(asked(grid, "provider-03", step)) for step in STEPS} == {2}
    assert {len(asked(grid, "provider-01", step)) for step in STEPS} == {1}


def test_deadlines_hold_on_a_real_clock(net: Any, fate: Any, monkeypatch: Any) -> None:
    for module in (exchange, participants, strategy):
        monkeypatch.setattr(module, "time", time)
    patience = Patience(0.2, round_seconds=0.4, ask_again_seconds=0.1, poll_seconds=0.01)
    plan = net.plan(retries=1)

    def weather(sent: Any) -> Any:
        lost = sent.site == "provider-04" or (sent.site == BAD and sent.step == "GramQuery")
        return fate(arrives=0, answered=False) if lost else fate()

    begun = time.monotonic()
    result = net.run(net.grid(plan, weather), plan, patience=patience)
    # Two deadlines, and nine times as much for the work itself on a slow machine.
    assert 0.6 <= time.monotonic() - begun <= 6
    assert [(each.site, each.step) for each in result.dropouts] == [
        ("provider-04", "hello"),
        (BAD, "gram"),
    ]


# --- nodes that come and go ----------------------------------------------------------------------


def test_a_node_that_starts_anew_is_asked_at_once(net: Any, fate: Any) -> None:
    model, plan = undisturbed(net), net.plan()

    def weather(sent: Any) -> Any:
        if sent.site == "provider-01" and sent.step == "GramQuery":
            return fate(seconds=3.0)  # so that there is something to wait for
        if sent.site == BAD and sent.step == "GramQuery" and not sent.copy:
            grid.activated[BAD] = "again"
            return fate(arrives=0, answered=False)
        return fate()

    grid = net.grid(plan, weather)
    assert_unharmed(net, net.run(grid, plan), model)
    first, second = asked(grid, BAD, "GramQuery")
    assert second.at - first.at <= 0.5


def test_a_node_that_leaves_is_sent_nothing_until_it_is_back(net: Any, fate: Any) -> None:
    model, plan = undisturbed(net), net.plan()

    def weather(sent: Any) -> Any:
        if sent.site == BAD and sent.step == "GramQuery" and not sent.copy:
            grid.away.add(BAD)
            left.append(sent.at)
        return fate()

    class Returning(type(net.clock)):  # type: ignore[misc]
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if left and self.now >= left[0] + 70:
                grid.away.clear()

    left: list[float] = []
    net.clock.__class__ = Returning
    grid = net.grid(plan, weather)
    assert_unharmed(net, net.run(grid, plan), model)
    at = [each.at - left[0] for each in asked(grid, BAD, "GramQuery")]
    assert at == pytest.approx([0, 70], abs=0.5)


def test_a_node_that_leaves_for_good_is_dropped_at_the_deadline(net: Any, fate: Any) -> None:
    plan = net.plan(retries=1)

    def weather(sent: Any) -> Any:
        if sent.step == "HistogramQuery":
            grid.away.add(BAD)  # its request is lost if it is not the first of the round
        return fate()

    grid = net.grid(plan, weather)
    result = net.run(grid, plan)
    assert [(each.site, each.step, each.back) for each in result.dropouts] == [
        (BAD, "histogram", "")
    ]
    assert [record.retries for record in result.rounds] == [1, 0, 0, 0, 0]


def test_a_node_that_flower_no_longer_knows_is_dropped_at_the_deadline(net: Any, fate: Any) -> None:
    plan = net.plan(retries=1)

    def weather(sent: Any) -> Any:
        if sent.step == "GramQuery" and sent.site == "provider-01" and not sent.retry:
            grid.renumber(BAD)
        return fate()

    grid = net.grid(plan, weather)
    result = net.run(grid, plan)
    [dropout] = result.dropouts
    assert dropout.reason in (f"{BAD}: not online", f"no answer within 100 s from {BAD}")
    assert (dropout.site, dropout.step, dropout.round) == (BAD, "gram", 1)


def test_a_site_that_greets_and_comes_back_as_another_node_is_that_site(
    net: Any, fate: Any
) -> None:
    model, plan = undisturbed(net), net.plan()

    def weather(sent: Any) -> Any:
        if not sent.step and sent.site == "provider-04" and not sent.copy:
            renumbered.append(grid.renumber(BAD))
            return fate(answered=False)
        return fate()

    renumbered: list[None] = []
    grid = net.grid(plan, weather)
    assert_unharmed(net, net.run(grid, plan), model)
    assert renumbered


def test_two_nodes_of_one_name_that_are_both_there_stop_the_run(net: Any) -> None:
    plan = net.plan()
    net.files.append(net.files[1])
    with pytest.raises(SiteFailureError, match=f"two nodes call themselves {BAD}"):
        net.run(net.grid(plan), plan)


def test_a_node_that_calls_itself_what_the_engine_knows_better_is_refused(net: Any) -> None:
    known = tuple("provider-09" if name == BAD else name for name in net.names)
    plan = net.plan(dropouts=0.0, sites=known)
    grid = net.grid(plan)
    owners = dict(zip(grid.site_of, known, strict=True))
    with pytest.raises(SiteFailureError, match=f"site provider-09 calls itself '{BAD}'"):
        net.run(grid, plan, members=owners)


# --- how many are waited for ---------------------------------------------------------------------


def test_a_run_waits_for_its_quorum_until_the_deadline_and_not_longer(net: Any, fate: Any) -> None:
    plan = net.plan()
    patience = Patience(quorum_seconds=30.0, quorum=3)
    grid = net.grid(plan)
    grid.away |= {BAD, "provider-03"}
    begun = net.clock.now
    with pytest.raises(SiteFailureError, match="only 2 of 4 sites take part, and the run needs 3"):
        net.run(grid, plan, patience=patience)
    assert 30 <= net.clock.now - begun <= 31
    grid.away.remove(BAD)
    result = net.run(grid, plan, patience=patience)
    assert {record.sites for record in result.rounds} == {3}


def test_a_site_that_is_late_for_the_greeting_is_waited_for(net: Any, fate: Any) -> None:
    model, plan = undisturbed(net), net.plan()
    grid = net.grid(plan, lambda sent: fate(seconds=0.0 if sent.step else 80.0))
    assert_unharmed(net, net.run(grid, plan), model)


def test_without_privacy_too_a_site_is_asked_again(net: Any, fate: Any) -> None:
    plan = net.plan(privacy=PrivacySettings(epsilon=None))
    model = net.run(net.grid(plan), plan).model.to_json()
    grid = net.grid(plan, lambda sent: fate(answered=bool(sent.copy)))
    assert net.run(grid, plan).model.to_json() == model


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_patience_without_time_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds above 0"):
        Patience(round_seconds=seconds)


def test_what_a_site_gives_as_its_reason_steers_no_terminal_and_fills_no_log() -> None:
    told = Failure(
        f"site x: \x1b[2J\x1b]0;owned\x07\nerror: {'A' * 10_000_000}", silent=False
    ).reason
    assert told.isprintable()
    assert told.startswith("site x: \N{REPLACEMENT CHARACTER}[2J")
    assert len(told) == 1000
