from fractions import Fraction
from itertools import combinations

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from strategies import alphas, betas, budgets, costs, positive

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import (
    gini,
    nash_equilibrium,
    payments,
    price_of_anarchy,
    rent_dissipation,
    social_optimum,
    social_welfare,
    stackelberg_equilibrium,
    welfare,
)

over = st.sampled_from(["active", "population"])
holdings = hnp.arrays(float, st.integers(1, 30), elements=st.one_of(st.just(0.0), positive))
ordinary = st.floats(0.1, 10.0)


def planned(rho, alpha, beta, n_averaged):
    """The most that an optimiser over all epsilon of these nodes reaches, n_g being given."""

    def loss(shares):  # epsilon in units of what the whole model value could pay for
        epsilon = shares * beta / rho
        value = np.log1p(alpha * epsilon.sum() / n_averaged)
        slope = alpha / n_averaged / (1 + alpha * epsilon.sum() / n_averaged)
        return shares.sum() - value, 1 - slope * beta / rho

    start = np.full(rho.size, 0.5 / rho.size)
    found = minimize(loss, start, jac=True, bounds=[(0, None)] * rho.size, tol=1e-13)
    return -beta * min(found.fun, 0.0)


@settings(max_examples=50)
@given(
    rho=hnp.arrays(float, st.integers(1, 6), elements=ordinary),
    alpha=ordinary,
    beta=st.floats(0.1, 100.0),
)
def test_over_the_population_an_optimiser_finds_the_same_optimum(rho, alpha, beta):
    optimum = social_optimum(rho, alpha, beta, "population")
    assert_allclose(optimum, planned(rho, alpha, beta, rho.size), atol=1e-6 * beta)


@settings(max_examples=25)
@given(
    rho=hnp.arrays(float, st.integers(1, 4), elements=ordinary),
    alpha=ordinary,
    beta=st.floats(0.1, 100.0),
)
def test_over_the_active_an_optimiser_finds_the_same_optimum_among_all_subsets(rho, alpha, beta):
    best = [0.0]
    for size in range(1, rho.size + 1):
        for members in map(list, combinations(range(rho.size), size)):
            best.append(planned(rho[members], alpha, beta, size))
            mask = np.isin(np.arange(rho.size), members)
            optimum = social_optimum(rho, alpha, beta, members=mask)
            assert_allclose(optimum, best[-1], atol=1e-6 * beta)
    assert_allclose(social_optimum(rho, alpha, beta), max(best), atol=1e-6 * beta)


@given(
    rho=costs(max_size=8),
    alpha=alphas,
    beta=betas,
    average_over=over,
    shares=hnp.arrays(float, 8, elements=st.floats(0.0, 2.0).filter(lambda x: not 0 < x < 1e-9)),
)
def test_no_profile_has_a_higher_value_than_the_optimum(rho, alpha, beta, average_over, shares):
    epsilon = shares[: rho.size] * beta / rho
    total = social_welfare(epsilon, rho, alpha, beta, average_over)
    assert total <= social_optimum(rho, alpha, beta, average_over) + 1e-12 * beta


@pytest.mark.parametrize(
    ("rho", "alpha", "beta", "average_over", "cheapest_total", "n_averaged"),
    [
        ([1.0, 2.0], 1.0, 10.0, "active", 9.0, 1),  # 10 / (1 + S) = 1
        ([1.0, 2.0], 1.0, 10.0, "population", 8.0, 2),  # 10 / (2 + S) = 1
        ([0.5, 0.5, 4.0], 2.0, 3.0, "population", 4.5, 3),  # 6 / (3 + 2 S) = 1/2
    ],
)
def test_optima_solved_by_hand(rho, alpha, beta, average_over, cheapest_total, n_averaged):
    value = beta * np.log(1 + alpha * cheapest_total / n_averaged) - min(rho) * cheapest_total
    assert_allclose(social_optimum(rho, alpha, beta, average_over), value, rtol=1e-14)
    epsilon = np.zeros(len(rho))
    epsilon[np.argmin(rho)] = cheapest_total
    assert_allclose(social_welfare(epsilon, rho, alpha, beta, average_over), value, rtol=1e-14)


