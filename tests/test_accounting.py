"""Gaussian differential privacy: conversions and composition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from models.accounting import compose, gdp_delta, gdp_epsilon, gdp_mu

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


@given(mus=st.lists(st.floats(0, 100), max_size=20))
def test_composition_is_the_root_of_the_sum_of_squares(mus: list[float]) -> None:
    assert compose(mus) == pytest.approx(float(np.linalg.norm(mus)), rel=1e-12, abs=1e-150)


@given(mus=st.lists(st.floats(0.001, 10), min_size=2, max_size=6), cut=st.integers(1, 5))
def test_composition_does_not_depend_on_how_releases_are_grouped(
    mus: list[float], cut: int
) -> None:
    assert compose([compose(mus[:cut]), compose(mus[cut:])]) == pytest.approx(compose(mus))


def test_twelve_equal_releases_cost_exactly_one_with_a_twelfth_of_mu_squared() -> None:
    assert compose([0.719 / math.sqrt(12)] * 12) == pytest.approx(0.719, rel=1e-14)


def test_nothing_released_costs_nothing() -> None:
    assert compose([]) == 0.0
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
