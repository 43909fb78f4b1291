"""Where tasks run: in this process, in other processes, or on the caller's executor.

All are executors of the standard library, and get the same tasks.
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

MAX_DEATHS = 3  # workers that a task may kill, or that may die before they are ready
MAX_WORKERS = 4096
LOST_PROCESS = (ConnectionError, EOFError)
"""Errors of a pool when one of its processes, or the fork server, is killed."""
_KILL = 9  # SIGKILL, which Windows does not have
_MAX_FOLDER = 60  # characters of the folder for sockets, whose names take 40 of 107
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a private folder is created there
_MANY_CHUNKS = 32  # chunks in progress if the number of workers is unknown
_SINGLE = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""Environment of a process with one thread."""


@dataclass(frozen=True)
class OpenWorkers:
    """Workers that are ready."""

    executor: Executor
    """Executor of the tasks."""
    n_chunks: Callable[[], int]
    """Returns the number of chunks that should be in progress now."""
    observe: Callable[[], object] = lambda: None
    """Records the memory use of the workers; called about once a second."""
    describe_death: Callable[[BaseException], str] = lambda _: ""
    """Describes the worker that died with an error, and its memory use, to continue the words "the
    last was"; empty if unknown."""


class Workers(Protocol):
    """A place where tasks run."""

    def open(self) -> AbstractContextManager[OpenWorkers]:
        """Start or find the workers; leaving the block stops their tasks."""
        ...


class _SerialExecutor(Executor):
    """Runs a task when it is submitted."""

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
        """Yield an executor that runs each task at once."""
        yield OpenWorkers(_SerialExecutor(), lambda: 1)


@dataclass(frozen=True)
class ExternalExecutor:
    """The caller's executor, which is neither closed nor replaced if it breaks."""

    executor: Executor

    @contextmanager
    def open(self) -> Iterator[OpenWorkers]:
        """Yield the executor.

        Raises
        ------
        RunFailedError
            If it is broken.
        """
        try:
            self.executor.submit(_do_nothing, 0).result()
        except BrokenExecutor:
            raise RunFailedError(
                "the executor is broken; call again with a new executor to run the missing tasks."
            ) from None
        yield OpenWorkers(self.executor, lambda: _MANY_CHUNKS)


@dataclass(frozen=True)
class Processes:
    """Processes on this machine, with one thread each."""

    n_workers: int
    """Number of processes."""
    preload: Sequence[str] = ()
    """Modules that are imported once for all processes, if the system can fork safely."""

    def __post_init__(self) -> None:
        require_workers(self.n_workers)

    def load(self) -> None:
        """Start to import the modules, if the system can fork safely; returns at once."""
        with _set_environment(_SINGLE), suppress(OSError):  # `open` raises it again
            _start_context(self.preload)

    @contextmanager
    def open(self) -> Iterator[OpenWorkers]:
        """Start the processes; an exception that leaves the block kills them.

        If one is killed before it is ready, all are replaced, at most three times.

        Raises
        ------
        RunFailedError
            If they do not start.
        """
        others = set(multiprocessing.active_children())
        with _set_environment(_SINGLE):
            pool = self._create_pool()
            try:
                deaths = 0
                while not _wait_until_ready(pool, self.n_workers):
                    deaths += 1
                    if deaths == MAX_DEATHS:
                        raise RunFailedError(
                            "the worker processes do not start: they were killed, or the calling "
                            "script lacks the guard: if __name__ == '__main__'."
                        )
                    pool.shutdown(cancel_futures=True)
                    pool = self._create_pool()
                memory = _Memory(others)
                memory.observe()
                # one chunk each, so that every submitted chunk is running if a worker dies
                yield OpenWorkers(
                    pool, lambda: self.n_workers, memory.observe, memory.describe_death
                )
            except BaseException:  # including interrupts
                for process in set(multiprocessing.active_children()) - others:
                    process.kill()  # safe: results are stored atomically
                raise
            finally:
                pool.shutdown(cancel_futures=True)

    def _create_pool(self) -> ProcessPoolExecutor:
        """Return a pool that starts its processes on demand."""
        return ProcessPoolExecutor(
            self.n_workers,
            _start_context(self.preload),
            initializer=_set_up_worker,
            initargs=(dict(os.environ),),
        )


