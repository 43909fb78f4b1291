"""Moves and measurements as compiled loops over the columns, with the digits of single agents.

The loops of `fcfn_abm.abm.node.respond` and `fcfn_abm.abm.order.simultaneous`, and what
`fcfn_abm.game.exploitability` measures, stand here once more, for numba; tests hold them to equal
bits. With ``NUMBA_DISABLE_JIT=1`` the same
code runs in plain Python.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.game.best_response import reply_one
from fcfn_abm.learning.best_response import RECOVERY, STEEP, BestResponse, caution_of
from fcfn_abm.learning.fixed import Fixed
from fcfn_abm.learning.gradient import Gradient, climb_one
from fcfn_abm.learning.replicator import Replicator, grown_one, kept_one

if TYPE_CHECKING:
    from fcfn_abm.abm.market import PrivacyMarket
    from fcfn_abm.learning.base import LearningRule, Rows

_EXACT, _NOISY_REPORTS, _NOISY_TOTAL = range(3)
_RULES = {BestResponse: 0, Gradient: 1, Replicator: 2, Fixed: 3}
_TINY = 5e-324  # never divides by zero, and changes no other number
_BEST_RESPONSE, _GRADIENT, _REPLICATOR, _FIXED = _RULES.values()


def _compiled(function: Any) -> Any:
    options: dict[str, Any] = {
        "nogil": True,  # traces are written meanwhile
        "error_model": "numpy",
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder where it could be kept: compiled in each process anew
        return numba.njit(**options)(function)


_reply, _caution = _compiled(reply_one), _compiled(caution_of)
_climb, _kept, _grown = _compiled(climb_one), _compiled(kept_one), _compiled(grown_one)


def plays(rule: LearningRule) -> bool:
    """Return whether there is a compiled loop for a rule in turn."""
    return type(rule) in _RULES


def moves_in_turn(market: PrivacyMarket, rows: npt.NDArray[np.intp]) -> None:
    """Let nodes move one after another, each seeing the moves before its own.

    Parameters
    ----------
    market : PrivacyMarket
        With a rule for which there is a loop (`plays`).
    rows : ndarray of int
        Who moves, in this order.
    """
    rule, columns, shown = market.rule, market.columns, market.bulletin
    gain, cautious = 1.0, False
    if isinstance(rule, BestResponse | Gradient):
        gain = rule.gain_for(market.n_active)
    elif isinstance(rule, Replicator):
        gain = rule.gain
    if isinstance(rule, BestResponse):
        cautious = rule.is_cautious
    shown.total = _in_turn(
        rows,
        columns.rho,
        columns.epsilon,
        columns.idle_rounds,
        columns.exit_round,
        columns.memory.get("caution", _NOTHING),
        _NOTHING if shown.factor is None else shown.factor,
        _view(market),
        _RULES[type(rule)],
        shown.total,
        market.pool,
        market.scenario.game.epsilon_floor,
        gain,
        cautious,
        market.scenario.exit.reentry,
        market.scenario.exit.criterion == "loss",
    )


def best_responses_at_once(market: PrivacyMarket, rows: Rows) -> None:
    """Let nodes answer the last round's reports with their damped best response.

    Parameters
    ----------
    market : PrivacyMarket
        With the rule `BestResponse`, a pool, and reports that are seen without errors.
    rows : slice or ndarray of int
        Who moves.
    """
    rule, columns = market.rule, market.columns
    if not isinstance(rule, BestResponse):
        raise TypeError(f"this loop plays BestResponse, not {type(rule).__name__}")
    held = (columns.epsilon, columns.idle_rounds, columns.exit_round, columns.memory["caution"])
    moving = [column[rows] for column in held]  # views, where all move
    _at_once(
        columns.rho[rows],
        *moving,
        market.bulletin.total,
        market.pool,
        market.scenario.game.epsilon_floor,
        rule.gain_for(market.n_active),
        rule.is_cautious,
        market.scenario.exit.reentry,
        market.scenario.exit.criterion == "loss",
    )
    if not isinstance(rows, slice):
        for column, moved in zip(held, moving, strict=True):
            column[rows] = moved


_NOTHING = np.ones(0)


def _view(market: PrivacyMarket) -> int:
    shown = market.bulletin
    if shown.factor is None:
        return _EXACT
    return _NOISY_REPORTS if shown.full else _NOISY_TOTAL


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


@_compiled
def _in_turn(  # type: ignore[no-untyped-def]
    rows,
    rho,
    epsilon,
    idle_rounds,
    exit_round,
    caution,
    factor,
    view,
    rule,
    total,
    pool,
    epsilon_floor,
    gain,
    cautious,
    reentry,
    leaves_on_loss,
):
    for row in rows:
        own, cost = epsilon[row], rho[row]
        out = own == 0 and exit_round[row] != NEVER  # who is out reports nothing: one look less
        if out and not reentry:
            continue
        if view == _EXACT:
            others = max(total - own, 0.0)
        elif view == _NOISY_REPORTS:
            others = max(total - factor[row] * own, 0.0)
        else:
            others = max(factor[row] * total - own, 0.0)
        if rule == _REPLICATOR:
            best = _kept(cost, others, own, pool, epsilon_floor)
        else:
            best = _reply(cost, others, pool, epsilon_floor)
        if out:
            if best <= 0:
                continue
            exit_round[row] = NEVER
        reason = best <= 0
        if leaves_on_loss:
            reason = own > 0 and pool < cost * (others + own)
        idle_rounds[row] = idle_rounds[row] + 1 if reason else 0
        if rule == _BEST_RESPONSE:
            care = _caution(cost, others, pool, caution[row])
            caution[row] = care
            step = gain * (best - own)
            chosen = own + (step * care if cautious else step)
        elif rule == _GRADIENT:
            chosen = _climb(cost, others, own, best, pool, epsilon_floor, gain)
        elif rule == _REPLICATOR:
            chosen = _grown(cost, others, own, pool, epsilon_floor, gain)
        else:
            chosen = own
        epsilon[row] = chosen
        if view == _NOISY_REPORTS:
            total = max(total - factor[row] * own, 0.0) + factor[row] * chosen
        else:
            total = max(total - own, 0.0) + chosen
    return total


@_compiled
def _at_once(  # type: ignore[no-untyped-def]
    rho,
    epsilon,
    idle_rounds,
    exit_round,
    caution,
    total,
    pool,
    epsilon_floor,
    gain,
    cautious,
    reentry,
    leaves_on_loss,
):
    for row in range(rho.size):
        # `reply_one` and `caution_of` without a branch: processors then take several nodes at once
        own, cost = epsilon[row], rho[row]
        others = max(total - own, 0.0)
        pull = others / pool * cost
        root = math.sqrt(pull)
        inner = others * (1.0 - pull) / max(root + pull, _TINY)
        alone = epsilon_floor if pool > cost * epsilon_floor else 0.0
        best = (inner if pull < 1.0 else 0.0) if pull > 0.0 else alone
        care = 2.0 * root if (pull > 0.0) & (pull < STEEP) else 1.0
        care = min(care, caution[row] * RECOVERY)
        caution[row] = care
        pays = best > 0.0
        left = NEVER if pays & reentry else exit_round[row]
        exit_round[row] = left
        reason = (own > 0.0) & (pool < cost * (others + own)) if leaves_on_loss else not pays
        idle_rounds[row] = idle_rounds[row] + 1 if reason else 0
        step = gain * (best - own)
        chosen = own + (step * care if cautious else step)
        epsilon[row] = chosen if left == NEVER else 0.0


@_compiled
def _measures(epsilon, before, unit_target, rho, total, pool, epsilon_floor):  # type: ignore[no-untyped-def]
    gain, change, largest, distance, largest_target = 0.0, 0.0, 0.0, 0.0, 0.0
    for row in range(epsilon.size):
        own, cost = epsilon[row], rho[row]
        others = max(total - own, 0.0)
        reply = _reply(cost, others, pool, epsilon_floor)
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
