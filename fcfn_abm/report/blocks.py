"""The parts of texts and pages: tables, paragraphs, notices and figures, in sections."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fcfn_abm.report.marks import heading, join

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.text import Text

type Tone = Literal["good", "fair", "bad"]

AVERAGED = {
    "active": "the active nodes",
    "population": "all nodes",
    "effective": "the effective number of nodes",
}
"""What ``game.average_over`` averages epsilon over, in words."""


@dataclass(frozen=True)
class Table:
    """Cells of text; columns hold numbers, except the first and those listed in ``words``."""

    head: Sequence[str]
    """One cell per column. A last column with an empty header holds units."""
    rows: Sequence[Sequence[str]]
    title: str = ""
    """Line above the table."""
    note: str = ""
    """Sentences below the table."""
    words: frozenset[int] = frozenset({0})
    """Indices of left-aligned columns."""
    data: pd.DataFrame | None = field(default=None, compare=False)
    """The numbers of the CSV file; if None, the cells as shown."""

    @property
    def left(self) -> frozenset[int]:
        """Indices of left-aligned columns, including the units."""
        return self.words if self.head[-1] else self.words | {len(self.head) - 1}

    def text(self) -> str:
        """Return the table as aligned lines."""
        return "\n".join(part for part in (self.title, self._body()) if part)

    def to_rich_text(self) -> Text:
        """Return the table as aligned lines, with its title as a heading."""
        return join("\n", [*([heading(self.title)] if self.title else []), self._body()])

    def _body(self) -> str:
        lines = [list(self.head), *map(list, self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        body = (
            "  ".join(
                cell.ljust(width) if i in self.left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )
        parts = [*(f"  {line}".rstrip() for line in body), self.note]
        return "\n".join(part for part in parts if part)


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Notice:
    """A sentence that must not be missed: a keyword and its explanation."""

    word: str
    text: str
    tone: Tone


@dataclass(frozen=True)
class Terms:
    """Definitions of terms, a sentence each."""

    terms: Mapping[str, str]


@dataclass(frozen=True)
class Fact:
    """A key number with its label."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """The key numbers of a page."""

    facts: Sequence[Fact]


@dataclass(frozen=True)
class Picture:
    """A figure with a description in words for readers who cannot see it."""

    name: str
    """File name without suffix."""
    figure: Figure
    alt: str
    caption: str = ""
    data: pd.DataFrame | None = field(default=None, compare=False)
    """The plotted data, for the CSV file."""
    source: str = ""
    """Name of the results file that holds these data."""
    interactive: bool = False
    """Whether its lines can also be drawn by a script."""


@dataclass(frozen=True)
class Code:
    """Text to copy; folded if it has a ``summary``."""

    text: str
    language: str = "bash"
    summary: str = ""


type Block = Table | Words | Notice | Terms | Facts | Picture | Code


@dataclass(frozen=True)
class Section:
    """A heading and its content."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report, independent of HTML and Markdown."""

    title: str
    subtitle: str
    lead: Sequence[Block]
    """Blocks before the table of contents."""
    sections: Sequence[Section] = field(default_factory=list)

    def blocks(self) -> list[Block]:
        """Return all blocks in order."""
        return [*self.lead, *(block for section in self.sections for block in section.blocks)]

    def pictures(self) -> list[Picture]:
        """Return all figures in order."""
        return [block for block in self.blocks() if isinstance(block, Picture)]

    def data_files(self) -> dict[str, str]:
        """Return the CSV text of every figure and table that has one, by file name."""
        files: dict[str, str] = {}
        for block in self.blocks():
            if (text := csv_of(block)) is not None:
                files.setdefault(data_name(block), text)
        return files


MOST_ROWS = 2000
"""Longer data are left out of a report, which names the file that holds them."""
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")


def csv_of(block: Block) -> str | None:
    """Return the data of a figure or table as CSV, or None if there are none or too many.

    A table without numbers is written as its cells are shown, without thousands separators.
    """
    if not isinstance(block, (Picture, Table)):
        return None
    if block.data is not None:
        return block.data.to_csv(index=False, lineterminator="\n") if has_room(block) else None
    if isinstance(block, Picture) or not any(block.head) or not block.rows:
        return None
    out = io.StringIO()
    rows = [block.head, *([_plain(cell) for cell in row] for row in block.rows)]
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def has_room(block: Picture | Table) -> bool:
    """Whether the data of a figure or table fit into a report."""
    return block.data is not None and len(block.data) <= MOST_ROWS


def _plain(cell: str) -> str:
    return cell.replace(",", "") if _THOUSANDS.fullmatch(cell) else cell


def data_name(block: Block) -> str:
    """Return the name of the CSV file of a figure or table."""
    if isinstance(block, Picture):
        return f"{block.name}.csv"
    title = block.title or block.head[0] or block.head[1] if isinstance(block, Table) else ""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"{words[:40].strip('-') or 'table'}.csv"


def number(value: float | None, digits: int = 5) -> str:
    """Format a number: ``1,229.1``, ``998,995``, ``3.0e-14``; a dash for None.

    Parameters
    ----------
    value : float or None
        What to format; integers are written in full.
    digits : int, default 5
        Significant digits of other numbers.

    Examples
    --------
    >>> number(998995), number(1229.148), number(3.0412e-14), number(None), number(float("inf"))
    ('998,995', '1,229.1', '3.04e-14', '-', 'infinite')
    """
    if value is None or value != value:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) == float("inf"):
        return "infinite" if value > 0 else "-infinite"
    if value and not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{min(digits, 3) - 1}e}"
    shown = f"{value:.{digits}g}"
    return f"{float(shown):,.15g}" if abs(value) >= 1000 else shown


def format_count(n: int, what: str) -> str:
    """Format a count with its noun: ``1 node``, ``2,000 nodes``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first and the units to the left, numbers to the right."""
    return Table(head, rows).text()
