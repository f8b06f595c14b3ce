"""The privacy ledger of a site: what has been released about its patients, and what may yet be.

The ledger is the site's own and the authority. It spans purposes (training and evaluation today),
runs, processes and restarts. **Charge before compute**: `Ledger.charge` returns only when
the charge is on the disk; then the release may be computed. A crash wastes budget and never
overspends. Any doubt refuses: a ledger that is damaged, older than it should be, or cannot be
written pays for nothing.

**The budget** is an epsilon at a delta for the life of the ledger, or none for public and synthetic
data (everything is recorded, nothing limited). The first opening sets it. Afterwards:

- a lower one in site.toml takes effect when the ledger is next opened, as an entry of its own;
- a higher one in site.toml changes nothing: it takes `set_budget` (`groundtruth site budget
  --raise-to`), an entry that says who approved it and why;
- delta never changes, nor whether runs may sample patients (`sampling`). A ledger in which they may
  counts all releases at one Renyi order, fixed when it is opened; any other counts by Gaussian DP,
  exactly, and refuses sampled releases.

**What the chain and the head file show** (see `federation.ledger_chain`): a changed, removed,
inserted or reordered entry; any other damage to what the file says; a cut file; an older copy of
`ledger.db` put back, by mistake or to win back budget.

**What they cannot show**: an administrator who puts back older copies of *both* files (a snapshot
of the whole machine does), deletes both, or writes a new chain with a head file to match. Against
that somebody else must know a head: keep what `groundtruth site verify` prints, or an export,
outside the machine. A later export must contain that hash; and the runs that the coordinator has
reports of must stand in it.

    LedgerError                     nothing is released
    ├── LedgerUnavailableError      cannot be read or written just now
    ├── LedgerDamagedError          not what was written
    │   └── LedgerRolledBackError   an older copy
    ├── LedgerMismatchError         another site's, or counted at another delta
    ├── AlreadyChargedError         this release was charged before
    ├── BudgetExceededError         the budget cannot pay for it
    └── BudgetChangeError           a change of the budget that says too little
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from federation.ledger_chain import (
    ORIGIN,
    Chain,
    Entry,
    Head,
    LedgerDamagedError,
    LedgerError,
    LedgerRolledBackError,
    LedgerUnavailableError,
    open_chain,
)
from federation.ledger_charges import (
    EVERYBODY,
    Charge,
    Patients,
    Population,
    Side,
    add_up,
    cost_of,
    costs_of,
    patients_of,
    worst_cost,
)
from federation.run_state import STATE_FOLDER
from models.accounting import PrivacyCost, best_order, gdp_epsilon, gdp_mu

__all__ = [
    "EVERYBODY",
    "AlreadyChargedError",
    "BudgetChangeError",
    "BudgetExceededError",
    "Charge",
    "Ledger",
    "LedgerDamagedError",
    "LedgerError",
    "LedgerMismatchError",
    "LedgerRolledBackError",
    "LedgerUnavailableError",
    "Patients",
    "Population",
    "Side",
    "cost_of",
    "ledger_file",
    "worst_cost",
]

_FORMAT = 1


class LedgerMismatchError(LedgerError):
    """The ledger is another site's, or counts at another delta."""


class AlreadyChargedError(LedgerError):
    """The release was charged before; what was sent then may be sent again."""


class BudgetExceededError(LedgerError):
    """The budget cannot pay for a release.

    The message tells the balance: it is for the site's own log and terminal.
    """


class BudgetChangeError(LedgerError):
    """A change of the budget lacks a number, a name or a reason."""


def _now() -> datetime:
    return datetime.now(UTC)


def ledger_file(site_folder: Path) -> Path:
    """Where the ledger of a site lies, given the folder of its site.toml."""
    return site_folder / STATE_FOLDER / "ledger.db"


