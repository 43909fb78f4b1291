"""Markets under other costs, caps, a fixed cost and a reserve, against formulas of their own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar

import fcfn_abm as fa
from fcfn_abm.build import check_settings
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.game import contest_regret
from fcfn_abm.report.summary import summary
from fcfn_abm.scenario import Scenario

COSTS = {
    "linear": lambda rho, e: rho * e,
    "power": lambda rho, e: rho * e * e,
    "sqrt": lambda rho, e: 2 * rho * np.sqrt(e),
    "exponential": lambda rho, e: rho * np.expm1(e),
}
"""The costs as the formulations print them."""

RHO = [0.4, 0.55, 0.6, 0.8, 1.3, 2.4]
TERMS = {
    "power": {"cost": "power"},
    "exponential": {"cost": "exponential"},
    "caps": {"epsilon_max": [0.3, 0.1, 0.2, 5.0, 5.0, 5.0]},
    "power with caps": {"cost": "power", "epsilon_max": 0.4},
    "sqrt with caps": {"cost": "sqrt", "epsilon_max": 0.05},
    "fixed cost": {"fixed_cost": 0.15},
    "exponential, fixed cost": {"cost": "exponential", "fixed_cost": 0.1},
    "reserve": {"reserve": 0.25},
}


def tree_of(terms, *, budget=3.0, learning="best-response", server="fixed", **tables):
    people = {name: value for name, value in terms.items() if name in ("cost", "epsilon_max")}
    game = {name: value for name, value in terms.items() if name not in people}
    return {
        "seed": 4,
        "population": {"n_nodes": len(RHO), "rho": {"kind": "listed", "values": RHO}, **people},
        "game": {**({"budget": budget} if budget else {}), **game},
        "server": server,
        "learning": learning,
        **tables,
    }


def market(terms, **settings):
    return fa.PrivacyMarket(Scenario.model_validate(tree_of(terms, **settings)))


def earned(terms, rho, epsilon, others, budget):
    """Return what nodes earn by epsilon, shape of epsilon; staying out earns nothing."""
    paid = budget * epsilon / (epsilon + others)
    paid = np.where(epsilon >= terms.get("reserve", 0.0), paid, 0.0)
    cost = COSTS[terms.get("cost", "linear")](rho, epsilon)
    return np.where(epsilon > 0, paid - cost - terms.get("fixed_cost", 0.0), 0.0)


def said_of(record):
    """Return the summary of a record as one line."""
    return " ".join(summary(record).plain.split())


def regret_on_a_grid(terms, rho, epsilon, budget):
    """Return what a node could gain by one of twenty thousand reports, as a share of B."""
    caps = np.broadcast_to(terms.get("epsilon_max", np.inf), rho.shape)
    found = 0.0
    for node, cost in enumerate(rho):
        others = epsilon.sum() - epsilon[node]
        tried = np.geomspace(1e-6, min(caps[node], 40.0), 20_000)
        tried = np.append(tried, [0.0, caps[node] if np.isfinite(caps[node]) else 1.0])
        best = earned(terms, cost, tried, others, budget).max()
        now = earned(terms, cost, epsilon[node : node + 1], others, budget).item()
        found = max(found, (best - now) / budget)
    return found


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("order", ["in_turn", "simultaneous"])
def test_best_responses_settle_where_no_report_on_a_grid_earns_more(name, order):
    terms = TERMS[name]
    learning = {"kind": "best-response", "gain": "auto" if order == "simultaneous" else 0.5}
    made = market(terms, learning=learning, rounds={"order": order})
    assert made.run_until().kind == "converged"
    columns = made.columns
    assert made.n_active >= 2
    assert regret_on_a_grid(terms, columns.rho, columns.epsilon, 3.0) <= 1e-9
    assert contest_regret(columns.epsilon, columns.rho, 3.0, made._rules.terms) <= 1e-9
    assert made.state.exploitability <= 1e-9
    assert made.state.distance <= 1e-6
    others = columns.epsilon.sum() - columns.epsilon
    assert_allclose(columns.utility, earned(terms, columns.rho, columns.epsilon, others, 3.0))
    value = 10 * np.log1p(10 * made.state.mean_epsilon)
    assert_allclose(made.state.welfare, value - 3.0 + columns.utility.sum())


@pytest.mark.parametrize("n_nodes", [2, 7])
def test_equal_nodes_with_quadratic_costs_sell_the_closed_form(n_nodes):
    tree = tree_of({"cost": "power"})
    tree["population"] |= {"n_nodes": n_nodes, "rho": {"kind": "constant", "value": 0.7}}
    made = fa.PrivacyMarket(Scenario.model_validate(tree))
    made.run_until()
    expected = np.sqrt(3.0 * (n_nodes - 1) / (2 * 0.7 * n_nodes**2))  # B (n-1) / n**2 = 2 rho x**2
    assert_allclose(made.columns.epsilon, expected, rtol=1e-8)


@pytest.mark.parametrize("rule", ["fictitious-play", "gradient", "estimate", "aggregate"])
@pytest.mark.parametrize("name", ["power", "exponential", "caps", "power with caps"])
def test_every_rule_that_fits_settles_at_the_one_equilibrium(rule, name):
    rounds = {"maximum": 500}
    made = market(TERMS[name], learning=rule, rounds=rounds)
    made.run_until()
    close = 5e-2 if rule == "fictitious-play" else 1e-6
    assert made.state.distance <= close
    assert regret_on_a_grid(TERMS[name], made.columns.rho, made.columns.epsilon, 3.0) <= close


@pytest.mark.parametrize("rule", ["exp3", "q-learning", "fixed", "gradient", "best-response"])
@pytest.mark.parametrize("order", ["in_turn", "simultaneous"])
def test_nobody_reports_more_than_it_can_sell(rule, order):
    made = market(TERMS["caps"], learning=rule, rounds={"order": order, "maximum": 40})
    caps = np.array(TERMS["caps"]["epsilon_max"])
    for _ in range(40):
        made.step()
        assert (made.columns.epsilon <= caps).all()


def test_learners_try_reports_up_to_the_largest_best_response():
    made = market({"cost": "power"}, learning="q-learning", rounds={"maximum": 60})
    most = np.zeros(len(RHO))
    for _ in range(60):
        made.step()
        most = np.maximum(most, made.columns.epsilon)
    # the best response to s is largest at s = x, where 2 rho x = B / (4 x)
    assert_allclose(most, np.sqrt(3.0 / (8.0 * np.array(RHO))))


def test_what_lies_below_the_reserve_is_not_reported():
    made = market(TERMS["reserve"], rounds={"start": "cold"})
    for _ in range(30):
        made.step()
        epsilon = made.columns.epsilon
        assert ((epsilon == 0) | (epsilon >= 0.25)).all()


def test_with_a_fixed_cost_the_nodes_that_rest_need_not_be_the_cheapest():
    costs = [0.5627, 0.6645, 0.8167, 0.8751, 1.3255]
    tree = tree_of({"fixed_cost": 0.2105}, budget=1.0, rounds={"start": "warm"})
    tree["population"] |= {"n_nodes": 5, "rho": {"kind": "listed", "values": costs}}
    record = fa.run_scenario(Scenario.model_validate(tree))
    assert record.run["verdict"]["kind"] == "converged"
    assert record.nodes["active"].tolist() == [False, False, True, True, False]
    tau = 0.8167 + 0.8751
    shares = 1 - np.array([0.8167, 0.8751]) / tau
    assert_allclose(record.nodes["epsilon"][2:4], shares / tau, rtol=1e-8)
    assert_allclose(record.nodes["utility"][2:4], shares**2 - 0.2105, rtol=1e-6)
    assert record.run["equilibrium"]["solution"]["unique"] is not True
    assert "It is not known whether there are other equilibria." in said_of(record)


def test_a_record_says_that_an_equilibrium_is_the_only_one_or_that_others_were_found():
    only = fa.run_scenario(Scenario.model_validate(tree_of({"cost": "power"})))
    assert only.run["equilibrium"]["solution"]["unique"] is True
    assert "It is the only equilibrium." in said_of(only)
    several = fa.run_scenario(Scenario.model_validate(tree_of({"fixed_cost": 0.3})))
    found = several.run["equilibrium"]["solution"]
    assert found["unique"] is False
    assert f"{found['n_others']} others were found" in said_of(several)


def test_without_an_equilibrium_the_record_says_that_none_was_found():
    tree = tree_of({"cost": "sqrt"}, rounds={"maximum": 30})
    tree["population"] |= {"n_nodes": 2, "rho": {"kind": "listed", "values": [0.5, 1.0]}}
    record = fa.run_scenario(Scenario.model_validate(tree))
    assert record.run["equilibrium"]["status"] == "no-solution"
    assert "No equilibrium of the nodes was found" in said_of(record)


def test_the_server_anticipates_the_best_cap_of_equal_nodes_with_quadratic_costs():
    tree = tree_of({"cost": "power"}, budget=None, server="anticipate")
    tree["population"] |= {"n_nodes": 5, "rho": {"kind": "constant", "value": 0.7}}
    made = fa.PrivacyMarket(Scenario.model_validate(tree))
    verdict = made.run_until()
    assert verdict.kind == "converged"

    def loss(budget):  # eps_g = sqrt(B (n-1) / (2 rho n**2))
        return budget - 10 * np.log1p(10 * np.sqrt(budget * 4 / (2 * 0.7 * 25)))

    best = minimize_scalar(loss, bounds=(1e-3, 20.0), method="bounded", options={"xatol": 1e-10})
    assert_allclose(made.budget, best.x, rtol=1e-4)
    assert_allclose(made.best_budget, best.x, rtol=1e-6)
    assert_allclose(made.state.server_utility, -best.fun, rtol=1e-8)


@pytest.mark.parametrize("name", ["exponential", "caps", "fixed cost", "reserve"])
def test_the_server_ends_at_a_cap_than_which_none_on_a_grid_is_better(name):
    made = market(TERMS[name], budget=None, server="anticipate", rounds={"maximum": 600})
    verdict = made.run_until()
    assert verdict.kind == "converged", verdict.reason
    terms = made._rules.terms
    grid = np.geomspace(0.01, 12.0, 60)
    games = [fa.contest_equilibrium(RHO, cap, terms) for cap in grid]
    values = [
        10 * np.log1p(10 * g.total_epsilon / max(g.n_active, 1)) - cap * (g.n_active > 0)
        for g, cap in zip(games, grid, strict=True)
    ]
    assert made.state.server_utility >= max(values) - 1e-2


@pytest.mark.parametrize(
    ("terms", "tables", "why"),
    [
        ({"cost": "power"}, {"learning": "replicator"}, "'replicator' does not support it"),
        ({"fixed_cost": 0.1}, {"learning": "estimate"}, "'estimate' does not support it"),
        ({"reserve": 0.1}, {"learning": "aggregate"}, "'aggregate' does not support it"),
        ({"cost": "sqrt"}, {"learning": "gradient"}, "'gradient' does not support it"),
        ({"fixed_cost": 0.1}, {"learning": "exp3"}, "'exp3' does not support it"),
        ({"cost": "power"}, {"learning": "bayes-nash"}, "the paper's costs rho \\* epsilon only"),
        ({"cost": "power"}, {"mechanism": "ic-mle"}, "'ic-mle' requires privacy costs"),
        ({"cost": "power"}, {"mechanism": "tullock"}, "'tullock' with these options"),
        ({"epsilon_max": [1.0]}, {}, "one value for each of 6 nodes"),
        ({"epsilon_max": 0.1, "reserve": 0.2}, {}, "must not be below the reserve"),
        ({"epsilon_max": "column:cap"}, {}, "requires a scenario file"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(terms, tables, why):
    with pytest.raises(InvalidScenarioError, match=why):
        check_settings(Scenario.model_validate(tree_of(terms, **tables)))


def test_churn_and_misreports_are_refused():
    for table in ({"churn": {"departures": 0.1}}, {"misreport": {}}):
        tree = tree_of({"cost": "power"})
        tree["population"] |= table
        with pytest.raises(InvalidScenarioError, match="cost conflicts with"):
            check_settings(Scenario.model_validate(tree))


def test_terms_of_the_paper_that_are_written_out_change_no_bit():
    plain = market({}, rounds={"maximum": 30})
    written = market({"cost": "linear", "fixed_cost": 0.0, "reserve": 0.0}, rounds={"maximum": 30})
    assert plain.run_until() == written.run_until()
    assert_array_equal(plain.columns.epsilon, written.columns.epsilon)
    assert written._rules.terms is None  # so that rounds are played compiled


def test_a_shock_of_costs_is_followed():
    events = [{"change": "rho", "round": 20, "scale": 2.0}]
    made = market({"cost": "power"}, events=events)
    assert made.run_until().kind == "converged"
    assert_allclose(made.columns.rho, 2 * np.array(RHO))
    assert regret_on_a_grid({"cost": "power"}, made.columns.rho, made.columns.epsilon, 3.0) <= 1e-9


def test_caps_come_from_a_column_of_the_file_with_the_costs(tmp_path):
    (tmp_path / "costs.csv").write_text("name,rho,cap\nA,0.4,0.5\nB,0.5,0.1\nC,0.6,9\n")
    (tmp_path / "market.toml").write_text(
        'server = "fixed"\n[population]\nepsilon_max = "column:cap"\n'
        '[population.rho]\nkind = "csv"\npath = "costs.csv"\ncolumn = "rho"\n[game]\nbudget = 3.0\n'
    )
    scenario = fa.load_scenario(tmp_path / "market.toml")
    assert scenario.population.epsilon_max == (0.5, 0.1, 9.0)
    made = fa.PrivacyMarket(scenario)
    made.run_until()
    assert made.columns.epsilon[:2].tolist() == [0.5, 0.1]


def test_contracts_are_left_where_the_fixed_cost_takes_what_they_pay():
    terms = {"cost": "power", "fixed_cost": 0.3}
    made = market(terms, budget=4.0, mechanism={"kind": "static", "epsilon": 1.0})
    assert made.run_until().kind == "converged"
    stays = made.columns.epsilon > 0
    n = np.count_nonzero(stays)
    profit = 4.0 / n - np.array(RHO) - 0.3  # rho 1**2
    assert (profit[stays] >= 0).all()
    assert (4.0 / (n + 1) - np.array(RHO)[~stays] - 0.3 < 0).all()
    voluntary = fa.price(
        "static",
        RHO,
        alpha=1.0,
        beta=10.0,
        budget=4.0,
        terms=fa.Terms("power", fixed_cost=0.3),
        epsilon=1.0,
        voluntary=True,
    )
    assert voluntary.n_active == n
    assert_allclose(voluntary.node_utility[voluntary.active], profit[stays])


def test_a_comparison_says_which_mechanisms_do_not_stand_for_other_costs():
    scenario = Scenario.model_validate(tree_of({"cost": "power"}))
    found = fa.compare_mechanisms(scenario, ["stackelberg", "static", "ic-mle"], replications=2)
    status = found.frame.groupby("mechanism")["status"].first()
    assert status.to_dict() == {
        "stackelberg": "solved",
        "static": "solved",
        "ic-mle": "no-solution",
    }
    own = found.frame[found.frame["mechanism"] == "stackelberg"].iloc[0]
    solved = fa.contest_equilibrium(RHO, 3.0, fa.Terms("power"))
    assert own["node_utility"] == pytest.approx(solved.utility.sum())
    value = 10 * np.log1p(10 * solved.total_epsilon / len(RHO))
    assert own["welfare"] == pytest.approx(value - 3.0 + solved.utility.sum())
