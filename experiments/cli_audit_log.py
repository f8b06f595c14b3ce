"""`groundtruth audit-log`: what an auditor types, at a coordinator or a site. Wiring only."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

audit_log_app = typer.Typer(
    help="What a coordinator or a site did: check and read it.", no_args_is_help=True
)

LogPath = Annotated[
    Path, typer.Argument(help="audit.jsonl, a coordinator's or site's folder, or a site.toml.")
]


@audit_log_app.command("verify")
def audit_log_verify(
    path: LogPath,
    head: Annotated[
        str, typer.Option(help="What an earlier verify printed; it must still be in the log.")
    ] = "",
) -> None:
    """Check that nothing in an audit log has been altered, removed or put back."""
    from federation.deployment.audit_log import audit_file, verify

    last = verify(audit_file(path), known=head)
    typer.echo(f"{last.seq:,} entries, chain intact, head {last.hash}")


@audit_log_app.command("show")
def audit_log_show(
    path: LogPath,
    run: Annotated[str, typer.Option(help="First digits of a run's id.")] = "",
    event: Annotated[str, typer.Option(help='An event, such as "run failed".')] = "",
    since: Annotated[str, typer.Option(help="Date, or date and time; UTC.")] = "",
    last: Annotated[int | None, typer.Option(min=1, help="Only so many, the newest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Show the entries of an audit log; where it is damaged, those before the damage."""
    import json
    from collections import deque
    from datetime import datetime
    from typing import Any

    from data_contracts.errors import GroundTruthError
    from experiments.words import print_audit_log
    from federation.deployment.audit_log import audit_file, show

    try:
        start = datetime.fromisoformat(since) if since else None
    except ValueError:
        raise GroundTruthError(
            f"--since takes a date such as 2026-01-31, or date and time, not {since!r}"
        ) from None
    rows: deque[dict[str, Any]] = deque(maxlen=last)
    try:
        rows.extend(show(audit_file(path), run=run, event=event, since=start))
    finally:
        if as_json:
            typer.echo(json.dumps(list(rows), indent=2))
        elif rows:
            print_audit_log(rows, Console())
    if not rows and not as_json:
        typer.echo("no entries that fit")
