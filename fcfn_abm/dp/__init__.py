"""Epsilon to noise: calibration, accounting, sensitivity; only `noise` and `audit` use torch."""

from fcfn_abm.dp.accounting import multiplier_for_releases, spent_epsilon
from fcfn_abm.dp.calibration import (
    Calibration,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_sigma,
)
from fcfn_abm.dp.sensitivity import Clipping, Relation, Sensitivity, Unit

__all__ = [
    "Calibration",
    "Clipping",
    "Relation",
    "Sensitivity",
    "Unit",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_sigma",
    "multiplier_for_releases",
    "spent_epsilon",
]
