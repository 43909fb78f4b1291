import threading
import time
from contextlib import closing
from functools import partial

import pytest

from fcfn_abm.training.workers import map_in_order, run_side_by_side


@pytest.mark.parametrize("n_tools", [1, 2, 5])
def test_results_come_in_the_order_of_items_and_no_tool_is_used_twice_at_once(n_tools):
    in_use, lock, most = set(), threading.Lock(), [0]

    def work(item, tool):
        with lock:
            assert tool not in in_use
            in_use.add(tool)
            most[0] = max(most[0], len(in_use))
        time.sleep(0.001 * (item * 7 % 5))  # later items are often done before
        with lock:
            in_use.remove(tool)
        return item

    assert list(map_in_order(work, range(40), range(n_tools))) == list(range(40))
    assert most[0] == n_tools


def test_only_a_few_results_wait_for_one_that_is_late():
    started, first = [], threading.Event()

    def work(item, _):
        started.append(item)
        if item == 0:
            first.wait(0.2)
        return item

    results = map_in_order(work, range(100), "ab")
    assert next(results) == 0
    assert len(started) <= 5
    assert list(results) == list(range(1, 100))


def test_what_goes_wrong_in_a_worker_reaches_the_caller():
    def work(item, _):
        if item == 3:
            raise ValueError("three")
        return item

    for tools in ("a", "abc"):
        results = map_in_order(work, range(9), tools)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="three"):
            next(results)


def test_who_takes_no_more_waits_only_for_what_is_being_worked_on():
    started, go_on = [], threading.Event()

    def work(item, _):
        started.append(item)
        if item:
            go_on.wait(10)
        return item

    results = map_in_order(work, range(100), "ab")
    assert next(results) == 0
    threading.Timer(0.1, go_on.set).start()
    results.close()
    assert go_on.is_set()
    assert sorted(started) in ([0, 1], [0, 1, 2])  # and not 3 and 4, which were waiting


def test_tasks_side_by_side_run_at_the_same_time_and_return_in_order():
    barrier = threading.Barrier(3)

    def task(number, stops):
        barrier.wait(timeout=60)  # which breaks unless all three are there
        return number, stops()

    tasks = [partial(task, number) for number in range(3)]
    assert list(run_side_by_side(tasks)) == [(0, False), (1, False), (2, False)]


def test_tasks_stop_when_an_earlier_one_fails():
    began = threading.Event()

    def fail(_):
        began.wait(timeout=60)
        raise ValueError("broken")

    def wait(stops):
        began.set()
        while not stops():
            time.sleep(0.01)

    with pytest.raises(ValueError, match="broken"):
        list(run_side_by_side([fail, wait]))


def test_tasks_stop_when_nobody_takes_more_results():
    began, stopped = threading.Event(), threading.Event()

    def wait(stops):
        began.set()
        while not stops():
            time.sleep(0.01)
        stopped.set()

    with closing(run_side_by_side([lambda _: began.wait(timeout=60), wait])) as results:
        assert next(results)
    assert stopped.is_set()
