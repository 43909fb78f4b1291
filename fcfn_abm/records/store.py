"""Records of runs, written to and read from folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from fcfn_abm.errors import (
    FcfnError,
    InvalidRecordError,
    OutputError,
    abbreviate,
    as_list,
    as_names,
    as_path,
    join_lines,
    require_known,
)
from fcfn_abm.process.folders import describe_error, raise_as_output_error
from fcfn_abm.records.folders import (
    PARTS,
    RUN_KIND,
    SCENARIO_FILE,
    new_folder,
    read_facts,
    write_facts,
)
from fcfn_abm.records.integrity import RUN_FILE, fingerprint, require_same, require_unchanged, seal
from fcfn_abm.records.stream import list_parts, open_parts, read_parts
from fcfn_abm.records.tables import TABLES, columns_of, empty, insert_names, read_table, write_table
from fcfn_abm.scenario import Scenario, read_toml, tree_to_scenario
from fcfn_abm.show import Shown

_LATER_TABLES = {"ledger"}  # absent from records of earlier versions


@dataclass(frozen=True, repr=False)
class Record(Shown):
    """The result of a run: frames, and facts about the run."""

    scenario: Scenario
    """The scenario, resolved: all defaults are filled in."""
    run: dict[str, Any]
    """Versions, seed, verdict, closed form, trainings, times."""
    rounds: pd.DataFrame
    """One row per round."""
    nodes: pd.DataFrame
    """One row per node."""
    kept_traces: pd.DataFrame | None = field(default_factory=lambda: empty("traces"))
    """:attr:`traces`; None if those of all nodes are in parts below ``path``."""
    training: pd.DataFrame = field(default_factory=lambda: empty("training"))
    """One row per training (column ``arm``) and round."""
    ledger: pd.DataFrame = field(default_factory=lambda: empty("ledger"))
    """Privacy spent: one row per round and node that trained with the market's epsilon."""
    path: Path | None = None
    """The folder, if the record is on disk; absolute."""
    fingerprint: str | None = None
    """Fingerprint of the results in ``path``, to detect their replacement."""

    @property
    def plot(self) -> Any:
        """The figures of this record: ``record.plot.convergence()``; see :data:`fcfn_abm.plot`."""
        figures = import_module("fcfn_abm.report.figures.records")  # from a higher layer
        return figures.FiguresOf(self)

    def _describe(self) -> tuple[str, Mapping[str, object]]:
        market, verdict = self.run.get("market", {}), self.run.get("verdict") or {}
        facts: dict[str, object] = {
            "ended": f"{verdict.get('kind', 'no verdict')}, round {len(self.rounds):,}",
            "active nodes": f"{market.get('n_active', 0):,} of {len(self.nodes):,}",
        }
        names = {
            "payment cap B": "budget",
            "mean epsilon": "mean_epsilon",
            "utility of the server": "server_utility",
            "utility of all nodes": "node_utility",
        }
        facts |= {label: market[name] for label, name in names.items() if name in market}
        for arm in self.run.get("training", {}).get("arms", [])[:1]:
            facts["test accuracy"] = f"{arm['accuracy']:.1%}"
        if self.path:
            facts["folder"] = str(self.path)
        title = join_lines(self.scenario.title)
        return f"Record: {title}" if title else "Record", facts

    @cached_property
    def traces(self) -> pd.DataFrame:
        """One row per round and traced node; parts on disk are read on first access."""
        return self.traces_of() if self.kept_traces is None else self.kept_traces

    def traces_of(
        self, nodes: Iterable[int] | None = None, columns: Iterable[str] | None = None
    ) -> pd.DataFrame:
        """Return the traces of some nodes without loading the others.

        Parameters
        ----------
        nodes : iterable of int, optional
            Rows of the nodes; by default all.
        columns : iterable of str, optional
            Columns to read; by default all.

        Returns
        -------
        DataFrame
            One row per round and node; nodes without traces are missing.
        """
        names = None if columns is None else as_names("columns", columns, error=InvalidRecordError)
        if nodes is not None:
            listed = as_list("nodes", nodes, what="rows", error=InvalidRecordError)
            try:
                nodes = pd.array(listed, dtype="Int64").dropna().tolist()
            except (TypeError, ValueError, OverflowError):
                raise InvalidRecordError(
                    f"nodes must be a list of rows, not {abbreviate(nodes)}."
                ) from None
        if self.kept_traces is None:
            self._require_same()
            # the names of nodes are not stored in every round
            known = {column.name for column in columns_of("traces")}
            stored = None if names is None else sorted({"node", *names} & known)
            try:
                traces = read_parts(self._whole_parts, nodes=nodes, columns=stored)
                traces = insert_names(traces, self.scenario.population.node_names)
            except (OSError, ValueError, pa.ArrowException) as error:
                if isinstance(error, InvalidRecordError):
                    raise
                why = describe_error(error)
                raise InvalidRecordError(f"{self._parts}: cannot be read: {why}.") from error
            self._require_same()  # the parts were not replaced meanwhile
        else:
            traces = self.kept_traces
            traces = traces if nodes is None else traces[traces["node"].isin(nodes)]
        for name in names or ():
            require_known("column of traces", name, traces.columns)
        return traces if names is None else traces[names]

    def _require_same(self) -> None:
        """Raise unless the folder still holds the results of this record."""
        require_same(self._parts.parent, self.fingerprint)

    @cached_property
    def _whole_parts(self) -> Path:
        """The folder of the parts, after a check of their integrity."""
        require_unchanged(self._parts.parent, [PARTS])
        return self._parts

    @property
    def _parts(self) -> Path:
        if self.path is None:
            raise InvalidRecordError(
                "the traces of this record are on disk, but the record has no path."
            )
        return self.path / PARTS

    def write(self, path: str | Path, *, overwrite: bool = False, durable: bool = True) -> Record:
        """Write the record to a folder atomically; see :func:`write_record`.

        Without ``durable`` it may not be flushed to disk when this returns.
        """
        path = as_path("path", path)
        home = Path(os.path.abspath(path))
        with (
            new_folder(path, overwrite=overwrite, durable=durable) as folder,
            raise_as_output_error(path),
        ):
            found = write_record(self, folder)
        return replace(self, path=home, fingerprint=found)


