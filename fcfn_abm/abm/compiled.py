"""Moves and measurements as compiled loops over the columns, with the digits of single agents.

The loops of `fcfn_abm.abm.order`, and what `fcfn_abm.game.exploitability` measures, stand here once
more, for numba. A learning rule takes part by its `ScalarMoves`; for each pair of functions the
loops are compiled once, and kept on disk. Tests hold them to the bits of single agents. With
``NUMBA_DISABLE_JIT=1`` the same code runs in plain Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.extending import register_jitable

from fcfn_abm.abm.bulletin import Bulletin
from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.abm.exits import count_idle_one, reenter_one
from fcfn_abm.abm.round import Round
from fcfn_abm.game.best_response import reply_one
from fcfn_abm.jit import compile_loop
from fcfn_abm.learning import ScalarMoves

_EXACT, _NOISY_REPORTS, _NOISY_TOTAL = range(3)
_NOTHING = np.ones(0)


# plain functions, and not dispatchers: numba's cache on disk knows them again in the next process
_inline = cache(register_jitable)
for _scalar in (reply_one, reenter_one, count_idle_one):
    _inline(_scalar)


def move_in_turn(played: Round, moves: ScalarMoves, rows: npt.NDArray[np.intp]) -> None:
    """Let nodes move one after another, each seeing the moves before its own.

    Parameters
    ----------
    played : Round
        Whose columns and bulletin change.
    moves : ScalarMoves
        Its rule.
    rows : ndarray of int
        Who moves, in this order.
    """
    columns, shown = played.columns, played.bulletin
    loop = _loop(_in_turn_of, moves)
    shown.total = loop(
        rows,
        columns.rho,
        columns.epsilon,
        columns.idle_rounds,
        columns.exit_round,
        columns.memory[moves.memory] if moves.memory else _NOTHING,
        _NOTHING if shown.factor is None else shown.factor,
        _view(shown),
        shown.total,
        *_settings(played, moves),
    )


def move_at_once(played: Round, moves: ScalarMoves) -> None:
    """Let nodes answer the last round's reports, which they see without errors.

    Parameters
    ----------
    played : Round
        Whose movers move.
    moves : ScalarMoves
        Its rule.
    """
    columns, rows = played.columns, played.movers
    held = [columns.epsilon, columns.idle_rounds, columns.exit_round]
    if moves.memory:
        held.append(columns.memory[moves.memory])
    moving = [column[rows] for column in held]  # views, where all move
    loop = _loop(_at_once_of, moves)
    remembered = moving[3] if moves.memory else _NOTHING
    total = played.bulletin.total
    loop(columns.rho[rows], *moving[:3], remembered, total, *_settings(played, moves))
    if not isinstance(rows, slice):
        for column, moved in zip(held, moving, strict=True):
            column[rows] = moved


def _settings(played: Round, moves: ScalarMoves) -> tuple[Any, ...]:
    leaves_on_loss = played.exit.criterion == "loss"
    own = (moves.parameters, played.exit.reentry, leaves_on_loss)
    return (played.pool, played.epsilon_floor, *own)


def _view(shown: Bulletin) -> int:
    if shown.factor is None:
        return _EXACT
    return _NOISY_REPORTS if shown.full else _NOISY_TOTAL


def _loop(factory: Callable[..., Any], moves: ScalarMoves) -> Any:
    return factory(moves.plan, moves.step, moves.memory is not None)


def _stamp(*functions: Any) -> int:
    """Return a number that changes with the files of functions: numba's cache looks at this one."""
    files = sorted({Path(function.__code__.co_filename) for function in functions})
    stats = [file.stat() for file in files if file.exists()]
    return hash(tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


@cache
def _in_turn_of(plan: Any, step: Any, remembers: bool) -> Any:
    """Return the loop of moves in turn for a rule."""
    _inline(plan)
    _inline(step)
    stamp = _stamp(plan, step, reply_one, reenter_one, count_idle_one)

    def in_turn(  # type: ignore[no-untyped-def]
        rows,
        rho,
        epsilon,
        idle_rounds,
        exit_round,
        memory,
        factor,
        view,
        total,
        pool,
        epsilon_floor,
        parameters,
        reentry,
        leaves_on_loss,
    ):
        _ = stamp  # part of the key under which the loop is kept
        for row in rows:
            own, cost = epsilon[row], rho[row]
            left = exit_round[row] if own == 0 else NEVER  # who is out reports nothing
            if view == _EXACT:
                others = max(total - own, 0.0)
            elif view == _NOISY_REPORTS:
                others = max(total - factor[row] * own, 0.0)
            else:
                others = max(factor[row] * total - own, 0.0)
            planned = plan(cost, others, own, pool, epsilon_floor)
            if left != NEVER:
                if reenter_one(planned, left, reentry) != NEVER:
                    continue
                exit_round[row] = NEVER
            idle_rounds[row] = count_idle_one(
                planned, cost, others, own, pool, idle_rounds[row], leaves_on_loss
            )
            kept = memory[row] if remembers else 0.0
            new, kept = step(cost, others, own, planned, pool, epsilon_floor, parameters, kept)
            if remembers:
                memory[row] = kept
            epsilon[row] = new
            if view == _NOISY_REPORTS:
                total = max(total - factor[row] * own, 0.0) + factor[row] * new
            else:
                total = max(total - own, 0.0) + new
        return total

    return compile_loop(in_turn)


@cache
def _at_once_of(plan: Any, step: Any, remembers: bool) -> Any:
    """Return the loop of moves at once for a rule: processors take several nodes together."""
    _inline(plan)
    _inline(step)
    stamp = _stamp(plan, step, reply_one, reenter_one, count_idle_one)

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
        _ = stamp  # part of the key under which the loop is kept
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

    return compile_loop(at_once)


@dataclass(frozen=True)
class Measures:
    """What one pass over the nodes of a contest measures: maxima, in whatever order."""

    exploitability: float
    change: float
    largest_before: float
    distance: float
    largest_target: float


def measures(
    epsilon: Floats,
    before: Floats,
    unit_target: Floats,
    rho: Floats,
    pool: float,
    epsilon_floor: float,
) -> Measures:
    """Measure a contest in one pass.

    Parameters
    ----------
    epsilon, before : ndarray of float, shape (n,)
        Reports of this round and of the last one.
    unit_target : ndarray of float, shape (n,)
        Epsilon of the closed form per unit of the pool.
    rho : ndarray of float, shape (n,)
        Unit privacy costs.
    pool : float
        What the nodes share, in currency; positive.
    epsilon_floor : float
        Smallest admissible report.

    Returns
    -------
    Measures
        The same digits as `fcfn_abm.game.exploitability` and NumPy's maxima.
    """
    total = float(epsilon.sum())
    return Measures(*_measures(epsilon, before, unit_target, rho, total, pool, epsilon_floor))


@compile_loop
def _measures(epsilon, before, unit_target, rho, total, pool, epsilon_floor):  # type: ignore[no-untyped-def]
    gain, change, largest, distance, largest_target = 0.0, 0.0, 0.0, 0.0, 0.0
    for row in range(epsilon.size):
        own, cost = epsilon[row], rho[row]
        others = max(total - own, 0.0)
        reply = reply_one(cost, others, pool, epsilon_floor)
        if others / pool * cost > 0:
            standing = others + own
            if reply > 0:
                better = cost * (reply - own) * ((reply - own) / standing)
            else:
                better = own / standing * (cost * standing - pool)
        elif reply > 0:
            better = (0.0 if own > 0 else pool) - cost * (reply - own)
        else:
            better = cost * own - pool if own > 0 else 0.0
        target = pool * unit_target[row]
        gain = max(gain, better)
        change = max(change, abs(own - before[row]))
        largest = max(largest, abs(before[row]))
        distance = max(distance, abs(own - target))
        largest_target = max(largest_target, target)
    return gain / pool, change, largest, distance, largest_target
