"""The site's executor: real messages, real app processes; what is not approved never starts."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run

from data_contracts.manifest import SiteManifest
from federation import client_app, server_app
from federation.deployment.audit_log import AUDIT_FILE, show, verify
from federation.deployment.bundles import Bundle, installed_bundle
from federation.deployment.consent import Consent
from federation.deployment.executor import Executor
from federation.deployment.runtime import Runtime, Task
from federation.identity import REGISTRY_FILE
from federation.in_process import InProcessGrid, run_in_process, task_identity
from federation.ledger import ledger_file
from federation.messages import encode_request
from federation.plan import RunPlan
from federation.results import read_result
from federation.run_state import new_run_id
from federation.settings import PrivacySettings
from models.queries import HistogramQuery

PlanMaker = Callable[..., RunPlan]
BundleMaker = Callable[..., Bundle]
NOWHERE = Runtime("127.0.0.1:1", b"the secret that starts apps")
RUN = new_run_id()
HELLO = RecordDict({"config": ConfigRecord({"run": RUN})})


@pytest.fixture
def file(private_sites: list[Path]) -> Path:
    """The site.toml of a private site."""
    return private_sites[0]


@pytest.fixture
def plan(make_plan: PlanMaker) -> RunPlan:
    return make_plan(noise_seed=None)


@pytest.fixture
def executor(file: Path) -> Iterator[Executor]:
    with Executor(file, NOWHERE) as made:
        yield made


def approve(file: Path, bundle: Bundle) -> bytes:
    consent = Consent(file)
    consent.decide(consent.add(bundle).sha256, "approved")
    return bundle.content


def asked(
    executor: Executor,
    content: bytes,
    plan: RunPlan | str | int | None,
    kind: str = MessageType.QUERY,
    records: RecordDict = HELLO,
) -> Message:
    """The executor's reply to one message, which crosses as bytes both ways."""
    text = plan.to_json() if isinstance(plan, RunPlan) else plan
    config = {} if text is None else {"plan": text}

    def app(*, message: Message, context: Context) -> Message:
        return executor.reply(message, context, content)

    grid = InProcessGrid(app, [{}], config)  # type: ignore[arg-type] # called as an app is
    with task_identity():
        (node,) = grid.get_node_ids()
        message = Message(records, dst_node_id=node, message_type=kind)
        (reply,) = grid.send_and_receive([message])
    return reply


def said(reply: Message) -> ConfigRecord:
    assert not reply.has_error(), reply.error
    record = reply.content["config"]
    assert isinstance(record, ConfigRecord)
    return record


def log_of(file: Path) -> list[dict[str, object]]:
    log = file.parent / "state" / AUDIT_FILE
    verify(log)
    return list(show(log))


