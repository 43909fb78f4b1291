"""Where a long run stands, kept beside its folder, so that a run that was killed goes on."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from fcfn_abm.errors import OutputError, abbreviate
from fcfn_abm.plugins import list_plugins
from fcfn_abm.records import raise_as_output_error
from fcfn_abm.records.folders import RUN_FILE
from fcfn_abm.runs.facts import versions
from fcfn_abm.scenario import Scenario, to_toml

_STATE = ".state"  # arrays as NumPy stores them, behind their digest
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
        mark = folder / "scenario.toml"
        by = ", ".join(
            [
                *(f"{name} {version}" for name, version in versions().items()),
                *(f"{plugin.name} {plugin.sha256}" for plugin in list_plugins()),
            ]
        )
        text = to_toml(scenario, f"An unfinished run of this scenario by {by}.")
        self.discarded = ""
        """Why states that were there are thrown away; empty if none were."""
        before = mark.read_text(encoding="utf-8") if mark.is_file() else ""
        if before != text:
            for old in folder.glob(f"*{_STATE}"):
                old.unlink()
                self.discarded = _say_difference(before, text)
            mark.write_text(text, encoding="utf-8")

    def interrupt_message(self) -> tuple[str, ...]:
        """Return a sentence that says that the run can go on, if it can."""
        if not any(self.folder.glob(f"*{_STATE}")):
            return ()
        return ("interrupted; the same command goes on from where the training stood.",)

    def load(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        """Return the arrays that were saved under a name last, or None; damaged ones are none."""
        try:
            kept = (self.folder / f"{name}{_STATE}").read_bytes()
        except FileNotFoundError:
            return None
        digest, arrays = kept[:_DIGEST], kept[_DIGEST:]
        if hashlib.sha256(arrays).digest() != digest:
            return None
        with np.load(io.BytesIO(arrays), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    def save(self, name: str, state: Arrays) -> None:
        """Keep arrays under a name, in place of those that are there."""
        arrays = io.BytesIO()
        np.savez(arrays, **state)  # type: ignore[arg-type]
        with raise_as_output_error(self.folder):
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                try:
                    file.write(hashlib.sha256(arrays.getbuffer()).digest())
                    file.write(arrays.getbuffer())
                    file.flush()
                    os.fsync(file.fileno())
                except BaseException:
                    Path(file.name).unlink()
                    raise
            Path(file.name).replace(self.folder / f"{name}{_STATE}")


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
def checkpoint_of(out: Path, scenario: Scenario) -> Iterator[Checkpoint]:
    """Open the checkpoint of the run that becomes ``out``; it goes when the block ends well.

    Raises
    ------
    OutputError
        If another process is at the same run, or the place cannot be written.
    """
    folder = out.with_name(f".{out.name}.checkpoint")
    with raise_as_output_error(out):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise OutputError(f"{out}: another process is at this run.") from None
    before = _record_at(out)
    try:
        with raise_as_output_error(out):
            checkpoint = Checkpoint(folder, scenario)
        yield checkpoint
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()
        # there is nothing to go on from, or for: an interrupt may come once all is written
        if not any(folder.glob(f"*{_STATE}")) or _record_at(out) != before:
            shutil.rmtree(folder, ignore_errors=True)


def _record_at(out: Path) -> tuple[int, int] | None:
    """Return what tells the record under a name from others."""
    try:
        found = (out / RUN_FILE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
