"""The nodes: distributions of the unit privacy cost, misreports, manipulation and churn.

Importing the package registers the distributions.
"""

from fcfn_abm.population.churn import draw_newcomer_costs, draw_turnover, drift_costs
from fcfn_abm.population.costs_file import Csv, NodeCosts
from fcfn_abm.population.distributions import (
    RHO_DISTRIBUTIONS,
    Divergence,
    RhoDistribution,
    draw_rho,
    require_sized,
)
from fcfn_abm.population.misreport import draw_misreport_factors
from fcfn_abm.population.population import Group, Holdings, Population
from fcfn_abm.population.room import require_room

__all__ = [
    "RHO_DISTRIBUTIONS",
    "Csv",
    "Divergence",
    "Group",
    "Holdings",
    "NodeCosts",
    "Population",
    "RhoDistribution",
    "draw_misreport_factors",
    "draw_newcomer_costs",
    "draw_rho",
    "draw_turnover",
    "drift_costs",
    "require_room",
    "require_sized",
]
