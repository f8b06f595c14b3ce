"""What a run over a network's own sites tells its readers: page, terminal and MLflow.

The models are trained by the product's own apps in this process; servers have no part in what is
told of the result. The noise is drawn from a seed, so every run of these tests sees the same.
"""

import base64
import copy
import dataclasses
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mlflow
import polars as pl
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.console import Console

from data_contracts.manifest import SiteManifest
from data_contracts.network import site_folders
from experiments.config import ExperimentConfig
from experiments.deployed_run import _train, network_results
from experiments.participation import absence, missed_rounds, presence, took_part, why
from experiments.progress import Reporter
from experiments.report import deployed, formats, measured, render
from experiments.run_results import provenance, write_results
from experiments.words import print_results
from federation import client_app, server_app
from federation.checkpoint import CheckpointError, Dropout
from federation.deployment.members import Member
from federation.identity import REGISTRY_FILE
from federation.in_process import run_in_process
from federation.plan import RunPlan
from federation.results import read_result, write_result
from federation.settings import PrivacySettings
from federation.strategy import TrainingResult
from federation.tracking import log_run

Record = dict[str, Any]
PlanMaker = Callable[..., RunPlan]

# With so little privacy the small network's figures stand out of the noise; with the other, few do.
PLENTY, LITTLE = 40.0, 1.0
AWAY = (
    Dropout("provider-01", "gradient", 1, "provider-01: not online", back="gradient 3"),
    Dropout("provider-03", "recalibration", 1, "site provider-03: <b>no space left</b>"),
)


# Runs ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Runs:
    """Makes the results of runs over the small network, each trained once.

    Attributes:
        network: Folder of the network.
        make_plan: Makes plans over it.
        folder: Where the runs go.
    """

    network: Path
    make_plan: PlanMaker
    folder: Path

    def results(self, epsilon: float, *, dropouts: tuple[Dropout, ...] = ()) -> tuple[Path, Record]:
        """The folder of a run and what its results.json holds.

        Args:
            epsilon: What is promised.
            dropouts: Sites that were away; the second and the fifth round were repeated for them.
        """
        plan = self.make_plan(privacy=PrivacySettings(epsilon=epsilon), test_share=0.5)
        name = f"{epsilon:g}-{len(dropouts)}"
        run = self.folder / f"run-{name}"
        place = run / "tasks" / plan.task
        if not (run / "results.json").exists():
            trained = self._trained(plan, f"{epsilon:g}")
            if dropouts:
                rounds = [
                    dataclasses.replace(record, retries=int(number in (2, 5)))
                    for number, record in enumerate(trained.rounds)
                ]
                trained = dataclasses.replace(trained, rounds=tuple(rounds), dropouts=dropouts)
            place.mkdir(parents=True)
            # A network's plan has no seed: the noise is the sites' own.
            plan = dataclasses.replace(plan, noise_seed=None)
            (place / "plan.json").write_text(plan.to_json())
            (place / "seconds.json").write_text("12.5")
            write_result(place / "result.json", trained)
            config = ExperimentConfig(tasks=(plan.task,), privacy=plan.privacy)
            results = {
                **provenance(run, time.monotonic() - 20),
                **network_results(config, run, [plan], "demo", self._members()),
            }
            write_results(results, run, Reporter(quiet=True))
        return run, json.loads((run / "results.json").read_text())

    def _trained(self, plan: RunPlan, name: str) -> TrainingResult:
        file = self.folder / f"trained-{name}.json"
        if not file.exists():
            settings: dict[str, bool | float | int | str] = {
                "plan": plan.to_json(),
                "result": str(file),
                "registry": str(self.network / REGISTRY_FILE),
                "timeout": 30.0,
            }
            sites = self.network / "sites"
            nodes = [{"site": str(sites / site / "site.toml")} for site in plan.sites]
            run_in_process(server_app.app, client_app.app, nodes, settings)
        return read_result(file)

    def _members(self) -> dict[str, Member]:
        node = ec.generate_private_key(ec.SECP384R1()).public_key()
        line = node.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        key = base64.b64encode(bytes(32)).decode()
        manifests = [SiteManifest.load(folder) for folder in site_folders(self.network)]
        return {
            each.name: Member(
                *(each.name, each.role, 340 + 20 * number, key, line, {}, "1", date(2026, 3, 1))
            )
            for number, each in enumerate(manifests)
        }


@pytest.fixture(scope="module")
def runs(
    small_network: Path, make_plan: PlanMaker, tmp_path_factory: pytest.TempPathFactory
) -> Runs:
    return Runs(small_network, make_plan, tmp_path_factory.mktemp("deployed"))


