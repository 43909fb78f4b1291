"""Moves and measurements as compiled loops over the columns, with the digits of single agents.

The loop of `fcfn_abm.abm.node.respond`, and what `fcfn_abm.game.exploitability` measures, stand
here once more, for numba; tests hold them to equal bits. With ``NUMBA_DISABLE_JIT=1`` the same
code runs in plain Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.game.best_response import reply_one
from fcfn_abm.learning.best_response import BestResponse, caution_of

if TYPE_CHECKING:
    from fcfn_abm.abm.market import PrivacyMarket

_EXACT, _NOISY_REPORTS, _NOISY_TOTAL = range(3)

_compiled: Any = numba.njit(cache=True, nogil=True)  # without the GIL: traces are written meanwhile
_reply = _compiled(reply_one)
_caution = _compiled(caution_of)


def best_responses(market: PrivacyMarket, rows: npt.NDArray[np.intp], *, in_turn: bool) -> None:
    """Let nodes answer with their damped best response.

    Parameters
    ----------
    market : PrivacyMarket
        With the rule `BestResponse`.
    rows : ndarray of int
        Who moves, in this order.
    in_turn : bool
        Whether each sees the moves before its own, or all answer the last round's reports.
    """
    rule, columns, shown = market.rule, market.columns, market.bulletin
    if not isinstance(rule, BestResponse):
        raise TypeError(f"this loop plays BestResponse, not {type(rule).__name__}")
    mode = _EXACT
    if shown.factor is not None:
        mode = _NOISY_REPORTS if shown.full else _NOISY_TOTAL
    shown.total = _sweep(
        rows,
        columns.rho,
        columns.epsilon,
        columns.idle_rounds,
        columns.exit_round,
        columns.memory["caution"],
        np.ones(0) if shown.factor is None else shown.factor,
        mode,
        shown.total,
        market.pool,
        market.scenario.game.epsilon_floor,
        rule.gain_for(market.n_active),
        rule.is_cautious,
        market.scenario.exit.reentry,
        market.scenario.exit.criterion == "loss",
        in_turn,
    )


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
def _sweep(  # type: ignore[no-untyped-def]
    rows,
    rho,
    epsilon,
    idle_rounds,
    exit_round,
    caution,
    factor,
    mode,
    total,
    pool,
    epsilon_floor,
    gain,
    cautious,
    reentry,
    leaves_on_loss,
    in_turn,
):
    for row in rows:
        out = exit_round[row] != NEVER
        if out and in_turn and not reentry:
            continue
        own = epsilon[row]
        if mode == _EXACT:
            others = max(total - own, 0.0)
        elif mode == _NOISY_REPORTS:
            others = max(total - factor[row] * own, 0.0)
        else:
            others = max(factor[row] * total - own, 0.0)
        best = _reply(rho[row], others, pool, epsilon_floor)
        if out:
            if best > 0 and reentry:
                exit_round[row], out = NEVER, False
            elif in_turn:
                continue
        reason = best <= 0
        if leaves_on_loss:
            reason = own > 0 and pool < rho[row] * (others + own)
        idle_rounds[row] = idle_rounds[row] + 1 if reason else 0
        care = _caution(rho[row], others, pool, caution[row])
        caution[row] = care
        step = gain * (best - own)
        chosen = own + (step * care if cautious else step)
        epsilon[row] = 0.0 if out else chosen
        if not in_turn:
            continue
        if mode == _NOISY_REPORTS:
            total = max(total - factor[row] * own, 0.0) + factor[row] * chosen
        else:
            total = max(total - own, 0.0) + chosen
    return total


@_compiled
def _measures(epsilon, before, unit_target, rho, total, pool, epsilon_floor):  # type: ignore[no-untyped-def]
    gain, change, largest, distance, largest_target = 0.0, 0.0, 0.0, 0.0, 0.0
    for row in range(epsilon.size):
        own, cost = epsilon[row], rho[row]
        others = max(total - own, 0.0)
        reply = _reply(cost, others, pool, epsilon_floor)
        if others > 0:
            slope = pool * (others / (reply + others)) / (own + others) - cost
            better = (reply - own) * slope
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
