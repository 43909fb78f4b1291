"""Sweeps: from axes over keys of a scenario to the scenarios of all runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.rng import replication_seed, stream
from fcfn_abm.scenario.load import find_entry, merge_trees, section_at, tree_to_scenario
from fcfn_abm.scenario.schema import MOST_RUNS, Axis, Choice, Scenario, SweepSettings

type Floats = npt.NDArray[np.float64]
_COUNTED = 10**30
_AXES = "sweep.axes"

type Check = Callable[[Scenario, str], Scenario]
"""Checks a scenario, given its source, and returns it with all defaults filled in."""


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    index: int
    """Number of the run, from 0; replications of a point have consecutive numbers."""
    replication: int
    """Number of the replication, from 0; replication 0 uses the scenario's own seed."""
    point: Mapping[str, Any]
    """Maps the path of each axis to its value, as it would be written in the scenario."""
    scenario: Scenario
    """The scenario of this run, without a sweep."""

    def value_at(self, path: str) -> Any:
        """Return the value of an axis in this run; tables as they were listed."""
        value = _value_at(self.scenario, path)
        return self.point[path] if isinstance(value, Choice) else value


def sweep_runs(scenario: Scenario, check: Check, where: str = "scenario") -> list[SweepRun]:
    """Return all runs of a scenario's sweep, in order.

    Parameters
    ----------
    scenario : Scenario
        With a sweep; checked, and with all defaults filled in.
    check : callable
        Checks a scenario, raises InvalidScenarioError, and returns it with defaults.
    where : str, default "scenario"
        Source of the scenario, for error messages.

    Returns
    -------
    list of SweepRun
        In a grid the last axis changes fastest; replications of a point are consecutive.

    Raises
    ------
    InvalidScenarioError
        If an axis is invalid (the message names it), or if there are more runs than allowed.
    """
    sweep = _settings(scenario)
    for path in sweep.axes:
        if problem := _axis_problem(path, list(sweep.axes)):
            raise InvalidScenarioError(problem, file=where, table=_AXES, key=path)
    n_runs = n_points(sweep, where) * sweep.replications
    if n_runs > sweep.maximum:
        # Python does not print integers with thousands of digits
        count = f"{n_runs:,}" if n_runs < _COUNTED else f"more than {_COUNTED:,}"
        remedy = "" if n_runs > MOST_RUNS else ", or raise maximum"
        raise InvalidScenarioError(
            f"the sweep has {count} runs, and may have {sweep.maximum:,}; take fewer{remedy}.",
            file=where,
            table="sweep",
            key="maximum",
        )
    base = scenario.model_copy(update={"sweep": None})
    seeds = [replication_seed(scenario.seed, index) for index in range(sweep.replications)]
    runs: list[SweepRun] = []
    for values in _points(scenario, where):
        point = _scenario_at(base, values, check, where)
        for replication, seed in enumerate(seeds):
            run = point.model_copy(update={"seed": seed})
            runs.append(SweepRun(len(runs), replication, values, run))
    return runs


def n_points(sweep: SweepSettings, where: str = "scenario") -> int:
    """Return the number of points of a sweep, without creating them."""
    if sweep.samples:
        blocks = len(sweep.axes) + 2 if sweep.mode == "sobol" else 1
        return (sweep.n_samples or 0) * blocks
    lengths = {path: axis.n or len(axis.values or ()) for path, axis in sweep.axes.items()}
    if sweep.mode == "grid":
        return math.prod(lengths.values())
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{path} has {length}" for path, length in lengths.items())
        raise InvalidScenarioError(
            f"in the mode 'zip' all axes must have the same number of values, but {counts}.",
            file=where,
            table=_AXES,
        )
    return next(iter(lengths.values()), 1)


def _settings(scenario: Scenario) -> SweepSettings:
    if scenario.sweep is None:
        raise InvalidScenarioError("The scenario has no [sweep] table.")
    return scenario.sweep


def _axis_problem(path: str, paths: list[str]) -> str | None:
    """Return why an axis does not lead to a key of its own, or None if it does."""
    parts = path.split(".")
    if not all(parts):
        return "must be a path such as game.alpha."
    if parts[0] == "sweep":
        return "an axis cannot lead into [sweep] itself."
    if parts[0] == "imports":
        return "cannot be an axis; list all plug-ins in imports itself."
    if path == "seed":
        return "cannot be an axis; replications have their own seeds."
    for other in paths:
        if other.startswith(f"{path}."):
            return f"overlaps with the axis {other}."
    section: Any = Scenario
    for above, part in zip(("", *parts), parts, strict=False):
        if above == "groups":
            continue  # the number or the name of a group
        section = section_at(section, part)
        if section is None or section is Choice:
            return None
    keys = list(section.model_fields)
    return f"is a table; an axis leads to a key in it, such as {path}.{keys[0]}."


