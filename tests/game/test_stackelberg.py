from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq, minimize_scalar
from strategies import alphas, betas, costs

import fcfn_abm as fa
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import (
    averaged_nodes,
    best_budget,
    nash_equilibrium,
    node_utility,
    stackelberg_equilibrium,
)

AVERAGES = ("active", "population", "effective")
over = st.sampled_from(AVERAGES)


def count(average_over, epsilon):
    """How many nodes the mean is over, spelled out."""
    if average_over == "effective":
        shares = epsilon / (epsilon.max() or 1.0)  # squares of tiny ones vanish
        return shares.sum() ** 2 / (shares**2).sum() if shares.any() else 1.0
    return max(1, np.count_nonzero(epsilon)) if average_over == "active" else epsilon.size


def answered_utility(budget, rho, alpha, beta, average_over):
    """What the server gets from a cap, with the nodes' answer from the root of their shares."""
    if budget <= 0:
        return 0.0
    total = brentq(
        lambda s: np.maximum(1.0 - rho * s / budget, 0.0).sum() - 1.0,
        1e-9 * budget / rho.max(),
        budget / rho.min(),
        xtol=1e-300,
        rtol=1e-14,
    )
    epsilon = nash_equilibrium(rho, budget).epsilon  # no root tells a tie from a near tie
    mean_epsilon = total / count(average_over, epsilon)
    return beta * np.log1p(alpha * mean_epsilon) - budget


@settings(max_examples=60)
@given(
    rho=st.one_of(
        costs(max_size=8), st.just(np.array([1.0, 1.0, 5.0])), st.just(np.linspace(0.5, 1.5, 30))
    ),
    alpha=alphas,
    beta=betas,
    average_over=over,
)
def test_an_optimiser_over_all_caps_finds_nothing_better(rho, alpha, beta, average_over):
    game = stackelberg_equilibrium(rho, alpha, beta, average_over)
    found = minimize_scalar(
        lambda budget: -answered_utility(budget, rho, alpha, beta, average_over),
        bounds=(0.0, beta),
        method="bounded",
        options={"xatol": 1e-9 * beta},
    )
    assert game.server_utility >= -found.fun - 1e-10 * beta
    own = answered_utility(game.budget, rho, alpha, beta, average_over)
    assert_allclose(game.server_utility, own, atol=1e-10 * beta)
    if game.budget > 1e-3 * beta:
        assert_allclose(found.x, game.budget, atol=1e-4 * beta)  # the top is flat
    assert 0 <= game.budget < beta


@given(rho=costs(), alpha=alphas, beta=betas, average_over=over, factor=st.floats(0.0, 3.0))
def test_no_other_cap_pays_the_server_more(rho, alpha, beta, average_over, factor):
    game = stackelberg_equilibrium(rho, alpha, beta, average_over)
    for other in (factor * game.budget, factor * beta):
        answer = nash_equilibrium(rho, other)
        mean_epsilon = answer.total_epsilon / count(average_over, answer.epsilon)
        value = beta * np.log1p(alpha * mean_epsilon)
        assert value - other <= game.server_utility + 1e-12 * beta


@given(rho=costs(), alpha=alphas, beta=betas, average_over=over)
def test_the_nodes_answer_with_their_equilibrium(rho, alpha, beta, average_over):
    game = stackelberg_equilibrium(rho, alpha, beta, average_over)
    answer = nash_equilibrium(rho, game.budget)
    for name, value in vars(answer).items():
        assert_array_equal(getattr(game, name), value)
    n_averaged = count(average_over, game.epsilon)
    assert_allclose(game.mean_epsilon * n_averaged, game.epsilon.sum(), rtol=1e-13)
    assert game.average_over == average_over


