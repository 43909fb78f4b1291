"""Stateless Q-learning: a running mean of each report's payoff, with decreasing exploration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from fcfn_abm.learning.base import LEARNING_RULES, Floats
from fcfn_abm.learning.grid import GridLearner, Levels, Rows, Smallest, prefer_high

_COLDEST = 1e-9  # share of B: far below relevant differences, and far above rounding errors


@LEARNING_RULES.register("q-learning")
class QLearning(GridLearner):
    """Choose reports with probabilities proportional to ``exp(Q / T)``, for a falling T.

    Q is the value of an action, as a share of B, updated by ``Q += learning_rate * (utility / B -
    Q)`` after the action was taken. A node has no state; the value of a next state would add the
    same to all actions, and is omitted. In the end a node takes the action that has paid best, and
    the market rests where nobody expects to gain, which need not be an equilibrium.

    References
    ----------
    Watkins and Dayan 1992, "Q-learning"; without states, and with Boltzmann exploration, in a game:
    Waltman and Kaymak 2008, "Q-learning agents in a Cournot oligopoly model".
    """

    levels: Levels = 10
    """Number of positive reports on the grid."""
    smallest: Smallest = 0.05
    """Smallest positive report, as a share of the largest one, B / (4 rho)."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Weight of the latest payoff of an action in its value."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Initial temperature, as a share of B: smaller differences of Q hardly matter."""
    cooling: Annotated[float, Field(gt=0, le=1)] = 0.999
    """Factor by which the temperature falls with each update."""

    def update(self, kept: Mapping[str, Floats], rows: Rows, action: Rows, utility: Floats) -> None:
        """Move the value of an action towards its payoff."""
        kept["score"][rows, action] += self.learning_rate * (utility - kept["score"][rows, action])

    def probabilities(self, kept: Mapping[str, Floats]) -> Floats:
        """Return the Boltzmann probabilities."""
        temperature = self.temperature * np.power(self.cooling, kept["n_tries"])
        return prefer_high(kept["score"], np.maximum(temperature, _COLDEST))
