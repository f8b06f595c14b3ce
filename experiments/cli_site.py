"""`groundtruth site`: what a participant site types. Wiring only, like `cli.py`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as PrintedTable

from data_contracts.errors import GroundTruthError

site_app = typer.Typer(help="A participant site's own commands.", no_args_is_help=True)

Epsilon = Annotated[
    str | None,
    typer.Option("--epsilon", help="Privacy budget of a patient, all models together; or none."),
]
SiteFolder = Annotated[Path, typer.Argument(help="The site's folder, or its site.toml.")]


def number_or_none(text: str) -> float | None:
    """A number, or None for "none".

    Raises:
        GroundTruthError: It is neither.
    """
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise GroundTruthError(f"--epsilon takes a number or none, not {text!r}") from None


@site_app.command("init")
def site_init(
    folder: Annotated[Path, typer.Argument(help="The site's folder; made if there is none.")],
    name: Annotated[str, typer.Option(help="Pseudonym of the site in the network.")] = "",
    role: Annotated[str, typer.Option(help="payer or provider.")] = "",
    table: Annotated[
        list[str] | None, typer.Option(help="CONTRACT=FILE, for each flat file; repeat it.")
    ] = None,
    x12: Annotated[Path | None, typer.Option(help="File or folder of X12 interchanges.")] = None,
    fhir: Annotated[Path | None, typer.Option(help="File or folder of FHIR resources.")] = None,
    omop: Annotated[Path | None, typer.Option(help="Folder of an OMOP CDM extract.")] = None,
    mode: Annotated[
        str, typer.Option(help="safe_harbor, expert_determination or limited_data_set.")
    ] = "",
    certificate: Annotated[str, typer.Option(help="Id of the expert's certificate.")] = "",
    dua: Annotated[str, typer.Option(help="Id of the data use agreement.")] = "",
    expires: Annotated[str, typer.Option(help="Last day of either, as YYYY-MM-DD.")] = "",
    key_file: Annotated[Path | None, typer.Option(help="File with the network's key.")] = None,
) -> None:
    """Write a commented site.toml; asks for what is not given. Proposes how columns are mapped."""
    from experiments.site_init import answered, init_site

    def ask(question: str, default: str) -> str:
        return str(typer.prompt(question, default=default)) if sys.stdin.isatty() else default

    answers = answered(
        ask,
        name=name,
        role=role,
        tables=table or [],
        exchanges={"x12": x12, "fhir": fhir, "omop": omop},
        mode=mode,
        certificate=certificate,
        dua=dua,
        expires=expires,
        key_file=key_file,
    )
    file, steps = init_site(folder, answers)
    typer.echo(f"{file}: read it, then")
    for number, step in enumerate(steps, start=1):
        typer.echo(f"  {number}. {step}")


@site_app.command("check")
def site_check(
    folder: SiteFolder,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the report; SITE/state unless given.")
    ] = None,
) -> None:
    """Check a site's data end to end, and write a report to read. Nothing leaves the site."""
    from data_contracts.manifest import SiteManifest
    from experiments.progress import Reporter
    from experiments.site_check.check import check_site
    from experiments.site_check.page import write_page
    from experiments.site_check.verdict import judge
    from experiments.site_check.words import print_check, told
    from federation.run_state import STATE_FOLDER

    checked = check_site(SiteManifest.load(folder), Reporter())
    print_check(checked, Console())
    at = folder if folder.is_dir() else folder.parent
    page, rejected = write_page(checked, out or at / STATE_FOLDER)
    typer.echo(f"report: {page}\nrejected rows, by file and place: {rejected}")
    if blocking := [told(finding) for finding in judge(checked)[1] if finding.blocks]:
        raise GroundTruthError("\n       ".join(blocking))


