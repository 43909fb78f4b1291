"""Files that take their names when they are whole and on the disk, and folders listed whole.

``Path.glob`` and ``Path.rglob`` pass over folders that cannot be listed. What is listed here is
all that there is, or an error is raised.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

UNSUPPORTED = {
    errno.EINVAL,
    errno.ENOLCK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
}
"""Errors of file systems that lack an optional call, such as locks or fsync of a folder."""

_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "icon\r", ".ds_store", ".directory", ".localized"}
_SYSTEM_PREFIXES = ("._", ".nfs", ".fuse_hidden")


def is_system_file(name: str) -> bool:
    """Whether file managers and network disks put files of this name into any folder.

    Examples
    --------
    >>> [is_system_file(name) for name in ("desktop.ini", ".nfs0001", "nodes.parquet")]
    [True, True, False]
    """
    return name.lower() in _SYSTEM_NAMES or name.startswith(_SYSTEM_PREFIXES)


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name; raises OSError if it cannot be listed."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def list_files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, at any depth, in the order of their names.

    Links to folders are not followed.

    Raises
    ------
    OSError
        If a folder cannot be listed.
    """
    for entry in list_folder(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from list_files(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)


def has_files(folder: Path) -> bool:
    """Whether something lies in a folder that the system has not put there."""
    return any(not is_system_file(entry.name) for entry in list_folder(folder))


def write_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file, whole or not at all.

    It is written under a hidden name beside its own that nobody can guess, and which must be free:
    a link that was planted under a known name would lead the data into another file.

    Parameters
    ----------
    path : Path
        Its name; a file that has it is replaced.
    data : bytes
        What it holds.
    durable : bool, default True
        Whether it is on the disk when this returns. If not, a power cut may leave an empty file
        under the name.

    Raises
    ------
    OSError
        If it cannot be written; what had the name is as it was.
    """

    def write(partial: Path) -> None:
        with partial.open("xb") as file:
            file.write(data)

    replace_file(path, write, durable=durable)


def replace_file(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Let a function write a file under a hidden name, and give it its own; see `write_file`."""
    partial = hidden_name(path)
    try:
        write(partial)
        if durable:
            sync(partial)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if durable:
        with suppress(OSError):  # the file has its name: whatever fails now, it is whole
            sync(path.parent)


def hidden_name(path: Path) -> Path:
    """Return a hidden name beside a path that nothing else has."""
    return path.parent / f"{hidden_prefix(path)}{secrets.token_hex(4)}"


def hidden_prefix(path: Path) -> str:
    """Return how the hidden names of what becomes a path begin."""
    return f".{path.name}.partial-"


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, onto the disk, where the system can do that."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    # Windows syncs what may be written alone
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        with suppress(OSError):
            os.close(descriptor)


def sync_below(folder: Path) -> None:
    """Force a folder and all that lies below it onto the disk."""
    for entry in list_folder(folder):
        if entry.is_dir(follow_symlinks=False):
            sync_below(Path(entry.path))
        else:
            sync(Path(entry.path))
    sync(folder)


def create_folder(path: Path) -> None:
    """Create a folder, and those that it lies in, on the disk; one that is there stays."""
    if path.is_dir():
        return
    create_folder(path.parent)
    path.mkdir(exist_ok=True)
    with suppress(OSError):  # an entry that is not synced is no reason not to work
        sync(path.parent)
