"""Figures: each function takes tidy frames and returns the figure; saving is the caller's.

Notebooks reach them as ``fa.plot.convergence`` and so on; docs/gallery.md shows them all.
"""

from fcfn_abm.report.figures.market import (
    convergence,
    equilibrium,
    participation,
    rho_against_epsilon,
    utilities,
)
from fcfn_abm.report.figures.mechanisms import comparison
from fcfn_abm.report.figures.sweeps import sweep_outcome, sweep_overview
from fcfn_abm.report.figures.training import accuracy, ledger
from fcfn_abm.report.figures.value import calibration

__all__ = [
    "accuracy",
    "calibration",
    "comparison",
    "convergence",
    "equilibrium",
    "ledger",
    "participation",
    "rho_against_epsilon",
    "sweep_outcome",
    "sweep_overview",
    "utilities",
]
