"""How a site is: whether its client runs, whom it works with, what may run, what was spent."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from data_contracts.manifest import MANIFEST_NAME, SiteManifest
from experiments.site_budget import site_ledger
from experiments.words import ago
from federation.deployment.consent import Consent
from federation.deployment.membership import Membership
from federation.deployment.site_service import SERVER_FILE
from federation.deployment.supervisor import last_problem, read_status
from federation.ledger import ledger_file
from federation.run_state import state_folder


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """A site's client at this moment.

    Attributes:
        site: Name of the site.
        network: Identifier of the network that it has joined.
        address: Where it reaches the coordinator.
        service: What the client's service says of itself; None if it does not run.
        problem: What keeps it from working, or has kept it last; "" if nothing does.
        certificate_expires: When the coordinator's certificate does, UTC, as seen last; "" if the
            site never saw it.
        apps_approved: SHA-256 of the app bundles that may run.
        apps_undecided: Number of those that nobody has decided on.
        spent: Epsilon of all releases together.
    """

    site: str
    network: str
    address: str
    service: dict[str, Any] | None
    problem: str
    certificate_expires: str
    apps_approved: tuple[str, ...]
    apps_undecided: int
    spent: float

    @property
    def running(self) -> bool:
        """Whether the client runs."""
        return self.service is not None

    def to_json(self) -> dict[str, Any]:
        """The same for machines."""
        return {"running": self.running, **asdict(self)}


def client_status(path: Path) -> ClientStatus:
    """How a site is now.

    Args:
        path: The site's folder, or its site.toml.

    Raises:
        MembershipError: It has joined no network.
        ConsentError, LedgerError: Its decisions, or its ledger, cannot be trusted.
    """
    file = path / MANIFEST_NAME if path.is_dir() else path
    state, membership = state_folder(file), Membership.load(path)
    offers = Consent(file).offers()
    return ClientStatus(
        site=SiteManifest.load(file).name,
        network=membership.network,
        address=membership.address,
        service=read_status(state),
        problem=last_problem(state),
        certificate_expires=_certificate_expires(state),
        apps_approved=tuple(offer.sha256 for offer in offers if offer.decision == "approved"),
        apps_undecided=sum(offer.decision == "undecided" for offer in offers),
        spent=site_ledger(path).spent_epsilon() if ledger_file(file.parent).exists() else 0.0,
    )


def print_client(status: ClientStatus, console: Console) -> None:
    """One screen for people."""
    service = status.service
    state = "does not run: groundtruth site start"
    if service is not None:
        state = f"runs since {ago(service['started'])}"
        if service["restarts"]:
            state += f", started again {service['restarts']} times"
    lines = [
        f"site {status.site} in network {status.network}: the client {state}",
        f"coordinator at {status.address}, {_certificate(status.certificate_expires)}",
        f"app bundles: {len(status.apps_approved)} approved, {status.apps_undecided} undecided",
        f"spent: epsilon = {status.spent:.4g}, all releases together",
    ]
    if status.problem:
        lines.insert(1, f"problem: {status.problem}")
    if not status.apps_approved:
        lines.append("no app bundle is approved, so every run is refused: groundtruth site approve")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _certificate_expires(state: Path) -> str:
    try:
        seen = json.loads((state / SERVER_FILE).read_text(encoding="utf-8"))
        return datetime.fromisoformat(seen["expires"]).astimezone(UTC).isoformat()
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _certificate(expires: str) -> str:
    return f"its certificate expires on {expires[:10]}" if expires else "not reached yet"
