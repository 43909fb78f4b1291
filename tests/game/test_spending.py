"""How money is spread over rounds: against a general solver, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import RoundGain, spend_by_value, spend_evenly

numbers = st.floats(0.05, 50)


def total_gain(caps, gain):
    values = gain.beta * gain.decay ** np.arange(len(caps))
    return float((values * np.log1p(gain.alpha * gain.unit_mean * caps) - caps).sum())


@given(
    alpha=numbers,
    beta=numbers,
    unit_mean=st.floats(0.05, 2),
    decay=st.floats(0.3, 1.5),
    money=numbers,
    rounds_left=st.integers(1, 5),
)
def test_the_first_cap_is_that_of_the_best_plan(alpha, beta, unit_mean, decay, money, rounds_left):
    gain = RoundGain(alpha, beta, unit_mean, decay)
    found = spend_by_value(gain, money, rounds_left)
    solved = minimize(
        lambda caps: -total_gain(caps, gain) / beta,
        np.full(rounds_left, money / (2 * rounds_left)),
        bounds=[(0, money)] * rounds_left,
        constraints={"type": "ineq", "fun": lambda caps: money - caps.sum()},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    plan, left = [], money
    for k in range(rounds_left):  # one round at a time, as a market does
        later = RoundGain(alpha, beta * decay**k, unit_mean, decay)
        plan.append(spend_by_value(later, left, rounds_left - k))
        left -= plan[-1]
    assert found == plan[0]
    assert sum(plan) <= money * (1 + 1e-12)
    assert total_gain(np.array(plan), gain) >= -solved.fun * beta - 1e-6 * beta


def test_a_gain_that_stays_is_bought_in_equal_parts():
    gain = RoundGain(alpha=2.0, beta=30.0, unit_mean=0.5)
    assert spend_by_value(gain, 40.0, 8) == pytest.approx(5.0)
    assert spend_by_value(gain, 1000.0, 8) == pytest.approx(29.0)  # beta - 1 / (alpha unit_mean)


def test_a_round_that_does_not_pay_gets_nothing():
    assert spend_by_value(RoundGain(alpha=0.1, beta=5.0, unit_mean=1.0), 10.0, 3) == 0
    rising = RoundGain(alpha=1.0, beta=2.0, unit_mean=1.0, decay=10.0)
    assert spend_by_value(rising, 5.0, 2) == 0  # b = 2 and 20: the second takes all of it


def test_gains_far_ahead_that_overflow_leave_the_first_round_nothing():
    assert spend_by_value(RoundGain(1.0, 10.0, 1.0, decay=1e9), 5.0, 10_000) == 0
    assert_allclose(spend_by_value(RoundGain(1.0, 10.0, 1.0, decay=1e-9), 5.0, 10_000), 5.0)


@pytest.mark.parametrize("rounds_left", [0, -1])
def test_without_rounds_there_is_nothing_to_spread(rounds_left):
    with pytest.raises(InvalidGameError, match="rounds_left must be one or more"):
        spend_evenly(1.0, rounds_left)


@pytest.mark.parametrize("money", [-1.0, math.inf, math.nan])
def test_money_is_finite_and_not_below_zero(money):
    with pytest.raises(InvalidGameError, match="money must be zero or more"):
        spend_by_value(RoundGain(1.0, 1.0, 1.0), money, 2)
