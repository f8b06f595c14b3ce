"""Whoever asks, as often and in whatever order: no release is charged, made or told of twice."""

import dataclasses
import itertools
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.features import grid_of
from data_contracts.manifest import SiteManifest
from federation.checkpoint import Checkpoint
from federation.enrolment import enrol
from federation.identity import REGISTRY_FILE
from federation.ledger import AlreadyChargedError, BudgetExceededError
from federation.messages import Request
from federation.plan import RunPlan
from federation.roster import RosterError, SecureSumError
from federation.run_state import RunStateError, new_run_id
from federation.secure_sum import Upload
from federation.site import answer, charged, greet, open_ledger
from federation.strategy import ReconciliationError, SiteFailureError, TrainingResult
from models.queries import GradientQuery, HistogramQuery, Query

ONCE = ["histogram 1", "gram 1", "gradient 1", "recalibration 1", "evaluation 1"]


def heights(plan: RunPlan) -> np.ndarray:
    return np.array([grid_of(feature).n_codes for feature in plan.features()], dtype=np.int64)


def gradient(plan: RunPlan, bend: float = 0.0) -> GradientQuery:
    sizes = heights(plan)
    shapes = np.stack([sizes, np.ones_like(sizes)], axis=1)
    d = sizes.size
    return GradientQuery(np.ones(sizes.sum()), shapes, np.eye(d), np.full(d + 1, bend), 1.0)


# --- a coordinator that asks what it should not --------------------------------------------------


def test_asked_again_for_an_attempt_a_site_gives_these_bytes_or_none(
    net: Any, coordinator: Any
) -> None:
    plan = net.plan()
    asks, site = coordinator(plan, net.files), net.files[0]
    request = asks.request(gradient(plan))
    first = answer(site, plan, request)
    assert isinstance(first, Upload)
    fewer = tuple(sorted(plan.sites))[:3]
    for trick in (
        dataclasses.replace(request, query=gradient(plan, np.nextafter(0.0, 1.0))),
        dataclasses.replace(request, present=fewer),
    ):
        with pytest.raises(AlreadyChargedError):
            answer(site, plan, trick)
    with pytest.raises(RunStateError, match="another roster"):
        answer(site, plan, dataclasses.replace(request, offers=request.offers[:3], present=fewer))
    again = answer(site, plan, request)
    assert isinstance(again, Upload)
    assert np.array_equal(again.words, first.words)
    assert charged(site, asks.run) == ["gradient 1"]


def test_one_retry_answers_one_round_among_one_set_of_sites(net: Any, coordinator: Any) -> None:
    plan = net.plan()
    asks, site = coordinator(plan, net.files), net.files[0]
    names = tuple(sorted(plan.sites))
    answer(site, plan, asks.request(gradient(plan), retry=1, present=names[:3]))
    subsets = [set_ for n in (2, 3, 4) for set_ in itertools.combinations(names, n)]
    for present in subsets:
        if site.parent.name in present and present != names[:3]:
            with pytest.raises(AlreadyChargedError):
                answer(site, plan, asks.request(gradient(plan), retry=1, present=present))
    with pytest.raises(AlreadyChargedError):
        answer(site, plan, asks.request(HistogramQuery(heights(plan)), retry=1, present=names[:3]))
    with pytest.raises(RosterError):
        answer(site, plan, asks.request(gradient(plan), retry=2, present=names[1:]))
    assert charged(site, asks.run) == ["retry 1"]


def test_an_answer_of_long_ago_is_not_made_anew(net: Any, coordinator: Any) -> None:
    plan = net.plan()
    asks, site = coordinator(plan, net.files), net.files[0]
    old = asks.request(HistogramQuery(heights(plan)))
    answer(site, plan, old)
    answer(site, plan, asks.request(gradient(plan)))
    with pytest.raises(AlreadyChargedError):  # its bytes are gone, and so they stay
        answer(site, plan, old)
    assert charged(site, asks.run) == ["histogram 1", "gradient 1"]


def test_another_plan_cannot_take_over_a_run(net: Any, coordinator: Any) -> None:
    plan, other = net.plan(), net.plan(split_key="other")
    asks, site = coordinator(plan, net.files), net.files[0]
    answer(site, plan, asks.request(gradient(plan)))
    takes_over = coordinator(other, net.files, asks.run)
    with pytest.raises(RunStateError, match="another roster"):
        answer(site, other, takes_over.request(gradient(other)))
    with pytest.raises(SecureSumError):
        answer(site, other, asks.request(gradient(other)))
    assert charged(site, asks.run) == ["gradient 1"]


def test_a_site_tells_what_a_run_has_charged_to_whoever_knows_its_name_and_of_no_other(
    net: Any, coordinator: Any
) -> None:
    plan, site = net.plan(), net.files[0]
    spends, idle = coordinator(plan, net.files), coordinator(plan, net.files)
    for number, step in enumerate(("gradient", "histogram")):
        query = gradient(plan) if step == "gradient" else HistogramQuery(heights(plan))
        answer(site, plan, spends.request(query))
        assert len(charged(site, spends.run)) == number + 1
        # 128 random bits name a run: nothing shorter, and no pattern, stands for it.
        for guess in (idle.run, new_run_id(), "", spends.run[:-1], spends.run.upper(), "%", "*"):
            assert charged(site, guess) == []
    assert charged(site, spends.run) == ["gradient 1", "histogram 1"]


