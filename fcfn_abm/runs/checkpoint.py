"""Where a long run stands, kept beside its folder, so that a run that was killed goes on."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from fcfn_abm import __version__
from fcfn_abm.errors import OutputError
from fcfn_abm.records import told_as
from fcfn_abm.scenario import Scenario, to_toml

type Arrays = Mapping[str, npt.NDArray[Any]]


class Checkpoint:
    """Keeps states of a run by name, each whole or not at all.

    Parameters
    ----------
    folder : Path
        Takes the files; made here.
    scenario : Scenario
        Whose run this is. States of another scenario, or of another version of this program, are
        thrown away.
    """

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.folder = folder
        mark = folder / "scenario.toml"
        text = to_toml(scenario, f"fcfn_abm {__version__}: an unfinished run of this scenario.")
        if not mark.is_file() or mark.read_text(encoding="utf-8") != text:
            for old in folder.glob("*.npz"):
                old.unlink()
            mark.write_text(text, encoding="utf-8")

    def told(self) -> tuple[str, ...]:
        """Return a sentence that says that the run can go on, if it can."""
        if not any(self.folder.glob("*.npz")):
            return ()
        return ("interrupted; the same command goes on from where the training stood.",)

    def load(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        """Return the arrays that were saved under a name last, or None."""
        try:
            with (
                (self.folder / f"{name}.npz").open("rb") as file,
                np.load(file, allow_pickle=False) as stored,
            ):
                return {key: stored[key] for key in stored.files}
        except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, name: str, state: Arrays) -> None:
        """Keep arrays under a name, in place of those that are there."""
        with told_as(self.folder):
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                try:
                    np.savez(file, **state)  # type: ignore[arg-type]
                    file.flush()
                    os.fsync(file.fileno())
                except BaseException:
                    Path(file.name).unlink()
                    raise
            Path(file.name).replace(self.folder / f"{name}.npz")


@contextmanager
def checkpoint_of(out: Path, scenario: Scenario) -> Iterator[Checkpoint]:
    """Open the checkpoint of the run that becomes ``out``; it goes when the block ends well.

    Raises
    ------
    OutputError
        If another process is at the same run, or the place cannot be written.
    """
    folder = out.with_name(f".{out.name}.checkpoint")
    with told_as(out):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise OutputError(f"{out}: another process is at this run.") from None
    try:
        with told_as(out):
            checkpoint = Checkpoint(folder, scenario)
        yield checkpoint
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()
        if not any(folder.glob("*.npz")):  # there is nothing to go on from
            shutil.rmtree(folder, ignore_errors=True)
