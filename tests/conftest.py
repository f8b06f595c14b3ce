"""Shared data: a small synthetic network on disk, and made-up rows of one site."""

import dataclasses
import io
import json
import shutil
import textwrap
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from flwr.app import ConfigRecord, Error, Message, MessageType
from flwr.common.serde import context_from_proto, context_to_proto, message_to_proto
from flwr.proto.message_pb2 import Context as ContextProto
from flwr.proto.node_pb2 import NodeInfo
from numpy.typing import NDArray

from data_contracts.manifest import SiteManifest
from data_contracts.network import site_folders
from data_contracts.synthetic.generate import generate
from federation import client_app, exchange, participants, site, strategy
from federation.deployment.bundles import Bundle
from federation.enrolment import enrol
from federation.exchange import Patience
from federation.identity import REGISTRY_FILE, Registry
from federation.in_process import InProcessGrid, task_identity
from federation.ledger import Ledger, ledger_file
from federation.messages import Request
from federation.plan import RunPlan
from federation.run_state import new_run_id, state_folder
from federation.settings import PrivacySettings
from federation.strategy import TrainingResult
from models.additive_training import AdditiveSettings
from models.patients import PatientRows
from models.queries import Query
from models.tasks import TASKS

PlanMaker = Callable[..., RunPlan]


@pytest.fixture(scope="session")
def small_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 2 payers and 3 providers that know each other; leave its tables alone."""
    folder = tmp_path_factory.mktemp("small_network") / "network"
    generate(folder, preset="seed_manual", n_requests=2000, n_payers=2, n_providers=3, seed=11)
    enrol(site_folders(folder), folder / REGISTRY_FILE)
    return folder


@pytest.fixture(scope="session")
def registry(small_network: Path) -> Registry:
    return Registry.load(small_network / REGISTRY_FILE)


@pytest.fixture(scope="session")
def provider_folders(small_network: Path) -> list[Path]:
    return [folder for folder in site_folders(small_network) if folder.name.startswith("provider")]


@pytest.fixture
def private_sites(provider_folders: list[Path], tmp_path: Path) -> list[Path]:
    """The providers again, with private data and with keys and ledgers of their own."""
    files = []
    for folder in provider_folders:
        (tmp_path / folder.name).mkdir()
        manifest = dataclasses.replace(SiteManifest.load(folder), origin="private")
        files.append(manifest.write(tmp_path / folder.name))
    enrol([file.parent for file in files], tmp_path / REGISTRY_FILE)
    return files


@dataclasses.dataclass
class Coordinator:
    """Asks sites as a coordinator does, one by one.

    Attributes:
        plan: The run's plan.
        files: The sites' site.toml files.
        run: The run's identifier.
    """

    plan: RunPlan
    files: list[Path]
    run: str = dataclasses.field(default_factory=new_run_id)

    def __post_init__(self) -> None:
        offers = [site.greet(file, self.plan, self.run) for file in self.files]
        self.offers = tuple(offer for offer in offers if offer is not None)

    def request(self, query: Query, number: int = 1, **changes: object) -> Request:
        masked = self.plan.secure_sum
        present = tuple(sorted(offer.site for offer in self.offers)) if masked else ()
        request = Request(query, self.run, number, 0, present, self.offers if masked else ())
        return dataclasses.replace(request, **changes)  # type: ignore[arg-type]

    def ask(self, query: Query, number: int = 1, **changes: object) -> list[object]:
        request = self.request(query, number, **changes)
        return [site.answer(file, self.plan, request) for file in self.files]


@pytest.fixture(scope="session")
def coordinator() -> type[Coordinator]:
    return Coordinator


# --- a network on which messages get lost --------------------------------------------------------


class Clock:
    """Time that passes only while somebody sleeps: no test depends on a machine's speed."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (exchange, participants, strategy):
        monkeypatch.setattr(module, "time", clock)
    return clock


@dataclasses.dataclass(frozen=True)
class Sent:
    """A message on its way to a site.

    Attributes:
        site: Name of the site.
        step: Kind of the query, as "GramQuery"; "" in a greeting.
        round: Round of the query's step.
        retry: Number of the retry.
        copy: How often the site was sent the same before.
        at: When.
    """

    site: str
    step: str
    round: int
    retry: int
    copy: int
    at: float


@dataclasses.dataclass(frozen=True)
class Fate:
    """What becomes of a message.

    Attributes:
        arrives: How often the site gets it.
        answered: Whether the reply gets back.
        error: Code with which Flower answers in place of the site.
        seconds: Until the reply is there.
        late: The site gets it only after the next message to it.
    """

    arrives: int = 1
    answered: bool = True
    error: int | None = None
    seconds: float = 0.0
    late: bool = False


LOST = Fate(arrives=0, answered=False)
Weather = Callable[[Sent], Fate]


