"""The document: hand-written parts, and in them what the program says of itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import fcfn_abm
from fcfn_abm.build import REGISTRIES, resolve_defaults
from fcfn_abm.errors import FcfnError
from fcfn_abm.odd import entries
from fcfn_abm.odd.keys import (
    Difference,
    as_tree,
    cell,
    list_differences,
    list_tables,
    read_value,
    show,
    without_numbers,
)
from fcfn_abm.scenario import Scenario

_TEMPLATE = Path(__file__).with_name("odd.md")
_MARKER = re.compile(r"^\{\{ (\w+)(?:: ([\w.]+))? \}\}$", re.MULTILINE)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_NAMED = ("sweep.axes", "bench.data")
"""Tables whose keys are names of the user's, with a table each."""


def describe_model(scenario: Scenario | None = None) -> str:
    """Return the ODD description of the model, as Markdown.

    Parameters
    ----------
    scenario : Scenario, optional
        Complete and checked, as :func:`fcfn_abm.load_scenario` returns it. What it changes of
        the default model stands first, and is marked in its place. Without it, or where it changes
        nothing, the default model is described.

    Returns
    -------
    str
        The seven elements of ODD in their order (Grimm et al. 2020), then the keys that describe
        experiments, and the references.

    Raises
    ------
    FcfnError
        Under ``python -OO``, which drops the docstrings.
    """
    return _Description(scenario).write()


def describe_differences(scenario: Scenario) -> str:
    """Return what a scenario changes of the default model: a delta-ODD, as Markdown.

    Parameters
    ----------
    scenario : Scenario
        Complete and checked, as :func:`fcfn_abm.load_scenario` returns it.

    Returns
    -------
    str
        The seven elements of ODD in their order, each with the changed keys alone.

    Raises
    ------
    FcfnError
        Under ``python -OO``, which drops the docstrings.
    """
    return _Description(scenario).write_differences()


