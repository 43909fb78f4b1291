"""Workers, and work that goes on when they die; light to import, as each worker does it."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest

from fcfn_abm.errors import InvalidScenarioError, RunFailedError
from fcfn_abm.process.options import select_workers
from fcfn_abm.process.tasks import run_tasks
from fcfn_abm.process.workers import (
    ExternalExecutor,
    Processes,
    Serial,
    _set_up_worker,
    count_cores,
)

pytestmark = pytest.mark.slow


KILLED = r"process \d+, killed by the system or a user \(signal 9\) after it had used \d.* [MG]B"


def do(tasks, folder):
    """Do tasks on a worker: write a file for each; a task above 100 kills its worker instead."""
    for task in tasks:
        with (folder / f"{task}.tries").open("a") as tries:
            tries.write("x")
        if task > 100:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)
        (folder / str(task)).touch()
    return list(tasks)


class Doing:
    """``do`` with its folder, as workers get it."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, tasks):
        return do(tasks, self.folder)

    def missing(self, tasks):
        return [task for task in tasks if not (self.folder / str(task)).exists()]


def test_a_task_that_kills_its_workers_is_given_up_and_no_other_is(tmp_path):
    work, given_up, deaths = Doing(tmp_path), [], []
    tasks = [*range(8), 101, *range(8, 16)]
    run_tasks(
        tasks,
        work,
        Processes(2),
        missing=work.missing,
        on_results=list,
        on_killer=lambda task, last: given_up.append((task, last)),
        on_death=deaths.append,
    )
    [(task, last)] = given_up
    assert task == 101
    if sys.platform == "linux":
        assert re.fullmatch(KILLED, last), last
        assert len(deaths) == 4
    assert (tmp_path / "101.tries").read_text() == "xxxx"  # once among others, and then alone
    assert work.missing(tasks) == [101]


def setting(name):
    return os.environ.get(name), os.environ["OMP_NUM_THREADS"]


def test_workers_have_one_thread_and_the_environment_of_now(monkeypatch):
    for value in (None, "a", "b"):
        if value:
            monkeypatch.setenv("FCFN_TEST_SETTING", value)
        with Processes(1).open() as place:
            found = place.executor.submit(setting, "FCFN_TEST_SETTING").result()
        assert found == (value, "1")


def test_workers_take_as_many_tasks_as_they_see_fit():
    taken = []

    def one_at_a_time(tasks):
        return [tasks[0]]

    run_tasks(
        range(20),
        one_at_a_time,
        Serial(),
        missing=lambda tasks: list(tasks),
        on_results=taken.extend,
        on_killer=pytest.fail,
    )
    assert taken == list(range(20))


def test_a_broken_executor_of_the_caller_s_is_not_replaced(tmp_path):
    work = Doing(tmp_path)
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as executor,
        pytest.raises(
            RunFailedError, match="the executor is broken; call again with a new executor"
        ),
    ):
        run_tasks(
            [1, 101, 2],
            work,
            ExternalExecutor(executor),
            missing=work.missing,
            on_results=list,
            on_killer=pytest.fail,
        )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((0, None, ()), "workers must be a whole number from 1"),
        ((None, "local:x", ()), "must look like local:4"),
        ((None, "10.0.0.1", ()), "must look like local:4, or tcp://10.0.0.1:8786"),
        ((2, "local:2", ()), "--workers cannot be used with --cluster"),
        ((None, None, ["GPU=1"]), "--resource requires --cluster"),
        ((None, None, (), 5.0), "--cluster-timeout requires --cluster"),
        ((4097, None, ()), "workers must be a whole number from 1 to 4,096, but is 4,097"),
        ((None, "local:0", ()), "must look like local:4"),
        ((None, "local:4097", ()), "workers must be at most 4,096"),
        ((None, f"local:{'9' * 5000}", ()), "workers must be at most 4,096"),
        ((None, "tcp://10.0.0.1:65536", ()), "port must be at most 65,535"),
        ((None, "ssl://10.0.0.1:8786", ()), "must look like local:4, or tcp"),
        *(
            ((None, "local:2", [text]), "must be a name and a positive number, such as GPU=1")
            for text in ("GPU", "GPU=-1", "GPU=0", "GPU=nan", "GPU=inf", "=1", "")
        ),
    ],
)
def test_workers_that_cannot_be_are_refused(asked, words):
    with pytest.raises(InvalidScenarioError, match=words):
        select_workers(*asked)


def test_workers_start_where_the_folder_for_temporary_files_has_a_long_name(tmp_path):
    folder = tmp_path / ("a" * 150)
    folder.mkdir()
    code = (
        "from fcfn_abm.process.workers import Processes\n"
        "if __name__ == '__main__':\n"
        "    with Processes(1).open() as place:\n"
        "        print(place.executor.submit(abs, -3).result())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.stdout, found.stderr) == ("3\n", "")
    assert not list(folder.iterdir())


def test_processes_that_cannot_be_started_are_reported(monkeypatch):
    def full(*_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(ProcessPoolExecutor, "submit", full)
    message = "a worker process cannot be started: Resource temporarily unavailable; use fewer"
    with pytest.raises(RunFailedError, match=message), Processes(4).open():
        pass
    monkeypatch.setattr("fcfn_abm.process.workers._wait_until_ready", lambda *_: True)
    with pytest.raises(RunFailedError, match=message):
        run_tasks([1], list, Processes(4), missing=list, on_results=list, on_killer=list)


def set_up_or_die(environment):
    """Set a worker up; it is killed instead while there are files in a folder, each for one."""
    for death in Path(environment["FCFN_TEST_DEATHS"]).iterdir():
        with suppress(FileNotFoundError):  # another has taken it
            death.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    _set_up_worker(environment)


@pytest.fixture
def deaths(tmp_path, monkeypatch):
    """A folder: for each file in it, a worker is killed as it starts."""
    folder = tmp_path / "deaths"
    folder.mkdir()
    monkeypatch.setenv("FCFN_TEST_DEATHS", str(folder))
    monkeypatch.setattr("fcfn_abm.process.workers._set_up_worker", set_up_or_die)
    return folder


def test_workers_that_are_killed_as_they_start_are_replaced(deaths):
    for number in range(2):
        (deaths / str(number)).touch()
    with Processes(1).open() as place:
        assert place.executor.submit(abs, -3).result() == 3
    assert not list(deaths.iterdir())


def test_workers_that_never_start_are_given_up_after_three_deaths(deaths):
    for number in range(5):
        (deaths / str(number)).touch()
    message = "the worker processes do not start: they were killed"
    with pytest.raises(RunFailedError, match=message), Processes(1).open():
        pass
    assert len(list(deaths.iterdir())) == 2


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), EOFError("unexpected EOF")])
@pytest.mark.parametrize("n_before", [0, 1, 2, 3])
def test_a_process_that_is_lost_as_the_pool_starts_it_is_replaced(
    error, n_before, tmp_path, monkeypatch
):
    submit, calls = ProcessPoolExecutor.submit, []

    def submit_or_fail(pool, *args):
        calls.append(args)
        if len(calls) == n_before + 1:
            raise error
        return submit(pool, *args)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit_or_fail)
    work = Doing(tmp_path)
    run_tasks(
        range(6),
        work,
        Processes(2),
        missing=work.missing,
        on_results=list,
        on_killer=pytest.fail,
    )
    assert len(calls) > n_before + 2
    assert work.missing(range(6)) == []


def test_without_a_number_there_is_a_worker_for_each_core():
    assert select_workers() == Processes(count_cores())
    assert select_workers(cluster="local:2", resources=["GPU=1"]).resources == {"GPU": 1.0}
