"""Rows as Mesa agents: what Mesa's own sets do, done the same."""

import copy
import gc

import mesa
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fcfn_abm.abm import EdgeNode, ParameterServer
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.scenario import Scenario


class Plain(mesa.Agent):
    """An ordinary agent with the same numbers, for comparison."""

    def __init__(self, model, rho):
        super().__init__(model)
        self.rho = rho
        self.half = rho / 2


@pytest.fixture
def pair():
    rho = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    market = PrivacyMarket(Scenario.model_validate({"population": {"n_nodes": 5}}), rho=rho)
    plain = mesa.Model(rng=1)
    Plain.create_agents(plain, 5, rho)
    return market.nodes, plain.agents_by_type[Plain]


def rhos(agents):
    return [agent.rho for agent in agents]


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.select(lambda a: a.rho > 1.5),
        lambda s: s.select(lambda a: a.rho > 1.5, at_most=2),
        lambda s: s.select(at_most=0.4),
        lambda s: s.select(at_most=1.0),
        lambda s: s.sort("rho"),
        lambda s: s.sort("rho", ascending=True),
        lambda s: s.sort(lambda a: -a.rho),
        lambda s: s.select(agent_type=mesa.Agent),
        lambda s: s.select(agent_type=ParameterServer),
        copy.copy,
        lambda s: s.groupby(lambda a: a.rho > 2).groups[True],
        lambda s: s.to_list(),
    ],
)
def test_sets_of_rows_choose_and_order_as_mesas_own_do(pair, use):
    ours, mesas = pair
    assert rhos(use(ours)) == rhos(use(mesas))


@pytest.mark.parametrize(
    "use",
    [
        len,
        lambda s: s.get("rho"),
        lambda s: s.get(["rho", "unique_id"])[0][0],
        lambda s: s.get("colour", handle_missing="default", default_value="red"),
        lambda s: s.agg("rho", sum),
        lambda s: s.agg("rho", [min, max]),
        lambda s: s.map(lambda a: a.rho + 1),
        lambda s: s.groupby(lambda a: a.rho > 2).count(),
        lambda s: s.to_list()[0] in s,
    ],
)
def test_sets_of_rows_answer_as_mesas_own_do(pair, use):
    ours, mesas = pair
    assert use(ours) == use(mesas)


def test_changing_a_set_in_place_and_shuffling(pair):
    nodes, _ = pair
    some = nodes.copy()
    assert some.select(lambda a: a.rho > 1.5, inplace=True) is some
    assert len(some) == 4
    assert len(nodes) == 5
    some.discard(nodes[1])  # not there: nothing happens
    some.remove(nodes[0])
    with pytest.raises(KeyError):
        some.remove(nodes[0])
    some.add(nodes[0])
    some.add(nodes[0])
    assert sorted(rhos(some)) == [2.0, 3.0, 4.0, 5.0]
    assert sorted(rhos(nodes.shuffle())) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert rhos(nodes) == [3.0, 1.0, 2.0, 5.0, 4.0]
    seen = []
    assert nodes.shuffle_do(lambda node: seen.append(node.row)) is nodes
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_a_node_is_one_object_for_as_long_as_it_is_held():
    market = PrivacyMarket(Scenario.model_validate({"population": {"n_nodes": 4}}))
    node = market.nodes[2]
    node.colour = "red"
    assert market.nodes[2] is node
    assert market.agents.to_list()[3] is node
    assert market.nodes.get("colour", handle_missing="default") == [None, None, "red", None]
    assert [agent.unique_id for agent in market.agents] == [1, 2, 3, 4, 5]
    assert node.unique_id == 4
    other = PrivacyMarket(Scenario.model_validate({"population": {"n_nodes": 4}}))
    assert other.nodes[2] not in market.nodes


def test_all_agents_are_the_server_those_that_a_user_adds_and_the_nodes():
    market = PrivacyMarket(Scenario.model_validate({"population": {"n_nodes": 3}}))
    extra = mesa.Agent(market)
    assert [type(agent) for agent in market.agents] == [
        ParameterServer,
        mesa.Agent,
        EdgeNode,
        EdgeNode,
        EdgeNode,
    ]
    assert extra.unique_id == 5
    assert market.agent_types == [ParameterServer, EdgeNode, mesa.Agent]
    assert extra in market.agents
    held = market.agents.select(lambda agent: isinstance(agent, EdgeNode))
    assert len(held) == 3  # they live on, although nothing but the set holds them
    assert len(market.agents.shuffle()) == 5
    assert len(market.agents.sort("unique_id").to_list()) == 5
    assert market.nodes[1].rho == market.nodes.to_list()[1].rho == rhos(market.nodes[1:2])[0]
    extra.remove()
    assert len(market.agents) == 4
    with pytest.raises(InvalidGameError, match="leaves when staying does not pay"):
        market.nodes[0].remove()
    with pytest.raises(InvalidGameError, match="use a copy"):
        market.agents.shuffle(inplace=True)
    assert len(market.agents.copy().shuffle(inplace=True)) == 4


def test_nodes_can_move_one_by_one_as_mesa_agents_do():
    market = PrivacyMarket(Scenario.model_validate({"population": {"n_nodes": 6}}))
    before = market.columns.epsilon.copy()
    market.nodes.do("respond")
    twin = PrivacyMarket(
        Scenario.model_validate({"population": {"n_nodes": 6}, "rounds": {"turns": "fixed"}})
    )
    twin.step()
    assert (market.columns.epsilon != before).all()
    assert_array_equal(market.columns.epsilon, twin.columns.epsilon)


def test_a_million_nodes_are_rows_until_they_are_accessed():
    n_nodes = 1_000_000
    rho = np.linspace(1.0, 1.5, n_nodes)
    scenario = Scenario.model_validate(
        {"population": {"n_nodes": n_nodes}, "learning": {"kind": "aggregate"}}
    )
    market = PrivacyMarket(scenario, rho=rho)
    assert len(market.agents) == n_nodes + 1
    assert market.nodes[-1].rho == 1.5
    assert market.nodes.agg("rho", max) == 1.5
    columns = market.columns
    held = [columns.rho, columns.epsilon, columns.payment, columns.utility]
    held += [columns.idle_rounds, columns.exit_round, market.nodes.rows]
    held += list(columns.memory.values())
    assert sum(array.nbytes for array in held) <= 8 * (7 + len(columns.memory)) * n_nodes
    assert len(gc.get_referrers(market)) < 100  # no agents but those that were looked at
