"""Reports of results on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import Imports, app
from fcfn_abm.cli.terminal import say


@app.command(
    help="Write a report of results (settings, outcome, figures) and print its path. Several runs "
    "or sweeps are compared.",
)
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of a run, comparison, calibration, benchmark or sweep; or several folders "
            "of runs or sweeps.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write to.",
            show_default="report.html in the folder; comparison.html for several",
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option("--format", help="html (one file) or md (Markdown with figures as files)."),
    ] = "html",
    figures: Annotated[
        str | None,
        typer.Option(
            help="Also write the figures for print: pdf, svg, or png with 300 dots per inch.",
            show_default=False,
        ),
    ] = None,
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive",
            help="Draw interactive curves, with crosshair and zoom (adds 0.3 MB).",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    imports: Imports = None,
) -> None:
    from fcfn_abm.plugins import import_plugins
    from fcfn_abm.runs.report import write_report

    import_plugins(imports or ())
    say(
        write_report(
            results, out, form, figures=figures, interactive=interactive, overwrite=overwrite
        )
    )
