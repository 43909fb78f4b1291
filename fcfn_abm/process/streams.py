"""Standard output and error that accept any text, and close without tracebacks."""

from __future__ import annotations

import codecs
import io
import os
import sys

BROKEN_PIPE = 141
"""Exit code, as used by shells, if the reader has closed the pipe."""
_ESCAPE = "fcfn-escape"  # name of the error handler for limited encodings


class UnwritableError(Exception):
    """Standard output cannot be written.

    Not an OSError, so that a command does not mistake it for an error of its own files.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def open_streams() -> None:
    """Make stdout and stderr accept any text, even if closed or with a limited encoding."""
    codecs.register_error(_ESCAPE, _escape)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # None if a shell closed it (>&-): printing would fail
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escape characters that a stream cannot encode as in JSON, in 16-bit units."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = zip(units[::2], units[1::2], strict=True)
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in pairs), error.end


def close_streams() -> None:
    """Flush stdout and stderr, and discard what cannot be written.

    Python flushes them again at exit, and would print a traceback and exit with 120. A failing
    stream is therefore redirected to the null device.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
