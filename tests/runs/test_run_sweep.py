"""Sweeps: the same table whoever carries it out, and whatever dies meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest

import fcfn_abm as fa
from fcfn_abm.errors import (
    InvalidRecordError,
    InvalidScenarioError,
    OutputError,
    RunFailedError,
)
from fcfn_abm.process import workers
from fcfn_abm.runs import facts, results, sweep_folder
from fcfn_abm.runs.results import list_results, read_results
from fcfn_abm.runs.sweep import plan_sweep, plan_text, sweep_text

pytestmark = pytest.mark.slow

SHORT = """
title = "Short runs"
seed = 5

[game]
budget = 5.0

[server]
kind = "fixed"

[rounds]
maximum = 60

[sweep]
replications = 3

[sweep.axes]
"population.n_nodes" = [10, 20, 40]
"population.rho.sigma" = { low = 0.1, high = 0.7, n = 4 }
"""
N_RUNS = 36


def small(folder, axes='"game.alpha" = [1.0, 2.0]', sweep="", rest=""):
    """Two runs of a few rounds."""
    path = folder / "small.toml"
    path.write_text(f"[rounds]\nmaximum = 3\n{rest}\n[sweep]\n{sweep}\n[sweep.axes]\n{axes}")
    return fa.load_scenario(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenario") / "short.toml"
    path.write_text(SHORT)
    return path


@pytest.fixture(scope="module")
def serial(file, tmp_path_factory):
    """The sweep, carried out one run after another in this process."""
    return fa.run_sweep(fa.load_scenario(file), tmp_path_factory.mktemp("serial") / "out")


def command(*args):
    return [sys.executable, "-m", "fcfn_abm", "sweep", *map(str, args)]


def fcfn(*args):
    return subprocess.run(command(*args), capture_output=True, text=True, check=False)


def contents(folder):
    """Return every file of a folder but the lock, and all results, however they are divided."""
    results = [result for path in results_in(folder) for result in read_results(path)]
    return {
        "results": sorted(results, key=lambda result: result["run"]),
        **{
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name != ".lock" and path not in results_in(folder)
        },
    }


def results_in(folder):
    """Return the files with results."""
    return sorted((folder / "runs").glob("[0-9]*.json"))


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.005)
    return found


def workers_below(process):
    """Return the worker processes of a sweep, leaving out multiprocessing's own."""
    found = psutil.Process(process.pid).children(recursive=True)
    trackers = [child for child in found if "resource_tracker" in " ".join(child.cmdline())]
    return [child for child in found if child not in trackers and not child.children()]


def test_the_frame_has_a_typed_row_for_each_run(serial):
    frame = serial.frame()
    assert len(frame) == N_RUNS
    assert list(frame["run"]) == list(range(N_RUNS))
    assert set(frame["status"]) == {"done"}
    assert frame["error"].isna().all()
    assert frame.dtypes[["population.n_nodes", "population.rho.sigma"]].astype(str).to_list() == [
        "int64",
        "float64",
    ]
    assert (frame["n_nodes"] == frame["population.n_nodes"]).all()
    assert frame.groupby("population.n_nodes")["population.rho.sigma"].nunique().eq(4).all()
    assert frame.groupby("replication")["seed"].nunique().eq(1).all()
    assert frame["seed"].nunique() == 3
    assert frame["accuracy"].isna().all()  # nothing is trained
    schema = pq.read_schema(serial.path / "sweep.parquet")
    assert schema.field("budget").metadata[b"unit"] == b"currency"
    assert all(schema.field(name).metadata[b"description"] for name in schema.names)


