"""A server that finds its best cap as a bandit: it compares caps with confidence, and narrows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from fcfn_abm.learning.base import SERVER_RULES, Reading, ServerObservation, ServerRule
from fcfn_abm.learning.server_gradient import hold_trial

_POSITIONS = np.array([0.25, 0.5, 0.75])  # of the caps that are tried, in the interval
_UP_AND_DOWN = (0, 1, 2, 2, 1, 0)  # what is left of the cap before acts both ways, and cancels


@SERVER_RULES.register("bandit")
class Bandit(ServerRule):
    """Narrow an interval of caps, from (0, beta) on, by trials at its quarter points.

    Its own utility is all that it uses: no report, no cost, and no form of either, but that utility
    has one peak over the caps, which lies below beta (41). Each of the three caps is held until
    utility has settled, or for ``longest_trial`` rounds, and then counts with the mean of the later
    half of these. The three are tried again until two of them differ by more than ``confidence``
    standard errors, as their own trials scatter: the peak is then not beyond the worse one. Where
    utility rises or falls over all three, the interval moves that way while it shrinks, so that it
    can still come to a peak less than its width outside. It stays in the middle of an interval of
    relative width ``finest``.

    References
    ----------
    Agarwal, Foster, Hsu, Kakade and Rakhlin 2011, "Stochastic convex optimization with bandit
    feedback", section 3: the quarter points of an interval, in one dimension, with a regret of the
    order of sqrt(T) after T trials.
    """

    searches: ClassVar[bool] = True
    sees_measured_value: ClassVar[bool] = True
    memory: ClassVar[Mapping[str, Any]] = {
        "low": 0.0,
        "high": 0.0,  # zero before the first trial
        "trial": 0,  # how many are over in this interval
        "utilities": ((), (), ()),  # of them, by cap
        "age": 0,  # rounds that this trial has lasted
        "quiet": 0,  # of them in a row in which utility had settled
        "last_utility": -math.inf,
        "late_sum": 0.0,  # of utility in the later half of the longest trial
        "n_late": 0,
    }

    finest: Annotated[float, Field(gt=0, le=0.5)] = 1e-3
    """The server stays in the middle of an interval of this width, relative to its upper end."""
    confidence: Annotated[float, Field(gt=0, le=100)] = 3.0
    """Standard errors by which two caps must differ."""
    settled: Annotated[float, Field(gt=0)] = 1e-2
    """A trial is over when utility moves in a round by less than this share of what the trial has
    to tell: a quarter of the interval away from its peak, utility is lower by that."""
    longest_trial: Annotated[int, Field(ge=2)] = 60
    """Rounds after which a trial is over in any case; more where few nodes are asked in a round."""

    def content(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the interval is as narrow as it gets."""
        low, high = memory["low"], memory["high"]
        return bool(high > 0 and high - low <= self.finest * high)

    def next_budget(self, seen: ServerObservation) -> float:
        """Announce the next cap."""
        kept = seen.memory
        if seen.budget == 0:
            return 0.0  # no cap pays
        if kept["high"] == 0:
            kept["high"] = seen.beta
        elif not self.content(kept):
            step = (kept["high"] - kept["low"]) / 4
            reading = Reading(seen.budget, seen.utility, seen.alpha, seen.beta, seen.rounds_a_turn)
            over, kept["age"], kept["quiet"] = hold_trial(
                reading,
                step,
                self.settled,
                self.longest_trial,
                kept["last_utility"],
                kept["age"],
                kept["quiet"],
            )
            kept["last_utility"] = seen.utility
            if kept["age"] > self.longest_trial * seen.rounds_a_turn / 2:
                kept["late_sum"] += seen.utility
                kept["n_late"] += 1
            if not over:
                return seen.budget
            self._end_trial(seen)
        low, width = kept["low"], kept["high"] - kept["low"]
        if self.content(kept):
            return float(low + width / 2)
        cap = _UP_AND_DOWN[kept["trial"] % len(_UP_AND_DOWN)]
        return float(low + width * _POSITIONS[cap])

    def _end_trial(self, seen: ServerObservation) -> None:
        """Take in what a trial has shown, and narrow the interval if that is enough."""
        kept = seen.memory
        restless = kept["quiet"] == 0 and kept["n_late"] > 0
        utility = kept["late_sum"] / kept["n_late"] if restless else seen.utility
        tried = _UP_AND_DOWN[kept["trial"] % len(_UP_AND_DOWN)]
        kept["utilities"] = tuple(
            (*known, utility) if cap == tried else known
            for cap, known in enumerate(kept["utilities"])
        )
        kept.update(trial=kept["trial"] + 1, age=0, quiet=0, late_sum=0.0, n_late=0)
        if kept["trial"] % len(_UP_AND_DOWN):
            return
        narrowed = self._narrow(kept["low"], kept["high"], np.array(kept["utilities"]))
        if narrowed is not None:
            low, high = narrowed
            kept.update(low=max(low, 0.0), high=min(high, seen.beta), trial=0)
            kept["utilities"] = self.memory["utilities"]

    def _narrow(
        self, low: float, high: float, utilities: np.ndarray[Any, np.dtype[np.float64]]
    ) -> tuple[float, float] | None:
        """Return the next interval, if the trials, shape (3, n), tell where the peak is."""
        n_trials = utilities.shape[1]
        spread = math.sqrt(utilities.var(axis=1, ddof=1).mean())
        enough = self.confidence * spread * math.sqrt(2 / n_trials)
        left, middle, right = utilities.mean(axis=1)
        quarter = (high - low) / 4
        if right - middle > enough:
            return low + 2 * quarter, high + quarter
        if left - middle > enough:
            return low - quarter, high - 2 * quarter
        drop_left = max(middle, right) - left > enough
        drop_right = max(middle, left) - right > enough
        if not drop_left and not drop_right:
            return None
        return low + drop_left * quarter, high - drop_right * quarter
