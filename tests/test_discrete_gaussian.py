"""Draws of the discrete Gaussian against its exact probabilities.

Keys are fixed. For random keys each statistical assertion fails once in 1e6 (`FALSE_ALARM`).
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2, kstest

import models.discrete_gaussian
from models.discrete_gaussian import (
    _below,
    _bernoulli_exp,
    _discrete_laplace,
    _geometric,
    discrete_gaussian,
)
from models.keystream import Keystream

FALSE_ALARM = 1e-6


def key(name: object) -> bytes:
    return hashlib.blake2b(repr(name).encode(), digest_size=32).digest()


class Words(Keystream):
    """A stream that gives the words it is told to."""

    def __init__(self, words: Sequence[int]) -> None:
        self._words = list(words)

    def words(self, n: int) -> NDArray[np.uint64]:
        given, self._words = self._words[:n], self._words[n:]
        return np.array(given, dtype=np.uint64)


def fits(values: NDArray[np.int64], probability: NDArray[np.float64], lowest: int) -> bool:
    """Pearson's chi-square test of integers from `lowest` on; rare ones count as one cell."""
    counts = np.bincount(values - lowest, minlength=probability.size).astype(float)
    if counts.size > probability.size:
        return False
    expected = probability * values.size
    frequent = expected >= 10
    counts = np.append(counts[frequent], counts[~frequent].sum())
    expected = np.append(expected[frequent], expected[~frequent].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return bool(statistic < chi2.isf(FALSE_ALARM, expected.size - 1))


def pmf(std: float) -> tuple[NDArray[np.float64], int]:
    """Probabilities of the integers within 12 standard deviations, and the lowest of these."""
    z = np.arange(-math.ceil(12 * std), math.ceil(12 * std) + 1)
    weights = np.exp(-(z**2) / (2 * std**2))
    return weights / weights.sum(), int(z[0])


# --- is it a discrete Gaussian? ------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_draws_have_the_exact_probabilities(k: int) -> None:
    draws = discrete_gaussian(1_000_000, log2_std=k, key=key(k))
    assert fits(draws, *pmf(2.0**k))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("factor", [2 / 3, 0.99, 1.01, 3 / 2])
def test_the_same_test_rejects_another_standard_deviation(k: int, factor: float) -> None:
    draws = discrete_gaussian(1_000_000, log2_std=k, key=key(k))
    assert not fits(draws, *pmf(2.0**k * factor))


def test_the_same_test_rejects_a_rounded_normal_and_zero_counted_twice() -> None:
    rng = np.random.default_rng(0)
    assert not fits(np.rint(rng.normal(0, 2, 1_000_000)).astype(np.int64), *pmf(2.0))
    draws = discrete_gaussian(1_000_000, log2_std=1, key=key("zero"))
    minus_zeros = np.zeros(int((draws == 0).sum()), dtype=np.int64)
    assert not fits(np.concatenate([draws, minus_zeros]), *pmf(2.0))


@pytest.mark.parametrize("k", [16, 22, 24])
def test_wide_draws_are_normal_with_the_right_deviation(k: int) -> None:
    n = 200_000
    draws = discrete_gaussian(n, log2_std=k, key=key(k)) / 2.0**k
    low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], n)
    assert low < float((draws**2).sum()) < high
    # One draw in 2^k is off by 2^-k at most: far below what this test resolves.
    assert kstest(draws, "norm").pvalue > FALSE_ALARM
    # The fourth moment of n normal values is 3 with variance 96 / n.
    assert abs(float((draws**4).mean()) - 3) < 4.9 * math.sqrt(96 / n)
    assert abs(float(draws.mean())) < 4.9 / math.sqrt(n)


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_the_test_of_wide_draws_rejects_another_standard_deviation(factor: float) -> None:
    n = 200_000
    draws = factor * discrete_gaussian(n, log2_std=22, key=key(22)) / 2.0**22
    low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], n)
    assert not low < float((draws**2).sum()) < high
    assert kstest(draws, "norm").pvalue < FALSE_ALARM


@pytest.mark.parametrize("k", [22, 24])
def test_the_last_bits_are_uniform_and_tell_nothing(k: int) -> None:
    draws = discrete_gaussian(1_000_000, log2_std=k, key=key(("bits", k)))
    assert fits(draws & 255, np.full(256, 1 / 256), 0)
    signs = np.where(draws < 0, 1, 0)
    assert fits((draws & 1) + 2 * signs, np.full(4, 1 / 4), 0)


def test_draws_of_one_key_are_independent_of_each_other_and_of_another_keys() -> None:
    n = 200_000
    first = discrete_gaussian(n, log2_std=22, key=key("a")) / 2.0**22
    other = discrete_gaussian(n, log2_std=22, key=key("b")) / 2.0**22
    for power in (1, 2):
        for x, y in ((first[1:], first[:-1]), (first, other)):
            # A correlation of n independent pairs is N(0, 1/n).
            assert abs(np.corrcoef(x**power, y**power)[0, 1]) < 4.9 / math.sqrt(n)


