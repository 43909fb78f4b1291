"""The value of epsilon to the server, measured by training."""

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
    numbers,
    print_json,
)
from fcfn_abm.cli.terminal import say, show


@app.command(
    help="Train at several epsilons, fit game.alpha and game.beta, and write the calibrated "
    "scenario."
)
def calibrate(
    scenario: ScenarioFile,
    epsilons: Annotated[
        str | None,
        typer.Option(
            help="Epsilons to train with, separated by commas.",
            show_default="eight around the equilibrium",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings per epsilon.")] = 3,
    value: Annotated[
        float, typer.Option(help="Value of an accuracy of 100 %, in currency per round.")
    ] = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder for table, figure and scenario.",
            show_default="results/NAME-calibration",
        ),
    ] = None,
    overrides: Overrides = None,
    imports: Imports = None,
    trust: Trust = False,
    workers: Workers = None,
    cluster: ClusterAddress = None,
    resource: Resources = None,
    cluster_timeout: ClusterTimeout = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing folder.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.build import load_scenario
    from fcfn_abm.report.calibrate import calibration_text
    from fcfn_abm.runs.calibrate import CALIBRATED, calibrate_value
    from fcfn_abm.runs.training_workers import open_training_workers

    out = Path("results") / f"{scenario.stem}-calibration" if out is None else out
    grid = None if epsilons is None else numbers(epsilons, "--epsilons")
    loaded = load_scenario(scenario, overrides or (), imports=imports or (), trust=trust)
    with open_training_workers(workers, cluster, resource or (), cluster_timeout) as place:
        found = calibrate_value(
            loaded,
            grid,
            seeds,
            out,
            value=value,
            overwrite=overwrite,
            progress=not quiet,
            workers=place,
        )
    if as_json:
        print_json({**found.run, "path": str(found.path)})
    elif quiet:
        say(found.path)
    else:
        show(calibration_text(found.run))
        say(
            f"\nCalibrated scenario: {out / CALIBRATED}\nFigure: {out / 'figures'}\n"
            f"Run 'fcfn report {out}' to write a report."
        )
