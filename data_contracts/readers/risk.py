"""Risk scores of requests that exchanges tell of: CMS-HCC over what is known when they are sent.

Only for Medicare Advantage, whose model it is. A score counts the diagnoses of the request itself,
and those of the patient's claims that were sent on an earlier day, of services in the year before.
Exchanges hold some of a patient's claims, so it is a lower bound of what CMS would compute; it is
not normalized.
"""

from typing import Final

import polars as pl

from data_contracts.codes.risk import can_score, risk_scores
from data_contracts.readers.events import Spool
from data_contracts.readers.findings import Findings

UNSCORED: Final = (
    "a request of Medicare Advantage without risk score: install 'shared-ground-truth[risk]' where "
    "scores are wanted"
)
_YEAR: Final = pl.duration(days=365)
_IS_SCORED: Final = pl.all_horizontal(
    pl.col("patient_token", "submitted_at").is_not_null(), pl.col("business_line") == "MA"
)
_SCORES: Final = pl.Schema({"request_token": pl.String, "risk_score": pl.Float64})


def request_scores(first: pl.LazyFrame, events: Spool) -> pl.LazyFrame:
    """`request_token` and `risk_score` of requests of known patients; see the module.

    A request whose patient's birth date or sex is not known has none, nor has any where the library
    is not installed.

    Memory: a few numbers for each request of Medicare Advantage.

    Args:
        first: Items as they were first submitted, with the fields of the event "request".
        events: All events.
    """
    requests = _requests(first)
    told = _told(events).join(requests.select("patient_token").unique(), on="patient_token")
    on, served = pl.col("on"), pl.col("service_from")
    earlier = (
        requests.select("request_token", "patient_token", "on")
        .join(told, on="patient_token")
        # A day has no hour: what was told on the day of the request may have been told after it.
        .filter((pl.col("told_on") < on) & served.is_between(on - _YEAR, on))
        .group_by("request_token")
        .agg(pl.col("code").unique().alias("earlier"))
    )
    sex = pl.col("sex")
    people = (
        events.scan("person")
        .with_columns(pl.when(sex.is_in(["female", "male"])).then(sex).alias("sex"))
        .group_by("patient_token", maintain_order=True)
        .agg(pl.col("birth_date", "sex").drop_nulls().last())
    )
    # CMS takes the age on 1 February of the payment year, its 32nd day.
    born = pl.col("birth_date")
    age = on.dt.year() - born.dt.year() - (born.dt.ordinal_day() > 32).cast(pl.Int32)
    rows = (
        requests.join(earlier, on="request_token", how="left")
        .join(people, on="patient_token", how="left")
        .select(
            "request_token",
            "sex",
            pl.concat_list("own", pl.col("earlier").fill_null([])).alias("diagnoses"),
            age.alias("age"),
        )
        .collect()
    )
    if rows.is_empty() or not can_score():
        return pl.LazyFrame(schema=_SCORES)
    scores = risk_scores(rows["diagnoses"], rows["age"], rows["sex"])
    return rows.select("request_token", scores.alias("risk_score")).lazy()


def note_unscored(events: Spool, findings: Findings) -> None:
    """Count requests that have no score because the library is not installed."""
    asked = events.scan("request").filter(_IS_SCORED).select(pl.col("request_token").n_unique())
    unscored = int(asked.collect().item())
    if unscored and not can_score():
        findings.note(UNSCORED, unscored)


def _requests(first: pl.LazyFrame) -> pl.LazyFrame:
    """`request_token`, `patient_token`, `on` and its diagnoses, `own`, when it was first sent.

    What came later (a patient, a line of business, an item) is not looked at.
    """
    sent, principal = pl.col("submitted_at"), pl.concat_list("dx_principal").list.drop_nulls()
    return (
        first.filter(sent == sent.min().over("request_token"))
        .with_columns(pl.concat_list(principal, pl.col("dx_other").fill_null([])).alias("own"))
        .group_by("request_token", maintain_order=True)
        .agg(
            pl.col("patient_token", "business_line", "submitted_at").first(),
            pl.col("own").explode(),
        )
        .filter(_IS_SCORED)
        .with_columns(sent.dt.date().alias("on"))
    )


def _told(events: Spool) -> pl.LazyFrame:
    """`patient_token`, `code`, `service_from` and `told_on` of diagnoses on claims, one a row."""
    told = events.scan("diagnosis").select("patient_token", "codes", "service_from", "told_on")
    return told.explode("codes").rename({"codes": "code"})
