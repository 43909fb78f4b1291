"""A custom learning rule: nodes that withhold a share of their best response."""

from typing import Annotated

from pydantic import Field

from fcfn_abm.learning import LEARNING_RULES, LearningRule


@LEARNING_RULES.register("cautious")
class Cautious(LearningRule):
    """Report less than the best response."""

    margin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the best response that a node withholds."""

    def plan(self, seen):
        """Return the next report."""
        return (1 - self.margin) * seen.best_response
