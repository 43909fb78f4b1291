import mesa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from strategies import costs

from fcfn_abm.abm import EdgeNode, ParameterServer
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import nash_equilibrium, stackelberg_equilibrium
from fcfn_abm.game.best_response import reply_all, reply_one
from fcfn_abm.scenario import Scenario


def scenario(n_nodes=12, *, rho=None, budget=None, seed=1, **tables):
    tree = {"seed": seed, "population": {"n_nodes": n_nodes}, **tables}
    if rho is not None:
        tree["population"] = {
            "n_nodes": len(rho),
            "rho": {"kind": "listed", "values": [float(r) for r in rho]},
        }
    if budget is not None:
        tree["server"] = {"kind": "fixed"}
        tree["game"] = {**tree.get("game", {}), "budget": budget}
    return Scenario.model_validate(tree)


def played(*args, **kwargs):
    market = PrivacyMarket(scenario(*args, **kwargs))
    market.run_until()
    return market


@settings(max_examples=150)
@given(rho=costs(max_size=15), seed=st.integers(0, 1000))
def test_with_reentry_the_resting_point_is_the_closed_form(rho, seed):
    market = played(rho=rho, budget=3.0, seed=seed, rounds={"maximum": 3000})
    form = nash_equilibrium(rho, 3.0)
    assert market.verdict.kind == "converged"
    assert_allclose(market.columns.epsilon, form.epsilon, atol=1e-6 * form.epsilon.max())
    clear = np.abs(rho - form.threshold) > 1e-6 * form.threshold  # ties leave slower than geometric
    assert_array_equal((market.columns.epsilon > 0)[clear], form.active[clear])


@pytest.mark.parametrize("n_nodes", [2, 3, 10, 100])
@pytest.mark.parametrize("average_over", ["active", "population"])
def test_a_server_that_knows_no_rho_finds_the_best_cap(n_nodes, average_over):
    market = played(n_nodes, game={"average_over": average_over})
    form = stackelberg_equilibrium(market.columns.rho, 10.0, 10.0, average_over)
    assert market.verdict.kind == "converged"
    assert_allclose(market.budget, form.budget, rtol=1e-6)
    assert_allclose(market.state.server_utility, form.server_utility, rtol=1e-6)
    assert_allclose(market.columns.utility, form.utility, atol=1e-6 * form.budget)


def test_no_trade_is_a_verdict_and_agrees_with_the_closed_form():
    market = played(game={"alpha": 1e-4, "beta": 0.1})
    assert market.equilibrium.budget == 0
    assert market.verdict.kind == "no-trade"
    assert market.budget == 0
    assert not market.columns.epsilon.any()


@pytest.mark.parametrize("start", ["random", "cold", "warm"])
@pytest.mark.parametrize("turns", ["random", "fixed"])
def test_every_start_leads_to_the_same_point(start, turns):
    market = played(30, rounds={"start": start, "turns": turns})
    assert market.verdict.kind == "converged"
    assert market.state.distance < 1e-7
    assert market.n_active == market.equilibrium.n_active


@pytest.mark.parametrize("n_nodes", [5, 10, 40])
def test_undamped_simultaneous_play_is_caught(n_nodes):
    market = played(
        rho=np.ones(n_nodes),
        budget=5.0,
        rounds={"order": "simultaneous"},
        learning={"kind": "best-response", "gain": 1.0},
    )
    assert market.verdict.kind in {"cycling", "diverged"}


@pytest.mark.parametrize("n_nodes", [5, 10, 40])
def test_damping_makes_simultaneous_play_converge(n_nodes):
    market = played(
        rho=np.ones(n_nodes),
        budget=5.0,
        rounds={"order": "simultaneous", "maximum": 5000},
        learning={"kind": "best-response", "gain": "auto"},
    )
    assert market.verdict.kind == "converged"
    assert_allclose(market.columns.epsilon, 5.0 * (n_nodes - 1) / n_nodes**2, rtol=1e-7)