def test_where_no_epsilon_pays_the_planner_lets_all_stay_out():
    assert social_optimum([1.0, 2.0], alpha=1.0, beta=1.0) == 0.0
    assert social_optimum([1.0, 2.0], alpha=1.0, beta=1.0001) > 0.0
    assert social_optimum([1.0, 2.0], alpha=1.0, beta=2.0, average_over="population") == 0.0
    assert social_optimum([], alpha=1.0, beta=9.0) == 0.0
    assert social_optimum([1.0, 2.0], 1.0, 9.0, members=[False, False]) == 0.0


def test_a_planner_who_may_not_choose_the_members_reaches_less():
    rho = [1.0, 2.0, 2.0]
    free = social_optimum(rho, 1.0, 10.0)
    bound = [social_optimum(rho, 1.0, 10.0, members=m) for m in ([0, 1, 0], [1, 1, 0], [1, 1, 1])]
    assert free == social_optimum(rho, 1.0, 10.0, members=[1, 0, 0])
    assert free > max(bound)
    assert_allclose(bound[0], 10 * np.log(5) - 8, rtol=1e-14)  # 10 / (1 + S) = 2
    assert_allclose(bound[1], 10 * np.log(5) - 8, rtol=1e-14)  # 10 / (2 + S) = 1
    # who takes part does not change what the population is averaged over
    over_all = [social_optimum(rho, 1.0, 10.0, "population", m) for m in ([1, 0, 0], [1, 1, 1])]
    assert over_all[0] == over_all[1]


@pytest.mark.parametrize("n_nodes", [1, 7])
@pytest.mark.parametrize(
    ("cost", "alpha", "beta"),
    [
        (0.001, 10.0, 10.0),
        (1e-200, 1e100, 1e150),
        (1e-300, 1.0, 1e20),
        (0.3, 2.2, 1.0),
        (0.6, 0.7, 1.0),
        (1e150, 1e-100, 1e260),
    ],
)
def test_optima_keep_their_digits_at_any_scale(cost, alpha, beta, n_nodes):
    with mp.workdps(60):
        x = n_nodes * mp.mpf(cost) / (mp.mpf(alpha) * mp.mpf(beta))
        exact = float(mp.mpf(beta) * (x - 1 - mp.log(x))) if x < 1 else 0.0
    assert_allclose(
        social_optimum(np.full(n_nodes, cost), alpha, beta, "population"), exact, rtol=1e-14
    )


@given(
    rho=costs(max_size=10),
    alpha=alphas,
    beta=betas,
    average_over=over,
    budget=budgets,
    seed=st.integers(0, 99),
)
def test_welfare_is_the_sum_of_all_utilities(rho, alpha, beta, average_over, budget, seed):
    rng = np.random.default_rng(seed)
    epsilon = rng.uniform(0.5, 5.0, rho.size) * (rng.random(rho.size) < 0.7)
    paid = payments(epsilon, budget)
    n_averaged = np.count_nonzero(epsilon) if average_over == "active" else rho.size
    server = beta * np.log1p(alpha * epsilon.sum() / max(n_averaged, 1)) - paid.sum()
    nodes = paid - rho * epsilon
    judged = welfare(epsilon, rho, paid, alpha, beta, average_over)
    scale = 1e-13 * (abs(server) + np.abs(nodes).sum() + budget)
    assert_allclose(judged.total, server + nodes.sum(), atol=scale)
    assert judged.optimum == social_optimum(rho, alpha, beta, average_over)
    assert judged.price_of_anarchy == price_of_anarchy(judged.optimum, judged.total) >= 1
    assert judged.average_over == average_over


def test_the_price_of_anarchy_of_two_equal_nodes():
    # B* = 6, epsilon 3/2 each: welfare 10 ln(5/2) - 3; one node alone would give 9
    game = stackelberg_equilibrium([1.0, 1.0], 1.0, 10.0)
    paid = payments(game.epsilon, game.budget)
    judged = welfare(game.epsilon, [1.0, 1.0], paid, 1.0, 10.0)
    assert_allclose(judged.total, 10 * np.log(2.5) - 3, rtol=1e-13)
    ratio = (10 * np.log(10) - 9) / (10 * np.log(2.5) - 3)
    assert_allclose(judged.price_of_anarchy, ratio, rtol=1e-13)
    population = welfare(game.epsilon, [1.0, 1.0], paid, 1.0, 10.0, "population")
    ratio = (10 * np.log(5) - 8) / (10 * np.log(2.5) - 3)
    assert_allclose(population.price_of_anarchy, ratio, rtol=1e-13)
    assert (judged.rent_dissipation, judged.gini) == (pytest.approx(0.5), 0.0)
    assert judged.individually_rational


