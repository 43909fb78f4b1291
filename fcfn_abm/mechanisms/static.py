"""Static epsilon: all nodes use the same epsilon, fixed in advance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from fcfn_abm.game import payments
from fcfn_abm.mechanisms.base import (
    MECHANISMS,
    Contracts,
    Mechanism,
    Outcome,
    PricingGame,
    keep_willing,
    settle,
)
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.scenario.schema import Positive


@MECHANISMS.register("static")
class StaticEpsilon(Mechanism):
    """Every node trains with the same epsilon, and the cap is shared equally.

    Notes
    -----
    In Zhou et al. 2023 (section 7.4) the clients choose it: 10 for EMNIST, 5 for CIFAR-10. Payment
    by (3) is our interpretation; the paper does not state it. In the outcome (``fa.price``, ``fcfn
    compare``) taking part is compulsory, as in the paper: nodes that lose money stay. In a market
    (``fcfn run``) it is voluntary: those that lose money leave.
    """

    claims: ClassVar[Claims] = Claims(
        budget_balanced=True, monotone=True, anonymous=True, scale_invariant=True
    )

    knobs: ClassVar[tuple[str, ...]] = ("budget", "epsilon")

    epsilon: Positive = 10.0
    """Privacy budget of every node, dimensionless."""
    voluntary: bool = False
    """Whether nodes that would lose money also stay out of the outcome, as they do in a market."""

    @property
    def knows_terms(self) -> bool:
        """Yes: no node optimizes, and utilities follow from the terms."""
        return True

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:  # noqa: ARG002
        """Price one round in which every node takes part, even at a loss, unless voluntary."""
        epsilon = game.sellable(np.full(game.rho.shape, self.epsilon))
        if self.voluntary:
            epsilon = keep_willing(epsilon, game)
        return settle("static", game, epsilon, payments(epsilon, game.cap))

    def outcomes(self, game: PricingGame, rngs: Iterable[np.random.Generator]) -> Outcome:
        """Price many populations at once."""
        return self.outcome(game, next(iter(rngs)))

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:  # noqa: ARG002
        """Return the common epsilon; participants share the cap (voluntary)."""
        return Contracts(game.sellable(np.full(game.rho.size, self.epsilon)))
