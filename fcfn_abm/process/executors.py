"""Where the runs of a sweep are carried out: here, in processes, on a Dask cluster.

All are executors of the standard library, and all get the same tasks. A worker may be killed at
any time: :func:`work_off` then goes on with a new executor, and finds out which task is to blame.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from concurrent.futures.process import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import connection, forkserver, resource_tracker
from typing import Any, Protocol

from tqdm import tqdm

from fcfn_abm.errors import InvalidScenarioError, MissingExtraError, RunFailedError, shown
from fcfn_abm.process.interrupts import deferred_interrupts

MOST_DEATHS = 3  # workers that a task may take with it
MOST_WORKERS = 4096
_LARGEST_CHUNK = 32  # tasks that are handed out together
_FEW, _MANY = 2, 32  # chunks that are out where the number of workers is not known
_MOST_PORT = 65_535
_SCHEMES = ("tcp", "tls", "ws", "wss")  # Dask's; a client that knows none closes for a minute
_ANSWER_SECONDS = 30  # within which a scheduler has to answer
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Open:
    """Workers that are there."""

    executor: Executor
    """Takes tasks."""
    n_chunks: Callable[[], int]
    """Returns how many chunks of tasks should be out now."""


class Workers(Protocol):
    """A place where tasks are carried out."""

    def open(self) -> AbstractContextManager[Open]:
        """Start or find the workers; leaving the block stops what they still do."""
        ...


class _Here(Executor):
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
    """One after another, in this process."""

    @contextmanager
    def open(self) -> Iterator[Open]:
        """Give an executor that does everything at once."""
        yield Open(_Here(), lambda: 1)


@dataclass(frozen=True)
class Given:
    """Somebody else's executor, which is not closed, and not replaced if it breaks."""

    executor: Executor

    @contextmanager
    def open(self) -> Iterator[Open]:
        """Give the executor.

        Raises
        ------
        RunFailedError
            If it is broken.
        """
        try:
            self.executor.submit(_ready, 0).result()
        except BrokenExecutor:
            raise RunFailedError(
                "the executor is broken; the same call with a new one goes on with what is missing."
            ) from None
        yield Open(self.executor, lambda: _MANY)  # who knows how many workers it has


