"""Events become rows: what came first, after how long, and what belongs together."""

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from data_contracts.readers.assembly import claim_payment, pa_decision, pa_request
from data_contracts.readers.events import Spool, spool

R1, R2 = "a" * 32, "b" * 32
P1, P2 = "1" * 32, "2" * 32
C1, C2 = "c" * 32, "d" * 32
AUTH = "e" * 32


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Spool]:
    with spool(tmp_path) as opened:
        yield opened


def request(
    events: Spool, token: str, at: datetime, patient: str | None = P1, **more: object
) -> None:
    told = {"request_token": token, "item_sequence": 1, "patient_token": patient}
    events.add("request", told | {"submitted_at": at} | more)


def decision(events: Spool, token: str, at: datetime, code: str, **more: object) -> None:
    told = {"request_token": token, "decided_at": at, "action_code": code}
    events.add("decision", told | more)


def rows(frame: pl.LazyFrame, *columns: str) -> list[tuple[object, ...]]:
    return frame.select(columns).collect().rows()


def test_days_of_requests_count_from_the_patients_first(events: Spool) -> None:
    request(events, R2, datetime(2026, 3, 11, 8), place="later")
    request(events, R1, datetime(2025, 12, 31, 23), place="first")
    request(events, C1, datetime(2026, 2, 1), P2, place="other patient")
    request(events, C2, datetime(2026, 2, 2), None, place="unknown patient")
    events.commit()
    # 31 December to 11 March: 31 + 28 + 11 = 70 days, whatever the hour.
    assert rows(pa_request(events), "place", "service_year", "request_day") == [
        ("later", 2026, 70),
        ("first", 2025, 0),
        ("other patient", 2026, 0),
        ("unknown patient", 2026, 0),
    ]


def test_a_request_sent_again_keeps_the_row_of_its_first_submission(events: Spool) -> None:
    request(events, R1, datetime(2026, 1, 2), certification_type="S", item_sequence=1)
    request(events, R1, datetime(2026, 1, 1), certification_type="I", item_sequence=1)
    request(events, R1, datetime(2026, 1, 1), certification_type="I", item_sequence=2)
    events.commit()
    assert sorted(rows(pa_request(events), "item_sequence", "certification_type")) == [
        (1, "I"),
        (2, "I"),
    ]


def test_an_echo_that_does_not_know_the_patient_is_not_the_request(events: Spool) -> None:
    request(events, R1, datetime(2026, 1, 1), None, place="echo")
    request(events, R1, datetime(2026, 1, 1), P1, place="request")
    events.commit()
    assert rows(pa_request(events), "place", "patient_token") == [("request", P1)]


def test_answers_are_numbered_by_time_and_timed_from_the_first_submission(events: Spool) -> None:
    request(events, R1, datetime(2026, 1, 1, 8))
    request(events, R1, datetime(2026, 1, 2, 8), certification_type="S")
    decision(events, R1, datetime(2026, 1, 3, 9, 30), "A1")
    decision(events, R1, datetime(2026, 1, 1, 8, 15), "A4")
    decision(events, R2, datetime(2026, 1, 1), "A3")
    events.commit()
    assert rows(pa_decision(events), "request_token", "exchange_seq", "action_code") == [
        (R1, 1, "A1"),
        (R1, 0, "A4"),
        (R2, 0, "A3"),
    ]
    # 49.5 hours and a quarter of an hour; of R2 nobody knows when it was sent.
    assert rows(pa_decision(events), "decision_hours") == [(49.5,), (0.25,), (None,)]


def test_an_answer_after_an_appeal_closes_it_unless_it_is_a_pend(events: Spool) -> None:
    request(events, R1, datetime(2026, 1, 1))
    decision(events, R1, datetime(2026, 1, 2), "A3")
    request(events, R1, datetime(2026, 1, 5), certification_type="2")
    decision(events, R1, datetime(2026, 1, 6), "A4")
    decision(events, R1, datetime(2026, 1, 7, 12), "A3")
    request(events, R1, datetime(2026, 1, 8), certification_type="1")
    decision(events, R1, datetime(2026, 1, 8, 6), "A1")
    request(events, R2, datetime(2026, 1, 1))
    decision(events, R2, datetime(2026, 1, 2), "A1")
    events.commit()
    told = ("exchange_seq", "appeal_level", "appeal_outcome", "appeal_hours")
    assert rows(pa_decision(events), *told) == [
        (0, None, None, None),
        (1, None, None, None),
        (2, 1, "upheld", 60.0),
        (3, 2, "overturned", 6.0),
        (0, None, None, None),
    ]