class Ledger:
    """A site's ledger; made by `open`, or by `existing`.

    It may be shared by threads, and opened by any number of processes at once. Every call looks at
    the file anew.

    Attributes:
        site: The site whose ledger it is.
        delta: Delta at which epsilon is counted.
        order: Renyi order at which it is counted; None counts by Gaussian DP.
    """

    site: str
    delta: float
    order: float | None

    def __init__(self, file: Path, clock: Callable[[], datetime]) -> None:
        self._file = file
        self._clock = clock
        self._mutex = threading.Lock()
        # What the entries up to the head add up to.
        self._head = ORIGIN
        self._budget: float | None = None
        self._costs: Mapping[Patients, PrivacyCost] = {}
        self._releases: set[tuple[str, str, int, int]] = set()

    @classmethod
    def open(
        cls,
        file: Path,
        *,
        site: str,
        epsilon: float | None,
        delta: float,
        sampling: bool = False,
        clock: Callable[[], datetime] = _now,
    ) -> "Ledger":
        """The ledger in a file, made on first use. All of it is verified.

        Args:
            file: The file, see `ledger_file`. The folder that it lies in is made if need be, the
                folder above is not.
            site: Name of the site.
            epsilon: The budget in site.toml; None limits nothing. See the rules above.
            delta: Delta at which it is counted.
            sampling: Whether releases may sample patients, see above.
            clock: Tells the time.

        Raises:
            LedgerMismatchError: The ledger is another site's, or counts otherwise.
            LedgerUnavailableError, LedgerDamagedError: See there.
        """
        if not (epsilon is None or 0 < epsilon < math.inf) or not 0 < delta < 1:
            raise ValueError(f"no budget: epsilon {epsilon} at delta {delta}")
        ledger = cls(file, clock)
        with ledger._locked(create=True) as chain:
            if ledger._head == ORIGIN:
                order = best_order(epsilon, delta) if sampling and epsilon is not None else None
                opened = {"site": site, "format": _FORMAT, "epsilon": epsilon, "delta": delta}
                ledger._append(chain, "opened", {**opened, "order": order})
            elif (site, delta) != (ledger.site, ledger.delta):
                raise LedgerMismatchError(
                    f"ledger {file} is that of site {ledger.site} at delta = {ledger.delta:g}, not "
                    f"of {site} at {delta:g}. Put back the name in site.toml, or this site's own "
                    "ledger; a ledger's site and delta never change"
                )
            elif epsilon is not None and sampling != (ledger.order is not None):
                raise LedgerMismatchError(
                    f"ledger {file} was opened with sampling = {str(not sampling).lower()}, and a "
                    "ledger never changes its way of counting. Put sampling back in site.toml"
                )
            elif epsilon is not None and epsilon < (ledger._budget or math.inf):
                change = {"epsilon": epsilon, "approved_by": "site.toml", "reason": "lowered there"}
                ledger._append(chain, "budget", change)
        return ledger

    @classmethod
    def existing(cls, file: Path, *, clock: Callable[[], datetime] = _now) -> "Ledger":
        """The ledger in a file, as it is. All of it is verified.

        Raises:
            LedgerUnavailableError: There is none, or it cannot be read or written.
            LedgerDamagedError: See there.
        """
        ledger = cls(file, clock)
        with ledger._locked():
            if ledger._head == ORIGIN:
                raise LedgerDamagedError(f"ledger {file} is damaged: it has no first entry")
        return ledger

    def charge(self, charge: Charge) -> Entry:
        """Charge a release. When this returns, and only then, it may be computed.

        Returns:
            The entry; its hash is a receipt.

        Raises:
            AlreadyChargedError: The same release was charged before.
            BudgetExceededError: The budget cannot pay for it.
            LedgerError: The charge could not be made for certain. Even so it may count.

        Guarantees:
            Whatever is asked and in whatever order, by however many processes: the charges that
            were ever made, `worst_cost` of them together, stay within the budget that was in force
            when each was made (up to rounding, 1e-9 of epsilon). With releases computed only after
            their charge this is a privacy filter; see `PrivacyCost` for why costs may be added up
            when each release depends on those before.
        """
        with self._locked() as chain:
            if charge.sample_rate < 1 and self._budget is not None and self.order is None:
                raise LedgerMismatchError(
                    f"the ledger of site {self.site} counts releases of all patients only, and "
                    f"this one samples {charge.sample_rate:g} of them; whether releases may sample "
                    "is decided before the first one, with sampling = true in site.toml"
                )
            name = f"{charge.step} {charge.round}, attempt {charge.attempt}, of run {charge.run}"
            if charge.key in self._releases:
                raise AlreadyChargedError(
                    f"site {self.site} has charged {name} before: what was sent then may be sent "
                    "again, but never computed again"
                )
            after = self._worst({charge.population: charge.cost})
            if not self._pays(after):
                spent = self._worst()
                raise BudgetExceededError(
                    f"site {self.site}: {name} would bring what is spent to epsilon = "
                    f"{self._epsilon(after):.4g} at delta = {self.delta:g}. The budget is "
                    f"{self._budget:g}, of which {self._epsilon(spent):.4g} is spent; one "
                    f"more run may cost {self._left():.4g} at most. Whoever answers for the site's "
                    f"patients can raise it: groundtruth site budget {self._file.parent.parent} "
                    "--raise-to EPSILON --approved-by NAME --reason TEXT"
                )
            return self._append(chain, "charge", charge.to_body())

    def can_pay(self, costs: Mapping[Patients, PrivacyCost]) -> bool:
        """Whether the budget could pay for all of this now: yes or no, and never how much is left.

        Nothing is set aside: another run may spend it first. The answer depends on earlier charges
        and on no patient's data. Whoever may ask often can search for the balance; it is a
        business secret at most.

        Args:
            costs: What is to be spent on each population.
        """
        with self._locked():
            return self._pays(self._worst(costs))

    def set_budget(self, epsilon: float, *, approved_by: str, reason: str) -> Entry:
        """Raise or lower the budget from now on.

        Below what is spent it stops all releases.

        Raises:
            BudgetChangeError: Epsilon is no positive number, or nobody or no reason is named.
        """
        texts = (approved_by.strip(), reason.strip())
        if not 0 < epsilon < math.inf:
            raise BudgetChangeError(f"a budget is a positive number, not {epsilon:g}")
        if not all(0 < len(text) <= 1000 and text.isprintable() for text in texts):
            raise BudgetChangeError(
                "a budget changes only with the name of who approved it and the reason, "
                "each in one line of at most 1000 characters"
            )
        with self._locked() as chain:
            change = {"epsilon": epsilon, "approved_by": texts[0], "reason": texts[1]}
            return self._append(chain, "budget", change)

    def budget(self) -> float | None:
        """Epsilon of the budget in force; None where nothing is limited."""
        with self._locked():
            return self._budget

    def spent(self) -> PrivacyCost:
        """What all releases together cost the patient who pays most."""
        with self._locked():
            return self._worst()

    def spent_epsilon(self) -> float:
        """The same as epsilon at the ledger's delta, in the ledger's way of counting."""
        return self._epsilon(self.spent())

    def left(self) -> float:
        """Largest epsilon of one more run of full-batch releases about everybody.

        More than budget minus spent, because epsilon grows more slowly than its parts; infinite
        where nothing is limited.
        """
        with self._locked():
            return self._left()

    def entries(self) -> list[Entry]:
        """All entries, verified."""
        with self._locked() as chain:
            return list(chain.after(ORIGIN))

    def charges(self) -> list[tuple[str, Charge]]:
        """Time and charge of all releases, in order."""
        bodies = [entry.body for entry in self.entries()]
        return [
            (body["time"], Charge.from_body(body)) for body in bodies if body["kind"] == "charge"
        ]

    def verify(self) -> Head:
        """Verify the whole file anew, from its structure to its last entry.

        Returns:
            The last entry: to be kept elsewhere, see above.

        Raises:
            LedgerDamagedError: The first entry that does not fit is named.
        """
        with self._locked():
            pass  # it still holds what this process has seen
        return Ledger.existing(self._file)._head

    @contextmanager
    def _locked(self, *, create: bool = False) -> Iterator[Chain]:
        """Hold the lock, knowing every entry; keep what is appended."""
        with self._mutex, open_chain(self._file, create=create) as chain:
            self._learn(chain)
            yield chain
            if chain.commit():
                self._learn(chain)  # reads it back, and writes the head file

    def _learn(self, chain: Chain) -> None:
        """Add up the entries since the last look; all of them, or none where one is bad."""
        head, budget = self._head, self._budget
        counts: Counter[tuple[Patients, float, float]] = Counter()
        releases = set()
        try:
            for entry in chain.after(head):
                body = entry.body
                kind = body["kind"]
                if kind == "charge" and head != ORIGIN:
                    counts[patients_of(body), body["mu"], body["sample_rate"]] += 1
                    releases.add((body["run"], body["step"], body["round"], body["attempt"]))
                elif kind == "budget" and head != ORIGIN:
                    budget = body["epsilon"]
                elif kind == "opened" and head == ORIGIN and body["format"] == _FORMAT:
                    self.site, self.delta, budget = body["site"], body["delta"], body["epsilon"]
                    self.order = body["order"]
                else:
                    raise ValueError(kind)
                head = entry.head
            costs = add_up(self._costs, costs_of(counts))
        except (KeyError, TypeError, ValueError):
            raise LedgerDamagedError(
                f"ledger {self._file}: what follows entry {head.seq} is nothing that this version "
                "of groundtruth understands. Nothing is released; install the version that wrote "
                "it, or a newer one"
            ) from None
        chain.seal(head)
        self._releases |= releases
        self._head, self._budget, self._costs = head, budget, costs

    def _append(self, chain: Chain, kind: str, fields: Mapping[str, Any]) -> Entry:
        now = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return chain.append(
            self._head, {"seq": self._head.seq + 1, "time": now, "kind": kind, **fields}
        )

    def _worst(self, more: Mapping[Patients, PrivacyCost] = MappingProxyType({})) -> PrivacyCost:
        return worst_cost(add_up(self._costs, more), self.delta, self.order)

    def _epsilon(self, cost: PrivacyCost) -> float:
        return cost.epsilon(self.delta, self.order)

    def _pays(self, cost: PrivacyCost) -> bool:
        if self._budget is None:
            return True
        sampled_unawares = bool(cost.renyi) and self.order is None
        return not sampled_unawares and cost.within(self._budget, self.delta, self.order)

    def _left(self) -> float:
        if self._budget is None:
            return math.inf
        low, high = 0.0, gdp_mu(self._budget, self.delta)
        for _ in range(60):
            middle = (low + high) / 2
            if self._pays(self._worst({EVERYBODY: PrivacyCost(middle**2)})):
                low = middle
            else:
                high = middle
        return gdp_epsilon(low, self.delta)
