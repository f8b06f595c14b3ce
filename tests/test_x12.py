"""What the X12 reader makes of 278, 837 and 835: worked out by hand from the guides."""

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from data_contracts.crosswalk import UNLISTED_PAYER, Crosswalk, Payer
from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.events import EVENTS, Spool, spool
from data_contracts.readers.findings import Findings, ReaderError
from data_contracts.readers.x12 import read_x12
from experiments.benchmarks import x12_throughput

REAL = Path(__file__).parents[2] / "shared" / "data" / "x12"
needs_samples = pytest.mark.skipif(not REAL.is_dir(), reason=f"the X12 samples are not at {REAL}")

TOKENS = Tokens(bytes(range(32)))
CROSSWALK = Crosswalk(
    TOKENS,
    payers={"789312": Payer("payer-1", "COMM"), "12345": Payer("payer-2")},
    providers={"8189991234": "group-1"},
)
TEST_MARK = "a test interchange (ISA15 is not P)"
NO_NPI = "an 835 whose payee has no NPI; its claims may match no 837"
NO_DAY = "an 835 without a day of payment (BPR16)"

REQUEST, RESPONSE, REMITTANCE = "278*005010X217", "278*005010X217", "835*005010X221A1"
PROFESSIONAL, INSTITUTIONAL = "837*005010X222A1", "837*005010X223A2"


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Spool]:
    with spool(tmp_path) as opened:
        yield opened


def interchange(kind: str, *bodies: str, control: int = 1) -> str:
    """An interchange with one group; each body is a transaction set without ST and SE."""
    name, version = kind.split("*")
    lines = [
        f"ISA*00*{'':10}*00*{'':10}*ZZ*{'SENDER':15}*ZZ*{'RECEIVER':15}*240105*1200*^*00501"
        f"*{control:09}*0*P*:",
        f"GS*XX*SENDER*RECEIVER*20240105*1200*7*X*{version}",
    ]
    for number, body in enumerate(bodies, start=1):
        segments = body.split()
        segments = [segment.replace("_", " ") for segment in segments]
        lines += [f"ST*{name}*{number:04}*{version}", *segments]
        lines += [f"SE*{len(segments) + 2}*{number:04}"]
    lines += [f"GE*{len(bodies)}*7", f"IEA*1*{control:09}"]
    return "".join(f"{line}~\n" for line in lines)


def rows(events: Spool, kind: str) -> list[dict[str, Any]]:
    """Events without the fields that are unknown, and without the file."""
    return [
        {name: value for name, value in row.items() if value is not None and name != "file"}
        for row in events.scan(kind).collect().to_dicts()
    ]


def read(text: str, events: Spool, folder: Path, findings: Findings | None = None) -> Findings:
    file = folder / "a.x12"
    file.write_text(text, encoding="utf-8", newline="")
    findings = findings or Findings()
    read_x12(file, events, CROSSWALK, findings, with_tests=True)
    return findings


# --- the samples: all that they tell ------------------------------------------------------------

REQUEST_278 = {
    "place": "segment 11",  # HL*4*3*EV
    "request_token": TOKENS.request("8189991234", "111099"),  # NM1*1P NM109, TRN02
    "item_sequence": 1,  # no SS level: the event is the item
    "patient_token": TOKENS.patient("payer-1", "12345678901"),  # NM1*IL NM109
    "payer_id": "payer-1",  # NM1*X3 NM109 by the crosswalk
    "provider_group_id": "group-1",
    "business_line": "COMM",
    "request_type": "medical",
    "certification_type": "I",
    "request_category": "SC",
    "service_type": "other",  # UM03 is 3, which has no group of its own
    "dx_other": [],  # HI*BF is ICD-9-CM: left out and counted
    "place_of_service": "11",
    "quantity": 1.0,  # HSD*VS*1
    "quantity_unit": "VS",
    "channel": "X12",
    "attachments_n": 0,
    "submitted_at": datetime(2005, 5, 2, 11, 1),  # BHT04, BHT05
}
DECISION_278 = {
    "place": "segment 11",
    "request_token": REQUEST_278["request_token"],  # TRN*2 repeats the requester's number
    "action_code": "A1",
    "reason_codes": [],
    "decided_at": datetime(2005, 5, 2, 11, 2),
    "units_approved": 1.0,
    "auth_period_days": 31,  # 2 May to 2 June
    "authorization_token": TOKENS.authorization("payer-1", "AUTH0001"),
}
NOT_ADJUSTED = {"deductible": 0.0, "coinsurance": 0.0, "copay": 0.0}


def payment(payer: str, payee: str, claim: str, member: str, **told: object) -> dict[str, object]:
    """A payment as it stands in the samples, where most amounts of the patient are none."""
    return {
        "claim_token": TOKENS.claim(payee, claim),
        "patient_token": TOKENS.patient(CROSSWALK.payer(payer).pseudonym, member),
        "paid_by_patient": 0.0,
        "rarc": [],
        "reversal_flag": False,
        **NOT_ADJUSTED,
        **told,
    }


def claim_and_person(
    places: tuple[int, int],
    tokens: tuple[str, str],
    claim: dict[str, object],
    person: tuple[date, str, str],
) -> dict[str, list[dict[str, object]]]:
    """Events of an 837 with one claim."""
    claim_token, patient_token = tokens
    birth, sex, zip3 = person
    return {
        "claim": [
            {
                "place": f"segment {places[0]}",
                "claim_token": claim_token,
                "patient_token": patient_token,
                **claim,
            }
        ],
        "person": [
            {
                "place": f"segment {places[1]}",
                "patient_token": patient_token,
                "birth_year": birth.year,
                "birth_date": birth,
                "sex": sex,
                "zip3": zip3,
            }
        ],
    }


