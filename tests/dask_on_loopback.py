"""A Dask cluster of processes on this machine, for tests."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import NamedTuple


class Started(NamedTuple):
    """A cluster that has started."""

    address: str
    scheduler: subprocess.Popen
    workers: list[subprocess.Popen]


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)
    return found


@contextmanager
def start_cluster(folder, n_workers=3, *options):
    """Start a scheduler and workers without nannies, and kill them at the end."""
    contact = folder / "scheduler.json"
    shared = ["--scheduler-file", str(contact), "--no-dashboard"]
    worker = ["worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(folder), *options]
    with ExitStack() as stack:

        def dask(*args):
            log = stack.enter_context((folder / "dask.log").open("a"))
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *args, *shared], stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", "0")
        workers = [dask(*worker) for _ in range(n_workers)]
        wait_for(contact.exists)
        found = wait_for(lambda: contact.read_text() and json.loads(contact.read_text()))
        yield Started(found["address"], scheduler, workers)
