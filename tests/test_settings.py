"""Settings and plans: what is misspelt, missing or of the wrong type is named."""

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from data_contracts.compatibility import parse_version
from data_contracts.errors import GroundTruthError
from federation.ledger import worst_cost
from federation.plan import RunPlan
from federation.promise import promise
from federation.settings import ConfigError, PrivacySettings, parse
from models.accounting import PrivacyCost, gdp_mu
from models.additive_training import AdditiveSettings
from models.families import FAMILIES
from models.queries import HistogramQuery
from models.tasks import TASKS
from models.training import largest_queries

PLAN: dict[str, Any] = {
    "task": "approved",
    "payers": ["payer-1"],
    "providers": ["provider-1", "provider-2"],
    "sites": ["provider-1", "provider-2"],
    "privacy": {"epsilon": 3},
    "additive": {"gradient_rounds": 10},
    "split_key": "k",
    "test_share": 0.2,
    "contracts": TASKS["approved"].contracts,
}
VERSIONS = TASKS["approved"].contracts


def plan(**changes: Any) -> RunPlan:
    return parse(RunPlan, PLAN | changes, "plan")


def test_a_misspelt_key_is_refused_and_the_nearest_suggested() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'epsilonn' in privacy.*'epsilon'"):
        parse(PrivacySettings, {"epsilonn": 1.0}, "privacy")
    with pytest.raises(ConfigError, match=r"plan\.additive.*'gradient_rounds'"):
        plan(additive={"gradient_round": 3})


def test_a_key_like_no_other_is_refused_with_the_list_of_keys() -> None:
    with pytest.raises(ConfigError, match="known are epsilon, delta"):
        parse(PrivacySettings, {"zzz": 1.0}, "privacy")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="plan lacks the key 'split_key'"):
        parse(RunPlan, {k: v for k, v in PLAN.items() if k != "split_key"}, "plan")


@pytest.mark.parametrize(
    ("cls", "key", "value", "kind"),
    [
        (PrivacySettings, "epsilon", "3", "float"),
        (PrivacySettings, "epsilon", True, "float"),
        (PrivacySettings, "delta", None, "float"),
        (PrivacySettings, "multiplicity", 2.0, "int"),
        (PrivacySettings, "shares", [0.5, 0.5], "table"),
        (PrivacySettings, "shares", {"histogram": "all"}, "float"),
        (AdditiveSettings, "gradient_rounds", "12", "int"),
        (AdditiveSettings, "gradient_rounds", True, "int"),
        (RunPlan, "sites", "provider-1", "list"),
        (RunPlan, "sites", [1, 2], "str"),
        (RunPlan, "privacy", 3.0, "table"),
        (RunPlan, "noise_seed", "7", "int"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_key(
    cls: type, key: str, value: Any, kind: str
) -> None:
    base = PLAN if cls is RunPlan else {}
    with pytest.raises(ConfigError, match=rf"here\.{key}.*{kind}"):
        parse(cls, base | {key: value}, "here")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epsilon", 0.0),
        ("epsilon", -1),
        ("epsilon", math.inf),
        ("epsilon", math.nan),
        ("delta", 0.0),
        ("delta", 0.01),
        ("delta", math.nan),
        ("multiplicity", 0),
        ("max_records_per_patient", 0),
        ("max_patients_per_site", 0),
        ("dropouts", -0.1),
        ("dropouts", 1.0),
        ("dropouts", math.nan),
        ("dropouts", 0.95),
        ("colluders", 1.0),
        ("colluders", 0.8),
        ("retries", -1),
        ("shares", {"histogram": 1.0}),
        *(
            (
                "shares",
                {
                    "histogram": first,
                    "gram": 0.2,
                    "gradient": 0.5,
                    "recalibration": 0.1,
                    "retry": 0.1,
                },
            )
            for first in (0.5, 0.0, math.nan)
        ),
    ],
)
def test_a_promise_that_is_none_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"privacy.*{key}"):
        parse(PrivacySettings, {key: value}, "privacy")


