"""Unit privacy costs from a CSV file, with the names of the nodes."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np

from fcfn_abm.errors import InvalidDataError, InvalidGameError, abbreviate, did_you_mean
from fcfn_abm.population.distributions import RHO_DISTRIBUTIONS, Floats, RhoDistribution
from fcfn_abm.scenario.schema import LARGEST, SMALLEST, Positive

_SEPARATORS = (";", "\t", ",", "|")
_COSTS, _NAMES = ("rho", "cost", "costs"), ("name", "node")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")
_LONGEST_NAME = 100


@dataclass(frozen=True)
class CostsFile:
    """A table as stored in a CSV file: strings, and their line numbers."""

    path: str
    """Name of the file in messages."""
    header: tuple[str, ...]
    """Names of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """The entries of each column, without surrounding spaces."""
    lines: tuple[int, ...]
    """Line of the file on which each row ends, from 1."""
    sha256: str
    """SHA-256 of the file."""

    def numbers(self, column: str, decimal: str = "auto") -> Floats:
        """Return a column as positive numbers.

        Parameters
        ----------
        column : str
            Name of the column.
        decimal : {"auto", ".", ","}, default "auto"
            The decimal mark; by default the one used in the column.

        Raises
        ------
        InvalidDataError
            With the line of the first entry that is not a positive number, or is out of range; or
            if a comma may be a decimal mark or a thousands separator.
        """
        texts = self._texts(column)
        mark = self._decimal_mark(column, texts) if decimal == "auto" else decimal
        numbers = np.empty(len(texts))
        for row, text in enumerate(texts):
            plain = text if mark == "." else text.replace(".", "_").replace(",", ".")
            if not text:
                self._refuse(row, f"{column!r} is empty; every node needs a cost.")
            if not _NUMBER.fullmatch(plain):
                self._refuse(
                    row,
                    f"{column!r} must be a number with the decimal mark {mark!r}, without "
                    f"thousands separators, but is {abbreviate(text)}.",
                )
            numbers[row] = float(plain)
            if not 0 < numbers[row] < math.inf:
                self._refuse(row, f"{column!r} must be positive, but is {text}.")
            if not SMALLEST <= numbers[row] <= LARGEST:
                self._refuse(
                    row, f"{column!r} must lie from {SMALLEST:g} to {LARGEST:g}, but is {text}."
                )
        return numbers

    def names(self, column: str) -> tuple[str, ...]:
        """Return a column as unique names.

        Raises
        ------
        InvalidDataError
            With the line of the first name that is missing, repeated or not printable.
        """
        first_row: dict[str, int] = {}
        for row, text in enumerate(self._texts(column)):
            name = " ".join(text.split())
            if not name:
                self._refuse(row, f"{column!r} is empty; every node needs a name.")
            if not name.isprintable() or len(name) > _LONGEST_NAME:
                self._refuse(
                    row,
                    f"{column!r} must have at most {_LONGEST_NAME} printable characters, but is "
                    f"{abbreviate(name)}.",
                )
            if name in first_row:
                self._refuse(
                    row,
                    f"the name {abbreviate(name)} is already used on line "
                    f"{self.lines[first_row[name]]}; every node needs a unique name.",
                )
            first_row[name] = row
        return tuple(first_row)

    def find_costs(self, name_column: str | None) -> str:
        """Return the column of costs if none is given: rho, cost, or the only other column."""
        for column in self.header:
            if column.lower() in _COSTS:
                return column
        others = [column for column in self.header if column != name_column]
        if len(others) == 1:
            return others[0]
        raise InvalidDataError(
            f"{self.path}: no column is called 'rho' or 'cost'; name the column of costs, "
            f"such as column = {others[0]!r}. Columns: {', '.join(self.header)}."
        )

    def find_names(self) -> str | None:
        """Return the column of names if none is given: the first called name or node, if any."""
        return next((column for column in self.header if column.lower() in _NAMES), None)

    def _texts(self, column: str) -> list[str]:
        if column not in self.header:
            raise InvalidDataError(
                f"{self.path}: there is no column {abbreviate(column)}."
                f"{did_you_mean(column, self.header)} Columns: {', '.join(self.header)}."
            )
        place = self.header.index(column)
        return [row[place] for row in self.rows]

    def _decimal_mark(self, column: str, texts: Sequence[str]) -> str:
        commas = [row for row, text in enumerate(texts) if "," in text]
        points = [row for row, text in enumerate(texts) if "." in text]
        if not commas:
            return "."
        if points:
            row = max(commas[0], points[0])
            self._refuse(
                row,
                f"{column!r} contains commas and points, here {abbreviate(texts[row])}: use one "
                "decimal mark, and no thousands separators.",
            )
        if all(_GROUPED.fullmatch(texts[row]) for row in commas):
            text = texts[commas[0]]
            self._refuse(
                commas[0],
                f"{column!r} is {text}, which may be {text.replace(',', '.', 1)} or "
                f"{text.replace(',', '')}: set decimal = ',' for the first, or write it without "
                "the comma.",
            )
        return ","

    def _refuse(self, row: int, why: str) -> NoReturn:
        raise InvalidDataError(f"{self.path}, line {self.lines[row]}: {why}")


