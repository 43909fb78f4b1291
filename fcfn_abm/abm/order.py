"""The order of moves, which is part of the model: the two orders define different games."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.abm.exits import reenter_one, update_exits
from fcfn_abm.abm.groups import NodeGroup, find_group
from fcfn_abm.abm.round import Round
from fcfn_abm.abm.turns import shuffle
from fcfn_abm.errors import InvalidGameError, abbreviate
from fcfn_abm.learning import Observation, ScalarMoves
from fcfn_abm.learning.base import Rows, scalar_moves, watches_total
from fcfn_abm.rng import stream

MANY = 500
"""Number of moves per round from which loading compiled code pays off."""


def move_in_turn(played: Round) -> None:
    """Move nodes one after another; each sees the running total of all moves before its own."""
    rows = np.arange(len(played.columns))[played.movers]
    forms = [_form_of(played, group) for group in played.groups]
    decide = [_is_decided_before(played, group) for group in played.groups]
    limited = played.epsilon_left is not None
    if limited or rows.size < MANY or not (any(forms) or any(decide)):
        _move_one_by_one(played, _draw_order(played, rows))
    elif not any(forms) and all(decide) and not played.agents:
        for group in played.groups:  # the order of groups does not matter
            own = _select_answering(played, group, group.among(rows))
            played.columns.epsilon[own] = _decide(played, group, own)
    else:
        _move_in_stretches(played, _draw_order(played, rows), forms)


def _draw_order(played: Round, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return rows in the order in which they move."""
    if played.turns is None:
        return rows
    numbers = played.turns.draw(played.index)[0]
    if rows.size < MANY:
        order = rows.tolist()
        shuffle(rows.tolist(), numbers.tolist(), order)
        return np.array(order, dtype=np.intp)
    from fcfn_abm.abm import compiled

    shuffled = np.empty_like(rows)
    compiled.shuffle_many(rows, numbers, shuffled)
    return shuffled


def _move_one_by_one(played: Round, rows: npt.NDArray[np.intp]) -> None:
    for row in rows.tolist():
        if agent := played.agents.get(row):
            agent.respond()
        else:
            respond(played, row)


def _move_in_stretches(
    played: Round, rows: npt.NDArray[np.intp], forms: Sequence[ScalarMoves | None]
) -> None:
    """Move by compiled loops, between the nodes that have to move one by one."""
    from fcfn_abm.abm import compiled  # loads numba, which is slow

    alone = np.zeros(len(played.columns), dtype=bool)
    alone[list(played.agents)] = True
    decided = {}
    for index, (group, form) in enumerate(zip(played.groups, forms, strict=True)):
        if form is None and _is_decided_before(played, group):
            own = group.among(np.sort(rows))
            own = _select_answering(played, group, own[~alone[own]])
            decided[index] = own, _decide(played, group, own)
        elif form is None:
            alone[group.rows] = True
    loop = compiled.TurnLoop(played, forms, decided)
    start = 0
    for place in np.flatnonzero(alone[rows]).tolist():
        loop.move(rows[start:place])
        _move_one_by_one(played, rows[place : place + 1])
        start = place + 1
    loop.move(rows[start:])


def move_at_once(played: Round) -> None:
    """Move all nodes at once, in answer to the last round's reports."""
    exact = played.pool > 0 and played.bulletin.factor is None
    limited = played.epsilon_left is not None
    acting, total = played.select_acting(played.movers), played.bulletin.total
    for group in played.groups:
        rows = group.among(played.movers)
        if acting:
            rows = np.setdiff1d(np.arange(len(played.columns))[rows], acting)
        moves = _form_of(played, group)
        if moves and exact and not limited and len(played.columns) >= MANY:
            from fcfn_abm.abm import compiled

            compiled.move_at_once(played, group, moves, rows)
        else:
            played.columns.epsilon[rows] = _decide(played, group, rows)
    for row in acting:
        played.agents[row].respond()
        played.bulletin.total = total  # no node sees another's move


def _form_of(played: Round, group: NodeGroup) -> ScalarMoves | None:
    """Return a group's rule for compiled play, which supports the paper's costs only."""
    return None if played.terms else scalar_moves(group.rule, played.n_active)


