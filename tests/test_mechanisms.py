"""Releases with integer noise: is it what it says, and is it enough?

Statistical assertions fail once in 1e6 (`FALSE_ALARM`) where noise cannot be seeded; else keys are
fixed.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.stats import chi2, kstest

import models.mechanisms
from models.accounting import gdp_delta
from models.mechanisms import (
    LOG2_STD,
    GaussianSum,
    NoiseSource,
    SeededNoise,
    SumOverflowError,
    SystemNoise,
    float_slack,
)
from models.patients import PatientRows
from models.queries import (
    LEAST_ROUNDING,
    AdditiveScoreQuery,
    GradientQuery,
    GramQuery,
    HistogramQuery,
    Query,
    pack_tables,
)

FALSE_ALARM = 1e-6
N = 4000

Vector = NDArray[np.float64]
RowsOf = Callable[..., PatientRows]


def gaussian_sum(**changes: float) -> GaussianSum:
    fields = {
        "sensitivity": 2.5,
        "mu": 0.5,
        "n_values": N,
        "shares": 1,
        "sites": 1,
        "max_patients": 100_000,
    }
    return GaussianSum(**(fields | changes))  # type: ignore[arg-type]


def std_is_accepted(noise: Vector, std: float) -> bool:
    """Two-sided chi-square test; false alarm 1e-6 for a Gaussian of that standard deviation."""
    statistic = float(np.sum((noise / std) ** 2))
    low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], noise.size)
    return bool(low < statistic < high)


def total_noise(mechanism: GaussianSum, n_sites: int) -> Vector:
    """The noise in the decoded sum of that many sites."""
    exact = np.linspace(-5, 5, mechanism.n_values)
    total = np.zeros(mechanism.n_values, dtype=np.uint64)
    for site in range(n_sites):
        total += mechanism.release(exact, SeededNoise(3, f"site-{site}").key("a/1"))
    # Rounding moves each value by half a unit, a millionth of the noise.
    return mechanism.decode(total) - n_sites * exact


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [SystemNoise(), SeededNoise(0, "s")])
def test_keys_have_32_bytes(source: NoiseSource) -> None:
    assert len(source.key("x")) == 32


def test_system_keys_never_repeat_and_the_global_generators_play_no_part() -> None:
    keys = set()
    for _ in range(1000):
        np.random.seed(0)  # noqa: NPY002 - the global generator is what is tested
        keys.add(SystemNoise().key("same"))
    assert len(keys) == 1000


def test_a_seeded_key_is_the_same_for_the_same_seed_site_and_stream() -> None:
    key = SeededNoise(7, "site-1").key("approved/gradient/3")
    assert key == SeededNoise(7, "site-1").key("approved/gradient/3")
    assert key.hex() == ("740b2fb35788864874572e123261cc4b9c3c3869d11ac846ee0f6c0c00bd845a")


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
    mechanism = gaussian_sum()
    noise = mechanism.release(np.zeros(N), SeededNoise(7, "site-1").key("approved/gradient/3"))
    other = mechanism.release(np.zeros(N), SeededNoise(seed, site).key(stream))
    pair = np.corrcoef(mechanism.decode(noise), mechanism.decode(other))
    # The correlation of independent noise is N(0, 1/n).
    assert abs(pair[0, 1]) < 4.9 / math.sqrt(N)


NAMES = st.text("1/'\"\\", max_size=5)


@given(
    parts=st.lists(
        st.tuples(st.integers(0, 111), NAMES, NAMES), min_size=2, max_size=2, unique=True
    )
)
def test_no_two_names_run_together_into_one(parts: list[tuple[int, str, str]]) -> None:
    first, second = (SeededNoise(seed, site).key(stream) for seed, site, stream in parts)
    assert first != second


# --- the noise is right --------------------------------------------------------------------------


@pytest.mark.parametrize("source", [SystemNoise(), SeededNoise(3, "site-1")])
@pytest.mark.parametrize(("sensitivity", "mu"), [(1.0, 1.0), (2.5, 0.1), (1e-3, 3.0)])
def test_a_release_carries_noise_of_sensitivity_over_mu(
    source: NoiseSource, sensitivity: float, mu: float
) -> None:
    mechanism = gaussian_sum(sensitivity=sensitivity, mu=mu)
    exact = np.linspace(-5, 5, N)
    noise = mechanism.decode(mechanism.release(exact, source.key("a/1"))) - exact
    assert std_is_accepted(noise, mechanism.noise_std(1))
    assert kstest(noise / mechanism.noise_std(1), "norm").pvalue > FALSE_ALARM
    # Rounding 4000 values costs little of the noise, and nothing is for free.
    assert sensitivity / mu < mechanism.noise_std(1) < 1.001 * sensitivity / mu


@pytest.mark.parametrize("factor", [2 / 3, 1.5])
def test_the_same_test_rejects_the_wrong_noise(factor: float) -> None:
    mechanism = gaussian_sum()
    assert std_is_accepted(total_noise(mechanism, 1), mechanism.noise_std(1))
    assert not std_is_accepted(factor * total_noise(mechanism, 1), mechanism.noise_std(1))


@pytest.mark.parametrize("present", [5, 6, 8, 10])
def test_shares_add_up_to_the_promised_noise_with_and_without_dropouts(present: int) -> None:
    mechanism = gaussian_sum(shares=5, sites=10)
    noise = total_noise(mechanism, present)
    assert std_is_accepted(noise, mechanism.noise_std(present))
    # Planted wrong shares: divided by the number of sites, not its root, and the full noise each.
    assert not std_is_accepted(noise / math.sqrt(5), mechanism.noise_std(present))
    assert not std_is_accepted(noise * math.sqrt(5), mechanism.noise_std(present))


def test_enough_shares_carry_the_noise_of_one_central_release() -> None:
    central = gaussian_sum().noise_std(1)
    for shares in (2, 7, 50):
        distributed = gaussian_sum(shares=shares, sites=2 * shares)
        assert distributed.noise_std(shares) == pytest.approx(central, rel=1e-3)
        assert distributed.noise_std(2 * shares) == pytest.approx(central * math.sqrt(2), rel=1e-3)


def test_a_release_is_the_encoded_sum_plus_the_noise_of_its_key() -> None:
    mechanism = gaussian_sum()
    key = SeededNoise(1, "s").key("x")
    exact = np.linspace(-9, 9, N)
    shift = mechanism.release(exact, key) - mechanism.release(np.zeros(N), key)
    assert np.array_equal(shift.view(np.int64), mechanism.encode(exact))
    assert np.array_equal(exact, np.linspace(-9, 9, N))


# --- mu is met exactly ---------------------------------------------------------------------------

MECHANISMS = st.builds(
    lambda **fields: GaussianSum(**fields, sites=fields["shares"] + 3),
    sensitivity=st.floats(1e-6, 1e6),
    mu=st.floats(0.01, 5),
    n_values=st.integers(1, 10**6),
    shares=st.integers(1, 200),
    max_patients=st.integers(1, 10**6),
)


def precise_mu(mechanism: GaussianSum, shares: int) -> mpmath.mpf:
    """Mu in 50 digits, from the resolution that is used and nothing else of the mechanism."""
    with mpmath.workdps(50):
        slack = mpmath.mpf(2) ** -30 + mechanism.max_patients * (
            mpmath.mpf(2) ** -36
            + mpmath.mpf(2) ** -31
            + mpmath.sqrt(mechanism.n_values) * mpmath.mpf(2) ** -52
        )
        real = mpmath.mpf(mechanism.sensitivity) * (1 + slack)
        change = real / mpmath.mpf(mechanism.resolution) + mpmath.sqrt(mechanism.n_values)
        return change / mpmath.sqrt(shares * mpmath.mpf(4) ** 22 - 9)


@given(mechanism=MECHANISMS)
def test_the_noise_keeps_exactly_the_promised_mu(mechanism: GaussianSum) -> None:
    assert float(precise_mu(mechanism, mechanism.shares) / mechanism.mu) == pytest.approx(
        1, rel=1e-13
    )


# --- the proof's pieces --------------------------------------------------------------------------


@pytest.mark.parametrize("r", ["0.3", "0.5", "1", "2", "3"])
def test_sums_of_a_gaussian_over_shifted_integers_are_as_even_as_claimed(r: str) -> None:
    with mpmath.workdps(120):
        radius = mpmath.mpf(r)
        error = 2 * mpmath.nsum(
            lambda j: mpmath.exp(-2 * mpmath.pi**2 * radius**2 * j**2), [1, mpmath.inf]
        )
        sums = [
            mpmath.fsum(
                mpmath.exp(-((z - y) ** 2) / (2 * radius**2)) for z in range(-80, 81)
            ) / (radius * mpmath.sqrt(2 * mpmath.pi))
            for y in (mpmath.mpf(i) / 16 for i in range(17))
        ]  # fmt: skip
        assert all(abs(value - 1) <= error * (1 + mpmath.mpf(10) ** -30) for value in sums)
        # Reached at y = 0, so the claim is no larger than it has to be.
        assert max(sums) - 1 == pytest.approx(error, rel=1e-12)


@given(mechanism=MECHANISMS)
def test_the_slack_of_epsilon_is_added_up_and_negligible(mechanism: GaussianSum) -> None:
    with mpmath.workdps(120):
        error = 2 * mpmath.nsum(lambda j: mpmath.exp(-2 * mpmath.pi**2 * 9 * j**2), [1, mpmath.inf])
        factor = mpmath.log((1 + error) / (1 - error))
        slack = 2 * mechanism.n_values * mechanism.shares * factor
        assert slack <= mechanism.epsilon_slack <= 1.01 * slack
    assert mechanism.epsilon_slack < 1e-60


def discrete(variance: float, reach: int) -> Vector:
    """Probabilities of a discrete Gaussian on [-reach, reach]."""
    weights = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * variance))
    return weights / weights.sum()


def hockey_stick(p: Vector, q: Vector, epsilon: float) -> float:
    return float(np.maximum(p - math.exp(epsilon) * q, 0.0).sum())


@pytest.mark.parametrize("shares", [1, 2, 5])
@pytest.mark.parametrize("mu", [0.3, 0.7, 1.7])
def test_the_exact_delta_of_the_discrete_mechanism_keeps_to_mu_and_nearly_reaches_it(
    monkeypatch: pytest.MonkeyPatch, shares: int, mu: float
) -> None:
    # With shares of standard deviation 2^7 all probabilities can be added up.
    monkeypatch.setattr(models.mechanisms, "LOG2_STD", 7)
    mechanism = gaussian_sum(
        n_values=1, sensitivity=1.0, mu=mu, shares=shares, sites=shares, max_patients=2
    )
    # A whole patient, and rounding to its disadvantage.
    above = np.array([0.5001 * mechanism.resolution])
    change = int((mechanism.encode(above) - mechanism.encode(above - 1.0))[0])
    noise = share = discrete(128.0**2, 12 * 128 * shares)
    for _ in range(shares - 1):
        noise = np.maximum(fftconvolve(noise, share, mode="same"), 0.0)
    p, q = np.pad(noise, (0, change)), np.pad(noise, (change, 0))
    mu_of_change = change / math.sqrt(shares * 128.0**2 - 9)
    assert 0.98 * mu < mu_of_change <= mu
    for epsilon in (0.0, 0.5, 1.0, 2.0, 4.0):
        exact = max(hockey_stick(p, q, epsilon), hockey_stick(q, p, epsilon))
        # 1e-12 is what adding up probabilities in floating point may cost.
        assert exact <= gdp_delta(mu_of_change, epsilon) + 1e-12
        assert exact <= gdp_delta(mu, epsilon) + 1e-12
        if exact > 1e-9:
            assert exact == pytest.approx(gdp_delta(mu_of_change, epsilon), rel=0.02)


def test_the_exact_delta_in_two_dimensions_keeps_to_mu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.mechanisms, "LOG2_STD", 5)
    mechanism = gaussian_sum(n_values=2, sensitivity=1.0, mu=1.0, max_patients=2)
    noise = discrete(32.0**2, 12 * 32)
    for angle in np.linspace(0, np.pi / 2, 7):
        vector = np.array([np.cos(angle), np.sin(angle)])
        start = np.full(2, 0.4999 * mechanism.resolution)
        a, b = np.abs(mechanism.encode(start - vector) - mechanism.encode(start)).tolist()
        p = np.outer(np.pad(noise, (0, a)), np.pad(noise, (0, b)))
        q = np.outer(np.pad(noise, (a, 0)), np.pad(noise, (b, 0)))
        for epsilon in (0.0, 0.5, 1.0, 2.0, 4.0):
            assert hockey_stick(p, q, epsilon) <= gdp_delta(1.0, epsilon) + 1e-12


# --- what one patient changes --------------------------------------------------------------------


def integer_sensitivity(mechanism: GaussianSum) -> float:
    """D of the docstring."""
    slack = float_slack(mechanism.max_patients, mechanism.n_values)
    real = mechanism.sensitivity * (1 + slack) / mechanism.resolution
    return real + math.sqrt(mechanism.n_values)


@st.composite
def queries(draw: st.DrawFn) -> Query:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.1, 1.0, 30.0]))
    bound = draw(st.floats(0.05, 20))
    packed, shapes = pack_tables((scale * rng.normal(size=(3, 2)), rng.normal(size=(5, 1))))
    return draw(
        st.sampled_from(
            [
                HistogramQuery(np.array([3, 5])),
                GramQuery(packed, shapes, row_bound=bound),
                GradientQuery(packed, shapes, rng.normal(size=(3, 3)), rng.normal(size=4), bound),
                AdditiveScoreQuery(
                    6, 4.0, bound, scale * rng.normal(size=8), np.array([3, 5]), 0.1
                ),
            ]
        )
    )


@settings(max_examples=300, deadline=None)
@given(
    query=queries(),
    counts=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    rounding=st.floats(1.01, 1e4),
    data=st.data(),
)
def test_no_patient_changes_an_encoded_answer_by_more_than_the_noise_is_made_for(
    rows_of: RowsOf,
    query: Query,
    counts: list[int],
    seed: int,
    rounding: float,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(len(counts)), counts)
    codes = np.column_stack([rng.integers(0, 3, patients.size), rng.integers(0, 5, patients.size)])
    labels = rng.integers(0, 2, patients.size).astype(float)
    if isinstance(query, GradientQuery):
        assume(query._moved(50) <= LEAST_ROUNDING * query.clip)  # it is refused otherwise
    rest = patients != data.draw(st.integers(0, len(counts) - 1))
    with_patient = query.answer(rows_of(codes, labels, patients, max_records=50))
    without = query.answer(rows_of(codes[rest], labels[rest], patients[rest], max_records=50))
    # Mu so small that rounding is all that the noise hides, up to mu for which it hardly counts.
    mechanism = GaussianSum(
        sensitivity=query.sensitivity,
        mu=rounding * math.sqrt(query.n_values) / 2**LOG2_STD,
        n_values=query.n_values,
        shares=1,
        sites=1,
        max_patients=6,
    )
    change = mechanism.encode(with_patient) - mechanism.encode(without)
    assert math.sqrt(int(change @ change)) <= integer_sensitivity(mechanism)


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_values=st.integers(1, 60),
    rounding=st.floats(1.01, 100),
    scale=st.floats(0.01, 1e4),
)
def test_no_two_vectors_a_sensitivity_apart_are_encoded_further_apart(
    seed: int, n_values: int, rounding: float, scale: float
) -> None:
    mu = rounding * math.sqrt(n_values) / 2**LOG2_STD
    mechanism = gaussian_sum(n_values=n_values, mu=mu, max_patients=10)
    rng = np.random.default_rng(seed)
    # Some values lie beyond the cut, and some exactly between two integers.
    first = scale * rng.normal(size=n_values)
    halves = rng.random(n_values) < 0.5
    first[halves] = (np.rint(first[halves]) + 0.5) * mechanism.resolution
    step = rng.normal(size=n_values) * (rng.random(n_values) < 0.5)
    step *= mechanism.sensitivity / max(float(np.linalg.norm(step)), 1e-9)
    change = mechanism.encode(first + step) - mechanism.encode(first)
    assert float(np.linalg.norm(change)) <= integer_sensitivity(mechanism) * (1 + 1e-9)


def test_rounding_can_add_one_to_every_value_so_its_share_of_the_noise_is_needed() -> None:
    mechanism = gaussian_sum(n_values=100, mu=10.1 / 2**LOG2_STD)
    up = np.full(100, (0.5 + 1e-6) * mechanism.resolution)
    down = np.full(100, (0.5 - 1e-6) * mechanism.resolution)
    change = float(np.linalg.norm(mechanism.encode(up) - mechanism.encode(down)))
    assert change == 10.0
    assert float(np.linalg.norm(up - down)) < 0.001 * mechanism.sensitivity
    without_rounding = mechanism.sensitivity / mechanism.resolution
    assert without_rounding < change < integer_sensitivity(mechanism)


def large_site(rows_of: RowsOf, n: int) -> tuple[PatientRows, PatientRows, PatientRows]:
    """A site of n records, the site without its first patient, and that patient alone."""
    rng = np.random.default_rng(11)
    patients = np.sort(np.unique(rng.integers(0, n // 2, n), return_inverse=True)[1])
    codes, labels = rng.integers(0, 40, (n, 5)), rng.integers(0, 2, n).astype(float)
    first = patients == 0

    def rows(keep: NDArray[np.bool_]) -> PatientRows:
        return rows_of(codes[keep], labels[keep], patients[keep], max_records=20)

    return rows(np.ones(n, dtype=bool)), rows(~first), rows(first)


def large_queries() -> list[Query]:
    rng = np.random.default_rng(12)
    packed, shapes = pack_tables(tuple(rng.normal(size=(40, 12)) for _ in range(5)))
    whitening, coefficients = rng.normal(size=(60, 60)) / 8, rng.normal(size=61) / 8
    return [
        HistogramQuery(np.full(5, 40)),
        GramQuery(packed, shapes, row_bound=5.0),
        GradientQuery(packed, shapes, whitening, coefficients, clip=7.0),
        AdditiveScoreQuery(64, 4.0, 1.0, rng.normal(size=200), np.full(5, 40), 0.0),
    ]


@pytest.mark.parametrize("number", range(4))
def test_rounding_errors_of_large_sums_stay_within_their_allowance(
    rows_of: RowsOf, number: int
) -> None:
    # Without its first patient every row of the site lies elsewhere in its block.
    query = large_queries()[number]
    everybody, others, one = (query.answer(rows) for rows in large_site(rows_of, 120_000))
    allowance = query.sensitivity * float_slack(60_000, query.n_values)
    assert float(np.linalg.norm(everybody - others - one)) <= allowance
    if isinstance(query, GramQuery | GradientQuery):
        # Sums in single precision would not pass.
        single = everybody.astype(np.float32) - others.astype(np.float32) - one
        assert float(np.linalg.norm(single)) > allowance


def test_the_allowance_for_floating_point_is_as_documented() -> None:
    assert float_slack(1_000_000, 1) == pytest.approx(4.8e-4, rel=0.1)
    assert float_slack(1, 1) == pytest.approx(2**-30 + 2**-31, rel=0.1)
    assert float_slack(10**8, 10**6) < 0.06
    assert float_slack(10**6, 1, 2.0**-25) == pytest.approx(10**6 * 2.0**-25, rel=0.01)
    # 2 N gamma_n of n = 2^16 additions, in units of u = 2^-53, is part of it.
    n, unit = 2**16, 2.0**-53
    for patients in (1, 1000, 10**8):
        gamma = n * unit / (1 - n * unit)
        assert 2 * patients * gamma + patients * LEAST_ROUNDING < float_slack(patients, 1)


# --- what cannot be released ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@given(position=st.integers(0, 9))
def test_a_vector_with_a_value_that_is_not_finite_is_never_released(
    value: float, position: int
) -> None:
    mechanism = gaussian_sum(n_values=10)
    vector = np.zeros(10)
    vector[position] = value
    with pytest.raises(ValueError, match="not finite"):
        mechanism.release(vector, bytes(32))


@pytest.mark.parametrize("value", [1e300, -1e300, 1e12, -1.7e308])
def test_values_beyond_what_patients_add_up_to_are_cut_off(value: float) -> None:
    mechanism = gaussian_sum(n_values=3, max_patients=1000)
    decoded = mechanism.decode(mechanism.encode(np.array([value, 1.0, 0.0])).view(np.uint64))
    assert decoded == pytest.approx([math.copysign(2500.0, value), 1.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 1)])
def test_a_vector_of_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"not \(3,\)"):
        gaussian_sum(n_values=3).encode(np.zeros(shape))


def test_a_noise_key_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        gaussian_sum(n_values=3).release(np.zeros(3), b"short")


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_sensitivity_and_mu_must_be_positive_and_finite(bad: float) -> None:
    with pytest.raises(ValueError, match=f"sensitivity {bad} "):
        gaussian_sum(sensitivity=bad)
    with pytest.raises(ValueError, match=f"mu {bad} "):
        gaussian_sum(mu=bad)


@pytest.mark.parametrize("sensitivity", [1e-200, 1e200])
def test_a_sensitivity_whose_quotients_underflow_or_overflow_is_an_error(
    sensitivity: float,
) -> None:
    with pytest.raises(ValueError, match="between 1e-100 and 1e100"):
        gaussian_sum(sensitivity=sensitivity)


@pytest.mark.parametrize(
    "changes",
    [{"n_values": 0}, {"max_patients": 0}, {"shares": 0}, {"shares": 3, "sites": 2}],
)
def test_sums_of_nothing_and_more_shares_than_sites_are_errors(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no sum of"):
        gaussian_sum(**changes)


def test_rounding_of_patients_is_paid_for_with_more_noise() -> None:
    plain = gaussian_sum(max_patients=10**6)
    rough = replace(plain, rounding=2.0**-25)
    assert rough.noise_std(1) / plain.noise_std(1) == pytest.approx(1 + 10**6 * 2.0**-25, rel=1e-3)
    for rounding in (2.0**-32, 1.5, math.nan):
        with pytest.raises(ValueError, match="rounding"):
            replace(plain, rounding=rounding)


def test_a_mu_that_rounding_alone_would_use_up_is_an_error() -> None:
    with pytest.raises(ValueError, match="1e-06 is too small for 1000000 values"):
        gaussian_sum(mu=1e-6, n_values=1_000_000)


# --- no overflow ---------------------------------------------------------------------------------


def test_sums_that_double_precision_cannot_round_exactly_are_refused_with_the_numbers() -> None:
    expected = math.log2(10**8 * 20.0 * 2**LOG2_STD)
    with pytest.raises(SumOverflowError, match=f"100000000 patients reach 2\\^{expected:.1f} "):
        gaussian_sum(mu=20.0, max_patients=10**8)
    with pytest.raises(SumOverflowError, match=r"2\^inf"):
        gaussian_sum(mu=1e308)


def test_sums_of_too_many_sites_are_refused_with_the_numbers() -> None:
    fields = {"mu": 10.0, "max_patients": 10**8}
    gaussian_sum(**fields, sites=2000)
    with pytest.raises(SumOverflowError, match="at 2300 sites"):
        gaussian_sum(**fields, sites=2300)


def test_the_largest_networks_of_the_settings_fit() -> None:
    for sites, max_patients in ((100, 10**6), (20, 10**8)):
        for mu in (0.01, 1.67):
            gaussian_sum(mu=mu, shares=sites // 2, sites=sites, max_patients=max_patients)


def test_the_largest_sums_of_all_sites_do_not_wrap_around() -> None:
    mechanism = gaussian_sum(mu=10.0, max_patients=10**8, n_values=2, sites=2000)
    largest = np.array([1.0, -1.0]) * mechanism.max_patients * mechanism.sensitivity
    total = np.zeros(2, dtype=np.uint64)
    for _ in range(2000):
        # The largest noise there is, in the same direction.
        noise = np.sign(largest).astype(np.int64) * ((64 << LOG2_STD) - 1)
        total += (mechanism.encode(largest) + noise).view(np.uint64)
    assert mechanism.decode(total) == pytest.approx(2000 * largest, rel=1e-3)


@given(
    seed=st.integers(0, 2**32 - 1),
    masks=st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3),
)
def test_masks_modulo_2_to_the_64_that_cancel_leave_the_sum(seed: int, masks: list[int]) -> None:
    mechanism = gaussian_sum(n_values=4, sites=3, shares=3)
    rng = np.random.default_rng(seed)
    vectors = rng.normal(scale=1000, size=(3, 4))
    words = [mechanism.encode(vector).view(np.uint64) for vector in vectors]
    plain = mechanism.decode(words[0] + words[1] + words[2])
    masked = [word + np.uint64(mask) for word, mask in zip(words, masks, strict=True)]
    unmask = np.uint64(-sum(masks) % 2**64)
    assert np.array_equal(mechanism.decode(masked[0] + masked[1] + masked[2] + unmask), plain)
    assert plain == pytest.approx(vectors.sum(axis=0), abs=2 * mechanism.resolution)


def test_what_is_encoded_is_decoded_to_the_nearest_unit() -> None:
    mechanism = gaussian_sum()
    vector = np.random.default_rng(0).normal(scale=100, size=N)
    decoded = mechanism.decode(mechanism.encode(vector).view(np.uint64))
    assert np.abs(decoded - vector).max() <= 0.5001 * mechanism.resolution
