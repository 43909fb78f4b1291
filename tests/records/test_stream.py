"""Traces of all nodes on disk: whole, in order, in bounded memory, and there after a crash."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm.errors import InvalidRecordError, OutputError
from fcfn_abm.records import TraceWriter, read_record, stream
from fcfn_abm.records.stream import read_parts
from fcfn_abm.runs.run import run_scenario
from fcfn_abm.scenario import RecordSettings, Rounds, Scenario

pytestmark = pytest.mark.slow

ALL = Scenario(seed=1, record=RecordSettings(traces="all"))


def values(n_nodes, round_index):
    """Return three columns in which every value tells its place."""
    base = np.arange(n_nodes) + 1000.0 * round_index
    return base, base + 0.25, base + 0.5


def write(folder, rounds, n_nodes=7, part_rows=10):
    with TraceWriter(folder, part_rows=part_rows) as writer:
        for index in range(1, rounds + 1):
            writer.add(index, *values(n_nodes, index))


@pytest.mark.parametrize("n_nodes", [1, 3, 10, 25])  # many rounds a part of ten rows, or just one
@pytest.mark.parametrize("rounds", [0, 1, 4, 10])
def test_the_parts_add_up_to_every_node_in_every_round_in_order(tmp_path, n_nodes, rounds):
    write(tmp_path / "traces", rounds, n_nodes)
    frame = read_parts(tmp_path / "traces")
    index = np.repeat(np.arange(1, rounds + 1), n_nodes)
    node = np.tile(np.arange(n_nodes), rounds)
    expected = {"round": index, "node": node, "epsilon": node + 1000.0 * index}
    expected["payment"] = expected["epsilon"] + 0.25
    expected["utility"] = expected["epsilon"] + 0.5
    pd.testing.assert_frame_equal(frame, pd.DataFrame(expected), check_dtype=False)
    sizes = [pq.read_metadata(p).num_rows for p in sorted((tmp_path / "traces").iterdir())]
    assert all(size == max(10 // n_nodes, 1) * n_nodes for size in sizes[:-1])
    assert 0 < len(sizes) <= max(rounds, 1)
    assert {str(kind) for kind in frame.dtypes} == {"int32", "float32"}


def test_a_streamed_record_holds_what_a_run_in_memory_does(tmp_path):
    written = run_scenario(ALL, tmp_path / "run")
    kept = run_scenario(ALL).traces
    assert kept["epsilon"].dtype == np.float64
    assert not (tmp_path / "run" / "traces.parquet").exists()
    for record in (written, read_record(tmp_path / "run")):
        traces = record.traces
        assert len(traces) == len(record.rounds) * len(record.nodes)
        pd.testing.assert_frame_equal(traces, kept.astype(traces.dtypes))
        assert record.traces is traces  # read once
    schema = pq.read_schema(tmp_path / "run" / "traces" / "part-00000.parquet")
    assert schema.field("payment").metadata[b"unit"] == b"currency"


def test_some_nodes_are_read_without_the_others(tmp_path):
    streamed = run_scenario(ALL, tmp_path / "run")
    for record in (streamed, run_scenario(ALL)):
        some = record.traces_of([3, 1])
        assert set(some["node"]) == {1, 3}
        assert len(some) == 2 * len(record.rounds)
    assert "traces" not in vars(streamed)


def test_equal_scenarios_give_equal_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(stream.TraceWriter.__init__, "__kwdefaults__", {"part_rows": 333})
    slow = stream.write_part

    def dawdle(table, path):
        time.sleep(0.005)
        slow(table, path)

    run_scenario(ALL, tmp_path / "one")
    monkeypatch.setattr(stream, "write_part", dawdle)
    run_scenario(ALL, tmp_path / "two")
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "traces").iterdir()}
        for name in ("one", "two")
    )
    assert len(one) > 5
    assert one == two


def test_a_record_with_parts_can_be_copied_but_not_with_parts_missing(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream.TraceWriter.__init__, "__kwdefaults__", {"part_rows": 333})
        run_scenario(ALL, tmp_path / "run").write(tmp_path / "copy")
    pd.testing.assert_frame_equal(
        read_record(tmp_path / "copy").traces, read_record(tmp_path / "run").traces
    )
    (tmp_path / "copy" / "traces" / "part-00001.parquet").unlink()
    with pytest.raises(InvalidRecordError, match=r"cannot be read: traces/ has \d+ of \d+ rows"):
        read_record(tmp_path / "copy")


def test_a_slow_disk_slows_the_market_and_fills_no_memory(tmp_path, monkeypatch):
    """While two parts are written, another one is filled, and then the market waits."""
    gate, names = threading.Semaphore(0), set()
    fast = stream.write_part

    def wait(table, path):
        names.add(threading.current_thread().name)
        assert gate.acquire(timeout=120)
        fast(table, path)

    monkeypatch.setattr(stream, "write_part", wait)
    added = []

    def market():
        with TraceWriter(tmp_path / "traces", part_rows=10) as writer:
            for index in range(1, 21):
                writer.add(index, *values(5, index))
                added.append(index)

    thread = threading.Thread(target=market)
    thread.start()
    for parts in range(4):
        deadline = time.monotonic() + 120
        while len(added) < 2 * parts + 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)  # it would go on here
        assert len(added) == 2 * parts + 5  # the next round would fill a third part
        gate.release()
    for _ in range(10):
        gate.release()
    thread.join(timeout=120)
    assert len(read_parts(tmp_path / "traces")) == 100
    assert len(names) == 2  # threads


KILLED = """
import sys
from pathlib import Path
import numpy as np
from fcfn_abm.records import TraceWriter
writer, index = TraceWriter(Path(sys.argv[1]), part_rows=5000), 0
while True:
    index += 1
    writer.add(index, *(np.full(1000, float(index)),) * 3)
    print(index, flush=True)
