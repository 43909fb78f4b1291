"""What it means: summaries and figures, from records alone."""

from fcfn_abm.report.figures import accuracy, convergence, rho_against_epsilon, write_figures
from fcfn_abm.report.summary import equilibrium_table, summary

__all__ = [
    "accuracy",
    "convergence",
    "equilibrium_table",
    "rho_against_epsilon",
    "summary",
    "write_figures",
]
