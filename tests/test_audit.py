"""The parts of the audit, and honest runs, in which nothing is found."""

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from data_contracts.errors import GroundTruthError
from data_contracts.manifest import MANIFEST_NAME
from data_contracts.network import site_folders
from data_contracts.split import held_out
from data_contracts.synthetic.generate import generate
from experiments import cli
from experiments.audit.attack import Sight, scores
from experiments.audit.bound import best_guesses, epsilon_lower_bound, p_value
from experiments.audit.canaries import TASK, Canaries, make_canaries
from experiments.audit.run import Audit, AuditSettings, audit
from experiments.audit.sums import IMPROBABLE, OpenedSum, alike, flaws, spread
from experiments.audit.words import print_audit
from experiments.progress import Reporter
from federation.plan import RunPlan
from federation.settings import ConfigError, PrivacySettings
from federation.site import site_rows
from models.accounting import gdp_epsilon
from models.mechanisms import GaussianSum, SeededNoise
from models.queries import HistogramQuery
from models.tasks import TASKS

QUICK = AuditSettings(requests=2000, providers=3, canaries=20, repeats=1)


def quiet(settings: AuditSettings) -> Audit:
    return audit(settings, Reporter(quiet=True))


# --- what guesses prove --------------------------------------------------------------------------


def binomial(n: int, q: float) -> NDArray[np.float64]:
    return np.array([math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(n + 1)])