def patient(payer: str, member: str, dependent: str = "") -> str:
    return TOKENS.patient(CROSSWALK.payer(payer).pseudonym, member, dependent=dependent)


GOLDEN: dict[str, tuple[dict[str, list[dict[str, object]]], dict[str, int]]] = {
    "278/Example_3_1_1_Request.txt": (
        {"request": [REQUEST_278]},
        {"a diagnosis in ICD-9-CM": 1},
    ),
    "278/Example_3_1_2_Response.txt": (
        {"decision": [DECISION_278]},
        {"a diagnosis in ICD-9-CM": 1},
    ),
    "835/cob-contractural-adjustment.835": (
        {
            "payment": [
                payment(
                    "1566339911",  # no N104 and no REF of the payer: TRN03
                    "3UR334563",
                    "0001000055",
                    "987654321",
                    place="segment 16",
                    claim_status="2",
                    submitted=541.0,
                    eligible=550.0,  # AMT*B6 of the only line
                    paid_to_provider=34.0,
                    group_code="OA",  # CAS*OA*23*516.00 is larger than CAS*OA*94*-9.00
                    carc="23",
                    service_from=date(2005, 2, 2),
                    payment_method="CHK",  # the date stands in BPR15, so BPR16 is empty
                )
            ]
        },
        {NO_NPI: 1, NO_DAY: 1},
    ),
    "835/medicare-part-a.835": (
        {
            "payment": [
                payment(
                    "999",  # REF*2U
                    "6543210903",
                    "666123",
                    "666666666A",
                    place="segment 15",
                    claim_status="1",
                    submitted=211366.97,
                    eligible=138018.40,  # 211366.97 - 73348.57, CAS*CO
                    paid_to_provider=138018.40,
                    group_code="CO",
                    carc="45",
                    service_from=date(2002, 8, 16),
                    paid_on=date(2002, 9, 13),
                    payment_method="ACH",
                ),
                payment(
                    "999",
                    "6543210903",
                    "777777",
                    "996669999B",
                    place="segment 24",
                    claim_status="1",
                    submitted=15000.0,
                    eligible=11980.33,
                    paid_to_provider=11980.33,
                    group_code="CO",
                    carc="45",
                    rarc=["MA02"],  # MOA03
                    service_from=date(2002, 5, 12),
                    paid_on=date(2002, 9, 13),
                    payment_method="ACH",
                ),
            ]
        },
        {},  # 138018.40 + 11980.33 - (-1.27) is BPR02
    ),
    "835/secondary-payment.835": (
        {
            "payment": [
                payment(
                    "1559123456",
                    "599944521",
                    "L0004828311",
                    "XXX123456789",
                    place="segment 16",
                    claim_status="2",
                    submitted=10323.64,
                    eligible=10323.64,  # no CO and no PI; OA 23 is what the first payer paid
                    paid_to_provider=912.0,
                    group_code="OA",
                    carc="23",
                    service_from=date(2005, 3, 3),
                    payment_method="CHK",
                ),
                payment(
                    "1559123456",
                    "599944521",
                    "0001000053",
                    "456789123",
                    place="segment 24",
                    claim_status="2",
                    submitted=751.5,
                    eligible=650.0,  # AMT*B6: 150 + 500
                    paid_to_provider=310.0,
                    paid_by_patient=220.0,
                    deductible=150.0,  # PR 1
                    coinsurance=70.0,  # PR 2
                    group_code="PR",  # 150 is more than 136.50 and 85
                    carc="1",
                    service_from=date(2005, 1, 6),
                    payment_method="CHK",
                    revenue_code="0220",  # SVC04 of the line of 585
                ),
            ]
        },
        {NO_NPI: 1, NO_DAY: 1},
    ),
    "835/tertiary-payment.835": (
        {
            "payment": [
                payment(
                    "1559123456",
                    "599944521",
                    "0001000054",
                    "789123456",
                    place="segment 16",
                    claim_status="3",
                    submitted=1766.5,
                    eligible=1700.0,
                    paid_to_provider=187.5,
                    group_code="OA",
                    carc="23",
                    service_from=date(2005, 1, 20),
                    payment_method="CHK",
                )
            ]
        },
        {
            NO_NPI: 1,
            NO_DAY: 1,
            # SVC*HC*24599.00*1766.50*187.50: the elements stand one place too far to the right.
            "an 835 claim with a line that does not balance": 1,
            "a revenue code that is not four digits": 1,
        },
    ),
    "837/demo.example1.837": (
        claim_and_person(
            (27, 21),
            (
                TOKENS.claim("1912301953", "26463774"),
                # HL*3*2*23: the patient is a dependent of the subscriber.
                patient("999996666", "JS00111223333", "19730501 TED"),
            ),
            {
                "frequency": "1",
                "submitted_at": datetime(2006, 10, 15, 10, 23),
                "submitted": 100.0,
                "service_from": date(2006, 10, 3),
            },
            (date(1973, 5, 1), "male", "334"),
        ),
        {},
    ),
    "837/demo.example2.837": (
        claim_and_person(
            (24, 17),
            (TOKENS.claim("9876543210", "26462967"), patient("741234", "00221111")),
            {
                "frequency": "1",
                "submitted_at": datetime(2006, 10, 15, 10, 23),
                "submitted": 100.0,
                "service_from": date(2006, 10, 3),
            },
            (date(1943, 5, 1), "male", "334"),
        ),
        {},
    ),
    "837/demo.example6.837": (
        claim_and_person(
            (21, 14),
            (TOKENS.claim("1234567890", "125WILL"), patient("C12345", "123456789A")),
            {
                "submitted_at": datetime(2005, 2, 15, 7, 54, 20),
                "submitted": 145.5,
                "service_from": date(2005, 2, 15),
            },
            (date(1925, 1, 10), "male", "212"),
        ),
        {},
    ),
    "837/demo.example7.837": (
        claim_and_person(
            (20, 13),
            (TOKENS.claim("9992233334", "R03996273 #01"), patient("99999", "111222333A")),
            {
                "frequency": "1",
                "submitted_at": datetime(2005, 3, 26, 10, 36),
                "submitted": 520.24,
                "service_from": date(2005, 3, 21),  # DTP*472*RD8
            },
            (date(1938, 1, 5), "female", "462"),
        ),
        {},
    ),
    "837/demo.example8.837": (
        claim_and_person(
            (22, 14),
            (TOKENS.claim("7778889999", "SMI123"), patient("99999", "987654321A")),
            {
                "frequency": "1",
                "submitted_at": datetime(2005, 3, 26, 10, 36),
                "submitted": 75.0,
                "service_from": date(2005, 3, 21),
            },
            (date(1920, 10, 23), "male", "462"),
        ),
        {},
    ),
    "837/demo.example9.837": (
        claim_and_person(
            (20, 13),
            (TOKENS.claim("2366554859", "153829140"), patient("05440", "123456789A")),
            {
                "submitted_at": datetime(2005, 1, 17, 10, 23),
                "submitted": 827.0,
                "service_from": date(2005, 1, 12),
            },
            (date(1974, 3, 3), "female", "372"),
        ),
        {},
    ),
    "837/institutional-claim.837i": (
        claim_and_person(
            (22, 14),
            # Payer and subscriber of loop 2320 (SBR*S) take no one's place.
            (TOKENS.claim("9876540809", "756048Q"), patient("00435", "030005074A")),
            {
                "frequency": "1",
                "submitted": 89.93,
                "submitted_at": datetime(1996, 9, 18, 9, 32),
                "service_from": date(1996, 9, 11),  # DTP*434
                "revenue_code": "0730",  # 76.54 is more than 13.39
            },
            (date(1926, 11, 11), "male", "171"),
        ),
        {},
    ),
}


