"""Nodes that know the law of costs alone, against published numbers and brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm.build import check_settings
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError
from fcfn_abm.population import RHO_DISTRIBUTIONS
from fcfn_abm.report.summary import summary
from fcfn_abm.scenario import Scenario

TYPES, PROBABILITIES = (0.5, 1.0, 3.0), (0.3, 0.4, 0.3)


def tree_of(rho, **learning):
    return {
        "population": {"n_nodes": len(rho), "rho": {"kind": "listed", "values": list(rho)}},
        "game": {"budget": 1.0},
        "server": "fixed",
        "learning": {"kind": "bayes-nash", **learning},
        "rounds": {"maximum": 2},
    }


def sold_by(rho, **learning):
    market = fa.PrivacyMarket(Scenario.model_validate(tree_of(rho, **learning)))
    market.run_until()
    return market.columns.epsilon.copy()


@pytest.mark.parametrize(("n_nodes", "published"), [(2, 0.449), (3, 0.665), (4, 0.825)])
def test_the_mean_total_of_all_markets_is_the_published_one(n_nodes, published):
    mean, known = 0.0, 0.0
    for drawn in product(range(3), repeat=n_nodes):
        chance = np.prod([PROBABILITIES[k] for k in drawn])
        rho = [TYPES[k] for k in drawn]
        mean += chance * sold_by(rho, types=TYPES, probabilities=PROBABILITIES).sum()
        known += chance * fa.nash_equilibrium(rho, 1.0).total_epsilon
    assert mean == pytest.approx(published, abs=5e-4)
    # with costs that all know it would be another
    assert known == pytest.approx({2: 0.456, 3: 0.661, 4: 0.807}[n_nodes], abs=5e-4)


def test_no_type_gains_by_another_report_on_average_over_the_other():
    sold = {
        cost: sold_by([cost, 1.0], types=TYPES, probabilities=PROBABILITIES)[0] for cost in TYPES
    }
    tried = np.geomspace(1e-6, 4.0, 100_000)
    for cost in TYPES:

        def earns(epsilon, cost=cost):
            shares = sum(
                chance * epsilon / (epsilon + sold[other])
                for other, chance in zip(TYPES, PROBABILITIES, strict=True)
            )
            return shares - cost * epsilon

        assert earns(tried).max() <= earns(np.array([sold[cost]])).item() + 1e-9


def test_a_cost_between_the_types_gets_its_best_response():
    settings = {"types": TYPES, "probabilities": PROBABILITIES}
    sold = {cost: sold_by([cost, 1.0], **settings)[0] for cost in TYPES}
    own = sold_by([0.7, 1.0], **settings)[0]
    others = np.array([sold[cost] for cost in TYPES])
    slope = (np.array(PROBABILITIES) * others / (own + others) ** 2).sum()
    assert slope == pytest.approx(0.7)
    assert sold[1.0] < own < sold[0.5]


def test_reports_are_in_proportion_to_the_cap_and_nobody_moves():
    tree = tree_of([0.5, 1.0, 3.0], types=TYPES, probabilities=PROBABILITIES)
    one = fa.PrivacyMarket(Scenario.model_validate(tree))
    tree["game"]["budget"] = 7.0
    tree["rounds"]["maximum"] = 5
    seven = fa.PrivacyMarket(Scenario.model_validate(tree))
    one.run_until()
    verdict = seven.run_until()
    assert_allclose(seven.columns.epsilon, 7 * one.columns.epsilon, rtol=1e-12)
    assert seven.state.change == 0
    assert verdict.kind == "max-rounds"
    assert "epsilon rests, but not at an equilibrium" in verdict.reason


def test_the_record_says_what_the_nodes_expected():
    tree = tree_of([0.5, 1.0, 3.0], types=TYPES, probabilities=PROBABILITIES)
    record = fa.run_scenario(Scenario.model_validate(tree))
    assert record.run["bayes_nash"]["expected_total_epsilon"] == pytest.approx(0.665, abs=5e-4)
    assert "Bayes-Nash equilibrium of 3 types" in summary(record).plain


@pytest.mark.parametrize(
    ("kind", "options", "n_types", "types", "probabilities"),
    [
        ("constant", {"value": 2.0}, 5, [2.0], [1.0]),
        ("uniform", {"low": 1.0, "high": 3.0}, 2, [1.5, 2.5], [0.5, 0.5]),
        ("lognormal", {"median": 2.0, "sigma": 0.5}, 1, [2.0], [1.0]),
        ("pareto", {"minimum": 1.0, "exponent": 1.0}, 2, [4 / 3, 4.0], [0.5, 0.5]),
        ("two-group", {"low": 1.0, "high": 2.0, "share_high": 0.25}, 1, [1, 2], [0.75, 0.25]),
        ("outliers", {"median": 1.0, "share": 0.1, "factor": 5.0}, 1, [1.0, 5.0], [0.9, 0.1]),
        ("listed", {"values": [1.0, 3.0, 1.0, 1.0]}, 3, [1.0, 3.0], [0.75, 0.25]),
    ],
)
def test_types_stand_for_a_distribution(kind, options, n_types, types, probabilities):
    found = RHO_DISTRIBUTIONS.create(kind, options).list_types(n_types)
    assert_allclose(found[0], types)
    assert_allclose(found[1], probabilities)


def test_types_of_a_distribution_are_those_of_draws():
    law = RHO_DISTRIBUTIONS.create("lognormal", {"median": 1.0, "sigma": 0.4})
    drawn = np.sort(law.draw(100_000, np.random.default_rng(1)))
    medians = [np.median(part) for part in np.array_split(drawn, 4)]
    assert_allclose(law.list_types(4)[0], medians, rtol=0.01)


def test_what_the_rule_cannot_know_is_refused():
    groups = [{"name": "a", "n_nodes": 1, "rho": "constant"}, {"name": "b"}]
    tree = tree_of([0.5, 1.0])
    tree["population"] = {"n_nodes": 2, "groups": groups}
    with pytest.raises(InvalidScenarioError, match="groups have their own"):
        check_settings(Scenario.model_validate(tree))
    many = tree_of([0.5, 1.0], n_types=50)
    many["population"] = {"n_nodes": 200}
    with pytest.raises(InvalidScenarioError, match="use fewer types or nodes"):
        check_settings(Scenario.model_validate(many))
    weighted = tree_of([0.5, 1.0], types=(1.0,), probabilities=(1.0,))
    weighted["mechanism"] = "weighted"
    with pytest.raises(InvalidScenarioError, match="in proportion to epsilon"):
        check_settings(Scenario.model_validate(weighted))
    with pytest.raises(InvalidScenarioError, match="sum to one"):
        check_settings(
            Scenario.model_validate(tree_of([1.0, 2.0], types=(1.0,), probabilities=(0.5,)))
        )


def test_the_library_gives_best_responses_to_the_equilibrium():
    game = fa.bayes_nash_equilibrium(TYPES, PROBABILITIES, 3, 2.0)
    assert_allclose(game.reply(TYPES), game.epsilon, rtol=1e-10)
    with pytest.raises(InvalidGameError, match="rho"):
        game.reply([-1.0])
