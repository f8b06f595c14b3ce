"""A coordinator that is killed at any moment goes on, as if nothing had been."""

import dataclasses
import hashlib
import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.manifest import SiteManifest
from federation.checkpoint import Checkpoint, CheckpointError
from federation.enrolment import enrol
from federation.identity import REGISTRY_FILE, Registry
from federation.ledger import ledger_file
from federation.roster import ReplayError
from federation.run_state import new_run_id
from federation.settings import PrivacySettings
from federation.strategy import ReconciliationError, SiteFailureError, TrainingResult

ONCE = ["histogram 1", "gram 1", "gradient 1", "recalibration 1", "evaluation 1"]
LOSSES = [
    {},
    {"provider-02": "GramQuery"},
    {"provider-02": "GramQuery", "provider-03": "GramQuery"},
]


class Killed(BaseException):
    """The coordinator is no more."""


def losing(fate: Any, losses: dict[str, str]) -> Callable[[Any], Any]:
    """Each of these sites gets no request of one step."""
    return lambda sent: (
        fate(arrives=0, answered=False)
        if sent.step and losses.get(sent.site) == sent.step
        else fate()
    )


def keeper(file: Path, kill_at: int = -1, *, written: bool = True) -> Callable[[Checkpoint], None]:
    """Keeps a run in a file, and dies before or after it has done so for the nth time, from 0."""
    calls = iter(range(10_000))

    def keep(now: Checkpoint) -> None:
        dies = next(calls) == kill_at
        if written or not dies:
            now.write(file)
        if dies:
            raise Killed

    return keep


def kill(net: Any, plan: Any, file: Path, kill_at: int, weather: Any = None, **options: Any) -> Any:
    """A grid on which a run was broken off."""
    grid = net.grid(plan, weather) if weather else net.grid(plan)
    earlier = options.pop("earlier", None)
    with pytest.raises(Killed):
        net.run(grid, plan, keep=keeper(file, kill_at, **options), earlier=earlier)
    return grid


def resume(net: Any, plan: Any, file: Path, weather: Any = None) -> TrainingResult:
    grid = net.grid(plan, weather) if weather else net.grid(plan)
    result = net.run(grid, plan, keep=keeper(file), earlier=Checkpoint.read(file))
    assert isinstance(result, TrainingResult)
    return result


def told(result: TrainingResult) -> tuple[object, ...]:
    """All of a result that does not depend on a clock or on a run's name."""
    rounds = [dataclasses.replace(record, seconds=0.0) for record in result.rounds]
    return result.model.to_json(), result.evaluation, rounds, result.dropouts


# --- killed at every point -----------------------------------------------------------------------


@pytest.mark.parametrize("written", [True, False], ids=["after it was kept", "before it is kept"])
@pytest.mark.parametrize("losses", LOSSES, ids=["no site lost", "one lost", "two lost"])
def test_killed_at_any_point_a_run_goes_on_to_the_same_model_and_the_same_charges(
    net: Any, fate: Any, tmp_path: Path, losses: dict[str, str], written: bool
) -> None:
    # No retry is left in which a site that was lost could come back.
    plan, weather = net.plan(retries=min(1, len(losses))), losing(fate, losses)
    whole = net.run(net.grid(plan, weather), plan)
    spent = net.charges(whole.run)
    points = 1 + 2 * len(ONCE) + min(1, len(losses))
    for point in range(points):
        file = tmp_path / f"{point}.json"
        kill(net, plan, file, point, weather, written=written)
        if not file.exists():  # killed before anything was kept: nothing was asked
            assert (point, written) == (0, False)
            continue
        resumed = resume(net, plan, file, weather)
        assert told(resumed) == told(whole), point
        assert net.charges(resumed.run) == spent, point
        assert Checkpoint.read(file).run == resumed.run
    with pytest.raises(pytest.fail.Exception):  # these were all of them: it is not killed
        kill(net, plan, tmp_path / "last", points, weather)


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_a_run_still_comes_to_the_same_end(
    net: Any, fate: Any, tmp_path: Path, seed: int
) -> None:
    losses, dice = LOSSES[seed % 3], np.random.default_rng(seed)
    plan, weather = net.plan(retries=min(1, len(losses))), losing(fate, losses)
    whole = net.run(net.grid(plan, weather), plan)
    file, earlier, kills = tmp_path / "kept.json", None, 0
    while True:
        grid, point = net.grid(plan, weather), int(dice.integers(0, 4))
        keep = keeper(file, point, written=bool(dice.integers(2)))
        try:
            result = net.run(grid, plan, keep=keep, earlier=earlier)
            break
        except Killed:
            kills += 1
        earlier = Checkpoint.read(file) if file.exists() else None
    assert kills >= 3
    assert told(result) == told(whole)
    assert net.charges(result.run) == net.charges(whole.run)


