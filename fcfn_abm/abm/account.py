"""Payments and sales over all rounds of a market, and what is left of their limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.groups import NodeGroup
from fcfn_abm.game import RoundGain, spend_by_value, spend_evenly
from fcfn_abm.learning.base import Rows
from fcfn_abm.scenario import Game


class Account:
    """Adds up payments and sales without rounding errors, and computes what is left.

    Parameters
    ----------
    game : Game
        With the total budget and the spending rule.
    total_epsilon : ndarray of float, shape (n,)
        Largest epsilon that each node sells over all rounds; infinite without a limit.
    last_round : int
        Last round of the market.
    """

    def __init__(self, game: Game, total_epsilon: Floats, last_round: int) -> None:
        self._total_budget = math.inf if game.total_budget is None else game.total_budget
        self._spending, self._last_round = game.spending, last_round
        self._spent = Fraction(0)
        self._total_epsilon = total_epsilon
        self._sold, self._rest = np.zeros((2, total_epsilon.size))
        self.sold_out: npt.NDArray[np.bool_] = np.zeros(total_epsilon.size, dtype=bool)
        """Which nodes have sold their total, shape (n,)."""
        self.sellers: Rows = slice(None)
        """Rows of the nodes that could still sell at the start of the round."""

    @property
    def limits_money(self) -> bool:
        """Whether there is a total budget."""
        return self._total_budget < math.inf

    @property
    def limits_epsilon(self) -> bool:
        """Whether the sales of any node are limited."""
        return bool((self._total_epsilon < math.inf).any())

    @property
    def money_spent(self) -> float:
        """Payments of the server in all rounds, in currency."""
        return float(self._spent)

    @property
    def money_left(self) -> float:
        """What the server may still pay, in currency."""
        if not self.limits_money:
            return math.inf
        return max(float(Fraction(self._total_budget) - self._spent), 0.0)

    @property
    def epsilon_sold(self) -> Floats:
        """Epsilon that each node has sold in all rounds, the sum of its reports, shape (n,)."""
        return self._sold + self._rest

    @property
    def epsilon_left(self) -> Floats:
        """Epsilon that each node may still sell, shape (n,)."""
        left = np.maximum((self._total_epsilon - self._sold) - self._rest, 0.0)
        return np.where(self.sold_out, 0.0, left)

    def allow(self, round_index: int, gain: RoundGain | None) -> float:
        """Return the largest allowed cap of a round, in currency.

        Parameters
        ----------
        round_index : int
            The round, from 1.
        gain : RoundGain or None
            What a cap gains in this round; None while it is unknown.
        """
        left = self.money_left
        if left == math.inf or self._spending is None:
            return left
        rounds_left = max(self._last_round - round_index + 1, 1)
        if self._spending == "uniform" or gain is None:
            return spend_evenly(left, rounds_left)
        return spend_by_value(gain, left, rounds_left)

    def open_round(self) -> bool:
        """Record which nodes may sell in a round; return whether they are fewer than before."""
        before = self.sold_out.size if isinstance(self.sellers, slice) else self.sellers.size
        if before == self.sold_out.size - np.count_nonzero(self.sold_out):
            return False
        self.sellers = np.flatnonzero(~self.sold_out)
        return True

    def enter(self, paid: float, epsilon: Floats) -> npt.NDArray[np.intp]:
        """Add the payment and the sales of a round; return which nodes sold out in it.

        Parameters
        ----------
        paid : float
            Payment of the server, in currency.
        epsilon : ndarray of float, shape (n,)
            Epsilon sold by each node; at most what it had left.
        """
        self._spent += Fraction(paid)
        left = self.epsilon_left
        sold = self._sold + epsilon  # the next line keeps the rounding error (Knuth's two-sum)
        added = sold - self._sold
        self._rest += (self._sold - (sold - added)) + (epsilon - added)
        self._sold = sold
        now = (epsilon >= left) & ~self.sold_out
        self.sold_out = self.sold_out | now
        return np.flatnonzero(now)


def open_account(
    game: Game,
    limits: Mapping[str, float],
    groups: Sequence[NodeGroup],
    n_nodes: int,
    last_round: int,
) -> Account | None:
    """Return the account of a market, or None if nothing is limited over all rounds.

    Parameters
    ----------
    game : Game
        With the total budget.
    limits : mapping
        Largest epsilon that a node sells over all rounds, by group; "" for all nodes.
    groups : sequence of NodeGroup
        Groups of the market.
    n_nodes : int
        Number of nodes.
    last_round : int
        Last round of the market.
    """
    if game.total_budget is None and not limits:
        return None
    total_epsilon = np.full(n_nodes, math.inf)
    for group in groups:
        total_epsilon[group.rows] = limits.get(group.name, limits.get("", math.inf))
    return Account(game, total_epsilon, last_round)
