"""A posted price: nodes with costs up to the price sell as much as they may."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fcfn_abm.mechanisms.auction import buy_from_cheapest, settle_contracts
from fcfn_abm.mechanisms.base import MECHANISMS, Contracts, Mechanism, Outcome, PricingGame
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.scenario.schema import Positive


@MECHANISMS.register("posted-price")
class PostedPrice(Mechanism):
    """The server posts a price per unit of epsilon; nodes with costs up to it sell up to a limit.

    Notes
    -----
    No node's report sets its price, so that truthful reports are optimal. If the cap does not cover
    ``largest_epsilon`` of all sellers, each of them sells an equal part of what it covers.
    """

    reports: ClassVar = "cost"
    knobs: ClassVar = ("price", "largest_epsilon")

    price: Positive | None = None
    """Price per unit of epsilon, in currency. By default B / (n_nodes * largest_epsilon), at which
    the cap covers all nodes."""
    largest_epsilon: Positive = 10.0
    """Largest epsilon that a node may sell, dimensionless."""

    @property
    def claims(self) -> Claims:
        """Claims; a given price depends on the currency unit."""
        return Claims(
            budget_balanced=True,
            individually_rational=("nodes",),
            incentive_compatible=("cost",),
            monotone=True,
            anonymous=True,
            scale_invariant=self.price is None,
        )

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round: nodes with costs up to the price sell."""
        price = self._price(game)
        why = (
            "The server has no money to spend."
            if game.rho.size and game.cap == 0
            else f"Every node costs more than the price of {price:g}."
        )
        return settle_contracts("posted-price", game, self.offer(game, rng), why)

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:  # noqa: ARG002
        """Return what each node sells, and its payment, for its reported cost."""
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
