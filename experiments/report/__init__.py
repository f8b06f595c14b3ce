"""The run report: one HTML file that an analyst can open from disk, read, and print.

`page` renders it, `figures` draws, `findings` puts into one sentence what each section shows, and
`formats` rounds. A run over a network's own sites knows less, and nothing exactly: `deployed` says
what was found there, `measured` and `timeline` draw it. Nothing here computes a result: each number
comes from `results.json`, or is the sum or the difference of some that do.
"""

from experiments.report.page import ReportError, render

__all__ = ["ReportError", "render"]
