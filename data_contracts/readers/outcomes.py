"""What happened to patients: persons, visits and laboratory values become `clinical_outcome`.

Every row starts from an index day: the day of a request, or the discharge from a stay where the
records know of no request (`index_stays`). Windows begin on the day after it. What is unknown stays
null: a flag is True as soon as the event is seen, False only if the whole window was watched (or
ended in death, after which nothing happens), and null otherwise.

Source: readmissions follow CMS's Hospital-Wide All-Cause Unplanned Readmission measure (HWR, NQF
1789) in simple form. A stay that begins on the day of a discharge, or on the day after it, is a
transfer: both are one episode of care, and its last discharge is the one that counts. Patients who
died in hospital have no live discharge. Only the first stay after a discharge counts: if it was
planned, there is no readmission, whatever follows. Visits name no hospital, so that a return to the
same hospital on the next day cannot be told from a transfer.
"""

from datetime import date, timedelta
from typing import Final, Literal

import polars as pl

from data_contracts import vocabulary as v
from data_contracts.codes.units import canonical_lab
from data_contracts.schemas.clinical_outcome import ClinicalOutcome

FOLLOWUP_DAYS: Final = 365
"""Follow-up is counted to this day at most."""

WINDOW_DAYS: Final = 90
"""Days within which a request leads to its stay, and in which costs and deaths are counted."""

EARLY_DAYS: Final = 30
"""Days in which a stay is a readmission."""

BASELINE_LAB_DAYS: Final = 365
"""Laboratory values of so many days before the index day are its baseline."""

FOLLOWUP_LAB_DAYS: Final = 180
"""Laboratory values of so many days after the index day are its follow-up."""

_KEYS = ("request_token", "patient_token")
_DAY = timedelta(days=1)
_FOR_GOOD = 1_000_000  # days


def index_stays(visit: pl.LazyFrame) -> pl.LazyFrame:
    """One row per episode of inpatient care with a discharge, for records without requests.

    Args:
        visit: Events of kind "visit".

    Returns:
        `file`, `place`, `request_token` (that of the episode's last stay), `patient_token`, and
        `index_on` (the day of the discharge).
    """
    return (
        _episodes(visit)
        .filter(pl.col("end_on").is_not_null())
        .select(
            "file",
            "place",
            pl.col("visit_token").alias("request_token"),
            "patient_token",
            pl.col("end_on").alias("index_on"),
        )
    )


def clinical_outcomes(
    index: pl.LazyFrame,
    person: pl.LazyFrame,
    visit: pl.LazyFrame,
    lab: pl.LazyFrame,
    cost: pl.LazyFrame | None = None,
    observed: pl.LazyFrame | None = None,
    last_day: date | None = None,
) -> pl.LazyFrame:
    """Rows of `clinical_outcome`, one per row of the index.

    Follow-up ends with the observation period that the index day lies in (there is none outside of
    all periods). Without periods it ends, for everybody, on the last day on which the extract shows
    any visit or laboratory value. `days_to_event` runs to the first emergency visit or unplanned
    admission within follow-up, else to its end or to death (censored).

    Memory: joins look for the nearest row in time, so that they grow with the number of rows, not
    with the square of a patient's visits.

    Args:
        index: `request_token`, `patient_token`, `index_on` (Date); other columns are kept. A row
            without one of the three has nothing to be followed from, and no row comes of it.
        person: Events of kind "person". Where a patient has several, the last known value counts.
        visit: Events of kind "visit". A stay of which it is unknown whether it was planned leaves
            what depends on it unknown.
        lab: Events of kind "lab", in any unit that `codes.units` knows. Of each LOINC code the
            latest value counts, before and after; of several on one day the highest.
        cost: `patient_token`, `incurred_on` (Date), `eligible` (USD); null without it. An amount
            that is null leaves the sum unknown.
        observed: `patient_token`, `start_on`, `end_on`: periods in which the site sees whatever
            happens to the patient.
        last_day: The last day that the whole extract shows, where these are the events of some of
            its patients only.

    Returns:
        The index without `index_on`, and the contract's columns, in no order. No date is among
        them.
    """
    kept = [name for name in index.collect_schema().names() if name not in (*_KEYS, "index_on")]
    index = index.filter(pl.all_horizontal(pl.col(*_KEYS, "index_on").is_not_null()))
    # Without tokens, so that a reader need not make them for every visit.
    episodes = _episodes(visit).drop("file", "place", "visit_token")
    rows = _with_person(index, person, episodes)
    rows = _with_followup(rows, visit, lab, observed, last_day)
    rows = _with_events(rows, visit, episodes)
    rows = _with_index_stay(rows, episodes)
    rows = _with_cost(rows, cost)
    canonical = _canonical(lab)
    for name, first, last in (
        ("baseline_labs", -BASELINE_LAB_DAYS, 0),
        ("followup_labs", 1, FOLLOWUP_LAB_DAYS),
    ):
        labs = _latest_labs(index.select(*_KEYS, "index_on"), canonical, first, last)
        rows = rows.join(labs.rename({"labs": name}), on=_KEYS, how="left")
    return rows.with_columns(
        _age_band().alias("age_band"),
        pl.lit(None, dtype=pl.Int8).alias("sdi_quintile"),
        _readmission().alias("readmission_30d"),
        _emergency_within(EARLY_DAYS).alias("ed_visit_30d"),
        _emergency_within(WINDOW_DAYS).alias("ed_visit_90d"),
        _death().alias("death_90d"),
        *_time_to_event(),
        pl.col("followed").clip(0, FOLLOWUP_DAYS).alias("followup_days_observed"),
    ).select(*kept, *ClinicalOutcome.column_names())


