"""Interrupts that are obeyed, also where a library swallows them; and not before it is time.

Python raises KeyboardInterrupt wherever its main thread happens to be. There C code may call
Python code and drop what that raises, as NumPy does where it compares types; finalizers can only
print it; and clean-ups may turn it into an error of their own, as zipfile does. Work would go on,
or end in a traceback.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_raised: BaseException | None = None  # by the handler, and not through yet


@contextmanager
def obeyed_interrupts() -> Iterator[None]:
    """Let the block end with the interrupt that came while it ran, whatever became of that.

    What the handler of SIGINT raised is raised again by :func:`raise_if_interrupted`, in place of
    another exception that leaves the block, or at the block's end. Blocks may be nested; the
    innermost sees to it. In other threads than the main one, which handles no signals, and where
    SIGINT is ignored, this does nothing.

    Raises
    ------
    KeyboardInterrupt
        Or what else the handler of SIGINT raised.
    """
    global _raised
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        global _raised
        try:
            before(number, frame)
        except BaseException as interrupt:
            _raised = interrupt
            raise

    told, sys.unraisablehook = sys.unraisablehook, _tell_unless_interrupted(sys.unraisablehook)
    signal.signal(signal.SIGINT, handler)
    try:
        yield
        raise_if_interrupted()
    except Exception as error:
        if _raised is None:
            raise
        raise _raised from error
    finally:
        _raised, sys.unraisablehook = None, told
        signal.signal(signal.SIGINT, before)


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Let an interrupt wait until the block has ended, since half of it would be worse.

    Raises
    ------
    KeyboardInterrupt
        Or what else the handler of SIGINT raises.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *what: came.append(what))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(*came[0])


def _tell_unless_interrupted(tell: Callable[[sys.UnraisableHookArgs], object]) -> Any:
    def told(what: sys.UnraisableHookArgs) -> None:
        if _raised is None:  # else it is the interrupt, or comes of it
            tell(what)

    return told


def raise_if_interrupted() -> None:
    """Raise the interrupt that came within :func:`obeyed_interrupts`, if it was swallowed.

    Raises
    ------
    KeyboardInterrupt
        Or what else the handler of SIGINT raised.
    """
    if _raised is not None and threading.current_thread() is threading.main_thread():
        raise _raised
