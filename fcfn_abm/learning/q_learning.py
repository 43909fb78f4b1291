"""Q-learning without states: a running mean of what each report paid, and less and less trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from fcfn_abm.learning.base import LEARNING_RULES, Floats
from fcfn_abm.learning.grid import GridLearner, Levels, Rows, Smallest, prefer_high

_COLDEST = 1e-9  # share of B: far below any difference that matters, and far above rounding


@LEARNING_RULES.register("q-learning")
class QLearning(GridLearner):
    """Take actions in proportion to ``exp(Q / T)``, with a temperature T that falls.

    Q is the value of an action, as a share of B: ``Q += learning_rate * (utility / B - Q)`` after
    it was taken. A node has no state, so that the value of the next state would add the same to all
    actions, and is left out. In the end it takes the action that has paid best, and the market
    rests where nobody expects to gain, which need not be an equilibrium.

    References
    ----------
    Watkins and Dayan 1992, "Q-learning"; without states, and with Boltzmann exploration, in a game:
    Waltman and Kaymak 2008, "Q-learning agents in a Cournot oligopoly model".
    """

    levels: Levels = 10
    """Reports on the grid, besides zero."""
    smallest: Smallest = 0.05
    """The smallest of them, as a share of the largest, B / (4 rho)."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Weight of what an action paid last."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.1
    """The first temperature, as a share of B: differences of Q below it hardly matter."""
    cooling: Annotated[float, Field(gt=0, le=1)] = 0.999
    """By which factor the temperature falls each time that a node learns."""

    def update(self, kept: Mapping[str, Floats], rows: Rows, action: Rows, utility: Floats) -> None:
        """Move the value of an action towards what it paid."""
        kept["score"][rows, action] += self.learning_rate * (utility - kept["score"][rows, action])

    def probabilities(self, kept: Mapping[str, Floats]) -> Floats:
        """Return Boltzmann probabilities."""
        temperature = self.temperature * np.power(self.cooling, kept["n_tries"])
        return prefer_high(kept["score"], np.maximum(temperature, _COLDEST))