@pytest.fixture
def told(runs: Runs) -> tuple[str, "Page", Record]:
    """The page of a run whose figures stand out of the noise, and its results."""
    folder, results = runs.results(PLENTY)
    text = (folder / "report.html").read_text()
    return text, Page(text), results


# Reading a page back ------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page says under each of its headings, table by table, drawing by drawing."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.under: dict[str, str] = {"": ""}  # before the first heading
        self.tables: dict[str, list[list[str]]] = {}
        self.drawn: list[str] = []
        self._heading = self._caption = ""
        self._within: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(text)
        self.close()
        del self.under[""]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "br"):
            return
        self._within.append(tag)
        if tag in ("h2", "h3"):
            self._heading = ""
        elif tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag == "svg":
            self.under[self._heading] += " [drawing] "

    def handle_endtag(self, tag: str) -> None:
        assert self._within.pop() == tag
        if tag in ("h2", "h3"):
            self.under.setdefault(self._heading, "")
        elif tag == "table":
            self.tables[self._caption] = [[" ".join(c.split()) for c in row] for row in self._rows]

    def handle_data(self, data: str) -> None:
        within = self._within
        if within and within[-1] in ("h2", "h3"):
            self._heading += data
        elif "svg" in within:
            if within[-1] == "text":
                self.drawn.append(data)
        elif "caption" in within:
            self._caption += data
        elif "main" in within:
            if "td" in within or "th" in within:
                self._rows[-1][-1] += data
            self.under[self._heading] += data

    def table(self, start: str) -> list[list[str]]:
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))


