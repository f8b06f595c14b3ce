"""Events become clinical outcomes; patients are made up, and each answer is worked out by hand.

The index day is 1 March 2024 (day 0) unless said otherwise: day 30 is 31 March, day 90 is 30 May.
"""

import random
from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from data_contracts.readers.events import EVENTS
from data_contracts.readers.outcomes import clinical_outcomes, index_stays
from data_contracts.schemas import ClinicalOutcome

DAY0 = date(2024, 3, 1)
PATIENT, REQUEST = "a" * 32, "b" * 32


def on(day: int) -> date:
    return DAY0 + timedelta(days=day)


def events(kind: str, *rows: dict[str, Any]) -> pl.LazyFrame:
    return pl.LazyFrame([{"patient_token": PATIENT} | row for row in rows], schema=EVENTS[kind])


def stay(start: int, end: int | None, *, planned: bool | None = False, **more: Any) -> dict:  # type: ignore[type-arg]
    token = f"{start + 1000:032x}"
    days = {"start_on": on(start), "end_on": None if end is None else on(end)}
    return {"visit_token": token, "kind": "inpatient", "planned": planned, **days, **more}


def visit(day: int, kind: str = "emergency") -> dict[str, Any]:
    return {"kind": kind, "start_on": on(day), "end_on": on(day)}


def lab(day: int, value: float, loinc: str = "4548-4") -> dict[str, Any]:
    return {"loinc": loinc, "value": value, "ucum": "%", "taken_on": on(day)}


def outcome(
    *visits: dict[str, Any],
    watched: int | None = 400,
    person: dict[str, Any] | None = None,
    labs: tuple[dict[str, Any], ...] = (),
    cost: list[tuple[int, float | None]] | None = None,
    index_on: date = DAY0,
) -> dict[str, Any]:
    """The outcome of one request of one patient; observed to day `watched`."""
    index = pl.LazyFrame(
        {"request_token": [REQUEST], "patient_token": [PATIENT], "index_on": [index_on]}
    )
    observed = None
    if watched is not None:
        spans = {"start_on": [on(-4000)], "end_on": [on(watched)]}
        observed = pl.LazyFrame({"patient_token": [PATIENT], **spans})
    costs = None
    if cost is not None:
        costs = pl.LazyFrame(
            [(PATIENT, on(day), amount) for day, amount in cost],
            schema={"patient_token": pl.String, "incurred_on": pl.Date, "eligible": pl.Float64},
            orient="row",
        )
    frame = clinical_outcomes(
        index,
        events("person", person or {}),
        events("visit", *visits),
        events("lab", *labs),
        costs,
        observed,
    ).collect()
    ClinicalOutcome.validate(frame, cast=True)
    return frame.row(0, named=True)


# --- readmission -------------------------------------------------------------------------------


@pytest.mark.parametrize(("day", "readmitted"), [(2, True), (30, True), (31, False)])
def test_a_readmission_begins_within_30_days(day: int, readmitted: bool) -> None:
    assert outcome(stay(-5, 0), stay(day, day + 3))["readmission_30d"] is readmitted


@pytest.mark.parametrize("day", [0, 1])
def test_a_stay_from_the_same_or_the_next_day_is_a_transfer(day: int) -> None:
    # One episode, discharged on day 9: the stay from day 25 is 16 days after, that from 40 is 31.
    assert outcome(stay(-5, 0), stay(day, 9))["readmission_30d"] is False
    assert outcome(stay(-5, 0), stay(day, 9), stay(25, 26))["readmission_30d"] is True
    assert outcome(stay(-5, 0), stay(day, 9), stay(40, 41))["readmission_30d"] is False


def test_a_planned_stay_is_no_readmission_whatever_follows() -> None:
    planned = stay(10, 12, planned=True)
    assert outcome(stay(-5, 0), planned)["readmission_30d"] is False
    # HWR: only the first stay after the discharge counts.
    assert outcome(stay(-5, 0), planned, stay(20, 22))["readmission_30d"] is False


def test_a_stay_of_unknown_plan_leaves_the_readmission_unknown() -> None:
    assert outcome(stay(-5, 0), stay(10, 12, planned=None))["readmission_30d"] is None
    assert outcome(stay(-5, 0), stay(31, 32, planned=None))["readmission_30d"] is False