def respond(played: Round, row: int) -> None:
    """Show the running total to the node of a row, and choose its epsilon of this round."""
    columns, group = played.columns, find_group(played.groups, row)
    rule, settings = group.rule, group.exit
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
        group.memory,
        played.terms,
        played.caps.item(row) if played.terms else None,
    )
    planned = rule.plan(seen)
    exit_round = reenter_one(planned, columns.exit_round.item(row), settings.reentry)
    if exit_round != NEVER:
        return
    columns.exit_round[row] = exit_round
    reason = rule.loses(seen) if settings.criterion == "loss" else not planned > 0
    columns.idle_rounds[row] = columns.idle_rounds.item(row) + 1 if reason else 0
    agent = played.agents.get(row)
    if agent:
        report(played, row, agent.choose_epsilon(seen))
        return
    epsilon = rule.next_epsilon(seen, played.rng)
    if played.terms:
        epsilon = played.admit(np.array([epsilon]), slice(row, row + 1)).item()
    if played.epsilon_left is not None:
        epsilon = min(epsilon, played.epsilon_left.item(row))
    columns.epsilon[row] = epsilon
    played.bulletin.move(row, own, epsilon)


def report(played: Round, row: int, epsilon: float) -> None:
    """Report an epsilon that user code has chosen for the node of a row."""
    try:
        epsilon = float(epsilon)
    except (TypeError, ValueError):
        raise _bad_report(played, row, epsilon) from None
    if not 0 <= epsilon < math.inf:
        raise _bad_report(played, row, epsilon)
    if played.admit(np.array([epsilon]), slice(row, row + 1)).item() != epsilon:
        raise InvalidGameError(
            f"a report must be zero, or between the reserve and epsilon_max of its node, but "
            f"node {row} ({type(played.agents[row]).__name__}) reports {epsilon:g} in round "
            f"{played.index}."
        )
    if played.epsilon_left is not None:
        epsilon = min(epsilon, played.epsilon_left.item(row))
    before = played.columns.epsilon.item(row)
    played.columns.epsilon[row] = epsilon
    played.bulletin.move(row, before, epsilon)


def _bad_report(played: Round, row: int, epsilon: object) -> InvalidGameError:
    return InvalidGameError(
        f"an epsilon must be a finite number, zero or more, but node {row} "
        f"({type(played.agents[row]).__name__}) reports {abbreviate(epsilon)} in round "
        f"{played.index}."
    )


def _is_decided_before(played: Round, group: NodeGroup) -> bool:
    """Whether the moves of a group are independent of the other moves of the round."""
    shown = played.bulletin
    recounted = shown.full or shown.factor is None
    idle = not watches_total(group.rule) and group.exit.criterion == "best-response"
    return idle and recounted


def _select_answering(
    played: Round, group: NodeGroup, rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Return those rows of a group that are in the market, or return to it now."""
    out = played.columns.exited[rows]
    if not group.exit.reentry:
        return rows[~out]
    return rows[~out | (group.rule.plan(_observe(played, group, rows)) > 0)]


def _decide(played: Round, group: NodeGroup, rows: Rows) -> Floats:
    """Return the answers of a group's nodes to the current reports, without seeing other moves."""
    seen = _observe(played, group, rows)
    taking_part = update_exits(played.columns, group, group.rule.plan(seen), seen)
    epsilon = played.admit(group.rule.next_epsilon(seen, played.rng), rows)
    if played.epsilon_left is not None:
        epsilon = np.minimum(epsilon, played.epsilon_left[rows])
    return np.where(taking_part, epsilon, 0.0)


def _observe(played: Round, group: NodeGroup, rows: Rows) -> Observation[Floats]:
    """Return what nodes of a group observe of the current reports."""
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
        group.memory,
        played.terms,
        played.caps[rows] if played.terms else None,
    )


def draw_movers(present: Rows, n_rows: int, share: float, seed: int, round_index: int) -> Rows:
    """Draw which of the present nodes move in a round; at least one does."""
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
