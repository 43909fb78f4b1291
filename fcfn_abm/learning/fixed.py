"""No learning at all: the control of every comparison."""

from __future__ import annotations

import numpy as np

from fcfn_abm.learning.base import LEARNING_RULES, Floats, LearningRule, Observation


@LEARNING_RULES.register("fixed")
class Fixed(LearningRule):
    """Report the same epsilon in every round."""

    def next_epsilon[Value: (float, Floats)](
        self,
        seen: Observation[Value],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Value:
        """Keep the last report."""
        return seen.epsilon
