"""A server that climbs its own utility by trial, without knowing or inferring any cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from fcfn_abm.learning.base import SERVER_RULES, ServerObservation, ServerRule


@SERVER_RULES.register("gradient")
class ClimbUtility(ServerRule):
    """Try a cap until the nodes have settled, keep it if it pays more, else turn round.

    A cap is held until the market has settled, for at most ``longest_trial`` rounds. Steps grow
    while they pay and shrink by half when they do not, down to ``finest_step``, where the server
    stays. Uses its own utility alone (10). Takes some 450 rounds with half best responses.
    """

    memory: ClassVar[Mapping[str, Any]] = {
        "step": 0.0,  # signed, in ln(B); zero until the first trial
        "age": 0.0,  # rounds that this trial has lasted
        "last_total": 0.0,
        "best_budget": 0.0,
        "best_utility": -np.inf,
    }

    first_step: Annotated[float, Field(gt=0, le=2)] = 0.5
    """Size of the first step, in ln(B)."""
    finest_step: Annotated[float, Field(gt=0)] = 2e-3
    """The server stays where it is once steps are smaller, in ln(B)."""
    settled: Annotated[float, Field(gt=0)] = 1e-7
    """A trial is over when the total moves by less than this share of itself in a round. Utility is
    flat at its top: what is measured in a market that still moves misleads to the end."""
    longest_trial: Annotated[int, Field(ge=2)] = 100
    """Rounds after which a trial is over in any case."""

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
        size = abs(kept["step"]) or self.first_step
        total = float(seen.epsilon.sum())
        moved = abs(total - kept["last_total"]) / total if total > 0 else 0.0
        kept["last_total"], kept["age"] = total, kept["age"] + 1
        trial_over = kept["age"] >= 2 and moved <= self.settled
        if seen.budget == 0 or not (trial_over or kept["age"] >= self.longest_trial):
            return seen.budget
        best = float(kept["best_budget"])
        if size < self.finest_step:
            return best
        kept["age"] = 0.0
        step = float(kept["step"]) or -self.first_step
        if seen.utility > kept["best_utility"]:
            kept["best_utility"], kept["best_budget"] = seen.utility, seen.budget
            best = seen.budget
            step = float(np.clip(1.2 * step, -1.0, 1.0)) if kept["step"] else step
        else:
            step = -0.5 * step
        kept["step"] = step
        if abs(step) < self.finest_step:
            return best
        return best * float(np.exp(step))