@needs_samples
@pytest.mark.parametrize("name", GOLDEN)
def test_a_sample_tells_what_its_guide_says(name: str, events: Spool) -> None:
    expected, notes = GOLDEN[name]
    findings = Findings()
    read_x12(REAL / name, events, CROSSWALK, findings, with_tests=True)
    for kind in EVENTS:
        assert rows(events, kind) == expected.get(kind, []), kind
    assert findings.notes == notes | {TEST_MARK: 1}
    assert findings.refused == []


@needs_samples
def test_a_sample_that_was_paid_in_month_23_is_refused(events: Spool) -> None:
    with pytest.raises(ReaderError, match=r"managed-care\.835, segment 4 \(BPR16\): a day of the"):
        read_x12(REAL / "835" / "managed-care.835", events, CROSSWALK, Findings(), with_tests=True)


@needs_samples
def test_that_sample_tells_two_claims_once_its_day_is_mended(events: Spool, tmp_path: Path) -> None:
    text = (REAL / "835" / "managed-care.835").read_text().replace("20002316", "20020316")
    read(text, events, tmp_path)
    shared = {
        "claim_status": "1",
        "service_from": None,
        "paid_on": date(2002, 3, 16),
        "payment_method": "ACH",
        "group_code": "PR",
        "carc": "1",
    }
    first = payment(
        "1935665544",
        "5544667733",
        "5554555444",
        "33344555510",
        place="segment 13",
        submitted=800.0,
        eligible=750.0,  # 800 - 50 (CAS*CO*A2 of the claim)
        paid_to_provider=450.0,
        paid_by_patient=300.0,
        **shared | {"deductible": 300.0, "service_from": date(2002, 3, 1)},
    )
    second = payment(
        "1935665544",
        "5544667733",
        "8765432112",
        "44455666610",
        place="segment 20",
        submitted=1200.0,
        eligible=1095.0,  # 1200 - 55 - 50 (CAS*CO of the claim and of its line)
        paid_to_provider=495.0,
        paid_by_patient=600.0,
        **shared | {"deductible": 600.0, "service_from": date(2002, 3, 10)},
    )
    assert rows(events, "payment") == [first, second]


@needs_samples
def test_a_directory_of_samples_counts_those_that_share_a_control_number(events: Spool) -> None:
    findings = Findings(on_error="quarantine")
    done: list[Path] = []
    read_x12(REAL / "837", events, CROSSWALK, findings, with_tests=True, progress=done.append)
    assert done == sorted((REAL / "837").iterdir())
    assert events.scan("claim").collect().height == 7
    # All seven bear sender, receiver, day, time and number of the first; their contents differ.
    assert findings.notes["an interchange with the control number of another"] == 6
    assert findings.refused == []


# --- requests and answers -----------------------------------------------------------------------

PARTIES = """HL*1**20*1 NM1*X3*2*PLAN*****46*789312 HL*2*1*21*1 NM1*1P*2*GROUP*****XX*8189991234
    PRV*RF*PXC*207Q00000X HL*3*2*22*1 NM1*IL*1*DOE*ANN****MI*M-1"""
ASKED = f"BHT*0007*13*B1*20240105*093015 {PARTIES} "
ANSWERED = f"BHT*0007*11*B1*20240109*1600*18 {PARTIES} "
EVENT = "HL*4*3*EV*1 TRN*1*T7*9012345678 UM*HS*I*2*22:B**U "
ECHO = "HL*4*3*EV*1 TRN*1*P-1*9999999999 TRN*2*T7*9012345678 "


