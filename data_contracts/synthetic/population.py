"""Patients and the requests that are made for them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.synthetic.settings import Mechanism, Population
from data_contracts.synthetic.sites import FloatArray, Sites

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

DAYS_PER_YEAR = 365


@dataclass(frozen=True, slots=True)
class Patients:
    """Patients, one entry each.

    Attributes:
        age: Age, years.
        deprivation: Social deprivation S, standard normal.
        comorbidity: Comorbidity C, which payers see.
        severity: The lasting part of severity U beyond comorbidity, unit variance.
        sex: Index into `vocabulary.SEXES`.
        race: Index into `vocabulary.RACES`.
        hispanic: Hispanic ethnicity.
        payer: Index of the payer at first.
        later_payer: Index of the payer after a change (the same without one).
        change_day: Day of the window from which `later_payer` holds.
        providers: Index of the patient's providers, (n, 3); the first is home.
        n_providers: How many of them the patient goes to.
        n_requests: How many requests are made for the patient.
    """

    age: FloatArray
    deprivation: FloatArray
    comorbidity: FloatArray
    severity: FloatArray
    sex: IntArray
    race: IntArray
    hispanic: BoolArray
    payer: IntArray
    later_payer: IntArray
    change_day: IntArray
    providers: IntArray
    n_providers: IntArray
    n_requests: IntArray


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests, one entry each, with their patient's attributes.

    Attributes:
        patient: Index of the patient within the chunk.
        home: Index of the patient's home provider.
        age: Age, years.
        deprivation: Social deprivation S.
        comorbidity: Comorbidity C.
        severity: Severity U at the request, which labs show and payers do not see.
        sex: Index into `vocabulary.SEXES`.
        race: Index into `vocabulary.RACES`.
        hispanic: Hispanic ethnicity.
        payer: Index of the payer.
        provider: Index of the provider.
        service: Index into `SERVICES`.
        channel: Index into `CHANNELS`.
        urgent: Whether the request is urgent.
        year: Calendar year, counted from the first of the window.
        day: Day, counted from the patient's first request.
    """

    patient: IntArray
    home: IntArray
    age: FloatArray
    deprivation: FloatArray
    comorbidity: FloatArray
    severity: FloatArray
    sex: IntArray
    race: IntArray
    hispanic: BoolArray
    payer: IntArray
    provider: IntArray
    service: IntArray
    channel: IntArray
    urgent: BoolArray
    year: IntArray
    day: IntArray

    def __len__(self) -> int:
        """The number of requests."""
        return len(self.patient)


def logistic(values: FloatArray) -> FloatArray:
    """1 / (1 + exp(-values)), element by element."""
    return np.asarray(1.0 / (1.0 + np.exp(-values)), dtype=np.float64)


def happens(rng: np.random.Generator, log_odds: FloatArray) -> BoolArray:
    """Draw events with these log-odds."""
    return rng.random(log_odds.shape) < logistic(log_odds)


def choose(rng: np.random.Generator, shares: FloatArray, count: int) -> IntArray:
    """Draw indices with these shares."""
    edges = np.cumsum(shares) / np.sum(shares)
    return np.minimum(np.searchsorted(edges, rng.random(count), side="right"), len(edges) - 1)


def choose_by_weight(rng: np.random.Generator, weights: FloatArray) -> IntArray:
    """Draw one index per row with weights (n, k) that need not sum to 1."""
    edges = np.cumsum(weights, axis=1)
    threshold = rng.random(len(weights)) * edges[:, -1]
    chosen = (edges[:, :-1] <= threshold[:, None]).sum(axis=1)
    return np.asarray(chosen, dtype=np.int64)


