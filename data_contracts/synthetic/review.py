"""The policy, the documentation, the payer's answers and the appeals."""

from dataclasses import dataclass

import numpy as np

from data_contracts.synthetic.population import BoolArray, IntArray, Requests, happens
from data_contracts.synthetic.settings import CHANNELS, ELEMENTS_PER_POLICY, Mechanism
from data_contracts.synthetic.sites import FloatArray, Sites

FULL, PARTIAL, DENIED, PENDED = 0, 1, 2, 3
"""Answers, as indices into `ACTIONS`."""

ACTIONS = ("A1", "A2", "A3", "A4")

HOURS_PER_DAY = 24.0


@dataclass(frozen=True, slots=True)
class Reviews:
    """What a payer did with each request, and what only the truth knows.

    Attributes:
        met: Which elements are met (truth), (n, 4).
        all_met: Whether all are: the true criteria M.
        documented: Which elements the request documents, (n, 4).
        queue: Index of the payer's reviewer queue, assigned at random.
        leniency: Leniency Z of that queue (truth).
        approval_log_odds: Log-odds of approval at the first answer (truth).
        first: First answer: FULL, PARTIAL, DENIED or PENDED.
        final: Determination before any appeal: FULL, PARTIAL or DENIED.
        automatic: Approved without a person.
        first_hours: Hours from submission to the first answer.
        final_hours: Hours from submission to the determination.
        appealed: Whether an adverse determination was appealed.
        overturned: Whether that appeal turned it into an approval.
        appeal_hours: Hours from the appeal to its outcome.
        closed_hours: Hours from submission to the appeal's outcome.
        peer_to_peer: A peer-to-peer talk preceded an adverse determination.
        extended: The payer had extended the review.
    """

    met: BoolArray
    all_met: BoolArray
    documented: BoolArray
    queue: IntArray
    leniency: FloatArray
    approval_log_odds: FloatArray
    first: IntArray
    final: IntArray
    automatic: BoolArray
    first_hours: FloatArray
    final_hours: FloatArray
    appealed: BoolArray
    overturned: BoolArray
    appeal_hours: FloatArray
    closed_hours: FloatArray
    peer_to_peer: BoolArray
    extended: BoolArray

    @property
    def received(self) -> BoolArray:
        """Approved in the end, by the determination or on appeal: the patient gets the service."""
        return np.asarray((self.final == FULL) | self.overturned)

    @property
    def delay_days(self) -> FloatArray:
        """Days from submission to the last word."""
        return np.where(self.appealed, self.closed_hours, self.final_hours) / HOURS_PER_DAY


def review(
    mechanism: Mechanism, sites: Sites, requests: Requests, rng: np.random.Generator
) -> Reviews:
    """Let the payers answer the requests."""
    count = len(requests)
    met, documented = _criteria(mechanism, sites, requests, rng)
    all_met = np.asarray(met.all(axis=1))
    complete = np.asarray(documented.all(axis=1))
    settings = mechanism.review
    queue = rng.integers(0, len(sites.leniency), count)
    leniency = sites.leniency[queue]
    log_odds = (
        np.where(
            complete,
            settings.approved_complete,
            np.where(all_met, settings.approved_undocumented, settings.approved_unmet),
        )
        + sites.laxity[requests.payer]
        + settings.leniency_weight * leniency
    )
    approved = happens(rng, log_odds)
    fate = rng.random(count)
    pended_share = np.where(complete, settings.pended_complete, settings.pended_with_gaps)
    not_approved = np.where(
        fate < pended_share,
        PENDED,
        np.where(fate < pended_share + settings.partial_share, PARTIAL, DENIED),
    )
    first = np.where(approved, FULL, not_approved)
    maturity = sites.maturity[requests.provider]
    cured = happens(
        rng,
        settings.cured_intercept
        + settings.cured_of_maturity * maturity
        + settings.cured_of_unmet * ~all_met,
    )
    final = np.where(first == PENDED, np.where(cured, FULL, DENIED), first)
    appealed = (final != FULL) & happens(
        rng,
        settings.appeal_intercept
        + settings.appeal_of_maturity * maturity
        + settings.appeal_of_severity * requests.severity
        + settings.appeal_of_deprivation * requests.deprivation
        + settings.appeal_of_met * all_met,
    )
    wins = rng.random(count) < np.where(all_met, settings.overturned_met, settings.overturned_unmet)
    peer_to_peer = (final != FULL) & (rng.random(count) < settings.peer_to_peer_share)

    timing = mechanism.timing
    fhir = requests.channel == CHANNELS.index("FHIR")
    automatic = fhir & complete & approved & (rng.random(count) < timing.automatic_share)
    pace = HOURS_PER_DAY * np.where(requests.urgent, timing.urgent_factor, 1.0)
    median = np.asarray(timing.median_days)[requests.channel] * sites.slowness[requests.payer]
    reviewed = pace * median * np.exp(timing.sigma * rng.standard_normal(count))
    first_hours = np.where(automatic, timing.automatic_seconds / 3600.0, reviewed)
    pend = pace * _gamma(rng, timing.pend_shape, timing.pend_mean, count)
    final_hours = first_hours + np.where(first == PENDED, pend, 0.0)
    filing = pace * _gamma(rng, 2.0, timing.appeal_filing_mean, count)
    appeal_hours = pace * _gamma(rng, timing.appeal_shape, timing.appeal_mean, count)
    limit = np.where(requests.urgent, 3.0, 7.0) * HOURS_PER_DAY
    return Reviews(
        met=met,
        all_met=all_met,
        documented=documented,
        queue=queue,
        leniency=leniency,
        approval_log_odds=log_odds,
        first=first,
        final=final,
        automatic=automatic,
        first_hours=first_hours,
        final_hours=final_hours,
        appealed=appealed,
        overturned=appealed & wins,
        appeal_hours=appeal_hours,
        closed_hours=final_hours + filing + appeal_hours,
        peer_to_peer=peer_to_peer,
        extended=(final_hours > limit) & (rng.random(count) < timing.extension_share),
    )


def _criteria(
    mechanism: Mechanism, sites: Sites, requests: Requests, rng: np.random.Generator
) -> tuple[BoolArray, BoolArray]:
    """Which elements of the policy are met, and which documented, (n, 4) each."""
    settings = mechanism.criteria
    growth = 1.0 + settings.strictness_growth * np.arange(ELEMENTS_PER_POLICY)
    middle = (mechanism.population.years - 1) / 2
    drift = settings.strictness_drift * (requests.year - middle)
    met = happens(
        rng,
        (
            np.asarray(settings.met_intercepts)[requests.service]
            + settings.met_of_severity * requests.severity
            - drift
        )[:, None]
        - np.outer(sites.strictness[requests.payer], growth),
    )
    documented = met & happens(
        rng,
        np.broadcast_to(
            (
                settings.documented_intercept
                + settings.documented_of_maturity * sites.maturity[requests.provider]
                + np.asarray(settings.documented_of_channel)[requests.channel]
                + settings.documented_of_deprivation * requests.deprivation
                + np.asarray(settings.documented_of_race)[requests.race]
            )[:, None],
            met.shape,
        ),
    )
    return met, documented


def _gamma(rng: np.random.Generator, shape: float, mean: float, count: int) -> FloatArray:
    return rng.gamma(shape, mean / shape, count)
