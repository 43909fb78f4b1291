"""Rules that try reports from a grid: their regret, what they reach, and their range."""

import copy
import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from strategies import costs
from test_rules import market

from fcfn_abm.abm import order
from fcfn_abm.learning import LEARNING_RULES, LearningRule, News
from fcfn_abm.learning.base import create_memory

LEARNERS = [name for name in LEARNING_RULES if LEARNING_RULES[name].explores]


def face(rule, utilities, seed=0):
    """Play a rule against utilities of its actions, shape (rounds, n, actions), as shares of B.

    Returns what was taken in each round, shape (rounds, n).
    """
    n_rounds, n_nodes, _ = utilities.shape
    chance, memory = np.random.default_rng(seed), create_memory(rule, n_nodes)
    rho, nobody = np.ones(n_nodes), np.zeros(n_nodes)
    rule.learn(
        News(
            1.0,
            nobody,
            nobody,
            None,
            nobody > 0,
            0.0,
            memory,
            rho=rho,
            utility=nobody,
            chance=chance.random(n_nodes),
        )
    )
    taken = np.empty((n_rounds, n_nodes), dtype=int)
    for t in range(n_rounds):
        taken[t] = memory["action"]
        epsilon = rule.shares[taken[t]] / 4
        utility = np.take_along_axis(utilities[t], taken[t][:, None], axis=1)[:, 0]
        rule.learn(
            News(
                1.0,
                epsilon,
                nobody,
                None,
                rho > 0,
                0.0,
                memory,
                rho=rho,
                utility=utility,
                chance=chance.random(n_nodes),
            )
        )
    return taken


