"""File locks, which the system releases when a process ends, for whatever reason."""

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

_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}  # errors for a lock held by another process
_logger = logging.getLogger(__name__)


class Lock:
    """The lock of one file, which is created for it.

    File systems without locks are common: NFS without its lock daemon, Lustre, mounted buckets.
    There a lock counts as acquired, ``guards`` is False, and stderr shows a warning once.

    Parameters
    ----------
    path : Path
        Path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, -1
        self.guards = False
        """Whether the system enforces the lock against other processes."""

    def acquire(self) -> bool:
        """Acquire the lock; return False if another process holds it.

        Raises
        ------
        OSError
            If the file cannot be opened.
        """
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                guards = _lock(descriptor)
                # the previous holder may have removed the file
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
        """Release the lock, and optionally remove its file; never raises."""
        if self._descriptor < 0:
            return
        if remove:
            with suppress(OSError):
                self._path.unlink()
        _close(self._descriptor)
        self._descriptor, self.guards = -1, False


def _lock(descriptor: int) -> bool:
    """Lock a file; False without lock support, BlockingIOError if another process holds it."""
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
    """Whether an open file is the one that currently has a name."""
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
        "%s: this file system has no locks: commands that write to the same name at the same time "
        "are not separated, and leftovers of killed commands are not removed.",
        place,
    )