def test_who_died_in_hospital_has_no_live_discharge() -> None:
    assert outcome(stay(-5, 0, died=True))["readmission_30d"] is None
    assert outcome(stay(-5, 0), person={"died_on": on(0)})["readmission_30d"] is None
    # Discharged alive, and dead ten days later: nothing happens any more.
    assert outcome(stay(-5, 0), person={"died_on": on(10)})["readmission_30d"] is False


def test_without_a_stay_there_is_no_readmission_to_ask_for() -> None:
    assert outcome(visit(3))["readmission_30d"] is None
    assert outcome(stay(-9, -1), stay(91, 92))["readmission_30d"] is None  # neither is its stay


def test_a_request_is_followed_from_the_discharge_of_the_stay_it_leads_to() -> None:
    # Admitted on day 90, discharged on day 95, back on day 125 (30 days) or 126 (31 days).
    planned = stay(90, 95, planned=True)
    assert outcome(planned, stay(125, 126))["readmission_30d"] is True
    assert outcome(planned, stay(126, 127))["readmission_30d"] is False
    assert outcome(planned, watched=124)["readmission_30d"] is None
    assert outcome(planned, watched=125)["readmission_30d"] is False
    # A stay of more than a year is watched for 30 days after it, too: 400 + 30.
    assert outcome(stay(5, 400), watched=429)["readmission_30d"] is None
    assert outcome(stay(5, 400), watched=430)["readmission_30d"] is False


def test_two_stays_follow_each_other_each_with_its_own_window() -> None:
    visits = events("visit", stay(-5, 0), stay(20, 24), stay(54, 60), stay(61, 70), stay(200, None))
    frame = clinical_outcomes(index_stays(visits), events("person"), visits, events("lab"))
    rows = frame.sort("request_token").collect()
    # 0 -> 20 is 20 days; 24 -> 54 is 30 days; 54-60 and 61-70 are one episode, named by its last
    # stay, and 70 -> 200 is 130 days; the stay from day 200 has not ended. Seen to day 200.
    assert rows["request_token"].to_list() == [f"{day + 1000:032x}" for day in (-5, 20, 61)]
    assert rows["readmission_30d"].to_list() == [True, True, False]
    assert rows["followup_days_observed"].to_list() == [200, 176, 130]
    assert rows["days_to_event"].to_list() == [20, 30, 130]


# --- follow-up that ends -----------------------------------------------------------------------


def test_a_window_that_was_not_watched_to_its_end_is_unknown_unless_the_event_was_seen() -> None:
    nothing = outcome(stay(-5, 0), watched=20)
    for name in ("readmission_30d", "ed_visit_30d", "ed_visit_90d", "death_90d"):
        assert nothing[name] is None
    assert (nothing["days_to_event"], nothing["event_observed"]) == (20, False)
    back = outcome(stay(-5, 0), stay(15, 16), watched=20)
    for name in ("readmission_30d", "ed_visit_30d", "ed_visit_90d"):
        assert back[name] is True
    assert (back["days_to_event"], back["event_observed"]) == (15, True)


@pytest.mark.parametrize(("watched", "early", "late"), [(30, False, None), (90, False, False)])
def test_a_window_watched_to_its_last_day_without_an_event_is_false(
    watched: int, early: bool | None, late: bool | None
) -> None:
    row = outcome(stay(-5, 0), watched=watched)
    assert (row["readmission_30d"], row["ed_visit_30d"]) == (early, early)
    assert (row["ed_visit_90d"], row["death_90d"]) == (late, late)
    assert row["followup_days_observed"] == watched


def test_an_event_after_the_end_of_follow_up_is_true_but_ends_no_survival_time() -> None:
    row = outcome(visit(25), watched=20)
    assert (row["ed_visit_30d"], row["days_to_event"], row["event_observed"]) == (True, 20, False)


