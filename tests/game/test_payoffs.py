import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar
from strategies import budgets, costs, positive

import fcfn_abm as fa
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import (
    exploitability,
    nash_equilibrium,
    node_utility,
    payments,
    privacy_cost,
    server_utility,
)

reports = hnp.arrays(
    float, st.integers(0, 30), elements=st.one_of(st.just(0.0), st.floats(1e-3, 1e3))
)


@st.composite
def profiles(draw, max_size=30):
    rho = draw(costs(max_size=max_size))
    epsilon = draw(hnp.arrays(float, rho.size, elements=st.floats(1e-3, 1e3)))
    return epsilon, rho


@given(epsilon=reports, budget=budgets)
def test_payments_share_the_budget_in_proportion(epsilon, budget):
    paid = payments(epsilon, budget)
    assert_allclose(paid.sum(), budget if epsilon.any() else 0.0, rtol=1e-13)
    assert_allclose(paid * epsilon.sum(), budget * epsilon, rtol=1e-13)
    assert_array_equal(paid > 0, epsilon > 0)


def test_cases_solved_by_hand():
    assert_allclose(payments([1.0, 3.0], 8.0), [2.0, 6.0], rtol=1e-15)
    assert_array_equal(privacy_cost([2.0, 0.5], [1.0, 3.0]), [2.0, 1.5])
    assert_allclose(node_utility([1.0, 3.0], [2.0, 0.5], 8.0), [0.0, 4.5], atol=1e-15)
    assert_allclose(server_utility(np.e - 1, 1.0, 10.0, 2.0), 8.0, rtol=1e-15)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_when_nobody_reports_nobody_is_paid(n):
    assert_array_equal(payments(np.zeros(n), 8.0), np.zeros(n))
    assert_array_equal(node_utility(np.zeros(n), np.ones(n), 8.0, fixed_cost=1.0), np.zeros(n))


def test_the_only_node_gets_everything():
    assert_array_equal(payments([0.0, 1e-6, 0.0], 8.0), [0.0, 8.0, 0.0])
    assert_array_equal(payments([5e-324, 5e-324], 8.0), [4.0, 4.0])


def test_a_fixed_cost_is_borne_by_those_who_take_part():
    with_it = node_utility([1.0, 1.0, 0.0], [1.0, 1.0, 5.0], 4.0, fixed_cost=0.25)
    assert_array_equal(with_it, [0.75, 0.75, 0.0])


@given(
    mean_epsilon=st.one_of(st.just(0.0), st.floats(1e-300, 1e300)),
    alpha=st.floats(1e-300, 1e300),
    beta=positive,
    paid=st.one_of(st.just(0.0), positive),
)
def test_the_servers_utility_has_all_digits_at_any_scale(mean_epsilon, alpha, beta, paid):
    with mp.workdps(700):
        value = mp.mpf(beta) * mp.log(1 + mp.mpf(alpha) * mp.mpf(mean_epsilon))
    expected, error = float(value - paid), 1e-15 * float(value + paid)
    assert_allclose(server_utility(mean_epsilon, alpha, beta, paid), expected, atol=error)


@settings(max_examples=30)
@given(profile=profiles(max_size=6), budget=budgets)
def test_exploitability_is_the_most_an_optimiser_can_gain(profile, budget):
    epsilon, rho = profile
    gains = [0.0]
    for node in range(rho.size):
        others = np.delete(epsilon, node).sum()

        def loss(x, others=others, rho=rho[node]):
            return rho * x - budget * x / (x + others)

        found = minimize_scalar(
            lambda t, loss=loss, top=budget / rho[node]: loss(top * np.exp(-t)),
            bounds=(0.0, 40.0),
            method="bounded",
            options={"xatol": 1e-9},
        )
        gains.append(loss(epsilon[node]) - min(found.fun, 0.0))
    scale = max(1.0, (rho * epsilon).max() / budget)
    assert_allclose(exploitability(epsilon, rho, budget), max(gains) / budget, atol=1e-9 * scale)


@given(rho=costs(), budget=budgets)
def test_nothing_can_be_exploited_at_the_equilibrium(rho, budget):
    assert exploitability(nash_equilibrium(rho, budget).epsilon, rho, budget) < 1e-15


@given(profile=profiles(), budget=budgets, power=st.integers(-20, 20) | st.integers(-450, 450))
def test_exploitability_has_no_units(profile, budget, power):
    epsilon, rho = profile
    scale = 4.0**power
    now = exploitability(epsilon, rho, budget)
    assert exploitability(epsilon, scale * rho, scale * budget) == now
    assert exploitability(epsilon / scale, rho * scale, budget) == now


