"""Shocks while a net is trained: it trains with what nodes report, and prices follow the game."""

import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm.build import check_scenario
from fcfn_abm.errors import InvalidScenarioError

pytestmark = pytest.mark.slow

SHOCK = 4  # the round before which it happens


def scenario(schedule, *events):
    return fa.Scenario.model_validate(
        {
            "seed": 2,
            "population": {"n_nodes": 6, "rho": {"kind": "uniform"}},
            "server": "fixed",
            "game": {"budget": 2.0},
            "events": events,
            "training": {
                "schedule": schedule,
                "rounds": 8,
                "compare": ["static"],
            },
        }
    )


@pytest.mark.parametrize("schedule", ["at-equilibrium", "every-round"])
def test_what_is_compared_is_priced_in_the_game_as_events_have_left_it(schedule):
    events = [
        {"change": "rho", "round": SHOCK, "scale": 4.0},
        {"change": "beta", "round": SHOCK, "scale": 3.0},
        {"change": "budget", "round": SHOCK, "value": 7.0},
    ]
    record = fa.run_scenario(scenario(schedule, *events))
    before = fa.run_scenario(scenario(schedule))
    assert_allclose(record.nodes["rho"], 4.0 * before.nodes["rho"], rtol=1e-12)
    found = {arm["name"]: arm for arm in record.run["training"]["arms"]}["static"]
    alone = fa.price("static", record.nodes["rho"], alpha=10.0, beta=30.0, budget=7.0)
    assert_allclose(found["node_utility"], alone.node_utility.sum(), rtol=1e-12)
    assert_allclose(found["server_utility"], alone.server_utility, rtol=1e-12)


def test_each_round_of_training_spends_what_its_round_of_the_market_reports():
    event = {"change": "rho", "round": SHOCK, "scale": 100.0}
    record = fa.run_scenario(scenario("every-round", event))
    traces, ledger = record.traces, record.ledger
    reported = traces.pivot_table(index="round", columns="node", values="epsilon")
    spent = ledger.pivot_table(index="round", columns="node", values="epsilon_round")
    for round_index in range(1, 9):
        trained = spent.loc[round_index].dropna()
        assert_allclose(trained, reported.loc[round_index, trained.index], rtol=1e-6)
    assert spent.loc[SHOCK].sum() < 0.9 * spent.loc[SHOCK - 1].sum()


def test_misreports_cannot_change_while_a_net_is_trained():
    tree = scenario("at-equilibrium").model_dump(exclude_unset=True)
    tree["events"] = [{"change": "misreport", "round": 2, "value": 0.5}]
    tree["population"]["misreport"] = {"share": 0.1}
    with pytest.raises(InvalidScenarioError, match="depends on who misreports at first"):
        check_scenario(fa.Scenario.model_validate(tree))
