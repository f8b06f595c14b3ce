"""Noise: is it what it says, and can it be told from noise that is not?"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2, kstest

from models.mechanisms import NoiseSource, SeededNoise, SystemNoise, release

FALSE_ALARM = 1e-6
N = 4000


class Scaled:
    """A planted wrong sampler: the right noise times a factor."""

    def __init__(self, source: NoiseSource, factor: float) -> None:
        self._source, self._factor = source, factor

    def standard_normal(self, n: int, *, stream: str) -> NDArray[np.float64]:
        return self._factor * self._source.standard_normal(n, stream=stream)


def std_is_accepted(noise: NDArray[np.float64], std: float) -> bool:
    """Two-sided chi-square test; false alarm 1e-6 for a Gaussian of that standard deviation."""
    statistic = float(np.sum((noise / std) ** 2))
    low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], noise.size)
    return bool(low < statistic < high)


def released_noise(source: NoiseSource, sensitivity: float, mu: float) -> NDArray[np.float64]:
    exact = np.linspace(-5, 5, N)
    noisy = release(exact, sensitivity=sensitivity, mu=mu, noise=source, stream="a/1")
    return noisy - exact


@pytest.mark.parametrize("source", [SystemNoise(), SeededNoise(3, "site-1")])
@pytest.mark.parametrize(("sensitivity", "mu"), [(1.0, 1.0), (2.5, 0.1), (1e-3, 3.0)])
def test_a_release_carries_noise_of_sensitivity_over_mu(
    source: NoiseSource, sensitivity: float, mu: float
) -> None:
    # System noise cannot be seeded: this test fails by chance once in 1e6 runs.
    assert std_is_accepted(released_noise(source, sensitivity, mu), sensitivity / mu)


@pytest.mark.parametrize("factor", [2 / 3, 1.5])
def test_the_same_test_rejects_a_sampler_with_the_wrong_noise(factor: float) -> None:
    planted = Scaled(SeededNoise(3, "site-1"), factor)
    assert not std_is_accepted(released_noise(planted, 2.0, 0.5), 4.0)


@pytest.mark.parametrize("source", [SystemNoise(), SeededNoise(3, "site-1")])
def test_noise_is_normal(source: NoiseSource) -> None:
    # Kolmogorov-Smirnov; for system noise a false alarm once in 1e6 runs.
    assert kstest(source.standard_normal(20_000, stream="x"), "norm").pvalue > FALSE_ALARM


def test_the_test_of_normality_rejects_uniform_noise_of_unit_variance() -> None:
    uniform = np.random.default_rng(0).uniform(-math.sqrt(3), math.sqrt(3), 20_000)
    assert kstest(uniform, "norm").pvalue < FALSE_ALARM


def test_both_halves_of_a_draw_of_system_noise_are_independent() -> None:
    noise = SystemNoise().standard_normal(40_000, stream="x")
    # Box-Muller makes pairs (i, i + n/2); under independence their correlation, and that of their
    # squares, is N(0, 1/n) and leaves 5.2 standard deviations about once in 5e6 runs.
    for power in (1, 2):
        first, second = np.split(noise**power, 2)
        assert abs(np.corrcoef(first, second)[0, 1]) < 5.2 / math.sqrt(first.size)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1001])
@pytest.mark.parametrize("source", [SystemNoise(), SeededNoise(0, "s")])
def test_as_many_values_are_drawn_as_asked_for(source: NoiseSource, n: int) -> None:
    noise = source.standard_normal(n, stream="x")
    assert noise.shape == (n,)
    assert np.isfinite(noise).all()


def test_system_noise_never_repeats() -> None:
    source = SystemNoise()
    draws = np.concatenate([source.standard_normal(500, stream="same") for _ in range(20)])
    assert np.unique(draws).size == draws.size


def test_the_global_generator_of_numpy_plays_no_part() -> None:
    np.random.seed(0)  # noqa: NPY002 - the global generator is what is tested
    first = SystemNoise().standard_normal(8, stream="x")
    np.random.seed(0)  # noqa: NPY002
    assert not np.array_equal(first, SystemNoise().standard_normal(8, stream="x"))


def test_seeded_noise_is_the_same_for_the_same_seed_site_and_stream() -> None:
    first = SeededNoise(7, "site-1").standard_normal(100, stream="approved/gradient/3")
    again = SeededNoise(7, "site-1").standard_normal(100, stream="approved/gradient/3")
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    ("seed", "site", "stream"),
    [
        (8, "site-1", "approved/gradient/3"),
        (7, "site-2", "approved/gradient/3"),
        (7, "site-1", "first_pass/gradient/3"),
        (7, "site-1", "approved/gram/3"),
        (7, "site-1", "approved/gradient/4"),
        (7, "site-1", "approved/gradient/33"),
    ],
)
def test_seeded_noise_differs_by_seed_site_task_step_and_round(
    seed: int, site: str, stream: str
) -> None:
    noise = SeededNoise(7, "site-1").standard_normal(1000, stream="approved/gradient/3")
    other = SeededNoise(seed, site).standard_normal(1000, stream=stream)
    assert np.intersect1d(noise, other).size == 0
    # Seeds are fixed; for random ones the correlation exceeds 5.2 / sqrt(n) once in 5e6.
    assert abs(np.corrcoef(noise, other)[0, 1]) < 5.2 / math.sqrt(noise.size)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@given(position=st.integers(0, 9))
def test_a_vector_with_a_value_that_is_not_finite_is_never_released(
    value: float, position: int
) -> None:
    vector = np.zeros(10)
    vector[position] = value
    with pytest.raises(ValueError, match="not finite"):
        release(vector, sensitivity=1.0, mu=1.0, noise=SystemNoise(), stream="x")


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_sensitivity_and_mu_must_be_positive_and_finite(bad: float) -> None:
    for sensitivity, mu in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(ValueError, match="positive and finite"):
            release(np.zeros(3), sensitivity=sensitivity, mu=mu, noise=SystemNoise(), stream="x")


@pytest.mark.parametrize(("sensitivity", "mu"), [(1e-300, 1e300), (1e300, 1e-300)])
def test_noise_that_vanishes_or_overflows_in_floating_point_is_refused(
    sensitivity: float, mu: float
) -> None:
    with pytest.raises(ValueError, match="no standard deviation"):
        release(np.ones(3), sensitivity=sensitivity, mu=mu, noise=SystemNoise(), stream="x")


def test_a_release_leaves_the_exact_vector_as_it_was() -> None:
    exact = np.ones(5)
    release(exact, sensitivity=1.0, mu=1.0, noise=SystemNoise(), stream="x")
    assert np.array_equal(exact, np.ones(5))