@pytest.mark.parametrize(
    ("canaries", "guesses", "right", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_the_bounds_that_the_paper_prints(
    canaries: int, guesses: int, right: int, delta: float, published: float
) -> None:
    """Steinke, Nasr, Jagielski, arXiv 2305.08846v1, Appendix D and Section 7."""
    bound = epsilon_lower_bound(canaries, guesses, right, delta)
    assert bound == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("guesses", [1, 10, 60])
def test_without_delta_the_p_value_is_that_of_randomised_response(
    epsilon: float, guesses: int
) -> None:
    mass = binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    for right in range(guesses + 1):
        expected = mass[right:].sum()
        assert p_value(100, guesses, right, epsilon, 0.0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("delta", [0.001, 0.02, 0.3])
def test_the_p_value_covers_mechanisms_that_use_up_delta(delta: float) -> None:
    """Both are (0, delta)-DP: all coins are told with probability delta, or each is by itself."""
    m = 40
    blind = binomial(m, 0.5)
    told_each = binomial(m, 0.5 + delta / 2)
    for right in range(m + 1):
        bound = p_value(m, m, right, 0.0, delta)
        assert bound >= min(delta + (1 - delta) * blind[right:].sum(), 1.0) - 1e-12
        assert bound >= told_each[right:].sum() - 1e-12


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("guesses", [20, 200])
def test_randomised_response_is_wronged_in_5_of_100_cases_at_most(
    epsilon: float, guesses: int
) -> None:
    """Exactly, over all outcomes: no false alarm is possible."""
    mass = binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    bounds = [epsilon_lower_bound(guesses, guesses, v, 0.0) for v in range(guesses + 1)]
    assert mass[np.array(bounds) > epsilon].sum() <= 0.05
    assert sorted(bounds) == bounds


def test_randomised_response_simulated() -> None:
    """200 runs with a fixed seed; the case before is the proof, without luck."""
    epsilon, m = 1.0, 2000
    rng = np.random.default_rng(0)
    right = (rng.random((200, m)) < 1 / (1 + math.exp(-epsilon))).sum(axis=1)
    bounds = np.array([epsilon_lower_bound(m, m, int(v), 0.0) for v in right])
    assert (bounds <= epsilon).mean() >= 0.95
    assert np.median(bounds) > 0.9 * epsilon  # and it is not far below


def test_with_many_canaries_the_bound_comes_close() -> None:
    epsilon, m = 2.0, 200_000
    right = round(m / (1 + math.exp(-epsilon)))
    assert 0.98 * epsilon < epsilon_lower_bound(m, m, right, 0.0) < epsilon


def test_large_epsilons_do_not_overflow() -> None:
    assert p_value(5000, 5000, 5000, 800.0, 1e-5) == pytest.approx(1.0)
    assert 6.0 < epsilon_lower_bound(10_000, 10_000, 10_000, 1e-9) < 9.0


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0, 6), st.floats(0, 6))
def test_more_right_guesses_prove_more(one: int, other: int, low: float, high: float) -> None:
    (one, other), (low, high) = sorted((one, other)), sorted((low, high))
    bounds = [epsilon_lower_bound(100, 60, right, 1e-4) for right in (one, other)]
    assert bounds[0] <= bounds[1] + 1e-6
    assert p_value(100, 60, other, low, 0.0) <= p_value(100, 60, other, high, 0.0) + 1e-12


@pytest.mark.parametrize(
    ("canaries", "guesses", "right", "epsilon", "delta"),
    [
        (10, 11, 5, 1.0, 0.0),
        (10, 5, 6, 1.0, 0.0),
        (10, 5, -1, 1.0, 0.0),
        (10, 5, 5, -0.1, 0.0),
        (10, 5, 5, math.nan, 0.0),
        (10, 5, 5, math.inf, 0.0),
        (10, 5, 5, 1.0, 1.1),
        (10, 5, 5, 1.0, -0.1),
    ],
)
def test_impossible_guesses_and_promises(
    canaries: int, guesses: int, right: int, epsilon: float, delta: float
) -> None:
    with pytest.raises(ValueError, match=r"guesses about|no promise"):
        p_value(canaries, guesses, right, epsilon, delta)


@pytest.mark.parametrize("mu", [0.27, 0.72, 2.0])
def test_the_number_of_guesses_is_about_the_best_for_gaussian_scores(mu: float) -> None:
    m = 4000
    rng = np.random.default_rng(1)
    coins = rng.random((40, m)) < 0.5
    order = np.argsort(rng.normal(np.where(coins, mu / 2, -mu / 2)), axis=1)
    ranked = np.take_along_axis(coins, order, axis=1)

    def mean_bound(guesses: int) -> float:
        half = guesses // 2
        right = (~ranked[:, :half]).sum(axis=1) + ranked[:, m - half :].sum(axis=1)
        return float(np.mean([epsilon_lower_bound(m, guesses, int(v), 1e-5) for v in right]))

    chosen = mean_bound(best_guesses(m, mu, 1e-5))
    assert chosen > 0.05
    for guesses in (20, 60, 400, 1200, 4000):
        assert mean_bound(guesses) < 1.15 * chosen


@pytest.mark.parametrize("canaries", [2, 3, 6, 7, 50])
@pytest.mark.parametrize("mu", [1e-9, 0.3, 30.0])
def test_some_coins_are_guessed_however_few_canaries_there_are(canaries: int, mu: float) -> None:
    guesses = best_guesses(canaries, mu, 1e-5)
    assert 2 <= guesses <= canaries
    assert guesses % 2 == 0


# --- the attacker --------------------------------------------------------------------------------


def made_up_sights(
    noise: float, m: int = 60, sizes: tuple[int, ...] = (40, 90), seed: int = 3
) -> tuple[list[Sight], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    coins = rng.random(m) < 0.5
    sights = []
    for d in sizes:
        effects = rng.normal(size=(m, d)) / math.sqrt(d)
        residual = (coins - 0.5) @ effects + noise * rng.normal(size=d)
        sights.append(Sight(residual, effects))
    return sights, coins


def test_scores_are_the_log_likelihood_ratios() -> None:
    """Against Gaussian densities written out; the noise fits best at 1 on the attacker's grid."""
    sights, _ = made_up_sights(noise=1.0, sizes=(300, 500))
    y = np.concatenate([sight.residual for sight in sights])
    effects = np.hstack([sight.effects for sight in sights])
    found = scores(sights)
    for canary in (0, 7, 59):
        rest = np.delete(effects, canary, axis=0)
        inverse = np.linalg.inv(np.eye(y.size) + rest.T @ rest / 4)
        out, within = y + effects[canary] / 2, y - effects[canary] / 2
        ratio = (out @ inverse @ out - within @ inverse @ within) / 2
        assert found[canary] == pytest.approx(ratio, rel=1e-6)


def test_without_overlap_scores_are_correlations() -> None:
    rng = np.random.default_rng(5)
    effects = 3 * np.eye(20, 4000)
    y = rng.normal(size=4000)
    np.testing.assert_allclose(scores([Sight(y, effects)]), 3 * y[:20], rtol=1e-6)


@pytest.mark.parametrize("noise", [1e-7, 0.05])
def test_too_little_noise_is_noticed_and_all_coins_are_found(noise: float) -> None:
    """Whatever noise was promised: effects and residuals are in units of it."""
    sights, coins = made_up_sights(noise=noise)
    assert ((scores(sights) > 0) == coins).all()


def test_canaries_without_effect_have_no_score() -> None:
    assert (scores([Sight(np.ones(5), np.zeros((3, 5)))]) == 0).all()


# --- noise and bounds ----------------------------------------------------------------------------


def released_noise(step: str, d: int = 400) -> NDArray[np.float64]:
    """Noise of a real release, in its own standard deviations."""
    mechanism = GaussianSum(2.0, 0.3, d, shares=3, sites=3, max_patients=1000)
    key = SeededNoise(1, "provider-01").key(step)
    noise = mechanism.decode(mechanism.release(np.zeros(d), key))
    return noise / mechanism.noise_std(1)


def test_the_size_of_noise_is_told_from_two_thirds_and_three_halves() -> None:
    """False alarms have a probability of 2e-9 each; 400 values deviate by 3.5 % on average."""
    for round_number in range(50):
        noise = released_noise(f"round {round_number}")
        assert abs(spread(noise)) < IMPROBABLE
        assert spread(noise * 2 / 3) < -IMPROBABLE
        assert spread(noise * 3 / 2) > IMPROBABLE


def test_deviates_are_standard_normal_where_nothing_is_wrong() -> None:
    """2000 draws: means deviate by 0.022, standard deviations by 0.016; five times that is left."""
    rng = np.random.default_rng(8)
    for d in (12, 300):
        noises = rng.normal(size=(2000, 2, d))
        for deviates in (
            [spread(noise[0]) for noise in noises],
            [alike(noise[0], noise[1]) for noise in noises],
        ):
            assert abs(np.mean(deviates)) < 0.11
            assert abs(np.std(deviates) - 1) < 0.09


def test_noise_that_occurs_twice_is_found() -> None:
    noise = released_noise("gradient 1")
    other = released_noise("gradient 2")
    assert abs(alike(noise, other)) < IMPROBABLE
    assert alike(noise, noise) > IMPROBABLE
    assert alike(noise, -noise[:30]) < -IMPROBABLE
    assert alike(noise, 0.8 * noise + 0.6 * other) > IMPROBABLE
    assert alike(noise, np.zeros(400)) == 0  # what has no size at all is found by `spread`
    assert alike(noise[:3], noise[:3]) == 0  # three values prove nothing


def opened(number: int = 1, **changes: object) -> OpenedSum:
    fields: dict[str, object] = {
        "step": "gradient",
        "name": f"run 1, gradient {number}",
        "noise": released_noise(f"{number}"),
        "told": 3.0,
        "promised": 3.0,
        "bound": 2.0,
        "largest": 2.0,
        "apart": 1e-12,
    }
    return OpenedSum(**(fields | changes))  # type: ignore[arg-type]


def test_sums_without_a_flaw() -> None:
    assert flaws([opened(1), opened(2), opened(3, step="gram", told=4.0)]) == []
    assert flaws([]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"told": 2.9}, "gradient: noise of 2.9, and the promise needs 3"),
        ({"noise": np.zeros(400)}, "gradient: the noise is 0.703 times as large as the sites say"),
        ({"largest": 2.1}, "gradient: a patient changes 2.1, and the bound is 2"),
        ({"apart": 0.1}, "gradient: what a patient adds depends on the other patients"),
        (
            {"noise": released_noise("1")},
            "not independent in 1 pairs of sums, as run 1, gradient 1 and run 1, gradient 2",
        ),
    ],
)
def test_every_flaw_is_named(changes: dict[str, object], words: str) -> None:
    found = flaws([opened(1), opened(2, **changes)])
    assert len(found) == 1
    assert words in found[0]


