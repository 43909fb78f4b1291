# ruff: noqa: ARG002 - a choice need not look at what it sees
"""Node classes of a user: what they override is honoured, and everybody else stays a row."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fcfn_abm as fa
from fcfn_abm.abm import EdgeNode, order
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.scenario import Scenario

ORDERS = pytest.mark.parametrize("moves", ["in_turn", "simultaneous"])
SIZES = pytest.mark.parametrize("many", [0, 10**9])
GROUPS = [{"name": "own", "n_nodes": 4}, {"name": "rest"}]


class Copies(EdgeNode):
    """Chooses what its rule would."""

    def choose_epsilon(self, seen):
        return super().choose_epsilon(seen)


class Constant(EdgeNode):
    """Reports one number, and remembers how often it was asked and what it saw."""

    def __init__(self, model):
        super().__init__(model)
        self.asked, self.news = 0, []

    def choose_epsilon(self, seen):
        self.asked += 1
        return 0.25

    def learn(self, news):
        self.news.append(news)


class Doubles(EdgeNode):
    """Moves as its rule does, and then doubles its report."""

    def respond(self):
        super().respond()
        self.report(2 * self.epsilon)


def market(node_class=None, moves="in_turn", groups=None, n_nodes=12, **tables):
    people = {"n_nodes": n_nodes, **({"groups": groups} if groups else {})}
    tree = {"seed": 4, "population": people, "rounds": {"order": moves}, **tables}
    tree |= {"game": {"budget": 3.0}, "server": "fixed"}
    return fa.PrivacyMarket(Scenario.model_validate(tree), node_class=node_class)


@ORDERS
@SIZES
@pytest.mark.parametrize("groups", [None, GROUPS])
def test_a_class_that_chooses_as_its_rule_does_gives_the_same_bits(
    monkeypatch, moves, many, groups
):
    monkeypatch.setattr(order, "MANY", many)
    kind = {"own": Copies} if groups else Copies
    ours, plain = market(kind, moves, groups), market(None, moves, groups)
    for _ in range(20):
        ours.step()
        plain.step()
    assert_array_equal(ours.columns.epsilon, plain.columns.epsilon)
    assert ours.state == plain.state


@ORDERS
@SIZES
def test_choices_are_honoured_and_state_lives_on_the_agent(monkeypatch, moves, many):
    monkeypatch.setattr(order, "MANY", many)
    ours = market({"own": Constant}, moves, GROUPS, exit={"patience": 100})
    ours.run_until(5)
    assert_array_equal(ours.columns.epsilon[:4], 0.25)
    assert not (ours.columns.epsilon[4:] == 0.25).any()
    assert [node.asked for node in ours.nodes[:4]] == [5] * 4
    assert isinstance(ours.nodes[0], Constant)
    assert type(ours.nodes[4]) is EdgeNode
    news = ours.nodes[2].news
    assert len(news) == 6  # the first reports too
    assert news[-1].epsilon == [0.25]
    assert_allclose(news[-1].others, ours.total_epsilon - 0.25)
    assert_array_equal(news[-1].reports, ours.columns.epsilon)


@ORDERS
def test_a_response_of_ones_own_is_seen_by_those_who_move_later(moves):
    ours, plain = market(Doubles, moves), market(None, moves)
    ours.step()
    plain.step()
    if moves == "simultaneous":
        assert_allclose(ours.columns.epsilon, 2 * plain.columns.epsilon)
    assert ours.total_epsilon == pytest.approx(ours.columns.epsilon.sum())
    assert not np.allclose(ours.columns.epsilon, plain.columns.epsilon)


@ORDERS
@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -1.0, None, "much"])
def test_an_answer_that_is_no_epsilon_is_an_error_that_names_the_node(moves, answer):
    class Wrong(EdgeNode):
        def choose_epsilon(self, seen):
            return answer

    made = market({"own": Wrong}, moves, GROUPS)
    with pytest.raises(InvalidGameError, match=r"node \d \(Wrong\) reports .* in round 1"):
        made.step()


def test_copies_and_pickles_hold_agents_of_their_own():
    ours = market({"own": Constant}, groups=GROUPS)
    ours.step()
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert twin.nodes[0] is not ours.nodes[0]
        twin.step()
        assert (twin.nodes[0].asked, ours.nodes[0].asked) == (2, 1)


def test_a_newcomer_is_a_new_agent():
    ours = market(Constant, n_nodes=6)
    churn = {"departures": 0.5, "arrivals": 1.0}
    tree = {
        "population": {"n_nodes": 30, "churn": churn},
        "server": "fixed",
        "game": {"budget": 3.0},
    }
    ours = fa.PrivacyMarket(Scenario.model_validate(tree), node_class=Constant)
    ours.run_until(6)
    for node in ours.nodes:
        if node.present:
            assert node.asked == 6 - max(ours.churn.arrival_round[node.row] - 1, 0)


def test_mesa_knows_the_class():
    ours = market(Constant)
    assert list(ours.agents_by_type[Constant]) == list(ours.nodes)
    mixed = market({"own": Constant}, groups=GROUPS)
    assert len(mixed.nodes.select(agent_type=Constant)) == 4
    assert len(mixed.nodes.select(agent_type=EdgeNode)) == 12


def test_a_class_with_nothing_to_do_stays_rows():
    class Named(EdgeNode):
        def double(self):
            return 2 * self.rho

    ours = market(Named)
    assert ours.nodes[3].double() == 2 * ours.columns.rho[3]
    assert not ours.views.acting


def test_a_contest_in_scores_is_refused():
    tree = {"mechanism": {"kind": "weighted", "by": "listed", "weights": [1.0, 2.0, 3.0]}}
    tree |= {"population": {"n_nodes": 3}}
    with pytest.raises(InvalidGameError, match="'weighted' shares them by a score"):
        fa.PrivacyMarket(Scenario.model_validate(tree), node_class=Constant)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"others": Constant}, "names an unknown group 'others'"),
        ({"own": int}, "a class derived from EdgeNode, not"),
    ],
)
def test_a_class_for_nobody_is_refused(kind, message):
    with pytest.raises(InvalidGameError, match=message):
        market(kind, groups=GROUPS)
