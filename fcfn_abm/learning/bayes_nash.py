"""Bayes-Nash: each node knows its own cost, and of the others the law of their costs alone."""

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
    """Sell what is best on average over what the others may cost, and look at no report.

    All nodes know from which law costs are drawn, and how many they are; each knows its own cost
    besides. The law is a few types with their probabilities. A node of a type plays the symmetric
    Bayes-Nash equilibrium; one whose cost lies between the types, the best response to it. So the
    market stands from the first round on. It is no Nash equilibrium of the costs that were drawn: a
    node that saw all reports would gain by moving.

    References
    ----------
    Fey 2008, "Rent-seeking contests with incomplete information".
    """

    memory: ClassVar[Mapping[str, float]] = {
        "known_rho": 0.0,  # for which the next was worked out; zero: for none
        "unit_epsilon": 0.0,  # what the node sells for a cap of one
    }
    rests_at_equilibrium: ClassVar[bool] = False

    types: Annotated[tuple[Positive, ...], Field(strict=False)] = ()
    """Costs that a node may have, in currency per unit of epsilon; without them, those of the
    population's distribution."""
    probabilities: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(strict=False)
    ] = ()
    """How likely each of them is; with the sum one."""
    n_types: Annotated[int, Field(ge=1, le=50)] | None = None
    """In how many equally likely types a distribution is divided that has more different costs;
    without it, in as many as leave 25,000 cases of what the others may be, twelve at most."""
    n_nodes: Annotated[int, Field(ge=2)] | None = None
    """How many nodes share the cap; without it, population.n_nodes, whoever comes and goes."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.types) != len(self.probabilities):
            raise ValueError("types and probabilities must have one length")
        if self.types and abs(sum(self.probabilities) - 1.0) > 1e-9:
            raise ValueError(
                f"probabilities must have the sum one, not {sum(self.probabilities):g}"
            )
        if len(set(self.types)) != len(self.types):
            raise ValueError("types must be distinct; add up the probabilities of equal ones")
        return self

    def for_population(self, distribution: RhoDistribution | None, n_nodes: int) -> LearningRule:
        """Return the rule with the types of a distribution, where none are listed.

        Raises
        ------
        InvalidGameError
            If the distribution does not say which costs are likely, or there are too many cases of
            what the others may be.
        """
        types, probabilities = self.types, self.probabilities
        n_nodes = self.n_nodes or n_nodes
        if not types:
            if distribution is None:
                raise InvalidGameError(
                    "'bayes-nash' needs one law of all costs, and groups have some of their own: "
                    "list types and probabilities."
                )
            found = distribution.list_types(self.n_types or _choose_count(n_nodes))
            types, probabilities = (tuple(values.tolist()) for values in found)
        require_few_cases(n_nodes, len(types))
        return replace(self, types=types, probabilities=probabilities, n_nodes=n_nodes)  # type: ignore[type-var]

    @property
    def solution(self) -> BayesNashEquilibrium:
        """The equilibrium at a cap of one, which is linear in the cap."""
        if not self.types or self.n_nodes is None:
            raise InvalidGameError(
                "'bayes-nash' needs types, probabilities and n_nodes; a scenario's market fills "
                "them in."
            )
        return _solve(self.types, self.probabilities, self.n_nodes)

    def watches_total(self) -> bool:
        """Return False: it looks at no report."""
        return False

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return what is best on average over the others' costs."""
        return seen.budget * seen.remembered("unit_epsilon")

    def learn(self, news: News) -> None:
        """Work out what is best for one's own cost, if that is new."""
        known, unit = news.memory["known_rho"], news.memory["unit_epsilon"]
        new = known != news.rho
        if new.any():
            unit[new] = self.solution.reply(news.rho[new])
            known[new] = news.rho[new]


def _choose_count(n_nodes: int) -> int:
    """Return how many types leave few enough cases of what the others may be."""
    return max(k for k in range(1, _MOST_TYPES + 1) if count_cases(n_nodes, k) <= _FEW_CASES)


@lru_cache(maxsize=64)
def _solve(
    types: tuple[float, ...], probabilities: tuple[float, ...], n_nodes: int
) -> BayesNashEquilibrium:
    return bayes_nash_equilibrium(np.array(types), np.array(probabilities), n_nodes, 1.0)
