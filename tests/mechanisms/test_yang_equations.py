"""(57)-(59) of Zhou et al. 2023: residuals by plain loops, and the golden values of our reading."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import fsolve, minimize

import fcfn_abm as fa
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.mechanisms import MECHANISMS, PricingGame, price
from fcfn_abm.mechanisms.yang_equations import solve_yang_equations
from fcfn_abm.registry import OptionError

ROOTS = ["square", "none", "exact"]

# data, alpha, c, then N: epsilon, p, a, as computed independently for the likeliest reading
TABLE = [
    (10.0, 0.001, 10, "1.3382", "0.1039", "40.17"),
    (10.0, 0.001, 50, "1.3501", "0.1913", "21.25"),
    (10.0, 0.001, 100, "1.3582", "0.2494", "16.00"),
    (10.0, 0.001, 1000, "1.4213", "0.6473", "5.381"),
    (20.0, 0.003, 10, "1.3324", "0.1202", "70.35"),
    (20.0, 0.003, 50, "1.3392", "0.2228", "37.37"),
    (20.0, 0.003, 100, "1.3438", "0.2919", "28.23"),
    (20.0, 0.003, 1000, "1.3790", "0.7803", "9.774"),
]


def right_hand_sides(found, rho, alpha, price_root="square", epsilon_exponent="cube-root"):
    """Evaluate (57), (58) and (59) seller by seller, as they are written."""
    sides = []
    for i, cost in enumerate(rho):
        epsilon, unit_price, amount = found.epsilon[i], found.unit_price[i], found.amount[i]
        others = sum(1.0 / p for j, p in enumerate(found.unit_price) if j != i)
        total = others + 1.0 + epsilon
        posted = {
            "square": lambda q=others, a=total, c=cost: a / (math.sqrt(alpha * a / c) - q),
            "none": lambda q=others, a=total, c=cost: a / (alpha * a / c - q),
            "exact": lambda a=total, c=cost: 1.0 / (math.sqrt(alpha * a / c) - a),
        }[price_root]()
        spent = amount * unit_price
        budget = (alpha / spent) ** (1 / 3) if epsilon_exponent == "cube-root" else alpha**3 / spent
        sides.append((alpha / (unit_price * (1.0 + epsilon)) - 1.0, posted, budget))
    return np.array(sides).T


def assert_solves(found, rho, alpha, *reading, rtol=1e-9):
    amount, unit_price, epsilon = right_hand_sides(found, rho, alpha, *reading)
    assert_allclose(found.amount, amount, rtol=rtol)
    assert_allclose(found.unit_price, unit_price, rtol=rtol)
    assert_allclose(found.epsilon, epsilon, rtol=rtol)


@pytest.mark.parametrize(("alpha", "cost", "n_sellers", "epsilon", "unit_price", "amount"), TABLE)
def test_the_likeliest_reading_has_the_golden_values_to_all_digits(
    alpha, cost, n_sellers, epsilon, unit_price, amount
):
    found = solve_yang_equations(np.full(n_sellers, cost), alpha)
    for values, digits in (
        (found.epsilon, epsilon),
        (found.unit_price, unit_price),
        (found.amount, amount),
    ):
        n_decimals = len(digits.split(".")[1])
        assert f"{values[0]:.{n_decimals}f}" == digits
        assert_array_equal(values, values[0])


@pytest.mark.parametrize("price_root", ROOTS)
@settings(max_examples=40)
@given(n_sellers=st.integers(1, 40), log_alpha=st.floats(-2.0, 3.0), log_ratio=st.floats(0.5, 6.0))
def test_equal_sellers_solve_all_three_equations(price_root, n_sellers, log_alpha, log_ratio):
    alpha = 10.0**log_alpha
    rho = np.full(n_sellers, alpha / 10.0**log_ratio)
    found = solve_yang_equations(rho, alpha, price_root)
    assume(found.is_solved)
    for values in (found.epsilon, found.unit_price, found.amount):
        assert (values > 0).all()
    assert_solves(found, rho, alpha, price_root, rtol=1e-8)


@pytest.mark.parametrize(
    ("price_root", "spread"), [("square", 0.4), ("none", 1.5), ("exact", 1e-3)]
)
@pytest.mark.parametrize("n_sellers", [2, 7, 60])
def test_unequal_sellers_solve_all_three_equations(price_root, spread, n_sellers):
    rho = 0.001 * np.exp(np.random.default_rng(4).normal(0.0, spread, n_sellers))
    found = solve_yang_equations(rho, 10.0, price_root)
    assert found.reason == ""
    assert_solves(found, rho, 10.0, price_root)
    order = np.argsort(rho)
    assert (np.diff(found.unit_price[order]) > 0).all()  # a higher cost, a higher price
    assert (np.diff(found.epsilon[order]) > 0).all()


def test_a_general_solver_finds_the_same_for_unequal_sellers():
    rho, alpha = np.array([0.0006, 0.001, 0.001, 0.0019]), 10.0

    def equations(logs):
        epsilon, unit_price = np.exp(logs[:4]), np.exp(logs[4:])
        amount = alpha / (unit_price * (1.0 + epsilon)) - 1.0
        others = (1.0 / unit_price).sum() - 1.0 / unit_price
        total = others + 1.0 + epsilon
        posted = total / (np.sqrt(alpha * total / rho) - others)
        return np.concatenate(
            [epsilon / np.cbrt(alpha / (amount * unit_price)) - 1.0, posted / unit_price - 1.0]
        )

    root = fsolve(equations, np.log([1.33] * 4 + [0.08] * 4), xtol=1e-13)
    found = solve_yang_equations(rho, alpha)
    assert_allclose(found.epsilon, np.exp(root[:4]), rtol=1e-9)
    assert_allclose(found.unit_price, np.exp(root[4:]), rtol=1e-9)


def test_a_thousand_sellers_of_different_cost():
    rho = 0.001 * np.exp(np.random.default_rng(1).normal(0.0, 0.1, 1000))
    found = solve_yang_equations(rho, 10.0)
    assert_solves(found, rho, 10.0)


def test_amount_and_epsilon_are_the_buyers_best_at_the_price():
    found = solve_yang_equations(np.full(10, 0.001), 10.0)
    unit_price = found.unit_price[0]

    def loss(logs):
        amount, epsilon = np.exp(logs)
        spent = unit_price * (1.0 + epsilon) * amount
        return spent + 10.0 / (2.0 * epsilon**2) - 10.0 * np.log1p(amount)

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    assert_allclose(np.exp(best.x), [found.amount[0], found.epsilon[0]], rtol=1e-5)


def test_the_other_solution_of_the_equations_is_a_saddle_point_for_the_buyer():
    # N = 10, alpha = 10, c = 0.001: epsilon = 76.60, p = 0.1288, a = 0.00017 solve (57)-(59) too
    def equations(logs):
        epsilon, unit_price = np.exp(logs)
        spent = 10.0 / (1.0 + epsilon) - unit_price
        total = 9.0 / unit_price + 1.0 + epsilon
        posted = total / (np.sqrt(10.0 * total / 0.001) - 9.0 / unit_price)
        return [epsilon / np.cbrt(10.0 / spent) - 1.0, posted / unit_price - 1.0]

    epsilon, unit_price = np.exp(fsolve(equations, np.log([76.6, 0.12884]), xtol=1e-13))
    amount = 10.0 / (unit_price * (1.0 + epsilon)) - 1.0
    assert_allclose([epsilon, unit_price], [76.6009, 0.128842], rtol=1e-5)
    hessian = np.array(
        [[-10.0 / (1.0 + amount) ** 2, -unit_price], [-unit_price, -30.0 / epsilon**4]]
    )
    assert np.linalg.eigvalsh(hessian)[1] > 0
    found = solve_yang_equations(np.full(10, 0.001), 10.0)
    hessian = np.array(
        [
            [-10.0 / (1.0 + found.amount[0]) ** 2, -found.unit_price[0]],
            [-found.unit_price[0], -30.0 / found.epsilon[0] ** 4],
        ]
    )
    assert (np.linalg.eigvalsh(hessian) < 0).all()


@given(alpha=st.floats(1.0, 1e4))
def test_the_literal_exponent_leaves_the_positive_numbers_for_alpha_of_one_and_more(alpha):
    found = solve_yang_equations([0.001] * 3, alpha, epsilon_exponent="literal")
    assert "no positive solution" in found.reason
    assert not found.epsilon.any()
    # a p = alpha / (1 + eps) - p < alpha / (1 + eps), so eps = alpha^3 / (a p) > alpha^2 (1 + eps)
    epsilon = np.geomspace(1e-6, 1e9, 200)
    assert (epsilon < alpha**2 * (1.0 + epsilon)).all()


def test_the_literal_exponent_has_a_solution_for_a_small_alpha():
    rho = [1e-5, 1.2e-5, 0.9e-5]
    found = solve_yang_equations(rho, 0.5, epsilon_exponent="literal")
    assert_solves(found, rho, 0.5, "square", "literal")


def test_where_the_price_is_too_high_there_is_no_solution_and_the_reason_says_so():
    found = solve_yang_equations(np.full(10, 2.0), 10.0)
    assert not found.is_solved
    assert "no unit price up to 2.21859" in found.reason
    unit_price = np.linspace(1e-3, 10.0 * 0.2218594, 4000)  # (57) and (59) allow no higher one
    for epsilon in (1.3247, 1.8, 2.4415):
        total = 9.0 / unit_price + 1.0 + epsilon
        posted = total / (np.sqrt(10.0 * total / 2.0) - 9.0 / unit_price)
        assert ((posted <= 0) | (posted > unit_price)).all()
    outcome = price("yang", np.full(10, 2.0), alpha=10.0, beta=10.0, variant="printed")
    assert (outcome.status, outcome.reason, outcome.note) == ("no-solution", found.reason, "")
    assert not outcome.payment.any()


def test_a_path_that_ends_is_a_result():
    rho = 0.001 * np.exp(np.random.default_rng(1).normal(0.0, 2.0, 100))
    found = solve_yang_equations(rho, 10.0)
    assert "continues the one for equal costs: it ends at" in found.reason


@pytest.mark.parametrize(
    ("rho", "alpha", "words"),
    [
        ([], 1.0, "must be one-dimensional"),
        ([[1.0]], 1.0, "must be one-dimensional"),
        ([1.0, -1.0], 1.0, r"rho\[1\]"),
        ([1.0], 0.0, "alpha must be positive"),
    ],
)
def test_numbers_outside_their_range_are_refused(rho, alpha, words):
    with pytest.raises(InvalidGameError, match=words):
        solve_yang_equations(rho, alpha)


EMNIST = {"rho": np.full(10, 0.001), "alpha": 10.0, "beta": 10.0, "budget": 1.0}


def test_the_printed_variant_pays_the_price_of_the_purchase():
    out = price("yang", **EMNIST, variant="printed")
    found = solve_yang_equations(EMNIST["rho"], 10.0)
    assert out.status == "solved"
    assert_array_equal(out.epsilon, found.epsilon)
    assert_allclose(out.payment, found.unit_price * (1 + found.epsilon) * found.amount, rtol=1e-15)
    assert_allclose(out.payment[0], 10.0 - 0.1038719 * 2.3381957, rtol=1e-6)  # by (57)
    assert_allclose(out.node_utility, out.payment - 0.001 * found.epsilon, rtol=1e-15)
    value = 10.0 * np.log1p(10.0 * found.epsilon[0])
    assert_allclose(out.server_utility, value - out.payment.sum(), rtol=1e-13)
    assert out.server_utility < 0  # the equations know no cap and not this server
    assert out.agency_utility == 0
    for words in ("our restoration", "price_root = 'square'", "payment = 'purchase'", "not state"):
        assert words in out.note


def test_under_compensation_the_agency_keeps_the_price_of_the_data():
    whole = price("yang", **EMNIST, variant="printed")
    out = price("yang", **EMNIST, variant="printed", payment="compensation")
    assert_allclose(out.server_payment, whole.server_payment, rtol=1e-14)
    assert_allclose(out.payment, whole.payment * out.epsilon / (1.0 + out.epsilon), rtol=1e-14)
    assert_allclose(out.agency_utility, out.server_payment - out.payment.sum(), rtol=1e-14)
    assert "payment = 'compensation'" in out.note


def test_under_a_shared_cap_the_payment_is_that_of_the_contest():
    rho = np.array([0.001, 0.0012, 0.0009])
    out = price(
        "yang", rho, alpha=10.0, beta=10.0, budget=2.0, variant="printed", payment="shared-cap"
    )
    assert_allclose(out.payment, 2.0 * out.epsilon / out.epsilon.sum(), rtol=1e-14)
    assert_allclose(out.server_payment, 2.0, rtol=1e-14)
    assert out.agency_utility == 0


def test_readings_reach_the_equations():
    for options in ({"price_root": "none"}, {"price_root": "exact"}):
        out = price("yang", **EMNIST, variant="printed", **options)
        assert_array_equal(
            out.epsilon, solve_yang_equations(EMNIST["rho"], 10.0, **options).epsilon
        )
    out = price("yang", **EMNIST, variant="printed", epsilon_exponent="literal")
    assert out.status == "no-solution"
    assert "alpha >= 1" in out.reason


@pytest.mark.parametrize(("n_nodes", "larger"), [(10, False), (100, False), (1000, True)])
@pytest.mark.parametrize(("alpha", "cost", "budget"), [(10.0, 0.001, 1.0), (20.0, 0.003, 2.0)])
def test_the_printed_epsilon_exceeds_ours_at_a_thousand_nodes_only(
    n_nodes, larger, alpha, cost, budget
):
    rho = np.full(n_nodes, cost)
    game = {"alpha": alpha, "beta": alpha, "budget": budget}
    ours = price("stackelberg", rho, **game).epsilon[0]
    assert (price("yang", rho, **game, variant="printed").epsilon[0] > ours) == larger


@pytest.mark.parametrize(
    ("rho", "budget", "words"), [([], 3.0, "no sellers"), ([0.001], 0.0, "no money")]
)
def test_nobody_to_trade_with_is_no_trade(rho, budget, words):
    out = price("yang", rho, alpha=10.0, beta=10.0, budget=budget, variant="printed")
    assert (out.status, out.server_payment) == ("no-trade", 0.0)
    assert words in out.reason


@pytest.mark.parametrize("payment", ["purchase", "compensation", "shared-cap"])
def test_a_market_comes_to_the_same(payment):
    scenario = fa.Scenario.model_validate(
        {
            "seed": 1,
            "population": {"n_nodes": 10, "rho": {"kind": "constant", "value": 0.001}},
            "game": {"alpha": 10.0, "beta": 10.0, "budget": 1.0},
            "server": {"kind": "fixed"},
            "mechanism": {"kind": "yang", "variant": "printed", "payment": payment},
        }
    )
    market = fa.PrivacyMarket(scenario)
    assert market.run_until().kind == "converged"
    outcome = market.outcome
    assert outcome.status == "solved"
    assert_allclose(market.columns.epsilon, outcome.epsilon, rtol=1e-12)
    assert_allclose(market.columns.payment, outcome.payment, rtol=1e-12)
    assert_allclose(market.state.payment, outcome.server_payment, rtol=1e-12)
    assert_allclose(market.state.server_utility, outcome.server_utility, rtol=1e-12)


def test_without_a_solution_the_offer_is_empty():
    mechanism = MECHANISMS.create("yang", {"variant": "printed", "epsilon_exponent": "literal"})
    offer = mechanism.offer(PricingGame(EMNIST["rho"], 10.0, 10.0), np.random.default_rng(0))
    assert not offer.epsilon.any()
    assert not offer.payment(offer.epsilon, 1.0).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"price_root": "none"}, "price_root = 'none' requires variant = 'printed'"),
        ({"payment": "shared-cap"}, "payment = 'shared-cap' requires variant = 'printed'"),
        ({"variant": "printed", "agency_knows_cap": True}, "requires variant = 'three-party'"),
        ({"variant": "printed", "price_root": "cube"}, "'square', 'none' or 'exact'"),
    ],
)
def test_options_without_effect_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        MECHANISMS.create("yang", options)
