"""Scenario files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import App, Column, Imports, NameColumn, Trust, app, print_json
from fcfn_abm.cli.terminal import print_message, say
from fcfn_abm.errors import FcfnError, InvalidScenarioError, join_lines

scenarios = App("Check, list, copy and create scenario files.")
app.add_typer(scenarios, name="scenarios")


@scenarios.command(help="Check scenario files; print one sentence for each invalid file.")
def check(
    files: Annotated[list[Path], typer.Argument(help="Scenario files.", show_default=False)],
    imports: Imports = None,
    trust: Trust = False,
) -> None:
    from fcfn_abm.build import load_scenario
    from fcfn_abm.plugins import import_plugins

    import_plugins(imports or ())
    wrong = 0
    for path in files:
        try:
            load_scenario(path, trust=trust)
        except FcfnError as error:
            print_message(error)
            wrong += 1
        else:
            say(f"{path}: ok")
    if wrong:
        raise typer.Exit(2)


@scenarios.command(help="Print the JSON schema of scenario files, including imported plug-ins.")
def schema(imports: Imports = None) -> None:
    from fcfn_abm.build import scenario_schema
    from fcfn_abm.plugins import import_plugins

    import_plugins(imports or ())
    print_json(scenario_schema())


@scenarios.command(
    "list",
    help="List scenarios with their titles. Names of bundled ones can be used in place of files.",
)
def list_command(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder to list.", show_default="bundled scenarios")
    ] = None,
) -> None:
    from fcfn_abm.build import list_scenarios

    found = list(list_scenarios(folder)) if folder is None or folder.is_dir() else []
    if not found:
        raise InvalidScenarioError("contains no scenario files (*.toml).", file=str(folder))
    width = max(len(name) for name, _ in found)
    for name, title in found:
        say(f"{name:{width}}  {join_lines(title)}".rstrip())


@scenarios.command("new", help="Create a scenario for the nodes in a file of costs.")
def new_scenario(
    to: Annotated[
        Path | None,
        typer.Argument(help="New file.", show_default="the file of costs with suffix .toml"),
    ] = None,
    costs: Annotated[
        Path,
        typer.Option(
            "--from", help="A file of costs (.csv), one line per node.", show_default=False
        ),
    ] = ...,  # type: ignore[assignment] # it is required
    column: Column = None,
    name_column: NameColumn = None,
) -> None:
    from fcfn_abm.build import write_costs_scenario

    say(write_costs_scenario(costs, to, column=column, name_column=name_column))


@scenarios.command("copy", help="Copy a bundled scenario to edit it.")
def copy_scenario(
    name: Annotated[str, typer.Argument(help="Name of a bundled scenario.", show_default=False)],
    to: Annotated[
        Path | None,
        typer.Argument(help="New file, or its folder.", show_default="the current folder"),
    ] = None,
) -> None:
    from fcfn_abm.scenario import copy_shipped

    say(copy_shipped(name, to))
