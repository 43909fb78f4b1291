"""The order of moves, which is part of the model: the two ways lead to different games."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.abm.exits import reenter_one, update_exits
from fcfn_abm.abm.round import Round
from fcfn_abm.learning import Observation
from fcfn_abm.learning.base import Rows, scalar_moves, watches_total
from fcfn_abm.rng import stream

MANY = 500
"""From so many moves a round on, loading compiled code pays."""


def move_in_turn(played: Round) -> None:
    """Each node sees the running total of all moves before its own."""
    rows = np.arange(len(played.columns))[played.movers]
    if played.turns == "random":
        rows = stream(played.seed, "order-of-moves", played.index).permutation(rows)
    if rows.size >= MANY:
        if moves := scalar_moves(played.rule, played.n_active):
            from fcfn_abm.abm import compiled  # loads numba, which takes a while

            compiled.move_in_turn(played, moves, rows)
            return
        if _order_is_idle(played):
            _move_together(played, _select_answering(played, np.sort(rows)))
            return
    for row in rows.tolist():
        respond(played, row)


def move_at_once(played: Round) -> None:
    """All nodes answer the last round's reports at once."""
    moves = scalar_moves(played.rule, played.n_active)
    exact = played.pool > 0 and played.bulletin.factor is None
    if moves and exact and len(played.columns) >= MANY:
        from fcfn_abm.abm import compiled

        compiled.move_at_once(played, moves)
    else:
        _move_together(played, played.movers)


def respond(played: Round, row: int) -> None:
    """Let the node of a row see the running total, and choose the epsilon of this round."""
    columns, settings = played.columns, played.exit
    if not columns.present.item(row):
        return
    rho, own = columns.rho.item(row), columns.epsilon.item(row)
    others = played.bulletin.others(own, row)
    seen = Observation(
        rho,
        own,
        others,
        played.pool,
        played.n_active,
        played.epsilon_floor,
        row,
        columns.memory,
    )
    planned = played.rule.planned(seen)
    exit_round = reenter_one(planned, columns.exit_round.item(row), settings.reentry)
    if exit_round != NEVER:
        return
    columns.exit_round[row] = exit_round
    reason = played.rule.loses(seen) if settings.criterion == "loss" else not planned > 0
    columns.idle_rounds[row] = columns.idle_rounds.item(row) + 1 if reason else 0
    columns.epsilon[row] = epsilon = played.rule.next_epsilon(seen, played.rng)
    played.bulletin.move(row, own, epsilon)


def _order_is_idle(played: Round) -> bool:
    """Whether the moves of a round do not depend on each other."""
    shown = played.bulletin
    recounted = shown.full or shown.factor is None
    return not watches_total(played.rule) and played.exit.criterion == "best-response" and recounted


def _select_answering(played: Round, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return those rows that are in the market, or come back now."""
    out = played.columns.exited[rows]
    if not played.exit.reentry:
        return rows[~out]
    return rows[~out | (played.rule.planned(_observe(played, rows)) > 0)]


def _move_together(played: Round, rows: Rows) -> None:
    """Let nodes answer what stands, and none see another's move."""
    columns = played.columns
    seen = _observe(played, rows)
    taking_part = update_exits(columns, played.rule, played.rule.planned(seen), seen, played.exit)
    epsilon = played.rule.next_epsilon(seen, played.rng)
    columns.epsilon[rows] = np.where(taking_part, epsilon, 0.0)


def _observe(played: Round, rows: Rows) -> Observation[Floats]:
    """Return what nodes see of the reports that stand."""
    columns = played.columns
    epsilon = columns.epsilon[rows]
    return Observation(
        columns.rho[rows],
        epsilon,
        played.bulletin.others(epsilon, rows),
        played.pool,
        played.n_active,
        played.epsilon_floor,
        rows,
        columns.memory,
    )


def draw_movers(present: Rows, n_rows: int, share: float, seed: int, round_index: int) -> Rows:
    """Draw who of those present moves in a round; at least one does."""
    if share == 1:
        return present
    rows = np.arange(n_rows)[present]
    chance = stream(seed, "movers", round_index)
    n_movers = min(max(1, round(share * rows.size)), rows.size)
    return rows[np.sort(chance.choice(rows.size, n_movers, replace=False, shuffle=False))]


ORDERS: dict[str, Callable[[Round], None]] = {
    "in_turn": move_in_turn,
    "simultaneous": move_at_once,
}