def test_the_word_none_and_nothing_else_switches_privacy_off() -> None:
    assert parse(PrivacySettings, {"epsilon": "none"}, "privacy").epsilon is None
    assert parse(PrivacySettings, {}, "privacy").epsilon == 3.0
    with pytest.raises(ConfigError, match="epsilon"):
        parse(PrivacySettings, {"epsilon": "off"}, "privacy")


def test_whole_numbers_pass_for_decimals_and_not_the_reverse() -> None:
    epsilon = parse(PrivacySettings, {"epsilon": 8}, "privacy").epsilon
    assert (epsilon, type(epsilon)) == (8.0, float)


def test_a_setting_out_of_range_is_named_with_its_table() -> None:
    with pytest.raises(ConfigError, match=r"plan\.additive: max_knots"):
        plan(additive={"max_knots": 1})


# --- plans -------------------------------------------------------------------------------------


def test_a_plan_survives_its_text() -> None:
    for changes in ({}, {"noise_seed": 7}, {"privacy": {"epsilon": None}}):
        ours = plan(**changes)
        assert RunPlan.from_json(ours.to_json()) == ours
        assert RunPlan.from_json(ours.to_json()).to_json() == ours.to_json()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '"plan"', "{}", "9" * 5000, "[" * 100_000, '{"seed": 1e999}'],
)
def test_a_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunPlan.from_json(text)
    assert isinstance(caught.value, GroundTruthError)


