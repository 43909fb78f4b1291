"""The leader-follower contest of Zhou et al. 2023, the main mechanism of this package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from fcfn_abm.game import payments
from fcfn_abm.game.equilibrium import as_budgets
from fcfn_abm.mechanisms.base import (
    MECHANISMS,
    Contest,
    Mechanism,
    Outcome,
    PricingGame,
    settle,
    settle_contest,
    stack,
)
from fcfn_abm.mechanisms.claims import Claims


@MECHANISMS.register("stackelberg")
class Stackelberg(Mechanism):
    """The server announces B* (or the given cap); nodes share it in proportion to epsilon."""

    contested: ClassVar[bool] = True
    claims: ClassVar[Claims] = Claims(
        budget_balanced=True,
        individually_rational=("nodes",),
        incentive_compatible=("epsilon",),
        monotone=True,
        anonymous=True,
        scale_invariant=True,
    )

    @property
    def knows_terms(self) -> bool:
        """Yes: the game is solved under any terms."""
        return True

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:  # noqa: ARG002
        """Price one round of the game (29, 41); under other terms than the paper's, by search."""
        if game.terms is not None:
            return settle_contest("stackelberg", game)
        epsilon = game.answer_to(as_budgets(game.cap, game.rho)).epsilon
        return settle("stackelberg", game, epsilon, payments(epsilon, game.cap))

    def outcomes(self, game: PricingGame, rngs: Iterable[np.random.Generator]) -> Outcome:
        """Price many populations at once; under other terms than the paper's, one by one."""
        if game.terms is not None:
            return stack([settle_contest("stackelberg", one) for one in game.games()])
        return self.outcome(game, next(iter(rngs)))

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contest:  # noqa: ARG002
        """Return the contest for the cap that the server announces."""
        return Contest()
