"""Claims that are sent again, replaced or voided: one row each, and none is lost unseen."""

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import pytest

from data_contracts.crosswalk import Crosswalk
from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.assembly import claim_payment, clinical_outcome
from data_contracts.readers.events import Spool, spool
from data_contracts.readers.findings import Findings
from data_contracts.readers.x12 import read_x12

TOKENS = Tokens(bytes(range(32)))
CROSSWALK = Crosswalk(TOKENS)
C1, C2 = TOKENS.claim("1999999984", "C1"), TOKENS.claim("1999999984", "C2")
MERGED = (
    "a claim with the number (CLM01) of another, which it does not replace; the last one counts"
)


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Spool]:
    with spool(tmp_path) as opened:
        yield opened


def interchange(version: str, body: str, control: int) -> str:
    name = "835" if "X221" in version else "837"
    segments = body.split()
    head = (
        f"ISA*00*{'':10}*00*{'':10}*ZZ*{'SENDER':15}*ZZ*{'RECEIVER':15}*240105*1200*^*00501"
        f"*{control:09}*0*P*:"
    )
    lines = [head, f"GS*XX*SENDER*RECEIVER*20240105*1200*7*X*{version}"]
    lines += [f"ST*{name}*0001*{version}", *segments, f"SE*{len(segments) + 2}*0001"]
    return "".join(f"{line}~" for line in [*lines, "GE*1*7", f"IEA*1*{control:09}"])


def claims(sent: str, *told: str, control: int = 1) -> str:
    """An 837 of this day and time (BHT04, BHT05); claims as number, charge and frequency."""
    body = f"""BHT*0019*00*{control}*{sent}*CH HL*1**20*1 NM1*85*2*GROUP*****XX*1999999984
        HL*2*1*22*0 SBR*P*18*******CI NM1*IL*1*DOE*ANN****MI*M1 DMG*D8*19600101*F
        NM1*PR*2*PLAN*****PI*789312 """
    for each in told:
        number, charge, frequency = each.split()
        body += f"CLM*{number}*{charge}***11:B:{frequency} LX*1 SV1*HC:G0463*{charge}*UN*1 "
        body += "DTP*472*D8*20240102 "
    return interchange("005010X222A1", body, control)


def remittance(paid_on: str, *told: str, control: int = 50) -> str:
    """An 835 of this day; claims as number, status, charge, adjustment and payment."""
    total = sum(float(each.split()[4]) for each in told)
    body = f"""BPR*I*{total:g}*C*ACH************{paid_on} TRN*1*{control}*1512345678
        N1*PR*PLAN*XV*789312 N1*PE*GROUP*XX*1999999984 LX*1 """
    for each in told:
        number, status, charge, adjusted, paid = each.split()
        body += f"CLP*{number}*{status}*{charge}*{paid} CAS*CO*45*{adjusted} "
        body += "NM1*QC*1*DOE*ANN****MI*M1 DTM*232*20240102 "
    return interchange("005010X221A1", body, control)


def read(events: Spool, folder: Path, *texts: str) -> Findings:
    (folder / "a.x12").write_text("".join(texts))
    findings = Findings()
    read_x12(folder / "a.x12", events, CROSSWALK, findings)
    return findings


def rows(events: Spool, *columns: str) -> list[tuple[object, ...]]:
    return claim_payment(events).select(columns).collect().rows()


def test_two_claims_with_one_number_become_one_and_are_counted(
    events: Spool, tmp_path: Path
) -> None:
    findings = read(events, tmp_path, claims("20240105*1200", "C1 300 1", "C1 40 1", "C2 7 1"))
    assert sorted(rows(events, "claim_token", "submitted")) == sorted([(C1, 40.0), (C2, 7.0)])
    assert findings.notes == {MERGED: 1}


def test_a_replacement_takes_the_place_of_its_claim(events: Spool, tmp_path: Path) -> None:
    texts = (claims("20240105*1200", "C1 300 1"), claims("20240205*1200", "C1 280 7", control=2))
    findings = read(events, tmp_path, *texts)
    assert rows(events, "submitted", "adjudication_seq") == [(280.0, 0)]
    assert findings.notes == {}  # a correction loses nothing


