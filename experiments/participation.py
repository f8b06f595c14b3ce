"""Who took part in a run over a network's own sites, and when: told from results.json."""

from collections.abc import Collection, Mapping
from typing import Any

Record = Mapping[str, Any]


def took_part(task: Record) -> list[str]:
    """The sites that were in a sum of a task's training, in the plan's order."""
    never = {left["site"] for left in task["dropouts"] if left["step"] == "hello"}
    return [site for site in task["train_sites"] if site not in never]


def declared(results: Record, sites: Collection[str]) -> int:
    """Patients that sites declared together; a patient at several of them counts at each."""
    return sum(each["patients_declared"] for each in results["sites"] if each["name"] in sites)


def presence(task: Record, site: str) -> str:
    """When a site took part in a task's training."""
    if site not in task["train_sites"]:
        return "does not train it"
    absences = [absence(left) for left in task["dropouts"] if left["site"] == site]
    return "; ".join(absences) or "every round"


def absence(left: Record) -> str:
    """When a site was not there, without its name."""
    if left["step"] == "hello":
        return "did not come"
    when = f"left at {left['step']} {left['round']}"
    if left["step"] == "resume":
        when = f"not back when the run went on at its round {left['round']}"
    return f"{when}, took part again from {left['back']}" if left["back"] else when


def why(left: Record) -> str:
    """Why a site was not there, as far as the coordinator knows, without its name."""
    reason: str = left["reason"]
    return reason.removeprefix(f"{left['site']}: ").removeprefix("Error: ").removesuffix(".")


def quorum(results: Record, task: Record) -> int:
    """Sites that had to come before a task's training began."""
    asked: int = results["config"]["deployment"]["quorum"] or 0
    least: int = task["privacy"]["minimum_sites"]
    return max(asked, least)


def missed_rounds(task: Record, site: str) -> list[tuple[int, int]]:
    """Spans of rounds, as [first, end) from 0, in which a site that left was not there."""
    places = {
        f"{record['step']} {record['round']}": place for place, record in enumerate(task["rounds"])
    }
    spans = []
    for left in task["dropouts"]:
        if left["site"] != site:
            continue
        first = 0
        if left["step"] == "resume":
            first = left["round"] - 1
        elif left["step"] != "hello":
            first = places[f"{left['step']} {left['round']}"]
        spans.append((first, places[left["back"]] if left["back"] else len(task["rounds"])))
    return spans
