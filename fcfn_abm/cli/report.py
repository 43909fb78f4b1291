"""The report of what lies on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcfn_abm.cli.base import Imports, app
from fcfn_abm.cli.terminal import say


@app.command(
    help="Write a report of results: what was run, how it ended, what it means; and print its "
    "path. Several runs, or several sweeps, are set side by side."
)
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of a run, a comparison, a calibration or a sweep; or those of several "
            "runs or sweeps.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write.",
            show_default="report.html in that folder; of several comparison.html here",
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="html: one file; md: Markdown, and figures beside it.")
    ] = "html",
    figures: Annotated[
        str | None,
        typer.Option(
            help="Write the figures as files too, for print: pdf, svg, or png with 300 dots an "
            "inch.",
            show_default=False,
        ),
    ] = None,
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive",
            help="Draw curves by a script in the page, with a crosshair and zoom (0.3 MB).",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a file of that name.")] = False,
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