# --- canaries ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited") / "network"
    generate(folder, preset="seed_manual", n_requests=1000, n_payers=2, n_providers=3, seed=4)
    return folder


@pytest.fixture
def plan() -> RunPlan:
    names = tuple(f"provider-{i:02d}" for i in (1, 2, 3))
    privacy = PrivacySettings(max_records_per_patient=3)
    split = {"split_key": "k", "test_share": 0.4, "noise_seed": 1}
    contracts = TASKS[TASK].contracts
    payers = ("payer-1", "payer-2")
    return RunPlan(TASK, payers, names, names, privacy, contracts=contracts, **split)  # type: ignore[arg-type]


@pytest.fixture
def sites(network: Path) -> list[Path]:
    return [folder for folder in site_folders(network) if folder.name.startswith("provider")]


@pytest.fixture
def canaries(plan: RunPlan, sites: list[Path], tmp_path: Path) -> Canaries:
    rng = np.random.default_rng(6)
    made = make_canaries(plan, sites, tmp_path / "canaries", count=12, copies=2, rng=rng)
    made.plant(np.zeros(12, dtype=bool))
    return made


def test_canaries_pass_the_gate_and_none_is_held_out(plan: RunPlan, canaries: Canaries) -> None:
    assert (canaries.count, canaries.rows.n_patients, canaries.rows.n_rows) == (12, 12, 36)
    tokens = canaries.tables["pa_request"]["patient_token"]
    assert not held_out(tokens, key="k", share=0.4).any()
    assert tokens.unique(maintain_order=True).is_sorted()
    codes = canaries.rows.codes.reshape(12, 3, -1)
    assert (codes == codes[:, :1]).all()
    assert np.unique(codes[:, 0], axis=0).shape[0] == 12
    assert set(canaries.rows.labels) == {0.0, 1.0}


