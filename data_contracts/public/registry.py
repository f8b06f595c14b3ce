"""PUBLIC: every public data set by name, with where it comes from and how it becomes a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from data_contracts.fields import Role
from data_contracts.network import Network
from data_contracts.public import ca_dmhc_imr, uci_diabetes_130, uci_heart_disease
from data_contracts.public.sources import (
    CA_DMHC_IMR,
    UCI_DIABETES_130,
    UCI_HEART_DISEASE,
    Source,
)


class Build(Protocol):
    """Turns a folder of raw files into a network's folder."""

    def __call__(self, source: Path, out: Path, *, seed: int) -> Network:
        """See `build` of each data set."""
        ...


@dataclass(frozen=True, slots=True)
class PublicDataset:
    """A public data set, and what is known of its network without opening a file.

    Attributes:
        source: What it is, and where it comes from.
        build: Its loader.
        role: Role of all its sites.
        sites: Their names, as the pinned edition gives them.
        tables: Contract tables that each of them holds.
        patients: Patients of the pinned edition, before any exclusion.
    """

    source: Source
    build: Build
    role: Role
    sites: tuple[str, ...]
    tables: tuple[str, ...]
    patients: int


_PAYERS = ("bc", "cm", "cp", "hm", "mc", "md", "og", "small", "sp", "un", "unknown")


PUBLIC: Final = {
    dataset.source.name: dataset
    for dataset in (
        PublicDataset(
            UCI_DIABETES_130,
            uci_diabetes_130.build,
            role="payer",
            sites=tuple(f"payer-{code}" for code in _PAYERS),
            tables=("hospital_encounter", "clinical_outcome"),
            # Different values of patient_nbr.
            patients=71_518,
        ),
        PublicDataset(
            CA_DMHC_IMR,
            ca_dmhc_imr.build,
            role="payer",
            sites=tuple(sorted(ca_dmhc_imr.TREATMENT_GROUPS)),
            tables=("imr_determination",),
            # The source names no patient: every review counts as its own.
            patients=CA_DMHC_IMR.rows,
        ),
        PublicDataset(
            UCI_HEART_DISEASE,
            uci_heart_disease.build,
            role="provider",
            sites=tuple(sorted(uci_heart_disease.SITES.values())),
            tables=("cardiac_exam",),
            patients=UCI_HEART_DISEASE.rows,
        ),
    )
}
