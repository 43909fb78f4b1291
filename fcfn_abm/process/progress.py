"""Progress of long work, on stderr: a bar in a terminal, elsewhere a line now and then."""

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
    """Open a bar that counts work on stderr, and obey interrupts of that work at its steps.

    Parameters
    ----------
    total : int
        How much there is to do.
    desc, unit : str
        What is done, and what is counted.
    shown : bool
        Whether anything is shown.
    **more
        Other settings of tqdm's.

    Yields
    ------
    tqdm.tqdm
        In a terminal it draws itself again and again. Elsewhere it writes a line each half minute,
        none for work that takes less.
    """
    shown = shown and sys.stderr is not None  # closed by whoever started us
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
    """Write a sentence about long work on stderr, where its progress is shown."""
    if shown and sys.stderr is not None:
        with suppress(OSError):  # nobody reads on
            sys.stderr.write(f"fcfn: {text}\n")


class _Bar(tqdm):  # type: ignore[type-arg] # which is none at run time
    def update(self, n: float | None = 1) -> bool | None:
        raise_if_interrupted()
        return super().update(n)


class _Lines:
    """Takes what tqdm draws over and over in one place, and writes it line by line.

    A reader that has gone, or a full disk, costs the lines and not the work.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._last = stream, ""

    def write(self, text: str) -> None:
        for line in re.split(r"[\r\n]", _CONTROL.sub("", text)):
            text = line.strip()
            count = text.partition("[")[0]  # a bar draws its end twice, with other times
            if text and count != self._last:
                self._last = count
                with suppress(OSError, ValueError):
                    self._stream.write(f"{text}\n")

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()
