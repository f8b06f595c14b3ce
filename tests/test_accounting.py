"""Accounting: conversions, composition, and what independent accountants say."""

import math

import dp_accounting
import mpmath
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from models.accounting import (
    ORDERS,
    PrivacyCost,
    best_order,
    gdp_delta,
    gdp_epsilon,
    gdp_mu,
    sampled_gaussian_renyi,
)

EPSILONS = st.floats(0.01, 50)
DELTAS = st.floats(1e-10, 1e-3)
MUS = st.floats(0.01, 8)


def balle_wang_delta(sigma: float, epsilon: float) -> float:
    """Exact delta of the Gaussian mechanism with sensitivity 1.

    Source: Balle, Wang, "Improving the Gaussian Mechanism for Differential Privacy" (ICML 2018),
    Theorem 8; evaluated on the logarithm by scipy.
    """
    first = norm.logcdf(1 / (2 * sigma) - epsilon * sigma)
    second = epsilon + norm.logcdf(-1 / (2 * sigma) - epsilon * sigma)
    return float(np.exp(first) * -np.expm1(second - first))


@pytest.mark.parametrize(("epsilon", "mu"), [(1.0, 0.268), (3.0, 0.719), (8.0, 1.666)])
def test_mu_at_the_budgets_of_the_design_is_as_published(epsilon: float, mu: float) -> None:
    assert gdp_mu(epsilon, 1e-5) == pytest.approx(mu, abs=5e-4)


@given(mu=MUS, epsilon=EPSILONS)
def test_delta_is_that_of_balle_and_wang(mu: float, epsilon: float) -> None:
    expected = balle_wang_delta(1 / mu, epsilon)
    assert gdp_delta(mu, epsilon) == pytest.approx(expected, rel=1e-6, abs=1e-15)


@given(epsilon=EPSILONS, delta=DELTAS)
def test_epsilon_of_mu_of_epsilon_is_the_same_and_errs_on_the_private_side(
    epsilon: float, delta: float
) -> None:
    mu = gdp_mu(epsilon, delta)
    assert gdp_epsilon(mu, delta) == pytest.approx(epsilon, rel=1e-6)
    # 1e-15 is what cancellation in the difference of two normal tails may cost.
    assert balle_wang_delta(1 / mu, epsilon) <= delta + 1e-15


@given(mu=MUS, delta=DELTAS)
def test_the_reported_epsilon_keeps_delta(mu: float, delta: float) -> None:
    assert balle_wang_delta(1 / mu, gdp_epsilon(mu, delta)) <= delta + 1e-15


@given(mu=MUS, epsilon=EPSILONS, delta=DELTAS, factor=st.floats(1.01, 10))
def test_more_budget_is_never_less_mu_and_more_mu_never_less_epsilon(
    mu: float, epsilon: float, delta: float, factor: float
) -> None:
    assert gdp_mu(epsilon * factor, delta) > gdp_mu(epsilon, delta)
    assert gdp_mu(epsilon, min(delta * factor, 0.5)) > gdp_mu(epsilon, delta)
    assert gdp_epsilon(mu * factor, delta) >= gdp_epsilon(mu, delta)
    assert gdp_delta(mu * factor, epsilon) >= gdp_delta(mu, epsilon) - 1e-15


def test_nothing_released_costs_nothing() -> None:
    assert gdp_delta(0.0, 0.0) == 0.0
    assert gdp_epsilon(0.0, 1e-5) == 0.0


def test_mu_so_small_that_delta_covers_it_has_epsilon_zero() -> None:
    assert gdp_epsilon(1e-6, 1e-5) == 0.0


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(1e-9, 1e-6), (1e-6, 1e-9), (1e3, 1e-5), (1e6, 1e-5), (1.0, 0.999)]
)
def test_extreme_budgets_have_a_finite_positive_mu(epsilon: float, delta: float) -> None:
    mu = gdp_mu(epsilon, delta)
    assert 0 < mu < math.inf
    assert gdp_delta(mu, epsilon) <= delta


