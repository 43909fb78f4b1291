"""The facts about a run that stand in its ``run.json``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

import fcfn_abm
from fcfn_abm.game import nash_equilibrium
from fcfn_abm.mechanisms import MECHANISMS, Outcome

_LIBRARIES = (
    "mesa",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "pydantic",
    "torch",
    "scikit-learn",
    "opendp",
)


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    found = {"fcfn_abm": fcfn_abm.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def reference_facts(outcome: Outcome, rho: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the numbers of a mechanism's outcome, without the nodes'.

    ``tau`` and ``threshold`` belong to contests, and are zero elsewhere.
    """
    contested = MECHANISMS[outcome.mechanism].contested
    contest = nash_equilibrium(rho if contested else [], 1.0)  # any pool shows who takes part
    return {
        "mechanism": outcome.mechanism,
        "status": outcome.status,
        "reason": outcome.reason,
        "payment": outcome.server_payment,
        "n_active": outcome.n_active,
        "total_epsilon": float(outcome.epsilon.sum()),
        "mean_epsilon": outcome.mean_epsilon,
        "average_over": outcome.average_over,
        "tau": contest.tau,
        "threshold": contest.threshold,
        "node_utility": float(outcome.node_utility.sum()),
        "server_utility": outcome.server_utility,
    }
