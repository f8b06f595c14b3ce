"""FHIR's dates and moments: days as they stand, moments in UTC, partial ones left out.

Source: FHIR R4, 2.24.0.1 (date, dateTime, instant): YYYY, YYYY-MM and YYYY-MM-DD are dates; with
a time of day the offset from UTC must be given.
"""

import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Final

from data_contracts.readers.fhir.element import Element

_SHAPE: Final = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})"
    r"(T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?(?:\.([0-9]+))?(Z|[+-][0-9]{2}:[0-9]{2})?)?)?"
)


def day(element: Element, name: str, notes: Counter[str]) -> date | None:
    """The calendar day where it happened; None, and a note, for a year or month alone.

    Raises:
        ReaderError: It is no FHIR date.
    """
    text = element.text(name)
    if text is None:
        return None
    if len(text) < 10:
        _check_partial(element, name, text)
        notes["a date without its day"] += 1
        return None
    # A moment's own day: a visit at 23:00-05:00 is on the day that its clock shows.
    shape = _shape(element, name, text)
    return _date(element, name, shape)


def moment(element: Element, name: str, notes: Counter[str]) -> datetime | None:
    """The moment in UTC, without zone.

    A day alone is its first instant, and noted; a year or a month alone is None, and noted.

    Raises:
        ReaderError: It is no FHIR dateTime, or has a time of day but no offset from UTC.
    """
    text = element.text(name)
    if text is None:
        return None
    if len(text) < 10:
        _check_partial(element, name, text)
        notes["a moment without its day"] += 1
        return None
    shape = _shape(element, name, text)
    clock, fraction, offset = shape.group(4, 5, 6)
    if clock is None:
        notes["a moment without time of day, taken as 00:00 UTC"] += 1
        start = _date(element, name, shape)
        return datetime(start.year, start.month, start.day)
    leap = clock[6:] == ":60"  # a leap second, which datetime does not know
    iso = (
        f"{text[:10]}{clock[:-2] + '59' if leap else clock}"
        f"{'.' + fraction[:6].ljust(6, '0') if fraction else ''}"
        f"{'+00:00' if offset == 'Z' else offset}"
    )
    try:
        found = datetime.fromisoformat(iso).astimezone(UTC) + timedelta(seconds=leap)
    except (ValueError, OverflowError):
        raise element.wrong(name, "no such day or time of day") from None
    return found.replace(tzinfo=None)


def _shape(element: Element, name: str, text: str) -> re.Match[str]:
    shape = _SHAPE.fullmatch(text)
    if not shape or (shape[4] is None) != (shape[6] is None) or (shape[5] and not shape[4]):
        raise element.wrong(
            name, "it is no FHIR date (YYYY-MM-DD), nor a moment (…Thh:mm:ss and offset from UTC)"
        )
    return shape


def _date(element: Element, name: str, shape: re.Match[str]) -> date:
    try:
        return date(int(shape[1]), int(shape[2]), int(shape[3]))
    except ValueError:
        raise element.wrong(name, "no such day") from None


def _check_partial(element: Element, name: str, text: str) -> None:
    shape = _shape(element, name, text)
    if shape[1] == "0000" or not 1 <= int(shape[2] or 1) <= 12:
        raise element.wrong(name, "no such year or month")