def test_extreme_mu_gives_an_extreme_epsilon_and_never_an_overflow() -> None:
    assert gdp_epsilon(1e3, 1e-5) == pytest.approx(1e6 / 2, rel=0.01)
    assert gdp_epsilon(1e200, 1e-5) == math.inf
    assert gdp_delta(1e-300, 1.0) == 0.0
    assert gdp_delta(40.0, 1e5) == 0.0


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, math.nan])
def test_a_delta_outside_0_to_1_is_an_error(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        gdp_epsilon(1.0, delta)
    with pytest.raises(ValueError, match="delta"):
        gdp_mu(1.0, delta)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_an_epsilon_that_promises_nothing_has_no_mu(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        gdp_mu(epsilon, 1e-5)


@pytest.mark.parametrize("mu", [-0.1, -math.inf, math.nan])
def test_a_mu_that_is_negative_or_nan_is_an_error_and_never_an_epsilon(mu: float) -> None:
    with pytest.raises(ValueError, match="mu"):
        gdp_delta(mu, 1.0)
    with pytest.raises(ValueError, match="mu"):
        gdp_epsilon(mu, 1e-5)


# --- costs that add up ---------------------------------------------------------------------------

DELTA = 1e-5
COSTS = st.builds(
    PrivacyCost.of,
    st.floats(0.01, 3),
    sample_rate=st.sampled_from([1e-3, 0.1, 0.9, 1.0]),
    rounds=st.integers(0, 50),
)


def same(first: PrivacyCost, second: PrivacyCost) -> bool:
    pairs = ((first.mu_squared, second.mu_squared), (first.renyi, second.renyi))
    return all(np.allclose(a, b, rtol=1e-12, atol=0.0) for a, b in pairs)


@given(mus=st.lists(MUS, min_size=1, max_size=6), delta=DELTAS)
def test_full_batch_costs_are_those_of_gaussian_dp(mus: list[float], delta: float) -> None:
    total = sum((PrivacyCost.of(mu) for mu in mus), PrivacyCost())
    assert total.epsilon(delta) == pytest.approx(
        gdp_epsilon(float(np.linalg.norm(mus)), delta), rel=1e-9
    )


@settings(max_examples=25, deadline=None)
@given(mu=MUS, rate=st.sampled_from([0.01, 0.5, 1.0]), rounds=st.integers(1, 12))
def test_rounds_cost_as_much_together_as_one_by_one(mu: float, rate: float, rounds: int) -> None:
    one_by_one = sum((PrivacyCost.of(mu, sample_rate=rate) for _ in range(rounds)), PrivacyCost())
    assert same(one_by_one, PrivacyCost.of(mu, sample_rate=rate, rounds=rounds))


@settings(max_examples=50, deadline=None)
@given(first=COSTS, second=COSTS, third=COSTS)
def test_costs_add_up_in_any_order(
    first: PrivacyCost, second: PrivacyCost, third: PrivacyCost
) -> None:
    assert same(first + second, second + first)
    assert same((first + second) + third, first + (second + third))
    assert same(first + PrivacyCost(), first)


@settings(max_examples=50, deadline=None)
@given(first=COSTS, second=COSTS)
def test_a_patient_in_one_of_two_pays_at_most_the_larger_and_in_both_no_less(
    first: PrivacyCost, second: PrivacyCost
) -> None:
    either = first | second
    assert same(either, second | first)
    assert same(first | first, first)
    assert max(first.epsilon(DELTA), second.epsilon(DELTA)) <= either.epsilon(DELTA) + 1e-9
    assert either.epsilon(DELTA) <= (first + second).epsilon(DELTA) + 1e-9


def test_no_rounds_and_no_releases_cost_nothing() -> None:
    assert PrivacyCost.of(1.0, rounds=0) == PrivacyCost()
    assert PrivacyCost.of(1.0, sample_rate=0.1, rounds=0) == PrivacyCost()
    assert PrivacyCost().epsilon(DELTA) == 0.0
    assert PrivacyCost() | PrivacyCost() == PrivacyCost() + PrivacyCost() == PrivacyCost()


@pytest.mark.parametrize("mu", [0.0, -1.0, math.nan, math.inf, 1e200, 1e-200])
def test_a_mu_without_a_cost_is_an_error(mu: float) -> None:
    # 1e-200 squared would be zero: a release that nobody pays for.
    with pytest.raises(ValueError, match="mu"):
        PrivacyCost.of(mu)


@pytest.mark.parametrize(
    "changes",
    [{"sample_rate": rate} for rate in (0.0, -0.1, 1.1, math.nan)] + [{"rounds": -1}],
)
def test_a_rate_that_is_no_probability_and_negative_rounds_are_errors(
    changes: dict[str, float],
) -> None:
    with pytest.raises(ValueError, match="no cost"):
        PrivacyCost.of(1.0, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_a_cost_has_no_epsilon_at_a_delta_outside_0_to_1(delta: float, rate: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        PrivacyCost.of(1.0, sample_rate=rate).epsilon(delta)


def test_a_sampled_release_that_delta_covers_has_epsilon_zero() -> None:
    assert PrivacyCost.of(0.01, sample_rate=0.001).epsilon(0.5) == 0.0


def test_extreme_noise_and_rates_give_finite_or_infinite_costs_and_never_nan() -> None:
    for mu in (1e-100, 1e-9, 1.0, 1e9, 1e100):
        for rate in (1e-300, 1e-9, 0.5, 1 - 1e-16):
            curve = sampled_gaussian_renyi(mu, rate)
            assert not np.isnan(curve).any()
            assert (curve >= 0).all()


# --- Renyi divergences of sampled releases -------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    mu=st.floats(1e-4, 8),
    rate=st.sampled_from([1e-6, 1e-3, 0.05, 0.5, 0.999]),
    number=st.integers(0, ORDERS.size - 1),
)
def test_renyi_divergences_are_those_of_the_sum_in_50_digits(
    mu: float, rate: float, number: int
) -> None:
    order = int(ORDERS[number])
    with mpmath.workdps(50):
        q, m = mpmath.mpf(rate), mpmath.mpf(mu)
        moment = mpmath.fsum(
            math.comb(order, k) * (1 - q) ** (order - k) * q**k * mpmath.exp((k * k - k) * m**2 / 2)
            for k in range(order + 1)
        )
        expected = float(mpmath.log(moment) / (order - 1))
    assert sampled_gaussian_renyi(mu, rate)[number] == pytest.approx(expected, rel=1e-9, abs=0.0)


def test_renyi_divergences_grow_with_order_noise_and_rate() -> None:
    curves = [sampled_gaussian_renyi(mu, rate) for mu in (0.5, 1.0) for rate in (0.1, 0.2)]
    assert all((np.diff(curve) >= 0).all() for curve in curves)
    assert (curves[0] < curves[1]).all()
    assert (curves[0] < curves[2]).all()
    # Nearly everybody taking part costs nearly as much as everybody.
    nearly_all = sampled_gaussian_renyi(0.5, 1 - 1e-12)
    assert nearly_all == pytest.approx(ORDERS * 0.5**2 / 2, rel=1e-9)


SAMPLED = [
    (1 / 1.1, 0.01, 1000),
    (1.25, 0.05, 200),
    (0.5, 0.2, 100),
    (0.25, 0.001, 100_000),
    (1 / 0.7, 0.004, 2000),
]


@pytest.mark.parametrize(("mu", "rate", "rounds"), SAMPLED)
def test_renyi_divergences_are_those_of_opacus(mu: float, rate: float, rounds: int) -> None:
    rdp = pytest.importorskip("opacus.accountants.analysis.rdp")
    theirs = rdp.compute_rdp(q=rate, noise_multiplier=1 / mu, steps=rounds, orders=ORDERS.tolist())
    ours = PrivacyCost.of(mu, sample_rate=rate, rounds=rounds).renyi
    assert ours == pytest.approx(theirs, rel=1e-8)


# --- independent accountants ---------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
def test_the_accountant_of_dp_accounting_agrees_on_full_batches_to_one_percent(
    epsilon: float,
) -> None:
    # The shares of a run: a histogram, a Gram matrix, twelve gradients, a recalibration.
    mu = gdp_mu(epsilon, DELTA)
    accountant = dp_accounting.pld.PLDAccountant()
    cost = PrivacyCost()
    for share, rounds in ((0.05, 1), (0.15, 1), (0.74, 12), (0.06, 1)):
        one = mu * math.sqrt(share / rounds)
        accountant.compose(dp_accounting.GaussianDpEvent(1 / one), rounds)
        cost += PrivacyCost.of(one, rounds=rounds)
    assert cost.epsilon(DELTA) == pytest.approx(epsilon, rel=1e-9)
    assert accountant.get_epsilon(DELTA) == pytest.approx(epsilon, rel=0.01)


@pytest.mark.parametrize(("mu", "rate", "rounds"), SAMPLED)
def test_epsilon_of_sampled_releases_is_near_that_of_dp_accounting_and_never_too_small(
    mu: float, rate: float, rounds: int
) -> None:
    ours = PrivacyCost.of(mu, sample_rate=rate, rounds=rounds).epsilon(DELTA)
    renyi = dp_accounting.rdp.RdpAccountant()
    event = dp_accounting.GaussianDpEvent(1 / mu)
    renyi.compose(dp_accounting.PoissonSampledDpEvent(rate, event), rounds)
    # Theirs has orders between the integers, too, which matters where noise is low.
    theirs = renyi.get_epsilon(DELTA)
    assert theirs * (1 - 1e-6) <= ours <= 1.05 * theirs
    # Their lower bound on the exact figure, which Renyi divergences only approach from above.
    optimistic = pld.from_gaussian_mechanism(
        1 / mu, sampling_prob=rate, pessimistic_estimate=False, use_connect_dots=False
    )
    least = optimistic.self_compose(rounds).get_epsilon_for_delta(DELTA)
    assert least <= ours


def test_epsilon_of_both_kinds_together_is_no_smaller_than_dp_accounting_says() -> None:
    cost = PrivacyCost.of(0.4, rounds=3) + PrivacyCost.of(0.8, sample_rate=0.05, rounds=50)
    full = pld.from_gaussian_mechanism(
        1 / 0.4, pessimistic_estimate=False, use_connect_dots=False
    ).self_compose(3)
    sampled = pld.from_gaussian_mechanism(
        1 / 0.8, sampling_prob=0.05, pessimistic_estimate=False, use_connect_dots=False
    ).self_compose(50)
    least = full.compose(sampled).get_epsilon_for_delta(DELTA)
    assert least <= cost.epsilon(DELTA) <= 1.25 * least


# --- at one order ---------------------------------------------------------------------------------


@given(
    mus=st.lists(st.floats(0.01, 2), min_size=1, max_size=8),
    rate=st.sampled_from([0.02, 0.3, 1.0]),
    order=st.sampled_from(ORDERS.tolist()),
)
def test_no_single_order_promises_more_than_the_best_way(
    mus: list[float], rate: float, order: float
) -> None:
    cost = sum((PrivacyCost.of(mu, sample_rate=rate) for mu in mus), PrivacyCost())
    assert cost.epsilon(DELTA, order) >= cost.epsilon(DELTA) * (1 - 1e-12)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 10.0])
def test_the_best_order_of_a_budget_pays_for_most(epsilon: float) -> None:
    def most(order: float) -> float:
        paid = [mu for mu in np.arange(0.01, 4, 0.01) if
                PrivacyCost.of(mu).within(epsilon, DELTA, order)]  # fmt: skip
        return max(paid, default=0.0)

    best = most(best_order(epsilon, DELTA))
    assert best == max(most(order) for order in ORDERS.tolist())
    assert 0.75 * gdp_mu(epsilon, DELTA) < best < gdp_mu(epsilon, DELTA)
