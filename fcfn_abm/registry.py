"""Registries: one place to add a rule, a mechanism, a distribution or a net.

A registered entry is a frozen dataclass whose fields are its options; pydantic checks them when a
scenario is read, so that an unknown option raises an error with a suggestion. If a name is missing,
the installed plug-ins are imported first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from fcfn_abm import plugins
from fcfn_abm.errors import (
    FcfnError,
    TakenNameError,
    UnknownNameError,
    abbreviate,
    did_you_mean,
)

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class OptionError(FcfnError, ValueError):
    """An option that a registered entry does not have, or a value that is not allowed."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{option}: {reason}")
        self.option = option
        self.reason = reason


class Registry[T]:
    """Named, configurable implementations of one Protocol.

    Parameters
    ----------
    what : str
        Description of an entry, for error messages: ``"learning rule"``.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._entries: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type], type]:
        """Return a decorator that turns a class into a frozen, checked dataclass and registers it.

        A name can be registered once; a class may only replace itself, as when a notebook cell
        reruns.

        Raises
        ------
        TakenNameError
            From the decorator, if another class has the name.
        """

        def file(cls: type) -> type:
            taken = self._entries.get(name, cls)
            if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TakenNameError(
                    f"the {self.what} {name!r} is already {taken.__module__}.{taken.__qualname__}; "
                    "choose another name."
                )
            entry: type = checked_dataclass(frozen=True, kw_only=True, config=_STRICT)(cls)
            before = self._entries.get(name)
            self._entries[name] = entry
            plugins.add_undo(lambda: self._restore(name, before))
            return entry

        return file

    def _restore(self, name: str, entry: type[T] | None) -> None:
        """Restore the earlier class of a name; None if there was none."""
        if entry is None:
            self._entries.pop(name, None)
        else:
            self._entries[name] = entry

    def __iter__(self) -> Iterator[str]:
        """Yield all names, including those of installed plug-ins."""
        for error in plugins.import_installed():
            raise error
        return iter(list(self._entries))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._entries or name in list(self))

    def __getitem__(self, name: str) -> type[T]:
        if not isinstance(name, str):
            raise UnknownNameError(self.what, name, self)
        if name in self._entries:
            return self._entries[name]
        errors = plugins.import_installed()
        if name in self._entries:
            return self._entries[name]
        for error in errors:
            raise error
        raise UnknownNameError(self.what, name, self._entries)

    def options(self, name: str) -> list[str]:
        """Return the names of an entry's options."""
        return list(_option_names(self[name]))  # type: ignore[arg-type]

    def create(self, name: str, options: Mapping[str, Any] | None = None) -> T:
        """Create the entry called ``name``.

        Raises
        ------
        UnknownNameError
            If nothing is registered under ``name``.
        OptionError
            If an option is unknown or its value is not allowed.
        """
        entry, options = self[name], dict(options or {})
        known = self.options(name)
        for option in options:
            if option not in known:
                allowed = f"it takes {', '.join(known)}" if known else "it takes no options"
                raise OptionError(
                    option,
                    f"the {self.what} {name!r} has no such option; {allowed}."
                    + did_you_mean(option, known),
                )
        try:
            return entry(**options)
        except ValidationError as error:
            first = error.errors()[0]
            # pydantic also names the members of a union
            own = [p for i, p in enumerate(first["loc"]) if i == 0 or isinstance(p, int)]
            place = ".".join(map(str, own))
            raise OptionError(place or "options", problem(first)) from None

    def json_schema(self, name: str) -> dict[str, Any]:
        """Return the JSON schema of an entry's options."""
        entry: Any = self[name]
        schema = TypeAdapter(entry).json_schema()
        for option, key in schema.get("properties", {}).items():
            if description := _inherited_description(entry, option):
                key.setdefault("description", description)
        return schema


def _inherited_description(entry: type, option: str) -> str | None:
    """Return the text below a field in a base class, which pydantic does not inherit."""
    for base in entry.__mro__[1:]:
        field = getattr(base, "__pydantic_fields__", {}).get(option)
        if field is not None and field.description:
            return str(field.description)
    return None


@cache  # the options of a class do not change
def _option_names(entry: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(entry))


def import_modules(package: str) -> None:
    """Import the modules of a package in alphabetical order; each registers its entries."""
    for name in sorted(module.name for module in iter_modules(import_module(package).__path__)):
        import_module(f"{package}.{name}")


def problem(error: Mapping[str, Any]) -> str:
    """Describe a pydantic error in a sentence: what is allowed, and the given value."""
    if error["type"] == "missing":
        return "is required."
    wanted = {"model_type": "Must be a table", "tuple_type": "Must be a list"}
    message: str = wanted.get(error["type"], error["msg"].removeprefix("Value error, "))
    message = message[0].lower() + message[1:]
    given = error["input"]
    if isinstance(given, (str, int, float, bool, list)):
        message = f"{message.rstrip('.')}, but it is {abbreviate(given)}."
    return message
