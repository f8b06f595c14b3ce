"""What is declared of a network before any table is read: its sites, and how many patients."""

from dataclasses import dataclass
from pathlib import Path

from data_contracts.fields import Role
from data_contracts.manifest import SiteManifest
from data_contracts.network import Network
from data_contracts.public.registry import PUBLIC
from data_contracts.synthetic.generate import REQUESTS_PER_SITE, TABLES
from data_contracts.synthetic.settings import PRESETS, Population
from data_contracts.synthetic.sites import make_sites
from experiments.config import DataSettings
from experiments.federation_data import site_manifests
from federation.settings import ConfigError


@dataclass(frozen=True, slots=True)
class Declared:
    """A network as it is known beforehand.

    Attributes:
        sites: The sites; their tables may not exist yet.
        patients: Patients of all sites together, held-out ones included.
        basis: Where that number comes from, for people.
    """

    sites: tuple[SiteManifest, ...]
    patients: int
    basis: str


def declare(data: DataSettings, patients: int | None = None) -> Declared:
    """The network that an experiment's settings speak of, without a look at its tables.

    Args:
        data: The settings.
        patients: Number of patients, where whoever plans knows better.

    Raises:
        ConfigError: There can be no such network, or nobody says how many patients it has.
        ManifestError: The network's description or a site's manifest cannot be used.
        PrivateDataError: A site's data are private.
    """
    if patients is not None and patients < 1:
        raise ConfigError(f"--patients starts at 1, not {patients}")
    if data.network is not None:
        declared = _folder(Path(data.network), patients)
    elif data.name in PUBLIC:
        declared = _public(data.name)
    else:
        declared = _synthetic(data)
    if patients is None:
        return declared
    return Declared(declared.sites, patients, "as given with --patients")


def patients_per_request(population: Population) -> float:
    """Patients of a synthetic network per request, as its settings expect.

    A patient has one request and further ones: a Poisson number with a gamma distributed rate, so
    a negative binomial one, cut off at `max_requests`.
    """
    shape, mean = population.further_requests_shape, population.mean_further_requests
    probability, at_most = (shape / (shape + mean)) ** shape, 0.0
    requests = 1.0
    for further in range(population.max_requests - 1):
        at_most += probability
        requests += 1 - at_most
        probability *= (further + shape) / (further + 1) * mean / (shape + mean)
    return 1 / requests


def _folder(network: Path, patients: int | None) -> Declared:
    description = Network.load(network)
    sites = tuple(site_manifests(network))
    counted = description.settings.get("n_patients")
    if isinstance(counted, int) and counted >= 1:
        return Declared(sites, counted, "as the network's description says")
    if description.name in PUBLIC:
        return Declared(sites, *_published(description.name))
    if patients is None:
        raise ConfigError(
            f"{network} does not say how many patients it has; declare them with --patients"
        )
    return Declared(sites, patients, "")


def _public(name: str) -> Declared:
    dataset = PUBLIC[name]
    tables = {table: Path(f"{table}.parquet") for table in dataset.tables}
    sites = tuple(
        SiteManifest(name=site, role=dataset.role, tables=tables, origin="public")
        for site in dataset.sites
    )
    return Declared(sites, *_published(name))


def _published(name: str) -> tuple[int, str]:
    return PUBLIC[name].patients, f"as counted in the pinned edition of {name}, before exclusions"


def _synthetic(data: DataSettings) -> Declared:
    least = REQUESTS_PER_SITE * max(data.payers, data.providers)
    if data.requests < least:
        raise ConfigError(
            f"{data.requests} requests are too few for {data.payers} payers and {data.providers} "
            f"providers: ask for {least} or more, so that every site has some"
        )
    mechanism = PRESETS[data.preset]
    names = make_sites(mechanism.sites, data.payers, data.providers)
    tables = {table: Path(table) for table in TABLES}
    roles: dict[Role, tuple[str, ...]] = {"payer": names.payers, "provider": names.providers}
    sites = tuple(
        SiteManifest(name=name, role=role, tables=tables, origin="synthetic", group=name)
        for role, members in roles.items()
        for name in members
    )
    share = patients_per_request(mechanism.population)
    return Declared(
        sites,
        round(data.requests * share),
        f"{data.requests:,} requests at {share:.3f} patients each, as the generator draws them",
    )
