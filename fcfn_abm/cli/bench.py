"""The benchmark of mechanisms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import AsJson, Imports, Overrides, Quiet, Trust, app, choose_name, print_json
from fcfn_abm.cli.terminal import say, show
from fcfn_abm.process.interrupts import obey_interrupts


@app.command(
    help="Compare mechanisms at equal cap, equal spending and equal mean epsilon, over the costs, "
    "data and caps of a scenario's [bench] table.",
)
def bench(
    scenario: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCENARIO",
            help="A scenario file (.toml) with a [bench] table, or the name of a bundled one.",
            show_default="bench/default",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the benchmark; an existing one is resumed.",
            show_default="results/NAME-bench",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes on this machine.", show_default="one per core"),
    ] = None,
    overrides: Overrides = None,
    imports: Imports = None,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.build import load_scenario
    from fcfn_abm.process.options import select_workers
    from fcfn_abm.report.bench import bench_text
    from fcfn_abm.runs.bench import DEFAULT, run_bench
    from fcfn_abm.runs.report import write_report

    file = Path(DEFAULT) if scenario is None else scenario
    out = Path("results") / f"{choose_name(file)}-bench" if out is None else out
    loaded = load_scenario(file, overrides or (), imports=imports or (), trust=trust)
    try:
        with obey_interrupts():
            found = run_bench(loaded, out, select_workers(workers), progress=not quiet)
    except KeyboardInterrupt:
        message = (
            f"interrupted; finished results are kept in {out}. Run the same command to resume."
        )
        raise KeyboardInterrupt(message) from None
    page = write_report(found.path)
    if as_json:
        print_json({**found.run, "path": str(found.path)})
    elif quiet:
        say(found.path)
    else:
        show(bench_text(found.frame(), found.run))
        say(
            f"\nTable: {found.path} (bench.parquet, and means in bench.csv)\n"
            f"Figure: {found.path / 'figures'}\nReport: {page}"
        )
