"""Random budgets: every node draws its epsilon, whatever that costs it."""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import model_validator

from fcfn_abm.game import payments
from fcfn_abm.mechanisms.base import (
    MECHANISMS,
    Contracts,
    Floats,
    Mechanism,
    Outcome,
    PricingGame,
    settle,
)
from fcfn_abm.scenario.schema import Positive


@MECHANISMS.register("random")
class RandomEpsilon(Mechanism):
    """Each node draws epsilon uniformly, and the cap is shared in proportion to epsilon."""

    low: Positive = 1.0
    """Smallest epsilon drawn."""
    high: Positive = 100.0
    """Largest epsilon drawn."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, but {self.low:g} > {self.high:g}")
        return self

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round of the game."""
        epsilon = self._draw(game, rng)
        return settle("random", game, epsilon, payments(epsilon, game.cap))

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:
        """Return the epsilon that each node is asked for; the cap is shared by those who accept."""
        return Contracts(self._draw(game, rng))

    def _draw(self, game: PricingGame, rng: np.random.Generator) -> Floats:
        return rng.uniform(self.low, self.high, size=game.rho.size)
