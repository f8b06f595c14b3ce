"""How an audit is told to people."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.audit.bound import CONFIDENCE, epsilon_lower_bound
from experiments.audit.run import Audit


def print_audit(found: Audit, console: Console) -> None:
    """Print what an audit found."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, fact in _facts(found).items():
        grid.add_row(Text(name, style="bold"), Text(fact))
    console.print(grid)


def _facts(found: Audit) -> dict[str, str]:
    rest = found.canaries - found.guesses
    return {
        "claim": f"epsilon = {found.claim:.4g} at delta = {found.delta:g}, for a patient",
        "lower bound": f"epsilon = {found.lower_bound:.4g}, {CONFIDENCE:.0%} confidence; guesses "
        "of all runs count together, no run is picked",
        "guesses": f"{found.right:,} of {found.guesses:,} right; of the other {rest:,} coins the "
        "attacker is too unsure",
        "sums": "\n".join(found.flaws)
        or f"in all {found.sums:,} sums the noise is as promised, no canary changes more than the "
        "bound, and none the part of another patient",
        "verdict": _verdict(found),
    }


def _verdict(found: Audit) -> str:
    if found.lower_bound > found.claim:
        return "NOT consistent with the claim: the guesses rule it out"
    if found.flaws:
        return "NOT consistent with the claim: the sums are not what it rests on"
    best = epsilon_lower_bound(found.canaries, found.guesses, found.guesses, found.delta)
    if best <= found.claim:
        return (
            "consistent with the claim, but even if every guess had been right it would have been: "
            "take more canaries or repeats"
        )
    return "consistent with the claim (an audit can refute a promise, it cannot prove one)"
