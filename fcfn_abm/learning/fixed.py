"""No learning: the baseline of comparisons."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fcfn_abm.learning.base import (
    LEARNING_RULES,
    Floats,
    LearningRule,
    Observation,
    ScalarMoves,
)


@LEARNING_RULES.register("fixed")
class Fixed(LearningRule):
    """Report the same epsilon in every round."""

    knows_terms: ClassVar[bool] = True

    def next_epsilon[Value: (float, Floats)](
        self,
        seen: Observation[Value],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Value:
        """Keep the last report."""
        return seen.epsilon

    def scalar_moves(self, n_active: int) -> ScalarMoves:  # noqa: ARG002
        """Return the rule for compiled play."""
        return ScalarMoves(keep_one, constant=True)


def keep_one(
    rho: float,  # noqa: ARG001
    others: float,  # noqa: ARG001
    own: float,
    planned: float,  # noqa: ARG001
    budget: float,  # noqa: ARG001
    epsilon_floor: float,  # noqa: ARG001
    parameters: tuple[()],  # noqa: ARG001
    remembered: float,
) -> tuple[float, float]:
    """Return the last report of one node."""
    return own, remembered
