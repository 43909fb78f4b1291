from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq, minimize_scalar
from strategies import budgets, costs

import fcfn_abm as fa
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import best_response, nash_equilibrium


def stays_out(rho, members):
    """Whom a set of two or more keeps out: the first unit earns B / S, and S = B (n - 1) / tau."""
    tau = sum(rho[i] for i in members)
    return {i for i in range(len(rho)) if rho[i] * (len(members) - 1) >= tau}


def exact_solution(rho, budget):
    """Total, epsilon and utility in fractions, with the active set grown node by node."""
    rho, budget = [Fraction(float(r)) for r in rho], Fraction(float(budget))
    order = sorted(range(len(rho)), key=rho.__getitem__)
    inside = order[:2]
    for node in order[2:]:
        if node in stays_out(rho, [*inside, node]):
            break
        inside.append(node)
    tau = sum(rho[i] for i in inside)
    total = budget * (len(inside) - 1) / tau
    epsilon = [total * (1 - rho[i] * total / budget) if i in inside else 0 for i in range(len(rho))]
    utility = [budget * e / total - r * e for e, r in zip(epsilon, rho, strict=True)]
    return total, epsilon, utility


def rounded(fractions):
    return np.array([float(x) for x in fractions])


@settings(max_examples=150)
@given(rho=costs(max_size=6))
def test_the_active_set_is_the_only_one_of_all_subsets_that_holds(rho):
    exact = [Fraction(r) for r in rho.tolist()]
    nodes = range(len(exact))
    stable = [
        set(members)
        for size in range(2, len(exact) + 1)
        for members in combinations(nodes, size)
        if stays_out(exact, members) == set(nodes) - set(members)
    ]
    assert stable == [set(np.flatnonzero(nash_equilibrium(rho, 1.0).active).tolist())]


@given(rho=costs(), budget=budgets)
def test_all_numbers_agree_with_exact_fractions(rho, budget):
    market = nash_equilibrium(rho, budget)
    total, epsilon, utility = exact_solution(rho, budget)
    assert_array_equal(market.active, [e > 0 for e in epsilon])
    assert market.n_active == sum(e > 0 for e in epsilon)
    assert_allclose(market.epsilon, rounded(epsilon), rtol=2e-15)
    assert_allclose(market.utility, rounded(utility), rtol=3e-15)
    assert_allclose(market.total_epsilon, float(total), rtol=1e-15)
    assert_allclose(market.tau, rho[market.active].sum(), rtol=1e-14)


@given(rho=costs(), budget=budgets)
def test_no_node_gains_by_moving_alone(rho, budget):
    epsilon = nash_equilibrium(rho, budget).epsilon
    others = np.array([np.delete(epsilon, i).sum() for i in range(rho.size)])
    assert_allclose(best_response(rho, others, budget), epsilon, atol=1e-13 * epsilon.sum())


@settings(max_examples=40)
@given(rho=costs(max_size=8), budget=budgets)
def test_an_optimiser_on_each_utility_finds_no_better_report(rho, budget):
    market = nash_equilibrium(rho, budget)
    for node in range(rho.size):
        others = np.delete(market.epsilon, node).sum()
        found = minimize_scalar(
            lambda x, others=others, rho=rho[node]: rho * x - budget * x / (x + others),
            bounds=(0.0, budget / rho[node]),
            method="bounded",
        )
        assert -found.fun <= market.utility[node] + 1e-12 * budget


@settings(max_examples=60)
@given(rho=costs(), budget=budgets)
def test_the_total_solves_the_share_equation(rho, budget):
    def excess(total):  # shares 1 - rho S / B, none below zero, add up to one
        return np.maximum(1.0 - rho * total / budget, 0.0).sum() - 1.0

    root = brentq(excess, 1e-9 * budget / rho.max(), budget / rho.min(), xtol=1e-300, rtol=1e-14)
    assert_allclose(nash_equilibrium(rho, budget).total_epsilon, root, rtol=1e-11)


@given(rho=costs(), budget=budgets, power=st.integers(-40, 40))
def test_scaling_laws(rho, budget, power):
    scale = 2.0**power  # a power of two changes no digit
    market = nash_equilibrium(rho, budget)
    costlier = nash_equilibrium(scale * rho, budget)
    richer = nash_equilibrium(rho, scale * budget)
    assert_array_equal(costlier.active, market.active)
    assert_array_equal(costlier.epsilon * scale, market.epsilon)
    assert_array_equal(costlier.utility, market.utility)
    assert_array_equal(richer.active, market.active)
    assert_array_equal(richer.epsilon, market.epsilon * scale)
    assert_array_equal(richer.utility, market.utility * scale)
    assert (costlier.tau, richer.tau) == (market.tau * scale, market.tau)


