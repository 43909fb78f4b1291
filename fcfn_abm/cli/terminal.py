"""How text gets out, and how it looks on a terminal.

Elsewhere, and where NO_COLOR is set, it is plain.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from fcfn_abm.errors import visible

if TYPE_CHECKING:
    from rich.text import Text

BROKEN_PIPE = 141
"""Exit code, as shells have it, where nobody reads on."""
_ESCAPED = "fcfn-escaped"  # how text is encoded for a stream that knows few letters


class UnwritableError(Exception):
    """What is printed does not get out."""

    def __init__(self, why: OSError) -> None:
        super().__init__(str(why))
        self.why = why


def open_streams() -> None:
    """Make stdout and stderr take any text, also where they are closed or know few letters."""
    codecs.register_error(_ESCAPED, _escaped)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPED)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Write letters that a stream does not know as JSON has them, in units of 16 bits."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = zip(units[::2], units[1::2], strict=True)
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in pairs), error.end


def close_streams() -> None:
    """Flush stdout and stderr, and drop what they cannot take: Python's end would tell of it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def unwritable(error: OSError) -> int:
    """Say that the output cannot be written, and return the exit code; raise any other error."""
    if error.errno == errno.EPIPE:
        return BROKEN_PIPE
    if error.filename is not None:
        raise error
    tell(f"the output cannot be written: {error.strerror}.")
    return 2


def say(text: object) -> None:
    """Print a result that may hold names or titles of others."""
    write(visible(str(text)))


def write(text: str, *, newline: bool = True) -> None:
    """Print a text as it is."""
    try:
        typer.echo(text, nl=newline)
    except OSError as error:
        raise UnwritableError(error) from error


def tell(message: object) -> None:
    """Print a message on stderr, in one line; where nobody takes it, work goes on."""
    line = str(message).replace("\n", "\\n")
    with suppress(OSError):
        typer.echo(f"fcfn: {visible(line)}", err=True)


def show(text: Text) -> None:
    """Print results: on a terminal with their marks, elsewhere without."""
    write(render(text) if colours() else text.plain)


def colours() -> bool:
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
