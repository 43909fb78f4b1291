"""The model in words: its ODD description."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import Imports, Trust, app
from fcfn_abm.cli.terminal import say, write
from fcfn_abm.errors import InvalidScenarioError


@app.command(
    help="Describe the model by the ODD protocol (Grimm et al. 2020), as Markdown: the default "
    "model, or a scenario with its differences from it first and marked in their places."
)
def odd(
    scenario: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SCENARIO]",
            help="A scenario file, .toml, or the name of a shipped one.",
            show_default="the default model",
        ),
    ] = None,
    delta: Annotated[
        bool, typer.Option("--delta", help="Print the differences from the default model alone.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="stdout")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file named with --out.")] = False,
    imports: Imports = None,
    trust: Trust = False,
) -> None:
    from fcfn_abm.build import load_scenario
    from fcfn_abm.odd import describe_differences, describe_model
    from fcfn_abm.plugins import import_plugins
    from fcfn_abm.process.files import create_folder, write_file
    from fcfn_abm.records.folders import resolve_output_file

    if out is not None:
        out = resolve_output_file(out, overwrite=overwrite)
    if scenario is None:
        if delta:
            raise InvalidScenarioError(
                "needs a scenario to compare with the default model.", file="--delta"
            )
        import_plugins(imports or ())
        text = describe_model()
    else:
        loaded = load_scenario(scenario, imports=imports or (), trust=trust)
        text = describe_differences(loaded) if delta else describe_model(loaded)
    if out is None:
        write(text, newline=False)
    else:
        create_folder(out.parent)
        write_file(out, text.encode())
        say(out)
