"""Gradient play: a step along the slope of a node's own utility."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

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


@LEARNING_RULES.register("gradient")
class Gradient(LearningRule):
    """Climb the node's own utility in small steps.

    The slope ``B s / S**2 - rho`` (15) is measured in units of the node's cost, and the step in
    units of S / 2, the inverse curvature at rest: ``gain = 1`` is then a Newton step there, at any
    scale of costs and caps. Under other forms of the cost the step is that of Newton's method for
    the node's own utility, with the same damping.
    """

    knows_terms: ClassVar[bool] = True

    gain: Gain | Literal["auto"] = 0.5
    """Step size; "auto" is 2 / n_active, at most 1/2, for simultaneous moves."""

    def next_epsilon[Value: (float, Floats)](
        self,
        seen: Observation[Value],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Value:
        """Choose the epsilon of this round."""
        gain = self.gain_for(seen.n_active)
        if seen.terms is not None:
            return self._climb_under(seen.terms, seen, gain)
        if isinstance(seen.epsilon, float):
            best, floor = seen.best_response, seen.epsilon_floor
            own = (seen.rho, seen.others, seen.epsilon, best, seen.budget, floor)
            return climb_one(*own, (gain,), 0.0)[0]
        standing = seen.others + seen.epsilon
        total = np.maximum(standing, seen.epsilon_floor)
        slope = (seen.budget / seen.rho) * (seen.others / total) / total - 1.0
        step = np.clip(0.5 * gain * slope, -0.5, 1.0) * total  # the slope is unbounded
        moved = np.maximum(seen.epsilon + step, 0.0)
        return np.where((seen.others <= 0) | (standing <= 0), seen.best_response, moved)

    def refuses(self, terms: Terms) -> str:
        """Return why the rule does not support some terms: those with misleading slopes."""
        if terms.form.is_convex:
            return ""
        return "with cost = 'sqrt' the slope of a node's utility does not lead to its best response"

    def _climb_under[Value: (float, Floats)](
        self, terms: Terms, seen: Observation[Value], gain: float
    ) -> Value:
        """Return the next report under other terms, with the slope ``B s / S**2 / rho - k'``."""
        own, others = (
            np.atleast_1d(np.asarray(v, dtype=float)) for v in (seen.epsilon, seen.others)
        )
        total = np.maximum(others + own, seen.epsilon_floor)
        slope = (seen.budget / seen.rho) * (others / total) / total - terms.form.slope(own)
        with np.errstate(over="ignore"):
            bend = 2.0 * terms.form.slope(own) / total + terms.form.curvature(own)
        step = np.clip(gain * slope / bend, -0.5 * total, total)
        chosen: Any = np.where(
            (others <= 0) | (others + own <= 0), seen.best_response, np.maximum(own + step, 0.0)
        )
        return chosen.item() if isinstance(seen.epsilon, float) else chosen  # type: ignore[no-any-return]

    def gain_for(self, n_active: int) -> float:
        """Return the step size for this number of participants."""
        return min(0.5, 2.0 / max(n_active, 1)) if self.gain == "auto" else self.gain

    def scalar_moves(self, n_active: int) -> ScalarMoves:
        """Return the rule for compiled play."""
        constant = self.gain != "auto"
        return ScalarMoves(climb_one, parameters=(self.gain_for(n_active),), constant=constant)


def climb_one(
    rho: float,
    others: float,
    own: float,
    best: float,
    budget: float,
    epsilon_floor: float,
    parameters: tuple[float],
    remembered: float,
) -> tuple[float, float]:
    """Return the next report of one node, bitwise equal to that of many.

    A node that is alone moves to ``best``, its best response, because there is no slope.
    """
    (gain,) = parameters
    standing = others + own
    if others <= 0 or standing <= 0:
        return best, remembered
    total = max(standing, epsilon_floor)
    slope = (budget / rho) * (others / total) / total - 1.0
    return max(own + min(max(0.5 * gain * slope, -0.5), 1.0) * total, 0.0), remembered
