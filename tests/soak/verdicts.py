"""Markets at random, each verdict judged by brute force, and by no formula of the program."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.learning import LEARNING_RULES, SERVER_RULES
from fcfn_abm.scenario import Scenario

Drawn = dict[str, Any]
MECHANISMS = ("stackelberg",) * 6 + ("ic-mle", "static", "random", "yang", "fair-query", "vcg")
_LEAST_SHARE = 1e-8  # of the largest share: who takes part
_LEADER = 1e-3  # how far a cap may be from B*
_ACTIVE_TIE = 1e-6  # costs so near the threshold may be in or out


def draw_market(chance: np.random.Generator) -> tuple[Drawn, list[float]]:
    """Draw a scenario and the costs of its nodes."""
    rule = str(chance.choice(list(LEARNING_RULES)))
    full = LEARNING_RULES[rule].needs == "full" or chance.random() < 0.5
    mechanism = str(chance.choice(MECHANISMS))
    server = str(chance.choice(list(SERVER_RULES)))
    rho = _draw_costs(chance)
    alpha = 10.0
    if chance.random() < 0.3:  # near the border of no trade, on either side
        cheapest = _equilibrium(np.array(rho), 1.0)
        n = int((cheapest > 0).sum())
        off = float(chance.choice([-1e-2, -1e-4, 1e-4, 1e-2, 0.1]))
        alpha = (1 + off) * n / (10.0 * cheapest.sum())
    average = str(chance.choice(["active", "population", "effective"]))
    game: Drawn = {"alpha": alpha, "average_over": average}
    if server == "fixed" or mechanism != "stackelberg" or chance.random() < 0.2:
        game["budget"] = float(chance.choice([0.5, 3.0, 9.0]))
    rounds = {
        "order": str(chance.choice(["in_turn", "simultaneous"])),
        "turns": str(chance.choice(["random", "fixed"])),
        "participation": float(chance.choice([1.0, 1.0, 0.5, 0.2])),
        "start": str(chance.choice(["random", "cold", "warm"])),
        "maximum": int(chance.choice([60, 400, 1500])),
    }
    if mechanism == "stackelberg" and chance.random() < 0.2:
        rounds["payment"] = "after-reports"
    population: Drawn = {"n_nodes": len(rho)}
    if mechanism == "stackelberg" and chance.random() < 0.1:
        population["churn"] = {"departures": 0.05, "until": int(chance.choice([20, 5000]))}
    tree = {
        "seed": int(chance.integers(2**31)),
        "population": population,
        "game": game,
        "mechanism": mechanism,
        "server": server,
        "learning": rule,
        "rounds": rounds,
        "information": {
            "reports": "full" if full else "aggregate",
            "noise": float(chance.choice([0.0, 0.0, 0.0, 0.05])),
        },
        "exit": {
            "criterion": str(chance.choice(["best-response", "loss"])),
            "patience": int(chance.choice([1, 3])),
            "reentry": bool(chance.random() < 0.7),
        },
    }
    return tree, rho


def _draw_costs(chance: np.random.Generator) -> list[float]:
    n = int(chance.integers(2, 13))
    kind = chance.integers(4)
    if kind == 0:
        costs = chance.uniform(0.5, 1.5, n)
    elif kind == 1:
        costs = np.exp(chance.normal(0, 0.7, n))
    elif kind == 2:  # ties
        costs = chance.choice([1.0, 1.25, 2.0], n)
    else:  # some just at the threshold of the others
        costs = np.ones(max(n, 3))
        costs[-1] = (costs.size - 1) / (costs.size - 2)
        costs[-1] *= float(chance.choice([1.0, 1 - 1e-6, 1 + 1e-6, 0.99]))
    return [float(cost) for cost in costs * float(chance.choice([0.01, 1.0, 50.0]))]


def _equilibrium(rho: np.ndarray, cap: float) -> np.ndarray:
    """Return the nodes' equilibrium: the largest set of cheapest nodes that all gain."""
    order = np.argsort(rho, kind="stable")
    epsilon = np.zeros(rho.size)
    for n in range(rho.size, 1, -1):
        tau = math.fsum(rho[order[:n]])
        if rho[order[n - 1]] * (n - 1) < tau:
            shares = 1 - rho[order[:n]] * (n - 1) / tau
            if shares.min() <= _LEAST_SHARE * shares.max():
                continue  # a cost at the threshold, on this side of it by rounding
            epsilon[order[:n]] = cap * (n - 1) / tau * shares
            break
    return epsilon


def _server_gain(rho: np.ndarray, cap: float, game: Any) -> float:
    """Return what a cap leaves the server, the nodes at equilibrium."""
    epsilon = _equilibrium(rho, cap)
    n = float((epsilon > 0).sum())
    if game.average_over == "population":
        n = rho.size
    elif game.average_over == "effective" and n:
        n = epsilon.sum() ** 2 / (epsilon**2).sum()
    return game.beta * math.log1p(game.alpha * epsilon.sum() / n) - cap if n else -cap


def _search_best_cap(rho: np.ndarray, game: Any) -> tuple[float, float]:
    """Return the best cap and what it leaves, by golden section in ln B."""
    found = minimize_scalar(
        lambda x: -_server_gain(rho, math.exp(x), game),
        bounds=(math.log(1e-9 * game.beta), math.log(game.beta)),
        method="bounded",
        options={"xatol": 1e-10, "maxiter": 2000},
    )
    return (math.exp(found.x), -found.fun) if -found.fun > 0 else (0.0, 0.0)


