"""The reference pages, made from the program: ``python docs/generate.py``, or ``make reference``.

The pages are stored, so that they can be read in the repository; ``tests/docs/test_reference.py``
fails when the program has changed since. They depend on nothing but the program's source.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

if TYPE_CHECKING:
    import griffe

DOCS = Path(__file__).parent
_MADE = "<!-- Made by docs/generate.py from {}: do not edit. -->\n\n"


def write_reference(folder: Path = DOCS) -> None:
    """Write all reference pages into a folder that is arranged like docs."""
    for file, make in PAGES.items():
        (folder / file).write_text(make(), encoding="utf-8")


# ------------------------------------------------------------------------------ scenario files

_KEYS = """\
# Scenario files

A scenario is a TOML file. This page lists every table and key that it may contain; any other key
raises an error that suggests the nearest one. Nothing is required: a key that is left out takes its
default. Where a table has a `kind`, the name alone may stand for the table: `learning = "gradient"`
is `[learning]` with `kind = "gradient"`.

For editors, the same as a JSON schema: `scenarios/scenario.schema.json`, which
`fcfn scenarios schema` prints.

"""


def scenario_keys() -> str:
    """Return every table of a scenario file: its keys, what they take, and what they mean."""
    from fcfn_abm.build import scenario_schema

    schema = scenario_schema()
    parts = list(_tables(schema, "", schema["$defs"], {}))
    titles = [part.removeprefix("## ").strip() for part in parts if part.startswith("## ")]
    contents = " · ".join(f"[{title}](#{_slug(title)})" for title in titles)
    return _MADE.format("the schema of scenarios") + _KEYS + contents + "\n\n" + "\n".join(parts)


def _tables(
    table: Mapping[str, Any], path: str, definitions: Mapping[str, Any], seen: dict[str, str]
) -> Iterator[str]:
    """Yield a table, and then the tables in it; ``seen`` has the places of choices."""
    yield f"## `[{path}]`\n" if path else "## The top of the file\n"
    if path:
        yield _line(table.get("description", "")) + "\n"
    inner: list[tuple[str, Mapping[str, Any]]] = []
    keys = {}
    for name, key in table.get("properties", {}).items():
        place = f"{path.strip('[]')}.{name}" if path else name
        below = _reference(key)
        if below:
            inner.append((f"[{place}]" if _is_list(key) else place, definitions[below]))
        elif "oneOf" in key:
            inner.append((place, key))
        else:
            keys[name] = key
    if keys:
        yield _table_of(keys)
    if "oneOf" in table:
        choices = [choice for choice in table["oneOf"] if "properties" in choice]
        same = seen.setdefault(json.dumps(choices, sort_keys=True), path)
        if same == path:
            for choice in choices:
                yield from _choice(path, choice)
        else:
            yield f"The kinds and their options are those of [`[{same}]`](#{_slug(same)}).\n"
    for place, below in inner:
        yield from _tables(below, place, definitions, seen)


def _choice(path: str, choice: Mapping[str, Any]) -> Iterator[str]:
    """Yield one kind of a table and its options."""
    yield f'### {path}: `kind = "{choice["properties"]["kind"]["const"]}"`\n'
    yield _line(choice.get("description", "").split("\n\n")[0]) + "\n"
    keys = {name: key for name, key in choice["properties"].items() if name != "kind"}
    if keys:
        yield _table_of(keys)


def _table_of(keys: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (f"`{name}`", _takes(key), _default(key), _line(key.get("description", "")))
        for name, key in keys.items()
    ]
    return _markdown_table(("key", "takes", "default", "meaning"), rows)


def _reference(key: Mapping[str, Any]) -> str | None:
    """Return the definition that a key refers to, itself or for the items of its list."""
    parts = [key, *key.get("anyOf", []), *key.get("allOf", [])]
    for part in (*parts, *(part["items"] for part in parts if "items" in part)):
        if "$ref" in part:
            return str(part["$ref"]).rsplit("/", 1)[1]
    return None


def _is_list(key: Mapping[str, Any]) -> bool:
    """Whether a key holds a list of tables: ``[[events]]``."""
    return any("items" in part for part in (key, *key.get("anyOf", [])))


def _takes(key: Mapping[str, Any]) -> str:
    """Return what values a key takes, in words."""
    if "anyOf" in key:
        return " or ".join(_takes(part) for part in key["anyOf"] if part.get("type") != "null")
    if "enum" in key or "const" in key:
        return ", ".join(f"`{json.dumps(value)}`" for value in key.get("enum", [key.get("const")]))
    bounds = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
    }
    if "minimum" in key:
        del bounds["exclusiveMinimum"]  # zero, which is farther away
    limits = [text.format(_number(key[name])) for name, text in bounds.items() if name in key]
    kind = {"array": "list", "object": "table"}.get(key.get("type", ""), key.get("type", "any"))
    return ", ".join([kind, *limits])


def _number(value: float) -> str:
    if value == 2**63 - 1:
        return "2^63 - 1"
    return f"{value:.15g}" if isinstance(value, float) else f"{value}"


def _default(key: Mapping[str, Any]) -> str:
    value = key.get("default")
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


# ------------------------------------------------------------------------------------ commands

_COMMANDS = """\
# Commands

