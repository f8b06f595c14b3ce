"""What happens to the patients: every potential outcome from the same noise.

Whatever a patient's fate would be under approval, under denial and under what the payer in fact
did is decided by one and the same draw. So a difference between them is caused by the service.
"""

from dataclasses import dataclass

import numpy as np

from data_contracts.synthetic.population import BoolArray, IntArray, Requests, happens, logistic
from data_contracts.synthetic.review import Reviews
from data_contracts.synthetic.settings import SERVICES, Mechanism
from data_contracts.synthetic.sites import FloatArray

READMISSION_SERVICES = (SERVICES.index("surgery"), SERVICES.index("post_acute"))
EARLY_DAYS = 30


@dataclass(frozen=True, slots=True)
class Fates:
    """What happens within 90 days in one world.

    Attributes:
        risk: Probability of an emergency visit or admission.
        ed_visit: Whether there is one.
        cost: Eligible amount of all care, USD.
        hba1c: HbA1c after the window, % (meaningful in the diabetes arm).
    """

    risk: FloatArray
    ed_visit: BoolArray
    cost: FloatArray
    hba1c: FloatArray


@dataclass(frozen=True, slots=True)
class FollowUps:
    """What happened to each request's patient, and what would have.

    Attributes:
        observed: What happened under what the payer did.
        if_approved: What would have, had the service been approved promptly.
        if_denied: What would have, had the service never been received.
        event_day: Day of the emergency visit, if there is one.
        readmitted: Unplanned readmission within 30 days (surgery and post-acute care only).
        died: Death within 90 days.
        days_observed: Days of follow-up that the sites could observe.
        service_price: Eligible amount of the service, USD.
        labs: Baseline HbA1c, eGFR and systolic pressure; NaN where missing, (n, 3).
        lab_day: Day of these values, 0 or before.
        diabetic: The request is for a diabetes drug.
    """

    observed: Fates
    if_approved: Fates
    if_denied: Fates
    event_day: IntArray
    readmitted: BoolArray
    died: BoolArray
    days_observed: IntArray
    service_price: FloatArray
    labs: FloatArray
    lab_day: IntArray
    diabetic: BoolArray


def follow_up(
    mechanism: Mechanism, requests: Requests, reviews: Reviews, rng: np.random.Generator
) -> FollowUps:
    """Follow every request's patient for 90 days, in three worlds."""
    settings, money = mechanism.outcomes, mechanism.money
    count = len(requests)
    age = requests.age - mechanism.population.age_mean
    severity, comorbidity, received = requests.severity, requests.comorbidity, reviews.received
    untreated = (
        settings.ed_intercept
        + settings.ed_of_severity * severity
        + settings.ed_of_comorbidity * comorbidity
        + settings.ed_of_deprivation * requests.deprivation
        + settings.ed_of_age * age
    )
    share = np.where(reviews.all_met, 1.0, settings.unmet_benefit)
    benefit = np.asarray(settings.benefit)[requests.service] * share
    harm_per_day = settings.harm_of_delay * reviews.all_met

    chance = rng.random(count)
    price = np.asarray(money.service_medians)[requests.service] * np.exp(
        money.service_sigma * rng.standard_normal(count)
    )
    other_care = np.exp(
        money.other_care_log
        + money.cost_of_comorbidity * comorbidity
        + money.cost_of_severity * severity
        + money.other_care_sigma * rng.standard_normal(count)
    )
    event_cost = money.event_median * np.exp(
        money.event_cost_of_severity * severity + money.event_sigma * rng.standard_normal(count)
    )
    labs = _baseline_labs(mechanism, severity, rng)
    diabetic = (requests.service == SERVICES.index("drug")) & (
        rng.random(count) < mechanism.requests.diabetes_share
    )
    hba1c_untreated = (
        mechanism.laboratory.centres[0]
        + mechanism.laboratory.slopes[0] * severity
        + settings.hba1c_drift
        + settings.hba1c_noise * rng.standard_normal(count)
    )

    def world(receives: BoolArray, delay_days: FloatArray) -> Fates:
        late = np.minimum(delay_days, settings.max_delay_days)
        risk = logistic(untreated - (benefit - harm_per_day * late) * receives)
        ed_visit = chance < risk
        cost = other_care + event_cost * ed_visit + price * receives
        return Fates(
            risk=risk,
            ed_visit=ed_visit,
            cost=np.minimum(cost, money.max_cost),
            hba1c=hba1c_untreated - settings.hba1c_benefit * share * receives,
        )

    event_day = np.ceil(
        settings.window_days * rng.beta(1.0, settings.event_day_shape, count)
    ).astype(np.int64)
    readmitted = np.isin(requests.service, READMISSION_SERVICES) & happens(
        rng,
        settings.readmission_intercept
        + settings.readmission_of_severity * severity
        + settings.readmission_of_comorbidity * comorbidity
        + settings.readmission_of_received * received,
    )
    died = happens(
        rng,
        settings.death_intercept
        + settings.death_of_severity * severity
        + settings.death_of_comorbidity * comorbidity
        + settings.death_of_age * age,
    )
    ends_early = rng.random(count) < settings.censored_share
    last_day = rng.integers(1, settings.window_days, count)
    return FollowUps(
        observed=world(received, reviews.delay_days),
        if_approved=world(np.ones(count, dtype=bool), np.full(count, settings.prompt_days)),
        if_denied=world(np.zeros(count, dtype=bool), np.zeros(count)),
        event_day=np.maximum(event_day, 1),
        readmitted=readmitted,
        died=died,
        days_observed=np.where(ends_early, last_day, settings.window_days),
        service_price=price,
        labs=labs,
        lab_day=-rng.integers(0, mechanism.laboratory.max_age_days + 1, count),
        diabetic=diabetic,
    )


def _baseline_labs(
    mechanism: Mechanism, severity: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Three noisy measurements of severity, NaN where missing, (n, 3)."""
    settings = mechanism.laboratory
    shape = (len(severity), len(settings.centres))
    measured = severity[:, None] + settings.noise * rng.standard_normal(shape)
    values = np.asarray(settings.centres) + np.asarray(settings.slopes) * measured
    for column, (limits, decimals) in enumerate(
        zip(settings.limits, settings.decimals, strict=True)
    ):
        values[:, column] = np.round(np.clip(values[:, column], *limits), decimals)
    values[rng.random(shape) < settings.missing_share] = np.nan
    return values
