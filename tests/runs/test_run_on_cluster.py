"""Trainings on a Dask cluster: the bytes of one machine, whatever becomes of its workers."""

import gc
import signal

import pytest
import warm
from dask_on_loopback import start_cluster

import fcfn_abm as fa
from fcfn_abm.errors import WorkersLostError
from fcfn_abm.process.cluster import Cluster
from fcfn_abm.runs.training_workers import connect_cluster
from fcfn_abm.training.distributed import train_block

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collect_sockets():
    """Collect the sockets that Dask leaves open here, and not in a later test."""
    yield
    gc.collect()


pytest.importorskip("distributed")

TABLES = ("rounds", "nodes", "traces", "training", "ledger")
SHORT = ["training.rounds=4", "training.compare=['no-noise']", "training.checkpoint_every=1"]


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    with start_cluster(folder) as started:
        yield started


class Interfering:
    """Workers of a cluster, of which something becomes in the middle of a round."""

    def __init__(self, workers, *acts):
        self._workers, self._acts = workers, list(acts)
        self.place, self.count = workers.place, workers.count

    def compute(self, function, calls):
        found = self._workers.compute(function, calls)
        for number in range(len(calls)):
            if number == 1 and self._acts and function is train_block:
                self._acts.pop(0)()
            yield next(found)


def assert_same_tables(one, other, names):
    for name in names:
        assert (one / f"{name}.parquet").read_bytes() == (other / f"{name}.parquet").read_bytes()


def test_a_worker_killed_in_a_round_changes_no_byte_of_the_quick_start(cluster, tmp_path):
    scenario = fa.load_scenario("quickstart", SHORT)
    fa.run_scenario(scenario, tmp_path / "here", workers=2)
    with connect_cluster(Cluster(cluster.address)) as workers:
        kills = [worker.kill for worker in cluster.workers[:2]]
        interfering = Interfering(workers, lambda: None, *kills)
        record = fa.run_scenario(scenario, tmp_path / "there", workers=interfering)
    assert [worker.wait() for worker in cluster.workers[:2]] == [-signal.SIGKILL] * 2
    assert_same_tables(tmp_path / "here", tmp_path / "there", TABLES)
    about = record.run["training"]["cluster"]
    assert about["n_workers"] == [1, 3]
    assert about["n_blocks"] == 13


def test_a_worker_killed_in_a_round_changes_no_byte_of_a_calibration(cluster, tmp_path):
    scenario = fa.load_scenario("quickstart", ["training.rounds=2"])
    epsilons = [0.5, 2.0, 8.0]
    fa.calibrate_value(scenario, epsilons, 1, tmp_path / "here", workers=2)
    with connect_cluster(Cluster(cluster.address)) as workers:
        interfering = Interfering(workers, lambda: None, cluster.workers[0].kill)
        fa.calibrate_value(scenario, epsilons, 1, tmp_path / "there", workers=interfering)
    assert cluster.workers[0].wait() == -signal.SIGKILL
    assert_same_tables(tmp_path / "here", tmp_path / "there", ["calibration"])


def test_a_scheduler_lost_in_a_round_ends_the_run_and_it_can_be_resumed(cluster, tmp_path):
    scenario = fa.load_scenario("quickstart", SHORT)
    fa.run_scenario(scenario, tmp_path / "here", workers=2)
    with connect_cluster(Cluster(cluster.address, timeout=3.0)) as workers:
        interfering = Interfering(workers, lambda: None, cluster.scheduler.kill)
        with pytest.raises(
            WorkersLostError, match=r"scheduler was lost.* Run the same command to resume"
        ):
            fa.run_scenario(scenario, tmp_path / "there", workers=interfering)
    assert not (tmp_path / "there").exists()
    fa.run_scenario(scenario, tmp_path / "there", workers=1)
    assert_same_tables(tmp_path / "here", tmp_path / "there", TABLES)


def test_the_command_takes_a_cluster_with_a_resource(tmp_path):
    changes = [f"--set={change}" for change in (*SHORT, "training.rounds=1")]
    on_cluster = ["--cluster=local:1", "--resource=A=1"]
    for out, place in (("here", ["--workers=1"]), ("there", on_cluster)):
        options = [*changes, *place, "-q", f"--out={tmp_path / out}"]
        found = warm.run("fcfn", "run", "quickstart", *options)
        assert (found.returncode, found.stderr) == (0, "")
    assert_same_tables(tmp_path / "here", tmp_path / "there", TABLES)
