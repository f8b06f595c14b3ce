"""PUBLIC: every public data set by name, with where it comes from and how it becomes a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

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
    """A public data set.

    Attributes:
        source: What it is, and where it comes from.
        build: Its loader.
    """

    source: Source
    build: Build


PUBLIC: Final = {
    dataset.source.name: dataset
    for dataset in (
        PublicDataset(UCI_DIABETES_130, uci_diabetes_130.build),
        PublicDataset(CA_DMHC_IMR, ca_dmhc_imr.build),
        PublicDataset(UCI_HEART_DISEASE, uci_heart_disease.build),
    )
}