@given(rho=costs(), budget=budgets, scale=st.floats(1e-3, 1e3))
def test_any_budget_scales_epsilon_and_keeps_the_active_set(rho, budget, scale):
    market, richer = nash_equilibrium(rho, budget), nash_equilibrium(rho, scale * budget)
    assert_array_equal(richer.active, market.active)
    assert_allclose(richer.epsilon, scale * market.epsilon, rtol=1e-14)
    assert_allclose(richer.utility, scale * market.utility, rtol=1e-14)


@given(rho=costs(), budget=budgets, rng=st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_does_not_matter(rho, budget, rng):
    order = list(range(rho.size))
    rng.shuffle(order)
    market, shuffled = nash_equilibrium(rho, budget), nash_equilibrium(rho[order], budget)
    assert_array_equal(shuffled.active, market.active[order])
    assert_allclose(shuffled.epsilon, market.epsilon[order], rtol=1e-15)


@given(rho=costs(), more=st.floats(1.0, 1e3))
def test_a_node_at_the_threshold_or_above_changes_nothing_by_coming(rho, more):
    market = nash_equilibrium(rho, 1.0)
    joined = nash_equilibrium(np.append(rho, market.threshold * more * (1 + 1e-15)), 1.0)
    assert_array_equal(joined.epsilon, np.append(market.epsilon, 0.0))


@given(rho=costs(), less=st.floats(0.0, 0.999))
def test_a_node_below_the_threshold_takes_part_and_costs_the_others(rho, less):
    market = nash_equilibrium(rho, 1.0)
    joined = nash_equilibrium(np.append(rho, market.threshold * max(less, 1e-3)), 1.0)
    assert joined.active[-1]
    assert joined.threshold < market.threshold
    assert (joined.utility[:-1] <= market.utility).all()


@given(rho=costs(), budget=budgets)
def test_the_cheaper_node_gives_and_earns_more(rho, budget):
    market = nash_equilibrium(rho, budget)
    order = np.argsort(rho)
    assert (np.diff(market.epsilon[order]) <= 0).all()
    assert (np.diff(market.utility[order]) <= 0).all()
    assert market.active[order[:2]].all()
    assert_allclose(market.epsilon.sum(), market.total_epsilon, rtol=1e-13)


@given(
    rho=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.1 + 0.2, 0.7]), min_size=2, max_size=30).map(
        np.array
    )
)
def test_equal_costs_are_decided_together(rho):
    market = nash_equilibrium(rho, 1.0)
    for cost in np.unique(rho):
        assert np.unique(market.epsilon[rho == cost]).size == 1


@pytest.mark.parametrize("costly", [2.0, 3.0, 1e300**0.5, 1e290])
@pytest.mark.parametrize("n_costly", [1, 2, 5])
def test_a_cost_at_the_threshold_stays_out(costly, n_costly):
    market = nash_equilibrium([1.0, 1.0] + n_costly * [costly], 4.0)
    assert_array_equal(market.active, [True, True] + n_costly * [False])
    assert_array_equal(market.epsilon, [1.0, 1.0] + n_costly * [0.0])
    assert market.threshold == 2.0


def test_ties_are_decided_by_the_numbers_and_not_by_their_rounded_sum():
    # in fractions 0.1 + 0.2 lies between the doubles 0.3 and 0.30000000000000004
    assert_array_equal(nash_equilibrium([0.1, 0.2, 0.3], 1.0).active, [True, True, True])
    assert_array_equal(nash_equilibrium([0.1, 0.2, 0.1 + 0.2], 1.0).active, [True, True, False])


def test_one_digit_below_the_threshold_is_in_with_all_its_digits():
    just_below = np.nextafter(2.0, 0.0)
    market = nash_equilibrium([1.0, 1.0, just_below], 4.0)
    assert market.n_active == 3
    _, epsilon, utility = exact_solution([1.0, 1.0, just_below], 4.0)
    assert_allclose(market.epsilon, rounded(epsilon), rtol=1e-15)
    assert_allclose(market.utility, rounded(utility), rtol=1e-15)


