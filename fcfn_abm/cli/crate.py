"""Results for repositories of research data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import app
from fcfn_abm.cli.terminal import print_message, say


@app.command(
    help="Pack results as an RO-Crate, for a repository of research data: the files, and a "
    "description of how they were made."
)
def crate(
    record: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, a sweep, a comparison, a calibration or a benchmark.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A zip file, .zip, or a new folder.", show_default="RECORD.crate.zip beside it"
        ),
    ] = None,
    author: Annotated[
        list[str] | None,
        typer.Option(help="Who made the results. May be repeated.", show_default=False),
    ] = None,
    license_: Annotated[
        str,
        typer.Option("--license", help="License of the results: an SPDX identifier, or its URL."),
    ] = "MIT",
    overwrite: Annotated[bool, typer.Option(help="Replace what is there.")] = False,
) -> None:
    from fcfn_abm.crate import write_crate

    packed = write_crate(record, out, authors=author or (), license=license_, overwrite=overwrite)
    if packed.left_out:
        print_message(f"left out, as not of the results: {', '.join(packed.left_out)}.")
    say(packed.path)
