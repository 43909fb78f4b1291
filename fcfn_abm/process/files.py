"""Files that take their names when they are whole."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path


def write_file(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    It is written under a hidden name beside its own that nobody can guess, and which must be free:
    a link that was planted under a known name would lead the data into another file.

    Parameters
    ----------
    path : Path
        Its name; a file that has it is replaced.
    data : bytes
        What it holds.

    Raises
    ------
    OSError
        If it cannot be written; what had the name is as it was.
    """
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        with partial.open("xb") as file:
            file.write(data)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
