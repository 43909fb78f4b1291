"""A server that climbs its own utility by trial, without knowing or inferring any cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from fcfn_abm.learning.base import SERVER_RULES, RetryingServer, ServerObservation

_TURNS = (
    3  # of the nodes, in which a trial must be quiet: chance leaves out one in three of one turn
)
_REVIEW = 2  # trials in a row that did not pay, after which the best cap is tried again
_ROUNDING = 1e-15  # of what a utility is the difference of


@SERVER_RULES.register("gradient")
class ClimbUtility(RetryingServer):
    """Try a cap until the nodes have settled, keep it if it pays more, else turn round.

    A cap is held until its own utility (10), which is all that it uses, has settled, for at most
    ``longest_trial`` rounds. Steps grow while they pay and shrink by half when they do not, down to
    ``finest_step``, where the server stays. After two that do not it tries its best cap again: what
    that pays was measured less finely than the steps ask for by now.

    Near its top utility is flat: a step of h in ln(B) changes it by ``B**2 h**2 / (2 beta)``. That
    is what a trial has to tell, and utility has settled when it moves by far less in a round.
    """

    memory: ClassVar[Mapping[str, Any]] = {
        **RetryingServer.retries,
        "step": 0.0,  # signed, in ln(B); zero until the first trial
        "age": 0,  # rounds that this trial has lasted
        "quiet": 0,  # of them in a row in which utility had settled
        "last_utility": -np.inf,
        "best_budget": 0.0,
        "best_utility": -np.inf,
        "failures": 0,  # trials in a row that paid less
    }

    first_step: Annotated[float, Field(gt=0, le=2)] = 0.5
    """Size of the first step, in ln(B)."""
    finest_step: Annotated[float, Field(gt=0)] = 5e-4
    """The server stays where it is once steps are smaller, in ln(B)."""
    settled: Annotated[float, Field(gt=0)] = 1e-3
    """A trial is over when utility moves in a round by less than this share of what the trial has
    to tell: what is measured in a market that still moves misleads to the end."""
    longest_trial: Annotated[int, Field(ge=2)] = 100
    """Rounds after which a trial is over in any case; more where few nodes are asked in a round."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.first_step < self.finest_step:
            raise ValueError(
                f"finest_step must not exceed first_step, but {self.finest_step:g} > "
                f"{self.first_step:g}"
            )
        return self

    def content(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the steps are as fine as they get."""
        return 0.0 < abs(float(memory["step"])) < self.finest_step

    def next_budget(self, seen: ServerObservation) -> float:
        """Announce the next cap."""
        kept = seen.memory
        again = self.next_try(seen)
        if again is not None:
            return again
        size = abs(kept["step"]) or self.first_step
        if not is_trial_over(seen, seen.budget * size, self.settled, self.longest_trial):
            return seen.budget
        best = float(kept["best_budget"])
        if size < self.finest_step:
            return best
        kept["age"] = kept["quiet"] = 0
        step = float(kept["step"]) or -self.first_step
        if kept["failures"] == _REVIEW:  # the best cap was tried again, and judged more finely
            kept["best_utility"], kept["failures"] = seen.utility, 0
        elif seen.utility > kept["best_utility"]:
            kept["best_utility"], kept["best_budget"] = seen.utility, seen.budget
            best, kept["failures"] = seen.budget, 0
            step = float(np.clip(1.2 * step, -1.0, 1.0)) if kept["step"] else step
        else:
            step *= -0.5
            kept["failures"] += 1
        kept["step"] = step
        if abs(step) < self.finest_step or kept["failures"] == _REVIEW:
            return best
        return best * float(np.exp(step))


def is_trial_over(seen: ServerObservation, step: float, settled: float, longest: int) -> bool:
    """Return whether a cap has been held long enough to compare it with one a step away.

    Parameters
    ----------
    seen : ServerObservation
        Whose memory keeps ``age``, ``quiet`` and ``last_utility`` of the trial.
    step : float
        Distance of the caps, in currency: near its top utility differs by ``step**2 / (2 beta)``.
    settled : float
        Utility has settled when it moves in a round by less than this share of that.
    longest : int
        Rounds after which a trial is over in any case, where all nodes move in each.
    """
    kept = seen.memory
    n_quiet = 1 if seen.rounds_a_turn == 1 else _TURNS * seen.rounds_a_turn
    moved = abs(seen.utility - kept["last_utility"])
    kept["last_utility"], kept["age"] = seen.utility, kept["age"] + 1
    telling = step**2 / (2 * seen.beta)
    rounding = _ROUNDING * max(seen.budget, abs(seen.utility))
    kept["quiet"] = kept["quiet"] + 1 if moved <= max(settled * telling, rounding) else 0
    if kept["age"] >= longest * seen.rounds_a_turn:
        return True
    return bool(kept["age"] >= 2 and kept["quiet"] >= n_quiet)
