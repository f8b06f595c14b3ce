"""What stands beside the messages that are read: acknowledgments, other sets, test interchanges."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts.crosswalk import Crosswalk
from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.events import EVENTS, Spool, spool
from data_contracts.readers.findings import Findings, ReaderError
from data_contracts.readers.x12 import read_x12
from data_contracts.readers.x12.envelope import NOT_READ_SETS

CROSSWALK = Crosswalk(Tokens(bytes(range(32))))
TA1 = "TA1*000000905*240104*1200*A*000"
# 005010X231A1: a functional group, and one transaction set of it, were accepted.
ACKNOWLEDGED = """AK1*HC*7*005010X222A1 AK2*837*0001*005010X222A1 IK3*CLM*22**8 CTX*CLM01:ZAPHOD9
    IK4*2*782*1*ZAPHOD IK5*A AK9*A*1*1*1"""
ANSWERED = "BHT*0022*13*1*20240105*1200 HL*1**20*1 NM1*PR*2*PLAN*****PI*789312 TRN*1*ZAPHOD*9"
PAID = """BPR*I*250*C*ACH************20240131 TRN*1*5*1512345678 N1*PR*PLAN*XV*789312
    N1*PE*GROUP*XX*1999999984 LX*1 CLP*ZAPHOD1*1*300*250*0 CAS*CO*45*50
    NM1*QC*1*DOE*ZAPHOD****MI*ZAPHOD2"""
REMITTANCE = ("835", "005010X221A1", PAID)


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Spool]:
    with spool(tmp_path) as opened:
        yield opened


def transaction_set(name: str, version: str, body: str, control: int = 1) -> str:
    segments = body.split()
    ends = f"SE*{len(segments) + 2}*{control:04}"
    return "~".join([f"ST*{name}*{control:04}*{version}", *segments, ends]) + "~"


def group(*sets: tuple[str, str, str], control: int = 7) -> str:
    """A functional group: its sets as name, guide and body."""
    version = sets[0][1]
    bodies = "".join(transaction_set(*each, control=n) for n, each in enumerate(sets, start=1))
    head = f"GS*HP*SENDER*RECEIVER*20240105*1200*{control}*X*{version}~"
    return f"{head}{bodies}GE*{len(sets)}*{control}~"


def interchange(*parts: str, control: int = 1, usage: str = "P") -> str:
    """An interchange of such parts: groups, and acknowledgments (TA1) before them."""
    head = (
        f"ISA*00*{'':10}*00*{'':10}*ZZ*{'SENDER':15}*ZZ*{'RECEIVER':15}*240105*1200*^*00501"
        f"*{control:09}*0*{usage}*:~"
    )
    groups = sum(part.startswith("GS") for part in parts)
    return f"{head}{''.join(parts)}IEA*{groups}*{control:09}~"


def read(
    text: str,
    events: Spool,
    folder: Path,
    findings: Findings | None = None,
    *,
    with_tests: bool = False,
) -> Findings:
    file = folder / "a.x12"
    file.write_text(text, encoding="utf-8", newline="")
    findings = findings or Findings()
    read_x12(file, events, CROSSWALK, findings, with_tests=with_tests)
    return findings


def heights(events: Spool) -> dict[str, int]:
    found = {kind: events.scan(kind).collect().height for kind in EVENTS}
    return {kind: height for kind, height in found.items() if height}


# --- acknowledgments and other transaction sets --------------------------------------------------


@pytest.mark.parametrize("acknowledged_first", [True, False])
def test_a_group_of_acknowledgments_costs_no_remittance(
    acknowledged_first: bool, events: Spool, tmp_path: Path
) -> None:
    groups = [group(("999", "005010X231A1", ACKNOWLEDGED), control=8), group(REMITTANCE)]
    text = interchange(*groups if acknowledged_first else reversed(groups))
    findings = read(text, events, tmp_path)
    assert heights(events) == {"payment": 1}
    assert findings.notes == {"a transaction set that is not read (999, acknowledgment)": 1}


def test_acknowledgments_of_interchanges_stand_before_the_groups(
    events: Spool, tmp_path: Path
) -> None:
    findings = read(interchange(f"{TA1}~", f"{TA1}~", group(REMITTANCE)), events, tmp_path)
    assert heights(events) == {"payment": 1}
    assert findings.notes == {"an acknowledgment of an interchange (TA1)": 2}
    # X12.5, 3.5: ISA, then TA1, then the groups, then IEA.
    with pytest.raises(ReaderError, match=r"segment \d+: a group \(GS\) or the end \(IEA\) must"):
        read(interchange(group(REMITTANCE), f"{TA1}~", control=2), events, tmp_path)


def test_an_interchange_may_hold_an_acknowledgment_alone(events: Spool, tmp_path: Path) -> None:
    alone = interchange(f"{TA1}~")
    assert "IEA*0*" in alone  # IEA01 counts groups, and there is none
    findings = read(alone, events, tmp_path)
    assert findings.notes == {"an acknowledgment of an interchange (TA1)": 1}
    with pytest.raises(ReaderError, match=r"\(IEA01\): it does not count the groups"):
        read(interchange(f"{TA1}~", control=2).replace("IEA*0", "IEA*1"), events, tmp_path)


@pytest.mark.parametrize("name", NOT_READ_SETS)
def test_a_transaction_set_that_is_not_read_is_passed_over_and_counted(
    name: str, events: Spool, tmp_path: Path
) -> None:
    other = group((name, "005010X279A1", ANSWERED), (name, "005010X279A1", ANSWERED), control=8)
    findings = read(interchange(other, group(REMITTANCE)), events, tmp_path)
    assert heights(events) == {"payment": 1}
    words = f"a transaction set that is not read ({name}, {NOT_READ_SETS[name]})"
    assert findings.notes == {words: 2}


@pytest.mark.parametrize(
    ("name", "guide", "words"),
    [
        ("837", "005010X224A2", "837D, dental claim"),
        ("278", "005010X216", "278, notification"),
        ("278", "005010X215E1", "278, inquiry"),
    ],
)
def test_another_guide_of_a_set_that_is_read_is_passed_over_and_counted(
    name: str, guide: str, words: str, events: Spool, tmp_path: Path
) -> None:
    other = group((name, guide, ANSWERED), control=8)
    findings = read(interchange(group(REMITTANCE), other), events, tmp_path)
    assert heights(events) == {"payment": 1}
    assert findings.notes == {f"a transaction set that is not read ({words})": 1}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("SE*9*", "SE*8*", r"\(SE01\): it does not count the segments"),
        ("SE*9*0001", "SE*9*0002", r"\(SE02\): the control number"),
        ("GE*1*8", "GE*2*8", r"\(GE01\): it does not count the transaction sets"),
        ("IEA*2", "IEA*1", r"\(IEA01\): it does not count the groups"),
        ("IK5*A~", "?K5*A~", r"segment 9: this is no segment"),
        ("SE*9*0001~GE*1*8~", "GE*1*8~", r"segment 11: the transaction set before it has no end"),
        # A guide or a set that nobody knows may be a damaged one that is to be read.
        ("ST*999*", "ST*993*", r"segment 3 \(ST01\): .* this one is unknown"),
        ("ST*835*0001*005010X221A1", "ST*835*0001*005010X224", r"\(ST03\): the guide that ST03"),
        ("ST*835*0001*005010X221A1", "ST*835*0001*004010X091A1", r"\(ST03\): the guide that ST03"),
    ],
)
def test_what_is_passed_over_is_checked_like_everything_else(
    old: str, new: str, words: str, events: Spool, tmp_path: Path
) -> None:
    text = interchange(group(("999", "005010X231A1", ACKNOWLEDGED), control=8), group(REMITTANCE))
    assert text.count(old) == 1
    with pytest.raises(ReaderError, match=words) as caught:
        read(text.replace(old, new), events, tmp_path)
    assert "ZAPHOD" not in str(caught.value)
    assert heights(events) == {}


# --- test interchanges ---------------------------------------------------------------------------

LEFT_OUT = "a test interchange (ISA15 is not P), left out"


@pytest.mark.parametrize("usage", ["T", "I", " "])  # test, information, nothing said
def test_a_test_interchange_never_stands_among_production_data(
    usage: str, events: Spool, tmp_path: Path
) -> None:
    test = interchange(group(REMITTANCE), control=2, usage=usage).replace("ZAPHOD1", "ZAPHOD3")
    findings = read(test + interchange(group(REMITTANCE)) + test, events, tmp_path)
    assert heights(events) == {"payment": 1}
    assert findings.notes == {LEFT_OUT: 2}


def test_what_a_test_interchange_says_is_not_looked_at(events: Spool, tmp_path: Path) -> None:
    # Tests try what is wrong: a set, a date and an amount that no reader would take.
    wrong = group(("993", "1", "X*1"), ("835", "x", "BPR*I*much*C*ACH************20241301"))
    text = interchange(wrong, usage="T") + interchange(group(REMITTANCE), control=2)
    findings = read(text, events, tmp_path)
    assert heights(events) == {"payment": 1}
    assert findings.notes == {LEFT_OUT: 1}


def test_sources_that_hold_nothing_but_tests_are_an_error_that_says_what_to_do(
    events: Spool, tmp_path: Path
) -> None:
    text = interchange(group(REMITTANCE), usage="T")
    with pytest.raises(
        ReaderError, match=r'nothing but 1 test interchange.* set origin = "synthetic"'
    ):
        read(text, events, tmp_path)


def test_a_refusal_is_not_hidden_behind_tests(events: Spool, tmp_path: Path) -> None:
    cut = interchange(group(REMITTANCE), control=2).rpartition("IEA")[0]
    findings = Findings("quarantine")
    (tmp_path / "a.x12").write_text(interchange(group(REMITTANCE), usage="T") + cut)
    read_x12(tmp_path / "a.x12", events, CROSSWALK, findings)
    assert len(findings.refused) == 1
    assert "no end (IEA)" in findings.refused[0]
    assert findings.notes == {LEFT_OUT: 1}


def test_the_envelope_of_a_test_interchange_is_checked_for_what_may_hide_behind_it(
    events: Spool, tmp_path: Path
) -> None:
    # The header of the second one is damaged: its remittance must not vanish with the first.
    second = interchange(group(REMITTANCE), control=2).replace("ISA*00*", "ISA*00")
    text = interchange(group(REMITTANCE), usage="T") + second
    with pytest.raises(ReaderError, match=r"something other than a header \(ISA\) follows IEA"):
        read(text, events, tmp_path)


def test_test_interchanges_are_read_where_that_is_wanted(events: Spool, tmp_path: Path) -> None:
    text = interchange(group(REMITTANCE), usage="T")
    findings = read(text, events, tmp_path, with_tests=True)
    assert heights(events) == {"payment": 1}
    assert findings.notes == {"a test interchange (ISA15 is not P)": 1}
