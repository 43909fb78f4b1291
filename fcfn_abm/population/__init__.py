"""Who plays: laws of the unit privacy cost, who lies, who comes and goes.

Importing it registers the laws.
"""

from fcfn_abm.population.churn import drifted, newcomer_costs, turnover
from fcfn_abm.population.distributions import RHO_LAWS, Divergence, RhoLaw, draw_rho, require_sized
from fcfn_abm.population.misreport import misreport_factors
from fcfn_abm.population.room import require_room

__all__ = [
    "RHO_LAWS",
    "Divergence",
    "RhoLaw",
    "draw_rho",
    "drifted",
    "misreport_factors",
    "newcomer_costs",
    "require_room",
    "require_sized",
    "turnover",
]
