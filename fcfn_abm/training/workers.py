"""Threads that share work, with results independent of their number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event

_SIDE_BY_SIDE = 4  # two fill the pauses between rounds; the results of each wait in memory


def map_in_order[Item, Tool, Result](
    work: Callable[[Item, Tool], Result], items: Iterable[Item], tools: Sequence[Tool]
) -> Iterator[Result]:
    """Yield the results of items in order, computed by one thread per tool.

    Parameters
    ----------
    work : callable
        Function of an item and a tool; keeps no reference to the tool.
    items : iterable
        Items to process.
    tools : sequence
        Resources for exclusive use. With one tool, the caller's thread does all work.

    Yields
    ------
    object
        Return value of ``work``. At most twice as many results as tools are buffered. A caller that
        stops, or is interrupted, waits only for the items in progress.

    Examples
    --------
    >>> list(map_in_order(lambda item, tool: item**2, range(5), tools="ab"))
    [0, 1, 4, 9, 16]
    """
    if len(tools) == 1:
        for item in items:
            yield work(item, tools[0])
        return
    idle: SimpleQueue[Tool] = SimpleQueue()
    for tool in tools:
        idle.put(tool)

    def task(item: Item) -> Result:
        tool = idle.get()
        try:
            return work(item, tool)
        finally:
            idle.put(tool)

    pending: deque[Future[Result]] = deque()
    threads = ThreadPoolExecutor(len(tools))
    try:
        for item in items:
            pending.append(threads.submit(task, item))
            if len(pending) > 2 * len(tools):  # limit the memory of waiting results
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)  # after an interrupt remaining items are dropped


def run_side_by_side[Result](
    tasks: Sequence[Callable[[Callable[[], bool]], Result]],
) -> Generator[Result]:
    """Run up to four tasks at the same time, each in its own thread; yield results in order.

    Parameters
    ----------
    tasks : sequence of callable
        Each takes a function that returns whether it should stop early: another task has failed,
        the caller takes no more results, or was interrupted.

    Yields
    ------
    object
        What each task returns.

    Examples
    --------
    >>> list(run_side_by_side([lambda stops: 1, lambda stops: 2]))
    [1, 2]
    """
    stop = Event()
    threads = ThreadPoolExecutor(_SIDE_BY_SIDE)
    try:
        with use_one_thread():  # which threads that begin now inherit
            futures = [threads.submit(task, stop.is_set) for task in tasks]
            for future in futures:
                yield future.result()
    finally:
        stop.set()
        threads.shutdown(cancel_futures=True)


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Run torch on one thread: small nets are faster, and sums do not depend on the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
