"""The command line in processes that start at once, so that hundreds can be killed."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing as mp
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fcfn_abm.cli.base import INTERRUPTED

_CONTEXT = mp.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["soak.loaded"])
_CAPABILITY_VERSION = 0x20080522

TRACEBACK = "Traceback (most recent call last)"
PATIENCE = 60.0
"""Seconds in which a signal is to end a command."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; minus the signal that killed it."""
    text: str
    """What it printed, to stdout and stderr."""

    def require_code(self, *codes: int) -> None:
        """Raise unless it ended with one of these codes, and with a sentence where it failed."""
        assert self.code in codes, f"exit code {self.code}:\n{self.text}"
        assert TRACEBACK not in self.text, self.text
        if self.code == 2:
            assert "fcfn: " in self.text, self.text
        if self.code == INTERRUPTED:
            assert self.text.count("fcfn: ") == 1, self.text


@dataclass(frozen=True)
class Place:
    """What is wrong with the world in which a command runs."""

    file_size: int | None = None
    """Most bytes that a file may have; then the disk is full."""
    powerless: bool = False
    """Let permissions count for root too, in whose name tests may run."""
    clock: tuple[float, ...] = ()
    """What the clock shows, call by call, over and over."""


class Command:
    """A command that runs, or has run, in a process of its own."""

    def __init__(self, args: list[str], log: Path, place: Place = Place()) -> None:
        self._log, self._begun = log, log.with_suffix(".begun")
        self._begun.unlink(missing_ok=True)
        self._process = _CONTEXT.Process(target=_run, args=(args, log, self._begun, place))
        self._process.start()

    def stop_after(self, seconds: float, how: signal.Signals) -> bool:
        """Send it a signal unless it ends before; return whether it was sent."""
        while self._process.is_alive() and not self._begun.exists():
            time.sleep(0.001)
        self._process.join(seconds)
        if not self._process.is_alive():
            return False
        try:
            os.killpg(self._process.pid, how)  # as a terminal does: to its workers too
        except ProcessLookupError:  # it has ended just now
            return False
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            raise AssertionError(f"{how.name} was not obeyed:\n{self.end().text}")
        return True

    def end(self) -> Ended:
        """Wait for its end."""
        self._process.join()
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return Ended(self._process.exitcode, text)


def run(args: list[str], log: Path, place: Place = Place()) -> Ended:
    """Run a command to its end."""
    return Command(args, log, place).end()


def _run(args: list[str], log: Path, begun: Path, place: Place) -> None:
    from fcfn_abm.cli import main

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["fcfn", *args]
    code: int | str | None = 0
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been ignored, or blocked
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    begun.touch()
    _spoil(place)
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _spoil(place: Place) -> None:
    if place.file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (place.file_size, place.file_size))
    if place.clock:
        shown = _over_and_over(place.clock)
        time.time = shown
        time.time_ns = lambda: int(shown() * 1e9)
    if place.powerless and os.getuid() == 0:
        _drop_capabilities()


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)  # 0: this process
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def _over_and_over(values: tuple[float, ...]) -> Callable[[], float]:
    calls = 0

    def shown() -> float:
        nonlocal calls
        calls += 1
        return values[calls % len(values)]

    return shown
