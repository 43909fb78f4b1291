"""Scenario files, read and checked, with every default written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcfn_abm.build.check import check_scenario
from fcfn_abm.build.registries import create
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.scenario import (
    Scenario,
    SweepRun,
    apply_overrides,
    choices,
    read_scenario,
    shipped_files,
    sweep_runs,
    tree_to_scenario,
)


def load_scenario(path: str | Path, overrides: Iterable[str] = ()) -> Scenario:
    """Read and check a scenario file.

    Parameters
    ----------
    path : str or Path
        A TOML file, which may extend another one, or the name of a shipped one: ``"quickstart"``.
    overrides : iterable of str
        Replacements such as ``"game.alpha=20"``, carried out in order.

    Returns
    -------
    Scenario
        Frozen and complete: every default is filled in. If it has a sweep, each run of it has been
        checked too.

    Raises
    ------
    InvalidScenarioError
        With one sentence that says what is wrong, where, and what is allowed.
    """
    tree, where = read_scenario(Path(path))
    scenario = tree_to_scenario(apply_overrides(tree, overrides), where)
    check_scenario(scenario, where)
    scenario = resolve_defaults(scenario)
    if scenario.sweep:
        list_runs(scenario, where)
    return scenario


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

    def check_and_resolve(run: Scenario, where: str) -> Scenario:
        check_scenario(run, where)
        return resolve_defaults(run)

    return sweep_runs(scenario, check_and_resolve, where)


def list_scenarios(folder: Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield the shipped scenarios, or every TOML file below a folder, with their titles.

    What cannot be read has the reason in place of its title.
    """
    files = {str(path): path for path in sorted(folder.rglob("*.toml"))} if folder else None
    for name, path in (shipped_files() if files is None else files).items():
        try:
            tree, _ = read_scenario(path)
        except InvalidScenarioError as error:
            yield name, f"({error.reason if error.key is None else error})"
        else:
            yield name, str(tree.get("title", ""))
