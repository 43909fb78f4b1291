"""A server that finds its best cap as a bandit, by statistical comparison of caps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from fcfn_abm.learning.base import SERVER_RULES, Reading, ServerObservation, ServerRule
from fcfn_abm.learning.server_gradient import hold_trial

_POSITIONS = np.array([0.25, 0.5, 0.75])  # of the tried caps, in the interval
_UP_AND_DOWN = (0, 1, 2, 2, 1, 0)  # carry-over from the previous cap acts both ways, and cancels


@SERVER_RULES.register("bandit")
class Bandit(ServerRule):
    """Narrow an interval of caps, starting with (0, beta), by trials at its quarter points.

    The rule uses only the server's own utility: no report, no cost, and no functional form, except
    that utility has a single peak in the cap, which lies below beta (41). Each of the three caps is
    held until utility has settled, or for ``longest_trial`` rounds, and is valued at the mean of
    the later half of these. The three are tried again until two of them differ by more than
    ``confidence`` standard errors, estimated from their own trials: the peak is then not beyond the
    worse one. If utility rises or falls over all three, the interval moves that way while it
    shrinks, so that it can still reach a peak less than its width outside. The rule stays in the
    middle of an interval of relative width ``finest``.

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
        "trial": 0,  # completed trials in this interval
        "utilities": ((), (), ()),  # of these trials, by cap
        "age": 0,  # rounds of the current trial
        "quiet": 0,  # consecutive rounds in which utility had settled
        "last_utility": -math.inf,
        "late_sum": 0.0,  # sum of utility in the later half of the longest trial
        "n_late": 0,
    }

    finest: Annotated[float, Field(gt=0, le=0.5)] = 1e-3
    """Smallest width of the interval, relative to its upper end; the server then stays in its
    middle."""
    confidence: Annotated[float, Field(gt=0, le=100)] = 3.0
    """Number of standard errors by which two caps must differ."""
    settled: Annotated[float, Field(gt=0)] = 1e-2
    """A trial ends when utility changes in a round by less than this share of the difference that
    it has to detect: that between the peak and a quarter of the interval away from it."""
    longest_trial: Annotated[int, Field(ge=2)] = 60
    """Largest number of rounds of a trial; more if few nodes are asked per round."""

    def is_content(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the interval has its smallest width."""
        low, high = memory["low"], memory["high"]
        return bool(high > 0 and high - low <= self.finest * high)

    def next_budget(self, seen: ServerObservation) -> float:
        """Announce the next cap."""
        kept = seen.memory
        if seen.budget == 0:
            return 0.0  # no cap pays
        if kept["high"] == 0:
            kept["high"] = seen.beta
        elif not self.is_content(kept):
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
        if self.is_content(kept):
            return float(low + width / 2)
        cap = _UP_AND_DOWN[kept["trial"] % len(_UP_AND_DOWN)]
        return float(low + width * _POSITIONS[cap])

    def _end_trial(self, seen: ServerObservation) -> None:
        """Add the result of a trial, and narrow the interval if the results suffice."""
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
        """Return the next interval, if the trials, shape (3, n), determine where the peak is."""
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
