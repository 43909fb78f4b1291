"""Reproduction of the paper's figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import (
    AsJson,
    ClusterAddress,
    ClusterTimeout,
    Resources,
    Workers,
    app,
    print_json,
)
from fcfn_abm.cli.terminal import say
from fcfn_abm.process.interrupts import obey_interrupts


@app.command(
    "replicate",
    help="Reproduce figures of Zhou et al. 2023 and write a ledger of its claims.\n\n"
    "Complete figures in the folder are kept.",
)
def replicate_command(
    figures: Annotated[
        list[str] | None,
        typer.Argument(
            help="fig4 to fig17, extras such as extra-leader, or all.", show_default="all"
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full/--fast", help="At the paper's size, or in minutes on two cores.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder for ledger, figures and numbers.",
            show_default="results/zhou2023-fast, or -full",
        ),
    ] = None,
    workers: Workers = None,
    cluster: ClusterAddress = None,
    resource: Resources = None,
    cluster_timeout: ClusterTimeout = None,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.runs.training_workers import open_training_workers
    from fcfn_zhou2023 import replicate
    from fcfn_zhou2023.ledger import summary

    try:
        with (
            obey_interrupts(),
            open_training_workers(workers, cluster, resource or (), cluster_timeout) as place,
        ):
            result = replicate(
                figures or ["all"],
                "full" if full else "fast",
                out,
                workers=place,
                progress=True,
            )
    except KeyboardInterrupt:
        message = "interrupted; finished figures are kept. Run the same command to resume."
        raise KeyboardInterrupt(message) from None
    if as_json:
        claims = [
            {
                "claim": row.claim.name,
                "verdict": row.verdict,
                "findings": [asdict(finding) for finding in row.findings],
            }
            for row in result.rows
        ]
        print_json({"claims": claims, "path": str(result.out)})
        return
    width = max((len(row.claim.name) for row in result.rows), default=0)
    for row in result.rows:
        say(f"{row.claim.name:{width}}  {row.verdict}")
    say(f"\n{summary(result.rows)}\nLedger: {result.out / 'ledger.html'}")
