"""A server that climbs its own utility by trials, without inferring any cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from fcfn_abm.learning.base import (
    SERVER_RULES,
    Reading,
    RetryingServer,
    ScalarServer,
    ServerObservation,
    choose_by_form,
    try_again,
)

_TURNS = 3  # turns of all nodes in which a trial must be calm: one turn misses a third by chance
_REVIEW = 2  # consecutive unsuccessful trials, after which the best cap is tried again
_STEP, _AGE, _QUIET, _LAST, _BEST_BUDGET, _BEST_UTILITY, _FAILURES = range(3, 10)
"""Indices in the memory of the form, after the retries."""
_FRESH = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -math.inf, 0.0, -math.inf, 0.0)
_ROUNDING = 1e-15  # relative rounding error of the terms of a utility


@SERVER_RULES.register("gradient")
class ClimbUtility(RetryingServer):
    """Try a cap until the nodes have settled, keep it if it pays more, otherwise turn round.

    A cap is held until the server's own utility (10), the only input, has settled, for at most
    ``longest_trial`` rounds. Steps grow while they pay and are halved when they do not, down to
    ``finest_step``, where the server stays. After two unsuccessful steps it tries its best cap
    again, because its utility was measured less precisely than the current steps require.

    Near its peak utility is flat: a step of h in ln(B) changes it by ``B**2 h**2 / (2 beta)``. A
    trial has to detect this difference, and utility has settled when it changes by far less per
    round.
    """

    memory: ClassVar[Mapping[str, Any]] = {
        **RetryingServer.retries,
        "step": _FRESH[_STEP],  # signed, in ln(B); zero until the first trial
        "age": _FRESH[_AGE],  # rounds of the current trial
        "quiet": _FRESH[_QUIET],  # consecutive rounds in which utility had settled
        "last_utility": _FRESH[_LAST],
        "best_budget": _FRESH[_BEST_BUDGET],
        "best_utility": _FRESH[_BEST_UTILITY],
        "failures": _FRESH[_FAILURES],  # consecutive trials that paid less
    }

    first_step: Annotated[float, Field(gt=0, le=2)] = 0.5
    """Size of the first step, in ln(B)."""
    finest_step: Annotated[float, Field(gt=0)] = 5e-4
    """Smallest step, in ln(B); the server then stays at its cap."""
    settled: Annotated[float, Field(gt=0)] = 1e-3
    """A trial ends when utility changes in a round by less than this share of the difference that
    it has to detect; measurements in a market that still moves are misleading."""
    longest_trial: Annotated[int, Field(ge=2)] = 100
    """Largest number of rounds of a trial; more if few nodes are asked per round."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.first_step < self.finest_step:
            raise ValueError(
                f"finest_step must not exceed first_step, but {self.finest_step:g} > "
                f"{self.first_step:g}"
            )
        return self

    def is_content(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the steps are below the smallest step."""
        return 0.0 < abs(float(memory["step"])) < self.finest_step

    def next_budget(self, seen: ServerObservation) -> float:
        """Announce the next cap."""
        reading = Reading(seen.budget, seen.utility, seen.alpha, seen.beta, seen.rounds_a_turn)
        return choose_by_form(self._form, reading, seen.memory)

    def scalar_server(self) -> ScalarServer:
        """Return the rule for compiled play."""
        return self._form

    @property
    def _form(self) -> ScalarServer:
        parameters = (self.first_step, self.finest_step, self.settled, float(self.longest_trial))
        return ScalarServer(climb_utility, is_step_fine, tuple(self.memory), parameters)


def climb_utility(
    seen: Reading, parameters: tuple[float, float, float, float], memory: Any
) -> float:
    """Return the next cap of a server that climbs its own utility."""
    first_step, finest_step, settled, longest_trial = parameters
    again = try_again(seen, memory, _FRESH)
    if again >= 0.0:
        return again
    begun = memory[_STEP] != 0.0
    size = abs(memory[_STEP]) if begun else first_step
    last, age, quiet = memory[_LAST], memory[_AGE], memory[_QUIET]
    over, memory[_AGE], memory[_QUIET] = hold_trial(
        seen, seen.budget * size, settled, longest_trial, last, age, quiet
    )
    memory[_LAST] = seen.utility
    if not over:
        return seen.budget
    best = memory[_BEST_BUDGET]
    if size < finest_step:
        return best  # type: ignore[no-any-return]
    memory[_AGE] = memory[_QUIET] = 0.0
    step = memory[_STEP] if begun else -first_step
    if memory[_FAILURES] == _REVIEW:  # the best cap was tried again, and measured more precisely
        memory[_BEST_UTILITY], memory[_FAILURES] = seen.utility, 0.0
    elif seen.utility > memory[_BEST_UTILITY]:
        memory[_BEST_UTILITY], memory[_BEST_BUDGET] = seen.utility, seen.budget
        best, memory[_FAILURES] = seen.budget, 0.0
        if begun:
            step = min(max(1.2 * step, -1.0), 1.0)
    else:
        step *= -0.5
        memory[_FAILURES] += 1.0
    memory[_STEP] = step
    if abs(step) < finest_step or memory[_FAILURES] == _REVIEW:
        return best  # type: ignore[no-any-return]
    return best * math.exp(step)  # type: ignore[no-any-return]


def is_step_fine(parameters: tuple[float, float, float, float], memory: Any) -> bool:
    """Return whether the steps are below the smallest step."""
    return 0.0 < abs(memory[_STEP]) < parameters[1]  # type: ignore[no-any-return]


def hold_trial(
    seen: Reading,
    step: float,
    settled: float,
    longest: float,
    last_utility: float,
    age: float,
    quiet: float,
) -> tuple[bool, float, float]:
    """Return whether a cap has been held long enough to compare it with one a step away.

    Parameters
    ----------
    seen : Reading
        Summary of the last round.
    step : float
        Distance of the caps, in currency: near the peak utilities differ by ``step**2 / (2 beta)``.
    settled : float
        Utility has settled when it changes in a round by less than this share of that difference.
    longest : float
        Largest number of rounds of a trial, if all nodes move in each round.
    last_utility, age, quiet : float
        Utility of the previous round, rounds of the trial so far, and consecutive rounds in which
        utility had settled.

    Returns
    -------
    over : bool
        Whether the trial has ended.
    age, quiet : float
        The same after this round.
    """
    n_quiet = 1 if seen.rounds_a_turn == 1 else _TURNS * seen.rounds_a_turn
    telling = step * step / (2.0 * seen.beta)
    rounding = _ROUNDING * max(seen.budget, abs(seen.utility))
    moved = abs(seen.utility - last_utility)
    age, quiet = age + 1.0, quiet + 1.0 if moved <= max(settled * telling, rounding) else 0.0
    if age >= longest * seen.rounds_a_turn:
        return True, age, quiet
    return age >= 2.0 and quiet >= n_quiet, age, quiet
