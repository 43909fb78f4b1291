"""Results for repositories of research data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import app
from fcfn_abm.cli.terminal import print_message, say


@app.command(
    help="Pack results as an RO-Crate, for a repository of research data: the files, with a "
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
            help="Zip file (.zip) or new folder.",
            show_default="RECORD.crate.zip beside it",
        ),
    ] = None,
    author: Annotated[
        list[str] | None,
        typer.Option(help="Author of the results. Can be repeated.", show_default=False),
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="License of the results: an SPDX identifier, or its URL.",
            show_default="none stated",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file or folder.")] = False,
) -> None:
    from fcfn_abm.crate import write_crate

    packed = write_crate(record, out, authors=author or (), license=license_, overwrite=overwrite)
    if packed.left_out:
        print_message(f"left out, not part of the results: {', '.join(packed.left_out)}.")
    say(packed.path)
