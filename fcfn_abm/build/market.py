"""The market of a scenario: a Mesa model, built from the parts that the scenario names."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcfn_abm.abm import GroupRules, Market, MarketRules
from fcfn_abm.abm.rules import NodeClass
from fcfn_abm.build.check import check_settings
from fcfn_abm.build.load import set_keys
from fcfn_abm.build.parts import (
    adapt_mechanism,
    create_learning,
    create_mechanism,
    draw_population,
    list_groups,
)
from fcfn_abm.build.registries import create
from fcfn_abm.errors import InvalidGameError, as_floats
from fcfn_abm.plugins import find_object
from fcfn_abm.population import Population, require_sized
from fcfn_abm.rng import Chance, as_seed
from fcfn_abm.scenario import Scenario
from fcfn_abm.scenario.load import require_scenario


class PrivacyMarket(Market):
    """The market of a scenario: edge nodes that sell privacy to a parameter server.

    See :class:`fcfn_abm.abm.Market` for its attributes and methods.

    Parameters
    ----------
    scenario : Scenario, optional
        The experiment. By default the default scenario.
    rho : array_like of float, shape (n_nodes,), optional
        Unit costs of reported epsilon, in place of those drawn by the scenario.
    rng : Generator, BitGenerator, SeedSequence, int or list of int, optional
        Seed of all random numbers of this market, in place of the scenario's seed.
    collect_nodes : bool, default True
        Whether the data collector keeps every node in every round with ``record.traces = "all"``; a
        run disables it, because its recorder does the same.
    population : Population, optional
        Nodes drawn by :func:`fcfn_abm.build.draw_population`.
    node_class : type or mapping, optional
        A class derived from :class:`fcfn_abm.EdgeNode` for all nodes, or a mapping from group names
        to classes: ``{"learners": MyNode}``. By default the classes that the scenario names.
    is_checked : bool, default False
        Whether the scenario has already been checked by :func:`fcfn_abm.build.check_settings`, like
        the runs of a sweep.
    **settings
        Keys of the scenario with other values: by path, such as ``"game.alpha"``, or by the last
        part if only one table has it, such as ``n_nodes``. Mesa's ``batch_run`` and sliders use
        this to vary a market.

    Attributes
    ----------
    scenario : Scenario
        The experiment of this market.

    Raises
    ------
    InvalidGameError
        If ``rho`` does not fit the scenario, or both ``rho`` and a population are given.
    InvalidScenarioError
        If settings of the scenario conflict, or its costs are out of range.

    Examples
    --------
    >>> market = PrivacyMarket(Scenario(seed=1))
    >>> market.run_until().kind
    'converged'
    >>> len(PrivacyMarket(n_nodes=8, alpha=20.0).nodes)
    8
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        rho: Any = None,
        rng: Chance | None = None,
        collect_nodes: bool = True,
        population: Population | None = None,
        node_class: NodeClass | None = None,
        is_checked: bool = False,
        **settings: Any,
    ) -> None:
        scenario = Scenario() if scenario is None else scenario
        require_scenario(scenario, "PrivacyMarket")
        if settings:
            scenario = set_keys(scenario, settings, "PrivacyMarket")
        elif not is_checked:
            check_settings(scenario)
        self._scenario = scenario
        seed = scenario.seed if rng is None else as_seed(rng)
        if population is None:
            seeded = scenario.model_copy(update={"seed": seed})
            population = (
                draw_population(seeded)
                if rho is None
                else Population.of(
                    _check_costs(rho),
                    groups=list_groups(scenario),
                    names=scenario.population.node_names,
                )
            )
        elif rho is not None:
            raise InvalidGameError("A market takes either rho or a population, not both.")
        n_nodes = scenario.population.n_nodes
        if population.n_nodes != n_nodes:
            raise InvalidGameError(
                f"rho has {population.n_nodes} entries, but population.n_nodes = {n_nodes}."
            )
        super().__init__(
            population,
            adapt_mechanism(create_mechanism(scenario), scenario.mechanism.kind, population),
            _behaviour(scenario),
            create(scenario, ("server",)),
            MarketRules.of(scenario),
            seed=seed,
            collect_nodes=collect_nodes and scenario.record.traces == "all",
            node_class=_node_classes(scenario) if node_class is None else node_class,
        )

    @property
    def scenario(self) -> Scenario:
        """The experiment of this market."""
        return self._scenario

    @scenario.setter
    def scenario(self, scenario: object) -> None:
        """Ignore the placeholder that Mesa assigns; the scenario is frozen."""


def _behaviour(scenario: Scenario) -> list[GroupRules]:
    """Return the rules of a scenario's groups; one if there are no groups."""
    base = GroupRules(
        learning=create_learning(scenario, ("learning",)),
        exit=scenario.exit,
        start=scenario.rounds.start,
        distribution=create(scenario, ("population", "rho")),
    )
    groups = scenario.population.groups
    if groups is None:
        return [base]
    found = []
    for index, group in enumerate(groups):
        place = ("population", "groups", str(index))
        found.append(
            GroupRules(
                create_learning(scenario, (*place, "learning"))
                if group.learning
                else base.learning,
                group.exit or base.exit,
                group.start or base.start,
                create(scenario, (*place, "rho")) if group.rho else base.distribution,
            )
        )
    return found


def _node_classes(scenario: Scenario) -> NodeClass | None:
    """Return the node classes that a scenario names, or None."""
    people = scenario.population
    if people.groups is None:
        own: NodeClass | None = find_object(people.node_class) if people.node_class else None
        return own
    named = {group.name: group.node_class or people.node_class for group in people.groups}
    return {group: find_object(name) for group, name in named.items() if name} or None


def _check_costs(rho: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Convert costs given by a user to an array, and check them."""
    costs = as_floats("rho", rho).copy()
    if costs.ndim != 1:
        raise InvalidGameError(f"rho must be a list of numbers, but has shape {costs.shape}.")
    require_sized(rho=costs)
    return costs