def test_the_keys_of_a_plans_text_do_not_depend_on_their_order() -> None:
    backwards = json.dumps(dict(reversed(list(json.loads(plan().to_json()).items()))))
    assert RunPlan.from_json(backwards).to_json() == plan().to_json()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"task": "aproved"}, "aproved"),
        ({"sites": []}, "sites"),
        ({"sites": ["provider-1", "provider-1"]}, "once"),
        ({"test_share": 0.0}, "test_share"),
        ({"test_share": 1.0}, "test_share"),
        ({"test_share": math.nan}, "test_share"),
        ({"split_key": ""}, "split_key"),
        ({"split_key": "k" * 201}, "split_key"),
        ({"split_key": "a\nb"}, "split_key"),
        ({"contracts": {}}, "contracts must name pa_request, pa_decision, clinical_outcome"),
        ({"contracts": VERSIONS | {"claim_payment": "1.0.0"}}, "and no others"),
        ({"contracts": VERSIONS | {"pa_request": "1.0"}}, r"contracts\.pa_request: '1\.0'"),
        ({"patients": {"provider-99": 5}}, "patients must name sites"),
        ({"patients": {"provider-01": -1}}, "patients must name sites"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        plan(**changes)


def test_a_network_whose_names_are_no_list_of_different_ones_has_no_features() -> None:
    with pytest.raises(ConfigError, match="roster cannot be used"):
        plan(payers=["payer-1", "payer-1"]).features()


def test_a_plan_for_other_contracts_has_no_features_here() -> None:
    major, minor, _ = parse_version(VERSIONS["pa_request"])
    assert plan(contracts=VERSIONS | {"pa_request": f"{major}.{minor}.99"}).features()
    for version in (f"{major}.{minor + 1}.0", f"{major + 1}.0.0"):
        with pytest.raises(ConfigError, match=f"pa_request is {VERSIONS['pa_request']}.*{version}"):
            plan(contracts=VERSIONS | {"pa_request": version}).features()


def test_a_plan_that_names_no_contracts_is_refused() -> None:
    raw = {key: value for key, value in json.loads(plan().to_json()).items() if key != "contracts"}
    with pytest.raises(ConfigError, match="lacks the key 'contracts'"):
        RunPlan.from_json(json.dumps(raw))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("rounds", [1, 12, 500])
def test_all_releases_of_a_plan_compose_to_its_budget(epsilon: float, rounds: int) -> None:
    ours = plan(privacy={"epsilon": epsilon}, additive={"gradient_rounds": rounds})
    for cost in ours.costs().values():
        assert cost.mu_squared == pytest.approx(gdp_mu(epsilon, 1e-5) ** 2, rel=1e-12)
        assert cost.within(epsilon, 1e-5)
    assert promise([ours]).epsilon == pytest.approx(epsilon, rel=1e-6)


@pytest.mark.parametrize(("secure_sum", "power"), [(True, 1.0), (False, 0.5)])
def test_a_patient_at_several_sites_is_promised_less(secure_sum: bool, power: float) -> None:
    mu = gdp_mu(3.0, 1e-5)
    single = plan(privacy={"epsilon": 3, "multiplicity": 1, "secure_sum": secure_sum})
    assert promise([single]).epsilon_at_multiplicity == pytest.approx(3.0, rel=1e-9)
    several = plan(privacy={"epsilon": 3, "multiplicity": 3, "secure_sum": secure_sum})
    at_most = min(3, len(several.sites))  # nobody stands at more sites than train
    for cost in several.costs_at_multiplicity().values():
        assert math.sqrt(cost.mu_squared) == pytest.approx(mu * at_most**power)


def test_without_privacy_there_is_no_mu_to_name() -> None:
    ours = plan(privacy={"epsilon": "none"})
    assert (ours.mu, ours.mu_of("gram"), ours.secure_sum) == (None, None, False)
    with pytest.raises(ValueError, match="without privacy has no mechanism"):
        ours.release(HistogramQuery(np.array([2])), retry=False)
    told = promise([ours])
    figures = (told.epsilon, told.epsilon_at_multiplicity, told.epsilon_if_all_others_collude)
    assert figures == (None, None, None)


@pytest.mark.parametrize(
    ("n", "dropouts", "colluders", "shares", "secure"),
    [
        (1, 0, 1, 1, False),
        (2, 0, 1, 1, True),
        (3, 0, 1, 2, True),
        (4, 1, 1, 2, True),
        (10, 3, 1, 6, True),
        (11, 3, 1, 7, True),
        (100, 30, 10, 60, True),
    ],
)
def test_noise_suffices_after_dropouts_and_against_colluders(
    n: int, dropouts: int, colluders: int, shares: int, secure: bool
) -> None:
    ours = plan(sites=[f"provider-{number}" for number in range(n)])
    assert (ours.dropouts, ours.colluders) == (dropouts, colluders)
    assert (ours.noise_shares, ours.secure_sum) == (shares, secure)
    assert ours.minimum_sites == n - dropouts
    assert ours.retries == (2 if dropouts else 0)


def test_nobody_has_to_trust_others_noise_where_there_is_no_secure_sum() -> None:
    ours = plan(privacy={"secure_sum": False}, sites=[f"provider-{n}" for n in range(10)])
    assert (ours.noise_shares, ours.retries, ours.dropouts) == (1, 0, 3)
    assert ours.costs_alone() == ours.costs()


# --- families and sampled rounds -----------------------------------------------------------------

SITES = [f"provider-{number}" for number in range(10)]


def sampled(epsilon: float = 3.0, rate: float = 0.2, **privacy: Any) -> RunPlan:
    return plan(
        sites=SITES,
        family="neural",
        neural={"sample_rate": rate, "gradient_rounds": 20},
        privacy={"epsilon": epsilon, **privacy},
    )


def test_a_family_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"no family 'boosting'; families are additive, neural"):
        plan(family="boosting")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("private", [True, False])
