"""Random epsilons: every node draws its own epsilon instead of optimizing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Self

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
    keep_willing,
    settle,
)
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.scenario.schema import Positive


@MECHANISMS.register("random")
class RandomEpsilon(Mechanism):
    """Each node draws epsilon uniformly, and the cap is shared in proportion to epsilon.

    Notes
    -----
    In Zhou et al. 2023 (section 7.4) the clients choose epsilon like this, between 1 and 100; the
    distribution and the payment are not stated, so that the uniform distribution and payment by (3)
    are our interpretation. In the outcome (``fa.price``, ``fcfn compare``) taking part is
    compulsory, as in the paper: nodes that lose money stay. In a market (``fcfn run``) it is
    voluntary: nodes keep the epsilon that they drew, and those that lose money leave.
    """

    claims: ClassVar[Claims] = Claims(budget_balanced=True, monotone=True, scale_invariant=True)

    knobs: ClassVar[tuple[str, ...]] = ("budget", "high")

    low: Positive = 1.0
    """Smallest epsilon, dimensionless."""
    high: Positive = 100.0
    """Largest epsilon, dimensionless."""
    voluntary: bool = False
    """Whether nodes that would lose money also stay out of the outcome, as they do in a market."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, but {self.low:g} > {self.high:g}")
        return self

    @property
    def knows_terms(self) -> bool:
        """Yes: no node optimizes, and utilities follow from the terms."""
        return True

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round in which every node takes part, even at a loss, unless voluntary."""
        return self._settle(game, self._draw(game, rng))

    def outcomes(self, game: PricingGame, rngs: Iterable[np.random.Generator]) -> Outcome:
        """Price many populations at once; each draws from its own generator."""
        draws = [self._draw(one, rng) for one, rng in zip(game.games(), rngs, strict=False)]
        return self._settle(game, np.stack(draws))

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:
        """Return each node's draw; participants share the cap (voluntary)."""
        return Contracts(self._draw(game, rng))

    def _settle(self, game: PricingGame, epsilon: Floats) -> Outcome:
        if self.voluntary:
            epsilon = keep_willing(epsilon, game)
        return settle("random", game, epsilon, payments(epsilon, game.cap))

    def _draw(self, game: PricingGame, rng: np.random.Generator) -> Floats:
        return game.sellable(rng.uniform(self.low, self.high, size=game.rho.size))
