"""The mechanisms side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import (
    AsJson,
    Imports,
    Overrides,
    Quiet,
    ScenarioFile,
    Trust,
    app,
    print_json,
)
from fcfn_abm.cli.terminal import say, show


@app.command(help="Price the same populations with several mechanisms, under the same cap.")
def compare(
    scenario: ScenarioFile,
    mechanisms: Annotated[
        str | None,
        typer.Option(help="Names with commas between.", show_default="all"),
    ] = None,
    replications: Annotated[int, typer.Option(help="How many populations are drawn.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder that takes table and figure.", show_default="results/NAME-comparison"
        ),
    ] = None,
    overrides: Overrides = None,
    imports: Imports = None,
    trust: Trust = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a record of that name.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.build import load_scenario
    from fcfn_abm.report.compare import comparison_text
    from fcfn_abm.runs.compare import compare_mechanisms

    out = Path("results") / f"{scenario.stem}-comparison" if out is None else out
    names = None if mechanisms is None else [n.strip() for n in mechanisms.split(",") if n.strip()]
    found = compare_mechanisms(
        load_scenario(scenario, overrides or (), imports=imports or (), trust=trust),
        names,
        replications,
        out,
        overwrite=overwrite,
        progress=not quiet,
    )
    if as_json:
        print_json({**found.run, "path": str(found.path)})
    elif quiet:
        say(found.path)
    else:
        show(comparison_text(found.frame, found.run))
        say(
            f"\nThe table lies in {found.path} (the figure in {out / 'figures'}).\n"
            f"'fcfn report {found.path}' makes a page of it."
        )
