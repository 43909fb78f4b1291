import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from strategies import alphas, betas, budgets, costs

import fcfn_abm as fa
from fcfn_abm.errors import InvalidGameError, UnknownNameError
from fcfn_abm.game import nash_equilibrium, stackelberg_equilibrium
from fcfn_abm.mechanisms import MECHANISMS, PricingGame, price
from fcfn_abm.mechanisms.base import settle
from fcfn_abm.registry import OptionError

SIMPLE = ["stackelberg", "random", "static"]
AVERAGES = ["active", "population", "effective"]
over = st.sampled_from(AVERAGES)
NEEDS = {
    "myerson-cap": {"distribution": {"kind": "uniform", "low": 0.5, "high": 6.0}},
    "posted-price": {"price": 1.1, "largest_epsilon": 0.5},
}


@pytest.mark.parametrize("budget", [None, 3.0])
@pytest.mark.parametrize("average_over", AVERAGES)
@pytest.mark.parametrize("name", list(MECHANISMS))
def test_every_mechanism_is_judged_on_the_same_primitives(name, average_over, budget):
    rho = np.array([1.0, 1.2, 0.7, 5.0, 1.0])
    one = price(
        name,
        rho,
        alpha=2.0,
        beta=30.0,
        budget=budget,
        average_over=average_over,
        rng=np.random.default_rng(3),
        **NEEDS.get(name, {}),
    )
    assert one.mechanism == name
    assert one.average_over == average_over
    assert one.status == "solved"
    assert (one.epsilon >= 0).all()
    assert (one.payment >= 0).all()
    assert_array_equal(one.active, one.epsilon > 0)
    assert one.n_active == np.count_nonzero(one.epsilon) > 0
    assert_allclose(one.node_utility, one.payment - rho * one.epsilon, atol=1e-12)
    n_effective = one.epsilon.sum() ** 2 / (one.epsilon**2).sum()
    n_averaged = {"active": one.n_active, "population": 5, "effective": n_effective}[average_over]
    assert_allclose(one.mean_epsilon, one.epsilon.sum() / n_averaged, rtol=1e-13)
    value = 30.0 * np.log1p(2.0 * one.mean_epsilon)
    assert_allclose(one.server_utility, value - one.paid, atol=1e-12)
    assert one.paid >= one.payment.sum() - 1e-12
    if budget is not None and MECHANISMS.create(name, NEEDS.get(name)).claims.budget_balanced:
        assert one.paid <= budget * (1 + 1e-9)


@pytest.mark.parametrize("name", SIMPLE)
@given(rho=costs(), alpha=alphas, beta=betas, budget=budgets, average_over=over)
@settings(max_examples=30)
def test_the_cap_is_paid_out_in_proportion(name, rho, alpha, beta, budget, average_over):
    one = price(name, rho, alpha=alpha, beta=beta, budget=budget, average_over=average_over, rng=0)
    assert_allclose(one.paid, budget, rtol=1e-13)
    assert_allclose(one.payment * one.epsilon.sum(), budget * one.epsilon, rtol=1e-13)


@pytest.mark.parametrize("name", SIMPLE)
@given(rho=costs(), alpha=alphas, beta=betas, average_over=over)
@settings(max_examples=30)
def test_without_a_cap_the_leaders_best_one_is_used(name, rho, alpha, beta, average_over):
    one = price(name, rho, alpha=alpha, beta=beta, average_over=average_over, rng=0)
    best = stackelberg_equilibrium(rho, alpha, beta, average_over).budget
    assert_allclose(one.paid, best, rtol=1e-13)


@given(rho=costs(), alpha=alphas, beta=betas, average_over=over)
def test_stackelberg_is_the_closed_form(rho, alpha, beta, average_over):
    one = price("stackelberg", rho, alpha=alpha, beta=beta, average_over=average_over)
    form = stackelberg_equilibrium(rho, alpha, beta, average_over)
    assert_array_equal(one.epsilon, form.epsilon)
    assert_allclose(one.node_utility, form.utility, atol=1e-13 * form.budget)
    assert_allclose(one.server_utility, form.server_utility, atol=1e-12 * beta)
    assert_allclose(one.mean_epsilon, form.mean_epsilon, rtol=1e-13)
    assert one.n_active == form.n_active
    assert one.status == ("solved" if form.budget > 0 else "no-trade")


def test_stackelberg_under_a_given_cap_is_the_nodes_equilibrium():
    rho = [1.0, 3.0, 9.0]
    one = price("stackelberg", rho, alpha=1.0, beta=10.0, budget=16.0)
    assert_array_equal(one.epsilon, nash_equilibrium(rho, 16.0).epsilon)
    assert_allclose(one.payment, [12.0, 4.0, 0.0], rtol=1e-14)
    assert_allclose(one.node_utility, [9.0, 1.0, 0.0], rtol=1e-13)
    assert_allclose(one.server_utility, 10 * np.log(3) - 16, rtol=1e-13)


