"""The public interface as text: ``python tests/api/listing.py`` writes ``public_api.txt``.

What users may rely on: the names of ``fcfn_abm`` and of the subpackages that extensions import,
with parameters, defaults, attributes, and methods; the registered entries with their options; the
commands of ``fcfn`` with arguments and options; the columns of a record's tables. The keys of
scenario files are in ``scenarios/scenario.schema.json``. mypy checks annotations: left out here.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

import fcfn_abm
from fcfn_abm.cli import app
from fcfn_abm.errors import MissingExtraError
from fcfn_abm.records.tables import TABLES
from fcfn_abm.registry import Registry

LISTING = Path(__file__).with_name("public_api.txt")
REMEDY = "if the change is meant, run 'python tests/api/listing.py', and add a line to CHANGELOG.md"
MODULES = [
    *("fcfn_abm", "fcfn_abm.abm", "fcfn_abm.build", "fcfn_abm.crate", "fcfn_abm.dp"),
    *("fcfn_abm.game", "fcfn_abm.learning", "fcfn_abm.mechanisms", "fcfn_abm.odd"),
    *("fcfn_abm.population", "fcfn_abm.records", "fcfn_abm.report.figures"),
    *("fcfn_abm.scenario", "fcfn_abm.training"),
]


def list_interface() -> str:
    """Return the public interface, a line for each thing that may change."""
    sections = {module: list_module(module) for module in MODULES}
    sections["commands"] = list_commands(typer.main.get_command(app), "fcfn")
    sections["columns"] = (
        f"{table}.{column.name}: {column.kind}, {column.unit}"
        for table, columns in TABLES.items()
        for column in columns
    )
    return "\n".join(f"[{title}]\n" + "\n".join(lines) + "\n" for title, lines in sections.items())


def list_module(name: str) -> Iterator[str]:
    """Yield the public names of a module."""
    module = import_module(name)
    for public in sorted(module.__all__):
        try:
            value = getattr(module, public)
        except MissingExtraError:  # an optional dependency is not installed here: unchanged
            yield from (line for line in listed_lines() if re.match(rf"(class )?{public}\b", line))
            continue
        home = getattr(fcfn_abm, public, None) if module is not fcfn_abm else None
        if home is value and public in fcfn_abm.__all__:
            yield f"{public}: fcfn_abm.{public}"
        elif inspect.isclass(value):
            yield from list_class(public, value)
        elif callable(value):
            yield public + signature(value)
        elif isinstance(value, Registry):
            yield f"{public}: registry"
            yield from list_entries(public, value)
        elif isinstance(value, (str, int, float)):
            yield f"{public} = {value!r}"
        else:
            yield f"{public}: {type(value).__name__}"


def listed_lines() -> list[str]:
    """Return the lines of the stored listing."""
    return LISTING.read_text(encoding="utf-8").splitlines()


def list_class(name: str, cls: type) -> Iterator[str]:
    """Yield a class, its fields or parameters, and what else it defines in public."""
    bases = [base.__name__ for base in cls.__bases__ if base is not object]
    yield f"class {name}({', '.join(bases)})" if bases else f"class {name}"
    if issubclass(cls, BaseModel):
        inherited = set()  # the keys of a table of scenario files: the schema has their defaults
        yield from (f"{name}.{field}" for field in cls.model_fields)
    elif dataclasses.is_dataclass(cls):
        inherited = {field.name for field in dataclasses.fields(cls)}
        for field in dataclasses.fields(cls):
            if not field.name.startswith("_"):
                yield f"{name}.{field.name}{default_of(field)}"
    else:
        inherited = set()
        if "__init__" in vars(cls):
            yield f"{name}{signature(cls)}"
    if issubclass(cls, Enum):
        yield from (f"{name}.{member.name} = {member.value!r}" for member in cls)
    yield from list_members(name, cls, inherited)


def list_members(name: str, cls: type, known: set[str]) -> Iterator[str]:
    """Yield methods and properties that our own classes define."""
    found = {
        member: (owner, value)
        for owner in reversed(cls.__mro__)
        if is_ours(owner)
        for member, value in vars(owner).items()
        if not member.startswith("_") and member not in known and member != "model_config"
    }
    for member, (_, value) in sorted(found.items()):
        if isinstance(value, (staticmethod, classmethod)):
            yield f"{name}.{member}{signature(value.__func__)}"
        elif inspect.isfunction(value):
            yield f"{name}.{member}{signature(value)}"
        elif hasattr(value, "__get__") and not callable(value):
            yield f"{name}.{member}"


def is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "fcfn_abm"


def list_entries(name: str, registry: Registry[Any]) -> Iterator[str]:
    """Yield what the package itself registers, with options; installed plug-ins register more."""
    for entry in sorted(name for name in registry if is_ours(registry[name])):
        options = dataclasses.fields(registry[entry])
        listed = ", ".join(
            f"{option.name}{default_of(option)}".replace(" = ", "=") for option in options
        )
        yield f"{name}[{entry!r}]({listed})"


def list_commands(command: Any, path: str) -> Iterator[str]:
    """Yield a command's arguments and options, and those of the commands below it."""
    for parameter in command.params:
        names = "|".join([*parameter.opts, *parameter.secondary_opts])
        if "completion" in names:  # typer's own
            continue
        kind = parameter.param_type_name
        many = ", repeated" if parameter.multiple or parameter.nargs == -1 else ""
        needed = ", required" if parameter.required else ""
        default = "" if parameter.default is None else f" = {parameter.default}"
        yield f"{path} {names}: {kind}{needed}{many}{default}"
    for name, below in getattr(command, "commands", {}).items():
        yield f"{path} {name}"
        yield from list_commands(below, f"{path} {name}")


def signature(function: Any) -> str:
    """Return the parameters of a function, with defaults and without annotations."""
    parameters = inspect.signature(function).parameters.values()
    plain = [
        p.replace(
            annotation=p.empty, default=p.empty if p.default is p.empty else Default(p.default)
        )
        for p in parameters
        if p.name not in {"self", "cls"}
    ]
    return str(inspect.Signature(plain))


def default_of(field: dataclasses.Field[Any]) -> str:
    """Return the default of a field, as `` = value``, or nothing."""
    if field.default_factory is not dataclasses.MISSING:
        return " = ..."
    return "" if field.default is dataclasses.MISSING else f" = {Default(field.default)!r}"


class Default:
    """A default, written the same by all versions of the libraries."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        """Return plain values as Python writes them, of others the name or the class."""
        if self.value is None or isinstance(
            self.value, (bool, int, float, str, bytes, tuple, slice)
        ):
            return repr(self.value)
        return getattr(self.value, "__name__", type(self.value).__name__)


def main() -> None:
    """Write the listing."""
    text = list_interface()
    LISTING.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(text.splitlines())} lines in {LISTING}\n")


if __name__ == "__main__":
    main()
