"""Levels of a transaction set (HL): which one is open, and below which.

Source: X12.22 (segment HL); 005010X222, 005010X223 and 005010X217, section 1.4.3: levels stand in
depth-first order, and HL02 names the level above.
"""

from collections.abc import Mapping

from data_contracts.readers.x12.message import Message, element
from data_contracts.readers.x12.segments import Segment


class Hierarchy:
    """The path of open levels.

    Args:
        above: Level code (HL03) -> codes of the levels that it may stand below; none for the top.
    """

    def __init__(self, above: Mapping[str, tuple[str, ...]]) -> None:
        self._above = above
        self._path: list[tuple[str, str]] = []  # (HL01, HL03)

    def enter(self, message: Message, segment: Segment) -> str:
        """Open a level and close those that it does not stand below; its code.

        Raises:
            ReaderError: The level is unknown here, or stands below none that it may.
        """
        identifier, level = message.required(segment, 1), message.required(segment, 3)
        if level not in self._above:
            raise message.error(segment, 3, "no level of this transaction set has that code")
        parent = element(segment, 2)
        while self._path and self._path[-1][0] != parent:
            self._path.pop()
        allowed = self._above[level]
        if (self._path[-1][1] not in allowed) if self._path else bool(allowed or parent):
            raise message.error(segment, 2, "the level above is not open, or not the right one")
        self._path.append((identifier, level))
        return level
