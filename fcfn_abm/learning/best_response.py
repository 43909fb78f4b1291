"""Damped best response: move part of the way to the best epsilon against the others' total."""

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

RECOVERY = 1.5  # how fast caution fades; from 2 on, simultaneous play of very unequal nodes cycles
STEEP = 0.25  # rho s / B, below which the slope of the best response is positive


@LEARNING_RULES.register("best-response")
class BestResponse(LearningRule):
    """Move the fraction ``gain`` of the way to the best response.

    With moves in turn, full steps (Cournot play) cycle if exactly two active nodes differ in cost
    by more than a factor 3 + 2 sqrt(2), and plain half steps do so from a factor of about 30.
    Cautious steps converge for every population. With simultaneous moves, play is stable below a
    gain of 4 / n only.
    """

    memory: ClassVar[Mapping[str, float]] = {"caution": 1.0}
    knows_terms: ClassVar[bool] = True

    gain: Gain | Literal["auto"] = 0.5
    """Fraction of the way, above 0 and up to 1; "auto" is 2 / n_active, at most 1/2, for
    simultaneous moves."""
    cautious: bool | None = None
    """Shorten the steps of a node that reacts steeply to the others, which is a node that dominates
    the market. By default true if ``gain`` is below 1."""

    @property
    def is_cautious(self) -> bool:
        """Whether steps are shortened."""
        return self.gain != 1.0 if self.cautious is None else self.cautious

    def gain_for(self, n_active: int) -> float:
        """Return the fraction of the way for this number of participants."""
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
            seen.recall("caution"),
        )
        return epsilon

    def _step_under_terms[Value: (float, Floats)](
        self, seen: Observation[Value], planned: Value
    ) -> Value:
        """Return the next report under other terms; only an unlimited best response can be steep.

        A report at the node's cap, or at the reserve, does not react to the others.
        """
        best, others, cap = (
            np.asarray(value, dtype=float) for value in (planned, seen.others, seen.cap)
        )
        inside = (best < cap) & (best > (seen.terms.reserve if seen.terms else 0.0))
        slope = reply_slope(best, others, seen.terms) if seen.terms else np.zeros_like(best)
        now = np.where(inside & (slope > 0), 1.0 / (1.0 + np.maximum(slope, 0.0)), 1.0)
        caution = np.minimum(now, seen.recall("caution") * RECOVERY)
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

    The slope of the best response in the others' total is ``sqrt(B / (rho s)) / 2 - 1``. A single
    low-cost node reacts to a high-cost one with a slope that grows with the ratio of their costs;
    steps proportional to 1 / (1 + slope) remove the ratio from the dynamics. A node stays cautious
    for some rounds after the slope was steep, because a high-cost node enters and leaves in
    between.
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
    """Return the next reports of many nodes, bitwise equal to `step_one`."""
    gain, cautious = parameters
    pull = others / budget * rho if budget > 0 else np.ones_like(rho)
    now = np.where((pull > 0.0) & (pull < STEEP), 2.0 * np.sqrt(pull), 1.0)
    caution = np.minimum(now, caution * RECOVERY)
    step = gain * (planned - own)
    return own + (step * caution if cautious else step), caution