@pytest.mark.parametrize(
    "privacy",
    [PrivacySettings(epsilon=None), PrivacySettings(epsilon=3.0, secure_sum=False, dropouts=0.5)],
    ids=["not private", "not masked"],
)
@pytest.mark.parametrize("point", [0, 3, 4, 9])
def test_runs_without_masks_go_on_too(
    net: Any, tmp_path: Path, privacy: PrivacySettings, point: int
) -> None:
    plan, file = net.plan(privacy=privacy), tmp_path / "kept.json"
    whole = net.run(net.grid(plan), plan)
    kill(net, plan, file, point)
    assert told(resume(net, plan, file)) == told(whole)


def test_a_site_whose_budget_pays_for_one_run_lets_it_go_on(
    net: Any, fate: Any, tmp_path: Path
) -> None:
    plan = net.plan(noise_seed=None)
    private(net, budget_epsilon=3.0)
    file = tmp_path / "kept.json"
    kill(net, plan, file, 6)
    result = resume(net, plan, file)
    assert {record.sites for record in result.rounds} == {4}
    with pytest.raises(SiteFailureError, match="cannot pay for this run"):
        net.run(net.grid(plan), plan)


def private(net: Any, **changes: Any) -> None:
    """Let the sites' data be private; their tables lie where they lay."""
    files = []
    for file in net.files:
        manifest = dataclasses.replace(SiteManifest.load(file), origin="private", **changes)
        folder = file.parents[2] / "private" / file.parent.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        files.append(manifest.write(folder))
    net.files = files
    folders = [file.parent for file in files]
    net.registry = Registry.load(enrol(folders, folders[0].parent / REGISTRY_FILE))


def test_a_run_that_had_all_its_sums_needs_no_site_to_end(net: Any, tmp_path: Path) -> None:
    plan, file = net.plan(), tmp_path / "kept.json"
    whole = net.run(net.grid(plan), plan)
    kill(net, plan, file, 10)
    net.files.clear()
    assert told(resume(net, plan, file)) == told(whole)


# --- what changed while the coordinator was away -------------------------------------------------


@pytest.mark.parametrize("point", [1, 2, 3, 6, 9])
def test_a_site_that_went_away_in_between_is_dropped_with_one_retry_at_most(
    net: Any, tmp_path: Path, point: int
) -> None:
    plan, file = net.plan(), tmp_path / "kept.json"
    kill(net, plan, file, point)
    earlier = Checkpoint.read(file)
    grid = net.grid(plan)
    grid.away.add("provider-02")
    result = net.run(grid, plan, earlier=earlier)
    [dropout] = result.dropouts
    step, number = ONCE[len(earlier.rounds)].split()
    assert (dropout.site, dropout.step, dropout.round) == ("provider-02", step, int(number))
    done, asking = len(earlier.rounds), earlier.attempt is not None
    assert [record.sites for record in result.rounds] == [4] * done + [3] * (5 - done)
    retries = [0] * 5
    retries[done] = int(asking)
    assert [record.retries for record in result.rounds] == retries
    for site, made in net.charges(result.run).items():
        assert len(set(made)) == len(made)
        assert set(made) <= {*ONCE, "retry 1"}
        if site != "provider-02":
            last = "retry 1" if retries[-1] else "evaluation 1"
            assert made[-1] == last