@given(rho=costs(), alpha=alphas, beta=betas, average_over=over)
def test_the_cap_agrees_with_exact_fractions(rho, alpha, beta, average_over):
    active = nash_equilibrium(rho, 1.0).active  # itself tested against fractions
    n = int(active.sum())
    tau = sum(map(Fraction, rho[active].tolist()))
    shares = [1 - Fraction(cost) * (n - 1) / tau for cost in rho[active].tolist()]
    averaged = {"active": n, "population": rho.size, "effective": 1 / sum(s**2 for s in shares)}
    kappa = (n - 1) / (averaged[average_over] * tau)
    exact = max(Fraction(0), Fraction(beta) - 1 / (Fraction(alpha) * kappa))
    budget = stackelberg_equilibrium(rho, alpha, beta, average_over).budget
    assert_allclose(budget, float(exact), rtol=1e-15, atol=1e-15 * beta)


def test_the_paper_is_met_in_figure_4():
    # N = 100, rho = 0.001, beta = 10; the printed numbers need alpha = 1
    game = stackelberg_equilibrium(np.full(100, 0.001), alpha=1.0, beta=10.0)
    assert game.budget == pytest.approx(980 / 99, rel=1e-14)
    assert_allclose(game.epsilon, 98.0, rtol=1e-13)
    assert_allclose(game.utility, 980 / 99 / 100**2, rtol=1e-13)
    assert game.mean_epsilon == pytest.approx(98.0, rel=1e-13)
    assert game.server_utility == pytest.approx(10 * np.log(99) - 980 / 99, rel=1e-14)
    profile = game.epsilon.copy()
    profile[0] = 19502 / 99  # where its curve crosses zero
    assert_allclose(node_utility(profile, np.full(100, 0.001), game.budget)[0], 0, atol=1e-15)


def test_with_another_alpha_figure_4_would_read_otherwise():
    game = stackelberg_equilibrium(np.full(100, 0.001), alpha=10.0, beta=10.0)
    assert game.budget == pytest.approx(989 / 99, rel=1e-14)
    assert_allclose(game.epsilon, 98.9, rtol=1e-13)


def test_a_case_solved_by_hand_averages_over_the_nodes_that_are_asked_for():
    rho = [1.0, 1.0, 5.0]  # two take part, tau 2: S = B / 2
    active = stackelberg_equilibrium(rho, alpha=1.0, beta=10.0)  # 10 ln(1 + B / 4) - B
    assert active.budget == pytest.approx(6.0, rel=1e-14)
    assert_allclose(active.epsilon, [1.5, 1.5, 0.0], rtol=1e-14)
    assert active.mean_epsilon == pytest.approx(1.5, rel=1e-14)
    assert active.server_utility == pytest.approx(10 * np.log(2.5) - 6, rel=1e-13)
    population = stackelberg_equilibrium(rho, 1.0, 10.0, "population")  # 10 ln(1 + B / 6) - B
    assert population.budget == pytest.approx(4.0, rel=1e-14)
    assert_allclose(population.epsilon, [1.0, 1.0, 0.0], rtol=1e-14)
    assert population.mean_epsilon == pytest.approx(2 / 3, rel=1e-14)
    assert population.server_utility == pytest.approx(10 * np.log(5 / 3) - 4, rel=1e-13)
    assert (active.n_active, population.n_active) == (2, 2)


@pytest.mark.parametrize(
    ("beta", "average_over", "trades"),
    [
        (3.9, "active", False),  # the first unit of money buys beta / 4 of model value
        (4.0, "active", False),
        (4.0001, "active", True),
        (5.9, "population", False),  # beta / 6
        (6.0, "population", False),
        (6.0001, "population", True),
    ],
)
def test_no_trade_is_a_result(beta, average_over, trades):
    game = stackelberg_equilibrium([1.0, 1.0, 5.0], 1.0, beta, average_over)
    assert (game.budget > 0) is trades
    assert (game.server_utility > 0) is trades
    assert (game.n_active == 2) is trades
    if not trades:
        assert game.budget == game.server_utility == game.mean_epsilon == game.total_epsilon == 0
        assert not game.epsilon.any()
        assert not game.utility.any()
        assert not game.active.any()


@pytest.mark.parametrize("average_over", ["active", "population"])
@pytest.mark.parametrize("rho", [[], [1.0]])
def test_fewer_than_two_nodes_are_no_market(rho, average_over):
    game = stackelberg_equilibrium(rho, 1e6, 1e6, average_over)
    assert_array_equal(game.epsilon, np.zeros(len(rho)))
    assert game.budget == game.server_utility == game.mean_epsilon == game.n_active == 0