def test_a_training_asks_in_the_steps_that_its_plan_prices(family: str, private: bool) -> None:
    ours = plan(
        family=family,
        neural={"gradient_rounds": 3, "hidden": [4], "width": 2},
        privacy={"epsilon": 3 if private else "none"},
    )
    asked = Counter(
        query.step for query in largest_queries(ours.training(), max_records=4, private=private)
    )
    assert dict(asked) == {name: step.rounds for name, step in ours.steps.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sites", [SITES[:2], SITES])
def test_the_shares_of_either_side_add_up_to_the_budget(family: str, sites: list[str]) -> None:
    ours = plan(family=family, sites=sites)
    sides = Counter({"train": ours.share_of("retry"), "held_out": ours.share_of("retry")})
    for step in ours.steps:
        sides[ours.population_of(step).side] += ours.share_of(step)
    assert dict(sides) == pytest.approx({"train": 1.0, "held_out": 1.0})


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("rate", [0.02, 0.2, 0.9])
def test_a_sampled_plan_costs_all_of_its_budget_and_no_more(epsilon: float, rate: float) -> None:
    ours = sampled(epsilon, rate)
    told = promise([ours])
    assert told.epsilon == pytest.approx(epsilon, rel=1e-6)
    assert worst_cost(ours.costs(), 1e-5).within(epsilon, 1e-5)
    train = next(cost for side, cost in ours.costs().items() if side.side == "train")  # type: ignore[union-attr]
    assert train.epsilon(1e-5) == pytest.approx(epsilon, rel=1e-6)
    full = sampled(epsilon, 1.0)
    assert (ours.mu_of("gradient") or 0.0) > (full.mu_of("gradient") or 0.0) * 0.9
    assert ours.mu_of("histogram") == full.mu_of("histogram")
    assert (ours.sample_rate_of("gradient"), ours.sample_rate_of("retry")) == (rate, 1.0)


def test_without_privacy_nobody_is_left_out_of_a_round() -> None:
    assert plan(
        family="neural", neural={"sample_rate": 0.2}, privacy={"epsilon": "none"}
    ).sample_rate_of("gradient") == 1.0  # fmt: skip


def test_a_budget_too_small_to_sample_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"too small.*neural\.sample_rate = 1"):
        sampled(1e-4).costs()


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize(("mu", "rate"), [(0.5, 0.2), (1.5, 0.1), (0.8, 0.6)])
def test_what_is_promised_at_several_sites_holds_for_a_sampled_round(
    copies: int, mu: float, rate: float
) -> None:
    """One round, one secure sum: each of the sites takes the patient for itself, or does not."""
    grid = np.linspace(-12, 12 + copies * mu, 400_001)

    def density(shift: float) -> Any:
        return np.exp(-((grid - shift) ** 2) / 2) / math.sqrt(2 * math.pi)

    there = sum(
        math.comb(copies, k) * rate**k * (1 - rate) ** (copies - k) * density(k * mu)
        for k in range(copies + 1)
    )
    cost = PrivacyCost.of(mu * math.sqrt(copies), sample_rate=rate, rounds=copies)
    for delta in (1e-5, 1e-3):
        epsilon = cost.epsilon(delta)
        for one, other in ((there, density(0.0)), (density(0.0), there)):
            lost = np.trapezoid(np.maximum(one - math.exp(epsilon) * other, 0.0), grid)
            assert lost <= delta


def test_a_patient_at_several_sites_is_promised_less_by_a_sampled_plan() -> None:
    figures = [promise([sampled(multiplicity=m)]).epsilon_at_multiplicity or 0.0 for m in (1, 2, 3)]
    assert figures[0] == pytest.approx(3.0, rel=1e-6)
    assert figures == sorted(figures)
    alone = promise([sampled()]).epsilon_if_all_others_collude
    assert alone is not None
    assert alone > 3.0


def test_a_sites_own_share_of_the_noise_is_what_is_left_if_all_others_collude() -> None:
    ours = plan(sites=SITES)
    assert ours.noise_shares == 6
    for side, cost in ours.costs_alone().items():
        assert cost.mu_squared == pytest.approx(6 * ours.costs()[side].mu_squared)
    query = HistogramQuery(np.array([2]))
    release = ours.release(query, retry=False)
    own = query.sensitivity / release.noise_std(1)  # against what the sum's noise gives
    assert own**2 == pytest.approx(6 * (ours.mu_of("histogram") or 0.0) ** 2, rel=0.01)


def test_several_plans_promise_what_they_cost_together() -> None:
    parts = [plan(privacy={"epsilon": 1}), sampled(1.0)]
    together = promise(parts).epsilon or 0.0
    assert 1.2 < together < 2.0
    open_plan = plan(privacy={"epsilon": "none"})
    for plans in ([open_plan], [*parts, open_plan]):
        told = promise(plans)
        assert (told.epsilon, told.epsilon_at_multiplicity) == (None, None)
    for wrong in ([], [plan(), plan(privacy={"epsilon": 3, "delta": 1e-6})]):
        with pytest.raises(ValueError, match="one delta"):
            promise(wrong)
