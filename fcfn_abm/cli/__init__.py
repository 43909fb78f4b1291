"""The command line: each command parses, calls one public function, and prints.

Results go to stdout; progress and messages to stderr. Exit codes: 0, 1 (the run failed, or an
audit or a check found a violated claim), 2 (invalid input), 130 (interrupted), 141 (stdout was
closed by its reader).
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from fcfn_abm import __version__
from fcfn_abm.cli.base import INTERRUPTED, app, report_interrupt
from fcfn_abm.cli.terminal import print_message
from fcfn_abm.process.interrupts import ignore_interrupts
from fcfn_abm.process.streams import BROKEN_PIPE, UnwritableError, close_streams, open_streams

for _name in (
    "run",
    "equilibrium",
    "report",
    "view",
    "many",
    "bench",
    "check_mechanism",
    "calibrate",
    "audit",
    "odd",
    "crate",
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
    os.environ["MPLBACKEND"] = "agg"  # figures are written to files, whatever the user's backend
    try:
        try:
            app()
        except KeyboardInterrupt:  # before a command has started
            sys.exit(report_interrupt())
        except UnwritableError as error:
            sys.exit(_report_unwritable(error.error))
        except OSError as error:  # from typer's own output
            sys.exit(_report_unwritable(error))
        except SystemExit as end:
            if isinstance(
                end.__context__, BrokenPipeError
            ):  # a closed pipe, for which typer exits with 1
                sys.exit(BROKEN_PIPE)
            raise
    except SystemExit as end:
        ignore_interrupts(quiet=end.code == INTERRUPTED)
        cause = getattr(end.__context__, "__cause__", None)
        if end.code == INTERRUPTED and isinstance(cause, KeyboardInterrupt):
            report_interrupt()  # while typer parsed, which prints nothing
        raise
    finally:
        close_streams()


def _report_unwritable(error: OSError) -> int:
    """Report that the output cannot be written and return the exit code; raise other errors."""
    if error.errno == errno.EPIPE:
        return BROKEN_PIPE
    if error.filename is not None:
        raise error
    print_message(f"cannot write the output: {error.strerror}.")
    return 2