def test_random_draws_from_one_to_a_hundred():
    one = price("random", np.ones(20_000), alpha=1.0, beta=10.0, budget=5.0, rng=1)
    assert one.epsilon.min() >= 1
    assert one.epsilon.max() <= 100
    # quartiles of U[1, 100], four standard deviations wide
    assert_allclose(
        np.quantile(one.epsilon, [0.25, 0.5, 0.75]), [25.75, 50.5, 75.25], atol=4 * 0.35
    )
    narrow = price("random", np.ones(50), alpha=1.0, beta=10.0, budget=5.0, rng=1, low=2, high=2)
    assert_array_equal(narrow.epsilon, 2.0)


def test_chance_is_an_argument():
    def drawn(rng):
        return price("random", np.ones(5), alpha=1.0, beta=10.0, rng=rng).epsilon

    assert_array_equal(drawn(7), drawn(np.random.default_rng(7)))
    assert (drawn(7) != drawn(8)).all()
    generator = np.random.default_rng(7)
    assert (drawn(generator) != drawn(generator)).all()


def test_static_gives_all_nodes_the_same():
    one = price("static", [1.0, 2.0], alpha=1.0, beta=10.0, budget=30.0)
    assert_array_equal(one.epsilon, [10.0, 10.0])
    assert_array_equal(one.payment, [15.0, 15.0])
    assert_array_equal(one.node_utility, [5.0, -5.0])
    assert_allclose(one.server_utility, 10 * np.log(11) - 30, rtol=1e-14)
    other = price("static", [1.0, 2.0], alpha=1.0, beta=10.0, budget=30.0, epsilon=3)
    assert_array_equal(other.epsilon, [3.0, 3.0])


@pytest.mark.parametrize(
    ("rho", "beta", "budget"), [([1.0, 1.0, 5.0], 4.0, None), ([1.0], 1e6, None), ([], 1e6, 9.0)]
)
@pytest.mark.parametrize("average_over", ["active", "population"])
def test_no_trade_is_a_result(rho, beta, budget, average_over):
    one = price("stackelberg", rho, alpha=1.0, beta=beta, budget=budget, average_over=average_over)
    assert one.status == "no-trade"
    assert_array_equal(one.epsilon, np.zeros(len(rho)))
    assert_array_equal(one.payment, np.zeros(len(rho)))
    assert_array_equal(one.node_utility, np.zeros(len(rho)))
    assert one.n_active == one.paid == one.mean_epsilon == one.server_utility == 0


@pytest.mark.parametrize("name", ["random", "static"])
def test_forced_nodes_work_for_nothing_where_no_cap_pays(name):
    one = price(name, [1.0, 1.0, 5.0], alpha=1.0, beta=4.0, rng=0)
    assert one.paid == 0
    assert_array_equal(one.node_utility, -np.array([1.0, 1.0, 5.0]) * one.epsilon)
    assert one.server_utility > 0
    assert one.n_active == 3


@pytest.mark.parametrize("name", SIMPLE)
def test_a_cap_of_zero_is_a_cap(name):
    one = price(name, [1.0, 1.0], alpha=1.0, beta=10.0, budget=0.0, rng=0)
    assert_array_equal(one.payment, [0.0, 0.0])
    assert (one.status == "no-trade") is (name == "stackelberg")


@pytest.mark.parametrize("name", SIMPLE)
def test_nobody_is_no_trade(name):
    one = price(name, [], alpha=1.0, beta=10.0, budget=5.0)
    assert (one.status, one.n_active, one.paid, one.server_utility) == ("no-trade", 0, 0.0, 0.0)


def test_settling_averages_over_the_nodes_that_it_is_given():
    rho, epsilon = np.array([1.0, 1.0, 4.0]), np.array([2.0, 4.0, 0.0])
    paid = np.array([3.0, 5.0, 0.5])
    means = {}
    for average_over in AVERAGES:
        game = PricingGame(rho, alpha=1.0, beta=10.0, average_over=average_over)
        one = settle("own", game, epsilon, paid, reason="why")
        means[average_over] = one.mean_epsilon
        assert_array_equal(one.node_utility, [1.0, 1.0, 0.5])
        assert_array_equal(one.active, [True, True, False])
        assert_allclose(one.server_utility, 10 * np.log1p(one.mean_epsilon) - 8.5, rtol=1e-14)
        assert (one.mechanism, one.status, one.reason) == ("own", "solved", "why")
    assert means == {"active": 3.0, "population": 2.0, "effective": 6.0 / (36.0 / 20.0)}
    assert settle("own", game, epsilon, paid, status="no-solution").status == "no-solution"


