"""Carrying tasks out on workers, whatever happens to the workers.

A worker may be killed at any time. The queue then goes on with new workers, and finds out which
task is to blame.
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
    too_many_processes,
)

_LARGEST_CHUNK = 512  # tasks that are handed out together
_OBSERVATION_SECONDS = 1.0  # between two looks at the workers


def carry_out_tasks[T, R](
    tasks: Iterable[T],
    function: Callable[[Sequence[T]], list[R]],
    workers: Workers,
    *,
    missing: Callable[[Sequence[T]], list[T]],
    on_results: Callable[[list[R]], None],
    on_killer: Callable[[T, str], None],
    on_death: Callable[[str], None] = lambda _: None,
) -> None:
    """Carry out tasks, whatever happens to the workers.

    Parameters
    ----------
    tasks : iterable
        What is to be done, best in order.
    function : callable
        Carries out as many of the tasks that it gets as it sees fit, one at least, from the first
        on, and returns their results. Runs on the workers; must keep what is done in a place of
        its own, at the latest when it returns, and skip what it finds there.
    workers : Workers
        Where.
    missing : callable
        Returns those of the given tasks that have not been kept.
    on_results : callable
        Called here with what ``function`` returns.
    on_killer : callable
        Called here with a task that has taken three workers with it, and is given up; and with
        which worker was the last, and what it used, as far as that is known.
    on_death : callable, optional
        Called here with the same of each death that is known.

    Raises
    ------
    RunFailedError
        If the workers cannot be had, or are lost for good.

    Notes
    -----
    When a worker dies, a pool does not say which chunk it had, and nobody knows which task of it.
    So the missing tasks of every chunk that was out are handed out again by themselves. Those that
    are out when a worker dies then are suspects: they are carried out one by one while nothing
    else runs, so that the next death has a culprit.
    """
    waiting, single, suspects = deque(tasks), deque[T](), deque[T]()
    opened = False
    deaths: Counter[int] = Counter()  # by the id of a task, which need not have a hash
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
    """Tasks that were out when a worker died."""

    tasks: list[T]
    deaths: int
    """How many workers may have died of them."""
    about: str = ""
    """Which worker has died, and what it used."""


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
    """Hand out a queue until it is empty (None) or a worker has died (the chunks that were out)."""
    out: dict[Future[list[R]], list[T]] = {}
    while queue or out:
        if not _submit_chunks(place, queue, function, out, max_chunk):
            return [_LostChunk(tasks, 1) for tasks in out.values()]
        done = wait(out, _OBSERVATION_SECONDS, return_when=FIRST_COMPLETED).done
        place.observe()
        for future in done:
            try:
                results = future.result()
            except (BrokenExecutor, CancelledError) as error:  # then all others are lost too
                deaths = int(isinstance(error, BrokenExecutor))
                about = place.describe_death(error) if deaths else ""
                return [_LostChunk(tasks, deaths, about) for tasks in out.values()]
            except Exception as error:
                if type(error).__name__ != "KilledWorker":  # Dask's, which need not be installed
                    raise
                # Dask has tried these tasks on several workers before it gave up
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
    """Move chunks from the queue to the workers, as many as they take; False if those are dead."""
    n_chunks = place.n_chunks()
    while queue and len(out) < n_chunks:
        size = max(1, min(max_chunk, len(queue) // (2 * n_chunks)))  # smaller towards the end
        chunk = [queue.popleft() for _ in range(size)]
        try:
            out[place.executor.submit(function, chunk)] = chunk
        except (BrokenExecutor, OSError, EOFError) as error:
            is_pool = isinstance(place.executor, ProcessPoolExecutor)  # which starts them for work
            if isinstance(error, BrokenExecutor) or (is_pool and isinstance(error, LOST_PROCESS)):
                queue.extendleft(reversed(chunk))
                return False
            if is_pool and isinstance(error, OSError):
                raise too_many_processes(error) from None
            raise RunFailedError(f"the workers take no more work: {error}.") from error
    return True