"""


@pytest.mark.parametrize("after", [3, 8, 40, 123])
def test_a_killed_run_leaves_whole_parts_in_order_and_lacks_three_at_most(tmp_path, after):
    folder = tmp_path / "traces"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, folder], stdout=subprocess.PIPE, text=True
    ) as run:
        for _ in range(after):
            line = run.stdout.readline()
        os.kill(run.pid, signal.SIGKILL)
        added = 1000 * max(int(i) for i in (line + run.stdout.read()).split())
    assert run.returncode == -signal.SIGKILL
    parts = sorted(folder.glob("part-*.parquet"))
    assert all(pq.read_table(path).num_rows == 5000 for path in parts)
    found = read_parts(folder) if parts else pd.DataFrame({"round": [], "epsilon": []})
    assert added - len(found) <= 3 * 5000  # one part in the making, two on their way to the disk
    rounds = np.repeat(np.arange(1, len(found) // 1000 + 1), 1000)
    np.testing.assert_array_equal(found["round"], rounds)
    np.testing.assert_array_equal(found["epsilon"], rounds)
    if parts:  # the folder can be given to any reader, half-written files and all
        assert len(pd.read_parquet(folder)) == len(found)


FULL = """
import resource, signal, sys
from fcfn_abm.build import load_scenario
from fcfn_abm.cli import main
from fcfn_abm.runs.run import run_scenario
limit, path = int(sys.argv.pop(1)), sys.argv[2]
run_scenario(load_scenario(path, ["rounds.maximum=2"]))  # compiles, and fills caches
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
main()
"""


@pytest.mark.parametrize(
    ("traces", "limit", "message"),
    [
        ("all", 10_000, "record/traces: the traces cannot be written: "),
        ("none", 1_000, "record: cannot be written: "),
    ],
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, traces, limit, message):
    """A limit on the size of files stands for the disk."""
    scenario = Path("scenarios/dynamics/in-turn-half-steps.toml").resolve()
    options = ["--out", tmp_path / "record", "--set", f"record.traces={traces!r}"]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(limit), "run", scenario, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"fcfn: {tmp_path}/{message}File too large.\n"
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_ends_the_run_soon(tmp_path, monkeypatch):
    def fail(table, path):  # noqa: ARG001
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stream, "write_part", fail)

    def market():
        with TraceWriter(tmp_path / "partial", tmp_path / "traces", part_rows=10) as writer:
            for index in range(1, 7):  # the third part finds that the first one failed
                writer.add(index, *values(5, index))
            pytest.fail("nobody noticed")

    with pytest.raises(OutputError, match=r"/traces: .* written: No space left on device\.$"):
        market()
    assert not [t for t in threading.enumerate() if t.name.startswith("traces")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_run_stops_the_thread_and_leaves_nothing(tmp_path, monkeypatch, error):
    market = fa.PrivacyMarket
    step = market.step

    def interrupted(self):
        if self.round_index == 10:
            raise error
        step(self)

    monkeypatch.setattr(stream.TraceWriter.__init__, "__kwdefaults__", {"part_rows": 100})
    monkeypatch.setattr(market, "step", interrupted)
    with pytest.raises(error):
        run_scenario(ALL, tmp_path / "run")
    assert not list(tmp_path.iterdir())
    assert not [t for t in threading.enumerate() if t.name.startswith("traces")]


def test_a_run_does_not_keep_every_node_twice(tmp_path):
    seen = []
    market = fa.PrivacyMarket
    with pytest.MonkeyPatch.context() as patch:
        step = market.step
        patch.setattr(market, "step", lambda self: (seen.append(self), step(self)))
        short = ALL.model_copy(update={"rounds": Rounds(maximum=3)})
        run_scenario(short, tmp_path / "run")
    assert len(seen) == 3
    played = seen[0]
    assert not played.datacollector.agenttype_reporters
    assert len(played.datacollector.get_model_vars_dataframe()) == 3


def test_a_part_is_compressed_if_few_nodes_report(tmp_path):
    few = np.zeros(1000)
    few[::100] = 0.1
    many = np.random.default_rng(1).uniform(0.5, 1.0, 1000)
    for name, epsilon in (("few", few), ("many", many)):
        with TraceWriter(tmp_path / name) as writer:
            writer.add(1, epsilon, 2 * epsilon, 3 * epsilon)
        assert_allclose(read_parts(tmp_path / name)["utility"], 3 * epsilon, rtol=1e-7)
    sizes = [(tmp_path / name / "part-00000.parquet").stat().st_size for name in ("few", "many")]
    assert sizes[0] < 4000 < 12_000 < sizes[1]