def test_a_site_that_was_gone_is_there_again_when_the_run_goes_on(
    net: Any, fate: Any, tmp_path: Path
) -> None:
    plan, file = net.plan(), tmp_path / "kept.json"
    weather = losing(fate, {"provider-02": "HistogramQuery"})
    kill(net, plan, file, 3, weather)  # once the first round is over
    assert Checkpoint.read(file).gone == ("provider-02",)
    result = resume(net, plan, file)
    assert [record.sites for record in result.rounds] == [3, 4, 4, 4, 4]
    assert [(each.site, each.back) for each in result.dropouts] == [("provider-02", "gram 1")]


def test_a_site_that_was_gone_may_stand_in_for_one_that_is(
    net: Any, fate: Any, tmp_path: Path
) -> None:
    plan, file = net.plan(dropouts=0.25), tmp_path / "kept.json"
    kill(net, plan, file, 4, losing(fate, {"provider-02": "HistogramQuery"}))
    earlier = Checkpoint.read(file)
    assert earlier.attempt is not None
    grid = net.grid(plan)
    grid.away |= {"provider-02", "provider-03"}
    with pytest.raises(SiteFailureError, match="only 2 of 4 sites take part, and the run needs 3"):
        net.run(grid, plan, earlier=earlier)
    grid.away.remove("provider-02")
    result = net.run(grid, plan, earlier=earlier)
    assert [record.sites for record in result.rounds] == [3] * 5
    assert [(each.site, each.back) for each in result.dropouts] == [
        ("provider-02", "gram 1"),
        ("provider-03", ""),
    ]


def test_a_site_that_answered_nonsense_or_was_late_for_the_start_stays_away(
    net: Any, fate: Any, tmp_path: Path
) -> None:
    privacy = PrivacySettings(epsilon=3.0, secure_sum=False, dropouts=0.5)
    plan, file, bad = net.plan(privacy=privacy), tmp_path / "kept.json", "provider-02"
    fails = (bad, "HistogramQuery")
    grid = net.grid(plan, lambda sent: fate(error=2 if (sent.site, sent.step) == fails else None))
    grid.away.add("provider-03")
    with pytest.raises(Killed):
        net.run(grid, plan, keep=keeper(file, 2))
    result = resume(net, plan, file)
    assert {record.sites for record in result.rounds} == {2}
    assert [(each.site, each.step, each.back) for each in result.dropouts] == [
        ("provider-03", "hello", ""),
        ("provider-02", "histogram", ""),
    ]


def test_a_site_that_lost_its_keys_is_dropped_and_named(net: Any, tmp_path: Path) -> None:
    plan, file = net.plan(), tmp_path / "kept.json"
    kill(net, plan, file, 4)
    shutil.rmtree(net.files[1].parent / "state" / "runs")
    result = resume(net, plan, file)
    [dropout] = result.dropouts
    assert (dropout.site, dropout.back) == ("provider-02", "")
    assert "has lost what it kept of the run (state/runs)" in dropout.reason
    assert [record.sites for record in result.rounds] == [4, 4, 3, 3, 3]


def test_a_site_whose_ledger_was_rolled_back_stops_the_run_and_is_named(
    net: Any, tmp_path: Path
) -> None:
    plan, file, site = net.plan(), tmp_path / "kept.json", net.files[1].parent
    kill(net, plan, file, 2)
    earlier = Checkpoint.read(file)
    for name in ("ledger.db", "ledger.head"):
        shutil.copy(site / "state" / name, tmp_path / name)
    with pytest.raises(Killed):
        net.run(net.grid(plan), plan, keep=keeper(file, 1), earlier=earlier)
    for name in ("ledger.db", "ledger.head"):
        shutil.copy(tmp_path / name, site / "state" / name)
    words = r"site provider-02 has answered gram 1 of run .* an older copy of the ledger"
    with pytest.raises(ReconciliationError, match=words):
        resume(net, plan, file)


