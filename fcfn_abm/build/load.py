"""Scenario files, read and checked, with every default written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fcfn_abm.build.check import check_scenario
from fcfn_abm.build.registries import create
from fcfn_abm.errors import InvalidScenarioError, PluginError, abbreviate, did_you_mean
from fcfn_abm.plugins import find_plugin, import_installed, import_plugin, import_plugins
from fcfn_abm.process.files import list_files
from fcfn_abm.scenario import (
    Choice,
    Scenario,
    SweepRun,
    apply_overrides,
    choices,
    read_scenario,
    shipped_files,
    sweep_runs,
    tree_to_scenario,
)
from fcfn_abm.scenario.load import section_at
from fcfn_abm.scenario.shipped import locate_scenario
from fcfn_abm.scenario.sweep import replace_values


def load_scenario(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    imports: Iterable[str | Path] = (),
    trust: bool = False,
) -> Scenario:
    """Read and check a scenario file.

    Parameters
    ----------
    path : str or Path
        A TOML file, which may extend another one, or the name of a shipped one: ``"quickstart"``.
    overrides : iterable of str
        Replacements such as ``"game.alpha=20"``, carried out in order.
    imports : iterable of str or Path
        Plug-ins that are imported first, whether the file names them or not; see
        :func:`fcfn_abm.import_plugin`.
    trust : bool, default False
        Whether the plug-ins that the file names are imported, which may do anything. Without it
        the file may name those only that are imported or installed already.

    Returns
    -------
    Scenario
        Frozen and complete: every default is filled in. If it has a sweep, each run of it has been
        checked too.

    Raises
    ------
    InvalidScenarioError
        With one sentence that says what is wrong, where, and what is allowed.
    PluginError
        If one of ``imports`` cannot be imported.
    """
    tree, where = read_scenario(Path(path))
    scenario = tree_to_scenario(apply_overrides(tree, overrides), where)
    import_plugins(imports)
    _import_named(scenario, locate_scenario(Path(path)).parent, where, trust=trust)
    check_scenario(scenario, where)
    scenario = resolve_defaults(scenario)
    if scenario.sweep:
        list_runs(scenario, where)
    return scenario


def _import_named(scenario: Scenario, folder: Path, where: str, *, trust: bool) -> None:
    """Import the plug-ins that a scenario names, as far as the user allows it."""
    for name in scenario.imports or ():
        if find_plugin(name, folder):
            continue
        for error in import_installed(name):
            raise InvalidScenarioError(str(error), file=where, key="imports")
        if find_plugin(name, folder):
            continue
        if not trust:
            raise InvalidScenarioError(
                f"names code, {abbreviate(name)}, which runs only where you allow it: --trust runs "
                "all that the file names, --import one plug-in (in Python: trust=True, or "
                "fa.import_plugin).",
                file=where,
                key="imports",
            )
        try:
            import_plugin(name, folder)
        except PluginError as error:
            raise InvalidScenarioError(str(error), file=where, key="imports") from error


def resolve_defaults(scenario: Scenario) -> Scenario:
    """Return the scenario with the default options of every registered name written out."""
    tree = scenario.model_dump(exclude_none=True)
    for place, choice in choices(scenario):
        inner: Any = tree
        for part in place[:-1]:
            inner = inner[int(part)] if isinstance(inner, tuple) else inner[part]
        inner[place[-1]] = {"kind": choice.kind, **asdict(create(scenario, place, choice))}
    return Scenario.model_validate(tree)


def list_runs(scenario: Scenario, where: str = "scenario") -> list[SweepRun]:
    """Return the runs of a scenario's sweep, each checked and complete."""
    return sweep_runs(scenario, _check_and_resolve, where)


def _check_and_resolve(scenario: Scenario, where: str) -> Scenario:
    check_scenario(scenario, where)
    return resolve_defaults(scenario)


def set_keys(scenario: Scenario, settings: Mapping[str, Any], where: str) -> Scenario:
    """Return a scenario with other values of some keys, checked.

    Parameters
    ----------
    scenario : Scenario
        Complete and checked.
    settings : mapping
        From keys to values. A key is a path, such as ``game.alpha``, or its last part where no
        other table has such a key: ``alpha``.
    where : str
        Where the settings come from, for the error message.

    Raises
    ------
    InvalidScenarioError
        If there is no such key, or several are called so, or a value is not allowed.
    """
    values = {
        _path_of(name, where): value.item() if isinstance(value, np.generic) else value
        for name, value in settings.items()
    }
    return replace_values(scenario, values, _check_and_resolve, where)


def _path_of(name: str, where: str) -> str:
    """Return the path of a key that is called by its last part."""
    if "." in name or name in Scenario.model_fields:
        return name
    keys = {
        table: section
        for table in Scenario.model_fields
        if (section := section_at(Scenario, table)) is not None
        and section is not Choice
        and table != "sweep"
    }
    paths = [f"{table}.{name}" for table, section in keys.items() if name in section.model_fields]
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise InvalidScenarioError(
            f"may be {' or '.join(paths)}: give the whole path, as in **{{{paths[0]!r}: ...}}.",
            file=where,
            key=name,
        )
    known = {*Scenario.model_fields, *(key for s in keys.values() for key in s.model_fields)}
    raise InvalidScenarioError(
        f"there is no such key in any table.{did_you_mean(name, known)}", file=where, key=name
    )


def list_scenarios(folder: Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield the shipped scenarios, or every TOML file below a folder, with their titles.

    What cannot be read has the reason in place of its title.
    """
    files = (
        {str(path): path for path in list_files(folder) if path.suffix == ".toml"}
        if folder
        else None
    )
    for name, path in (shipped_files() if files is None else files).items():
        try:
            tree, _ = read_scenario(path)
        except InvalidScenarioError as error:
            yield name, f"({error.reason if error.key is None else error})"
        else:
            yield name, str(tree.get("title", ""))