class _Memory:
    """Memory use of worker processes, as far as the system reports it.

    Parameters
    ----------
    others : set of process
        Children of this process that are not workers.
    """

    def __init__(self, others: set[BaseProcess]) -> None:
        self._others, self._peaks = others, dict[BaseProcess, int]()

    def observe(self) -> None:
        """Record the largest memory use of each worker so far."""
        for process in set(multiprocessing.active_children()) - self._others:
            with suppress(
                OSError, ValueError, IndexError
            ):  # the process has ended, or this is not Linux
                status = Path(f"/proc/{process.pid}/status").read_text()
                self._peaks[process] = 1024 * int(status.partition("VmHWM:")[2].split()[0])

    def describe_death(self, _: BaseException) -> str:
        """Describe the process that was killed, and its last known memory use."""
        killed = [process for process in self._peaks if process.exitcode == -_KILL]
        if not killed:
            return ""
        used = format_bytes(self._peaks[killed[0]])
        return (
            f"process {killed[0].pid}, killed by the system or a user (signal 9) after it had used "
            f"{used}"
        )


def format_bytes(number: float) -> str:
    """Format a number of bytes for messages.

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
    """Return the start method of processes.

    On Linux they are forks of one server process without threads, which imports the modules once: a
    worker is ready in milliseconds, and all share that memory. A fork of this process itself could
    deadlock, because its threads may hold locks. The server starts with SIGINT blocked, which its
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
    """Let multiprocessing create its sockets in a folder whose paths are short enough.

    The system limits paths of sockets to about a hundred characters, and batch systems set long
    TMPDIRs.
    """
    if len(os.fsencode(tempfile.gettempdir())) <= _MAX_FOLDER:
        return
    before = tempfile.tempdir
    tempfile.tempdir = next(
        (folder for folder in _SHORT_FOLDERS if os.access(folder, os.W_OK | os.X_OK)), before
    )
    try:
        util.get_temp_dir()  # cached, and removed at exit
    finally:
        tempfile.tempdir = before


def _set_up_worker(environment: dict[str, str]) -> None:
    """Prepare a worker process: it leaves interrupts to its parent, and ends with it."""
    os.environ.update(environment)  # the fork server may have started under another environment
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # tqdm's own lock is a system semaphore, which a killed worker would leak
    tqdm.set_lock(threading.RLock())
    parent = multiprocessing.parent_process()
    if parent:
        # a killed parent cannot stop its workers: they watch a pipe that closes with it
        threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()


def _exit_with_parent(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _wait_until_ready(pool: ProcessPoolExecutor, n_workers: int) -> bool:
    """Start all workers together; return whether all survive until they are ready.

    Raises
    ------
    RunFailedError
        If the system cannot start more processes.
    """
    try:
        with block_sigint_in_children():
            ready = [pool.submit(_do_nothing, number) for number in range(n_workers)]
        for future in ready:
            future.result()
    except (BrokenExecutor, *LOST_PROCESS):
        return False
    except OSError as error:
        raise describe_start_failure(error) from None
    return True


def describe_start_failure(error: OSError) -> RunFailedError:
    """Return the error for a process that the system cannot start."""
    return RunFailedError(
        f"a worker process cannot be started: {error.strerror}; use fewer (--workers)."
    )


def _do_nothing(_: int) -> None:
    """Confirm that a worker works."""


@contextmanager
def _set_environment(values: dict[str, str]) -> Generator[None]:
    """Set environment variables for processes that start within the block."""
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
    """Convert an argument to workers: workers, an executor, or None for serial execution."""
    if value is None:
        return Serial()
    if isinstance(value, Executor):
        return ExternalExecutor(value)
    if isinstance(value, Path) or not hasattr(value, "open"):  # paths have an open method as well
        raise InvalidScenarioError(
            f"workers must be Workers or an Executor, not {abbreviate(value)}."
        )
    return value


def require_workers(n_workers: int) -> None:
    """Raise InvalidScenarioError unless the number of workers is possible."""
    as_count("workers", n_workers, most=MAX_WORKERS, error=InvalidScenarioError)


def count_cores() -> int:
    """Return the number of cores that this process may use, possibly fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # taskset, containers and batch systems set it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
