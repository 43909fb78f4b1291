"""What a rule may see, what it gives back, and the registries of rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from fcfn_abm.game import AverageOver
from fcfn_abm.game.best_response import reply_all, reply_one
from fcfn_abm.registry import Registry

type Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Observation[Value: (float, Floats)]:
    """What a node sees when it moves: floats for one node in turn, arrays for all at once."""

    rho: Value
    """Its own unit privacy cost, currency per unit of epsilon."""
    epsilon: Value
    """Its own last report."""
    others: Value
    """The sum of all other reports."""
    budget: float
    """The announced payment cap, in currency."""
    n_active: int
    """How many nodes took part in the last round."""
    epsilon_floor: float
    """Smallest admissible report."""
    row: int | slice = slice(None)
    """Whose entries of ``memory`` these are: one node's, or all."""
    memory: Mapping[str, Floats] = field(default_factory=dict)
    """What nodes keep from round to round, one array of shape (n,) for each name in
    :attr:`LearningRule.memory`; a rule reads and writes its ``row`` only."""

    @property
    def best_response(self) -> Value:
        """The epsilon that would be best if all others stood still (22)."""
        reply = reply_one if isinstance(self.others, float) else reply_all
        return reply(self.rho, self.others, self.budget, self.epsilon_floor)


class LearningRule(Protocol):
    """Turns what a node sees into its next epsilon, of the same shape and never negative."""

    memory: ClassVar[Mapping[str, float]] = {}
    """What each node keeps from round to round, with the value that it starts from."""

    def next_epsilon[Value: (float, Floats)](
        self, seen: Observation[Value], rng: np.random.Generator
    ) -> Value:
        """Choose the epsilon of this round."""
        ...


@dataclass(frozen=True, slots=True)
class ServerObservation:
    """What the server sees when it announces: the last round, as far as it was reported."""

    budget: float
    """The cap that it announced last, in currency."""
    epsilon: Floats
    """The reports that answered it, shape (n,)."""
    alpha: float
    """Its own model-value parameter, per unit of epsilon."""
    beta: float
    """Its own model-value parameter, in currency."""
    average_over: AverageOver
    """Which nodes eps_g averages over."""


class ServerRule(Protocol):
    """Turns what the server sees into the next payment cap, never negative."""

    def next_budget(self, seen: ServerObservation) -> float:
        """Choose the cap of this round, in currency."""
        ...


LEARNING_RULES: Registry[LearningRule] = Registry("learning rule")
SERVER_RULES: Registry[ServerRule] = Registry("server rule")