def test_follow_up_is_never_negative_and_ends_after_a_year() -> None:
    assert outcome(watched=-1)["followup_days_observed"] == 0
    row = outcome(visit(366), watched=4000)
    assert row["followup_days_observed"] == 365
    assert (row["days_to_event"], row["event_observed"]) == (365, False)
    assert outcome(visit(365), watched=4000)["event_observed"] is True


def test_without_periods_follow_up_ends_with_the_last_day_that_the_extract_shows() -> None:
    assert outcome(visit(40), watched=None)["followup_days_observed"] == 40
    assert outcome(labs=(lab(50, 7.0),), watched=None)["followup_days_observed"] == 50
    assert outcome(stay(40, 60), watched=None)["followup_days_observed"] == 60
    assert outcome(watched=None)["followup_days_observed"] == 0


def test_periods_that_touch_are_one_and_a_day_outside_of_all_has_no_follow_up() -> None:
    index = pl.LazyFrame(
        {
            "request_token": [REQUEST, "c" * 32, "d" * 32],
            "patient_token": [PATIENT] * 3,
            "index_on": [on(0), on(45), on(-100)],
        }
    )
    periods = pl.LazyFrame(
        {
            "patient_token": [PATIENT] * 3,
            "start_on": [on(11), on(-20), on(60)],
            "end_on": [on(40), on(10), on(99)],
        }
    )
    rows = clinical_outcomes(
        index, events("person"), events("visit"), events("lab"), observed=periods
    )
    assert rows.sort("request_token").collect()["followup_days_observed"].to_list() == [40, 0, 0]


# --- emergency visits and deaths ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "early", "late"),
    [(0, False, False), (1, True, True), (30, True, True), (31, False, True), (90, False, True)],
)
@pytest.mark.parametrize("kind", ["emergency", "inpatient"])
def test_emergency_visits_and_unplanned_admissions_count_from_day_1(
    day: int, early: bool, late: bool, kind: str
) -> None:
    row = outcome(visit(day) if kind == "emergency" else stay(day, day))
    assert (row["ed_visit_30d"], row["ed_visit_90d"]) == (early, late)


def test_day_91_and_planned_and_outpatient_visits_are_no_event() -> None:
    row = outcome(visit(91), visit(5, "outpatient"), stay(7, 9, planned=True))
    assert (row["ed_visit_30d"], row["ed_visit_90d"]) == (False, False)
    assert (row["days_to_event"], row["event_observed"]) == (91, True)


def test_an_admission_of_unknown_plan_is_no_event_and_no_absence_of_one() -> None:
    row = outcome(stay(40, 42, planned=None))
    assert (row["ed_visit_30d"], row["ed_visit_90d"]) == (False, None)
    assert (row["days_to_event"], row["event_observed"]) == (None, None)
    row = outcome(stay(40, 42, planned=None), visit(40))
    assert (row["ed_visit_90d"], row["days_to_event"], row["event_observed"]) == (True, 40, True)


@pytest.mark.parametrize(
    ("day", "watched", "dead"),
    [(0, 90, True), (90, 20, True), (91, 20, False), (91, 90, False), (-1, 400, None)],
)
def test_death_counts_to_day_90(day: int, watched: int, dead: bool | None) -> None:
    assert outcome(person={"died_on": on(day)}, watched=watched)["death_90d"] is dead


def test_death_ends_every_window_and_the_survival_time() -> None:
    row = outcome(visit(5, "outpatient"), person={"died_on": on(10)}, watched=10)
    assert (row["ed_visit_30d"], row["ed_visit_90d"], row["death_90d"]) == (False, False, True)
    assert (row["days_to_event"], row["event_observed"]) == (10, False)


def test_a_death_in_hospital_is_known_without_a_date_of_death() -> None:
    assert outcome(stay(50, 60, died=True))["death_90d"] is True
    assert outcome(stay(50, 91, died=True))["death_90d"] is False


# --- cost, laboratory values, person -----------------------------------------------------------


def test_cost_is_the_sum_of_days_0_to_90() -> None:
    cost = [(-1, 1000.0), (0, 10.10), (0, 0.20), (90, 5.0), (91, 1000.0)]
    assert outcome(cost=cost)["cost_90d"] == 15.30
    assert outcome(cost=[(-1, 7.0)])["cost_90d"] == 0.0
    assert outcome()["cost_90d"] is None  # the site tells no costs