def test_each_service_is_an_item_that_tells_what_differs_from_its_event(
    events: Spool, tmp_path: Path
) -> None:
    body = f"""{ASKED} {EVENT} HI*ABK:E119*ABF:I10*ABF:Z7984*ABJ:R05 PWK*77*EL HSD*VS*6
        HL*5*4*SS*0 SV1*HC:G0463:25:GT*100*UN*3 PRV*PE*PXC*2085R0202X PWK*77*EL
        HL*6*4*SS*0 UM**R*12*11:A SV1*N4:0002-8215-01 HL*7*4*SS*0 SV2*0420*HC:97110**UN*8
        HL*8*4*SS*0 SV3*AD:D2750*****1 HL*9*4*SS*0 SV1*ZZ:1"""
    findings = read(interchange(REQUEST, body), events, tmp_path)
    first, drug, therapy, crown, other = rows(events, "request")
    shared = {
        "request_token": TOKENS.request("8189991234", "T7"),
        "patient_token": TOKENS.patient("payer-1", "M1"),  # hyphens do not count
        "dx_principal": "E11.9",
        "dx_other": ["I10", "Z79.84"],  # R05 is the admitting diagnosis
        "level_of_service": "U",
        "request_category": "HS",
        "channel": "X12",
        "submitted_at": datetime(2024, 1, 5, 9, 30, 15),
    }
    for item in (first, drug, therapy, crown, other):
        assert item.items() >= shared.items()
    assert (
        first.items()
        >= {
            "item_sequence": 1,
            "place": "segment 18",
            "procedure_code": "G0463",
            "modifier": ["25", "GT"],
            "quantity": 3.0,
            "quantity_unit": "UN",
            "claim_type": "professional",
            "request_type": "medical",
            "service_type": "2",
            "certification_type": "I",
            "place_of_service": "22",
            "provider_taxonomy": "2085R0202X",
            "attachments_n": 2,
        }.items()
    )
    assert (
        drug.items()
        >= {
            "ndc": "00002821501",  # 4-4-2: the labeler gets a leading zero
            "request_type": "drug",
            "certification_type": "R",
            "service_type": "12",
            "provider_taxonomy": "207Q00000X",  # the requester's
            "attachments_n": 1,
            "quantity": 6.0,  # HSD of the event
            "quantity_unit": "VS",
        }.items()
    )
    assert (therapy["claim_type"], therapy["quantity"]) == ("institutional", 8.0)
    assert (crown["claim_type"], crown["procedure_code"]) == ("oral", "D2750")
    assert "procedure_code" not in other
    assert findings.notes == {
        "a facility type (UM04-2 is A), which is no place of service": 1,
        "a procedure in another code system than HCPCS and NDC": 1,
    }


def test_without_a_principal_diagnosis_the_first_one_is_it(events: Spool, tmp_path: Path) -> None:
    read(interchange(REQUEST, f"{ASKED} {EVENT} HI*ABF:M5416*ABF:M545"), events, tmp_path)
    (item,) = rows(events, "request")
    assert (item["dx_principal"], item["dx_other"]) == ("M54.16", ["M54.5"])


def test_codes_of_no_code_system_are_left_out_of_a_request_and_counted(
    events: Spool, tmp_path: Path
) -> None:
    body = f"""{ASKED.replace("*8189991234", "").replace("*093015", "").replace("*XX", "")} {EVENT}
        PRV*PE*ZZ*1 HI*ABK:E11.9*ABF:4019*BK:4019
        HL*5*4*SS*0 SV1*N4:0002821501 HL*6*4*SS*0 SV1*N4:00002821501"""
    findings = read(interchange(REQUEST, body), events, tmp_path)
    ten_digits, drug = rows(events, "request")
    assert ten_digits["request_token"] == TOKENS.request("", "T7")
    assert ten_digits["submitted_at"] == datetime(2024, 1, 5)  # no BHT05
    assert "ndc" not in ten_digits
    assert drug["ndc"] == "00002821501"
    assert (drug["dx_principal"], drug["dx_other"]) == ("E11.9", [])
    assert findings.notes == {
        "a 278 whose requester has no identifier": 1,
        "a diagnosis in ICD-9-CM": 1,
        "a diagnosis that is no code of ICD-10-CM": 1,
        "a drug code that is no National Drug Code of 11 digits": 1,
    }


def test_units_are_those_of_the_contract_or_left_out_and_counted(
    events: Spool, tmp_path: Path
) -> None:
    body = f"""{ASKED} {EVENT} HSD*DY*14 HL*5*4*SS*0 SV1*HC:97110**MJ*45
        HL*6*4*SS*0 SV1*HC:97110**JANE*2 HL*7*4*SS*0"""
    findings = read(interchange(REQUEST, body), events, tmp_path)
    asked = [(item["quantity"], item.get("quantity_unit")) for item in rows(events, "request")]
    # Data element 673 (HSD01) writes days DY, data element 355 writes them DA.
    assert asked == [(45.0, "MJ"), (2.0, None), (14.0, "DA")]
    assert findings.notes == {"a unit of quantity that the contract does not hold": 1}


def test_a_cancellation_is_a_request_that_says_so(events: Spool, tmp_path: Path) -> None:
    body = f"{ASKED.replace('*13*', '*01*')} {EVENT}"
    read(interchange(REQUEST, body), events, tmp_path)
    assert [item["certification_type"] for item in rows(events, "request")] == ["3"]