def test_a_row_is_what_the_run_alone_leads_to(serial):
    row = serial.frame().iloc[22]
    alone = fa.run_scenario(
        fa.load_scenario(
            serial.path / "scenario.toml",
            [
                "sweep={}",
                f"seed={row['seed']}",
                f"population.n_nodes={row['population.n_nodes']}",
                f"population.rho.sigma={row['population.rho.sigma']}",
            ],
        )
    )
    last = alone.rounds.iloc[-1]
    for name in ("budget", "n_active", "total_epsilon", "node_utility", "welfare", "distance"):
        assert row[name] == last[name]
    assert row["rounds"] == last["round"]
    assert row["verdict"] == alone.run["verdict"]["kind"]
    assert row["participation"] == alone.nodes["active"].mean()
    form = fa.nash_equilibrium(alone.nodes["rho"], 5.0)
    assert row["equilibrium_n_active"] == form.n_active
    assert row["equilibrium_total_epsilon"] == pytest.approx(form.total_epsilon, rel=1e-12)


def test_no_more_processes_start_than_there_are_runs(tmp_path, monkeypatch):
    started = []
    wait_until_ready = workers._wait_until_ready

    def count(pool, n_workers):
        started.append(n_workers)
        return wait_until_ready(pool, n_workers)

    monkeypatch.setattr(workers, "_wait_until_ready", count)
    found = fa.run_sweep(small(tmp_path), tmp_path / "out", workers.Processes(4096))
    assert started == [2]
    assert found.counts()["done"] == 2


