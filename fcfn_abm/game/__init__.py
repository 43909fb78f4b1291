"""The contest that is played in each round, as formulas on arrays; depends on NumPy only."""

from fcfn_abm.game.activity import LEAST_SHARE, takes_part
from fcfn_abm.game.bayes import BayesNashEquilibrium, bayes_nash_equilibrium
from fcfn_abm.game.best_response import EPSILON_FLOOR, best_response
from fcfn_abm.game.bounds import epsilon_ceiling, privacy_cost_ceiling
from fcfn_abm.game.contest import ContestEquilibrium, contest_equilibrium, contest_regret
from fcfn_abm.game.costs import CostForm, Terms, cost_of
from fcfn_abm.game.equilibrium import Equilibrium, nash_equilibrium
from fcfn_abm.game.leader import server_regret
from fcfn_abm.game.leader_search import LeaderSearch, search_best_cap
from fcfn_abm.game.payoffs import (
    exploitability,
    node_utility,
    payments,
    privacy_cost,
    server_utility,
)
from fcfn_abm.game.spending import RoundGain, spend_by_value, spend_evenly
from fcfn_abm.game.stackelberg import (
    AverageOver,
    StackelbergEquilibrium,
    averaged_nodes,
    best_budget,
    best_linear_budget,
    marginal_budget,
    stackelberg_equilibrium,
)
from fcfn_abm.game.tullock import tullock_equilibrium, tullock_reply
from fcfn_abm.game.welfare import (
    Welfare,
    gini,
    price_of_anarchy,
    rent_dissipation,
    social_optimum,
    social_welfare,
    welfare,
)

__all__ = [
    "EPSILON_FLOOR",
    "LEAST_SHARE",
    "AverageOver",
    "BayesNashEquilibrium",
    "ContestEquilibrium",
    "CostForm",
    "Equilibrium",
    "LeaderSearch",
    "RoundGain",
    "StackelbergEquilibrium",
    "Terms",
    "Welfare",
    "averaged_nodes",
    "bayes_nash_equilibrium",
    "best_budget",
    "best_linear_budget",
    "best_response",
    "contest_equilibrium",
    "contest_regret",
    "cost_of",
    "epsilon_ceiling",
    "exploitability",
    "gini",
    "marginal_budget",
    "nash_equilibrium",
    "node_utility",
    "payments",
    "price_of_anarchy",
    "privacy_cost",
    "privacy_cost_ceiling",
    "rent_dissipation",
    "search_best_cap",
    "server_regret",
    "server_utility",
    "social_optimum",
    "social_welfare",
    "spend_by_value",
    "spend_evenly",
    "stackelberg_equilibrium",
    "takes_part",
    "tullock_equilibrium",
    "tullock_reply",
    "welfare",
]
