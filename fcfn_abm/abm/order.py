"""The order of moves, which is part of the model: the two ways lead to different games."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import NEVER, Floats
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
        rows = stream(market.seed, "order-of-moves", market.round_index).permutation(rows)
    if rows.size >= MANY:
        from fcfn_abm.abm import compiled  # loads numba, which takes a while

        if compiled.plays(market.rule):
            compiled.moves_in_turn(market, rows)
            return
        if _order_is_idle(market):
            _answer(market, _who_answers(market, np.sort(rows)))
            return
    for row in rows.tolist():
        respond(market, row)


def simultaneous(market: PrivacyMarket) -> None:
    """All nodes answer the last round's reports at once."""
    plain = market.pool > 0 and market.bulletin.factor is None
    if plain and len(market.nodes) >= MANY and isinstance(market.rule, BestResponse):
        from fcfn_abm.abm.compiled import best_responses_at_once

        best_responses_at_once(market, market.movers)
    else:
        _answer(market, market.movers)


def _order_is_idle(market: PrivacyMarket) -> bool:
    """Whether the moves of a round do not depend on each other."""
    shown = market.bulletin
    recounted = shown.full or shown.factor is None
    return (
        not market.rule.watches_total()
        and market.scenario.exit.criterion == "best-response"
        and recounted
    )


def _who_answers(market: PrivacyMarket, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return those rows that are in the market, or come back now."""
    out = market.columns.exited[rows]
    if not market.scenario.exit.reentry:
        return rows[~out]
    return rows[~out | (market.rule.planned(_seen(market, rows)) > 0)]


def _answer(market: PrivacyMarket, rows: Rows) -> None:
    """Let nodes answer what stands, and none see another's move."""
    columns, settings = market.columns, market.scenario.exit
    seen = _seen(market, rows)
    epsilon = seen.epsilon
    pays = market.rule.planned(seen) > 0
    if settings.reentry:
        columns.exit_round[rows] = np.where(pays, NEVER, columns.exit_round[rows])
    reason = ~pays
    if settings.criterion == "loss":
        reason = (epsilon > 0) & (seen.budget < seen.rho * (seen.others + epsilon))
    columns.idle_rounds[rows] = np.where(reason, columns.idle_rounds[rows] + 1, 0)
    chosen = market.rule.next_epsilon(seen, market.rng)
    columns.epsilon[rows] = np.where(columns.exited[rows], 0.0, chosen)


def _seen(market: PrivacyMarket, rows: Rows) -> Observation[Floats]:
    """Return what nodes see of the reports that stand."""
    columns = market.columns
    epsilon = columns.epsilon[rows]
    return Observation(
        columns.rho[rows],
        epsilon,
        market.bulletin.others(epsilon, rows),
        market.pool,
        market.n_active,
        market.scenario.game.epsilon_floor,
        rows,
        columns.memory,
    )


def movers(market: PrivacyMarket) -> Rows:
    """Draw who of those present moves in this round; at least one does."""
    share = market.scenario.rounds.participation
    if share == 1:
        return market.present
    rows = np.arange(len(market.columns))[market.present]
    chance = stream(market.seed, "movers", market.round_index)
    n_movers = min(max(1, round(share * rows.size)), rows.size)
    return rows[np.sort(chance.choice(rows.size, n_movers, replace=False, shuffle=False))]


ORDERS: dict[str, Callable[[PrivacyMarket], None]] = {
    "in_turn": in_turn,
    "simultaneous": simultaneous,
}
