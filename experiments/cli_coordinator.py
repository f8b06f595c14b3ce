"""`groundtruth coordinator`: what a network's coordinator types. Wiring only, like `cli.py`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table as PrintedTable

if TYPE_CHECKING:
    from federation.deployment.coordinator import Coordinator

coordinator_app = typer.Typer(help="The coordinator's own commands.", no_args_is_help=True)

CoordinatorFolder = Annotated[Path, typer.Argument(help="The coordinator's folder.")]
Sites = Annotated[
    list[str] | None,
    typer.Option(
        "--site", help="NAME, or NAME:payer or NAME:provider, of a site to invite; repeat it."
    ),
]


@coordinator_app.command("init")
def coordinator_init(
    folder: Annotated[Path, typer.Argument(help="Folder to make; must be empty.")],
    address: Annotated[
        str, typer.Option(help="HOST:PORT at which sites reach the coordinator; no wildcard.")
    ],
    network: Annotated[
        str, typer.Option(help="Identifier of the network; network-XXXX unless given.")
    ] = "",
    site: Sites = None,
    bind: Annotated[
        str,
        typer.Option(
            help="IP:PORT at which the engine listens, behind the reverse proxy; 127.0.0.1:9092 "
            "unless given, or the address itself where that is loopback."
        ),
    ] = "",
    multiplicity: Annotated[
        int, typer.Option(min=1, help="Sites at which a patient may stand; declared to sites.")
    ] = 3,
    payer: Annotated[
        list[str] | None,
        typer.Option(help="A payer in the sites' tables that is no member; repeat it."),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(help="A provider in the sites' tables that is no member; repeat it."),
    ] = None,
    exposed: Annotated[
        bool,
        typer.Option(
            "--exposed", help="Let --bind be reached from other machines, without a proxy."
        ),
    ] = False,
) -> None:
    """Make a network: its authority, the server's certificate, and an invitation per site."""
    from federation.deployment.coordinator import Coordinator

    made = Coordinator.init(
        folder,
        network,
        address,
        sites=site or (),
        bind=bind,
        multiplicity=multiplicity,
        payers=payer or (),
        providers=provider or (),
        exposed=exposed,
    )
    typer.echo(f"network {made.network} in {folder}; sites reach it at {made.address}")
    _say_service_files(made)
    _say_authority(made)
    _say_invitations(sorted(made.invitations.glob("*.toml")), folder)


@coordinator_app.command("invite")
def coordinator_invite(folder: CoordinatorFolder, site: Sites = None) -> None:
    """Write invitations for further sites, or for the same ones again."""
    from data_contracts.errors import GroundTruthError
    from federation.deployment.coordinator import Coordinator
    from federation.deployment.invitation import Invited

    if not site:
        raise GroundTruthError("name the sites to invite: --site NAME, repeated")
    coordinator = Coordinator.load(folder)
    files = coordinator.invite([Invited.parse(text) for text in site])
    _say_authority(coordinator)
    _say_invitations(files, folder)


@coordinator_app.command("admit")
def coordinator_admit(
    folder: CoordinatorFolder,
    request: Annotated[list[Path], typer.Argument(help="Join requests, as sites hand them back.")],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Take new keys, or a new declaration, of admitted sites."),
    ] = False,
) -> None:
    """Admit sites by the join requests that they handed back."""
    from federation.deployment.coordinator import Coordinator
    from federation.deployment.invitation import JoinRequest
    from federation.deployment.members import Members

    coordinator = Coordinator.load(folder)
    members = Members(coordinator)
    for file in request:
        member = members.admit(JoinRequest.load(file), replace=replace)
        typer.echo(
            f"{member.site} ({member.role}, {member.patients:,} patients) is admitted; "
            f"fingerprint {member.fingerprint}"
        )
    typer.echo(
        "next: call each site and compare its fingerprint aloud; revoke it if they differ.\n"
        f"Then hand {coordinator.peers_file} to every site, which pins it with "
        "`groundtruth site pin FOLDER peers.toml`"
    )


@coordinator_app.command("revoke")
def coordinator_revoke(
    folder: CoordinatorFolder,
    site: Annotated[str, typer.Argument(help="Name of the site.")],
) -> None:
    """End a site's membership. Its keys never come back; it may join again with new ones."""
    from federation.deployment.coordinator import Coordinator
    from federation.deployment.members import Members

    coordinator = Coordinator.load(folder)
    member = Members(coordinator).revoke(site)
    typer.echo(f"{member.site} is revoked; its fingerprint was {member.fingerprint}")
    left = coordinator.peers_file.exists()
    typer.echo(
        f"next: hand {coordinator.peers_file} to every other site, which pins it with "
        "`groundtruth site pin FOLDER peers.toml`; until then they believe the revoked site"
        if left
        else "next: no member is left; invite sites with `groundtruth coordinator invite`"
    )


