"""Scenario files: reading, overriding, writing, and sentences about what is wrong in them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from fcfn_abm.errors import InvalidScenarioError, did_you_mean
from fcfn_abm.registry import problem
from fcfn_abm.scenario.schema import Choice, Scenario


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    InvalidScenarioError
        If the file is missing, cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        hint = did_you_mean(path.name, near)
        raise InvalidScenarioError(f"{path}: there is no such file.{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InvalidScenarioError(f"{path}: cannot be read: {why}.") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidScenarioError(f"{path}: not valid TOML: {error}.") from None


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
        raise InvalidScenarioError(f"--set {text}: must look like game.alpha=20.")
    try:
        return path, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path, value.strip()


def overridden(tree: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return the tree with ``game.alpha=20`` and the like carried out."""
    result = dict(tree)
    for text in overrides:
        path, value = parse_override(text)
        place = result
        for part in path[:-1]:
            inner = place.get(part, {})
            if not isinstance(inner, Mapping):
                raise InvalidScenarioError(f"--set {text}: {part} is a value, not a table.")
            place[part] = dict(inner)
            place = place[part]
        if path[-1] == "kind" and place.get("kind") != value:
            place.clear()  # the options of the old kind mean nothing to the new one
        place[path[-1]] = value
    return result


def tree_to_scenario(tree: Mapping[str, Any], where: str) -> Scenario:
    """Check a tree of tables and values.

    Parameters
    ----------
    tree : mapping
        As read from TOML.
    where : str
        Where it comes from, for the error message.

    Raises
    ------
    InvalidScenarioError
        With one sentence on the first thing that is wrong.
    """
    try:
        return Scenario.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            raise InvalidScenarioError(
                f"{where}, {spot(place[:-1])}{place[-1]}: {_no_such_key(place)}"
            ) from None
        raise InvalidScenarioError(
            f"{where}, {spot(place[:-1])}{place[-1]}: {problem(first)}"
        ) from None


def spot(place: list[str]) -> str:
    """Return the TOML table that a path leads to, as it is written in the file."""
    return f"[{'.'.join(place)}] " if place else ""


def _no_such_key(place: list[str]) -> str:
    section: type[BaseModel] = Scenario
    for part in place[:-1]:
        kinds = [section.model_fields[part].annotation]
        kinds += get_args(kinds[0])  # Training | None
        section = next(k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel))
    known = list(section.model_fields)
    return f"there is no such key.{did_you_mean(place[-1], known)} Allowed: {', '.join(known)}."


def to_toml(scenario: Scenario, title: str = "") -> str:
    """Write a scenario as TOML; reading it back gives an equal scenario."""
    tree = scenario.model_dump(mode="json", exclude_none=True)
    header = f"# {title}\n" if title else ""
    return header + tomli_w.dumps(tree)


def choices(section: BaseModel, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Choice]]:
    """Return every registered name that a scenario asks for, with its place."""
    found = []
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Choice):
            found.append(((*path, name), value))
        elif isinstance(value, BaseModel):
            found += choices(value, (*path, name))
    return found
