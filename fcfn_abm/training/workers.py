"""Threads that share work, with results that do not depend on how many there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event


def map_in_order[Item, Tool, Result](
    work: Callable[[Item, Tool], Result], items: Iterable[Item], tools: Sequence[Tool]
) -> Iterator[Result]:
    """Yield the result of each item, in the order of items; as many work at once as have tools.

    Parameters
    ----------
    work : callable
        Takes an item and a tool, and keeps nothing of the tool.
    items : iterable
        What there is to do.
    tools : sequence
        What no two may use at once. With one, all happens in the caller's thread.

    Yields
    ------
    object
        What ``work`` returns. At most twice as many results as tools wait to be taken. Who takes
        no more, or is interrupted, waits for what is being worked on and for nothing else.

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
            if len(pending) > 2 * len(tools):  # what waits takes memory
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)  # after an interrupt nobody waits for what is left


def run_side_by_side[Result](
    tasks: Sequence[Callable[[Callable[[], bool]], Result]],
) -> Generator[Result]:
    """Run tasks at the same time, each in a thread of its own, and yield their results in order.

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
    threads = ThreadPoolExecutor(max(len(tasks), 1))
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
    """Let torch use one thread: small nets are faster so, and sums do not depend on the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
