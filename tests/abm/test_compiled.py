"""The compiled loop and single agents: equal to the last bit."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import costs

from fcfn_abm.abm import order
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.learning import LEARNING_RULES, LearningRule
from fcfn_abm.learning.base import scalar_moves
from fcfn_abm.scenario import Scenario

pytestmark = pytest.mark.slow

RULES = [{"kind": kind} for kind in LEARNING_RULES] + [
    {"kind": "best-response", "gain": 1.0},
    {"kind": "best-response", "gain": "auto"},
    {"kind": "best-response", "gain": 0.3, "cautious": False},
    {"kind": "gradient", "gain": "auto"},
]
SCENARIOS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "learning": st.sampled_from(RULES),
        "mechanism": st.sampled_from([{"kind": "stackelberg"}] * 3 + [{"kind": "ic-mle"}]),
        "server": st.sampled_from([{"kind": "anticipate"}, {"kind": "gradient"}]),
        "information": st.fixed_dictionaries(
            {
                "reports": st.sampled_from(["full", "aggregate"]),
                "noise": st.sampled_from([0.0, 0.1]),
            }
        ),
        "exit": st.fixed_dictionaries(
            {
                "criterion": st.sampled_from(["best-response", "loss"]),
                "patience": st.integers(1, 3),
                "reentry": st.booleans(),
            }
        ),
        "rounds": st.fixed_dictionaries(
            {
                "order": st.sampled_from(["in_turn", "simultaneous"]),
                "turns": st.sampled_from(["random", "fixed"]),
                "start": st.sampled_from(["random", "cold", "warm"]),
                "participation": st.sampled_from([0.5, 1.0]),
            }
        ),
    }
)


def play(tree, rho, many, n_rounds=12, rule=None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "MANY", many)
        scenario = Scenario.model_validate({"population": {"n_nodes": rho.size}, **tree})
        market = PrivacyMarket(scenario, rho=rho)
        if rule:
            market.set_rule(rule)
        market.run_until(n_rounds)
    return market


def require_equal_bits(tree, rho):
    rules = [
        tree["learning"],
        *(g.get("learning", {}) for g in tree.get("population", {}).get("groups", [])),
    ]
    if any(rule.get("kind") == "estimate" for rule in rules):
        tree = {**tree, "information": {**tree["information"], "reports": "full"}}
    if tree["mechanism"]["kind"] == "ic-mle":
        tree = {**tree, "game": {"budget": 2.0}, "server": {"kind": "fixed"}}
    if LEARNING_RULES[tree["learning"]["kind"]].needs == "full":
        tree = {**tree, "information": {**tree["information"], "reports": "full"}}
    compiled, single = play(tree, rho, 0), play(tree, rho, 10**9)
    assert compiled.state == single.state
    assert compiled.verdict == single.verdict
    for name in ("epsilon", "utility", "idle_rounds", "exit_round"):
        assert_array_equal(getattr(compiled.columns, name), getattr(single.columns, name))
    for name, kept in single.columns.memory.items():
        assert_array_equal(compiled.columns.memory[name], kept)


@settings(max_examples=300)
@given(tree=SCENARIOS, rho=costs(max_size=12))
def test_many_nodes_together_give_the_bits_of_single_agents(tree, rho):
    require_equal_bits(tree, rho)


PARTS = st.fixed_dictionaries(
    {"n_nodes": st.integers(0, 4)},
    optional={
        "learning": st.sampled_from(RULES),
        "start": st.sampled_from(["random", "cold", "warm"]),
        "exit": st.fixed_dictionaries(
            {
                "criterion": st.sampled_from(["best-response", "loss"]),
                "patience": st.integers(1, 3),
                "reentry": st.booleans(),
            }
        ),
    },
)


@settings(max_examples=300)
@given(
    tree=SCENARIOS,
    parts=st.lists(PARTS, min_size=1, max_size=3),
    rho=costs(min_size=12, max_size=16),
)
def test_groups_give_the_bits_of_single_agents_whatever_rules_they_mix(tree, parts, rho):
    groups = [{"name": f"g{index}", **part} for index, part in enumerate(parts)]
    groups.append({"name": "rest"})
    require_equal_bits({**tree, "population": {"n_nodes": rho.size, "groups": groups}}, rho)


class HalfEpsilon(LearningRule):
    """Report half as much as the rule below would."""

    def next_epsilon(self, seen, rng):
        return 0.5 * super().next_epsilon(seen, rng)


class EqualShare(LearningRule):
    """Depend on the others' total, whatever the rule below depends on."""

    def next_epsilon(self, seen, rng):
        del rng
        return 0.25 * (seen.others + seen.epsilon)


