"""The run report: one HTML file that an analyst can open from disk, read, and print.

`page` renders it, `figures` draws, `findings` puts into one sentence what each section shows, and
`formats` rounds. Nothing here computes a result: each number comes from `results.json`, or is the
difference of two that do.
"""

from experiments.report.page import ReportError, render

__all__ = ["ReportError", "render"]