@given(rho=costs(), alpha=alphas, beta=betas, average_over=over, power=st.integers(-20, 20))
def test_scaling_laws(rho, alpha, beta, average_over, power):
    scale = 2.0**power  # a power of two changes no digit
    game = stackelberg_equilibrium(rho, alpha, beta, average_over)
    currency = stackelberg_equilibrium(scale * rho, alpha, scale * beta, average_over)
    assert currency.budget == scale * game.budget
    assert_array_equal(currency.epsilon, game.epsilon)
    assert_allclose(currency.server_utility, scale * game.server_utility, rtol=1e-14)
    unit = stackelberg_equilibrium(scale * rho, scale * alpha, beta, average_over)
    assert unit.budget == game.budget
    assert_array_equal(scale * unit.epsilon, game.epsilon)
    assert_allclose(unit.server_utility, game.server_utility, rtol=1e-14)


@given(rho=costs(), alpha=alphas, beta=betas, more=st.floats(1.0, 10.0))
def test_who_stays_out_counts_in_the_population_only(rho, alpha, beta, more):
    costly = nash_equilibrium(rho, 1.0).threshold * more * (1 + 1e-15)
    joined = np.append(rho, costly)
    before = stackelberg_equilibrium(rho, alpha, beta)
    assert stackelberg_equilibrium(joined, alpha, beta).budget == before.budget
    before = stackelberg_equilibrium(rho, alpha, beta, "population")
    after = stackelberg_equilibrium(joined, alpha, beta, "population")
    assert after.budget < before.budget or after.budget == before.budget == 0
    assert after.server_utility <= before.server_utility


@given(rho=costs(), alpha=alphas, beta=betas)
def test_when_all_take_part_population_and_active_agree(rho, alpha, beta):
    rho = rho[nash_equilibrium(rho, 1.0).active]
    game = stackelberg_equilibrium(rho, alpha, beta, "population")
    assert game.budget == stackelberg_equilibrium(rho, alpha, beta).budget


@given(n_nodes=st.integers(2, 40), rho=st.floats(1e-3, 1e3), alpha=alphas, beta=betas)
def test_for_equal_nodes_all_averages_agree(n_nodes, rho, alpha, beta):
    games = [stackelberg_equilibrium(np.full(n_nodes, rho), alpha, beta, over) for over in AVERAGES]
    for game in games[1:]:
        assert_allclose(game.budget, games[0].budget, rtol=1e-12, atol=1e-12 * beta)
        assert_allclose(game.mean_epsilon, games[0].mean_epsilon, rtol=1e-12)


def test_a_node_at_the_threshold_moves_the_mean_over_active_nodes_and_not_the_effective_one():
    # checked numbers: five nodes of cost 4, and three at, or just below, where they stay out
    utility = {}
    for cost in (4.9999, 5.0):
        rho = np.array([4.0] * 5 + [cost] * 3)
        for average_over in ("active", "effective"):
            game = stackelberg_equilibrium(rho, 10.0, 10.0, average_over)
            utility[average_over, cost] = game.server_utility
    assert utility["active", 4.9999] == pytest.approx(3.163, abs=5e-4)
    assert utility["active", 5.0] == pytest.approx(6.363, abs=5e-4)
    assert utility["effective", 4.9999] == pytest.approx(6.3625, abs=5e-5)
    assert utility["effective", 5.0] == pytest.approx(6.3629, abs=5e-5)


