"""Folders of results on disk, written atomically; they only replace results of the same kind."""

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
RUN_KIND = "run"  # kind of a record without a kind in its facts
PARTS = "traces"
"""Folder of the traces of all nodes, which are written during the run."""


def write_facts(scenario: Scenario, run: Mapping[str, Any], folder: Path) -> None:
    """Write the two files that identify a folder of results: scenario and facts."""
    header = "The scenario of this run, every default written out."
    (folder / SCENARIO_FILE).write_text(to_toml(scenario, header), encoding="utf-8")
    facts = json.dumps(run, indent=2, ensure_ascii=False) + "\n"
    (folder / RUN_FILE).write_text(facts, encoding="utf-8")


def read_facts(path: Path, what: str = "results") -> dict[str, Any]:
    """Read the facts of a folder, called a folder of ``what`` in errors."""
    file = path / RUN_FILE
    try:
        run = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if path.is_file():
            problem = "is a file; pass the folder that contains it"
        elif path.is_dir():
            problem = f"contains no {what} (no {RUN_FILE})"
        else:
            problem = "does not exist"
        raise InvalidRecordError(f"{path}: {problem}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRecordError(f"{file}: cannot be read: {describe_error(error)}.") from error
    if not isinstance(run, dict):
        raise InvalidRecordError(f"{file}: cannot be read: it is not a JSON object.")
    return run


def require_free(path: Path, *, overwrite: bool = False, kind: str = RUN_KIND) -> None:
    """Raise OutputError unless results of a kind can be written to ``path``.

    With ``overwrite`` they replace results of the same kind, but nothing else.
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
            f"{path}: already contains results; {elsewhere}, or replace them with --overwrite."
        )
    held = read_facts(path).get("kind", RUN_KIND)
    if held != kind:
        raise OutputError(f"{path}: contains a {held}, not a {kind}; {elsewhere}.")
    with raise_as_output_error(path):
        names = [entry.name for entry in list_folder(path)]
    added = next((name for name in names if not belongs_to_results(path, name)), None)
    if added is not None:
        raise OutputError(
            f"{path}: contains {abbreviate(added)}, which is not part of the results; move it, or "
            f"{elsewhere}."
        )
    with raise_as_output_error(path):
        here = Path.cwd()
    if here.is_relative_to(path.resolve()):
        raise OutputError(f"{path}: is or contains the current folder; {elsewhere}.")


def belongs_to_results(folder: Path, name: str) -> bool:
    """Whether a name in a folder of results belongs to them, or to the system."""
    listed = list_data(folder)
    if listed is None:  # records of an earlier version have no list
        listed = {RUN_FILE, SCENARIO_FILE, PARTS, *(f"{table}.parquet" for table in TABLES)}
    derived = name in DERIVED or (name.startswith(".") and (".partial" in name or name == LOCK))
    return name in listed or derived or is_system_file(name)


def resolve_output_file(file: Path, *, overwrite: bool = False) -> Path:
    """Return the file that a file name resolves to, if it can be written.

    Raises
    ------
    OutputError
        If the file exists and is not to be replaced, if it belongs to results, or if it is not
        a regular file.
    """
    file = Path(os.path.realpath(file))  # follows links
    if file.is_dir():
        raise OutputError(f"{file}: is a folder; choose a file with --out.")
    if not os.path.lexists(file):
        return file
    if not file.is_file():
        raise OutputError(f"{file}: is not a regular file; choose another file with --out.")
    folder = file.parent
    replaceable = file.name in DERIVED or not belongs_to_results(folder, file.name)
    if (folder / RUN_FILE).is_file() and not replaceable:
        raise OutputError(
            f"{file}: belongs to the results in its folder; choose another file with --out."
        )
    if not overwrite:
        raise OutputError(
            f"{file}: already exists; choose another file with --out, or replace it with "
            "--overwrite."
        )
    return file


def remove_leftovers(path: Path) -> None:
    """Remove leftovers of killed commands that would have written ``path``.

    Files that cannot be removed are ignored.
    """
    with suppress(OSError):
        path = _follow_link(path)
        remove_abandoned(path)
        if (path / SUMS).is_file() and (path / LOCK).exists():  # killed after renaming
            lock = Lock(path / LOCK)
            if lock.acquire():
                lock.release(remove=True)


def _follow_link(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def new_folder(
    path: Path, *, overwrite: bool = False, kind: str = RUN_KIND, durable: bool = True
) -> Iterator[Path]:
    """Create a hidden folder next to ``path`` that is renamed to it when the block succeeds.

    Parameters
    ----------
    path : Path
        The final name; a link is followed.
    overwrite : bool, default False
        Whether to replace existing results.
    kind : str, default "run"
        Kind of the results, which only replace results of the same kind.
    durable : bool, default True
        Whether to flush everything to disk before renaming, so that after a power failure the
        folder is either missing or complete.

    Yields
    ------
    Path
        An empty folder, to be filled and sealed (:func:`seal`) by the block. If the block raises,
        it is removed, and ``path`` is unchanged.

    Raises
    ------
    OutputError
        If the name is taken, or the location cannot be written.
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
            if os.name == "nt":  # Windows cannot rename a folder that contains an open file
                lock.release()
            if not move_into_place(folder, path, replace=False):
                require_free(
                    path, overwrite=overwrite, kind=kind
                )  # another run may have been faster
                move_into_place(folder, path, replace=True)
            with suppress(OSError):  # nothing after the rename may fail
                (path / LOCK).unlink()
    except BaseException:
        remove_folder(folder)
        raise
    finally:
        lock.release()
