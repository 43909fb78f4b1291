"""What is run: the scenario tree and its files."""

from fcfn_abm.scenario.load import (
    choices,
    overridden,
    read_scenario,
    read_toml,
    spot,
    to_toml,
    tree_to_scenario,
)
from fcfn_abm.scenario.schema import (
    Axis,
    Choice,
    Exit,
    Game,
    Information,
    Population,
    Privacy,
    RecordSettings,
    Rounds,
    Scenario,
    SweepSettings,
    Training,
)
from fcfn_abm.scenario.sweep import SweepRun, sweep_runs

__all__ = [
    "Axis",
    "Choice",
    "Exit",
    "Game",
    "Information",
    "Population",
    "Privacy",
    "RecordSettings",
    "Rounds",
    "Scenario",
    "SweepRun",
    "SweepSettings",
    "Training",
    "choices",
    "overridden",
    "read_scenario",
    "read_toml",
    "spot",
    "sweep_runs",
    "to_toml",
    "tree_to_scenario",
]
