"""What is run: the scenario tree and its files."""

from fcfn_abm.scenario.load import (
    apply_overrides,
    choices,
    read_scenario,
    read_toml,
    table_name,
    to_toml,
    tree_to_scenario,
)
from fcfn_abm.scenario.schema import (
    Axis,
    Choice,
    Churn,
    Event,
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
from fcfn_abm.scenario.shipped import copy_shipped, shipped_files
from fcfn_abm.scenario.sweep import SweepRun, sweep_runs

__all__ = [
    "Axis",
    "Choice",
    "Churn",
    "Event",
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
    "apply_overrides",
    "choices",
    "copy_shipped",
    "read_scenario",
    "read_toml",
    "shipped_files",
    "sweep_runs",
    "table_name",
    "to_toml",
    "tree_to_scenario",
]
