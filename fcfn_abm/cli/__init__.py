"""The command line: each command parses, calls one public function, and prints.

Results go to stdout; progress and messages to stderr. Exit codes: 0, 1 (the run failed, or an
audit found a claim violated), 2 (the user's mistake), 130 (interrupted), 141 (nobody reads on).
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Annotated

import typer

from fcfn_abm import __version__
from fcfn_abm.cli.base import INTERRUPTED, app, interrupted
from fcfn_abm.cli.terminal import (
    BROKEN_PIPE,
    UnwritableError,
    close_streams,
    open_streams,
    unwritable,
)

for _name in (
    "run",
    "report",
    "view",
    "sweep",
    "compare",
    "calibrate",
    "audit",
    "export",
    "replicate",
    "data",
    "scenarios",
):
    import_module(f"fcfn_abm.cli.{_name}")  # registers its commands, in the order of the help


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fcfn {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    open_streams()
    os.environ["MPLBACKEND"] = "agg"  # figures go into files, whatever the user's shell says
    try:
        try:
            app()
        except KeyboardInterrupt:  # before a command has begun
            sys.exit(interrupted())
        except UnwritableError as error:
            sys.exit(unwritable(error.why))
        except OSError as error:  # of typer's own texts
            sys.exit(unwritable(error))
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):  # the same, and typer ends with 1
                sys.exit(BROKEN_PIPE)
            raise
    except SystemExit as end:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # from here on Python only clears up
        if end.code == INTERRUPTED:
            sys.unraisablehook = lambda _: None  # what was cut off may complain of it
            if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
                interrupted()  # while typer parsed, which says nothing
        raise
    finally:
        close_streams()
