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
from federation.in_process import run_in_process
from federation.messages import Answer, decode_query, encode_answer
from federation.plan import RunPlan
from federation.settings import PrivacySettings
from federation.strategy import SiteFailureError, TrainingResult, run

PlanMaker = Callable[..., RunPlan]
Deed = Callable[[Answer], Answer | RecordDict]

BAD = "provider-02"  # the site that misbehaves, neither the first nor the last of the plan


def client(plan: RunPlan, deeds: dict[str, Deed], names: dict[str, object]) -> ClientApp:
    """Sites that do their work, except that some answer, or call themselves, as told."""
    app = ClientApp()

    @app.query()
    def hello(message: Message, context: Context) -> Message:
        own = Path(str(context.node_config["site"])).parent.name
        record = ConfigRecord({"site": names.get(own, own)})  # type: ignore[dict-item]
        content = RecordDict({"config": record}) if names.get(own) != "" else RecordDict({})
        return Message(content, reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        file = Path(str(context.node_config["site"]))
        answer = site.answer(file, plan, *decode_query(message.content))
        deed = deeds.get(file.parent.name)
        done = answer if deed is None else deed(answer)
        content = encode_answer(done) if isinstance(done, Answer) else done
        return Message(content, reply_to=message)

    return app


def carry_out(
    plan: RunPlan,
    folders: list[Path],
    *,
    deeds: dict[str, Deed] | None = None,
    names: dict[str, object] | None = None,
    timeout: float = 30.0,
) -> TrainingResult:
    results = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        results.append(run(grid, plan, timeout=timeout))

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
    ]
    for record in rounds:
        one_site = record.sensitivity / (plan.mu_of(record.step) or 0.0)
        assert record.noise_std == pytest.approx(one_site * math.sqrt(len(plan.sites)))


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


def with_value(value: float) -> Deed:
    def deed(answer: Answer) -> Answer:
        values = answer.values.copy()
        values[0] = value
        return dataclasses.replace(answer, values=values)

    return deed


def fail(_: Answer) -> Answer:
    raise RuntimeError("disk full")


GARBAGE = RecordDict({"arrays": ArrayRecord({"v": Array(np.ones(2))}), "config": ConfigRecord({})})

WRONG: dict[str, tuple[Deed, str]] = {
    "too short": (lambda a: dataclasses.replace(a, values=a.values[:-1]), "values, not"),
    "too long": (lambda a: dataclasses.replace(a, values=np.append(a.values, 0.0)), "values, not"),
    "empty": (lambda a: dataclasses.replace(a, values=a.values[:0]), "values, not"),
    "a single value": (lambda a: dataclasses.replace(a, values=a.values[:1]), "values, not"),
    "NaN": (with_value(math.nan), "finite"),
    "infinity": (with_value(math.inf), "finite"),
    "a matrix": (lambda a: dataclasses.replace(a, values=a.values[None, :]), "vector"),
    "no noise": (replace(noise_std=0.0), "noise"),
    "less noise": (lambda a: dataclasses.replace(a, noise_std=a.noise_std * (1 - 1e-6)), "noise"),
    "more noise": (lambda a: dataclasses.replace(a, noise_std=a.noise_std * 2), "noise"),
    "NaN noise": (replace(noise_std=math.nan), "noise"),
    "another's name": (replace(site="provider-01"), "in the name of provider-01"),
    "no name": (replace(site=""), "in the name of"),
    "garbage": (lambda _: GARBAGE, "nonsense"),
    "nothing": (lambda _: RecordDict({}), "nonsense"),
    "an exception": (fail, "disk full"),
}


@pytest.mark.parametrize("bad", ["provider-01", BAD, "provider-03"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_site_that_answers_wrongly_stops_the_run_and_is_named(
    make_plan: PlanMaker, provider_folders: list[Path], wrong: str, bad: str
) -> None:
    deed, word = WRONG[wrong]
    if wrong == "another's name" and bad == "provider-01":
        deed, word = replace(site="provider-03"), "in the name of provider-03"
    with pytest.raises(SiteFailureError, match=word) as caught:
        carry_out(make_plan(), provider_folders, deeds={bad: deed})
    named = [folder.name for folder in provider_folders if folder.name in str(caught.value)]
    assert bad in named
    assert set(named) <= {bad, *({"provider-01", "provider-03"} if "name" in wrong else set())}


def test_a_failure_in_a_later_round_stops_the_run_too(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    asked = []

    def deed(answer: Answer) -> Answer:
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
    with pytest.raises(SiteFailureError, match=f"not online: {BAD}"):
        carry_out(make_plan(), provider_folders, names={BAD: "provider-99"})


@pytest.mark.parametrize("name", [3, ["provider-01"], ""], ids=["number", "list", "nothing"])
def test_a_node_that_does_not_say_who_it_is_stops_the_run(
    make_plan: PlanMaker, provider_folders: list[Path], name: object
) -> None:
    with pytest.raises(SiteFailureError, match="does not say which site"):
        carry_out(make_plan(), provider_folders, names={BAD: name})


def test_a_site_that_is_missing_stops_the_run_when_time_is_up(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    with pytest.raises(SiteFailureError, match="only 2 of 3 sites"):
        carry_out(make_plan(), provider_folders[:2], timeout=0.1)


def test_a_site_that_misses_among_others_is_named(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    plan = make_plan(sites=("provider-01", "provider-77"))
    with pytest.raises(SiteFailureError, match="not online: provider-77"):
        carry_out(plan, provider_folders)


def test_sites_without_noise_are_refused_where_the_plan_asks_for_it_and_the_reverse(
    make_plan: PlanMaker, provider_folders: list[Path]
) -> None:
    plan = make_plan(privacy=PrivacySettings(epsilon=None))
    with pytest.raises(SiteFailureError, match="the plan asks for 0"):
        carry_out(plan, provider_folders, deeds={BAD: replace(noise_std=1.0)})