@pytest.mark.parametrize(
    ("optimum", "total", "ratio"),
    [
        (14.0, 7.0, 2.0),
        (7.0, 7.0, 1.0),
        (7.0, np.nextafter(7.0, 8.0), 1.0),  # rounding
        (0.0, 0.0, 1.0),
        (7.0, 0.0, np.inf),
        (7.0, -1.0, np.inf),
        (0.0, -1.0, np.inf),
    ],
)
def test_corners_of_the_price_of_anarchy(optimum, total, ratio):
    assert price_of_anarchy(optimum, total) == ratio


@given(rho=costs(), budget=budgets)
def test_rent_dissipation_at_the_equilibrium_has_its_closed_form(rho, budget):
    market = nash_equilibrium(rho, budget)
    burnt = rent_dissipation(rho * market.epsilon, payments(market.epsilon, budget))
    active = [Fraction(r) for r in rho[market.active].tolist()]
    n = len(active)
    concentration = sum(r * r for r in active) / sum(active) ** 2
    assert_allclose(burnt, float((n - 1) * (1 - (n - 1) * concentration)), rtol=1e-12)
    assert 0 < burnt <= (n - 1) / n + 1e-12
    assert_allclose(market.utility.sum(), budget * (1 - burnt), atol=1e-12 * budget)


@pytest.mark.parametrize(
    ("rho", "burnt"), [([1.0] * 2, 1 / 2), ([1.0] * 10, 9 / 10), ([1.0, 3.0], 3 / 8)]
)
def test_rent_dissipation_of_cases_solved_by_hand(rho, burnt):
    epsilon = nash_equilibrium(rho, 16.0).epsilon  # of (1, 3): 3 and 1, that cost 6 of the 16
    cost, paid = np.array(rho) * epsilon, payments(epsilon, 16.0)
    assert_allclose(rent_dissipation(cost, paid), burnt, rtol=1e-13)


def test_corners_of_rent_dissipation():
    assert rent_dissipation([], []) == 0.0
    assert rent_dissipation([0.0, 0.0], [0.0, 0.0]) == 0.0
    assert rent_dissipation([0.0, 0.0], [1.0, 0.0]) == 0.0
    assert rent_dissipation([1.0, 0.0], [0.0, 0.0]) == np.inf
    assert rent_dissipation([3.0, 1.0], [1.0, 1.0]) == 2.0


@given(values=holdings)
def test_gini_is_half_the_mean_difference_of_all_pairs(values):
    differences = np.abs(values[:, None] - values).mean()
    mean = values.mean()
    expected = differences / mean / 2 if mean else 0.0
    assert_allclose(gini(values), expected, atol=1e-14)
    assert 0 <= gini(values) <= 1 - 1 / values.size + 1e-15


@given(values=holdings, scale=positive, copies=st.integers(1, 4), seed=st.integers(0, 99))
def test_gini_knows_no_unit_order_or_size(values, scale, copies, seed):
    same = np.random.default_rng(seed).permutation(np.tile(values, copies)) * scale
    assert_allclose(gini(same), gini(values), atol=1e-13)


@given(values=holdings, tax=st.floats(0.0, 1.0))
def test_sharing_out_a_tax_equally_lowers_gini_by_the_tax(values, tax):
    after = (1 - tax) * values + tax * values.mean()
    assert_allclose(gini(after), (1 - tax) * gini(values), atol=1e-13)


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ([], 0.0),
        ([3.0], 0.0),
        ([0.0, 0.0], 0.0),
        ([0.1] * 5, 0.0),  # to the last digit: no rounding takes it below zero
        ([0.0, 0.0, 0.0, 8.0], 0.75),
        ([1.0, 3.0], 0.25),
        ([1.0, -1.0], np.nan),
    ],
)
def test_gini_of_cases_solved_by_hand(values, index):
    assert_allclose(gini(values), index, rtol=1e-15)


