import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar
from strategies import budgets, positive

import fcfn_abm as fa
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import EPSILON_FLOOR, best_response
from fcfn_abm.game.best_response import reply_all, reply_one


def exact_reply(rho, others, budget):
    """The root of B s / (x + s)^2 = rho, or zero, with far more digits than can cancel."""
    with mp.workdps(400):
        rho, others, budget = mp.mpf(rho), mp.mpf(others), mp.mpf(budget)
        return float(max(mp.sqrt(budget * others / rho) - others, mp.mpf(0)))


def utility(x, rho, others, budget):
    return budget * x / (x + others) - rho * x


@pytest.mark.parametrize(
    ("rho", "others", "budget", "reply"),
    [
        (1.0, 1.0, 4.0, 1.0),  # 4 x / (x + 1) - x is flat where (x + 1)^2 = 4
        (2.0, 2.0, 9.0, 1.0),
        (0.25, 4.0, 1.0, 0.0),  # B = rho s: the first unit earns just what it costs
        (5.0, 1.0, 4.0, 0.0),
        (1e-3, 98.0 * 99, 980 / 99, 98.0),  # fig. 4
        (1.0, 1.0, 0.0, 0.0),
    ],
)
def test_cases_solved_by_hand(rho, others, budget, reply):
    assert_allclose(best_response(rho, others, budget), reply, rtol=1e-13)


@settings(max_examples=60)
@given(rho=positive, others=positive, budget=budgets)
def test_an_optimiser_finds_nothing_better(rho, others, budget):
    reply = best_response(rho, others, budget)
    found = minimize_scalar(
        lambda x: -utility(x, rho, others, budget),
        bounds=(0.0, budget / rho),  # beyond it even the whole budget does not pay
        method="bounded",
        options={"xatol": 1e-9 * budget / rho},
    )
    best = utility(reply, rho, others, budget)
    assert best >= -found.fun - 1e-13 * budget
    assert best >= 0
    assert_allclose(found.x, reply, atol=1e-5 * budget / rho)  # the top is flat


@given(rho=positive, others=positive, budget=budgets, factor=st.floats(0.0, 10.0))
def test_every_other_report_earns_no_more(rho, others, budget, factor):
    reply = best_response(rho, others, budget)
    for other in (factor * reply, reply + factor):
        gain = utility(other, rho, others, budget) - utility(reply, rho, others, budget)
        assert gain <= 1e-12 * (budget + rho * other)


@given(
    rho=st.floats(1e-3, 1e3),
    budget=budgets,
    digits=st.floats(0.01, 15.5),
    side=st.sampled_from([-1, 1]),
)
def test_no_digits_cancel_where_staying_out_becomes_best(rho, budget, digits, side):
    others = budget / rho * (1.0 + side * 10.0**-digits)
    assert_allclose(
        best_response(rho, others, budget), exact_reply(rho, others, budget), rtol=2e-15
    )


exponents = st.integers(-300, 300)


@settings(max_examples=300)
@given(rho=exponents, others=exponents, budget=exponents, digits=st.floats(1.0, 9.9))
def test_extreme_scales_keep_their_digits(rho, others, budget, digits):
    rho, others, budget = digits * 10.0**rho, 10.0**others, 10.0**budget
    exact = exact_reply(rho, others, budget)
    if exact < 1e305:  # beyond it the answer is no number; below, the next test
        assert_allclose(best_response(rho, others, budget), exact, rtol=1e-14, atol=1e-305)


def test_an_answer_past_the_largest_number_is_refused():
    with pytest.raises(InvalidGameError, match=r"budget = 1e\+300 is too large for costs as small"):
        best_response([1.0, 1e-300], 1e100, 1e300)


@given(rho=positive, others=positive, budget=budgets, power=st.integers(-30, 30))
def test_scaling_laws(rho, others, budget, power):
    scale = 4.0**power  # neither it nor its root changes a digit
    reply = best_response(rho, others, budget)
    assert best_response(scale * rho, others, scale * budget) == reply  # another currency
    assert_allclose(best_response(rho * scale, others / scale, budget), reply / scale, rtol=1e-14)
    assert_allclose(best_response(rho, others * scale, budget * scale), reply * scale, rtol=1e-14)