def _node_regret(rho: np.ndarray, epsilon: np.ndarray, cap: float) -> float:
    """Return the most that a node gains by another report, as a share of the cap, by search."""
    largest = 0.0
    for i, cost in enumerate(rho):
        others = epsilon.sum() - epsilon[i]

        def utility(x: float, cost: float = cost, others: float = others) -> float:
            return cap * x / (x + others) - cost * x if x + others > 0 else 0.0

        now = utility(epsilon[i])
        tried = np.concatenate(([0.0], np.geomspace(1e-7, 1.0, 200) * cap / cost))
        x = tried[np.argmax([utility(x) for x in tried])]
        near = minimize_scalar(
            lambda x: -utility(x),
            bounds=(x / 1.2, x * 1.2 + 1e-12),
            method="bounded",
            options={"xatol": 1e-13 * cap / cost},
        )
        largest = max(largest, utility(x) - now, -near.fun - now)
    return largest / cap


def judge_market(tree: Drawn, rho: list[float]) -> str:
    """Play a market; return its verdict if that is true, and raise AssertionError otherwise."""
    market = PrivacyMarket(Scenario.model_validate(tree), rho=rho)
    verdict = market.run_until()
    assert verdict is not None, "no verdict"
    game, rounds = market.scenario.game, market.scenario.rounds
    present = np.arange(len(market.columns))[market.present]
    costs, epsilon = market.columns.rho[present], market.columns.epsilon[present]
    cap, pool = market.budget, market.pool
    contest = tree["mechanism"] == "stackelberg"
    chooses = contest and tree["server"] != "fixed"
    best, gain = _search_best_cap(costs, game) if costs.size > 1 else (0.0, 0.0)
    active = epsilon > _LEAST_SHARE * epsilon.max(initial=0.0)
    table = market.datacollector.get_model_vars_dataframe()
    said = verdict.reason

    assert market.n_active == active.sum(), "nodes are counted in another way"
    # utility is flat at the top: a search knows the cap to the root of its precision
    fine = 1e-4 if best > 0.01 else 2e-2
    if best > 1e-3 * game.beta:
        assert verdict.budget_ratio is not None, "B/B* is missing"
        assert abs(verdict.budget_ratio * best - cap) <= fine * best + 1e-9, "B/B* is wrong"
        regret = gain - _server_gain(costs, cap, game)
        assert abs(verdict.server_regret - regret) <= 1e-7 * game.beta, "the regret is wrong"

    if verdict.kind == "converged":
        assert active.any(), "converged, and nobody takes part"
        if contest:
            assert _node_regret(costs, epsilon, pool) <= 1e-6, "a node gains by another report"
            form = _equilibrium(costs, pool)
            tau = costs[form > 0].sum()
            threshold = tau / ((form > 0).sum() - 1)
            clear = np.abs(costs / threshold - 1) > _ACTIVE_TIE
            assert ((form > 0) == active)[clear].all(), "another active set"
        if chooses and best > 1e-3 * game.beta:
            assert abs(cap / best - 1) <= _LEADER + fine, "converged off B*"
            assert "B/B* = " in said, "B/B* is not said"
    elif verdict.kind == "no-trade":
        assert epsilon.sum() == 0 or "nobody takes part" in said, "no trade, and some is"
        if "no payment cap pays" in said:
            assert best == 0, "a cap pays, and it is said that none does"
        if "given up" in said:
            assert best > 0, "given up for nothing, though no cap pays"
            assert cap == 0, "given up, with a cap"
        if "cap of the scenario is zero" in said:
            assert game.budget == 0, "the cap is not zero"
    else:
        assert verdict.rounds == rounds.maximum, f"{verdict.kind} before the last round"
        assert not _rests(market, table, costs, epsilon, best, chooses), f"{said} It does rest."
        if verdict.kind in ("cycling", "diverged"):
            late = table["distance"].to_numpy()[-len(table) // 4 :]
            assert late.max() > rounds.tolerance, "it is at the equilibrium"
            assert market.scenario.information.noise == 0, "noise alone may keep it moving"
        assert ("at random" in said) <= LEARNING_RULES[tree["learning"]].explores, said
        assert ("keeps trying caps" in said) <= SERVER_RULES[tree["server"]].searches, said
        if "not at its best cap" in said:
            assert abs(cap - best) > 0.9 * _LEADER * best - fine * best, "its cap is the best"
        if "not at an equilibrium" in said and contest:
            assert _node_regret(costs, epsilon, pool) > 0.5 * rounds.tolerance, "it is one"
    return verdict.kind


def _rests(
    market: PrivacyMarket,
    table: Any,
    costs: np.ndarray,
    epsilon: np.ndarray,
    best: float,
    chooses: bool,
) -> bool:
    """Return whether nothing has moved for long, nobody gains by moving, and the cap is B*."""
    rounds = market.scenario.rounds
    calm = 4 * math.ceil(rounds.patience / rounds.participation)
    if len(table) <= calm or market.churn is not None or not epsilon.any():
        return False
    if table["change"].to_numpy()[-calm:].max() > 0 or table["budget"][-calm:].nunique() > 1:
        return False
    if chooses and abs(market.budget - best) > 0.5 * _LEADER * best:
        return False
    contest = market.scenario.mechanism.kind == "stackelberg"
    return contest and _node_regret(costs, epsilon, market.pool) < 1e-12


def campaign(n: int, seed: int) -> Counter[str]:
    """Judge ``n`` markets; raise at the first whose verdict is not true."""
    chance, counts = np.random.default_rng(seed), Counter[str]()
    for index in range(n):
        tree, rho = draw_market(chance)
        try:
            counts[judge_market(tree, rho)] += 1
        except AssertionError as error:
            shown = json.dumps(tree)
            raise AssertionError(
                f"market {index} of seed {seed}: {error} {shown} rho={rho}"
            ) from error
    return counts
