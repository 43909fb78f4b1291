"""The order of moves, which is part of the model: the two ways lead to different games."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fcfn_abm.abm.columns import NEVER
from fcfn_abm.learning import Observation
from fcfn_abm.rng import stream

if TYPE_CHECKING:
    from fcfn_abm.abm.market import PrivacyMarket


def in_turn(market: PrivacyMarket) -> None:
    """Each node sees the running total of all moves before its own."""
    rows = np.arange(len(market.nodes))
    if market.scenario.rounds.turns == "random":
        rows = stream(market.scenario.seed, "game", market.round_index).permutation(rows)
    for row in rows.tolist():
        market.nodes[row].respond()


def simultaneous(market: PrivacyMarket) -> None:
    """All nodes answer the last round's reports at once."""
    columns = market.columns
    seen = Observation(
        columns.rho,
        columns.epsilon,
        np.maximum(market.total_epsilon - columns.epsilon, 0.0),
        market.budget,
        market.n_active,
        market.scenario.game.epsilon_floor,
        memory=columns.memory,
    )
    pays = seen.best_response > 0
    if market.scenario.exit.reentry:
        columns.exit_round[pays] = NEVER
    columns.idle_rounds = np.where(pays, 0, columns.idle_rounds + 1)
    chosen = market.rule.next_epsilon(seen, market.rng)
    columns.epsilon = np.where(columns.exited, 0.0, chosen)
    market.total_epsilon = float(columns.epsilon.sum())


ORDERS: dict[str, Callable[[PrivacyMarket], None]] = {
    "in_turn": in_turn,
    "simultaneous": simultaneous,
}