def test_a_site_whose_ledger_is_another_ones_stops_nothing_but_itself(
    net: Any, tmp_path: Path
) -> None:
    plan, file = net.plan(), tmp_path / "kept.json"
    kill(net, plan, file, 4)
    shutil.copy(ledger_file(net.files[0].parent), ledger_file(net.files[1].parent))
    result = resume(net, plan, file)
    assert [each.site for each in result.dropouts] == ["provider-02"]


@pytest.mark.parametrize("point", [0, 1, 4, 7, 9, 10])
@pytest.mark.parametrize("losses", [LOSSES[0], LOSSES[2]], ids=["no site lost", "two lost"])
def test_an_older_checkpoint_than_the_run_is_refused_or_gives_the_same_result(
    net: Any, fate: Any, tmp_path: Path, point: int, losses: dict[str, str]
) -> None:
    plan, weather = net.plan(retries=2), losing(fate, losses)
    older = tmp_path / "older.json"
    kill(net, plan, older, point, weather)
    earlier = Checkpoint.read(older)
    whole = told(net.run(net.grid(plan, weather), plan, earlier=earlier))
    before = net.charges(earlier.run)
    if point < 9 + min(1, len(losses)):
        with pytest.raises(ReconciliationError, match="is older than the run, or somebody else"):
            resume(net, plan, older, weather)
    else:  # the last round was asked, and nothing after it
        assert told(resume(net, plan, older, weather)) == whole
    assert net.charges(earlier.run) == before


@pytest.mark.parametrize("retries", [0, 2])
def test_a_question_that_comes_out_differently_in_its_last_bit_is_a_retry(
    net: Any, tmp_path: Path, retries: int
) -> None:
    plan, file = net.plan(retries=retries), tmp_path / "kept.json"
    kill(net, plan, file, 5)  # the gradient's attempt is kept
    kept = Checkpoint.read(file)
    gram = kept.sums[1]
    changed = (
        kept.sums[0],
        dataclasses.replace(gram, values=np.nextafter(gram.values, np.inf)),
    )
    dataclasses.replace(kept, sums=changed).write(file)
    if not retries:
        with pytest.raises(SiteFailureError, match=r"bit for bit; .* 0 retries"):
            resume(net, plan, file)
        return
    result = resume(net, plan, file)
    assert [record.retries for record in result.rounds] == [0, 0, 1, 0, 0]
    assert {record.sites for record in result.rounds} == {4}
    made = net.charges(result.run)
    assert set(map(tuple, made.values())) == {("histogram 1", "gram 1", "retry 1", *ONCE[3:])}


# --- checkpoints that are not what was written ---------------------------------------------------


@pytest.fixture
def kept(net: Any, tmp_path: Path) -> Path:
    kill(net, net.plan(), tmp_path / "kept.json", 5)
    return tmp_path / "kept.json"


