"""How a server spreads money over the remaining rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fcfn_abm.errors import InvalidGameError, require_positive


@dataclass(frozen=True)
class RoundGain:
    """Gain of the server from a cap B in the next round: ``beta ln(1 + alpha unit_mean B)``.

    ``alpha`` and ``beta`` are those of the model, or those that a server has fitted to the observed
    gains of its training rounds.
    """

    alpha: float
    """Model-value parameter, per unit of epsilon; above zero."""
    beta: float
    """Model-value parameter, in currency; above zero."""
    unit_mean: float
    """Mean epsilon that a unit of the cap buys, per unit of currency; above zero."""
    decay: float = 1.0
    """Gain of a round divided by that of the previous round, at the same cap; above zero."""

    def __post_init__(self) -> None:
        """Raise InvalidGameError if a number is not positive and finite."""
        require_positive(
            alpha=self.alpha, beta=self.beta, unit_mean=self.unit_mean, decay=self.decay
        )


def spend_evenly(money: float, rounds_left: int) -> float:
    """Return an equal share of the money for each remaining round, in currency."""
    _require_rounds(rounds_left)
    return money / rounds_left


def spend_by_value(gain: RoundGain, money: float, rounds_left: int) -> float:
    """Return the next round's cap at which the last unit of money gains the same in all rounds.

    The sum of the gains of all remaining rounds, minus the payments, is largest if the marginal
    gain of every paid round is the same, and not below one: a unit of currency that gains less than
    itself is kept. If the gain does not change from round to round, that is an equal share of the
    money for each round, or the best cap of a single round if there is enough money.

    Parameters
    ----------
    gain : RoundGain
        Gain of a cap in the next round, and how it changes from round to round.
    money : float
        Money left for all rounds, in currency; zero or more.
    rounds_left : int
        Number of remaining rounds, including the next one.

    Returns
    -------
    float
        Cap of the next round, in currency; zero if the next round does not pay.

    Raises
    ------
    InvalidGameError
        If no round is left, or the money is below zero or not finite.

    Notes
    -----
    With ``b_k = beta decay**k`` and ``c = 1 / (alpha unit_mean)`` the marginal gain of round k is
    ``b_k / (c + B_k)``. Equal marginal gains ``price`` give ``B_k = b_k / price - c`` for the m
    rounds with the largest b, and ``price = sum(b) / (money + m c)``. This is water-filling.

    Examples
    --------
    >>> same = RoundGain(alpha=1.0, beta=10.0, unit_mean=1.0)
    >>> spend_by_value(same, money=12.0, rounds_left=4), spend_by_value(same, 100.0, 4)
    (3.0, 9.0)
    >>> falling = RoundGain(alpha=1.0, beta=10.0, unit_mean=1.0, decay=0.5)
    >>> spend_by_value(falling, money=12.0, rounds_left=2)
    8.333333333333334
    """
    _require_rounds(rounds_left)
    if not 0 <= money < math.inf:
        raise InvalidGameError(f"money must be zero or more and finite, but is {money:g}.")
    offset = 1.0 / (gain.alpha * gain.unit_mean)
    with np.errstate(over="ignore"):  # gains of distant rounds may over- or underflow
        values = gain.beta * np.power(gain.decay, np.arange(rounds_left, dtype=float))
    values = np.minimum(values, np.finfo(float).max / rounds_left)
    ranked = np.sort(values)[::-1]
    n_paid = np.arange(1, rounds_left + 1)
    prices = np.cumsum(ranked) / (money + n_paid * offset)
    paid = ranked > prices * offset  # a prefix: each round gets a positive cap at its price
    price = max(float(prices[np.count_nonzero(paid) - 1]), 1.0) if paid.any() else math.inf
    return min(max(float(values[0]) / price - offset, 0.0), money)


def _require_rounds(rounds_left: int) -> None:
    if rounds_left < 1:
        raise InvalidGameError(f"rounds_left must be one or more, but is {rounds_left}.")