@pytest.mark.parametrize("adversary", ["one pays", "the one that paid stops paying", "alternating"])
def test_the_regret_of_exp3_stays_within_its_bound_against_any_sequence(adversary):
    # Bubeck and Cesa-Bianchi 2012, theorem 3.1: 2 sqrt(T K ln K), in units of the range 5/4 of B
    rule = LEARNING_RULES.create("exp3", {"levels": 3})
    n_rounds, n_nodes, n_actions = 3000, 200, 4
    utilities = np.full((n_rounds, n_nodes, n_actions), -0.25)
    if adversary == "one pays":
        utilities[:, :, 2] = 1.0
    elif adversary == "the one that paid stops paying":
        utilities[: n_rounds // 3, :, 1], utilities[n_rounds // 3 :, :, 3] = 1.0, 1.0
    else:
        utilities[::2, :, 0], utilities[1::2, :, 3] = 1.0, 1.0
    taken = face(rule, utilities)
    earned = np.take_along_axis(utilities, taken[:, :, None], axis=2).sum(axis=0)[:, 0]
    regret = (utilities.sum(axis=0).max(axis=1) - earned).mean() / 1.25
    assert regret <= 2 * math.sqrt(n_rounds * n_actions * math.log(n_actions))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_finds_the_action_that_pays_most(name):
    rule = LEARNING_RULES.create(name, {"levels": 3})
    utilities = np.random.default_rng(5).uniform(-0.2, 0.2, (4000, 50, 4))
    utilities[:, :, 2] += 0.5
    late = face(rule, utilities)[-500:]
    assert (late == 2).mean() > 0.9


@pytest.mark.parametrize("name", LEARNERS)
def test_the_first_trials_are_spread_evenly_over_the_grid(name):
    rule = LEARNING_RULES.create(name, {"levels": 4})
    taken = face(rule, np.zeros((1, 20_000, 5)))
    counts = np.bincount(taken[0], minlength=5)
    assert ((counts - 4000) ** 2 / 4000).sum() < 23.5  # chi-square, 4 degrees: p = 1e-4


def test_importance_weights_make_the_estimated_losses_of_exp3_unbiased():
    rule = LEARNING_RULES.create("exp3", {"levels": 2})
    utilities = np.broadcast_to([0.0, 0.5, -0.25], (1, 100_000, 3))
    n_nodes = utilities.shape[1]
    memory, chance = create_memory(rule, n_nodes), np.random.default_rng(1)
    nothing, rho = np.zeros(n_nodes), np.ones(n_nodes)
    memory["score"][:] = [0.0, -1.0, -2.0]  # so that the three are not equally likely
    rule.learn(
        News(
            1.0,
            nothing,
            nothing,
            None,
            nothing > 0,
            0.0,
            memory,
            rho=rho,
            utility=nothing,
            chance=chance.random(n_nodes),
        )
    )
    before = memory["score"].copy()
    action = memory["action"].astype(int)
    assert np.unique(np.bincount(action)).size == 3
    rule.learn(
        News(
            1.0,
            rule.shares[action] / 4,
            nothing,
            None,
            rho > 0,
            0.0,
            memory,
            rho=rho,
            utility=utilities[0, 0, action],
            chance=chance.random(n_nodes),
        )
    )
    estimated = (before - memory["score"]).mean(axis=0)
    assert_allclose(estimated, [0.8, 0.4, 1.0], rtol=0.03)  # (1 - utility) / 1.25


@pytest.mark.parametrize("name", LEARNERS)
def test_no_report_above_the_grid_is_ever_better(name):
    # the largest best response is B / (4 rho): by brute force over others and reports
    rule = LEARNING_RULES.create(name)
    budget, rho = 3.0, 0.7
    largest = rule.shares[-1] * budget / (4 * rho)
    others = np.geomspace(1e-6, 100, 400)[:, None]
    reports = largest * np.linspace(1.0, 5.0, 200)
    utility = budget * reports / (reports + others) - rho * reports
    assert (utility.argmax(axis=1) == 0).all()


@pytest.mark.parametrize("name", LEARNERS)
@settings(max_examples=25)
@given(
    rho=costs(max_size=8),
    seed=st.integers(0, 99),
    order_=st.sampled_from(["in_turn", "simultaneous"]),
    share=st.sampled_from([0.3, 1.0]),
    start=st.sampled_from(["random", "cold", "warm"]),
    reentry=st.booleans(),
)
def test_reports_lie_on_the_grid_and_all_that_is_kept_is_finite(
    name, rho, seed, order_, share, start, reentry
):
    rounds = {"order": order_, "participation": share, "start": start, "maximum": 60}
    played = market(name, rho, seed=seed, rounds=rounds, exit_={"reentry": reentry, "patience": 1})
    moved = np.zeros(rho.size, dtype=bool)
    while played.running:
        played.step()
        moved[played.movers] = True
        grid = played.groups[0].rule.shares[:, None] * 3.0 / (4 * rho)
        off = np.abs(played.columns.epsilon - grid) / grid[-1]
        assert (off.min(axis=0)[moved] < 1e-12).all()
        for kept in played.columns.memory.values():
            assert np.isfinite(kept).all()
        assert (played.columns.memory["probability"] > 0).all()


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_single_agents_and_all_together_take_the_same_actions(name, share):
    rho, runs = np.random.default_rng(2).uniform(0.8, 1.2, 9), []
    for many, order_ in ((0, "in_turn"), (10**9, "in_turn"), (0, "simultaneous")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(order, "MANY", many)
            rounds = {"order": order_, "participation": share, "maximum": 80}
            played = market(name, rho, rounds=rounds)
            played.run_until()
            runs.append(played)
    for run in runs[1:]:
        assert_array_equal(run.columns.epsilon, runs[0].columns.epsilon)
        for key, kept in runs[0].columns.memory.items():
            assert_array_equal(run.columns.memory[key], kept)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_market_that_was_stopped_and_copied_plays_on_as_if_it_had_not_been(name):
    rho = np.random.default_rng(2).uniform(0.8, 1.2, 5)
    whole, halted = (market(name, rho, rounds={"maximum": 200}) for _ in range(2))
    whole.run_until()
    halted.run_until(90)
    halted = copy.deepcopy(halted)
    halted.run_until()
    assert_array_equal(halted.columns.epsilon, whole.columns.epsilon)
    assert halted.verdict == whole.verdict


@pytest.mark.parametrize("name", LEARNERS)
def test_what_a_node_draws_depends_on_its_place_and_not_on_who_else_is_there(name):
    def first_actions(n_nodes):
        return market(name, np.ones(n_nodes), seed=8).columns.memory["action"]

    assert_array_equal(first_actions(40)[:25], first_actions(25))
    assert np.unique(first_actions(40)).size > 5


@pytest.mark.parametrize("name", LEARNERS)
def test_a_node_that_does_not_move_learns_nothing(name):
    played = market(name, np.ones(10), rounds={"participation": 0.3, "maximum": 50})
    n_moves = np.zeros(10)
    while played.running:
        played.step()
        n_moves[played.movers] += 1
    assert_array_equal(played.columns.memory["n_tries"], n_moves)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_node_that_left_for_good_does_not_learn_from_what_it_did_not_play(name):
    rule = LEARNING_RULES.create(name, {"levels": 3})
    memory, one = create_memory(rule, 2), np.ones(2)
    memory["action"][:], memory["probability"][:] = 3, 0.25
    played = np.array([0.25, 0.0])  # the second had drawn 1/4 as well
    rule.learn(
        News(
            1.0,
            played,
            one,
            None,
            one > 0,
            0.0,
            memory,
            rho=one,
            utility=np.array([0.3, 0.0]),
            chance=np.full(2, 0.5),
        )
    )
    assert_array_equal(memory["n_tries"], [1.0, 0.0])
    assert memory["score"][0].any()
    assert not memory["score"][1].any()


@pytest.mark.parametrize("name", LEARNERS)
def test_explorers_are_not_said_to_cycle(name):
    played = market(name, np.ones(4), rounds={"maximum": 120})
    verdict = played.run_until()
    assert verdict.kind == "max-rounds"
    assert "nodes still try reports at random" in verdict.reason


def test_two_that_try_the_equilibrium_by_chance_for_some_rounds_have_not_converged():
    # the equilibrium of two equal nodes is the upper end of the grid: 11 actions, 121 pairs
    chances = []
    for seed in range(8):
        played = market("q-learning", [1.0, 1.0], seed=seed, rounds={"maximum": 800})
        verdict, hits = played.run_until(), played.datacollector.get_model_vars_dataframe()
        chances.append((hits["exploitability"] < 1e-9).rolling(4).sum().max())
        assert verdict.kind == "max-rounds"
    assert max(chances) == 4


@pytest.mark.slow
def test_q_learners_come_to_rest_near_the_equilibrium_total_of_two():
    for seed in range(3):
        played = market("q-learning", [1.0, 1.1], seed=seed, rounds={"maximum": 20_000})
        verdict = played.run_until()
        assert "epsilon rests, but not at an equilibrium" in verdict.reason
        total = 3.0 / 2.1  # B (n - 1) / tau
        assert_allclose(played.total_epsilon, total, rtol=0.3)  # steps of the grid: 40 %


@pytest.mark.slow
def test_the_mean_reports_of_two_exp3_nodes_come_closer_to_the_equilibrium():
    # no regret makes means of play converge in such games: Even-Dar, Mansour and Nadav 2009
    distances = []
    for seed in range(3):
        played = market("exp3", [1.0, 1.0], seed=seed, rounds={"maximum": 12_000})
        totals = []
        played.run_until(on_round=lambda m, totals=totals: totals.append(m.total_epsilon))
        distances.append(
            [abs(np.mean(totals[a:b]) / 1.5 - 1) for a, b in ((0, 1000), (8000, 12_000))]
        )
    early, late = np.mean(distances, axis=0)
    assert late < 0.7 * early


class Witness(LearningRule):
    """Keep what a round has shown of a node itself, in a memory with a width."""

    memory: ClassVar = {"seen": (0.0, 0.0, -1.0)}
    explores: ClassVar = True

    def __init__(self):
        self.remembered = []

    def next_epsilon(self, seen, rng):
        del rng
        self.remembered.append(np.array(seen.recall("seen")))  # what is kept changes later
        return seen.best_response

    def learn(self, news):
        news.memory["seen"][:] = np.column_stack((news.rho, news.payment, news.utility))


@pytest.mark.parametrize("order_", ["in_turn", "simultaneous"])
def test_a_rule_sees_its_own_cost_payment_and_utility(order_):
    played = market("fixed", [1.0, 2.0, 4.0], rounds={"order": order_})
    rule = Witness()
    memory = create_memory(rule, 3)
    played.groups = (replace(played.groups[0], rule=rule, memory=memory),)
    played.columns.memory.update(memory)
    assert_array_equal(played.columns.memory["seen"], [[0.0, 0.0, -1.0]] * 3)
    played.step()
    columns = played.columns
    own = np.column_stack((columns.rho, columns.payment, columns.utility))
    assert_array_equal(columns.memory["seen"], own)
    assert_allclose(columns.payment.sum(), 3.0)
    assert_allclose(columns.utility, columns.payment - columns.rho * columns.epsilon)
    before = own.copy()
    rule.remembered.clear()
    played.step()
    shown = rule.remembered
    if order_ == "simultaneous":
        assert_array_equal(shown, [before])
    else:  # one node after another
        assert_array_equal(np.sort(shown, axis=0), np.sort(before, axis=0))
