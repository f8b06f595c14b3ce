"""How a forecast is told to people: tables and plain sentences."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.forecast.forecast import Forecast, TaskForecast
from experiments.forecast.releases import SITE_BITS, SUM_BITS, Release
from federation.promise import Promise
from models.resolution import MEASURED_KAPPA

_HEADINGS = ("rounds", "mu of\none", "share\nof mu²", "L2\nbound", "noise of\nall sites", "values")


def print_forecast(forecast: Forecast, console: Console) -> None:
    """Print a forecast."""
    facts = {
        "experiment": forecast.name,
        "patients": f"about {forecast.patients:,}: {forecast.basis}",
        "known": "from settings and public grids alone; no table was read",
    }
    if len(forecast.tasks) > 1:
        facts["promise"] = f"{len(forecast.tasks)} tasks together: {_promised(forecast.promise)}"
    noises = dict.fromkeys(task.noise for task in forecast.tasks)
    facts |= {"noise": "\n".join(noises), "take care": "\n".join(forecast.warnings)}
    console.print(_grid(facts))
    for task in forecast.tasks:
        console.print(Text(f"\n{task.task}: {task.question}", style="bold"))
        console.print(_releases(task))
        console.print(_grid(_facts(task, forecast)))


def _grid(facts: dict[str, str]) -> Table:
    """Facts under each other; empty ones are left out."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, fact in facts.items():
        if fact:
            grid.add_row(Text(name, style="bold"), Text(fact))
    return grid


def _releases(task: TaskForecast) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("step", "patients"):
        table.add_column(name, no_wrap=True)
    for name in _HEADINGS:
        table.add_column(name, justify="right", no_wrap=True)
    for release in task.releases:
        table.add_row(*_row(release))
    return table


def _row(release: Release) -> list[str]:
    return [
        release.step,
        release.patients.replace("_", " ")
        + (f", {release.sample_rate:.3g} of them" if release.sample_rate < 1 else ""),
        str(release.rounds),
        _figure(release.mu, ".4g"),
        _figure(release.share, ".1%"),
        _figure(release.sensitivity, ".4g"),
        _figure(release.noise_std, ".4g"),
        _figure(release.values, ",d"),
    ]


def _figure(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)


def _facts(task: TaskForecast, forecast: Forecast) -> dict[str, str]:
    return {
        "who": _who(task),
        "traffic": _traffic(task),
        "bounds": _bounds(task),
        "promise": _promised(task.promise),
        "resolution": _resolution(task),
        "loss": _loss(task),
        "exactness": _exactness(task, forecast),
        "take care": "\n".join(task.warnings),
    }


def _who(task: TaskForecast) -> str:
    sites = f"{task.sites} {task.trained_by}" + "s" * (task.sites > 1)
    vanish = f"{task.dropouts} may vanish, no round counts below {task.minimum_sites}"
    words = f"{sites}; {vanish if task.dropouts else 'none may vanish'}"
    if task.secure_sum:
        return f"{words}; {task.colluders} may tell the coordinator their noise; secure sums"
    return f"{words}; no secure sums"


def _traffic(task: TaskForecast) -> str:
    retries = f", {task.retries} more if sites vanish" if task.retries else ""
    return (
        f"a site sends {task.bytes_per_site:,} bytes at most in {task.rounds} rounds; "
        f"{task.exchanges} exchanges with the greeting{retries}"
    )


def _bounds(task: TaskForecast) -> str:
    sums = [release.sum_bits for release in task.releases if release.sum_bits is not None]
    own = [release.site_bits for release in task.releases if release.site_bits is not None]
    if not sums:
        return ""
    return (
        "values, L2 bounds and noise are at most so large, as rare levels get no column\n"
        f"no sum passes 2^{max(sums):.1f} of 2^{SUM_BITS} units, no site's own "
        f"2^{max(own):.1f} of 2^{SITE_BITS}"
    )


def _promised(promise: Promise) -> str:
    if promise.epsilon is None:
        return "none"
    return (
        f"epsilon = {promise.epsilon:.3g} for a patient at one site, "
        f"{promise.epsilon_at_multiplicity:.3g} at {promise.multiplicity} sites, "
        f"{promise.epsilon_if_all_others_collude:.3g} at one site if all others collude; "
        f"delta = {promise.delta:g}"
    )


def _resolution(task: TaskForecast) -> str:
    at, advised = task.resolution, task.advised
    if at is None or advised is None:
        return "" if task.family == "additive" else f"network of {task.parameters:,} parameters"
    call = ""
    if advised.knots != at.knots:
        words = "calls for" if advised.knots < at.knots else "leaves room for"
        call = f", and kappa {words} {advised.knots}"
    return (
        f"additive model with {at.knots} knots{call}\n"
        f"kappa = columns / (mu x training patients) = {at.columns} / ({task.mu_of_sum:.3f} x "
        f"{task.train_patients:,}) = {at.kappa:.2g}: public numbers, mu by the noise of all sites"
    )


def _loss(task: TaskForecast) -> str:
    if task.family != "additive":
        return "not known: what noise takes from a network has not been measured by rule"
    if task.resolution is None or (loss := task.expected_loss) is None:
        return ""
    least = "about" if task.resolution.kappa <= MEASURED_KAPPA else "more than"
    return (
        f"noise takes {least} {loss.mean:.4f} of AUROC (mean of the tasks that were measured at "
        f"such a kappa; {loss.worst:.4f} for the worst)"
    )


def _exactness(task: TaskForecast, forecast: Forecast) -> str:
    error = task.standard_error
    training = "not known" if error.training_noise is None else f"{error.training_noise:.4f}"
    return (
        f"AUROC's standard error {error.total:.4f}: {task.held_out_patients:,} held-out patients "
        f"{error.sampling:.4f}, noise in the model {training}, in the evaluation "
        f"{error.evaluation_noise:.4f} (for an AUROC of {forecast.auroc:g} and a rarer label of "
        f"{forecast.base_rate:.1%})"
    )
