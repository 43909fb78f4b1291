"""Mechanisms beyond the paper's, played as markets: they rest where their closed forms say."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fcfn_abm as fa
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.scenario.load import tree_to_scenario

RHO = [1.0, 1.1, 1.3, 1.6, 2.5, 6.0]


def market(mechanism, rho=RHO, **tables):
    tree = {
        "seed": 3,
        "population": {"n_nodes": len(rho), "rho": {"kind": "listed", "values": rho}},
        "game": {"alpha": 10.0, "beta": 10.0},
        "mechanism": mechanism,
        **tables,
    }
    return fa.PrivacyMarket(fa.build.resolve_defaults(tree_to_scenario(tree, "test")))


@pytest.mark.parametrize("order", ["in_turn", "simultaneous"])
@pytest.mark.parametrize("server", ["anticipate", "fixed"])
@pytest.mark.parametrize(
    "mechanism",
    [
        {"kind": "tullock", "exponent": 0.5},
        {"kind": "tullock", "exponent": 0.9},
        {"kind": "tullock", "exponent": 1.0},
        {"kind": "weighted"},
        {"kind": "weighted", "by": "listed", "weights": [1.0, 5.0, 2.0, 0.3, 2.0, 9.0]},
    ],
)
def test_contests_rest_at_their_equilibrium_and_their_best_cap(mechanism, server, order):
    game = {"alpha": 10.0, "beta": 10.0} | ({"budget": 4.0} if server == "fixed" else {})
    played = market(
        mechanism,
        game=game,
        server={"kind": server},
        rounds={"order": order, "maximum": 3000},
        learning={"kind": "best-response", "gain": "auto" if order == "simultaneous" else 0.5},
    )
    verdict = played.run_until()
    assert verdict.kind == "converged", verdict
    options = {key: value for key, value in mechanism.items() if key != "kind"}
    priced = fa.price(mechanism["kind"], RHO, **game, **options)
    assert_allclose(played.budget, priced.paid, rtol=1e-6)
    assert_allclose(played.epsilon, priced.epsilon, rtol=1e-5, atol=1e-6 * priced.epsilon.max())
    assert_allclose(played.columns.payment, priced.payment, rtol=1e-5, atol=1e-6)
    assert played.state.server_utility == pytest.approx(priced.server_utility, rel=1e-6)


@pytest.mark.parametrize("rule", ["gradient", "estimate", "aggregate", "fictitious-play"])
def test_every_rule_plays_a_weighted_contest(rule):
    weights = [1.0, 2.0, 1.0, 1.0, 4.0, 4.0]
    played = market(
        {"kind": "weighted", "by": "listed", "weights": weights},
        game={"budget": 4.0},
        server={"kind": "fixed"},
        learning={"kind": rule},
        rounds={"maximum": 1500},
    )
    played.run_until()
    priced = fa.price(
        "weighted", RHO, alpha=10.0, beta=10.0, budget=4.0, by="listed", weights=weights
    )
    near = 0.05 if rule == "fictitious-play" else 1e-6
    assert_allclose(played.epsilon, priced.epsilon, atol=near * priced.epsilon.max())


def test_a_large_weighted_market_is_played_by_compiled_moves():
    rho = np.random.default_rng(1).lognormal(0.0, 0.05, 800)
    weights = np.random.default_rng(2).uniform(0.9, 1.1, 800).tolist()
    played = market({"kind": "weighted", "by": "listed", "weights": weights}, rho.tolist())
    assert played.run_until().kind == "converged"
    priced = played.outcome
    assert_allclose(played.epsilon, priced.epsilon, atol=1e-5 * priced.epsilon.max())


@pytest.mark.parametrize("kind", ["tullock", "weighted"])
def test_a_node_may_move_alone(kind):
    options = {"by": "listed", "weights": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    played = market({"kind": kind, **(options if kind == "weighted" else {})})
    played.step()
    before = played.epsilon.copy()
    played.nodes.to_list()[2].respond()
    assert played.epsilon[2] != before[2]
    others = np.arange(6) != 2
    assert_allclose(played.epsilon[others], before[others], rtol=1e-12)


@pytest.mark.parametrize("kind", ["fair-query", "vcg", "posted-price"])
def test_auctions_rest_at_their_outcome(kind):
    options = {"price": 1.5} if kind == "posted-price" else {}
    played = market({"kind": kind, **options}, game={"budget": 5.0})
    assert played.run_until().kind == "converged"
    priced = fa.price(kind, RHO, alpha=10.0, beta=10.0, budget=5.0, **options)
    assert_array_equal(played.epsilon, priced.epsilon)
    assert_array_equal(played.columns.payment, priced.payment)
    assert played.epsilon.any()


def test_nodes_refuse_weights_without_money():
    played = market({"kind": "pooled-weights"}, game={"budget": 5.0})
    played.run_until()
    assert not played.epsilon.any()


def test_a_false_cost_sets_the_contract_and_the_true_cost_the_utility():
    tree = {"misreport": {"share": 0.5, "factor": 2.0}, "n_nodes": 6}
    rho = {"kind": "listed", "values": RHO}
    played = market({"kind": "fair-query"}, game={"budget": 5.0}, population={**tree, "rho": rho})
    people = played.population
    lying = people.reported_cost != people.true_rho
    assert lying.sum() == 3
    assert_array_equal(people.reported_cost[lying], 2 * people.true_rho[lying])
    assert_array_equal(people.misreport_factor, 1.0)  # what they sell they spend
    assert_array_equal(played.columns.rho, RHO)
    played.run_until()
    priced = fa.price(
        "fair-query", RHO, alpha=10.0, beta=10.0, budget=5.0, reported_cost=people.reported_cost
    )
    assert_array_equal(played.epsilon, priced.epsilon)
    assert_array_equal(played.columns.utility, priced.payment - np.array(RHO) * priced.epsilon)
    honest = fa.price("fair-query", RHO, alpha=10.0, beta=10.0, budget=5.0)
    assert (priced.epsilon != honest.epsilon).any()


@pytest.mark.parametrize(
    ("mechanism", "tables", "words"),
    [
        (
            {"kind": "tullock"},
            {"learning": {"kind": "gradient"}},
            r"\[learning\] kind: 'gradient' supports the contest with exponent = 1 only",
        ),
        (
            {"kind": "tullock"},
            {"exit": {"criterion": "loss"}},
            r"\[exit\] criterion: 'loss' supports the contest with exponent = 1 only",
        ),
        (
            {"kind": "weighted", "by": "listed", "weights": [1.0]},
            {},
            r"\[mechanism\] weights: must have one value for each of 6 nodes, but has 1",
        ),
        (
            {"kind": "weighted", "by": "samples"},
            {},
            r"\[mechanism\] by: 'samples' depends on the nodes' data; add a",
        ),
        (
            {"kind": "myerson-cap"},
            {},
            r"\[mechanism\] distribution: 'myerson-cap' needs the distribution of costs, b",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(mechanism, tables, words):
    tree = {
        "population": {"n_nodes": 6, "rho": {"kind": "listed", "values": RHO}},
        "mechanism": mechanism,
        **tables,
    }
    with pytest.raises(InvalidScenarioError, match=words):
        fa.build.check_scenario(tree_to_scenario(tree, "test"))


def test_a_rule_that_knows_another_contest_is_refused_without_a_scenario():
    with pytest.raises(InvalidScenarioError, match="supports the contest with exponent = 1"):
        market({"kind": "tullock"}, learning={"kind": "gradient"})


def test_the_distribution_of_a_scenario_is_known_to_the_mechanism():
    tree = {
        "population": {"n_nodes": 40, "rho": {"kind": "uniform", "low": 0.5, "high": 1.5}},
        "game": {"alpha": 10.0, "beta": 60.0},
        "mechanism": {"kind": "myerson-cap", "largest_epsilon": 1.0},
    }
    scenario = fa.build.resolve_defaults(tree_to_scenario(tree, "test"))
    priced = fa.build.price_scenario(scenario)
    rho = fa.build.draw_population(scenario).rho
    own = fa.price(
        "myerson-cap",
        rho,
        alpha=10.0,
        beta=60.0,
        largest_epsilon=1.0,
        distribution={"kind": "uniform", "low": 0.5, "high": 1.5},
    )
    assert 0 < priced.n_active < 40
    assert_array_equal(priced.payment, own.payment)
