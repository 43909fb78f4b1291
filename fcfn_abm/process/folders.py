"""Folders that take their names when they are whole: hidden folder, lock, and swap."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from fcfn_abm.errors import OutputError, describe_cause

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


def create_hidden_folder(path: Path) -> tuple[Path, BaseFileLock]:
    """Create a folder beside a path, and take its lock.

    The system releases the lock when the process ends, however it ends. So a hidden folder whose
    lock is free belongs to a process that was killed.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_hidden_prefix(path), dir=path.parent))
        lock = FileLock(folder / LOCK)
        with suppress(FileNotFoundError):  # before it was locked, another process removed it
            lock.acquire()
            folder.chmod(0o777 & ~_umask())  # mkdtemp's are closed to others
            return folder, lock


def remove_abandoned_folders(path: Path, own: Path) -> None:
    """Remove the hidden folders beside a path that killed processes have left."""
    names = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(_hidden_prefix(path))]
    for name in names:
        folder = path.parent / name
        if name != own.name:
            with suppress(Timeout, OSError), FileLock(folder / LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def rename_if_free(folder: Path, path: Path) -> bool:
    """Give a folder its name, unless something has it; an empty folder is replaced."""
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def replace_folder(folder: Path, path: Path) -> None:
    """Let a folder take the place of another one, which is removed."""
    if _exchange(folder, path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    aside, lock = create_hidden_folder(path)
    try:
        path.rename(aside / path.name)
        try:
            folder.rename(path)
        except OSError:
            (aside / path.name).rename(path)
            raise
    finally:
        if path.exists():  # the new folder, or the old one again
            shutil.rmtree(aside, ignore_errors=True)
        lock.release()


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


def _hidden_prefix(path: Path) -> str:
    return f".{path.name}.partial-"


def _umask() -> int:
    mask = os.umask(0)  # there is no other way to read it
    os.umask(mask)
    return mask
