"""The facts about a run that stand in its ``run.json``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import fcfn_abm
from fcfn_abm.game import StackelbergEquilibrium

_LIBRARIES = ("mesa", "numpy", "scipy", "pandas", "pyarrow", "pydantic", "torch", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    found = {"fcfn_abm": fcfn_abm.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def equilibrium_facts(form: StackelbergEquilibrium) -> dict[str, Any]:
    """Return the closed form's numbers, without the nodes'."""
    return {
        "budget": form.budget,
        "n_active": form.n_active,
        "total_epsilon": form.total_epsilon,
        "mean_epsilon": form.mean_epsilon,
        "average_over": form.average_over,
        "tau": form.tau,
        "threshold": form.threshold,
        "node_utility": float(form.utility.sum()),
        "server_utility": form.server_utility,
    }