def last_seen(visit: pl.LazyFrame, lab: pl.LazyFrame) -> pl.LazyFrame:
    """`followed_to`: the last day on which any visit or laboratory value is seen, in one row."""
    seen = [visit.select("start_on"), visit.select("end_on"), lab.select("taken_on")]
    return pl.concat([frame.select(pl.all().alias("followed_to")) for frame in seen]).max()


def _canonical(lab: pl.LazyFrame) -> pl.LazyFrame:
    """Laboratory values, those of the contract's tests under its LOINC code and in its unit."""
    told = ("loinc", "value", "ucum")
    known = pl.col("canonical").struct
    return (
        lab.with_columns(canonical_lab(*map(pl.col, told)).alias("canonical"))
        .with_columns(
            pl.when(known.field("loinc").is_null())
            .then(pl.col(name))
            .otherwise(known.field(name))
            .alias(name)
            for name in told
        )
        .drop("canonical")
    )


def _merged(spans: pl.LazyFrame, *columns: pl.Expr) -> pl.LazyFrame:
    """Spans of a patient that overlap, touch or are one night apart, as one; columns on top."""
    end = pl.coalesce("end_on", "start_on")
    apart = pl.col("start_on") > end.cum_max().shift(1).over("patient_token") + _DAY
    return (
        spans.filter(pl.all_horizontal(pl.col("patient_token", "start_on").is_not_null()))
        .sort("patient_token", "start_on", "end_on", maintain_order=True)
        .with_columns(apart.fill_null(True).cum_sum().alias("number"))
        .group_by("patient_token", "number")
        .agg(
            pl.col("start_on").min(),
            pl.when(pl.col("end_on").null_count() == 0).then(pl.col("end_on").max()),
            *columns,
        )
        .drop("number")
    )


def _episodes(visit: pl.LazyFrame) -> pl.LazyFrame:
    """Inpatient stays with their transfers as one, and what the next one is.

    An episode is planned as its first stay was; its token and place are those of its last.
    """
    last = (
        pl.col("file", "place", "visit_token").sort_by("end_on", "start_on", "visit_token").last()
    )
    following = pl.col("start_on", "planned").shift(-1).over("patient_token", order_by="start_on")
    return _merged(
        visit.filter(pl.col("kind") == "inpatient"),
        last,
        pl.col("died").any(),
        pl.col("planned").sort_by("start_on", "planned").first(),
    ).with_columns(following.name.prefix("next_"))


def _with_person(index: pl.LazyFrame, person: pl.LazyFrame, episodes: pl.LazyFrame) -> pl.LazyFrame:
    """Add what is known of the person, and the day of death, known from a stay if not otherwise."""
    names = ("birth_date", "birth_year", "sex", "race", "ethnicity", "zip3", "died_on")
    known = person.group_by("patient_token", maintain_order=True).agg(
        pl.col(*names).drop_nulls().last()
    )
    in_hospital = (
        episodes.filter("died").group_by("patient_token").agg(pl.col("end_on").min().alias("ended"))
    )
    return (
        index.join(known, on="patient_token", how="left")
        .join(in_hospital, on="patient_token", how="left")
        .with_columns(pl.coalesce("died_on", "ended").alias("died_on"))
        .with_columns(_days("index_on", "died_on").alias("death_day"))
    )