@given(rho=costs(), budget=budgets, alpha=alphas, beta=betas)
def test_at_the_equilibrium_no_node_would_rather_stay_out(rho, budget, alpha, beta):
    epsilon = nash_equilibrium(rho, budget).epsilon
    judged = welfare(epsilon, rho, payments(epsilon, budget), alpha, beta)
    assert judged.individually_rational
    assert 0 <= judged.gini < 1


def test_one_node_that_loses_money_makes_a_profile_irrational():
    judged = welfare([1.0, 1.0, 0.0], [1.0, 3.0, 9.0], [2.0, 2.0, 0.0], 1.0, 10.0)
    assert not judged.individually_rational
    assert np.isnan(judged.gini)
    assert judged.rent_dissipation == 1.0
    fair = welfare([1.0, 1.0, 0.0], [1.0, 3.0, 9.0], [1.0, 3.0, 0.0], 1.0, 10.0)
    assert fair.individually_rational
    assert fair.gini == 0.0
    assert fair.total == judged.total  # payments are transfers


@pytest.mark.parametrize("payment", [0.3 - 1e-14, 0.3, 0.3 + 1e-14])
def test_rounding_is_neither_a_loss_nor_a_rent(payment):
    judged = welfare([1.0, 1.0], [0.3, 0.3], [payment, 0.3], 1.0, 10.0)
    assert judged.individually_rational
    assert judged.gini == 0.0


def test_a_loss_past_rounding_is_one():
    judged = welfare([1.0, 1.0], [0.3, 0.3], [0.3 - 1e-11, 0.3], 1.0, 10.0)
    assert not judged.individually_rational


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("average_over", ["active", "population"])
def test_when_nobody_takes_part_all_is_zero(n, average_over):
    nothing, rho = np.zeros(n), np.ones(n)
    judged = welfare(nothing, rho, nothing, 1.0, 0.5, average_over)
    assert judged.total == judged.optimum == judged.gini == judged.rent_dissipation == 0
    assert judged.price_of_anarchy == 1.0
    assert judged.individually_rational
    rich = welfare(nothing, rho, nothing, 1.0, 100.0, average_over)
    assert rich.price_of_anarchy == (np.inf if n else 1.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: welfare([1.0], [1.0], [-1.0], 1.0, 1.0), r"payment\[0\] = -1"),
        (
            lambda: welfare([1.0], [1.0], [1.0, 1.0], 1.0, 1.0),
            r"one value for each epsilon, but the shapes are \(2,\) and \(1,\)",
        ),
        (lambda: welfare([1.0], [1.0], [1.0], 0.0, 1.0), "alpha must be positive"),
        (lambda: welfare([-1.0], [1.0], [1.0], 1.0, 1.0), r"epsilon\[0\] = -1"),
        (lambda: social_welfare([1.0], [0.0], 1.0, 1.0), r"rho\[0\] = 0"),
        (lambda: social_welfare([1.0], [1.0], 1.0, 1.0, "all"), "average_over must be 'active' or"),
        (lambda: social_optimum([[[1.0]]], 1.0, 1.0), "rho must have shape"),
        (lambda: social_optimum([0.0], 1.0, 1.0), r"rho\[0\] = 0"),
        (lambda: social_optimum([1.0], 1.0, -1.0), "beta must be positive"),
        (lambda: social_optimum([1.0], 1.0, 1.0, "all"), "average_over must be 'active' or"),
        (lambda: social_optimum([1.0], 1.0, 1.0, members=[True, False]), "one value for each cost"),
        (lambda: price_of_anarchy(-1.0, 1.0), "optimum must be zero or positive"),
        (lambda: rent_dissipation([-1.0], [1.0]), r"cost\[0\] = -1"),
        (lambda: rent_dissipation([1.0], [np.inf]), r"payment\[0\] = inf"),
        (lambda: gini([[[1.0]]]), "values must have shape"),
        (lambda: gini([np.nan]), r"values\[0\] = nan"),
    ],
)
def test_numbers_outside_their_range_are_refused(call, words):
    with pytest.raises(InvalidGameError, match=words):
        call()
