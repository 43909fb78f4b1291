"""How text gets out, and how it looks on a terminal.

Elsewhere, and where NO_COLOR is set, it is plain.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from fcfn_abm.errors import escape_control_characters
from fcfn_abm.process.streams import UnwritableError

if TYPE_CHECKING:
    from rich.text import Text


def say(text: object) -> None:
    """Print a result that may hold names or titles of others."""
    write(escape_control_characters(str(text)))


def write(text: str, *, newline: bool = True) -> None:
    """Print a text as it is."""
    try:
        typer.echo(text, nl=newline)
    except OSError as error:
        raise UnwritableError(error) from error


def print_message(message: object) -> None:
    """Print a message on stderr, in one line; where nobody takes it, work goes on."""
    line = str(message).replace("\n", "\\n")
    with suppress(OSError):
        typer.echo(f"fcfn: {escape_control_characters(line)}", err=True)


def show(text: Text) -> None:
    """Print results: on a terminal with their marks, elsewhere without."""
    write(render(text) if has_colours() else text.plain)


def has_colours() -> bool:
    """Whether stdout is a terminal that may have colours (https://no-color.org)."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not refused


def render(text: Text) -> str:
    """Return a text with the codes of its marks, and each line as long as it is."""
    from rich.console import Console  # takes a while to load, and pipes have no use for it

    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        force_jupyter=False,
        legacy_windows=False,
        color_system="standard",
        no_color=False,
    )
    with console.capture() as capture:
        console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False, end="")
    return capture.get()
