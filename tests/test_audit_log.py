"""The audit log: what it takes, what it shows of tampering, and that crashes lose nothing."""

import errno
import fcntl
import hashlib
import json
import os
import pwd
import random
import re
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_contracts.errors import GroundTruthError
from data_contracts.manifest import SiteManifest
from experiments import cli
from experiments.site_budget import change_budget
from federation.deployment import audit_log
from federation.deployment.audit_entry import (
    LONGEST_REASON,
    AuditEntryError,
    AuditLogError,
    Event,
    Fields,
    checked,
)
from federation.deployment.audit_log import (
    AuditLog,
    AuditLogDamagedError,
    AuditLogFullError,
    AuditLogRolledBackError,
    AuditLogTornError,
    AuditLogUnavailableError,
    audit_file,
    entries,
    show,
    verify,
)
from federation.identity import fingerprint
from federation.ledger import Ledger, ledger_file

RUN, OTHER_RUN = "0123456789abcdef" * 2, "f" * 32
APP, PLAN = "a" * 64, "b" * 64
# One allowed value of every field; the longest where lengths differ.
ALLOWED: dict[str, Any] = {
    **dict.fromkeys(("app", "certificate", "digest", "key", "ledger", "plan"), APP),
    **dict.fromkeys(("attempt", "restarts", "round", "rounds", "sites", "size"), 10**12),
    **dict.fromkeys(("network", "step", "task"), "n" * 64),
    "epsilon": 2.2250738585072014e-308,
    "reason": GroundTruthError("\N{GRINNING FACE}" * 1000),
    "run": RUN,
    "site": "s" * 32,
    "until": "2027-01-31",
}


