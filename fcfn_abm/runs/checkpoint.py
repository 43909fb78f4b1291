"""Where a long run stands, kept beside its folder, so that a run that was killed goes on."""

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
from fcfn_abm.process.files import create_folder, list_folder, write_file
from fcfn_abm.process.folders import remove_folder
from fcfn_abm.process.locks import Lock
from fcfn_abm.records import raise_as_output_error, remove_leftovers, require_free
from fcfn_abm.records.folders import RUN_KIND
from fcfn_abm.records.integrity import fingerprint
from fcfn_abm.runs.facts import versions
from fcfn_abm.scenario import Scenario, to_toml

_STATE = ".state"  # arrays as NumPy stores them, behind their digest
_MARK = "scenario.toml"
_BESIDE = "beside"  # fingerprint of the record that had the run's name when it began
_LOCK = "lock"
_DIGEST = hashlib.sha256().digest_size

type Arrays = Mapping[str, npt.NDArray[Any]]


class Checkpoint:
    """Keeps states of a run by name, each whole or not at all.

    Parameters
    ----------
    folder : Path
        Takes the files.
    scenario : Scenario
        Whose run this is. States of another scenario, or of other versions of this program, the
        libraries that it computes with or its plug-ins, are thrown away.
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
        """Why states that were there are thrown away; empty if none were."""
        before = _read_if_there(folder / _MARK)
        if before != mark:
            for old in _list_states(folder):
                old.unlink()
                self.discarded = _say_difference(before.decode(errors="replace"), mark.decode())
            write_file(folder / _MARK, mark)

    def interrupt_message(self) -> tuple[str, ...]:
        """Return a sentence that says that the run can go on, if it can."""
        if not _list_states(self.folder):
            return ()
        return ("interrupted; the same command goes on from where the training stood.",)

    def load(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        """Return the arrays that were saved under a name last, or None; damaged ones are none."""
        kept = _read_if_there(self.folder / f"{name}{_STATE}")
        digest, arrays = kept[:_DIGEST], kept[_DIGEST:]
        if hashlib.sha256(arrays).digest() != digest:
            return None
        with np.load(io.BytesIO(arrays), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    def save(self, name: str, state: Arrays) -> None:
        """Keep arrays under a name, in place of those that are there."""
        arrays = io.BytesIO()
        np.savez(arrays, **state)  # type: ignore[arg-type]
        kept = arrays.getvalue()
        with raise_as_output_error(self.folder):
            write_file(self.folder / f"{name}{_STATE}", hashlib.sha256(kept).digest() + kept)


def _say_difference(before: str, now: str) -> str:
    """Say by the first line that differs why an unfinished run is not gone on with."""
    lines = zip_longest(before.splitlines(), now.splitlines(), fillvalue="nothing")
    there, here = next((pair for pair in lines if pair[0] != pair[1]), ("", ""))
    return (
        "the unfinished run that lies there is of another scenario or of other versions, and is "
        f"begun again: it has {abbreviate(there.lstrip('# '))}, and here stands "
        f"{abbreviate(here.lstrip('# '))}."
    )


@contextmanager
def checkpoint_of(
    out: Path, scenario: Scenario, *, overwrite: bool = False, kind: str = RUN_KIND
) -> Iterator[Checkpoint]:
    """Open the checkpoint of what becomes ``out``; it goes when the block ends well.

    Parameters
    ----------
    out : Path
        The folder of the results.
    scenario : Scenario
        What they are of.
    overwrite : bool, default False
        Whether results that are there are to be replaced.
    kind : str, default "run"
        What the results are, which replace their like only.

    Raises
    ------
    OutputError
        If results cannot go to ``out``, another process is at the same run, or the place cannot
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
                raise OutputError(f"{out}: another process is at this run.")
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
        # there is nothing to go on from, or for: an interrupt may come once all is written
        _remove_if_useless(folder, out)
        lock.release()


def _remove_finished(out: Path) -> None:
    """Remove a checkpoint whose run was killed once its record had its name."""
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
    """Remove a checkpoint that holds no state, or whose run has become a record."""
    with suppress(OSError, InvalidRecordError):
        before, now = _read_if_there(folder / _BESIDE).decode(), fingerprint(out)
        if not _list_states(folder) or (now and now != before):
            remove_folder(folder)


def _list_states(folder: Path) -> list[Path]:
    names = (entry.name for entry in list_folder(folder))
    return [folder / name for name in names if name.endswith(_STATE)]


def _read_if_there(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
