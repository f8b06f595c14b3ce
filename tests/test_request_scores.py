"""Which diagnoses the risk score of a request counts, and for whom there is one."""

import sys
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from data_contracts.codes.risk import risk_scores
from data_contracts.readers.assembly import pa_request
from data_contracts.readers.events import Spool, spool
from data_contracts.readers.findings import Findings
from data_contracts.readers.risk import UNSCORED, note_unscored

R1, R2 = "a" * 32, "b" * 32
P1, P2 = "1" * 32, "2" * 32
DIABETES, HEART_FAILURE, COPD, CANCER = "E11.9", "I50.22", "J44.9", "C34.90"


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Spool]:
    with spool(tmp_path) as opened:
        yield opened


def person(events: Spool, patient: str = P1, born: date | None = date(1950, 2, 2)) -> None:
    events.add("person", {"patient_token": patient, "birth_date": born, "sex": "female"})


def request(events: Spool, **more: object) -> None:
    told = {
        "request_token": R1,
        "item_sequence": 1,
        "patient_token": P1,
        "business_line": "MA",
        "dx_principal": DIABETES,
        "submitted_at": datetime(2026, 3, 1, 9),
    }
    events.add("request", told | more)


def claim(events: Spool, code: str, served: date, told: date | None, patient: str = P1) -> None:
    event = {"patient_token": patient, "codes": [code], "service_from": served, "told_on": told}
    events.add("diagnosis", event)


def scores(events: Spool) -> list[float | None]:
    events.commit()
    return pa_request(events).sort("request_token").collect()["risk_score"].to_list()


def expected(codes: list[str], age: int) -> float:
    one = risk_scores(
        pl.Series([codes], dtype=pl.List(pl.String)), pl.Series([age]), pl.Series(["female"])
    )
    return float(one.item())


def test_a_score_counts_the_request_and_what_claims_told_of_the_year_before(events: Spool) -> None:
    person(events)
    request(events, dx_other=[COPD])
    claim(events, HEART_FAILURE, served=date(2025, 3, 1), told=date(2025, 3, 9))
    # Born on 2 February 1950: 75 years old on 1 February 2026.
    score = expected([DIABETES, COPD, HEART_FAILURE], 75)
    assert scores(events) == [score]
    assert score > expected([DIABETES, COPD], 75) > expected([DIABETES], 75) > expected([], 75)


@pytest.mark.parametrize(
    ("served", "told", "patient"),
    [
        (date(2025, 2, 28), date(2025, 3, 9), P1),  # 366 days before
        (date(2026, 3, 2), date(2026, 2, 1), P1),  # a service to come
        (date(2026, 2, 1), date(2026, 3, 2), P1),  # sent the day after
        (date(2026, 2, 1), date(2026, 3, 1), P1),  # on the same day, at an unknown hour
        (date(2026, 2, 1), None, P1),  # nobody knows when
        (date(2026, 2, 1), date(2026, 2, 2), P2),
    ],
)
def test_what_was_not_known_or_is_too_old_or_somebody_elses_does_not_count(
    events: Spool, served: date, told: date | None, patient: str
) -> None:
    person(events)
    request(events)
    claim(events, CANCER, served, told, patient)
    assert scores(events) == [expected([DIABETES], 75)]


def test_items_of_a_request_count_together_and_a_later_revision_does_not(events: Spool) -> None:
    person(events)
    request(events)
    request(events, item_sequence=2, dx_principal=COPD)
    request(events, dx_principal=CANCER, submitted_at=datetime(2026, 3, 8))
    assert scores(events) == [expected([DIABETES, COPD], 75)] * 2


def test_what_a_request_became_later_is_not_looked_at(events: Spool) -> None:
    person(events)
    later = {"certification_type": "S", "submitted_at": datetime(2026, 6, 1)}
    claim(events, CANCER, served=date(2026, 4, 1), told=date(2026, 4, 2))
    request(events, patient_token=None)  # whose patient the revision tells
    request(events, **later)
    request(events, request_token=R2, business_line="COMM")  # and its line of business
    request(events, request_token=R2, **later)
    # A revision on the same day, where the moment is but a day.
    request(events, request_token="c" * 32)
    request(events, request_token="c" * 32, certification_type="S", dx_principal=CANCER)
    assert scores(events) == [None, None, expected([DIABETES], 75)]


def test_a_sex_that_a_later_message_does_not_tell_is_still_known(events: Spool) -> None:
    person(events)
    events.add("person", {"patient_token": P1, "sex": "unknown"})
    request(events)
    assert scores(events) == [expected([DIABETES], 75)]


def test_without_the_library_there_is_no_score_and_its_lack_is_counted(
    events: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hccinfhir", None)  # as if it were not installed
    person(events)
    request(events)
    request(events, item_sequence=2)
    request(events, request_token=R2, business_line="COMM")
    assert scores(events) == [None] * 3
    findings = Findings()
    note_unscored(events, findings)
    assert findings.notes == {UNSCORED: 1}


def test_only_known_patients_of_medicare_advantage_have_a_score(events: Spool) -> None:
    person(events)
    person(events, P2, born=None)
    request(events, business_line="COMM")
    request(events, request_token=R2, patient_token=P2)
    request(events, request_token="c" * 32, patient_token=None)
    request(events, request_token="d" * 32, submitted_at=None)
    assert scores(events) == [None] * 4