# --- keys, sizes, limits -------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 1001, 40_000])
def test_the_same_key_gives_the_same_draws_and_as_many_as_asked_for(n: int) -> None:
    draws = discrete_gaussian(n, log2_std=22, key=key("x"))
    assert draws.shape == (n,)
    assert draws.dtype == np.int64
    assert np.array_equal(draws, discrete_gaussian(n, log2_std=22, key=key("x")))


def test_different_keys_give_different_draws() -> None:
    draws = [discrete_gaussian(100, log2_std=22, key=key(i)) for i in range(20)]
    # Two draws are alike with probability 1e-7: half of 2000 never are.
    assert np.unique(np.concatenate(draws)).size > 1000
    assert len({row.tobytes() for row in draws}) == 20


def test_the_draws_of_a_key_never_change() -> None:
    # A site that repeats an answer draws its noise again, perhaps with a later version.
    draws = discrete_gaussian(5, log2_std=22, key=bytes(range(32)))
    assert draws.tolist() == [-1200823, 2394426, -6998232, -747773, 1513195]


@pytest.mark.parametrize("k", [0, -1, 25, 64])
def test_a_standard_deviation_whose_products_overflow_is_an_error(k: int) -> None:
    with pytest.raises(ValueError, match=f"2\\^{k}"):
        discrete_gaussian(1, log2_std=k, key=key(0))


def test_a_negative_number_of_draws_and_a_short_key_are_errors() -> None:
    with pytest.raises(ValueError, match="-1 values"):
        discrete_gaussian(-1, log2_std=1, key=key(0))
    with pytest.raises(ValueError, match="32 bytes"):
        discrete_gaussian(1, log2_std=1, key=b"short")


def test_products_fit_into_64_bits_up_to_the_cut() -> None:
    largest = models.discrete_gaussian.CUT << models.discrete_gaussian.MAX_LOG2_STD
    assert largest**2 < 2**64


def test_candidates_beyond_the_cut_and_minus_zero_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def high(_: Keystream, n: int) -> NDArray[np.uint64]:
        return np.array([0, 0, 0, 63, 64, 2**40], dtype=np.uint64)[:n]

    monkeypatch.setattr(models.discrete_gaussian, "_geometric", high)
    monkeypatch.setattr(
        models.discrete_gaussian, "_bernoulli_exp", lambda _, x, m: np.ones(x.size, dtype=bool)
    )
    one = 1 << 40  # the lowest of the 24 highest bits
    words = [0, 1, one + 1, one, 0, 0]  # zero, minus zero, minus one, and one beyond 63 deviations
    size, negative = _discrete_laplace(Words(words), 6, 24)
    assert size.tolist() == [0, 1, (63 << 24) + 1]
    assert negative.tolist() == [False, True, False]


# --- the parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 5, 22, 49])
@pytest.mark.parametrize("share", [0.0, 1e-3, 0.3, 0.5, 0.99, 1.0])
def test_a_bernoulli_trial_succeeds_with_probability_exp_of_minus_x(m: int, share: float) -> None:
    n = 200_000
    x = round(share * 2**m)
    stream = Keystream(key((m, share)))
    successes = int(_bernoulli_exp(stream, np.full(n, x, dtype=np.uint64), m).sum())
    assert binomtest(successes, n, math.exp(-x / 2**m)).pvalue > FALSE_ALARM


def test_bernoulli_trials_of_different_x_keep_to_their_own() -> None:
    n = 100_000
    x = np.tile(np.array([0, 1, 2, 3, 4], dtype=np.uint64), n)
    answers = _bernoulli_exp(Keystream(key("mixed")), x, 2).reshape(n, 5)
    assert answers[:, 0].all()
    for exponent in range(1, 5):
        successes = int(answers[:, exponent].sum())
        assert binomtest(successes, n, math.exp(-exponent / 4)).pvalue > FALSE_ALARM


def test_numbers_of_successes_are_geometric() -> None:
    counts = _geometric(Keystream(key("geometric")), 500_000).astype(np.int64)
    assert fits(counts, np.exp(-np.arange(60)) * (1 - math.exp(-1)), 0)


def test_nothing_is_drawn_for_nothing() -> None:
    nothing = np.empty(0, dtype=np.uint64)
    assert _geometric(Words([]), 0).size == 0
    assert _bernoulli_exp(Words([]), nothing, 3).size == 0


def test_a_cell_is_exactly_as_likely_as_any_other() -> None:
    # Thirds of 2^64 - 1 words; the word that is left over is drawn again, here twice.
    width = 2**64 // 3
    x = np.ones(5, dtype=np.uint64)
    left_over = 2**64 - 1
    words = Words([0, width - 1, width, left_over - 1, left_over, left_over, 5])
    assert _below(words, x, width, 3).tolist() == [True, True, False, False, True]
    assert words.words(1).size == 0


def test_trials_compare_with_thirds_of_the_whole_range() -> None:
    # x = 2^m always passes trial 1 and passes trial 2 for the lower half of all words.
    x = np.full(4, 8, dtype=np.uint64)
    half = 2**63
    third = 2**61 // 3 * 8
    # Fails at 2, fails at 2, fails at 3, fails at 4.
    words = Words([0, 2**64 - 1, 0, 0, half, 2**64 - 1, half - 1, 0, third, third - 1, 2**62])
    assert _bernoulli_exp(words, x, 3).tolist() == [False, False, True, False]
    assert words.words(1).size == 0