def test_a_site_has_the_canaries_whose_coin_says_so(
    plan: RunPlan, sites: list[Path], canaries: Canaries
) -> None:
    before = [site_rows(site / MANIFEST_NAME, plan, "train").n_patients for site in sites]
    held = [site_rows(site / MANIFEST_NAME, plan, "held_out").n_patients for site in sites]
    coins = np.arange(12) % 4 != 0
    canaries.plant(coins)
    for number, site in enumerate(sites):
        homes = np.arange(12) % 3
        here = coins & ((homes == number) | ((homes + 1) % 3 == number))
        rows = site_rows(site / MANIFEST_NAME, plan, "train")
        assert rows.n_patients == before[number] + here.sum()
        assert site_rows(site / MANIFEST_NAME, plan, "held_out").n_patients == held[number]
        written = pl.read_parquet(site / "pa_request" / "canaries.parquet")
        expected = canaries.tables["pa_request"].filter(pl.Series(np.repeat(here, 3)))
        assert written.equals(expected)
    canaries.plant(np.zeros(12, dtype=bool))
    after = [site_rows(site / MANIFEST_NAME, plan, "train").n_patients for site in sites]
    assert after == before


def test_effects_are_what_sums_change_by(
    plan: RunPlan, sites: list[Path], canaries: Canaries
) -> None:
    query = HistogramQuery(np.array([250] * len(plan.features()), dtype=np.int64))

    def total() -> NDArray[np.float64]:
        rows = [site_rows(site / MANIFEST_NAME, plan, "train") for site in sites]
        return np.sum([query.answer(each) for each in rows], axis=0)

    company = site_rows(sites[0] / MANIFEST_NAME, plan, "train")
    effects = canaries.effects(query, company)
    before = total()
    for canary in (0, 5, 11):
        canaries.plant(np.arange(12) == canary)
        np.testing.assert_allclose(total() - before, effects[canary], atol=1e-9)
    canaries.plant(np.zeros(12, dtype=bool))
    lengths = np.linalg.norm(effects, axis=1)
    np.testing.assert_allclose(lengths, 2 * query.sensitivity, rtol=1e-12)  # at two sites


# --- honest runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "seed"), [(1.0, 1), (1.0, 2), (3.0, 3)])
def test_an_honest_run_is_consistent(epsilon: float, seed: int) -> None:
    """A bound above the claim would have a probability of 5 %, were scores as good as they can be;
    a flaw, of 1e-6."""
    found = quiet(replace(QUICK, epsilon=epsilon, seed=seed, canaries=60, repeats=2))
    assert found.flaws == ()
    assert found.lower_bound <= found.claim == pytest.approx(epsilon)
    assert found.consistent
    assert (found.canaries, found.sums) == (120, 14)


