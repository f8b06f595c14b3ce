"""Small cells: no count from 1 to 10 is shown, and none can be worked out from what is shown.

Noise protects every patient already. This rule stands beside it, because reports on US claims
data must follow it whatever else protects them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from models.evaluation import Estimate, Evaluation, Stratum

SMALLEST_SHOWN: Final = 11
"""Smallest count that may be shown."""

_HIDDEN = Stratum(None, None, None, None, None, None)


def suppress(evaluation: Evaluation) -> Evaluation:
    """The evaluation with every small cell hidden, and with it whatever is derived from it.

    A stratum is shown whole or not at all. Its counts are rounded first, and 0 is hidden with 1 to
    10: under noise it may be any of them. Score bins and the levels of a group add up to the
    records overall, so a stratum hidden alone could be found by subtraction: the next smallest is
    hidden with it. Reports show a hidden count as "<11 or withheld"; to say which of the two it
    is would give away the one that is not small.

    Returns:
        Hidden strata hold None alone; without a count of 11 overall, the evaluation does.

    Guarantees:
        For counts that add up, every hidden count of records, of positives and of negatives can
        take at least two values, given all that is shown.

    Source: CMS cell size suppression policy: no cell of 10 or less, and no figure from which
    one can be derived.
    """
    patients = evaluation.patients
    if patients is None or round(patients.value) < SMALLEST_SHOWN or _small(evaluation.overall):
        return Evaluation(
            patients=None,
            overall=_HIDDEN,
            auprc=None,
            brier=None,
            calibration_slope=None,
            calibration_intercept=None,
            calibration_error=None,
            reliability=(_HIDDEN,) * len(evaluation.reliability),
            groups=tuple((_HIDDEN,) * len(levels) for levels in evaluation.groups),
        )
    return replace(
        evaluation,
        patients=_rounded(patients),
        overall=_shown(evaluation.overall),
        reliability=_parts(evaluation.reliability),
        groups=tuple(_parts(levels) for levels in evaluation.groups),
    )


def _parts(strata: Sequence[Stratum]) -> tuple[Stratum, ...]:
    """Strata that make up a whole, with the small ones hidden and others as far as needed."""
    shown = [stratum for stratum in strata if not _small(stratum)]
    hidden = [stratum for stratum in strata if _small(stratum)]
    shown.sort(key=_rows, reverse=True)
    while shown and hidden and _can_be_worked_out(hidden):
        hidden.append(shown.pop())
    return tuple(
        _HIDDEN if any(stratum is other for other in hidden) else _shown(stratum)
        for stratum in strata
    )


def _can_be_worked_out(hidden: Sequence[Stratum]) -> bool:
    """Does the sum of the hidden strata, which can be found by subtraction, tell one of them?

    It does for one stratum, and where they have no records of a label: then each has none.
    """
    negatives, positives = (sum(counts) for counts in zip(*map(_counts, hidden), strict=True))
    return len(hidden) == 1 or negatives == 0 or positives == 0


def _small(stratum: Stratum) -> bool:
    return min(_counts(stratum)) < SMALLEST_SHOWN


def _counts(stratum: Stratum) -> tuple[int, int]:
    """Whole numbers of records with label 0 and with label 1; none where they are hidden."""
    if stratum.rows is None or stratum.positives is None:
        return 0, 0
    positives = max(round(stratum.positives.value), 0)
    return max(_rows(stratum) - positives, 0), positives


def _rows(stratum: Stratum) -> int:
    return round(stratum.rows.value) if stratum.rows else 0


def _shown(stratum: Stratum) -> Stratum:
    return replace(stratum, rows=_rounded(stratum.rows), positives=_rounded(stratum.positives))


def _rounded(count: Estimate | None) -> Estimate | None:
    return count and replace(count, value=float(round(count.value)), low=max(count.low, 0.0))
