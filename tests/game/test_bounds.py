import numpy as np
import pytest
from hypothesis import assume, given
from numpy.testing import assert_allclose
from strategies import alphas, betas, budgets, costs

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import (
    epsilon_ceiling,
    nash_equilibrium,
    privacy_cost_ceiling,
    stackelberg_equilibrium,
)


@pytest.mark.parametrize("average_over", ["active", "population"])
@given(rho=costs(), alpha=alphas, beta=betas)
def test_no_active_node_reaches_the_cost_ceiling_where_trade_pays(average_over, rho, alpha, beta):
    game = stackelberg_equilibrium(rho, alpha, beta, average_over)
    assume(game.budget > 0)
    n_averaged = game.n_active if average_over == "active" else rho.size
    assert rho[game.active].max() < privacy_cost_ceiling(alpha, beta, n_averaged) * (1 + 1e-12)


def test_costs_come_as_close_to_the_ceiling_as_wanted():
    # two nodes of cost 1: tau / (n - 1) = 2, and trade pays from alpha beta = 4 on
    for excess in (1e-3, 1e-6):
        ceiling = privacy_cost_ceiling(1.0, 4.0 * (1.0 + excess), 2)
        market = stackelberg_equilibrium([1.0, 1.0], 1.0, 4.0 * (1.0 + excess))
        assert market.budget > 0
        assert_allclose(ceiling, market.threshold, rtol=2 * excess)


@given(rho=costs(), budget=budgets)
def test_every_equilibrium_stays_below_the_epsilon_ceiling(rho, budget):
    epsilon = nash_equilibrium(rho, budget).epsilon
    assert (epsilon < epsilon_ceiling(rho, budget)).all()


@given(rho=costs(), budget=budgets)
def test_at_the_ceiling_the_whole_cap_just_pays_the_cost(rho, budget):
    assert_allclose(rho * epsilon_ceiling(rho, budget), budget, rtol=1e-14)


def test_the_papers_markets():
    # (47) and (52) for EMNIST (alpha = beta = 10, B = 1, rho = 0.001) and CIFAR-10 at N = 1000
    assert privacy_cost_ceiling(10.0, 10.0, 1000) == 0.1
    assert privacy_cost_ceiling(20.0, 20.0, 1000) == 0.4
    assert_allclose(epsilon_ceiling(0.001, 1.0), 1000.0)
    assert_allclose(epsilon_ceiling([0.003], 2.0), [2000.0 / 3.0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: privacy_cost_ceiling(0.0, 1.0, 3), "alpha must be positive"),
        (lambda: privacy_cost_ceiling(1.0, np.inf, 3), "beta must be positive"),
        (lambda: privacy_cost_ceiling(1.0, 1.0, 0), "n_nodes must be 1 or more"),
        (lambda: epsilon_ceiling([1.0, -1.0], 1.0), r"rho\[1\]"),
        (lambda: epsilon_ceiling([1.0], -1.0), "budget must be zero or positive"),
    ],
)
def test_numbers_outside_their_range_are_refused(call, words):
    with pytest.raises(InvalidGameError, match=words):
        call()
