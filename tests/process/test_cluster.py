"""The same sweep on a Dask cluster: a scheduler and workers on this machine, one of them killed."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

import fcfn_abm as fa
from fcfn_abm.process.cluster import Cluster

pytestmark = pytest.mark.slow

SHORT = """
seed = 5

[game]
budget = 5.0

[server]
kind = "fixed"

[rounds]
maximum = 60

[sweep]
replications = 20

[sweep.axes]
"population.n_nodes" = [10, 40]
"mechanism.kind" = ["stackelberg", "static"]
"""
N_RUNS = 80


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and path.parent.name != "runs"
    }


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)
    return found


def results(folder):
    return list((folder / "runs").glob("[0-9]*.json"))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenario") / "short.toml"
    path.write_text(SHORT)
    return path


@pytest.fixture(scope="module")
def serial(file, tmp_path_factory):
    return fa.run_sweep(fa.load_scenario(file), tmp_path_factory.mktemp("serial") / "out")


@pytest.fixture
def cluster(tmp_path):
    """A scheduler's address, and the processes of three workers that run to their names."""
    contact = tmp_path / "scheduler.json"
    options = ["--scheduler-file", str(contact), "--no-dashboard"]
    worker = ["worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path)]
    with ExitStack() as stack:

        def dask(*args):
            log = stack.enter_context((tmp_path / "dask.log").open("a"))
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *args, *options], stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        dask("scheduler", "--host", "127.0.0.1", "--port", "0")
        workers = [dask(*worker) for _ in range(3)]
        wait_for(contact.exists)
        yield (
            wait_for(lambda: contact.read_text() and json.loads(contact.read_text()))["address"],
            workers,
        )


def sweep(file, out, *args):
    return subprocess.Popen(
        [sys.executable, "-m", "fcfn_abm", "sweep", str(file), "--out", str(out), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_worker_killed_in_mid_sweep_loses_nothing(file, serial, cluster, tmp_path):
    address, workers = cluster
    out = tmp_path / "out"
    with sweep(file, out, "--cluster", address) as process:
        wait_for(lambda: len(results(out)) > 3)
        workers[0].kill()
        assert len(results(out)) < N_RUNS
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "80 runs: 80 done." in stdout
    assert workers[0].wait() == -9
    assert contents(out) == contents(serial.path)


def test_a_cluster_can_be_started_here_with_a_resource_for_each_run(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text('[rounds]\nmaximum = 3\n[sweep.axes]\n"game.alpha" = [1.0, 2.0]')
    with sweep(path, tmp_path / "out", "--cluster", "local:1", "--resource", "GPU=1") as process:
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    alone = fa.run_sweep(fa.load_scenario(path), tmp_path / "alone")
    assert contents(tmp_path / "out") == contents(alone.path)


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("fcfn_abm.process.cluster._ANSWER_SECONDS", 0.2)
    with (
        pytest.raises(fa.FcfnError, match=r"--cluster tcp://127.0.0.1:9: no scheduler answers"),
        Cluster("tcp://127.0.0.1:9").open(),
    ):
        pass


def test_without_certificates_there_is_a_sentence():
    with (
        pytest.raises(fa.FcfnError, match=r"names no certificates \(distributed.comm.tls\)"),
        Cluster("tls://127.0.0.1:9").open(),
    ):
        pass


def test_without_dask_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(fa.FcfnError, match=r"pip install 'fcfn-abm\[cluster\]'"),
        Cluster("local:1").open(),
    ):
        pass