class RefusalError(GroundTruthError):
    """A refusal of ours."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(file: Path) -> AuditLog:
    return AuditLog(file, "site st-mary")


@pytest.fixture
def written(file: Path, log: AuditLog) -> list[bytes]:
    """The lines of a log of six entries."""
    log.append(Event.SERVICE_STARTED)
    log.append(Event.APP_APPROVED, app=APP)
    log.append(Event.RUN_STARTED, run=RUN, plan=PLAN, app=APP, sites=3)
    log.append(Event.REQUEST_ANSWERED, run=RUN, task="approved", step="gradient", round=1)
    log.append(Event.REQUEST_REFUSED, run=OTHER_RUN, reason=RefusalError("epsilon 9 is above 3"))
    log.append(Event.RUN_FINISHED, run=RUN)
    return file.read_bytes().splitlines(keepends=True)


def bodies(file: Path) -> list[dict[str, Any]]:
    return [entry.body for entry in entries(file)]


# --- what an entry says -----------------------------------------------------------------------


def test_an_entry_says_who_what_when_and_how_it_ended(file: Path, log: AuditLog) -> None:
    before = datetime.now(UTC)
    head = log.append(Event.REQUEST_REFUSED, run=RUN, reason=RefusalError("epsilon 9 is above 3"))
    (body,) = bodies(file)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["time"])
    moment = datetime.fromisoformat(body.pop("time"))
    assert before - timedelta(milliseconds=1) <= moment <= datetime.now(UTC)
    assert body == {
        "seq": 1,
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "actor": "site st-mary",
        "event": "request refused by policy",
        "outcome": "refused",
        "run": RUN,
        "reason": "RefusalError: epsilon 9 is above 3",
    }
    assert head.seq == 1


def test_a_line_is_the_hash_of_what_stands_before_and_in_it(written: list[bytes]) -> None:
    prev = "0" * 64
    for line in written:
        text = re.fullmatch(rb'\{"hash":"(.{64})","prev":"(.{64})","body":(.*)\}\n', line)
        assert text is not None
        assert text[2].decode() == prev
        prev = hashlib.sha256(prev.encode() + text[3]).hexdigest()
        assert text[1].decode() == prev


def test_the_user_is_the_one_whose_rights_count_whatever_the_environment_says(
    file: Path, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    log.append(Event.SERVICE_STARTED)
    assert bodies(file)[0]["user"] == pwd.getpwuid(os.geteuid()).pw_name


def test_a_user_without_an_entry_as_in_a_container_is_a_number(
    file: Path, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = max(user.pw_uid for user in pwd.getpwall() if user.pw_uid < 2**30) + 1
    monkeypatch.setattr("os.geteuid", lambda: unused)
    log.append(Event.SERVICE_STARTED)
    assert bodies(file)[0]["user"] == f"uid {unused}"


@pytest.mark.parametrize("actor", ["", "site", "site ", "site St. Mary", "site a\n", "auditor"])
def test_only_the_coordinator_and_sites_by_pseudonym_act(file: Path, actor: str) -> None:
    with pytest.raises(AuditEntryError, match='"coordinator", or "site"'):
        AuditLog(file, actor)


@pytest.mark.parametrize("event", Event)
def test_the_longest_entry_of_every_event_can_be_read_back(
    file: Path, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "federation.deployment.audit_log.user_name", lambda: "\N{GRINNING FACE}" * 64
    )
    log = AuditLog(file, "site " + "s" * 32)
    log.append(event, **ALLOWED)
    log.append(event, **ALLOWED)
    assert verify(file).seq == 2
    assert max(map(len, file.read_bytes().splitlines())) < 7000
    assert {body["event"] for body in bodies(file)} == {event.value}


def test_every_field_has_a_check() -> None:
    assert ALLOWED.keys() == Fields.__annotations__.keys()
    for name, value in ALLOWED.items():
        written = checked(Event.SERVICE_STARTED, {name: value})[name]
        assert name == "reason" or written == value
        with pytest.raises(AuditEntryError, match=f"as its {name} is not one"):
            checked(Event.SERVICE_STARTED, {name: None})


def test_a_fingerprint_as_it_is_read_aloud_is_a_key(file: Path, log: AuditLog) -> None:
    log.append(Event.SITE_ADMITTED, site="st-mary", key=fingerprint(bytes(32)))
    assert bodies(file)[0]["key"] == "6668 7aad f862 bd77 6c8f c18b 8e9f 8e20"


# --- what no entry takes ----------------------------------------------------------------------

_SHAPES = {
    **dict.fromkeys(("app", "certificate", "digest", "ledger", "plan"), r"[0-9a-f]{64}"),
    "key": r"[0-9a-f]{64}|([0-9a-f]{4} ){7}[0-9a-f]{4}",
    "run": r"[0-9a-f]{32}",
    **dict.fromkeys(("network", "step", "task"), r"[a-z][a-z0-9_-]{0,63}"),
    "site": r"[a-z][a-z0-9_-]{0,31}",
    "until": r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
}
anything = st.one_of(
    *(st.none(), st.booleans(), st.text(), st.binary(), st.floats(), st.integers()),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
)


@given(st.sampled_from(sorted(_SHAPES)), anything)
@example("app", APP + "\n")
@example("app", APP.upper())
@example("run", "\N{ARABIC-INDIC DIGIT ONE}" * 32)
@example("site", "Smith, John 1950-01-31")
@example("site", "st-mary\n")
@example("until", "\N{ARABIC-INDIC DIGIT ONE}027-01-31")
def test_identifiers_and_digests_take_nothing_of_another_shape(name: str, value: Any) -> None:
    if isinstance(value, str) and re.fullmatch(_SHAPES[name], value, re.ASCII):
        assert checked(Event.SERVICE_STARTED, {name: value}) == {name: value}
        return
    with pytest.raises(AuditEntryError) as told:
        checked(Event.SERVICE_STARTED, {name: value})
    assert str(told.value) == f"what an entry of the audit log gives as its {name} is not one"


@given(st.sampled_from(["attempt", "restarts", "round", "rounds", "sites", "size"]), anything)
@example("round", True)
@example("round", -1)
@example("round", 10**12 + 1)
@example("round", 1.0)
def test_counts_take_whole_numbers_alone(name: str, value: Any) -> None:
    if type(value) is int and 0 <= value <= 10**12:
        assert checked(Event.SERVICE_STARTED, {name: value}) == {name: value}
        return
    with pytest.raises(AuditEntryError, match=f"as its {name} is not one"):
        checked(Event.SERVICE_STARTED, {name: value})


@pytest.mark.parametrize("epsilon", [0, -1.0, float("inf"), float("nan"), True, "3", 10**400])
def test_an_epsilon_is_a_positive_number(epsilon: Any) -> None:
    with pytest.raises(AuditEntryError, match="as its epsilon is not one"):
        checked(Event.BUDGET_CHANGED, {"epsilon": epsilon, "ledger": APP})


@given(anything)
def test_a_reason_is_an_error_and_never_free_text(value: Any) -> None:
    with pytest.raises(AuditEntryError, match="as its reason is not one"):
        checked(Event.REQUEST_REFUSED, {"reason": value})


@given(st.text(st.characters(exclude_categories=())))
@example("line\nfeed \x1b[31mred\x00 \u202e backwards \ud800")
@example("x" * 10_000)
def test_a_reason_of_ours_is_one_printable_line_whatever_it_quotes(text: str) -> None:
    (told,) = checked(Event.REQUEST_REFUSED, {"reason": RefusalError(text)}).values()
    assert isinstance(told, str)
    assert told.startswith("RefusalError:")
    assert told.isprintable()
    assert len(told) <= LONGEST_REASON
    if text.isprintable() and "  " not in f" {text} " and len(text) < 200:
        assert told == f"RefusalError: {text}".rstrip()


def test_of_an_error_that_is_not_ours_the_class_alone_is_kept() -> None:
    stranger = ValueError("member 12345, born 1950-01-31")
    assert checked(Event.REQUEST_REFUSED, {"reason": stranger}) == {"reason": "ValueError"}
    try:
        raise RefusalError("no such column") from stranger
    except RefusalError as error:
        told = checked(Event.REQUEST_REFUSED, {"reason": error})
    assert told == {"reason": "RefusalError: no such column"}


@given(st.text(), anything)
def test_a_field_that_none_has_is_refused_without_a_word_of_it(name: str, value: Any) -> None:
    if name not in ALLOWED:
        with pytest.raises(AuditEntryError, match=r"^an entry .* has a field that none has$"):
            checked(Event.SERVICE_STARTED, {name: value})


def test_neither_who_nor_when_nor_the_order_can_be_given(file: Path, log: AuditLog) -> None:
    for name in ("seq", "time", "user", "actor", "outcome"):
        with pytest.raises(AuditEntryError, match="a field that none has"):
            log.append(Event.SERVICE_STARTED, **{name: 1})  # type: ignore[arg-type]
    with pytest.raises(AuditEntryError, match="an event that there is not"):
        log.append("patient seen")  # type: ignore[arg-type]
    assert not file.exists()


@pytest.mark.parametrize(
    ("event", "missing"),
    [
        (Event.RUN_STARTED, "run, plan"),
        (Event.RUN_FAILED, "run, reason"),
        (Event.REQUEST_REFUSED, "reason"),
        (Event.SITE_DROPPED, "run, site"),
        (Event.APP_APPROVED, "app"),
        (Event.BUDGET_CHANGED, "epsilon, ledger"),
    ],
)
def test_an_entry_that_says_too_little_is_refused(
    file: Path, log: AuditLog, event: Event, missing: str
) -> None:
    with pytest.raises(AuditEntryError, match=f"must say its {missing}$"):
        log.append(event)
    assert not file.exists()


# --- tampering --------------------------------------------------------------------------------


def test_a_log_that_nobody_touched_is_intact(file: Path, written: list[bytes]) -> None:
    head = verify(file)
    assert (head.seq, head.hash) == (6, json.loads(written[-1])["hash"])


@pytest.mark.parametrize("number", [1, 3, 6])
@pytest.mark.parametrize(
    "name", ["hash", "prev", "seq", "time", "user", "actor", "event", "outcome"]
)
def test_a_changed_field_is_found_in_its_entry(
    file: Path, written: list[bytes], number: int, name: str
) -> None:
    entry = json.loads(written[number - 1])
    value = entry[name] if name in entry else entry["body"][name]
    old = json.dumps(value).encode()
    new = str(value + 1).encode() if name == "seq" else old[:-2] + bytes([old[-2] ^ 1]) + b'"'
    lines = list(written)
    lines[number - 1] = lines[number - 1].replace(
        f'"{name}":'.encode() + old, f'"{name}":'.encode() + new
    )
    assert lines != written
    file.write_bytes(b"".join(lines))
    with pytest.raises(AuditLogDamagedError, match=f"entry {number} is not what was written"):
        verify(file)


@pytest.mark.parametrize("name", ["run", "plan", "app", "sites"])
def test_a_changed_fact_of_a_run_is_found(file: Path, written: list[bytes], name: str) -> None:
    value = json.loads(written[2])["body"][name]
    changed = value + 1 if isinstance(value, int) else "e" + value[1:]
    start = f'"{name}":'
    written[2] = written[2].replace(
        (start + json.dumps(value)).encode(), (start + json.dumps(changed)).encode()
    )
    file.write_bytes(b"".join(written))
    with pytest.raises(AuditLogDamagedError, match="entry 3 is not what was written"):
        verify(file)


def test_any_changed_byte_is_found(file: Path, written: list[bytes]) -> None:
    content = b"".join(written)
    rng = random.Random(20261125)  # noqa: S311 # places, not secrets
    for place in rng.sample(range(len(content)), 300):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        with pytest.raises(AuditLogDamagedError):
            verify(file)


@pytest.mark.parametrize(
    ("tamper", "number"),
    [
        (lambda lines: lines[1:], 1),
        (lambda lines: lines[:2] + lines[3:], 3),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [*lines[:3], lines[4], lines[3], lines[5]], 4),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4),
        (lambda lines: [*lines, lines[-1]], 7),
        (lambda lines: [*lines[:2], b"\n", *lines[2:]], 3),
        (lambda lines: [*lines[:2], b" " + lines[2], *lines[3:]], 3),
        (lambda lines: [*lines[:2], lines[2].replace(b"\n", b"\r\n"), *lines[3:]], 3),
    ],
)
def test_removed_moved_doubled_and_strange_lines_are_found(
    file: Path,
    written: list[bytes],
    tamper: Callable[[list[bytes]], list[bytes]],
    number: int,
) -> None:
    file.write_bytes(b"".join(tamper(written)))
    with pytest.raises(AuditLogDamagedError, match=f"entry {number} "):
        verify(file)


def forged(body: str, prev: str = "0" * 64) -> bytes:
    """A line whose hash is right, as anybody can compute it."""
    own = hashlib.sha256((prev + body).encode()).hexdigest()
    return f'{{"hash":"{own}","prev":"{prev}","body":{body}}}\n'.encode()


def test_an_entry_written_anew_is_found_at_the_next_and_the_last_by_a_kept_head(
    file: Path, written: list[bytes]
) -> None:
    kept = verify(file)
    for number, old, new in ((3, '"sites":3', '"sites":2'), (6, '"done"', '"gone"')):
        text = written[number - 1].decode().split('"body":')[1].removesuffix("}\n")
        assert old in text
        lines = list(written)
        before = json.loads(written[number - 2])["hash"]
        lines[number - 1] = forged(text.replace(old, new), before)
        file.write_bytes(b"".join(lines))
        if number < 6:
            with pytest.raises(AuditLogDamagedError, match="entry 4 does not fit the chain"):
                verify(file)
            assert audit_with_script(file).stderr == "entry 4 does not fit the chain\n"
        else:
            assert verify(file).seq == 6
            with pytest.raises(AuditLogRolledBackError):
                verify(file, known=kept.hash)


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"seq":1,"seq":1}',
        '{"seq": 1}',
        '{"seq":true}',
        '{"seq":1.0}',
        '{"seq":"1"}',
        '{"seq":NaN}',
        '{"seq":1},"more":{}',
        '{"seq":1,"a":' + "[" * 3000 + "]" * 3000 + "}",
    ],
)
def test_a_line_with_a_right_hash_that_is_no_entry_is_found(
    file: Path, log: AuditLog, body: str
) -> None:
    file.write_bytes(forged(body))
    with pytest.raises(AuditLogDamagedError, match="entry 1 is not what was written"):
        verify(file)
    with pytest.raises(AuditLogDamagedError, match="last entry is not what was written"):
        log.append(Event.SERVICE_STARTED)
    assert file.read_bytes() == forged(body)


def test_a_line_longer_than_any_entry_is_not_read_whole(file: Path, log: AuditLog) -> None:
    for end in (b"", b"\n"):
        file.write_bytes(b"x" * 1_000_000 + end)
        with pytest.raises(AuditLogDamagedError, match="entry 1 is not what was written"):
            verify(file)
        with pytest.raises(AuditLogDamagedError):
            log.append(Event.SERVICE_STARTED)
        assert file.stat().st_size == 1_000_000 + len(end)


def test_an_older_copy_is_found_by_a_head_that_somebody_kept(
    file: Path, log: AuditLog, written: list[bytes]
) -> None:
    kept = verify(file)
    log.append(Event.SERVICE_STOPPED)
    assert verify(file, known=kept.hash).seq == 7
    file.write_bytes(b"".join(written[:-1]))
    assert verify(file).seq == 5
    with pytest.raises(AuditLogRolledBackError, match=f"does not hold the entry {kept.hash}"):
        verify(file, known=kept.hash)
    log.append(Event.SERVICE_STOPPED)  # and nothing that is appended to it hides that
    with pytest.raises(AuditLogRolledBackError):
        verify(file, known=kept.hash)
    with pytest.raises(AuditLogError, match="a head is 64 hexadecimal digits"):
        verify(file, known=kept.hash[:8])


def test_an_empty_log_holds_its_origin_and_no_other_head(file: Path) -> None:
    file.touch()
    assert verify(file, known="0" * 64) == (0, "0" * 64)
    with pytest.raises(AuditLogRolledBackError):
        verify(file, known=APP)


# --- the auditor's own script -----------------------------------------------------------------


def audit_with_script(file: Path) -> subprocess.CompletedProcess[str]:
    """Run the script of the module's docstring, as an auditor without our code."""
    script = re.search(
        r"^    import hashlib.*?(?=^\*\*|^[A-Z])", audit_log.__doc__ or "", re.M | re.S
    )
    assert script is not None
    return subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script[0]), str(file)],
        capture_output=True,
        text=True,
    )