def test_patients_at_two_sites_have_a_promise_of_their_own() -> None:
    found = quiet(replace(QUICK, copies=2))
    plan_mu = 2 * 0.26805112
    assert found.claim == pytest.approx(gdp_epsilon(plan_mu, 1e-5), rel=1e-4)
    assert found.consistent


def test_an_audit_with_the_same_seed_finds_the_same() -> None:
    assert quiet(QUICK) == quiet(QUICK)


def test_one_site_alone_can_be_audited() -> None:
    """Without a secure sum: the site adds the full noise."""
    found = quiet(replace(QUICK, providers=1))
    assert found.consistent


@pytest.mark.slow
def test_the_audit_sees_a_good_part_of_what_is_spent() -> None:
    """Otherwise bounds below the claim would mean nothing. Guesses at chance level would give this
    bound with a probability of 4e-4."""
    found = quiet(AuditSettings(epsilon=3.0, requests=10_000, providers=4, canaries=250, repeats=5))
    assert found.consistent
    assert found.lower_bound > 0.4


@pytest.mark.parametrize(
    "changes", [{"canaries": 1}, {"repeats": 0}, {"copies": 0}, {"copies": 4}, {"epsilon": 0.0}]
)
def test_settings_that_cannot_be_audited(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        quiet(replace(QUICK, **changes))  # type: ignore[arg-type]


def test_a_network_that_is_too_small() -> None:
    with pytest.raises(GroundTruthError, match="too few"):
        quiet(replace(QUICK, requests=10))


# --- the command ---------------------------------------------------------------------------------

Command = Callable[..., tuple[int, str, str]]
SMALL = ("--requests", "2000", "--providers", "3", "--canaries", "20", "--repeats", "1")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Exit code, standard output and standard error of `groundtruth audit`."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["groundtruth", "audit", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capfd.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def test_the_command_tells_what_it_found(command: Command) -> None:
    code, out, err = command(*SMALL, "--epsilon", "2")
    words = " ".join(out.split())
    assert code == 0, err
    assert "epsilon = 2 at delta = 1e-05" in words
    assert "verdict consistent with the claim" in words
    assert "proven" not in words
    assert "Auditing 1 run ..." in err


def test_the_command_prints_json(command: Command) -> None:
    code, out, err = command(*SMALL, "--json")
    found = json.loads(out)
    assert code == 0, err
    assert found["claim"] == pytest.approx(1.0)
    assert (found["canaries"], found["flaws"], found["consistent"]) == (20, [], True)


def test_the_command_fails_where_the_promise_is_broken(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silence(n: int, *, log2_std: int, key: bytes) -> NDArray[np.int64]:
        return np.zeros(n, dtype=np.int64)

    monkeypatch.setattr("models.mechanisms.discrete_gaussian", silence)
    code, out, _ = command(*SMALL)
    words = " ".join(out.split())
    assert code == 1
    assert "NOT consistent with the claim: the guesses rule it out" in words
    assert "times as large as the sites say" in words


def test_the_command_names_a_wrong_setting(command: Command) -> None:
    code, _, err = command("--epsilon", "-1")
    assert code == 2
    assert "privacy.epsilon must be a positive number" in err


def test_the_defaults_of_the_command_are_those_of_an_audit() -> None:
    given_by_hand = {
        name: parameter.default
        for name, parameter in inspect.signature(cli.audit).parameters.items()
        if name != "as_json"
    }
    assert AuditSettings(**given_by_hand) == AuditSettings()


def test_flawed_sums_alone_are_not_consistent() -> None:
    found = Audit(1.0, 1e-5, 0.2, 100, 10, 7, 7, ("gram: something",))
    text = StringIO()
    print_audit(found, Console(file=text, width=200))
    assert not found.consistent
    assert "the sums are not what it rests on" in text.getvalue()
    assert "gram: something" in text.getvalue()


def test_so_few_guesses_that_none_could_refute_the_claim_are_said_to_be_few() -> None:
    text = StringIO()
    print_audit(Audit(3.0, 1e-5, 0.0, 3, 2, 2, 7, ()), Console(file=text, width=200))
    assert "even if every guess had been right" in text.getvalue()
    text = StringIO()
    print_audit(Audit(1.0, 1e-5, 0.2, 600, 60, 40, 84, ()), Console(file=text, width=200))
    assert "it cannot prove one" in text.getvalue()
