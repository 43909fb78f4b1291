"""The registries of a scenario's choices, and how their entries are created."""

from __future__ import annotations

from typing import Any

from fcfn_abm.learning import LEARNING_RULES, SERVER_RULES
from fcfn_abm.mechanisms import MECHANISMS
from fcfn_abm.population import RHO_DISTRIBUTIONS
from fcfn_abm.registry import Registry
from fcfn_abm.scenario import Choice, Scenario
from fcfn_abm.training import (
    AGGREGATIONS,
    AVERAGINGS,
    DATASETS,
    NETS,
    PARTITIONS,
    PLACEMENTS,
    SERVER_OPTIMISERS,
)

REGISTRIES: dict[tuple[str, ...], Registry[Any]] = {
    ("population", "rho"): RHO_DISTRIBUTIONS,
    ("population", "groups", "rho"): RHO_DISTRIBUTIONS,
    ("population", "groups", "learning"): LEARNING_RULES,
    ("mechanism",): MECHANISMS,
    ("server",): SERVER_RULES,
    ("learning",): LEARNING_RULES,
    ("privacy", "placement"): PLACEMENTS,
    ("training", "data"): DATASETS,
    ("training", "net"): NETS,
    ("training", "partition"): PARTITIONS,
    ("training", "aggregation"): AGGREGATIONS,
    ("training", "server"): SERVER_OPTIMISERS,
    ("training", "averaging"): AVERAGINGS,
}
"""Registries by their place in a scenario; lists of tables without their numbers."""


def registry_at(place: tuple[str, ...]) -> Registry[Any]:
    """Return the registry of the choice at a place of a scenario.

    Examples
    --------
    >>> registry_at(("population", "groups", "0", "learning")).what
    'learning rule'
    """
    found = REGISTRIES.get(place)
    return found or REGISTRIES[tuple(part for part in place if not part.isdigit())]


def create(scenario: Scenario, place: tuple[str, ...], choice: Choice | None = None) -> Any:
    """Create the entry that a scenario names at ``place``, such as ``("training", "net")``."""
    if choice is None:
        choice = _find_choice(scenario, place)
    return registry_at(place).create(choice.kind, choice.options)


def _find_choice(scenario: Scenario, place: tuple[str, ...]) -> Choice:
    found: Any = scenario
    for part in place:
        found = found[int(part)] if isinstance(found, tuple) else getattr(found, part)
    if not isinstance(found, Choice):
        raise KeyError(place)
    return found
