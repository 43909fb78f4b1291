"""Interrupts: raised again if a library swallows them, deferred if they would do harm.

Python raises KeyboardInterrupt at any point of its main thread. C code that calls Python code there
may drop it, as NumPy does when it compares types; finalizers can only print it; and cleanups may
turn it into an error of their own, as zipfile does. Work would continue, or end with a traceback.
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

_raised: BaseException | None = None  # the handler's exception, until a block ends with it


@contextmanager
def obey_interrupts() -> Iterator[None]:
    """End the block with an interrupt that arrived while it ran, even if it was swallowed.

    The exception of the SIGINT handler is raised again by :func:`raise_if_interrupted`, in place of
    another exception that leaves the block, or at the block's end. Blocks may be nested; the
    innermost one raises. In threads other than the main one, which handles all signals, and if
    SIGINT is ignored, this does nothing.

    Raises
    ------
    KeyboardInterrupt
        Or another exception that the SIGINT handler raised.
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
    # finalizers cannot raise: Python passes their exceptions to this hook, which prints them
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
    """Defer an interrupt until the block has ended.

    Raises
    ------
    KeyboardInterrupt
        Or another exception that the SIGINT handler raises.
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
    """Start processes that leave interrupts from the terminal to their parent.

    A terminal sends Ctrl-C to all of its processes, and a child that is still importing would end
    with a traceback before it can ignore the signal. The signal is therefore blocked in this thread
    while children start, which inherit the mask. An interrupt of the parent is deferred to the end
    of the block; otherwise a process could be left half started.
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
    """Ignore SIGINT from now on: the work is done, and Python only shuts down.

    A second Ctrl-C would end the shutdown in a traceback, and change the exit code.

    Parameters
    ----------
    quiet : bool
        Whether finalizers of interrupted work may fail without a message.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if quiet:
        sys.unraisablehook = lambda _: None


def clear_interrupt_mark() -> None:
    """Let the process end with its own exit code after an interrupt.

    An interrupt that passes through an exec of source text, as in imports of torch, sets a flag in
    CPython (``unhandled_keyboard_interrupt``) that makes the process end with signal 2, whatever
    the exit code. The next exec of source text clears the flag.
    """
    exec("")  # noqa: S102


def _silence_when_interrupted(hook: Callable[[sys.UnraisableHookArgs], object]) -> Any:
    def report(args: sys.UnraisableHookArgs) -> None:
        if _raised is None:  # otherwise it is the interrupt, or a consequence of it
            hook(args)

    return report


def raise_if_interrupted() -> None:
    """Raise an interrupt that was swallowed within :func:`obey_interrupts`.

    Raises
    ------
    KeyboardInterrupt
        Or another exception that the SIGINT handler raised.
    """
    if _raised is not None and threading.current_thread() is threading.main_thread():
        raise _raised
