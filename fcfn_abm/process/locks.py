"""Locks on files, which the system releases when a process ends, however it ends."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from fcfn_abm.process.files import UNSUPPORTED

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}  # what the system says of another's lock
_logger = logging.getLogger(__name__)


class Lock:
    """The lock of one file, which is created for it.

    Disks without locks are common: NFS without its lock daemon, Lustre, buckets mounted as folders.
    There a lock counts as taken, ``guards`` is False, and one line on stderr says so once.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, -1
        self.guards = False
        """Whether the system keeps other processes from this lock."""

    def acquire(self) -> bool:
        """Take the lock; False if another process has it.

        Raises
        ------
        OSError
            If the file cannot be opened.
        """
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                guards = _lock(descriptor)
                # whoever had the lock before may have removed the file meanwhile
                if _is_at(descriptor, self._path):
                    self._descriptor, self.guards = descriptor, guards
                    if not guards:
                        _warn_once(str(self._path.parent.parent))
                    return True
            except BlockingIOError:
                return False
            finally:
                if self._descriptor != descriptor:
                    _close(descriptor)

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; ``remove``: and remove its file. Nothing here can fail."""
        if self._descriptor < 0:
            return
        if remove:
            with suppress(OSError):
                self._path.unlink()
        _close(self._descriptor)
        self._descriptor, self.guards = -1, False


def _lock(descriptor: int) -> bool:
    """Lock a file; False where the disk has no locks, BlockingIOError if another has this one."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in _HELD:
            raise BlockingIOError from None
        if error.errno in UNSUPPORTED:
            return False
        raise
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that has a name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _close(descriptor: int) -> None:
    with suppress(OSError):
        os.close(descriptor)


@cache
def _warn_once(place: str) -> None:
    _logger.warning(
        "%s: this disk has no file locks: commands that write to one name at the same time are not "
        "kept apart, and what killed commands have left is not removed.",
        place,
    )
