"""Checkpoints of long runs, stored next to their folder, from which a killed run resumes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidRecordError, OutputError, abbreviate
from fcfn_abm.plugins import list_plugins
from fcfn_abm.process.files import create_folder, list_folder, read_file, write_file
from fcfn_abm.process.folders import remove_folder
from fcfn_abm.process.locks import Lock
from fcfn_abm.records import raise_as_output_error, remove_leftovers, require_free
from fcfn_abm.records.folders import RUN_KIND
from fcfn_abm.records.integrity import fingerprint
from fcfn_abm.runs.facts import versions
from fcfn_abm.scenario import Scenario, to_toml

_STATE = ".state"  # arrays in NumPy's format, after their digest
_MARK = "scenario.toml"
_BESIDE = "beside"  # fingerprint of an existing record when the run started
_LOCK = "lock"
_DIGEST = hashlib.sha256().digest_size

type Arrays = Mapping[str, npt.NDArray[Any]]


class Checkpoint:
    """Stores states of a run by name, each atomically.

    Parameters
    ----------
    folder : Path
        Folder of the files.
    scenario : Scenario
        Scenario of the run. States of another scenario, or of other versions of this program, of
        its libraries or of plug-ins, are discarded.
    """

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.folder = folder
        by = ", ".join(
            [
                *(f"{name} {version}" for name, version in versions().items()),
                *(f"{plugin.name} {plugin.sha256}" for plugin in list_plugins()),
            ]
        )
        mark = to_toml(scenario, f"An unfinished run of this scenario by {by}.").encode()
        self.discarded = ""
        """Why existing states were discarded; empty if none were."""
        before = _read_if_there(folder / _MARK)
        if before != mark:
            for old in _list_states(folder):
                old.unlink()
                self.discarded = _describe_difference(
                    before.decode(errors="replace"), mark.decode()
                )
            write_file(folder / _MARK, mark)

    def interrupt_message(self) -> tuple[str, ...]:
        """Return a message that the run can be resumed, if it can."""
        if not _list_states(self.folder):
            return ()
        return ("interrupted; run the same command to resume the training.",)

    def load(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        """Return the arrays last saved under a name, or None if they are missing or corrupt."""
        kept = _read_if_there(self.folder / f"{name}{_STATE}")
        digest, arrays = kept[:_DIGEST], kept[_DIGEST:]
        if hashlib.sha256(arrays).digest() != digest:
            return None
        with np.load(io.BytesIO(arrays), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    def save(self, name: str, state: Arrays) -> None:
        """Save arrays under a name, replacing existing ones."""
        arrays = io.BytesIO()
        np.savez(arrays, **state)  # type: ignore[arg-type]
        kept = arrays.getvalue()
        with raise_as_output_error(self.folder):
            write_file(self.folder / f"{name}{_STATE}", hashlib.sha256(kept).digest() + kept)


def _describe_difference(before: str, now: str) -> str:
    """Describe by the first differing line why an unfinished run is not resumed."""
    lines = zip_longest(before.splitlines(), now.splitlines(), fillvalue="nothing")
    there, here = next((pair for pair in lines if pair[0] != pair[1]), ("", ""))
    return (
        "the unfinished run in this folder has another scenario or other versions, and is "
        f"restarted: it has {abbreviate(there.lstrip('# '))} instead of "
        f"{abbreviate(here.lstrip('# '))}."
    )


@contextmanager
def checkpoint_of(
    out: Path, scenario: Scenario, *, overwrite: bool = False, kind: str = RUN_KIND
) -> Iterator[Checkpoint]:
    """Open the checkpoint of a run that writes to ``out``; it is removed on success.

    Parameters
    ----------
    out : Path
        The folder of the results.
    scenario : Scenario
        Scenario of the results.
    overwrite : bool, default False
        Whether to replace existing results.
    kind : str, default "run"
        Kind of the results, which only replace results of the same kind.

    Raises
    ------
    If ``out`` cannot hold results, another process works on the same run, or the checkpoint
    cannot be written.
        be written.
    """
    folder = _folder_of(out)
    _remove_finished(out)
    remove_leftovers(out)
    require_free(out, overwrite=overwrite, kind=kind)
    with raise_as_output_error(out):
        create_folder(folder)
        lock = Lock(folder / _LOCK)
        try:
            if not lock.acquire():
                raise OutputError(f"{out}: another process works on this run.")
        except OSError:
            _remove_if_useless(folder, out)
            raise
    try:
        with raise_as_output_error(out):
            checkpoint = Checkpoint(folder, scenario)
            write_file(folder / _BESIDE, fingerprint(out).encode())
        yield checkpoint
        remove_folder(folder)
    finally:
        # no state to resume from, or the record is complete: an interrupt may come after writing
        _remove_if_useless(folder, out)
        lock.release()


def _remove_finished(out: Path) -> None:
    """Remove the checkpoint of a run that was killed after its record was complete."""
    folder = _folder_of(out)
    with suppress(OSError):
        if not folder.is_dir():
            return
        lock = Lock(folder / _LOCK)
        if lock.acquire():
            try:
                _remove_if_useless(folder, out)
            finally:
                lock.release()


def _folder_of(out: Path) -> Path:
    return out.parent / f".{out.name}.checkpoint"


def _remove_if_useless(folder: Path, out: Path) -> None:
    """Remove a checkpoint without states, or whose record is complete."""
    with suppress(OSError, InvalidRecordError):
        before, now = _read_if_there(folder / _BESIDE).decode(), fingerprint(out)
        if not _list_states(folder) or (now and now != before):
            remove_folder(folder)


def _list_states(folder: Path) -> list[Path]:
    names = (entry.name for entry in list_folder(folder))
    return [folder / name for name in names if name.endswith(_STATE)]


def _read_if_there(file: Path) -> bytes:
    try:
        return read_file(file)
    except FileNotFoundError:
        return b""
