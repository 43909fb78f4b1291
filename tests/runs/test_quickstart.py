"""The quick start keeps what README promises: its net learns, and no node sells more than ten."""

import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm.build import draw_population, price_mechanism, price_scenario
from fcfn_abm.rng import replication_seed

SEEDS = range(10)  # those of README's picture


def with_seed(index, overrides=()):
    scenario = fa.load_scenario("quickstart", overrides)
    return scenario.model_copy(update={"seed": replication_seed(scenario.seed, index)})


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 3])
def test_the_net_learns_while_no_node_spends_more_than_ten(index):
    record = fa.run_scenario(with_seed(index, ["training.compare=[]"]))
    nodes = record.nodes.query("active")
    assert record.run["verdict"]["kind"] == "converged"
    assert record.training["accuracy"].iloc[-1] >= 0.80
    assert nodes["epsilon_sold"].mean() >= 3.0
    assert nodes["epsilon_sold"].max() <= 10.0
    assert (nodes["epsilon_central"] <= nodes["epsilon_sold"] * (1 + 1e-9)).all()
    assert (nodes["epsilon_total"] > nodes["epsilon_central"]).all()  # of a message, by itself


@pytest.mark.parametrize("index", SEEDS)
def test_what_is_compared_spends_the_same_cap_and_nobody_loses_or_sells_more_than_ten(index):
    scenario = with_seed(index)
    population = draw_population(scenario)
    own = price_scenario(scenario, population)
    assert 0 < own.epsilon.max() <= 10.0
    for name in ("random", "static"):
        other = price_mechanism(scenario, name, population, own.server_payment)
        assert_allclose(other.server_payment, own.server_payment)
        assert (other.node_utility >= -1e-9).all()
        assert 0 < other.epsilon.max() <= 10.0
