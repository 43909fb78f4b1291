"""The paper's "learn each other's parameters": infer the others' costs, solve the game, answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fcfn_abm.game import nash_equilibrium
from fcfn_abm.learning.base import (
    LEARNING_RULES,
    Floats,
    LearningRule,
    News,
    Observation,
    Reports,
)
from fcfn_abm.scenario.schema import LARGEST


@LEARNING_RULES.register("estimate")
class Estimate(LearningRule):
    """Solve the game on what the reports reveal, and give the best response to that solution.

    All see the same reports and reason alike, so everybody knows which total ``s_j`` node j
    expected of the others when it moved. Its report was the best response to it, and the
    first-order condition gives its cost away: ``rho_j = B s_j / (s_j + eps_j)**2`` (15). Inverting
    (15) at the total that came about, instead of the one that was expected, is wrong before the
    equilibrium, and diverges from four nodes on. A node that reports zero has revealed a lower
    bound only, and counts as out until it enters.
    """

    memory: ClassVar[Mapping[str, float]] = {
        "estimated_rho": 0.0,  # zero: unknown
        "n_heard": 0.0,
        "expected_others": 0.0,  # per unit of B
    }
    needs: ClassVar[Reports] = "full"

    window: Annotated[int, Field(ge=1)] = 50
    """Over how many reports of a node its estimate averages; it forgets older ones."""

    def watches_total(self) -> bool:
        """Return False: it acts on what it learnt from the last round."""
        return False

    def planned[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the best response to what is expected of the others."""
        return seen.reply(seen.budget * seen.remembered("expected_others"))

    def learn(self, news: News) -> None:
        """Infer costs from the reports, and solve the game for what to expect."""
        if news.budget == 0 or news.reports is None:
            return
        rho, heard, expected = (news.memory[name] for name in self.memory)
        others = news.budget * expected
        revealing = news.moved & (news.reports > 0) & (others > 0)
        total = others[revealing] + news.reports[revealing]
        revealed = news.budget * (others[revealing] / total) / total
        heard[revealing] = np.minimum(heard[revealing] + 1, self.window)
        rho[revealing] += (revealed - rho[revealing]) / heard[revealing]
        silent = news.moved & (news.reports == 0) & (others > 0) & (rho > 0)
        rho[silent] = np.maximum(rho[silent], news.budget / others[silent])
        np.minimum(rho, LARGEST, out=rho)  # the silence of nodes that left would raise it for ever

        known = rho > 0
        expected[:] = news.others / news.budget  # where nothing better is known: as they were
        if np.count_nonzero(known) >= 2:
            form = nash_equilibrium(rho[known], 1.0)
            expected[:] = form.total_epsilon
            expected[known] -= form.epsilon
