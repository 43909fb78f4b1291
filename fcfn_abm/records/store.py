"""Records on disk: one folder a run, written whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from filelock import BaseFileLock, FileLock, Timeout

from fcfn_abm.errors import FcfnError, InvalidRecordError, OutputError, shown
from fcfn_abm.process.interrupts import deferred_interrupts
from fcfn_abm.records.integrity import (
    DERIVED,
    listed_in,
    reason,
    require_unchanged,
    require_utf8,
    seal,
)
from fcfn_abm.records.stream import open_parts, read_parts
from fcfn_abm.records.tables import TABLES, empty, read_table, write_table
from fcfn_abm.scenario import Scenario, read_toml, to_toml, tree_to_scenario

RUN_FILE = "run.json"
RUN_KIND = "run"  # what a record is whose facts do not say
SCENARIO_FILE = "scenario.toml"
_NOBODYS = {".DS_Store", "Thumbs.db", "desktop.ini"}  # systems put them everywhere
_HERE, _SWAP = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_LOCK = ".lock"  # held for as long as its folder grows
LATER_TABLES = {"ledger"}  # records of an earlier version lack them
PARTS = "traces"
"""Folder of the traces of all nodes, which were written during the run."""


@dataclass(frozen=True)
class Record:
    """What one run left: frames, and the facts about the run."""

    scenario: Scenario
    """The scenario, resolved: every default written out."""
    run: dict[str, Any]
    """Versions, seed, verdict, closed form, arms, times."""
    rounds: pd.DataFrame
    """One row a round."""
    nodes: pd.DataFrame
    """One row a node."""
    kept_traces: pd.DataFrame | None = field(default_factory=lambda: empty("traces"))
    """:attr:`traces`; None where those of all nodes lie in parts below ``path``."""
    training: pd.DataFrame = field(default_factory=lambda: empty("training"))
    """One row an arm and round of training."""
    ledger: pd.DataFrame = field(default_factory=lambda: empty("ledger"))
    """One row a round and node that trained in it with the market's epsilon: privacy spent."""
    path: Path | None = None
    """The folder, if the record is on disk."""

    @cached_property
    def traces(self) -> pd.DataFrame:
        """One row a round and traced node; parts on disk are read when this is first asked for."""
        return self.traces_of() if self.kept_traces is None else self.kept_traces

    def traces_of(self, nodes: Iterable[int] | None = None) -> pd.DataFrame:
        """Return the traces of some nodes, without loading those of the others.

        Parameters
        ----------
        nodes : iterable of int, optional
            Rows of the nodes; without it all.

        Returns
        -------
        DataFrame
            One row a round and node; nodes that were not traced are missing.
        """
        if self.kept_traces is None:
            try:
                return read_parts(self._whole_parts, nodes=nodes)
            except (OSError, ValueError, pa.ArrowException) as error:
                if isinstance(error, InvalidRecordError):
                    raise
                why = reason(error)
                raise InvalidRecordError(f"{self._parts}: cannot be read: {why}") from error
        frame = self.kept_traces
        return frame if nodes is None else frame[frame["node"].isin(list(nodes))]

    @cached_property
    def _whole_parts(self) -> Path:
        """The folder of the parts, once they were found to hold what was written."""
        require_unchanged(self._parts.parent, [PARTS])
        return self._parts

    @property
    def _parts(self) -> Path:
        if self.path is None:
            raise InvalidRecordError("The traces of this record lie on disk, but it has no path.")
        return self.path / PARTS

    def write(self, path: str | Path, *, overwrite: bool = False) -> Record:
        """Write the record to a folder, whole or not at all; see :func:`write_record`."""
        with new_folder(Path(path), overwrite=overwrite) as folder:
            write_record(self, folder)
        return replace(self, path=Path(path))


def write_record(record: Record, folder: Path) -> None:
    """Write the files of a record into an existing folder.

    Parameters
    ----------
    record : Record
        What to write.
    folder : Path
        Where to; best one from :func:`new_folder`.
    """
    frames = {name: getattr(record, name) for name in TABLES if name != "traces"}
    if record.kept_traces is not None:
        frames["traces"] = record.kept_traces
    elif record._parts != folder / PARTS:
        shutil.copytree(record._whole_parts, folder / PARTS)
    for name, frame in frames.items():
        write_table(name, frame, folder / f"{name}.parquet")
    write_facts(record.scenario, record.run, folder)


