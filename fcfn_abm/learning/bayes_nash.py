"""Bayes-Nash: each node knows its own cost, and only the distribution of the others' costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import BayesNashEquilibrium, bayes_nash_equilibrium
from fcfn_abm.game.bayes import count_cases, require_few_cases
from fcfn_abm.learning.base import LEARNING_RULES, Floats, LearningRule, News, Observation
from fcfn_abm.population import RhoDistribution
from fcfn_abm.scenario.schema import Positive

_MOST_TYPES, _FEW_CASES = 12, 25_000


@LEARNING_RULES.register("bayes-nash")
class BayesNash(LearningRule):
    """Sell the best epsilon on average over the others' possible costs, without observing reports.

    All nodes know the distribution of costs and the number of nodes; each also knows its own cost.
    The distribution is a few types with probabilities. A node with the cost of a type plays the
    symmetric Bayes-Nash equilibrium; a node with another cost plays the best response to it. The
    market is therefore constant from the first round on. It is not a Nash equilibrium of the drawn
    costs: a node that observed all reports would gain by moving.

    References
    ----------
    Fey 2008, "Rent-seeking contests with incomplete information".
    """

    memory: ClassVar[Mapping[str, float]] = {
        "known_rho": 0.0,  # cost for which the next entry was computed; zero: none
        "unit_epsilon": 0.0,  # epsilon that the node sells at a cap of one
    }
    rests_at_equilibrium: ClassVar[bool] = False

    types: Annotated[tuple[Positive, ...], Field(strict=False)] = ()
    """Possible unit privacy costs of a node, in currency per unit of epsilon. By default those of
    the population's distribution."""
    probabilities: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(strict=False)
    ] = ()
    """Probability of each type; must sum to one."""
    n_types: Annotated[int, Field(ge=1, le=50)] | None = None
    """Number of equally likely types into which a distribution with more distinct costs is divided.
    By default the largest number, up to twelve, with at most 25,000 combinations of the others'
    types."""
    n_nodes: Annotated[int, Field(ge=2)] | None = None
    """Number of nodes that share the cap. By default population.n_nodes, also with churn."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.types) != len(self.probabilities):
            raise ValueError("types and probabilities must have the same length")
        if self.types and abs(sum(self.probabilities) - 1.0) > 1e-9:
            raise ValueError(
                f"probabilities must sum to one, but sum to {sum(self.probabilities):g}"
            )
        if len(set(self.types)) != len(self.types):
            raise ValueError("types must be distinct; merge equal types into one")
        return self

    def for_population(self, distribution: RhoDistribution | None, n_nodes: int) -> LearningRule:
        """Return the rule with the types of a distribution, if none are listed.

        Raises
        ------
        InvalidGameError
            If the distribution has no probabilities of costs, or there are too many combinations of
            the other nodes' types.
        """
        types, probabilities = self.types, self.probabilities
        n_nodes = self.n_nodes or n_nodes
        if not types:
            if distribution is None:
                raise InvalidGameError(
                    "'bayes-nash' needs one distribution of costs, but groups have their own: list "
                    "types and probabilities."
                )
            found = distribution.list_types(self.n_types or _choose_count(n_nodes))
            types, probabilities = (tuple(values.tolist()) for values in found)
        require_few_cases(n_nodes, len(types))
        return replace(self, types=types, probabilities=probabilities, n_nodes=n_nodes)  # type: ignore[type-var]

    @property
    def solution(self) -> BayesNashEquilibrium:
        """The equilibrium at a cap of one; it is proportional to the cap."""
        if not self.types or self.n_nodes is None:
            raise InvalidGameError(
                "'bayes-nash' needs types, probabilities and n_nodes, unless it is created from a "
                "scenario."
            )
        return _solve(self.types, self.probabilities, self.n_nodes)

    def watches_total(self) -> bool:
        """Return False: the rule uses no report."""
        return False

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the best epsilon on average over the others' costs."""
        return seen.budget * seen.recall("unit_epsilon")

    def learn(self, news: News) -> None:
        """Compute the best epsilon for the node's own cost, if it has changed."""
        known, unit = news.memory["known_rho"], news.memory["unit_epsilon"]
        new = known != news.rho
        if new.any():
            unit[new] = self.solution.reply(news.rho[new])
            known[new] = news.rho[new]


def _choose_count(n_nodes: int) -> int:
    """Return the largest number of types with few enough combinations of the others' types."""
    return max(k for k in range(1, _MOST_TYPES + 1) if count_cases(n_nodes, k) <= _FEW_CASES)


@lru_cache(maxsize=64)
def _solve(
    types: tuple[float, ...], probabilities: tuple[float, ...], n_nodes: int
) -> BayesNashEquilibrium:
    return bayes_nash_equilibrium(np.array(types), np.array(probabilities), n_nodes, 1.0)
