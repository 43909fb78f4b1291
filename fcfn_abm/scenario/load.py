"""Scenario files: reading, overrides, writing, and error messages."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from functools import cache
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from fcfn_abm.errors import InvalidScenarioError, abbreviate, did_you_mean, join_lines
from fcfn_abm.plugins import is_file_name
from fcfn_abm.registry import problem
from fcfn_abm.scenario.schema import Choice, Scenario, expand_name
from fcfn_abm.scenario.shipped import locate_scenario, shipped_files

_DEEPEST = 50  # nested tables and lists; far below Python's recursion limit


class _OverriddenTree(dict[str, Any]):
    """A tree that knows its overrides, so that an error message can name the override at fault."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        super().__init__(tree)
        self.below = tree
        self.overrides: list[tuple[list[str], str]] = []

    def find_override(self, place: Sequence[Any]) -> str | None:
        """Return the override that set the value at a place, or None if the file did."""
        for path, text in reversed(self.overrides):
            if path == list(place[: len(path)]):
                return text
            if list(place) == path[: len(place)] and not _holds(self.below, place):
                return text  # the override created the whole table
        return None


def _holds(tree: Any, place: Sequence[Any]) -> bool:
    for part in place:
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True


def require_scenario(value: object, what: str) -> None:
    """Raise InvalidScenarioError unless the argument is a scenario.

    Examples
    --------
    >>> require_scenario("x", "run_scenario")
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidScenarioError: run_scenario takes a Scenario, such as fa.load_scenario
    returns, not 'x'.
    """
    if not isinstance(value, Scenario):
        raise InvalidScenarioError(
            f"{what} takes a Scenario, such as fa.load_scenario returns, not {abbreviate(value)}."
        )


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    InvalidScenarioError
        If the file is missing, cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some Windows editors write a byte-order mark
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        hint = did_you_mean(path.name, near) or did_you_mean(str(path), shipped_files())
        raise InvalidScenarioError(f"there is no such file.{hint}", file=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InvalidScenarioError(f"cannot be read: {why}.", file=str(path)) from None
    except ValueError:  # a zero byte or a lone surrogate
        raise InvalidScenarioError("not a valid file name.", file=abbreviate(str(path))) from None
    return parse_toml(text, str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML; raise InvalidScenarioError with one sentence if it is invalid."""
    try:
        tree = tomllib.loads(text)
    except ValueError as error:  # also for a number with thousands of digits
        raise InvalidScenarioError(f"invalid TOML: {error}.", file=where) from None
    except RecursionError:
        raise InvalidScenarioError("is nested too deeply.", file=where) from None
    if _is_deep(tree):
        raise InvalidScenarioError("is nested too deeply.", file=where)
    return tree


def read_scenario(path: Path) -> tuple[dict[str, Any], str]:
    """Read a scenario file and the files that it extends.

    Parameters
    ----------
    path : Path
        A TOML file, or the name of a bundled scenario, such as ``quickstart``. Its key ``extends``
        may name another file, relative to it, or a bundled scenario, whose tables it changes.

    Returns
    -------
    dict
        The tree, without ``extends``.
    str
        Source of the tree, for error messages.

    Raises
    ------
    InvalidScenarioError
        If a file is missing or is not TOML, or a file extends itself.
    """
    path = locate_scenario(path)
    tree, chain = read_toml(path), [path]
    while "extends" in tree:
        extends = tree.pop("extends")
        if not isinstance(extends, str) or "\0" in extends:
            raise InvalidScenarioError(
                f"must be the name of a scenario file, but is {extends!r}.",
                file=str(chain[-1]),
                key="extends",
            )
        base = locate_scenario(Path(extends), chain[-1].parent)
        if base.resolve() in [file.resolve() for file in chain]:
            circle = " -> ".join(map(str, [*chain, base]))
            raise InvalidScenarioError(
                f"files extend each other in a circle: {circle}.", file=str(path), key="extends"
            )
        try:
            below = read_toml(base)
        except InvalidScenarioError as error:
            raise InvalidScenarioError(str(error), file=str(chain[-1]), key="extends") from None
        if base.parent != path.parent:
            _rebase(below, base.parent, path.parent)
        chain.append(base)
        tree = merge_trees(below, tree)
    where = " extends ".join(map(str, chain))
    return tree, where


def _rebase(tree: dict[str, Any], old: Path, new: Path) -> None:
    """Rewrite relative paths of a tree (plug-ins, costs files) for another folder."""

    def move(name: str) -> str:
        return Path(os.path.relpath(old / name, new)).as_posix()

    if isinstance(imports := tree.get("imports"), list):
        tree["imports"] = [
            move(name) if isinstance(name, str) and is_file_name(name) else name for name in imports
        ]
    people = tree.get("population")
    if not isinstance(people, Mapping):
        return
    groups = people.get("groups")
    for table in (people, *(groups if isinstance(groups, list) else ())):
        rho = table.get("rho") if isinstance(table, Mapping) else None
        rho = expand_name(rho) if isinstance(rho, str) else rho
        if isinstance(rho, Mapping) and rho.get("kind") == "csv":
            path = rho.get("path")
            table["rho"] = {**rho, "path": move(path)} if isinstance(path, str) else rho


def merge_trees(
    tree: Mapping[str, Any], changes: Mapping[str, Any], place: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a tree with changes applied: tables are merged, values are replaced.

    If a choice gets another ``kind``, the options of the old one are dropped. A list of tables can
    be changed by a table that maps an entry's number, or its ``name``, to its changes.

    Parameters
    ----------
    tree, changes : mapping
        As read from TOML.
    place : tuple of str, default ()
        Their path in a scenario.

    Examples
    --------
    >>> merge_trees({"game": {"alpha": 1.0, "beta": 2.0}}, {"game": {"alpha": 3.0}})
    {'game': {'alpha': 3.0, 'beta': 2.0}}
    >>> merge_trees({"mechanism": {"kind": "static", "epsilon": 1.0}}, {"mechanism": "random"})
    {'mechanism': {'kind': 'random'}}
    """
    result = dict(tree)
    for key, change in changes.items():
        below, inner = result.get(key), (*place, key)
        if below is not None and is_list_of_tables(below) and isinstance(change, Mapping):
            result[key] = merge_entries(below, change, inner)
            continue
        if inner in _default_kinds():
            below = expand_name(below) if isinstance(below, str) else below
            change = expand_name(change) if isinstance(change, str) else change
        if isinstance(below, Mapping) and isinstance(change, Mapping):
            if "kind" in change and change["kind"] != _kind(below, inner):
                below = {}
            change = merge_trees(below, change, inner)
        result[key] = change
    return result


def is_list_of_tables(value: Any) -> bool:
    """Return whether a value is a list of tables, such as ``population.groups``."""
    return isinstance(value, (list, tuple)) and all(isinstance(v, Mapping) for v in value)


def merge_entries(
    entries: Sequence[Mapping[str, Any]], changes: Mapping[str, Any], place: tuple[str, ...]
) -> list[Any]:
    """Return a list of tables with changes applied, by the number or the name of an entry.

    Examples
    --------
    >>> merge_entries([{"name": "a", "share": 0.1}, {"name": "b"}], {"a": {"share": 0.2}}, ())
    [{'name': 'a', 'share': 0.2}, {'name': 'b'}]
    """
    result = list(entries)
    for part, change in changes.items():
        index = _require_entry(entries, part, None, table_name(place))
        both = isinstance(change, Mapping)
        result[index] = merge_trees(result[index], change, place) if both else change
    return result


def find_entry(entries: Sequence[Any], part: str) -> int | None:
    """Return the index in a list of tables for a part of a path: a number, or a name."""
    names = [entry.get("name") if isinstance(entry, Mapping) else entry.name for entry in entries]
    if part in names:
        return names.index(part)
    is_number = part.isascii() and part.isdigit() and len(part) < 10
    return int(part) if is_number and int(part) < len(entries) else None


def _require_entry(
    entries: Sequence[Mapping[str, Any]], part: str, file: str | None, table: str | None = None
) -> int:
    index = find_entry(entries, part)
    if index is None:
        names = ", ".join(str(entry.get("name")) for entry in entries)
        raise InvalidScenarioError(
            f"there is no entry {abbreviate(part)}; use a name ({names}) or a number from 0.",
            file=file,
            table=table,
        )
    return index


@cache
def _default_kinds() -> dict[tuple[str, ...], str | None]:
    """Return the places of all choices, with their default kinds."""
    return dict(_choice_places(Scenario))


def _choice_places(
    section: type[BaseModel], place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str | None]]:
    for name, field in section.model_fields.items():
        inner = section_at(section, name)
        if inner is Choice:
            default = field.get_default(call_default_factory=True)
            yield (*place, name), default.kind if default else None
        elif inner is not None:
            yield from _choice_places(inner, (*place, name))


def _kind(table: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    """Return the kind of a choice, or its default."""
    return table.get("kind", _default_kinds().get(place))


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split ``game.alpha=20`` into its path and its value, written as in TOML.

    Examples
    --------
    >>> parse_override("game.alpha=20")
    (['game', 'alpha'], 20)
    >>> parse_override("learning.kind=fixed")
    (['learning', 'kind'], 'fixed')
    """
    key, equals, value = text.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise InvalidScenarioError("must look like game.alpha=20.", file=f"--set {text}")
    if len(path) > _DEEPEST:
        raise InvalidScenarioError("is nested too deeply.", file=f"--set {abbreviate(text)}")
    try:
        tree = tomllib.loads(f"value = {value}")
    except ValueError:  # not TOML, or a number with thousands of digits
        return path, value.strip()
    except RecursionError:
        raise InvalidScenarioError(
            "is nested too deeply.", file=f"--set {abbreviate(text)}"
        ) from None
    if len(tree) > 1:  # lines that follow the value
        raise InvalidScenarioError(
            "sets more than one value; use one --set for each.",
            file=f"--set {abbreviate(text)}",
        )
    return path, tree["value"]


def apply_overrides(tree: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return the tree with overrides such as ``game.alpha=20`` applied."""
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise InvalidScenarioError(
            f"overrides must be a list such as ['game.alpha=20'], not {abbreviate(overrides)}."
        )
    result = _OverriddenTree(tree)
    for text in overrides:
        if not isinstance(text, str):
            raise InvalidScenarioError(
                f"an override must be a string such as 'game.alpha=20', not {abbreviate(text)}."
            )
        path, value = parse_override(text)
        result.overrides.append((path, f"--set {join_lines(text)}"))
        place: Any = result
        for part in path[:-1]:
            place = _enter_table(place, part, text)
        key: Any = path[-1]
        if isinstance(place, list):
            key = _require_entry(place, key, f"--set {text}")
        elif key == "kind" and _kind(place, tuple(path[:-1])) != value:
            place.clear()  # the new kind has other options
        place[key] = value
    return result


def _enter_table(place: Any, part: str, text: str) -> Any:
    """Return a copy of a table, or of a list of tables, and put it in place of the original."""
    if isinstance(place, list):
        index = _require_entry(place, part, f"--set {text}")
        place[index] = dict(place[index])
        return place[index]
    inner = place.get(part, {})
    if isinstance(inner, str):
        inner = expand_name(inner)
    if inner and is_list_of_tables(inner):
        place[part] = list(inner)
    elif isinstance(inner, Mapping):
        place[part] = dict(inner)
    else:
        raise InvalidScenarioError(f"{part} is a value, not a table.", file=f"--set {text}")
    return place[part]


def tree_to_scenario(tree: Mapping[str, Any], where: str) -> Scenario:
    """Validate a tree of tables and values.

    Parameters
    ----------
    tree : mapping
        As read from TOML.
    where : str
        Source of the tree, for the error message.

    Raises
    ------
    InvalidScenarioError
        For the first error, in one sentence.
    """
    if _is_deep(tree):
        raise InvalidScenarioError("is nested too deeply.", file=where)
    for place, text in _texts(tree):
        if not _is_text(text):
            raise InvalidScenarioError(
                f"must be UTF-8 text, but contains {abbreviate(text)}.",
                file=_origin(tree, place, where),
                table=table_name(place[:-1]),
                key=place[-1],
            )
    try:
        return Scenario.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = [abbreviate(str(part))[1:-1] for part in first["loc"]]
        if not place:  # it is about all of it
            raise InvalidScenarioError(_reason(first), file=where) from None
        is_unknown = first["type"] == "extra_forbidden"
        raise InvalidScenarioError(
            _no_such_key(place) if is_unknown else _reason(first),
            file=_origin(tree, first["loc"], where),
            table=table_name(place[:-1]),
            key=place[-1],
        ) from None


def _origin(tree: Mapping[str, Any], place: Sequence[Any], where: str) -> str:
    """Return the source of the value at a place of a tree: an override, or the file."""
    return find_override(tree, place) or where


def find_override(tree: Mapping[str, Any], place: Sequence[Any]) -> str | None:
    """Return the override that set the value at a place, or None if the file did."""
    return tree.find_override(place) if isinstance(tree, _OverriddenTree) else None


def _reason(error: Mapping[str, Any]) -> str:
    """Describe a pydantic error in a sentence, including values that only TOML has (dates)."""
    message, given = problem(error), error["input"]
    if isinstance(given, (date, time)):
        return f"{message.rstrip('.')}, but it is {given.isoformat()}."
    # a missing key, or a conflict between keys, needs no print of the whole table
    if isinstance(given, Mapping) and error["type"] not in ("missing", "value_error"):
        return f"{message.rstrip('.')}, but it is the table {abbreviate(dict(given))}."
    return message


def _is_deep(tree: Any) -> bool:
    """Whether tables and lists are nested more deeply than recursive functions can handle."""
    level = [tree]
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        level = [value for value in inner if isinstance(value, (Mapping, list))]
        if not level:
            return False
    return True


def _texts(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[list[str], str]]:
    """Yield every key and every string in a tree, with its place."""
    if isinstance(value, str):
        yield list(place), value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield [*place, str(key)], str(key)
            yield from _texts(inner, (*place, str(key)))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, place)


def _is_text(text: str) -> bool:
    """Whether a string can be encoded; Python keeps odd bytes of a command line as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def table_name(place: Sequence[str]) -> str | None:
    """Return the name of the TOML table at a path, as written in the file; None at the top.

    Examples
    --------
    >>> table_name(["sweep", "axes", "game.alpha"])
    'sweep.axes."game.alpha"'
    """
    return ".".join(f'"{part}"' if "." in part else part for part in place) or None


def _no_such_key(place: list[str]) -> str:
    section: type[BaseModel] = Scenario
    for part in place[:-1]:
        section = section_at(section, part) or section  # itself at the path of an axis
    known = list(section.model_fields)
    return f"there is no such key.{did_you_mean(place[-1], known)} Allowed: {', '.join(known)}."


def section_at(section: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Return the type of the table under a key of another table, or None if the key is a value."""
    if key not in section.model_fields:
        return None
    kinds = [section.model_fields[key].annotation]
    for kind in kinds:
        kinds += get_args(kind)  # Training | None, dict[str, Axis], tuple[Group, ...] | None
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def to_toml(scenario: Scenario, title: str = "") -> str:
    """Write a scenario as TOML; reading it back gives an equal scenario."""
    tree = scenario.model_dump(mode="json", exclude_none=True)
    header = f"# {title}\n" if title else ""
    return header + tomli_w.dumps(tree)


def choices(section: BaseModel, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Choice]]:
    """Return every choice (registered name) of a scenario, with its place.

    Entries of lists are numbered: ``("population", "groups", "0", "learning")``.
    """
    found = []
    for name in _keys_to_choices(type(section)):
        value = getattr(section, name)
        if isinstance(value, Choice):
            found.append(((*path, name), value))
        elif isinstance(value, BaseModel):
            found += choices(value, (*path, name))
        elif isinstance(value, tuple):
            for index, entry in enumerate(value):
                if isinstance(entry, BaseModel):
                    found += choices(entry, (*path, name, str(index)))
    return found


@cache
def _keys_to_choices(section: type[BaseModel]) -> tuple[str, ...]:
    """Return the keys of a table that lead to choices, at any depth."""
    inner = {name: section_at(section, name) for name in section.model_fields}
    return tuple(
        name for name, kind in inner.items() if kind and (kind is Choice or _keys_to_choices(kind))
    )
