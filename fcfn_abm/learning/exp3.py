"""EXP3: exponential weights with vanishing regret against any behaviour of the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fcfn_abm.learning.base import LEARNING_RULES, Floats
from fcfn_abm.learning.grid import (
    LARGEST_COST,
    GridLearner,
    Levels,
    Rows,
    Smallest,
    prefer_high,
)


@LEARNING_RULES.register("exp3")
class Exp3(GridLearner):
    """Choose reports with probabilities proportional to ``exp(-rate * L)``, L an estimated loss.

    L is unbiased: after an action of probability p with loss l (a share of the range of utilities,
    in [0, 1]), its L grows by l / p. With ``rate = sqrt(ln K / (K t))`` for K actions in round t,
    the expected regret against the best action in hindsight is at most ``2 sqrt(T K ln K)`` after T
    rounds, whatever the others do. Nodes use their cost, the cap and their own utility, and no
    observation of each other.

    References
    ----------
    Auer, Cesa-Bianchi, Freund and Schapire 2002, "The nonstochastic multiarmed bandit problem";
    without a horizon, and with the bound above: Bubeck and Cesa-Bianchi 2012, "Regret analysis of
    stochastic and nonstochastic multi-armed bandit problems", theorem 3.1.
    """

    levels: Levels = 10
    """Number of positive reports on the grid."""
    smallest: Smallest = 0.05
    """Smallest positive report, as a share of the largest one, B / (4 rho)."""

    def update(self, kept: Mapping[str, Floats], rows: Rows, action: Rows, utility: Floats) -> None:
        """Add to an action its loss, divided by its probability."""
        loss = (1.0 - utility) / (1.0 + LARGEST_COST)
        kept["score"][rows, action] -= loss / kept["probability"][rows]

    def probabilities(self, kept: Mapping[str, Floats]) -> Floats:
        """Return the exponential weights."""
        n_actions = self.levels + 1
        rate = np.sqrt(np.log(n_actions) / (n_actions * (kept["n_tries"] + 1.0)))
        return prefer_high(kept["score"], 1.0 / rate)
