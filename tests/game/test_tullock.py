"""The contest whose prize is shared by a power of epsilon: against optimisers and closed forms."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar
from strategies import budgets, costs

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import nash_equilibrium, tullock_equilibrium, tullock_reply

exponents = st.floats(0.05, 0.999)


def gain_from_moving(epsilon, rho, budget, exponent):
    """The most that a node could gain by moving alone, per budget, by search over all epsilons."""
    score = epsilon**exponent
    best = 0.0
    for node in range(rho.size):
        others = score.sum() - score[node]

        def utility(own, cost=rho[node], others=others):
            if own <= 0:
                return 0.0
            return budget * own**exponent / (own**exponent + others) - cost * own

        now = utility(epsilon[node])
        best = max(best, -now)  # staying out
        log_top = np.log(budget / rho[node])
        tried = np.exp(np.linspace(log_top - 60, log_top, 400))
        start = tried[np.argmax([utility(own) for own in tried])]
        found = minimize_scalar(
            lambda log_own: -utility(np.exp(log_own)),
            bounds=(np.log(start) - 0.2, np.log(start) + 0.2),
            method="bounded",
            options={"xatol": 1e-10},
        )
        best = max(best, -found.fun - now)
    return best / budget


@settings(max_examples=40, deadline=None)
@given(rho=costs(max_size=8), budget=budgets, exponent=exponents)
def test_no_node_gains_by_moving_alone(rho, budget, exponent):
    epsilon = tullock_equilibrium(rho, budget, exponent).epsilon
    assert gain_from_moving(epsilon, rho, budget, exponent) <= 1e-9


@given(rho=costs(min_size=0), budget=budgets)
def test_an_exponent_of_one_is_the_contest_of_the_paper_bit_for_bit(rho, budget):
    linear, power = nash_equilibrium(rho, budget), tullock_equilibrium(rho, budget, 1.0)
    for name, value in vars(linear).items():
        assert_array_equal(getattr(power, name), value)


@given(rho=costs(), exponent=exponents, power=st.integers(-20, 20))
def test_epsilon_is_linear_in_the_budget(rho, exponent, power):
    one = tullock_equilibrium(rho, 1.0, exponent)
    other = tullock_equilibrium(rho, 2.0**power, exponent)
    assert_allclose(other.epsilon, 2.0**power * one.epsilon, rtol=1e-12)


@given(n_nodes=st.integers(2, 50), rho=st.floats(1e-3, 1e3), budget=budgets, exponent=exponents)
def test_equal_nodes_sell_what_a_hand_calculation_says(n_nodes, rho, budget, exponent):
    # B r (n - 1) / n**2 = rho eps, from the first-order condition at equal shares
    form = tullock_equilibrium(np.full(n_nodes, rho), budget, exponent)
    alike = budget * exponent * (n_nodes - 1) / n_nodes**2 / rho
    assert_allclose(form.epsilon, alike, rtol=1e-12)
    assert_allclose(form.utility, budget / n_nodes - rho * alike, rtol=1e-9)


@pytest.mark.parametrize(
    ("exponent", "total", "n_of_shares", "n_effective"),
    [
        (0.5, 0.60415, 271.8, 208.2),
        (0.8, 1.21216, 111.6, 85.4),
        (0.95, 1.69256, 26.1, 25.0),
        (0.99, 1.77135, 15.70, 15.63),
        (1.0, 1.78197, None, 13.76),
    ],
)
def test_checked_numbers_of_three_hundred_nodes(exponent, total, n_of_shares, n_effective):
    rho = 0.5 + (np.arange(300) + 0.5) / 300
    form = tullock_equilibrium(rho, 1.0, exponent)
    assert form.total_epsilon == pytest.approx(total, abs=5.1e-6)
    digits = 0.0051 if exponent >= 0.99 else 0.051
    found = form.total_epsilon**2 / (form.epsilon**2).sum()
    assert found == pytest.approx(n_effective, abs=digits)
    if n_of_shares is not None:
        share = form.epsilon**exponent / (form.epsilon**exponent).sum()
        assert 1 / (share**2).sum() == pytest.approx(n_of_shares, abs=digits)
    assert form.n_active == (18 if exponent == 1 else 300)


@pytest.mark.parametrize("exponent", [0.05, 0.5, 0.9, 0.999, 1 - 1e-9])
@pytest.mark.parametrize("sigma", [0.3, 5.0])
def test_a_hundred_thousand_nodes_take_less_than_a_second(exponent, sigma):
    rho = np.random.default_rng(0).lognormal(0.0, sigma, 100_000)
    tullock_equilibrium(rho[:10], 1.0, exponent)
    started = time.process_time()
    form = tullock_equilibrium(rho, 1.0, exponent)
    assert time.process_time() - started < 1.0
    active = form.active
    share = form.epsilon[active] ** exponent
    share /= share.sum()
    assert_allclose(  # the first-order condition, node by node
        exponent * share * (1 - share), rho[active] * form.epsilon[active], rtol=1e-6, atol=1e-12
    )


@settings(max_examples=60)
@given(rho=costs(max_size=6), others=st.floats(1e-6, 1e6), budget=budgets, exponent=exponents)
def test_the_reply_is_the_best_of_all_scores(rho, others, budget, exponent):
    score = tullock_reply(rho, np.full(rho.size, others), budget, exponent)
    factors = np.exp(np.linspace(-30, 30, 6001))
    for own, cost in zip(score, rho, strict=True):
        tried = own * np.append(factors, 1.0)
        utility = budget * tried / (tried + others) - cost * tried ** (1 / exponent)
        assert utility[-1] >= utility.max() - 1e-12 * budget


@settings(max_examples=40)
@given(rho=costs(max_size=10), budget=budgets, exponent=st.floats(0.2, 0.99))
def test_every_node_replies_to_the_equilibrium_with_its_part_of_it(rho, budget, exponent):
    score = tullock_equilibrium(rho, budget, exponent).epsilon ** exponent
    others = score.sum() - score
    reply = tullock_reply(rho, others, budget, exponent)
    assert_allclose(reply, score, rtol=1e-6, atol=1e-9 * score.sum())


@pytest.mark.parametrize("rho", [[], [1.0]])
def test_fewer_than_two_nodes_are_no_contest(rho):
    assert tullock_equilibrium(rho, 1.0, 0.5).n_active == 0
    assert tullock_equilibrium([1.0, 2.0], 0.0, 0.5).total_epsilon == 0


@pytest.mark.parametrize("unit", [1e-15, 1e15])
@pytest.mark.parametrize("budget", [1e-18, 1e18])
def test_extreme_magnitudes_scale(unit, budget):
    one = tullock_equilibrium([1.0, 1.5, 900.0], 1.0, 0.7)
    other = tullock_equilibrium(np.array([1.0, 1.5, 900.0]) * unit, budget, 0.7)
    assert_allclose(other.epsilon, one.epsilon * (budget / unit), rtol=1e-12)
    assert_allclose(other.utility, one.utility * budget, rtol=1e-9)


@pytest.mark.parametrize("exponent", [0.0, -1.0, 1.5, np.nan, [0.5, 0.5]])
def test_other_exponents_are_refused(exponent):
    with pytest.raises(InvalidGameError, match=r"exponent must be (above 0|one number)"):
        tullock_equilibrium([1.0, 1.0], 1.0, exponent)
