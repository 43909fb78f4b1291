import dataclasses
import errno
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from fcfn_abm.errors import InvalidRecordError, OutputError
from fcfn_abm.process.folders import move_into_place
from fcfn_abm.process.locks import Lock
from fcfn_abm.records import Record, Recorder, new_folder, read_record, sample_rows
from fcfn_abm.records.folders import resolve_output_file
from fcfn_abm.records.integrity import SUMS
from fcfn_abm.records.tables import TABLES, ZCDP_LEDGER
from fcfn_abm.scenario import RecordSettings, Scenario


def record():
    rounds = pd.DataFrame({c.name: np.array([1]).astype(c.kind) for c in TABLES["rounds"]})
    nodes = pd.DataFrame(
        {
            c.name: pd.array([1, pd.NA], dtype="Int64")
            if c.name == "exit_round"
            else np.array([1, 0]).astype("str" if c.kind == "string" else c.kind)
            for c in TABLES["nodes"]
        }
    )
    return Record(Scenario(seed=3), {"seed": 3}, rounds, nodes)


def test_a_record_reads_back_as_it_was_written(tmp_path):
    written = record().write(tmp_path / "run")
    read = read_record(tmp_path / "run")
    assert read.scenario == written.scenario
    assert read.run == written.run
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(read, name), getattr(written, name))
    assert read.path == tmp_path / "run"


def test_a_record_from_before_the_ledger_still_reads(tmp_path):
    record().write(tmp_path / "run")
    (tmp_path / "run" / "ledger.parquet").unlink()
    (tmp_path / "run" / SUMS).unlink()  # nor did they have checksums
    read = read_record(tmp_path / "run")
    assert read.ledger.empty
    columns = [c.name for c in TABLES["ledger"]]
    assert list(read.ledger) == [name for name in columns if not name.startswith("zcdp")]
    (tmp_path / "run" / "training.parquet").unlink()  # which every version has written
    with pytest.raises(InvalidRecordError, match="cannot be read"):
        read_record(tmp_path / "run")


def test_every_column_carries_its_unit_and_meaning(tmp_path):
    record().write(tmp_path / "run")
    for name, columns in TABLES.items():
        schema = pq.read_schema(tmp_path / "run" / f"{name}.parquet")
        columns = [c for c in columns if name != "ledger" or c.name not in ZCDP_LEDGER]
        assert schema.names == [c.name for c in columns]
        for column in columns:
            assert schema.field(column.name).metadata[b"unit"] == column.unit.encode()
    schema = pq.read_schema(tmp_path / "run" / "nodes.parquet")
    assert schema.field("rho").metadata[b"unit"] == b"currency per unit of epsilon"


