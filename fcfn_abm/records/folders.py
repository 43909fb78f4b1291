"""Folders of results on disk: each is written whole or not at all, and replaces its like only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fcfn_abm.errors import InvalidRecordError, OutputError, abbreviate
from fcfn_abm.process.files import (
    create_folder,
    has_files,
    is_system_file,
    list_folder,
    sync_below,
)
from fcfn_abm.process.folders import (
    LOCK,
    create_hidden_folder,
    describe_error,
    move_into_place,
    raise_as_output_error,
    remove_abandoned,
    remove_folder,
)
from fcfn_abm.process.interrupts import defer_interrupts
from fcfn_abm.process.locks import Lock
from fcfn_abm.records.integrity import DERIVED, RUN_FILE, SUMS, list_data, require_utf8
from fcfn_abm.records.tables import TABLES
from fcfn_abm.scenario import Scenario, to_toml

SCENARIO_FILE = "scenario.toml"
RUN_KIND = "run"  # what a record is whose facts do not say
PARTS = "traces"
"""Folder of the traces of all nodes, which were written during the run."""


def write_facts(scenario: Scenario, run: Mapping[str, Any], folder: Path) -> None:
    """Write the two files by which a folder of results is known: scenario and facts."""
    header = "The scenario of this run, every default written out."
    (folder / SCENARIO_FILE).write_text(to_toml(scenario, header), encoding="utf-8")
    facts = json.dumps(run, indent=2, ensure_ascii=False) + "\n"
    (folder / RUN_FILE).write_text(facts, encoding="utf-8")


def read_facts(path: Path, what: str = "results") -> dict[str, Any]:
    """Read the facts of a folder, which errors call a folder of ``what``."""
    file = path / RUN_FILE
    try:
        run = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if path.is_file():
            problem = "is a file; give the folder that it lies in"
        elif path.is_dir():
            problem = f"holds no {what} (no {RUN_FILE})"
        else:
            problem = "there is no such folder"
        raise InvalidRecordError(f"{path}: {problem}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRecordError(f"{file}: cannot be read: {describe_error(error)}.") from error
    if not isinstance(run, dict):
        raise InvalidRecordError(f"{file}: cannot be read: it holds no table.")
    return run


def require_free(path: Path, *, overwrite: bool = False, kind: str = RUN_KIND) -> None:
    """Raise OutputError unless results of a kind can go to ``path``.

    On request they replace results of the same kind, and never anything else.
    """
    with raise_as_output_error(path):
        require_utf8(path, OutputError)
        if path.is_dir() and not has_files(path):
            return
        is_results = all((path / name).is_file() for name in (RUN_FILE, SCENARIO_FILE))
    elsewhere = "choose another folder with --out"
    if not is_results:
        if os.path.lexists(path):
            raise OutputError(f"{path}: exists and is not a record; {elsewhere}.")
        return
    if not overwrite:
        raise OutputError(
            f"{path}: there is a record already; {elsewhere}, or replace it with --overwrite."
        )
    held = read_facts(path).get("kind", RUN_KIND)
    if held != kind:
        raise OutputError(f"{path}: holds a {held}, and not a {kind}; {elsewhere}.")
    with raise_as_output_error(path):
        names = [entry.name for entry in list_folder(path)]
    added = next((name for name in names if not belongs_to_results(path, name)), None)
    if added is not None:
        raise OutputError(
            f"{path}: {abbreviate(added)} in it was put there by somebody else; move that, or "
            f"{elsewhere}."
        )
    with raise_as_output_error(path):
        here = Path.cwd()
    if here.is_relative_to(path.resolve()):
        raise OutputError(f"{path}: is the current folder, or holds it; {elsewhere}.")


def belongs_to_results(folder: Path, name: str) -> bool:
    """Whether a name in a folder of results is of theirs, or of the system's."""
    listed = list_data(folder)
    if listed is None:  # records of an earlier version have no list
        listed = {RUN_FILE, SCENARIO_FILE, PARTS, *(f"{table}.parquet" for table in TABLES)}
    derived = name in DERIVED or (name.startswith(".") and (".partial" in name or name == LOCK))
    return name in listed or derived or is_system_file(name)


def resolve_output_file(file: Path, *, overwrite: bool = False) -> Path:
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
    replaceable = file.name in DERIVED or not belongs_to_results(folder, file.name)
    if (folder / RUN_FILE).is_file() and not replaceable:
        raise OutputError(f"{file}: belongs to the results there; choose another file with --out.")
    if not overwrite:
        raise OutputError(
            f"{file}: exists already; choose another file with --out, or replace it with "
            "--overwrite."
        )
    return file


def remove_leftovers(path: Path) -> None:
    """Remove what killed commands have left of results that were to become ``path``.

    What cannot be removed stays, without an error.
    """
    with suppress(OSError):
        path = _follow_link(path)
        remove_abandoned(path)
        if (path / SUMS).is_file() and (path / LOCK).exists():  # killed once it had its name
            lock = Lock(path / LOCK)
            if lock.acquire():
                lock.release(remove=True)


def _follow_link(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def new_folder(
    path: Path, *, overwrite: bool = False, kind: str = RUN_KIND, durable: bool = True
) -> Iterator[Path]:
    """Give a hidden folder beside ``path`` that takes its name once the block has ended well.

    Parameters
    ----------
    path : Path
        The final name; a link is followed.
    overwrite : bool, default False
        Whether results under that name are replaced.
    kind : str, default "run"
        What the results are, which replace their like only.
    durable : bool, default True
        Whether all of it is on the disk before it takes its name: a power cut then leaves nothing
        under the name, or all.

    Yields
    ------
    Path
        An empty folder, which the block fills and seals (:func:`seal`). If the block raises, it is
        removed, and ``path`` is as it was.

    Raises
    ------
    OutputError
        If there is something under that name, or the place cannot be written.
    """
    path = _follow_link(path)
    remove_leftovers(path)
    require_free(path, overwrite=overwrite, kind=kind)
    with raise_as_output_error(path):
        create_folder(path.parent)
        folder, lock = create_hidden_folder(path)
    try:
        yield folder
        with raise_as_output_error(path):
            if durable:
                sync_below(folder)
        require_free(path, overwrite=overwrite, kind=kind)
        # an interrupt between two renames might leave no folder under the name
        with raise_as_output_error(path), defer_interrupts():
            if os.name == "nt":  # which renames no folder that holds an open file
                lock.release()
            if not move_into_place(folder, path, replace=False):
                require_free(path, overwrite=overwrite, kind=kind)  # another run was quicker
                move_into_place(folder, path, replace=True)
            with suppress(OSError):  # nothing may fail that comes after the rename
                (path / LOCK).unlink()
    except BaseException:
        remove_folder(folder)
        raise
    finally:
        lock.release()