class FaultyGrid(InProcessGrid):
    """The product's own sites, over a network that does with messages as it is told.

    Attributes:
        weather: Tells each message's fate.
        away: Sites that are not connected.
        activated: Site -> when its node came up last.
        sent: Every message so far.
    """

    def __init__(
        self, files: Sequence[Path], plan: RunPlan, clock: Clock, weather: Weather
    ) -> None:
        nodes = [{"site": str(file)} for file in files]
        super().__init__(client_app.app, nodes, {"plan": plan.to_json()})
        self.weather, self._clock = weather, clock
        names = (file.parent.name for file in files)
        self.site_of = dict(zip(self._contexts, names, strict=True))
        self.away: set[str] = set()
        self.activated = dict.fromkeys(self.site_of.values(), "first")
        self.sent: list[Sent] = []
        self._due: dict[str, float] = {}
        self._late: dict[str, list[Message]] = {}

    def renumber(self, name: str) -> None:
        """Let a site come back as another node."""
        old = next(node for node, site in self.site_of.items() if site == name)
        context = context_from_proto(ContextProto.FromString(self._contexts.pop(old)))
        del self.site_of[old]
        self._late.pop(name, None)
        context.node_id = old ^ 1024
        self.site_of[old ^ 1024] = name
        self._contexts[old ^ 1024] = context_to_proto(context).SerializeToString()

    def get_node_ids(self) -> list[int]:
        return [node for node, name in self.site_of.items() if name not in self.away]

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(node_id=node, last_activated_at=self.activated[self.site_of[node]])
            for node in self.get_node_ids()
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        node = message.metadata.dst_node_id
        if node not in self.site_of:
            return None  # type: ignore[return-value] # as Flower does
        sent = self._note(self.site_of[node], message)
        fate = self.weather(sent)
        if sent.site in self.away or node not in self.site_of:  # from this message on
            fate = LOST
        if fate.late:
            self._late.setdefault(sent.site, []).append(message)
            return f"late {len(self.sent)}"
        if fate.error is not None:
            reply = message_to_proto(Message(Error(fate.error, "as told"), reply_to=message))
            reply.metadata.reply_to_message_id = name = f"error {len(self.sent)}"
            self._replies[name] = reply.SerializeToString()
        elif fate.arrives:
            [name] = super().push_messages([message])
            for again in [message] * (fate.arrives - 1) + self._late.pop(sent.site, []):
                [other] = super().push_messages([again])
                del self._replies[other]
        else:
            name = f"lost {len(self.sent)}"
        if not fate.answered:
            self._replies.pop(name, None)
        self._due[name] = self._clock.monotonic() + fate.seconds
        return name

    def _note(self, name: str, message: Message) -> Sent:
        step, number, retry = "", 0, 0
        if message.metadata.message_type == MessageType.TRAIN:
            asked, place = message.content["config"], message.content["place"]
            assert isinstance(asked, ConfigRecord)
            assert isinstance(place, ConfigRecord)
            step, number, retry = str(asked["query"]), int(place["round"]), int(place["retry"])  # type: ignore[arg-type]
        key = (name, step, number, retry)
        copy = sum((each.site, each.step, each.round, each.retry) == key for each in self.sent)
        self.sent.append(Sent(*key, copy, self._clock.monotonic()))
        return self.sent[-1]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        now = self._clock.monotonic()
        return list(
            super().pull_messages([each for each in message_ids if self._due.get(each, 0.0) <= now])
        )


_PATIENCE = Patience(quorum_seconds=100.0, round_seconds=100.0, poll_seconds=0.5)


@dataclasses.dataclass
class Net:
    """Four sites whose ledgers and runs are new.

    Attributes:
        files: The sites' site.toml files.
        registry: The coordinator's.
        clock: The time.
    """

    files: list[Path]
    registry: Registry
    clock: Clock
    patience: Patience = _PATIENCE

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(file.parent.name for file in self.files)

    def plan(self, *, retries: int = 3, dropouts: float = 0.5, **changes: object) -> RunPlan:
        fields: dict[str, object] = {
            "task": "approved",
            "payers": ("payer-01", "payer-02"),
            "providers": self.names,
            "sites": self.names,
            "privacy": PrivacySettings(epsilon=3.0, dropouts=dropouts, retries=retries),
            "additive": AdditiveSettings(gradient_rounds=1, max_knots=4),
            "split_key": "test",
            "test_share": 0.25,
            "contracts": TASKS["approved"].contracts,
            "noise_seed": 5,
        }
        return RunPlan(**(fields | changes))  # type: ignore[arg-type]

    def grid(self, plan: RunPlan, weather: Weather = lambda sent: Fate()) -> FaultyGrid:
        return FaultyGrid(self.files, plan, self.clock, weather)

    def run(self, grid: FaultyGrid, plan: RunPlan, **options: object) -> TrainingResult:
        given = {"registry": self.registry, "patience": self.patience} | options
        with task_identity():
            return strategy.run(grid, plan, **given)  # type: ignore[arg-type]

    def charges(self, run: str) -> dict[str, list[str]]:
        """Each site's releases of a run, in order."""
        books = {
            file.parent.name: Ledger.existing(ledger_file(file.parent))
            for file in self.files
            if ledger_file(file.parent).exists()
        }
        return {
            name: [f"{each.step} {each.round}" for _, each in book.charges() if each.run == run]
            for name, book in books.items()
        }


