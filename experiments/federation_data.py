"""From settings to a checked folder of sites."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_contracts.errors import GroundTruthError, ManifestError
from data_contracts.intake import Table, read_tables
from data_contracts.manifest import SiteManifest
from data_contracts.network import DESCRIPTION_NAME, Network, site_folders
from data_contracts.public.registry import PUBLIC
from data_contracts.synthetic.generate import generate
from experiments.config import ExperimentConfig
from experiments.progress import Reporter
from federation.declared_patients import declared_patients
from federation.run_state import STATE_FOLDER


class MissingSourceError(GroundTruthError):
    """The files of a public data set are not where they should be."""


class PrivateDataError(GroundTruthError):
    """Private data lie where an experiment would measure them exactly."""


@dataclass(frozen=True, slots=True)
class Site:
    """A site whose tables keep their contracts.

    Attributes:
        manifest: Its manifest.
        tables: Its valid tables.
        raw_rows: Rows of each table before validation.
        rejected_rows: Rows set aside, all tables together.
    """

    manifest: SiteManifest
    tables: dict[str, pl.DataFrame]
    raw_rows: dict[str, int]
    rejected_rows: int

    @property
    def patients_declared(self) -> int:
        """Number of patients, rounded to two digits as a site declares it to the network."""
        return declared_patients(self.tables.values())


def make_network(config: ExperimentConfig, folder: Path, reporter: Reporter) -> Path:
    """The folder of the experiment's network, made in `folder` unless the settings name one.

    Raises:
        GroundTruthError: The data cannot be found or made.
    """
    data = config.data
    if data.network is not None:
        Network.load(Path(data.network))
        return Path(data.network)
    if (folder / DESCRIPTION_NAME).is_file():
        return folder  # finished by the run that is being resumed
    if folder.exists():
        shutil.rmtree(folder)  # left unfinished by the run that is being resumed
    if data.name == "synthetic":
        with reporter.steps(f"Generating {data.requests:,} requests", data.requests) as steps:
            generate(
                folder,
                preset=data.preset,
                n_requests=data.requests,
                n_payers=data.payers,
                n_providers=data.providers,
                seed=config.seed,
                progress=steps.reach,
            )
        return folder
    dataset = PUBLIC[data.name]
    reporter.say(f"Reading {dataset.source.title}")
    source = Path(data.source) if data.source else default_source(data.name)
    if not source.is_dir():
        raise MissingSourceError(
            f"the files of {data.name} are not at {source}: fetch them with "
            f"`groundtruth data fetch {data.name}`, or name their folder as data.source"
        )
    dataset.build(source, folder, seed=config.seed)
    return folder


def default_source(name: str) -> Path:
    """Where `groundtruth data fetch` puts a public data set unless told otherwise."""
    return Path("data") / name


def site_manifests(network: Path) -> list[SiteManifest]:
    """The manifests of a network's sites, sorted by name.

    Raises:
        ManifestError: One cannot be used, or its folder has another name.
        PrivateDataError: A site's data are private.
    """
    manifests = []
    for folder in site_folders(network):
        manifest = SiteManifest.load(folder)
        if manifest.name != folder.name:
            raise ManifestError(
                f"{folder}: its site.toml is of site {manifest.name}; name the folder like the site"
            )
        if manifest.origin == "private":
            raise PrivateDataError(
                f"the data of site {manifest.name} are private. An experiment sees all sites' "
                "rows in one place and measures them exactly, so it takes only synthetic and "
                "public data"
            )
        manifests.append(manifest)
    return manifests


def check_sites(network: Path, reporter: Reporter) -> list[Site]:
    """Read and validate every table of every site.

    Raises:
        GroundTruthError: A site's data are private, or a table cannot be read or breaks its
            contract.
    """
    manifests = site_manifests(network)
    sites = []
    with reporter.steps(f"Checking the tables of {len(manifests)} sites", len(manifests)) as steps:
        for manifest in manifests:
            tables = read_tables(manifest)
            sites.append(_site(manifest, tables))
            steps.advance()
    return sites


def fingerprint(network: Path) -> str:
    """SHA-256 over names and contents of all files of all sites, but for what runs leave there."""
    digest = hashlib.sha256()
    for file in sorted((network / "sites").rglob("*")):
        if file.is_file() and STATE_FOLDER not in file.parts:
            digest.update(str(file.relative_to(network)).encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _site(manifest: SiteManifest, tables: dict[str, Table]) -> Site:
    return Site(
        manifest,
        {name: table.rows for name, table in tables.items()},
        {name: table.counts.raw for name, table in tables.items()},
        sum(table.counts.raw - table.counts.valid for table in tables.values()),
    )
