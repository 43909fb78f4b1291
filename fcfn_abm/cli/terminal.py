"""How text gets out, and how it looks on a terminal.

Elsewhere, and where NO_COLOR is set, it is plain.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

import typer

from fcfn_abm.errors import visible
from fcfn_abm.process.streams import UnwritableError

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
