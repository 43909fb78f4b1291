"""Selling privacy at auction: nodes report costs, and the cheapest sell equal epsilons."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fcfn_abm.mechanisms.auction import buy_from_cheapest, settle_contracts, why_nobody_sells
from fcfn_abm.mechanisms.base import MECHANISMS, Contracts, Mechanism, Outcome, PricingGame
from fcfn_abm.mechanisms.claims import Claims


@MECHANISMS.register("fair-query")
class FairQuery(Mechanism):
    """As many of the cheapest nodes as the cap affords sell one epsilon each, at one price.

    Notes
    -----
    With reported costs ``v_1 <= ... <= v_n``, k is the largest j below n with
    ``v_j / (n - j) <= B / j``. The k cheapest sell ``epsilon = 1 / (n - k)`` each, and are paid
    ``min(B / k, v_{k+1} / (n - k))`` each: the highest report with which each of them would still
    have sold. Reporting one's cost is best whatever others report, nobody loses, and the cap holds.
    Epsilon is at most one. Of equal costs at the margin, those with the lower numbers sell; the
    others lose nothing by it, since the price then is their cost.

    References
    ----------
    Ghosh and Roth 2011, "Selling privacy at auction", mechanism FairQuery.
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
        return settle_contracts("fair-query", game, self.offer(game, rng), why_nobody_sells(game))

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:  # noqa: ARG002
        """Return what each node sells and is paid for its reported cost."""
        ranked, n_nodes = np.sort(game.bids), game.bids.size
        sellers = np.arange(1, n_nodes)
        affordable = np.flatnonzero(sellers * ranked[:-1] <= game.cap * (n_nodes - sellers))
        if affordable.size == 0:
            return buy_from_cheapest(game.bids, 0, 0.0, 0.0)
        k = int(sellers[affordable[-1]])
        epsilon = 1.0 / (n_nodes - k)
        fee = min(game.cap / k, float(ranked[k]) * epsilon)
        return buy_from_cheapest(game.bids, k, epsilon, fee)
