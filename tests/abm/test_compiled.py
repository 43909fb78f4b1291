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
from fcfn_abm.learning import LEARNING_RULES
from fcfn_abm.scenario import Scenario

pytestmark = pytest.mark.slow

RULES = [
    *({"kind": kind} for kind in LEARNING_RULES),  # a new rule is played once it is registered
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


def play(tree, rho, many, n_rounds=12):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "MANY", many)
        scenario = Scenario.model_validate({"population": {"n_nodes": rho.size}, **tree})
        market = PrivacyMarket(scenario, rho=rho)
        market.run_until(n_rounds)
    return market


@settings(max_examples=300)
@given(tree=SCENARIOS, rho=costs(max_size=12))
def test_many_nodes_together_give_the_bits_of_single_agents(tree, rho):
    if tree["mechanism"]["kind"] == "ic-mle":
        tree = {**tree, "game": {"budget": 2.0}, "server": {"kind": "fixed"}}
    compiled, single = play(tree, rho, 0), play(tree, rho, 10**9)
    assert compiled.state == single.state
    assert compiled.verdict == single.verdict
    for name in ("epsilon", "utility", "idle_rounds", "exit_round"):
        assert_array_equal(getattr(compiled.columns, name), getattr(single.columns, name))
    for name, kept in single.columns.memory.items():
        assert_array_equal(compiled.columns.memory[name], kept)


COMPILED = [
    kind for kind in LEARNING_RULES if "scalar_moves" in vars(type(LEARNING_RULES.create(kind)))
]


def test_the_rules_of_large_markets_are_compiled():
    assert set(COMPILED) >= {"best-response", "gradient", "replicator", "fixed"}


def halves_its_epsilon(base):
    class Halving(base):
        def next_epsilon(self, seen, rng):  # noqa: ARG002
            return seen.epsilon / 2

    return Halving


def plans_to_leave(base):
    class Leaving(base):
        def planned(self, seen):
            return 0.0 * seen.epsilon

    return Leaving


def forgets(base):
    class Forgetful(base):
        def learn(self, news):
            for kept in news.memory.values():
                kept[:] = 1e-3

    return Forgetful


def steps_a_quarter(base):
    class Slow(base):
        def gain_for(self, n_active):  # noqa: ARG002
            return 0.25

    return Slow


@pytest.mark.parametrize("rounds_order", ["in_turn", "simultaneous"])
@pytest.mark.parametrize("change", [halves_its_epsilon, plans_to_leave, forgets, steps_a_quarter])
@pytest.mark.parametrize("kind", COMPILED)
def test_what_a_subclass_overrides_is_played_in_large_markets_too(kind, change, rounds_order):
    """A fast path that takes subclasses would play the class above them."""
    subclass = change(LEARNING_RULES[kind])

    def played(many):
        tree = {"population": {"n_nodes": 40}, "learning": {"kind": kind}, "seed": 3}
        tree["rounds"] = {"order": rounds_order}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(order, "MANY", many)
            market = PrivacyMarket(Scenario.model_validate(tree))
            market.rule = subclass()
            market.run_until(4)
        return market

    together, single = played(0), played(10**9)
    assert_array_equal(together.columns.epsilon, single.columns.epsilon)
    assert_array_equal(together.columns.exit_round, single.columns.exit_round)


@pytest.mark.parametrize("n_nodes", [499, 500])
def test_a_subclass_s_own_step_counts_at_any_size(n_nodes):
    tree = {"population": {"n_nodes": n_nodes}, "rounds": {"order": "simultaneous"}}
    market = PrivacyMarket(Scenario.model_validate(tree))
    before = market.total_epsilon
    market.rule = halves_its_epsilon(LEARNING_RULES["best-response"])()
    market.step()
    assert market.total_epsilon == pytest.approx(before / 2, rel=1e-12)


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
