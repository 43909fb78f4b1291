"""The same sweep on a Dask cluster: a scheduler and workers on this machine, one of them killed."""

import gc
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from dask_on_loopback import start_cluster, wait_for

import fcfn_abm as fa
from fcfn_abm.errors import RunFailedError
from fcfn_abm.process import cluster as cluster_module
from fcfn_abm.process.cluster import Cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collect_sockets():
    """Collect the sockets that Dask leaves open here, and not in a later test."""
    yield
    gc.collect()


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
    """A scheduler and three workers."""
    with start_cluster(tmp_path) as started:
        yield started


def sweep(file, out, *args):
    return subprocess.Popen(
        [sys.executable, "-m", "fcfn_abm", "sweep", str(file), "--out", str(out), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_worker_killed_in_mid_sweep_loses_nothing(file, serial, cluster, tmp_path):
    address, _, workers = cluster
    out = tmp_path / "out"
    with sweep(file, out, "--cluster", address) as process:
        wait_for(lambda: len(results(out)) > 3)
        workers[0].kill()
        assert len(results(out)) < N_RUNS
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "80 runs: 80 done." in stdout
    assert workers[0].wait() == -9
    assert contents(out) == contents(serial.path)


def test_a_cluster_can_be_started_here_with_a_resource_for_each_run(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text('[rounds]\nmaximum = 3\n[sweep.axes]\n"game.alpha" = [1.0, 2.0]')
    with sweep(path, tmp_path / "out", "--cluster", "local:1", "--resource", "GPU=1") as process:
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    alone = fa.run_sweep(fa.load_scenario(path), tmp_path / "alone")
    assert contents(tmp_path / "out") == contents(alone.path)


def listen_without_a_word(stack):
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return listener.getsockname()[1]


def serve_http(stack):
    server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Silent))
    threading.Thread(target=server.serve_forever).start()
    stack.callback(server.shutdown)
    return server.server_port


class Silent(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("scheme", ["tcp://", "ws://", ""])
@pytest.mark.parametrize("somebody", [listen_without_a_word, serve_http])
def test_a_port_where_somebody_else_listens_is_given_up_in_time(somebody, scheme, capfd):
    with ExitStack() as stack:
        address = f"{scheme}127.0.0.1:{somebody(stack)}"
        cluster, started = Cluster(address, timeout=0.5), time.monotonic()
        with pytest.raises(RunFailedError, match=rf"^--cluster {address}: no scheduler answers"):
            cluster.open().__enter__()
    assert time.monotonic() - started < 60
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:9", "no scheduler answers: Connection refused."),
        ("tcp://no-such-host.invalid:8786", "no scheduler answers: .*[Nn]ame"),
    ],
)
def test_a_scheduler_that_is_not_there_is_reported_with_the_cause(address, words):
    cluster = Cluster(address, timeout=5.0)
    with pytest.raises(RunFailedError, match=rf"^--cluster {address}: {words}"):
        cluster.open().__enter__()


def test_the_cause_is_reported_also_if_dasks_last_attempt_ran_out_of_time(monkeypatch):
    async def run_out_of_time(*_, **__):
        raise OSError("Timed out trying to connect") from TimeoutError()

    monkeypatch.setattr("distributed.core.connect", run_out_of_time)
    with pytest.raises(RunFailedError, match=r"no scheduler answers: Connection refused\.$"):
        Cluster("tcp://127.0.0.1:9", timeout=5.0).open().__enter__()


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(fa.FcfnError, match="must be above 0, and at most 86,400 seconds"):
        Cluster("tcp://127.0.0.1:9", timeout=timeout)


@pytest.mark.parametrize(
    ("member", "name", "version", "words"),
    [
        ("scheduler", "dask", "1.0", "the scheduler has dask 1.0, but this process has dask 20"),
        ("scheduler", "torch", None, None),  # it does not compute
        (
            "worker",
            "numpy",
            "1.0",
            "the worker tcp://w:1 has numpy 1.0, but this process has numpy 2",
        ),
        (
            "worker",
            "fcfn-abm",
            None,
            "the worker tcp://w:1 has no fcfn-abm, but this process has fcfn-abm",
        ),
    ],
)
def test_a_cluster_with_other_versions_is_refused(member, name, version, words):
    dask = pytest.importorskip("distributed")
    same = dask.versions.get_versions(cluster_module._OF_WORKERS)
    other = {"packages": {**same["packages"], name: version}}
    scheduler, worker = (other, same) if member == "scheduler" else (same, other)
    refused = pytest.raises(RunFailedError, match=words) if words else nullcontext()
    with refused:
        Cluster("tcp://s:1")._require_equal_versions(dask, scheduler, {"tcp://w:1": worker})


def test_a_scheduler_lost_in_mid_sweep_ends_it_in_one_sentence_and_it_can_be_resumed(
    file, serial, cluster, tmp_path
):
    address, scheduler, _ = cluster
    out = tmp_path / "out"
    with sweep(file, out, "--cluster", address, "--cluster-timeout", "2", "-q") as process:
        wait_for(lambda: len(results(out)) > 2)
        scheduler.kill()
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert stdout == ""
    assert stderr.startswith(f"fcfn: the workers were lost: --cluster {address}: no scheduler")
    assert stderr.endswith(f"Finished runs are kept in {out}. Run the same command to resume.\n")
    assert stderr.count("\n") == 1
    assert 2 < len(results(out)) < N_RUNS
    assert contents(fa.run_sweep(fa.load_scenario(file), out).path) == contents(serial.path)


def test_a_resource_that_no_worker_has_ends_a_computation_in_time(tmp_path):
    with (
        start_cluster(tmp_path, 1, "--resources", "GPU=1") as started,
        Cluster(started.address, {"GPU": 2.0}, timeout=3.0).connect() as workers,
        pytest.raises(RunFailedError, match="it has had no workers with GPU=2 for 3 s"),
    ):
        list(workers.compute(abs, [(-1,)]))


def test_a_resource_that_a_worker_has_is_used(tmp_path):
    with (
        start_cluster(tmp_path, 1, "--resources", "GPU=1") as started,
        Cluster(started.address, {"GPU": 1.0}).connect() as workers,
    ):
        assert list(workers.compute(pow, [(workers.place(3), 2), (2, workers.place(3))])) == [9, 8]


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


def test_several_clusters_on_one_machine_take_ports_that_are_free(recwarn):
    pytest.importorskip("distributed")
    with socket.socket() as taken:
        with suppress(OSError):  # somebody else has it, which is as good
            taken.bind(("", 8787))  # Dask's own choice for its pages
            taken.listen()
        with Cluster("local:1").open():
            pass
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]
