"""Where tasks are carried out: in this process, in others, or by an executor of the caller's.

All are executors of the standard library, and all get the same tasks.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures.process import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, forkserver, util
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from fcfn_abm.errors import InvalidScenarioError, RunFailedError, abbreviate, as_count
from fcfn_abm.process.interrupts import block_sigint_in_children

MAX_DEATHS = 3  # workers that a task may take with it, or that may die before they are ready
MAX_WORKERS = 4096
LOST_PROCESS = (ConnectionError, EOFError)
"""What a pool raises when a process that it starts, or the server that forks it, is killed."""
_KILL = 9  # SIGKILL, which Windows does not know
_MAX_FOLDER = 60  # letters of the folder for sockets, whose own names take 40 of 107
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a folder of its own is made there
_MANY_CHUNKS = 32  # that are out where the number of workers is not known
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class OpenWorkers:
    """Workers that are ready."""

    executor: Executor
    """Takes tasks."""
    n_chunks: Callable[[], int]
    """Returns how many chunks of tasks should be out now."""
    observe: Callable[[], None] = lambda: None
    """Notes what the workers use; called about once a second."""
    describe_death: Callable[[BaseException], str] = lambda _: ""
    """Returns which worker has died, by the error that its death led to, and what it used: what
    follows "the last was" in a sentence; empty if that is unknown."""


class Workers(Protocol):
    """A place where tasks are carried out."""

    def open(self) -> AbstractContextManager[OpenWorkers]:
        """Start or find the workers; leaving the block stops what they still do."""
        ...


class _SerialExecutor(Executor):
    """Carries a task out when it is submitted."""

    def submit[**P, R](self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Serial:
    """One task after another, in this process."""

    @contextmanager
    def open(self) -> Iterator[OpenWorkers]:
        """Give an executor that carries out each task at once."""
        yield OpenWorkers(_SerialExecutor(), lambda: 1)


@dataclass(frozen=True)
class ExternalExecutor:
    """An executor of the caller's, which is not closed, and not replaced if it breaks."""

    executor: Executor

    @contextmanager
    def open(self) -> Iterator[OpenWorkers]:
        """Give the executor.

        Raises
        ------
        RunFailedError
            If it is broken.
        """
        try:
            self.executor.submit(_do_nothing, 0).result()
        except BrokenExecutor:
            raise RunFailedError(
                "the executor is broken; the same call with a new one goes on with what is missing."
            ) from None
        yield OpenWorkers(self.executor, lambda: _MANY_CHUNKS)


@dataclass(frozen=True)
class Processes:
    """Processes on this machine, one thread each."""

    n_workers: int
    """How many there are."""
    preload: Sequence[str] = ()
    """Modules that are imported once for all processes, where the system can fork safely."""

    def __post_init__(self) -> None:
        require_workers(self.n_workers)

    @contextmanager
    def open(self) -> Iterator[OpenWorkers]:
        """Start the processes; leaving the block by an exception kills them.

        One that is killed before it is ready is replaced, with all others, at most three times.

        Raises
        ------
        RunFailedError
            If they do not start.
        """
        others = set(multiprocessing.active_children())
        with _set_environment(dict.fromkeys(_THREADS, "1")):
            pool = self._create_pool()
            try:
                deaths = 0
                while not _wait_until_ready(pool, self.n_workers):
                    deaths += 1
                    if deaths == MAX_DEATHS:
                        raise RunFailedError(
                            "the worker processes do not start: they were killed, or a script "
                            "that runs a sweep lacks the line: if __name__ == '__main__'."
                        )
                    pool.shutdown(cancel_futures=True)
                    pool = self._create_pool()
                memory = _Memory(others)
                memory.observe()
                # one chunk each: every chunk that is out is in work, should a worker die
                yield OpenWorkers(
                    pool, lambda: self.n_workers, memory.observe, memory.describe_death
                )
            except BaseException:  # an interrupt too
                for process in set(multiprocessing.active_children()) - others:
                    process.kill()  # nothing is lost: results are whole or not there
                raise
            finally:
                pool.shutdown(cancel_futures=True)

    def _create_pool(self) -> ProcessPoolExecutor:
        """Return a pool that starts its processes when it gets work."""
        return ProcessPoolExecutor(
            self.n_workers,
            _start_context(self.preload),
            initializer=_set_up_worker,
            initargs=(dict(os.environ),),
        )


