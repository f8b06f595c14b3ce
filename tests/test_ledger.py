"""The privacy ledger: what it charges, refuses, remembers, notices and shows."""

import hashlib
import itertools
import json
import math
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.manifest import SiteManifest
from experiments import cli
from federation import ledger_chain
from federation.ledger import (
    EVERYBODY,
    AlreadyChargedError,
    BudgetChangeError,
    BudgetExceededError,
    Charge,
    Ledger,
    LedgerDamagedError,
    LedgerError,
    LedgerMismatchError,
    LedgerRolledBackError,
    LedgerUnavailableError,
    Patients,
    Population,
    cost_of,
    ledger_file,
    worst_cost,
)
from federation.ledger_chain import ORIGIN, Head, canonical, chain_hash, open_chain
from federation.ledger_charges import costs_of
from federation.ledger_export import LedgerExportError, export
from models.accounting import PrivacyCost, best_order, gdp_epsilon, gdp_mu

DELTA = 1e-5
TRAIN = Population("network-2026", 0.25, "train")
HELD_OUT = Population("network-2026", 0.25, "held_out")
RUN = "0123456789abcdef"


def charge(round_number: int = 1, **changes: object) -> Charge:
    """A charge of a gradient round; keyword arguments replace its fields."""
    mu = float(changes.get("mu", 0.1))  # type: ignore[arg-type]
    changes = {"noise_std": 2.0 / mu} | changes if mu else changes
    fields: dict[str, object] = {
        "run": RUN,
        "plan": "fedcba98",
        "purpose": "training",
        "task": "approved",
        "step": "gradient",
        "round": round_number,
        "population": TRAIN,
        "mechanism": "discrete Gaussian",
        "n_values": 40,
        "sensitivity": 2.0,
        "noise_std": 1.0,
        "mu": mu,
    }
    return Charge(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return ledger_file(tmp_path)


def opened(file: Path, epsilon: float | None = 10.0, **changes: object) -> Ledger:
    return Ledger.open(
        file, **({"site": "provider-01", "epsilon": epsilon, "delta": DELTA} | changes)
    )  # type: ignore[arg-type]


def head_file(file: Path) -> Path:
    return file.parent / "ledger.head"


@contextmanager
def tampering(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody who has taken the triggers away and puts them back."""
    with closing(sqlite3.connect(file)) as db:
        triggers = list(db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        yield db
        for _, statement in triggers:
            db.execute(statement)
        db.commit()


def rechain(file: Path) -> None:
    """Make the chain and the head file fit whatever the bodies are."""
    with tampering(file) as db:
        prev, last = ORIGIN.hash, 0
        for seq, body in list(db.execute("SELECT seq, body FROM entry ORDER BY seq")):
            prev, last = chain_hash(prev, body), seq
            db.execute("UPDATE entry SET hash = ? WHERE seq = ?", (prev, seq))
    head_file(file).write_text(json.dumps({"seq": last, "hash": prev}))


# --- what a charge is -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "RUN-1"},
        {"run": ""},
        {"plan": "fedcba9"},
        {"app": "not hexadecimal"},
        {"task": "a\x1b[31mb"},
        {"mechanism": "x" * 201},
        {"purpose": "curiosity"},
        {"population": "train"},
        {"round": 0},
        {"attempt": 0},
        {"n_values": 0},
        {"sensitivity": 0.0},
        {"sensitivity": math.inf},
        {"noise_std": 0.0},
        {"noise_std": math.nan},
        {"mu": 0.0, "noise_std": 1.0},
        {"mu": math.nan, "noise_std": 1.0},
        {"mu": 2e4},
        {"sample_rate": 0.0},
        {"sample_rate": 1.1},
        {"mu": 0.1, "noise_std": 19.9},
    ],
)
def test_a_charge_out_of_range_is_an_error(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        charge(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("share", "side"), [(0.0, "train"), (1.0, "train"), (0.5, "test")])
def test_a_population_is_one_side_of_a_split(share: float, side: str) -> None:
    with pytest.raises(ValueError, match="side of a split"):
        Population("k", share, side)  # type: ignore[arg-type]


def test_a_charge_comes_back_from_the_ledger_as_it_was_made(file: Path) -> None:
    made = [
        charge(1, attempt=2, app="ab" * 32, approved_by="privacy officer", purpose="audit"),
        charge(2, population=EVERYBODY, sample_rate=0.125, task="", purpose="statistics"),
        charge(3, mu=1 / 3, n_values=10**9, mechanism="Gauß, gerundet"),
    ]
    ledger = opened(file, sampling=True, clock=lambda: datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC))
    for item in made:
        ledger.charge(item)
    expected = [("2026-05-04T03:02:01Z", item) for item in made]
    assert opened(file, sampling=True).charges() == expected


def test_times_are_utc_whatever_the_clock_shows(file: Path) -> None:
    east = timezone(timedelta(hours=9))
    ledger = opened(file, clock=lambda: datetime(2026, 1, 1, 8, 0, 0, 999, tzinfo=east))
    assert ledger.charge(charge()).body["time"] == "2025-12-31T23:00:00Z"
    before = datetime.now(UTC).replace(microsecond=0)
    now = datetime.fromisoformat(opened(file).charge(charge(2)).body["time"])
    assert before <= now <= datetime.now(UTC)


# --- what charges add up to -------------------------------------------------------------------

POPULATIONS = (
    *(EVERYBODY, TRAIN, HELD_OUT),
    *(Population("other", 0.25, "train"), Population("other", 0.25, "held_out")),
    *(Population("network-2026", 0.5, "train"), Population("network-2026", 0.5, "held_out")),
)


def dearest_patient(charges: list[tuple[Patients, float]]) -> float:
    """Largest mu squared over patients, one for every way of standing on sides of splits."""
    sides = {p for p, _ in charges if isinstance(p, Population)}
    splits = sorted({(p.split_key, p.test_share) for p in sides})
    return max(
        sum(
            mu * mu
            for p, mu in charges
            if not isinstance(p, Population)
            or p.side == where[splits.index((p.split_key, p.test_share))]
        )
        for where in itertools.product(("train", "held_out"), repeat=len(splits))
    )


@given(
    charges=st.lists(
        st.tuples(st.sampled_from(POPULATIONS), st.floats(0.001, 2)), min_size=1, max_size=12
    )
)
def test_the_site_has_spent_what_its_dearest_patient_has_paid(
    charges: list[tuple[Patients, float]],
) -> None:
    made = [
        charge(number, population=population, mu=mu)
        for number, (population, mu) in enumerate(charges, start=1)
    ]
    assert cost_of(made, DELTA).mu_squared == pytest.approx(dearest_patient(charges), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    charges=st.lists(
        st.tuples(
            st.sampled_from(POPULATIONS), st.floats(0.01, 1), st.sampled_from([1.0, 0.3, 0.05])
        ),
        min_size=1,
        max_size=9,
    )
)
def test_with_sampled_releases_too_the_dearest_patient_counts(
    charges: list[tuple[Patients, float, float]],
) -> None:
    counts = Counter(charges)
    costs = costs_of(counts)
    splits = {(p.split_key, p.test_share) for p in costs if isinstance(p, Population)}
    ways = []
    for where in itertools.product(("train", "held_out"), repeat=len(splits)):
        mine = {EVERYBODY, *(Population(*split, side) for split, side in zip(splits, where))}  # type: ignore[arg-type]  # noqa: B905
        own = (cost for patients, cost in costs.items() if patients in mine)
        ways.append(sum(own, start=PrivacyCost()).epsilon(DELTA))
    assert worst_cost(costs, DELTA).epsilon(DELTA) == pytest.approx(max(ways), rel=1e-12)


def test_beyond_so_many_ways_to_be_split_a_bound_is_taken() -> None:
    costs = {}
    for number in range(9):
        split = f"split-{number}", 0.25
        costs[Population(*split, "train")] = PrivacyCost.of(0.4, sample_rate=0.3)
        costs[Population(*split, "held_out")] = PrivacyCost.of(0.2)
    exact = max(
        (
            PrivacyCost.of(0.4, sample_rate=0.3, rounds=n) + PrivacyCost.of(0.2, rounds=9 - n)
        ).epsilon(DELTA)
        for n in range(10)
    )
    bound = worst_cost(costs, DELTA).epsilon(DELTA)
    assert exact <= bound <= 1.5 * exact


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_ledger_pays_for_all_that_fits_and_for_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = ledger_file(tmp_path_factory.mktemp("site"))
    ledger, paid = opened(file, 3.0), list[tuple[Patients, float]]()
    for number in range(1, 9):
        wanted = data.draw(st.tuples(st.sampled_from(POPULATIONS), st.floats(0.05, 0.6)))
        after = gdp_epsilon(math.sqrt(dearest_patient([*paid, wanted])), DELTA)
        if data.draw(st.booleans()):
            ledger = opened(file, 3.0)  # nothing is forgotten over a restart
        can = ledger.can_pay({wanted[0]: PrivacyCost.of(wanted[1])})
        assert can == (after <= 3.0)
        if can:
            ledger.charge(charge(number, population=wanted[0], mu=wanted[1]))
            paid.append(wanted)
        else:
            with pytest.raises(BudgetExceededError):
                ledger.charge(charge(number, population=wanted[0], mu=wanted[1]))
    if paid:
        assert ledger.spent().mu_squared == pytest.approx(dearest_patient(paid), rel=1e-12)
    assert len(ledger.charges()) == len(paid)


def test_training_and_evaluation_of_one_split_are_not_added(file: Path) -> None:
    ledger = opened(file)
    ledger.charge(charge(mu=0.6))
    ledger.charge(charge(step="evaluation", purpose="evaluation", population=HELD_OUT, mu=0.5))
    assert ledger.spent() == PrivacyCost.of(0.6)
    ledger.charge(charge(2, population=EVERYBODY, mu=0.8))
    assert ledger.spent().mu_squared == pytest.approx(1.0)


def test_sampled_releases_are_charged_as_such(file: Path) -> None:
    ledger = opened(file, sampling=True)
    for number in (1, 2, 3):
        ledger.charge(charge(number, sample_rate=0.05, mu=0.5))
    ledger.charge(charge(4, mu=0.5))
    expected = PrivacyCost.of(0.5, sample_rate=0.05, rounds=3) + PrivacyCost.of(0.5)
    for book in (ledger, opened(file, sampling=True)):
        assert book.spent().epsilon(DELTA) == pytest.approx(expected.epsilon(DELTA), rel=1e-12)
    assert ledger.spent().renyi


def test_a_ledger_counts_in_the_way_that_it_was_opened_with(file: Path) -> None:
    plain = opened(file)
    assert plain.order is None
    with pytest.raises(LedgerMismatchError, match=r"samples 0\.5 of them"):
        plain.charge(charge(sample_rate=0.5))
    assert not plain.can_pay({TRAIN: PrivacyCost.of(0.01, sample_rate=0.1)})
    assert plain.charges() == []
    with pytest.raises(LedgerMismatchError, match="opened with sampling = false"):
        opened(file, sampling=True)
    assert opened(file).order is None

    other = file.with_name("other.db")
    sampling = opened(other, sampling=True)
    assert sampling.order == best_order(10.0, DELTA) == opened(other, sampling=True).order
    assert Ledger.existing(other).order == sampling.order
    with pytest.raises(LedgerMismatchError, match="opened with sampling = true"):
        opened(other)
    opened(other, 5.0, sampling=True)
    assert Ledger.existing(other).order == sampling.order  # a lower budget changes no order


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 10.0])
def test_at_one_order_nothing_costs_less_than_in_the_best_way(file: Path, epsilon: float) -> None:
    ledger = opened(file, epsilon, sampling=True)
    number = 0
    while True:
        number += 1
        rate = (1.0, 0.3, 0.05)[number % 3]
        made = charge(number, mu=0.05 / rate**0.5, sample_rate=rate)
        if not ledger.can_pay({TRAIN: made.cost}):
            with pytest.raises(BudgetExceededError, match=f"The budget is {epsilon:g}"):
                ledger.charge(made)
            break
        ledger.charge(made)
    assert number > 4
    assert ledger.spent_epsilon() <= epsilon * (1 + 1e-9)
    assert ledger.spent_epsilon() == ledger.spent().epsilon(DELTA, ledger.order)
    assert ledger.spent().epsilon(DELTA) <= ledger.spent_epsilon()
    assert ledger.left() < epsilon / 2


@pytest.mark.parametrize("epsilon", [0.1, 3.0, 10.0])
def test_a_plan_may_ask_for_the_whole_budget_to_the_last_bit(file: Path, epsilon: float) -> None:
    ledger, total = opened(file, epsilon), gdp_mu(epsilon, DELTA)
    shares = np.random.default_rng(1).dirichlet(np.ones(25))
    mus = (total * np.sqrt(shares)).tolist()
    plan = [charge(number, mu=mu) for number, mu in enumerate(mus, start=1)]
    assert ledger.can_pay({TRAIN: cost_of(plan, DELTA)})
    for item in plan:
        ledger.charge(item)
    assert ledger.spent().epsilon(DELTA) <= epsilon * (1 + 1e-9)
    assert ledger.left() < 1e-3 * epsilon
    with pytest.raises(BudgetExceededError):
        ledger.charge(charge(26, mu=0.01 * total))


def test_what_is_left_is_what_one_more_run_may_cost(file: Path) -> None:
    ledger = opened(file, 10.0)
    ledger.charge(charge(mu=gdp_mu(3.0, DELTA)))
    assert ledger.left() > 7.0  # epsilon grows more slowly than its parts
    left = gdp_mu(ledger.left(), DELTA)
    assert ledger.can_pay({EVERYBODY: PrivacyCost.of(left * (1 - 1e-6))})
    assert not ledger.can_pay({EVERYBODY: PrivacyCost.of(left * (1 + 1e-6))})


def test_a_refused_charge_leaves_no_trace(file: Path) -> None:
    ledger = opened(file, 1.0)
    before = ledger.entries()
    with pytest.raises(BudgetExceededError):
        ledger.charge(charge(mu=3.0))
    assert ledger.entries() == before
    ledger.charge(charge(mu=0.1))  # the same release may still be charged


def test_the_refusal_tells_the_site_what_is_left_and_who_can_raise_it(file: Path) -> None:
    ledger = opened(file, 1.0)
    ledger.charge(charge(mu=0.2))
    with pytest.raises(BudgetExceededError) as refusal:
        ledger.charge(charge(7, mu=3.0))
    message = str(refusal.value)
    for words in (
        *("provider-01", "gradient 7", RUN, "budget is 1", "delta = 1e-05", f"{ledger.left():.4g}"),
        *(f"site budget {file.parent.parent}", "--raise-to", "--approved-by"),
    ):
        assert words in message


def test_a_plan_that_cannot_be_paid_is_refused_before_its_first_charge(file: Path) -> None:
    ledger = opened(file, 3.0)
    half = PrivacyCost.of(gdp_mu(3.0, DELTA), rounds=1)
    assert ledger.can_pay({TRAIN: half, HELD_OUT: half})
    assert not ledger.can_pay({TRAIN: half, EVERYBODY: half})
    assert ledger.spent() == PrivacyCost()


# --- the same release twice -------------------------------------------------------------------


def test_the_same_release_is_never_charged_twice(file: Path) -> None:
    opened(file).charge(charge(3))
    for book in (opened(file), Ledger.existing(file)):
        with pytest.raises(AlreadyChargedError, match="gradient 3"):
            book.charge(charge(3, mu=0.01, purpose="audit"))
    opened(file).charge(charge(3, attempt=2))
    opened(file).charge(charge(3, run="f" * 8))
    opened(file).charge(charge(3, step="gram"))
    assert len(opened(file).charges()) == 4


def test_a_ledger_sees_at_once_what_another_process_has_charged(file: Path) -> None:
    first, second = opened(file, 1.0), opened(file, 1.0)
    first.charge(charge(1, mu=0.2))
    with pytest.raises(AlreadyChargedError):
        second.charge(charge(1))
    with pytest.raises(BudgetExceededError):
        second.charge(charge(2, mu=0.2))
    assert second.spent() == first.spent() == PrivacyCost.of(0.2)


def test_threads_may_share_a_ledger(file: Path) -> None:
    ledger, cost = opened(file, None), 0.1
    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda n: ledger.charge(charge(n, mu=cost)), range(1, 21)))
    assert sorted(entry.seq for entry in entries) == list(range(2, 22))
    assert ledger.verify().seq == 21
    assert ledger.spent().mu_squared == pytest.approx(20 * cost**2)


# --- the budget -------------------------------------------------------------------------------


def test_without_a_budget_everything_is_recorded_and_nothing_limited(file: Path) -> None:
    ledger = opened(file, None)
    ledger.charge(charge(mu=100.0))
    assert ledger.budget() is None
    assert ledger.left() == math.inf
    assert ledger.spent().epsilon(DELTA) > 1000


def test_a_lower_budget_in_site_toml_holds_at_once_and_is_written_down(file: Path) -> None:
    opened(file, 10.0).charge(charge())
    ledger = opened(file, 2.0)
    assert ledger.budget() == 2.0
    body = ledger.entries()[-1].body
    assert (body["kind"], body["epsilon"], body["approved_by"]) == ("budget", 2.0, "site.toml")
    assert len(opened(file, 2.0).entries()) == 3  # once
    unlimited = opened(file.with_name("public.db"), None)
    assert opened(file.with_name("public.db"), 5.0).budget() == unlimited.budget() == 5.0


@pytest.mark.parametrize("higher", [20.0, None])
def test_a_higher_budget_in_site_toml_changes_nothing(file: Path, higher: float | None) -> None:
    opened(file, 1.0)
    ledger = opened(file, higher)
    assert ledger.budget() == 1.0
    assert len(ledger.entries()) == 1
    with pytest.raises(BudgetExceededError):
        ledger.charge(charge(mu=3.0))


def test_a_budget_is_raised_by_an_entry_that_says_who_and_why(file: Path) -> None:
    ledger = opened(file, 1.0)
    other = opened(file, 1.0)
    entry = ledger.set_budget(20.0, approved_by=" the board ", reason="second study")
    assert (entry.body["approved_by"], entry.body["reason"]) == ("the board", "second study")
    assert other.budget() == 20.0
    other.charge(charge(mu=3.0))
    ledger.set_budget(1.0, approved_by="the board", reason="study over")
    with pytest.raises(BudgetExceededError):
        other.charge(charge(2, mu=0.001))
    assert other.left() == 0.0


@pytest.mark.parametrize(
    ("epsilon", "who", "why"),
    [
        *((0.0, "me", "so"), (-1.0, "me", "so"), (math.inf, "me", "so"), (math.nan, "me", "so")),
        *((1.0, "", "so"), (1.0, "me", " "), (1.0, "me", "a\nb"), (1.0, "m" * 1001, "so")),
    ],
)
def test_a_change_that_says_too_little_is_refused(
    file: Path, epsilon: float, who: str, why: str
) -> None:
    ledger = opened(file)
    with pytest.raises(BudgetChangeError):
        ledger.set_budget(epsilon, approved_by=who, reason=why)
    assert ledger.budget() == 10.0


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, DELTA), (math.inf, DELTA), (math.nan, DELTA), (1.0, 0.0)]
)
def test_an_impossible_budget_makes_no_ledger(file: Path, epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match="no budget"):
        opened(file, epsilon, delta=delta)
    assert not file.exists()


@pytest.mark.parametrize("changes", [{"site": "provider-02"}, {"delta": 1e-6}])
def test_the_ledger_of_another_site_or_delta_is_refused(
    file: Path, changes: dict[str, object]
) -> None:
    opened(file)
    with pytest.raises(LedgerMismatchError, match=r"provider-01 at delta = 1e-05.*never change"):
        opened(file, **changes)
    assert len(Ledger.existing(file).entries()) == 1


# --- damage -----------------------------------------------------------------------------------


@pytest.fixture
def written(file: Path) -> Path:
    """A ledger of six entries."""
    ledger = opened(file, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    for number in range(1, 5):
        ledger.charge(charge(number))
    ledger.set_budget(12.0, approved_by="the board", reason="second study")
    return file


def assert_refused(file: Path, error: type[LedgerError], words: str) -> None:
    """Neither opening nor charging is possible, and nothing was charged."""
    for attempt in (lambda: opened(file), lambda: Ledger.existing(file)):
        with pytest.raises(error, match=words):
            attempt()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET body = '{}' WHERE seq = 3",
        "DELETE FROM entry WHERE seq = 6",
        "INSERT INTO entry VALUES (9, '{}', '')",
        "REPLACE INTO entry VALUES (6, '{}', '')",
        "INSERT INTO entry SELECT 3, body, hash FROM entry WHERE seq = 4",
    ],
)
def test_the_file_itself_refuses_changes(written: Path, statement: str) -> None:
    with closing(sqlite3.connect(written)) as db:
        with pytest.raises(sqlite3.IntegrityError, match="entries of a ledger"):
            db.execute(statement)
        db.commit()
    assert Ledger.existing(written).verify().seq == 6


@pytest.mark.parametrize(
    ("statement", "first_bad"),
    [
        ("UPDATE entry SET body = replace(body, '0.1', '0.0') WHERE seq = 3", 3),
        ("UPDATE entry SET hash = replace(hash, 'a', 'b') WHERE seq = 4", 4),
        ("UPDATE entry SET body = replace(body, '12.0', '99.0') WHERE seq = 6", 6),
        ("DELETE FROM entry WHERE seq = 2", 2),
        ("DELETE FROM entry WHERE seq < 4", 1),
        ("UPDATE entry SET seq = 40 WHERE seq = 4", 4),
        ("INSERT INTO entry SELECT 7, body, hash FROM entry WHERE seq = 6", 7),
        ("UPDATE entry SET body = (SELECT body FROM entry WHERE seq = 4) WHERE seq = 3", 3),
    ],
)
def test_the_first_entry_that_was_tampered_with_is_named(
    written: Path, statement: str, first_bad: int
) -> None:
    ledger = Ledger.existing(written)
    with tampering(written) as db:
        db.execute(statement)
    assert_refused(written, LedgerDamagedError, f"entry {first_bad} does not fit.*Restore")
    with pytest.raises(LedgerDamagedError):
        ledger.verify()


def test_what_is_cut_off_the_end_is_missed(written: Path) -> None:
    ledger = Ledger.existing(written)
    with tampering(written) as db:
        db.execute("DELETE FROM entry WHERE seq > 4")
    assert_refused(written, LedgerRolledBackError, r"not hold entry 6, which ledger\.head knows")
    with pytest.raises(LedgerRolledBackError, match="entry 6, which this process has seen"):
        ledger.charge(charge(9))


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER entries_never_change",
        "CREATE TRIGGER more AFTER INSERT ON entry BEGIN SELECT 1; END",
        "CREATE TABLE more (x)",
        "DROP TABLE entry",
    ],
)
def test_a_missing_trigger_or_another_table_is_damage(written: Path, statement: str) -> None:
    ledger = Ledger.existing(written)
    with closing(sqlite3.connect(written)) as db:
        db.execute(statement)
        db.commit()
    assert_refused(written, LedgerDamagedError, "tables or triggers|any entry")
    with pytest.raises(LedgerDamagedError):
        ledger.charge(charge(9))


def test_a_chain_forged_to_the_end_is_noticed_by_who_has_seen_its_head(written: Path) -> None:
    ledger = Ledger.existing(written)
    head = ledger.verify()
    with tampering(written) as db:
        db.execute("UPDATE entry SET body = replace(body, '0.1', '0.0001') WHERE seq = 3")
    rechain(written)
    forged = Ledger.existing(written)  # the limit of what the file can show by itself
    assert head not in [entry.head for entry in forged.entries()]
    with pytest.raises(LedgerRolledBackError, match="this process has seen"):
        ledger.charge(charge(9))


@pytest.mark.parametrize(
    ("seq", "body"),
    [
        (2, "not JSON"),
        (2, "[]"),
        (2, '{"kind":"gift"}'),
        (2, '{"kind":"charge"}'),
        (1, '{"kind":"charge"}'),
        (1, '{"kind":"budget","epsilon":1.0}'),
        (1, '{"kind":"opened","site":"a","format":2,"epsilon":1.0,"delta":0.1}'),
        (3, '{"kind":"opened","site":"a","format":1,"epsilon":1.0,"delta":0.1}'),
        (3, canonical({"kind": "charge"} | charge(2).to_body() | {"mu": -1.0})),
        (3, canonical({"kind": "charge"} | charge(2).to_body() | {"mu": "0"})),
        (3, canonical({"kind": "charge"} | charge(2).to_body() | {"run": ["a"]})),
        (3, canonical({"kind": "charge"} | charge(2).to_body() | {"population": {"side": "x"}})),
    ],
)
def test_an_entry_that_this_version_does_not_understand_stops_everything(
    written: Path, seq: int, body: str
) -> None:
    with tampering(written) as db:
        db.execute("UPDATE entry SET body = ? WHERE seq = ?", (body, seq))
    rechain(written)
    assert_refused(written, LedgerDamagedError, "understands.*install the version")


def test_bad_news_does_not_spoil_what_a_ledger_knows(written: Path) -> None:
    ledger = Ledger.existing(written)
    spent, good = ledger.spent(), (written.read_bytes(), head_file(written).read_bytes())
    Ledger.existing(written).charge(charge(8))
    with tampering(written) as db:
        db.execute("UPDATE entry SET body = replace(body, '0.1', '0.0') WHERE seq = 7")
    with pytest.raises(LedgerDamagedError, match="entry 7"):
        ledger.spent()
    written.write_bytes(good[0])
    head_file(written).write_bytes(good[1])
    assert ledger.spent() == spent
    ledger.charge(charge(8))
    assert ledger.spent().mu_squared == pytest.approx(5 * 0.01)


def test_an_older_copy_of_the_ledger_is_refused(written: Path) -> None:
    for old_entries in range(1, 6):
        old = written.with_name(f"old-{old_entries}.db")
        ledger = opened(old, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
        for number in range(1, old_entries):
            ledger.charge(charge(number))
        written.write_bytes(old.read_bytes())
        assert_refused(written, LedgerRolledBackError, "Restore ledger.db and ledger.head together")


def test_an_older_copy_of_both_files_is_noticed_only_by_who_has_seen_more(file: Path) -> None:
    ledger = opened(file)
    old = file.read_bytes(), head_file(file).read_bytes()
    ledger.charge(charge())
    file.write_bytes(old[0])
    head_file(file).write_bytes(old[1])
    assert opened(file).spent() == PrivacyCost()  # the docstring says so
    with pytest.raises(LedgerRolledBackError, match="this process has seen"):
        ledger.charge(charge(2))


def test_a_head_file_that_lags_is_brought_up_to_the_chain(file: Path) -> None:
    ledger = opened(file)
    heads = [head_file(file).read_bytes()]
    for number in range(1, 5):
        ledger.charge(charge(number))
        heads.append(head_file(file).read_bytes())
    for old in heads:
        head_file(file).write_bytes(old)
        assert opened(file).verify().seq == 5
        assert head_file(file).read_bytes() == heads[-1]


def test_only_the_first_entry_may_lack_a_head_file(file: Path) -> None:
    ledger = opened(file)
    head_file(file).unlink()
    ledger.charge(charge())
    head_file(file).unlink()
    with pytest.raises(LedgerDamagedError, match=r"ledger\.head is gone.*may be older"):
        ledger.charge(charge(2))
    assert_refused(file, LedgerDamagedError, r"ledger\.head is gone")


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "null", "\xff", '{"seq": "1", "hash": "a"}', '{"seq": 1, "hash": 2}']
)
def test_a_head_file_that_cannot_be_read_is_damage(written: Path, text: str) -> None:
    head_file(written).write_text(text, encoding="latin-1")
    assert_refused(written, LedgerDamagedError, r"ledger\.head is unreadable.*backup")


@pytest.mark.parametrize("head", [Head(3, "a" * 64), Head(7, "a" * 64), Head(-1, "a" * 64)])
def test_a_head_file_of_another_chain_is_refused(written: Path, head: Head) -> None:
    head_file(written).write_text(json.dumps(head._asdict()))
    assert_refused(written, LedgerRolledBackError, "which ledger.head knows")


def test_a_lost_ledger_is_not_begun_anew_while_its_head_file_knows_better(file: Path) -> None:
    opened(file)
    file.unlink()
    with pytest.raises(LedgerRolledBackError, match="any entry"):
        opened(file)
    with pytest.raises(LedgerRolledBackError, match="any entry"):
        Ledger.existing(file)  # the attempt has left an empty file


def test_a_ledger_that_is_moved_away_under_a_running_process_pays_nothing(file: Path) -> None:
    ledger = opened(file)
    file.rename(file.with_name("elsewhere.db"))
    with pytest.raises(LedgerUnavailableError, match="moved"):
        ledger.charge(charge())


def test_a_file_without_entries_is_no_ledger(file: Path) -> None:
    with pytest.raises(LedgerUnavailableError, match="nothing has been released"):
        Ledger.existing(file)
    file.parent.mkdir()
    file.touch()  # what a crash leaves before the first entry
    with pytest.raises(LedgerUnavailableError, match="nothing has been released"):
        Ledger.existing(file)
    assert opened(file).verify().seq == 1
    with tampering(file) as db:
        db.execute("DELETE FROM entry")
    head_file(file).unlink()
    with pytest.raises(LedgerDamagedError, match="no first entry"):
        Ledger.existing(file)


@pytest.mark.parametrize("content", [b"groundtruth\n" * 999, b"SQLite format 3\0" + b"\7" * 9000])
def test_a_file_that_is_no_database_is_damage(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    assert_refused(file, LedgerDamagedError, "SQLite cannot read it")


def test_broken_structure_is_damage_even_where_every_entry_can_be_read(written: Path) -> None:
    content = bytearray(written.read_bytes())
    content[24:28] = content[92:96] = b"\0\0\0\1"
    content += b"\0" * 4096  # a page that belongs to nothing
    content[28:32] = (len(content) // 4096).to_bytes(4, "big")
    written.write_bytes(content)
    assert_refused(written, LedgerDamagedError, "structure is broken")


def exported(file: Path) -> str:
    return "".join(f"{e.prev}{e.text}{e.hash}\n" for e in Ledger.existing(file).entries())


@pytest.mark.slow
@pytest.mark.parametrize(("more", "every"), [(0, 29), (40, 61)])  # one leaf page, and many
def test_no_flipped_byte_changes_what_the_ledger_says_without_being_noticed(
    written: Path, more: int, every: int
) -> None:
    for number in range(100, 100 + more):
        Ledger.existing(written).charge(charge(number, mu=0.01))
    content, head = written.read_bytes(), head_file(written).read_bytes()
    entries, before = Ledger.existing(written).entries(), exported(written)
    offsets = set(range(100)) | set(range(0, len(content), every))  # the header, and a sample
    for text in (part for entry in entries[:6] for part in (entry.text, entry.hash)):
        start = content.index(text.encode())
        offsets |= set(range(start - 8, start + len(text), 10 if more else 1))
    rng = np.random.default_rng(6)
    noticed = 0
    for offset in sorted(offsets):
        flipped = bytearray(content)
        flipped[offset] ^= int(rng.integers(1, 256))
        written.write_bytes(flipped)
        head_file(written).write_bytes(head)
        try:
            assert exported(written) == before, f"silent change at {offset}"
            if offset % 100 == 0:  # where nothing has changed, charging works
                Ledger.existing(written).charge(charge(99))
                assert exported(written).startswith(before)
        except LedgerError:
            noticed += 1
        for left in written.parent.glob("ledger.db-*"):
            left.unlink()
    assert noticed > len(offsets) / 3


def test_no_flipped_byte_of_the_head_file_is_an_accident(written: Path) -> None:
    head, before = head_file(written).read_bytes(), exported(written)
    for offset in range(len(head)):
        flipped = bytearray(head)
        flipped[offset] ^= 1
        head_file(written).write_bytes(flipped)
        try:
            assert exported(written) == before
        except LedgerError:
            head_file(written).write_bytes(head)


# --- the export -------------------------------------------------------------------------------

# The README prints this; it needs nothing but Python.
CHECKER = """
import hashlib, json, sys

lines = open(sys.argv[1], encoding="ascii").read().splitlines()
first, prev = json.loads(lines[0]), "0" * 64
for number, line in enumerate(lines[1:], start=1):
    entry, text = json.loads(line), line[line.index('"body":') + 7 : -1]
    fits = entry["prev"] == prev and entry["body"]["seq"] == number
    if not fits or hashlib.sha256((prev + text).encode()).hexdigest() != entry["hash"]:
        sys.exit(f"entry {number} does not fit the chain")
    prev = entry["hash"]
if (len(lines) - 1, prev) != (first["entries"], first["head"]):
    sys.exit("the export is cut short")
print(f"{first['entries']} entries, chain intact, head {prev}")
"""


def check(file: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CHECKER, file], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_an_auditor_can_check_an_export_without_this_software(
    written: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ledger.jsonl"
    head = export(Ledger.existing(written), out)
    assert head == Ledger.existing(written).verify()
    assert check(out) == (0, f"6 entries, chain intact, head {head.hash}\n")
    lines = out.read_text().splitlines(keepends=True)
    bodies = [json.loads(line)["body"] for line in lines[1:]]
    assert [body["kind"] for body in bodies] == ["opened", *["charge"] * 4, "budget"]
    assert bodies[1]["population"] == {
        "split_key": "network-2026",
        "test_share": 0.25,
        "side": "train",
    }
    assert [body["seq"] for body in bodies] == [1, 2, 3, 4, 5, 6]

    for tampered, words in (
        ([*lines[:3], lines[3].replace('"mu":0.1', '"mu":0.0'), *lines[4:]], "entry 3"),
        ([*lines[:3], *lines[4:]], "entry 3"),
        ([*lines[:3], lines[4], lines[3], *lines[5:]], "entry 3"),
        (lines[:-1], "cut short"),
    ):
        out.write_text("".join(tampered))
        code, said = check(out)
        assert code == 1
        assert words in said


def test_an_export_never_writes_over_a_file(written: Path) -> None:
    content = written.read_bytes()
    with pytest.raises(LedgerExportError, match="another file"):
        export(Ledger.existing(written), written)
    assert written.read_bytes() == content


def test_the_hash_rule_is_the_documented_one(written: Path) -> None:
    first, second, *_ = Ledger.existing(written).entries()
    zeros = "0" * 64
    assert first.hash == hashlib.sha256(f"{zeros}{first.text}".encode()).hexdigest()
    assert second.hash == hashlib.sha256(f"{first.hash}{second.text}".encode()).hexdigest()
    assert second.text == json.dumps(second.body, sort_keys=True, separators=(",", ":"))


# --- the file ---------------------------------------------------------------------------------


def test_commits_are_as_durable_as_sqlite_can_make_them(written: Path) -> None:
    with open_chain(written) as chain:
        assert chain._db.execute("PRAGMA synchronous").fetchone() == (3,)
        assert chain._db.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_what_was_not_committed_is_not_kept(written: Path) -> None:
    with open_chain(written) as chain:
        chain.append(Head(6, "a" * 64), {"kind": "charge"})
    assert Ledger.existing(written).verify().seq == 6


def test_a_lock_that_is_held_for_too_long_is_named(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_chain, "_BUSY_SECONDS", 0.05)
    ledger = Ledger.existing(written)
    with closing(sqlite3.connect(written, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailableError, match=r"another process for 0\.05 s.*Try again"):
            ledger.charge(charge(9))
        other.execute("ROLLBACK")
        other.execute("BEGIN")
        other.execute("SELECT * FROM entry").fetchone()  # a reader bars the commit
        with pytest.raises(LedgerUnavailableError, match="another process"):
            ledger.charge(charge(9))
    assert ledger.charge(charge(9)).seq == 7


def test_a_lock_that_is_given_back_in_time_is_waited_for(written: Path) -> None:
    ledger = Ledger.existing(written)
    with closing(sqlite3.connect(written, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.2, other.execute, ("ROLLBACK",)).start()
        assert ledger.charge(charge(9)).seq == 7


# --- commands ---------------------------------------------------------------------------------

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command as a shell would: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["groundtruth", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capfd.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A private site with a ledger of two runs."""
    folder = tmp_path / "provider-01"
    folder.mkdir()
    tables = {"pa_request": folder / "pa_request.parquet"}
    SiteManifest("provider-01", "provider", tables, budget_epsilon=10.0).write(folder)
    ledger = opened(ledger_file(folder), clock=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    for number in (1, 2, 3):
        ledger.charge(charge(number, mu=0.2))
    ledger.charge(charge(purpose="evaluation", step="evaluation", population=HELD_OUT, mu=0.3))
    ledger.charge(charge(run="ab" * 16, task="[red]cost[/red]", population=EVERYBODY, mu=0.4))
    return folder


def test_budget_shows_what_was_spent_by_run_and_by_purpose(invoke: Invoke, site: Path) -> None:
    code, out, err = invoke("site", "budget", site)
    assert code == 0, err
    spent = gdp_epsilon(math.sqrt(3 * 0.2**2 + 0.4**2), DELTA)
    for words in (
        f"epsilon = {spent:.4g} of 10 spent in 5 releases",
        *("2026-01-02", RUN[:8], "approved", "evaluation, training", "abababab"),
        f"{gdp_epsilon(math.sqrt(0.12), DELTA):.4g}",
        *("[red]cost[/red]", "one more run may cost"),
    ):
        assert words in out
    assert "site.toml" not in out


def test_budget_for_machines(invoke: Invoke, site: Path) -> None:
    code, out, _ = invoke("site", "budget", site / "site.toml", "--json")
    assert code == 0
    state = json.loads(out)
    ledger = Ledger.existing(ledger_file(site))
    assert state["spent"] == pytest.approx(ledger.spent().epsilon(DELTA))
    assert state["left"] == pytest.approx(ledger.left())
    assert (state["site"], state["budget"], state["delta"]) == ("provider-01", 10.0, DELTA)
    first, second = state["runs"]
    assert (first["run"], first["releases"], first["purposes"]) == (
        *(RUN, 4),
        ["evaluation", "training"],
    )
    assert second["epsilon"] == pytest.approx(gdp_epsilon(0.4, DELTA))
    assert [group["releases"] for group in state["purposes"]] == [4, 1]


def test_the_budget_is_raised_and_lowered_by_command(invoke: Invoke, site: Path) -> None:
    signed = ("--approved-by", "privacy officer", "--reason", "study 2")
    code, out, err = invoke("site", "budget", site, "--raise-to", 5, *signed)
    assert code == 0
    assert "budget of site provider-01: from epsilon = 10 to epsilon = 5" in err
    assert "of 5 spent" in out
    assert "site.toml allows more; 5 holds until it is raised" in out
    code, out, _ = invoke("site", "budget", site, "--raise-to", 8, *signed, "--json")
    assert code == 0
    assert json.loads(out)["budget"] == 8
    body = Ledger.existing(ledger_file(site)).entries()[-1].body
    assert (body["epsilon"], body["approved_by"], body["reason"]) == (
        *(8.0, "privacy officer"),
        "study 2",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--raise-to", 5), "who approved it"),
        (("--raise-to", 5, "--approved-by", "me"), "the reason"),
        (("--raise-to", 0, "--approved-by", "me", "--reason", "so"), "positive number"),
        (("--raise-to", "nan", "--approved-by", "me", "--reason", "so"), "positive number"),
        (("--raise-to", 20, "--approved-by", "me", "--reason", "so"), "budget_epsilon = 20 there"),
    ],
)
def test_a_change_by_command_that_says_too_little_changes_nothing(
    invoke: Invoke, site: Path, arguments: tuple[object, ...], words: str
) -> None:
    code, _, err = invoke("site", "budget", site, *arguments)
    assert (code, words in err) == (2, True), err
    assert Ledger.existing(ledger_file(site)).budget() == 10.0


def test_site_toml_below_the_ledger_is_said_to_hold_soon(invoke: Invoke, site: Path) -> None:
    file = site / "site.toml"
    manifest = SiteManifest.load(file)
    SiteManifest(manifest.name, manifest.role, manifest.tables, budget_epsilon=2.0).write(site)
    code, out, _ = invoke("site", "budget", site)
    assert code == 0
    assert "site.toml says 2; that holds from the next run on" in out


def test_a_site_without_limit_or_releases(invoke: Invoke, site: Path) -> None:
    manifest = SiteManifest.load(site)
    folder = site.parent / "synthetic"
    folder.mkdir()
    SiteManifest("provider-01", "provider", manifest.tables, "synthetic").write(folder)
    opened(ledger_file(folder), None)
    code, out, _ = invoke("site", "budget", folder)
    assert code == 0
    assert "epsilon = 0 of no limit spent in 0 releases (delta" in out
    code, _, err = invoke(
        *("site", "budget", folder, "--raise-to", 500, "--approved-by", "me", "--reason", "so")
    )
    assert code == 0
    assert "from no limit to epsilon = 500" in err


def test_commands_without_a_ledger_make_none(invoke: Invoke, site: Path) -> None:
    for file in (site / "state").iterdir():
        file.unlink()
    for command in (("budget",), ("verify",), ("export-ledger", "--out", site / "x")):
        code, _, err = invoke("site", command[0], site, *command[1:])
        assert (code, "nothing has been released" in err) == (2, True), err
    assert list((site / "state").iterdir()) == []


def test_the_ledger_of_another_site_is_not_shown(invoke: Invoke, site: Path) -> None:
    manifest = SiteManifest.load(site)
    SiteManifest("provider-09", manifest.role, manifest.tables).write(site)
    code, _, err = invoke("site", "budget", site)
    assert (code, "is that of site provider-01" in err) == (2, True), err


def test_verify_prints_the_head_or_names_the_first_bad_entry(invoke: Invoke, site: Path) -> None:
    file = ledger_file(site)
    head = Ledger.existing(file).verify()
    code, out, _ = invoke("site", "verify", site)
    assert (code, out.strip()) == (0, f"6 entries, chain intact, head {head.hash}")
    with tampering(file) as db:
        db.execute("UPDATE entry SET body = replace(body, '0.2', '0.1') WHERE seq = 3")
    code, _, err = invoke("site", "verify", site)
    assert (code, "entry 3 does not fit the chain" in err) == (2, True), err


def test_export_ledger_writes_what_the_checker_accepts(
    invoke: Invoke, site: Path, tmp_path: Path
) -> None:
    out = tmp_path / "audit.jsonl"
    code, said, _ = invoke("site", "export-ledger", site, "--out", out)
    assert code == 0
    assert said.startswith("6 entries in")
    assert check(out)[0] == 0
    code, _, err = invoke("site", "export-ledger", site, "--out", out)
    assert (code, "exists already" in err) == (2, True), err
