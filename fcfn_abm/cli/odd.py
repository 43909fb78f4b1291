"""The model in words: its ODD description."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import Imports, Trust, app
from fcfn_abm.cli.terminal import say, write
from fcfn_abm.errors import InvalidScenarioError


@app.command(
    help="Describe the model in the ODD protocol (Grimm et al. 2020), as Markdown. With a "
    "scenario, its differences from the default model come first and are marked in the text."
)
def odd(
    scenario: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCENARIO",
            help="A scenario file (.toml), or the name of a bundled scenario.",
            show_default="the default model",
        ),
    ] = None,
    delta: Annotated[
        bool, typer.Option("--delta", help="Print only the differences from the default model.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="stdout")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
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
