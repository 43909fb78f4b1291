"""Costs in CSV files: read once, with the scenario, and listed in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fcfn_abm.build.registries import REGISTRIES
from fcfn_abm.errors import InvalidDataError, InvalidScenarioError
from fcfn_abm.population import RHO_DISTRIBUTIONS, NodeCosts
from fcfn_abm.registry import OptionError
from fcfn_abm.scenario import Choice, Scenario, choices, table_name
from fcfn_abm.scenario.schema import expand_name

_COLUMN = "column:"  # prefix of a reference to a column of the costs file

type Place = tuple[str, ...]
type FindFolder = Callable[[Place], Path]
"""Returns the folder that a path at a place of a scenario is relative to."""


def list_costs(scenario: Scenario, find_folder: FindFolder, where: str) -> Scenario:
    """Return a scenario that lists the costs and names of its CSV files.

    Numbers of nodes, of all nodes or of a group, that the scenario leaves out are set by the files.

    Parameters
    ----------
    scenario : Scenario
        As it was read; problems elsewhere in it are reported later.
    find_folder : callable
        Returns the folder that the path of a file is relative to.
    where : str
        Source of the scenario, for error messages.

    Raises
    ------
    InvalidScenarioError
        If a file cannot be read, or does not contain costs.
    """
    files = {
        place: costs
        for place, choice in choices(scenario.population, ("population",))
        if place[-1] == "rho" and (costs := _read(choice, place, find_folder, where))
    }
    tree = scenario.model_dump(exclude_unset=True)
    for place, costs in files.items():
        _at(tree, place[:-1])["rho"] = costs.to_listed()
    _count_nodes(tree, files)
    _list_weights(tree, files.get(("population", "rho")), where)
    _list_caps(tree, files.get(("population", "rho")), where)
    _list_axes(tree, files, find_folder, where)
    return Scenario.model_validate(tree)


def _read(choice: Choice, place: Place, find_folder: FindFolder, where: str) -> NodeCosts | None:
    """Read the file of a choice; None if it has none, or invalid options, which raise later."""
    if choice.kind != "csv":
        return None
    try:
        entry: Any = RHO_DISTRIBUTIONS.create(choice.kind, choice.options)
    except OptionError:
        return None
    try:
        costs: NodeCosts = entry.read(find_folder((*place, "path")))
    except InvalidDataError as error:
        if where == entry.path:  # the file is the scenario's source
            raise InvalidScenarioError(str(error)) from None
        raise InvalidScenarioError(str(error), file=where, table=table_name(place)) from None
    return costs


def _at(tree: Any, place: Place) -> Any:
    """Return the table at a place of a tree."""
    for part in place:
        tree = tree[int(part)] if part.isdigit() else tree[part]
    return tree


def _count_nodes(tree: Mapping[str, Any], files: Mapping[Place, NodeCosts]) -> None:
    """Set numbers of nodes that the scenario leaves out and files determine."""
    for place, costs in files.items():
        table = _at(tree, place[:-1])
        shared = len(place) == 2 and any("rho" in group for group in table.get("groups") or ())
        if not shared and table.get("n_nodes") is None and table.get("share") is None:
            table["n_nodes"] = len(costs.values)
    people = tree.get("population", {})
    sizes = [group.get("n_nodes") for group in people.get("groups") or ()]
    if files and "n_nodes" not in people and sizes and None not in sizes:
        people["n_nodes"] = sum(sizes)


def _list_weights(tree: Mapping[str, Any], costs: NodeCosts | None, where: str) -> None:
    """List the weights of the mechanism 'weighted', if they are a column of the file."""
    mechanism = tree.get("mechanism", {})
    by = mechanism.get("by")
    if mechanism.get("kind") != "weighted" or not (isinstance(by, str) and by.startswith(_COLUMN)):
        return
    place = {"file": where, "table": "mechanism", "key": "by"}
    mechanism.update(by="listed", weights=_read_column(by, costs, place))


def _list_caps(tree: Mapping[str, Any], costs: NodeCosts | None, where: str) -> None:
    """List the largest epsilon of each node, if it is a column of the file."""
    people = tree.get("population", {})
    cap = people.get("epsilon_max")
    if isinstance(cap, str):
        place = {"file": where, "table": "population", "key": "epsilon_max"}
        people["epsilon_max"] = _read_column(cap, costs, place)


def _read_column(name: str, costs: NodeCosts | None, place: dict[str, str]) -> tuple[float, ...]:
    """Return a column of the costs file for all nodes."""
    if costs is None:
        reason = (
            f"{name!r} is a column of the costs file, so [population.rho] must be of the "
            "kind 'csv'."
        )
        raise InvalidScenarioError(reason, **place)
    try:
        return tuple(costs.file.numbers(name.removeprefix(_COLUMN)).tolist())
    except InvalidDataError as error:
        raise InvalidScenarioError(str(error), **place) from None


def _list_axes(
    tree: Mapping[str, Any], files: Mapping[Place, NodeCosts], find_folder: FindFolder, where: str
) -> None:
    """List the costs of files that are values of a sweep's axes."""
    for path, axis in tree.get("sweep", {}).get("axes", {}).items():
        place = tuple(path.split("."))
        for file in files:
            if place[: len(file)] == file and len(place) > len(file):
                raise InvalidScenarioError(
                    "options of a costs file cannot be axes; list whole tables as the values "
                    f"of {'.'.join(file)!r}.",
                    file=where,
                    table="sweep.axes",
                    key=path,
                )
        names = tuple(part for part in place if part in ("population", "groups", "rho"))
        if REGISTRIES.get(names) is not RHO_DISTRIBUTIONS or place[-1] != "rho":
            continue
        values = [expand_name(v) if isinstance(v, str) else v for v in axis.get("values") or ()]
        for index, value in enumerate(values):
            if isinstance(value, Mapping) and value.get("kind") == "csv":
                choice = Choice.model_validate(value)
                costs = _read(choice, place, find_folder, where)
                if costs:  # lists, as when the scenario is read back
                    values[index] = {
                        key: list(value) if isinstance(value, tuple) else value
                        for key, value in costs.to_listed().items()
                    }
        if values:
            axis["values"] = values