@pytest.fixture(scope="session")
def tiny_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny_network") / "network"
    generate(folder, preset="seed_manual", n_requests=400, n_payers=2, n_providers=4, seed=3)
    return folder


@pytest.fixture
def net(tiny_network: Path, clock: Clock) -> Net:
    folders = [each for each in site_folders(tiny_network) if each.name.startswith("provider")]
    for folder in folders:
        shutil.rmtree(state_folder(folder / "site.toml"), ignore_errors=True)
    registry = Registry.load(enrol(folders, tiny_network / REGISTRY_FILE))
    return Net([folder / "site.toml" for folder in folders], registry, clock)


@pytest.fixture(scope="session")
def fate() -> type[Fate]:
    return Fate


@pytest.fixture(scope="session")
def frames(provider_folders: list[Path]) -> dict[str, pl.DataFrame]:
    """The first rows of a provider's tables; no list is empty, as CSV knows no empty list."""
    manifest = SiteManifest.load(provider_folders[0])
    tables = {name: pl.read_parquet(path / "*.parquet") for name, path in manifest.tables.items()}
    lists = pl.selectors.list()
    filled = pl.when(lists.list.len() > 0).then(lists)
    return {name: table.head(25).with_columns(filled) for name, table in tables.items()}


@pytest.fixture(scope="session")
def texts(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The same rows as CSV files hold them: lists with bars, structures as JSON."""
    return {name: frame.select(_text(column) for column in frame) for name, frame in frames.items()}


def _text(column: pl.Series) -> pl.Series:
    if not isinstance(column.dtype, pl.List):
        return column.cast(pl.String)
    if isinstance(column.dtype.inner, pl.Struct):
        cells = [None if cell is None else json.dumps(cell) for cell in column.to_list()]
        return pl.Series(column.name, cells, dtype=pl.String)
    return column.cast(pl.List(pl.String)).list.join("|")


@pytest.fixture(scope="session")
def make_plan(small_network: Path, provider_folders: list[Path]) -> PlanMaker:
    """A plan over the small network; keyword arguments replace its fields."""
    payers = [folder.name for folder in site_folders(small_network) if "payer" in folder.name]
    names = tuple(folder.name for folder in provider_folders)

    def make(**changes: object) -> RunPlan:
        fields: dict[str, object] = {
            "task": "approved",
            "payers": tuple(payers),
            "providers": names,
            "sites": names,
            "privacy": PrivacySettings(epsilon=3.0),
            "additive": AdditiveSettings(gradient_rounds=3, max_knots=4),
            "split_key": "test",
            "test_share": 0.25,
            "contracts": TASKS[str(changes.get("task", "approved"))].contracts,
            "noise_seed": 5,
        }
        return RunPlan(**(fields | changes))  # type: ignore[arg-type]

    return make


def patient_rows(
    codes: NDArray[np.int_],
    labels: NDArray[np.float64],
    patients: NDArray[np.int_] | None = None,
    *,
    max_records: int = 4,
) -> PatientRows:
    """Rows whose patients are numbered in ascending order, each with max_records rows at most."""
    n = labels.size
    patients = np.arange(n) if patients is None else patients
    starts = np.flatnonzero(np.diff(patients, prepend=-1))
    counts = np.diff(starts, append=n)
    assert counts.max(initial=0) <= max_records
    return PatientRows(
        codes=np.asfortranarray(codes.astype(np.uint8)),
        labels=labels.astype(np.float64),
        starts=starts,
        weights=np.repeat(1.0 / counts, counts),
        max_records=max_records,
    )


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., PatientRows]:
    return patient_rows


_APP = """
import os, signal, subprocess, sys, time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

def said(message, **values):
    return Message(RecordDict({"config": ConfigRecord(values)}), reply_to=message)

@app.query()
@app.train()
def answer(message, context):
"""


def archive(files: Mapping[str, bytes | str]) -> bytes:
    """A zip archive with these files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


def app_bundle(answer: str = "return said(message)", **files: str) -> Bundle:
    """An app bundle that answers every message by these lines of Python."""
    body = textwrap.indent(textwrap.dedent(answer).strip(), "    ")
    content = {
        "pyproject.toml": "[project]\nname = 'made-for-a-test'\n",
        "federation/__init__.py": "",
        "federation/client_app.py": f"{_APP}{body}\n",
    }
    return Bundle.read(archive(content | files))


@pytest.fixture(scope="session")
def archive_of() -> Callable[[Mapping[str, bytes | str]], bytes]:
    return archive


@pytest.fixture(scope="session")
def bundle_of() -> Callable[..., Bundle]:
    return app_bundle
