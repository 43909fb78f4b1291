"""Random budgets: every node draws its epsilon, whatever that costs it."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from fcfn_abm.game import payments
from fcfn_abm.mechanisms.base import MECHANISMS, Mechanism, Outcome, PricingGame, settle


@MECHANISMS.register("random")
class RandomEpsilon(Mechanism):
    """Each node draws epsilon uniformly, and the cap is shared in proportion to epsilon."""

    low: Annotated[float, Field(gt=0)] = 1.0
    """Smallest epsilon drawn."""
    high: Annotated[float, Field(gt=0)] = 100.0
    """Largest epsilon drawn."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, but {self.low:g} > {self.high:g}")
        return self

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round of the game."""
        epsilon = rng.uniform(self.low, self.high, size=game.rho.size)
        return settle("random", game, epsilon, payments(epsilon, game.cap))
