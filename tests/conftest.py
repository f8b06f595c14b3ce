"""Shared data: a small synthetic network on disk, and made-up rows of one site."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_contracts.network import site_folders
from data_contracts.synthetic.generate import generate
from federation.plan import RunPlan
from federation.settings import PrivacySettings
from models.additive_training import AdditiveSettings
from models.patients import PatientRows

PlanMaker = Callable[..., RunPlan]


@pytest.fixture(scope="session")
def small_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 2 payers and 3 providers; read it, never write to it."""
    folder = tmp_path_factory.mktemp("small_network") / "network"
    generate(folder, preset="seed_manual", n_requests=2000, n_payers=2, n_providers=3, seed=11)
    return folder


@pytest.fixture(scope="session")
def provider_folders(small_network: Path) -> list[Path]:
    return [folder for folder in site_folders(small_network) if folder.name.startswith("provider")]


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