@pytest.mark.parametrize(
    ("answers", "action"),
    [
        ("A1", "A1"),
        ("A3 A3", "A3"),
        ("A1 A3", "A2"),  # some certified, some not
        ("A1 A6", "A6"),  # all certified, some modified
        ("A6 A3", "A2"),
        ("A1 A4", "A4"),  # as long as one is pended, the request is
        ("A1 CT", "CT"),
        ("A1 NA", "A1"),
        ("NA NA", "NA"),
        ("NA C", "C"),
    ],
)
def test_the_answers_to_services_become_one(
    events: Spool, tmp_path: Path, answers: str, action: str
) -> None:
    services = [
        f"HL*{number}*4*SS*0 TRN*2*S{number} HCR*{answer}**0{number}"
        for number, answer in enumerate(answers.split(), start=5)
    ]
    read(interchange(RESPONSE, f"{ANSWERED} {ECHO} {' '.join(services)}"), events, tmp_path)
    (decision,) = rows(events, "decision")
    assert decision["action_code"] == action
    assert decision["request_token"] == TOKENS.request("8189991234", "T7")
    assert decision["reason_codes"] == [f"0{n}" for n in range(5, 5 + len(answers.split()))]
    assert decision["decided_at"] == datetime(2024, 1, 9, 16)


def test_units_and_number_of_an_answer_are_those_of_what_is_certified(
    events: Spool, tmp_path: Path
) -> None:
    body = f"""{ANSWERED} {ECHO} HCR*A1*AUTH-1 DTP*472*RD8*20240110-20240409
        DTP*AAH*RD8*20240110-20240209 HSD*VS*9
        HL*5*4*SS*0 HSD*VS*6 HL*6*4*SS*0 HCR*A3**0V^0W HSD*VS*5 HL*7*4*SS*0 HSD*VS*2"""
    read(interchange(RESPONSE, body), events, tmp_path)
    (decision,) = rows(events, "decision")
    assert decision["action_code"] == "A2"
    assert decision["units_approved"] == 8.0  # 6 and 2; the 5 are not certified
    assert decision["auth_period_days"] == 30  # the event's date comes before the service's
    assert decision["reason_codes"] == ["0V", "0W"]  # HCR03 repeats
    assert decision["authorization_token"] == TOKENS.authorization("payer-1", "AUTH1")


def test_units_of_different_measures_make_no_sum(events: Spool, tmp_path: Path) -> None:
    body = f"{ANSWERED} {ECHO} HCR*A1 HL*5*4*SS*0 HSD*VS*6 HL*6*4*SS*0 HSD*DY*6"
    findings = read(interchange(RESPONSE, body), events, tmp_path)
    assert "units_approved" not in rows(events, "decision")[0]
    assert findings.notes == {"units of different measures in one answer": 1}


def test_two_numbers_of_one_answer_and_an_unknown_action_are_counted(
    events: Spool, tmp_path: Path
) -> None:
    body = f"{ANSWERED} {ECHO} HL*5*4*SS*0 HCR*A1*N1 HL*6*4*SS*0 HCR*A6*N2 HL*7*4*SS*0 HCR*51"
    findings = read(interchange(RESPONSE, body), events, tmp_path)
    assert rows(events, "decision")[0]["authorization_token"] == TOKENS.authorization(
        "payer-1", "N1"
    )
    assert findings.notes == {
        "a further authorization number of an answer": 1,
        "278 HCR01: a code that the contract does not hold": 1,
    }


def test_a_response_without_an_answer_is_counted(events: Spool, tmp_path: Path) -> None:
    findings = read(interchange(RESPONSE, f"{ANSWERED} {ECHO}"), events, tmp_path)
    assert rows(events, "decision") == []
    assert findings.notes == {"a response without an answer (HCR)": 1}


def test_a_rejected_request_has_no_decision_and_is_counted(events: Spool, tmp_path: Path) -> None:
    body = f"{ANSWERED} {ECHO} AAA*N**15*N"
    findings = read(interchange(RESPONSE, body), events, tmp_path)
    assert rows(events, "decision") == []
    assert findings.notes == {"a request that the payer could not process (AAA)": 1}


def test_a_request_and_its_response_bear_the_same_tokens(events: Spool, tmp_path: Path) -> None:
    texts = [
        interchange(REQUEST, f"{ASKED} {EVENT}"),
        interchange(RESPONSE, f"{ANSWERED} {ECHO} HCR*A4", control=2),
    ]
    read("".join(texts), events, tmp_path)
    ((asked,), (answered,)) = rows(events, "request"), rows(events, "decision")
    assert asked["request_token"] == answered["request_token"]


def test_an_event_without_a_trace_number_is_told_by_its_transaction(
    events: Spool, tmp_path: Path
) -> None:
    body = f"{ASKED} HL*4*3*EV*0 UM*HS*I"
    read(interchange(REQUEST, body), events, tmp_path)
    assert [item["request_token"] for item in rows(events, "request")] == [
        TOKENS.request("8189991234", "B1")  # BHT03, which a response repeats
    ]
    twice = f"{body} HL*5*3*EV*0 UM*HS*I"
    with pytest.raises(ReaderError, match=r"segment 14 \(HL\): a second event .* has no trace"):
        read(interchange(REQUEST, twice), events, tmp_path)


def test_a_dependent_is_told_apart_by_birth_date_and_first_name(
    events: Spool, tmp_path: Path
) -> None:
    dependent = """HL*4*3*23*1 NM1*QC*1*DOE*Tim N3*X N4*BERLIN*NH*03570 DMG*D8*20190203*U
        HL*5*4*EV*0 TRN*1*T8 UM*HS*I NM1*SJ*1*ROE N4*X*NH*99999"""
    read(interchange(REQUEST, f"{ASKED} {dependent}"), events, tmp_path)
    token = TOKENS.patient("payer-1", "M1", dependent="2019-02-03TIM")
    assert [item["patient_token"] for item in rows(events, "request")] == [token]
    assert rows(events, "person") == [
        {
            "place": "segment 12",  # HL*4*3*23
            "patient_token": token,
            "birth_year": 2019,
            "birth_date": date(2019, 2, 3),
            "sex": "unknown",
            "zip3": "035",  # the patient's, not that of who gives the service
        }
    ]


# --- claims and payments ------------------------------------------------------------------------

