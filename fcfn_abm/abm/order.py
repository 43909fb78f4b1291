"""The order of moves, which is part of the model: the two ways lead to different games."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fcfn_abm.abm.columns import NEVER
from fcfn_abm.abm.node import respond
from fcfn_abm.learning import Observation
from fcfn_abm.learning.best_response import BestResponse
from fcfn_abm.rng import stream

if TYPE_CHECKING:
    from fcfn_abm.abm.market import PrivacyMarket
    from fcfn_abm.learning.base import Rows

MANY = 500
"""From so many moves a round on, loading compiled code pays."""


def in_turn(market: PrivacyMarket) -> None:
    """Each node sees the running total of all moves before its own."""
    rows = np.arange(len(market.nodes))[market.movers]
    if market.scenario.rounds.turns == "random":
        rows = stream(market.seed, "game", market.round_index).permutation(rows)
    if rows.size >= MANY and isinstance(market.rule, BestResponse):
        from fcfn_abm.abm.sweep import best_responses  # loads numba, which takes a while

        best_responses(market, rows, in_turn=True)
        return
    for row in rows.tolist():
        respond(market, row)


def simultaneous(market: PrivacyMarket) -> None:
    """All nodes answer the last round's reports at once."""
    if len(market.nodes) >= MANY and isinstance(market.rule, BestResponse):
        from fcfn_abm.abm.sweep import best_responses

        best_responses(market, np.arange(len(market.nodes))[market.movers], in_turn=False)
        return
    columns, settings = market.columns, market.scenario.exit
    rows = market.movers
    epsilon = columns.epsilon[rows]
    seen = Observation(
        columns.rho[rows],
        epsilon,
        market.bulletin.others(epsilon, rows),
        market.pool,
        market.n_active,
        market.scenario.game.epsilon_floor,
        rows,
        columns.memory,
    )
    pays = market.rule.planned(seen) > 0
    if settings.reentry:
        columns.exit_round[rows] = np.where(pays, NEVER, columns.exit_round[rows])
    reason = ~pays
    if settings.criterion == "loss":
        reason = (epsilon > 0) & (seen.budget < seen.rho * (seen.others + epsilon))
    columns.idle_rounds[rows] = np.where(reason, columns.idle_rounds[rows] + 1, 0)
    chosen = market.rule.next_epsilon(seen, market.rng)
    columns.epsilon[rows] = np.where(columns.exited[rows], 0.0, chosen)


def movers(market: PrivacyMarket) -> Rows:
    """Draw who moves in this round; at least one does."""
    n_nodes, share = len(market.nodes), market.scenario.rounds.participation
    if share == 1:
        return slice(None)
    chance = stream(market.seed, "game", market.round_index, 2)
    n_movers = max(1, round(share * n_nodes))
    return np.sort(chance.choice(n_nodes, n_movers, replace=False, shuffle=False))


ORDERS: dict[str, Callable[[PrivacyMarket], None]] = {
    "in_turn": in_turn,
    "simultaneous": simultaneous,
}