@pytest.mark.parametrize(
    ("rho", "budget", "epsilon", "utility"),
    [
        ([1.0, 1.0], 4.0, [1.0, 1.0], [1.0, 1.0]),
        ([1.0, 3.0], 16.0, [3.0, 1.0], [9.0, 1.0]),  # tau 4, S 4; shares 3/4 and 1/4
        ([1.0, 1.0, 5.0], 4.0, [1.0, 1.0, 0.0], [1.0, 1.0, 0.0]),
        ([2.0, 1.0, 2.0], 25.0, [2.0, 6.0, 2.0], [1.0, 9.0, 1.0]),  # tau 5, S 10; 1/5, 3/5, 1/5
        ([0.001] * 100, 980 / 99, [98.0] * 100, [980 / 99 * 1e-4] * 100),  # fig. 4
    ],
)
def test_cases_solved_by_hand(rho, budget, epsilon, utility):
    market = nash_equilibrium(rho, budget)
    assert_allclose(market.epsilon, epsilon, rtol=1e-14)
    assert_allclose(market.utility, utility, rtol=1e-14)
    assert_allclose(market.total_epsilon, sum(epsilon), rtol=1e-14)
    assert_allclose(market.tau, sum(r for r, e in zip(rho, epsilon, strict=True) if e), rtol=1e-14)
    assert market.n_active == np.count_nonzero(epsilon)


@pytest.mark.parametrize("n", [2, 3, 10, 1000, 10**5])
def test_equal_nodes_share_equally(n):
    market = nash_equilibrium(np.full(n, 0.7), 3.0)
    assert market.n_active == n
    assert_allclose(market.epsilon, 3.0 * (n - 1) / (0.7 * n**2), rtol=1e-14)
    assert_allclose(market.utility, 3.0 / n**2, rtol=1e-14)


@pytest.mark.parametrize("rho", [[], [1.0]])
def test_fewer_than_two_nodes_are_no_market(rho):
    market = nash_equilibrium(rho, 4.0)
    assert_array_equal(market.epsilon, np.zeros(len(rho)))
    assert_array_equal(market.utility, np.zeros(len(rho)))
    assert_array_equal(market.active, np.zeros(len(rho), dtype=bool))
    assert (market.n_active, market.total_epsilon, market.tau, market.threshold) == (0, 0, 0, 0)


def test_without_a_budget_nobody_takes_part():
    market = nash_equilibrium([1.0, 2.0, 3.0], 0.0)
    assert not market.epsilon.any()
    assert not market.active.any()
    assert market.n_active == market.total_epsilon == 0


def test_what_is_handed_in_is_left_as_it_is():
    rho = np.array([3.0, 1.0, 2.0, 9.0])
    nash_equilibrium(rho, 4.0)
    assert_array_equal(rho, [3.0, 1.0, 2.0, 9.0])
    assert nash_equilibrium([3, 1, 2, 9], 4).epsilon.dtype == float
    assert fa.nash_equilibrium is nash_equilibrium


@settings(max_examples=100)
@given(
    digits=st.lists(st.floats(1.0, 9.9), min_size=2, max_size=8),
    scale=st.integers(-140, 140),
    spread=st.integers(0, 12),
    budget=st.integers(-100, 100),
    seed=st.integers(0, 100),
)
def test_extreme_scales_keep_their_digits(digits, scale, spread, budget, seed):
    shift = np.random.default_rng(seed).integers(0, spread + 1, len(digits))
    rho, budget = np.array(digits) * 10.0 ** (scale + shift), 10.0**budget
    market = nash_equilibrium(rho, budget)
    total, epsilon, utility = exact_solution(rho, budget)
    assert_array_equal(market.active, [e > 0 for e in epsilon])
    assert_allclose(market.total_epsilon, float(total), rtol=1e-14)
    assert_allclose(market.epsilon, rounded(epsilon), rtol=1e-14)
    assert_allclose(market.utility, rounded(utility), rtol=1e-14)


@pytest.mark.parametrize("free", [1e-300, 1e-40, 1e-17])
@pytest.mark.parametrize("costly", [1.0, 0.1, 0.7])
def test_a_node_that_is_nearly_free_keeps_just_the_cheapest_others_in(free, costly):
    rho = [free, costly, costly, costly, np.nextafter(costly, 2.0)]
    market = nash_equilibrium(rho, 9.0)
    _, epsilon, _ = exact_solution(rho, 9.0)
    assert_array_equal(market.active, [True, True, True, True, False])
    assert_allclose(market.epsilon, rounded(epsilon), rtol=1e-14)
    assert_allclose(market.epsilon[1] * costly**2, 3 * free, rtol=1e-14)  # all that holds them in