def test_the_simple_mechanisms_are_registered_and_price_is_public():
    assert set(SIMPLE) < set(MECHANISMS)
    assert fa.price is price


@pytest.mark.parametrize(
    ("error", "changes", "words"),
    [
        (UnknownNameError, {"mechanism": "stackleberg"}, "no mechanism called 'stackleberg'. Did"),
        (OptionError, {"epsilon": 3}, "epsilon: the mechanism 'random' has no such option; it tak"),
        (OptionError, {"lwo": 3}, "it takes low, high, voluntary. Did you mean 'low'"),
        (OptionError, {"low": 0}, "low: input should be greater than 0, but it is 0"),
        (OptionError, {"low": 5, "high": 2}, "low must not exceed high, but 5 > 2"),
        (OptionError, {"mechanism": "static", "epsilon": -1}, "epsilon: input should be greater"),
        (OptionError, {"mechanism": "static", "epsilon": "much"}, "epsilon: input should be a val"),
        (OptionError, {"mechanism": "stackelberg", "gain": 1}, "it takes no options"),
        (InvalidGameError, {"rho": [1.0, -1.0]}, r"rho\[1\] = -1"),
        (InvalidGameError, {"rho": 1.0}, r"rho must have shape \(n,\)"),
        (InvalidGameError, {"alpha": 0.0}, "alpha must be positive"),
        (InvalidGameError, {"beta": np.nan}, "beta must be positive"),
        (InvalidGameError, {"budget": -1.0}, "budget must be zero or positive"),
        (InvalidGameError, {"average_over": "all"}, "average_over must be 'active' or"),
        (
            InvalidGameError,
            {"average_over": "all", "budget": 1.0},
            "average_over must be 'active' or",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(error, changes, words):
    call = {"mechanism": "random", "rho": [1.0, 1.0], "alpha": 1.0, "beta": 10.0} | changes
    with pytest.raises(error, match=words):
        price(call.pop("mechanism"), call.pop("rho"), **call)


@pytest.mark.parametrize("name", ["random", "static"])
@given(rho=costs(), budget=budgets)
@settings(max_examples=60)
def test_the_voluntary_outcome_keeps_as_many_nodes_as_lose_nothing(name, rho, budget):
    def priced(**options):
        return price(name, rho, alpha=1.0, beta=1.0, budget=budget, rng=3, **options)

    forced, free = priced(), priced(voluntary=True)
    left = np.ones(len(rho), dtype=bool)  # by hand: the costliest leaves until nobody loses
    while left.any():
        each = budget / forced.epsilon[left].sum()
        costliest = np.flatnonzero(left & (rho == rho[left].max()))[-1]
        if rho[costliest] <= each:
            break
        left[costliest] = False
    margin = np.abs(free.node_utility) < 1e-9 * budget  # whether it just pays is rounding
    assert_array_equal(free.active | margin, left | margin)
    assert (free.node_utility > -1e-9 * budget).all()
    assert_array_equal(free.epsilon[free.active], forced.epsilon[free.active])
    if free.n_active:
        assert_allclose(free.paid, budget)


def test_as_many_stay_in_the_voluntary_outcome_of_a_static_epsilon_as_in_its_market():
    scenario = fa.Scenario.model_validate(
        {
            "population": {"n_nodes": 30},
            "game": {"budget": 10.0},
            "server": {"kind": "fixed"},
            "mechanism": {"kind": "static"},
        }
    )
    rho = np.random.default_rng(5).uniform(0.05, 0.15, 30)
    market = fa.PrivacyMarket(scenario, rho=rho)
    market.run_until()
    expected = price("static", rho, alpha=10.0, beta=10.0, budget=10.0, voluntary=True)
    assert 0 < expected.n_active < 30
    assert np.count_nonzero(market.epsilon) == expected.n_active


@pytest.mark.parametrize("name", ["random", "static"])
def test_populations_priced_together_lose_the_same_nodes_as_one_by_one(name):
    rho = np.random.default_rng(2).uniform(0.05, 0.15, (4, 12))
    cap = np.array([1.0, 3.0, 9.0, 27.0])
    together = price(name, rho, alpha=1.0, beta=1.0, budget=cap, rng=1, voluntary=True)
    chance = np.random.default_rng(1)
    for row in range(4):
        own = price(
            name, rho[row], alpha=1.0, beta=1.0, budget=cap[row], rng=chance, voluntary=True
        )
        assert_array_equal(together.epsilon[row], own.epsilon)
