"""How a check is told on a terminal."""

import math
from typing import Final

from rich.console import Console
from rich.table import Table

from experiments.site_check.check import SiteCheck, TaskCheck
from experiments.site_check.verdict import Finding, judge


def print_check(check: SiteCheck, console: Console) -> None:
    """Print what a check has found, but for what keeps the site from taking part."""
    tables = Table("table", "contract", "rows", "set aside", "rules broken")
    for table in check.tables:
        counts = table.counts
        broken = ", ".join(f"{rule}: {count:,}" for rule, count in counts.rejects.most_common())
        aside = f"{counts.raw - counts.valid:,}"
        tables.add_row(table.name, table.version, f"{counts.raw:,}", aside, broken or "none")
    tasks = Table("task", "rows", "patients", "labels", "here")
    for task in check.tasks:
        here = "cannot be served" if task.obstacle else "trains" if task.trains else "is measured"
        tasks.add_row(task.name, f"{task.rows:,}", f"{task.patients:,}", label_rate(task), here)
    console.print(*([tables] if check.tables else []), *([tasks] if check.tasks else []))
    for what, count in check.notes.items():
        console.print(f"noted {count:,} x: {what}", highlight=False, markup=False, soft_wrap=True)
    verdict, findings = judge(check)
    for finding in findings:
        if not finding.blocks:
            console.print(
                f"warning: {told(finding)}", highlight=False, markup=False, soft_wrap=True
            )
    if check.is_phi:
        console.print(PHI, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"site {check.name} ({check.role}): {verdict}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


PHI: Final = (
    "A limited data set is protected health information: handle this report as the data use "
    "agreement says."
)


def told(finding: Finding) -> str:
    """A finding and what to do next."""
    return f"{finding.what}. Next: {finding.step}" if finding.step else finding.what


def label_rate(task: TaskCheck) -> str:
    """The share of label 1, in words."""
    return "none" if math.isnan(task.rate) else f"{task.rate:.1%} {task.positive}"
