"""One transaction set: what its elements say, where it stands, and where its events go."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from data_contracts.crosswalk import UNLISTED_PAYER, Crosswalk, Payer
from data_contracts.readers.events import Spool
from data_contracts.readers.files import shown
from data_contracts.readers.findings import ReaderError
from data_contracts.readers.x12.segments import Segment, SegmentStream

_MOST_DIGITS: Final = 18  # data element 782, monetary amount


class TransactionReader(Protocol):
    """Turns the segments of one transaction set into events."""

    @property
    def handlers(self) -> Mapping[str, Callable[[Segment], None]]:
        """Segment identifier -> what to do with it; segments without a handler are passed over."""

    def end(self) -> None:
        """Called when the transaction set has ended."""


@dataclass(slots=True)
class Message:
    """What a reader of transaction sets needs beside the segments.

    Attributes:
        stream: Where the segments come from.
        into: Where events go.
        crosswalk: Pseudonyms and tokens.
        timezone: The zone of local times; None if they are taken as UTC.
        notes: What was left out of this interchange; counts only if the interchange is kept.
        is_left_out: Whether the whole interchange is left out, and only its envelope checked.
    """

    stream: SegmentStream
    into: Spool
    crosswalk: Crosswalk
    timezone: ZoneInfo | None = None
    notes: Counter[str] = field(default_factory=Counter)
    is_left_out: bool = False
    _file: str = field(init=False)

    def __post_init__(self) -> None:
        self._file = shown(self.stream.file)

    def add(self, kind: str, number: int, event: dict[str, Any]) -> None:
        """Add an event that begins at this segment; its source is written into it."""
        event["file"] = self._file
        event["place"] = f"segment {number}"
        self.into.add(kind, event)

    def note(self, what: str) -> None:
        """Count something that is left out, in words that repeat no value."""
        self.notes[what] += 1

    def payer(self, identifier: str) -> Payer:
        """The payer with this identifier; one that is missing in its own crosswalk is counted."""
        if self.crosswalk.lacks_own(identifier):
            self.note(UNLISTED_PAYER)
        return self.crosswalk.payer(identifier)

    def error(self, segment: Segment, position: int, reason: str) -> ReaderError:
        """An error at an element of the segment that was read last."""
        return self.stream.error(f"{segment[0]}{position:02}", reason)

    def required(self, segment: Segment, position: int) -> str:
        """An element that must be there."""
        value = element(segment, position)
        if not value:
            raise self.error(segment, position, "a required element is empty")
        return value

    def composite(self, segment: Segment, position: int) -> list[str]:
        """Components of an element; `[""]` if it is empty."""
        return element(segment, position).split(self.stream.component)

    def repeated(self, segment: Segment, position: int) -> list[str]:
        """Repetitions of an element that are not empty."""
        value, mark = element(segment, position), self.stream.repetition
        return [part for part in (value.split(mark) if mark else [value]) if part]

    def number(self, segment: Segment, position: int) -> float | None:
        """A decimal number (X12 type R), None if it is empty."""
        text = segment[position] if position < len(segment) else ""
        if not text:
            return None
        try:
            # float() alone would take more than X12 does: exponents, "nan", underscores.
            if text.strip("0123456789.-") or len(text) > _MOST_DIGITS:
                raise ValueError
            return float(text)
        except ValueError:
            raise self.error(
                segment, position, "a number must stand here: digits, with a point and a minus sign"
            ) from None

    def amount(self, segment: Segment, position: int) -> float:
        """A required amount, USD."""
        value = self.number(segment, position)
        if value is None:
            raise self.error(segment, position, "a required amount is empty")
        return value

    def day(self, segment: Segment, position: int) -> date | None:
        """A date as CCYYMMDD, None if it is empty."""
        text = segment[position] if position < len(segment) else ""
        return self._day(segment, position, text) if text else None

    def period(self, segment: Segment, qualifier: int) -> tuple[date, date]:
        """First and last day of an element with its format in the element before it.

        Args:
            segment: The segment.
            qualifier: Position of the format: D8, RD8, DT (a moment, of which the day is taken).
        """
        form, text = element(segment, qualifier), self.required(segment, qualifier + 1)
        if form == "RD8" and len(text) == 17 and text[8] == "-":
            first = self._day(segment, qualifier + 1, text[:8])
            last = self._day(segment, qualifier + 1, text[9:])
            if last < first:
                raise self.error(segment, qualifier + 1, "the period ends before it begins")
            return first, last
        if form == "DT" and len(text) in (12, 14):
            text = text[:8]
        elif form != "D8":
            raise self.error(
                segment, qualifier, "the date's format must be D8, RD8 or DT, and the date match it"
            )
        day = self._day(segment, qualifier + 1, text)
        return day, day

    def moment(self, segment: Segment, day: int, clock: int) -> datetime:
        """A required date and a time as HHMM or HHMMSS, in UTC; midnight where no time is given."""
        on = self._day(segment, day, self.required(segment, day))
        text = element(segment, clock) or "0000"
        try:
            if not (text.isascii() and text.isdigit() and len(text) in (4, 6, 7, 8)):
                raise ValueError
            at = time(int(text[:2]), int(text[2:4]), int(text[4:6] or 0))
            return self._utc(datetime.combine(on, at))
        except (ValueError, OverflowError):
            raise self.error(segment, clock, "a time must stand here: HHMM or HHMMSS") from None

    def _utc(self, local: datetime) -> datetime:
        """A local time in UTC.

        The clock shows an hour twice or never when it is changed. Times of such an hour are taken
        by the offset that held before the change (fold 0), and counted.
        """
        if self.timezone is None:
            return local
        before, after = (local.replace(tzinfo=self.timezone, fold=fold) for fold in (0, 1))
        if before.utcoffset() != after.utcoffset():
            self.note(
                "a time in an hour at which clocks are changed, taken by the offset before the "
                "change"
            )
        return before.astimezone(UTC).replace(tzinfo=None)

    def _day(self, segment: Segment, position: int, text: str) -> date:
        try:
            return _day(text)
        except ValueError:
            raise self.error(
                segment, position, "a day of the calendar must stand here, as CCYYMMDD"
            ) from None


def element(segment: Segment, position: int) -> str:
    """An element, empty if the segment ends before it."""
    return segment[position] if position < len(segment) else ""


def component(parts: list[str], position: int) -> str:
    """A component of a composite, counted from 1; empty if the composite ends before it."""
    return parts[position - 1] if position <= len(parts) else ""


@lru_cache(1 << 14)  # dates come again and again
def _day(text: str) -> date:
    if not (len(text) == 8 and text.isascii() and text.isdigit()):
        raise ValueError
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))
