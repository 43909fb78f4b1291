"""Shocks: the game changes while it is played, and the closed form follows."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq, minimize_scalar

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError
from fcfn_abm.scenario import Scenario, tree_to_scenario

GROUPS = [{"name": "few", "share": 0.25}, {"name": "many"}]


def scenario(*events, **tables):
    people = {"n_nodes": 20, **tables.pop("population", {"groups": GROUPS})}
    tree = {"seed": 3, "population": people, "events": list(events), **tables}
    return Scenario.model_validate(tree)


def solve_by_bisection(rho, budget):
    """Return the epsilons at which (15) holds for all who take part, found without a formula."""

    def epsilon(total):
        return np.maximum(total - rho * total**2 / budget, 0)

    total = brentq(lambda total: epsilon(total).sum() - total, 1e-12 * budget, budget / rho.min())
    return epsilon(total)


def best_cap_by_search(rho, alpha, beta):
    def loss(log_cap):
        epsilon = solve_by_bisection(rho, np.exp(log_cap))
        epsilon = epsilon[epsilon > 0]
        return np.exp(log_cap) - beta * np.log1p(alpha * epsilon.mean())

    found = minimize_scalar(loss, bounds=np.log([1e-4 * beta, beta]), method="bounded")
    return float(np.exp(found.x))


def require_equilibrium(market, rho, alpha=10.0, beta=10.0):
    assert market.verdict.kind == "converged"
    expected = solve_by_bisection(rho, market.budget)
    assert_allclose(market.columns.rho, rho)
    assert_allclose(market.epsilon, expected, atol=1e-6 * expected.max())
    assert_allclose(market.pool * market.contest.epsilon, expected, atol=1e-6 * expected.max())
    best = best_cap_by_search(rho, alpha, beta)
    assert market.equilibrium.budget == pytest.approx(best, rel=1e-3)
    assert market.budget == pytest.approx(best, rel=1e-2)


def test_costs_of_a_group_are_scaled_and_all_find_the_new_equilibrium():
    made = scenario({"change": "rho", "round": 40, "scale": 0.5, "group": "few"})
    market = fa.PrivacyMarket(made)
    before = market.columns.rho.copy()
    market.run_until(39)
    assert_array_equal(market.columns.rho, before)
    market.run_until()
    require_equilibrium(market, before * np.repeat([0.5, 1.0], [5, 15]))


def test_costs_become_a_value_and_the_server_values_more():
    made = scenario(
        {"change": "rho", "round": 10, "value": 0.002, "group": "many"},
        {"change": "alpha", "round": 20, "scale": 3.0},
        {"change": "beta", "round": 30, "value": 4.0},
    )
    market = fa.PrivacyMarket(made)
    rho = market.columns.rho.copy()
    rho[5:] = 0.002
    market.run_until()
    require_equilibrium(market, rho, alpha=30.0, beta=4.0)
    last = market.state
    value = 4.0 * np.log1p(30.0 * last.mean_epsilon)
    assert last.server_utility == pytest.approx(value - last.payment)


@pytest.mark.parametrize(("change", "cap"), [({"scale": 0.5}, 2.0), ({"value": 1.5}, 1.5)])
def test_the_cap_of_the_scenario_changes(change, cap):
    made = scenario(
        {"change": "budget", "round": 5, **change}, server="fixed", game={"budget": 4.0}
    )
    market = fa.PrivacyMarket(made)
    market.run_until(4)
    assert market.state.payment == pytest.approx(4.0)
    market.step()
    assert market.state.payment == pytest.approx(cap)
    market.run_until()
    expected = solve_by_bisection(market.columns.rho, cap)
    assert_allclose(market.epsilon, expected, atol=1e-6 * expected.max())
    assert market.outcome.epsilon.sum() == pytest.approx(expected.sum())


def test_a_share_of_a_group_begins_to_misreport():
    people = {"n_nodes": 20, "groups": GROUPS, "misreport": {"share": 0.0, "factor": 2.0}}
    made = scenario(
        {"change": "misreport", "round": 10, "value": 0.4, "group": "few"}, population=people
    )
    market = fa.PrivacyMarket(made)
    true_rho = market.population.true_rho.copy()
    market.run_until()
    factor = market.population.misreport_factor
    assert np.count_nonzero(factor[:5] == 2.0) == 2
    assert_array_equal(factor[5:], 1.0)
    assert_array_equal(market.population.true_rho, true_rho)
    assert_allclose(market.columns.rho, true_rho / factor)
    nodes = fa.run_scenario(made).nodes
    assert_array_equal(nodes["misreport_factor"], factor)
    assert_array_equal(nodes["true_rho"], true_rho)


def test_a_market_at_rest_waits_for_the_last_event():
    still = fa.PrivacyMarket(scenario())
    assert still.run_until().rounds < 90
    made = scenario({"change": "beta", "round": 120, "scale": 2.0})
    verdict = fa.PrivacyMarket(made).run_until()
    assert verdict.kind == "converged"
    assert verdict.rounds > 120


def test_rounds_hold_the_closed_form_as_it_was():
    made = scenario(
        {"change": "rho", "round": 40, "scale": 0.5}, game={"budget": 3.0}, server="fixed"
    )
    rounds = fa.run_scenario(made).rounds.set_index("round")
    before, after = rounds["equilibrium_total_epsilon"][[39, 40]]
    assert after == pytest.approx(2 * before)  # S is in proportion to B / rho
    assert rounds["distance"].iloc[-1] < 1e-6
    assert rounds["distance"][40] > 0.1


def test_chance_strikes_as_often_as_it_says_and_not_after_its_last_round():
    made = scenario(
        {"change": "beta", "chance": 0.25, "until": 400, "scale": 1.001}, rounds={"maximum": 600}
    )
    market = fa.PrivacyMarket(made)
    market.run_until(400)
    n_struck = np.log(market.primitives.beta / 10.0) / np.log(1.001)
    assert n_struck == pytest.approx(round(n_struck), abs=1e-6)
    assert 70 <= n_struck <= 130  # binomial: 100, standard deviation 8.7
    market.run_until(450)
    assert np.log(market.primitives.beta / 10.0) / np.log(1.001) == pytest.approx(n_struck)


def test_a_game_that_never_stops_changing_is_followed_to_the_last_round():
    made = scenario({"change": "rho", "chance": 0.5, "scale": 1.01}, rounds={"maximum": 60})
    verdict = fa.PrivacyMarket(made).run_until()
    assert (verdict.kind, verdict.rounds) == ("max-rounds", 60)
    assert "the game keeps changing" in verdict.reason


def test_equal_seeds_give_equal_events():
    made = scenario({"change": "rho", "chance": 0.2, "scale": 1.1, "until": 50})
    one, two = fa.PrivacyMarket(made), fa.PrivacyMarket(made)
    one.run_until(30)
    two.run_until(30)
    assert_array_equal(one.columns.rho, two.columns.rho)
    assert one.state == two.state


@pytest.mark.parametrize(
    ("event", "tables", "message"),
    [
        ({"change": "rho", "scale": 2.0}, {}, "either round or chance"),
        ({"change": "rho", "scale": 2.0, "round": 1, "chance": 0.1}, {}, "either round or chance"),
        ({"change": "rho", "round": 1}, {}, "either scale or value"),
        ({"change": "rho", "round": 1, "value": 0.0}, {}, "must be positive"),
        (
            {"change": "beta", "round": 1, "scale": 2.0, "group": "few"},
            {},
            "group is allowed for rho and misreport only, not for beta",
        ),
        ({"change": "rho", "round": 1, "scale": 2.0, "until": 4}, {}, "until needs chance"),
        ({"change": "misreport", "round": 1, "scale": 2.0}, {}, "between 0 and 1"),
        ({"change": "misreport", "round": 1, "value": 0.5}, {}, r"\[population.misreport\]"),
        ({"change": "rho", "round": 1, "scale": 2.0, "group": "all"}, {}, "no group 'all'; known"),
        ({"change": "budget", "round": 1, "scale": 2.0}, {}, "chooses the cap itself"),
        ({"change": "rho", "round": 2000, "scale": 2.0}, {}, "ends with round 1000"),
        ({"change": "rho", "round": 1, "scale": 2.0}, {"mechanism": "ic-mle"}, "makes one offer"),
    ],
)
def test_an_event_that_cannot_be_is_refused(event, tables, message):
    tree = {"population": {"groups": GROUPS}, "events": [event], **tables}
    with pytest.raises(InvalidScenarioError, match=rf"\[events(.0)?\].*{message}"):
        build.check_settings(tree_to_scenario(tree, "file"), "file")


def test_costs_set_in_python_are_followed_by_play_and_by_the_closed_form():
    market = fa.PrivacyMarket(scenario())
    market.run_until()
    assert market.verdict
    market.set_rho(slice(0, 5), 0.0005)
    market.nodes[7].rho = 0.0004
    assert market.verdict is None
    rho = market.columns.rho.copy()
    assert_array_equal(rho[:5], 0.0005)
    assert rho[7] == 0.0004
    market.run_until()
    require_equilibrium(market, rho)


def test_the_servers_side_is_set_in_python():
    market = fa.PrivacyMarket(scenario(game={"budget": 3.0}, server="fixed"))
    market.run_until()
    market.set_game(budget=6.0, beta=20.0)
    market.run_until()
    expected = solve_by_bisection(market.columns.rho, 6.0)
    assert_allclose(market.epsilon, expected, atol=1e-6 * expected.max())
    assert market.equilibrium.budget == pytest.approx(
        best_cap_by_search(market.columns.rho, 10.0, 20.0), rel=1e-3
    )


@pytest.mark.parametrize(
    "twin", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_columns_of_costs_are_read_only(twin):
    market = twin(fa.PrivacyMarket(scenario()))
    market.step()
    with pytest.raises(ValueError, match="read-only"):
        market.columns.rho[0] = 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.set_rho(0, -1.0), r"rho\[0\] = -1"),
        (lambda m: m.set_rho(99, 1.0), "invalid costs: .*out of bounds"),
        (lambda m: m.set_rho([0, 1], [1.0, 2.0, 3.0]), "invalid costs"),
        (lambda m: m.set_game(beta=-1.0), "beta must be positive"),
        (lambda m: m.set_game(budget=1.0), "the server chooses it itself"),
    ],
)
def test_what_cannot_be_set_is_refused_and_changes_nothing(change, message):
    market = fa.PrivacyMarket(scenario())
    rho = market.columns.rho.copy()
    with pytest.raises(InvalidGameError, match=message):
        change(market)
    assert_array_equal(market.columns.rho, rho)
    assert market.primitives.beta == 10.0


def test_a_market_that_made_its_offer_keeps_its_game():
    market = fa.PrivacyMarket(scenario(mechanism="ic-mle", game={"budget": 2.0}))
    with pytest.raises(InvalidGameError, match="'ic-mle' makes one offer"):
        market.set_rho(0, 1.0)


def test_costs_that_were_set_are_what_drift_returns_to():
    people = {"n_nodes": 20, "churn": {"drift": 0.1, "reversion": 1.0}}
    market = fa.PrivacyMarket(scenario(population=people))
    market.run_until(3)
    market.set_rho(slice(None), 5.0)
    market.run_until(40)
    assert np.abs(np.log(market.columns.rho / 5.0)).max() < 1.0
