"""The settings of the window, generated from the scenario's schema: labels, help and limits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from types import NoneType
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fcfn_abm.build import check_scenario, resolve_defaults, scenario_schema
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.plugins import Plugin, list_plugins
from fcfn_abm.scenario import Scenario, tree_to_scenario
from fcfn_abm.scenario.load import merge_trees
from fcfn_abm.viz.labels import is_basic, name_choice, name_costs, name_key, name_table

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
"""Most nodes that can be set in the window; an opened scenario may have more."""

_MOST_IN_LINK = 100
_BEYOND = 1e6  # larger bounds guard the arithmetic and do not limit sliders
_DECADES = 2  # range of a slider without an upper limit, around the default
_FAR = 10  # a slider ends at this multiple of the default if the limit is far beyond

type Tree = dict[str, Any]


def tree_of(scenario: Scenario) -> Tree:
    """Return a scenario as a tree of tables and values, without its sweep."""
    tree = scenario.model_dump(exclude_none=True)
    tree.pop("sweep", None)
    return tree


def replace_value(tree: Tree, path: str, value: Any) -> Tree:
    """Return a tree with one value replaced, or removed if it is None.

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


def describe_market(scenario: Scenario) -> str:
    """Describe a scenario's market briefly, as a title if its own no longer fits.

    Examples
    --------
    >>> describe_market(Scenario())
    '50 nodes, log-normal costs, Stackelberg contest'
    """
    costs = name_costs(scenario.population.rho.kind)
    if scenario.population.rho.kind == "listed":
        source = str(scenario.population.rho.options.get("source") or "")
        costs = f"costs from {source.split(', column')[0]}" if source else "listed costs"
    if scenario.population.groups:
        costs = f"{len(scenario.population.groups)} groups"
    mechanism = name_choice(scenario.mechanism.kind)
    return f"{scenario.population.n_nodes:,} nodes, {costs}, {mechanism}"


def parse_tree(tree: Tree) -> Scenario:
    """Return the scenario of a tree, or raise InvalidScenarioError with one sentence."""
    scenario = tree_to_scenario(tree, "settings")
    check_scenario(scenario, "settings")
    return resolve_defaults(scenario)


def list_changes(tree: Tree, opened: Tree) -> dict[str, Any] | None:
    """Return the changed settings between two scenarios, or None if other keys differ too."""
    found = {
        control["path"]: find_value(tree, control["path"])
        for group in describe_settings(tree, opened)
        for control in group["controls"]
        if control["changed"]
    }
    made = opened
    for path, value in found.items():
        made = replace_value(made, path, value)
    try:
        made = tree_of(parse_tree(made))
    except InvalidScenarioError:
        return None
    return found if {**made, "title": ""} == {**tree, "title": ""} else None


def to_query(changes: Mapping[str, Any]) -> str:
    """Format settings as the query of a link.

    Examples
    --------
    >>> to_query({"game.alpha": 20.0, "learning.kind": "gradient", "game.budget": None})
    'game.alpha=20.0&learning.kind=gradient&game.budget=null'
    """
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in changes.items()}
    return urlencode(values)