@site_app.command("preview")
def site_preview(
    folder: SiteFolder,
    config: Annotated[Path, typer.Argument(help="TOML file of the experiment.")],
    sites: Annotated[int, typer.Option(min=1, help="Sites assumed to take part.")] = 10,
    epsilon: Epsilon = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write every value to this Parquet file; exact ones, too."),
    ] = None,
) -> None:
    """Show exactly what a run would send, value by value. Nothing is sent or charged."""
    from dataclasses import replace

    from data_contracts.manifest import MANIFEST_NAME
    from experiments.config import load_config
    from experiments.site_preview import preview
    from experiments.words import print_preview

    settings = load_config(config)
    if epsilon is not None:
        privacy = replace(settings.privacy, epsilon=number_or_none(epsilon))
        settings = settings.with_changes(privacy=privacy)
    file = folder / MANIFEST_NAME if folder.is_dir() else folder
    for task in settings.tasks:
        seen = preview(file, settings, task, sites)
        print_preview(task, seen, Console())
        if out is not None:
            target = out if len(settings.tasks) == 1 else out.with_stem(f"{out.stem}-{task}")
            seen.write(target)
            typer.echo(f"{target}: holds exact sums of this site; do not pass it on")


@site_app.command("budget")
def site_budget(
    folder: SiteFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
    raise_to: Annotated[
        float | None, typer.Option(help="New budget (epsilon); a lower one lowers it.")
    ] = None,
    approved_by: Annotated[str, typer.Option(help="Who approved the new budget.")] = "",
    reason: Annotated[str, typer.Option(help="Why it changes.")] = "",
) -> None:
    """Show what a site's releases have cost its patients, or change the budget for them."""
    import json
    from dataclasses import asdict

    from experiments.site_budget import change_budget
    from experiments.site_budget import site_budget as budget_of
    from experiments.words import print_budget

    state = budget_of(folder)
    if raise_to is None and (approved_by or reason):
        raise GroundTruthError("--approved-by and --reason go with --raise-to EPSILON")
    if raise_to is not None:
        before = "no limit" if state.budget is None else f"epsilon = {state.budget:g}"
        change_budget(folder, raise_to, approved_by=approved_by, reason=reason)
        typer.echo(
            f"budget of site {state.site}: from {before} to epsilon = {raise_to:g}", err=True
        )
        state = budget_of(folder)
    if as_json:
        typer.echo(json.dumps(asdict(state), indent=2))
    else:
        print_budget(state, Console())


@site_app.command("verify")
def site_verify(folder: SiteFolder) -> None:
    """Check that nothing in a site's ledger has been altered, removed or put back."""
    from experiments.site_budget import site_ledger

    head = site_ledger(folder).verify()
    typer.echo(f"{head.seq:,} entries, chain intact, head {head.hash}")


@site_app.command("export-ledger")
def site_export_ledger(
    folder: SiteFolder,
    out: Annotated[Path, typer.Option("--out", help="File to write; must not exist.")],
) -> None:
    """Write a site's ledger as JSON lines, which an auditor can check without this software."""
    from experiments.site_budget import site_ledger
    from federation.ledger_export import export

    head = export(site_ledger(folder), out)
    typer.echo(f"{head.seq:,} entries in {out}, head {head.hash}")


@site_app.command("join")
def site_join(
    folder: SiteFolder,
    invitation: Annotated[Path, typer.Argument(help="What the coordinator handed over.")],
    patients: Annotated[
        int | None,
        typer.Option(min=1, help="Patients to declare; counted from the tables unless given."),
    ] = None,
    new_keys: Annotated[
        bool, typer.Option("--new-keys", help="Make both keys anew; the old ones are kept aside.")
    ] = False,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="Trust another authority than before, after comparing it."
        ),
    ] = False,
) -> None:
    """Make this site's keys and its join request; the private keys never leave the site."""
    from federation.deployment.membership import join, state_of
    from federation.deployment.service_files import SiteService, service_files_told

    joined = join(folder, invitation, patients, new_keys=new_keys, accept_changes=accept_changes)
    request = joined.request
    typer.echo(
        f"{request.site} asks to join network {request.network} as {request.role} with "
        f"{request.patients:,} patients\n"
        f"fingerprint of the network's authority: {joined.authority}\n"
        f"fingerprint of this site: {joined.fingerprint}\n"
        f"join request: {joined.file}\n"
        f"{service_files_told(SiteService(state_of(folder).parent.resolve()))}\n"
        "next: call the coordinator and compare both fingerprints aloud, hand over the join "
        "request, and pin the\nregistry that comes back: `groundtruth site pin "
        f"{folder} peers.toml`"
    )


