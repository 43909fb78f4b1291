"""Folders that take their names when they are whole: hidden folder, lock, and swap."""

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
"""File that is locked for as long as its folder is written."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux


@contextmanager
def raise_as_output_error(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError about ``path``."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {describe_error(error)}.") from error


def describe_error(error: Exception) -> str:
    """Say why something could not be read or written, to end a sentence."""
    number = getattr(error, "errno", None)
    if number in (errno.EEXIST, errno.ENOTDIR):
        return "a file stands where a folder is to be"
    return describe_cause(error)


def create_hidden_folder(path: Path) -> tuple[Path, Lock]:
    """Create a folder beside a path, and take its lock.

    The system releases the lock when the process ends, however it ends. So a hidden folder whose
    lock is free belongs to a process that was killed.
    """
    while True:
        folder = hidden_name(path)
        folder.mkdir()
        lock = Lock(folder / LOCK)
        try:
            if lock.acquire():
                return folder, lock
        except FileNotFoundError:  # before it was locked, another process removed it
            pass
        except BaseException:
            remove_folder(folder)
            raise


def remove_folder(folder: Path) -> None:
    """Remove a folder, as far as that is possible: the next command tries again."""
    with suppress(OSError):  # rmtree raises some errors all the same
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(path: Path) -> None:
    """Remove the hidden folders and files beside a path that killed processes have left.

    Results that one of them had moved aside, and not replaced yet, get their name back. What
    cannot be removed stays, without an error.
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
    """Give a folder its final name, and force that onto the disk.

    Parameters
    ----------
    folder : Path
        The new folder, whole.
    path : Path
        The name.
    replace : bool
        Whether a folder that has the name, and holds something, is removed.

    Returns
    -------
    bool
        False if there is such a folder, and it is not to be replaced.

    Raises
    ------
    OSError
        If it cannot be done; what had the name has it still.
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
    with suppress(OSError):  # the folder has its name: whatever fails now, it is whole
        sync(path.parent)
    if old is not None:
        remove_folder(old)
    return True


def _swap(folder: Path, path: Path) -> Path:
    """Let a folder take the name of another one; return where that lies now."""
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
    """Swap the names of two folders in one step; False where the system cannot.

    rename() does not replace a folder that holds something, and with two renames a kill between
    them would leave nothing under the name. Linux swaps two names at once with renameat2, which
    Python does not offer; so it is called in the C library.
    """
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    paths = _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other)
    failed: int = renameat2(*paths, _RENAME_EXCHANGE)
    return failed == 0
