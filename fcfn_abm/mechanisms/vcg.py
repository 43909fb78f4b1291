"""Selling privacy at auction, at the price of the first node that does not sell."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fcfn_abm.mechanisms.auction import buy_from_cheapest, settle_contracts, why_nobody_sells
from fcfn_abm.mechanisms.base import MECHANISMS, Contracts, Mechanism, Outcome, PricingGame
from fcfn_abm.mechanisms.claims import Claims


@MECHANISMS.register("vcg")
class VickreyClarkeGroves(Mechanism):
    """As many of the cheapest nodes as the cap affords are paid the cost of the next one.

    Notes
    -----
    With reported costs ``v_1 <= ... <= v_n``, k is the largest j below n with
    ``j v_{j+1} / (n - j) <= B``. The k cheapest sell ``epsilon = 1 / (n - k)`` each, and are paid
    ``v_{k+1} / (n - k)`` each: what the others would lose without them, the payment of Vickrey,
    Clarke and Groves for that k. k is the largest number for which the cap holds. Reporting one's
    cost is best, since nobody's own report sets its price, and a report low enough to change k only
    lowers the price further. It buys at most as much as ``fair-query``.

    References
    ----------
    Ghosh and Roth 2011, "Selling privacy at auction".
    """

    reports: ClassVar = "cost"
    claims: ClassVar[Claims] = Claims(
        budget_balanced=True,
        individually_rational=("nodes",),
        incentive_compatible=("cost",),
        monotone=True,
        anonymous=True,
        scale_invariant=True,
    )

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round: the server buys what the reports say."""
        return settle_contracts("vcg", game, self.offer(game, rng), why_nobody_sells(game))

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:  # noqa: ARG002
        """Return what each node sells and is paid for its reported cost."""
        ranked, n_nodes = np.sort(game.bids), game.bids.size
        sellers = np.arange(1, n_nodes)
        affordable = np.flatnonzero(sellers * ranked[1:] <= game.cap * (n_nodes - sellers))
        if affordable.size == 0:
            return buy_from_cheapest(game.bids, 0, 0.0, 0.0)
        k = int(sellers[affordable[-1]])
        epsilon = 1.0 / (n_nodes - k)
        return buy_from_cheapest(game.bids, k, epsilon, float(ranked[k]) * epsilon)