def test_a_checkpoint_reads_back_as_it_was_written(kept: Path, tmp_path: Path) -> None:
    Checkpoint.read(kept).write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == kept.read_bytes()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_checkpoint_with_any_byte_changed_or_cut_anywhere_is_refused(
    kept: Path, tmp_path: Path
) -> None:
    content, bad = kept.read_bytes(), tmp_path / "bad.json"
    head = content.index(b"\n")
    dice = np.random.default_rng(1)
    places = [*range(head + 2), *dice.integers(0, len(content), 300).tolist(), len(content) - 1]
    for place in places:
        flipped = bytes([content[place] ^ (1 << int(dice.integers(8)))])
        bad.write_bytes(content[:place] + flipped + content[place + 1 :])
        # A space in the head may become another kind of white space, which changes nothing.
        if flipped.isspace() and content[place : place + 1] == b" " and place < head:
            continue
        with pytest.raises(CheckpointError, match="is damaged"):
            Checkpoint.read(bad)
    for length in [*range(head + 2), *dice.integers(0, len(content), 100).tolist()]:
        bad.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="is damaged"):
            Checkpoint.read(bad)
    bad.write_bytes(content + b" ")
    with pytest.raises(CheckpointError, match="is damaged"):
        Checkpoint.read(bad)


@pytest.mark.parametrize("edit", [{"run": None}, {"surprise": 1}, {"offers": [{"site": "x"}]}])
def test_a_checkpoint_of_another_release_is_refused(kept: Path, edit: dict[str, Any]) -> None:
    raw = json.loads(kept.read_bytes().partition(b"\n")[2])
    for key, value in edit.items():
        if value is None:
            del raw[key]
        elif key == "surprise":
            raw["rounds"] = [{**raw["rounds"][0], key: value}]
        else:
            raw[key] = value
    body = json.dumps(raw).encode()
    head = json.dumps({"format": 1, "sha256": hashlib.sha256(body).hexdigest()}).encode()
    kept.write_bytes(head + b"\n" + body)
    with pytest.raises(CheckpointError, match="of another release"):
        Checkpoint.read(kept)


def test_a_checkpoint_that_is_not_there_or_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        Checkpoint.read(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="is damaged"):
        Checkpoint.read(tmp_path)


def test_a_checkpoint_of_another_plan_or_another_code_is_refused(net: Any, kept: Path) -> None:
    earlier, plan = Checkpoint.read(kept), net.plan()
    for other in (net.plan(split_key="other"), net.plan(retries=2)):
        with pytest.raises(CheckpointError, match="begun with another plan"):
            net.run(net.grid(other), other, earlier=earlier)
    assert earlier.attempt is not None
    attempt = dataclasses.replace(earlier.attempt, step="gram")
    sums = (earlier.sums[1], earlier.sums[0])
    for wrong in ({"attempt": attempt}, {"sums": sums}):
        with pytest.raises(CheckpointError, match="does not fit its plan"):
            net.run(net.grid(plan), plan, earlier=dataclasses.replace(earlier, **wrong))
    assert net.charges(earlier.run) == dict.fromkeys(net.names, ONCE[:2])


def test_the_checkpoint_of_another_run_asks_nothing_of_this_one(net: Any, kept: Path) -> None:
    plan, earlier = net.plan(), Checkpoint.read(kept)
    mixed = dataclasses.replace(earlier, run=new_run_id())
    with pytest.raises(ReplayError, match="made for another run or plan"):
        net.run(net.grid(plan), plan, earlier=mixed)
    assert net.charges(mixed.run) == {name: [] for name in net.names}


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("point", [1, 2, 5, 10])
def test_a_checkpoint_that_cannot_be_written_stops_the_run_which_can_go_on_later(
    net: Any, tmp_path: Path, point: int
) -> None:
    plan, file = net.plan(), tmp_path / "kept.json"
    whole = net.run(net.grid(plan), plan)
    calls = iter(range(100))

    def keep(now: Checkpoint) -> None:
        if next(calls) < point:
            now.write(file)
        else:
            with full_disk(1000):
                now.write(file)

    with pytest.raises(CheckpointError, match=r"cannot be written: File too large.*--resume"):
        net.run(net.grid(plan), plan, keep=keep)
    assert [each.name for each in tmp_path.glob("kept*")] == ["kept.json"]  # nothing half written
    resumed = resume(net, plan, file)
    assert told(resumed) == told(whole)
    assert net.charges(resumed.run) == dict.fromkeys(net.names, ONCE)
