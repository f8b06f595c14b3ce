"""A word about the sites that a run waits for: silence looks like a fault."""

import logging
import math
import time
from collections.abc import Iterable
from typing import Final

logger = logging.getLogger("groundtruth.rounds")

_AGAIN_SECONDS: Final = 60.0


class Waiting:
    """Tells whom a coordinator waits for: soon, when that changes, and once a minute.

    Args:
        doing: What cannot go on without them.
        seconds: How long it waits for them at most.
        first: Seconds of silence before the first word, and between any two.
    """

    def __init__(self, doing: str, seconds: float, first: float) -> None:
        self._doing, self._first = doing, first
        self._start = self._told_at = time.monotonic()
        self._end = self._start + seconds
        self._told: frozenset[str] = frozenset()

    def note(self, sites: Iterable[str]) -> None:
        """These are waited for now."""
        now, names = time.monotonic(), frozenset(sites)
        pause = self._first if names != self._told else max(self._first, _AGAIN_SECONDS)
        if not names or now - self._told_at < pause:
            return
        left = math.ceil(max(self._end - now, 0.0))
        more = f"{left // 60} min" if left >= 120 else f"{left} s"
        logger.warning(
            "%s: waiting for %s, at most %s more", self._doing, ", ".join(sorted(names)), more
        )
        self._told, self._told_at = names, now
