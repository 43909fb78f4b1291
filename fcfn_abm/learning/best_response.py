"""Damped best response: go part of the way to what would be best if all others stood still."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fcfn_abm.learning.base import LEARNING_RULES, Floats, LearningRule, Observation


@LEARNING_RULES.register("best-response")
class BestResponse(LearningRule):
    """Go the fraction ``gain`` of the way to the best response.

    Full steps in turn (Cournot play) cycle where just two active nodes differ in cost by more
    than a factor 3 + 2 sqrt(2); plain half steps do so from a factor of about 30 on. Cautious half
    steps settle for every population. All at once, play is stable below a gain of 4 / n only.
    """

    gain: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = 0.5
    """Fraction of the way; ``"auto"`` is 2 / n_active, for nodes that all move at once."""
    cautious: bool | None = None
    """Shorten the step of a node whose own reaction to the others is steep, which is one that
    dominates the market; by default, whenever ``gain`` is below 1."""

    def next_epsilon[Value: (float, Floats)](
        self,
        seen: Observation[Value],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Value:
        """Choose the epsilon of this round (22)."""
        gain = min(1.0, 2.0 / max(seen.n_active, 2)) if self.gain == "auto" else self.gain
        cautious = self.gain != 1.0 if self.cautious is None else self.cautious
        step = gain * (seen.best_response - seen.epsilon)
        return seen.epsilon + (_cautious(step, seen) if cautious else step)


def _cautious[Value: (float, Floats)](step: Value, seen: Observation[Value]) -> Value:
    """Shorten a step by 1 + the slope of the own best response in the others' total.

    The slope is ``sqrt(B / (rho s)) / 2 - 1``. A lone cheap node reacts to a dear one with a slope
    that grows with the ratio of their costs; steps in proportion to its inverse take the ratio
    out of the dynamics. A node that is quite alone has no slope, and steps as it would.
    """
    steepness = 4.0 * seen.rho * seen.others
    if isinstance(step, float):
        steep = 0.0 < steepness < seen.budget
        return step * math.sqrt(steepness / seen.budget) if steep else step
    steep = (steepness > 0.0) & (steepness < seen.budget)
    return step * np.sqrt(np.where(steep, steepness / (seen.budget or 1.0), 1.0))