@pytest.mark.parametrize("n_workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes(file, serial, tmp_path, n_workers):
    done = fcfn(file, "--out", tmp_path / "out", "--workers", n_workers)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "36 runs: 36 done." in done.stdout
    assert contents(tmp_path / "out") == contents(serial.path)


def test_any_executor_of_the_standard_library_s_kind_does(tmp_path):
    scenario = small(tmp_path)
    with ThreadPoolExecutor(1) as executor:
        one = fa.run_sweep(scenario, tmp_path / "one", executor)
    two = fa.run_sweep(scenario, tmp_path / "two")
    assert contents(one.path) == contents(two.path)


def test_a_killed_worker_loses_nothing(file, serial, tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen(
        command(file, "--out", out, "--workers", 2), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: results_in(out))
        workers_below(process)[0].kill()
        assert len(list_results(out)) < N_RUNS
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert contents(out) == contents(serial.path)


def set_up_or_die(environment):
    """Set a worker up; the first one is killed instead."""
    try:
        os.open(environment["FCFN_TEST_DEATH"], os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        set_up_worker(environment)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


set_up_worker = workers._set_up_worker


def test_a_worker_that_is_killed_as_it_starts_loses_nothing(tmp_path, monkeypatch):
    scenario = small(tmp_path)
    alone = fa.run_sweep(scenario, tmp_path / "alone")
    monkeypatch.setenv("FCFN_TEST_DEATH", str(tmp_path / "death"))
    monkeypatch.setattr(workers, "_set_up_worker", set_up_or_die)
    killed = fa.run_sweep(scenario, tmp_path / "killed", workers.Processes(2))
    assert (tmp_path / "death").exists()
    assert contents(killed.path) == contents(alone.path)


def test_a_killed_sweep_continues_where_it_was(file, serial, tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen(command(file, "--out", out, "--workers", 2)) as process:
        wait_for(lambda: list_results(out))
        workers = workers_below(process)
        process.kill()
    psutil.wait_procs(workers, timeout=120)
    assert not any(worker.is_running() for worker in workers)  # they end with their parent
    before = {path: path.stat().st_mtime_ns for path in results_in(out)}
    n_done = len(list_results(out))
    assert 0 < n_done < N_RUNS
    unfinished = fa.read_sweep(out)
    assert unfinished.counts() == {
        "done": n_done,
        "failed": 0,
        "missing": N_RUNS - n_done,
    }
    assert unfinished.frame().dtypes["rounds"] == "Int64"
    (out / "runs" / ".000035.json.partial-host-1").write_text('{"run": 35, "sta')  # cut off
    fa.run_sweep(unfinished.scenario, out)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # done once only
    assert contents(out) == contents(serial.path)


def test_an_interrupted_sweep_ends_with_130_and_says_how_to_continue(file, tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen(
        command(file, "--out", out, "--workers", 1),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        wait_for(lambda: results_in(out))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert stderr.count("\n") == 1
    assert "Run the same command to resume" in stderr
    assert fa.read_sweep(out).counts()["missing"] > 0


def test_a_failed_run_is_a_row_and_training_has_its_columns(tmp_path):
    data = 'training.data = [{kind = "digits"}, {kind = "parquet", path = "nowhere"}]'
    scenario = small(
        tmp_path,
        f'"population.n_nodes" = [3]\n"{data.replace(" =", '" =', 1)}',
        rest="[training]\nrounds = 1\ncompare = []",
    )
    found = fa.run_sweep(scenario, tmp_path / "out")
    good, bad = (row for _, row in found.frame().iterrows())
    assert (good["status"], bad["status"]) == ("done", "failed")
    assert bad["error"].startswith("InvalidDataError: ")
    assert "nowhere" in bad["error"]
    assert pd.isna(bad["welfare"])
    assert json.loads(bad["training.data"]) == {"kind": "parquet", "path": "nowhere"}
    alone = fa.run_scenario(
        fa.load_scenario(tmp_path / "small.toml", ["sweep={}", "population.n_nodes=3"])
    )
    last = alone.training[alone.training["arm"] == "stackelberg"].iloc[-1]
    assert (good["accuracy"], good["loss"]) == (last["accuracy"], last["loss"])
    spent = alone.ledger.groupby("node")["epsilon_total"].last()
    assert good["mean_epsilon_total"] == pytest.approx(spent.mean())
    assert good["max_epsilon_total"] == pytest.approx(spent.max())
    assert "run 1: InvalidDataError" in sweep_text(found)


def test_failed_runs_are_run_again_when_asked(tmp_path, monkeypatch):
    scenario, whole = small(tmp_path), results._play
    calls = []

    def failing(scenario):
        calls.append(scenario.game.alpha)
        if scenario.game.alpha == 2.0:
            raise ZeroDivisionError("two\nlines")
        return whole(scenario)

    monkeypatch.setattr(results, "_play", failing)
    found = fa.run_sweep(scenario, tmp_path / "out")
    assert list(found.frame()["error"].fillna("")) == ["", "ZeroDivisionError: two lines"]
    assert found.counts() == {"done": 1, "failed": 1, "missing": 0}
    fa.run_sweep(scenario, tmp_path / "out")
    assert calls == [1.0, 2.0]  # all is there
    fa.run_sweep(scenario, tmp_path / "out", retry=True)
    assert calls == [1.0, 2.0, 2.0]
    monkeypatch.undo()
    again = fa.run_sweep(scenario, tmp_path / "out", retry=True)
    assert again.counts() == {"done": 2, "failed": 0, "missing": 0}
    assert contents(again.path) == contents(fa.run_sweep(scenario, tmp_path / "fresh").path)


def test_missing_runs_of_another_version_are_not_mixed_in(tmp_path, monkeypatch):
    scenario = small(tmp_path)
    fa.run_sweep(scenario, tmp_path / "out")
    now = facts.versions()
    monkeypatch.setattr(facts, "versions", lambda: {**now, "numpy": "9.9"})
    fa.run_sweep(scenario, tmp_path / "out")  # it is complete
    next((tmp_path / "out" / sweep_folder.RESULTS).iterdir()).unlink()
    with pytest.raises(OutputError, match=rf"with numpy {now['numpy']}, but here it is 9\.9"):
        fa.run_sweep(scenario, tmp_path / "out")
    monkeypatch.setattr(facts, "versions", lambda: {"fcfn_abm": now["fcfn_abm"]})
    with pytest.raises(OutputError, match="here it is missing"):
        fa.run_sweep(scenario, tmp_path / "out")


def test_failures_of_another_version_are_kept_and_not_run_again(tmp_path, monkeypatch):
    scenario = small(tmp_path)

    def broken(*_, **__):
        raise RunFailedError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(results, "_play", broken)
        assert fa.run_sweep(scenario, tmp_path / "out").counts()["failed"] == 2
    before = contents(tmp_path / "out")
    monkeypatch.setattr(facts, "versions", lambda: {"fcfn_abm": "9.9"})
    fa.run_sweep(scenario, tmp_path / "out")
    with pytest.raises(OutputError, match=r"here it is 9\.9"):
        fa.run_sweep(scenario, tmp_path / "out", retry=True)
    assert contents(tmp_path / "out") == before


def test_another_scenario_is_refused_in_the_same_folder(tmp_path):
    fa.run_sweep(small(tmp_path), tmp_path / "out")
    before = contents(tmp_path / "out")
    other = small(tmp_path, rest="[game]\nbeta = 11.0")
    with pytest.raises(OutputError, match=r"game.beta is 10.0 there and 11.0 here"):
        fa.run_sweep(other, tmp_path / "out")
    with pytest.raises(OutputError, match=r"of another scenario"):
        plan_sweep(other, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_only_a_sweep_s_own_folder_is_resumed(tmp_path):
    scenario = small(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="exists but is not a sweep"):
        fa.run_sweep(scenario, tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["thesis.tex"]
    with pytest.raises(OutputError, match="exists but is not a sweep"):
        fa.run_sweep(scenario, tmp_path / "taken" / "thesis.tex")
    (tmp_path / "empty").mkdir()
    assert fa.run_sweep(scenario, tmp_path / "empty").counts()["done"] == 2


def test_two_processes_cannot_work_on_one_folder(tmp_path, hold_lock):
    scenario = small(tmp_path)
    found = fa.run_sweep(scenario, tmp_path / "out")
    with (
        hold_lock(found.path / ".lock"),
        pytest.raises(OutputError, match="another process works on this sweep"),
    ):
        fa.run_sweep(scenario, tmp_path / "out")


def test_reading_says_what_is_not_a_sweep(tmp_path):
    with pytest.raises(InvalidRecordError, match="does not exist"):
        fa.read_sweep(tmp_path / "nowhere")
    with pytest.raises(InvalidRecordError, match="contains no sweep"):
        fa.read_sweep(tmp_path)
    found = fa.run_sweep(small(tmp_path), tmp_path / "out")
    with pytest.raises(InvalidRecordError, match="it is a sweep, not a run"):
        fa.read_record(found.path)
    (found.path / "sweep.parquet").unlink()
    for file in results_in(found.path):
        file.unlink()
    (found.path / "runs" / "000001.json").mkdir()
    with pytest.raises(InvalidRecordError, match=r"000001.json: the result cannot be read"):
        fa.read_sweep(found.path).frame()


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"run": 1, "status": "done"}', b"\0" * 40])
def test_a_result_that_a_power_cut_has_emptied_is_run_again(tmp_path, left):
    scenario = small(tmp_path)
    out = fa.run_sweep(scenario, tmp_path / "out").path
    before = contents(out)
    (out / "sweep.parquet").unlink()  # it stopped before its table was written
    results_in(out)[-1].write_bytes(left)
    assert fa.read_sweep(out).counts()["missing"] > 0
    assert fa.run_sweep(scenario, out).counts()["done"] == 2
    assert contents(out) == before


def test_a_table_that_a_power_cut_has_emptied_is_made_again(tmp_path):
    scenario = small(tmp_path)
    out = fa.run_sweep(scenario, tmp_path / "out").path
    before = contents(out)
    (out / "sweep.parquet").write_bytes(b"")
    with pytest.raises(InvalidRecordError, match="does not match its checksum"):
        fa.read_sweep(out).frame()
    fa.run_sweep(scenario, out)
    assert contents(out) == before


@pytest.mark.parametrize("durable", [True, False])
def test_each_result_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, durable):
    synced, renamed = set(), {}

    def replace(self, target):
        renamed[target.name] = self in synced
        return renames(self, target)

    renames = Path.replace
    monkeypatch.setattr("fcfn_abm.process.files.sync", synced.add)
    monkeypatch.setattr(Path, "replace", replace)
    out = fa.run_sweep(small(tmp_path), tmp_path / "out", durable=durable).path
    assert {renamed[path.name] for path in results_in(out)} == {durable}
    assert renamed["sweep.parquet"]
    assert renamed["SHA256SUMS"]


def test_a_sweep_that_another_one_has_replaced_is_not_read_on(tmp_path, monkeypatch):
    scenario = small(tmp_path)
    monkeypatch.chdir(tmp_path)
    fa.run_sweep(scenario, "out")
    first = fa.read_sweep("out")
    monkeypatch.chdir("/")
    assert first.counts()["done"] == 2
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(InvalidRecordError, match="were removed since"):
        first.frame()
    fa.run_sweep(scenario.model_copy(update={"seed": 8}), tmp_path / "out")
    with pytest.raises(InvalidRecordError, match="were replaced since"):
        first.frame()


def test_a_bit_that_flips_in_a_sweep_is_never_used(tmp_path):
    scenario = small(tmp_path, sweep="replications = 4")
    out = fa.run_sweep(scenario, tmp_path / "out").path
    assert "000000-000003.json" in [path.name for path in results_in(out)]
    table = (out / "sweep.parquet").read_bytes()
    chance = np.random.default_rng(1)
    for path in (*(out / name for name in ("run.json", "scenario.toml")), *results_in(out)):
        whole = path.read_bytes()
        (out / "sweep.parquet").unlink()  # so that it is made of the results
        for place in chance.integers(len(whole), size=8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(chance.integers(8))
            path.write_bytes(flipped)
            if path.parent.name == "runs":  # it is carried out again
                assert fa.read_sweep(out).counts()["missing"] > 0
                continue
            for read in (lambda: fa.read_sweep(out).frame(), lambda: fa.run_sweep(scenario, out)):
                with pytest.raises(InvalidRecordError, match=path.name):
                    read()
        path.write_bytes(whole)
        (out / "sweep.parquet").write_bytes(table)
    (out / "sweep.parquet").write_bytes(table[:-9] + b"x" + table[-8:])
    with pytest.raises(InvalidRecordError, match=r"sweep\.parquet: is corrupt or was edited"):
        fa.read_sweep(out).frame()


def test_whole_records_are_kept_when_asked(tmp_path):
    found = fa.run_sweep(small(tmp_path, sweep='keep = "record"'), tmp_path / "out")
    record = found.record(1)
    assert record.scenario.game.alpha == 2.0
    assert record.rounds["welfare"].iloc[-1] == found.frame()["welfare"][1]
    with pytest.raises(FileNotFoundError):
        (found.path / "records" / "000002").stat()


def test_axes_of_several_kinds_become_text(tmp_path):
    axes = '"learning.gain" = [0.5, "auto"]\n"exit.reentry" = [true, false]\n"game.alpha" = [3]'
    frame = fa.run_sweep(small(tmp_path, axes), tmp_path / "out").frame()
    assert list(frame["learning.gain"]) == ["0.5", "0.5", "auto", "auto"]
    assert frame["exit.reentry"].dtype == bool
    assert frame["game.alpha"].dtype == float  # as the scenario has it


def test_a_plan_counts_and_times_without_writing(file, serial, tmp_path):
    done = fcfn(file, "--out", tmp_path / "out", "--workers", 2, "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert (plan["n_runs"], plan["n_missing"], plan["n_workers"]) == (36, 36, 2)
    assert 0 < plan["seconds_a_run"] < 5
    assert plan["seconds"] == pytest.approx(plan["seconds_a_run"] * 18)
    assert not (tmp_path / "out").exists()
    assert plan_sweep(serial.scenario, serial.path).n_missing == 0
    assert plan_text(plan_sweep(serial.scenario, serial.path)) == "36 runs, 0 missing."


def test_a_mistake_gets_exit_code_2_and_a_sentence(file, tmp_path):
    done = fcfn(file, "--out", tmp_path / "out", "--set", "sweep.maximum=3")
    assert done.returncode == 2
    assert "the sweep has 36 runs, and may have 3" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_run_and_sweep_each_refuse_the_other_s_files(file, tmp_path):
    refused = subprocess.run(
        [sys.executable, "-m", "fcfn_abm", "run", str(file), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "has a [sweep] table with many runs; use 'fcfn sweep'." in refused.stderr
    with pytest.raises(InvalidScenarioError, match=r"has no \[sweep\]"):
        fa.run_sweep(fa.Scenario(), tmp_path / "out")


DIVIDED = """
[population]
n_nodes = 12
[rounds]
maximum = 30
[sweep]
replications = 5
[sweep.axes]
"game.beta" = [0.001, 3.0, 10.0]
"mechanism.kind" = ["stackelberg", "static"]
"""


@pytest.mark.parametrize("largest", [1, 3, 512])
def test_the_table_is_the_same_however_runs_are_grouped(tmp_path, monkeypatch, largest):
    (tmp_path / "divided.toml").write_text(DIVIDED)
    scenario = fa.load_scenario(tmp_path / "divided.toml")
    monkeypatch.setattr("fcfn_abm.process.tasks._hand_out.__defaults__", (largest,))
    out = fa.run_sweep(scenario, tmp_path / "out").path
    sizes = {len(read_results(path)) for path in results_in(out)}
    assert max(sizes) == min(largest, 15)
    one_by_one = fa.run_sweep(scenario, tmp_path / "other", workers.Processes(2))
    assert contents(out) == contents(one_by_one.path)


def test_a_sweep_of_one_file_a_run_is_resumed(tmp_path):
    (tmp_path / "divided.toml").write_text(DIVIDED)
    scenario = fa.load_scenario(tmp_path / "divided.toml")
    whole = fa.run_sweep(scenario, tmp_path / "whole")
    found = [result for path in results_in(whole.path) for result in read_results(path)]
    old = fa.run_sweep(scenario, tmp_path / "old").path
    (old / "sweep.parquet").unlink()
    for path in results_in(old):
        path.unlink()
    for result in found[:11:2]:  # as earlier versions wrote them
        results.write_results(old, [result])
    assert results_in(old)[1].name == "000002.json"
    assert fa.read_sweep(old).counts() == {"done": 6, "failed": 0, "missing": 24}
    assert contents(fa.run_sweep(scenario, old).path) == contents(whole.path)


def test_failed_runs_of_a_stretch_are_run_again_and_its_others_are_not(tmp_path, monkeypatch):
    (tmp_path / "divided.toml").write_text(DIVIDED)
    scenario = fa.load_scenario(tmp_path / "divided.toml")
    play, calls = results._play, []

    def failing(scenario):
        calls.append(scenario)
        if len(calls) in (2, 3, 17):
            raise ZeroDivisionError
        return play(scenario)

    monkeypatch.setattr(results, "_play", failing)
    assert fa.run_sweep(scenario, tmp_path / "out").counts()["failed"] == 3
    again = fa.run_sweep(scenario, tmp_path / "out", retry=True)
    assert len(calls) == 33
    assert again.counts()["done"] == 30
    assert contents(again.path) == contents(fa.run_sweep(scenario, tmp_path / "fresh").path)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        '[learning]\nkind = "estimate"',
        '[mechanism]\nkind = "yang"',
        '[mechanism]\nkind = "vcg"\n[population.misreport]\nshare = 0.3\nfactor = 1.5',
        "[game]\nbeta = 1e-6",
        '[[events]]\nround = 2\nchange = "rho"\nscale = 2.0',
        "[population.churn]\ndrift = 0.0",
        "[population]\nn_nodes = 2",
        '[[population.groups]]\nname = "few"\nn_nodes = 3\n[[population.groups]]\nname = "many"',
        "[population.churn]\ndrift = 0.1",
    ],
)
def test_a_row_is_the_same_whether_its_record_is_kept_or_not(tmp_path, rest):
    (tmp_path / "kept").mkdir()
    bare = fa.run_sweep(small(tmp_path, rest=rest), tmp_path / "out").frame()
    kept = small(tmp_path / "kept", sweep='keep = "record"', rest=rest)
    pd.testing.assert_frame_equal(
        bare, fa.run_sweep(kept, tmp_path / "r").frame(), check_exact=True
    )
    assert (bare["status"] == "done").all()