class NeverPays(LearningRule):
    """Plan to stay out as soon as the report is above a tenth of the cap's equal share."""

    def plan(self, seen):
        return super().plan(seen) * (seen.epsilon * seen.rho < 0.1 * seen.budget)


class Forgetful(LearningRule):
    """Remember nothing of a round, and report what stands."""

    def learn(self, news):
        for name, kept in news.memory.items():
            kept[:] = self.memory[name]


class SmallGain(LearningRule):
    """Take small steps, where the rule below has a gain."""

    gain = 0.125

    def gain_for(self, n_active):
        return 1.0 / (n_active + 8)


OVERRIDES = [HalfEpsilon, EqualShare, NeverPays, Forgetful, SmallGain]


@pytest.mark.parametrize("order_of_moves", ["in_turn", "simultaneous"])
@pytest.mark.parametrize("override", OVERRIDES)
@pytest.mark.parametrize("kind", list(LEARNING_RULES))
def test_a_rule_that_overrides_another_plays_alike_at_any_size(kind, override, order_of_moves):
    rule = type("Mine", (override, LEARNING_RULES[kind]), {})()
    rho = np.random.default_rng(2).uniform(0.5, 1.5, 20)
    tree = {"seed": 3, "learning": {"kind": kind}, "rounds": {"order": order_of_moves}}
    many, few = (play(tree, rho, size, 4, rule) for size in (0, 10**9))
    assert_array_equal(many.columns.epsilon, few.columns.epsilon)
    assert_array_equal(many.columns.idle_rounds, few.columns.idle_rounds)


@pytest.mark.parametrize("n_nodes", [order.MANY - 1, order.MANY])
def test_a_rule_that_halves_best_responses_halves_them_from_five_hundred_nodes_on(n_nodes):
    rule = type("Mine", (HalfEpsilon, LEARNING_RULES["best-response"]), {})()
    tree = {"seed": 3, "rounds": {"order": "simultaneous", "start": "warm"}}
    market = play(tree, np.ones(n_nodes), order.MANY, 0, rule)
    before = market.total_epsilon
    market.step()
    assert market.total_epsilon == pytest.approx(0.5 * before)  # a best response would stand still


def test_a_compiled_form_is_that_of_its_own_class():
    compiled = {kind for kind in LEARNING_RULES if scalar_moves(LEARNING_RULES.create(kind), 9)}
    assert compiled >= {"best-response", "gradient", "replicator", "fixed"}
    for kind in compiled:
        heir = type("Heir", (LEARNING_RULES[kind],), {})
        assert scalar_moves(heir(), 9) is None


def test_without_compilation_the_numbers_are_the_same():
    code = (
        "import numpy as np\n"
        "from fcfn_abm.build.market import PrivacyMarket\n"
        "from fcfn_abm.scenario import Scenario\n"
        "tree = {'seed': 3, 'population': {'n_nodes': 600}}\n"
        "market = PrivacyMarket(Scenario.model_validate(tree))\n"
        "market.run_until(5)\n"
        "print(market.columns.epsilon.tobytes().hex())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_DISABLE_JIT": off},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for off in ("0", "1")
    ]
    assert outputs[0] == outputs[1]
    assert len(np.frombuffer(bytes.fromhex(outputs[0].strip()))) == 600


def test_small_markets_do_not_wait_for_numba():
    code = (
        "import sys\n"
        "from fcfn_abm.build.market import PrivacyMarket\n"
        "PrivacyMarket().run_until()\n"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
