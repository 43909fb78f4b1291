"""The server's side of a market: what it comes to, and what a verdict says of it."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar

from fcfn_abm import PrivacyMarket, nash_equilibrium
from fcfn_abm.abm.verdict import Judge
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.game import server_regret, takes_part
from fcfn_abm.learning import ServerRule
from fcfn_abm.scenario import Scenario

ALPHA = BETA = 10.0


def market(rho=None, **tables):
    if rho is not None:
        tables.setdefault("population", {"n_nodes": len(rho)})
    return PrivacyMarket(Scenario.model_validate(tables), rho=rho)


def played(rho=None, **tables):
    made = market(rho, **tables)
    made.run_until()
    return made


def utility(rho, budget):
    """What the server has of a cap with the nodes at equilibrium, by its definition."""
    game = nash_equilibrium(rho, budget)
    return BETA * math.log1p(ALPHA * game.total_epsilon / game.n_active) - budget


def search_best_cap(rho):
    """Find the cap that leaves the server most, by search."""
    found = minimize_scalar(
        lambda b: -utility(rho, b), bounds=(1e-12, BETA), options={"xatol": 1e-12}
    )
    return max(0.0, -found.fun), found.x


@pytest.mark.parametrize("rho", [[4.0] * 5 + [5.0] * 3, [1.0, 1.0, 2.0], [1.0, 1.0, 1.999999]])
@pytest.mark.parametrize("rule", ["best-response", "estimate"])
def test_costs_at_the_threshold_do_not_keep_the_server_from_its_best_cap(rho, rule):
    made = played(rho, learning=rule)
    best, cap = search_best_cap(np.array(rho))
    assert made.verdict.kind == "converged"
    assert made.n_active == made.equilibrium.n_active
    assert_allclose(made.budget, cap, rtol=1e-4)  # the search is no finer where utility is flat
    assert abs(made.verdict.budget_ratio - 1) < 1e-6
    assert made.verdict.server_regret <= 1e-9 * best


def test_with_totals_alone_costs_at_the_threshold_are_no_hindrance():
    made = played([4.0] * 5 + [5.0] * 3, learning="aggregate", information={"reports": "aggregate"})
    assert made.verdict.kind == "converged"
    assert_allclose(made.budget, 7.5, rtol=1e-9)
    assert made.n_active == 5


def test_a_report_is_active_if_its_share_matters():
    assert takes_part(np.array([1.0, 0.5, 1e-7, 9e-9, 0.0])).tolist() == [True] * 3 + [False] * 2
    assert not takes_part(np.zeros(3)).any()
    made = market([1.0, 1.0, 1.0])
    made.step()
    made.columns.epsilon[2] = 1e-12
    assert made.epsilon[2] == 0  # what trains


@given(
    budget=st.floats(0.0, 30.0),
    best=st.floats(1e-3, 9.9),
    beta=st.floats(10.0, 20.0),
)
def test_the_servers_regret_is_the_difference_of_two_utilities(budget, best, beta):
    with mpmath.workdps(60):
        b, star, value = (mpmath.mpf(number) for number in (budget, best, beta))
        slope = 1 / (value - star)  # alpha kappa, by (41)
        exact = (value * mpmath.log(1 + slope * star) - star) - (
            value * mpmath.log(1 + slope * b) - b
        )
    regret = server_regret(budget, best, 1.0, beta, 0.0)
    assert regret >= 0
    assert_allclose(regret, float(exact), rtol=1e-11, atol=1e-300)


def test_the_regret_of_a_cap_of_zero_is_all_that_trade_would_leave():
    kappa = 1e12  # B* is beta to the last digits
    best = BETA - 1 / (ALPHA * kappa)
    assert_allclose(
        server_regret(0.0, best, ALPHA, BETA, kappa),
        BETA * math.log(1e13 * best) - best,
        rtol=1e-12,
    )


def test_where_no_trade_pays_any_cap_is_a_loss():
    regret = server_regret(2.0, 0.0, ALPHA, BETA, 0.001)
    assert_allclose(regret, 2.0 - 10 * math.log(1.02), rtol=1e-14)


@pytest.mark.parametrize("server", ["anticipate", "gradient"])
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_few_nodes_asked_in_a_round_do_not_mislead_the_server(server, share, seed):
    rho = 1 + 0.1 * np.random.default_rng(seed).uniform(-1, 1, 10)
    made = played(rho, seed=seed, server=server, rounds={"participation": share, "maximum": 20_000})
    assert made.verdict.kind == "converged"
    assert abs(made.budget / search_best_cap(rho)[1] - 1) < 1.1e-3


@pytest.mark.slow  # three thousand rounds each
@pytest.mark.parametrize("seed", range(4))
def test_one_node_asked_in_a_round_does_not_mislead_a_server_that_climbs(seed):
    rho = 1 + 0.1 * np.random.default_rng(seed).uniform(-1, 1, 10)
    made = played(
        rho, seed=seed, server="gradient", rounds={"participation": 0.1, "maximum": 20_000}
    )
    assert made.verdict.kind == "converged"
    assert abs(made.verdict.budget_ratio - 1) < 1e-3


def costs_near_the_border(distance, n_nodes=20):
    """Return costs at which alpha beta kappa is 1 + distance."""
    rho = 1 + 0.001 * np.linspace(-1, 1, n_nodes)
    kappa = nash_equilibrium(rho, 1.0).total_epsilon / n_nodes
    return rho * (ALPHA * BETA * kappa / (1 + distance))


@pytest.mark.parametrize("distance", [1e-4, 1e-3, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_close_to_the_border_of_no_trade_the_server_finds_its_small_cap(distance, seed):
    made = played(costs_near_the_border(distance), seed=seed)
    assert made.verdict.kind == "converged"
    assert_allclose(made.budget, BETA * distance / (1 + distance), rtol=1e-6)


@pytest.mark.parametrize("distance", [-1e-3, -0.1])
def test_beyond_the_border_there_is_no_trade(distance):
    made = played(costs_near_the_border(distance))
    assert made.verdict.kind == "no-trade"
    assert made.verdict.reason == (
        "no payment cap pays off for the server: B* = 0 (Zhou et al. 2023, eq. 45)."
    )
    assert made.verdict.budget_ratio is None


def test_a_server_that_gave_up_is_not_said_to_have_had_no_choice():
    made = played(
        seed=1,
        population={"n_nodes": 20},
        learning="aggregate",
        information={"reports": "aggregate", "noise": 0.05},
        rounds={"start": "cold"},
    )
    assert made.verdict.kind == "no-trade"
    assert "the server has given up" in made.verdict.reason
    assert f"B* = {made.equilibrium.budget:.6g}" in made.verdict.reason
    assert "no payment cap" not in made.verdict.reason


@pytest.mark.parametrize("server", ["anticipate", "gradient"])
def test_a_server_that_gave_up_tries_again(server):
    made = market([1.0, 1.0, 1.0], server=server)
    made.step()
    made.server.budget = 0.0  # as if it had
    made.columns.epsilon[:] = 0.0
    made.run_until()
    assert made.round_index > 20
    assert made.verdict.kind == "converged"
    assert_allclose(made.budget, made.equilibrium.budget, rtol=1e-3)


def test_a_market_whose_server_keeps_giving_up_says_so():
    made = played(seed=1, population={"n_nodes": 20}, learning="replicator")
    assert made.verdict.kind in {"no-trade", "max-rounds"}
    assert "giv" in made.verdict.reason
    assert "B* = 9.9995" in made.verdict.reason


@pytest.mark.parametrize("seed", range(6))
def test_noise_after_a_warm_start_is_no_divergence(seed):
    verdicts = {
        played(
            seed=seed,
            population={"n_nodes": 20},
            rounds={"start": start, "maximum": 100},
            information={"noise": 0.05},
        ).verdict.kind
        for start in ("warm", "random")
    }
    assert verdicts == {"max-rounds"}


def judged(distances, changes):
    judge = Judge(1e-9, 3, len(distances))
    for distance, change in zip(distances, changes, strict=True):
        verdict = judge.add_round(
            exploitability=1.0, change=change, budget_change=0, distance=distance
        )
    return verdict


def test_a_market_that_moves_ever_less_is_not_cycling():
    rounds = np.arange(200)
    settling = judged(0.3 + 0.01 * np.sin(rounds), 1e-2 * 0.93**rounds)
    assert settling.kind == "max-rounds"
    assert "not settled yet" in settling.reason
    assert judged(0.3 + 0.01 * np.sin(rounds), np.full(200, 1e-2)).kind == "cycling"


def test_a_market_in_which_nobody_takes_part_has_not_converged():
    # every contract costs each node more than it pays: all leave
    made = played([1.0, 1.0], mechanism={"kind": "static", "epsilon": 50.0}, game={"budget": 1.0})
    assert made.n_active == 0
    assert made.verdict.kind == "no-trade"
    assert "nobody takes part" in made.verdict.reason


def test_losses_under_contracts_are_measured_by_what_is_paid():
    # a menu pays each type more than its cost: by the contest's share of the cap some would lose
    made = played(mechanism="ic-mle", exit={"criterion": "loss"})
    columns = made.columns
    share = made.budget * columns.epsilon / columns.epsilon.sum()
    assert (share < columns.rho * columns.epsilon).any()  # the wrong rule would let these leave
    assert (columns.utility >= 0).all()
    assert not columns.idle_rounds.any()
    assert not columns.exited.any()


def test_a_market_refuses_what_a_run_refuses():
    with pytest.raises(InvalidScenarioError, match="needs every report"):
        market(learning="estimate", information={"reports": "aggregate"})


def test_where_the_cap_is_given_the_verdict_is_about_the_nodes():
    made = played([1.0, 1.0, 1.0], server="fixed", game={"budget": 2.0})
    assert made.verdict.kind == "converged"
    assert_allclose(made.verdict.budget_ratio, 2.0 / made.equilibrium.budget, rtol=1e-12)
    best, _ = search_best_cap(np.ones(3))
    assert_allclose(made.verdict.server_regret, best - utility(np.ones(3), 2.0), rtol=1e-9)
    assert "B/B*" not in made.verdict.reason


class KeepCap(ServerRule):
    """A server that is content with any cap."""

    def next_budget(self, seen):
        return seen.budget


def test_nodes_at_rest_under_a_wrong_cap_have_not_converged():
    made = market([1.0, 1.0, 1.0], rounds={"maximum": 200})
    made.server.rule = KeepCap()
    verdict = made.run_until()
    assert verdict.kind == "max-rounds"
    assert "the server is not at its best cap: B/B* = " in verdict.reason