@given(epsilon=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_the_effective_number_lies_between_one_and_the_number_of_active_nodes(epsilon):
    number = averaged_nodes("effective", [*epsilon, 0.0])
    assert 1 - 1e-12 <= number <= len(epsilon) * (1 + 1e-12)
    assert_allclose(number, count("effective", np.array(epsilon)), rtol=1e-12)


def test_a_million_nearly_equal_nodes_keep_twelve_digits():
    n, unit = 10**6, 2**52
    d = np.random.default_rng(4).integers(0, int(5e-7 * unit), n)
    game = stackelberg_equilibrium(1.0 + d / unit, alpha=0.5, beta=3e6)
    tau = n + Fraction(int(d.sum()), unit)
    budget = 3 * 10**6 - 2 * n * tau / (n - 1)
    assert game.n_active == n
    assert_allclose(game.budget, float(budget), rtol=1e-14)
    gap = unit + int(d.sum()) - (n - 1) * d
    assert_allclose(game.epsilon, float(budget * (n - 1) / (tau**2 * unit)) * gap, rtol=1e-13)
    with mp.workdps(30):
        value = mp.log(1 + mp.mpf(0.5) * (n - 1) * mp.mpf(float(budget)) / (n * mp.mpf(float(tau))))
        assert_allclose(game.server_utility, float(3e6 * value - mp.mpf(float(budget))), rtol=1e-12)


@pytest.mark.parametrize(
    ("cost", "alpha", "beta"),
    [(1e-3, 1e308, 10.0), (1e280, 1e-5, 1e295), (1e-200, 1e-100, 1e-90), (1e150, 1.0, 1e160)],
)
def test_extreme_scales(cost, alpha, beta):
    game = stackelberg_equilibrium([cost, cost], np.float64(alpha), np.float64(beta))
    with mp.workdps(700):
        budget = mp.mpf(beta) - 4 * mp.mpf(cost) / mp.mpf(alpha)
        value = mp.mpf(beta) * mp.log(1 + mp.mpf(alpha) * budget / (4 * mp.mpf(cost))) - budget
        assert_allclose(game.budget, float(budget), rtol=1e-14)
        assert_allclose(game.epsilon, float(budget / (4 * mp.mpf(cost))), rtol=1e-14)
        assert_allclose(game.server_utility, float(value), rtol=1e-14)


@pytest.mark.parametrize("number", [float, np.float64])
def test_numbers_of_any_make_are_answered_in_plain_floats(number):
    game = stackelberg_equilibrium([1.0, 1.0], number(1.0), number(10.0))
    assert {type(x) for x in (game.budget, game.server_utility, game.mean_epsilon)} == {float}
    hopeless = stackelberg_equilibrium([1e280, 1e280], number(1e-300), number(1e-5))
    assert hopeless.budget == hopeless.server_utility == hopeless.n_active == 0


def test_the_parts_are_usable_by_themselves():
    assert best_budget(tau=2.0, n_active=2, n_averaged=3, alpha=1.0, beta=10.0) == 4.0
    assert best_budget(tau=0.0, n_active=0, n_averaged=3, alpha=1.0, beta=10.0) == 0.0
    averages = [averaged_nodes(over, [1.0, 2.0, 0.0]) for over in AVERAGES]
    assert averages == [2, 3, 9.0 / 5.0]
    assert [averaged_nodes(over, [0.0, 0.0]) for over in AVERAGES] == [0, 2, 0]
    assert averaged_nodes("effective", [1e300, 1e300, 1e300]) == 3.0
    assert fa.stackelberg_equilibrium is stackelberg_equilibrium


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stackelberg_equilibrium([1.0, 1.0], 0.0, 1.0), "alpha must be positive"),
        (lambda: stackelberg_equilibrium([1.0, 1.0], 1.0, -1.0), "beta must be positive"),
        (lambda: stackelberg_equilibrium([1.0, 1.0], np.nan, 1.0), "alpha must be positive"),
        (lambda: stackelberg_equilibrium([1.0, 1.0], 1.0, np.inf), "beta must be positive"),
        (lambda: stackelberg_equilibrium([1.0, 0.0], 1.0, 1.0), r"rho\[1\] = 0"),
        (lambda: stackelberg_equilibrium([[[1.0]]], 1.0, 1.0), "rho must have shape"),
        (
            lambda: stackelberg_equilibrium([1.0, 1.0], 1.0, 1.0, "all"),
            "average_over must be 'active' or 'population' or 'effective', but is 'all'",
        ),
        (lambda: stackelberg_equilibrium([], 1.0, 1.0, "all"), "average_over must be 'active' or"),
    ],
)
def test_numbers_outside_their_range_are_refused(call, words):
    with pytest.raises(InvalidGameError, match=words):
        call()
