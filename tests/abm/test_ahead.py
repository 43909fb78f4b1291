"""Rounds that are played in one compiled call, and one by one: equal to the last bit."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import costs

from fcfn_abm.abm import order, stretch
from fcfn_abm.abm.market import Market
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.game.equilibrium import active_set
from fcfn_abm.scenario import Scenario

pytestmark = pytest.mark.slow

RULES = [
    {"kind": "best-response"},
    {"kind": "best-response", "gain": 1.0},
    {"kind": "best-response", "gain": "auto"},
    {"kind": "gradient"},
    {"kind": "replicator"},
    {"kind": "fixed"},
]
EXITS = st.fixed_dictionaries(
    {
        "criterion": st.sampled_from(["best-response", "loss"]),
        "patience": st.integers(1, 3),
        "reentry": st.booleans(),
    }
)
SCENARIOS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "learning": st.sampled_from(RULES),
        "server": st.sampled_from([{"kind": "anticipate"}, {"kind": "gradient"}]),
        "game": st.fixed_dictionaries(
            {
                "average_over": st.sampled_from(["active", "population"]),
                "alpha": st.sampled_from([10.0, 1.0, 0.02]),  # at the last no trade pays
            }
        ),
        "exit": EXITS,
        "rounds": st.fixed_dictionaries(
            {
                "order": st.sampled_from(["in_turn", "simultaneous"]),
                "turns": st.sampled_from(["random", "fixed"]),
                "start": st.sampled_from(["random", "cold", "warm"]),
                "payment": st.sampled_from(["announced", "after-reports"]),
                "maximum": st.sampled_from([7, 40, 300]),
            }
        ),
    }
)
FIXED = st.fixed_dictionaries({"budget": st.sampled_from([0.0, 1e-3, 2.0, 1e3])})
EVENTS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "change": st.sampled_from(["rho", "alpha", "beta"]),
                "scale": st.sampled_from([0.5, 3.0]),
                "round": st.integers(1, 30),
            }
        ),
        st.fixed_dictionaries(
            {
                "change": st.just("alpha"),
                "scale": st.sampled_from([0.5, 1.5]),
                "chance": st.just(0.2),
                "until": st.integers(1, 30),
            }
        ),
    ),
    min_size=1,
    max_size=3,
)


def play(tree, rho, *, ahead, stops=(None,), compiles=True):
    """Play a market: rounds together, compiled or the same loop in Python, or one by one."""
    with pytest.MonkeyPatch.context() as patch:
        if ahead and not compiles:
            from fcfn_abm.abm import play

            patch.setattr(play, "compile_loop", np.errstate(all="ignore"))
            patch.setattr(play, "play_of", play.play_of.__wrapped__)
        patch.setattr(stretch, "pays", lambda _: ahead)
        patch.setattr(order, "MANY", 10**9)
        market = PrivacyMarket(Scenario.model_validate(tree), rho=rho)
        for stop in stops:
            market.run_until(stop)
    return market


def require_equal(tree, rho, stops=(None,), **how):
    tree = {**tree, "population": {**tree.get("population", {}), "n_nodes": rho.size}}
    one, many = (play(tree, rho, ahead=ahead, stops=stops, **how) for ahead in (False, True))
    assert many.state == one.state
    assert many.verdict == one.verdict
    assert many.datacollector.model_vars == one.datacollector.model_vars
    assert many.datacollector._collection_steps == one.datacollector._collection_steps
    assert (many.steps, many.time) == (one.steps, one.time)
    assert vars(many._judge) == vars(one._judge)
    for name in ("epsilon", "payment", "utility", "idle_rounds", "exit_round"):
        assert_array_equal(getattr(many.columns, name), getattr(one.columns, name))
    for name, kept in one.columns.memory.items():
        assert_array_equal(many.columns.memory[name], kept)
    known = dict(one.server.memory)
    assert_array_equal(
        many.server.memory.pop("last_reports", None), known.pop("last_reports", None)
    )
    assert many.server.memory == known
    assert (many.budget, many.server.paid) == (one.budget, one.server.paid)
    assert (many.bulletin.total, many.answered_pool) == (one.bulletin.total, one.answered_pool)
    return many


@settings(max_examples=250)
@given(tree=SCENARIOS, rho=costs(max_size=12), stops=st.sampled_from([(None,), (1, 2, 5, None)]))
def test_rounds_together_give_the_bits_of_rounds_one_by_one(tree, rho, stops):
    require_equal(tree, rho, stops, compiles=False)


@settings(max_examples=150)
@given(tree=SCENARIOS, fixed=FIXED, rho=costs(max_size=12))
def test_a_fixed_cap_gives_the_same_bits(tree, fixed, rho):
    require_equal(
        {**tree, "server": {"kind": "fixed"}, "game": {**tree["game"], **fixed}},
        rho,
        compiles=False,
    )


@settings(max_examples=150)
@given(tree=SCENARIOS, events=EVENTS, rho=costs(max_size=12))
def test_events_give_the_same_bits(tree, events, rho):
    tree["rounds"]["maximum"] = 40
    require_equal({**tree, "events": events}, rho, compiles=False)


GROUPS = st.lists(
    st.fixed_dictionaries(
        {"n_nodes": st.integers(0, 4)},
        optional={"learning": st.sampled_from(RULES), "exit": EXITS},
    ),
    min_size=1,
    max_size=2,
)


@settings(max_examples=60)
@given(tree=SCENARIOS, groups=GROUPS, rho=costs(min_size=10, max_size=14))
def test_groups_give_the_same_bits_whatever_rules_they_mix(tree, groups, rho):
    named = [{"name": f"g{index}", **group} for index, group in enumerate(groups)]
    tree["rounds"]["maximum"] = 40
    people = {"groups": [*named, {"name": "rest"}]}
    require_equal({**tree, "population": people}, rho, compiles=False)


COMPILED = [("best-response", server) for server in ("anticipate", "gradient", "fixed")]
COMPILED += [(rule, "anticipate") for rule in ("gradient", "replicator")]


@pytest.mark.parametrize("order_of_moves", ["in_turn", "simultaneous"])
@pytest.mark.parametrize(("rule", "server"), COMPILED)
@pytest.mark.parametrize("n_nodes", [2, 9, 130, 777, 2500])
def test_compiled_digits_are_the_same_at_any_size(n_nodes, rule, server, order_of_moves):
    rho = np.random.default_rng(n_nodes).lognormal(size=n_nodes)
    tree = {
        "seed": 3,
        "server": {"kind": server},
        "learning": {"kind": rule},
        "rounds": {"order": order_of_moves, "maximum": 40},
        "game": {"budget": 3.0} if server == "fixed" else {},
    }
    if order_of_moves == "simultaneous" and rule != "replicator":
        tree["learning"]["gain"] = "auto"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretch, "_MOST_ROUNDS", 16)
        many = require_equal(tree, rho)
    assert many.round_index > 16 or many.verdict


def test_rounds_are_played_ahead_unless_somebody_looks():
    class Watched(PrivacyMarket):
        def learn(self, rows=None):
            super().learn(rows)

    def calls_of(kind, watch=lambda _: None):
        market, calls = kind(Scenario(seed=1)), []
        watch(market)
        played = market.play_ahead
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stretch, "pays", lambda _: True)
            patch.setattr(
                Market,
                "play_ahead",
                lambda self, *rest: calls.append(self.round_index) or played(*rest),
            )
            market.run_until(50)
        assert market.round_index == 50
        return calls

    assert calls_of(PrivacyMarket) == [1]
    assert calls_of(Watched) == []
    # once what is scheduled has happened, nobody waits
    assert calls_of(PrivacyMarket, lambda m: m.schedule_event(m.require_reports, at=3.5)) == [4]


@given(st.integers(0, 3000), st.integers(0, 99))
def test_compiled_sums_are_those_of_numpy(size, seed):
    from fcfn_abm.abm.measures import pairwise_sum

    values = np.random.default_rng(seed).lognormal(sigma=9, size=size)
    assert pairwise_sum(values, size) == values.sum()


@settings(max_examples=300)
@given(
    rho=st.one_of(
        costs(min_size=2, max_size=40),
        costs(min_size=2, max_size=40).map(lambda rho: 1.0 + 1e-15 * np.floor(rho)),  # ties
        st.integers(0, 99).map(
            lambda seed: 1.0 + 1e-9 * np.random.default_rng(seed).standard_normal(3000)
        ),
    )
)
def test_the_compiled_active_set_is_that_of_numpy(rho):
    from fcfn_abm.abm.active import find_active

    members, gap = np.empty(rho.size, dtype=np.intp), np.empty(rho.size)
    n_active, tau = find_active(rho, members, gap)
    expected = active_set(rho)
    assert_array_equal(members[:n_active], expected[0])
    assert_array_equal(gap[:n_active], expected[1])
    assert tau == expected[2]


def test_collected_rounds_can_be_read_in_between_and_copied():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretch, "pays", lambda _: True)
        market = PrivacyMarket(Scenario(seed=1))
        market.run_until(3)
        first = copy.deepcopy(market.datacollector).model_vars["budget"]
        seen = market.datacollector.model_vars
        market.run_until(7)
    assert market.datacollector.model_vars is seen
    assert seen["round"] == [1, 2, 3, 4, 5, 6, 7]
    assert market.datacollector._collection_steps == seen["round"]
    assert seen["budget"][:3] == first
