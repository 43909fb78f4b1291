"""Who plays: laws of the unit privacy cost, and who lies. Importing it registers the laws."""

from fcfn_abm.population.laws import RHO_LAWS, Divergence, RhoLaw, draw_rho
from fcfn_abm.population.misreport import misreport_factors

__all__ = ["RHO_LAWS", "Divergence", "RhoLaw", "draw_rho", "misreport_factors"]
