"""`groundtruth track`: runs on their way to MLflow. Wiring only, like `cli.py`."""

import os
from pathlib import Path
from typing import Annotated

import typer

track_app = typer.Typer(help="Runs on their way to MLflow.", no_args_is_help=True)


@track_app.command("send")
def track_send(
    runs: Annotated[Path, typer.Argument(help="Folder of the runs' folders.")] = Path("runs"),
    seconds: Annotated[float, typer.Option(min=1, help="Limit for all runs together.")] = 1800,
) -> None:
    """Send the runs that wait to the server of MLFLOW_TRACKING_URI; exit code 1 if any still waits.

    Without that variable, only what waits for the file beside the runs is sent.
    """
    from experiments.spool import meant_for, send, tracking_store, waiting
    from federation.settings import ConfigError

    if not runs.is_dir():
        raise ConfigError(f"{runs}: there is no such folder; name the one with the runs' folders")
    store = tracking_store(runs)
    # A server may have moved: whoever names one means it for all that waits.
    folders = waiting(runs, None if os.environ.get("MLFLOW_TRACKING_URI") else store)
    left, reason = send(folders, store, seconds)
    typer.echo(f"{len(folders) - len(left)} of {len(folders)} waiting runs sent to {store}")
    if left:
        typer.echo(f"Not logged to {store}: {reason}. Still waiting: {len(left)}", err=True)
    elsewhere = [folder for folder in waiting(runs) if folder not in left]
    for folder in elsewhere:
        typer.echo(f"{folder} waits for {meant_for(folder)}: set MLFLOW_TRACKING_URI", err=True)
    if left or elsewhere:
        raise typer.Exit(1)


@track_app.command("server")
def track_server(
    folder: Annotated[Path, typer.Argument(help="Folder of the server's secrets and artifacts.")],
    database: Annotated[str, typer.Option(help="postgresql://USER@HOST/DATABASE, no password.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Start a team's MLflow server over PostgreSQL; nobody gets in without a password."""
    from experiments.tracking_server import ADMINISTRATOR, prepare

    command, environment = prepare(folder, database, host, port)
    typer.echo(f"Administrator {ADMINISTRATOR}; the first password is in {folder / 'server.env'}")
    os.execve(command[0], command, environment)  # noqa: S606 - signals reach the server itself
