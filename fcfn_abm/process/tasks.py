"""Running tasks on workers that may die.

A worker may be killed at any time. The queue then continues with new workers, and determines which
task is at fault.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from concurrent.futures.process import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

from fcfn_abm.errors import RunFailedError, WorkersLostError
from fcfn_abm.process.workers import (
    LOST_PROCESS,
    MAX_DEATHS,
    OpenWorkers,
    Workers,
    describe_start_failure,
)

_LARGEST_CHUNK = 512  # largest number of tasks per chunk
_OBSERVATION_SECONDS = 1.0  # interval between observations of the workers


def run_tasks[T, R](
    tasks: Iterable[T],
    function: Callable[[Sequence[T]], list[R]],
    workers: Workers,
    *,
    missing: Callable[[Sequence[T]], list[T]],
    on_results: Callable[[list[R]], None],
    on_killer: Callable[[T, str], None],
    on_death: Callable[[str], None] = lambda _: None,
) -> None:
    """Run tasks, and survive the death of workers.

    Parameters
    ----------
    tasks : iterable
        The tasks, best in order.
    function : callable
        Runs at least the first of the tasks that it gets, and as many more as it chooses, and
        returns their results. Runs on the workers; must store results before it returns, and skip
        tasks that are stored already.
    workers : Workers
        The workers.
    missing : callable
        Returns those of the given tasks whose results are not stored.
    on_results : callable
        Called in this process with each return value of ``function``.
    on_killer : callable
        Called in this process with a task that was given up because it killed three workers, and a
        description of the last worker and its memory use, if known.
    on_death : callable, optional
        Called in this process with the same description of each death.

    Raises
    ------
    RunFailedError
        If the workers are not available, or lost permanently.

    Notes
    -----
    When a worker dies, a pool does not report its chunk or task. The missing tasks of every chunk
    in progress are therefore submitted again, separately. Tasks that are in progress at another
    death become suspects: they run one by one while nothing else runs, so that the next death
    identifies the task at fault.
    """
    waiting, single, suspects = deque(tasks), deque[T](), deque[T]()
    opened = False
    deaths: Counter[int] = Counter()  # by the id of a task, which need not be hashable
    while waiting or single or suspects:
        lost: list[_LostChunk[T]] | None = None
        with ExitStack() as stack:
            place = _open(workers, stack, again=opened)
            opened = True
            while lost is None and (waiting or single or suspects):
                if suspects:
                    one_worker = replace(place, n_chunks=lambda: 1)
                    lost = _hand_out(one_worker, suspects, function, on_results, max_chunk=1)
                elif single:
                    lost = _hand_out(place, single, function, on_results, max_chunk=1)
                else:
                    lost = _hand_out(place, waiting, function, on_results)
        for about in {chunk.about for chunk in lost or () if chunk.about}:
            on_death(about)
        for chunk in lost or ():
            rest = missing(chunk.tasks)
            if not chunk.deaths:
                waiting.extendleft(reversed(rest))
            elif len(chunk.tasks) > 1:
                single.extend(rest)
            elif rest:
                deaths[id(rest[0])] += chunk.deaths
                if deaths[id(rest[0])] >= MAX_DEATHS:
                    on_killer(rest[0], chunk.about)
                else:
                    suspects.append(rest[0])


@dataclass(frozen=True)
class _LostChunk[T]:
    """Tasks that were in progress when a worker died."""

    tasks: list[T]
    deaths: int
    """Number of workers that may have died of them."""
    about: str = ""
    """Description of the worker that died, and its memory use."""


def _open(workers: Workers, stack: ExitStack, *, again: bool) -> OpenWorkers:
    """Open the workers until the stack closes."""
    try:
        return stack.enter_context(workers.open())
    except RunFailedError as error:
        raise (WorkersLostError(f"the workers were lost: {error}") if again else error) from None


def _hand_out[T, R](
    place: OpenWorkers,
    queue: deque[T],
    function: Callable[[Sequence[T]], list[R]],
    on_results: Callable[[list[R]], None],
    max_chunk: int = _LARGEST_CHUNK,
) -> list[_LostChunk[T]] | None:
    """Submit a queue until it is empty (None) or a worker has died (its chunks in progress)."""
    out: dict[Future[list[R]], list[T]] = {}
    while queue or out:
        if not _submit_chunks(place, queue, function, out, max_chunk):
            return [_LostChunk(tasks, 1) for tasks in out.values()]
        done = wait(out, _OBSERVATION_SECONDS, return_when=FIRST_COMPLETED).done
        place.observe()
        for future in done:
            try:
                results = future.result()
            except (BrokenExecutor, CancelledError) as error:  # all other chunks are lost as well
                deaths = int(isinstance(error, BrokenExecutor))
                about = place.describe_death(error) if deaths else ""
                return [_LostChunk(tasks, deaths, about) for tasks in out.values()]
            except Exception as error:
                if (
                    type(error).__name__ != "KilledWorker"
                ):  # Dask's error; Dask need not be installed
                    raise
                # Dask has already tried these tasks on several workers
                killer = out.pop(future)
                deaths = MAX_DEATHS if len(killer) == 1 else 1
                others = [_LostChunk(tasks, 0) for tasks in out.values()]
                return [_LostChunk(killer, deaths, place.describe_death(error)), *others]
            chunk = out.pop(future)
            on_results(results)
            queue.extendleft(reversed(chunk[len(results) :]))
    return None


def _submit_chunks[T, R](
    place: OpenWorkers,
    queue: deque[T],
    function: Callable[[Sequence[T]], list[R]],
    out: dict[Future[list[R]], list[T]],
    max_chunk: int,
) -> bool:
    """Move chunks from the queue to the workers until they are busy; return False if they died."""
    n_chunks = place.n_chunks()
    while queue and len(out) < n_chunks:
        size = max(1, min(max_chunk, len(queue) // (2 * n_chunks)))  # smaller towards the end
        chunk = [queue.popleft() for _ in range(size)]
        try:
            out[place.executor.submit(function, chunk)] = chunk
        except (BrokenExecutor, OSError, EOFError) as error:
            is_pool = isinstance(
                place.executor, ProcessPoolExecutor
            )  # which starts its processes on demand
            if isinstance(error, BrokenExecutor) or (is_pool and isinstance(error, LOST_PROCESS)):
                queue.extendleft(reversed(chunk))
                return False
            if is_pool and isinstance(error, OSError):
                raise describe_start_failure(error) from None
            raise RunFailedError(f"the workers accept no more tasks: {error}.") from error
    return True
