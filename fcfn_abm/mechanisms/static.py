"""One epsilon for all, fixed in advance."""

from __future__ import annotations

import numpy as np

from fcfn_abm.game import payments
from fcfn_abm.mechanisms.base import MECHANISMS, Contracts, Mechanism, Outcome, PricingGame, settle
from fcfn_abm.scenario.schema import Positive


@MECHANISMS.register("static")
class StaticEpsilon(Mechanism):
    """Every node trains with the same epsilon, and the cap is shared equally."""

    epsilon: Positive = 10.0
    """The privacy budget of every node, dimensionless."""

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:  # noqa: ARG002
        """Price one round of the game."""
        epsilon = np.full(game.rho.size, self.epsilon)
        return settle("static", game, epsilon, payments(epsilon, game.cap))

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:  # noqa: ARG002
        """Return the epsilon that each node is asked for; the cap is shared by those who accept."""
        return Contracts(np.full(game.rho.size, self.epsilon))