class _Description:
    """A scenario beside the default model."""

    def __init__(self, scenario: Scenario | None) -> None:
        if sys.flags.optimize > 1:
            raise FcfnError(
                "the ODD description is made of docstrings, which python -OO drops: run it without."
            )
        self._default = resolve_defaults(Scenario())
        self._scenario = self._default if scenario is None else scenario
        self._tree, self._default_tree = as_tree(self._scenario), as_tree(self._default)
        self._tables = list_tables()
        self._template = _TEMPLATE.read_text(encoding="utf-8")

    @cached_property
    def _differences(self) -> list[Difference]:
        return list_differences(self._scenario, self._default, self._tables)

    def write(self) -> str:
        return f"# {self._title}\n\n{self._fill(self._template)}"

    @property
    def _title(self) -> str:
        title = self._scenario.title
        return f"ODD of fcfn_abm: {title}" if title else "ODD of fcfn_abm: the default model"

    def _fill(self, text: str) -> str:
        text = text.replace("{{ version }}", fcfn_abm.__version__)
        filled = _MARKER.sub(lambda found: self._make(found[1], found[2] or ""), text)
        return re.sub(r"\n{3,}", "\n\n", filled)

    def _make(self, what: str, of: str) -> str:
        """Return the text that stands for a marker."""
        makers: Mapping[str, Callable[[], str]] = {
            "differences": self._describe_differences,
            "state": entries.describe_state,
            "schedule": entries.describe_schedule,
            "orders": entries.describe_orders,
            "streams": entries.describe_streams,
            "rest": self._describe_rest,
            "keys": lambda: self._describe_table("" if of == "root" else of),
            "columns": lambda: entries.describe_columns(of),
            "entries": lambda: self._describe_entries(of),
        }
        return makers[what]()

    def _describe_table(self, path: str) -> str:
        """Return the keys of a table, with their values in this scenario."""
        table = self._tables[path]
        lines = [f"**`{table.header}`**: {table.meaning}" if path else ""]
        here = read_value(self._tree, path) if path else self._tree
        if path and here is None:
            lines[0] += " Not used: the values are defaults."
        lines[0] = lines[0].replace(":  ", ": ")
        lines += ["", "| key | value | takes | meaning |", "|---|---|---|---|"]
        several = table.is_list or path in _NAMED
        for key in table.keys:
            value = key.default if several or here is None else self._value_of(key.path)
            shown = "" if value is None else f"`{cell(show(value))}`"
            if not several and (here is not None) and self._is_changed(key.path):
                before = read_value(self._default_tree, key.path)
                was = "none" if before is None else f"`{cell(show(before))}`"
                shown = f"**{shown or 'none'}** (default: {was})"
            lines.append(f"| `{key.name}` | {shown} | {cell(key.takes)} | {cell(key.meaning)} |")
        if several and here:
            members = here.items() if isinstance(here, Mapping) else enumerate(here, 1)
            lines += ["", *(f"- {name}: `{show(member)}`" for name, member in members)]
        return "\n".join(lines)

    def _value_of(self, path: str) -> Any:
        value = read_value(self._tree, path)
        is_choice = tuple(path.split(".")) in REGISTRIES
        return value["kind"] if is_choice and isinstance(value, Mapping) else value

    def _is_changed(self, path: str) -> bool:
        there = read_value(self._default_tree, path)
        if tuple(path.split(".")) in REGISTRIES:
            there = there["kind"] if isinstance(there, Mapping) else there
        return bool(self._value_of(path) != there)

    def _describe_entries(self, path: str) -> str:
        """Return every registered name that may stand at a path."""
        choice = read_value(self._tree, path)
        used = choice["kind"] if choice else None
        text = entries.describe_entries(path, used)
        if not choice or len(choice) == 1:
            return text
        values = ", ".join(f"`{n} = {show(v)}`" for n, v in choice.items() if n != "kind")
        return f"Used: `{used}` with {values}.\n\n{text}"

    def _describe_rest(self) -> str:
        """Return the tables and registered names that the hand-written parts do not place."""
        placed = {(what, of) for what, of in _MARKER.findall(self._template)}
        parts = [
            self._describe_table(path)
            for path in self._tables
            if ("keys", path or "root") not in placed
        ]
        shown = {id(REGISTRIES[tuple(of.split("."))]) for what, of in placed if what == "entries"}
        parts += [
            self._describe_entries(".".join(path))
            for path, registry in REGISTRIES.items()
            if id(registry) not in shown
        ]
        return "\n\n".join(parts)

    def _describe_differences(self) -> str:
        """Return what the scenario changes, as a section; nothing for the default model."""
        if not self._differences:
            return ""
        return (
            "## What differs from the default model\n\n"
            "The scenario changes these keys of the default model, whose description follows with "
            "the changes in their places. All other values are the defaults.\n\n"
            f"{_table_of(self._differences)}\n"
        )

    def write_differences(self) -> str:
        changed = self._differences
        parts = [
            f"# {self._title}: differences",
            "",
            "A delta-ODD (Grimm et al. 2020): what this scenario changes of the default model of "
            f"fcfn_abm {fcfn_abm.__version__}, which `fcfn odd` describes. Elements and keys that "
            "are not named here are those of the default model.",
        ]
        for heading, text in self._sections():
            if heading == "References":
                continue
            own = [d for d in changed if self._place_of(d.path) == heading]
            if not own and not heading[0].isdigit():
                continue
            parts += ["", f"## {heading}", ""]
            parts.append(_table_of(own) if own else "No differences.")
            parts += [
                part for path in list_placed(text) for part in self._describe_chosen(path, own)
            ]
        return "\n".join(parts) + "\n"

    def _describe_chosen(self, path: str, changed: list[Difference]) -> Iterator[str]:
        """Yield the docstring of a registered name that the scenario chooses anew."""
        for difference in changed:
            if without_numbers(difference.path) == f"{path}.kind" and difference.here:
                doc = entries.to_markdown(
                    REGISTRIES[tuple(path.split("."))][difference.here].__doc__
                )
                yield f"\n**`{difference.here}`**: {doc}"

    def _sections(self) -> list[tuple[str, str]]:
        """Return the headings of the template with the texts below them."""
        parts = _HEADING.split(self._template)[1:]
        return list(zip(parts[::2], parts[1::2], strict=True))

    @cached_property
    def _places(self) -> dict[str, str]:
        """In which section the keys of a table, or the options of a registered name, stand."""
        found = {"": "Simulation experiments"}
        for heading, text in self._sections():
            found |= dict.fromkeys(list_placed(text), heading)
        return found

    def _place_of(self, path: str) -> str:
        path = without_numbers(path)
        while path not in self._places:
            path = path.rpartition(".")[0]
        return self._places[path]


def list_placed(text: str) -> list[str]:
    """Return the paths of the tables and registered names that a part of the template shows."""
    found = [of for what, of in _MARKER.findall(text) if what in ("keys", "entries")]
    return ["" if path == "root" else path for path in found]


def _table_of(changed: list[Difference]) -> str:
    lines = ["| key | default | here |", "|---|---|---|"]
    for one in changed:
        values = ("none" if v is None else f"`{cell(show(v))}`" for v in (one.default, one.here))
        lines.append(f"| `{one.path}` | {' | '.join(values)} |")
    return "\n".join(lines)
