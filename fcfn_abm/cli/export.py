"""Exports for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import app
from fcfn_abm.cli.terminal import say, write


@app.command(
    "export-plan",
    help="Export each node's privacy plan: epsilon, noise, clipping norm, rounds, payment.",
)
def export(
    record: Annotated[Path, typer.Argument(help="Folder of a run with training.")],
    form: Annotated[
        str, typer.Option("--format", help="csv (one row per node) or json (one object).")
    ] = "json",
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="stdout")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    from fcfn_abm.report.plan import export_plan

    text = export_plan(record, out, form, overwrite=overwrite)
    if out is None:
        write(text, newline=False)  # unchanged, for other programs
    else:
        say(out)
