"""Damped best response: go part of the way to what would be best if all others stood still."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from fcfn_abm.learning.base import LEARNING_RULES, Floats, LearningRule, Observation
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
        kept, best, before = seen.memory["caution"], seen.best_response, seen.remembered("caution")
        watch = caution_of if isinstance(best, float) else _cautions
        caution = watch(seen.rho, seen.others, seen.budget, before)
        kept[seen.row] = caution
        step = self.gain_for(seen.n_active) * (best - seen.epsilon)
        return seen.epsilon + (step * caution if self.is_cautious else step)


def caution_of(rho: float, others: float, budget: float, before: float) -> float:
    """Return the factor that shortens a node's step.

    The slope of the own best response in the others' total is ``sqrt(B / (rho s)) / 2 - 1``. A lone
    cheap node reacts to a dear one with a slope that grows with the ratio of their costs; steps in
    proportion to 1 / (1 + slope) take the ratio out of the dynamics. A node stays cautious for
    some rounds after the slope was steep, since a dear rival comes and goes in between.
    """
    pull = others / budget * rho if budget > 0 else 1.0
    now = 2.0 * math.sqrt(pull) if 0.0 < pull < STEEP else 1.0
    return min(now, before * RECOVERY)


def _cautions(rho: Floats, others: Floats, budget: float, before: Floats) -> Floats:
    """Return the factors of many nodes: the same digits as `caution_of`."""
    pull = others / budget * rho if budget > 0 else np.ones_like(rho)
    now = np.where((pull > 0.0) & (pull < STEEP), 2.0 * np.sqrt(pull), 1.0)
    return np.minimum(now, before * RECOVERY)
