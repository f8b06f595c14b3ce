"""Every number of the synthetic network's mechanism, and the presets.

Logit coefficients are on the log-odds scale. Tuples over services, channels or payers are in the
order of `SERVICES`, `CHANNELS` and of the payers (commercial, Medicare Advantage, exchange plan,
Medicaid). Effects of sites are fixed quantiles, not draws: with ten sites, random effects would
move the share of first-pass approvals by whole points from seed to seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from data_contracts.errors import GroundTruthError

SERVICES: Final = ("imaging", "drug", "surgery", "dme", "therapy", "post_acute")
CHANNELS: Final = ("FHIR", "X12", "portal", "fax")
ELEMENTS_PER_POLICY: Final = 4

Quad = tuple[float, float, float, float]
PerService = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class SiteEffects:
    """How payers and providers differ.

    Attributes:
        payer_lines: Line of business of each default payer.
        payer_shares: Share of the patients with each default payer.
        payer_strictness: How much harder each payer's policy elements are to meet (logit).
        payer_laxity: How much more readily each payer approves (logit).
        payer_slowness: Factor on each payer's decision time.
        provider_shares: Share of the requests from each default provider.
        maturity_centre: Digital maturity of the median provider.
        maturity_spread: Digital maturity runs evenly over the centre ± this.
        queues_per_payer: Reviewer queues of a payer; requests go to them at random.
    """

    payer_lines: tuple[str, ...] = ("COMM", "MA", "QHP_FFE", "MCD_MCO")
    payer_shares: Quad = (0.35, 0.30, 0.25, 0.10)
    payer_strictness: Quad = (-0.15, 0.0, 0.25, 0.15)
    payer_laxity: Quad = (0.35, 0.05, -0.45, -0.15)
    payer_slowness: Quad = (0.9, 0.8, 1.25, 1.0)
    provider_shares: tuple[float, ...] = (
        *(0.06, 0.08, 0.10, 0.12, 0.14),
        *(0.14, 0.12, 0.10, 0.08, 0.06),
    )
    maturity_centre: float = 0.0
    maturity_spread: float = 1.4
    queues_per_payer: int = 20


@dataclass(frozen=True, slots=True)
class Population:
    """Who the patients are and how often they ask.

    Attributes:
        age_mean: Mean age, years.
        age_sd: Standard deviation of the age, years.
        age_range: Ages are clipped to it, years.
        comorbidity_shape: Comorbidity is gamma distributed ...
        comorbidity_scale: ... with this scale.
        severity_of_comorbidity: Slope of severity on comorbidity.
        severity_persistence: Share of the severity's own variance that a patient keeps from one
            request to the next.
        mean_further_requests: Mean requests of a patient after the first.
        further_requests_shape: Gamma shape of that rate; small means a few frequent patients.
        max_requests: A patient has no more requests than this.
        provider_count_shares: Patients who go to one, two and three providers.
        home_provider_share: Requests that go to the first of several providers.
        payer_change_share: Patients who change payer within the window.
        first_year: First calendar year of the window.
        years: Calendar years of the window.
        mean_gap_days: Mean days from one request of a patient to the next.
        female_share: Share of women; what is left is split by `other_sex_share`.
        other_sex_share: Share of patients whose sex is "other" or "unknown".
        race_shares: Shares of `vocabulary.RACES` at mean deprivation.
        race_of_deprivation: Log-odds of each race per unit of deprivation.
        hispanic_intercept: Log-odds of Hispanic ethnicity at mean deprivation.
        hispanic_of_deprivation: The same per unit of deprivation.
    """

    age_mean: float = 58.0
    age_sd: float = 17.0
    age_range: tuple[float, float] = (18.0, 95.0)
    comorbidity_shape: float = 2.0
    comorbidity_scale: float = 0.6
    severity_of_comorbidity: float = 0.45
    severity_persistence: float = 0.8
    mean_further_requests: float = 0.875
    further_requests_shape: float = 1.2
    max_requests: int = 12
    provider_count_shares: tuple[float, float, float] = (0.72, 0.22, 0.06)
    home_provider_share: float = 0.6
    payer_change_share: float = 0.08
    first_year: int = 2022
    years: int = 3
    mean_gap_days: float = 120.0
    female_share: float = 0.54
    other_sex_share: float = 0.006
    race_shares: tuple[float, ...] = (0.64, 0.14, 0.06, 0.012, 0.004, 0.094, 0.05)
    race_of_deprivation: tuple[float, ...] = (0.0, 0.5, -0.1, 0.4, 0.2, 0.4, 0.0)
    hispanic_intercept: float = -1.7
    hispanic_of_deprivation: float = 0.35


@dataclass(frozen=True, slots=True)
class Requests:
    """What is asked for, and how.

    Attributes:
        service_shares: Shares of `SERVICES`.
        channel_intercepts: Softmax intercepts of `CHANNELS`.
        channel_of_maturity: Softmax slopes of `CHANNELS` on digital maturity.
        urgent_intercept: Log-odds of an urgent request.
        urgent_of_severity: The same per unit of severity.
        renewal_share: Requests that renew an authorization.
        revised_share: Requests that revise one.
        out_of_network_share: Requests for a provider out of network.
        eligibility_verified_share: Requests with eligibility verified beforehand.
        diabetes_share: Drug requests for type 2 diabetes (the HbA1c arm).
        dx_per_comorbidity: Log-odds of each further diagnosis per unit of comorbidity.
        dx_intercepts: Log-odds of each of the eight further diagnoses without comorbidity.
    """

    service_shares: PerService = (0.28, 0.24, 0.14, 0.14, 0.12, 0.08)
    channel_intercepts: Quad = (-0.9, -0.6, 0.7, 0.2)
    channel_of_maturity: Quad = (0.9, 0.3, 0.0, -0.7)
    urgent_intercept: float = -2.5
    urgent_of_severity: float = 0.5
    renewal_share: float = 0.12
    revised_share: float = 0.03
    out_of_network_share: float = 0.06
    eligibility_verified_share: float = 0.92
    diabetes_share: float = 0.3
    dx_per_comorbidity: float = 0.9
    dx_intercepts: tuple[float, ...] = (-1.4, -1.8, -2.2, -2.4, -2.6, -2.8, -3.0, -3.4)


@dataclass(frozen=True, slots=True)
class Criteria:
    """When a policy's elements are met, and when they are documented.

    Attributes:
        met_intercepts: Log-odds of meeting an element, by service.
        met_of_severity: The same per unit of severity.
        strictness_growth: The payer's strictness weighs 1, 1 + this, 1 + twice this, ... on the
            first, second, third, ... element.
        strictness_drift: Growth of every payer's strictness per calendar year, around the middle
            of the window (new policy versions).
        documented_intercept: Log-odds that a met element is documented.
        documented_of_maturity: The same per unit of digital maturity.
        documented_of_channel: The same by channel.
        documented_of_deprivation: The same per unit of social deprivation: a known bias.
        documented_of_race: The same by race (`vocabulary.RACES`): a known bias, none by default.
    """

    met_intercepts: PerService = (2.9, 2.6, 2.8, 2.7, 2.8, 2.4)
    met_of_severity: float = 0.55
    strictness_growth: float = 0.5
    strictness_drift: float = 0.05
    documented_intercept: float = 2.53
    documented_of_maturity: float = 0.35
    documented_of_channel: Quad = (0.5, 0.1, 0.0, -0.6)
    documented_of_deprivation: float = -0.12
    documented_of_race: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Review:
    """How a payer answers.

    Attributes:
        approved_complete: Log-odds of approval at the first answer if all is documented.
        approved_undocumented: The same if the criteria are met but not all documented.
        approved_unmet: The same if the criteria are not met.
        leniency_weight: Weight of the reviewer queue's leniency (unit variance).
        pended_with_gaps: Of the not approved with a gap in the documentation: pended.
        pended_complete: Of the not approved without a gap: pended.
        partial_share: Of the not approved: certified in part.
        cured_intercept: Log-odds that a pend ends in approval.
        cured_of_maturity: The same per unit of digital maturity.
        cured_of_unmet: The same where the criteria are not met.
        appeal_intercept: Log-odds that an adverse determination is appealed.
        appeal_of_maturity: The same per unit of digital maturity.
        appeal_of_severity: The same per unit of severity.
        appeal_of_deprivation: The same per unit of social deprivation.
        appeal_of_met: The same where the criteria are met.
        overturned_met: Appeals that succeed where the criteria are met.
        overturned_unmet: Appeals that succeed where they are not.
        peer_to_peer_share: Adverse determinations after a peer-to-peer talk.
    """

    approved_complete: float = 3.6
    approved_undocumented: float = -0.2
    approved_unmet: float = -1.1
    leniency_weight: float = 0.55
    pended_with_gaps: float = 0.78
    pended_complete: float = 0.62
    partial_share: float = 0.06
    cured_intercept: float = 1.6
    cured_of_maturity: float = 0.3
    cured_of_unmet: float = -0.5
    appeal_intercept: float = -2.33
    appeal_of_maturity: float = 0.5
    appeal_of_severity: float = 0.35
    appeal_of_deprivation: float = -0.2
    appeal_of_met: float = 0.45
    overturned_met: float = 0.95
    overturned_unmet: float = 0.70
    peer_to_peer_share: float = 0.12


@dataclass(frozen=True, slots=True)
class Timing:
    """How long answers take. Days unless said otherwise.

    Attributes:
        median_days: Median days to the first answer, by channel.
        sigma: Standard deviation of the log of that time.
        automatic_share: FHIR requests with everything documented that, when approved at the first
            answer, are approved without a person.
        automatic_seconds: What such an approval takes.
        urgent_factor: Factor on every review time of an urgent request.
        pend_shape: Gamma shape of the time from a pend to the determination.
        pend_mean: Its mean.
        appeal_filing_mean: Mean time (gamma, shape 2) from a denial to its appeal.
        appeal_shape: Gamma shape of the time from an appeal to its outcome.
        appeal_mean: Its mean.
        extension_share: Late determinations (over 7 days, urgent over 72 hours) for which the
            payer had extended the review.
    """

    median_days: Quad = (0.7, 2.4, 4.1, 6.2)
    sigma: float = 0.75
    automatic_share: float = 0.6
    automatic_seconds: float = 60.0
    urgent_factor: float = 0.13
    pend_shape: float = 2.0
    pend_mean: float = 2.3
    appeal_filing_mean: float = 8.0
    appeal_shape: float = 3.0
    appeal_mean: float = 20.0
    extension_share: float = 0.3


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What happens to the patient within 90 days.

    Attributes:
        ed_intercept: Log-odds of an emergency visit or admission within 90 days.
        ed_of_severity: The same per unit of severity.
        ed_of_comorbidity: The same per unit of comorbidity.
        ed_of_deprivation: The same per unit of social deprivation.
        ed_of_age: The same per year of age from the mean.
        benefit: How much receiving the service lowers the log-odds, by service.
        unmet_benefit: Share of that benefit where the criteria are not met.
        harm_of_delay: Log-odds per day that a service came late (criteria met).
        max_delay_days: Delay beyond this does no further harm.
        prompt_days: Delay of the approval that the known truth compares a denial with.
        event_day_shape: Beta shape of the event's day within the window; more than 1 is early.
        readmission_intercept: Log-odds of a readmission (surgery and post-acute care).
        readmission_of_severity: The same per unit of severity.
        readmission_of_comorbidity: The same per unit of comorbidity.
        readmission_of_received: The same where the service was received.
        death_intercept: Log-odds of death within 90 days.
        death_of_severity: The same per unit of severity.
        death_of_comorbidity: The same per unit of comorbidity.
        death_of_age: The same per year of age from the mean.
        window_days: Length of the follow-up.
        censored_share: Follow-ups that end early, at a random day.
        hba1c_benefit: Fall of HbA1c with the diabetes drug where the criteria are met, %.
        hba1c_noise: Standard deviation of the change of HbA1c, %.
        hba1c_drift: Mean change of HbA1c without the drug, %.
    """

    ed_intercept: float = -2.55
    ed_of_severity: float = 0.75
    ed_of_comorbidity: float = 0.25
    ed_of_deprivation: float = 0.18
    ed_of_age: float = 0.006
    benefit: PerService = (0.25, 0.7, 0.55, 0.35, 0.3, 0.9)
    unmet_benefit: float = 0.15
    harm_of_delay: float = 0.02
    max_delay_days: float = 30.0
    prompt_days: float = 3.0
    event_day_shape: float = 1.3
    readmission_intercept: float = -2.3
    readmission_of_severity: float = 0.5
    readmission_of_comorbidity: float = 0.3
    readmission_of_received: float = -0.3
    death_intercept: float = -5.2
    death_of_severity: float = 0.6
    death_of_comorbidity: float = 0.35
    death_of_age: float = 0.03
    window_days: int = 90
    censored_share: float = 0.06
    hba1c_benefit: float = 1.0
    hba1c_noise: float = 0.5
    hba1c_drift: float = 0.1


