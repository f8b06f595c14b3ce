"""The engine within one process: the product's own apps over bytes, as anywhere else."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from data_contracts.manifest import SiteManifest
from federation import client_app, server_app
from federation.identity import REGISTRY_FILE
from federation.in_process import InProcessGrid, run_in_process
from federation.ledger import ledger_file
from federation.plan import RunPlan
from federation.results import RunFailedError, read_result
from federation.settings import PrivacySettings
from federation.strategy import SiteFailureError

PlanMaker = Callable[..., RunPlan]


def registry_beside(file: Path) -> Path:
    """The coordinator's registry: in the folder of the sites, or above it."""
    folders = file.parents[1], file.parents[2]
    return next(folder / REGISTRY_FILE for folder in folders if (folder / REGISTRY_FILE).exists())


def run(plan: RunPlan, files: list[Path], result: Path) -> None:
    config: dict[str, bool | float | int | str] = {
        "plan": plan.to_json(),
        "result": str(result),
        "registry": str(registry_beside(files[0])),
        "timeout": 30.0,
    }
    nodes = [{"site": str(file)} for file in files]
    run_in_process(server_app.app, client_app.app, nodes, config)


@pytest.fixture
def files(provider_folders: list[Path]) -> list[Path]:
    return [folder / "site.toml" for folder in provider_folders]


# --- the product's apps ------------------------------------------------------------------------


def test_the_products_apps_train_a_model_and_leave_it_in_the_result_file(
    make_plan: PlanMaker, files: list[Path], tmp_path: Path
) -> None:
    plan = make_plan()
    run(plan, files, tmp_path / "new" / "result.json")
    result = read_result(tmp_path / "new" / "result.json")
    assert result.model.features == tuple(feature.name for feature in plan.features())
    assert len(result.rounds) == sum(step.rounds for step in plan.steps.values())
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["result.json"]


def test_the_same_seed_twice_gives_the_same_model_bit_for_bit(
    make_plan: PlanMaker, files: list[Path], tmp_path: Path
) -> None:
    models = []
    for name in ("first", "second"):
        run(make_plan(), files, tmp_path / name)
        models.append(read_result(tmp_path / name).model.to_json())
    assert models[0] == models[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise_seed": 1}, "provider-02 refuses reproducible noise"),
        (
            {"noise_seed": None, "privacy": PrivacySettings(epsilon=None)},
            "provider-02 refuses to train without privacy",
        ),
    ],
)
def test_one_private_site_stops_a_run_that_would_not_protect_it_before_a_row_is_read(
    make_plan: PlanMaker,
    files: list[Path],
    tmp_path: Path,
    changes: dict[str, object],
    words: str,
) -> None:
    private = dataclasses.replace(SiteManifest.load(files[1]), origin="private", tables={
        "pa_request": tmp_path / "never-read.parquet"})  # fmt: skip
    (tmp_path / "site").mkdir()
    files[1] = private.write(tmp_path / "site")
    with pytest.raises(SiteFailureError, match=words):
        run(make_plan(**changes), files, tmp_path / "result.json")
    with pytest.raises(SiteFailureError, match=words):
        read_result(tmp_path / "result.json")


def test_the_coordinator_names_the_sites_whose_contracts_do_not_fit_and_the_versions(
    make_plan: PlanMaker, files: list[Path], tmp_path: Path
) -> None:
    held = make_plan().contracts
    plan = make_plan(contracts={**held, "clinical_outcome": "99.0.0"})
    with pytest.raises(SiteFailureError) as told:
        run(plan, files, tmp_path / "result.json")
    for name in plan.sites:
        assert f"site {name} holds other data contracts" in str(told.value)
    versions = f"clinical_outcome is {held['clinical_outcome']} and the plan is made for 99.0.0"
    assert versions in str(told.value)


def test_a_site_that_cannot_read_its_tables_is_named_with_the_reason(
    make_plan: PlanMaker, private_sites: list[Path], tmp_path: Path
) -> None:
    manifests = [
        dataclasses.replace(SiteManifest.load(file), origin="synthetic") for file in private_sites
    ]
    manifests[1] = dataclasses.replace(manifests[1], tables={"pa_request": tmp_path / "x"})
    files = [
        manifest.write(file.parent) for manifest, file in zip(manifests, private_sites, strict=True)
    ]
    with pytest.raises(SiteFailureError, match=r"^provider-02: .*no such file"):
        run(make_plan(), files, tmp_path / "result.json")


def test_a_result_that_is_not_there_is_a_failed_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="left no result"):
        read_result(tmp_path / "nothing.json")


# --- the engine --------------------------------------------------------------------------------