def draw_patients(
    settings: Population, sites: Sites, rng: np.random.Generator, count: int
) -> Patients:
    """Draw `count` patients."""
    age = np.clip(rng.normal(settings.age_mean, settings.age_sd, count), *settings.age_range)
    deprivation = rng.standard_normal(count)
    race_weights = np.asarray(settings.race_shares) * np.exp(
        np.outer(deprivation, settings.race_of_deprivation)
    )
    payer = choose(rng, sites.payer_share, count)
    changes = rng.random(count) < settings.payer_change_share
    rate = rng.gamma(
        settings.further_requests_shape,
        settings.mean_further_requests / settings.further_requests_shape,
        count,
    )
    sex_shares = (
        settings.female_share,
        1 - settings.female_share - settings.other_sex_share,
        settings.other_sex_share / 2,
        settings.other_sex_share / 2,
    )
    n_providers = 1 + choose(rng, np.asarray(settings.provider_count_shares), count)
    return Patients(
        age=age,
        deprivation=deprivation,
        comorbidity=rng.gamma(settings.comorbidity_shape, settings.comorbidity_scale, count),
        severity=rng.standard_normal(count),
        sex=choose(rng, np.asarray(sex_shares), count),
        race=choose_by_weight(rng, race_weights),
        hispanic=happens(
            rng, settings.hispanic_intercept + settings.hispanic_of_deprivation * deprivation
        ),
        payer=payer,
        later_payer=np.where(changes, choose(rng, sites.payer_share, count), payer),
        change_day=rng.integers(0, settings.years * DAYS_PER_YEAR, count),
        providers=choose(rng, sites.provider_share, 3 * count).reshape(count, 3),
        n_providers=n_providers,
        n_requests=1 + np.minimum(rng.poisson(rate), settings.max_requests - 1),
    )


def draw_requests(
    mechanism: Mechanism, sites: Sites, patients: Patients, rng: np.random.Generator, limit: int
) -> Requests:
    """Draw the requests of the patients, in their order; at most `limit` of them."""
    settings, population = mechanism.requests, mechanism.population
    patient = np.repeat(np.arange(len(patients.age)), patients.n_requests)[:limit]
    count = len(patient)
    window = population.years * DAYS_PER_YEAR
    first_of_patient = np.flatnonzero(np.diff(patient, prepend=-1))
    start_of = np.repeat(first_of_patient, np.diff(first_of_patient, append=count))

    gaps = np.ceil(rng.exponential(population.mean_gap_days, count)).astype(np.int64)
    gaps[first_of_patient] = 0
    elapsed = np.cumsum(gaps)
    day = np.minimum(elapsed - elapsed[start_of], window - 1)
    last_day = np.maximum.reduceat(day, first_of_patient)
    start = (rng.random(len(last_day)) * (window - last_day)).astype(np.int64)
    calendar_day = start[patient] + day

    own = np.sqrt(population.severity_persistence)
    momentary = np.sqrt(1.0 - population.severity_persistence)
    comorbidity = patients.comorbidity[patient]
    mean_comorbidity = population.comorbidity_shape * population.comorbidity_scale
    severity = (
        population.severity_of_comorbidity * (comorbidity - mean_comorbidity)
        + own * patients.severity[patient]
        + momentary * rng.standard_normal(count)
    )
    away = rng.random(count) >= population.home_provider_share
    other = 1 + (rng.random(count) * (patients.n_providers[patient] - 1)).astype(np.int64)
    which = np.where(away & (patients.n_providers[patient] > 1), other, 0)
    provider = patients.providers[patient, which]
    weights = np.exp(
        np.asarray(settings.channel_intercepts)
        + np.outer(sites.maturity, settings.channel_of_maturity)
    )
    return Requests(
        patient=patient,
        home=patients.providers[patient, 0],
        age=patients.age[patient],
        deprivation=patients.deprivation[patient],
        comorbidity=comorbidity,
        severity=severity,
        sex=patients.sex[patient],
        race=patients.race[patient],
        hispanic=patients.hispanic[patient],
        payer=np.where(
            calendar_day >= patients.change_day[patient],
            patients.later_payer[patient],
            patients.payer[patient],
        ),
        provider=provider,
        service=choose(rng, np.asarray(settings.service_shares), count),
        channel=choose_by_weight(rng, weights[provider]),
        urgent=happens(rng, settings.urgent_intercept + settings.urgent_of_severity * severity),
        year=calendar_day // DAYS_PER_YEAR,
        day=day,
    )
