"""Many populations: sweeps of runs, and comparisons of mechanisms."""

from __future__ import annotations

from dataclasses import replace
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
    app,
    print_json,
)
from fcfn_abm.cli.terminal import say, show
from fcfn_abm.process.interrupts import obey_interrupts

_OF_A_RUN = ("fcfn_abm.runs.run", "fcfn_abm.abm.play")
"""Modules that a run needs, including Mesa and numba."""


@app.command(help="Run all runs of a scenario's [sweep] table and collect them in one table.")
def sweep(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the sweep; an existing one is resumed.",
            show_default="results/NAME-sweep",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes on this machine.", show_default="one per core"),
    ] = None,
    cluster: ClusterAddress = None,
    resource: Resources = None,
    cluster_timeout: ClusterTimeout = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Time limit of a run, in seconds; longer runs fail.",
            show_default="[sweep] timeout, or none",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only print the number of runs and their estimated time."),
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed runs again.")] = False,
    sync: Annotated[
        bool,
        typer.Option(
            "--sync/--no-sync",
            help="Flush each result to disk. Otherwise a power failure may lose results, and the "
            "same command runs them again.",
        ),
    ] = True,
    overrides: Overrides = None,
    imports: Imports = None,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.process.options import select_workers
    from fcfn_abm.process.workers import Processes

    out = Path("results") / f"{scenario.stem}-sweep" if out is None else out
    place = select_workers(workers, cluster, resource or (), cluster_timeout)
    if isinstance(place, Processes) and not (dry_run or out.exists()):
        replace(place, preload=_OF_A_RUN).load()  # while this process reads the scenario
    from fcfn_abm.build import load_scenario
    from fcfn_abm.runs.sweep import plan_sweep, plan_text, run_sweep, sweep_facts, sweep_text

    loaded = load_scenario(scenario, overrides or (), imports=imports or (), trust=trust)
    if dry_run:
        plan = plan_sweep(loaded, out, getattr(place, "n_workers", 1))
        print_json(plan.facts()) if as_json else say(plan_text(plan))
        return
    try:
        with obey_interrupts():
            found = run_sweep(
                loaded,
                out,
                place,
                retry=retry,
                durable=sync,
                timeout=timeout,
                progress=not quiet,
            )
    except KeyboardInterrupt:
        message = f"interrupted; finished runs are kept in {out}. Run the same command to resume."
        raise KeyboardInterrupt(message) from None
    if as_json:
        print_json(sweep_facts(found))
    elif quiet:
        say(out)
    else:
        show(sweep_text(found))


@app.command(help="Compare mechanisms on the same populations, under the same payment cap.")
def compare(
    scenario: ScenarioFile,
    mechanisms: Annotated[
        str | None,
        typer.Option(help="Names separated by commas.", show_default="all"),
    ] = None,
    replications: Annotated[int, typer.Option(help="Number of populations.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder for table and figure.", show_default="results/NAME-comparison"
        ),
    ] = None,
    overrides: Overrides = None,
    imports: Imports = None,
    trust: Trust = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing folder.")] = False,
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
            f"\nTable: {found.path}\nFigure: {out / 'figures'}\n"
            f"Run 'fcfn report {found.path}' to write a report."
        )