def echo() -> ClientApp:
    """Sends back what it got and how often it was asked."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen = context.state.setdefault("seen", ConfigRecord({"n": 0}))
        assert isinstance(seen, ConfigRecord)
        seen["n"] = int(seen["n"]) + 1  # type: ignore[arg-type]
        if "fail" in message.content:
            raise ValueError("as told")
        content = RecordDict({**message.content, "seen": seen})
        message.content["arrays"] = ArrayRecord({})  # must not reach the sender
        return Message(content, reply_to=message)

    return app


def on_grid(call: Callable[[Grid], None], n: int = 3) -> None:
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        call(grid)

    run_in_process(server, echo(), [{"number": number} for number in range(n)], {})


def ask(grid: Grid, content: RecordDict) -> list[Message]:
    messages = [
        Message(content, dst_node_id=node, message_type=MessageType.TRAIN)
        for node in grid.get_node_ids()
    ]
    return list(grid.send_and_receive(messages))


def count(reply: Message) -> object:
    seen = reply.content["seen"]
    assert isinstance(seen, ConfigRecord)
    return seen["n"]


def test_arrays_cross_bit_for_bit_and_nothing_is_shared() -> None:
    values = np.array([0.1, -0.0, 5e-324, np.inf])

    def call(grid: Grid) -> None:
        content = RecordDict({"arrays": ArrayRecord({"v": Array(values)})})
        replies = ask(grid, content)
        assert len(replies) == 3
        for reply in replies:
            record = reply.content["arrays"]
            assert isinstance(record, ArrayRecord)
            assert record["v"].numpy().tobytes() == values.tobytes()
        assert list(content["arrays"]) == ["v"]

    on_grid(call)


def test_every_node_keeps_a_state_of_its_own_and_a_failure_does_not_change_it() -> None:
    def call(grid: Grid) -> None:
        assert [count(reply) for reply in ask(grid, RecordDict({}))] == [1, 1, 1]
        failed = ask(grid, RecordDict({"fail": ConfigRecord({})}))
        assert all(reply.has_error() for reply in failed)
        assert all("as told" in (reply.error.reason or "") for reply in failed)
        assert [count(reply) for reply in ask(grid, RecordDict({}))] == [2, 2, 2]

    on_grid(call)


def test_replies_come_from_the_nodes_that_were_asked() -> None:
    def call(grid: Grid) -> None:
        nodes = list(grid.get_node_ids())
        assert len(set(nodes)) == 3
        replies = ask(grid, RecordDict({}))
        assert [reply.metadata.src_node_id for reply in replies] == nodes
        assert list(grid.pull_messages(["no such message"])) == []

    on_grid(call)


def test_a_message_to_nobody_is_an_error() -> None:
    def call(grid: Grid) -> None:
        message = Message(RecordDict({}), dst_node_id=12345, message_type=MessageType.TRAIN)
        with pytest.raises(ValueError, match="12345"):
            grid.push_messages([message])

    on_grid(call)


def test_an_exception_of_the_coordinator_comes_straight_through() -> None:
    def call(grid: Grid) -> None:
        raise KeyError("coordinator")

    with pytest.raises(KeyError, match="coordinator"):
        on_grid(call)
    on_grid(lambda grid: None)  # and leaves the process fit for another run


def test_a_grid_without_sites_has_no_nodes() -> None:
    assert list(InProcessGrid(echo(), [], {}).get_node_ids()) == []


# --- what is not said -----------------------------------------------------------------------------


def failure(plan: RunPlan, files: list[Path], result: Path) -> str:
    with pytest.raises(SiteFailureError) as caught:
        run(plan, files, result)
    assert read_failure(result) == str(caught.value)
    return str(caught.value)


def read_failure(result: Path) -> str:
    with pytest.raises(SiteFailureError) as caught:
        read_result(result)
    return str(caught.value)


def test_why_a_private_site_cannot_answer_stays_at_the_site(
    make_plan: PlanMaker, private_sites: list[Path], tmp_path: Path
) -> None:
    broken = dataclasses.replace(
        SiteManifest.load(private_sites[1]), tables={"pa_request": tmp_path / "secret.parquet"}
    )
    broken.write(private_sites[1].parent)
    told = failure(make_plan(noise_seed=None), private_sites, tmp_path / "result.json")
    assert "site provider-02 could not answer; the reason is in its own log" in told
    assert not any(word in told for word in ("secret", "parquet", str(tmp_path)))


def test_why_a_private_site_cannot_take_part_stays_at_the_site(
    make_plan: PlanMaker, private_sites: list[Path], tmp_path: Path
) -> None:
    ledger = ledger_file(private_sites[1].parent)
    ledger.parent.mkdir(exist_ok=True)
    ledger.write_bytes(b"not a ledger" * 1000)
    told = failure(make_plan(noise_seed=None), private_sites, tmp_path / "result.json")
    assert "site provider-02 could not answer; the reason is in its own log" in told
    assert not any(word in told for word in ("ledger", "damaged", str(tmp_path)))


def test_what_a_site_has_left_is_not_told_with_its_refusal(
    make_plan: PlanMaker, private_sites: list[Path], tmp_path: Path
) -> None:
    poor = dataclasses.replace(SiteManifest.load(private_sites[1]), budget_epsilon=2.875)
    poor.write(private_sites[1].parent)
    told = failure(make_plan(noise_seed=None), private_sites, tmp_path / "result.json")
    assert "privacy budget of site provider-02 cannot pay" in told
    assert "2.8" not in told
