"""Bytes of a file become segments, interchange by interchange, in bounded memory.

Source: X12.5 (interchange control structures) and X12.6 (application control structures); HIPAA
TR3s, appendix B.1.1. The header ISA has a fixed width, from which all delimiters are read.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_contracts.readers.files import blocks, decoded
from data_contracts.readers.findings import ReaderError, at

Segment = list[str]
"""Elements of a segment; the first is its identifier, so that `segment[4]` of CLP is CLP04. A
handler of a segment may count on one element, empty or not."""

MOST_BYTES: Final = 1 << 16
"""Longest segment that is read; the TR3s need a few hundred bytes at most."""

_BLANKS = " \t\r\n"
_GAP = re.compile(rb"(?:[ \t\r\n]|\xef\xbb\xbf)*")  # byte order marks, where files were joined
_HEADER_BYTES = 106
_WIDTHS = (2, 10, 2, 10, 2, 15, 2, 15, 6, 4, 1, 5, 9, 1, 1)
_HEADER = re.compile(
    rb"ISA([^A-Za-z0-9\s])" + b"".join(b".{%d}\\1" % width for width in _WIDTHS) + rb"..",
    re.DOTALL,
)


class SegmentStream:
    """The segments of one file.

    An interchange reaches from its header to the next one, whatever stands between: so a reader
    that refuses one finds the next. Delimiters may change with every header. Blanks and line
    breaks around segments are no part of them.

    Args:
        file: The file.

    Attributes:
        file: The file.
        number: Which segment was yielded last, counted in the file from 1.
        component: Separator of the components of a composite element.
        repetition: Separator of the repetitions of an element; None where the header has none.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.number = 0
        self.component = ""
        self.repetition: str | None = None
        self._element = self._terminator = ""
        self._blocks = blocks(file)
        self._data = b""
        self._at = 0  # what stands before it in the data is done
        self._searched = 0  # no header begins between the two
        self._passed = 0  # segments before `_at`
        self._ended = False
        self._digest = hashlib.blake2b(digest_size=16)

    def open(self) -> bool:
        """Move to the next interchange and learn its delimiters; False at the end of the file.

        Raises:
            ReaderError: Something else stands there, or the delimiters are ambiguous.
        """
        while True:
            self._at = _end_of_gap(self._data, self._at)
            if len(self._data) - self._at >= _HEADER_BYTES or not self._fill():
                break
        if self._at == len(self._data):
            return False
        self._searched = self._at + 1
        self.number = self._passed + 1
        header = _HEADER.match(self._data, self._at)
        if header is None or not header.group().isascii():
            raise self.error("ISA", self._no_header())
        text = header.group().decode()
        self._element, self.component, self._terminator = text[3], text[104], text[105]
        # Before version 00402 this element was the interchange standards identifier, "U".
        later = text[84:89] >= "00402"
        self.repetition = text[82] if later and not text[82].isalnum() else None
        used = [self._element, self.component, self._terminator, self.repetition or ""]
        if (
            len(set(used)) < len(used)
            or any(mark.isalnum() or mark == " " for mark in used)
            or text.count(self._element) != len(_WIDTHS) + 1
            or text.count(self._terminator) != 1
        ):
            raise self.error(
                "ISA",
                "the delimiters (element separator, ISA11, ISA16, terminator) are ambiguous: two "
                "are equal, one is a letter, a digit or a blank, or one stands within the header; "
                "export the file again",
            )
        return True

    def segments(self) -> Iterator[Segment]:
        """Segments of the open interchange, up to the next header or the end of the file.

        Raises:
            ReaderError: A segment is too long, is no UTF-8, or has no terminator.
        """
        self._digest = hashlib.blake2b(digest_size=16)
        self.number = self._passed
        element, end = self._element, self._terminator.encode()
        while True:
            header = self._next_header()
            stop = header if header >= 0 else len(self._data) - self._tail()
            # No more at once than the longest segment needs: as text, that fits a cache.
            reach = max(min(stop, self._at + MOST_BYTES + 1), self._at)
            cut = self._data.rfind(end, self._at, reach) + 1
            if cut:
                pieces, faulty = self._pieces(self._data[self._at : cut - 1])
                self._at = cut
                self._passed += len(pieces)
                for piece in pieces:
                    self.number += 1
                    yield piece.split(element)
                if faulty:
                    self._reject(faulty)
                continue
            if header >= 0 or self._ended:
                if _end_of_gap(self._data, self._at) < stop:
                    self._reject(self._data[self._at : stop])
                self._at = stop
                return
            if stop - self._at > MOST_BYTES:
                self._reject(self._data[self._at : stop])
            self._fill()

    def digest(self) -> bytes:
        """Fingerprint of the segments of the interchange up to now, without blanks between."""
        return self._digest.digest()

    def skip(self) -> None:
        """Go to the next header, or to the end of the file."""
        while True:
            header = self._next_header()
            stop = header if header >= 0 else max(len(self._data) - self._tail(), self._at)
            if self._terminator:
                self._passed += self._data.count(self._terminator.encode(), self._at, stop)
            self._at = stop
            if header >= 0 or self._ended:
                return
            self._fill()

    def error(self, element: str, reason: str, number: int | None = None) -> ReaderError:
        """An error that names the file, the segment (the last one unless given) and the element."""
        return at(self.file, self._place(element, number), reason)

    def _place(self, element: str, number: int | None = None) -> str:
        place = f"segment {number or self.number}"
        return f"{place} ({element})" if element else place

    def _pieces(self, data: bytes) -> tuple[list[str], bytes]:
        """Whole segments without blanks around them, up to the first faulty one; and that one."""
        faulty = b""
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            end = self._terminator.encode()
            begin = data.rfind(end, 0, error.start) + 1
            faulty = data[begin:].split(end, 1)[0]
            text = data[:begin].decode()
        pieces = [piece for raw in text.split(self._terminator) if (piece := raw.strip(_BLANKS))]
        self._digest.update("\n".join([*pieces, ""]).encode())
        return pieces, faulty

    def _reject(self, segment: bytes) -> None:
        """Say what is wrong with the segment that comes next."""
        self.number = self._passed + 1
        if len(segment) > MOST_BYTES:
            raise self.error(
                "", f"the segment is longer than {MOST_BYTES} bytes; are the terminators missing?"
            )
        decoded(segment.strip(_BLANKS.encode()), self.file, self._place(""))
        raise self.error("", "the segment has no end; was the file cut short?")

    def _no_header(self) -> str:
        if self._data.startswith(b"ISA", self._at):
            return (
                "the header is not 106 characters wide, or its element separator is not the same "
                "throughout; export the file again, and let no editor change its blanks"
            )
        return "the file does not begin with a header (ISA); this is no X12 file, or a part of one"

    def _next_header(self) -> int:
        """Where the next header begins in the data; -1 if none does yet."""
        found = self._data.find(b"ISA", self._searched)
        while found >= 0 and not _HEADER.match(self._data, found):
            found = self._data.find(b"ISA", found + 1)
        self._searched = max(self._searched, len(self._data) - self._tail()) if found < 0 else found
        return found

    def _tail(self) -> int:
        """Bytes at the end of the data in which a header may have begun."""
        return 0 if self._ended else _HEADER_BYTES - 1

    def _fill(self) -> bool:
        """Append a block to the data, and drop what is done."""
        block = next(self._blocks, b"")
        self._data = self._data[self._at :] + block
        self._searched = max(self._searched - self._at, 0)
        self._at = 0
        self._ended = not block
        return bool(block)


def _end_of_gap(data: bytes, start: int) -> int:
    gap = _GAP.match(data, start)
    return gap.end() if gap else start