@site_app.command("pin")
def site_pin(
    folder: SiteFolder,
    peers: Annotated[Path, typer.Argument(help="The coordinator's peers.toml.")],
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="Accept other keys than before, after comparing them."
        ),
    ] = False,
) -> None:
    """Believe from now on the sites of a registry, and no others."""
    from federation.deployment.pinning import pin

    pinned = pin(folder, peers, accept_changes=accept_changes)
    table = PrintedTable("site", "fingerprint", "")
    for site, told in pinned.peers.items():
        mark = "new" if site in pinned.new else "changed" if site in pinned.changed else ""
        table.add_row(site, told, mark)
    Console().print(table)
    if pinned.removed:
        typer.echo(f"no longer believed: {', '.join(pinned.removed)}")
    compare = "call every site that is new or changed and compare its fingerprint aloud, then "
    typer.echo(
        f"next: {compare if pinned.new or pinned.changed else ''}run\n"
        f"`groundtruth site start {folder}`"
    )


@site_app.command("start")
def site_start(folder: SiteFolder) -> None:
    """Run this site's client until stopped; it runs approved apps only."""
    import threading

    from federation.deployment.site_service import serve
    from federation.deployment.supervisor import stop_on_signals

    stop = threading.Event()
    stop_on_signals(stop)
    serve(folder, stop, say=lambda text: typer.echo(text, err=True))


@site_app.command("status")
def site_status(
    folder: SiteFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Show whether this site's client runs, and with whom; exit code 1 if it does not."""
    import json

    from experiments.site_status import client_status, print_client

    status = client_status(folder)
    if as_json:
        typer.echo(json.dumps(status.to_json(), indent=2))
    else:
        print_client(status, Console())
    if not status.running:
        raise typer.Exit(1)


@site_app.command("apps")
def site_apps(
    folder: SiteFolder,
    sha256: Annotated[
        str, typer.Argument(help="Show this one, with what it changes line by line.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Show which app bundles were offered, what they would change, and what was decided."""
    import json
    from dataclasses import asdict

    from experiments.site_apps import print_app, print_apps, site_apps

    apps = site_apps(folder)
    if sha256:
        print_app(folder, apps, sha256, Console())
    elif as_json:
        typer.echo(json.dumps([asdict(app) for app in apps], indent=2))
    else:
        print_apps(apps, Console())


@site_app.command("approve")
def site_approve(
    folder: SiteFolder,
    sha256: Annotated[
        str, typer.Argument(help="A bundle's SHA-256, all of it, see `site apps`.")
    ] = "",
    installed: Annotated[
        bool, typer.Option("--installed", help="The bundle of the release that is installed here.")
    ] = False,
) -> None:
    """Let an app bundle run on this site's data, within the limits of site.toml."""
    from experiments.site_apps import approve

    approved = approve(folder, sha256, installed=installed)
    typer.echo(f"approved: {approved.sha256}")


@site_app.command("reject")
def site_reject(
    folder: SiteFolder,
    sha256: Annotated[str, typer.Argument(help="Eight or more digits of a bundle's SHA-256.")],
) -> None:
    """Never run an app bundle here, also one that was approved before."""
    from experiments.site_apps import reject

    typer.echo(f"rejected: {reject(folder, sha256).sha256}")
