"""The claims of a mechanism, tested on random games."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from fcfn_abm.cli.base import AsJson, Imports, app, print_json
from fcfn_abm.cli.terminal import show
from fcfn_abm.errors import InvalidScenarioError, join_lines


@app.command(
    "check-mechanism",
    help="Test a mechanism's claims on random games: budget, rationality, incentives.\n\n"
    "The exit code is 1 if a claim is violated.",
)
def check_mechanism_command(
    mechanism: Annotated[str, typer.Argument(metavar="NAME", help="A registered mechanism.")],
    games: Annotated[int, typer.Option(help="Number of random games.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the games.")] = 0,
    n_nodes: Annotated[
        int | None,
        typer.Option("--nodes", help="Number of nodes in each game.", show_default="1 to 12"),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Option of the mechanism: mechanism.epsilon=3. Can be repeated."
        ),
    ] = None,
    imports: Imports = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.mechanisms import MECHANISMS
    from fcfn_abm.mechanisms.check import check_mechanism
    from fcfn_abm.plugins import import_plugins
    from fcfn_abm.report.claims import check_text

    import_plugins(imports or ())
    options = _options(overrides or ())
    MECHANISMS.create(mechanism, options)  # also rejects options named like our own arguments
    try:
        found = check_mechanism(
            mechanism, games, seed, n_nodes=n_nodes, progress=not quiet, **options
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; no results were kept.") from None
    if as_json:
        print_json(found.facts())
    else:
        show(check_text(found.facts()))
    if not found.holds:
        raise typer.Exit(1)


def _options(overrides: Iterable[str]) -> dict[str, Any]:
    """Return the options of the mechanism, written as in 'fcfn compare'."""
    from fcfn_abm.scenario.load import parse_override

    options = {}
    for text in overrides:
        path, value = parse_override(text)
        if len(path) != 2 or path[0] != "mechanism" or path[1] == "kind":
            raise InvalidScenarioError(
                "must name an option of the mechanism, such as mechanism.epsilon=3.",
                file=f"--set {join_lines(text)}",
            )
        options[path[1]] = value
    return options
