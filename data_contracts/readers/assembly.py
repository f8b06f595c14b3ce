"""Events of exchanges become rows of contract tables.

What no single message tells is worked out here: which answer came first, after how many hours,
which claim belongs to which request. Dates end here: rows hold a year and days or hours between.
"""

from collections.abc import Callable, Mapping
from typing import Final

import polars as pl

from data_contracts.readers.events import Spool
from data_contracts.readers.outcomes import clinical_outcomes, index_stays
from data_contracts.readers.risk import request_scores

_ORDER = "order"  # position among the events of a kind
_FIRST_SENT = "first_sent"
_APPEALED = "appealed_at"
_VOID = "8"  # X12 837 CLM05-3
_APPEAL_TYPES = ("1", "2")  # X12 278 UM02: immediate and standard appeal
_FOLLOWING_TYPES = ("S", "3", *_APPEAL_TYPES)  # revision, cancellation, appeals
_APPEAL_OUTCOMES = {
    "A1": "overturned",
    "A2": "partial",
    "A6": "partial",
    "A3": "upheld",
    "C": "withdrawn",
}


def pa_request(events: Spool) -> pl.LazyFrame:
    """One row per requested item, as it was first submitted.

    A request that is sent again (revised, appealed, cancelled) keeps the row of its first
    submission, which the first decision answered; `pa_decision` holds what followed.

    Returns:
        Fields of `pa_request`, and `file` and `place`. `request_day` counts from the patient's
        first request among the events, or is 0 where the patient is unknown. `risk_score`: see
        `risk.request_scores`.
    """
    sent = pl.col("submitted_at")
    # Where a moment is but a day, a revision may have that of the request.
    follows = pl.col("certification_type").is_in(_FOLLOWING_TYPES).fill_null(False)
    first = (
        events.scan("request")
        .with_row_index(_ORDER)
        # An answer may repeat its request, and tell less of the patient.
        .sort("submitted_at", follows, pl.col("patient_token").is_null(), _ORDER, nulls_last=True)
        .unique(["request_token", "item_sequence"], keep="first", maintain_order=True)
    )
    day_0 = (
        pl.when(pl.col("patient_token").is_null())
        .then(sent)
        .otherwise(sent.min().over("patient_token"))
    )
    return (
        first.join(request_scores(first, events), on="request_token", how="left")
        .with_columns(
            sent.dt.year().cast(pl.Int16).alias("service_year"),
            (sent.dt.date() - day_0.dt.date()).dt.total_days().cast(pl.Int32).alias("request_day"),
        )
        .sort(_ORDER)
        .drop(_ORDER, "submitted_at")
    )


def pa_decision(events: Spool) -> pl.LazyFrame:
    """One row per answer, numbered in order of time.

    An answer that follows an appeal (a request with certification type 1 or 2) and is no pend
    closes it.

    Returns:
        Fields of `pa_decision`, and `file` and `place`. `decision_hours` counts from the first
        submission of the request, and is unknown (null) where the request is not among the events.
    """
    decided, sent, appealed = pl.col("decided_at"), pl.col(_FIRST_SENT), pl.col(_APPEALED)
    outcome = pl.col("action_code").replace_strict(_APPEAL_OUTCOMES, default=None)
    outcome = pl.when(appealed.is_not_null()).then(outcome)
    answers = (
        events.scan("decision")
        .with_row_index(_ORDER)
        .sort("decided_at", "updated_at", _ORDER, nulls_last=True)
        .join(_first_submissions(events), on="request_token", how="left", maintain_order="left")
        .join_asof(
            _appeals(events),
            left_on="decided_at",
            right_on=_APPEALED,
            by="request_token",
            coalesce=False,
            check_sortedness=False,
        )
    )
    return (
        answers.with_columns(
            pl.int_range(pl.len()).over("request_token").cast(pl.Int16).alias("exchange_seq"),
            _hours(sent, decided).alias("decision_hours"),
            outcome.alias("appeal_outcome"),
        )
        .with_columns(
            pl.when(pl.col("appeal_outcome").is_not_null()).then(value).alias(name)
            for name, value in (
                ("appeal_level", pl.col("level")),
                ("appeal_hours", _hours(appealed, decided)),
            )
        )
        .sort(_ORDER)
        .drop(
            _ORDER,
            _FIRST_SENT,
            _APPEALED,
            "level",
            "decided_at",
            "updated_at",
            "authorization_token",
        )
    )


