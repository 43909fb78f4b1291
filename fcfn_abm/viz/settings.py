"""The settings of the window, generated from the scenario's schema: words, help and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from fcfn_abm.build import check_scenario, resolve_defaults, scenario_schema
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.plugins import Plugin, list_plugins
from fcfn_abm.scenario import Scenario, tree_to_scenario
from fcfn_abm.scenario.load import merge_trees

SECTIONS = (
    "population",
    "game",
    "mechanism",
    "server",
    "learning",
    "rounds",
    "exit",
    "information",
)
"""Tables of a scenario that define the market; the seed is added to them."""

MOST_NODES = 1_000_000
"""Nodes of a session that were set in the window; a scenario that is opened may have more."""

_BEYOND = 1e6  # bounds beyond this guard the arithmetic and do not limit a slider
_DECADES = 2  # range of a slider without an upper limit, around the default
_FAR = 10  # a slider ends at this multiple of the default if the limit is far beyond

type Tree = dict[str, Any]


def tree_of(scenario: Scenario) -> Tree:
    """Return a scenario as a tree of tables and values, without its sweep."""
    tree = scenario.model_dump(exclude_none=True)
    tree.pop("sweep", None)
    return tree


def replace_value(tree: Tree, path: str, value: Any) -> Tree:
    """Return a tree with one value replaced; None removes it.

    Examples
    --------
    >>> replace_value({"game": {"alpha": 10.0}}, "game.alpha", 20.0)
    {'game': {'alpha': 20.0}}
    """
    *tables, key = path.split(".")
    change: Any = {key: value}
    for table in reversed(tables):
        change = {table: change}
    result = merge_trees(deepcopy(tree), change)
    if value is None:
        inner = result
        for table in tables:
            inner = inner[table]
        del inner[key]
    return result


def parse_tree(tree: Tree) -> Scenario:
    """Return the scenario of a tree; raise InvalidScenarioError with one sentence otherwise."""
    scenario = tree_to_scenario(tree, "settings")
    check_scenario(scenario, "settings")
    return resolve_defaults(scenario)


def path_of(error: InvalidScenarioError) -> str:
    """Return the path of the setting that an error of :func:`parse_tree` is about.

    Examples
    --------
    >>> path_of(InvalidScenarioError("must be positive.", table="population.rho", key="low"))
    'population.rho.low'
    """
    return ".".join(part for part in (error.table, error.key) if part is not None)


def describe_settings(tree: Tree) -> list[dict[str, Any]]:
    """Return the settings as plain data: one group a table, one control a value.

    Parameters
    ----------
    tree : dict
        The current values; they need not be valid.

    Returns
    -------
    list of dict
        Each with ``name``, ``help`` and ``controls``. A control has ``path``, ``label``, ``help``,
        ``value`` and ``kind``: "number" (with ``low``, ``high``, ``log`` and ``whole`` for its
        slider, if ``slider``; ``words`` where it takes a name too), "choice" (with ``options``) or
        "switch".
    """
    schema = _schema()
    found = []
    for name in SECTIONS:
        part = schema["properties"][name]
        given = tree.get(name, {})
        if "oneOf" in part:
            help_, controls = _text(part), _kinds(name, part, given)
        else:
            section = _resolve_reference(part)
            help_, controls = _text(section), []
            for key, field in section["properties"].items():
                controls += _field(f"{name}.{key}", field, given.get(key))
        found.append({"name": name.capitalize(), "help": help_, "controls": controls})
    seed = _field("seed", schema["properties"]["seed"], tree.get("seed"))
    found.append({"name": "Chance", "help": "", "controls": seed})
    return found


def _schema() -> dict[str, Any]:
    return _schema_with(list_plugins())


@cache
def _schema_with(_: tuple[Plugin, ...]) -> dict[str, Any]:
    return scenario_schema()


def _resolve_reference(field: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = field.get("$ref")
    return _schema()["$defs"][reference.rsplit("/", 1)[1]] if reference else field


def _text(field: Mapping[str, Any]) -> str:
    """Return the first paragraph of a description."""
    first = str(field.get("description", "")).split("\n\n")[0]
    return " ".join(first.replace("`", "").split())


def _field(path: str, field: Mapping[str, Any], value: Any) -> list[dict[str, Any]]:
    """Return the controls of one key: several where it holds a registered name with options."""
    if "oneOf" in field:
        return _kinds(path, field, value or {})
    control = _control(path, field, value)
    return [control] if control else []


def _kinds(path: str, field: Mapping[str, Any], given: Any) -> list[dict[str, Any]]:
    """Return the control of a registered name, and those of its options."""
    kinds = {k["properties"]["kind"]["const"]: k for k in field["oneOf"] if "properties" in k}
    kind = given.get("kind")
    options = [
        {"value": name, "help": _text(entry)}
        for name, entry in kinds.items()
        if name == kind or entry["required"] == ["kind"]  # others have required options
    ]
    label = path.rsplit(".", 1)[1] if "." in path else "kind"
    controls = [
        {
            "path": f"{path}.kind",
            "label": label,
            "help": next((o["help"] for o in options if o["value"] == kind), ""),
            "value": kind,
            "kind": "choice",
            "options": options,
        }
    ]
    for key, option in kinds.get(kind, {"properties": {}})["properties"].items():
        if key != "kind" and (control := _control(f"{path}.{key}", option, given.get(key))):
            controls.append(control)
    return controls


def _control(path: str, field: Mapping[str, Any], value: Any) -> dict[str, Any] | None:
    choices = field.get("anyOf", [field])
    optional = any(choice.get("type") == "null" for choice in choices)
    forms = [choice for choice in choices if choice.get("type") != "null"]
    form = {**field, **forms[0]}  # of several forms the first decides; words are typed in
    default = field.get("default")
    control: dict[str, Any] = {
        "path": path,
        "label": path.rsplit(".", 1)[-1],
        "help": _text(field),
        "value": default if value is None and not optional else value,
        "optional": optional,
    }
    if "enum" in form:
        options = [{"value": name, "help": ""} for name in form["enum"]]
        return {**control, "kind": "choice", "options": options}
    kind = form.get("type")
    if kind in ("number", "integer"):
        control["value"] = value = _to_json_value(control["value"])
        words = len(forms) > 1
        return {**control, "kind": "number", "words": words, **_range(path, form, default, value)}
    if kind == "boolean" and not optional:
        return {**control, "kind": "switch"}
    if kind == "boolean":
        options = [{"value": v, "help": ""} for v in (None, True, False)]
        return {**control, "kind": "choice", "options": options}
    return None  # tables and lists can be set in the file only


def _to_json_value(value: Any) -> Any:
    """Return a value that JSON can hold: a rejected value may be anything."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None if value is None else str(value)


def _range(path: str, form: Mapping[str, Any], default: Any, value: Any) -> dict[str, Any]:
    """Return where a slider begins and ends, and whether it is logarithmic."""
    whole = form["type"] == "integer"
    least = form.get("minimum", form.get("exclusiveMinimum"))
    most = form.get("maximum", form.get("exclusiveMaximum"))
    if most is not None and most >= _BEYOND:
        most = None
    if least is not None and least <= 1 / _BEYOND:
        least = 0
    now = [float(v) for v in (default, value) if isinstance(v, (int, float)) and v > 0]
    if least is None or (most is None and not default):
        return {"slider": False, "whole": whole}
    if most is not None:
        high = min(float(most), _FAR * max(now, default=float(most)))
        return {"slider": True, "whole": whole, "log": False, "low": float(least), "high": high}
    middle = math.log10(now[0])
    low = 10.0 ** (math.floor(middle) - _DECADES)
    high = 10.0 ** (math.ceil(middle) + _DECADES)
    if whole:
        low = max(1.0, float(least))
    if path == "population.n_nodes":
        high = float(MOST_NODES)
    low, high = min(low, *now), max(high, *now)
    return {"slider": True, "whole": whole, "log": True, "low": low, "high": high}
