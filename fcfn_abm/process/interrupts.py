"""Interrupts: obeyed where a library swallows them, deferred where half a step would do harm.

Python raises KeyboardInterrupt wherever its main thread happens to be. There C code may call
Python code and drop what that raises, as NumPy does where it compares types; finalizers can only
print it; and clean-ups may turn it into an error of their own, as zipfile does. Work would go on,
or end in a traceback.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

_raised: BaseException | None = None  # what the handler raised, until a block ends with it


@contextmanager
def obey_interrupts() -> Iterator[None]:
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

    hook = sys.unraisablehook
    # finalizers cannot raise: Python hands their exceptions to this hook, which prints them
    sys.unraisablehook = _silence_when_interrupted(hook)
    signal.signal(signal.SIGINT, handler)
    try:
        yield
        raise_if_interrupted()
    except Exception as error:
        if _raised is None:
            raise
        raise _raised from error
    finally:
        _raised, sys.unraisablehook = None, hook
        signal.signal(signal.SIGINT, before)


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Let an interrupt wait until the block has ended, where half of the block would do harm.

    Raises
    ------
    KeyboardInterrupt
        Or what else the handler of SIGINT raises.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *args: received.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            before(*received[0])


@contextmanager
def block_sigint_in_children() -> Generator[None]:
    """Start processes that leave an interrupt of the terminal to their parent.

    A terminal sends Ctrl-C to all of its processes, and a child that is still importing would end
    with a traceback, before it can ignore the signal. So the signal is blocked in this thread while
    children start, since they inherit that. An interrupt of the parent waits for the block's end;
    otherwise a process would be left half started.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # multiprocessing starts its resource tracker with the first child, and unblocks SIGINT then
    resource_tracker.ensure_running()
    with defer_interrupts():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts(*, quiet: bool) -> None:
    """Ignore SIGINT from now on: the work is over, and Python only shuts down.

    A second Ctrl-C would end the shutdown in a traceback, and change the exit code.

    Parameters
    ----------
    quiet : bool
        Whether finalizers of work that was cut off may fail without a message.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if quiet:
        sys.unraisablehook = lambda _: None


def clear_interrupt_mark() -> None:
    """Let the process end with an exit code of its own after an interrupt.

    An interrupt that passes through an exec of text, as in imports of torch, sets a mark in CPython
    (``unhandled_keyboard_interrupt``) by which the process ends with signal 2, whatever the exit
    code. The next exec of text removes the mark.
    """
    exec("")  # noqa: S102


def _silence_when_interrupted(hook: Callable[[sys.UnraisableHookArgs], object]) -> Any:
    def report(args: sys.UnraisableHookArgs) -> None:
        if _raised is None:  # else it is the interrupt, or a consequence of it
            hook(args)

    return report


def raise_if_interrupted() -> None:
    """Raise the interrupt that came within :func:`obey_interrupts`, if it was swallowed.

    Raises
    ------
    KeyboardInterrupt
        Or what else the handler of SIGINT raised.
    """
    if _raised is not None and threading.current_thread() is threading.main_thread():
        raise _raised
