"""Progress of long work, on stderr: a bar in a terminal, otherwise occasional lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from tqdm import tqdm

from fcfn_abm.process.interrupts import obey_interrupts, raise_if_interrupted

_PAUSE = 30.0  # seconds between two lines, and before the first one
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@contextmanager
def progress_bar(
    total: int, desc: str, unit: str, *, shown: bool, **more: Any
) -> Iterator[tqdm[Any]]:
    """Open a progress bar on stderr, which also raises interrupts at its steps.

    Parameters
    ----------
    total : int
        Total amount of work.
    desc, unit : str
        Description and unit of the work.
    shown : bool
        Whether to show the bar.
    **more
        Further arguments of tqdm.

    Yields
    ------
    tqdm.tqdm
        In a terminal it redraws itself. Elsewhere it writes a line every 30 seconds, and none for
        shorter work.
    """
    shown = shown and sys.stderr is not None  # closed by the calling process
    if shown and not sys.stderr.isatty():
        more |= {
            "file": _Lines(sys.stderr), "delay": _PAUSE, "mininterval": _PAUSE,
            "maxinterval": 2 * _PAUSE, "ncols": 100, "ascii": True,
        }  # fmt: skip
    with (
        obey_interrupts(),
        _Bar(total=total, desc=desc, unit=unit, disable=not shown, **more) as bar,
    ):
        yield bar


def print_note(text: str, *, shown: bool) -> None:
    """Write a sentence about long work to stderr, if progress is shown."""
    if shown and sys.stderr is not None:
        with suppress(OSError):  # the reader has closed the pipe
            sys.stderr.write(f"fcfn: {text}\n")


class _Bar(tqdm):  # type: ignore[type-arg] # not generic at run time
    def update(self, n: float | None = 1) -> bool | None:
        raise_if_interrupted()
        return super().update(n)


class _Lines:
    """Converts tqdm's redraws into separate lines.

    A closed pipe or a full disk loses lines, but does not stop the work.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._last = stream, ""

    def write(self, text: str) -> None:
        for line in re.split(r"[\r\n]", _CONTROL.sub("", text)):
            text = line.strip()
            count = text.partition("[")[0]  # a bar draws its end twice, with different times
            if text and count != self._last:
                self._last = count
                with suppress(OSError, ValueError):
                    self._stream.write(f"{text}\n")

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()
