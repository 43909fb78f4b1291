"""The paper's "learn each other's parameters": infer the others' costs, solve the game, respond."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from fcfn_abm.game import Terms, contest_equilibrium, nash_equilibrium
from fcfn_abm.game.costs import marginal_cost
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
    """Solve the game for the costs that the reports reveal, and play the best response to it.

    All nodes see the same reports and reason alike, so that everybody knows which total ``s_j``
    node j expected of the others when it moved. Its report was the best response to that total, and
    the first-order condition reveals its cost: ``rho_j = B s_j / (s_j + eps_j)**2`` (15). Inverting
    (15) at the realized total, instead of the expected one, is wrong before the equilibrium, and
    diverges from four nodes on. A node that reports zero has revealed a lower bound only, and
    counts as out until it enters. Under other forms of the cost, which all nodes know, the same
    condition holds with the marginal cost; a node at its cap has revealed an upper bound only.
    """

    memory: ClassVar[Mapping[str, float]] = {
        "estimated_rho": 0.0,  # zero: unknown
        "n_heard": 0.0,
        "expected_others": 0.0,  # per unit of B
    }
    needs: ClassVar[Reports] = "full"
    knows_terms: ClassVar[bool] = True

    window: Annotated[int, Field(ge=1)] = 50
    """Number of a node's reports over which its estimate averages; older ones are forgotten."""

    def refuses(self, terms: Terms) -> str:
        """Return why the rule does not support some terms: those with several equilibria."""
        if terms.has_one_equilibrium:
            return ""
        return (
            "it solves the game on its estimates, which has more than one solution, or none, with "
            "a fixed cost, a reserve or cost = 'sqrt'"
        )

    def watches_total(self) -> bool:
        """Return False: the rule acts on what it learned from the last round."""
        return False

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the best response to the expected total of the others."""
        return seen.reply(seen.budget * seen.recall("expected_others"))

    def learn(self, news: News) -> None:
        """Infer costs from the reports, and solve the game for the expected totals."""
        if news.budget == 0 or news.reports is None:
            return
        if news.terms is not None:
            self._learn_under(news.terms, news)
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
        np.minimum(rho, LARGEST, out=rho)  # nodes that left would raise it without bound

        known = rho > 0
        expected[:] = news.others / news.budget  # without a better estimate: unchanged
        if np.count_nonzero(known) >= 2:
            form = nash_equilibrium(rho[known], 1.0)
            expected[:] = form.total_epsilon
            expected[known] -= form.epsilon

    def _learn_under(self, terms: Terms, news: News) -> None:
        """Infer costs and solve the game under terms other than the paper's."""
        reports: Any = news.reports
        rho, heard, expected = (news.memory[name] for name in self.memory)
        others, cap = news.budget * expected, terms.caps(rho.size)
        spoke = news.moved & (reports > 0) & (others > 0)
        revealed = np.zeros_like(rho)
        revealed[spoke] = marginal_cost(reports[spoke], others[spoke], news.budget, terms)
        inside, at_cap = spoke & (reports < cap), spoke & (reports >= cap)
        heard[inside] = np.minimum(heard[inside] + 1, self.window)
        rho[inside] += (revealed[inside] - rho[inside]) / heard[inside]
        known = np.where(rho > 0, rho, np.inf)
        rho[at_cap] = np.minimum(known, revealed)[at_cap]
        silent = news.moved & (reports == 0) & (others > 0) & (rho > 0)
        entry = terms.form.slope(np.zeros(1)).item()  # if zero, all nodes enter
        if entry > 0:
            rho[silent] = np.maximum(rho[silent], news.budget / others[silent] / entry)
        np.clip(rho, 0.0, LARGEST, out=rho)

        those = rho > 0
        expected[:] = news.others / news.budget
        if np.count_nonzero(those) >= 2:
            form = contest_equilibrium(rho[those], news.budget, terms.of(those))
            expected[:] = form.total_epsilon / news.budget
            expected[those] -= form.epsilon / news.budget
