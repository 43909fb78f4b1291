"""Base of the rules that try reports from a grid and learn from their payoffs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fcfn_abm.game import Terms
from fcfn_abm.game.costs import largest_reply
from fcfn_abm.learning.base import Floats, LearningRule, Memory, News, Observation, Start

type Levels = Annotated[int, Field(ge=2, le=200)]
type Smallest = Annotated[float, Field(gt=0, lt=1)]
type Rows = npt.NDArray[np.intp]

LARGEST_COST = 0.25  # cost of the largest report on the grid, as a share of B
_CERTAIN = 1e-6  # negligible probability of another action


class GridLearner(LearningRule):
    """Choose among a few reports at random, and learn from the node's own utility only.

    The grid is zero, and ``levels`` reports in a geometric sequence from ``B / (4 rho)`` down to
    the share ``smallest`` of it. No best response (22) exceeds ``B / (4 rho)``: a larger report
    earns less than that one whatever the others do. In these units an action has the same meaning
    at any cap, and utility lies between -B / 4 and B. Under other forms of the cost the largest
    report is the upper bound of best responses there, or the node's cap.

    Nodes draw the action of the next round when they learn from the last one, so that the order of
    moves does not matter, and all state is in their memory.
    """

    rests_at_equilibrium: ClassVar[bool] = False
    explores: ClassVar[bool] = True
    knows_terms: ClassVar[bool] = True

    levels: int
    smallest: float

    @property
    def shares(self) -> Floats:
        """The grid, as shares of B / (4 rho), ascending, shape (levels + 1,)."""
        return _create_grid(self.levels, self.smallest)

    @property
    def memory(self) -> Mapping[str, Start]:
        """Scores of the actions, the last action drawn, and the number of updates."""
        return {
            "score": (0.0,) * (self.levels + 1),
            "action": 0.0,
            "probability": 0.0,  # probability of the drawn action; zero before the first draw
            "n_tries": 0.0,
        }

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the report that was drawn."""
        share = self.shares[np.asarray(seen.recall("action"), dtype=np.intp)]
        if seen.terms is None:
            epsilon = share * (LARGEST_COST * seen.budget / seen.rho)
        else:
            epsilon = share * _largest(seen.rho, seen.budget, seen.terms, seen.cap)
        return float(epsilon) if isinstance(seen.epsilon, float) else epsilon

    def refuses(self, terms: Terms) -> str:
        """Return why the rule does not support some terms: those that its grid does not cover."""
        if terms.has_one_equilibrium:
            return ""
        return (
            "its grid of reports and their range of payoffs require a game without a fixed cost or "
            "a reserve, and a cost other than 'sqrt'"
        )

    def still_tries(self, memory: Memory) -> bool:
        """Return whether a node may still take another action than the drawn one."""
        return bool((memory["probability"] < 1.0 - _CERTAIN).any())

    def watches_total(self) -> bool:
        """Return False: reports are drawn after the last round."""
        return False

    def learn(self, news: News) -> None:
        """Learn from the payoff of the round's action, and draw the next one."""
        kept = news.memory
        action = kept["action"].astype(np.intp)
        if news.budget > 0:
            if news.terms is None:
                chosen = self.shares[action] * (LARGEST_COST * news.budget / news.rho)
            else:
                cap = news.terms.caps(action.size)
                chosen = self.shares[action] * _largest(news.rho, news.budget, news.terms, cap)
            # a node that had left did not play its drawn action
            tried = news.moved & (kept["probability"] > 0) & (news.epsilon == chosen)
            rows = np.flatnonzero(tried)
            kept["n_tries"][rows] += 1.0
            utility = np.clip(news.utility[rows] / news.budget, -LARGEST_COST, 1.0)
            self.update(kept, rows, action[rows], utility)
        probability = self.probabilities(kept)
        drawn = draw_actions(probability, news.chance)
        kept["action"][:] = drawn
        kept["probability"][:] = np.take_along_axis(probability, drawn[:, None], axis=1)[:, 0]

    @abstractmethod
    def update(self, kept: Mapping[str, Floats], rows: Rows, action: Rows, utility: Floats) -> None:
        """Update some nodes' scores with the payoff of an action, as a share of B."""

    @abstractmethod
    def probabilities(self, kept: Mapping[str, Floats]) -> Floats:
        """Return each node's probabilities of the actions, shape (n, levels + 1)."""


def _largest(rho: Any, budget: float, terms: Terms, cap: Any) -> Floats:
    """Return the largest report of the grid under other terms; it costs at most B / 4."""
    costs = np.asarray(rho, dtype=float)
    return largest_reply(costs, budget, terms, cap) if budget > 0 else np.zeros_like(costs)


@cache
def _create_grid(levels: int, smallest: float) -> Floats:
    return np.concatenate(([0.0], np.geomspace(smallest, 1.0, levels)))


def prefer_high(score: Floats, temperature: Floats) -> Floats:
    """Return probabilities proportional to ``exp(score / temperature)``, one row per node."""
    weight = np.exp((score - score.max(axis=1, keepdims=True)) / temperature[:, None])
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def draw_actions(probability: Floats, chance: Floats) -> Rows:
    """Return an action for each node, by inverting the cumulative probabilities."""
    upper = np.cumsum(probability, axis=1)
    drawn = np.count_nonzero(upper <= (chance * upper[:, -1])[:, None], axis=1)
    return np.asarray(np.minimum(drawn, probability.shape[1] - 1))  # against rounding
