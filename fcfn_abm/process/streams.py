"""Standard output and error that take any text, and end without complaints of Python's."""

from __future__ import annotations

import codecs
import io
import os
import sys

BROKEN_PIPE = 141
"""Exit code, as shells have it, where nobody reads on."""
_ESCAPE = "fcfn-escape"  # how text is encoded for a stream that knows few letters


class UnwritableError(Exception):
    """Standard output does not take what is printed.

    Not an OSError, so that a command does not take it for an error of its own files.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def open_streams() -> None:
    """Make stdout and stderr take any text, also where they are closed or know few letters."""
    codecs.register_error(_ESCAPE, _escape)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # Python has none where a shell closed it (>&-): printing would fail
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write letters that a stream does not know as JSON has them, in units of 16 bits."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = zip(units[::2], units[1::2], strict=True)
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in pairs), error.end


def close_streams() -> None:
    """Flush stdout and stderr, and drop what they cannot take.

    Python flushes them once more when it ends, and would print a traceback and end with 120. So a
    stream that fails is led to nowhere.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