def events(file: Path) -> list[object]:
    return [entry["event"] for entry in log_of(file)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


# --- what may run ---------------------------------------------------------------------------------


def test_an_app_that_nobody_approved_never_starts_and_the_coordinator_is_told(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker, tmp_path: Path
) -> None:
    bundle = bundle_of(f"Path({str(tmp_path / 'ran')!r}).touch()\nreturn said(message)")
    told = said(asked(executor, bundle.content, plan))
    assert (told["site"], told["role"]) == ("provider-01", "provider")
    assert str(told["refusal"]).startswith("refused by policy: site provider-01 runs only app")
    assert bundle.sha256 in str(told["refusal"])
    failed = asked(executor, bundle.content, plan, MessageType.TRAIN)
    assert failed.error.code == ErrorCode.MOD_FAILED_PRECONDITION
    assert "SitePolicyError" in str(failed.error.reason)
    assert "was not approved yet" in str(failed.error.reason)
    assert executor._app is None
    assert not (tmp_path / "ran").exists()
    assert events(file) == ["app offered", *2 * ["request refused by policy"]]
    assert (log_of(file)[1]["app"], log_of(file)[1]["run"]) == (bundle.sha256, RUN)


def test_what_was_rejected_after_its_approval_runs_no_more(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    bundle = bundle_of()
    content = approve(file, bundle)
    assert not asked(executor, content, plan).has_error()
    Consent(file).decide(bundle.sha256, "rejected")
    assert "was rejected" in str(said(asked(executor, content, plan))["refusal"])


def test_what_was_not_sent_cannot_be_put_in_place_of_what_was_approved(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    good, evil = bundle_of("return said(message, ran='good')"), bundle_of("return said(1/0)")
    content = approve(file, good)
    stored = file.parent / "state" / "bundles" / f"{good.sha256}.fab"
    stored.write_bytes(evil.content)
    assert said(asked(executor, content, plan))["ran"] == "good"
    assert stored.read_bytes() == content  # put right, too
    assert "not approved" in str(said(asked(executor, evil.content, plan))["refusal"])


def test_approved_apps_answer_as_they_do_in_one_process(
    make_plan: PlanMaker, provider_folders: list[Path], registry: object, tmp_path: Path
) -> None:
    files = []
    for folder in provider_folders:
        (tmp_path / folder.name).mkdir()
        files.append(SiteManifest.load(folder).write(tmp_path / folder.name))
    plan = make_plan(privacy=PrivacySettings(epsilon=None), noise_seed=None)
    bundle = installed_bundle()
    executors = {str(file): Executor(file, NOWHERE) for file in files}
    for file in files:
        approve(file, bundle)

    def through_executors(*, message: Message, context: Context) -> Message:
        site = str(context.node_config["site"])
        return executors[site].reply(message, context, bundle.content)

    models = []
    try:
        for name, app in (("plain", client_app.app), ("executors", through_executors)):
            config: dict[str, bool | float | int | str] = {
                "plan": plan.to_json(),
                "result": str(tmp_path / name),
                "registry": str(provider_folders[0].parents[1] / REGISTRY_FILE),
                "timeout": 120.0,
            }
            nodes = [{"site": str(file)} for file in files]
            run_in_process(server_app.app, app, nodes, config)  # type: ignore[arg-type]
            models.append(read_result(tmp_path / name).model.to_json())
    finally:
        for executor in executors.values():
            executor._end_app()
    assert models[0] == models[1]
    rounds = sum(step.rounds for step in plan.steps.values())
    for file in files:
        answered = log_of(file)[1:]
        assert [entry["event"] for entry in answered] == (1 + rounds) * ["request answered"]
        assert {(entry["app"], entry["plan"]) for entry in answered} == {
            (bundle.sha256, plan.digest)
        }
        assert [entry["round"] for entry in answered if entry.get("step") == "gradient"] == [
            1,
            2,
            3,
        ]


# --- the site's policy ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "changes", "words"),
    [
        ({}, {"privacy": PrivacySettings(epsilon=50.0)}, "allows max_epsilon"),
        ({}, {"privacy": PrivacySettings(epsilon=None)}, "refuses to train without privacy"),
        ({"min_sites": 4}, {}, "4 sites or more .* the plan names 3"),
        (
            {"min_sites": 3},
            {"privacy": PrivacySettings(epsilon=3.0, dropouts=0.34)},
            "names 3 and does with 2",
        ),
        (
            {"min_sites": 5},
            {"sites": ("provider-01", *(f"made-up-{number}" for number in range(9)))},
            "9 sites whose keys site provider-01 has not pinned",
        ),
        ({}, {"privacy": PrivacySettings(epsilon=3.0, secure_sum=False)}, "only sums that are"),
        ({"min_patients": 1000}, {}, "1,000 declared patients or more"),
        ({"tasks": ("readmission_30d",)}, {}, "takes part in readmission_30d"),
        ({}, {"noise_seed": 7}, "draws its noise itself"),
        ({}, {"sites": ("provider-02", "provider-03")}, "is not asked to train by the plan"),
    ],
)
def test_a_plan_beyond_the_sites_policy_is_refused_before_any_code_runs(
    executor: Executor,
    file: Path,
    make_plan: PlanMaker,
    policy: dict[str, object],
    changes: dict[str, object],
    words: str,
) -> None:
    dataclasses.replace(SiteManifest.load(file), **policy).write(file.parent)  # type: ignore[arg-type]
    content = approve(file, installed_bundle())
    plan = make_plan(**{"noise_seed": None} | changes)
    refusal = str(said(asked(executor, content, plan))["refusal"])
    assert refusal.startswith("refused by policy: ")
    assert re.search(words, refusal)
    failed = asked(executor, content, plan, MessageType.TRAIN)
    assert re.search(words, str(failed.error.reason))
    assert executor._app is None
    assert not ledger_file(file.parent).exists()
    last = log_of(file)[-1]
    assert (last["event"], last["plan"]) == ("request refused by policy", plan.digest)


@pytest.mark.parametrize(
    "plan",
    [None, 5, 1.5, True, "", "no plan", "[]", "null", "5", "1e999", "[" * 100_000, "x" * 200_001],
    ids=lambda plan: str(plan)[:8],
)
def test_a_run_without_a_plan_that_can_be_read_is_refused(
    executor: Executor, file: Path, plan: str | int | None
) -> None:
    content = approve(file, installed_bundle())
    assert "refused by policy: " in str(said(asked(executor, content, plan))["refusal"])
    failed = asked(executor, content, plan, MessageType.TRAIN)
    assert "refused by policy: " in str(failed.error.reason)
    assert executor._app is None


# --- apps that do not do what they should ---------------------------------------------------------


def test_what_an_app_prints_stays_out_of_its_replies(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    content = approve(
        file,
        bundle_of(
            """
            print("to Python's output", flush=True)
            os.write(1, b"to the process's output")
            subprocess.run(["echo", "from a program"], check=True)
            return said(message, done=True)
            """
        ),
    )
    assert said(asked(executor, content, plan))["done"] is True


@pytest.mark.parametrize(
    "ends",
    [
        "sys.exit(0)",
        "os._exit(3)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "return 'no message'",
        "os.write(replies(), bytes([255]) * 8)",  # a length
        "os.write(replies(), bytes(7) + bytes([4]) + bytes([255]) * 4)",  # a message of four bytes
    ],
)
def test_an_app_that_ends_or_talks_nonsense_fails_and_the_next_message_gets_a_new_one(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker, ends: str
) -> None:
    code = f"""
def is_pipe(fd):
    link = f"/proc/self/fd/{{fd}}"
    return os.path.exists(link) and "pipe:" in os.readlink(link)
def replies():
    return max(int(fd) for fd in os.listdir("/proc/self/fd") if is_pipe(fd))
if "run" not in message.content["config"]:
    {ends}
return said(message, pid=os.getpid())
"""
    content = approve(file, bundle_of(code))
    before = said(asked(executor, content, plan))["pid"]
    failed = asked(executor, content, plan, records=RecordDict({"config": ConfigRecord({})}))
    assert failed.error.code == ErrorCode.CLIENT_APP_CRASHED
    told = "site provider-01 could not answer; the reason is in its own log"
    assert failed.error.reason == told
    after = said(asked(executor, content, plan))["pid"]
    assert after != before
    assert gone(int(str(before)))
    assert events(file)[1:] == ["request answered", "request failed", "request answered"]


def test_an_app_that_hangs_is_ended_with_all_that_it_has_started(
    file: Path, plan: RunPlan, bundle_of: BundleMaker, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    content = approve(
        file,
        bundle_of(
            f"""
            other = subprocess.Popen(["sleep", "600"])
            Path({str(pids)!r}).write_text(f"{{os.getpid()}} {{other.pid}}")
            time.sleep(600)
            """
        ),
    )
    with Executor(file, NOWHERE, longest_answer=8.0) as executor:
        start = time.monotonic()
        failed = asked(executor, content, plan)
        assert time.monotonic() - start < 60
    assert failed.error.code == ErrorCode.CLIENT_APP_CRASHED
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_of_an_unexpected_failure_the_coordinator_is_told_its_class_alone(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    content = approve(file, bundle_of("raise ValueError('patient 4711 has code 9')"))
    failed = asked(executor, content, plan, MessageType.TRAIN)
    assert failed.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "ValueError" in str(failed.error.reason)
    assert "could not answer; the reason is in its own log" in str(failed.error.reason)
    assert "4711" not in str(failed.error.reason)
    assert events(file)[-1] == "request failed"


def test_a_bundle_without_an_app_is_not_given_the_installed_one(
    executor: Executor, file: Path, plan: RunPlan, archive_of: Callable[..., bytes]
) -> None:
    content = approve(file, Bundle.read(archive_of({"pyproject.toml": ""})))
    failed = asked(executor, content, plan)
    assert failed.error.code == ErrorCode.CLIENT_APP_CRASHED


def test_an_app_reaches_no_secret_by_its_environment_its_arguments_or_its_open_files(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    content = approve(
        file,
        bundle_of(
            """
            names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                     if Path(f"/proc/self/fd/{fd}").exists()]
            return said(message, arguments=Path("/proc/self/cmdline").read_bytes(),
                        environment=Path("/proc/self/environ").read_bytes(), files=names)
            """
        ),
    )
    seen = said(asked(executor, content, plan))
    given = bytes(seen["arguments"]) + bytes(seen["environment"])  # type: ignore[arg-type]
    assert b"app_process.py" in given
    assert NOWHERE.secret not in given
    assert b"runtime.secret" not in given
    assert not any("state" in str(name) for name in list(seen["files"]))  # type: ignore[arg-type]


def test_whom_a_reply_is_for_is_not_the_apps_to_say(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    code = "reply = said(message)\nreply.metadata.__dict__['_dst_node_id'] = 7\nreturn reply"
    reply = asked(executor, approve(file, bundle_of(code)), plan)
    assert reply.metadata.dst_node_id != 7


# --- its process ----------------------------------------------------------------------------------


def test_one_process_answers_many_messages_and_is_ended_when_nobody_asks(
    file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    content = approve(file, bundle_of("return said(message, pid=os.getpid(), folder=os.getcwd())"))
    with Executor(file, NOWHERE, idle=0.5) as executor:
        first, second = (said(asked(executor, content, plan)) for _ in range(2))
        assert first["pid"] == second["pid"]
        executor.end_idle()
        assert alive(int(str(first["pid"])))
        time.sleep(0.6)
        executor.end_idle()
        assert gone(int(str(first["pid"])))
        assert not Path(str(first["folder"])).exists()


def test_a_process_outlives_the_thread_that_has_started_it(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    content = approve(file, bundle_of("return said(message, pid=os.getpid())"))
    pids = []

    def ask() -> None:
        pids.append(said(asked(executor, content, plan))["pid"])

    for _ in range(2):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        time.sleep(1)
    assert len(pids) == 2
    assert len(set(pids)) == 1


def test_an_app_process_dies_with_its_executor_in_the_middle_of_an_answer(
    file: Path, plan: RunPlan, bundle_of: BundleMaker, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    bundle = bundle_of(f"Path({str(pid_file)!r}).write_text(str(os.getpid()))\ntime.sleep(600)")
    (tmp_path / "bundle.fab").write_bytes(bundle.content)
    code = """
import sys
from pathlib import Path
from flwr.app import Context, Message, RecordDict
from federation.deployment.app import App
from federation.deployment.bundles import Bundle
from federation.in_process import task_identity
app = App(Bundle.read(Path(sys.argv[1]).read_bytes()), 600.0)
context = Context(1, 1, {}, RecordDict(), {})
with task_identity():
    app.answer(Message(RecordDict(), dst_node_id=1, message_type="train"), context)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "bundle.fab")]
    parent = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        end = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < end:
            time.sleep(0.1)
        pid = int(pid_file.read_text())
        assert alive(pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert gone(pid)


# --- the audit log --------------------------------------------------------------------------------


def test_a_request_that_cannot_be_logged_is_not_answered(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    content = approve(file, bundle_of("return said(message, secret=True)"))
    with (file.parent / "state" / AUDIT_FILE).open("ab") as log:
        log.write(b"not an entry\n")
    for bundle in (content, bundle_of("return said(message, other=True)").content):
        for kind in (MessageType.QUERY, MessageType.TRAIN):
            failed = asked(executor, bundle, plan, kind)
            told = "site provider-01 could not answer; the reason is in its own log"
            assert failed.error.reason == told


def test_decisions_that_cannot_be_read_are_no_approval_and_are_named_at_the_site_alone(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    content = approve(file, bundle_of())
    (file.parent / "state" / "bundles" / "consent.json").write_text("[{")
    failed = asked(executor, content, plan)
    assert "could not answer" in str(failed.error.reason)
    assert "consent" not in str(failed.error.reason)
    assert executor._app is None


def test_an_entry_names_the_step_and_the_round_and_no_value(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker, coordinator: type
) -> None:
    content = approve(file, bundle_of("return said(message, secret=4711.25)"))
    request = encode_request(
        coordinator(plan, []).request(HistogramQuery(np.array([3, 5])), number=3)
    )
    asked(executor, content, plan, MessageType.TRAIN, request)
    entry = log_of(file)[-1]
    assert (entry["step"], entry["round"], entry["task"]) == ("histogram", 3, "approved")
    assert "4711" not in json.dumps(entry)


@pytest.mark.parametrize("run", ["", "no run", "0" * 31, 5, b"0" * 32, ["0" * 32]])
def test_a_request_without_a_run_is_not_answered(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker, run: object
) -> None:
    content = approve(file, bundle_of())
    records = RecordDict({"config": ConfigRecord({"run": run})})  # type: ignore[dict-item]
    assert asked(executor, content, plan, records=records).has_error()


def test_a_refusal_by_the_app_itself_is_logged_as_one_without_its_words(
    executor: Executor, file: Path, plan: RunPlan, bundle_of: BundleMaker
) -> None:
    content = approve(file, bundle_of("return said(message, refusal='because of patient 4711')"))
    assert "4711" in str(said(asked(executor, content, plan))["refusal"])
    entry = log_of(file)[-1]
    assert entry["event"] == "request refused by policy"
    assert "4711" not in json.dumps(entry)


def test_private_sites_answer_a_whole_run_by_one_process_each(
    private_sites: list[Path], plan: RunPlan, tmp_path: Path
) -> None:
    bundle = installed_bundle()
    executors = {str(file): Executor(file, NOWHERE) for file in private_sites}
    for file in private_sites:
        approve(file, bundle)

    def app(*, message: Message, context: Context) -> Message:
        site = str(context.node_config["site"])
        return executors[site].reply(message, context, bundle.content)

    config: dict[str, bool | float | int | str] = {
        "plan": plan.to_json(),
        "result": str(tmp_path / "result"),
        "registry": str(tmp_path / REGISTRY_FILE),
        "timeout": 120.0,
    }
    nodes = [{"site": str(file)} for file in private_sites]
    try:
        run_in_process(server_app.app, app, nodes, config)  # type: ignore[arg-type] # called as one
    finally:
        for executor in executors.values():
            executor._end_app()
    for file in private_sites:
        assert "request failed" not in events(file)


# --- what comes that is no message ----------------------------------------------------------------


class Garbled(Task):
    """A task whose message is another object: Flower's own reader then raises this."""

    def pull(self) -> tuple[Context, Run, Fab]:
        return Context(1, 1, {}, RecordDict(), {}), Run.create_empty(1), Fab("", b"", {})

    def pull_message(self, context: Context) -> Message:
        parts = {HELLO.object_id: HELLO.deflate()}
        parts |= {each.object_id: each.deflate() for each in HELLO.values()}
        found = inflate_object_from_contents(HELLO.object_id, parts)
        raise TypeError(f"Expected object of type Message, but got {type(found).__name__}.")


def test_what_is_no_message_is_given_up_and_holds_up_no_later_one(executor: Executor) -> None:
    """Flower waits for as long as it is told that somebody is at work."""
    task = Garbled(NOWHERE, "token", 1, 1)
    executor._fetch(task)
    assert not task._heart.is_alive()
    assert executor._here.empty()
