"""Loading of scenario files: checked, and with all defaults filled in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import tomli_w

from fcfn_abm.build.bench import BenchCell, list_cells
from fcfn_abm.build.check import check_scenario
from fcfn_abm.build.costs import FindFolder, list_costs
from fcfn_abm.build.registries import create
from fcfn_abm.errors import (
    InvalidScenarioError,
    OutputError,
    PluginError,
    abbreviate,
    as_path,
    did_you_mean,
)
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
from fcfn_abm.scenario.load import find_override, section_at
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
        A TOML file, which may extend another one, or the name of a bundled scenario:
        ``"quickstart"``.
    overrides : iterable of str
        Replacements such as ``"game.alpha=20"``, applied in order.
    imports : iterable of str or Path
        Plug-ins to import first, whether the file names them or not; see
        :func:`fcfn_abm.import_plugin`.
    trust : bool, default False
        Whether to import the plug-ins that the file names; they can run any code. Without it the
        file may name only plug-ins that are already imported or installed.

    Returns
    -------
    Scenario
        Frozen and complete: all defaults are filled in. If it has a sweep, each run of it has been
        checked as well.

    Raises
    ------
    InvalidScenarioError
        If the scenario is invalid; the message states what is wrong, where, and what is allowed.
    PluginError
        If one of ``imports`` cannot be imported.
    """
    path = as_path("path", path, error=InvalidScenarioError)
    tree, where = read_scenario(path)
    folder = locate_scenario(path).parent
    tree = apply_overrides(tree, overrides)
    scenario = tree_to_scenario(tree, where)
    import_plugins(imports)
    _import_named(scenario, folder, where, trust=trust)
    return _complete(scenario, lambda place: _folder_at(tree, place, folder), where)


def load_costs(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    column: str | None = None,
    name_column: str | None = None,
) -> Scenario:
    r"""Return a scenario with the nodes of a CSV file, and defaults for everything else.

    Parameters
    ----------
    path : str or Path
        A CSV file with one line per node; see the distribution ``csv`` in a scenario's
        ``[population.rho]``.
    overrides : iterable of str
        Replacements such as ``"game.alpha=20"``, applied in order.
    column : str, optional
        Column of the costs. By default the column called rho or cost, or the only one besides the
        names.
    name_column : str, optional
        Column of the nodes' names. By default the column called name or node, if there is one.

    Returns
    -------
    Scenario
        Frozen and complete, including the costs and names.

    Raises
    ------
    InvalidScenarioError
        If the file is invalid; the message states the line, the problem, and what is allowed.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("costs.csv").write_text("name;rho\nA;0,1\nB;0,2\nC;0,15\n", encoding="utf-8")
    >>> load_costs("costs.csv").population.node_names
    ('A', 'B', 'C')
    """
    path = as_path("path", path, error=InvalidScenarioError)
    tree = apply_overrides(costs_tree(path, column, name_column), overrides)
    where = str(path)
    return _complete(tree_to_scenario(tree, where), lambda _: Path(), where)


def write_costs_scenario(
    costs: Path,
    to: Path | None = None,
    *,
    column: str | None = None,
    name_column: str | None = None,
) -> Path:
    """Write a scenario file with the nodes of a CSV file.

    Parameters
    ----------
    costs : Path
        The CSV file; the scenario stores its path relative to itself.
    to : Path, optional
        The new file. By default the CSV file's name with .toml, in the current folder.
    column, name_column : str, optional
        As in :func:`load_costs`.

    Raises
    ------
    InvalidScenarioError
        If the CSV file cannot be used.
    OutputError
        If the new file exists already, or cannot be written.
    """
    scenario = load_costs(costs, column=column, name_column=name_column)
    to = Path(costs.with_suffix(".toml").name) if to is None else to
    path = Path(os.path.relpath(costs, to.parent)).as_posix()
    tree = costs_tree(path, column, name_column)
    tree["title"] = f"The nodes of {costs.name}"
    tree["game"] = {"alpha": scenario.game.alpha, "beta": scenario.game.beta}
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(
                f"# {scenario.population.n_nodes} nodes; 'fcfn run {to}' plays their market.\n\n"
            )
            file.write(tomli_w.dumps(tree))
    except FileExistsError:
        raise OutputError(f"{to}: the file exists already; choose another name.") from None
    except OSError as error:
        raise OutputError(f"{to}: cannot be written: {error.strerror}.") from None
    return to