def test_the_script_of_an_auditor_agrees(file: Path, written: list[bytes]) -> None:
    head = verify(file)
    assert audit_with_script(file).stdout == f"6 entries, chain intact, head {head.hash}\n"
    for lines, number in (
        (written[1:], 1),
        ([*written[:3], written[4], written[3], written[5]], 4),
        ([*written[:5], written[5].replace(b"done", b"gone")], 6),
    ):
        file.write_bytes(b"".join(lines))
        done = audit_with_script(file)
        assert (done.returncode, done.stderr) == (1, f"entry {number} does not fit the chain\n")
    file.write_bytes(b"".join(written)[:-1])
    assert audit_with_script(file).returncode == 1


# --- torn lines, full disks -------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 40, 150, -1])
def test_a_torn_last_line_is_named_set_aside_and_logged(
    file: Path, log: AuditLog, written: list[bytes], kept: int
) -> None:
    torn = written[-1][:kept]
    file.write_bytes(b"".join(written[:-1]) + torn)
    with pytest.raises(AuditLogTornError, match="entry 6 was not finished"):
        verify(file)
    log.append(Event.SERVICE_STARTED)
    assert verify(file).seq == 7
    repaired, last = bodies(file)[-2:]
    digest = hashlib.sha256(torn).hexdigest()
    assert (repaired["event"], repaired["size"], repaired["digest"]) == (
        *("log repaired", len(torn)),
        digest,
    )
    assert last["event"] == "service started"
    spare = file.with_name(f"audit.jsonl.torn-{digest[:16]}")
    assert spare.read_bytes() == torn
    assert stat.S_IMODE(spare.stat().st_mode) == 0o600
    assert file.read_bytes().startswith(b"".join(written[:-1]))


