"""What a site's people see of the app bundles that were offered to it, and how they decide."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_contracts.errors import GroundTruthError
from data_contracts.manifest import MANIFEST_NAME
from federation.deployment.bundles import Bundle, Change, changes, difference, installed_bundle
from federation.deployment.consent import Consent, ConsentError, Offer
from federation.plan import RunPlan
from federation.printable import printable
from federation.promise import promise


@dataclass(frozen=True, slots=True)
class App:
    """An app bundle, as a person judges it.

    Attributes:
        sha256: Its SHA-256.
        decision: "approved", "rejected" or "undecided".
        seen: When it was offered first, UTC.
        decided: When, UTC; "" if not yet.
        by: Who decided.
        installed: Whether it is, file by file, the release that is installed here.
        changes: What it changes against the bundle that was approved last, or, where none was,
            against the installed release.
        plan: What the run that brought it last asks for; empty if none has.
    """

    sha256: str
    decision: str
    seen: str
    decided: str
    by: str
    installed: bool
    changes: tuple[Change, ...]
    plan: dict[str, Any]


def site_apps(folder: Path) -> list[App]:
    """The app bundles that a site knows, the latest first."""
    consent = _consent(folder)
    base = consent.last_approved() or installed_bundle()
    return [_app(offer, consent.bundle(offer.sha256), base) for offer in consent.offers()]


def approve(folder: Path, sha256: str, *, installed: bool) -> Offer:
    """Approve a bundle: the one of the installed release, or one that was offered.

    Raises:
        ConsentError: None is named, or both are.
    """
    if installed == bool(sha256):
        raise ConsentError(
            "name an app bundle by its SHA-256 (`groundtruth site apps SITE SHA256` shows all of "
            "it), or say --installed"
        )
    consent = _consent(folder)
    if installed:
        sha256 = consent.add(installed_bundle()).sha256
    return consent.decide(sha256, "approved")


def reject(folder: Path, sha256: str) -> Offer:
    """Reject a bundle.

    Raises:
        ConsentError: The site knows no such bundle.
    """
    return _consent(folder).decide(sha256, "rejected")


def print_apps(apps: list[App], console: Console) -> None:
    """All bundles in a table, and what to do next."""
    if not apps:
        console.print(
            "no app bundle was offered yet. Approve the installed release with `groundtruth site "
            "approve SITE --installed`, or wait for a run"
        )
        return
    table = Table("SHA-256", "decision", "offered", "code", "changes", "last run asks for")
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    for app in apps:
        table.add_row(
            app.sha256[:16],
            Text(app.decision + (f" by {app.by}" if app.by else "")),
            app.seen[:10],
            "installed" if app.installed else "other",
            f"{len(app.changes)} files" if app.changes else "none",
            Text(printable(_asked(app.plan), 200)),
        )
    console.print(table)
    if any(app.decision == "undecided" for app in apps):
        console.print(
            "`groundtruth site apps SITE SHA256` shows one line by line; `site approve` and `site "
            "reject` decide"
        )


def print_app(folder: Path, apps: list[App], sha256: str, console: Console) -> None:
    """One bundle: what its run asks for, and its changes line by line.

    Raises:
        ConsentError: The site knows no such bundle.
    """
    found = [app for app in apps if app.sha256.startswith(sha256.lower())]
    if len(found) != 1:
        raise ConsentError(
            f"{len(found)} app bundles of this site begin with {sha256[:64]!r}; see `groundtruth "
            "site apps`"
        )
    app, consent = found[0], _consent(folder)
    console.print(f"app bundle {app.sha256}: {app.decision}", highlight=False)
    for key, value in app.plan.items():
        told = printable(f"{key}: {value}", 2_000)
        console.print(f"  {told}", highlight=False, markup=False, soft_wrap=True)
    base = consent.last_approved()
    against = f"approved bundle {base.sha256[:16]}" if base else "the installed release"
    console.print(f"{len(app.changes)} files differ from {against}", highlight=False)
    for change in app.changes:
        console.print(
            f"  {change.kind} {change.file} (+{change.added} -{change.removed})", highlight=False
        )
    if app.changes:
        text = difference(base or installed_bundle(), consent.bundle(app.sha256))
        for line in text.split("\n"):  # each in full: what is cut off is approved unseen
            console.print(Text(line, _STYLES.get(line[:1], "")), soft_wrap=True)


_STYLES: Final = {"+": "green", "-": "red", "@": "cyan"}


def _app(offer: Offer, bundle: Bundle, base: Bundle) -> App:
    return App(
        sha256=offer.sha256,
        decision=offer.decision,
        seen=offer.seen,
        decided=offer.decided,
        by=offer.by,
        installed=dict(bundle.code) == dict(installed_bundle().code),
        changes=changes(base, bundle),
        plan=_plan(offer.plan),
    )


def _plan(text: str) -> dict[str, Any]:
    """What a run asks for, in words; a plan that cannot be read is said to be one."""
    if not text:
        return {}
    try:
        plan = RunPlan.from_json(text)
        told = promise([plan])
        most = plan.largest()
        released = sum(most[name].n_values * each.rounds for name, each in plan.steps.items())
    except GroundTruthError as error:
        return {"plan": f"cannot be read here: {error}"}
    return {
        "task": plan.task,
        "epsilon": told.epsilon,
        "delta": told.delta,
        "epsilon of a patient at several sites": told.epsilon_at_multiplicity,
        "sites": ", ".join(plan.sites),
        "rounds": sum(step.rounds for step in plan.steps.values()),
        "what leaves": f"{released:,} numbers at most, each a sum over patients with noise"
        + (", masked" if plan.secure_sum else ""),
        "model": plan.family,
    }


def _asked(plan: dict[str, Any]) -> str:
    if "task" not in plan:
        return str(plan.get("plan", ""))
    return f"{plan['task']}, epsilon = {plan['epsilon']:.3g}, {plan['rounds']} rounds"


def _consent(folder: Path) -> Consent:
    return Consent(folder / MANIFEST_NAME if folder.is_dir() else folder)
