"""Malformed X12: a named error or a counted refusal, never a crash, and never a value."""

import gzip
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts.crosswalk import Crosswalk
from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.events import EVENTS, Spool, spool
from data_contracts.readers.findings import Findings, ReaderError
from data_contracts.readers.x12 import read_x12, segments
from data_contracts.readers.x12.envelope import InterchangeReader
from data_contracts.readers.x12.segments import MOST_BYTES

REAL = Path(__file__).parents[2] / "shared" / "data" / "x12"
needs_samples = pytest.mark.skipif(not REAL.is_dir(), reason=f"the X12 samples are not at {REAL}")
CROSSWALK = Crosswalk(Tokens(bytes(range(32))))

HEADER = (
    f"ISA*00*{'':10}*00*{'':10}*ZZ*{'SENDER':15}*ZZ*{'RECEIVER':15}*240105*1200*^*00501*000000001*0"
    "*P*:~"
)
REMITTANCE = (
    HEADER
    + """
GS*HP*SENDER*RECEIVER*20240105*1200*7*X*005010X221A1~
ST*835*0001~
BPR*I*250*C*ACH************20240131~
TRN*1*5*1512345678~
N1*PR*PLAN*XV*789312~
N1*PE*GROUP*XX*1999999984~
LX*1~
CLP*ZAPHOD1*1*300*250*0~
CAS*CO*45*50~
NM1*QC*1*BEEBLEBROX*ZAPHOD****MI*ZAPHOD2~
SE*10*0001~
GE*1*7~
IEA*1*000000001~
"""
)
CLAIM = (
    HEADER
    + """
GS*HC*SENDER*RECEIVER*20240105*1200*7*X*005010X222A1~
ST*837*0001*005010X222A1~
BHT*0019*00*1*20240105*1200*CH~
HL*1**20*1~
NM1*85*2*GROUP*****XX*1999999984~
HL*2*1*22*0~
NM1*IL*1*BEEBLEBROX*ZAPHOD****MI*ZAPHOD2~
DMG*D8*19600101*F~
NM1*PR*2*PLAN*****PI*789312~
CLM*ZAPHOD1*300***11:B:1~
LX*1~
SV1*HC:G0463*300*UN*1~
DTP*472*D8*20240102~
SE*13*0001~
GE*1*7~
IEA*1*000000001~
"""
)
REQUEST = (
    HEADER
    + """
GS*HI*SENDER*RECEIVER*20240105*1200*7*X*005010X217~
ST*278*0001*005010X217~
BHT*0007*13*B1*20240105*0930~
HL*1**20*1~
NM1*X3*2*PLAN*****46*789312~
HL*2*1*21*1~
NM1*1P*2*GROUP*****XX*1999999984~
HL*3*2*22*1~
NM1*IL*1*BEEBLEBROX*ZAPHOD****MI*ZAPHOD2~
HL*4*3*EV*1~
TRN*1*ZAPHOD3~
UM*HS*I*2*11:B**U~
HI*ABK:E119~
HL*5*4*SS*0~
SV1*HC:G0463*300*UN*1~
SE*15*0001~
GE*1*7~
IEA*1*000000001~
"""
)
SECRETS = ("ZAPHOD", "BEEBLEBROX", "1999999984", "789312", "1512345678", "1960")


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Spool]:
    with spool(tmp_path) as opened:
        yield opened


def read(
    content: str | bytes, events: Spool, folder: Path, findings: Findings | None = None
) -> Findings:
    file = folder / "a.x12"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    findings = findings or Findings()
    read_x12(file, events, CROSSWALK, findings)
    return findings


def numbered(text: str, number: int) -> str:
    """The interchange with another control number, and a claim of its own."""
    return text.replace("000000001", f"{number:09}").replace("ZAPHOD1", f"C{number}")


def claims(events: Spool) -> int:
    return events.scan("payment").collect().height


