"""Epsilon to noise: calibration, accounting, sensitivity; only `noise` uses torch."""

from fcfn_abm.dp.accounting import (
    multiplier_for_releases,
    spent_epsilon,
    spent_epsilon_of_runs,
)
from fcfn_abm.dp.adaptive_clipping import AdaptiveClipping
from fcfn_abm.dp.calibration import (
    Calibration,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_sigma,
)
from fcfn_abm.dp.ledger import Ledger, central_multipliers
from fcfn_abm.dp.sensitivity import Clipping, Relation, Sensitivity, Unit

__all__ = [
    "AdaptiveClipping",
    "Calibration",
    "Clipping",
    "Ledger",
    "Relation",
    "Sensitivity",
    "Unit",
    "central_multipliers",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_sigma",
    "multiplier_for_releases",
    "spent_epsilon",
    "spent_epsilon_of_runs",
]
