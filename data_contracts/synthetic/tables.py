"""A simulated chunk as rows of the contract tables, and its truth as a table of its own."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts import vocabulary as v
from data_contracts.schemas import ClinicalOutcome, PaDecision, PaRequest
from data_contracts.synthetic import codes
from data_contracts.synthetic.columns import (
    bits,
    conform,
    null_unless,
    pick,
    pick_within,
    running_count,
)
from data_contracts.synthetic.mechanism import Chunk
from data_contracts.synthetic.outcomes import EARLY_DAYS, READMISSION_SERVICES
from data_contracts.synthetic.population import IntArray, happens, logistic
from data_contracts.synthetic.review import ACTIONS, FULL, PARTIAL, PENDED
from data_contracts.synthetic.settings import CHANNELS, SERVICES, Mechanism
from data_contracts.synthetic.sites import Sites
from data_contracts.synthetic.tokens import tokens

_CODES = [codes.BY_SERVICE[service] for service in SERVICES]
_QUINTILE_EDGES = [
    NormalDist().inv_cdf((i + 1) / codes.SDI_QUINTILES) for i in range(codes.SDI_QUINTILES - 1)
]
_DIABETES_DRUG = len(_CODES)
"""Index of the diabetes arm, behind the services."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The chunk's tokens, one per request: of the request and of its patient."""

    request: pl.Series
    patient: pl.Series


def make_tokens(chunk: Chunk, seed: int) -> Tokens:
    """The tokens of a chunk's requests and patients."""
    numbers = chunk.first_request + np.arange(len(chunk.requests))
    patients = tokens("patient", chunk.first_patient + np.arange(chunk.n_patients), seed)
    return Tokens(tokens("request", numbers, seed), patients.gather(chunk.requests.patient))


def request_rows(mechanism: Mechanism, sites: Sites, chunk: Chunk, keys: Tokens) -> pl.DataFrame:
    """Rows of `pa_request`, one per request."""
    rng, requests, settings = chunk.extras, chunk.requests, mechanism.requests
    count, service = len(requests), requests.service
    diabetic = chunk.follow_ups.diabetic
    documented = chunk.reviews.documented
    n_documented = documented.sum(axis=1)
    further = happens(
        rng,
        np.asarray(settings.dx_intercepts)
        + settings.dx_per_comorbidity * requests.comorbidity[:, None],
    )
    further[diabetic, codes.COMORBIDITIES.index("E11.9")] = False
    certification = np.searchsorted(
        [settings.renewal_share, settings.renewal_share + settings.revised_share],
        rng.random(count),
        side="right",
    )
    drug = service == SERVICES.index("drug")
    steps = np.where(drug, rng.integers(1, 3, count), 0)
    failed = np.where(documented[:, 1], steps, (rng.random(count) * steps).astype(np.int64))
    lines = mechanism.sites.payer_lines
    frame = pl.DataFrame(
        {
            "request_token": keys.request,
            "item_sequence": pl.repeat(1, count, dtype=pl.Int16, eager=True),
            "patient_token": keys.patient,
            "payer_id": pick(sites.payers, requests.payer),
            "provider_group_id": pick(sites.providers, requests.provider),
            "business_line": pick([lines[i] for i in sites.line], requests.payer),
            "request_type": pick(("medical", "drug"), drug),
            "claim_type": pick([c.claim_type for c in _CODES], service),
            "certification_type": pick(("R", "S", "I"), certification),
            "level_of_service": pick(("E", "U"), requests.urgent),
            "request_category": pick([c.request_category for c in _CODES], service),
            "service_type": pick([c.service_type for c in _CODES], service),
            "procedure_code": pick_within(
                [*(c.procedures for c in _CODES), (None,)],
                np.where(diabetic, _DIABETES_DRUG, service),
                rng,
            ),
            "rxcui": pick_within([(None,), codes.DIABETES_DRUGS], diabetic.astype(np.int64), rng),
            "dx_principal": pick_within(
                [*(c.diagnoses for c in _CODES), codes.DIABETES_DIAGNOSES],
                np.where(diabetic, _DIABETES_DRUG, service),
                rng,
            ),
            "dx_other": codes.further_diagnoses().gather(bits(further)),
            "risk_score": np.round(requests.comorbidity, 3),
            "place_of_service": pick([c.place_of_service for c in _CODES], service),
            "provider_taxonomy": pick([c.taxonomy for c in _CODES], service),
            "quantity": pick_within([c.quantities for c in _CODES], service, rng),
            "quantity_unit": pick([c.unit for c in _CODES], service),
            "channel": pick(CHANNELS, requests.channel),
            "policy_id": pick(
                [f"{payer}-{service}" for payer in sites.payers for service in SERVICES],
                requests.payer * len(SERVICES) + service,
            ),
            "policy_version": requests.year + 1,
            "criteria_required": codes.criteria_required().gather(service),
            "criteria_documented": codes.criteria_documented().gather(
                service * 2 ** documented.shape[1] + bits(documented)
            ),
            "step_required_n": null_unless(drug, steps),
            "step_failed_n": null_unless(drug, failed),
            "attachments_n": rng.binomial(n_documented, 0.7),
            "network_status": pick(
                ("in", "out"), rng.random(count) < settings.out_of_network_share
            ),
            "eligibility_verified": rng.random(count) < settings.eligibility_verified_share,
            "service_year": mechanism.population.first_year + requests.year,
            "request_day": requests.day,
        }
    )
    return conform(frame, PaRequest)


