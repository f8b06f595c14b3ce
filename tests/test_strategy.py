"""The coordinator's side: whatever a site does wrong stops the run and is named."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from federation import site
from federation.exchange import Patience
from federation.identity import IDENTITY_FILE, REGISTRY_FILE, Identity, Registry
from federation.in_process import run_in_process
from federation.messages import Answer, decode_request, encode_answer
from federation.plan import RunPlan
from federation.roster import KeyOffer
from federation.secure_sum import Upload
from federation.settings import PrivacySettings
from federation.strategy import SiteFailureError, TrainingResult, on_each_round, run
from models.mechanisms import GaussianSum

PlanMaker = Callable[..., RunPlan]
Deed = Callable[[Answer | Upload], Answer | Upload | RecordDict]

BAD = "provider-02"  # the site that misbehaves, neither the first nor the last of the plan


def client(plan: RunPlan, deeds: dict[str, Deed], names: dict[str, object]) -> ClientApp:
    """Sites that do their work, except that some answer, or call themselves, as told."""
    app = ClientApp()

    @app.query()
    def hello(message: Message, context: Context) -> Message:
        file = Path(str(context.node_config["site"]))
        own = file.parent.name
        asked = message.content["config"]
        assert isinstance(asked, ConfigRecord)
        said: dict[str, object] = {"site": names.get(own, own)}
        if own in plan.sites and (offer := site.greet(file, plan, str(asked["run"]))):
            said |= {"key": offer.public_key, "signature": offer.signature}
        record = ConfigRecord(said)  # type: ignore[arg-type]
        content = RecordDict({"config": record}) if names.get(own) != "" else RecordDict({})
        return Message(content, reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        file = Path(str(context.node_config["site"]))
        answer = site.answer(file, plan, decode_request(message.content, plan.digest))
        deed = deeds.get(file.parent.name)
        done = answer if deed is None else deed(answer)
        content = done if isinstance(done, RecordDict) else encode_answer(done)
        return Message(content, reply_to=message)

    return app


def carry_out(
    plan: RunPlan,
    folders: list[Path],
    registry: Registry | None = None,
    *,
    deeds: dict[str, Deed] | None = None,
    names: dict[str, object] | None = None,
    timeout: float = 1.0,
) -> TrainingResult:
    results = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        known = registry or Registry.load(folders[0].parents[1] / REGISTRY_FILE)
        results.append(run(grid, plan, registry=known, patience=Patience(quorum_seconds=timeout)))

    nodes = [{"site": str(folder / "site.toml")} for folder in folders]
    run_in_process(server, client(plan, deeds or {}, names or {}), nodes, {})
    return results[0]


def same_model(first: TrainingResult, second: TrainingResult) -> bool:
    return first.model.to_json() == second.model.to_json()


# --- a good run --------------------------------------------------------------------------------


def test_a_run_asks_every_step_in_order_and_says_what_it_cost(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    plan = make_plan()
    rounds = carry_out(plan, provider_folders).rounds
    assert [(record.step, record.round) for record in rounds] == [
        ("histogram", 1),
        ("gram", 1),
        ("gradient", 1),
        ("gradient", 2),
        ("gradient", 3),
        ("recalibration", 1),
        ("evaluation", 1),
    ]
    for record in rounds:
        enough = record.sensitivity / (plan.mu_of(record.step) or 0.0)
        assert record.noise_std == pytest.approx(
            enough * math.sqrt(3 / plan.noise_shares), rel=1e-3
        )
        assert (record.sites, record.retries) == (3, 0)
        assert record.mu == plan.mu_of(record.step)


def test_the_same_seed_gives_the_same_model_bit_for_bit(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    first = carry_out(make_plan(noise_seed=5), provider_folders)
    assert same_model(first, carry_out(make_plan(noise_seed=5), provider_folders[::-1]))
    assert not same_model(first, carry_out(make_plan(noise_seed=6), provider_folders))


def test_without_a_seed_no_two_runs_are_the_same(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    plan = make_plan(noise_seed=None)
    assert not same_model(carry_out(plan, provider_folders), carry_out(plan, provider_folders))


def test_a_site_outside_the_plan_is_not_asked(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    def never(_: Answer) -> Answer:
        raise AssertionError("asked")

    names = tuple(folder.name for folder in provider_folders if folder.name != BAD)
    plan = make_plan(sites=names)
    with_it = carry_out(plan, provider_folders, deeds={BAD: never})
    without = carry_out(plan, [folder for folder in provider_folders if folder.name != BAD])
    assert same_model(with_it, without)


# --- a site does wrong -------------------------------------------------------------------------


def replace(**changes: object) -> Deed:
    return lambda answer: dataclasses.replace(answer, **changes)  # type: ignore[arg-type]


def changed(edit: Callable[[np.ndarray], np.ndarray]) -> Deed:
    """Change what was sent, after it was signed."""

    def deed(answer: Answer | Upload) -> Answer | Upload:
        if isinstance(answer, Upload):
            return dataclasses.replace(answer, words=edit(answer.words))
        return dataclasses.replace(answer, values=edit(answer.values))

    return deed


def with_value(value: float) -> Deed:
    return changed(lambda values: np.where(np.arange(values.size) == 0, value, values))


def unmasked(answer: Answer | Upload) -> Answer:
    assert isinstance(answer, Upload)
    return Answer(answer.site, answer.words.astype(np.float64))


def fail(_: Answer | Upload) -> Answer:
    raise RuntimeError("disk full")


GARBAGE = RecordDict({"arrays": ArrayRecord({"v": Array(np.ones(2))}), "config": ConfigRecord({})})
PRIVATE, UNMASKED, OPEN = (
    PrivacySettings(epsilon=3.0),
    PrivacySettings(epsilon=3.0, secure_sum=False),
    PrivacySettings(epsilon=None),
)

ANYWAY: dict[str, tuple[Deed, str]] = {
    "another's name": (replace(site="provider-01"), "in the name of provider-01"),
    "no name": (replace(site=""), "in the name of"),
    "garbage": (lambda _: GARBAGE, "nonsense"),
    "nothing": (lambda _: RecordDict({}), "nonsense"),
    "an exception": (fail, "disk full"),
}
WRONG_SUMS: dict[str, tuple[Deed, str]] = {
    "too short": (changed(lambda v: v[:-1]), "values, not"),
    "too long": (changed(lambda v: np.append(v, 0.0)), "values, not"),
    "empty": (changed(lambda v: v[:0]), "values, not"),
    "NaN": (with_value(math.nan), "finite"),
    "infinity": (with_value(math.inf), "finite"),
    "a matrix": (changed(lambda v: v[None, :]), "vector"),
    **ANYWAY,
}
WRONG_UPLOADS: dict[str, tuple[Deed, str]] = {
    "too short": (changed(lambda v: v[:-1]), "shape"),
    "too long": (changed(lambda v: np.append(v, v[:1])), "shape"),
    "empty": (changed(lambda v: v[:0]), "shape"),
    "a matrix": (changed(lambda v: v[None, :]), "vector"),
    "another word": (changed(lambda v: v + np.uint64(1)), "not signed"),
    "no signature": (replace(signature=b""), "not signed"),
    "another's attempt": (replace(attempt=b"x" * 32), "another attempt"),
    "no noise": (unmasked, "the plan asks for noise"),
    **ANYWAY,
}
CASES = [(OPEN, wrong) for wrong in WRONG_SUMS.items()]
CASES += [(privacy, wrong) for privacy in (PRIVATE, UNMASKED) for wrong in WRONG_UPLOADS.items()]
IDS = [f"{'plain' if p is OPEN else 'masked' if p.secure_sum else 'unmasked'}, {w[0]}"
       for p, w in CASES]  # fmt: skip


@pytest.mark.parametrize("bad", ["provider-01", BAD, "provider-03"])
@pytest.mark.parametrize(("privacy", "wrong"), CASES, ids=IDS)
def test_a_site_that_answers_wrongly_stops_the_run_and_is_named(
    make_plan: PlanMaker,
    provider_folders: list[Path],
    privacy: PrivacySettings,
    wrong: tuple[str, tuple[Deed, str]],
    bad: str,
) -> None:
    name, (deed, word) = wrong
    if name == "another's name" and bad == "provider-01":
        deed, word = replace(site="provider-03"), "in the name of provider-03"
    with pytest.raises(SiteFailureError, match=word) as caught:
        carry_out(make_plan(privacy=privacy), provider_folders, deeds={bad: deed})
    named = [folder.name for folder in provider_folders if folder.name in str(caught.value)]
    assert bad in named
    assert set(named) <= {bad, *({"provider-01", "provider-03"} if "name" in name else set())}


def test_a_failure_in_a_later_round_stops_the_run_too(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    asked = []

    def deed(answer: Answer | Upload) -> Answer | Upload:
        asked.append(answer)
        return answer if len(asked) < 5 else fail(answer)

    with pytest.raises(SiteFailureError, match=f"{BAD}: disk full"):
        carry_out(make_plan(), provider_folders, deeds={BAD: deed})
    assert len(asked) == 5


def test_all_sites_that_fail_are_named(make_plan: PlanMaker, provider_folders: list[Path]) -> None:
    with pytest.raises(SiteFailureError, match=r"provider-01: disk full; provider-03: disk full"):
        carry_out(make_plan(), provider_folders, deeds={"provider-01": fail, "provider-03": fail})


def test_two_nodes_of_one_name_stop_the_run(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    with pytest.raises(SiteFailureError, match="two nodes call themselves provider-01"):
        carry_out(make_plan(), provider_folders, names={BAD: "provider-01"})


def test_a_site_under_a_name_outside_the_plan_is_missed(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    with pytest.raises(SiteFailureError, match=f"{BAD}: not online"):
        carry_out(make_plan(), provider_folders, names={BAD: "provider-99"})


@pytest.mark.parametrize("name", [3, ["provider-01"], ""], ids=["number", "list", "nothing"])
def test_a_node_that_does_not_say_who_it_is_stops_the_run(
    make_plan: PlanMaker, provider_folders: list[Path], name: object
) -> None:
    with pytest.raises(SiteFailureError, match="does not say which site"):
        carry_out(make_plan(), provider_folders, names={BAD: name})


def test_a_site_that_gives_no_key_for_the_run_takes_no_part(
    make_plan: PlanMaker, provider_folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    greet = site.greet
    monkeypatch.setattr(
        site, "greet", lambda file, *rest: None if BAD in str(file) else greet(file, *rest)
    )
    with pytest.raises(SiteFailureError, match=f"site {BAD} gave no key for the run"):
        carry_out(make_plan(), provider_folders)


def test_a_site_that_offers_a_weak_key_is_gone_on_without(
    make_plan: PlanMaker, provider_folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can agree on a secret over the point of order one, whoever has signed it."""
    greet = site.greet

    def weak(file: Path, plan: RunPlan, run: str) -> KeyOffer | None:
        offer = greet(file, plan, run)
        if offer is None or offer.site != BAD:
            return offer
        identity = Identity.load_or_create(file.parent / "state" / IDENTITY_FILE)
        offer = dataclasses.replace(offer, public_key=bytes(32))
        return dataclasses.replace(offer, signature=identity.sign(offer.message()))

    monkeypatch.setattr(site, "greet", weak)
    result = carry_out(make_plan(privacy=TOLERANT), provider_folders)
    assert [(each.site, each.step) for each in result.dropouts] == [(BAD, "hello")]
    assert "with which no secret can be agreed on" in result.dropouts[0].reason