@contextmanager
def told_as(path: Path) -> Iterator[None]:
    """Turn what the system says when a file cannot be written into one sentence about ``path``."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {reason(error)}.") from error


def write_facts(scenario: Scenario, run: Mapping[str, Any], folder: Path) -> None:
    """Write the two files by which a folder of results is known: scenario and facts."""
    header = "The scenario of this run, every default written out."
    (folder / SCENARIO_FILE).write_text(to_toml(scenario, header), encoding="utf-8")
    facts = json.dumps(run, indent=2, ensure_ascii=False) + "\n"
    (folder / RUN_FILE).write_text(facts, encoding="utf-8")


def read_record(path: str | Path) -> Record:
    """Read a record back.

    Parameters
    ----------
    path : str or Path
        Its folder.

    Returns
    -------
    Record
        With pandas frames; ``path`` is where it was read from. Traces of all nodes are read when
        they are first asked for; see :meth:`Record.traces_of`, and docs/records.md.

    Raises
    ------
    InvalidRecordError
        If the folder is missing, holds no record, or one that cannot be read.
    """
    path = Path(path)
    tables = (f"{name}.parquet" for name in TABLES)
    require_unchanged(path, [RUN_FILE, SCENARIO_FILE, *tables])
    run = read_facts(path, "record")
    try:
        if run.get("kind", RUN_KIND) != RUN_KIND:
            raise ValueError(f"it holds a {run['kind']}, not a run.")
        streamed = (path / PARTS).is_dir()
        frames: dict[str, Any] = {
            "kept_traces" if name == "traces" else name: read_table(path / f"{name}.parquet")
            for name in TABLES
            if not (streamed and name == "traces")
            and not (name in LATER_TABLES and not (path / f"{name}.parquet").exists())
        }
        scenario_file = path / SCENARIO_FILE
        scenario = tree_to_scenario(read_toml(scenario_file), str(scenario_file))
        if streamed:
            frames["kept_traces"] = None
            _require_rows(path / PARTS, len(frames["rounds"]) * scenario.population.n_nodes)
    except FcfnError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InvalidRecordError(f"{path}: the record cannot be read: {reason(error)}") from error
    return Record(scenario, run, **frames, path=path)


def read_facts(path: Path, what: str = "results") -> dict[str, Any]:
    """Read the facts of a folder, which errors call a folder of ``what``."""
    file = path / RUN_FILE
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if path.is_file():
            told = "is a file; give the folder that it lies in"
        elif path.is_dir():
            told = f"holds no {what} (no {RUN_FILE})"
        else:
            told = "there is no such folder"
        raise InvalidRecordError(f"{path}: {told}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRecordError(f"{file}: cannot be read: {reason(error)}") from error
    if not isinstance(run, dict):
        raise InvalidRecordError(f"{file}: cannot be read: it holds no table.")
    return run


def _require_rows(parts: Path, n_rows: int) -> None:
    """Raise ValueError if parts or columns are missing; reads the files' ends only."""
    dataset = open_parts(parts)
    for part in dataset.get_fragments():
        for name in set(dataset.schema.names).difference(part.physical_schema.names):
            raise ValueError(f"{PARTS}/{Path(part.path).name} has no column {name!r}.")
    found = dataset.count_rows()
    if found != n_rows:
        raise ValueError(f"{PARTS}/ holds {found} of {n_rows} rows.")


def require_free(path: Path, *, overwrite: bool = False, kind: str = RUN_KIND) -> None:
    """Raise OutputError unless results of a kind can go to ``path``.

    They replace those of the same kind, when asked; anything else that stands there they never do.
    """
    with told_as(path):
        require_utf8(path, OutputError)
        if path.is_dir() and not any(path.iterdir()):
            return
    elsewhere = "choose another folder with --out"
    if not all((path / name).is_file() for name in (RUN_FILE, SCENARIO_FILE)):
        if path.exists() or path.is_symlink():
            raise OutputError(f"{path}: exists and is not a record; {elsewhere}.")
        return
    if not overwrite:
        raise OutputError(
            f"{path}: there is a record already; {elsewhere}, or replace it with --overwrite."
        )
    held = read_facts(path).get("kind", RUN_KIND)
    if held != kind:
        raise OutputError(f"{path}: holds a {held}, and not a {kind}; {elsewhere}.")
    if added := next((e.name for e in path.iterdir() if not is_own(path, e.name)), None):
        raise OutputError(
            f"{path}: {shown(added)} in it was put there by somebody else; move that, or "
            f"{elsewhere}."
        )
    with told_as(path):
        here = Path.cwd()
    if here.is_relative_to(path.resolve()):
        raise OutputError(f"{path}: is the current folder, or holds it; {elsewhere}.")