def test_a_small_gain_keeps_its_digits():
    rho, budget = np.linspace(0.9, 1.1, 5), 3.0
    epsilon = nash_equilibrium(rho, budget).epsilon
    epsilon[2] *= 1 + 1e-6
    gains = []
    with mp.workdps(60):
        for node in range(5):
            x, r, b = mp.mpf(epsilon[node]), mp.mpf(rho[node]), mp.mpf(budget)
            s = sum(mp.mpf(e) for e in np.delete(epsilon, node))
            best = mp.sqrt(b * s / r) - s
            gains.append((b * best / (best + s) - r * best) - (b * x / (x + s) - r * x))
    exact = float(max(gains) / 3)
    assert 1e-14 < exact < 1e-12  # a thousandth of it is lost where two utilities are subtracted
    assert_allclose(exploitability(epsilon, rho, budget), exact, rtol=1e-7)


@pytest.mark.parametrize(
    ("epsilon", "budget", "gain"),
    [
        ([0.0, 0.0], 4.0, (4.0 - 1e-6) / 4.0),  # the smallest report wins everything
        ([1.0, 0.0], 4.0, 1.0 / 4.0),  # the second node wins 2 at the cost of 1
        ([3.0, 0.0], 4.0, (3.0 - 1e-6) / 4.0),  # the first would win as much with the floor
        ([9.0, 0.0], 4.0, (9.0 - 1e-6) / 4.0),
        ([5.0, 0.0], 1e-7, (5.0 - 1e-7) / 1e-7),  # not even the floor pays: it had better leave
        ([0.0, 0.0], 1e-7, 0.0),
        ([1.0, 1.0], 4.0, 0.0),
        ([9.0, 1.0], 4.0, (9.0 - 3.6 + 1.0) / 4.0),  # the best reply to 1 is 1 and earns 1
        ([0.0, 0.0], 0.0, 0.0),
        ([1.0, 0.0], 0.0, np.inf),
    ],
)
def test_corners_of_exploitability(epsilon, budget, gain):
    assert_allclose(exploitability(epsilon, [1.0, 1.0], budget), gain, rtol=1e-12)


def test_exploitability_of_one_node_and_of_none():
    assert exploitability([], [], 4.0) == 0.0
    assert exploitability([1e-6], [1.0], 4.0) == 0.0
    assert_allclose(exploitability([1e-3], [1.0], 4.0), (1e-3 - 1e-6) / 4.0, rtol=1e-12)
    assert exploitability([1e-3], [1.0], 4.0, epsilon_floor=1e-3) == 0.0


def test_the_public_names_are_these():
    assert fa.payments is payments
    assert fa.node_utility is node_utility
    assert fa.server_utility is server_utility
    assert fa.exploitability is exploitability


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: payments([1.0, -1.0], 4.0), r"epsilon\[1\] = -1 \(1 of 2 values\)"),
        (lambda: payments([np.nan, 1.0], 4.0), r"epsilon\[0\] = nan"),
        (lambda: payments([[[1.0]]], 4.0), r"k populations, but has shape \(1, 1, 1\)"),
        (lambda: payments([1.0], -4.0), "budget must be zero or positive"),
        (lambda: privacy_cost([1.0, 0.0], [1.0, 1.0]), r"rho\[1\] = 0"),
        (
            lambda: privacy_cost([1.0], [1.0, 1.0]),
            r"one cost for each epsilon, but the shapes are \(1,\) and \(2,\)",
        ),
        (lambda: node_utility([1.0], [1.0], 4.0, -1.0), "fixed_cost must be zero or positive"),
        (lambda: node_utility([1.0], [1.0, 2.0], 4.0), "one cost for each epsilon"),
        (lambda: server_utility(-1.0, 1.0, 1.0, 0.0), "mean_epsilon must be zero or positive"),
        (lambda: server_utility(1.0, 0.0, 1.0, 0.0), "alpha must be positive"),
        (lambda: server_utility(1.0, 1.0, np.inf, 0.0), "beta must be positive"),
        (lambda: server_utility(1.0, 1.0, 1.0, -1.0), "paid must be zero or positive"),
        (lambda: exploitability([1.0], [1.0], np.nan), "budget must be zero or positive"),
        (lambda: exploitability([1.0, 1.0], [1.0], 1.0), "one cost for each epsilon"),
    ],
)
def test_numbers_outside_their_range_are_refused(call, words):
    with pytest.raises(InvalidGameError, match=words):
        call()
