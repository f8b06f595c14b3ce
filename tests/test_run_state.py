"""What a site keeps of a run: keys made once, one roster, the last answer, and for two weeks."""

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from federation import run_state
from federation.run_state import RunState, RunStateError, new_run_id

RUN = "0123456789abcdef" * 2


def test_a_run_has_one_pair_of_keys_whoever_asks_first(tmp_path: Path) -> None:
    first, second = RunState(tmp_path, RUN).keys(), RunState(tmp_path, RUN).keys()
    assert first.private_bytes() == second.private_bytes()
    assert RunState(tmp_path, new_run_id()).keys().private_bytes() != first.private_bytes()
    file = tmp_path / "runs" / RUN / "keys"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["keys"]


def test_of_two_processes_that_make_keys_at_once_the_first_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, state = os.link, RunState(tmp_path, RUN)
    theirs = RunState(tmp_path / "elsewhere", RUN).keys().private_bytes()

    def slower(source: Path, target: Path) -> None:
        Path(target).write_bytes(theirs)
        link(source, target)

    monkeypatch.setattr(run_state.os, "link", slower)
    assert state.keys().private_bytes() == theirs


def test_runs_older_than_two_weeks_are_forgotten_when_another_begins(tmp_path: Path) -> None:
    for name, days in (("a" * 32, 15), ("b" * 32, 13)):
        RunState(tmp_path, name).keys()
        long_ago = time.time() - days * 24 * 3600
        os.utime(tmp_path / "runs" / name, (long_ago, long_ago))
    RunState(tmp_path, RUN).keys()
    assert sorted(run.name for run in (tmp_path / "runs").iterdir()) == [RUN, "b" * 32]
    with pytest.raises(RunStateError, match="older than two weeks"):
        RunState(tmp_path, "a" * 32).check_greeted()
    RunState(tmp_path, RUN).check_greeted()


def test_a_run_keeps_the_roster_that_it_shows_first(tmp_path: Path) -> None:
    state = RunState(tmp_path, RUN)
    state.keys()
    for _ in range(2):
        state.pin(b"first")
    with pytest.raises(RunStateError, match="another roster"):
        state.pin(b"second")


def test_only_what_was_sent_last_can_be_sent_again(tmp_path: Path) -> None:
    state = RunState(tmp_path, RUN)
    state.keys()
    first, second = (np.arange(3, dtype=np.uint64) + n for n in (0, 7))
    state.keep(b"one", first)
    state.keep(b"two", second)
    again = RunState(tmp_path, RUN)
    assert again.sent(b"one") is None
    sent = again.sent(b"two")
    assert sent is not None
    assert np.array_equal(sent, second)


@pytest.mark.parametrize("name", ["", "..", "a" * 31, "A" * 32, "a" * 32 + "\n", "../" + "a" * 29])
def test_a_name_that_is_no_runs_reaches_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunStateError, match="32 hexadecimal digits"):
        RunState(tmp_path, name)


def test_one_process_at_a_time_answers_and_the_lock_of_a_dead_one_is_free(tmp_path: Path) -> None:
    RunState(tmp_path, RUN).keys()
    code = (
        "import sys, time; from pathlib import Path; from federation.run_state import RunState\n"
        f"with RunState(Path(sys.argv[1]), {RUN!r}).locked():\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    got = threading.Event()

    def wait_for_it() -> None:
        with RunState(tmp_path, RUN).locked():
            got.set()

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    assert not got.wait(0.3)
    with RunState(tmp_path, new_run_id_with_keys(tmp_path)).locked():
        pass  # another run is not held up
    other.kill()
    other.communicate()
    assert got.wait(30)
    waiting.join()


def new_run_id_with_keys(folder: Path) -> str:
    run = new_run_id()
    RunState(folder, run).keys()
    return run


def test_what_was_sent_before_is_there_until_what_is_sent_next_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = RunState(tmp_path, RUN)
    state.keys()
    state.keep(b"one", np.arange(3, dtype=np.uint64))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_state.np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        state.keep(b"two", np.arange(4, dtype=np.uint64))
    assert state.sent(b"two") is None
    assert state.sent(b"one") is not None