class _Memory:
    """How much memory worker processes have used, as far as the system says.

    Parameters
    ----------
    others : set of process
        Children of this process that are no workers.
    """

    def __init__(self, others: set[BaseProcess]) -> None:
        self._others, self._peaks = others, dict[BaseProcess, int]()

    def observe(self) -> None:
        """Note how much each worker has used at most so far."""
        for process in set(multiprocessing.active_children()) - self._others:
            with suppress(OSError, ValueError, IndexError):  # it has ended, or this is not Linux
                status = Path(f"/proc/{process.pid}/status").read_text()
                self._peaks[process] = 1024 * int(status.partition("VmHWM:")[2].split()[0])

    def describe_death(self, _: BaseException) -> str:
        """Return which process was killed, and what it had used when it was looked at last."""
        killed = [process for process in self._peaks if process.exitcode == -_KILL]
        if not killed:
            return ""
        used = format_bytes(self._peaks[killed[0]])
        return (
            f"process {killed[0].pid}, killed by the system or a user (signal 9) after it had used "
            f"{used}"
        )


def format_bytes(number: float) -> str:
    """Return a number of bytes as people read it.

    Examples
    --------
    >>> [format_bytes(n) for n in (999, 277_610 * 4, 16e9)]
    ['999 B', '1.11 MB', '16 GB']
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"


def _start_context(preload: Sequence[str]) -> multiprocessing.context.BaseContext:
    """Return how processes start.

    On Linux they are forks of one server process without threads, which imports the modules once:
    a worker is ready in milliseconds, and all share that memory. A fork of this process itself
    could deadlock, as its threads may hold locks. The server starts with SIGINT blocked, which its
    forks inherit.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    _choose_short_folder()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with block_sigint_in_children():
        forkserver.ensure_running()
    return context


def _choose_short_folder() -> None:
    """Let multiprocessing keep its sockets where their paths fit into an address.

    The system allows some hundred letters, and batch systems set longer TMPDIRs.
    """
    if len(os.fsencode(tempfile.gettempdir())) <= _MAX_FOLDER:
        return
    before = tempfile.tempdir
    tempfile.tempdir = next(
        (folder for folder in _SHORT_FOLDERS if os.access(folder, os.W_OK | os.X_OK)), before
    )
    try:
        util.get_temp_dir()  # which is kept, and removed at the end
    finally:
        tempfile.tempdir = before


def _set_up_worker(environment: dict[str, str]) -> None:
    """Prepare a worker process: it leaves interrupts to its parent, and ends with it."""
    os.environ.update(environment)  # the fork server may have started under another one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # tqdm's own lock is a semaphore of the system, which a worker that is killed would leak
    tqdm.set_lock(threading.RLock())
    parent = multiprocessing.parent_process()
    if parent:
        # a parent that is killed cannot stop its workers: they watch a pipe that closes with it
        threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()


def _exit_with_parent(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _wait_until_ready(pool: ProcessPoolExecutor, n_workers: int) -> bool:
    """Start all workers together, and return whether none has died by the time that they work.

    Raises
    ------
    RunFailedError
        If the system starts no more processes.
    """
    try:
        with block_sigint_in_children():
            ready = [pool.submit(_do_nothing, number) for number in range(n_workers)]
        for future in ready:
            future.result()
    except (BrokenExecutor, *LOST_PROCESS):
        return False
    except OSError as error:
        raise too_many_processes(error) from None
    return True


def too_many_processes(error: OSError) -> RunFailedError:
    """Return the error of a process that the system does not start."""
    return RunFailedError(
        f"a worker process cannot be started: {error.strerror}; take fewer (--workers)."
    )


def _do_nothing(_: int) -> None:
    """Show that a worker works."""


@contextmanager
def _set_environment(values: dict[str, str]) -> Generator[None]:
    """Set environment variables, for processes that start within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def as_workers(value: object) -> Workers:
    """Return where a caller wants tasks carried out: workers, an executor, or None for serially."""
    if value is None:
        return Serial()
    if isinstance(value, Executor):
        return ExternalExecutor(value)
    if isinstance(value, Path) or not hasattr(value, "open"):  # a path can be opened too
        raise InvalidScenarioError(
            f"tasks are carried out by workers or an executor, not {abbreviate(value)}."
        )
    return value


def require_workers(n_workers: int) -> None:
    """Raise InvalidScenarioError unless there can be so many workers."""
    as_count("workers", n_workers, most=MAX_WORKERS, error=InvalidScenarioError)


def count_cores() -> int:
    """Return how many cores this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # taskset, containers and batch systems set it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