def test_full_steps_cycle_for_two_nodes_of_very_different_cost_and_half_steps_do_not():
    full = played(rho=[1.0, 20.0], budget=5.0, learning={"kind": "best-response", "gain": 1.0})
    half = played(rho=[1.0, 20.0], budget=5.0)
    assert full.verdict.kind == "cycling"
    assert half.verdict.kind == "converged"


def test_exits_name_the_round_and_stay_out_of_the_payments():
    market = played(rho=[1.0, 1.0, 1.0, 9.0], budget=4.0)
    dear = market.nodes[3]
    assert dear.exited
    assert 0 < market.columns.exit_round[3] < market.round_index
    assert dear.epsilon == dear.payment == dear.utility == 0
    assert not any(node.exited for node in market.nodes[:3])


def test_without_reentry_exits_are_final():
    # the dear nodes start far too high, which drives out a node that belongs to the equilibrium
    rho = [1.0, 1.0, 1.9, 30.0, 30.0]
    settings_ = {"rounds": {"turns": "fixed"}, "budget": 4.0}
    start = np.array([0.1, 0.1, 0.1, 8.0, 8.0])
    ends = {}
    for reentry in (True, False):
        market = PrivacyMarket(
            scenario(rho=rho, exit={"patience": 1, "reentry": reentry}, **settings_)
        )
        market.columns.epsilon = start.copy()
        market.run_until()
        ends[reentry] = market
    assert_array_equal(ends[True].columns.epsilon > 0, nash_equilibrium(rho, 4.0).active)
    assert np.count_nonzero(ends[False].columns.epsilon) < np.count_nonzero(
        ends[True].columns.epsilon
    )


def test_the_market_is_a_mesa_model():
    market = PrivacyMarket(scenario(8))
    assert isinstance(market, mesa.Model)
    assert len(market.agents_by_type[EdgeNode]) == 8
    assert len(market.agents_by_type[ParameterServer]) == 1
    assert len(market.agents) == 9
    cheap = market.agents_by_type[EdgeNode].select(lambda node: node.rho < 0.001)
    assert all(node.rho < 0.001 for node in cheap)
    market.step()
    assert (market.time, market.steps, market.round_index) == (1, 1, 1)
    market.run_until()
    assert not market.running
    frame = market.datacollector.get_model_vars_dataframe()
    assert len(frame) == market.round_index
    assert_allclose(frame["total_epsilon"].iloc[-1], sum(node.epsilon for node in market.nodes))


def test_all_traces_reach_mesas_own_frame():
    market = PrivacyMarket(scenario(5, record={"traces": "all"}))
    market.run_until(4)
    frame = market.datacollector.get_agenttype_vars_dataframe(EdgeNode)
    assert len(frame) == 4 * 5
    assert_allclose(frame.loc[4, "epsilon"], market.columns.epsilon)


def test_columns_and_single_agents_give_the_same_digits():
    rng = np.random.default_rng(5)
    rho, others = rng.lognormal(size=(2, 5000))
    others[:50] = 0.0
    one = [reply_one(r, s, 2.0, 1e-6) for r, s in zip(rho.tolist(), others.tolist(), strict=True)]
    assert_array_equal(reply_all(rho, others, 2.0, 1e-6), one)


def test_payments_add_up_and_welfare_is_the_sum_of_utilities():
    market = PrivacyMarket(scenario(9))
    for _ in range(5):
        market.step()
        assert_allclose(market.columns.payment.sum(), market.budget)
        state = market.state
        assert_allclose(state.welfare, state.node_utility + state.server_utility)


def test_equal_scenarios_play_equal_rounds_and_other_seeds_do_not():
    frames = [played(20, seed=seed).datacollector.get_model_vars_dataframe() for seed in (4, 4, 5)]
    assert frames[0].equals(frames[1])
    assert not frames[0].equals(frames[2])


def test_costs_can_be_handed_in_but_must_fit():
    market = PrivacyMarket(scenario(3), rho=[1.0, 2.0, 3.0], rng=7)
    assert market.nodes[2].rho == 3.0
    with pytest.raises(InvalidGameError, match=r"rho has 2 entries, but population.n_nodes = 3"):
        PrivacyMarket(scenario(3), rho=[1.0, 2.0])
