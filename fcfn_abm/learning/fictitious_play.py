"""Fictitious play: respond to the others' average behaviour so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fcfn_abm.learning.base import LEARNING_RULES, Floats, LearningRule, News, Observation


@LEARNING_RULES.register("fictitious-play")
class FictitiousPlay(LearningRule):
    """Play the best response to the mean of the others' past totals per unit of the cap.

    Convergence is slow, because old rounds keep their weight, but averaging reduces noise.

    References
    ----------
    Brown 1951, "Iterative solution of games by fictitious play".
    """

    knows_terms: ClassVar[bool] = True
    memory: ClassVar[Mapping[str, float]] = {"mean_others": 0.0, "n_seen": 0.0}

    first_weight: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    """Weight of the first reports in the mean, in rounds."""

    def watches_total(self) -> bool:
        """Return False: the rule acts on what it learned from earlier rounds."""
        return False

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the best response to the mean."""
        return seen.reply(seen.budget * seen.recall("mean_others"))

    def learn(self, news: News) -> None:
        """Update the mean."""
        if news.budget == 0:
            return
        mean, n_seen = news.memory["mean_others"], news.memory["n_seen"]
        n_seen += np.where(n_seen == 0, self.first_weight, 1.0)
        weight = np.where(n_seen == self.first_weight, 1.0, 1.0 / n_seen)
        mean += weight * (news.others / news.budget - mean)