def parse_query(query: str) -> dict[str, Any]:
    """Parse the settings of a link, unchecked; text that is not JSON stays a string.

    Examples
    --------
    >>> parse_query("game.alpha=20&learning.kind=gradient")
    {'game.alpha': 20, 'learning.kind': 'gradient'}
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_IN_LINK)
    except ValueError:
        raise InvalidScenarioError(
            f"has more than {_MOST_IN_LINK} settings.", file="the link"
        ) from None
    found: dict[str, Any] = {}
    for path, text in pairs:
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[path] = value if isinstance(value, (str, int, float, NoneType)) else text
    return found


def list_paths(tree: Tree) -> set[str]:
    """Return the paths of the settings shown for a tree."""
    return {c["path"] for group in describe_settings(tree) for c in group["controls"]}


def find_problems(
    tree: Tree, good: Tree, parse: Callable[[Tree], Scenario] | None = None
) -> dict[str, str]:
    """Return the problems of a tree: one sentence per setting, in the order of the checks.

    Parameters
    ----------
    tree : dict
        The values to check.
    good : dict
        Valid values: each invalid setting is reset to them to find the next problem.
    parse : callable, optional
        Validates a tree; :func:`parse_tree` by default.
    """
    found: dict[str, str] = {}
    while True:
        try:
            (parse or parse_tree)(tree)
        except InvalidScenarioError as error:
            path = path_of(error)
            if path in found:
                return found
            found[path] = str(error)
            try:
                tree = put_back(tree, good, path)
            except (
                LookupError,
                TypeError,
                AttributeError,
            ):  # not a setting
                return found
        else:
            return found


def path_of(error: InvalidScenarioError) -> str:
    """Return the path of the setting in an error of :func:`parse_tree`.

    Examples
    --------
    >>> path_of(InvalidScenarioError("must be positive.", table="population.rho", key="low"))
    'population.rho.low'
    """
    return ".".join(part for part in (error.table, error.key) if part is not None)


def describe_settings(tree: Tree, opened: Tree | None = None) -> list[dict[str, Any]]:
    """Return the settings as plain data: one group per table, one control per value.

    Parameters
    ----------
    tree : dict
        The current values; they need not be valid.
    opened : dict, optional
        The values to which settings can be reset; by default the current ones.

    Returns
    -------
    list of dict
        Each with ``name``, ``help`` and ``controls``. A control has ``path``, ``label``, ``help``,
        ``value``, ``basic``, ``changed`` (whether it differs from ``opened``, whose value is then
        ``before``) and ``kind``: "number" (with ``low``, ``high``, ``log`` and ``whole`` for its
        slider if ``slider``, and ``words`` if it also accepts a name), "choice" (with
        ``options``) or "switch".
    """
    schema = _schema()
    opened = tree if opened is None else opened
    found: list[dict[str, Any]] = []
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
        found.append({"name": name_table(name), "help": help_, "controls": controls})
    seed = _field("seed", schema["properties"]["seed"], tree.get("seed"))
    found.append({"name": "Chance", "help": "", "controls": seed})
    for control in (control for group in found for control in group["controls"]):
        path = control["path"]
        before = find_value(opened, path)
        if _kind_above(opened, path) != _kind_above(tree, path):
            before = control["default"]
        control["basic"] = is_basic(path)
        control["changed"] = before != find_value(tree, path)
        control["before"] = _to_json_value(before)
    return found


def find_value(tree: Tree, path: str) -> Any:
    """Return the value at a path, or None if it is omitted."""
    *tables, key = path.split(".")
    inner: Any = tree
    for table in tables:
        inner = inner.get(table, {})
    return inner.get(key)


def put_back(tree: Tree, opened: Tree, path: str) -> Tree:
    """Return a tree with a setting reset to its opened value; names keep their options.

    Options of a name other than the opened one get their defaults.
    """
    table, _, key = path.rpartition(".")
    if key == "kind":
        section, _, name = table.rpartition(".")
        result = deepcopy(tree)
        (result[section] if section else result)[name] = deepcopy(find_value(opened, table))
        return result
    same = _kind_above(opened, path) == _kind_above(tree, path)
    return replace_value(tree, path, find_value(opened, path) if same else None)


def _kind_above(tree: Tree, path: str) -> Any:
    """Return the registered name to which an option's path belongs, or None."""
    table, _, key = path.rpartition(".")
    return find_value(tree, f"{table}.kind") if table and key != "kind" else None


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
    """Return the controls of one key; several if it is a registered name with options."""
    if "oneOf" in field:
        return _kinds(path, field, value or {})
    control = _control(path, field, value)
    return [control] if control else []


def _kinds(path: str, field: Mapping[str, Any], given: Any) -> list[dict[str, Any]]:
    """Return the control of a registered name and those of its options."""
    kinds = {k["properties"]["kind"]["const"]: k for k in field["oneOf"] if "properties" in k}
    kind = given.get("kind")
    options = [
        {"value": name, "label": name_choice(name), "help": _text(entry)}
        for name, entry in kinds.items()
        if name == kind or entry["required"] == ["kind"]  # others have required options
    ]
    path_of_kind = f"{path}.kind"
    controls = [
        {
            "path": path_of_kind,
            "label": name_key(path_of_kind),
            "default": None,
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
    form = {**field, **forms[0]}  # the first of several forms decides; names are typed in
    default = field.get("default")
    control: dict[str, Any] = {
        "path": path,
        "label": name_key(path),
        "default": default,
        "help": _text(field),
        "value": default if value is None and not optional else value,
        "optional": optional,
    }
    if "enum" in form:
        options = [_option(name) for name in form["enum"]]
        return {**control, "kind": "choice", "options": options}
    kind = form.get("type")
    if kind in ("number", "integer"):
        control["value"] = value = _to_json_value(control["value"])
        words = len(forms) > 1
        return {**control, "kind": "number", "words": words, **_range(path, form, default, value)}
    if kind == "boolean" and not optional:
        return {**control, "kind": "switch"}
    if kind == "boolean":
        options = [_option(value) for value in (None, True, False)]
        return {**control, "kind": "choice", "options": options}
    return None  # tables and lists can only be set in a file


def _option(value: Any) -> dict[str, Any]:
    return {"value": value, "label": name_choice(value), "help": ""}


def _to_json_value(value: Any) -> Any:
    """Convert a value for JSON; a rejected value may have any type."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None if value is None else str(value)


def _range(path: str, form: Mapping[str, Any], default: Any, value: Any) -> dict[str, Any]:
    """Return the ends of a slider, and whether it is logarithmic."""
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
    if value not in (None, default) and path != "population.n_nodes":  # leave room on both sides
        low, high = min(low, now[-1] / _FAR), max(high, now[-1] * _FAR)
    low, high = min(low, *now), max(high, *now)
    low = max(low, float(least)) if whole else low
    return {"slider": True, "whole": whole, "log": True, "low": low, "high": high}