@coordinator_app.command("renew")
def coordinator_renew(
    folder: CoordinatorFolder,
    authority: Annotated[
        bool,
        typer.Option("--authority", help="Make a new authority, too; all sites must join again."),
    ] = False,
) -> None:
    """Make a new server certificate from the same authority, and write the invitations anew."""
    from federation.deployment.coordinator import Coordinator

    coordinator = Coordinator.load(folder, to_renew=True)
    coordinator.renew(authority=authority)
    until = coordinator.server.not_valid_after_utc
    typer.echo(f"{coordinator.server_certificate} is good until {until:%Y-%m-%d}")
    _say_service_files(coordinator)
    _say_authority(coordinator)
    typer.echo("next: restart the coordinator and the reverse proxy, which hold the old one")
    if authority:
        typer.echo(
            "The authority is new and no site trusts it yet: all sites must join again. Hand each "
            f"its new invitation ({coordinator.invitations}); it runs `groundtruth site join "
            "FOLDER INVITATION --accept-changes`. Its keys stay, so there is nothing to admit"
        )
    else:
        typer.echo(
            "If the address changed, hand the new invitations "
            f"({coordinator.invitations}) to the sites, which join again; otherwise sites need "
            "nothing"
        )


@coordinator_app.command("members")
def coordinator_members(
    folder: CoordinatorFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Show who takes part, with fingerprints, and what expires."""
    import json

    from federation.deployment.coordinator import Coordinator
    from federation.deployment.members import Members

    coordinator = Coordinator.load(folder)
    members = Members(coordinator).all().values()
    if as_json:
        rows = [
            {
                "site": member.site,
                "role": member.role,
                "patients": member.patients,
                "fingerprint": member.fingerprint,
                "admitted": str(member.admitted),
                "revoked": member.revoked and str(member.revoked),
                "contracts": dict(member.contracts),
                "release": member.release,
            }
            for member in members
        ]
        shown = {
            "network": coordinator.network,
            "members": rows,
            "invited": list(coordinator.invited()),
            "expires": {name: f"{day:%Y-%m-%d}" for name, day in coordinator.expiry().items()},
            "warnings": coordinator.warnings(),
        }
        typer.echo(json.dumps(shown, indent=2))
        return
    table = PrintedTable("site", "role", "patients", "fingerprint", "admitted", "revoked")
    table.columns[3].max_width = 19  # two lines of four groups each, to be read aloud
    for member in members:
        table.add_row(
            member.site,
            member.role,
            f"{member.patients:,}",
            member.fingerprint,
            str(member.admitted),
            str(member.revoked or ""),
        )
    Console().print(table)
    for name, day in coordinator.expiry().items():
        typer.echo(f"{name} expires on {day:%Y-%m-%d}")
    _say_authority(coordinator)
    for warning in coordinator.warnings():
        typer.echo(f"warning: {warning}", err=True)
    if waiting := sorted(coordinator.invited().keys() - {member.site for member in members}):
        typer.echo(
            f"next: {', '.join(waiting)} invited and not admitted; admit their join requests with "
            f"`groundtruth coordinator admit {folder} FILE`"
        )
    elif not coordinator.peers_file.exists():
        typer.echo(f"next: invite sites with `groundtruth coordinator invite {folder} --site NAME`")
    else:
        typer.echo(
            f"next: hand {coordinator.peers_file} to every site that has not pinned it, or start "
            f"with `groundtruth coordinator start {folder}`"
        )


def _say_authority(coordinator: "Coordinator") -> None:
    from federation.deployment.certificates import authority_fingerprint

    told = authority_fingerprint(coordinator.authority)
    typer.echo(f"fingerprint of the network's authority: {told}")


def _say_service_files(coordinator: "Coordinator") -> None:
    from federation.deployment.service_files import CoordinatorService, service_files_told

    service = CoordinatorService(coordinator.folder, coordinator.address, coordinator.bind)
    typer.echo(service_files_told(service))


def _say_invitations(files: list[Path], folder: Path) -> None:
    for file in files:
        typer.echo(f"invitation: {file}")
    if files:
        typer.echo(
            "next: hand each site its invitation and tell it the authority's fingerprint aloud. "
            "It runs\n`groundtruth site join FOLDER INVITATION` and hands back its join request, "
            f"for\n`groundtruth coordinator admit {folder} FILE`"
        )
    else:
        typer.echo(f"next: invite sites with `groundtruth coordinator invite {folder} --site NAME`")


@coordinator_app.command("start")
def coordinator_start(folder: CoordinatorFolder) -> None:
    """Run the network's server until stopped; sites connect to it, runs go over it."""
    import threading

    from federation.deployment.coordinator import Coordinator
    from federation.deployment.coordinator_service import serve
    from federation.deployment.supervisor import stop_on_signals

    coordinator = Coordinator.load(folder)
    stop = threading.Event()
    stop_on_signals(stop)
    serve(coordinator, stop, say=lambda text: typer.echo(text, err=True))


@coordinator_app.command("status")
def coordinator_status(
    folder: CoordinatorFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Show who is online, what they hold and how far a run is; exit code 1 if it is down."""
    import json

    from experiments.network_status import network_status, print_status
    from federation.deployment.coordinator import Coordinator

    status = network_status(Coordinator.load(folder))
    if as_json:
        typer.echo(json.dumps(status.to_json(), indent=2))
    else:
        print_status(status, Console())
    if not status.reachable:
        raise typer.Exit(1)