BILLING = "BHT*0019*00*1*20240105*1200*CH HL*1**20*1 NM1*85*2*GROUP*****XX*1999999984 REF*EI*55 "
INSURED = """HL*2*1*22*0 SBR*P*18*******CI NM1*IL*1*DOE*ANN****MI*M1 N4*X*FL*33111
    DMG*D8*19600101*F NM1*PR*2*PLAN*****PI*789312 N4*X*FL*99999 """
CLAIM = "CLM*C1*300***11:B:1*Y REF*G1*AUTH-1 "
PAID = """BPR*I*250*C*ACH************20240131 TRN*1*5*1512345678 N1*PR*PLAN*XV*789312
    N1*PE*GROUP*XX*1999999984 LX*1 """


def test_a_claim_and_its_payment_bear_the_same_tokens(events: Spool, tmp_path: Path) -> None:
    claim = f"{BILLING} {INSURED} {CLAIM} LX*1 SV1*HC:G0463*300*UN*1 DTP*472*D8*20240102"
    paid = f"{PAID} CLP*C1*1*300*250 CAS*CO*45*50 NM1*QC*1*DOE*ANN****MI*M1 REF*G1*AUTH1"
    findings = read(
        interchange(PROFESSIONAL, claim) + interchange(REMITTANCE, paid, control=2),
        events,
        tmp_path,
    )
    (claimed,), (payment,) = rows(events, "claim"), rows(events, "payment")
    for name in ("claim_token", "patient_token", "authorization_token"):
        assert claimed[name] == payment[name]
    assert claimed["authorization_token"] == TOKENS.authorization("payer-1", "AUTH1")
    assert findings.notes == {}


def test_an_institutional_claim_has_its_group_and_the_code_of_its_largest_line(
    events: Spool, tmp_path: Path
) -> None:
    claim = f"""{BILLING} {INSURED} {CLAIM} DTP*434*RD8*20240102-20240105 HI*ABK:I10 HI*DR:470
        SBR*S*18 NM1*IL*1*ROE*BOB****MI*OTHER NM1*PR*2*B*****PI*OTHER REF*G1*OTHER
        LX*1 SV2*120*HC:G0463*200*UN*1 LX*2 SV2*0450*HC:G0463*100*UN*1 DTP*472*D8*20240101"""
    void = "CLM*C2*300***11:A:8"
    findings = read(interchange(INSTITUTIONAL, f"{claim} {void}"), events, tmp_path)
    claimed, voided = rows(events, "claim")
    assert claimed == {
        "place": "segment 15",
        "claim_token": TOKENS.claim("1999999984", "C1"),
        "patient_token": TOKENS.patient("payer-1", "M1"),
        "authorization_token": TOKENS.authorization("payer-1", "AUTH1"),
        "frequency": "1",
        "submitted": 300.0,
        "submitted_at": datetime(2024, 1, 5, 12),
        "service_from": date(2024, 1, 2),  # of the claim; the line's does not count
        "drg": "470",
        "revenue_code": "0120",
    }
    assert (voided["claim_token"], voided["frequency"]) == (TOKENS.claim("1999999984", "C2"), "8")
    assert findings.notes == {"a claim that voids an earlier one": 1}
    assert [person["zip3"] for person in rows(events, "person")] == ["331"]


def test_a_patient_who_died_and_patients_without_a_token(events: Spool, tmp_path: Path) -> None:
    dead = INSURED.replace("SBR*P*18*******CI", "SBR*P*18 PAT*****D8*20240103")
    nameless = "HL*3*1*22*1 NM1*IL*1*ROE*BO****MI*M9 NM1*PR*2*P*****PI*789312 HL*4*3*23*0 PAT*19"
    memberless = "HL*5*1*22*0 NM1*IL*1*ROE*CY NM1*PR*2*P*****PI*789312"
    line = "LX*1 SV1*HC:G0463*300*UN*1 DTP*472*DT*202401021530"
    body = f"{BILLING} {dead} {CLAIM} {line} {nameless} {CLAIM} {memberless} {CLAIM}"
    findings = read(interchange(PROFESSIONAL, body), events, tmp_path)
    first, second, third = rows(events, "claim")
    assert first["service_from"] == date(2024, 1, 2)
    assert "patient_token" not in second | third
    assert [person["died_on"] for person in rows(events, "person")] == [date(2024, 1, 3)]
    assert findings.notes == {
        "a dependent without a birth date or a first name": 1,
        "a patient without a payer or a member id": 1,
        # All three bear the number C1.
        "a claim with the number (CLM01) of another, which it does not replace; the last one "
        "counts": 2,
    }


def test_a_line_may_hold_the_authorization_but_not_another_payers(
    events: Spool, tmp_path: Path
) -> None:
    claim = f"""{BILLING} {INSURED} CLM*C1*300***11:B:1 LX*1 SV1*HC:G0463*300*UN*1
        REF*G1*OTHER**2U:9 REF*G1*AUTH-1"""
    read(interchange(PROFESSIONAL, claim), events, tmp_path)
    assert [claim["authorization_token"] for claim in rows(events, "claim")] == [
        TOKENS.authorization("payer-1", "AUTH1")
    ]


