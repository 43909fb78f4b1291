"""Traces of all nodes, written while the market runs."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from fcfn_abm.errors import OutputError
from fcfn_abm.process.files import list_folder
from fcfn_abm.process.folders import describe_error
from fcfn_abm.records.tables import schema_of

PART_ROWS = 2**19
"""Most rows of a part file (10 MiB before compression), except that a round is never split.
Memory holds three parts, one being filled while the others are written; a killed run loses
at most these."""

_PART = re.compile(r"part-[0-9]+\.parquet")
_WRITERS = 2
"""Threads that write parts; a single one is slower than a market with simultaneous moves."""
# no value is missing; declaring this in the schema makes writing a quarter faster
_SCHEMA = pa.schema(field.with_nullable(False) for field in schema_of("traces", narrow=True))
_FEW = 0.1
"""Share of reports that differ from zero, up to which a part is compressed. The zeros of nodes that
left take no room then, and writing is as fast; with more reports, compression takes longer than
writing."""
_PARQUET = {
    "use_dictionary": False,
    "column_encoding": {"node": "DELTA_BINARY_PACKED"},
    "write_statistics": ["round"],  # readers filter by round; each part has every node
}


class TraceWriter:
    """Writes the traces of all nodes as Parquet parts, in background threads.

    A Parquet file cannot be read before it is complete. So traces are split into parts of up to
    :data:`PART_ROWS` rows, each renamed to its final name only when complete: after any failure,
    all files ``part-*.parquet`` can be read. Use it as a context manager.

    Parameters
    ----------
    folder : Path
        Folder of the parts, which is created.
    final : Path, optional
        Name of the folder in errors, if it will be renamed.
    part_rows : int, default PART_ROWS
        Most rows of a part, unless a round has more.

    Raises
    ------
    OutputError
        From any method, if the folder or a part cannot be written.
    """

    def __init__(
        self, folder: Path, final: Path | None = None, *, part_rows: int = PART_ROWS
    ) -> None:
        self._folder, self._name = folder, final or folder
        self._part_rows = part_rows
        self._filling = _Rows(0, 0)
        self._free: list[_Rows] = []
        self._writing: deque[tuple[Future[None], _Rows]] = deque()
        self._n_parts = 0
        self._threads = ThreadPoolExecutor(max_workers=_WRITERS, thread_name_prefix="traces")
        try:
            folder.mkdir()
        except OSError as error:
            raise self._describe_failure(error) from error

    def add(
        self,
        round_index: int,
        epsilon: npt.NDArray[np.float64],
        payment: npt.NDArray[np.float64],
        utility: npt.NDArray[np.float64],
    ) -> None:
        """Add a round; waits if the disk is slower than the market.

        Parameters
        ----------
        round_index : int
            Number of the round.
        epsilon, payment, utility : ndarray of float, shape (n,)
            One entry per node; copied as float32.
        """
        n_nodes = epsilon.size
        if not self._filling.size:
            n_rounds = max(self._part_rows // n_nodes, 1)
            self._filling, *self._free = (_Rows(n_rounds, n_nodes) for _ in range(_WRITERS + 1))
        self._filling.take(round_index, epsilon, payment, utility)
        if self._filling.n_filled == self._filling.size:
            self._hand_over()

    def close(self) -> None:
        """Write the remaining rows, and wait until all is written."""
        try:
            if (
                self._filling.n_filled or not self._n_parts
            ):  # a market without rounds also has a part
                self._hand_over()
            self._wait(0)
        finally:
            self._threads.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:  # the run failed, and its folder will be removed
            self._threads.shutdown()

    def _hand_over(self) -> None:
        self._wait(_WRITERS - 1)
        path = self._folder / f"part-{self._n_parts:05d}.parquet"
        before = self._writing[-1][0] if self._writing else None
        future = self._threads.submit(_write_in_order, self._filling.table(), path, before)
        self._writing.append((future, self._filling))
        self._n_parts += 1
        self._filling = self._free.pop() if self._free else _Rows(0, 0)  # an empty market has none
        self._filling.n_filled = 0

    def _wait(self, n_writing: int) -> None:
        """Wait until no more parts than these are being written."""
        while len(self._writing) > n_writing or (self._writing and self._writing[0][0].done()):
            future, rows = self._writing.popleft()
            try:
                future.result()
            except (OSError, pa.ArrowException) as error:
                raise self._describe_failure(error) from error
            self._free.append(rows)

    def _describe_failure(self, error: Exception) -> OutputError:
        return OutputError(f"{self._name}: the traces cannot be written: {describe_error(error)}.")


class _Rows:
    """Buffer for the rows of a part."""

    def __init__(self, n_rounds: int, n_nodes: int) -> None:
        self.size, self.n_filled = n_rounds * n_nodes, 0
        self._columns = {
            field.name: np.empty(self.size, field.type.to_pandas_dtype()) for field in _SCHEMA
        }
        self._columns["node"][:] = np.tile(np.arange(n_nodes), n_rounds)  # the same in each part

    def take(self, round_index: int, *measured: npt.NDArray[Any]) -> None:
        """Copy a round."""
        rows = slice(self.n_filled, self.n_filled + measured[0].size)
        self._columns["round"][rows] = round_index
        for name, values in zip(("epsilon", "payment", "utility"), measured, strict=True):
            self._columns[name][rows] = values
        self.n_filled = rows.stop

    def table(self) -> pa.Table:
        """Return the rows without copying them."""
        arrays = [pa.array(column[: self.n_filled]) for column in self._columns.values()]
        return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def write_part(table: pa.Table, path: Path) -> None:
    """Write a part."""
    n_reports = np.count_nonzero(table["epsilon"].to_numpy())
    packing = "lz4" if n_reports <= _FEW * len(table) else "none"
    measured = dict.fromkeys(("epsilon", "payment", "utility"), packing)
    compression = {"round": "lz4", "node": "lz4", **measured}
    pq.write_table(table, path, compression=compression, **_PARQUET)


def _write_in_order(table: pa.Table, path: Path, before: Future[None] | None) -> None:
    """Write a part under a hidden name, and rename it after the previous part."""
    hidden = path.with_name(f".{path.name}")
    write_part(table, hidden)
    if before is not None:
        before.result()
    hidden.rename(path)


def read_parts(
    folder: Path, *, nodes: Iterable[int] | None = None, columns: list[str] | None = None
) -> pd.DataFrame:
    """Read the parts of a folder as one frame.

    Parameters
    ----------
    folder : Path
        Folder of the parts.
    nodes : iterable of int, optional
        Nodes to read; the others are filtered out batch by batch.
    columns : list of str, optional
        Columns to read; by default all.

    Returns
    -------
    DataFrame
        Rows in the order in which they were written.
    """
    wanted = None if nodes is None else ds.field("node").isin(list(nodes))
    frame: pd.DataFrame = open_parts(folder).to_table(columns=columns, filter=wanted).to_pandas()
    return frame


def open_parts(folder: Path) -> Any:
    """Return the parts of a folder as a ``pyarrow.dataset.Dataset``, without reading them."""
    return ds.dataset([str(part) for part in list_parts(folder)], schema=_SCHEMA)


def list_parts(folder: Path) -> list[Path]:
    """Return the parts in a folder, in order; raises OSError if it cannot be listed."""
    names = (entry.name for entry in list_folder(folder))
    return [folder / name for name in names if _PART.fullmatch(name)]
