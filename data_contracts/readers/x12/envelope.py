"""Interchanges, groups and transaction sets: every envelope is checked before anything counts.

Source: X12.5, and appendix C of the TR3s: control numbers of a header and its trailer are
identical, and a trailer counts what it closes.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from data_contracts.crosswalk import Crosswalk
from data_contracts.readers.events import Spool
from data_contracts.readers.findings import Findings, ReaderError
from data_contracts.readers.x12.claims import Claims
from data_contracts.readers.x12.message import Message, TransactionReader, element
from data_contracts.readers.x12.remittance import Remittance
from data_contracts.readers.x12.review import Review
from data_contracts.readers.x12.segments import Segment, SegmentStream

READ: Final[Mapping[str, tuple[str, Callable[[Message], TransactionReader]]]] = {
    "005010X217": ("278", Review),
    "005010X221": ("835", Remittance),
    "005010X222": ("837", Claims),
    "005010X223": ("837", Claims),
}
"""Implementation guide, without its addenda -> transaction set and its reader."""

NOT_READ: Final = {
    "005010X224": ("837", "837D, dental claim"),
    "005010X216": ("278", "278, notification"),
    "005010X215": ("278", "278, inquiry"),
}
"""Guides of the same transaction sets that are passed over -> transaction set, and what it is."""

NOT_READ_SETS: Final = {
    "269": "coordination of benefits",
    "270": "eligibility inquiry",
    "271": "eligibility response",
    "274": "provider directory",
    "275": "attachment",
    "276": "claim status request",
    "277": "claim status",
    "820": "premium payment",
    "824": "application advice",
    "834": "enrolment",
    "864": "text message",
    "997": "acknowledgment",
    "999": "acknowledgment",
}
"""Transaction sets that are passed over, whatever their guide -> what they are. Others are refused:
an unknown one may be a damaged one that is to be read."""

_ENVELOPE = frozenset(("ISA", "IEA", "GS", "GE", "ST", "SE"))
_ADDENDA = ("A1", "A2", "A3", "E1", "E2")
_PRODUCTION = "P"
_TEST = "a test interchange (ISA15 is not P)"


class InterchangeReader:
    """Reads interchanges; each is kept or refused as a whole.

    An interchange that holds the same segments as an earlier one of the same reading stands twice
    and is refused: its claims would count twice. One that only bears the control number of another
    (same sender, receiver, date and time) is another message, and is kept and counted.

    Acknowledgments and transaction sets that are not read are passed over and counted, as are test
    interchanges where they are not wanted. Their envelopes are checked like all others: what is
    lost in them could have been a message that is read.

    Args:
        into: Where events go.
        crosswalk: Pseudonyms and tokens.
        findings: What is refused or left out.
        timezone: The zone of local times; None if they are taken as UTC.
        with_tests: Whether test interchanges are read.

    Attributes:
        kept: Interchanges that were kept so far.
        left_out: Test interchanges that were left out so far.
    """

    def __init__(
        self,
        into: Spool,
        crosswalk: Crosswalk,
        findings: Findings,
        *,
        timezone: ZoneInfo | None,
        with_tests: bool,
    ) -> None:
        self._into = into
        self._crosswalk = crosswalk
        self._findings = findings
        self._timezone = timezone
        self._with_tests = with_tests
        self._digests: set[bytes] = set()
        self._headers: set[int] = set()
        self.kept = 0
        self.left_out = 0

    def read(self, file: Path) -> None:
        """Read all interchanges of a file.

        Raises:
            ReaderError: One is refused, and the first refusal ends the reading.
        """
        stream = SegmentStream(file)
        while True:
            try:
                if not stream.open():
                    return
                message = Message(stream, self._into, self._crosswalk, self._timezone)
                segments = stream.segments()
                self._interchange(segments, message)
                self._into.commit()
                self.kept += not message.is_left_out
                self.left_out += message.is_left_out
                for note, count in message.notes.items():
                    self._findings.note(note, count)
                if next(segments, None):
                    raise stream.error("", "something other than a header (ISA) follows IEA")
            except ReaderError as error:
                self._into.rollback()
                self._findings.refuse(error)
                try:
                    stream.skip()
                except ReaderError as unreadable:
                    self._findings.refuse(unreadable)
                    return

    def _interchange(self, segments: Iterator[Segment], message: Message) -> None:
        header = next(segments)
        if header[15] != _PRODUCTION:
            message.is_left_out = not self._with_tests
            message.note(f"{_TEST}, left out" if message.is_left_out else _TEST)
        groups = 0
        for segment in segments:
            if segment[0] == "GS":
                _group(segment, segments, message)
                groups += 1
            elif segment[0] == "TA1" and not groups:
                message.note("an acknowledgment of an interchange (TA1)")
            elif segment[0] == "IEA":
                _compare(message, segment, header[13], groups, ("ISA13", "groups (GS)"))
                if not message.is_left_out:
                    self._reject_twins(header, message)
                return
            else:
                raise message.stream.error("", "a group (GS) or the end (IEA) must stand here")
        raise message.stream.error("", "the interchange has no end (IEA); was the file cut short?")

    def _reject_twins(self, header: Segment, message: Message) -> None:
        digest = message.stream.digest()
        if digest in self._digests:
            raise message.stream.error(
                "IEA",
                "this interchange stands in the sources twice, segment by segment; remove one",
            )
        names = hash((*header[5:11], header[13]))
        if names in self._headers:
            message.note("an interchange with the control number of another")
        self._digests.add(digest)
        self._headers.add(names)


def _group(header: Segment, segments: Iterator[Segment], message: Message) -> None:
    sets = 0
    for segment in segments:
        if segment[0] == "ST":
            _transaction_set(segment, element(header, 8), segments, message)
            sets += 1
        elif segment[0] == "GE":
            _compare(message, segment, element(header, 6), sets, ("GS06", "transaction sets (ST)"))
            return
        else:
            raise message.stream.error("", "a transaction set (ST) or the end (GE) must stand here")
    raise message.stream.error("", "the group has no end (GE); was the file cut short?")


def _transaction_set(
    header: Segment, group_version: str, segments: Iterator[Segment], message: Message
) -> None:
    stream = message.stream
    begin = stream.number
    reader = _reader(header, group_version, message)
    handlers = {} if reader is None else reader.handlers
    for segment in segments:
        handle = handlers.get(segment[0])
        if handle:
            if len(segment) == 1:
                raise stream.error(segment[0], "the segment has no elements")
            handle(segment)
        elif segment[0] in _ENVELOPE:
            if segment[0] != "SE":
                raise stream.error("", "the transaction set before it has no end (SE)")
            length = stream.number - begin + 1
            _compare(message, segment, element(header, 2), length, ("ST02", "segments"))
            if reader is not None:
                reader.end()
            return
        elif not (segment[0].isalnum() and len(segment[0]) <= 3):
            raise stream.error("", "this is no segment; were delimiters changed or lost?")
    raise stream.error("", "the transaction set has no end (SE); was the file cut short?")


def _reader(header: Segment, group_version: str, message: Message) -> TransactionReader | None:
    """The reader of a transaction set, by its guide; None if the set is passed over.

    ST03 counts before GS08.
    """
    if message.is_left_out:
        return None
    name = message.required(header, 1)
    version = element(header, 3) or group_version
    guide = version[:10] if version[10:] in ("", *_ADDENDA) else ""
    known, reader = READ.get(guide, ("", None))
    if reader is not None and known == name:
        return reader(message)
    known, words = NOT_READ.get(guide, ("", ""))
    if name in NOT_READ_SETS:
        known, words = name, f"{name}, {NOT_READ_SETS[name]}"
    if known == name:
        message.note(f"a transaction set that is not read ({words})")
        return None
    guides = [guide for guide, (known, _) in READ.items() if known == name]
    if not guides:
        raise message.error(
            header,
            1,
            "transaction sets 278, 835 and 837 are read, those of acknowledgments, eligibility and "
            "the like are passed over, this one is unknown; is it damaged? Else set it aside",
        )
    raise message.error(
        header,
        3,
        f"the guide that ST03 or GS08 names is not read; {name} is read as {' or '.join(guides)}",
    )


def _compare(
    message: Message, trailer: Segment, control: str, count: int, words: tuple[str, str]
) -> None:
    """Hold a trailer against its header and against what stood between."""
    source, counted = words
    if element(trailer, 2).strip() != control.strip():
        raise message.error(trailer, 2, f"the control number is not that of {source}")
    number = element(trailer, 1)
    if not (number.isascii() and number.isdigit()) or int(number[:10]) != count:
        raise message.error(
            trailer, 1, f"it does not count the {counted} that stand there; were some lost?"
        )
