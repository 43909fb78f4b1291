"""The leader-follower contest of Zhou et al. 2023: the mechanism this package is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from fcfn_abm.game import nash_equilibrium, payments
from fcfn_abm.mechanisms.base import MECHANISMS, Contest, Mechanism, Outcome, PricingGame, settle
from fcfn_abm.mechanisms.claims import Claims


@MECHANISMS.register("stackelberg")
class Stackelberg(Mechanism):
    """The server announces B* (or the cap it is given); nodes share it in proportion to epsilon."""

    contested: ClassVar[bool] = True
    claims: ClassVar[Claims] = Claims(
        budget_balanced=True,
        individually_rational=("nodes",),
        incentive_compatible=("epsilon",),
        monotone=True,
        anonymous=True,
        scale_invariant=True,
    )

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:  # noqa: ARG002
        """Price one round of the game (29, 41)."""
        epsilon = nash_equilibrium(game.rho, game.cap).epsilon
        return settle("stackelberg", game, epsilon, payments(epsilon, game.cap))

    def outcomes(self, game: PricingGame, rngs: Iterable[np.random.Generator]) -> Outcome:
        """Price many populations at once."""
        return self.outcome(game, next(iter(rngs)))

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contest:  # noqa: ARG002
        """Return the contest for the cap that the server announces."""
        return Contest()