Results go to stdout; progress and messages go to stderr. A `SCENARIO` is a file or the name of a
bundled scenario (`fcfn scenarios list`). Commands that take one load [plug-ins](../plugins.md) with
`--import`, and with `--trust` those that the scenario names. `fcfn COMMAND --help` prints the same
text in the terminal.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | a run failed, or an audit or a check of a mechanism disproved a claim |
| 2 | a mistake in the call, in a file or in a value |
| 130 | interrupted |
| 141 | the program that read the output has ended |

"""


def commands() -> str:
    """Return every command with its arguments and options."""
    import typer.main

    from fcfn_abm.cli import app

    parts = []
    for path, command in _walk("fcfn", typer.main.get_command(app)):
        inner = list(getattr(command, "commands", {}))
        parts.append(f"## {path}\n\n{_paragraphs(command.help or '')}\n")
        rows = [_parameter(p, _hints(command)) for p in command.params if not p.hidden]
        arguments = [name for name, *_ in rows if not name.startswith("`-")]
        usage = [path, *(name.strip("`") for name in arguments)]
        usage += ["COMMAND"] * bool(inner) + ["[OPTIONS]"] * (len(rows) > len(arguments))
        parts.append(f"```text\n{' '.join(usage)}\n```\n")
        if inner:
            names = ", ".join(f"[`{name}`](#{_slug(f'{path} {name}')})" for name in inner)
            parts.append(f"Commands: {names}.\n")
        if rows:
            parts.append(_markdown_table(("argument or option", "default", "meaning"), rows))
    return _MADE.format("the commands") + _COMMANDS + "\n".join(parts)


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk(f"{path} {name}", inner)


def _hints(command: Any) -> Mapping[str, Any]:
    return get_type_hints(command.callback) if command.callback else {}


def _parameter(parameter: Any, hints: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the row of an argument or option: name, default, meaning."""
    several = parameter.nargs == -1 or getattr(parameter, "multiple", False)
    if not parameter.opts[0].startswith("-"):
        name = parameter.name.upper() + ("..." if several else "")
        names = f"`{name}`" if parameter.required else f"`[{name}]`"
    else:
        takes = "" if getattr(parameter, "is_flag", False) else _value(hints.get(parameter.name))
        both = [f"`{name}{takes}`" for name in (*parameter.opts, *parameter.secondary_opts)]
        names = ", ".join(both)
    shown = parameter.show_default
    if isinstance(shown, str):
        default = shown
    elif (
        shown
        and parameter.default not in (None, False, True, ())
        and not callable(parameter.default)
    ):
        default = f"`{parameter.default}`"
    else:
        default = "required" if parameter.required else ""
    return names, default, _line(parameter.help or "")


def _value(hint: Any) -> str:
    """Return what an option takes, as it stands behind its name."""
    inner = [_value(part) for part in get_args(hint) if part is not type(None)]
    return inner[0] if inner else {int: " N", float: " X", Path: " PATH"}.get(hint, " TEXT")


# --------------------------------------------------------------------------------- the library