def decision_rows(
    sites: Sites, chunk: Chunk, keys: Tokens, rows: IntArray, quantity: NDArray[np.float64]
) -> pl.DataFrame:
    """Rows of `pa_decision`, one per answer: first answer, determination after a pend, appeal.

    Args:
        sites: The sites.
        chunk: What was simulated.
        keys: Its tokens.
        rows: Index of the request of each answer, as `answers` gives it.
        quantity: Quantity that each request asks for.
    """
    requests, reviews = chunk.requests, chunk.reviews
    pended = reviews.first == PENDED
    seq = running_count(rows)
    is_appeal = reviews.appealed[rows] & (seq == 1 + pended[rows])
    is_final = seq == pended[rows]
    final = reviews.final[rows]
    complete = np.asarray(reviews.documented.all(axis=1))[rows]
    action = np.where(
        is_appeal & reviews.overturned[rows],
        FULL,
        np.where(is_final | is_appeal, final, PENDED),
    )
    hours = np.where(
        is_appeal,
        reviews.closed_hours[rows],
        np.where(is_final, reviews.final_hours[rows], reviews.first_hours[rows]),
    )
    # What the payer can know, not what is true: index into the reasons below (X12 886: information
    # not received, not necessary, needs review).
    documentation, clinical, to_review, none = range(4)
    reason = np.where(
        action == FULL,
        none,
        np.where(
            ~complete & pended[rows],
            documentation,
            np.where(action == PENDED, to_review, clinical),
        ),
    )
    service = requests.service[rows]
    quantity_days = np.array([c.auth_days for c in _CODES])[service]
    certified = (action == FULL) | (action == PARTIAL)
    frame = pl.DataFrame(
        {
            "request_token": keys.request.gather(rows),
            "exchange_seq": seq,
            "action_code": pick(ACTIONS, action),
            "reason_codes": pl.Series(
                [["0P"], ["0F"], ["0V"], None], dtype=pl.List(pl.String)
            ).gather(reason),
            "decision_hours": np.round(hours, 4),
            "extended_flag": reviews.extended[rows] & is_final,
            "auto_decided": reviews.automatic[rows],
            "reviewer_queue": pick(
                [
                    f"{payer}-queue-{queue + 1:02d}"
                    for payer in sites.payers
                    for queue in range(len(sites.leniency))
                ],
                requests.payer[rows] * len(sites.leniency) + reviews.queue[rows],
            ),
            "p2p_held": reviews.peer_to_peer[rows] & is_final,
            "units_approved": null_unless(
                certified, quantity[rows] * np.where(action == PARTIAL, 0.5, 1.0)
            ),
            "auth_period_days": null_unless(certified, quantity_days),
            "appeal_level": null_unless(is_appeal, np.ones_like(seq)),
            "appeal_outcome": null_unless(
                is_appeal, pick(("upheld", "overturned"), reviews.overturned[rows])
            ),
            "appeal_hours": null_unless(
                is_appeal, pl.Series(np.round(reviews.appeal_hours[rows], 4))
            ),
        }
    )
    return conform(frame, PaDecision)


def answers(chunk: Chunk) -> IntArray:
    """Index of the request of each of the payers' answers, in order, (n_answers,)."""
    reviews = chunk.reviews
    n_answers = 1 + (reviews.first == PENDED) + reviews.appealed
    return np.repeat(np.arange(len(chunk.requests)), n_answers)


