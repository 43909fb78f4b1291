"""Atomic writing of folders: hidden folder, lock, and swap."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fcfn_abm.errors import OutputError, describe_cause
from fcfn_abm.process.files import hidden_name, hidden_prefix, list_folder, sync
from fcfn_abm.process.locks import Lock

LOCK = ".lock"
"""File that is locked while its folder is being written."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux constants


@contextmanager
def raise_as_output_error(path: Path) -> Iterator[None]:
    """Convert an OSError of the block into an OutputError about ``path``."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {describe_error(error)}.") from error


def describe_error(error: Exception) -> str:
    """Describe why something could not be read or written, to end a sentence."""
    number = getattr(error, "errno", None)
    if number in (errno.EEXIST, errno.ENOTDIR):
        return "a file is in the place of a folder"
    return describe_cause(error)


def create_hidden_folder(path: Path) -> tuple[Path, Lock]:
    """Create a hidden folder next to a path, and lock it.

    The system releases the lock when the process ends, for whatever reason. A hidden folder with a
    free lock therefore belongs to a process that was killed.
    """
    while True:
        folder = hidden_name(path)
        folder.mkdir()
        lock = Lock(folder / LOCK)
        try:
            if lock.acquire():
                return folder, lock
        except FileNotFoundError:  # another process removed it before it was locked
            pass
        except BaseException:
            remove_folder(folder)
            raise


def remove_folder(folder: Path) -> None:
    """Remove a folder as far as possible; the next command tries again."""
    with suppress(OSError):  # rmtree raises some errors anyway
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(path: Path) -> None:
    """Remove hidden folders and files that killed processes have left next to a path.

    Results that such a process had moved aside, but not replaced yet, are restored. What cannot be
    removed is kept, without an error.
    """
    with suppress(OSError):
        for entry in list_folder(path.parent):
            if entry.name.startswith(hidden_prefix(path)):
                with suppress(OSError):
                    _remove_one(Path(entry.path), path)


def _remove_one(found: Path, path: Path) -> None:
    if not found.is_dir():
        found.unlink()
        return
    lock = Lock(found / LOCK)
    if not lock.acquire():
        return
    try:
        if lock.guards:
            if not os.path.lexists(path) and (found / path.name / "run.json").exists():
                (found / path.name).rename(path)
            remove_folder(found)
    finally:
        lock.release()


def move_into_place(folder: Path, path: Path, *, replace: bool) -> bool:
    """Move a folder to its final name, and flush that to disk.

    Parameters
    ----------
    folder : Path
        The new, complete folder.
    path : Path
        The final name.
    replace : bool
        Whether to remove an existing non-empty folder of that name.

    Returns
    -------
    bool
        False if there is such a folder, and it must not be replaced.

    Raises
    ------
    OSError
        If the move fails; an existing folder is then unchanged.
    """
    old = None
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not replace:
            return False
        old = _swap(folder, path)
    with suppress(OSError):  # the folder is complete and has its name
        sync(path.parent)
    if old is not None:
        remove_folder(old)
    return True


def _swap(folder: Path, path: Path) -> Path:
    """Put a folder in the place of another one; return the new place of the old one."""
    if _exchange(folder, path):
        return folder
    aside, lock = create_hidden_folder(path)
    moved = aside / path.name
    try:
        path.rename(moved)
        try:
            folder.rename(path)
        except OSError:
            moved.rename(path)
            raise
    except OSError:
        with suppress(OSError):
            (aside / LOCK).unlink()
            aside.rmdir()  # unless the old folder could not be moved back
        raise
    finally:
        lock.release()
    return aside


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders in one step; return False if the system cannot.

    rename() does not replace a non-empty folder, and a kill between two renames would leave no
    folder under the name. Linux swaps two names atomically with renameat2, which Python does not
    expose, so it is called in the C library.
    """
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    paths = _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other)
    failed: int = renameat2(*paths, _RENAME_EXCHANGE)
    return failed == 0
