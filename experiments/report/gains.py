"""What joining gave each site, and how much of that may be chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.report.formats import (
    NOT_ASSESSED,
    count,
    decimal,
    known,
    listing,
    plural,
    shorten,
    signed,
)

# With fewer rows of either outcome an AUROC says next to nothing of a site.
FEWEST_OF_EACH = 10
_NO_NOISE = "federated_no_noise"

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SiteGain:
    """What joining gave one site.

    Attributes:
        site: Its pseudonym.
        role: Payer or provider.
        test_rows: Rows it was tested on.
        base_rate: Share of them with the positive label.
        alone: AUROC of the model trained at this site only.
        together: AUROC of the federated model on the same rows.
        trains: Whether it took part in training; others are measured only.
    """

    site: str
    role: str
    test_rows: int | None
    base_rate: float | None
    alone: float | None
    together: float | None
    trains: bool = True

    @property
    def gain(self) -> float | None:
        """Together minus alone, before rounding."""
        if known(self.together) and known(self.alone):
            return self.together - self.alone
        return None

    @property
    def positives(self) -> float | None:
        """Test rows with the positive label."""
        if known(self.test_rows) and known(self.base_rate):
            return self.test_rows * self.base_rate
        return None

    @property
    def comparable(self) -> bool:
        """Whether there is a gain to speak of, and not only by the luck of a few rows."""
        if self.gain is None:
            return False
        if self.positives is None or self.test_rows is None:
            return True
        return min(self.positives, self.test_rows - self.positives) > FEWEST_OF_EACH - 0.5

    @property
    def margin(self) -> float | None:
        """Half the width of a 95 % interval of the joint model's AUROC at this site.

        Source:
            Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve".
        """
        positives = self.positives
        if not known(self.together) or self.test_rows is None or positives is None:
            return None
        negatives = self.test_rows - positives
        if positives < 1 or negatives < 1:
            return None
        area = self.together
        variance = (
            area * (1 - area)
            + (positives - 1) * (area / (2 - area) - area**2)
            + (negatives - 1) * (2 * area**2 / (1 + area) - area**2)
        ) / (positives * negatives)
        return 1.96 * math.sqrt(max(variance, 0.0))


def site_gains(task: Record) -> list[SiteGain]:
    """Every site, the one that gained most first; last those with few rows, or not assessed."""
    gains = [
        SiteGain(
            site=entry["site"],
            role=entry["role"],
            test_rows=entry["test_rows"],
            base_rate=entry["base_rate"],
            alone=entry["auroc"]["local_only"],
            together=entry["auroc"].get("federated_private", entry["auroc"].get(_NO_NOISE)),
            trains=entry["site"] in task["train_sites"],
        )
        for entry in task["by_site"]
    ]
    return sorted(
        gains,
        key=lambda one: (one.comparable, -math.inf if one.gain is None else one.gain),
        reverse=True,
    )


def by_site(gains: Sequence[SiteGain]) -> str:
    """Who gained by joining, and who lost."""
    others = [one for one in gains if not one.trains]
    gains = [one for one in gains if one.trains]
    compared = [(one, one.gain) for one in gains if one.comparable and one.gain is not None]
    if not compared:
        return "No site could be compared with its own model, so gains are not assessed."
    gained = [(one, gain) for one, gain in compared if round(gain, 3) > 0]
    lost = [(one, gain) for one, gain in reversed(compared) if round(gain, 3) < 0]
    sentence = f"{len(gained)} of {plural(len(compared), 'training site')} gained by joining"
    if gained:
        sentence += f", most of all {_with_gain(gained[:1])[0]}"
    if lost:
        more = [f"{len(lost) - 3} more"] if len(lost) > 3 else []
        sentence += f"; {len(lost)} lost: {listing([*_with_gain(lost[:3]), *more])}"
    else:
        sentence += "; none lost"
    even = len(compared) - len(gained) - len(lost)
    if even:
        sentence += f"; {even} stayed the same"
    missing = sum(one.gain is None for one in gains)
    if small := len(gains) - len(compared) - missing:
        sentence += f"; {small} had too few test rows to tell"
    if missing:
        sentence += f"; {missing} {NOT_ASSESSED}"
    if others:
        sentence += f"; {plural(len(others), 'more site')} did not train and were only measured"
    return sentence + "."


def chance(gains: Sequence[SiteGain]) -> str:
    """How much of a site's difference may be chance."""
    margins = sorted(
        (one.test_rows or 0, one.margin)
        for one in gains
        if one.comparable and one.margin is not None
    )
    if not margins:
        return ""
    rows, margin = margins[len(margins) // 2]
    return (
        f"At a middling site ({count(rows)} test rows) an AUROC is uncertain by about "
        f"±{decimal(margin, 2)} (95%, Hanley and McNeil 1982). Both models are scored on the same "
        "rows, so their difference is steadier than that; yet a small difference at a small site "
        f"may be chance. Sites with fewer than {FEWEST_OF_EACH} test rows of either outcome are "
        "in the table only."
    )


def _with_gain(gains: Sequence[tuple[SiteGain, float]]) -> list[str]:
    return [f"{shorten(one.site, 40)} ({signed(gain)})" for one, gain in gains]
