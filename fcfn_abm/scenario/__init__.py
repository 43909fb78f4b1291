"""What is run: the scenario tree and its files."""

from fcfn_abm.scenario.load import (
    choices,
    overridden,
    read_toml,
    spot,
    to_toml,
    tree_to_scenario,
)
from fcfn_abm.scenario.schema import (
    Choice,
    Exit,
    Game,
    Information,
    Population,
    Privacy,
    RecordSettings,
    Rounds,
    Scenario,
    Training,
)

__all__ = [
    "Choice",
    "Exit",
    "Game",
    "Information",
    "Population",
    "Privacy",
    "RecordSettings",
    "Rounds",
    "Scenario",
    "Training",
    "choices",
    "overridden",
    "read_toml",
    "spot",
    "to_toml",
    "tree_to_scenario",
]
