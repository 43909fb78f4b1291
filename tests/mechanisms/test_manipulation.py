"""Coalitions and split identities under each mechanism, against solvers of their own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm.build import draw_population, measure_manipulation
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError
from fcfn_abm.mechanisms import MECHANISMS, PricingGame
from fcfn_abm.mechanisms.manipulation import Manipulated
from fcfn_abm.population.manipulation import (
    Manipulation,
    count_identities,
    draw_members,
    find_silent,
)

UNIFORM = {"kind": "uniform", "low": 0.5, "high": 1.5}
OPTIONS = {
    "myerson-cap": {"distribution": UNIFORM, "largest_epsilon": 1.0},
    "posted-price": {"price": 1.0, "largest_epsilon": 1.0},
    "random": {"low": 0.1, "high": 0.9},
}
KINDS = [kind for kind in MECHANISMS if kind != "pooled-weights"]
games = st.integers(0, 10_000)


def draw(seed, size, n_nodes=9):
    """Return a game with a cap, and the rows of some of its nodes."""
    rng = np.random.default_rng(seed)
    rho = rng.uniform(0.5, 1.5, n_nodes)
    rows = rng.permutation(n_nodes)[:size].tolist()
    return PricingGame(rho, alpha=10.0, beta=10.0, budget=rng.uniform(2.0, 20.0)), rows


def played(kind, game, coalition=(), doubled=(), identities=1, **options):
    """Return the outcome of nodes that agree or split, and of the same nodes if they do not."""
    n_nodes = game.rho.size
    manipulators = np.zeros(n_nodes, dtype=bool)
    manipulators[[*coalition, *doubled]] = True
    manipulation = Manipulation(
        find_silent(game.rho, [list(coalition)] if len(coalition) else []),
        count_identities(n_nodes, list(doubled), identities),
        manipulators,
    )
    mechanism = MECHANISMS.create(kind, {**OPTIONS.get(kind, {}), **options})
    found, fair = (
        Manipulated(mechanism, kind, one).outcome(game, np.random.default_rng(3))
        for one in (manipulation, manipulation.without_manipulation)
    )
    return found, fair


def settle_by_replies(payoff_slope, costs, budget):
    """Return the equilibrium of a contest by replies in turn, each found by bisection."""
    epsilon = np.full(costs.size, budget / costs.size**2)
    for _ in range(400):
        before = epsilon.copy()
        for row in range(costs.size):
            low, high = 0.0, budget / costs[row]
            for _ in range(80):
                middle = (low + high) / 2
                epsilon[row] = middle
                up = payoff_slope(epsilon, row) > costs[row]
                low, high = (middle, high) if up else (low, middle)
            epsilon[row] = low
        if np.abs(epsilon - before).max() < 1e-12 * budget:
            break
    return epsilon


@pytest.mark.parametrize("seed", range(6))
def test_a_coalition_is_the_contest_of_the_outsiders_and_its_cheapest_member(seed):
    game, members = draw(seed, 4, n_nodes=7)
    found, _ = played("stackelberg", game, coalition=members)
    speaker = min(members, key=lambda row: game.rho[row])
    rows = [row for row in range(7) if row not in members or row == speaker]

    def slope(epsilon, row):
        total = epsilon.sum()
        return game.budget * (total - epsilon[row]) / total**2

    solved = settle_by_replies(slope, game.rho[rows], game.budget)
    expected = np.zeros(7)
    expected[rows] = solved
    assert_allclose(found.epsilon, expected, atol=1e-6 * expected.max())
    assert (found.payment[[row for row in members if row != speaker]] == 0).all()


def test_three_of_four_equal_nodes_gain_by_agreeing_and_three_of_twenty_lose():
    """m of n equal nodes get m B / n^2 apart, and B / (n - m + 1)^2 if one of them reports."""
    for n_nodes, gain in ((4, 1 / 4 - 3 / 16), (20, 1 / 18**2 - 3 / 20**2)):
        game = PricingGame(np.ones(n_nodes), 10.0, 10.0, 1.0)
        found, fair = played("stackelberg", game, coalition=(0, 1, 2))
        gained = (found.node_utility - fair.node_utility)[:3].sum()
        assert gained == pytest.approx(gain)


def test_of_five_like_nodes_three_gain_by_agreeing_in_33_of_40_random_games():
    won = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        game = PricingGame(rng.uniform(0.9, 1.1, 5), 10.0, 10.0, 1.0)
        members = rng.permutation(5)[:3].tolist()
        found, fair = played("stackelberg", game, coalition=members)
        won += (found.node_utility - fair.node_utility)[members].sum() > 0
    assert won == 33  # as docs/manipulation.md says


@given(seed=games, identities=st.integers(2, 6), kind=st.sampled_from(["stackelberg", "weighted"]))
def test_identities_leave_what_a_contest_pays_and_lower_the_mean(seed, identities, kind):
    game, (row,) = draw(seed, 1)
    found, fair = played(kind, game, doubled=[row], identities=identities)
    assert_allclose(found.epsilon, fair.epsilon, rtol=1e-12)
    assert_allclose(found.payment, fair.payment, rtol=1e-12)
    assert found.server_payment == pytest.approx(fair.server_payment, rel=1e-12)
    more = identities - 1 if fair.active[row] else 0
    total = fair.epsilon.sum()
    assert found.mean_epsilon == pytest.approx(total / (fair.n_active + more))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("exponent", [0.5, 0.8])
def test_identities_of_a_tullock_contest_are_one_player_with_several_scores(seed, exponent):
    game, (row,) = draw(seed, 1, n_nodes=4)
    found, _ = played("tullock", game, doubled=[row], identities=3, exponent=exponent)
    weight = np.ones(4)
    weight[row] = 3 ** (1 - exponent)  # three times (epsilon / 3)**r

    def slope(epsilon, own):
        score = weight * epsilon**exponent
        others = score.sum() - score[own]
        rise = exponent * score[own] / epsilon[own]
        return game.budget * others * rise / score.sum() ** 2

    solved = settle_by_replies(slope, game.rho, game.budget)
    assert_allclose(found.epsilon, solved, rtol=1e-5)
    score = weight * solved**exponent
    assert_allclose(found.payment, game.budget * score / score.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k not in ("stackelberg", "tullock", "weighted")]
)
def test_other_mechanisms_take_identities_for_nodes_with_the_same_cost(kind):
    game, (row,) = draw(5, 1)
    found, _ = played(kind, game, doubled=[row], identities=3)
    others = np.delete(game.rho, row)
    rho = np.concatenate([others, game.rho[[row] * 3]])
    mechanism = MECHANISMS.create(kind, OPTIONS.get(kind, {}))
    whole = PricingGame(rho, game.alpha, game.beta, game.budget)
    alone = mechanism.outcome(whole, np.random.default_rng(3))
    assert_allclose(found.node_utility[row], alone.node_utility[-3:].sum(), atol=1e-12)
    assert_allclose(np.delete(found.epsilon, row), alone.epsilon[:-3])
    assert found.server_utility == alone.server_utility


@pytest.mark.parametrize("kind", KINDS)
def test_who_says_nothing_sells_nothing_and_is_as_if_it_were_not_there(kind):
    game, members = draw(8, 3)
    found, _ = played(kind, game, coalition=members)
    speaker = min(members, key=lambda row: game.rho[row])
    quiet = [row for row in members if row != speaker]
    assert (found.epsilon[quiet] == 0).all()
    assert (found.node_utility[quiet] == 0).all()
    rows = [*(row for row in range(9) if row not in members), speaker]
    mechanism = MECHANISMS.create(kind, OPTIONS.get(kind, {}))
    rest = PricingGame(game.rho[rows], game.alpha, game.beta, game.budget)
    alone = mechanism.outcome(rest, np.random.default_rng(3))
    assert_allclose(found.epsilon[rows], alone.epsilon, rtol=1e-12)
    assert found.server_utility == pytest.approx(alone.server_utility, rel=1e-12)


def test_nodes_that_draw_draw_the_same_whatever_the_manipulators_do():
    game, members = draw(2, 3)
    found, fair = played("random", game, coalition=members)
    speaker = min(members, key=lambda row: game.rho[row])
    others = [row for row in range(9) if row not in members]
    assert_allclose(found.epsilon[[*others, speaker]], fair.epsilon[[*others, speaker]])
    doubled, fair = played("random", game, doubled=members[:1], identities=4)
    assert_allclose(np.delete(doubled.epsilon, members[0]), np.delete(fair.epsilon, members[0]))


# ---- scenarios


def scenario(kind="stackelberg", **people):
    tree = {
        "seed": 4,
        "population": {"n_nodes": 12, "rho": UNIFORM, **people},
        "mechanism": {"kind": kind, **OPTIONS.get(kind, {})},
    }
    return fa.Scenario.model_validate(tree)


@pytest.mark.parametrize(
    "people",
    [
        {"coalitions": {"rows": [1, 5, 7, 9]}},
        {"coalitions": {"size": 3, "number": 2}},
        {"sybils": {"identities": 3, "rows": [5, 7]}},
    ],
)
@pytest.mark.parametrize("kind", ["stackelberg", "tullock", "weighted", "yang", "ic-mle", "vcg"])
def test_a_market_comes_to_rest_where_the_mechanism_leads_to(kind, people):
    if "sybils" in people and kind in ("tullock", "yang"):
        with pytest.raises(InvalidScenarioError, match="which nodes do not learn"):
            fa.PrivacyMarket(scenario(kind, **people))
        return
    market = fa.PrivacyMarket(scenario(kind, **people))
    assert market.run_until().kind == "converged"
    expected = market.outcome
    assert_allclose(market.epsilon, expected.epsilon, atol=1e-6 * expected.epsilon.max())
    assert market.state.mean_epsilon == pytest.approx(expected.mean_epsilon, rel=1e-5)
    assert market.state.server_utility == pytest.approx(expected.server_utility, rel=1e-5)


def test_the_server_of_a_market_lowers_its_cap_for_identities():
    """B* = beta - n_g tau / (alpha (n - 1)): n_g counts identities, n and tau are of nodes."""
    market = fa.PrivacyMarket(scenario(sybils={"identities": 5, "rows": [5]}))
    market.run_until()
    nodes = fa.nash_equilibrium(market.columns.rho, 1.0)
    assert nodes.active[5]
    best = 10.0 - (nodes.n_active + 4) * nodes.tau / (10.0 * (nodes.n_active - 1))
    assert market.budget == pytest.approx(best, rel=1e-6)


def test_members_are_drawn_once_each_and_the_same_in_every_run():
    members = draw_members(20, 4, 3, 7)
    assert len({row for one in members for row in one}) == 12
    assert members == draw_members(20, 4, 3, 7)
    with pytest.raises(InvalidGameError, match="cannot draw 7 x 3 different nodes from 20"):
        draw_members(20, 7, 3, 7)
    drawn = draw_population(scenario(coalitions={"size": 5})).manipulation
    assert drawn.manipulators.sum() == 5
    assert drawn.silent.sum() == 4


def test_a_record_says_what_they_gain_and_whom_they_hurt(tmp_path):
    record = fa.run_scenario(scenario(coalitions={"rows": [1, 5, 7]}), tmp_path / "run")
    found = record.run["manipulation"]
    rho = record.nodes["rho"].to_numpy()
    cap = fa.stackelberg_equilibrium(rho, 10.0, 10.0).budget
    fair, cheapest = fa.nash_equilibrium(rho, cap), 5  # of 1, 5 and 7
    assert rho[[1, 5, 7]].argmin() == 1
    left = np.delete(np.arange(12), [1, 7])
    agreed = fa.nash_equilibrium(rho[left], cap)
    own = agreed.utility[left == cheapest].sum() - fair.utility[[1, 5, 7]].sum()
    assert found["manipulators_gain"] == pytest.approx(own)
    others = agreed.utility[left != cheapest].sum() - np.delete(fair.utility, [1, 5, 7]).sum()
    assert found["outsiders_gain"] == pytest.approx(others)
    nodes = fa.read_record(tmp_path / "run").nodes
    assert nodes["identities"].tolist() == [1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1]
    assert nodes["manipulates"].sum() == 3


def test_honest_nodes_leave_no_trace():
    assert measure_manipulation(scenario()) is None
    record = fa.run_scenario(scenario())
    assert "manipulation" not in record.run
    assert "identities" not in record.nodes


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ({"coalitions": {"rows": [1, 12]}}, "rows must be from 0 to 11"),
        ({"coalitions": {"rows": [1, 1]}}, "1 is listed twice"),
        ({"coalitions": {"size": 13}}, "needs 13 nodes"),
        ({"coalitions": {"size": 2}, "sybils": {"identities": 2}}, "use only one of them"),
        (
            {"coalitions": {"size": 2}, "churn": {"departures": 0.1}},
            "newcomers would belong to no coalition",
        ),
        (
            {"sybils": {"identities": 2}, "total_epsilon": 3.0},
            "the owner of the limit is undefined",
        ),
    ],
)
def test_what_cannot_be_is_refused(people, message):
    with pytest.raises((InvalidScenarioError, ValueError), match=message):
        fa.PrivacyMarket(scenario(**people))


def test_mechanisms_are_compared_for_nodes_that_report_for_themselves():
    with pytest.raises(InvalidScenarioError, match="nodes that report for themselves"):
        fa.compare_mechanisms(scenario(coalitions={"size": 2}))


def test_the_threshold_of_a_record_is_that_of_the_nodes_that_report():
    record = fa.run_scenario(scenario(coalitions={"rows": [1, 5, 7]}))
    rho = np.delete(record.nodes["rho"].to_numpy(), [1, 7])
    expected = fa.nash_equilibrium(rho, 1.0)
    assert record.run["equilibrium"]["tau"] == expected.tau
    assert record.run["equilibrium"]["threshold"] == expected.threshold