def numbers_of(tree: Any) -> Iterator[float]:
    """Every number of results.json."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        for inner in tree:
            yield from numbers_of(inner)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield tree


def estimate(value: float, low: float, high: float) -> Record:
    return {"value": value, "low": low, "high": high}


def with_interval(figure: Record, form: Callable[[float], str]) -> str:
    return f"{form(figure['value'])} {form(figure['low'])} to {form(figure['high'])}"


# The page -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [PLENTY, LITTLE])
def test_no_section_is_empty_and_none_is_there_that_takes_an_experiment(
    runs: Runs, epsilon: float
) -> None:
    text = (runs.results(epsilon)[0] / "report.html").read_text()
    page = Page(text)
    assert [heading for heading in page.under if heading != "Warnings"] == [
        *("Scope", "Sites", "Data", "Run", "Privacy of the whole run", "Approved"),
        *("How good the model is", "Calibration", "Shape functions", "Rounds"),
        *("Privacy spending", "Limits"),
    ]
    assert all(len(said.split()) > 5 for said in page.under.values())
    assert not re.search("not assessed[^”]", text, re.IGNORECASE)
    assert not re.search("measured exactly|held-out rows, as only|Licence|Seed<", text)
    assert "What did not run" not in text
    assert "which only an experiment has" in page.under["Data"]
    contents = re.findall(r'<li><a href="#([^"]+)">', text)
    assert {*contents} <= {*re.findall(r'id="([^"]+)"', text)}


def test_headline_is_what_the_sites_were_asked_privately(told: tuple[str, Page, Record]) -> None:
    text, page, results = told
    area = results["tasks"]["approved"]["evaluation"]["overall"]["auroc"]
    value, low, high = (formats.decimal(area[end]) for end in ("value", "low", "high"))
    assert f"{value} <small>95 % interval {low} to {high}</small>" in text
    assert f"{value} (95 % interval {low} to {high})" in page.under["How good the model is"]


def test_figures_stand_with_their_intervals_and_subgroups_are_drawn(
    told: tuple[str, Page, Record],
) -> None:
    _, page, results = told
    asked = results["tasks"]["approved"]["evaluation"]
    rows = dict(row for row in page.table("Measured under privacy for") if len(row) == 2)
    assert rows["AUROC"] == with_interval(asked["overall"]["auroc"], formats.decimal)
    assert rows["Rows"] == with_interval(asked["overall"]["rows"], formats.count)
    assert rows["Calibration error"] == with_interval(asked["calibration_error"], formats.percent)
    drawn = [
        level for levels in asked["groups"].values() for level in levels if level["gap"] is not None
    ]
    assert drawn
    for level in drawn:
        assert level["level"] in page.drawn
        assert formats.signed(100 * level["gap"]["value"], 1) in page.drawn


def test_every_number_in_a_table_stands_in_the_results(told: tuple[str, Page, Record]) -> None:
    _, page, results = told
    forms = (formats.decimal, formats.percent, formats.count, formats.significant)
    known = {form(number) for number in numbers_of(results) for form in forms}
    shown = [
        number
        for rows in page.tables.values()
        for row in rows[1:]
        for cell in row[1:]
        for number in re.findall("\N{MINUS SIGN}?[0-9][0-9,.]*%?", cell)
        if "hidden: 10 or fewer" not in cell
    ]
    assert len(shown) > 60
    assert {*shown} <= known


def test_no_sites_exact_count_is_told(told: tuple[str, Page, Record], runs: Runs) -> None:
    text, _, results = told
    exact = set()
    for folder in site_folders(runs.network):
        for path in SiteManifest.load(folder).tables.values():
            rows = pl.scan_parquet(path / "*.parquet")
            exact.add(rows.select(pl.len()).collect().item())
            if "patient_token" in rows.collect_schema():
                exact.add(rows.select(pl.col("patient_token").n_unique()).collect().item())
    assert len(exact) > 10
    # Noisy figures may hit a count by chance: the evaluation is left out, and so are tables, whose
    # numbers are held against the results.
    del results["tasks"]["approved"]["evaluation"]
    assert not exact & {*numbers_of(results)}
    aside = "<style.*?</style>|<svg.*?</svg>|<table.*?</table>|<[^>]*>"
    visible = re.sub(aside, " ", text, flags=re.DOTALL)
    shown = re.findall("(?<![0-9.,-])[0-9][0-9,]*(?![0-9.,%-])", visible)
    assert not {f"{number:,}" for number in exact} & {*shown}
    assert all(site["rows"] == {} for site in results["sites"])


def test_scope_says_whose_data_they_are_and_who_took_part(told: tuple[str, Page, Record]) -> None:
    _, page, _ = told
    # The payers come first, so the providers declared 380, 400 and 420.
    assert (
        page.under["Scope"]
        .strip()
        .startswith(
            "3 of the network's 5 sites (3 providers) took part, each with tables of its own that "
            "nobody else has seen; they declared 1,200 patients."
        )
    )
    assert [row[:4] for row in page.table("Sites: what they declared")[1:]] == [
        ["payer-1", "payer", "340", "does not train it"],
        ["payer-2", "payer", "360", "does not train it"],
        ["provider-01", "provider", "380", "every round"],
        ["provider-02", "provider", "400", "every round"],
        ["provider-03", "provider", "420", "every round"],
    ]
    assert "every site was in every sum" in page.under["Rounds"]


def test_sites_that_were_away_are_told_with_when_and_why(runs: Runs) -> None:
    folder, results = runs.results(PLENTY, dropouts=AWAY)
    text = (folder / "report.html").read_text()
    page = Page(text)
    presence = {row[0]: row[3] for row in page.table("Sites: what they declared")[1:]}
    assert presence["provider-01"] == "left at gradient 1, took part again from gradient 3"
    assert presence["provider-02"] == "every round"
    assert page.table("Sites that were away")[1:] == [
        ["provider-01", "left at gradient 1, took part again from gradient 3", "not online"],
        ["provider-03", "left at recalibration 1", "site provider-03: <b>no space left</b>"],
    ]
    assert (
        "2 rounds had to be repeated; 2 sites missed rounds, and 1 of them came back."
        in (page.under["Rounds"])
    )
    assert {"provider-01", "provider-03"} <= {*page.drawn}
    assert (
        "Task approved: site provider-01 left at gradient 1, took part again from gradient 3 "
        "(not online)." in results["warnings"]
    )
    assert "<b>" not in text


def test_where_the_noise_drowns_the_figures_the_page_says_so_and_draws_none(runs: Runs) -> None:
    folder, results = runs.results(LITTLE)
    assert results["tasks"]["approved"]["evaluation"]["overall"]["auroc"] is None
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert "unknown <small>not enough data under the noise</small>" in text
    assert "No subgroup has enough data" in page.under["Calibration"]
    assert "[drawing]" not in page.under["Calibration"]
    assert "[drawing]" in page.under["Rounds"]


def test_same_results_give_the_same_bytes(runs: Runs, tmp_path: Path) -> None:
    folder, results = runs.results(PLENTY, dropouts=AWAY)
    again = render(results, tmp_path / "report.html").read_bytes()
    assert again == (folder / "report.html").read_bytes()


def test_reliability_is_drawn_where_two_ranges_of_scores_can_be_told() -> None:
    hidden = {"observed": None, "predicted": None}
    bins = [
        {"observed": estimate(0.21, 0.15, 0.27), "predicted": estimate(0.2, 0.19, 0.21)},
        {"observed": None, "predicted": estimate(0.4, 0.39, 0.41)},
        {"observed": estimate(0.66, 0.6, 0.72), "predicted": estimate(0.7, 0.69, 0.71)},
    ]
    drawing = measured.reliability([hidden, *bins], "r")
    assert drawing is not None
    assert 'aria-label="Observed against predicted rate: 21% at 20%, 66% at 70%"' in drawing
    # The axes end at the tenths around what is drawn: 15 % to 72 %.
    assert {"20%", "60%"} <= {*re.findall("<text[^>]*>([^<]*)</text>", drawing)}
    assert measured.reliability(bins[:2], "r") is None


def test_of_very_many_subgroups_and_absences_some_are_drawn_and_the_rest_counted(
    runs: Runs, tmp_path: Path
) -> None:
    results = copy.deepcopy(runs.results(PLENTY)[1])
    task = results["tasks"]["approved"]
    level = next(each for each in task["evaluation"]["groups"]["sex"] if each["gap"])
    task["evaluation"]["groups"] = {
        "provider_group_id": [
            level | {"level": f"group-{number:02d}", "rows": estimate(number, 0, 99)}
            for number in range(40)
        ]
    }
    task["train_sites"] = [f"site-{number:02d}" for number in range(14)]
    task["dropouts"] = [
        dataclasses.asdict(Dropout(site, "gram", 1, f"{site}: not online"))
        for site in task["train_sites"]
    ]
    page = Page(render(results, tmp_path / "report.html").read_text())
    drawn = {text for text in page.drawn if text.startswith("group-")}
    assert drawn == {f"group-{number:02d}" for number in range(10, 40)}
    assert "The 30 levels with most rows of 40 are drawn." in page.under["Calibration"]
    assert {text for text in page.drawn if text.startswith("site-")} == {
        f"site-{number:02d}" for number in range(12)
    }
    assert "the first 12 of 14 sites that were away" in page.under["Rounds"]
    assert len(page.table("Sites that were away")) == 15


# What the sentences must say ----------------------------------------------------------------------


def test_calibration_names_what_was_told_and_leaves_out_what_was_not() -> None:
    figures = {
        "calibration_slope": estimate(0.93, 0.8, 1.06),
        "calibration_intercept": None,
        "calibration_error": estimate(0.021, 0.0, 0.043),
    }
    assert deployed.calibration({"evaluation": figures}) == (
        "Predicted against observed, with 95 % intervals: slope 0.93 (0.80 to 1.06) and 2.1 "
        "percentage points off in the root mean square (0.0 to 4.3)."
    )
    nothing = dict.fromkeys(figures)
    assert "not enough data" in deployed.calibration({"evaluation": nothing})


def test_subgroups_are_named_where_the_interval_excludes_no_difference() -> None:
    levels = [
        {"level": "female", "gap": estimate(0.034, 0.011, 0.057)},
        {"level": "male", "gap": estimate(-0.01, -0.03, 0.01)},
        {"level": "missing", "gap": None},
    ]
    task = {"evaluation": {"groups": {"sex": levels}}}
    assert deployed.subgroups(task) == (
        "Of 2 subgroups with enough data, 1 is off by more than the 95 % interval allows for: sex "
        "female (+3.4 percentage points). By chance alone, one in 20 would be."
    )
    del levels[0]
    assert "none is off" in deployed.subgroups(task)


def test_a_site_is_away_from_the_round_it_missed_to_the_one_it_was_back_in() -> None:
    steps = ("histogram", 1), ("gram", 1), ("gradient", 1), ("gradient", 2), ("evaluation", 1)
    left = [
        Dropout("a", "hello", 1, "a: not online within 900 s"),
        Dropout("b", "gram", 1, "b: not online", back="gradient 2"),
        Dropout("b", "evaluation", 1, "b: Error: Node Unavailable."),
        Dropout("c", "resume", 3, "c: not online within 900 s"),
    ]
    task = {
        "train_sites": ["a", "b", "c", "d"],
        "rounds": [{"step": step, "round": number} for step, number in steps],
        "dropouts": [dataclasses.asdict(each) for each in left],
    }
    assert took_part(task) == ["b", "c", "d"]
    assert missed_rounds(task, "a") == [(0, 5)]
    assert missed_rounds(task, "b") == [(1, 3), (4, 5)]
    assert missed_rounds(task, "c") == [(2, 5)]
    assert missed_rounds(task, "d") == []
    told = {site: presence(task, site) for site in "abcde"}
    assert told == {
        "a": "did not come",
        "b": "left at gram 1, took part again from gradient 2; left at evaluation 1",
        "c": "not back when the run went on at its round 3",
        "d": "every round",
        "e": "does not train it",
    }
    assert why(task["dropouts"][1]) == "not online"
    assert why(task["dropouts"][2]) == "Node Unavailable"
    assert absence(task["dropouts"][0]) == "did not come"


@pytest.mark.parametrize(
    ("quorum", "least", "words"),
    [
        (None, 3, "All 3 sites had to come before the first round and to be in every sum"),
        (None, 2, "2 of 3 sites had to come before the first round and to be in every sum"),
        (1, 2, "2 of 3 sites had to come before the first round and to be in every sum"),
        (3, 2, "3 of 3 sites had to come before the first round, and 2 had to be in every sum"),
    ],
)
def test_quorum_is_never_below_what_the_noise_needs(
    runs: Runs, quorum: int | None, least: int, words: str
) -> None:
    results = copy.deepcopy(runs.results(PLENTY)[1])
    results["config"]["deployment"]["quorum"] = quorum
    task = results["tasks"]["approved"]
    task["privacy"]["minimum_sites"] = least
    assert deployed.needed(results, task).startswith(words)


# Terminal and MLflow ------------------------------------------------------------------------------


def test_terminal_tells_private_figures_and_who_was_left_out_in_80_columns(runs: Runs) -> None:
    _, results = runs.results(PLENTY, dropouts=AWAY)
    out = io.StringIO()
    print_results(results, Path("runs/r"), "sqlite:///m.db", Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    said = " ".join(text.split())
    area = results["tasks"]["approved"]["evaluation"]["overall"]["auroc"]
    assert f"AUROC │ {area['value']:.3f} │ {area['low']:.3f} to {area['high']:.3f}" in said
    assert "3 of 3 sites took part, which declared 1,200 patients" in said
    assert "site provider-01 left at gradient 1, took part again from gradient 3 (not online)" in (
        said
    )
    assert "epsilon = 40 at one site" in said
    assert "runs/r/report.html" in said
    assert "exactly" not in said


def test_terminal_says_where_there_are_not_enough_data(runs: Runs) -> None:
    _, results = runs.results(LITTLE)
    out = io.StringIO()
    print_results(results, Path("runs/r"), "sqlite:///m.db", Console(file=out, width=80))
    assert "AUROC │ not enough data │" in " ".join(out.getvalue().split())


def test_mlflow_holds_private_estimates_with_their_intervals_and_the_model(
    runs: Runs, tmp_path: Path
) -> None:
    folder, results = runs.results(PLENTY)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    try:
        run = log_run(results, folder, store)
        client = mlflow.MlflowClient()
        metrics = client.get_run(run).data.metrics
        asked = results["tasks"]["approved"]["evaluation"]
        figures = {"auroc": asked["overall"]["auroc"], "brier": asked["brier"]}
        for name, figure in figures.items():
            found = [metrics[f"approved.evaluation.{name}{end}"] for end in ("", ".low", ".high")]
            assert found == [figure["value"], figure["low"], figure["high"]]
        experiment = client.get_run(run).info.experiment_id
        children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run}'")
        assert {
            child.data.tags["site"]: (child.data.params, child.data.metrics) for child in children
        } == {
            site["name"]: (
                {"role": site["role"], "patients_declared": str(site["patients_declared"])},
                {},
            )
            for site in results["sites"]
        }
        assert client.get_model_version_by_alias("groundtruth-approved", "candidate")
    finally:
        mlflow.set_tracking_uri(None)


# --- going on -------------------------------------------------------------------------------------


def test_a_task_is_not_begun_anew_and_charged_anew_because_the_members_have_changed(
    make_plan: PlanMaker, tmp_path: Path
) -> None:
    begun = make_plan(noise_seed=None)
    place = tmp_path / "tasks" / begun.task
    place.mkdir(parents=True)
    (place / "plan.json").write_text(begun.to_json())
    (place / "checkpoint.json").write_text("what the sites were charged for")
    now = dataclasses.replace(begun, patients=dict.fromkeys(begun.sites, 710))
    nobody: Any = None  # no site is asked
    config, quiet = ExperimentConfig(tasks=(now.task,)), Reporter(quiet=True)
    with pytest.raises(CheckpointError, match="with another plan than the one of today"):
        _train(now, nobody, config, tmp_path, quiet)
    assert (place / "checkpoint.json").read_text() == "what the sites were charged for"
