"""Plug-ins that tests write to disk, and how to forget them."""

from fcfn_abm import plugins

RULE = """
from typing import Annotated
from pydantic import Field
from fcfn_abm.learning import LEARNING_RULES, LearningRule

@LEARNING_RULES.register("cautious")
class Cautious(LearningRule):
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.2

    def plan(self, seen):
        return (1 - self.margin) * seen.best_response
"""
MARKET = """
seed = 1
population = { n_nodes = 20, rho = { kind = "constant", value = 1.0 } }
game = { budget = 50.0 }
server = "fixed"
learning = "cautious"
rounds = { maximum = 60 }
"""


def total_epsilon(margin=0.2):
    """Where 20 cautious nodes with rho = 1 and B = 50 come to rest: see docs/plugins.md."""
    n, budget, keep = 20, 50.0, 1 - margin
    return n * keep**2 * budget * (n - 1) / (1 + keep * (n - 1)) ** 2


def forget_plugins():
    """Take back what plug-ins have registered in this process."""
    while plugins._imports:
        plugins._imports.popitem()[1].take_back()