def _with_followup(
    rows: pl.LazyFrame,
    visit: pl.LazyFrame,
    lab: pl.LazyFrame,
    observed: pl.LazyFrame | None,
    last_day: date | None,
) -> pl.LazyFrame:
    """Add the days to the end of follow-up, `followed`, and to where it is sure, `watched`."""
    if observed is None and last_day is not None:
        rows = rows.with_columns(pl.lit(last_day).alias("followed_to"))
    elif observed is None:
        rows = rows.join(last_seen(visit, lab), how="cross")
    else:
        periods = _merged(observed).rename({"start_on": "from", "end_on": "followed_to"})
        rows = _nearest(rows, periods, "index_on", "from", "backward")
    followed = _days("index_on", "followed_to").fill_null(0).clip(lower_bound=0)
    dead = (pl.col("death_day") >= 0) & (pl.col("death_day") <= pl.col("followed"))
    return rows.with_columns(followed.alias("followed")).with_columns(
        pl.when(dead).then(_FOR_GOOD).otherwise("followed").alias("watched")
    )


def _with_events(rows: pl.LazyFrame, visit: pl.LazyFrame, episodes: pl.LazyFrame) -> pl.LazyFrame:
    """Add the days to the first emergency or unplanned admission, and to one of unknown plan."""
    emergencies = visit.filter(pl.col("kind") == "emergency").select("patient_token", "start_on")
    unplanned = episodes.filter(~pl.col("planned")).select("patient_token", "start_on")
    unknown = episodes.filter(pl.col("planned").is_null()).select("patient_token", "start_on")
    for name, events in (
        ("event_day", pl.concat([emergencies, unplanned])),
        ("unknown_day", unknown),
    ):
        rows = _nearest(
            rows.with_columns((pl.col("index_on") + _DAY).alias("from_on")),
            events.filter(pl.col("patient_token").is_not_null()),
            "from_on",
            "start_on",
            "forward",
        )
        rows = rows.with_columns(_days("index_on", "start_on").alias(name))
        rows = rows.drop("from_on", "start_on")
    return rows


def _with_index_stay(rows: pl.LazyFrame, episodes: pl.LazyFrame) -> pl.LazyFrame:
    """Add the stay that the index day belongs to: the first that ends on it or later."""
    stays = episodes.select("patient_token", "died", pl.col("^(start|end|next)_.*$"))
    return _nearest(rows, stays, "index_on", "end_on", "forward")


def _with_cost(rows: pl.LazyFrame, cost: pl.LazyFrame | None) -> pl.LazyFrame:
    """Add the sum of the eligible amounts of days 0 to 90."""
    if cost is None:
        return rows.with_columns(pl.lit(None, dtype=pl.Float64).alias("cost_90d"))
    amounts = ("eligible", "unknown")
    sums = (
        cost.group_by("patient_token", "incurred_on")
        .agg(pl.col("eligible").sum(), pl.col("eligible").null_count().alias("unknown"))
        .sort("incurred_on")
        .with_columns(pl.col(*amounts).cum_sum().over("patient_token", order_by="incurred_on"))
    )
    for name, days in (("before", -1), ("until", WINDOW_DAYS)):
        rows = _nearest(
            rows.with_columns((pl.col("index_on") + days * _DAY).alias("to_on")),
            sums.rename({amount: f"{amount}_{name}" for amount in amounts}),
            "to_on",
            "incurred_on",
            "backward",
        ).drop("to_on", "incurred_on")
    within = {
        amount: pl.col(f"{amount}_until").fill_null(0) - pl.col(f"{amount}_before").fill_null(0)
        for amount in amounts
    }
    is_known = (within["unknown"] == 0) & (pl.col("watched") >= WINDOW_DAYS)
    # Cents: differences of running sums are off by rounding, and might fall below zero.
    eligible = within["eligible"].round(2).clip(lower_bound=0)
    return rows.with_columns(pl.when(is_known).then(eligible).alias("cost_90d"))


