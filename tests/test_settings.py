"""Settings and plans: what is misspelt, missing or of the wrong type is named."""

import json
import math
from typing import Any

import pytest

from data_contracts.errors import GroundTruthError
from federation.plan import RunPlan
from federation.settings import ConfigError, PrivacySettings, parse
from models.accounting import gdp_epsilon, gdp_mu
from models.additive_training import AdditiveSettings

PLAN: dict[str, Any] = {
    "task": "approved",
    "payers": ["payer-1"],
    "providers": ["provider-1", "provider-2"],
    "sites": ["provider-1", "provider-2"],
    "privacy": {"epsilon": 3},
    "additive": {"gradient_rounds": 10},
    "split_key": "k",
    "test_share": 0.2,
}


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


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"plan"', "{}"])
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
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        plan(**changes)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("rounds", [1, 12, 500])
def test_all_releases_of_a_plan_compose_to_its_budget(epsilon: float, rounds: int) -> None:
    ours = plan(privacy={"epsilon": epsilon}, additive={"gradient_rounds": rounds})
    assert ours.composed_mu() == pytest.approx(gdp_mu(epsilon, 1e-5), rel=1e-12)
    assert gdp_epsilon(ours.composed_mu() or 0.0, 1e-5) == pytest.approx(epsilon, rel=1e-6)


@pytest.mark.parametrize(("secure_sum", "power"), [(True, 1.0), (False, 0.5)])
def test_a_patient_at_several_sites_is_promised_less(secure_sum: bool, power: float) -> None:
    single = plan(privacy={"epsilon": 3, "multiplicity": 1, "secure_sum": secure_sum})
    assert single.joint_mu == pytest.approx(gdp_mu(3.0, 1e-5), rel=1e-9)
    several = plan(privacy={"epsilon": 3, "multiplicity": 3, "secure_sum": secure_sum})
    at_most = min(3, len(several.sites))  # nobody stands at more sites than train
    assert several.joint_mu == pytest.approx(gdp_mu(3.0, 1e-5) * at_most**power)


def test_without_privacy_there_is_no_mu_to_name() -> None:
    ours = plan(privacy={"epsilon": "none"})
    assert (ours.mu, ours.mu_of("gram"), ours.composed_mu()) == (None, None, None)
    assert (ours.joint_mu, ours.mu_alone, ours.secure_sum) == (None, None, False)


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
    assert ours.mu_alone == ours.mu