def test_a_payment_tells_shares_remarks_days_and_the_largest_adjustment(
    events: Spool, tmp_path: Path
) -> None:
    paid = f"""{PAID.replace("*250*", "*-130*")}
        CLP*C1*1*500*100*150*12*P1*11*1**291 CAS*PR*1*100*1*3*20 NM1*QC*1*DOE*ANN****34*123456789
        NM1*IL*1*DOE*ANN****MI*M1 MIA*0****N1***************N2*N3 DTM*050*20240103
        SVC*HC:G0463*300*100*0510*1 DTM*150*20240105 DTM*151*20240106 CAS*CO*45*-70**253*240
        CAS*PR*2*30 LQ*HE*N1 LQ*HE*M15 LQ*RX*75
        SVC*NU:0250*200*0**1 DTM*472*20240104 CAS*PI*96*180
        CLP*C2*22*-300*-250*0 CAS*CO*45*-50 NM1*QC*1*DOE*ANN****MI*M2
        PLB*1999999984*20241231*WO:1*-20*CS*0"""
    findings = read(interchange(REMITTANCE, paid), events, tmp_path)
    first, reversal = rows(events, "payment")
    assert first == {
        "place": "segment 9",
        "claim_token": TOKENS.claim("1999999984", "C1"),
        "patient_token": TOKENS.patient("payer-1", "M1"),  # the subscriber's; 34 is no member id
        "claim_status": "1",
        "submitted": 500.0,
        "eligible": 150.0,  # 500 - (-70 + 240, CO) - (180, PI): no AMT*B6
        "paid_to_provider": 100.0,
        "paid_by_patient": 150.0,
        "deductible": 100.0,
        "coinsurance": 30.0,
        "copay": 20.0,
        "group_code": "CO",
        "carc": "253",
        "rarc": ["N1", "N2", "N3", "M15"],
        "service_from": date(2024, 1, 4),  # the earliest line
        "received_on": date(2024, 1, 3),
        "paid_on": date(2024, 1, 31),
        "payment_method": "ACH",
        "reversal_flag": False,
        "drg": "291",
        "revenue_code": "0510",
    }
    assert reversal["reversal_flag"] is True
    assert (reversal["submitted"], reversal["paid_to_provider"]) == (-300.0, -250.0)
    assert (reversal["carc"], reversal["claim_status"]) == ("45", "22")
    # Line 1: 300 + 70 - 240 - 30 is 100. Line 2: 200 - 180 is 20 and not 0. Claim: 500 - 120
    # - 200 - 180 is 0 and not 100. Payment: 100 - 250 + 20 is -130.
    assert findings.notes == {
        "a payment that gives the subscriber's member id alone": 1,
        "an 835 claim with a line that does not balance": 1,
        "an 835 claim that does not balance: charge less adjustments is not the payment": 1,
    }


def test_a_payment_that_its_claims_do_not_explain_is_counted(events: Spool, tmp_path: Path) -> None:
    paid = f"{PAID} CLP*C1*1*300*249.99 CAS*CO*45*50.01 NM1*QC*1*DOE*ANN****MI*M1"
    findings = read(interchange(REMITTANCE, paid), events, tmp_path)
    assert findings.notes == {"an 835 whose claims and PLB do not add up to its payment (BPR02)": 1}


def test_a_claim_without_a_number_of_the_provider_is_told_by_the_payers(
    events: Spool, tmp_path: Path
) -> None:
    claims = "CLP*0*1*300*125*0*12*P1 CAS*CO*45*175 NM1*QC*1*DOE*ANN****MI*M1"
    second = claims.replace("P1", "P2")
    findings = read(interchange(REMITTANCE, f"{PAID} {claims} {second}"), events, tmp_path)
    assert [payment["claim_token"] for payment in rows(events, "payment")] == [
        TOKENS.claim("1999999984", "P1"),
        TOKENS.claim("1999999984", "P2"),
    ]
    assert findings.notes == {
        "a payment without the provider's number of the claim (CLP01 is 0)": 2
    }


@pytest.mark.parametrize(
    ("payee", "known_by"),
    [
        # 1234567893 is the NPI that 45 CFR 162.406's check digit is explained with.
        ("N1*PE*GROUP*XX*1234567893 REF*TJ*55-1234567", "1234567893"),
        ("N1*PE*GROUP*FI*551234567 REF*0B*9 REF*PQ*1234567893", "1234567893"),
        ("N1*PE*GROUP*XV*PLAN1 REF*TJ*551234567 REF*PQ*1234567893", "1234567893"),
        ("N1*PE*GROUP*XX REF*PQ*1234567893", "1234567893"),
        # Without an NPI: the tax number, which an 837 without one has, too (REF*EI).
        ("N1*PE*GROUP*FI*551234567 REF*PQ*11861", "551234567"),
        ("N1*PE*GROUP*FI*551234567 REF*PQ*1234567890", "551234567"),  # no NPI: its check digit
        ("N1*PE*GROUP*XV*PLAN1 REF*PQ*11861 REF*TJ*551234567", "551234567"),
        ("N1*PE*GROUP*XV*PLAN1 REF*PQ*11861", "PLAN1"),
        ("N1*PE*GROUP REF*PQ*11861", "11861"),
    ],
)
def test_a_payee_is_known_by_its_npi_wherever_that_stands(
    payee: str, known_by: str, events: Spool, tmp_path: Path
) -> None:
    paid = PAID.replace("N1*PE*GROUP*XX*1999999984", payee)
    paid = f"{paid} CLP*C1*1*300*250 CAS*CO*45*50 NM1*QC*1*DOE*ANN****MI*M1 REF*TJ*9"
    findings = read(interchange(REMITTANCE, paid), events, tmp_path)
    (payment,) = rows(events, "payment")
    assert payment["claim_token"] == TOKENS.claim(known_by, "C1")
    assert findings.notes == ({} if known_by == "1234567893" else {NO_NPI: 1})


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (REQUEST, "BHT*0007*13*B1*20240105*0930 PARTIES HL*4*3*EV*0 TRN*1*T7 UM*HS*I"),
        (PROFESSIONAL, "BILLING INSURED CLM*C1*300***11:B:1"),
        (REMITTANCE, "PAID CLP*C1*1*300*250 CAS*CO*45*50 NM1*QC*1*DOE*ANN****MI*M1"),
    ],
)
def test_a_payer_that_its_own_crosswalk_does_not_list_is_counted(
    kind: str, body: str, tmp_path: Path
) -> None:
    for name, text in (("PARTIES", PARTIES), ("BILLING", BILLING), ("INSURED", INSURED)):
        body = body.replace(name, text)
    (tmp_path / "a.x12").write_text(interchange(kind, body.replace("PAID", PAID)))
    for own, payers, notes in (
        (Payer("payer-1"), {}, {UNLISTED_PAYER: 1}),
        (Payer("payer-1"), {"789312": Payer("payer-1")}, {}),
        (None, {}, {}),  # a provider need not list those who pay it
    ):
        findings = Findings()
        with spool(tmp_path) as events:
            read_x12(tmp_path / "a.x12", events, Crosswalk(TOKENS, payers, own=own), findings)
        assert findings.notes == notes
    assert "789312" not in UNLISTED_PAYER


