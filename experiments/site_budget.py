"""What a site's own people see of its privacy ledger, and how they change its budget."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_contracts.manifest import MANIFEST_NAME, SiteManifest
from federation.deployment.audit_entry import AuditLogError, Event
from federation.deployment.audit_log import AUDIT_FILE, AuditLog
from federation.ledger import (
    BudgetChangeError,
    Charge,
    Ledger,
    LedgerMismatchError,
    cost_of,
    ledger_file,
)
from federation.run_state import state_folder


@dataclass(frozen=True, slots=True)
class Spending:
    """What some of the releases cost a patient, had there been no others.

    Attributes:
        since: Time of the first one.
        run: Run that they belong to; "" for several.
        tasks: Their tasks.
        purposes: Their purposes.
        releases: How many.
        epsilon: Epsilon of them alone.
    """

    since: str
    run: str
    tasks: tuple[str, ...]
    purposes: tuple[str, ...]
    releases: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class SiteBudget:
    """State of a site's ledger. It stays at the site.

    Attributes:
        site: Name of the site.
        delta: Delta at which all epsilon are counted.
        budget: Epsilon of the budget; None where nothing is limited.
        declared: What site.toml says of it, likewise.
        spent: Epsilon of all releases together.
        left: Epsilon that one more run may cost at most; None where nothing is limited.
        releases: How many releases there were.
        runs: What each run has cost, in order.
        purposes: What each purpose has cost.
    """

    site: str
    delta: float
    budget: float | None
    declared: float | None
    spent: float
    left: float | None
    releases: int
    runs: tuple[Spending, ...]
    purposes: tuple[Spending, ...]

    @property
    def hint(self) -> str:
        """What to do where site.toml and the ledger disagree; "" where they do not."""
        if (self.declared or math.inf) < (self.budget or math.inf):
            return f"site.toml says {self.declared:g}; that holds from the next run on"
        if (self.declared or math.inf) > (self.budget or math.inf):
            return f"site.toml allows more; {self.budget:g} holds until it is raised by --raise-to"
        return ""


def site_ledger(path: Path) -> Ledger:
    """The ledger of the site whose folder, or site.toml, this is.

    Raises:
        LedgerError: There is none, or it cannot be trusted.
    """
    return Ledger.existing(ledger_file(path.parent if path.is_file() else path))


def site_budget(path: Path) -> SiteBudget:
    """What a site's ledger adds up to.

    Args:
        path: The site's folder, or its site.toml.

    Raises:
        ManifestError: There is no site.toml, or it is wrong.
        LedgerError: There is no ledger, or it cannot be trusted.
    """
    ledger, manifest = _of_one_site(path)
    left, charges = ledger.left(), ledger.charges()
    by_run: dict[str, list[tuple[str, Charge]]] = {}
    by_purpose: dict[str, list[tuple[str, Charge]]] = {}
    for time, charge in charges:
        by_run.setdefault(charge.run, []).append((time, charge))
        by_purpose.setdefault(charge.purpose, []).append((time, charge))
    return SiteBudget(
        site=ledger.site,
        delta=ledger.delta,
        budget=ledger.budget(),
        declared=_declared(manifest),
        spent=ledger.spent_epsilon(),
        left=left if left < math.inf else None,
        releases=len(charges),
        runs=tuple(_spending(group, ledger.delta) for group in by_run.values()),
        purposes=tuple(_spending(group, ledger.delta) for group in by_purpose.values()),
    )


def change_budget(path: Path, epsilon: float, *, approved_by: str, reason: str) -> None:
    """Raise or lower a site's budget from now on; the ledger keeps who, when and why.

    The audit log refers to the ledger's entry, where the texts are.

    Args:
        path: The site's folder, or its site.toml.
        epsilon: The new budget.
        approved_by: Who answers for it.
        reason: Why.

    Raises:
        BudgetChangeError: Something is missing, or site.toml says less.
        ManifestError, LedgerError: See `site_budget`.
        AuditLogError: The budget has changed, and the audit log does not say so.
    """
    ledger, manifest = _of_one_site(path)
    declared = _declared(manifest)
    if declared is not None and epsilon > declared:
        raise BudgetChangeError(
            f"site.toml says budget_epsilon = {declared:g}, and the lower of the two holds. "
            f"Write budget_epsilon = {epsilon:g} there first"
        )
    entry = ledger.set_budget(epsilon, approved_by=approved_by, reason=reason)
    state = state_folder(path if path.is_file() else path / MANIFEST_NAME)
    log = AuditLog(state / AUDIT_FILE, f"site {manifest.name}")
    try:
        log.append(Event.BUDGET_CHANGED, epsilon=epsilon, ledger=entry.hash)
    except AuditLogError as error:
        raise type(error)(
            f"the budget has changed, and stands in the ledger as entry {entry.seq}; do not change "
            f"it again. The audit log does not say so: {error}"
        ) from None


def _of_one_site(path: Path) -> tuple[Ledger, SiteManifest]:
    manifest, ledger = SiteManifest.load(path), site_ledger(path)
    if ledger.site != manifest.name:
        raise LedgerMismatchError(
            f"the ledger is that of site {ledger.site}, not of {manifest.name}. Put back the name "
            "in site.toml, or this site's own ledger"
        )
    return ledger, manifest


def _declared(manifest: SiteManifest) -> float | None:
    return manifest.budget_epsilon if manifest.origin == "private" else None


def _spending(group: Iterable[tuple[str, Charge]], delta: float) -> Spending:
    times, charges = zip(*group, strict=True)
    runs = {charge.run for charge in charges}
    return Spending(
        since=times[0],
        run=runs.pop() if len(runs) == 1 else "",
        tasks=tuple(sorted({charge.task for charge in charges})),
        purposes=tuple(sorted({charge.purpose for charge in charges})),
        releases=len(charges),
        epsilon=cost_of(charges, delta).epsilon(delta),
    )