def _points(scenario: Scenario, where: str) -> Iterator[dict[str, Any]]:
    sweep = _settings(scenario)
    if sweep.samples:
        yield from _sample(scenario, sweep)
        return
    lists = [
        list(axis.values) if axis.values is not None else _divide(scenario, path, axis, where)
        for path, axis in sweep.axes.items()
    ]
    if sweep.mode == "grid" or not lists:
        combinations: Any = itertools.product(*lists)
    else:
        combinations = zip(*lists, strict=True)
    for values in combinations:
        yield dict(zip(sweep.axes, values, strict=True))


def _divide(scenario: Scenario, path: str, axis: Axis, where: str) -> list[Any]:
    """Divide a range, both ends included; into integers where the scenario has an integer."""
    low, high, n = axis.low or 0.0, axis.high or 0.0, axis.n or 1
    values = np.geomspace(low, high, n) if axis.log else np.linspace(low, high, n)
    if not _is_whole(scenario, path):
        return [float(value) for value in values]
    whole = [round(value) for value in values]
    if len(set(whole)) < n:
        raise InvalidScenarioError(
            f"there are no {n} different evenly spaced integers from {low:g} to {high:g}.",
            file=where,
            table=_AXES,
            key=path,
        )
    return whole


def _sample(scenario: Scenario, sweep: SweepSettings) -> Iterator[dict[str, Any]]:
    unit = _unit_points(sweep, stream(scenario.seed, "design"))
    columns = [
        _stretch(unit[:, i], axis, whole=_is_whole(scenario, path))
        for i, (path, axis) in enumerate(sweep.axes.items())
    ]
    for values in zip(*columns, strict=True):
        yield dict(zip(sweep.axes, values, strict=True))


def _unit_points(sweep: SweepSettings, rng: np.random.Generator) -> Floats:
    """Draw points in the unit cube, shape (points, axes)."""
    n, d = sweep.n_samples or 0, len(sweep.axes)
    if sweep.mode == "random":
        return rng.random((n, d))
    from scipy.stats import qmc  # slow to import

    if sweep.mode == "latin-hypercube":
        return qmc.LatinHypercube(d=d, rng=rng).random(n)
    # Saltelli et al. 2010: points A and B, and for each axis A with this axis of B
    a, b = np.split(qmc.Sobol(d=2 * d, rng=rng, bits=64).random(n), 2, axis=1)
    mixed = [np.where(np.arange(d) == axis, b, a) for axis in range(d)]
    return np.concatenate([a, b, *mixed])


def _stretch(unit: Floats, axis: Axis, *, whole: bool) -> list[Any]:
    """Map numbers in [0, 1) to an axis: equal shares of it are equally likely."""
    if axis.values is not None:
        return [axis.values[int(u * len(axis.values))] for u in unit]
    low, high = axis.low or 0.0, axis.high or 0.0
    end = math.floor(high) + 1 if whole else high  # the last whole number has a share too
    start = math.ceil(low) if whole else low
    values = start * (end / start) ** unit if axis.log else start + (end - start) * unit
    if whole:
        return [min(math.floor(value), end - 1) for value in values]
    return [min(float(value), high) for value in values]


def _is_whole(scenario: Scenario, path: str) -> bool:
    """Whether a key holds an integer; the schema converts all other numbers to float."""
    return type(_value_at(scenario, path)) is int


def _value_at(scenario: Scenario, path: str) -> Any:
    value: Any = scenario
    for part in path.split("."):
        if isinstance(value, Choice):
            value = {"kind": value.kind, **value.options}
        if isinstance(value, tuple):
            index = find_entry(value, part)
            value = None if index is None else value[index]
            continue
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return value


def _scenario_at(base: Scenario, values: Mapping[str, Any], check: Check, where: str) -> Scenario:
    """Return the scenario at a point, checked."""
    place = f"{where}, [{_AXES}]"
    try:
        return replace_values(base, values, check, place)
    except InvalidScenarioError as error:
        problem = error
    for path, value in values.items():  # does one axis cause it alone?
        try:
            replace_values(base, {path: value}, check, place)
        except InvalidScenarioError as error:
            if str(error) == str(problem):
                values = {path: value}
                break
    point = ", ".join(f"{path} = {value!r}" for path, value in values.items())
    raise InvalidScenarioError(
        problem.reason,
        file=f"{place} {point}",
        table=problem.table,
        key=problem.key,
        conflict=problem.conflict,
    ) from None


def replace_values(base: Scenario, values: Mapping[str, Any], check: Check, where: str) -> Scenario:
    """Return a scenario with other values at some paths, such as ``game.alpha``, checked."""
    changes: dict[str, Any] = {}
    for path, value in values.items():
        *tables, key = path.split(".")
        inner = changes
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[key] = value
    # unchanged tables need no second validation
    tree = {name: getattr(base, name) for name in type(base).model_fields}
    tree |= base.model_dump(include=set(changes), exclude_none=True)
    tree = merge_trees({name: value for name, value in tree.items() if value is not None}, changes)
    return check(tree_to_scenario(tree, where), where)