# --- what is refused, and where it stands -------------------------------------------------------


def replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


MALFORMED = {
    "no header": ("GS" + REMITTANCE[3:], r"segment 1 \(ISA\): the file does not begin with a hea"),
    "blank": (" \r\n ", None),
    "narrow header": (replaced(REMITTANCE, " " * 10, " " * 9), r"segment 1 \(ISA\): .*106 charac"),
    "cut header": (REMITTANCE[:80], r"segment 1 \(ISA\): the header is not 106 characters"),
    "equal delimiters": (
        replaced(REMITTANCE, "P*:~", "P*~~"),
        r"segment 1 \(ISA\): the delimiters .*am",
    ),
    "letter delimiter": (
        replaced(REMITTANCE, "P*:~", "P*A~"),
        r"segment 1 \(ISA\): the delimiters .*am",
    ),
    "blank delimiter": (
        replaced(REMITTANCE, "P*:~", "P*: "),
        r"segment 1 \(ISA\): the delimiters .*ambi",
    ),
    "repetition": (
        replaced(REMITTANCE, "*^*", "*:*"),
        r"segment 1 \(ISA\): the delimiters .*ambiguous",
    ),
    "letter beyond ASCII in the header": (
        replaced(REMITTANCE, "SENDER ", "SÉNDER"),
        r"segment 1 \(ISA\): the header is not 106 characters",
    ),
    "mark in header": (
        replaced(REMITTANCE, "SENDER ", "SENDER~"),
        r"segment 1 \(ISA\): the delimiters",
    ),
    "ISA control": (
        replaced(REMITTANCE, "IEA*1*000000001", "IEA*1*000000002"),
        r"segment 14 \(IEA02\)",
    ),
    "groups": (replaced(REMITTANCE, "IEA*1", "IEA*2"), r"segment 14 \(IEA01\): it does not count"),
    "GS control": (replaced(REMITTANCE, "GE*1*7", "GE*1*8"), r"segment 13 \(GE02\): the control n"),
    "sets": (replaced(REMITTANCE, "GE*1*7", "GE*x*7"), r"segment 13 \(GE01\): it does not count"),
    "ST control": (replaced(REMITTANCE, "SE*10*0001", "SE*10*1"), r"segment 12 \(SE02\): the cont"),
    "segments": (replaced(REMITTANCE, "LX*1~\n", ""), r"segment 11 \(SE01\): it does not count th"),
    "no SE": (replaced(REMITTANCE, "SE*10*0001~\n", ""), r"segment 12: the transaction set befor"),
    "no GE": (replaced(REMITTANCE, "GE*1*7~\n", ""), r"segment 13: a transaction set \(ST\) or th"),
    "no GS": (replaced(REMITTANCE, "GS*HP", "XX*HP"), r"segment 2: a group \(GS\) or the end"),
    "no IEA": (replaced(REMITTANCE, "IEA*1*000000001~\n", ""), r"segment 13: the interchange has "),
    "cut in a segment": (REMITTANCE[:300], r"segment \d+: the segment has no end; was the file"),
    "cut in a set": (
        REMITTANCE[: REMITTANCE.index("CAS")],
        r"segment 9: the transaction set has no end",
    ),
    "cut in a group": (
        REMITTANCE[: REMITTANCE.index("GE*")],
        r"segment 12: the group has no end \(GE\)",
    ),
    "lost terminator": (
        replaced(REMITTANCE, "ST*835", "1T#835"),
        r"segment 3: a transaction set \(ST\)",
    ),
    "no segment": (replaced(REMITTANCE, "LX*1", "?!*1"), r"segment 8: this is no segment"),
    "no elements": (replaced(REMITTANCE, "CAS*CO*45*50", "CAS"), r"segment 10 \(CAS\): .*no eleme"),
    "set unknown": (
        replaced(REMITTANCE, "ST*835", "ST*ABC"),
        r"segment 3 \(ST01\): .*this one is unknown",
    ),
    "TA1": (replaced(REMITTANCE, "GS*HP", "TA1*HP"), r"segment 3: a group \(GS\) or the end"),
    "4010": (
        replaced(REMITTANCE, "005010X221A1", "004010X091A1"),
        r"segment 3 \(ST03\): the guide .* not ",
    ),
    "another's guide": (
        replaced(REMITTANCE, "X221A1", "X222A1"),
        r"segment 3 \(ST03\): .* as 005010X221",
    ),
    "word for amount": (
        replaced(REMITTANCE, "*300*", "*ZAPHOD9*"),
        r"segment 9 \(CLP03\): a number",
    ),
    "exponent": (replaced(REMITTANCE, "*300*", "*1e5*"), r"segment 9 \(CLP03\): a number must"),
    "nan": (replaced(REMITTANCE, "*45*50", "*45*nan"), r"segment 10 \(CAS03\): a number must"),
    "two signs": (replaced(REMITTANCE, "*45*50", "*45*--50"), r"segment 10 \(CAS03\): a number"),
    "other digits": (
        replaced(REMITTANCE, "*45*50", "*45*\u0665\u0660"),
        r"segment 10 \(CAS03\): a number",
    ),
    "too many digits": (
        replaced(REMITTANCE, "*45*50", "*45*" + "9" * 19),
        r"segment 10 \(CAS03\): a number",
    ),
    "no amount": (replaced(REMITTANCE, "*300*", "**"), r"segment 9 \(CLP03\): a required amount"),
    "no status": (
        replaced(REMITTANCE, "ZAPHOD1*1*", "ZAPHOD1**"),
        r"segment 9 \(CLP02\): a required elemen",
    ),
    "30 February": (replaced(REMITTANCE, "20240131", "20240230"), r"segment 4 \(BPR16\): a day of"),
    "no payee": (replaced(REMITTANCE, "N1*PE", "N1*XX"), r"segment 9 \(CLP01\): no payee with"),
    "no payer": (
        replaced(replaced(REMITTANCE, "N1*PR*PLAN*XV*789312", "N1*PR*PLAN"), "*1512345678", ""),
        r"segment 9 \(CLP01\): no payer with an identifier",
    ),
    "no claim": (replaced(REMITTANCE, "CLP*", "XLP*"), r"segment 10 \(CAS01\): no claim \(CLP\)"),
    "period of the past": (
        replaced(CLAIM, "D8*20240102", "RD8*20240102-20240101"),
        r"segment 14 \(DTP03\): the period ends before it begins",
    ),
    "format of a date": (
        replaced(CLAIM, "D8*20240102", "D6*240102"),
        r"segment 14 \(DTP02\): the date's fo",
    ),
    "birth in month 13": (
        replaced(CLAIM, "19600101", "19601301"),
        r"segment 9 \(DMG02\): a day of",
    ),
    "orphan level": (replaced(CLAIM, "HL*2*1", "HL*2*9"), r"segment 7 \(HL02\): the level above"),
    "unknown level": (
        replaced(CLAIM, "*22*0", "*21*0"),
        r"segment 7 \(HL03\): no level of this tr",
    ),
    "no provider": (
        replaced(CLAIM, "XX*1999999984", ""),
        r"segment 11 \(CLM01\): its billing provider has",
    ),
    "patient first": (
        replaced(CLAIM, "*22*0", "*23*0"),
        r"segment 7 \(HL02\): the level above is ",
    ),
    "lone line": (
        replaced(CLAIM, "CLM*", "SV2*0450*X*"),
        r"segment 11 \(SV201\): a service line stands ou",
    ),
    "hour 25": (replaced(REQUEST, "*0930", "*2530"), r"segment 4 \(BHT05\): a time must stand"),
    "no day": (replaced(REQUEST, "*20240105*0930", ""), r"segment 4 \(BHT04\): a required element"),
    "purpose": (replaced(REQUEST, "*13*B1", "*99*B1"), r"segment 4 \(BHT02\): neither a request"),
    "no beginning": (replaced(REQUEST, "BHT*", "XHT*"), r"segment 5 \(HL01\): the beginning"),
    "no event": (replaced(REQUEST, "*EV*", "*23*"), r"segment 13 \(UM01\): no patient event"),
    "no plan": (replaced(REQUEST, "NM1*X3", "NM1*X9"), r"segment 11 \(HL\): its payer \(NM1\*X3\)"),
    "plan without a number": (
        replaced(REQUEST, "*46*789312", ""),
        r"segment 6 \(NM109\): a required",
    ),
    "Latin-1": (
        REMITTANCE.replace("GROUP", "GR\xdcPPE").encode("latin-1"),
        r"segment 7: byte 9 there is not UTF-8",
    ),
    "NUL": ("\0" * 300, r"segment 1 \(ISA\): the file does not begin with a header"),
    "UTF-16": (REMITTANCE.encode("utf-16"), r"segment 1 \(ISA\): the file does not begin"),
    "long segment": (
        replaced(REMITTANCE, "LX*1", "NTE*" + "X" * MOST_BYTES),
        r"segment 8: the segment is longer than 65536 bytes",
    ),
    "empty file": ("", r"the file is empty \(0 bytes\)"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_ends_in_an_error_that_says_where(
    name: str, events: Spool, tmp_path: Path
) -> None:
    content, message = MALFORMED[name]
    if message is None:  # blanks alone are no interchange, and nothing is lost
        assert read(content, events, tmp_path).refused == []
        return
    with pytest.raises(ReaderError, match=rf"a\.x12, {message}|a\.x12: {message}") as caught:
        read(content, events, tmp_path)
    assert not [secret for secret in SECRETS if secret in str(caught.value)]
    for kind in EVENTS:
        assert events.scan(kind).collect().is_empty()


def test_the_three_messages_are_well_formed(events: Spool, tmp_path: Path) -> None:
    read(REMITTANCE + numbered(CLAIM, 2) + numbered(REQUEST, 3), events, tmp_path)
    heights = {kind: events.scan(kind).collect().height for kind in EVENTS}
    assert {kind: height for kind, height in heights.items() if height} == {
        "payment": 1,
        "claim": 1,
        "person": 1,
        "request": 1,
    }


def test_more_services_than_memory_should_hold_are_refused(events: Spool, tmp_path: Path) -> None:
    many = "".join(f"HL*{number}*4*SS*0~" for number in range(6, 10_007))
    text = replaced(REQUEST, "SE*15", many + "SE*15")
    with pytest.raises(ReaderError, match=r"\(HL03\): more than 10000 services"):
        read(text, events, tmp_path)


def test_attachments_and_diagnoses_have_a_most(events: Spool, tmp_path: Path) -> None:
    text = replaced(REQUEST, "SE*15", "PWK*77*EL~" * 101 + "SE*15")
    with pytest.raises(ReaderError, match=r"segment 117 \(PWK01\): more than 100 attachments"):
        read(text, events, tmp_path)
    codes = "".join(f"*ABF:I{number}" for number in range(20, 46))  # 26 of them
    findings = read(replaced(REQUEST, "*ABK:E119", "*ABK:E119" + codes), events, tmp_path)
    assert findings.notes == {"a diagnosis beyond the first 25": 1}


def test_a_directory_with_other_files_is_refused(events: Spool, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.pdf").write_text("x")
    with pytest.raises(ReaderError, match="1 file with other endings"):
        read_x12(tmp_path / "in", events, CROSSWALK, Findings())


# --- quarantine ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, (_, message) in MALFORMED.items() if message])
def test_quarantine_sets_aside_what_is_malformed_and_keeps_its_neighbours(
    name: str, events: Spool, tmp_path: Path
) -> None:
    content = MALFORMED[name][0]
    bad = content if isinstance(content, bytes) else content.encode()
    before, after = numbered(REMITTANCE, 2).encode(), numbered(REMITTANCE, 3).encode()
    findings = read(before + bad + after, events, tmp_path, Findings(on_error="quarantine"))
    assert claims(events) == 2
    assert events.scan("claim").collect().is_empty()
    assert len(findings.refused) == (0 if name == "empty file" else 1), findings.refused
    assert not [secret for secret in SECRETS if any(secret in text for text in findings.refused)]


def test_notes_of_a_refused_interchange_are_forgotten(events: Spool, tmp_path: Path) -> None:
    noted = replaced(REMITTANCE, "*ACH*", "*XYZ*")
    bad = replaced(noted, "IEA*1", "IEA*2")
    findings = read(bad + numbered(noted, 2), events, tmp_path, Findings(on_error="quarantine"))
    assert findings.notes == {"835 BPR04: a code that the contract does not hold": 1}


def test_an_interchange_that_stands_twice_is_counted_once(events: Spool, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.835").write_text(REMITTANCE + numbered(REMITTANCE, 2))
    (folder / "b.835").write_text(REMITTANCE.replace("\n", ""))  # line breaks are no difference
    findings = Findings(on_error="quarantine")
    read_x12(folder, events, CROSSWALK, findings)
    assert claims(events) == 2
    assert len(findings.refused) == 1
    assert re.search(
        r"b\.835, segment 14 \(IEA\): this interchange stands .* twice", *findings.refused
    )


def test_another_message_with_the_same_control_number_is_kept_and_counted(
    events: Spool, tmp_path: Path
) -> None:
    findings = read(REMITTANCE + REMITTANCE.replace("ZAPHOD1", "C2"), events, tmp_path)
    assert claims(events) == 2
    assert findings.notes == {"an interchange with the control number of another": 1}


def test_garbage_between_interchanges_costs_neither_of_them(events: Spool, tmp_path: Path) -> None:
    quarantine = Findings(on_error="quarantine")
    text = REMITTANCE + "garbage~more\n" + numbered(REMITTANCE, 2)
    assert len(read(text, events, tmp_path, quarantine).refused) == 1
    assert claims(events) == 2
    with pytest.raises(ReaderError, match=r"segment 15: something other than a header \(ISA\)"):
        read(text, events, tmp_path)


def test_a_file_that_cannot_be_unpacked_ends_the_file_not_the_reading(
    events: Spool, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.835.gz").write_bytes(b"\x1f\x8b no gzip")
    (folder / "b.835").write_text(REMITTANCE)
    findings = Findings(on_error="quarantine")
    read_x12(folder, events, CROSSWALK, findings)
    assert claims(events) == 1
    assert len(findings.refused) == 1


def test_a_file_that_ends_while_a_reader_looks_for_the_next_header_is_refused(
    events: Spool, tmp_path: Path
) -> None:
    noise = random.Random(1).randbytes(4 << 20)  # noqa: S311 - does not pack, so blocks are many
    packed = gzip.compress(replaced(REMITTANCE, "LX*", "?!*").encode() + noise)
    file = tmp_path / "a.835.gz"
    file.write_bytes(packed[: len(packed) // 2])
    findings = Findings(on_error="quarantine")
    read_x12(file, events, CROSSWALK, findings)
    assert [re.sub(r".*835\.gz(, |: )", "", text)[:25] for text in findings.refused] == [
        "segment 8: this is no seg",
        "it cannot be unpacked (EO",
    ]


# --- blocks, sizes, memory -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 105, 106, 107, 1000])
def test_where_a_block_ends_makes_no_difference(
    size: int, events: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_contracts.readers.files.BLOCK", size)
    bad = replaced(numbered(REMITTANCE, 2), "CAS*", "?AS*")
    text = "\n" + REMITTANCE + bad + numbered(REMITTANCE, 3).replace("GROUP", "GRÜPPE") + "x"
    findings = read(text, events, tmp_path, Findings(on_error="quarantine"))
    assert claims(events) == 2
    places = [re.sub(r".*a\.x12, |:.*", "", text) for text in findings.refused]
    assert places == ["segment 24", "segment 43"]


def test_a_line_without_terminators_is_refused_in_bounded_memory(
    events: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = 0

    def endless(_: Path) -> Iterator[bytes]:
        yield HEADER.encode()
        for _ in range(500):
            yield b"X" * (1 << 20)
        yield numbered(REMITTANCE, 2).encode()

    fill = segments.SegmentStream._fill

    def watched(stream: segments.SegmentStream) -> bool:
        nonlocal longest
        filled = fill(stream)
        longest = max(longest, len(stream._data))
        return filled

    monkeypatch.setattr(segments, "blocks", endless)
    monkeypatch.setattr(segments.SegmentStream, "_fill", watched)
    findings = read("x", events, tmp_path, Findings(on_error="quarantine"))
    assert re.search(r"segment 2: the segment is longer than 65536 bytes", *findings.refused)
    assert claims(events) == 1  # the interchange behind it is found
    assert longest < (2 << 20)


def test_many_headers_without_an_end_take_linear_time(events: Spool, tmp_path: Path) -> None:
    begin = time.process_time()
    findings = read(HEADER * 20_000, events, tmp_path, Findings(on_error="quarantine"))
    assert len(findings.refused) == 20_000
    assert time.process_time() - begin < 10  # about one second; a quadratic reader takes minutes


# --- mutations -----------------------------------------------------------------------------------

MARKS = b"~*:^|\n>U0 "
VALUES = (b"", b"9" * 30, b"-1", b"20240230", b"A1", b"HL", b"ISA", b"\xff")


def flip_a_byte(text: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(text))
    return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]


def put_a_mark(text: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(text))
    return text[:at] + bytes([rng.choice(MARKS)]) + text[at + rng.randint(0, 1) :]


def drop_bytes(text: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(text))
    return text[:at] + text[at + rng.randint(1, 60) :]


def copy_bytes(text: bytes, rng: random.Random) -> bytes:
    at, source = rng.randrange(len(text)), rng.randrange(len(text))
    return text[:at] + text[source : source + rng.randint(1, 300)] + text[at:]


def cut_short(text: bytes, rng: random.Random) -> bytes:
    return text[: rng.randrange(len(text))]


def change_delimiter(text: bytes, rng: random.Random) -> bytes:
    return text.replace(bytes([rng.choice(b"~*:")]), bytes([rng.choice(MARKS)]))


def change_segments(text: bytes, rng: random.Random) -> bytes:
    pieces = text.split(b"~")
    here, there = rng.randrange(len(pieces)), rng.randrange(len(pieces))
    match rng.choice(("drop", "double", "move", "swap")):
        case "drop":
            del pieces[here]
        case "double":
            pieces.insert(there, pieces[here])
        case "move":
            pieces.insert(there, pieces.pop(here))
        case _:
            pieces[here], pieces[there] = pieces[there], pieces[here]
    return b"~".join(pieces)


def change_elements(text: bytes, rng: random.Random) -> bytes:
    pieces = text.split(b"~")
    here = rng.randrange(len(pieces))
    elements = pieces[here].split(b"*")
    at = rng.randrange(len(elements))
    match rng.choice(("value", "drop", "double")):
        case "value":
            elements[at] = rng.choice(VALUES)
        case "drop":
            del elements[at]
        case _:
            elements.insert(at, elements[at])
    pieces[here] = b"*".join(elements)
    return b"~".join(pieces)


def recount(text: bytes, _: random.Random) -> bytes:
    """Trailers that count what stands there: so that mutations reach behind the envelope."""
    pieces, begin = text.split(b"~"), 0
    for number, piece in enumerate(pieces):
        if piece.strip().startswith(b"ST*"):
            begin = number
        elif piece.strip().startswith(b"SE*"):
            pieces[number] = re.sub(rb"SE\*\d+", b"SE*%d" % (number - begin + 1), piece)
    return b"~".join(pieces)


MUTATIONS = (
    flip_a_byte,
    put_a_mark,
    drop_bytes,
    copy_bytes,
    cut_short,
    change_delimiter,
    change_segments,
    change_elements,
    change_elements,
)


def samples() -> list[bytes]:
    """The real samples, and messages that reach what they do not."""
    files = sorted(file for file in REAL.rglob("*") if file.is_file())
    made_up = [text.encode() for text in (REMITTANCE, CLAIM, REQUEST)]
    return [file.read_bytes() for file in files] + made_up


def identifiers(texts: list[bytes]) -> re.Pattern[str]:
    """Names, numbers and dates of people, as they stand in the messages."""
    found = set()
    for segment in b"~".join(texts).decode().split("~"):
        name, *elements = segment.strip().split("*")
        if name in ("NM1", "N3", "CLM", "CLP", "DMG", "REF", "TRN"):
            found |= {element for element in elements if len(element) >= 5}
    return re.compile("|".join(map(re.escape, sorted(found))))


def mutated(texts: list[bytes], rng: random.Random) -> bytes:
    """One of the texts with one to four things wrong."""
    content = rng.choice(texts)
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(MUTATIONS)(content or b"~", rng)
    return recount(content, rng) if rng.random() < 0.7 else content


def survive(files: int, each: int, seed: int, events: Spool, folder: Path) -> int:
    """Read so many files of so many mutated messages each; how many files were kept whole."""
    rng = random.Random(seed)  # noqa: S311
    texts = samples()
    secret = identifiers(texts)
    kept = 0
    file = folder / "a.x12"
    for _ in range(files):
        content = b"".join(mutated(texts, rng) for _ in range(each))
        file.write_bytes(content or b"~")
        findings = Findings(on_error="quarantine")
        reader = InterchangeReader(events, CROSSWALK, findings, timezone=None, with_tests=True)
        begin = time.thread_time()
        reader.read(file)  # whatever else it raises fails the test
        assert time.thread_time() - begin < 1
        kept += not findings.refused
        for words in (*findings.refused, *findings.notes):
            assert not secret.search(words), content
    for kind in EVENTS:
        events.scan(kind).collect()  # all that was kept fits the events' types
    return kept


@needs_samples
def test_two_thousand_mutations_end_in_rows_or_named_refusals(
    events: Spool, tmp_path: Path
) -> None:
    kept = survive(2000, 1, 1, events, tmp_path)
    assert 100 < kept < 1900  # both ends are reached


@needs_samples
@pytest.mark.slow
def test_a_hundred_thousand_mutations_end_in_rows_or_named_refusals(
    events: Spool, tmp_path: Path
) -> None:
    # Ten in a file: so what a mutation does to its neighbours is tried, too.
    survive(10_000, 10, 2, events, tmp_path)


@needs_samples
def test_no_event_holds_an_identifier(events: Spool, tmp_path: Path) -> None:
    texts = samples()
    secret = identifiers(texts)
    (tmp_path / "all.x12").write_bytes(b"".join(texts))
    findings = Findings(on_error="quarantine")
    read_x12(tmp_path / "all.x12", events, CROSSWALK, findings, with_tests=True)
    assert len(findings.refused) == 1  # the sample with a payment in month 23
    for kind in EVENTS:
        for row in events.scan(kind).drop("file").collect().iter_rows():
            cells = [cell for cell in row if isinstance(cell, str)]
            assert not [cell for cell in cells if secret.fullmatch(cell)], kind
