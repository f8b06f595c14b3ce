"""Is a site ready? One word, and what to do next, most pressing first."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from experiments.site_check.check import SiteCheck, TableCheck, TaskCheck

_MUCH_OUTSIDE: Final = 0.01
_MUCH_UNKNOWN: Final = 0.05


class Verdict(StrEnum):
    """What a check comes to."""

    READY = "ready"
    WARNINGS = "ready with warnings"
    NOT_READY = "not ready"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should do or know.

    Attributes:
        blocks: Whether the site cannot take part before it is mended.
        what: What was found, and where.
        step: What to do next, where the finding does not say.
    """

    blocks: bool
    what: str
    step: str = ""


def judge(check: SiteCheck) -> tuple[Verdict, tuple[Finding, ...]]:
    """The verdict on a check, and its reasons."""
    found = sorted(_findings(check), key=lambda finding: not finding.blocks)
    if any(finding.blocks for finding in found):
        return Verdict.NOT_READY, tuple(found)
    return (Verdict.WARNINGS if found else Verdict.READY), tuple(found)


def _findings(check: SiteCheck) -> Iterator[Finding]:
    for failure in check.failures:
        yield Finding(True, failure)
    served = [task for task in check.tasks if not task.obstacle]
    if not check.failures and not served:
        yield Finding(
            True,
            "no task can be trained or measured on these tables",
            "see the tasks below for what each lacks"
            if check.tasks
            else "`groundtruth tasks` names the tables that each task needs",
        )
    if check.expiring:
        yield Finding(False, check.expiring)
    for task in check.tasks:
        yield from _of_task(task)
    if check.refused:
        yield Finding(
            False,
            f"{len(check.refused):,} interchanges, bundles or lines were set aside; the first: "
            f"{check.refused[0]}",
            "mend them at their source; the others were read",
        )
    for table in check.tables:
        yield from _of_table(table)


def _of_task(task: TaskCheck) -> Iterator[Finding]:
    if task.obstacle:
        yield Finding(False, f"task {task.name} cannot be served: {task.obstacle}")
    elif task.missing:
        yield Finding(
            False,
            f"task {task.name}: no row has a value for {', '.join(task.missing)}",
            "models count it as missing here; map a column of yours to it if you have one",
        )


def _of_table(table: TableCheck) -> Iterator[Finding]:
    if table.counts.rejects and table.fields:
        share = 1 - table.counts.valid / table.counts.raw
        rules = ", ".join(f"{rule} ({n:,})" for rule, n in table.counts.rejects.most_common(3))
        yield Finding(
            False,
            f"{table.name}: {share:.1%} of the rows were set aside: {rules}",
            "`rejected.csv` beside the report names file and row; mend them at the source",
        )
    for field in table.fields:
        unknown = sum(field.unknown.values()) if field.name.startswith("dx_") else 0
        if unknown > _MUCH_UNKNOWN * field.filled:
            yield Finding(
                False,
                f"{table.name}.{field.name}: {unknown:,} codes are in no chapter of ICD-10-CM",
                "check the code system; models count such codes as missing",
            )
        outside = field.outside / field.filled if field.filled else 0
        if outside > _MUCH_OUTSIDE:
            digits = "g" if field.high < 10_000 else ",g"  # years have no thousands
            yield Finding(
                False,
                f"{table.name}.{field.name}: {outside:.1%} of the values lie outside "
                f"{field.low:{digits}} to {field.high:{digits}}"
                f"{f' {field.unit}' if field.unit else ''}",
                "check the unit; models clip such values to the range",
            )
