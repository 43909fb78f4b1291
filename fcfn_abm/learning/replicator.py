"""Replicator dynamics: profitable reports grow, regardless of their influence on the market."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fcfn_abm.game import Terms
from fcfn_abm.learning.base import (
    LEARNING_RULES,
    Floats,
    LearningRule,
    Observation,
    ScalarMoves,
)
from fcfn_abm.scenario.schema import Gain


@LEARNING_RULES.register("replicator")
class Replicator(LearningRule):
    """Grow in proportion to the profit per unit of epsilon, as imitators of success do.

    A unit of epsilon earns ``B / S - rho``, and its quantity grows at the rate ``gain * (B / S -
    rho) / max(B / S, rho)``. Nodes ignore their own influence on S: the resting point is not the
    Nash equilibrium but the competitive one, ``S = B / rho_min``, where only the lowest-cost nodes
    remain and the whole rent is dissipated. It is the evolutionarily stable state of this contest,
    and serves for comparison.

    References
    ----------
    Hehenkamp, Leininger and Possajennikov 2004, "Evolutionary equilibrium in Tullock contests".
    """

    rests_at_equilibrium: ClassVar[bool] = False
    knows_terms: ClassVar[bool] = True

    gain: Gain = 0.5
    """Largest relative growth per round."""

    def refuses(self, terms: Terms) -> str:
        """Return why the rule does not support some terms: those with unequal unit profits."""
        if terms.cost == "linear" and terms.has_one_equilibrium:
            return ""
        return (
            "the profit per unit of epsilon is constant only with linear costs, without a fixed "
            "cost or a reserve"
        )

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the current report if it is profitable, otherwise zero."""
        if isinstance(seen.epsilon, float):
            return keep_one(seen.rho, seen.others, seen.epsilon, seen.budget, seen.epsilon_floor)
        pays = seen.budget > seen.rho * (seen.epsilon + seen.others)
        return np.where(pays, np.maximum(seen.epsilon, seen.epsilon_floor), 0.0)

    def next_epsilon[Value: (float, Floats)](
        self,
        seen: Observation[Value],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Value:
        """Choose the epsilon of this round."""
        if isinstance(seen.epsilon, float):
            own = (seen.rho, seen.others, seen.epsilon, 0.0, seen.budget, seen.epsilon_floor)
            return grow_one(*own, (self.gain,), 0.0)[0]
        own = np.maximum(seen.epsilon, seen.epsilon_floor)
        wage = seen.budget / (own + seen.others)
        grown = own * (1.0 + self.gain * (wage - seen.rho) / np.maximum(wage, seen.rho))
        return np.where(grown > seen.epsilon_floor, grown, 0.0)

    def scalar_moves(self, n_active: int) -> ScalarMoves:  # noqa: ARG002
        """Return the rule for compiled play."""
        return ScalarMoves(grow_one, keep_one, (self.gain,), constant=True)


def keep_one(rho: float, others: float, own: float, budget: float, epsilon_floor: float) -> float:
    """Return the planned report of one node, bitwise equal to that of many."""
    return max(own, epsilon_floor) if budget > rho * (own + others) else 0.0


def grow_one(
    rho: float,
    others: float,
    own: float,
    planned: float,  # noqa: ARG001
    budget: float,
    epsilon_floor: float,
    parameters: tuple[float],
    remembered: float,
) -> tuple[float, float]:
    """Return the next report of one node, bitwise equal to that of many."""
    (gain,) = parameters
    own = max(own, epsilon_floor)
    wage = budget / (own + others)
    grown = own * (1.0 + gain * (wage - rho) / max(wage, rho))
    return (grown if grown > epsilon_floor else 0.0), remembered