def test_what_was_sent_last_counts_wherever_it_stands(events: Spool, tmp_path: Path) -> None:
    later = claims("20240105*1201", "C1 280 7", control=2)
    findings = read(events, tmp_path, later, claims("20240105*1200", "C1 300 1"))
    assert rows(events, "submitted") == [(280.0,)]
    assert findings.notes == {}


@pytest.mark.parametrize("moment", ["", "20240105*2400", "20240135*1200", "20240105*930"])
def test_a_claim_whose_moment_cannot_be_read_stands_before_others(
    moment: str, events: Spool, tmp_path: Path
) -> None:
    later = claims("20240105*1201", "C1 280 7", control=2)
    findings = read(events, tmp_path, later, claims(moment, "C1 300 1", "C2 7 1"))
    assert sorted(rows(events, "submitted")) == [(7.0,), (280.0,)]
    assert findings.notes == {"an 837 without a moment of submission (BHT04, BHT05)": 1}


def test_a_claim_that_was_voided_before_any_answer_is_no_claim(
    events: Spool, tmp_path: Path
) -> None:
    void = claims("20240106*1200", "C1 300 8", control=2)
    findings = read(events, tmp_path, void, claims("20240105*1200", "C1 300 1", "C2 7 1"))
    assert rows(events, "claim_token") == [(C2,)]
    assert findings.notes == {"a claim that voids an earlier one": 1}


def test_a_claim_that_is_sent_anew_after_its_void_counts(events: Spool, tmp_path: Path) -> None:
    texts = [
        claims(f"2024010{day}*1200", f"C1 {charge} {frequency}", control=day)
        for day, charge, frequency in ((5, 300, 1), (6, 300, 8), (7, 290, 1))
    ]
    findings = read(events, tmp_path, *texts)
    assert rows(events, "submitted") == [(290.0,)]
    # Two originals bear the number C1, and one of them is left.
    assert findings.notes == {"a claim that voids an earlier one": 1, MERGED: 1}


def test_a_number_that_patients_share_mixes_none_of_them_up(events: Spool, tmp_path: Path) -> None:
    others = claims("20240106*1200", "C1 40 1", control=2).replace("MI*M1", "MI*M2")
    read(events, tmp_path, claims("20240105*1200", "C1 300 1"), others)
    assert rows(events, "submitted", "patient_token") == [(40.0, None)]
    paid = remittance("20240201", "C1 1 300 50 250")
    read(events, tmp_path, paid)
    payer = CROSSWALK.payer("789312").pseudonym
    assert rows(events, "submitted", "patient_token") == [(300.0, TOKENS.patient(payer, "M1"))]


def test_what_a_payer_said_of_a_voided_claim_stays(events: Spool, tmp_path: Path) -> None:
    sent = claims("20240105*1200", "C1 300 1"), claims("20240301*1200", "C1 300 8", control=2)
    paid = remittance("20240201", "C1 1 300 50 250")
    reversed_ = remittance("20240401", "C1 22 -300 -50 -250", control=51)
    read(events, tmp_path, *sent, paid, reversed_)
    told = ("adjudication_seq", "paid_to_provider", "reversal_flag")
    assert rows(events, *told) == [(0, 250.0, False), (1, -250.0, True)]


@pytest.mark.parametrize(
    ("last", "cost"),
    [
        ((), 250.0),
        (("C1 22 -300 -50 -250",), 0.0),  # taken back: it costs nothing, and not -250
        (("C1 22 -300 -50 -250", "C1 1 300 90 210"), 210.0),  # taken back and corrected
    ],
)
def test_a_claim_costs_what_its_last_adjudication_leaves(
    last: tuple[str, ...], cost: float, events: Spool, tmp_path: Path
) -> None:
    texts = [claims("20240105*1200", "C1 300 1", "C2 20 1")]
    texts += [remittance("20240201", "C1 1 300 50 250", "C2 1 20 0 20")]
    texts += [remittance("20240301", *last, control=51)] if last else []
    read(events, tmp_path, *texts)
    patient = {"patient_token": events.scan("person").collect()["patient_token"].item()}
    # Asked for on the day before the service, and watched for a year.
    asked = {"request_token": "r", "submitted_at": datetime(2024, 1, 1)}
    events.add("request", patient | asked)
    events.add("visit", patient | {"start_on": date(2025, 1, 1)})
    events.commit()
    assert clinical_outcome(events).collect()["cost_90d"].to_list() == [20.0 + cost]
