import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fcfn_abm import build
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError
from fcfn_abm.game import nash_equilibrium
from fcfn_abm.population import draw_misreport_factors
from fcfn_abm.scenario import Scenario, tree_to_scenario


def scenario(share=0.3, factor=2.0, **tree):
    lies = {"misreport": {"share": share, "factor": factor}}
    return Scenario.model_validate({"seed": 4, "population": {"n_nodes": 10, **lies}, **tree})


@pytest.mark.parametrize(
    ("share", "n_liars"), [(0.0, 0), (0.04, 0), (0.25, 2), (0.3, 3), (1.0, 10)]
)
def test_as_many_misreport_as_the_share_says(share, n_liars):
    factors = draw_misreport_factors(10, share, 2.0, np.random.default_rng(0))
    assert (factors == 2.0).sum() == n_liars
    assert (factors == 1.0).sum() == 10 - n_liars


def test_who_misreports_is_drawn_and_true_costs_stay_as_they_were():
    misreporting = build.draw_population(scenario())
    truthful = build.draw_population(scenario(share=0.0))
    assert_array_equal(truthful.misreport_factor, np.ones(10))
    assert not truthful.misreports.any()
    assert_array_equal(misreporting.true_rho, truthful.rho)
    assert_array_equal(misreporting.rho, truthful.rho / misreporting.misreport_factor)
    assert misreporting.misreports.sum() == 3
    seeds = [scenario().model_copy(update={"seed": seed}) for seed in range(9)]
    drawn = {tuple(build.draw_population(seeded).misreport_factor) for seeded in seeds}
    assert len(drawn) > 1


def test_a_market_of_its_own_draws_the_same_nodes_as_a_run():
    market, population = PrivacyMarket(scenario()), build.draw_population(scenario())
    assert_array_equal(market.columns.rho, population.rho)


def test_nodes_that_misreport_play_the_game_of_cheaper_nodes():
    market = PrivacyMarket(scenario(server={"kind": "fixed"}, game={"budget": 3.0}))
    market.run_until()
    population = build.draw_population(scenario())
    expected = nash_equilibrium(population.rho, 3.0)
    assert_allclose(market.columns.epsilon, expected.epsilon, atol=1e-6 * expected.epsilon.max())
    # utilities are true: what is spent is epsilon / factor, at the node's own cost
    spent = market.columns.epsilon / population.misreport_factor
    true = market.columns.payment - population.true_rho * spent
    assert_allclose(market.columns.utility, true, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("factor", "stay"), [(1.9, 10), (2.1, 2)])
def test_two_liars_of_factor_two_drive_all_honest_nodes_of_their_cost_out(factor, stay):
    # n - 1 < tau / rho = n - k (1 - 1 / f) is what keeps the honest nodes in: k (1 - 1 / f) < 1
    people = scenario(0.2, factor).population
    people = people.model_copy(update={"rho": people.rho.model_copy(update={"kind": "constant"})})
    rho = build.draw_population(scenario().model_copy(update={"population": people})).rho
    assert nash_equilibrium(rho, 1.0).n_active == stay


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"share": 1.5}, r"\[population.misreport\] share"),
        ({"factor": 1.0}, r"\[population.misreport\] factor"),
        ({"factr": 2.0}, "Did you mean 'factor'"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(table, words):
    with pytest.raises(InvalidScenarioError, match=words):
        tree_to_scenario({"population": {"misreport": table}}, "here")


def test_a_share_that_is_none_is_refused():
    with pytest.raises(InvalidGameError, match=r"share must lie from 0 to 1, but is -0\.1"):
        draw_misreport_factors(10, -0.1, 2.0, np.random.default_rng(0))
