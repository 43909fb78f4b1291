"""Damped best response: go part of the way to what would be best if all others stood still."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fcfn_abm.learning.base import LEARNING_RULES, Floats, LearningRule, Observation


@LEARNING_RULES.register("best-response")
class BestResponse(LearningRule):
    """Go the fraction ``gain`` of the way to the best response.

    In turn, half steps settle for every population; full steps (Cournot play) can cycle when just
    two active nodes differ in cost by more than a factor 3 + 2 sqrt(2). All at once, play is
    stable below a gain of 4 / n only.
    """

    gain: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = 0.5
    """Fraction of the way; ``"auto"`` is 2 / n_active, for nodes that all move at once."""

    def next_epsilon[Value: (float, Floats)](
        self,
        seen: Observation[Value],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Value:
        """Choose the epsilon of this round (22)."""
        gain = min(1.0, 2.0 / max(seen.n_active, 2)) if self.gain == "auto" else self.gain
        return seen.epsilon + gain * (seen.best_response - seen.epsilon)
