"""Agent-based simulation of incentive mechanisms for private federated learning.

All public names are listed here; each is imported on first use, so that
``import fcfn_abm`` is fast and loads neither torch nor Mesa.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fcfn_abm.build import load_costs, load_scenario
    from fcfn_abm.build.market import PrivacyMarket
    from fcfn_abm.dp import gaussian_delta, gaussian_epsilon, gaussian_sigma
    from fcfn_abm.environment import env
    from fcfn_abm.errors import FcfnError
    from fcfn_abm.game import (
        BayesNashEquilibrium,
        ContestEquilibrium,
        Equilibrium,
        StackelbergEquilibrium,
        Terms,
        bayes_nash_equilibrium,
        best_response,
        contest_equilibrium,
        exploitability,
        nash_equilibrium,
        node_utility,
        payments,
        search_best_cap,
        server_utility,
        stackelberg_equilibrium,
    )
    from fcfn_abm.mechanisms import Claims, Outcome, price
    from fcfn_abm.mechanisms.check import MechanismCheck, check_mechanism
    from fcfn_abm.plugins import Plugin, import_plugin
    from fcfn_abm.records import Record, read_record
    from fcfn_abm.report import figures as plot
    from fcfn_abm.report.plan import export_plan
    from fcfn_abm.runs.bench import Benchmark, read_bench, run_bench
    from fcfn_abm.runs.calibrate import ValueCalibration, calibrate_value
    from fcfn_abm.runs.compare import Comparison, compare_mechanisms
    from fcfn_abm.runs.report import write_report
    from fcfn_abm.runs.run import run_scenario
    from fcfn_abm.runs.sweep import run_sweep
    from fcfn_abm.runs.sweep_folder import Sweep, read_sweep
    from fcfn_abm.scenario import Scenario

__version__ = "0.1.0"

_HOMES = {
    "build": ["load_costs", "load_scenario"],
    "build.market": ["PrivacyMarket"],
    "dp": ["gaussian_delta", "gaussian_epsilon", "gaussian_sigma"],
    "environment": ["env"],
    "errors": ["FcfnError"],
    "game": [
        "BayesNashEquilibrium",
        "ContestEquilibrium",
        "Equilibrium",
        "StackelbergEquilibrium",
        "Terms",
        "bayes_nash_equilibrium",
        "best_response",
        "contest_equilibrium",
        "exploitability",
        "nash_equilibrium",
        "node_utility",
        "payments",
        "search_best_cap",
        "server_utility",
        "stackelberg_equilibrium",
    ],
    "mechanisms": ["Claims", "Outcome", "price"],
    "mechanisms.check": ["MechanismCheck", "check_mechanism"],
    "plugins": ["Plugin", "import_plugin"],
    "records": ["Record", "read_record"],
    "report.plan": ["export_plan"],
    "runs.bench": ["Benchmark", "read_bench", "run_bench"],
    "runs.calibrate": ["ValueCalibration", "calibrate_value"],
    "runs.compare": ["Comparison", "compare_mechanisms"],
    "runs.report": ["write_report"],
    "runs.run": ["run_scenario"],
    "runs.sweep": ["run_sweep"],
    "runs.sweep_folder": ["Sweep", "read_sweep"],
    "scenario": ["Scenario"],
}
_MODULES = {"plot": "report.figures"}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BayesNashEquilibrium",
    "Benchmark",
    "Claims",
    "Comparison",
    "ContestEquilibrium",
    "Equilibrium",
    "FcfnError",
    "MechanismCheck",
    "Outcome",
    "Plugin",
    "PrivacyMarket",
    "Record",
    "Scenario",
    "StackelbergEquilibrium",
    "Sweep",
    "Terms",
    "ValueCalibration",
    "bayes_nash_equilibrium",
    "best_response",
    "calibrate_value",
    "check_mechanism",
    "compare_mechanisms",
    "contest_equilibrium",
    "env",
    "exploitability",
    "export_plan",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_sigma",
    "import_plugin",
    "load_costs",
    "load_scenario",
    "nash_equilibrium",
    "node_utility",
    "payments",
    "plot",
    "price",
    "read_bench",
    "read_record",
    "read_sweep",
    "run_bench",
    "run_scenario",
    "run_sweep",
    "search_best_cap",
    "server_utility",
    "stackelberg_equilibrium",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = import_module(f"{__name__}.{_MODULES[name]}")
    elif name in _HOME_OF:
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
