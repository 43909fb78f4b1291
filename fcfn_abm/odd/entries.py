"""What stands in docstrings and tables of the program, as Markdown."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

from fcfn_abm.abm.columns import NodeColumns
from fcfn_abm.abm.market import Market
from fcfn_abm.abm.order import ORDERS
from fcfn_abm.build import REGISTRIES
from fcfn_abm.odd.keys import cell, option_keys, show
from fcfn_abm.records.tables import TABLES, Column
from fcfn_abm.rng import PURPOSES

_ROLE = re.compile(r":\w+:`~?([^`]*)`")
_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)
_EXAMPLES = re.compile(r"^Examples\n-{3,}\n.*?(?=^\w[\w ]*\n-{3,}$|\Z)", re.MULTILINE | re.DOTALL)


def to_markdown(docstring: str | None) -> str:
    """Return a NumPy docstring as Markdown, without examples: sections in bold, names as code."""
    text = _EXAMPLES.sub("", inspect.cleandoc(docstring or "")).rstrip()
    text = _ROLE.sub(lambda match: f"`{match[1].removeprefix('fcfn_abm.')}`", text)
    text = _SECTION.sub(r"**\1**\n", text)
    return re.sub(r"``(.+?)``", r"`\1`", text)


def describe_entries(path: str, chosen: str | None) -> str:
    """Return every registered name that may stand at a path, with its docstring and options.

    Parameters
    ----------
    path : str
        Such as ``population.rho``.
    chosen : str or None
        The name that the scenario has there, which is marked.
    """
    registry = REGISTRIES[tuple(path.split("."))]
    parts = []
    for name in registry:
        mark = " (used)" if name == chosen else ""
        parts.append(f"**`{name}`**{mark}: {to_markdown(registry[name].__doc__)}\n")
        keys = option_keys(path, name)
        parts += [
            f"- `{key.name}` ({key.takes}{_default(key.default)}): {key.meaning}" for key in keys
        ]
        if keys:
            parts.append("")
    return "\n".join(parts)


def _default(value: Any) -> str:
    return "" if value is None else f"; default `{show(value)}`"


def describe_schedule() -> str:
    """Return the steps of a round in their order, read from the code that carries them out."""
    lines = []
    for outer in ("open_round", "close_round"):
        for name in _list_calls(getattr(Market, outer)):
            inner = [name] if name != "settle_round" else _list_calls(Market.settle_round)
            lines += [_step(step) for step in inner]
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def _list_calls(function: Callable[..., Any]) -> list[str]:
    """Return the methods that a method of the market calls on itself, in the order of the text."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    calls = [
        (node.lineno, node.col_offset, node.func.attr)
        for node in ast.walk(definition)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
    ]
    return [name for _, _, name in sorted(calls)]


_CONDITIONS = {
    "announce_budget": 'with `rounds.payment = "announced"`',
    "set_budget": 'with `rounds.payment = "after-reports"`',
}


def _step(name: str) -> str:
    if name == "_play":
        return "`play`: Nodes move, in the order that `rounds.order` names."
    summary = to_markdown(getattr(Market, name).__doc__).partition("\n\n")[0]
    condition = f" ({_CONDITIONS[name]})" if name in _CONDITIONS else ""
    return f"`{name}`{condition}: {' '.join(summary.split())}"


def describe_orders() -> str:
    """Return the orders of moves."""
    return "\n".join(
        f"- `{name}`: {to_markdown(play.__doc__).partition(chr(10))[0]}"
        for name, play in ORDERS.items()
    )


def describe_state() -> str:
    """Return the state variables of a node."""
    meanings = _field_docstrings(NodeColumns)
    sentences = {name: text.partition(". ")[0].rstrip(".") + "." for name, text in meanings.items()}
    rows = [f"| `{f.name}` | {cell(to_markdown(sentences[f.name]))} |" for f in fields(NodeColumns)]
    return "\n".join(["| variable of a node | meaning |", "|---|---|", *rows])


def _field_docstrings(kind: type) -> Mapping[str, str]:
    """Return the texts below the fields of a dataclass."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    found = {}
    for before, after in pairwise(body):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and is_text:
            found[before.target.id] = str(after.value.value)  # type: ignore[attr-defined]
    return found


def describe_streams() -> str:
    """Return what random numbers are drawn for."""
    rows = []
    for purpose, place in PURPOSES.items():
        indices = ", ".join(inspect.signature(place).parameters)
        rows.append(f"| `{purpose}` | {indices.replace('_', ' ') or 'once'} |")
    return "\n".join(["| drawn for | separately for each |", "|---|---|", *rows])


def describe_columns(table: str) -> str:
    """Return the columns of a table of records."""
    return _columns_table(TABLES[table])


def _columns_table(columns: Iterable[Column]) -> str:
    rows = [f"| `{c.name}` | {c.unit} | {cell(c.meaning)} |" for c in columns]
    return "\n".join(["| column | unit | meaning |", "|---|---|---|", *rows])
