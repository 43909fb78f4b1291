"""The contest that is played once a round, in formulas on arrays; NumPy only."""

from fcfn_abm.game.best_response import EPSILON_FLOOR, best_response
from fcfn_abm.game.equilibrium import Equilibrium, nash_equilibrium
from fcfn_abm.game.payoffs import (
    exploitability,
    node_utility,
    payments,
    privacy_cost,
    server_utility,
)
from fcfn_abm.game.stackelberg import (
    AverageOver,
    StackelbergEquilibrium,
    averaged_nodes,
    best_budget,
    stackelberg_equilibrium,
)

__all__ = [
    "EPSILON_FLOOR",
    "AverageOver",
    "Equilibrium",
    "StackelbergEquilibrium",
    "averaged_nodes",
    "best_budget",
    "best_response",
    "exploitability",
    "nash_equilibrium",
    "node_utility",
    "payments",
    "privacy_cost",
    "server_utility",
    "stackelberg_equilibrium",
]
