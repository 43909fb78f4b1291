"""The closed form of a game: for a scenario, or for the costs in a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcfn_abm.cli.base import (
    AsJson,
    Column,
    Imports,
    NameColumn,
    Overrides,
    Trust,
    app,
    is_costs_file,
    print_json,
)
from fcfn_abm.cli.terminal import say, show
from fcfn_abm.errors import InvalidScenarioError, join_lines

if TYPE_CHECKING:
    from rich.text import Text


@app.command(help="Print the closed form of a game without playing it: active nodes and payments.")
def equilibrium(
    scenario: Annotated[
        Path,
        typer.Argument(
            metavar="SCENARIO | COSTS.csv",
            help="A scenario file (.toml), the name of a bundled scenario, or a file of costs "
            "(.csv) with one line per node.",
            show_default=False,
        ),
    ],
    alpha: Annotated[float | None, typer.Option(help="Same as --set game.alpha=VALUE.")] = None,
    beta: Annotated[float | None, typer.Option(help="Same as --set game.beta=VALUE.")] = None,
    column: Column = None,
    name_column: NameColumn = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="File for a figure of the nodes: .png, .svg or .pdf.", show_default=False
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="File for a table of all nodes, .csv.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    imports: Imports = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.build import draw_population, load_costs, load_scenario, price_scenario
    from fcfn_abm.report.marks import heading, join
    from fcfn_abm.report.outcome import describe_outcome, nodes_frame, nodes_table, write_nodes
    from fcfn_abm.report.summary import describe_bounds, equilibrium_table
    from fcfn_abm.runs.facts import bound_facts, reference_facts

    values = {"game.alpha": alpha, "game.beta": beta}
    settings = [f"{key}={value!r}" for key, value in values.items() if value is not None]
    settings += overrides or ()
    if figure:
        from fcfn_abm.report.figures.files import require_format, write_figure  # loads matplotlib

        require_format(figure)
    if is_costs_file(scenario):
        if imports or trust:
            raise InvalidScenarioError("names no plug-ins.", file=str(scenario))
        loaded = load_costs(scenario, settings, column=column, name_column=name_column)
    else:
        if column is not None or name_column is not None:
            raise InvalidScenarioError(
                "--column and --name-column apply to files of costs; a scenario sets them in "
                "[population.rho].",
                file=str(scenario),
            )
        loaded = load_scenario(scenario, settings, imports=imports or (), trust=trust)
    population = draw_population(loaded)
    rho = population.rho
    outcome = price_scenario(loaded, population)
    facts = reference_facts(outcome, population.reporting_rho)
    bounds = bound_facts(loaded, rho) if population.manipulation is None else {}
    frame = nodes_frame(outcome, rho, population.names)
    if as_json:
        print_json({**facts, **bounds})
    else:
        title = f"{join_lines(loaded.title) or scenario.stem}: {loaded.population.n_nodes} nodes"
        parts: list[str | Text] = [
            heading(title),
            describe_outcome(facts, len(frame), fixed=loaded.cap is not None),
            equilibrium_table(facts).to_rich_text(),
            *describe_bounds(bounds),
        ]
        if population.names:
            parts += ["", nodes_table(frame).to_rich_text()]
        show(join("\n", parts))
    if figure:
        from fcfn_abm.report.figures.market import rho_against_epsilon

        drawn = frame.assign(equilibrium_epsilon=frame["epsilon"])
        write_figure(rho_against_epsilon(drawn, facts["threshold"]), figure)
    if table:
        write_nodes(frame, table)
    if not as_json:
        for what, path in (("figure", figure), ("table of all nodes", table)):
            if path:
                say(f"{what.capitalize()}: {path}")
