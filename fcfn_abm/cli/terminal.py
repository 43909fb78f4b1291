"""How text gets out, and how it looks on a terminal.

Elsewhere, and where NO_COLOR is set, it is plain.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
from contextlib import suppress

import typer

from fcfn_abm.errors import visible

BROKEN_PIPE = 141
"""Exit code, as shells have it, where nobody reads on."""
_ESCAPED = "fcfn-escaped"  # how text is encoded for a stream that knows few letters
_COLOURS = {
    "converged": "green",
    "holds": "green",
    "no-trade": "yellow",
    "max-rounds": "yellow",
    "cycling": "red",
    "diverged": "red",
    "violated": "red",
    "failed": "red",
}
_VERDICT = re.compile(
    r"(?:(?<=nodes: )|(?<= ))(converged|no-trade|max-rounds|cycling|diverged)(?= after)"
    r"|\b(holds|violated)$|(?<=\d )(failed)\b",
    re.MULTILINE,
)


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


def show(text: str) -> None:
    """Print results: on a terminal with bold headings and coloured verdicts.

    Parameters
    ----------
    text : str
        Its first line is a heading, as is a line above a table that is no sentence.
    """
    text = visible(text)
    write(styled(text) if colours() else text)


def colours() -> bool:
    """Whether stdout is a terminal that may have colours (https://no-color.org)."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not refused


def styled(text: str) -> str:
    """Return a text with the codes that make headings bold and verdicts coloured."""
    lines = text.split("\n")
    for i, line in enumerate(lines):
        below = lines[i + 1 : i + 3]
        heads_table = (
            not lines[i - 1] and len(below) == 2 and all(b.startswith("  ") for b in below)
        )
        sentence = line.startswith(" ") or line.endswith((".", ";", ":"))
        if line and not sentence and (i == 0 or heads_table):
            lines[i] = typer.style(line, bold=True)
    return _VERDICT.sub(_coloured, "\n".join(lines))


def _coloured(found: re.Match[str]) -> str:
    word = found.group()
    return typer.style(word, fg=_COLOURS[word], bold=True)