def test_a_record_is_never_replaced_silently(tmp_path):
    record().write(tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(OutputError, match="already contains results"):
        record().write(tmp_path / "run")
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
    record().write(tmp_path / "run", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_of_two_runs_to_one_name_the_second_is_reported(tmp_path, monkeypatch):
    def meanwhile(folder, path, *, replace):  # after the slower one has looked for the last time
        monkeypatch.undo()
        dataclasses.replace(record(), run={"seed": 4}).write(tmp_path / "run")
        return move_into_place(folder, path, replace=replace)

    monkeypatch.setattr("fcfn_abm.records.folders.move_into_place", meanwhile)
    with pytest.raises(OutputError, match="already contains results"):
        record().write(tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert read_record(tmp_path / "run").run == {"seed": 4}


@pytest.fixture
def without_swap(monkeypatch):
    """A system that cannot swap two folders."""
    monkeypatch.setattr("fcfn_abm.process.folders._exchange", lambda *_: False)


@pytest.mark.usefixtures("without_swap")
def test_a_record_is_replaced_where_folders_cannot_be_swapped(tmp_path):
    record().write(tmp_path / "run")
    replace(record(), run={"seed": 4}).write(tmp_path / "run", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert read_record(tmp_path / "run").run == {"seed": 4}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone swaps folders in one step")
def test_a_record_is_replaced_in_one_step(tmp_path, monkeypatch):
    def rename(self, target):
        assert self != tmp_path / "run", f"the old record was moved to {target}"
        return renamed(self, target)

    renamed = Path.rename
    record().write(tmp_path / "run")
    monkeypatch.setattr(Path, "rename", rename)
    replace(record(), run={"seed": 4}).write(tmp_path / "run", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert read_record(tmp_path / "run").run == {"seed": 4}


def test_a_link_to_a_record_is_followed(tmp_path):
    record().write(tmp_path / "far")
    (tmp_path / "run").symlink_to("far")
    replace(record(), run={"seed": 4}).write(tmp_path / "run", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["far", "run"]
    assert (tmp_path / "run").is_symlink()
    assert read_record(tmp_path / "far").run == {"seed": 4}


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("name", ["thesis.tex", "my.toml", "inner", ".git"])
def test_a_record_in_which_something_else_lies_is_not_replaced(tmp_path, name, listed):
    record().write(tmp_path / "run")
    if not listed:
        (tmp_path / "run" / SUMS).unlink()
    record().write(tmp_path / "run", overwrite=True)
    if not listed:
        (tmp_path / "run" / SUMS).unlink()
    for own in ("report.html", ".DS_Store", ".report.html.partial"):
        (tmp_path / "run" / own).write_text("ours")
    (tmp_path / "run" / "figures").mkdir(exist_ok=True)
    (tmp_path / "run" / name).mkdir()
    with pytest.raises(OutputError, match=f"contains '{name}', which is not part of the results"):
        record().write(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / name).exists()
    (tmp_path / "run" / name).rmdir()
    record().write(tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / "report.html").exists()


def test_results_of_another_kind_are_not_replaced(tmp_path):
    replace(record(), run={"kind": "sweep"}).write(tmp_path / "sweep")
    with pytest.raises(OutputError, match="sweep: contains a sweep, not a run"):
        record().write(tmp_path / "sweep", overwrite=True)
    with new_folder(tmp_path / "sweep", overwrite=True, kind="sweep"):
        pass


def test_the_current_folder_is_not_taken_away(tmp_path, monkeypatch):
    record().write(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    for path in (".", "../run", tmp_path / "run"):
        with pytest.raises(OutputError, match="is or contains the current folder"):
            record().write(path, overwrite=True)


def test_a_file_is_replaced_only_when_asked_and_never_one_of_results(tmp_path):
    free = tmp_path / "plan.json"
    assert resolve_output_file(free) == free
    free.write_text("mine")
    with pytest.raises(OutputError, match=r"already exists; .*--overwrite"):
        resolve_output_file(free)
    assert resolve_output_file(free, overwrite=True) == free
    (tmp_path / "link").symlink_to(free)
    assert resolve_output_file(tmp_path / "link", overwrite=True) == free
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("loop", "pipe"):
        with pytest.raises(OutputError, match="is not a regular file"):
            resolve_output_file(tmp_path / name, overwrite=True)
    for folder in (tmp_path, Path("."), Path("/"), Path("")):
        with pytest.raises(OutputError, match="is a folder"):
            resolve_output_file(folder, overwrite=True)
    record().write(tmp_path / "run")
    for name in ("run.json", "nodes.parquet"):
        with pytest.raises(OutputError, match="belongs to the results in its folder"):
            resolve_output_file(tmp_path / "run" / name, overwrite=True)
    assert resolve_output_file(tmp_path / "run" / "mine.html")


def test_what_is_not_a_record_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("thesis", "file"):
        with pytest.raises(OutputError, match="exists and is not a record"):
            record().write(tmp_path / name, overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_a_run_that_breaks_leaves_nothing_and_keeps_the_old_record(tmp_path, error):
    record().write(tmp_path / "run")

    def break_down():
        with new_folder(tmp_path / "run", overwrite=True) as folder:
            (folder / "half").write_text("half")
            raise error

    with pytest.raises(error):
        break_down()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert read_record(tmp_path / "run").run == {"seed": 3}


def test_what_a_killed_run_has_left_goes_and_what_another_still_writes_stays(tmp_path, hold_lock):
    for name in (".run.partial-dead", ".run.partial-live", ".run2.partial-dead"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".lock").touch()
    (tmp_path / ".run.partial-newborn").mkdir()  # killed before it had its lock
    (tmp_path / ".run.partial-replaced" / "run").mkdir(parents=True)
    with hold_lock(tmp_path / ".run.partial-live" / ".lock"):
        record().write(tmp_path / "run")
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [".run.partial-live", ".run2.partial-dead", "run"]
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.usefixtures("without_swap")
def test_a_relative_path_is_as_good(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".run.partial-dead").mkdir()
    for _ in range(2):
        record().write("run", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_place_that_cannot_be_listed_takes_a_record(tmp_path, monkeypatch):
    def unlisted(folder):
        if Path(folder) == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    scandir = os.scandir
    monkeypatch.setattr("fcfn_abm.process.files.os.scandir", unlisted)
    with new_folder(tmp_path / "run") as folder:
        (folder / "there").write_text("")
    assert (tmp_path / "run" / "there").exists()


def test_a_folder_that_goes_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    def late(path):
        if not went:
            went.append(path)
            shutil.rmtree(path.parent)
        return Lock(path)

    went = []
    monkeypatch.setattr("fcfn_abm.process.folders.Lock", late)
    record().write(tmp_path / "run")
    assert went
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert read_record(tmp_path / "run").run == {"seed": 3}


@pytest.mark.usefixtures("without_swap")
def test_a_record_stays_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    record().write(tmp_path / "run")
    rename = Path.rename

    def full(self, target):
        if self.name.startswith(".run.partial-"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(OutputError, match=r"run: cannot be written: .*space"):
            record().write(tmp_path / "run", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert read_record(tmp_path / "run").run == {"seed": 3}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/run: cannot be written"):
        record().write(tmp_path / "file" / "run")


def test_what_is_not_a_record_cannot_be_read(tmp_path):
    with pytest.raises(InvalidRecordError, match="does not exist"):
        read_record(tmp_path / "nothing")
    with pytest.raises(InvalidRecordError, match=r"contains no record \(no run.json\)"):
        read_record(tmp_path)
    record().write(tmp_path / "run")
    (tmp_path / "run" / "nodes.parquet").write_bytes(b"PAR1 but broken")
    (tmp_path / "run" / SUMS).unlink()  # without it nothing but the file itself can tell
    with pytest.raises(InvalidRecordError, match="cannot be read"):
        read_record(tmp_path / "run")


@dataclass
class State:
    round: int


class Market:
    def __init__(self, n_nodes):
        self.columns = self
        self.epsilon = np.arange(n_nodes, dtype=float)
        self.payment = self.utility = np.zeros(n_nodes)

    def play(self, round_index):
        self.round_index = round_index
        self.state = State(round_index)


def traced(traces, n_nodes=10, rounds=5, **settings):
    market = Market(n_nodes)
    rng = np.random.default_rng(1)
    rho = rng.permutation(n_nodes) + 1.0
    recorder = Recorder(RecordSettings(traces=traces, **settings), rho)
    for index in range(1, rounds + 1):
        market.play(index)
        recorder(market)
    return recorder.traces, rho


def test_traces_keep_what_was_asked_for():
    assert traced("none")[0].empty
    assert len(traced("all")[0]) == 50
    assert set(traced("last:2")[0]["round"]) == {4, 5}
    for more in ("9223372036854775808", "9" * 5000):
        assert set(traced(f"last:{more}")[0]["round"]) == {1, 2, 3, 4, 5}
    assert len(traced("sample")[0]) == 50  # a small population is its own sample


def test_a_sample_spreads_over_all_costs():
    frame, rho = traced("sample", n_nodes=1000, rounds=2, sample_size=11)
    assert sorted(rho[frame["node"].unique()]) == pytest.approx(
        [1, 101, 201, 301, 401, 500, 600, 700, 800, 900, 1000], abs=1.5
    )
    assert len(frame) == 22


@pytest.mark.parametrize(
    ("n_inside", "sampled"), [(0, 0), (1, 1), (3, 3), (400, 5), (997, 7), (1000, 10)]
)
def test_half_of_a_sample_takes_part_where_there_are_as_many(n_inside, sampled):
    rho = np.random.default_rng(1).permutation(1000) + 1.0
    inside = rho <= n_inside
    rows = sample_rows(rho, 10, inside)
    assert len(set(rows.tolist())) == 10
    assert (np.diff(rows) > 0).all()
    assert np.count_nonzero(inside[rows]) == sampled
    for group in (inside, ~inside):
        drawn = rho[rows][group[rows]]
        if drawn.size > 1:  # the cheapest and the costliest of each group among them
            assert (drawn.min(), drawn.max()) == (rho[group].min(), rho[group].max())
