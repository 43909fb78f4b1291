"""Moves and measurements as compiled loops over columns, bitwise equal to single agents.

The loops of `fcfn_abm.abm.order` and `fcfn_abm.game.exploitability` are repeated here for numba. A
learning rule takes part through its `ScalarMoves`; for each pair of functions the loops are
compiled once and cached on disk. Tests compare the results bit by bit with single agents. With
``NUMBA_DISABLE_JIT=1`` the same code runs in plain Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.bulletin import Bulletin
from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.abm.exits import count_idle_one, reenter_one
from fcfn_abm.abm.groups import NodeGroup
from fcfn_abm.abm.round import Round
from fcfn_abm.abm.touch import AHEAD, FAR, touch
from fcfn_abm.abm.turns import shuffle
from fcfn_abm.game.best_response import reply_one
from fcfn_abm.jit import compile_loop, inline
from fcfn_abm.learning import ScalarMoves
from fcfn_abm.learning.base import Rows

type Kind = tuple[Callable[..., Any], Callable[..., Any], bool]
"""How a rule plans, how it steps, and whether it has memory."""
type Kinds = tuple[Kind, ...]
"""One kind per group."""

_EXACT, _NOISY_REPORTS, _NOISY_TOTAL = range(3)
NOTHING = np.ones(0)


for _scalar in (reply_one, reenter_one, count_idle_one):
    inline(_scalar)


class TurnLoop:
    """Moves nodes one after another; each sees the moves before its own.

    Parameters
    ----------
    played : Round
        Its columns and bulletin are changed.
    forms : sequence of ScalarMoves or None
        Compiled rule of each group; None if the rule has no compiled form.
    decided : mapping
        Maps the number of a group to rows and their next epsilon, for rules that do not depend on
        the moves of the round; these values are used as given.
    """

    def __init__(
        self,
        played: Round,
        forms: Sequence[ScalarMoves | None],
        decided: Mapping[int, tuple[Rows, Floats]],
    ) -> None:
        self._columns, self._shown = played.columns, played.bulletin
        memories, kinds, parameters = [], [], []
        for index, (group, form) in enumerate(zip(played.groups, forms, strict=True)):
            if form is None:  # decided in advance, or moved by its agents
                kept = np.zeros(len(played.columns))
                if index in decided:
                    rows, epsilon = decided[index]
                    kept[rows] = epsilon
                form = _DECIDED
            else:
                kept = group.memory[form.memory] if form.memory else NOTHING
            memories.append(kept)
            kinds.append(kind_of(form))
            parameters.append(form.parameters)
        exits = [group.exit for group in played.groups]
        self._loop = _compile_in_turn(tuple(kinds))
        self._settings = (
            tuple(memories),
            tuple(parameters),
            np.array([group.rows.stop for group in played.groups]),
            np.array([form is None for form in forms]),
            np.array([settings.reentry for settings in exits]),
            np.array([settings.criterion == "loss" for settings in exits]),
            played.pool,
            played.epsilon_floor,
        )

    def move(self, rows: npt.NDArray[np.intp]) -> None:
        """Move the nodes of some rows, in this order."""
        columns, shown = self._columns, self._shown
        shown.total = self._loop(
            rows,
            columns.rho,
            columns.epsilon,
            columns.idle_rounds,
            columns.exit_round,
            NOTHING if shown.factor is None else shown.factor,
            _view(shown),
            shown.total,
            *self._settings,
        )


def move_at_once(played: Round, group: NodeGroup, moves: ScalarMoves, rows: Rows) -> None:
    """Move nodes at once, in answer to the exact reports of the last round.

    Parameters
    ----------
    played : Round
        Its columns are changed.
    group : NodeGroup
        Group of the nodes.
    moves : ScalarMoves
        Rule of the group.
    rows : slice or ndarray of int
        Rows of the nodes that move.
    """
    columns = played.columns
    held = [columns.epsilon, columns.idle_rounds, columns.exit_round]
    if moves.memory:
        held.append(group.memory[moves.memory])
    moving = [column[rows] for column in held]  # views, if the whole group moves
    _compile_at_once(kind_of(moves))(
        columns.rho[rows],
        *moving[:3],
        moving[3] if moves.memory else NOTHING,
        played.bulletin.total,
        played.pool,
        played.epsilon_floor,
        moves.parameters,
        group.exit.reentry,
        group.exit.criterion == "loss",
    )
    if not isinstance(rows, slice):
        for column, moved in zip(held, moving, strict=True):
            column[rows] = moved


def kind_of(form: ScalarMoves) -> Kind:
    """Return what distinguishes the loops of one rule from those of another."""
    return form.plan, form.step, form.memory is not None


def stamp_of(kinds: Kinds) -> int:
    """Return a number that changes with the source files of the functions in loops."""
    scalars = [function for kind in kinds for function in kind[:2]]
    return stamp_files(*scalars, reply_one, reenter_one, count_idle_one)


shuffle_many = compile_loop(shuffle)
"""`fcfn_abm.abm.turns.shuffle` for arrays."""


def _view(shown: Bulletin) -> int:
    if shown.factor is None:
        return _EXACT
    return _NOISY_REPORTS if shown.full else _NOISY_TOTAL


def stamp_files(*functions: Any) -> int:
    """Return a number that changes with functions' source files; numba checks only this file."""
    files = sorted({Path(function.__code__.co_filename) for function in functions})
    stats = [file.stat() for file in files if file.exists()]
    return hash(tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


def _take_decision(rho, others, own, planned, pool, epsilon_floor, parameters, decided):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Return the epsilon that was decided before the round."""
    return decided, decided


_DECIDED = ScalarMoves(_take_decision, memory="decided")


def _plan_of(kinds: Kinds, index: int = 0) -> Any:
    """Return the plan of the group with a given number, for groups from ``index`` on."""
    own = inline(kinds[index][0])
    if index == len(kinds) - 1:

        def plan(group, cost, others, own_epsilon, pool, floor):  # type: ignore[no-untyped-def]  # noqa: ARG001
            return own(cost, others, own_epsilon, pool, floor)
    else:
        later = _plan_of(kinds, index + 1)

        def plan(group, cost, others, own_epsilon, pool, floor):  # type: ignore[no-untyped-def]
            if group == index:
                return own(cost, others, own_epsilon, pool, floor)
            return later(group, cost, others, own_epsilon, pool, floor)

    return inline(plan)


def _step_of(kinds: Kinds, index: int = 0) -> Any:
    """Return the step of the group with a given number, for groups from ``index`` on."""
    own: Any = inline(kinds[index][1])
    remembers = kinds[index][2]

    def step(group, row, cost, others, now, planned, pool, floor, parameters, memories):  # type: ignore[no-untyped-def]  # noqa: ARG001
        kept = memories[index][row] if remembers else 0.0
        new, kept = own(cost, others, now, planned, pool, floor, parameters[index], kept)
        if remembers:
            memories[index][row] = kept
        return new

    if index == len(kinds) - 1:
        return inline(step)
    first: Any = inline(step)
    later = _step_of(kinds, index + 1)

    def choose(group, row, cost, others, now, planned, pool, floor, parameters, memories):  # type: ignore[no-untyped-def]
        if group == index:
            return first(group, row, cost, others, now, planned, pool, floor, parameters, memories)
        return later(group, row, cost, others, now, planned, pool, floor, parameters, memories)

    return inline(choose)


@cache
def _compile_in_turn(kinds: Kinds) -> Any:
    return compile_loop(in_turn_of(kinds))


@cache
def in_turn_of(kinds: Kinds) -> Any:
    """Return the loop for moves in turn, for the rules of a market's groups."""
    plan, step = _plan_of(kinds), _step_of(kinds)
    several = len(kinds) > 1
    remembers = not several and kinds[0][2]
    stamp = stamp_of(kinds)

    def in_turn(  # type: ignore[no-untyped-def]
        rows,
        rho,
        epsilon,
        idle_rounds,
        exit_round,
        factor,
        view,
        total,
        memories,
        parameters,
        ends,
        decided,
        reentry,
        leaves_on_loss,
        pool,
        epsilon_floor,
    ):
        _ = stamp  # part of the cache key
        group, last = 0, rows.size - 1
        far = last >= FAR
        for place in range(rows.size):
            row = rows[place]
            if far:
                later = rows[min(place + AHEAD, last)]
                touch(epsilon, later)
                touch(rho, later)
                touch(exit_round, later)
                touch(idle_rounds, later)
                if remembers:
                    touch(memories[0], later)
            if several:
                group = 0
                while row >= ends[group]:
                    group += 1
            own, cost = epsilon[row], rho[row]
            if view == _EXACT:
                others = max(total - own, 0.0)
            elif view == _NOISY_REPORTS:
                others = max(total - factor[row] * own, 0.0)
            else:
                others = max(factor[row] * total - own, 0.0)
            planned = plan(group, cost, others, own, pool, epsilon_floor)
            if not (several and decided[group]):
                left = exit_round[row] if own == 0 else NEVER  # nodes that left report nothing
                if left != NEVER:
                    if reenter_one(planned, left, reentry[group]) != NEVER:
                        continue
                    exit_round[row] = NEVER
                idle_rounds[row] = count_idle_one(
                    planned, cost, others, own, pool, idle_rounds[row], leaves_on_loss[group]
                )
            new = step(
                group, row, cost, others, own, planned, pool, epsilon_floor, parameters, memories
            )
            epsilon[row] = new
            if view == _NOISY_REPORTS:
                total = max(total - factor[row] * own, 0.0) + factor[row] * new
            else:
                total = max(total - own, 0.0) + new
        return total

    return inline(in_turn)


@cache
def _compile_at_once(kind: Kind) -> Any:
    return compile_loop(at_once_of(kind))


@cache
def at_once_of(kind: Kind) -> Any:
    """Return the loop for simultaneous moves of a rule; processors vectorize it."""
    plan, step, remembers = kind
    inline(plan)
    inline(step)
    stamp = stamp_of((kind,))

    def at_once(  # type: ignore[no-untyped-def]
        rho,
        epsilon,
        idle_rounds,
        exit_round,
        memory,
        total,
        pool,
        epsilon_floor,
        parameters,
        reentry,
        leaves_on_loss,
    ):
        _ = stamp  # part of the cache key
        for row in range(rho.size):
            own, cost = epsilon[row], rho[row]
            others = max(total - own, 0.0)
            planned = plan(cost, others, own, pool, epsilon_floor)
            kept = memory[row] if remembers else 0.0
            new, kept = step(cost, others, own, planned, pool, epsilon_floor, parameters, kept)
            if remembers:
                memory[row] = kept
            left = reenter_one(planned, exit_round[row], reentry)
            exit_round[row] = left
            idle_rounds[row] = count_idle_one(
                planned, cost, others, own, pool, idle_rounds[row], leaves_on_loss
            )
            epsilon[row] = new if left == NEVER else 0.0

    return inline(at_once)