def test_codes_that_no_list_holds_are_left_out_and_counted(events: Spool, tmp_path: Path) -> None:
    paid = f"""{PAID.replace("ACH", "XYZ")} CLP*C1*99*300*250****11*1**47X CAS*CR*4567*50
        NM1*QC*1*DOE*ANN****MI*M1 MOA***0"""
    findings = read(interchange(REMITTANCE, paid), events, tmp_path)
    (payment,) = rows(events, "payment")
    assert not {"payment_method", "claim_status", "drg", "group_code", "carc"} & payment.keys()
    assert payment["rarc"] == []
    assert findings.notes == {
        "835 BPR04: a code that the contract does not hold": 1,
        "835 CLP02: a code that the contract does not hold": 1,
        "835 CAS01: a code that the contract does not hold": 1,
        "a diagnosis-related group that is not three digits": 1,
        "an adjustment reason that is no CARC": 1,
        "a remark code that is no RARC": 1,
    }


# --- delimiters and envelopes -------------------------------------------------------------------

SIMPLE = interchange(
    REMITTANCE,
    f"{PAID} CLP*C1*1*300*250 CAS*CO*45*50 NM1*QC*1*DOE*ANN****MI*M1 SVC*HC:G0463*300*300",
)


def as_one_line(text: str) -> str:
    return text.replace("\n", "")


def with_marks(element: str, component: str, terminator: str) -> str:
    marks = str.maketrans({"*": element, ":": component, "~": terminator})
    return as_one_line(SIMPLE).translate(marks)


@pytest.mark.parametrize(
    "text",
    [
        as_one_line(SIMPLE),
        SIMPLE.replace("\n", "\r\n"),
        "\ufeff" + SIMPLE.replace("\n", "\n\t  "),
        with_marks("|", "^", "\r").replace("|00501|", "|00401|"),
        with_marks("\x1d", "\x1f", "\x1c"),
        with_marks("+", ">", "\n"),
        with_marks("|", "<", "\r").replace("\r", "\r\n"),
        with_marks("*", ":", "\n") + "\n\n",
        as_one_line(SIMPLE).replace("*^*00501", "*U*00401"),
    ],
    ids=["one line", "CRLF", "BOM", "401", "control", "newline", "CR", "blank lines", "U"],
)
def test_any_delimiters_and_line_breaks_give_the_same_events(
    text: str, events: Spool, tmp_path: Path
) -> None:
    read(text, events, tmp_path)
    (payment,) = rows(events, "payment")
    assert payment["place"] == "segment 9"  # after ISA GS ST BPR TRN N1 N1 LX
    assert (payment["submitted"], payment["carc"]) == (300.0, "45")


def test_each_interchange_may_have_delimiters_of_its_own(events: Spool, tmp_path: Path) -> None:
    other = SIMPLE.replace("000000001", "000000002")
    marks = str.maketrans({"*": "|", ":": ">", "~": "\x1c"})
    read(SIMPLE + "\ufeff" + other.translate(marks), events, tmp_path)
    # Segments are counted through the file.
    length = SIMPLE.count("~")
    places = [payment["place"] for payment in rows(events, "payment")]
    assert places == ["segment 9", f"segment {length + 9}"]


def test_groups_and_transaction_sets_follow_each_other(events: Spool, tmp_path: Path) -> None:
    claim = f"{BILLING} {INSURED} {CLAIM}"
    text = interchange(PROFESSIONAL, claim, claim.replace("CLM*C1", "CLM*C2"))
    head, group = text.split("GS*", 1)
    group, tail = group.split("IEA*1", 1)
    second = "GS*" + group.replace("CLM*C", "CLM*D")
    read(f"{head}GS*{group}{second}IEA*2{tail}", events, tmp_path)
    tokens = [claim["claim_token"] for claim in rows(events, "claim")]
    assert tokens == [TOKENS.claim("1999999984", name) for name in ("C1", "C2", "D1", "D2")]


def test_the_guide_of_a_transaction_set_counts_before_that_of_its_group(
    events: Spool, tmp_path: Path
) -> None:
    guide = "005010X221A1"
    read(SIMPLE.replace(f"*X*{guide}", "*X*005010X279"), events, tmp_path)
    assert len(rows(events, "payment")) == 1
    without = SIMPLE.replace(f"*0001*{guide}", "*0001").replace("000000001", "000000003")
    read(without, events, tmp_path)
    assert len(rows(events, "payment")) == 2


def test_the_benchmarks_remittances_are_all_read_and_balance(events: Spool, tmp_path: Path) -> None:
    file = tmp_path / "made_up.835"
    x12_throughput.write(file, 2500)  # more than a block, three transaction sets
    findings = Findings()
    read_x12(file, events, CROSSWALK, findings)
    frame = events.scan("payment").collect()
    assert (frame.height, frame["claim_token"].n_unique()) == (2500, 2500)
    assert findings.notes == {}
