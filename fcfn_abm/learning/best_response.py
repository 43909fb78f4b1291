"""Damped best response: go part of the way to what would be best if all others stood still."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from fcfn_abm.learning.base import LEARNING_RULES, Floats, LearningRule, Observation

_RECOVERY = 1.5  # how fast caution fades; from 2 on, simultaneous play of very unlike nodes cycles


@LEARNING_RULES.register("best-response")
class BestResponse(LearningRule):
    """Go the fraction ``gain`` of the way to the best response.

    Full steps in turn (Cournot play) cycle where just two active nodes differ in cost by more
    than a factor 3 + 2 sqrt(2), and plain half steps do so from a factor of about 30 on. Cautious
    steps settle for every population. All at once, play is stable below a gain of 4 / n only.
    """

    memory: ClassVar[Mapping[str, float]] = {"caution": 1.0}

    gain: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = 0.5
    """Fraction of the way; ``"auto"`` is 2 / n_active, at most 1/2, for moves all at once."""
    cautious: bool | None = None
    """Shorten the steps of a node whose own reaction to the others is steep, which is one that
    dominates the market; by default, whenever ``gain`` is below 1."""

    def next_epsilon[Value: (float, Floats)](
        self,
        seen: Observation[Value],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Value:
        """Choose the epsilon of this round (22)."""
        gain = min(0.5, 2.0 / max(seen.n_active, 1)) if self.gain == "auto" else self.gain
        step = gain * (seen.best_response - seen.epsilon)
        cautious = self.gain != 1.0 if self.cautious is None else self.cautious
        return seen.epsilon + (step * _caution(seen) if cautious else step)


def _caution[Value: (float, Floats)](seen: Observation[Value]) -> Value:
    """Return the factor that shortens a step, and remember it.

    The slope of the own best response in the others' total is ``sqrt(B / (rho s)) / 2 - 1``. A lone
    cheap node reacts to a dear one with a slope that grows with the ratio of their costs; steps in
    proportion to 1 / (1 + slope) take the ratio out of the dynamics. A node stays cautious for
    some rounds after the slope was steep, since a dear rival comes and goes in between.
    """
    kept = seen.memory["caution"]
    steepness = 4.0 * seen.rho * seen.others
    if isinstance(steepness, float):
        flat = not 0.0 < steepness < seen.budget
        now = 1.0 if flat else math.sqrt(steepness / seen.budget)
        kept[seen.row] = caution = min(now, float(kept[seen.row]) * _RECOVERY)
        return caution
    steep = (steepness > 0.0) & (steepness < seen.budget)
    many = np.sqrt(np.where(steep, steepness / (seen.budget or 1.0), 1.0))
    kept[seen.row] = many = np.minimum(many, kept[seen.row] * _RECOVERY)
    return many