def test_adjudications_count_up_in_order_of_payment(events: Spool) -> None:
    for paid, amount in ((date(2026, 3, 1), 80.0), (date(2026, 1, 5), 100.0), (None, 9.0)):
        events.add("payment", {"claim_token": C1, "paid_on": paid, "paid_to_provider": amount})
    events.commit()
    assert rows(claim_payment(events), "paid_to_provider", "adjudication_seq") == [
        (80.0, 1),
        (100.0, 0),
        (9.0, 2),
    ]


def test_a_remittance_is_completed_from_its_claim_and_joined_to_its_request(events: Spool) -> None:
    decision(events, R1, datetime(2026, 1, 1), "A1", authorization_token=AUTH)
    claim = {"claim_token": C1, "patient_token": P1, "authorization_token": AUTH}
    events.add(
        "claim", claim | {"submitted": 500.0, "service_from": date(2026, 1, 10), "drg": "470"}
    )
    paid = {"claim_token": C1, "submitted": 500.0, "claim_status": "1", "paid_to_provider": 400.0}
    dates = {"received_on": date(2026, 1, 13), "paid_on": date(2026, 2, 1)}
    events.add("payment", paid | dates)
    events.commit()
    told = ("request_token", "patient_token", "drg", "adjudication_seq", "submitted")
    days = ("days_service_to_receipt", "days_receipt_to_payment")
    assert rows(claim_payment(events), *told, *days) == [(R1, P1, "470", 0, 500.0, 3, 19)]


def test_a_claim_without_an_answer_is_a_row_without_payment(events: Spool) -> None:
    events.add("claim", {"claim_token": C1, "submitted": 10.0, "place": "segment 4"})
    events.commit()
    told = ("claim_token", "place", "submitted", "claim_status", "adjudication_seq")
    assert rows(claim_payment(events), *told) == [(C1, "segment 4", 10.0, None, 0)]


def test_an_authorization_given_twice_joins_no_claim(events: Spool) -> None:
    for token in (R1, R2):
        decision(events, token, datetime(2026, 1, 1), "A1", authorization_token=AUTH)
    events.add("claim", {"claim_token": C1, "authorization_token": AUTH})
    events.commit()
    assert rows(claim_payment(events), "request_token") == [(None,)]


def test_no_date_is_left_in_any_row(events: Spool) -> None:
    for make in (pa_request, pa_decision, claim_payment):
        types = make(events).collect_schema()
        assert not [name for name, kind in types.items() if kind.is_temporal()]


def test_what_a_refused_unit_has_told_is_taken_back_even_from_disk(
    events: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_contracts.readers.events._PART_ROWS", 3)
    for unit in range(7):
        for number in range(unit + 1):
            events.add("claim", {"claim_token": f"{unit}{number}"})
        if unit % 2:
            events.rollback()
        else:
            events.commit()
    kept = events.scan("claim").collect()["claim_token"].to_list()
    assert kept == [f"{unit}{number}" for unit in (0, 2, 4, 6) for number in range(unit + 1)]


def test_the_folder_of_a_reading_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    with spool(tmp_path) as events:
        events.add("claim", {"claim_token": C1})
        events.commit()
        events.scan("claim").collect()
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.iterdir())


def test_the_claim_knows_a_dependent_whom_the_remittance_names_by_the_family(
    events: Spool,
) -> None:
    events.add("claim", {"claim_token": C1, "patient_token": P1, "submitted": 5.0})
    events.add("payment", {"claim_token": C1, "patient_token": P2, "submitted": 5.0})
    events.commit()
    assert rows(claim_payment(events), "patient_token") == [(P1,)]


def test_what_a_killed_reading_left_is_deleted_and_a_running_ones_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".reading-4194305-x"  # above the largest process number of Linux
    left.mkdir()
    (left / "request-0.parquet").write_bytes(b"x")
    with spool(tmp_path), spool(tmp_path):
        assert not left.exists()
        assert len(list(tmp_path.iterdir())) == 2


def test_lists_come_back_from_disk_as_they_were(events: Spool) -> None:
    lists = [["M1", "N2", "M1"], [], None, ["A"]]
    for codes in lists:
        events.add("payment", {"claim_token": C1, "rarc": codes})
    events.commit()
    assert events.scan("payment").collect()["rarc"].to_list() == lists