_LIBRARY = """\
# The library

Everything public is in `fcfn_abm`, by convention `import fcfn_abm as fa`. Importing it is cheap:
torch and Mesa are loaded when they are first needed. Modules below `fcfn_abm` can be imported too,
but may change from version to version; [Contributing](../contributing.md) shows how to extend them.

"""
_GROUPS = {
    "Scenarios and runs": (
        "load_scenario load_costs import_plugin Plugin Scenario run_scenario run_sweep read_sweep "
        "Sweep compare_mechanisms Comparison run_bench read_bench Benchmark calibrate_value "
        "ValueCalibration"
    ),
    "Records": "read_record Record export_plan",
    "Reports and figures": "write_report plot",
    "The game": (
        "best_response nash_equilibrium Equilibrium stackelberg_equilibrium StackelbergEquilibrium "
        "exploitability contest_equilibrium ContestEquilibrium Terms search_best_cap "
        "bayes_nash_equilibrium BayesNashEquilibrium payments node_utility server_utility"
    ),
    "Mechanisms": "price Outcome Claims check_mechanism MechanismCheck",
    "Privacy": "gaussian_sigma gaussian_epsilon gaussian_delta",
    "The market": "PrivacyMarket env",
    "Errors": "FcfnError",
}
_ONLY = {"Scenario": {"cap", "trains"}}  # its other attributes are the keys of a file
_AFTER = {
    "Scenario": "Its other attributes are the tables and keys of a [scenario file](keys.md).\n"
}


def library() -> str:
    """Return everything public, from the docstrings."""
    import griffe

    import fcfn_abm

    listed = [name for names in _GROUPS.values() for name in names.split()]
    if sorted(listed) != sorted(fcfn_abm.__all__):
        raise ValueError(f"_GROUPS must list {set(listed) ^ set(fcfn_abm.__all__)}")
    package = griffe.load(
        "fcfn_abm",
        try_relative_path=False,  # or a folder of that name would be taken for the package
        search_paths=[str(Path(fcfn_abm.__file__).parents[1])],
        docstring_parser="numpy",
    )
    parts = []
    for title, names in _GROUPS.items():
        linked = ", ".join(f"[`{name}`](#{_slug(name)})" for name in names.split())
        parts.append(f"## {title}\n\n{linked}\n")
        for name in names.split():
            home = getattr(fcfn_abm, "_HOME_OF").get(name) or fcfn_abm._MODULES[name]  # noqa: B009
            member = package[home] if name in fcfn_abm._MODULES else package[home][name]
            parts += _documented(name, _target(member))
    return (
        _MADE.format("the docstrings")
        + _LIBRARY
        + re.sub(r"\n{3,}", "\n\n", "\n".join(parts).strip())
        + "\n"
    )


def _target(member: griffe.Object | griffe.Alias) -> griffe.Object:
    return member.final_target if member.is_alias else member  # type: ignore[union-attr,return-value]


def _documented(name: str, member: griffe.Object) -> Iterator[str]:
    """Yield a function, a class with its members, or a module with its functions."""
    yield f"### `{name}`\n"
    if member.is_function:
        yield _signature(name, member)
    elif member.is_class and member.bases:  # type: ignore[attr-defined]
        bases = ", ".join(_linked(str(base)) for base in member.bases)  # type: ignore[attr-defined]
        yield f"A class, derived from {bases}.\n"
    yield _docstring(member)
    if member.is_module:
        for inner in member.exports or ():
            yield from _documented(f"{name}.{inner}", _target(member[str(inner)]))
    elif member.is_class:
        yield from _members(name, member)
    yield _AFTER.get(name, "")


def _members(name: str, member: griffe.Object) -> Iterator[str]:
    """Yield the public members of a class: attributes as a list, methods with their signatures."""
    shown = {
        key: inner
        for key, inner in member.members.items()
        if not key.startswith("_") and not inner.is_alias and inner.docstring
        if key in _ONLY.get(name, member.members)
    }
    rows = [
        f"- `{key}`{_type(inner)}: {_paragraphs(inner.docstring.value, '  ')}"  # type: ignore[union-attr]
        for key, inner in shown.items()
        if inner.is_attribute
    ]
    if rows:
        yield "**Attributes**\n\n" + "\n".join(rows) + "\n"
    for key, inner in shown.items():
        if inner.is_function:
            yield f"#### `{name}.{key}`\n"
            yield _signature(f"{name}.{key}", _target(inner))
            yield _docstring(_target(inner))


def _type(member: Any) -> str:
    return f" (`{member.annotation}`)" if member.annotation is not None else ""


