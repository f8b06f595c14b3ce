"""How numbers read. One rounding for each kind of number, in tables, sentences and figures alike.

A number that is missing, or is not finite, reads "not assessed": never 0, never a blank.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TypeGuard

NOT_ASSESSED = "not assessed"

_INITIALS = frozenset({"ed", "id", "pa"})
_MINUS = "\N{MINUS SIGN}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def decimal(value: float | None, digits: int = 3) -> str:
    """A fixed number of decimals, with a true minus sign and no negative zero.

    >>> decimal(0.81649), decimal(-0.0001, 2), decimal(None)
    ('0.816', '0.00', 'not assessed')
    """
    if not known(value):
        return NOT_ASSESSED
    return f"{value:z,.{digits}f}".replace("-", _MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """A difference: `decimal`, with a plus sign where it is positive after rounding.

    >>> signed(0.0213), signed(0.0001)
    ('+0.021', '0.000')
    """
    if not known(value):
        return NOT_ASSESSED
    return ("+" if round(value, digits) > 0 else "") + decimal(value, digits)


def percent(value: float | None, digits: int = 1) -> str:
    """A share between 0 and 1 as a percentage.

    >>> percent(0.6249)
    '62.5%'
    """
    return f"{decimal(100 * value, digits)}%" if known(value) else NOT_ASSESSED


def points(value: float | None) -> str:
    """A difference of two shares, in percentage points, without its unit.

    >>> points(0.0083)
    '0.8'
    """
    return decimal(100 * value, 1) if known(value) else NOT_ASSESSED


def count(value: float | None) -> str:
    """A whole number with thousands separators.

    >>> count(41200)
    '41,200'
    """
    return decimal(value, 0)


def significant(value: float | None, digits: int = 3) -> str:
    """Significant digits, for numbers of any size: ε, μ, sensitivities, noise.

    >>> significant(3.0), significant(10.4321), significant(21834.2)
    ('3', '10.4', '21,800')
    """
    if not known(value):
        return NOT_ASSESSED
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 < exponent < 7:
        text = f"{float(f'{value:.{digits}g}'):,.{max(digits - 1 - exponent, 0)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        raised = str(int(power)).translate(_SUPERSCRIPTS)
        text = f"{mantissa} \N{MULTIPLICATION SIGN} 10{raised}"
    return text.replace("-", _MINUS)


def kilobytes(size: float | None) -> str:
    """Bytes as kB (1,000 bytes).

    >>> kilobytes(412_345)
    '412.3 kB'
    """
    return f"{decimal(size / 1000, 1)} kB" if known(size) else NOT_ASSESSED


def seconds(value: float | None) -> str:
    """A duration: seconds with one decimal up to two minutes, then minutes.

    >>> seconds(12.34), seconds(600)
    ('12.3 s', '10.0 min')
    """
    if not known(value):
        return NOT_ASSESSED
    return f"{value:.1f} s" if value < 120 else f"{value / 60:,.1f} min"


def plural(number: int, noun: str) -> str:
    """A count and its noun.

    >>> plural(1, "site"), plural(1200, "row")
    ('1 site', '1,200 rows')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listing(parts: Sequence[str]) -> str:
    """Parts as an English list.

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def moment(iso: str) -> str:
    """An ISO 8601 time to the minute; text that is none stays as it is.

    >>> moment("2026-03-01T09:30:12.123456+00:00")
    '2026-03-01 09:30 UTC'
    """
    try:
        time = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{time:%Y-%m-%d %H:%M} {time.tzname() or ''}".rstrip()


def words(name: str) -> str:
    """A key as words, with a capital.

    >>> words("pa_request"), words("claim")
    ('PA request', 'Claim')
    """
    first, *rest = name.replace("_", " ").split() or [""]
    return " ".join([first.upper() if first in _INITIALS else first[:1].upper() + first[1:], *rest])


def shorten(text: str, length: int) -> str:
    """The text on one line, cut in its middle so that both ends stay readable.

    >>> shorten("regional-hospital-group-northeast-07", 20)
    'regional-…rtheast-07'
    """
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    return f"{line[: (length - 1) // 2]}…{line[len(line) - length // 2 :]}"