@given(rho=positive, others=positive, budget=budgets, more=st.floats(1.0, 3.0))
def test_cheaper_or_richer_means_more(rho, others, budget, more):
    reply = best_response(rho, others, budget)
    assert best_response(rho * more, others, budget) <= reply * (1 + 1e-14)
    assert best_response(rho, others, budget * more) >= reply * (1 - 1e-14)


@pytest.mark.parametrize("budget", [1e-3, 1.0, 1e6])
def test_against_nobody_the_smallest_report_wins_everything(budget):
    assert best_response(1.0, 0.0, budget) == EPSILON_FLOOR == 1e-6
    assert best_response(1.0, 0.0, budget, epsilon_floor=1e-4) == 1e-4


def test_against_nobody_a_report_that_costs_the_whole_budget_is_not_made():
    assert best_response(2.0, 0.0, 2e-6) == 0.0
    assert best_response(2.0, 0.0, 2.1e-6) == 1e-6
    assert best_response(2.0, 0.0, 0.0) == 0.0
    assert_array_equal(best_response([1.0, 2.0, 3.0], 0.0, 2e-6), [1e-6, 0.0, 0.0])
    assert [reply_one(rho, 0.0, 2e-6, 1e-6) for rho in (1.0, 2.0, 3.0)] == [1e-6, 0.0, 0.0]


def test_the_floor_is_used_against_nobody_only():
    assert best_response(1.0, 1e-20, 1.0) == pytest.approx(1e-10, rel=1e-9)


def test_arrays_broadcast_and_scalars_are_floats():
    assert isinstance(best_response(1, 1, 4), float)
    assert isinstance(best_response(np.float64(1), np.float64(1), np.float64(4)), float)
    table = best_response([[1.0], [2.0]], [1.0, 0.0, 2.0], 9)
    assert table.shape == (2, 3)
    assert_allclose(table, [[2, 1e-6, np.sqrt(18) - 2], [np.sqrt(4.5) - 1, 1e-6, 1]], rtol=1e-14)
    assert best_response([], 1.0, 1.0).shape == (0,)
    assert fa.best_response is best_response


@given(rho=positive, others=st.one_of(st.just(0.0), positive), budget=budgets)
def test_the_unchecked_forms_agree_up_to_rounding(rho, others, budget):
    expected = best_response(rho, others, budget)
    one = reply_one(rho, others, budget, EPSILON_FLOOR)
    many = reply_all(np.array([rho, rho]), np.array([others, others]), budget, EPSILON_FLOOR)
    assert_array_equal(many, one)
    # a difference in plain floats: its error is a share of the others' total, not of the answer
    assert_allclose(one, expected, rtol=1e-14, atol=1e-15 * others)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: best_response(0.0, 1.0, 1.0), "rho must be positive and finite, but is 0"),
        (lambda: best_response([1.0, -2.0], 1.0, 1.0), r"rho\[1\] = -2 \(1 of 2 values\)"),
        (lambda: best_response(np.nan, 1.0, 1.0), "rho must be positive and finite, but is nan"),
        (lambda: best_response(1.0, -1e-9, 1.0), "others must be zero or positive, and finite"),
        (lambda: best_response(1.0, [0.0, np.inf], 1.0), r"others\[1\] = inf"),
        (lambda: best_response(1.0, 1.0, -1.0), "budget must be zero or positive"),
        (lambda: best_response(1.0, 1.0, np.nan), "budget must be zero or positive"),
        (lambda: best_response(1.0, 1.0, 1.0, 0.0), "epsilon_floor must be positive"),
    ],
)
def test_numbers_outside_their_range_are_refused(call, words):
    with pytest.raises(InvalidGameError, match=words):
        call()
