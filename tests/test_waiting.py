"""Whoever waits for sites says so."""

import io
import itertools
import logging

import pytest
from rich.console import Console

from experiments.progress import Reporter
from federation.strategy import on_each_round
from federation.waiting import Waiting


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told about a wait, at one note per second."""
    seconds = itertools.count(1000.0)
    monkeypatch.setattr("federation.waiting.time.monotonic", lambda: next(seconds))
    return []


def test_a_wait_is_told_soon_then_when_it_changes_then_once_a_minute(told: list[str]) -> None:
    with on_each_round(lambda: None, told.append):
        waiting = Waiting("the run", 900.0, first=5.0)  # at second 0
        for _ in range(1, 10):
            waiting.note(["b", "a"])  # told at second 5
        assert told == ["the run: waiting for a, b, at most 14 min more"]
        for _ in range(10, 70):
            waiting.note(["b"])  # has changed: told at second 10; again 60 s later, not before
        assert told[1:] == ["the run: waiting for b, at most 14 min more"]
        waiting.note(["b"])  # second 70
        assert told[2:] == ["the run: waiting for b, at most 13 min more"]


def test_a_wait_for_nobody_and_one_that_is_short_are_not_told(told: list[str]) -> None:
    with on_each_round(lambda: None, told.append):
        waiting = Waiting("the run", 900.0, first=5.0)
        for _ in range(4):
            waiting.note(["a"])
        for _ in range(20):
            waiting.note([])
    assert told == []


def test_warnings_of_a_run_are_told_and_are_no_rounds() -> None:
    rounds: list[int] = []
    told: list[str] = []
    logger = logging.getLogger("groundtruth.rounds")
    with on_each_round(lambda: rounds.append(1), told.append):
        logger.warning("tree %d: goes on without site %s", 2, "mercy")
        logger.info("tree 2: 3 sites")
    assert (rounds, told) == ([1], ["tree 2: goes on without site mercy"])


def test_a_log_gets_a_line_of_progress_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(0.0, 4.0)
    monkeypatch.setattr("experiments.progress.time.monotonic", lambda: next(seconds))
    written = io.StringIO()
    with Reporter(Console(file=written, width=80)).steps("training", 6) as steps:
        for _ in range(6):
            steps.advance()  # at seconds 4, 8, 12, 16, 20, 24
    assert written.getvalue().splitlines() == [
        "training ...",
        "training: 3 of 6",
        "training: 6 of 6",
    ]
