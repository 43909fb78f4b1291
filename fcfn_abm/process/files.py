"""Atomic, durable writing of files, and complete listings of folders.

``Path.glob`` and ``Path.rglob`` skip folders that cannot be listed. The functions here list
everything, or raise an error.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNSUPPORTED = {
    errno.EINVAL,
    errno.ENOLCK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
}
"""Errors of file systems without an optional call, such as locks or fsync of a folder."""

_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "icon\r", ".ds_store", ".directory", ".localized"}
_SYSTEM_PREFIXES = ("._", ".nfs", ".fuse_hidden")


def is_system_file(name: str) -> bool:
    """Whether file managers and network drives put files of this name into any folder.

    Examples
    --------
    >>> [is_system_file(name) for name in ("desktop.ini", ".nfs0001", "nodes.parquet")]
    [True, True, False]
    """
    return name.lower() in _SYSTEM_NAMES or name.startswith(_SYSTEM_PREFIXES)


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted by name; raises OSError if it cannot be listed."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def list_files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, at any depth, sorted by name.

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
    """Whether a folder contains anything except system files."""
    return any(not is_system_file(entry.name) for entry in list_folder(folder))


@contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Give every OSError of the block a file name; those of reads and writes have none.

    Parameters
    ----------
    path : Path
        The file that the block reads or writes.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def read_file(path: Path) -> bytes:
    """Read a file; an OSError names it, also if the file could be opened and not read."""
    with name_file(path):
        return path.read_bytes()


def write_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file atomically.

    It is written under an unpredictable hidden name next to the final one, which must not exist: a
    link planted under a predictable name would redirect the data into another file.

    Parameters
    ----------
    path : Path
        Path of the file; an existing file is replaced.
    data : bytes
        Content.
    durable : bool, default True
        Whether the data are on disk when the function returns. If not, a power failure may leave an
        empty file.

    Raises
    ------
    OSError
        If it cannot be written; an existing file is then unchanged.
    """

    def write(partial: Path) -> None:
        with partial.open("xb") as file:
            file.write(data)

    replace_file(path, write, durable=durable)


def replace_file(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Let a function write a file under a hidden name, and rename it; see `write_file`."""
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
        with suppress(OSError):  # the file is complete and has its name
            sync(path.parent)


def hidden_name(path: Path) -> Path:
    """Return an unused hidden name next to a path."""
    return path.parent / f"{hidden_prefix(path)}{secrets.token_hex(4)}"


def hidden_prefix(path: Path) -> str:
    """Return the prefix of the hidden names for a path."""
    return f".{path.name}.partial-"


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk, if the system supports it."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    # Windows syncs only files that are open for writing
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
    """Flush a folder and everything below it to disk."""
    for entry in list_folder(folder):
        if entry.is_dir(follow_symlinks=False):
            sync_below(Path(entry.path))
        else:
            sync(Path(entry.path))
    sync(folder)


def create_folder(path: Path) -> None:
    """Create a folder and its parents on disk; an existing folder is kept."""
    if path.is_dir():
        return
    create_folder(path.parent)
    path.mkdir(exist_ok=True)
    with suppress(OSError):  # a failed sync is not fatal
        sync(path.parent)