def read_costs_file(path: Path, shown: str | None = None) -> CostsFile:
    """Read a CSV file whose first line contains the column names.

    The separator is a comma, semicolon, tab or bar, whichever divides every line into as many
    entries as the header. Empty lines are skipped.

    Parameters
    ----------
    path : Path
        The file, UTF-8 text with or without a byte order mark.
    shown : str, optional
        Name of the file in messages. By default the path.

    Raises
    ------
    InvalidDataError
        If the file is invalid; the message gives the line, if there is one.
    """
    shown = str(path) if shown is None else shown
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidDataError(f"{shown}: cannot be read: {error.strerror}.") from None
    except ValueError:  # a zero byte
        raise InvalidDataError(f"{abbreviate(shown)}: not a valid file name.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidDataError(
            f"{shown}, line {line}: not UTF-8 text; save the file as 'CSV UTF-8'."
        ) from None
    lines, table = _divide(text, shown)
    if not table:
        raise InvalidDataError(f"{shown}: the file is empty; its first line must name the columns.")
    header, first = table[0], lines[0]
    for column in header:
        if not column or _NUMBER.fullmatch(column.replace(",", ".")):
            what = f"contains {abbreviate(column)}" if column else "has a column without a name"
            raise InvalidDataError(
                f"{shown}, line {first}: {what}, but must contain the column names, such as "
                "name,rho."
            )
        if header.count(column) > 1:
            raise InvalidDataError(
                f"{shown}, line {first}: the column {abbreviate(column)} appears twice."
            )
    for line, row in zip(lines, table, strict=True):
        if len(row) != len(header):
            raise InvalidDataError(
                f"{shown}, line {line}: has {len(row)} entries, but line {first} has {len(header)} "
                "columns; put quotes around an entry that contains the separator."
            )
    if len(table) < 3:
        raise InvalidDataError(
            f"{shown}: contains the costs of {len(table) - 1} nodes; a market needs at least two."
        )
    digest = hashlib.sha256(content).hexdigest()
    return CostsFile(shown, tuple(header), tuple(map(tuple, table[1:])), tuple(lines[1:]), digest)


def _divide(text: str, shown: str) -> tuple[list[int], list[list[str]]]:
    """Return the non-empty lines, split by the separator of the header."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    fitting = [separator for separator in _SEPARATORS if _is_divided(header, separator)]
    if len(fitting) < 2:  # a single column has no separator, but may have decimal commas
        return _parse(text, fitting[0] if fitting else _SEPARATORS[0], shown)
    tables = [_parse(text, separator, shown) for separator in fitting]
    same = [all(len(row) == len(table[0]) for row in table) for _, table in tables]
    return tables[same.index(True) if True in same else 0]


def _is_divided(header: str, separator: str) -> bool:
    try:
        return len(next(csv.reader([header], delimiter=separator, strict=True), ())) > 1
    except csv.Error:  # the file's separator follows a quote
        return False


def _parse(text: str, separator: str, shown: str) -> tuple[list[int], list[list[str]]]:
    lines, table = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for row in reader:
            entries = [entry.strip() for entry in row]
            if any(entries):
                lines.append(reader.line_num)
                table.append(entries)
    except csv.Error as error:
        raise InvalidDataError(f"{shown}, line {reader.line_num}: invalid CSV: {error}.") from None
    return lines, table


@RHO_DISTRIBUTIONS.register("csv")
class Csv(RhoDistribution):
    """Costs, and names of the nodes, from a CSV file with one line per node.

    The file is read with the scenario, and its values are stored in the record. It also determines
    the number of nodes. The separator (comma, semicolon, tab or bar) is detected.
    """

    path: str
    """Path of the file, relative to the scenario file."""
    column: str | None = None
    """Column of the costs. By default the column called rho or cost, or the only one besides the
    names."""
    name_column: str | None = None
    """Column of the nodes' names. By default the column called name or node, if there is one; ""
    for no names."""
    scale: Positive = 1.0
    """Factor by which the column is multiplied to give currency per unit of epsilon: 0.01 for
    cents."""
    decimal: Literal["auto", ".", ","] = "auto"
    """Decimal mark; "auto" detects the one used in the column."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Raise an error: the file is read with the scenario (:meth:`read`)."""
        raise InvalidGameError(
            "the distribution of rho 'csv' is read with a scenario file: use fa.load_scenario, "
            "or fa.load_costs for the file alone."
        )

    def read(self, folder: Path) -> NodeCosts:
        """Read the file.

        Parameters
        ----------
        folder : Path
            Folder that the path is relative to.

        Raises
        ------
        InvalidDataError
            If the file is invalid; the message gives the line.
        """
        file = read_costs_file(folder / self.path, self.path)
        by = file.find_names() if self.name_column is None else self.name_column or None
        names = file.names(by) if by else None
        column = file.find_costs(by) if self.column is None else self.column
        values = self.scale * file.numbers(column, self.decimal)
        scaled = "" if self.scale == 1 else f" times {self.scale:g}"
        source = f"{self.path}, column {column!r}{scaled}, SHA-256 {file.sha256}"
        return NodeCosts(tuple(values.tolist()), names, source, file)


@dataclass(frozen=True)
class NodeCosts:
    """Costs and names of the nodes in a file."""

    values: tuple[float, ...]
    """Unit privacy costs, in currency per unit of epsilon."""
    names: tuple[str, ...] | None
    """Names of the nodes; None without names."""
    source: str
    """Source of the values."""
    file: CostsFile
    """The whole table."""

    def to_listed(self) -> dict[str, object]:
        """Return the equivalent distribution 'listed', as a table of a scenario."""
        table: dict[str, object] = {"kind": "listed", "source": self.source, "values": self.values}
        return table if self.names is None else {**table, "names": self.names}