def test_a_site_that_is_missing_stops_the_run_when_time_is_up(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    with pytest.raises(SiteFailureError, match="only 2 of 3 sites"):
        carry_out(make_plan(), provider_folders[:2], timeout=0.1)


def test_a_site_that_misses_among_others_is_named(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    plan = make_plan(sites=("provider-01", "provider-77"))
    with pytest.raises(SiteFailureError, match="provider-77: not online"):
        carry_out(plan, provider_folders)


def test_a_masked_sum_out_of_range_stops_the_run_though_nobody_can_be_named(
    make_plan: PlanMaker, provider_folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = GaussianSum.release

    def dishonest(self: GaussianSum, vector: np.ndarray, key: bytes) -> np.ndarray:
        return honest(self, vector, key) + np.uint64(2**62)

    monkeypatch.setattr(GaussianSum, "release", dishonest)
    with pytest.raises(SiteFailureError, match=r"out of range.*nobody can tell which"):
        carry_out(make_plan(), provider_folders)


# --- sites that vanish ---------------------------------------------------------------------------

TOLERANT = PrivacySettings(epsilon=3.0, dropouts=0.4, retries=2)


def vanish(after: int) -> Deed:
    """Answer so many times, then never again."""
    asked: list[object] = []

    def deed(answer: Answer | Upload) -> Answer | Upload:
        asked.append(answer)
        return answer if len(asked) <= after else fail(answer)

    return deed


@pytest.mark.parametrize("after", range(7))
def test_a_run_goes_on_without_a_site_that_vanishes_at_any_round(
    make_plan: PlanMaker, provider_folders: list[Path], after: int
) -> None:
    plan = make_plan(privacy=TOLERANT)
    done: list[int] = []
    with on_each_round(lambda: done.append(1)):
        result = carry_out(plan, provider_folders, deeds={BAD: vanish(after)})
    assert len(done) == len(result.rounds)
    assert [(each.site, each.reason) for each in result.dropouts] == [(BAD, f"{BAD}: disk full")]
    assert [record.sites for record in result.rounds] == [3] * after + [2] * (7 - after)
    assert [record.retries for record in result.rounds] == [0] * after + [1] + [0] * (6 - after)
    lost = result.rounds[after]
    assert lost.mu == plan.mu_of("retry")
    for record in result.rounds:
        enough = record.sensitivity / (record.mu or 0.0)
        noise = enough * math.sqrt(record.sites / plan.noise_shares)
        assert record.noise_std == pytest.approx(noise, rel=1e-3)


def test_a_site_that_is_not_there_at_the_start_is_gone_without_for_nothing(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    present = [folder for folder in provider_folders if folder.name != BAD]
    result = carry_out(make_plan(privacy=TOLERANT), present, timeout=0.1)
    assert [(each.site, each.step) for each in result.dropouts] == [(BAD, "hello")]
    assert {(record.sites, record.retries) for record in result.rounds} == {(2, 0)}


def test_below_the_minimum_the_round_is_thrown_away(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    deeds = {BAD: vanish(1), "provider-03": vanish(3)}
    with pytest.raises(SiteFailureError, match=r"provider-03: disk full; 1 of 3 sites are left"):
        carry_out(make_plan(privacy=TOLERANT), provider_folders, deeds=deeds)


def test_a_run_without_retries_left_ends(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    privacy = dataclasses.replace(TOLERANT, retries=0)
    with pytest.raises(SiteFailureError, match="0 retries are used up"):
        carry_out(make_plan(privacy=privacy), provider_folders, deeds={BAD: vanish(1)})


def test_without_masks_nothing_has_to_be_asked_again(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    privacy = dataclasses.replace(TOLERANT, secure_sum=False)
    result = carry_out(make_plan(privacy=privacy), provider_folders, deeds={BAD: vanish(2)})
    assert [record.sites for record in result.rounds] == [3, 3, 2, 2, 2, 2, 2]
    assert {record.retries for record in result.rounds} == {0}


def test_the_exact_sum_is_made_of_all_sites_or_not_at_all(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    privacy = dataclasses.replace(TOLERANT, epsilon=None)
    with pytest.raises(SiteFailureError, match=f"{BAD}: disk full"):
        carry_out(make_plan(privacy=privacy), provider_folders, deeds={BAD: fail})


def test_a_coordinator_with_another_registry_trusts_no_site(
    make_plan: PlanMaker, provider_folders: list[Path], registry: Registry
) -> None:
    keys = dict(registry.keys)
    keys["provider-01"], keys[BAD] = keys[BAD], keys["provider-01"]
    with pytest.raises(SiteFailureError, match=f"site {BAD} was not signed with its key") as caught:
        carry_out(make_plan(), provider_folders, Registry(keys))
    assert "site provider-01 was not signed with its key" in str(caught.value)


def test_whoever_looks_on_is_told_of_rounds_and_of_warnings(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    done: list[int] = []
    told: list[str] = []
    with on_each_round(lambda: done.append(1), told.append):
        carry_out(make_plan(privacy=TOLERANT), provider_folders, deeds={BAD: vanish(2)})
    assert len(done) == 7
    assert [line.partition(":")[0] for line in told] == ["gradient 1"]