def _latest_labs(index: pl.LazyFrame, lab: pl.LazyFrame, first: int, last: int) -> pl.LazyFrame:
    """The latest value of each LOINC code from day `first` to `last`, as lists in `labs`."""
    told = (
        lab.filter(
            pl.all_horizontal(pl.col("patient_token", "loinc", "ucum", "taken_on").is_not_null()),
            pl.col("value").is_finite(),
        )
        .select("patient_token", "loinc", "value", "ucum", "taken_on")
        .sort("value", "ucum")
    )
    codes = told.select("patient_token", "loinc").unique()
    found = _nearest(
        index.join(codes, on="patient_token").with_columns(
            (pl.col("index_on") + last * _DAY).alias("to_on")
        ),
        told,
        "to_on",
        "taken_on",
        "backward",
        "patient_token",
        "loinc",
    ).with_columns(_days("index_on", "taken_on").alias("day_offset"))
    return (
        found.filter(pl.col("day_offset") >= first)
        .sort("loinc")
        .group_by(_KEYS, maintain_order=True)
        .agg(pl.struct("loinc", "value", "ucum", "day_offset").alias("labs"))
    )


def _nearest(
    left: pl.LazyFrame,
    right: pl.LazyFrame,
    left_on: str,
    right_on: str,
    strategy: Literal["backward", "forward"],
    *by: str,
) -> pl.LazyFrame:
    """Add to each row the patient's nearest row in time, that of the same day included."""
    return left.sort(left_on, maintain_order=True).join_asof(
        right.filter(pl.col(right_on).is_not_null()).sort(right_on, maintain_order=True),
        left_on=left_on,
        right_on=right_on,
        by=by or "patient_token",
        strategy=strategy,
        coalesce=False,
        check_sortedness=False,  # polars cannot check it within patients; both sides are sorted
    )


def _days(since: str, until: str) -> pl.Expr:
    return (pl.col(until) - pl.col(since)).dt.total_days().cast(pl.Int32)


def _age_band() -> pl.Expr:
    """Age on the index day in ten-year bands; by the year alone it may be one year too high."""
    had_birthday = (pl.col("index_on").dt.month() * 100 + pl.col("index_on").dt.day()) >= (
        pl.col("birth_date").dt.month() * 100 + pl.col("birth_date").dt.day()
    )
    exact = pl.col("index_on").dt.year() - pl.col("birth_date").dt.year() - (~had_birthday)
    age = pl.coalesce(exact, pl.col("index_on").dt.year() - pl.col("birth_year"))
    number = (age // 10).clip(0, len(v.AGE_BANDS) - 1)
    band = number.replace_strict(dict(enumerate(v.AGE_BANDS)), return_dtype=pl.String)
    return pl.when(age >= 0).then(band)


def _emergency_within(days: int) -> pl.Expr:
    """An emergency visit, or a stay known as unplanned, from day 1 to `days`."""
    return (
        pl.when(pl.col("event_day") <= days)
        .then(True)
        .when(pl.col("unknown_day") <= days)
        .then(None)
        .when(pl.col("watched") >= days)
        .then(False)
    )


def _death() -> pl.Expr:
    """Death from day 0 to 90; unknown where a death before the index day cannot be right."""
    day = pl.col("death_day")
    return (
        pl.when(day < 0)
        .then(None)
        .when(day <= WINDOW_DAYS)
        .then(True)
        .when((day > WINDOW_DAYS) | (pl.col("followed") >= WINDOW_DAYS))
        .then(False)
    )


def _readmission() -> pl.Expr:
    """Whether an unplanned stay began within 30 days of the index stay's live discharge."""
    belongs = (pl.col("start_on") - pl.col("index_on")).dt.total_days() <= WINDOW_DAYS
    survived = ~pl.col("died") & (pl.col("died_on") > pl.col("end_on")).fill_null(True)
    returned = _days("end_on", "next_start_on") <= EARLY_DAYS
    watched = _days("index_on", "end_on") + EARLY_DAYS <= pl.col("watched")
    return (
        pl.when(~(belongs & survived).fill_null(False))
        .then(None)
        .when(returned)
        .then(~pl.col("next_planned"))
        .when(watched)
        .then(False)
    )


def _time_to_event() -> tuple[pl.Expr, pl.Expr]:
    """`days_to_event` and `event_observed`; unknown once a stay of unknown plan comes first."""
    death = pl.when(pl.col("death_day") >= 0).then("death_day")
    end = pl.min_horizontal("followed", death, pl.lit(FOLLOWUP_DAYS, dtype=pl.Int32))
    day = pl.min_horizontal(end, "event_day")
    first = (pl.col("unknown_day") < pl.col("event_day")).fill_null(True)
    known = ~((pl.col("unknown_day") <= end) & first).fill_null(False)
    return (
        pl.when(known).then(day).alias("days_to_event"),
        pl.when(known).then((pl.col("event_day") <= end).fill_null(False)).alias("event_observed"),
    )