def claim_payment(events: Spool) -> pl.LazyFrame:
    """One row per adjudication of a claim, and one per claim that none has answered yet.

    What a remittance does not repeat (prior authorization, service date, DRG, revenue code) is
    taken from the claim as it was submitted last. One that was voided before any answer is none.

    Returns:
        Fields of `claim_payment`, and `file` and `place`.
    """
    told = (
        *("patient_token", "authorization_token", "submitted"),
        *("service_from", "drg", "revenue_code"),
    )
    claims = (
        _last_claims(events)
        .select("claim_token", "frequency", "file", "place", *told)
        .rename({name: f"{name}_claimed" for name in ("file", "place", *told)})
    )
    is_unanswered = pl.col(_ORDER).is_null()
    numbered = (
        events.scan("payment")
        .with_row_index(_ORDER)
        .sort("paid_on", _ORDER, nulls_last=True)
        .with_columns(
            pl.int_range(pl.len()).over("claim_token").cast(pl.Int16).alias("adjudication_seq")
        )
    )
    service, received, paid = map(pl.col, ("service_from", "received_on", "paid_on"))
    return (
        numbered.join(claims, on="claim_token", how="full", coalesce=True)
        .filter(~(is_unanswered & pl.col("frequency").eq_missing(_VOID)))
        .with_columns(
            *(
                pl.coalesce(name, f"{name}_claimed")
                for name in ("file", "place", *told)
                if name != "patient_token"
            ),
            # A remittance may name a dependent by the family's member id alone.
            pl.coalesce("patient_token_claimed", "patient_token").alias("patient_token"),
            pl.col("adjudication_seq").fill_null(0),
        )
        .join(_authorized(events), on="authorization_token", how="left")
        .with_columns(
            _days(service, received).alias("days_service_to_receipt"),
            _days(received, paid).alias("days_receipt_to_payment"),
        )
        .sort(_ORDER, "file", "place", nulls_last=True)
        .drop(_ORDER, "frequency", "authorization_token", "service_from", "received_on", "paid_on")
        .drop(pl.selectors.ends_with("_claimed"))
    )


def clinical_outcome(events: Spool) -> pl.LazyFrame:
    """One row per request of a known patient, and one per stay; see `outcomes.clinical_outcomes`.

    Returns:
        Fields of `clinical_outcome`, and `file` and `place`. Costs are the eligible amounts of
        adjudicated claims; a claim counts once, with its last adjudication, and not at all if that
        takes an earlier one back.
    """
    requests = (
        events.scan("request")
        .filter(pl.all_horizontal(pl.col("patient_token", "submitted_at").is_not_null()))
        .sort("submitted_at")
        .unique("request_token", keep="first", maintain_order=True)
        .select(
            *("file", "place", "request_token", "patient_token"),
            pl.col("submitted_at").dt.date().alias("index_on"),
        )
    )
    visits = events.scan("visit")
    costs = (
        events.scan("payment")
        .with_row_index(_ORDER)
        .sort("paid_on", _ORDER, nulls_last=True)
        .unique("claim_token", keep="last", maintain_order=True)
        .filter(~pl.col("reversal_flag").eq_missing(True))
        .join(
            _last_claims(events).select("claim_token", claimed="patient_token"),
            on="claim_token",
            how="left",
        )
        .with_columns(pl.coalesce("claimed", "patient_token").alias("patient_token"))
        .filter(pl.all_horizontal(pl.col("patient_token", "service_from").is_not_null()))
        .select("patient_token", pl.col("service_from").alias("incurred_on"), "eligible")
    )
    index = pl.concat([requests, index_stays(visits)])
    return clinical_outcomes(index, events.scan("person"), visits, events.scan("lab"), costs)


ASSEMBLED: Final[Mapping[str, Callable[[Spool], pl.LazyFrame]]] = {
    "pa_request": pa_request,
    "pa_decision": pa_decision,
    "claim_payment": claim_payment,
    "clinical_outcome": clinical_outcome,
}
"""Contract table -> how it is made of events."""


def _last_claims(events: Spool) -> pl.LazyFrame:
    """Claims as they were submitted last; where no moment is known, in the order of the events.

    A number that several patients share tells nothing but a charge: whose claim a remittance
    answers is not known from it.
    """
    patients = pl.col("patient_token").drop_nulls().n_unique().over("claim_token")
    told = pl.col("patient_token", "authorization_token", "service_from", "drg", "revenue_code")
    return (
        events.scan("claim")
        .with_row_index(_ORDER)
        .with_columns(pl.when(patients < 2).then(told).name.keep())
        .sort("submitted_at", _ORDER)
        .unique("claim_token", keep="last", maintain_order=True)
        .drop(_ORDER)
    )


def _first_submissions(events: Spool) -> pl.LazyFrame:
    """Request -> the moment at which it was first sent."""
    requests = events.scan("request").group_by("request_token")
    return requests.agg(pl.col("submitted_at").min().alias(_FIRST_SENT))


def _appeals(events: Spool) -> pl.LazyFrame:
    """Every appeal: its request, when it was sent, and its level."""
    appeals = events.scan("request").filter(pl.col("certification_type").is_in(_APPEAL_TYPES))
    sent = pl.col("submitted_at").alias(_APPEALED)
    return (
        appeals.filter(pl.col("submitted_at").is_not_null())
        .select("request_token", sent)
        .unique()
        .sort(_APPEALED)
        .with_columns(
            (pl.int_range(pl.len()) + 1).over("request_token").cast(pl.Int16).alias("level")
        )
    )


def _authorized(events: Spool) -> pl.LazyFrame:
    """Authorization -> its request; none for a number that was given to several requests."""
    given = events.scan("decision").filter(pl.col("authorization_token").is_not_null())
    return (
        given.group_by("authorization_token")
        .agg(pl.col("request_token").unique())
        .filter(pl.col("request_token").list.len() == 1)
        .with_columns(pl.col("request_token").list.first())
    )


def _hours(start: pl.Expr, end: pl.Expr) -> pl.Expr:
    return (end - start).dt.total_seconds() / 3600


def _days(start: pl.Expr, end: pl.Expr) -> pl.Expr:
    return (end - start).dt.total_days().cast(pl.Int32)