def outcome_rows(mechanism: Mechanism, chunk: Chunk, keys: Tokens) -> pl.DataFrame:
    """Rows of `clinical_outcome`, one per request.

    A yes/no outcome is null unless its whole window could be observed, so that leaving nulls out
    biases nothing; `days_to_event` and `event_observed` keep what the shorter follow-ups saw.
    """
    rng, requests, after = chunk.extras, chunk.requests, chunk.follow_ups
    window = mechanism.outcomes.window_days
    band = np.minimum(requests.age.astype(np.int64) // 10, len(v.AGE_BANDS) - 1)
    quintile = np.searchsorted(_QUINTILE_EDGES, requests.deprivation, side="right")
    complete = after.days_observed >= window
    early = after.days_observed >= EARLY_DAYS
    ed_visit = after.observed.ed_visit
    seen = ed_visit & (after.event_day <= after.days_observed)
    eligible = np.isin(requests.service, READMISSION_SERVICES)
    late_lab = after.diabetic & complete & (rng.random(len(requests)) < 0.85)
    frame = pl.DataFrame(
        {
            "patient_token": keys.patient,
            "request_token": keys.request,
            "age_band": pick(v.AGE_BANDS, band),
            "sex": pick(v.SEXES, requests.sex),
            "race": pick(v.RACES, requests.race),
            "ethnicity": pick(("not_hispanic", "hispanic"), requests.hispanic),
            "zip3": pick(
                codes.ZIP3,
                (requests.home * codes.SDI_QUINTILES + quintile) % len(codes.ZIP3),
            ),
            "sdi_quintile": quintile + 1,
            "baseline_labs": _labs(after.labs, after.lab_day, tuple(v.LOINC_LABS)),
            "followup_labs": _labs(
                np.where(late_lab, np.round(after.observed.hba1c, 1), np.nan)[:, None],
                rng.integers(window // 2, window + 1, len(requests)),
                tuple(v.LOINC_LABS)[:1],
            ),
            "readmission_30d": null_unless(eligible & early, after.readmitted),
            "ed_visit_30d": null_unless(
                early, pl.Series(ed_visit & (after.event_day <= EARLY_DAYS))
            ),
            "ed_visit_90d": null_unless(complete, ed_visit),
            "death_90d": null_unless(complete, after.died),
            "cost_90d": null_unless(complete, np.round(after.observed.cost, 2)),
            "days_to_event": np.where(seen, after.event_day, after.days_observed),
            "event_observed": seen,
            "followup_days_observed": after.days_observed,
        }
    )
    return conform(frame, ClinicalOutcome)


def truth_rows(chunk: Chunk, keys: Tokens) -> pl.DataFrame:
    """What nobody in the network holds, one row per request."""
    requests, reviews, after = chunk.requests, chunk.reviews, chunk.follow_ups
    columns: dict[str, pl.Series | NDArray[np.generic]] = {
        "request_token": keys.request,
        "patient_token": keys.patient,
        "severity": requests.severity,
        "comorbidity": requests.comorbidity,
        "social_deprivation": requests.deprivation,
        "reviewer_leniency": reviews.leniency,
        "criteria_met": reviews.all_met,
    }
    for element in range(reviews.met.shape[1]):
        columns[f"met_{element + 1}"] = reviews.met[:, element]
    columns["first_pass_probability"] = logistic(reviews.approval_log_odds)
    columns["received"] = reviews.received
    columns["delay_days"] = reviews.delay_days
    for world, fates in (
        ("observed", after.observed),
        ("if_approved", after.if_approved),
        ("if_denied", after.if_denied),
    ):
        columns[f"ed_risk_{world}"] = fates.risk
        columns[f"ed_visit_{world}"] = fates.ed_visit
        columns[f"cost_{world}"] = fates.cost
        columns[f"hba1c_{world}"] = np.where(after.diabetic, fates.hba1c, np.nan)
    return pl.DataFrame(columns).with_columns(pl.col("^hba1c_.*$").fill_nan(None))


def _labs(values: NDArray[np.float64], day: IntArray, loincs: tuple[str, ...]) -> pl.Series:
    """Lists of laboratory values from an array (n, k); NaN is missing, none at all is null."""
    columns = pl.DataFrame(
        {"day": day.astype(np.int32), **dict(zip(loincs, values.T, strict=True))}
    )
    labs = [
        pl.when(pl.col(loinc).is_not_nan()).then(
            pl.struct(
                loinc=pl.lit(loinc),
                value=loinc,
                ucum=pl.lit(v.LOINC_LABS[loinc][1]),
                day_offset="day",
            )
        )
        for loinc in loincs
    ]
    lists = columns.select(pl.concat_list(labs).list.drop_nulls().alias("labs"))
    return lists.select(pl.when(pl.col("labs").list.len() > 0).then("labs")).to_series()
