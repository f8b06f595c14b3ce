"""Shared data: a small synthetic network on disk, and made-up rows of one site."""

import dataclasses
import io
import json
import textwrap
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from data_contracts.manifest import SiteManifest
from data_contracts.network import site_folders
from data_contracts.synthetic.generate import generate
from federation import site
from federation.deployment.bundles import Bundle
from federation.enrolment import enrol
from federation.identity import REGISTRY_FILE, Registry
from federation.messages import Request
from federation.plan import RunPlan
from federation.run_state import new_run_id
from federation.settings import PrivacySettings
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