def test_a_cost_that_is_not_wholly_known_is_unknown() -> None:
    assert outcome(cost=[(5, 10.0), (6, None)])["cost_90d"] is None
    assert outcome(cost=[(5, 10.0), (-6, None), (96, None)])["cost_90d"] == 10.0
    assert outcome(cost=[(5, 10.0)], watched=89)["cost_90d"] is None
    assert outcome(cost=[(5, 10.0)], watched=89, person={"died_on": on(80)})["cost_90d"] == 10.0


def test_values_in_another_unit_or_under_another_code_are_the_contracts_and_others_stay() -> None:
    ifcc = lab(-3, 53.0, "59261-8") | {"ucum": "mmol/mol"}
    other = lab(-2, 1.1, "2160-0") | {"ucum": "mg/dL"}
    found = {each["loinc"]: each for each in outcome(labs=(ifcc, other))["baseline_labs"]}
    # NGSP's master equation: 0.09148 x 53 + 2.152 = 7.000.
    assert found["4548-4"]["value"] == pytest.approx(7.0, abs=0.001)
    assert found["4548-4"]["ucum"] == "%"
    assert (found["2160-0"]["value"], found["2160-0"]["ucum"]) == (1.1, "mg/dL")


def test_of_each_code_the_latest_value_before_and_after_counts() -> None:
    row = outcome(
        labs=(
            lab(-366, 50.0, "62238-1"),  # older than a year
            lab(-365, 60.0, "33914-3"),
            lab(-365, 6.0),
            lab(-30, 6.5),
            lab(0, 130.0, "8480-6"),
            lab(1, 7.0),
            lab(180, 7.5),
            lab(181, 9.9),
            lab(181, 140.0, "8480-6"),
        )
    )
    pressure = {"loinc": "8480-6", "value": 130.0, "ucum": "%", "day_offset": 0}
    hba1c = {"loinc": "4548-4", "value": 6.5, "ucum": "%", "day_offset": -30}
    egfr = {"loinc": "33914-3", "value": 60.0, "ucum": "%", "day_offset": -365}
    assert row["baseline_labs"] == [egfr, hba1c, pressure]
    assert row["followup_labs"] == [hba1c | {"value": 7.5, "day_offset": 180}]


def test_of_several_values_of_a_day_the_highest_counts() -> None:
    for values in ((7.0, 9.0, 8.0), (9.0, 8.0, 7.0)):
        row = outcome(labs=tuple(lab(-1, value) for value in values))
        assert [one["value"] for one in row["baseline_labs"]] == [9.0]


def test_values_that_the_contract_cannot_hold_are_no_values() -> None:
    row = outcome(labs=(lab(-1, float("nan")), lab(-1, 7.0) | {"ucum": None}))
    assert (row["baseline_labs"], row["followup_labs"]) == (None, None)


@pytest.mark.parametrize(
    ("born", "band"),
    [
        (date(1934, 3, 1), "90+"),  # 90 today
        (date(1934, 3, 2), "80-89"),  # 90 tomorrow
        (date(1900, 1, 1), "90+"),
        (date(2024, 3, 1), "0-9"),
        (date(2024, 3, 2), None),  # born tomorrow
    ],
)
def test_age_is_that_of_the_index_day(born: date, band: str | None) -> None:
    assert outcome(person={"birth_date": born, "birth_year": 1950})["age_band"] == band


@pytest.mark.parametrize(("year", "band"), [(1934, "90+"), (1935, "80-89"), (2025, None)])
def test_by_the_year_alone_the_birthday_has_been(year: int, band: str | None) -> None:
    assert outcome(person={"birth_year": year})["age_band"] == band


def test_a_birthday_on_29_february_is_had_on_1_march() -> None:
    row = outcome(person={"birth_date": date(1956, 2, 29)}, index_on=date(2026, 2, 28))
    assert row["age_band"] == "60-69"
    row = outcome(person={"birth_date": date(1956, 2, 29)}, index_on=date(2026, 3, 1))
    assert row["age_band"] == "70-79"


