"""JSON of FHIR as Python objects, within limits of size and depth; nothing in it is repaired."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from data_contracts.readers.files import blocks, decoded
from data_contracts.readers.findings import at

MOST_LINE_BYTES: Final = 16 << 20
"""A line of NDJSON: one resource."""

MOST_DOCUMENT_BYTES: Final = 64 << 20
"""A bundle, which is held in memory as a whole (some ten times its size)."""


def document(file: Path) -> bytes:
    """A file that holds one bundle or resource.

    Raises:
        ReaderError: It cannot be read, or is larger than `MOST_DOCUMENT_BYTES`.
    """
    parts: list[bytes] = []
    size = 0
    for block in blocks(file):
        size += len(block)
        if size > MOST_DOCUMENT_BYTES:
            raise at(
                file,
                "",
                f"more than {MOST_DOCUMENT_BYTES >> 20} MB in one bundle; export it as NDJSON",
            )
        parts.append(block)
    return b"".join(parts)


def lines(file: Path) -> Iterator[tuple[int, bytes | None]]:
    """Number and content of each line that is not blank; None for one beyond `MOST_LINE_BYTES`.

    Memory: a line and a block.

    Raises:
        ReaderError: The file cannot be read.
    """
    number, rest, too_long = 1, b"", False
    for block in blocks(file):
        *ended, last = block.split(b"\n")
        for line in ended:
            if rest:
                line, rest = rest + line, b""
            if too_long or len(line) > MOST_LINE_BYTES:
                yield number, None
            elif line and not line.isspace():
                yield number, line
            number, too_long = number + 1, False
        rest += last
        if len(rest) > MOST_LINE_BYTES:
            rest, too_long = b"", True
    if too_long:
        yield number, None
    elif rest and not rest.isspace():
        yield number, rest


def parsed(data: bytes, file: Path, line: str) -> dict[str, Any]:
    """The JSON object that bytes hold.

    Names that stand twice in an object are refused: JSON leaves open which one counts.

    Raises:
        ReaderError: It is not UTF-8, no JSON, cut short, nested too deeply, no object, or holds
            NaN, Infinity or a name twice.
    """
    text = decoded(data, file, line)
    try:
        found = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if line else f"line {error.lineno} column {error.colno}"
        what = error.msg.partition(":")[0]  # what follows may quote the file
        reason = f"no JSON at {where} ({what}); was it cut short?"
        raise at(file, line, reason) from None
    except RecursionError:
        raise at(file, line, "objects are nested too deeply") from None
    except _UnfitError as error:
        raise at(file, line, str(error)) from None
    except ValueError:  # Python's limit on the digits of a whole number
        raise at(file, line, "a number has too many digits") from None
    if not isinstance(found, dict):
        raise at(file, line, "a resource is asked, which is a JSON object")
    return found


class _UnfitError(Exception):
    """JSON that Python reads, but FHIR does not allow."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _UnfitError("a name stands twice in one object")
    return found


def _refuse(_: str) -> NoReturn:
    raise _UnfitError("NaN or Infinity is no number of JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
