"""The keys of a scenario, table by table, with what they take, their values and their meanings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fcfn_abm.build import REGISTRIES, scenario_schema
from fcfn_abm.scenario import Scenario

type Schema = Mapping[str, Any]

LONGEST_LIST = 8
"""Longer lists are abbreviated: the costs of a million nodes are no text."""
_MISSING = object()


@dataclass(frozen=True)
class Key:
    """A key of a scenario file."""

    path: str
    """From the root: ``population.n_nodes``."""
    takes: str
    """What values are allowed, as Markdown."""
    default: Any
    meaning: str

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]


@dataclass
class Table:
    """A table of a scenario file, without the tables below it."""

    path: str
    """Empty for the root."""
    meaning: str
    is_list: bool = False
    """Whether it may stand several times: ``[[events]]``."""
    keys: list[Key] = field(default_factory=list)

    @property
    def header(self) -> str:
        """The table as the file names it."""
        return f"[[{self.path}]]" if self.is_list else f"[{self.path}]"


def list_tables() -> dict[str, Table]:
    """Return all tables of a scenario file by path; the root, whose path is empty, comes first."""
    schema = scenario_schema()
    found = _walk(schema, "", schema["$defs"], is_list=False)
    return {table.path: table for table in found}


def _walk(schema: Schema, path: str, definitions: Schema, *, is_list: bool) -> Iterator[Table]:
    table = Table(path, join(schema.get("description", "")), is_list)
    inner: list[tuple[str, Schema, bool]] = []
    parts = [schema, *schema.get("anyOf", [])]  # an axis may be a list in place of a table
    properties: Schema = next((p["properties"] for p in parts if "properties" in p), {})
    for name, key in properties.items():
        place = f"{path}.{name}" if path else name
        below = _reference(key)
        if below:
            inner.append((place, definitions[below], _holds_many(key)))
        else:
            table.keys.append(_key(place, key))
    yield table
    for place, below_schema, many in inner:
        yield from _walk(below_schema, place, definitions, is_list=many)


def _key(path: str, schema: Schema) -> Key:
    registry = REGISTRIES.get(tuple(path.split(".")))
    if registry is not None:
        names = ", ".join(f"`{name}`" for name in registry)
        article = "an" if registry.what[0] in "aeiou" else "a"
        return Key(
            path, f"{article} {registry.what}: {names}", None, join(schema.get("description", ""))
        )
    if path == "compared":
        return Key(path, "tables of options by mechanism", None, join(schema["description"]))
    return Key(path, takes(schema), schema.get("default"), join(schema.get("description", "")))


def option_keys(path: str, name: str) -> list[Key]:
    """Return the options of a registered name that may stand at a path."""
    registry = REGISTRIES[tuple(path.split("."))]
    schema = registry.json_schema(name)
    definitions = schema.get("$defs", {})
    return [
        Key(
            f"{path}.{option}",
            takes(_resolve(key, definitions)),
            key.get("default"),
            join(key.get("description", "")),
        )
        for option, key in schema.get("properties", {}).items()
    ]


def _resolve(schema: Schema, definitions: Schema) -> Schema:
    reference = schema.get("$ref")
    return definitions[str(reference).rsplit("/", 1)[1]] if reference else schema


def _reference(key: Schema) -> str | None:
    """Return the definition of the table that a key holds, or the tables; None if it holds none."""
    parts = [key, *key.get("anyOf", []), *key.get("allOf", [])]
    parts += [part["items"] for part in parts if isinstance(part.get("items"), Mapping)]
    parts += [
        part["additionalProperties"]
        for part in parts
        if isinstance(part.get("additionalProperties"), Mapping)
    ]
    parts += [named for part in parts for named in part.get("patternProperties", {}).values()]
    parts += [option for part in parts for option in part.get("anyOf", [])]
    return next((str(p["$ref"]).rsplit("/", 1)[1] for p in parts if "$ref" in p), None)


def _holds_many(key: Schema) -> bool:
    return any("items" in part for part in (key, *key.get("anyOf", [])))


def takes(schema: Schema) -> str:
    """Return what values a schema allows, as Markdown."""
    if "anyOf" in schema:
        options = (takes(part) for part in schema["anyOf"] if part.get("type") != "null")
        return " or ".join(dict.fromkeys(options))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{show(value)}`" for value in values)
    bounds = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
        "pattern": "of the form `{}`",
    }
    if "minimum" in schema:
        del bounds["exclusiveMinimum"]  # zero, which is farther away
    limits = [text.format(_short(schema[name])) for name, text in bounds.items() if name in schema]
    kinds = {"array": "list", "object": "table"}
    kind: str = schema.get("type", "any value")
    return ", ".join([kinds.get(kind, kind), *limits])


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_value(tree: Any, path: str) -> Any:
    """Return the value of a key in a scenario's tree; None where its table is left out."""
    for part in path.split("."):
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(part)
    return tree


def as_tree(scenario: Scenario) -> dict[str, Any]:
    """Return a scenario as nested dicts, without the keys that are left out."""
    return scenario.model_dump(exclude_none=True)


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the values of a tree by their paths; lists of tables have the numbers from 1 in it."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        place = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            found |= flatten(value, place)
        elif _is_list_of_tables(value):
            for index, inner in enumerate(value, 1):
                found |= flatten(inner, f"{place}.{index}")
        else:
            found[place] = value
    return found


def _is_list_of_tables(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(v, Mapping) for v in value)
    )


@dataclass(frozen=True)
class Difference:
    """A key that a scenario changes."""

    path: str
    default: Any
    """None where the default model leaves it out."""
    here: Any
    """None where the scenario leaves it out."""

    @property
    def table(self) -> str:
        """Path of the key's table, without the numbers of lists."""
        return without_numbers(self.path).rpartition(".")[0]


def without_numbers(path: str) -> str:
    """Return a path without the numbers that tell apart the tables of a list."""
    return ".".join(part for part in path.split(".") if not part.isdigit())


def list_differences(
    scenario: Scenario, default: Scenario, tables: Iterable[str]
) -> list[Difference]:
    """Return the keys in which a scenario differs from another one, in the order of the tables."""
    here, there = flatten(as_tree(scenario)), flatten(as_tree(default))
    paths = dict.fromkeys([*there, *here])
    order = {table: index for index, table in enumerate(tables)}
    changed = [
        Difference(path, there.get(path), here.get(path))
        for path in paths
        if there.get(path, _MISSING) != here.get(path, _MISSING)
    ]
    return sorted(changed, key=lambda difference: _rank(difference.path, order))


def _rank(path: str, order: Mapping[str, int]) -> int:
    """Return the place in the schema of the table that a path belongs to."""
    table = without_numbers(path)
    while table not in order:
        table = table.rpartition(".")[0]
    return order[table]


def show(value: Any) -> str:
    """Return a value as a scenario file has it, abbreviated if it is a long list."""
    if isinstance(value, list | tuple):
        shown = [show(item) for item in value[:LONGEST_LIST]]
        if len(value) > LONGEST_LIST:
            return f"[{', '.join(shown)}, ...] ({len(value):,} values)"
        return f"[{', '.join(shown)}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {show(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def join(text: str) -> str:
    """Return a text in one line, with double backticks as Markdown has them."""
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split()))


def cell(text: str) -> str:
    """Return a text for a cell of a Markdown table."""
    return join(text).replace("|", "\\|")
