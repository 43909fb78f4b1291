"""A posted price: who costs less sells, as much as it may."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fcfn_abm.mechanisms.auction import buy_from_cheapest, settle_contracts
from fcfn_abm.mechanisms.base import MECHANISMS, Contracts, Mechanism, Outcome, PricingGame
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.scenario.schema import Positive


@MECHANISMS.register("posted-price")
class PostedPrice(Mechanism):
    """The server posts a price for a unit of epsilon; nodes that cost no more sell up to a limit.

    Notes
    -----
    Nobody's report sets its price, so that reporting one's cost is best. Where the cap does not pay
    for ``largest_epsilon`` of all who would sell, each of them sells an equal part of what it pays
    for.
    """

    reports: ClassVar = "cost"
    knobs: ClassVar = ("price", "largest_epsilon")

    price: Positive | None = None
    """What the server pays for a unit of epsilon, in currency; without it
    B / (n_nodes * largest_epsilon), at which the cap pays for all nodes."""
    largest_epsilon: Positive = 10.0
    """The most that a node may sell, dimensionless."""

    @property
    def claims(self) -> Claims:
        """A price that is given stands in one currency unit."""
        return Claims(
            budget_balanced=True,
            individually_rational=("nodes",),
            incentive_compatible=("cost",),
            monotone=True,
            anonymous=True,
            scale_invariant=self.price is None,
        )

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round: who costs no more than the price sells."""
        price = self._price(game)
        why = (
            "The server has no money to spend."
            if game.rho.size and game.cap == 0
            else f"Every node costs more than the price of {price:g}."
        )
        return settle_contracts("posted-price", game, self.offer(game, rng), why)

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:  # noqa: ARG002
        """Return what each node sells and is paid for its reported cost."""
        price = self._price(game)
        n_sellers = int(np.count_nonzero(game.bids <= price)) if game.cap > 0 else 0
        if n_sellers == 0:
            return buy_from_cheapest(game.bids, 0, 0.0, 0.0)
        epsilon = min(self.largest_epsilon, game.cap / price / n_sellers)
        return buy_from_cheapest(game.bids, n_sellers, epsilon, price * epsilon)

    def _price(self, game: PricingGame) -> float:
        if self.price is not None or game.rho.size == 0:
            return self.price or 0.0
        return float(game.cap / game.rho.size / self.largest_epsilon)