@dataclass(frozen=True)
class Processes:
    """Processes on this machine, one thread each."""

    n_workers: int
    """How many there are."""

    def __post_init__(self) -> None:
        require_workers(self.n_workers)

    @contextmanager
    def open(self) -> Iterator[Open]:
        """Start the processes; leaving the block kills them.

        Raises
        ------
        RunFailedError
            If none of them comes up.
        """
        others = set(multiprocessing.active_children())
        with _environment(dict.fromkeys(_THREADS, "1")):
            pool = ProcessPoolExecutor(
                self.n_workers, _context(), initializer=_begin, initargs=(dict(os.environ),)
            )
            try:
                _require_ready(pool, self.n_workers)
                # one chunk each: all that are out are being worked on, should a worker die
                yield Open(pool, lambda: self.n_workers)
            except BaseException:  # an interrupt too
                for process in set(multiprocessing.active_children()) - others:
                    process.kill()  # nothing is lost: results are whole or not there
                raise
            finally:
                pool.shutdown(cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """Return how processes start: where that is safe, as forks of one that has loaded all once."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fcfn_abm.runs.run"])
    with _deaf_children():
        forkserver.ensure_running()
    return context


def _begin(environment: dict[str, str]) -> None:
    """Set a worker process up: an interrupt is its parent's to handle, whose end is its own."""
    os.environ.update(environment)  # the process that this is a fork of may be older
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which leaks when we are killed
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _require_ready(pool: ProcessPoolExecutor, n_workers: int) -> None:
    """Wait until all workers have started, together, and raise RunFailedError if they cannot."""
    try:
        with _deaf_children():
            ready = [pool.submit(_ready, number) for number in range(n_workers)]
        for future in ready:
            future.result()
    except OSError as error:
        raise _too_many(error) from None
    except BrokenExecutor:
        raise RunFailedError(
            "the worker processes do not start; a script that runs a sweep needs the line: "
            "if __name__ == '__main__'."
        ) from None


def _too_many(error: OSError) -> RunFailedError:
    return RunFailedError(
        f"a worker process cannot be started: {error.strerror}; take fewer (--workers)."
    )


def _ready(_: int) -> None:
    """Show that a worker works."""


@contextmanager
def _environment(values: dict[str, str]) -> Generator[None]:
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


@contextmanager
def _deaf_children() -> Generator[None]:
    """Start processes that leave an interrupt of the terminal to their parent.

    They inherit that it is blocked. To the parent it comes when the block ends, or a process would
    be left half started.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would unblock it
    with deferred_interrupts():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster: one that runs, or ``local:4``, which is started here."""

    address: str
    """Where its scheduler listens, such as ``tcp://10.0.0.1:8786``, or ``local:`` and a number."""
    resources: dict[str, float] = field(default_factory=dict)
    """What each task takes of what workers were started with, such as ``{"GPU": 1}``."""

    def __post_init__(self) -> None:
        place, _, number = self.address.rpartition(":")
        scheme, slashes, host = place.rpartition("://")
        sensible = place == "local" or not slashes or (scheme in _SCHEMES and host)
        if not (sensible and re.fullmatch("[0-9]*[1-9][0-9]*", number)):
            raise InvalidScenarioError(
                f"--cluster {shown(self.address)}: must look like local:4, or tcp://10.0.0.1:8786."
            )
        what, most = ("workers", MOST_WORKERS) if place == "local" else ("port", _MOST_PORT)
        if len(number) > 9 or int(number) > most:  # Python reads no thousands of digits
            raise InvalidScenarioError(
                f"--cluster {shown(self.address)}: {what} must be {most:,} at most."
            )

    @contextmanager
    def open(self) -> Iterator[Open]:
        """Connect to the cluster; leaving the block cancels what it still has to do.

        Raises
        ------
        MissingExtraError
            If Dask is not installed.
        RunFailedError
            If no scheduler answers.
        """
        try:
            dask: Any = import_module("distributed")
        except ImportError:
            raise MissingExtraError(
                "A cluster needs Dask: pip install 'fcfn-abm[cluster]'."
            ) from None
        kind, _, number = self.address.partition(":")
        if kind == "local":
            with _deaf_children():
                cluster = dask.LocalCluster(
                    n_workers=int(number),
                    threads_per_worker=1,
                    dashboard_address=None,
                    resources=self.resources,
                )
            with cluster, dask.Client(cluster) as client:
                yield from self._executor(client)
            return
        security = dask.Security().get_connection_args("client")
        if kind in ("tls", "wss") and not security["ssl_context"]:
            raise InvalidScenarioError(
                f"--cluster {self.address}: Dask's configuration names no certificates "
                "(distributed.comm.tls)."
            )
        try:
            client = dask.Client(self.address, timeout=_ANSWER_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunFailedError(
                f"--cluster {self.address}: no scheduler answers: {why}."
            ) from None
        with client:
            yield from self._executor(client)

    def _executor(self, client: Any) -> Iterator[Open]:
        options = {"resources": self.resources} if self.resources else {}
        executor = client.get_executor(retries=MOST_DEATHS, pure=False, **options)

        def n_chunks() -> int:  # workers may come and go; with two each, none waits for the next
            try:
                threads: int = sum(client.nthreads().values())
            except OSError:  # the scheduler is gone, which what is out will tell
                return _FEW
            return max(2 * threads, _FEW)

        try:
            yield Open(executor, n_chunks)
        finally:
            executor.shutdown(wait=False)


def require_workers(n_workers: int) -> None:
    """Raise InvalidScenarioError unless there can be so many workers."""
    if n_workers < 1:
        raise InvalidScenarioError(f"workers must be 1 or more, but is {n_workers}.")
    if n_workers > MOST_WORKERS:
        raise InvalidScenarioError(
            f"workers must be {MOST_WORKERS:,} at most, but is {n_workers:,}."
        )


def cores() -> int:
    """Return how many cores this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # taskset, containers and batch systems set it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_of(
    n_workers: int | None = None, cluster: str | None = None, resources: Iterable[str] = ()
) -> Processes | Cluster:
    """Return the workers that a command line asks for.

    Parameters
    ----------
    n_workers : int, optional
        Processes on this machine; without it one for each core.
    cluster : str, optional
        Address of a Dask scheduler, or ``local:4``.
    resources : iterable of str
        What a worker of the cluster must have, such as ``"GPU=1"``.

    Raises
    ------
    InvalidScenarioError
        If something is not written as it should be, or does not go together.
    """
    amounts = dict(map(_resource, resources))
    if cluster is None:
        if amounts:
            raise InvalidScenarioError("--resource goes with --cluster only.")
        return Processes(cores() if n_workers is None else n_workers)
    if n_workers is not None:
        raise InvalidScenarioError("--workers does not go with --cluster, which has its own.")
    return Cluster(cluster, amounts)


def _resource(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        found = name.strip(), float(amount)
    except ValueError:
        found = "", 0.0
    if not (found[0] and 0 < found[1] < math.inf):
        raise InvalidScenarioError(
            f"--resource {shown(text)}: must be a name and a positive number, such as GPU=1."
        )
    return found


def work_off[T, R](
    tasks: Iterable[T],
    work: Callable[[Sequence[T]], list[R]],
    workers: Workers,
    *,
    missing: Callable[[Sequence[T]], list[T]],
    on_results: Callable[[list[R]], None],
    on_killer: Callable[[T], None],
) -> None:
    """Carry out tasks, whatever happens to the workers.

    Parameters
    ----------
    tasks : iterable
        What is to be done, best in order.
    work : callable
        Carries out as many of the tasks that it gets as it sees fit, one at least, from the first
        on, and returns their results. Runs on the workers; must keep what is done in a place of
        its own, and skip what it finds there.
    workers : Workers
        Where.
    missing : callable
        Returns those of the given tasks that have not been kept.
    on_results : callable
        Called here with what ``work`` returns.
    on_killer : callable
        Called here with a task that has taken three workers with it, and is given up.

    Notes
    -----
    When a worker dies, the first missing task of every chunk that was out is suspected. Suspects
    are carried out one by one while nothing else runs, so that the next death has a culprit.
    """
    waiting, suspects = deque(tasks), deque[T]()
    deaths: Counter[int] = Counter()  # by the id of a task, which need not have a hash
    while waiting or suspects:
        lost: list[_Lost[T]] | None = None
        with workers.open() as place:
            while lost is None and (waiting or suspects):
                if suspects:
                    alone = Open(place.executor, lambda: 1)
                    lost = _drain(alone, suspects, work, on_results, largest=1)
                else:
                    lost = _drain(place, waiting, work, on_results)
        for chunk in lost or ():
            rest = missing(chunk.tasks)
            if rest and chunk.deaths:
                first = rest.pop(0)
                deaths[id(first)] += chunk.deaths
                if deaths[id(first)] >= MOST_DEATHS:
                    on_killer(first)
                else:
                    suspects.append(first)
            waiting.extendleft(reversed(rest))


@dataclass(frozen=True)
class _Lost[T]:
    """Tasks that were out when a worker died."""

    tasks: list[T]
    deaths: int
    """How many workers have died on them, as far as one knows."""


def _drain[T, R](
    place: Open,
    queue: deque[T],
    work: Callable[[Sequence[T]], list[R]],
    on_results: Callable[[list[R]], None],
    largest: int = _LARGEST_CHUNK,
) -> list[_Lost[T]] | None:
    """Hand a queue out in chunks until it is empty (None), or a worker has died (what it had)."""
    out: dict[Future[list[R]], list[T]] = {}
    while queue or out:
        n_out = place.n_chunks()
        while queue and len(out) < n_out:
            size = max(1, min(largest, len(queue) // (2 * n_out)))  # smaller towards the end
            chunk = [queue.popleft() for _ in range(size)]
            try:
                out[place.executor.submit(work, chunk)] = chunk
            except BrokenExecutor:
                queue.extendleft(reversed(chunk))
                return [_Lost(tasks, 1) for tasks in out.values()]
            except OSError as error:
                if isinstance(place.executor, ProcessPoolExecutor):  # starts them when it has work
                    raise _too_many(error) from None
                raise RunFailedError(f"the workers take no more work: {error}.") from error
        for future in wait(out, return_when=FIRST_COMPLETED).done:
            try:
                results = future.result()
            except (BrokenExecutor, CancelledError) as error:  # then all others are lost too
                deaths = int(isinstance(error, BrokenExecutor))
                return [_Lost(tasks, deaths) for tasks in out.values()]
            except Exception as error:
                if type(error).__name__ != "KilledWorker":  # Dask's, which need not be installed
                    raise
                # Dask has tried these tasks on several workers before it gave up
                killer = out.pop(future)
                deaths = MOST_DEATHS if len(killer) == 1 else 1
                return [_Lost(killer, deaths), *(_Lost(tasks, 0) for tasks in out.values())]
            chunk = out.pop(future)
            on_results(results)
            queue.extendleft(reversed(chunk[len(results) :]))
    return None