@pytest.mark.parametrize("spread", [0.0, 1e-9, 4e-7, 9e-7, 1.1e-6, 1e-4])
def test_a_million_nearly_equal_nodes_keep_twelve_digits(spread):
    # rho = 1 + d / 2^52 with whole d, so that every sum and product below is a whole number; the
    # largest of them, n * d, stays below 2^63
    n, unit, budget = 10**6, 2**52, 7.0
    rng = np.random.default_rng(3)
    d = rng.integers(0, int(spread * unit), n, endpoint=True)
    market = nash_equilibrium(1.0 + d / unit, budget)

    ranked = np.sort(d)
    rivals = np.arange(n)  # (k - 1) rho_k < rho_1 + ... + rho_k, less k - 1 on both sides
    room = unit + np.cumsum(ranked.astype(np.int64)) - rivals * ranked
    n_active = int(np.count_nonzero(room > 0))
    last = ranked[n_active - 1]
    assert (room[:n_active] > 0).all()
    assert market.n_active == n_active
    assert_array_equal(market.active, d <= last)

    excess = int(ranked[:n_active].sum())
    gap = unit + excess - (n_active - 1) * d[market.active]
    tau = Fraction(n_active) + Fraction(excess, unit)
    # each gap is a whole number: its conversion rounds once
    scale = float(Fraction(7) * (n_active - 1) / (tau * tau) / unit)
    assert_allclose(market.epsilon[market.active], scale * gap, rtol=1e-14)
    share = gap / float(tau * unit)
    assert_allclose(market.utility[market.active], budget * share * share, rtol=1e-14)
    assert_allclose(market.tau, float(tau), rtol=1e-15)
    if spread < 9.9e-7:
        assert n_active == n


@pytest.mark.parametrize(
    ("n", "least", "most"), [(1000, 28, 36), (10**4, 90, 110), (10**6, 970, 1030)]
)
def test_of_uniform_costs_about_the_root_of_their_number_stays(n, least, most):
    # costs rise by 1/N from 1/2: node k enters while (k-1)(1/2 + k/N) < k/2 + k^2/2N, so k^2 < N
    rng = np.random.default_rng(0)
    counts = [nash_equilibrium(rng.uniform(0.5, 1.5, n), 1.0).n_active for _ in range(8)]
    assert least < np.mean(counts) < most


def test_of_a_million_log_normal_costs_ten_stay():
    rng = np.random.default_rng(0)
    counts = [
        nash_equilibrium(rng.lognormal(sigma=0.7, size=10**6), 1.0).n_active for _ in range(3)
    ]
    assert 5 <= np.mean(counts) <= 15


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nash_equilibrium([1.0, -3.0], 4.0), r"rho\[1\] = -3 \(1 of 2 values\)"),
        (lambda: nash_equilibrium([1.0, 0.0], 4.0), r"rho\[1\] = 0"),
        (lambda: nash_equilibrium([np.nan, 1.0], 4.0), r"rho\[0\] = nan"),
        (lambda: nash_equilibrium([0.0], 4.0), r"rho\[0\] = 0 \(1 of 1 values\)"),
        (lambda: nash_equilibrium(1.0, 4.0), r"k populations, but has shape \(\)"),
        (lambda: nash_equilibrium([[[1.0, 2.0]]], 4.0), r"populations, but has shape \(1, 1, 2\)"),
        (lambda: nash_equilibrium([1.0, 1e291], 4.0), r"not exceed 1e\+290, but contains 1e\+291"),
        (lambda: nash_equilibrium([1.0, 1.0], -4.0), "budget must be zero or positive"),
        (lambda: nash_equilibrium([1.0, 1.0], np.inf), "budget must be zero or positive"),
        (lambda: nash_equilibrium([1.0, 1.0], [1.0, 2.0]), r"budget must be one number.*\(2,\)"),
        (lambda: nash_equilibrium([1e-9, 1e-9], 1e300), r"budget = 1e\+300 is too large for costs"),
        (lambda: nash_equilibrium([1e-9, 1e-9], np.float64(1e300)), "is too large for costs"),
    ],
)
def test_numbers_outside_their_range_are_refused(call, words):
    with pytest.raises(InvalidGameError, match=words):
        call()