@dataclass(frozen=True, slots=True)
class Laboratory:
    """Baseline laboratory values: three noisy measurements of severity.

    Each value is `centre + slope * (severity + noise)`. With all three values present,
    the mean of the standardised values has reliability
    var(U) / (var(U) + noise² / 3) = 0.97 at the defaults; with two 0.96.

    Attributes:
        centres: Value at severity 0 of HbA1c (%), eGFR (mL/min/1.73 m²), systolic pressure (mmHg).
        slopes: Change per unit of severity.
        limits: Values are clipped to these.
        decimals: Decimals that a laboratory reports.
        noise: Standard deviation of the measurement noise, in units of severity.
        missing_share: Share of each value that is missing.
        max_age_days: A value is at most this old at the request.
    """

    centres: tuple[float, float, float] = (6.8, 78.0, 132.0)
    slopes: tuple[float, float, float] = (0.7, -14.0, 12.0)
    limits: tuple[tuple[float, float], ...] = ((3.0, 18.0), (3.0, 160.0), (60.0, 260.0))
    decimals: tuple[int, int, int] = (1, 0, 0)
    noise: float = 0.3
    missing_share: float = 0.04
    max_age_days: int = 90


@dataclass(frozen=True, slots=True)
class Money:
    """What care costs and how claims are paid. USD.

    Attributes:
        service_medians: Median eligible amount of a service.
        service_sigma: Standard deviation of its log.
        markup: Charge submitted per USD eligible (median); its log has `service_sigma` / 2.
        other_care_log: Mean of the log cost of other care in the window.
        other_care_sigma: Standard deviation of that log.
        cost_of_comorbidity: Change of that log per unit of comorbidity.
        cost_of_severity: Change of that log per unit of severity.
        event_median: Median cost of an emergency visit or admission.
        event_sigma: Standard deviation of its log.
        event_cost_of_severity: Change of that log per unit of severity.
        max_cost: Costs are bounded by this.
        claim_share: Received services for which a claim has come in.
        unauthorized_share: Services denied but delivered and billed all the same.
        claim_denied_intercept: Log-odds that a claim for a received service is denied.
        claim_denied_of_maturity: The same per unit of the provider's digital maturity.
        claim_denied_of_laxity: The same per unit of the payer's laxity.
        deductible_share: Claims on which a deductible is due, by payer line's order.
        deductible_mean: Mean deductible that is left.
        coinsurance: Coinsurance rate, by payer line's order.
        copay: Copay per claim, by payer line's order.
        receipt_days_mean: Mean days from service to receipt of the claim (gamma, shape 2).
        payment_days_median: Median days from receipt to payment.
        payment_of_maturity: Change of the log of that time per unit of digital maturity.
        payment_sigma: Standard deviation of that log.
        payment_window_days: Payments later than this are not seen yet (censored).
    """

    service_medians: PerService = (850.0, 4200.0, 16000.0, 1100.0, 900.0, 11000.0)
    service_sigma: float = 0.5
    markup: float = 2.1
    other_care_log: float = 6.6
    other_care_sigma: float = 0.9
    cost_of_comorbidity: float = 0.45
    cost_of_severity: float = 0.35
    event_median: float = 9000.0
    event_sigma: float = 0.8
    event_cost_of_severity: float = 0.25
    max_cost: float = 250_000.0
    claim_share: float = 0.97
    unauthorized_share: float = 0.04
    claim_denied_intercept: float = -2.8
    claim_denied_of_maturity: float = -0.4
    claim_denied_of_laxity: float = -0.5
    deductible_share: Quad = (0.4, 0.2, 0.5, 0.0)
    deductible_mean: float = 600.0
    coinsurance: Quad = (0.15, 0.10, 0.25, 0.0)
    copay: Quad = (30.0, 20.0, 45.0, 4.0)
    receipt_days_mean: float = 9.0
    payment_days_median: float = 18.0
    payment_of_maturity: float = -0.15
    payment_sigma: float = 0.6
    payment_window_days: int = 120


