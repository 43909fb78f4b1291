import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from strategies import costs

from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.game import best_response, nash_equilibrium
from fcfn_abm.learning import LEARNING_RULES, News, Observation
from fcfn_abm.learning.base import create_memory
from fcfn_abm.population import RHO_DISTRIBUTIONS
from fcfn_abm.scenario import Scenario

NASH_RULES = [name for name in LEARNING_RULES if LEARNING_RULES[name].rests_at_equilibrium]


def market(rule, rho, *, seed=1, budget=3.0, information=None, rounds=None, exit_=None, **options):
    rho = np.asarray(rho, dtype=float)
    tree = {
        "seed": seed,
        "population": {"n_nodes": rho.size},
        "game": {"budget": budget},
        "server": {"kind": "fixed"},
        "learning": {"kind": rule, **options},
        "information": information or {},
        "rounds": {"order": "simultaneous", **(rounds or {})},
        "exit": exit_ or {},
    }
    return PrivacyMarket(Scenario.model_validate(tree), rho=rho)


def remembering(rule, n_nodes, news=None):
    memory = create_memory(rule, n_nodes)
    if news:
        own = {"rho": np.ones(n_nodes), "utility": np.zeros(n_nodes)}
        own["chance"] = np.random.default_rng(4).random(n_nodes)
        rule.learn(News(*news, memory, **own))
    return memory


@pytest.mark.parametrize("name", list(LEARNING_RULES))
@given(rho=costs(min_size=2, max_size=8), data=st.data())
def test_one_by_one_and_all_at_once_give_the_same_digits_never_negative(name, rho, data):
    n_nodes = rho.size
    finite = st.floats(0.0, 100.0)
    epsilon = np.array(data.draw(st.lists(finite, min_size=n_nodes, max_size=n_nodes)))
    others = np.array(data.draw(st.lists(finite, min_size=n_nodes, max_size=n_nodes)))
    rule = LEARNING_RULES.create(name).for_population(RHO_DISTRIBUTIONS.create("uniform"), 3)
    news = (3.0, epsilon, others, epsilon, np.ones(n_nodes, dtype=bool), 0.0)
    rng = np.random.default_rng(0)
    memory = remembering(rule, n_nodes, news)
    seen = Observation(rho, epsilon, others, 3.0, n_nodes, 1e-6, slice(None), memory)
    planned, together = rule.plan(seen), rule.next_epsilon(seen, rng)
    memory = remembering(rule, n_nodes, news)
    for row in range(n_nodes):
        one = Observation(
            rho.item(row), epsilon.item(row), others.item(row), 3.0, n_nodes, 1e-6, row, memory
        )
        assert rule.plan(one) == planned[row]
        epsilon_of_one = rule.next_epsilon(one, rng)
        assert isinstance(epsilon_of_one, float)
        assert epsilon_of_one == together[row]
    assert together.shape == (n_nodes,)
    assert (together >= 0).all()
    assert np.isfinite(together).all()


@pytest.mark.parametrize("name", NASH_RULES)
@given(rho=costs(max_size=12))
def test_whoever_starts_at_the_equilibrium_stays_there(name, rho):
    played = market(name, rho, rounds={"start": "warm", "maximum": 20})
    form = nash_equilibrium(rho, 3.0)
    played.run_until(1)  # a rest that is not stable shows its rounding errors soon after
    assert_allclose(played.columns.epsilon, form.epsilon, atol=1e-9 * form.epsilon.max())


@pytest.mark.parametrize("start", ["random", "cold", "warm"])
@pytest.mark.parametrize("order", ["in_turn", "simultaneous"])
@given(rho=costs(max_size=12), seed=st.integers(0, 99))
def test_exact_reports_give_the_costs_away_in_a_few_rounds(order, start, rho, seed):
    played = market("estimate", rho, seed=seed, rounds={"order": order, "start": start})
    form = nash_equilibrium(rho, 3.0)
    verdict = played.run_until()
    assert verdict.kind == "converged"
    assert verdict.rounds <= 15
    assert_allclose(played.columns.epsilon, form.epsilon, atol=1e-9 * form.epsilon.max())
    learnt = played.columns.memory["estimated_rho"][form.active]
    large = form.epsilon[form.active] > 1e-6 * form.epsilon.max()
    assert_allclose(learnt[large], rho[form.active][large], rtol=1e-8)


def test_inverting_the_first_order_condition_by_hand():
    # rho = 1, B = 4: expecting s = 1 of the others, the best response is sqrt(4) - 1 = 1
    rule = LEARNING_RULES.create("estimate")
    epsilon = np.array([1.0, 1.0])
    memory = remembering(
        rule, 2, (4.0, epsilon, np.array([1.0, 1.0]), epsilon, np.zeros(2, dtype=bool), 0.0)
    )
    assert_allclose(memory["expected_others"], 0.25)  # per unit of B
    assert_allclose(best_response(1.0, 1.0, 4.0), 1.0)
    moved = np.array([True, False])  # node 0 has answered, node 1 has stood still
    rule.learn(News(4.0, epsilon, np.array([1.0, 1.0]), epsilon, moved, 0.0, memory))
    assert_allclose(memory["estimated_rho"], [1.0, 0.0])


