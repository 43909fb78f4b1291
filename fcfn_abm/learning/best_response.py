"""Damped best response: go part of the way to what would be best if all others stood still."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from fcfn_abm.game.costs import reply_slope
from fcfn_abm.learning.base import (
    LEARNING_RULES,
    Floats,
    LearningRule,
    Observation,
    ScalarMoves,
)
from fcfn_abm.scenario.schema import Gain

RECOVERY = 1.5  # how fast caution fades; from 2 on, simultaneous play of very unlike nodes cycles
STEEP = 0.25  # rho s / B, below which the slope is above zero


@LEARNING_RULES.register("best-response")
class BestResponse(LearningRule):
    """Go the fraction ``gain`` of the way to the best response.

    Full steps in turn (Cournot play) cycle where just two active nodes differ in cost by more
    than a factor 3 + 2 sqrt(2), and plain half steps do so from a factor of about 30 on. Cautious
    steps settle for every population. All at once, play is stable below a gain of 4 / n only.
    """

    memory: ClassVar[Mapping[str, float]] = {"caution": 1.0}
    knows_terms: ClassVar[bool] = True

    gain: Gain | Literal["auto"] = 0.5
    """Fraction of the way; ``"auto"`` is 2 / n_active, at most 1/2, for moves all at once."""
    cautious: bool | None = None
    """Shorten the steps of a node whose own reaction to the others is steep, which is one that
    dominates the market; by default, whenever ``gain`` is below 1."""

    @property
    def is_cautious(self) -> bool:
        """Whether steps are shortened."""
        return self.gain != 1.0 if self.cautious is None else self.cautious

    def gain_for(self, n_active: int) -> float:
        """Return the fraction of the way when so many nodes take part."""
        return min(0.5, 2.0 / max(n_active, 1)) if self.gain == "auto" else self.gain

    def next_epsilon[Value: (float, Floats)](
        self,
        seen: Observation[Value],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Value:
        """Choose the epsilon of this round (22)."""
        if seen.terms is not None:
            return self._step_under_terms(seen, seen.best_response)
        step = step_one if isinstance(seen.epsilon, float) else _step_all
        epsilon, seen.memory["caution"][seen.row] = step(
            seen.rho,
            seen.others,
            seen.epsilon,
            seen.best_response,
            seen.budget,
            seen.epsilon_floor,
            (self.gain_for(seen.n_active), self.is_cautious),
            seen.remembered("caution"),
        )
        return epsilon

    def _step_under_terms[Value: (float, Floats)](
        self, seen: Observation[Value], planned: Value
    ) -> Value:
        """Return the next report under other terms: a steep reaction is that of the best response.

        A report at the most that a node can sell, or at the least that is paid, reacts to nothing.
        """
        best, others, cap = (
            np.asarray(value, dtype=float) for value in (planned, seen.others, seen.cap)
        )
        inside = (best < cap) & (best > (seen.terms.reserve if seen.terms else 0.0))
        slope = reply_slope(best, others, seen.terms) if seen.terms else np.zeros_like(best)
        now = np.where(inside & (slope > 0), 1.0 / (1.0 + np.maximum(slope, 0.0)), 1.0)
        caution = np.minimum(now, seen.remembered("caution") * RECOVERY)
        seen.memory["caution"][seen.row] = caution
        step = self.gain_for(seen.n_active) * (planned - seen.epsilon)
        chosen: Any = seen.epsilon + (step * caution if self.is_cautious else step)
        return float(chosen) if isinstance(seen.epsilon, float) else chosen  # type: ignore[no-any-return]

    def scalar_moves(self, n_active: int) -> ScalarMoves:
        """Return the rule for compiled play."""
        parameters = (self.gain_for(n_active), self.is_cautious)
        constant = self.gain != "auto"
        return ScalarMoves(step_one, parameters=parameters, memory="caution", constant=constant)


def step_one(
    rho: float,
    others: float,
    own: float,
    planned: float,
    budget: float,
    epsilon_floor: float,  # noqa: ARG001
    parameters: tuple[float, bool],
    caution: float,
) -> tuple[float, float]:
    """Return the next report of one node, and its caution, the factor that shortens its steps.

    The slope of the own best response in the others' total is ``sqrt(B / (rho s)) / 2 - 1``. A lone
    low-cost node reacts to a high-cost one with a slope that grows with the ratio of their costs;
    steps in proportion to 1 / (1 + slope) take the ratio out of the dynamics. A node stays cautious
    for some rounds after the slope was steep, since a high-cost node enters and leaves in between.
    """
    gain, cautious = parameters
    pull = others / budget * rho if budget > 0 else 1.0
    now = 2.0 * math.sqrt(pull) if 0.0 < pull < STEEP else 1.0
    caution = min(now, caution * RECOVERY)
    step = gain * (planned - own)
    return own + (step * caution if cautious else step), caution


def _step_all(
    rho: Floats,
    others: Floats,
    own: Floats,
    planned: Floats,
    budget: float,
    epsilon_floor: float,  # noqa: ARG001
    parameters: tuple[float, bool],
    caution: Floats,
) -> tuple[Floats, Floats]:
    """Return the next reports of many nodes: the same digits as `step_one`."""
    gain, cautious = parameters
    pull = others / budget * rho if budget > 0 else np.ones_like(rho)
    now = np.where((pull > 0.0) & (pull < STEEP), 2.0 * np.sqrt(pull), 1.0)
    caution = np.minimum(now, caution * RECOVERY)
    step = gain * (planned - own)
    return own + (step * caution if cautious else step), caution