def costs_tree(
    path: str | Path, column: str | None = None, name_column: str | None = None
) -> dict[str, Any]:
    """Return a scenario with the nodes of a CSV file, as a tree."""
    options = {"path": str(path), "column": column, "name_column": name_column}
    rho = {"kind": "csv", **{name: value for name, value in options.items() if value is not None}}
    return {"title": Path(path).stem, "population": {"rho": rho}}


def _folder_at(tree: Mapping[str, Any], place: Sequence[str], folder: Path) -> Path:
    """Return the folder that a path in a scenario is relative to: its own, or the current one."""
    return Path() if find_override(tree, place) else folder


def _complete(scenario: Scenario, find_folder: FindFolder, where: str) -> Scenario:
    """Return a scenario, and each run of its sweep, checked and with all defaults filled in."""
    scenario = list_costs(scenario, find_folder, where)
    check_scenario(scenario, where)
    scenario = resolve_defaults(scenario)
    if scenario.sweep:
        list_runs(scenario, where)
    if scenario.bench:
        list_bench(scenario, where)
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
                f"names code, {abbreviate(name)}, which runs only if you allow it: use --trust to "
                "run all code that the file names, --import for one plug-in (in Python: "
                "trust=True, or fa.import_plugin).",
                file=where,
                key="imports",
            )
        try:
            import_plugin(name, folder)
        except PluginError as error:
            raise InvalidScenarioError(str(error), file=where, key="imports") from error


def resolve_defaults(scenario: Scenario) -> Scenario:
    """Return the scenario with the default options of every registered name filled in."""
    resolved = {
        place: {"kind": choice.kind, **asdict(create(scenario, place, choice))}
        for place, choice in choices(scenario)
    }
    if all({"kind": c.kind, **c.options} == resolved[place] for place, c in choices(scenario)):
        return scenario
    tree = scenario.model_dump(exclude_none=True)
    for place, options in resolved.items():
        inner: Any = tree
        for part in place[:-1]:
            inner = inner[int(part)] if isinstance(inner, tuple) else inner[part]
        inner[place[-1]] = options
    return Scenario.model_validate(tree)


def list_runs(scenario: Scenario, where: str = "scenario") -> list[SweepRun]:
    """Return the runs of a scenario's sweep, each checked and complete.

    The runs of the last scenario are cached as long as it exists: :func:`load_scenario` lists them
    to check them, and the sweep lists them again.
    """
    global _listed
    if _listed and _listed[0]() is scenario:
        return list(_listed[1])
    runs = sweep_runs(scenario, _check_and_resolve, where)
    _listed = (ref(scenario, _forget_runs), runs)
    return list(runs)


def list_bench(scenario: Scenario, where: str = "scenario") -> list[BenchCell]:
    """Return the cells of a scenario's benchmark, each checked and complete."""
    return list_cells(scenario, _check_and_resolve, where)


_listed: tuple[ref[Scenario], list[SweepRun]] | None = None


def _forget_runs(scenario: ref[Scenario]) -> None:
    """Drop the cached runs of a scenario that no longer exists."""
    global _listed
    if _listed and _listed[0] is scenario:
        _listed = None


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
        Maps keys to values. A key is a path, such as ``game.alpha``, or its last part if no other
        table has such a key: ``alpha``.
    where : str
        Source of the settings, for the error message.

    Raises
    ------
    InvalidScenarioError
        If there is no such key, if several tables have it, or if a value is not allowed.
    """
    values = {
        _path_of(name, where): value.item() if isinstance(value, np.generic) else value
        for name, value in settings.items()
    }
    return replace_values(scenario, values, _check_and_resolve, where)


def _path_of(name: str, where: str) -> str:
    """Return the path of a key given by its last part."""
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
            f"may be {' or '.join(paths)}: use the whole path, as in **{{{paths[0]!r}: ...}}.",
            file=where,
            key=name,
        )
    known = {*Scenario.model_fields, *(key for s in keys.values() for key in s.model_fields)}
    raise InvalidScenarioError(
        f"there is no such key in any table.{did_you_mean(name, known)}", file=where, key=name
    )


def list_scenarios(folder: Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield the bundled scenarios, or every TOML file below a folder, with their titles.

    A file that cannot be read has the reason as its title.
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
