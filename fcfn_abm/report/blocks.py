"""What texts and pages are made of: tables, paragraphs, notices, figures, in sections."""

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
    "active": "the nodes that take part",
    "population": "all nodes",
    "effective": "the effective number of nodes",
}
"""What ``game.average_over`` averages epsilon over, in words."""


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column holds words, the others numbers unless ``words`` says so."""

    head: Sequence[str]
    """One cell a column. A last column without a head holds units."""
    rows: Sequence[Sequence[str]]
    title: str = ""
    """A line above."""
    note: str = ""
    """Sentences below."""
    words: frozenset[int] = frozenset({0})
    """Columns that are set to the left."""
    data: pd.DataFrame | None = field(default=None, compare=False)
    """The numbers behind the cells, for its CSV; without them the cells."""

    @property
    def left(self) -> frozenset[int]:
        """Columns that are set to the left, that of the units included."""
        return self.words if self.head[-1] else self.words | {len(self.head) - 1}

    def text(self) -> str:
        """Return it as aligned lines."""
        return "\n".join(part for part in (self.title, self._body()) if part)

    def to_rich_text(self) -> Text:
        """Return it as aligned lines, with its title marked as a heading."""
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
    """A sentence that must not be missed: a word, and what it means."""

    word: str
    text: str
    tone: Tone


@dataclass(frozen=True)
class Terms:
    """What words mean: each with a sentence."""

    terms: Mapping[str, str]


@dataclass(frozen=True)
class Fact:
    """A number that comes first, with what it is."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """The few numbers that come first."""

    facts: Sequence[Fact]


@dataclass(frozen=True)
class Picture:
    """A figure, with what it shows in words for who cannot see it."""

    name: str
    """What its file is called, without suffix."""
    figure: Figure
    alt: str
    caption: str = ""
    data: pd.DataFrame | None = field(default=None, compare=False)
    """What is drawn, for its CSV."""
    source: str = ""
    """The file of the results that holds these data."""
    interactive: bool = False
    """Whether its lines can be drawn by a script as well."""


@dataclass(frozen=True)
class Code:
    """Something to copy; with a ``summary`` it is folded away."""

    text: str
    language: str = "bash"
    summary: str = ""


type Block = Table | Words | Notice | Terms | Facts | Picture | Code


@dataclass(frozen=True)
class Section:
    """A heading, and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report, before it is HTML or Markdown."""

    title: str
    subtitle: str
    lead: Sequence[Block]
    """What stands before the table of contents."""
    sections: Sequence[Section] = field(default_factory=list)

    def blocks(self) -> list[Block]:
        """Return all blocks, in order."""
        return [*self.lead, *(block for section in self.sections for block in section.blocks)]

    def pictures(self) -> list[Picture]:
        """Return all figures, in order."""
        return [block for block in self.blocks() if isinstance(block, Picture)]

    def data_files(self) -> dict[str, str]:
        """Return the CSV of every figure and table that has one, by the names of the files."""
        files: dict[str, str] = {}
        for block in self.blocks():
            if (text := csv_of(block)) is not None:
                files.setdefault(data_name(block), text)
        return files


MOST_ROWS = 2000
"""Longer data are not put into a report, which names the file that holds them."""
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")


def csv_of(block: Block) -> str | None:
    """Return the data of a figure or a table as CSV; None where there are none, or too many.

    The cells of a table whose numbers are not given stand in it as they are shown, but for
    separators of thousands.
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
    """Whether a report has room for the data of a figure or a table."""
    return block.data is not None and len(block.data) <= MOST_ROWS


def _plain(cell: str) -> str:
    return cell.replace(",", "") if _THOUSANDS.fullmatch(cell) else cell


def data_name(block: Block) -> str:
    """Return what the CSV file of a figure or a table is called."""
    if isinstance(block, Picture):
        return f"{block.name}.csv"
    title = block.title or block.head[0] or block.head[1] if isinstance(block, Table) else ""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"{words[:40].strip('-') or 'table'}.csv"


def number(value: float | None, digits: int = 5) -> str:
    """Write a number for people: ``1,229.1``, ``998,995``, ``3.0e-14``; a dash where there is none.

    Parameters
    ----------
    value : float or None
        What to write; whole numbers of type int are written whole.
    digits : int, default 5
        Significant digits of the others.

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
    """Write how many there are: ``1 node``, ``2,000 nodes``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, units to the left, numbers to the right."""
    return Table(head, rows).text()
