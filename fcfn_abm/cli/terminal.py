"""Text output, plain or with terminal styles.

It is plain if stdout is not a terminal, or NO_COLOR is set.
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
    """Print a result that may contain names or titles from users."""
    write(escape_control_characters(str(text)))


def write(text: str, *, newline: bool = True) -> None:
    """Print a text unchanged."""
    try:
        typer.echo(text, nl=newline)
    except OSError as error:
        raise UnwritableError(error) from error


def print_message(message: object) -> None:
    """Print a message on stderr in one line; ignore a closed stderr."""
    line = str(message).replace("\n", "\\n")
    with suppress(OSError):
        typer.echo(f"fcfn: {escape_control_characters(line)}", err=True)


def show(text: Text) -> None:
    """Print results, with styles on a terminal."""
    write(render(text) if has_colours() else text.plain)


def has_colours() -> bool:
    """Whether stdout is a terminal on which colours are allowed (https://no-color.org)."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not refused


def render(text: Text) -> str:
    """Return a text with the codes of its styles, without wrapping lines."""
    from rich.console import Console  # slow to load, and not needed for pipes

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
