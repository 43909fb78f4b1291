"""Contests beyond the paper's: a power of epsilon, and weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar
from strategies import alphas, betas, budgets, costs

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import nash_equilibrium, tullock_equilibrium
from fcfn_abm.mechanisms import MECHANISMS, PricingGame, price
from fcfn_abm.population import Holdings
from fcfn_abm.registry import OptionError

over = st.sampled_from(["active", "population", "effective"])


def same(one, other):
    for name in ("epsilon", "payment", "node_utility"):
        assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.server_utility == other.server_utility
    assert one.mean_epsilon == other.mean_epsilon


@given(rho=costs(), alpha=alphas, beta=betas, budget=st.none() | budgets, average_over=over)
def test_an_exponent_of_one_and_equal_weights_are_stackelberg_bit_for_bit(
    rho, alpha, beta, budget, average_over
):
    game = {"alpha": alpha, "beta": beta, "budget": budget, "average_over": average_over}
    paper = price("stackelberg", rho, **game)
    same(price("tullock", rho, exponent=1.0, **game), paper)
    same(price("weighted", rho, **game), paper)


@given(rho=costs(), budget=budgets, power=st.integers(-5, 5), data=st.data())
def test_weights_are_other_costs_of_a_score(rho, budget, power, data):
    weights = data.draw(
        st.lists(st.floats(0.1, 10.0), min_size=rho.size, max_size=rho.size).map(tuple)
    )
    one = price("weighted", rho, alpha=1.0, beta=1.0, budget=budget, by="listed", weights=weights)
    weight = np.array(weights)
    score = nash_equilibrium(rho / weight, budget).epsilon
    assert_allclose(weight * one.epsilon, score, rtol=1e-12)
    assert_allclose(one.paid, budget, rtol=1e-12)
    doubled = tuple(2.0**power * w for w in weights)  # only their ratios count
    other = price("weighted", rho, alpha=1.0, beta=1.0, budget=budget, by="listed", weights=doubled)
    assert_allclose(other.epsilon, one.epsilon, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(rho=costs(max_size=6), budget=budgets, data=st.data())
def test_no_node_gains_by_another_epsilon_in_a_weighted_contest(rho, budget, data):
    weights = data.draw(
        st.lists(st.floats(0.1, 10.0), min_size=rho.size, max_size=rho.size).map(tuple)
    )
    one = price("weighted", rho, alpha=1.0, beta=1.0, budget=budget, by="listed", weights=weights)
    for node, weight in enumerate(weights):
        others = float(np.array(weights) @ one.epsilon) - weight * one.epsilon[node]

        def loss(own, node=node, weight=weight, others=others):
            return rho[node] * own - budget * weight * own / (weight * own + others)

        found = minimize_scalar(
            loss, bounds=(0.0, budget / rho[node]), method="bounded", options={"xatol": 1e-12}
        )
        assert max(-found.fun, 0.0) <= one.node_utility[node] + 1e-9 * budget


@settings(max_examples=40)
@given(
    rho=costs(max_size=10),
    alpha=alphas,
    beta=betas,
    average_over=over,
    exponent=st.floats(0.1, 0.99),
    factor=st.floats(0.0, 3.0),
)
def test_no_other_cap_leaves_the_server_more(rho, alpha, beta, average_over, exponent, factor):
    weights = tuple(np.linspace(1.0, 2.0, rho.size))
    for name, options in (
        ("tullock", {"exponent": exponent}),
        ("weighted", {"by": "listed", "weights": weights}),
    ):
        game = {"alpha": alpha, "beta": beta, "average_over": average_over, **options}
        best = price(name, rho, **game)
        for budget in (factor * best.paid, factor * beta):
            other = price(name, rho, budget=budget if budget > 1e-18 else 0.0, **game)
            assert other.server_utility <= best.server_utility + 1e-11 * beta


def test_weights_follow_the_data_of_nodes():
    rho = np.array([1.0, 1.0, 1.0])
    shards = tuple(np.arange(n) for n in (10, 20, 30))
    held = Holdings(shards, np.array([0.0, 0.5, 1.0]))
    game = PricingGame(rho, alpha=1.0, beta=10.0, budget=1.0, held=held)
    samples = MECHANISMS.create("weighted", {"by": "samples"})
    assert_array_equal(samples.weigh(game), [10.0, 20.0, 30.0])
    divergence = MECHANISMS.create("weighted", {"by": "divergence", "coupling": 2.0})
    assert_array_equal(divergence.weigh(game), [1.0, 1 / 2.0, 1 / 3.0])
    bought = samples.outcome(game, np.random.default_rng(0))
    score = nash_equilibrium([0.1, 0.05, 1 / 30], 1.0).epsilon
    assert_allclose(bought.epsilon, score / [10.0, 20.0, 30.0], rtol=1e-12)


@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (OptionError, {"by": "listed"}, "weights are required with by = 'listed'"),
        (OptionError, {"weights": [1.0, 2.0]}, "weights are required with by = 'listed'"),
        (OptionError, {"coupling": 2.0}, "coupling requires by = 'divergence'"),
        (OptionError, {"by": "listed", "weights": [1.0, 0.0]}, r"weights\.1: input should be gre"),
        (
            InvalidGameError,
            {"by": "listed", "weights": [1.0]},
            "one value for each of 2 nodes, but",
        ),
        (InvalidGameError, {"by": "samples"}, "by = 'samples' requires training data"),
        (InvalidGameError, {"by": "divergence"}, "but there are none here"),
    ],
)
def test_weights_that_make_no_sense_are_refused(error, options, words):
    with pytest.raises(error, match=words):
        price("weighted", [1.0, 1.0], alpha=1.0, beta=1.0, **options)


@pytest.mark.parametrize("exponent", [0.0, 1.01, -1.0, 0.001])
def test_an_exponent_outside_its_range_is_refused(exponent):
    with pytest.raises(OptionError, match="exponent: input should be"):
        price("tullock", [1.0, 1.0], alpha=1.0, beta=1.0, exponent=exponent)


def test_a_smaller_exponent_keeps_unlike_nodes():
    rho = np.linspace(0.5, 1.5, 1000)  # of which the contest of the paper keeps 33
    effective = []
    for exponent in (1.0, 0.95, 0.8, 0.5):
        one = price("tullock", rho, alpha=10.0, beta=10.0, budget=1.0, exponent=exponent)
        assert_array_equal(one.epsilon, tullock_equilibrium(rho, 1.0, exponent).epsilon)
        effective.append(one.epsilon.sum() ** 2 / (one.epsilon**2).sum())
    assert price("stackelberg", rho, alpha=10.0, beta=10.0, budget=1.0).n_active == 33
    assert one.n_active == 1000
    assert effective == sorted(effective)
    assert effective[-1] > 600
