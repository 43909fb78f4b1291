import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from strategies import alphas, betas, budgets, costs

from fcfn_abm.game import exploitability, nash_equilibrium
from fcfn_abm.mechanisms import MECHANISMS, PricingGame, price
from fcfn_abm.registry import OptionError

PAPER = {"rho": np.full(100, 0.001), "alpha": 10.0, "beta": 10.0}


def quote(rho, alpha, beta, budget=None, average_over="active", **options):
    game = PricingGame(np.asarray(rho, dtype=float), alpha, beta, budget, average_over)
    return MECHANISMS.create("yang", options).quote(game)


def best(function, low, high):
    """Maximise a function with one peak over a bracket of positive numbers."""
    found = minimize_scalar(
        lambda x: -function(math.exp(x)),
        bounds=(math.log(low), math.log(high)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return math.exp(found.x), -found.fun


def demand(unit_price, alpha, beta, n_averaged, budget=math.inf):
    """What the server buys at a price, by trying."""

    def utility(quantity):
        return beta * math.log1p(alpha * quantity / n_averaged) - unit_price * quantity

    most = min(budget, beta) / unit_price  # beyond beta / p marginal value is below the price
    bought, gain = best(utility, 1e-9 * most, most)
    return bought if gain > 0 else 0.0


markets = st.tuples(costs(), st.floats(1.5, 1e4), betas, st.sampled_from(["active", "population"]))


def with_trade(market):
    """A game in which the first unit is worth ``ratio`` times what it costs."""
    rho, ratio, beta, average_over = market
    nodes = nash_equilibrium(rho, 1.0)
    n_averaged = nodes.n_active if average_over == "active" else rho.size
    alpha = ratio * nodes.threshold * n_averaged / beta
    return rho, alpha, beta, average_over, nodes.threshold, n_averaged


@settings(max_examples=20)
@given(market=markets)
def test_the_price_is_the_agencys_optimum_against_the_servers_own_demand(market):
    rho, alpha, beta, average_over, unit_cost, n_averaged = with_trade(market)

    def profit(unit_price):
        return (unit_price - unit_cost) * demand(unit_price, alpha, beta, n_averaged)

    asked, most = best(profit, unit_cost, alpha * beta / n_averaged)
    posted = quote(rho, alpha, beta, average_over=average_over)
    assert_allclose(posted.unit_cost, unit_cost, rtol=1e-14)
    assert_allclose(posted.price, asked, rtol=1e-2)
    assert_allclose(posted.server_payment - posted.pool, most, rtol=1e-4)
    out = price("yang", rho, alpha=alpha, beta=beta, average_over=average_over)
    assert_allclose(out.agency_utility, most, rtol=1e-4)


@given(market=markets, cap=st.one_of(st.none(), st.floats(0.01, 2.0)))
def test_the_server_can_do_no_better_at_this_price(market, cap):
    rho, alpha, beta, average_over, _, n_averaged = with_trade(market)
    budget = None if cap is None else cap * beta
    posted = quote(rho, alpha, beta, budget, average_over)
    out = price("yang", rho, alpha=alpha, beta=beta, budget=budget, average_over=average_over)
    assert out.average_over == average_over
    assert out.paid <= (math.inf if budget is None else budget * (1 + 1e-14))
    for factor in (0.0, 0.5, 0.999, 1.001, 2.0):
        bought = posted.quantity * factor
        if budget is None or posted.price * bought <= budget:
            other = beta * np.log1p(alpha * bought / n_averaged) - posted.price * bought
            assert out.server_utility >= other - 1e-12 * beta


@given(market=markets, cap=st.one_of(st.none(), budgets))
def test_nodes_are_at_the_equilibrium_of_the_pool_and_money_adds_up(market, cap):
    rho, alpha, beta, average_over, unit_cost, _ = with_trade(market)
    posted = quote(rho, alpha, beta, cap, average_over)
    out = price("yang", rho, alpha=alpha, beta=beta, budget=cap, average_over=average_over)
    assert out.status == "solved"
    assert out.reason == ""
    assert_allclose(out.epsilon.sum(), posted.quantity, rtol=1e-12)
    assert exploitability(out.epsilon, rho, posted.pool) <= 1e-12
    assert (out.node_utility >= 0).all()
    assert_allclose(out.payment.sum(), unit_cost * posted.quantity, rtol=1e-12)
    assert_allclose(out.server_payment, posted.price * posted.quantity, rtol=1e-15)
    assert out.paid == out.server_payment
    assert out.agency_utility == out.server_payment - out.payment.sum()
    assert out.agency_utility > 0
    value = beta * np.log1p(alpha * out.mean_epsilon)
    assert_allclose(out.server_utility, value - out.server_payment, atol=1e-12 * beta)


@given(
    rho=costs(), alpha=alphas, beta=betas, average_over=st.sampled_from(["active", "population"])
)
def test_there_is_trade_just_where_some_price_pays_both(rho, alpha, beta, average_over):
    nodes = nash_equilibrium(rho, 1.0)
    n_averaged = nodes.n_active if average_over == "active" else rho.size
    prices = nodes.threshold * np.geomspace(1 + 1e-6, 1e9, 4000)
    pays = (beta / prices - n_averaged / alpha > 0).any()
    out = price("yang", rho, alpha=alpha, beta=beta, average_over=average_over)
    assert (out.status == "solved") == pays
    if not pays:
        assert out.status == "no-trade"
        assert "not below alpha beta / n_g" in out.reason
        assert not out.epsilon.any()
        assert out.server_payment == out.agency_utility == out.server_utility == 0.0


def test_three_nodes_of_which_one_stays_out():
    # m = 2, alpha beta / n_g = 8, p = 4, S = 16 / 4 - 2
    out = price("yang", [1.0, 1.0, 5.0], alpha=1.0, beta=16.0)
    assert_allclose(out.epsilon, [1.0, 1.0, 0.0], rtol=1e-15)
    assert_allclose(out.payment, [2.0, 2.0, 0.0], rtol=1e-15)
    assert_allclose([out.server_payment, out.agency_utility], [8.0, 4.0], rtol=1e-15)
    assert_allclose(out.server_utility, 16.0 * math.log(2.0) - 8.0, rtol=1e-14)
    assert_allclose(out.node_utility, [1.0, 1.0, 0.0], rtol=1e-15)


def test_heterogeneous_nodes_share_by_cost():
    # tau = 6, n = 3: m = 3; alpha beta / n_g = 12, p = 6, S = 3
    out = price("yang", [1.5, 2.0, 2.5, 9.0], alpha=1.0, beta=36.0)
    assert_allclose(out.epsilon, 3.0 * np.array([3.0, 2.0, 1.0, 0.0]) / 6.0, rtol=1e-14)
    assert_allclose(out.server_payment, 18.0, rtol=1e-14)
    assert_allclose(out.agency_utility, 9.0, rtol=1e-14)


def test_little_trade_keeps_its_digits():
    # alpha beta / n_g exceeds m by the factor 1 + 2**-40
    excess = 2.0**-40
    posted = quote([1.0, 1.0], alpha=1.0, beta=4.0 * (1.0 + excess))
    assert_allclose(posted.quantity, 2.0 * (excess / 2.0 - excess**2 / 8.0), rtol=1e-14)


def test_a_cap_that_binds_is_spent_at_the_same_price():
    free, capped = quote(**PAPER), quote(**PAPER, budget=1.0)
    assert capped.price == free.price
    assert_allclose(capped.quantity, 1.0 / free.price, rtol=1e-15)
    assert_allclose(price("yang", **PAPER, budget=1.0).paid, 1.0, rtol=1e-14)


def test_a_cap_above_what_the_server_wants_changes_nothing():
    free = quote(**PAPER)
    assert quote(**PAPER, budget=1.001 * free.server_payment) == free
    assert quote(**PAPER, budget=1.001 * free.server_payment, agency_knows_cap=True) == free


@settings(max_examples=20)
@given(market=markets, cap=st.floats(0.02, 1.2))
def test_an_agency_that_knows_the_cap_prices_against_it(market, cap):
    rho, alpha, beta, average_over, unit_cost, n_averaged = with_trade(market)
    budget = cap * beta

    def profit(unit_price):
        bought = demand(unit_price, alpha, beta, n_averaged, budget)
        return (unit_price - unit_cost) * bought

    asked, most = best(profit, unit_cost, alpha * beta / n_averaged)
    posted = quote(rho, alpha, beta, budget, average_over, agency_knows_cap=True)
    assert_allclose(posted.price, asked, rtol=1e-2)
    assert_allclose(posted.server_payment - posted.pool, most, rtol=1e-4)
    unknown = quote(rho, alpha, beta, budget, average_over)
    assert posted.price >= unknown.price
    assert posted.server_payment <= budget * (1 + 1e-14)


@pytest.mark.parametrize(
    ("rho", "budget", "words"),
    [([1.0, 1.0], 0.0, "no money"), ([1.0], None, "two nodes"), ([], 3.0, "two nodes")],
)
def test_where_nothing_can_be_traded_all_is_zero(rho, budget, words):
    out = price("yang", rho, alpha=10.0, beta=10.0, budget=budget)
    assert out.status == "no-trade"
    assert words in out.reason
    assert out.epsilon.shape == (len(rho),)
    assert not out.payment.any()
    assert out.server_payment == out.agency_utility == 0.0


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name != "yang"])
def test_without_an_agency_the_server_pays_the_nodes(name):
    known = {"distribution": {"kind": "uniform", "low": 0.5, "high": 1.5}}
    options = known if name == "myerson-cap" else {}
    out = price(name, [1.0, 1.1, 1.2], alpha=5.0, beta=10.0, budget=3.0, rng=1, **options)
    assert out.agency_utility == 0.0
    assert out.server_payment == out.paid == out.payment.sum()


def test_an_unknown_variant_is_refused():
    with pytest.raises(OptionError, match="three-party"):
        MECHANISMS.create("yang", {"variant": "three"})