def write_record(record: Record, folder: Path) -> str:
    """Write the files of a record to an existing folder, and seal it.

    Parameters
    ----------
    record : Record
        Record to write.
    folder : Path
        Folder to write to, usually from :func:`new_folder`.

    Returns
    -------
    str
        Fingerprint of the written files.
    """
    frames = {name: getattr(record, name) for name in TABLES if name != "traces"}
    if record.kept_traces is not None:
        frames["traces"] = record.kept_traces
    elif record._parts != folder / PARTS:
        record._require_same()
        _copy_parts(record._whole_parts, folder / PARTS)
        record._require_same()
    for name, frame in frames.items():
        write_table(name, frame, folder / f"{name}.parquet")
    write_facts(record.scenario, record.run, folder)
    if record.kept_traces is None:
        try:
            _require_rows(folder / PARTS, len(record.rounds) * record.scenario.population.n_nodes)
        except ValueError as error:
            raise OutputError(f"{folder}: the traces are incomplete: {error}") from error
    return seal(folder, [RUN_FILE, SCENARIO_FILE, *(f"{name}.parquet" for name in frames)])


def _copy_parts(parts: Path, to: Path) -> None:
    to.mkdir()
    for part in list_parts(parts):
        shutil.copyfile(
            part, to / part.name
        )  # without its mode, which some file systems do not support


def read_record(path: str | Path) -> Record:
    """Read a record from disk.

    Parameters
    ----------
    path : str or Path
        Its folder.

    Returns
    -------
    Record
        With pandas frames; ``path`` is the folder. Traces of all nodes are read on first access,
        and only from the same results; see :meth:`Record.traces_of` and docs/records.md.

    Raises
    ------
    InvalidRecordError
        If the folder does not exist, is not a record, or cannot be read.
    """
    path = Path(os.path.abspath(as_path("path", path, error=InvalidRecordError)))
    found = fingerprint(path)
    tables = (f"{name}.parquet" for name in TABLES)
    require_unchanged(path, [RUN_FILE, SCENARIO_FILE, *tables])
    run = read_facts(path, "record")
    try:
        if run.get("kind", RUN_KIND) != RUN_KIND:
            raise ValueError(f"it is a {run['kind']}, not a run.")
        streamed = (path / PARTS).is_dir()
        frames: dict[str, Any] = {
            "kept_traces" if name == "traces" else name: read_table(path / f"{name}.parquet")
            for name in TABLES
            if not (streamed and name == "traces")
            and not (name in _LATER_TABLES and not (path / f"{name}.parquet").exists())
        }
        scenario_file = path / SCENARIO_FILE
        scenario = tree_to_scenario(read_toml(scenario_file), str(scenario_file))
        if streamed:
            frames["kept_traces"] = None
            _require_rows(path / PARTS, len(frames["rounds"]) * scenario.population.n_nodes)
    except FcfnError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        why = describe_error(error)
        raise InvalidRecordError(f"{path}: the record cannot be read: {why}.") from error
    require_same(path, found)  # the record was not replaced meanwhile
    return Record(scenario, run, **frames, path=path, fingerprint=found)


def _require_rows(parts: Path, n_rows: int) -> None:
    """Raise ValueError if parts or columns are missing; reads only the files' footers."""
    dataset = open_parts(parts)
    for part in dataset.get_fragments():
        for name in set(dataset.schema.names).difference(part.physical_schema.names):
            raise ValueError(f"{PARTS}/{Path(part.path).name} has no column {name!r}.")
    found = dataset.count_rows()
    if found != n_rows:
        raise ValueError(f"{PARTS}/ has {found} of {n_rows} rows.")
