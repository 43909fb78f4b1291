"""Tullock's contest: the cap is shared in proportion to a power of epsilon."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fcfn_abm.game import averaged_nodes, best_linear_budget, tullock_equilibrium
from fcfn_abm.mechanisms.base import (
    MECHANISMS,
    Contest,
    Mechanism,
    Outcome,
    PricingGame,
    settle,
    settle_contest,
)
from fcfn_abm.mechanisms.claims import Claims


@MECHANISMS.register("tullock")
class Tullock(Mechanism):
    """Nodes share the cap in proportion to epsilon ** exponent; below one, all nodes take part.

    Notes
    -----
    The smaller the exponent, the less a low-cost node gains from selling more than the others: more
    nodes take part, shares are more even, and less epsilon is bought for the same cap. Epsilon is
    proportional to the cap for every exponent, so that (41) holds with another kappa. With an
    exponent of one the results are bitwise equal to ``stackelberg``.

    References
    ----------
    Tullock 1980, "Efficient rent seeking".
    """

    claims: ClassVar[Claims] = Claims(
        budget_balanced=True,
        individually_rational=("nodes",),
        incentive_compatible=("epsilon",),
        monotone=True,
        anonymous=True,
        scale_invariant=True,
    )

    exponent: Annotated[float, Field(ge=0.01, le=1)] = 0.5
    """Exponent of epsilon in the payment shares, above 0 and up to 1; 1 is the contest of the
    paper."""

    @property
    def knows_terms(self) -> bool:
        """Whether this is the contest of the paper, which is solved under any terms."""
        return self.exponent == 1

    def cap(self, game: PricingGame) -> float:
        """Return the payment cap: the given one, otherwise the best one (41)."""
        if game.budget is not None or self.exponent == 1:
            return float(game.cap)
        bought = tullock_equilibrium(game.rho, 1.0, self.exponent)
        if bought.n_active == 0:
            return 0.0
        mean_epsilon = bought.total_epsilon / averaged_nodes(game.average_over, bought.epsilon)
        return best_linear_budget(mean_epsilon, game.alpha, game.beta)

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round at the equilibrium of the nodes."""
        if game.terms is not None:
            return settle_contest("tullock", game)
        cap = self.cap(game)
        epsilon = tullock_equilibrium(game.rho, cap, self.exponent).epsilon
        return settle("tullock", game, epsilon, self.offer(game, rng).payment(epsilon, cap))

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contest:  # noqa: ARG002
        """Return the contest for the cap that the server announces."""
        return Contest(exponent=self.exponent)
