"""What is measured at the end of a round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fcfn_abm.abm import order
from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.contracts import TakeOrLeave
from fcfn_abm.game import averaged_nodes, best_budget, exploitability, server_utility
from fcfn_abm.mechanisms import Contest

if TYPE_CHECKING:
    from fcfn_abm.abm.market import PrivacyMarket


@dataclass(frozen=True)
class RoundState:
    """What is measured at the end of a round."""

    round: int
    """Number of the round, from 1."""
    budget: float
    """Announced payment cap B, in currency."""
    total_epsilon: float
    """S, the sum of all reports."""
    mean_epsilon: float
    """eps_g, over the nodes that ``game.average_over`` names."""
    n_active: int
    """Nodes that reported more than zero."""
    n_exited: int
    """Nodes that have left."""
    payment: float
    """What the server paid, in currency."""
    node_utility: float
    """Sum of the nodes' utilities, in currency."""
    server_utility: float
    """Utility of the server, in currency."""
    welfare: float
    """Utilities of all together, a middleman's included, in currency."""
    exploitability: float
    """Largest gain of a node from moving alone, as a share of B."""
    change: float
    """Largest change of an epsilon since the last round, as a share of the largest epsilon."""
    distance: float
    """Largest distance of an epsilon to the closed form at this B (without a contest: to the
    contracts), as a share of its largest."""


@dataclass(frozen=True)
class ChurnState(RoundState):
    """The same where nodes come and go: who is there, and where they should be."""

    n_present: int
    """Nodes that are there."""
    n_arrived: int
    """Nodes that arrived in this round."""
    n_departed: int
    """Nodes that went away for good in this round."""
    equilibrium_budget: float
    """B* of those that are there (41), in currency."""
    equilibrium_n_active: int
    """How many of them take part in closed form, under any cap."""
    equilibrium_total_epsilon: float
    """S of their closed form at this round's B."""


def state_of(market: PrivacyMarket, epsilon_before: Floats) -> RoundState:
    """Measure a round that has been played and paid.

    Parameters
    ----------
    market : PrivacyMarket
        At the end of the round.
    epsilon_before : ndarray of float, shape (n,)
        Reports of the last round.
    """
    columns, game, n_nodes = market.columns, market.scenario.game, market.primitives.rho.size
    n_averaged = averaged_nodes(game.average_over, market.n_active, n_nodes)
    mean_epsilon = market.total_epsilon / n_averaged if n_averaged else 0.0
    paid = market.server.paid
    server = server_utility(mean_epsilon, game.alpha, game.beta, paid)
    nodes = float(columns.utility.sum())
    exploitable, change, distance = _measures(market, epsilon_before)
    state = RoundState(
        round=market.round_index,
        budget=market.budget,
        total_epsilon=market.total_epsilon,
        mean_epsilon=mean_epsilon,
        n_active=market.n_active,
        n_exited=int(np.count_nonzero(columns.exited)),
        payment=paid,
        node_utility=nodes,
        server_utility=server,
        welfare=server + nodes + (paid - float(columns.payment.sum())),
        exploitability=exploitable,
        change=change,
        distance=distance,
    )
    if market.churn is None:
        return state
    form = market.contest
    n_averaged = averaged_nodes(game.average_over, form.n_active, n_nodes)
    return ChurnState(
        **vars(state),
        n_present=n_nodes,
        n_arrived=market.churn.arrived.size,
        n_departed=market.churn.departed.size,
        equilibrium_budget=best_budget(form.tau, form.n_active, n_averaged, game.alpha, game.beta),
        equilibrium_n_active=form.n_active,
        equilibrium_total_epsilon=market.pool * form.total_epsilon,
    )


def _measures(market: PrivacyMarket, epsilon_before: Floats) -> tuple[float, float, float]:
    """Return exploitability, change and distance, over the nodes that are there."""
    rows, pool, floor = market.present, market.pool, market.scenario.game.epsilon_floor
    epsilon, before = market.columns.epsilon[rows], epsilon_before[rows]
    rho = market.primitives.rho
    if isinstance(market.offer, Contest) and epsilon.size >= order.MANY and pool > 0:
        from fcfn_abm.abm.compiled import measures  # loads numba

        seen = measures(epsilon, before, market.contest.epsilon, rho, pool, floor)
        return (
            seen.exploitability,
            ratio(seen.change, seen.largest_before),
            ratio(seen.distance, seen.largest_target),
        )
    if isinstance(market.rule, TakeOrLeave):
        gain = market.rule.regret(rho, epsilon, market.budget)
    else:
        gain = exploitability(epsilon, rho, pool, floor)
    target = market.target
    return (
        gain,
        ratio(_largest(epsilon - before), _largest(before)),
        ratio(_largest(epsilon - target), _largest(target)),
    )


def ratio(size: float, scale: float) -> float:
    """Return size / scale, where a scale of zero makes any size infinite."""
    return size / scale if scale > 0 else (float("inf") if size > 0 else 0.0)


def _largest(values: Floats) -> float:
    return float(np.abs(values).max(initial=0.0))
