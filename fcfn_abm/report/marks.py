"""Text for the terminal, with marks on headings and verdicts.

Text from users is never read as markup; its control characters are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill

from rich.text import Text

from fcfn_abm.errors import escape_control_characters

__all__ = ["WIDTH", "Text", "heading", "join", "mark_verdict", "plain", "verdict", "wrap"]

WIDTH = 96
"""Width of running text in the terminal."""
_UNBROKEN = "\N{NO-BREAK SPACE}%"

_VERDICTS = {
    "converged": "bold green",
    "holds": "bold green",
    "no-trade": "bold yellow",
    "max-rounds": "bold yellow",
    "stopped": "bold green",
    "broken": "bold red",
    "cycling": "bold red",
    "diverged": "bold red",
    "violated": "bold red",
    "failed": "bold red",
}


def plain(text: str) -> Text:
    """Return text without marks."""
    return Text(escape_control_characters(text))


def heading(text: str) -> Text:
    """Return a heading."""
    return Text(escape_control_characters(text), style="bold")


def verdict(word: str) -> Text:
    """Return the verdict as marked text; unknown words get no mark."""
    return Text(escape_control_characters(word), style=_VERDICTS.get(word, ""))


def mark_verdict(text: str, word: str, start: int) -> Text:
    """Return a text with a mark on the verdict that starts at ``start``."""
    before, after = text[:start], text[start + len(word) :]
    return join("", [before, verdict(word), after])


def join(separator: str, parts: Iterable[str | Text]) -> Text:
    """Join marked or plain texts."""
    return Text(separator).join(plain(p) if isinstance(p, str) else p for p in parts)


def wrap(text: str, first: str = "", rest: str = "") -> str:
    """Break text into lines of at most `WIDTH` characters, but never before a percent sign."""
    lines = fill(text.replace(" %", _UNBROKEN), WIDTH, initial_indent=first, subsequent_indent=rest)
    return lines.replace(_UNBROKEN, " %")
