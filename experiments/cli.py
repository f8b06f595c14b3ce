"""The `groundtruth` command. Wiring only: what a command does stands where it belongs."""

import datetime
import os
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

# Nothing phones home: before any library that might is imported.
os.environ.update(
    {
        "DO_NOT_TRACK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
)

import typer
from rich.console import Console
from rich.table import Table as PrintedTable

from data_contracts.errors import GroundTruthError
from experiments.cli_audit_log import audit_log_app
from experiments.cli_coordinator import coordinator_app
from experiments.cli_site import Epsilon, number_or_none, site_app
from experiments.cli_track import track_app

app = typer.Typer(
    name="groundtruth",
    help="Private federated analytics of prior authorization and claims.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
network_app = typer.Typer(help="Networks of sites: synthetic ones, and keys.", no_args_is_help=True)
data_app = typer.Typer(help="Public data sets.", no_args_is_help=True)
contracts_app = typer.Typer(help="Data contracts.", no_args_is_help=True)
app.add_typer(network_app, name="network")
app.add_typer(data_app, name="data")
app.add_typer(coordinator_app, name="coordinator")
app.add_typer(site_app, name="site")
app.add_typer(contracts_app, name="contracts")
app.add_typer(audit_log_app, name="audit-log")
app.add_typer(track_app, name="track")

Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run there.")]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Folder of an interrupted run to go on with, with its own settings.",
        show_default=False,
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything drawn.")]
Engine = Annotated[
    str | None,
    typer.Option("--engine", help="in-process (default), simulation or deployment."),
]
Coordinator = Annotated[
    Path | None,
    typer.Option(
        "--coordinator",
        help="The coordinator's folder, for --engine deployment.",
        show_default=False,
    ),
]
RUNS = Path("runs")


@app.callback(invoke_without_command=True)
def _root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if show_version:
        typer.echo(version("shared-ground-truth"))
        raise typer.Exit


@app.command()
def demo(
    requests: Annotated[int, typer.Option(min=1, help="Requests to generate.")] = 60_000,
    payers: Annotated[int, typer.Option(min=1, help="Number of payers.")] = 4,
    providers: Annotated[int, typer.Option(min=1, help="Number of providers.")] = 10,
    seed: Seed = None,
    epsilon: Epsilon = None,
    engine: Engine = None,
    out: Out = None,
    overwrite: Overwrite = False,
    resume: Resume = None,
) -> None:
    """Generate a network, train approval and outcome models over it, write a report."""
    from dataclasses import replace

    from experiments.config import load_config

    config = load_config(Path(__file__).parent / "configs" / "demo.toml")
    data = replace(config.data, requests=requests, payers=payers, providers=providers)
    config = config.with_changes(data=data, seed=seed, engine=engine)
    _run(config, out, epsilon, overwrite, resume)


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Argument(help="TOML file of the experiment; not needed with --resume."),
    ] = None,
    seed: Seed = None,
    epsilon: Epsilon = None,
    engine: Engine = None,
    coordinator: Coordinator = None,
    out: Out = None,
    overwrite: Overwrite = False,
    resume: Resume = None,
) -> None:
    """Run the experiment that a TOML file describes, here or over a network's own sites."""
    from dataclasses import replace

    from experiments.config import load_config
    from experiments.folders import settings_of
    from federation.settings import ConfigError

    if config is None and resume is None:
        raise ConfigError("name the TOML file of an experiment, or a run to --resume")
    settings = load_config(config) if config else settings_of(resume or RUNS)
    deployment = None
    if coordinator is not None:
        deployment = replace(settings.deployment, coordinator=str(coordinator.resolve()))
    settings = settings.with_changes(seed=seed, engine=engine, deployment=deployment)
    if coordinator is not None and settings.engine != "deployment":
        raise ConfigError(
            "--coordinator is for runs over a network's own sites, and the engine is "
            f"{settings.engine}: add --engine deployment"
        )
    _run(settings, out, epsilon, overwrite, resume)


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="TOML file of the experiment.")],
    patients: Annotated[
        int | None, typer.Option(help="Patients of all sites, if not as declared.")
    ] = None,
    base_rate: Annotated[
        float | None, typer.Option(help="Expected share of the rarer label; 0.1 unless given.")
    ] = None,
    epsilon: Epsilon = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Tell what an experiment would cost and give, before any data are touched."""
    import json
    from dataclasses import asdict, replace

    from experiments.config import load_config
    from experiments.forecast.forecast import forecast
    from experiments.forecast.words import print_forecast

    settings = load_config(config)
    if epsilon is not None:
        privacy = replace(settings.privacy, epsilon=number_or_none(epsilon))
        settings = settings.with_changes(privacy=privacy)
    ahead = forecast(settings, patients=patients, base_rate=base_rate)
    if as_json:
        typer.echo(json.dumps(asdict(ahead), indent=2, allow_nan=False))
    else:
        print_forecast(ahead, Console())


@app.command()
def audit(
    epsilon: Annotated[float, typer.Option(help="Promise to audit, to a patient at one site.")] = 1,
    delta: Annotated[float, typer.Option(help="Delta of the promise.")] = 1e-5,
    canaries: Annotated[int, typer.Option(min=2, help="Made-up patients in a run.")] = 600,
    requests: Annotated[int, typer.Option(min=1, help="Requests to generate.")] = 20_000,
    providers: Annotated[int, typer.Option(min=1, help="Number of providers.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Runs, all guesses counted together.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of data, coins and noise.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Attack real runs over synthetic patients; exit code 1 if they break the promise."""
    import json
    from dataclasses import asdict

    from experiments.audit.run import AuditSettings
    from experiments.audit.run import audit as audit_runs
    from experiments.audit.words import print_audit
    from experiments.progress import Reporter

    settings = AuditSettings(
        epsilon=epsilon,
        delta=delta,
        canaries=canaries,
        requests=requests,
        providers=providers,
        repeats=repeats,
        seed=seed,
    )
    found = audit_runs(settings, Reporter())
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"consistent": found.consistent}, indent=2))
    else:
        print_audit(found, Console())
    if not found.consistent:
        raise typer.Exit(1)