def test_a_person_told_twice_is_one_and_the_last_known_values_count() -> None:
    index = pl.LazyFrame(
        {"request_token": [REQUEST], "patient_token": [PATIENT], "index_on": [DAY0]}
    )
    person = events("person", {"sex": "male", "zip3": "331"}, {"sex": None, "zip3": "332"})
    rows = clinical_outcomes(index, person, events("visit"), events("lab")).collect()
    assert rows.select("sex", "zip3").rows() == [("male", "332")]


def test_other_patients_change_nothing_and_places_are_kept() -> None:
    other = "f" * 32
    index = pl.LazyFrame(
        {
            "file": ["x.csv", "y.csv"],
            "request_token": [REQUEST, "c" * 32],
            "patient_token": [PATIENT, other],
            "index_on": [DAY0, None],  # without a day there is nothing to follow
        }
    )
    visits = events("visit", visit(3) | {"patient_token": other}, visit(99, "outpatient"))
    rows = clinical_outcomes(index, events("person"), visits, events("lab")).collect()
    assert rows.columns == ["file", *ClinicalOutcome.column_names()]
    assert rows.select("file", "ed_visit_90d").rows() == [("x.csv", False)]


# --- the same, day by day ----------------------------------------------------------------------


def slow_outcome(stays: list[dict[str, Any]], emergencies: list[int], watched: int) -> list[Any]:
    """The flags of a request on day 0, as a person with a calendar would find them."""
    days_in: set[int] = set()
    for one in stays:
        days_in.update(range((one["start_on"] - DAY0).days, (one["end_on"] - DAY0).days + 1))
    firsts = sorted(day for day in days_in if day - 1 not in days_in)
    episodes = []
    for first in firsts:
        last = first
        while last + 1 in days_in:
            last += 1
        starting = [one["planned"] for one in stays if one["start_on"] == on(first)]
        episodes.append((first, last, min(starting)))
    unplanned = [first for first, _, planned in episodes if not planned]
    bad = [day for day in (*emergencies, *unplanned) if day > 0]
    flags = [
        True if any(day <= days for day in bad) else False if watched >= days else None
        for days in (30, 90)
    ]
    readmitted = None
    for number, (first, last, _) in enumerate(episodes):
        if last >= 0:
            if first <= 90:
                later = episodes[number + 1 :]
                if later and later[0][0] - last <= 30:
                    readmitted = not later[0][2]
                elif watched >= last + 30:
                    readmitted = False
            break
    end = min(watched, 365)
    event = min(bad, default=9999)
    return [readmitted, *flags, min(event, end), event <= end]


def test_random_histories_give_what_a_calendar_gives() -> None:
    names = ("readmission_30d", "ed_visit_30d", "ed_visit_90d", "days_to_event", "event_observed")
    draw = random.Random(5)  # noqa: S311 - reproducible histories, no secrets
    visits, index, periods, expected = [], [], [], {}
    for number in range(400):
        patient = {"patient_token": f"{number:032x}"}
        stays = []
        for _ in range(draw.randint(0, 5)):
            first = draw.randint(-40, 130)
            stays.append(stay(first, first + draw.randint(0, 15), planned=draw.random() < 0.3))
        emergencies = [draw.randint(-10, 400) for _ in range(draw.randint(0, 2))]
        watched = draw.choice([0, 20, 30, 89, 90, 150, 500])
        visits += [one | patient for one in (*stays, *map(visit, emergencies))]
        index.append(patient | {"request_token": REQUEST, "index_on": DAY0})
        periods.append(patient | {"start_on": on(-4000), "end_on": on(watched)})
        expected[patient["patient_token"]] = slow_outcome(stays, emergencies, watched)
    rows = clinical_outcomes(
        pl.LazyFrame(index),
        events("person"),
        events("visit", *visits),
        events("lab"),
        observed=pl.LazyFrame(periods),
    ).collect()
    assert rows.height == 400
    for row in rows.iter_rows(named=True):
        assert [row[name] for name in names] == expected[row["patient_token"]]
    # The histories are no mere repetition of one case.
    assert all(rows[name].n_unique() >= 2 for name in names)
    assert set(rows["readmission_30d"].unique()) == {True, False, None}
