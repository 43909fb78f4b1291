"""From epsilon to noise: calibration, accounting, sensitivity; only `noise` imports torch."""

from fcfn_abm.dp.accounting import (
    multiplier_for_releases,
    multiplier_for_zcdp,
    spent_epsilon,
    spent_epsilon_of_runs,
    spent_zcdp,
)
from fcfn_abm.dp.adaptive_clipping import AdaptiveClipping
from fcfn_abm.dp.calibration import (
    Calibration,
    Currency,
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
    "Currency",
    "Ledger",
    "Relation",
    "Sensitivity",
    "Unit",
    "central_multipliers",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_sigma",
    "multiplier_for_releases",
    "multiplier_for_zcdp",
    "spent_epsilon",
    "spent_epsilon_of_runs",
    "spent_zcdp",
]