@dataclass(frozen=True, slots=True)
class Mechanism:
    """All settings of the mechanism; the defaults are the preset `seed_manual`."""

    sites: SiteEffects = field(default_factory=SiteEffects)
    population: Population = field(default_factory=Population)
    requests: Requests = field(default_factory=Requests)
    criteria: Criteria = field(default_factory=Criteria)
    review: Review = field(default_factory=Review)
    timing: Timing = field(default_factory=Timing)
    outcomes: Outcomes = field(default_factory=Outcomes)
    laboratory: Laboratory = field(default_factory=Laboratory)
    money: Money = field(default_factory=Money)


SEED_MANUAL: Final = Mechanism()
"""Today: portal and fax, policies that differ, gaps in the documentation."""

HARMONISED: Final = replace(
    SEED_MANUAL,
    # One published policy per service: nobody is stricter, and fewer requests go out in vain.
    sites=replace(SEED_MANUAL.sites, payer_strictness=(0.0, 0.0, 0.0, 0.0)),
    criteria=replace(
        SEED_MANUAL.criteria,
        met_intercepts=(3.5, 3.2, 3.4, 3.3, 3.4, 3.0),
        documented_intercept=4.0,
    ),
    # FHIR end to end for most requests, fax for few.
    requests=replace(SEED_MANUAL.requests, channel_intercepts=(1.3, -0.6, 0.3, -1.2)),
)
"""The same sites and payers with harmonised criteria, documentation at source and FHIR."""

PRESETS: Final[Mapping[str, Mechanism]] = {
    "seed_manual": SEED_MANUAL,
    "harmonised": HARMONISED,
}


def mechanism_of(preset: str) -> Mechanism:
    """The settings of a preset.

    Raises:
        GroundTruthError: There is no such preset.
    """
    try:
        return PRESETS[preset]
    except KeyError:
        raise GroundTruthError(
            f"there is no preset {preset!r} of the synthetic network; "
            f"choose one of {', '.join(PRESETS)}"
        ) from None