@app.command()
def tasks() -> None:
    """List the tasks."""
    from models.tasks import TASKS

    table = PrintedTable("task", "question", "trained at", "tables")
    for task in TASKS.values():
        table.add_row(task.name, task.question, f"{task.train_at}s", ", ".join(task.tables))
    Console().print(table)


@network_app.command("generate")
def network_generate(
    out: Annotated[Path, typer.Option("--out", help="Folder to write; must be empty.")],
    preset: Annotated[str, typer.Option(help="seed_manual or harmonised.")] = "seed_manual",
    requests: Annotated[int, typer.Option(min=1, help="Number of requests.")] = 60_000,
    payers: Annotated[int, typer.Option(min=1, help="Number of payers.")] = 4,
    providers: Annotated[int, typer.Option(min=1, help="Number of providers.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 7,
) -> None:
    """Write a synthetic network: a folder per site, and the truth apart from all of them."""
    from data_contracts.synthetic.generate import generate
    from experiments.progress import Reporter

    with Reporter().steps(f"Generating {requests:,} requests", requests) as steps:
        generate(
            out,
            preset=preset,
            n_requests=requests,
            n_payers=payers,
            n_providers=providers,
            seed=seed,
            progress=steps.reach,
        )
    typer.echo(f"{payers} payers and {providers} providers in {out / 'sites'}")
    typer.echo(f"the truth, which no site holds, in {out / 'truth'}")


@network_app.command("key")
def network_key(
    file: Annotated[Path, typer.Argument(help="File to write; must not exist.")],
) -> None:
    """Make the key of a network's tokens; it goes to the sites and never to the coordinator."""
    from data_contracts.deidentification.policy import write_key

    write_key(file)
    typer.echo(f"{file}: hand it to every site of the network over a channel that you trust")


@data_app.command("list")
def data_list() -> None:
    """List the public data sets."""
    from data_contracts.public.registry import PUBLIC

    table = PrintedTable("name", "what it is", "rows", "licence")
    for name, dataset in PUBLIC.items():
        source = dataset.source
        table.add_row(name, source.title, f"{source.rows:,}", source.licence)
    Console().print(table)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="Name of a public data set.")],
    origin: Annotated[
        Path | None, typer.Option("--from", help="Take the files from this folder, no network.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="Folder to put them; data/NAME unless given.")
    ] = None,
) -> None:
    """Fetch a public data set from its publisher, checked against a pinned SHA-256."""
    from data_contracts.public.fetch import fetch
    from data_contracts.public.registry import PUBLIC
    from experiments.federation_data import default_source
    from experiments.progress import Reporter

    if name not in PUBLIC:
        raise GroundTruthError(f"there is no data set {name!r}; known are {', '.join(PUBLIC)}")
    source = PUBLIC[name].source
    target = into or default_source(name)
    with Reporter().steps(f"Fetching {name}", sum(file.size for file in source.files)) as steps:
        files = fetch(source, target, origin=origin, progress=lambda _, done, __: steps.reach(done))
    for file in files:
        typer.echo(f"{file}")
    typer.echo(f"Licence: {source.licence}\nCite: {source.citation}")