def test_a_torn_first_line_is_repaired_as_well(file: Path, log: AuditLog) -> None:
    file.write_bytes(b"\0" * 5000)  # as some file systems leave it after a power cut
    log.append(Event.SERVICE_STARTED)
    assert [body["event"] for body in bodies(file)] == ["log repaired", "service started"]


@pytest.mark.parametrize("call", ["pwrite", "ftruncate", "fsync"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("torn", [b"{", b"{" * 2000])
def test_a_repair_that_is_interrupted_is_never_silent(
    file: Path,
    log: AuditLog,
    written: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    nth: int,
    torn: bytes,
) -> None:
    file.write_bytes(b"".join(written) + torn)
    real, calls = getattr(os, call), []

    def killed(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(f"os.{call}", killed)
        try:
            log.append(Event.SERVICE_STARTED)
        except KeyboardInterrupt:
            pass
        else:
            assert len(calls) < nth
    log.append(Event.SERVICE_STOPPED)
    after = bodies(file)[6:]
    assert after[0]["event"] == "log repaired"
    first = hashlib.sha256(torn).hexdigest()
    assert (after[0]["size"], after[0]["digest"]) == (len(torn), first)
    assert file.with_name(f"audit.jsonl.torn-{first[:16]}").read_bytes() == torn
    assert after[-1]["event"] == "service stopped"


WORK = """
import os, resource, sys
from pathlib import Path
from federation.deployment.audit_entry import Event
from federation.deployment.audit_log import AuditLog, AuditLogError

def work(file, answered, run, count):
    log = AuditLog(Path(file), "site st-mary")
    out = os.open(answered, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in range(1, count + 1):
        head = log.append(Event.REQUEST_ANSWERED, run=run, round=number)
        os.write(out, f"{head.seq} {head.hash} {run} {number}\\n".encode())
"""


@pytest.mark.parametrize("room", [0, 1, 100, 1000, 3000])
def test_a_full_disk_is_named_and_loses_nothing(
    file: Path, log: AuditLog, written: list[bytes], tmp_path: Path, room: int
) -> None:
    limited = """
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    work(*sys.argv[1:3], "f" * 32, 1000)
except AuditLogError as error:
    print(type(error).__name__, error)
"""
    size = len(b"".join(written))
    answered = tmp_path / "answered"
    words = [str(file), str(answered), str(size + room)]
    done = subprocess.run(
        [sys.executable, "-c", WORK + limited, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("AuditLogFullError")
    assert f"{file}: the disk is full, so there is no entry about this" in done.stdout
    log.append(Event.SERVICE_STOPPED)
    told = bodies(file)
    answers = answered.read_text().splitlines()
    assert len(answers) == sum(body["event"] == "request answered" for body in told[6:])
    assert len(answers) > 0 or room < 1000
    repairs = [body["size"] for body in told if body["event"] == "log repaired"]
    whole = file.read_bytes().splitlines(keepends=True)[: 6 + len(answers)]
    left = size + room - sum(map(len, whole))
    assert repairs == ([left] if left else [])
    assert file.read_bytes().startswith(b"".join(written))


def test_a_device_without_room_is_a_full_disk() -> None:
    with pytest.raises(AuditLogFullError, match="/dev/full: the disk is full"):
        AuditLog(Path("/dev/full"), "coordinator").append(Event.SERVICE_STARTED)


def test_no_room_for_a_repair_leaves_the_torn_line(
    file: Path, log: AuditLog, written: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = b"".join(written)[:-1]
    file.write_bytes(torn)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for call in ("pwrite", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{call}", full)
            with pytest.raises(AuditLogFullError):
                log.append(Event.SERVICE_STOPPED)
        assert file.read_bytes() == torn
    log.append(Event.SERVICE_STOPPED)
    assert [body["event"] for body in bodies(file)[-2:]] == ["log repaired", "service stopped"]


def test_a_disk_that_fills_up_within_a_repair_leaves_a_torn_line_again(
    file: Path, log: AuditLog, written: list[bytes]
) -> None:
    whole = b"".join(written)
    file.write_bytes(whole + b"{")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, before[1]))
    try:
        with pytest.raises(AuditLogFullError):
            log.append(Event.SERVICE_STOPPED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    torn = file.read_bytes().removeprefix(whole)
    assert len(torn) == 50
    log.append(Event.SERVICE_STOPPED)
    repaired, last = bodies(file)[6:]
    assert (repaired["size"], repaired["digest"]) == (50, hashlib.sha256(torn).hexdigest())
    assert last["event"] == "service stopped"
    asides = {spare.read_bytes() for spare in file.parent.glob("audit.jsonl.torn-*")}
    assert asides == {b"{", torn}


# --- crashes, rivals --------------------------------------------------------------------------


def test_four_processes_at_once_lose_nothing(file: Path, tmp_path: Path) -> None:
    rival = """
print("ready", flush=True)
sys.stdin.readline()
work(*sys.argv[1:3], sys.argv[3] * 32, 200)
"""
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", WORK + rival, str(file), str(tmp_path / "answered"), digit],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for digit in "abcd"
    ]
    for process in rivals:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in rivals:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in rivals:
        process.communicate(timeout=100)
        assert process.returncode == 0
    assert verify(file).seq == 800
    told = [(body["run"][0], body["round"]) for body in bodies(file)]
    for digit in "abcd":  # each in its own order, and the four among each other
        assert [number for run, number in told if run == digit] == list(range(1, 201))
    changes = sum(one[0] != two[0] for one, two in pairwise(told))
    assert changes > 3


@pytest.mark.slow
def test_no_kill_at_any_moment_loses_an_entry_that_append_returned_for(
    file: Path, tmp_path: Path
) -> None:
    answered = tmp_path / "answered"
    server = """
for line in sys.stdin:
    if (worker := os.fork()) == 0:
        work(*sys.argv[1:3], line.strip(), 10**9)
    print(worker, flush=True)
    os.waitpid(worker, 0)
    print("dead", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", WORK + server, str(file), str(answered)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    rng = random.Random(20261125)  # noqa: S311 # moments, not secrets
    kills = 200
    for kill in range(kills):
        process.stdin.write(f"{kill:032x}\n")
        process.stdin.flush()
        worker = int(process.stdout.readline())
        time.sleep(rng.uniform(0.002, 0.03))
        os.kill(worker, signal.SIGKILL)
        assert process.stdout.readline() == "dead\n"
    process.communicate(timeout=60)
    AuditLog(file, "site st-mary").append(Event.SERVICE_STARTED)
    told = {entry.seq: entry for entry in entries(file)}
    answers = [line.split() for line in answered.read_text().splitlines()]
    assert len(answers) > kills
    for seq, own, run, number in answers:
        entry = told[int(seq)]
        assert (entry.hash, entry.body["run"], entry.body["round"]) == (own, run, int(number))
    # A kill comes at most once between an entry and the answer that it was written.
    kinds = Counter(entry.body["event"] for entry in told.values())
    assert 0 <= kinds["request answered"] - len(answers) <= kills


@pytest.mark.parametrize("torn_after", [1, 100, 200])
def test_a_kill_in_the_middle_of_a_write_is_told_by_the_next_process(
    file: Path, tmp_path: Path, torn_after: int
) -> None:
    """A kernel hardly ever tears so short a write; here the process does it itself, and dies."""
    trap = """
import signal
import federation.deployment.audit_log as room
def torn(log, line):
    os.write(log, line[:int(sys.argv[3])])
    os.kill(os.getpid(), signal.SIGKILL)
room.os = type("os", (), {**vars(os), "write": torn})
work(*sys.argv[1:3], "f" * 32, 1)
"""
    AuditLog(file, "site st-mary").append(Event.SERVICE_STARTED)
    words = [str(file), str(tmp_path / "answered"), str(torn_after)]
    done = subprocess.run([sys.executable, "-c", WORK + trap, *words], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    AuditLog(file, "site st-mary").append(Event.SERVICE_STARTED)
    told = bodies(file)
    assert [body["event"] for body in told] == [
        "service started",
        "log repaired",
        "service started",
    ]
    assert told[1]["size"] == torn_after


def test_an_entry_is_synced_before_append_returns(
    file: Path, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, int]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        synced.append((name, file.stat().st_size))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", record)
    log.append(Event.SERVICE_STARTED)
    size = file.stat().st_size
    log.append(Event.SERVICE_STOPPED)
    assert synced == [
        (file.parent.name, 0),
        ("audit.jsonl", size),
        ("audit.jsonl", file.stat().st_size),
    ]


def test_who_is_locked_out_for_too_long_is_told(
    file: Path, log: AuditLog, written: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federation.deployment.audit_log._BUSY_SECONDS", 0.05)
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(
            AuditLogUnavailableError, match=r"in use by another process for 0\.05 s"
        ):
            log.append(Event.SERVICE_STOPPED)
        with pytest.raises(AuditLogUnavailableError, match="in use by another process"):
            verify(file)
    assert file.read_bytes() == b"".join(written)


def test_who_reads_slowly_holds_nobody_up_and_sees_the_log_as_it_was(
    file: Path, log: AuditLog, written: list[bytes]
) -> None:
    reading = entries(file)
    next(reading)
    log.append(Event.SERVICE_STOPPED)
    assert [entry.seq for entry in reading] == [2, 3, 4, 5, 6]


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_log_is_for_its_owner_alone(file: Path, log: AuditLog, mask: int) -> None:
    before = os.umask(mask)
    try:
        log.append(Event.SERVICE_STARTED)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_log_in_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "absent" / "audit.jsonl"
    for attempt in (
        lambda: AuditLog(file, "coordinator").append(Event.SERVICE_STARTED),
        lambda: verify(file),
    ):
        with pytest.raises(
            AuditLogUnavailableError, match=r"absent/audit\.jsonl: there is no such"
        ):
            attempt()


def test_a_folder_in_the_place_of_the_log_is_named(file: Path, log: AuditLog) -> None:
    file.mkdir()
    with pytest.raises(AuditLogUnavailableError, match="Is a directory"):
        log.append(Event.SERVICE_STARTED)


def test_the_cost_of_an_entry_does_not_grow_with_the_log(file: Path, log: AuditLog) -> None:
    def read_by_append() -> int:
        before = int(Path("/proc/self/io").read_text().split()[1])  # rchar
        log.append(Event.SERVICE_STARTED)
        return int(Path("/proc/self/io").read_text().split()[1]) - before

    with file.open("wb") as out:
        prev = "0" * 64
        for seq in range(1, 100_001):
            body = f'{{"event":"request answered","round":{seq},"run":"{RUN}","seq":{seq}}}'
            line = forged(body, prev)
            prev = line[9:73].decode()
            out.write(line)
            if seq == 1000:
                out.flush()
                small = file.with_name("small.jsonl")
                small.write_bytes(file.read_bytes())
    assert file.stat().st_size > 20_000_000
    large_cost = read_by_append()
    assert verify(file).seq == 100_001
    file.write_bytes(small.read_bytes())
    small_cost = read_by_append()
    assert abs(large_cost - small_cost) < 500  # what is read of /proc itself varies by digits
    assert large_cost < 2 * 8192 + 10_000


# --- commands ---------------------------------------------------------------------------------


def test_a_folder_or_file_stands_for_its_log(tmp_path: Path) -> None:
    site, coordinator = tmp_path / "site", tmp_path / "coordinator"
    for folder in (site, coordinator):
        (folder / "state").mkdir(parents=True)
    (site / "site.toml").touch()
    assert audit_file(site) == audit_file(site / "site.toml") == site / "state/audit.jsonl"
    assert audit_file(coordinator) == coordinator / "audit.jsonl"
    assert audit_file(coordinator / "audit.jsonl") == coordinator / "audit.jsonl"
    assert audit_file(tmp_path / "old-copy.jsonl") == tmp_path / "old-copy.jsonl"


def test_entries_are_found_by_run_event_and_time(file: Path, written: list[bytes]) -> None:
    def found(**wanted: Any) -> list[int]:
        return [row["seq"] for row in show(file, **wanted)]

    assert found() == [1, 2, 3, 4, 5, 6]
    assert found(run=RUN[:8]) == [3, 4, 6]
    assert found(run=RUN[:8], event="run started") == [3]
    assert found(event="request refused by policy") == [5]
    now = datetime.now(UTC)
    assert found(since=now + timedelta(seconds=1)) == []
    assert found(since=now - timedelta(minutes=1)) == [1, 2, 3, 4, 5, 6]
    west = timezone(timedelta(hours=-8))
    assert found(since=(now - timedelta(minutes=1)).astimezone(west)) == [1, 2, 3, 4, 5, 6]
    assert found(since=(now + timedelta(seconds=1)).astimezone(west)) == []
    with pytest.raises(AuditLogError, match="no event 'lunch'; there are: network created"):
        found(event="lunch")


Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command as a shell would: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["groundtruth", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capfd.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def test_verify_prints_the_head_that_a_later_verify_takes(
    invoke: Invoke, file: Path, log: AuditLog, written: list[bytes]
) -> None:
    kept = json.loads(written[-1])["hash"]
    assert invoke("audit-log", "verify", file) == (
        *(0, f"6 entries, chain intact, head {kept}\n"),
        "",
    )
    log.append(Event.SERVICE_STOPPED)
    code, out, _ = invoke("audit-log", "verify", file.parent, "--head", kept)
    assert (code, out.startswith("7 entries, chain intact, head ")) == (0, True)
    file.write_bytes(b"".join(written[:-1]))
    code, out, err = invoke("audit-log", "verify", file, "--head", kept)
    assert (code, out) == (2, "")
    assert "an older copy" in err
    code, _, err = invoke("audit-log", "verify", file.parent / "absent.jsonl")
    assert (code, "absent.jsonl: there is no such file" in err) == (2, True)


def test_show_prints_what_is_asked_for(invoke: Invoke, file: Path, written: list[bytes]) -> None:
    code, out, _ = invoke("audit-log", "show", file)
    assert code == 0
    for words in ("site st-mary", "request refused by policy", "epsilon 9 is above 3", "refused"):
        assert words in out
    code, out, _ = invoke("audit-log", "show", file.parent, "--run", RUN[:6], "--last", 2, "--json")
    rows = json.loads(out)
    assert (code, [row["seq"] for row in rows]) == (0, [4, 6])
    assert [row["hash"] for row in rows] == [json.loads(written[n])["hash"] for n in (3, 5)]
    code, out, _ = invoke("audit-log", "show", file, "--since", "2999-01-01", "--json")
    assert (code, json.loads(out)) == (0, [])
    code, out, _ = invoke("audit-log", "show", file, "--event", "run started", "--json")
    assert [row["plan"] for row in json.loads(out)] == [PLAN]
    for option, words in (("--since", "--since takes a date"), ("--event", "there is no event")):
        code, _, err = invoke("audit-log", "show", file, option, "lunch")
        assert (code, words in err) == (2, True)


def test_show_of_no_entries_and_of_no_log_says_so_without_an_empty_table(
    invoke: Invoke, file: Path, written: list[bytes], tmp_path: Path
) -> None:
    assert invoke("audit-log", "show", file, "--since", "2100-01-01")[:2] == (
        0,
        "no entries that fit\n",
    )
    code, out, err = invoke("audit-log", "show", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "there is no such file or folder" in err


def test_show_of_a_damaged_log_ends_with_the_damage(
    invoke: Invoke, file: Path, written: list[bytes]
) -> None:
    file.write_bytes(b"".join([*written[:2], *written[3:]]))
    code, out, err = invoke("audit-log", "show", file, "--json")
    assert (code, [row["seq"] for row in json.loads(out)]) == (2, [1, 2])
    assert "entry 3 does not fit the chain" in err


def test_a_forged_log_cannot_steer_the_terminal(invoke: Invoke, file: Path) -> None:
    event = json.dumps("\x1b[2Jrun \N{RIGHT-TO-LEFT OVERRIDE}finished[/red]")
    file.write_bytes(forged(f'{{"event":{event},"seq":1}}'))
    code, out, _ = invoke("audit-log", "show", file)
    assert code == 0
    assert "\x1b[2J" not in out
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in out
    assert "finished[/red]" in out


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A private site with a ledger that nothing was charged to."""
    folder = tmp_path / "st-mary"
    folder.mkdir()
    tables = {"pa_request": folder / "pa_request.parquet"}
    SiteManifest("st-mary", "provider", tables, budget_epsilon=10.0).write(folder)
    Ledger.open(ledger_file(folder), site="st-mary", epsilon=10.0, delta=1e-5)
    return folder


def test_a_change_of_the_budget_is_logged_without_the_texts_that_people_typed(
    invoke: Invoke, site: Path
) -> None:
    signed = ("--approved-by", "Dr. Grey", "--reason", "patient Smith asked")
    for path, epsilon in ((site, 5), (site / "site.toml", 8)):
        code, _, err = invoke("site", "budget", path, "--raise-to", epsilon, *signed)
        assert code == 0, err
    charged = Ledger.existing(ledger_file(site)).entries()
    log = site / "state" / "audit.jsonl"
    for body, raised, entry in zip(bodies(log), (5, 8), charged[-2:], strict=True):
        assert (body["event"], body["actor"]) == ("budget changed", "site st-mary")
        assert (body["epsilon"], body["ledger"]) == (raised, entry.hash)
    assert b"Grey" not in log.read_bytes()
    assert b"Smith" not in log.read_bytes()
    code, out, _ = invoke("audit-log", "verify", site)
    assert (code, out.startswith("2 entries, chain intact")) == (0, True)


def test_a_refused_change_of_the_budget_is_not_logged(site: Path) -> None:
    with pytest.raises(GroundTruthError, match="who approved it"):
        change_budget(site, 5.0, approved_by="", reason="so")
    assert not (site / "state" / "audit.jsonl").exists()


def test_a_change_of_the_budget_that_cannot_be_logged_is_told_to_be_done(site: Path) -> None:
    (site / "state" / "audit.jsonl").symlink_to("/dev/full")
    with pytest.raises(AuditLogFullError, match=r"has changed.*as entry 2; do not change it again"):
        change_budget(site, 5.0, approved_by="me", reason="so")
    assert Ledger.existing(ledger_file(site)).budget() == 5.0