@pytest.mark.parametrize("start", ["random", "cold", "warm"])
@given(rho=costs(max_size=30), seed=st.integers(0, 99))
def test_the_public_total_alone_leads_to_the_equilibrium(start, rho, seed):
    played = market(
        "aggregate",
        rho,
        seed=seed,
        information={"reports": "aggregate"},
        rounds={"start": start},
    )
    verdict = played.run_until()
    form = nash_equilibrium(rho, 3.0)
    assert verdict.kind == "converged"
    assert verdict.rounds <= 60
    assert_allclose(played.columns.epsilon, form.epsilon, atol=1e-7 * form.epsilon.max())


@pytest.mark.parametrize("n_nodes", [10, 100_000])
@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.7])
def test_aggregate_takes_a_few_tens_of_rounds_at_any_size(n_nodes, sigma):
    rho = np.exp(sigma * np.random.default_rng(2).standard_normal(n_nodes))
    played = market("aggregate", rho, information={"reports": "aggregate"})
    verdict = played.run_until()
    assert verdict.kind == "converged"
    assert verdict.rounds <= 40
    assert played.n_active == nash_equilibrium(rho, 3.0).n_active


def test_fictitious_play_answers_the_mean_of_the_others():
    rule = LEARNING_RULES.create("fictitious-play")
    epsilon = np.array([1.0, 3.0])
    memory = remembering(rule, 2)
    totals = [np.array([3.0, 1.0]), np.array([5.0, 1.5]), np.array([1.0, 0.5])]
    for budget, others in zip([1.0, 2.0, 4.0], totals, strict=True):
        rule.learn(News(budget, epsilon, others, None, np.ones(2, dtype=bool), 0.0, memory))
    per_unit = np.mean([totals[0] / 1.0, totals[1] / 2.0, totals[2] / 4.0], axis=0)
    assert_allclose(memory["mean_others"], per_unit)
    seen = Observation(np.ones(2), epsilon, totals[2], 8.0, 2, 1e-6, slice(None), memory)
    assert_allclose(rule.next_epsilon(seen, None), best_response(1.0, 8.0 * per_unit, 8.0))


def test_gradient_moves_uphill_and_a_full_step_at_rest_is_newtons():
    rho, others, budget = 1.0, 2.0, 6.0
    best = best_response(rho, others, budget)
    rule = LEARNING_RULES.create("gradient", {"gain": 1.0})

    def step(epsilon):
        return rule.next_epsilon(Observation(rho, epsilon, others, budget, 5, 1e-6), None) - epsilon

    assert step(0.5 * best) > 0 > step(1.5 * best)
    assert step(best) == pytest.approx(0.0, abs=1e-12)
    # near the optimum a Newton step of the first-order condition leaves a second-order error
    assert abs(1.001 * best + step(1.001 * best) - best) < 2e-6 * best


def test_replicators_burn_the_whole_rent_and_only_the_cheapest_are_left():
    played = market("replicator", [1.0, 1.0, 1.5, 2.0], rounds={"maximum": 3000, "tolerance": 1e-8})
    verdict = played.run_until()
    assert verdict.kind == "max-rounds"
    assert "rests, but not at an equilibrium" in verdict.reason
    assert_allclose(played.total_epsilon, 3.0, rtol=1e-6)  # S = B / rho_min
    assert_array_equal(played.columns.epsilon > 0, [True, True, False, False])
    assert_allclose(played.columns.utility.sum(), 0.0, atol=1e-6)


def test_the_fixed_rule_is_a_control_that_learns_nothing():
    played = market("fixed", [1.0, 2.0, 3.0], exit_={"patience": 1000}, rounds={"maximum": 30})
    before = played.columns.epsilon.copy()
    assert played.run_until().kind == "max-rounds"
    assert_array_equal(played.columns.epsilon, before)


@pytest.mark.parametrize("rule", ["best-response", "aggregate", "fictitious-play"])
def test_rules_that_need_the_total_alone_do_not_notice_that_reports_are_hidden(rule):
    rho = np.random.default_rng(3).uniform(0.8, 1.2, 15)
    runs = [
        market(rule, rho, information={"reports": reports}, rounds={"maximum": 40})
        for reports in ("full", "aggregate")
    ]
    for run in runs:
        run.run_until()
    assert_array_equal(runs[0].columns.epsilon, runs[1].columns.epsilon)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("rule", ["estimate", "aggregate"])
def test_reports_of_nodes_that_stood_still_do_not_mislead(rule, share):
    rho = np.random.default_rng(6).uniform(0.5, 1.5, 30)
    played = market(rule, rho, rounds={"participation": share, "maximum": 3000})
    assert played.run_until().kind == "converged"
    form = nash_equilibrium(rho, 3.0)
    assert_allclose(played.columns.epsilon, form.epsilon, atol=1e-5 * form.epsilon.max())