@contracts_app.command("export")
def contracts_export(
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("contracts"),
) -> None:
    """Write every contract as an Open Data Contract Standard document."""
    from data_contracts.odcs import export

    for file in export(out):
        typer.echo(f"{file}")


@contracts_app.command("diff")
def contracts_diff(
    old: Annotated[Path, typer.Argument(help="The earlier YAML document.")],
    new: Annotated[Path, typer.Argument(help="The later one.")],
) -> None:
    """Tell what changed between two documents of a contract, and whether its version suffices."""
    from data_contracts.compatibility import changes, check_versions, needed
    from data_contracts.odcs import read

    before, after = read(old), read(new)
    found = changes(before, after)
    for change in found:
        typer.echo(f"{change.level.name.lower():5}  {change.place}: {change.words}")
    check_versions(before, after)
    typer.echo(
        f"{after['name']} {before['version']} -> {after['version']}: enough, as "
        f"{needed(found).name.lower()} is needed"
    )


def _run(
    config: Any, out: Path | None, epsilon: str | None, overwrite: bool, resume: Path | None
) -> None:
    from dataclasses import replace

    from experiments.config import ENGINES
    from experiments.deployed_run import run_deployed
    from experiments.job import run_experiment
    from experiments.progress import Reporter
    from experiments.spool import tracking_store
    from experiments.words import print_results
    from federation.settings import ConfigError

    if overwrite and resume:
        raise ConfigError("--overwrite and --resume contradict each other; give one of them")
    if resume and out not in (None, resume):
        raise ConfigError("--resume names the run's folder; --out is for a new run")
    if overwrite and out is None:
        raise ConfigError("--overwrite needs the run's folder: name it with --out")
    if config.engine not in ENGINES:
        raise ConfigError(f"--engine must be one of {', '.join(ENGINES)}, not {config.engine!r}")
    if epsilon is not None:
        config = replace(config, privacy=replace(config.privacy, epsilon=number_or_none(epsilon)))
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = resume or out or RUNS / f"{now}-{config.name}"
    tracking = tracking_store(folder.parent)
    carry_out = run_deployed if config.engine == "deployment" else run_experiment
    try:
        results = carry_out(
            config,
            folder,
            if_present="overwrite" if overwrite else "resume" if resume else "refuse",
            tracking=tracking,
            reporter=Reporter(),
        )
    except KeyboardInterrupt:
        # Here, because Typer would end the command without a word.
        typer.echo(
            f"interrupted; go on with `groundtruth run --resume {folder}`. Tasks that were "
            "finished are kept; what sites have released stays charged. Over a network's own "
            "sites the run goes on where it was, elsewhere the task that was going on starts again",
            err=True,
        )
        raise typer.Exit(130) from None
    print_results(results, folder, tracking, Console())


def main() -> None:
    """Entry point: exit code 2 for what the user can put right, 1 for what we must."""
    try:
        app()
    except GroundTruthError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except (FileExistsError, NotADirectoryError) as error:
        typer.echo(
            f"error: {error.filename}: a file stands where a folder belongs; move it elsewhere",
            err=True,
        )
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{error.strerror or error}", err=True)
        sys.exit(2)
    except Exception as error:
        if os.environ.get("GROUNDTRUTH_DEBUG"):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        typer.echo(
            f"internal error: {type(error).__name__} in {Path(frame.filename).name}, line "
            f"{frame.lineno}. This is our fault, not yours: please report it. "
            "GROUNDTRUTH_DEBUG=1 shows the details.",
            err=True,
        )
        sys.exit(1)
