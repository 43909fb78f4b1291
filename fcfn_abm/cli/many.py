"""Many populations: sweeps of markets, and the mechanisms side by side."""

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
    app,
    print_json,
)
from fcfn_abm.cli.terminal import say, show
from fcfn_abm.process.interrupts import obey_interrupts


@app.command(help="Carry out the many runs of a scenario's [sweep], into one table.")
def sweep(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the sweep; if it is there, what is missing in it is run.",
            show_default="results/NAME-sweep",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes on this machine.", show_default="one for each core"),
    ] = None,
    cluster: ClusterAddress = None,
    resource: Resources = None,
    cluster_timeout: ClusterTimeout = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds after which a run has failed; in place of the scenario's.",
            show_default="[sweep] timeout, or none",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many runs there are, and how long.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run what failed again.")] = False,
    sync: Annotated[
        bool,
        typer.Option(
            "--sync/--no-sync",
            help="Force each result onto the disk; else a power cut may take some, which the same "
            "command runs again.",
        ),
    ] = True,
    overrides: Overrides = None,
    imports: Imports = None,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.build import load_scenario
    from fcfn_abm.process.options import select_workers
    from fcfn_abm.runs.sweep import plan_sweep, plan_text, run_sweep, sweep_facts, sweep_text

    out = Path("results") / f"{scenario.stem}-sweep" if out is None else out
    place = select_workers(workers, cluster, resource or (), cluster_timeout)
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
        message = (
            f"interrupted; the runs that ended are in {out}: the same command goes on from there."
        )
        raise KeyboardInterrupt(message) from None
    if as_json:
        print_json(sweep_facts(found))
    elif quiet:
        say(out)
    else:
        show(sweep_text(found))


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