def _signature(name: str, function: Any) -> str:
    """Return a call as a block of code, one parameter a line if it is long."""
    parts, kinds = [], set()
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        kind = parameter.kind.value
        if kind == "keyword-only" and not kinds & {"keyword-only", "variadic positional"}:
            parts.append("*")
        kinds.add(kind)
        stars = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
        text = stars + parameter.name
        text += f": {parameter.annotation}" if parameter.annotation is not None else ""
        text += f" = {parameter.default}" if parameter.required is False and not stars else ""
        parts.append(text)
    returns = f" -> {function.returns}" if function.returns is not None else ""
    call = f"{name}({', '.join(parts)}){returns}"
    if len(call) > 88:
        call = f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"
    return f"```python\n{call}\n```\n"


def _docstring(member: griffe.Object) -> str:
    """Return a NumPy docstring as Markdown."""
    parts = []
    for section in member.docstring.parse("numpy") if member.docstring else ():
        kind, value = section.kind.value, section.value
        title = section.title or kind.replace("_", " ").capitalize()
        if kind == "text":
            parts.append(_paragraphs(value))
        elif kind == "examples":
            code = "\n\n".join(text for _, text in value)
            parts.append(f"**{title}**\n\n```python\n{code}\n```")
        elif kind == "admonition":
            parts.append(f"**{title}**\n\n{_paragraphs(value.contents)}")
        else:
            items = "\n".join(_item(item) for item in value)
            parts.append(f"**{title}**\n\n{items}")
    return "\n\n".join(parts) + "\n"


def _item(item: Any) -> str:
    """Return a parameter, a result or an error as an item of a list."""
    name, kind = getattr(item, "name", ""), str(item.annotation or "")
    text = _paragraphs(item.description, "  ")
    if name:
        return f"- `{name}` ({_linked(kind)}): {text}" if kind else f"- `{name}`: {text}"
    return f"- {_linked(kind)}: {text}"


def _linked(kind: str) -> str:
    """Return the name of a type, with links to those on the page."""
    import fcfn_abm

    public = {name for name in fcfn_abm.__all__ if name[0].isupper()}
    return re.sub(
        r"\b[A-Z]\w+\b",
        lambda match: f"[{match[0]}](#{_slug(match[0])})" if match[0] in public else match[0],
        _escape(kind.removesuffix(" or None")),
    )


# ------------------------------------------------------------------------------------- sources

_SOURCES = """\
# Sources

What the pages and docstrings cite; as BibTeX in [references.bib](../references.bib).

"""


def sources() -> str:
    """Return docs/references.bib as a list."""
    text = (DOCS / "references.bib").read_text(encoding="utf-8")
    lines = []
    for entry in re.findall(r"@\w+\{(.*?)\n\}", text, re.DOTALL):
        field = dict(re.findall(r"(\w+) = \{(.*)\}", entry))
        where = field.get("journal") or field.get("booktitle") or field.get("publisher", "")
        authors = field["author"].replace(" and ", "; ")
        lines.append(f"- {authors} ({field['year']}): *{field['title']}*. {where}.")
    return _MADE.format("docs/references.bib") + _SOURCES + "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------ Markdown


def _markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines) + "\n"


def _line(text: str) -> str:
    """Return text as one line, which may stand in a cell of a table."""
    return _escape(" ".join(text.split())).replace("|", "\\|")


def _paragraphs(text: str, indent: str = "") -> str:
    """Return the text of a docstring as Markdown: code as it is, roles as code."""
    lines = _escape(text.strip()).splitlines()
    return "\n".join([*lines[:1], *((indent + line).rstrip() for line in lines[1:])])


def _escape(text: str) -> str:
    """Return text with what Markdown would read as markup escaped, and Sphinx's roles as code."""
    parts = re.split(r"(``.+?``|:\w+:`[^`]+`|`[^`]+`)", text, flags=re.DOTALL)
    for place, part in enumerate(parts):
        if place % 2:
            name = re.sub(r"^:\w+:`~?(fcfn_abm\.)?|^`+|`+$", "", part)
            parts[place] = f"`{' '.join(name.split())}`"
        else:
            parts[place] = re.sub(r"(?<!\*)\*(?![*\s])|(?<=\S)\*(?!\*)|[$<]", r"\\\g<0>", part)
    return "".join(parts)


def _slug(title: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


PAGES: dict[str, Callable[[], str]] = {
    "reference/keys.md": scenario_keys,
    "reference/commands.md": commands,
    "reference/library.md": library,
    "reference/sources.md": sources,
}

if __name__ == "__main__":
    write_reference(*map(Path, sys.argv[1:]))