def test_that_a_run_has_begun_pays_for_nothing(net: Any, tmp_path: Path) -> None:
    # A run that has begun is greeted whatever is left; each of its releases still has to be paid.
    files = []
    for file in net.files:
        (tmp_path / file.parent.name).mkdir()
        manifest = dataclasses.replace(
            SiteManifest.load(file), origin="private", budget_epsilon=3.0
        )
        files.append(manifest.write(tmp_path / file.parent.name))
    enrol([file.parent for file in files], tmp_path / REGISTRY_FILE)
    plan = net.plan(noise_seed=None)
    run = new_run_id()
    offers = tuple(offer for file in files if (offer := greet(file, plan, run)))

    def request(query: Query) -> Request:
        return Request(query, run, 1, 0, tuple(sorted(plan.sites)), offers)

    answer(files[0], plan, request(HistogramQuery(heights(plan))))
    book = open_ledger(files[0], SiteManifest.load(files[0]))
    book.set_budget(0.3, approved_by="test", reason="another run has spent the rest")
    assert greet(files[0], plan, run) == offers[0]
    with pytest.raises(BudgetExceededError):
        answer(files[0], plan, request(gradient(plan)))
    assert charged(files[0], run) == ["histogram 1"]


# --- two coordinators ----------------------------------------------------------------------------


def test_two_runs_of_one_plan_at_once_stand_side_by_side(net: Any) -> None:
    plan = net.plan()
    alone = net.run(net.grid(plan), plan)
    results: list[TrainingResult] = []

    def keep(now: Checkpoint) -> None:
        if now.attempt and now.attempt.step == "gram" and not results:
            results.append(net.run(net.grid(plan), plan))

    outer = net.run(net.grid(plan), plan, keep=keep)
    for result in (outer, *results):
        assert result.model.to_json() == alone.model.to_json()
        assert net.charges(result.run) == dict.fromkeys(net.names, ONCE)
    assert len({alone.run, outer.run, results[0].run}) == 3


def test_a_coordinator_that_goes_on_with_what_another_one_has_finished_is_told(net: Any) -> None:
    plan = net.plan()
    kept: list[Checkpoint] = []
    whole = net.run(net.grid(plan), plan, keep=kept.append)
    for earlier in kept[:-3]:
        with pytest.raises(ReconciliationError, match="somebody else has asked"):
            net.run(net.grid(plan), plan, earlier=earlier)
    assert net.charges(whole.run) == dict.fromkeys(net.names, ONCE)


def test_two_coordinators_that_ask_one_run_in_turns_share_each_answer(net: Any) -> None:
    plan = net.plan()
    kept: list[Checkpoint] = []
    results: list[TrainingResult] = []

    def keep(now: Checkpoint) -> None:
        kept.append(now)
        # The second one asks the last round at the same time as the first one.
        if now.attempt and now.attempt.step == "evaluation" and not results:
            results.append(net.run(net.grid(plan), plan, earlier=now))

    first = net.run(net.grid(plan), plan, keep=keep)
    assert results[0].run == first.run
    assert results[0].model.to_json() == first.model.to_json()
    assert results[0].evaluation == first.evaluation
    assert net.charges(first.run) == dict.fromkeys(net.names, ONCE)


def test_of_two_coordinators_the_one_that_falls_behind_fails_and_charges_nothing(
    net: Any,
) -> None:
    plan = net.plan()
    kept: list[Checkpoint] = []

    def keep(now: Checkpoint) -> None:
        kept.append(now)
        if now.attempt and now.attempt.step == "gram" and len(kept) == 4:
            other = net.run(net.grid(plan), plan, earlier=now)
            assert len(other.rounds) == 5

    # Its next request finds every site charged, with other bytes kept in the meantime.
    with pytest.raises(SiteFailureError, match="died between charging the release and sending it"):
        net.run(net.grid(plan), plan, keep=keep)
    assert net.charges(kept[0].run) == dict.fromkeys(net.names, ONCE)


# --- two processes of one site -------------------------------------------------------------------

# Each waits for a line, so that all answer at once.
CLIENT = """
import pickle, sys
from federation import site
from federation.plan import RunPlan

file, plan, request = pickle.loads(bytes.fromhex(sys.stdin.readline()))
plan = RunPlan.from_json(plan)
site.site_rows(file, plan, "train")
print("ready", flush=True)
sys.stdin.readline()
upload = site.answer(file, plan, request)
print(upload.words.tobytes().hex() + upload.signature.hex(), flush=True)
"""


def test_processes_of_one_site_that_are_asked_the_same_at_once_send_the_same_bytes(
    net: Any, coordinator: Any
) -> None:
    plan = net.plan(noise_seed=None)  # a second computation would have other noise
    asks, site = coordinator(plan, net.files), net.files[0]
    clients = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    request = asks.request(HistogramQuery(heights(plan)))
    for client in clients:
        assert client.stdin is not None
        client.stdin.write(pickle.dumps((site, plan.to_json(), request)).hex() + "\n")
        client.stdin.flush()
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("go\n")
        client.stdin.flush()
    sent = [client.communicate(timeout=120)[0] for client in clients]
    assert [client.returncode for client in clients] == [0, 0, 0]
    assert len(sent[0]) > 100
    assert len(set(sent)) == 1
    assert charged(site, asks.run) == ["histogram 1"]
