"""What a site's people see of the app bundles that were offered, and how they decide."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from data_contracts.manifest import SiteManifest
from experiments.cli import app
from experiments.site_apps import print_app, print_apps, site_apps
from federation.deployment.bundles import Bundle, installed_bundle
from federation.deployment.consent import Consent, ConsentError
from federation.plan import RunPlan

PlanMaker = Callable[..., RunPlan]
BundleMaker = Callable[..., Bundle]


@pytest.fixture
def folder(provider_folders: list[Path], tmp_path: Path) -> Path:
    SiteManifest.load(provider_folders[0]).write(tmp_path)
    return tmp_path


@pytest.fixture
def consent(folder: Path) -> Consent:
    return Consent(folder / "site.toml")


def typed(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["site", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def printed(show: Callable[[Console], None], width: int = 80) -> str:
    out = io.StringIO()
    show(Console(file=out, width=width))
    return out.getvalue()


def test_the_installed_release_is_approved_by_name_and_shown_as_such(folder: Path) -> None:
    sha256 = installed_bundle().sha256
    assert "no app bundle was offered yet" in typed("apps", folder)
    assert typed("approve", folder, "--installed") == f"approved: {sha256}\n"
    (shown,) = site_apps(folder)
    assert (shown.sha256, shown.decision, shown.installed) == (sha256, "approved", True)
    assert shown.changes == ()
    assert shown.plan == {}
    told = typed("apps", folder)
    assert sha256[:16] in told
    assert "installed" in told
    assert typed("reject", folder, sha256[:12]) == f"rejected: {sha256}\n"
    assert site_apps(folder)[0].decision == "rejected"


def test_one_bundle_is_decided_on_at_a_time(folder: Path) -> None:
    for arguments in (["approve", folder], ["approve", folder, "a" * 64, "--installed"]):
        done = CliRunner().invoke(app, ["site", *map(str, arguments)])
        assert isinstance(done.exception, ConsentError)
        assert "or say --installed" in str(done.exception)


def test_people_see_what_a_run_asks_for_and_what_its_app_changes(
    folder: Path, consent: Consent, make_plan: PlanMaker, bundle_of: BundleMaker
) -> None:
    plan = make_plan(noise_seed=None)
    old, new = bundle_of("return 1"), bundle_of("return 2", **{"models/new.py": "x = 1\n"})
    consent.decide(consent.add(old).sha256, "approved")
    consent.offer(new, plan.to_json())
    shown = next(each for each in site_apps(folder) if each.sha256 == new.sha256)
    assert not shown.installed
    assert [(each.file, each.kind) for each in shown.changes] == [
        ("federation/client_app.py", "changed"),
        ("models/new.py", "added"),
    ]
    assert shown.plan["task"] == "approved"
    assert shown.plan["epsilon"] == pytest.approx(3.0, rel=1e-3)
    assert shown.plan["rounds"] == sum(step.rounds for step in plan.steps.values())
    told = typed("apps", folder, new.sha256[:8])
    assert f"2 files differ from approved bundle {old.sha256[:16]}" in told
    assert "-    return 1\n+    return 2\n" in told
    as_json = json.loads(typed("apps", folder, "--json"))
    assert {each["sha256"] for each in as_json} == {old.sha256, new.sha256}


@pytest.mark.parametrize("plan", ["", "no plan", "[" * 50_000, '{"task": "approved"}', "5"])
def test_a_plan_that_cannot_be_read_is_said_to_be_one(
    folder: Path, consent: Consent, bundle_of: BundleMaker, plan: str
) -> None:
    consent.offer(bundle_of(), plan)
    (shown,) = site_apps(folder)
    assert (shown.plan == {}) == (plan == "")
    assert all("cannot be read here" in told for told in shown.plan.values())
    typed("apps", folder)
    typed("apps", folder, shown.sha256)


def test_what_a_run_says_can_neither_steer_the_terminal_nor_its_colours(
    folder: Path, consent: Consent, make_plan: PlanMaker, bundle_of: BundleMaker
) -> None:
    evil = "[/bold]\x1b[2J\x1b]0;x\x07\u202e"
    plan = json.loads(make_plan(noise_seed=None).to_json())
    plan["sites"] = [evil, *plan["sites"][1:]]
    consent.offer(bundle_of(f"x = {evil!r}", **{"a.py": f"# {evil}\n"}), json.dumps(plan))
    consent.offer(bundle_of("return 1"), json.dumps({evil: 1}))
    apps = site_apps(folder)
    texts = [printed(lambda console: print_apps(apps, console))]
    for each in apps:
        sha256 = each.sha256
        texts.append(printed(lambda console, to=sha256: print_app(folder, apps, to, console)))
    for text in texts:
        assert not {sign for sign in text if not (sign.isprintable() or sign == "\n")}
    assert any("[/bold]" in text for text in texts)


def test_a_long_line_is_shown_to_its_end(
    folder: Path, consent: Consent, bundle_of: BundleMaker
) -> None:
    code = f"x = 1{' ' * 500}; steal()"
    consent.offer(bundle_of(**{"a.py": f"{code}\n"}), "")
    (app_shown,) = site_apps(folder)
    told = printed(lambda console: print_app(folder, [app_shown], app_shown.sha256, console))
    assert f"+{code}" in told


def test_a_bundle_that_the_site_does_not_know_is_not_shown(folder: Path) -> None:
    with pytest.raises(ConsentError, match="0 app bundles of this site begin with 'abc'"):
        print_app(folder, site_apps(folder), "abc", Console())
