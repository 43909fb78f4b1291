"""Who plays: laws of the unit privacy cost. Importing the package registers them all."""

from fcfn_abm.population.laws import RHO_LAWS, RhoLaw, draw_rho

__all__ = ["RHO_LAWS", "RhoLaw", "draw_rho"]
