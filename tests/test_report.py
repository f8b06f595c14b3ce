"""The run report, from results that a small experiment on simulated requests computes."""

import copy
import json
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from experiments import report
from experiments.report import ReportError, render
from experiments.report.findings import ladder, miscalibration, odds_ratio
from experiments.report.gains import by_site, site_gains

ABSENT = "not assessed"
HOSTILE = "</td><script>alert('$x$')</script><img src=https://example.org/a.png>\"&"
SERVICES = [
    "Imaging",
    "Infusion drug",
    "Spine surgery",
    "Physical therapy",
    "Genetic test",
    "Durable equipment",
    "Inpatient rehab",
    "Home health",
    "Sleep study",
]
LINES = ["Medicare Advantage", "Medicaid", "Commercial"]
DELTA = 1e-5
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


# A small experiment: every number of the example is computed ------------------------------------


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


def delta_of(epsilon: float, mu: float) -> float:
    phi = NormalDist().cdf
    return phi(-epsilon / mu + mu / 2) - math.exp(epsilon) * phi(-epsilon / mu - mu / 2)


def epsilon_of(mu: float) -> float:
    low, high = 0.0, 200.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle, mu) > DELTA else (low, middle)
    return high


def scores(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    line = LogisticRegression(C=1e6).fit(logit(p)[:, None], y)
    return {
        "auroc": float(roc_auc_score(y, p)),
        "auprc": float(average_precision_score(y, p)),
        "brier": float(brier_score_loss(y, p)),
        "calibration_slope": float(line.coef_[0, 0]),
        "calibration_intercept": float(line.intercept_[0]),
    }


def bins_of(y: np.ndarray, p: np.ndarray, number: int = 12) -> list[dict[str, float]]:
    place = np.minimum((p * number).astype(int), number - 1)
    return [
        {
            "mean_score": float(p[place == b].mean()),
            "observed": float(y[place == b].mean()),
            "rows": int((place == b).sum()),
        }
        for b in range(number)
        if (place == b).any()
    ]


def around(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def evaluation_of(y: np.ndarray, p: np.ndarray) -> dict[str, Any]:
    """As `models.evaluation` would say it, with one level that is hidden."""
    stratum = {
        "rows": around(float(y.size), 30.0),
        "positives": around(float(y.sum()), 30.0),
        "observed": around(float(y.mean()), 0.01),
        "predicted": around(float(p.mean()), 0.01),
        "gap": around(float(y.mean() - p.mean()), 0.02),
        "auroc": around(float(roc_auc_score(y, p)), 0.02),
    }
    exact = scores(y, p)
    return {
        "patients": around(y.size * 0.6, 20.0),
        "overall": stratum,
        "auprc": around(exact["auprc"], 0.02),
        "brier": around(exact["brier"], 0.01),
        "calibration_slope": around(exact["calibration_slope"], 0.1),
        "calibration_intercept": around(exact["calibration_intercept"], 0.1),
        "calibration_error": None,
        "reliability": [],
        "groups": {
            "sex": [
                {"level": "female", **stratum},
                {"level": HOSTILE, **stratum, "auroc": None},
                {"level": "missing", **dict.fromkeys(stratum)},
            ]
        },
    }


def experiment(n_sites: int = 10, n: int = 9000, mu: float = 0.719) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    weights = rng.dirichlet(np.full(n_sites, 3.0))
    site = rng.choice(n_sites, n, p=weights)
    risk = rng.beta(2, 3, n)
    documented = np.clip(rng.normal(0.7, 0.18, n), 0, 1)
    denials = rng.poisson(1.1, n).clip(0, 8)
    days = rng.gamma(2.0, 9.0, n).clip(1, 60)
    age = rng.normal(58, 17, n).clip(18, 95)
    service = rng.choice(len(SERVICES), n, p=np.arange(9, 0, -1) / 45)
    line = rng.choice(3, n, p=[0.4, 0.25, 0.35])
    effect_service = np.array([0.5, -0.8, -1.0, 0.6, -0.3, 0.1, -0.5, 0.4, 0.2])
    signal = (
        1.4 * np.sin(2.6 * risk)
        + 3.0 * (documented - 0.6)
        - 0.45 * np.sqrt(denials)
        - 0.9 * np.log(days / 12) * (line == 2)
        + effect_service[service]
        + np.array([0.3, -0.35, 0.0])[line]
        + 0.9 * (documented > 0.75) * (risk > 0.5)
        + rng.normal(0, 0.5, n_sites)[site]
    )
    y = (rng.random(n) < 1 / (1 + np.exp(-signal))).astype(int)
    test = rng.random(n) < 0.4

    numbers = {
        "risk_score": ("Risk score", None, risk),
        "documented": ("Share of elements documented", None, documented),
        "prior_denials": ("Denials in the year before", None, denials),
        "days_supply": ("Units requested", "days", days),
        "age": ("Age", "years", age),
    }
    blocks, slices, shapes = [], {}, []
    for name, (_, _, values) in numbers.items():
        knots = np.unique(np.quantile(values[~test], np.linspace(0, 1, 14)))
        tents = np.stack([np.interp(values, knots, row) for row in np.eye(len(knots))], axis=1)
        slices[name] = (sum(b.shape[1] for b in blocks), tents.shape[1], knots)
        blocks.append(tents)
    for name, values, levels in (("service", service, SERVICES), ("payer_line", line, LINES)):
        slices[name] = (sum(b.shape[1] for b in blocks), len(levels), levels)
        blocks.append(np.eye(len(levels))[values])
    design = np.concatenate([*blocks, np.eye(n_sites)[site]], axis=1)
    train = ~test
    additive = LogisticRegression(C=1.0, max_iter=400).fit(design[train], y[train])
    p0 = additive.predict_proba(design)[:, 1]
    hessian = (design[train] * (p0[train] * (1 - p0[train]))[:, None]).T @ design[train]
    sampling = np.linalg.inv(hessian + np.eye(len(hessian)))
    # One whitened release of the coefficients: noise of sensitivity / mu in the Hessian's metric.
    noise = sampling * (0.6 / mu) ** 2
    coefficients = rng.multivariate_normal(additive.coef_[0], noise)
    predict = {
        "federated_private": 1 / (1 + np.exp(-(design @ coefficients + additive.intercept_[0]))),
        "federated": 1
        / (1 + np.exp(-(design @ (additive.coef_[0] * 0.97) + additive.intercept_[0]))),
        "pooled_additive": p0,
    }
    plain = np.column_stack(
        [risk, documented, denials, days / 30, age / 50, blocks[-2], blocks[-1]]
    )
    predict["pooled_logistic"] = (
        LogisticRegression(max_iter=400).fit(plain[train], y[train]).predict_proba(plain)[:, 1]
    )
    trees = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.08, random_state=0)
    predict["pooled_gbdt"] = trees.fit(plain[train], y[train]).predict_proba(plain)[:, 1]
    alone = np.full(n, y[train].mean())
    for s in range(n_sites):
        own = site == s
        if len(set(y[own & train])) == 2:
            fit = LogisticRegression(C=0.3, max_iter=400).fit(plain[own & train], y[own & train])
            alone[own] = fit.predict_proba(plain[own])[:, 1]
    predict = {"local_only": alone, **predict}

    def auroc_at(s: int, p: np.ndarray) -> float | None:
        rows = test & (site == s)
        return float(roc_auc_score(y[rows], p[rows])) if len(set(y[rows])) == 2 else None

    for name, (start, width, places) in slices.items():
        values = coefficients[start : start + width]
        used = design[train, start : start + width].sum(axis=0)
        centre = float((values * used).sum() / used.sum())
        centring = np.eye(width) - used / used.sum()
        part = slice(start, start + width)
        std = np.sqrt(np.diag(centring @ (sampling + noise)[part, part] @ centring.T))
        titled = numbers.get(name, ({"service": "Service"}.get(name, "Payer line"), None, None))
        category = name in ("service", "payer_line")
        shapes.append(
            {
                "feature": name,
                "title": titled[0],
                "kind": "category" if category else "number",
                "unit": titled[1],
                "importance": float((np.abs(values - centre) * used).sum() / used.sum()),
                "x": None if category else [float(k) for k in places],
                "levels": list(places) if category else None,
                "log_odds": [float(v - centre) for v in values],
                "band": [float(1.96 * v) for v in std],
                "frequency": [float(v / used.sum()) for v in used],
            }
        )
    labels = {
        "local_only": "Each site alone",
        "federated_private": "Federated, private",
        "federated": "Federated, without noise",
        "pooled_additive": "Pooled additive",
        "pooled_logistic": "Pooled logistic",
        "pooled_gbdt": "Pooled boosted trees",
    }
    names = [
        f"payer-{s + 1:02d}" if s % 3 == 0 else f"provider-{s + 1:02d}" for s in range(n_sites)
    ]
    roles = ["payer" if s % 3 == 0 else "provider" for s in range(n_sites)]
    sizes = np.bincount(site, minlength=n_sites)
    steps = [
        ("histogram", 1, 0.05, 2.0),
        ("gram", 1, 0.35, 1.0),
        ("gradient", 12, 0.56, 1.47),
        ("recalibration", 1, 0.04, 2.0),
    ]
    return {
        "schema_version": 3,
        "run_id": "run-7f3a91c2",
        "created": "2026-03-01T09:30:12+00:00",
        "seconds": 41.7,
        "git_commit": "40787dc0b1e94f2ad5f0",
        "engine": "in-process",
        "seed": 7,
        "advisory": "Advisory only: scores inform a person who decides. They decide nothing.",
        "data": {
            "name": "small-network",
            "origin": "synthetic",
            "title": "A small synthetic network of payers and providers",
            "partition": "one site per simulated organisation",
            "licence": "Apache-2.0",
            "citation": "Generated by this project; method after Lou et al. 2012, https://doi.org/10.1145/2339530.2339556.",
            "fingerprint": "sha256:5c1d0f7e",
            "settings": {"sites": n_sites, "requests": n},
        },
        "sites": [
            {
                "name": names[s],
                "role": roles[s],
                "rows": {"pa_request": int(sizes[s]), "claim": int(3.4 * sizes[s])},
                "patients_declared": int(round(sizes[s] * 0.6, -2)),
                "rejected_rows": int(sizes[s] % 7),
            }
            for s in range(n_sites)
        ],
        "privacy": {
            "epsilon": epsilon_of(mu),
            "delta": DELTA,
            "mu": mu,
            "unit": "patient",
            "neighbouring": "add/remove",
            "max_records_per_patient": 4,
            "multiplicity": 3,
            "epsilon_at_multiplicity": epsilon_of(3 * mu),
            "epsilon_if_all_others_collude": epsilon_of(2 * mu),
            "noise": "discrete Gaussian noise shared among the sites and summed securely",
        },
        "warnings": [
            "provider-05 declared fewer patients than its table holds: the table counted."
        ],
        "tasks": {
            "approved": {
                "question": "Will the request be approved in full at its first decision?",
                "positive": "approved",
                "family": "additive",
                "run": "0f" * 16,
                "index_time": "the moment the request is received",
                "train_sites": names,
                "train_patients": int(train.sum() * 0.6),
                "train_rows": int(train.sum()),
                "test_rows": int(test.sum()),
                "base_rate": float(y[test].mean()),
                "privacy": {
                    "epsilon": epsilon_of(mu),
                    "delta": DELTA,
                    "unit": "patient",
                    "neighbouring": "add/remove",
                    "multiplicity": 3,
                    "epsilon_at_multiplicity": epsilon_of(3 * mu),
                    "mu": mu,
                    "noise_shares": 6,
                    "noise": "discrete Gaussian noise shared among the sites and summed securely",
                    "max_records_per_patient": 4,
                    "rounds": 15,
                    "upload_bytes_per_site": 412_345,
                    "releases": [
                        {
                            "step": step,
                            "rounds": rounds,
                            "sample_rate": 1.0,
                            "share": share,
                            "sensitivity": sensitivity,
                            "mu_per_round": mu * math.sqrt(share / rounds),
                            "patients": "train",
                            "noise_std": sensitivity / (mu * math.sqrt(share / rounds)),
                        }
                        for step, rounds, share, sensitivity in steps
                    ],
                },
                "ladder": [
                    {
                        "model": m,
                        "label": labels[m],
                        "private": m == "federated_private",
                        **scores(y[test], p[test]),
                    }
                    for m, p in predict.items()
                ],
                "evaluation": evaluation_of(y[test], predict["federated_private"][test]),
                "dropouts": [],
                "by_site": [
                    {
                        "site": names[s],
                        "role": roles[s],
                        "test_rows": int((test & (site == s)).sum()),
                        "base_rate": float(y[test & (site == s)].mean()),
                        "auroc": {
                            m: auroc_at(s, predict[m])
                            for m in ("local_only", "federated_private", "pooled_additive")
                        },
                    }
                    for s in range(n_sites)
                ],
                "reliability": {
                    m: bins_of(y[test], predict[m][test])
                    for m in ("federated_private", "pooled_additive")
                },
                "shapes": shapes,
                "seconds": {"train": 12.3, "baselines": 20.9},
            }
        },
        "files": {"report": "report.html", "results": "results.json", "mlflow": "mlflow.db"},
    }


# Reading a page back ------------------------------------------------------------------------------


class Page(HTMLParser):
    """Reads a page, and fails where its elements do not nest."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.headings: list[str] = []
        self.ids: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
            if tag == "th":
                assert given.get("scope") in ("row", "col")
        elif tag in ("h1", "h2", "h3", "h4"):
            self.headings.append("")
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "caption" in self.stack:
            self._caption += data
        elif "td" in self.stack or "th" in self.stack:
            self._rows[-1][-1] += data
        elif self.stack and self.stack[-1] in ("h1", "h2", "h3", "h4"):
            self.headings[-1] += data

    def table(self, start: str) -> list[list[str]]:
        rows = next(rows for caption, rows in self.tables.items() if caption.startswith(start))
        return [[" ".join(cell.split()) for cell in row] for row in rows]


@pytest.fixture(scope="session")
def computed() -> dict[str, Any]:
    return experiment()


@pytest.fixture
def results(computed: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(computed)


def page(results: dict[str, Any], folder: Path) -> tuple[str, Page]:
    text = render(results, folder / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def nulled(value: Any) -> Any:
    """The same tree without a single measured number."""
    if isinstance(value, dict):
        return {key: nulled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [nulled(inner) for inner in value]
    return None if isinstance(value, float) else value


def with_sites(results: dict[str, Any], number: int) -> dict[str, Any]:
    """The same results for fewer sites, or for more: copies under names of their own."""
    task = results["tasks"]["approved"]
    names = [f"site-{at:03d}" for at in range(number)]
    for owner, key, field in ((results, "sites", "name"), (task, "by_site", "site")):
        given = owner[key]
        owner[key] = [given[at % len(given)] | {field: name} for at, name in enumerate(names)]
    task["train_sites"] = names
    return results


def fixed(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", MINUS)


# What the page must be ----------------------------------------------------------------------------


def test_all_sections_are_there_and_ids_are_unique(results: dict[str, Any], tmp_path: Path) -> None:
    text, read = page(results, tmp_path)
    wanted = [
        "Scope",
        "Sites",
        "Data",
        "Privacy of the whole run",
        "Approved",
        "Ladder of baselines",
        "Calibration",
        "Site by site",
        "Shape functions",
        "Privacy spending",
        "Limits",
    ]
    assert [heading for heading in read.headings if heading in wanted] == wanted
    assert len(read.ids) == len(set(read.ids))
    tags = [tag for tag, _ in read.tags]
    for landmark in ("header", "nav", "main", "footer"):
        assert tags.count(landmark) == 1
    assert "a human decides" in text
    assert "not appropriateness" in text
    assert results["advisory"] in text


def test_tables_hold_the_results_to_their_rounding(results: dict[str, Any], tmp_path: Path) -> None:
    _, read = page(results, tmp_path)
    task = results["tasks"]["approved"]
    rows = read.table("Ladder")[1:]
    for row, entry in zip(rows, task["ladder"], strict=True):
        assert row[0].startswith(entry["label"])
        assert row[1:] == [
            fixed(entry["auroc"], 3),
            fixed(entry["auprc"], 3),
            fixed(entry["brier"], 3),
            fixed(entry["calibration_slope"], 2),
            fixed(entry["calibration_intercept"], 2),
        ]
    expected = {}
    for entry in task["by_site"]:
        alone, together = entry["auroc"]["local_only"], entry["auroc"]["federated_private"]
        gain = fixed(together - alone, 3)
        expected[entry["site"]] = [
            entry["role"],
            f"{entry['test_rows']:,}",
            fixed(100 * entry["base_rate"], 1) + "%",
            fixed(alone, 3),
            fixed(together, 3),
            gain if gain[0] == MINUS or float(gain) == 0 else "+" + gain,
        ]
    assert {row[0]: row[1:] for row in read.table("AUROC site by site")[1:]} == expected
    for row, site in zip(read.table("Sites")[1:], results["sites"], strict=True):
        assert row == [
            site["name"],
            site["role"],
            f"{site['rows']['claim']:,}",
            f"{site['rows']['pa_request']:,}",
            f"{site['patients_declared']:,}",
            str(site["rejected_rows"]),
        ]
    for row, release in zip(
        read.table("Privacy spending")[1:-1], task["privacy"]["releases"], strict=True
    ):
        assert row[1:3] == [str(release["rounds"]), fixed(100 * release["share"], 1) + "%"]
        for shown, key in zip(row[3:], ("mu_per_round", "sensitivity", "noise_std"), strict=True):
            assert float(shown.replace(",", "")) == float(f"{release[key]:.3g}")
    for name, model in (("federated_private", "Federated, private"), ("pooled_additive", "Pooled")):
        for row, entry in zip(
            read.table(f"Reliability of {model}")[1:], task["reliability"][name], strict=True
        ):
            assert row == [
                fixed(100 * entry["mean_score"], 1) + "%",
                fixed(100 * entry["observed"], 1) + "%",
                f"{entry['rows']:,}",
            ]


def test_what_was_measured_under_privacy_stands_with_its_intervals(
    results: dict[str, Any], tmp_path: Path
) -> None:
    text, read = page(results, tmp_path)
    measured = results["tasks"]["approved"]["evaluation"]
    rows = {row[0]: row[1] for row in read.table("Measured under privacy for")[1:]}
    area = measured["overall"]["auroc"]
    assert rows["AUROC"] == (
        f"{fixed(area['value'], 3)} {fixed(area['low'], 3)} to {fixed(area['high'], 3)}"
    )
    assert rows["Calibration error"] == "not enough data"
    assert f"the AUROC at {fixed(area['value'], 3)} (95 % interval {fixed(area['low'], 3)}" in text
    levels = read.table("Measured under privacy by sex")[1:]
    assert levels[1][0] == HOSTILE
    assert levels[1][5] == "not enough data"
    assert levels[2] == [
        "missing",
        "hidden: 10 or fewer as far as the noise tells, or needed to hide such a cell",
    ]
    measured["overall"]["auroc"] = None
    text, _ = page(results, tmp_path)
    assert "not enough data under the noise to say how good" in text


def test_promise_is_stated_with_its_unit_and_multiplicity(
    results: dict[str, Any], tmp_path: Path
) -> None:
    text, _ = page(results, tmp_path)
    privacy = results["tasks"]["approved"]["privacy"]
    assert f"ε = {privacy['epsilon']:.3g} (δ = 1 {TIMES} 10⁻⁵) per patient" in text
    assert f"{privacy['epsilon_at_multiplicity']:.3g} for one who stands at 3 sites" in text
    assert "412.3 kB" in text
    assert privacy["noise"] in text


def test_nothing_is_fetched(results: dict[str, Any], tmp_path: Path) -> None:
    text, read = page(results, tmp_path)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in read.tags}
    for tag, attributes in read.tags:
        assert "src" not in attributes
        target = attributes.get("href")
        if target and not target.startswith("#"):
            assert tag == "a"
            assert target == "https://doi.org/10.1145/2339530.2339556"
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "default-src 'none'" in text


def test_references_inside_drawings_resolve(results: dict[str, Any], tmp_path: Path) -> None:
    text, read = page(results, tmp_path)
    used = set(re.findall(r"url\(#([^)]+)\)", text))
    used |= {str(a["href"])[1:] for _, a in read.tags if str(a.get("href")).startswith("#")}
    assert used <= set(read.ids)
    assert not re.search(r"(?:fill|stroke): #", text)


def test_markup_in_names_stays_text(results: dict[str, Any], tmp_path: Path) -> None:
    results["warnings"].append(HOSTILE)
    results["data"]["citation"] = HOSTILE + " https://example.org/\"onclick='x'"
    results["sites"][0]["name"] = HOSTILE
    task = results["tasks"].pop("approved")
    results["tasks"][HOSTILE] = task
    task["by_site"][0]["site"] = HOSTILE
    task["ladder"][0]["label"] = HOSTILE
    for shape in task["shapes"]:
        shape["title"] = HOSTILE
        if shape["levels"]:
            shape["levels"][0] = HOSTILE
    _, read = page(results, tmp_path)
    tags = {tag for tag, _ in read.tags}
    assert not {"script", "img"} & tags
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)
    assert HOSTILE in read.table("Sites")[1][0]


def test_same_results_give_the_same_bytes(results: dict[str, Any], tmp_path: Path) -> None:
    first = render(results, tmp_path / "a" / "report.html").read_bytes()
    second = render(json.loads(json.dumps(results)), tmp_path / "b" / "report.html").read_bytes()
    assert first == second


def test_numbers_that_are_missing_are_not_assessed(results: dict[str, Any], tmp_path: Path) -> None:
    empty = nulled(results)
    empty["tasks"]["approved"]["shapes"] = []
    empty["git_commit"] = None
    text, read = page(empty, tmp_path)
    assert {cell for row in read.table("Ladder")[1:] for cell in row[1:]} == {ABSENT}
    assert {row[-1] for row in read.table("AUROC site by site")[1:]} == {ABSENT}
    assert "nan" not in re.sub(r"<[^>]*>", " ", text).lower().split()
    assert "None" not in text


def test_missing_and_infinite_numbers_among_others(results: dict[str, Any], tmp_path: Path) -> None:
    task = results["tasks"]["approved"]
    task["by_site"][0]["auroc"]["local_only"] = None
    task["by_site"][1]["auroc"]["federated_private"] = math.nan
    task["reliability"]["federated_private"][2]["observed"] = None
    task["reliability"] = {"pooled_additive": [], **task["reliability"]} | {"pooled_additive": []}
    task["ladder"][1]["brier"] = math.inf
    task["ladder"][-1]["auroc"] = None
    results["sites"][0]["patients_declared"] = None
    task["shapes"][0]["band"][0] = None
    task["shapes"][1]["log_odds"][3] = None
    text, read = page(results, tmp_path)
    rows = {row[0]: row for row in read.table("AUROC site by site")}
    assert rows[task["by_site"][0]["site"]][-1] == ABSENT
    assert rows[task["by_site"][1]["site"]][-2:] == [ABSENT, ABSENT]
    assert read.table("Sites")[1][-2] == ABSENT
    assert read.table("Reliability of Federated, private")[3][1] == ABSENT
    assert not any("Reliability of Pooled" in caption for caption in read.tables)
    assert "approved: Pooled boosted trees (not assessed)." in text
    assert f"2 {ABSENT}" in text


def test_run_without_privacy_says_so_loudly(results: dict[str, Any], tmp_path: Path) -> None:
    task = results["tasks"]["approved"]
    for key in ("epsilon", "mu", "epsilon_at_multiplicity"):
        task["privacy"][key] = results["privacy"][key] = None
    for release in task["privacy"]["releases"]:
        release["mu_per_round"] = release["noise_std"] = None
    task["ladder"] = [entry for entry in task["ladder"] if not entry["private"]]
    for entry in task["by_site"]:
        entry["auroc"]["federated_private"] = None
    text, read = page(results, tmp_path)
    assert text.count("No privacy: not for real data") >= 4
    assert "Learning together without privacy noise reached" in text
    assert "privately reached" not in text
    assert {row[3] for row in read.table("Privacy spending")[1:]} == {ABSENT}


def test_one_site(results: dict[str, Any], tmp_path: Path) -> None:
    _, read = page(with_sites(results, 1), tmp_path)
    assert len(read.table("Sites")) == 2
    assert len(read.table("AUROC site by site")) == 2


def test_two_hundred_sites_stay_small_and_quick(results: dict[str, Any], tmp_path: Path) -> None:
    large = with_sites(results, 200)
    start = time.perf_counter()
    text, read = page(large, tmp_path)
    assert time.perf_counter() - start < 10
    assert len(text.encode()) < 8_000_000
    assert len(read.table("AUROC site by site")) == 201
    assert "sites in between" in text


def test_figures_show_the_same_numbers_as_tables(results: dict[str, Any], tmp_path: Path) -> None:
    text, _ = page(results, tmp_path)
    wide = re.search(r'<svg role="img" aria-label="Dot plot.*?</svg>', text, re.S)
    assert wide
    written = re.findall(r"<text[^>]*>([^<]*)</text>", wide.group())
    for entry in results["tasks"]["approved"]["ladder"]:
        assert entry["label"] in written
        assert fixed(entry["auroc"], 3) in written


def test_sites_with_too_few_rows_are_neither_named_nor_drawn(
    results: dict[str, Any], tmp_path: Path
) -> None:
    entry = results["tasks"]["approved"]["by_site"][0]
    entry |= {"site": "tiny", "test_rows": 12, "base_rate": 0.75}
    results["tasks"]["approved"]["train_sites"].append("tiny")
    entry["auroc"] |= {"local_only": 0.1, "federated_private": 0.9}
    text, read = page(results, tmp_path)
    assert "1 had too few test rows to tell" in text
    assert read.table("AUROC site by site")[-1][0] == "tiny"
    assert "most of all tiny" not in text
    assert ">tiny</text>" not in text


def test_public_data_say_that_sites_are_a_partition(
    results: dict[str, Any], tmp_path: Path
) -> None:
    results["data"] |= {"origin": "public", "partition": "payer code", "citation": None}
    results["created"] = "yesterday"
    text, _ = page(results, tmp_path)
    assert "Sites are the partition of it named here, not organisations that took part" in text
    assert "Partition: payer code." in text
    assert "yesterday" in text


def test_rare_outcomes_few_models_and_unknown_sizes(
    results: dict[str, Any], tmp_path: Path
) -> None:
    task = results["tasks"]["approved"]
    task["ladder"] = [entry for entry in task["ladder"] if entry["model"] == "federated_private"]
    task["by_site"][0]["base_rate"] = None
    number = next(shape for shape in task["shapes"] if shape["kind"] == "number")
    number["frequency"] = number["frequency"][1:]
    number["unit"] = None
    for entry in task["reliability"]["federated_private"]:
        entry["mean_score"] /= 20
        entry["observed"] /= 20
    task["reliability"] = {"federated_private": task["reliability"]["federated_private"]}
    text, read = page(results, tmp_path)
    rate = task["reliability"]["federated_private"][0]["mean_score"]
    assert read.table("Reliability")[1][0] == fixed(100 * rate, 1) + "%"
    assert f"reached an AUROC of {fixed(task['ladder'][0]['auroc'], 3)}." in text
    assert {row[0]: row for row in read.table("AUROC site")}[task["by_site"][0]["site"]][
        3
    ] == ABSENT


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_keep_their_contrast(scheme: str) -> None:
    style = Path(report.__file__).with_name("style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    found = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", blocks[scheme == "dark"]))

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(found[one]), luminance(found[other])))
        return (high + 0.05) / (low + 0.05)

    for paper in ("surface", "raised", "tint", "warn"):
        for ink in ("text", "muted", "private"):
            assert contrast(ink, paper) >= 4.5, (ink, paper)
    for ink in ("private", "alone", "other"):
        assert contrast(ink, "surface") >= 3


def test_another_schema_version_is_refused(results: dict[str, Any], tmp_path: Path) -> None:
    results["schema_version"] = 2
    with pytest.raises(ReportError, match="schema version 2 and this report reads 3"):
        render(results, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


# What the sentences must say ----------------------------------------------------------------------


def test_ladder_sentence_takes_the_sign_of_each_difference(results: dict[str, Any]) -> None:
    task = results["tasks"]["approved"]
    entries = {entry["model"]: entry for entry in task["ladder"]}
    for model, auroc in (("local_only", 0.8), ("federated_private", 0.79), ("federated", 0.79)):
        entries[model]["auroc"] = auroc
    entries["pooled_gbdt"]["auroc"] = 0.85
    assert ladder(task) == (
        "Learning together privately reached an AUROC of 0.790, 0.010 below each site alone "
        "(0.800) and level with the same training without noise (0.790); the best model that needs "
        "all records in one place (Pooled boosted trees) reached 0.850."
    )


def test_sites_that_lost_are_named(results: dict[str, Any]) -> None:
    task = results["tasks"]["approved"]
    del task["by_site"][4:]
    pairs = ((0.7, 0.8), (0.8, 0.79), (0.75, 0.75), (0.7, None))
    for number, (entry, (alone, together)) in enumerate(zip(task["by_site"], pairs, strict=True)):
        entry["site"] = f"s{number}"
        entry["auroc"] = {"local_only": alone, "federated_private": together}
    task["train_sites"] = ["s0", "s1", "s2", "s3"]
    assert by_site(site_gains(task)) == (
        "1 of 3 training sites gained by joining, most of all s0 (+0.100); "
        f"1 lost: s1 ({MINUS}0.010); 1 stayed the same; 1 not assessed."
    )


def test_miscalibration_weighs_bins_by_their_rows() -> None:
    bins = [
        {"mean_score": 0.2, "observed": 0.3, "rows": 30},
        {"mean_score": 0.6, "observed": 0.5, "rows": 10},
        {"mean_score": 0.9, "observed": None, "rows": 50},
        {"mean_score": 0.9, "observed": 0.1, "rows": 0},
    ]
    assert miscalibration(bins) == pytest.approx(0.1)
    assert miscalibration([]) is None


def test_odds_ratio_spans_the_whole_curve() -> None:
    assert odds_ratio({"log_odds": [0.0, None, math.log(3), -math.log(2)]}) == pytest.approx(6)
    assert odds_ratio({"log_odds": []}) is None


def test_margin_is_hanley_and_mcneil(results: dict[str, Any]) -> None:
    # Their 1982 paper's worked example: AUROC 0.893 with 51 abnormal and 58 normal: SE 0.032.
    task = results["tasks"]["approved"]
    entry = task["by_site"][0]
    entry |= {"test_rows": 109, "base_rate": 51 / 109, "site": "radiology"}
    entry["auroc"]["federated_private"] = 0.893
    one = next(one for one in site_gains(task) if one.site == "radiology")
    assert one.margin is not None
    assert one.margin / 1.96 == pytest.approx(0.032, abs=0.001)
