"""A single run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import (
    AsJson,
    ClusterAddress,
    ClusterTimeout,
    Imports,
    Overrides,
    Quiet,
    Resources,
    ScenarioFile,
    Trust,
    Workers,
    app,
    choose_name,
    print_json,
)
from fcfn_abm.cli.terminal import say, show
from fcfn_abm.errors import InvalidScenarioError


@app.command(
    help="Run one scenario: play the market, train with its epsilons, and write the record."
)
def run(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the record.", show_default="results/NAME"),
    ] = None,
    overrides: Overrides = None,
    imports: Imports = None,
    trust: Trust = False,
    workers: Workers = None,
    cluster: ClusterAddress = None,
    resource: Resources = None,
    cluster_timeout: ClusterTimeout = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing record.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.build import load_scenario
    from fcfn_abm.report.summary import summary
    from fcfn_abm.runs.run import run_scenario
    from fcfn_abm.runs.training_workers import open_training_workers

    out = Path("results") / choose_name(scenario) if out is None else out
    loaded = load_scenario(scenario, overrides or (), imports=imports or (), trust=trust)
    if loaded.sweep:
        raise InvalidScenarioError(
            "has a [sweep] table with many runs; use 'fcfn sweep'.",
            file=str(scenario),
        )
    with open_training_workers(workers, cluster, resource or (), cluster_timeout) as place:
        record = run_scenario(loaded, out, overwrite=overwrite, progress=not quiet, workers=place)
    if as_json:
        print_json({**record.run, "path": str(out)})
    elif quiet:
        say(out)
    else:
        show(summary(record))
        say(
            f"\nRecord: {out}\nFigures: {out / 'figures'}\n"
            f"Run 'fcfn report {out}' to write a report."
        )
