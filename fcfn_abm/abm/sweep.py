"""Moves in turn as compiled loops over the columns: the digits of single agents, much faster.

A rule whose choice hangs on the running total has to be played one node after another. Here the
loop of `fcfn_abm.abm.node.respond` stands once more, for numba; tests hold the two to equal bits.
With ``NUMBA_DISABLE_JIT=1`` the same code runs in plain Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import NEVER
from fcfn_abm.game.best_response import reply_one
from fcfn_abm.learning.best_response import BestResponse, caution_of

if TYPE_CHECKING:
    from fcfn_abm.abm.market import PrivacyMarket

_EXACT, _NOISY_REPORTS, _NOISY_TOTAL = range(3)

_compiled: Any = numba.njit(cache=True)
_reply = _compiled(reply_one)
_caution = _compiled(caution_of)


def best_responses_in_turn(market: PrivacyMarket, rows: npt.NDArray[np.intp]) -> None:
    """Let nodes answer with their damped best response, one after another.

    Parameters
    ----------
    market : PrivacyMarket
        With the rule `BestResponse`.
    rows : ndarray of int
        Who moves, in this order.
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
    )


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
):
    for row in rows:
        out = exit_round[row] != NEVER
        if out and not reentry:
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
            if best <= 0:
                continue
            exit_round[row] = NEVER
        reason = best <= 0
        if leaves_on_loss:
            reason = own > 0 and pool < rho[row] * (others + own)
        idle_rounds[row] = idle_rounds[row] + 1 if reason else 0
        care = _caution(rho[row], others, pool, caution[row])
        caution[row] = care
        step = gain * (best - own)
        chosen = own + (step * care if cautious else step)
        epsilon[row] = chosen
        if mode == _NOISY_REPORTS:
            total = max(total - factor[row] * own, 0.0) + factor[row] * chosen
        else:
            total = max(total - own, 0.0) + chosen
    return total