def is_own(folder: Path, name: str) -> bool:
    """Whether what is called so in a folder of results belongs to them."""
    listed = listed_in(folder)
    if listed is None:  # records of an earlier version have no list
        listed = {RUN_FILE, SCENARIO_FILE, PARTS, *(f"{table}.parquet" for table in TABLES)}
    derived = name in DERIVED or (name.startswith(".") and (".partial" in name or name == _LOCK))
    return name in listed or derived or name in _NOBODYS


def free_file(file: Path, *, overwrite: bool = False) -> Path:
    """Return the file that one of this name leads to, if it can be written.

    Raises
    ------
    OutputError
        If there is one already, and it is not to be replaced; if it belongs to results; or if
        something else than a file has that name.
    """
    file = Path(os.path.realpath(file))  # through links
    if file.is_dir():
        raise OutputError(f"{file}: is a folder; name a file with --out.")
    if not os.path.lexists(file):
        return file
    if not file.is_file():
        raise OutputError(f"{file}: is no ordinary file; choose another one with --out.")
    folder = file.parent
    if (folder / RUN_FILE).is_file() and file.name not in DERIVED and is_own(folder, file.name):
        raise OutputError(f"{file}: belongs to the results there; choose another file with --out.")
    if not overwrite:
        raise OutputError(
            f"{file}: exists already; choose another file with --out, or replace it with "
            "--overwrite."
        )
    return file


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False, kind: str = RUN_KIND) -> Iterator[Path]:
    """Give a hidden folder beside ``path`` that takes its name once the block has ended well.

    Parameters
    ----------
    path : Path
        The final name; a link is followed.
    overwrite : bool, default False
        Whether results under that name are replaced.
    kind : str, default "run"
        What the results are, which replace their like only.

    Yields
    ------
    Path
        An empty folder. If the block raises, it is removed, and ``path`` is as it was.

    Raises
    ------
    OutputError
        If there is something under that name, or the place cannot be written.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    require_free(path, overwrite=overwrite, kind=kind)
    with told_as(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder, alive = _hidden_folder(path)
    try:
        yield folder
        with told_as(path):
            seal(folder)
        require_free(path, overwrite=overwrite, kind=kind)
        with told_as(path), deferred_interrupts():  # or neither record might keep its name
            _remove_dead(path, folder)
            if not _took_free_name(folder, path):
                require_free(path, overwrite=overwrite, kind=kind)  # another run was quicker
                _swap(folder, path)
            (path / _LOCK).unlink(missing_ok=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        alive.release()


def _hidden_folder(path: Path) -> tuple[Path, BaseFileLock]:
    """Make a folder beside a path, and take its lock, by which others see that it is in use."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
        alive = FileLock(folder / _LOCK)
        with suppress(FileNotFoundError):  # not locked yet, it was taken for dead, and removed
            alive.acquire()
            folder.chmod(0o777 & ~_umask())
            return folder, alive


def _remove_dead(path: Path, own: Path) -> None:
    """Remove what runs to the same name have left that were killed: nobody holds their locks."""
    hidden, left = f".{path.name}.partial-", []
    with suppress(OSError), os.scandir(path.parent) as entries:
        left = [entry.name for entry in entries if entry.name.startswith(hidden)]
    for name in left:
        folder = path.parent / name
        if name != own.name:
            with suppress(Timeout, OSError), FileLock(folder / _LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def _took_free_name(folder: Path, path: Path) -> bool:
    """Give a folder its name, unless something has it."""
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _swap(folder: Path, path: Path) -> None:
    """Let a folder take the place of another, which goes."""
    if _exchange(folder, path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    old, held = _hidden_folder(path)
    try:
        path.rename(old / path.name)
        try:
            folder.rename(path)
        except OSError:
            (old / path.name).rename(path)
            raise
    finally:
        if path.exists():  # the new record, or the old one again
            shutil.rmtree(old, ignore_errors=True)
        held.release()


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that neither name is ever empty; False where one cannot."""
    try:
        swap = ctypes.CDLL(None).renameat2  # Linux
    except (AttributeError, OSError, TypeError):
        return False
    done: int = swap(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _SWAP)
    return done == 0


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
