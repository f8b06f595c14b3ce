"""How a coordinator's network is: who is online, what they hold, and how far a run is."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.words import ago
from federation.deployment.coordinator import Coordinator
from federation.deployment.coordinator_service import site_nodes, superlink_of
from federation.deployment.deployed import progress
from federation.deployment.members import Members
from federation.deployment.superlink import SuperLinkError
from federation.deployment.supervisor import read_status


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """A member at this moment.

    Attributes:
        site: Its name.
        role: Payer or provider.
        online: Whether its client is connected; None if nobody can tell.
        since: Since when, UTC; "" if it never was.
        contracts: Table -> version of the contract that it holds.
        release: Version of its software when it joined.
        patients: Patients that it declared.
    """

    site: str
    role: str
    online: bool | None
    since: str
    contracts: dict[str, str]
    release: str
    patients: int


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """A network at this moment.

    Attributes:
        network: Its identifier.
        address: Where sites reach the coordinator.
        folder: The coordinator's folder.
        service: What the coordinator's service says of itself; None if it does not run.
        reachable: Whether the SuperLink answers.
        sites: The members.
        run: How far the run is that is going on; None if none is.
        warnings: What will keep sites away before long.
    """

    network: str
    address: str
    folder: str
    service: dict[str, Any] | None
    reachable: bool
    sites: tuple[SiteStatus, ...]
    run: dict[str, Any] | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same for machines."""
        return asdict(self)


def network_status(coordinator: Coordinator) -> NetworkStatus:
    """How a network is now."""
    try:
        nodes, reachable = site_nodes(coordinator, superlink_of(coordinator)), True
    except SuperLinkError:
        nodes, reachable = {}, False
    sites = tuple(
        SiteStatus(
            site=site,
            role=member.role,
            online=(site in nodes and nodes[site].online) if reachable else None,
            since=nodes[site].since if site in nodes else "",
            contracts=dict(member.contracts),
            release=member.release,
            patients=member.patients,
        )
        for site, member in Members(coordinator).active().items()
    )
    return NetworkStatus(
        network=coordinator.network,
        address=coordinator.address,
        folder=str(coordinator.folder),
        service=read_status(coordinator.state),
        reachable=reachable,
        sites=sites,
        run=progress(coordinator),
        warnings=tuple(coordinator.warnings()),
    )


def print_status(status: NetworkStatus, console: Console) -> None:
    """One screen for people."""
    service = status.service
    state = f"does not run; start it with `groundtruth coordinator start {status.folder}`"
    if service is not None:
        state = f"runs since {ago(service['started'])}"
        if service["restarts"]:
            state += f", started again {service['restarts']} times"
    elif status.reachable:
        state = "answers"
    told = f"network {status.network} at {status.address}: the service {state}"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    if service is not None and service["problem"]:
        console.print(f"[yellow]problem:[/] {service['problem']}", highlight=False)
    table = Table("site", "role", "online", "since", "contracts", "patients")
    table.columns[0].no_wrap = table.columns[3].no_wrap = True
    for site in status.sites:
        online = {True: "[green]online[/]", False: "[red]offline[/]", None: "unknown"}[site.online]
        versions = sorted(set(site.contracts.values()))
        table.add_row(
            site.site,
            site.role,
            online,
            ago(site.since) if site.since else "never came",
            ", ".join(versions),
            f"{site.patients:,}",
        )
    console.print(table)
    if (run := status.run) is not None:
        gone = f"; without {', '.join(run['gone'])}" if run["gone"] else ""
        console.print(
            f"run {run['run'][:8]} of task {run['task']}: round {run['done']} of {run['of']} done, "
            f"{run['step'] or 'between two rounds'} with {', '.join(run['sites'])}{gone}",
            highlight=False,
        )
    else:
        console.print("no run is going on")
    for warning in status.warnings:
        console.print(f"[yellow]warning:[/] {warning}", highlight=False)
