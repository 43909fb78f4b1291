"""Fictitious play: answer what the others have done on average so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fcfn_abm.learning.base import LEARNING_RULES, Floats, LearningRule, News, Observation


@LEARNING_RULES.register("fictitious-play")
class FictitiousPlay(LearningRule):
    """Best response to the mean of the others' totals, each taken per unit of that round's cap.

    Slow, since old rounds never lose their weight; but averages wash out noise.

    References
    ----------
    Brown 1951, "Iterative solution of games by fictitious play".
    """

    knows_terms: ClassVar[bool] = True
    memory: ClassVar[Mapping[str, float]] = {"mean_others": 0.0, "n_seen": 0.0}

    first_weight: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    """How many rounds the first reports count for."""

    def watches_total(self) -> bool:
        """Return False: it acts on what it learnt in all rounds before."""
        return False

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the best response to the mean."""
        return seen.reply(seen.budget * seen.remembered("mean_others"))

    def learn(self, news: News) -> None:
        """Move the mean."""
        if news.budget == 0:
            return
        mean, n_seen = news.memory["mean_others"], news.memory["n_seen"]
        n_seen += np.where(n_seen == 0, self.first_weight, 1.0)
        weight = np.where(n_seen == self.first_weight, 1.0, 1.0 / n_seen)
        mean += weight * (news.others / news.budget - mean)
