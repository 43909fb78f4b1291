"""Damage to any file of a record is detected, and never read as a result."""

import errno
import os
import shutil
import subprocess

import numpy as np
import pytest

import fcfn_abm as fa
from fcfn_abm.errors import InvalidRecordError, OutputError
from fcfn_abm.records import read_record, seal
from fcfn_abm.records.integrity import SUMS


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    scenario = fa.load_scenario(
        "scenarios/dynamics/cold-start.toml", ["record.traces='all'", "rounds.maximum=5"]
    )
    path = tmp_path_factory.mktemp("whole") / "run"
    fa.run_scenario(scenario, path)
    return path


@pytest.fixture
def run(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "run")


def read_all(path):
    record = read_record(path)
    return record.traces, record.nodes


def data_files(folder):
    kinds = {".parquet", ".json", ".toml"}
    return sorted(path for path in folder.rglob("*") if path.suffix in kinds)


def test_the_list_of_checksums_is_one_that_other_tools_know(run):
    listed = {line.split("  ")[1] for line in (run / SUMS).read_text().splitlines()}
    assert listed == {path.relative_to(run).as_posix() for path in data_files(run)}
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=run, check=True)


def test_a_bit_that_flips_anywhere_in_a_record_is_reported(run):
    chance, n_flips = np.random.default_rng(3), 0
    for path in data_files(run):
        whole = path.read_bytes()
        for place in chance.integers(len(whole), size=12):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(chance.integers(8))
            path.write_bytes(flipped)
            with pytest.raises(
                InvalidRecordError, match=r"checksum|cannot be read|was added after"
            ):
                read_all(run)
            n_flips += 1
        path.write_bytes(whole)
    read_all(run)
    assert n_flips == 12 * len(data_files(run)) > 80


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_reported(run, share):
    for path in data_files(run):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InvalidRecordError, match=path.name):
            read_all(run)
        path.write_bytes(whole)
    read_all(run)


def test_a_file_that_is_gone_is_reported(run):
    for path in data_files(run):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(InvalidRecordError, match=rf"{path.name}|has 0 of 250 rows"):
            read_all(run)
        path.write_bytes(whole)


def test_a_part_that_was_added_is_reported(run):
    shutil.copy(run / "traces" / "part-00000.parquet", run / "traces" / "part-00001.parquet")
    with pytest.raises(InvalidRecordError):
        read_all(run)


def test_a_damaged_part_is_not_sealed_anew_in_a_copy(run, tmp_path):
    part = run / "traces" / "part-00000.parquet"
    whole = bytearray(part.read_bytes())
    whole[len(whole) // 3] ^= 4
    part.write_bytes(whole)
    with pytest.raises(InvalidRecordError, match="does not match its checksum"):
        read_record(run).write(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_figures_are_no_data(run):
    (run / "figures" / "convergence.png").unlink()
    (run / "report.html").write_text("written later")
    read_all(run)


@pytest.mark.parametrize("text", ["", "no checksum", "\0\0", "0  run.json\n", "ÿ"])
def test_a_list_that_was_damaged_is_reported(run, text):
    (run / SUMS).write_text(text, encoding="latin-1")
    with pytest.raises(InvalidRecordError):
        read_all(run)


def streamed(path, seed=0):
    overrides = ["record.traces='all'", "rounds.maximum=5", f"seed={seed}"]
    scenario = fa.load_scenario("dynamics/cold-start", overrides)
    return fa.run_scenario(scenario, path, overwrite=True)


def test_traces_are_those_of_the_run_that_was_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = streamed("run")
    read = fa.read_record("run")
    monkeypatch.chdir("/")
    n_rows = len(written.rounds) * len(written.nodes)
    assert len(read.traces) == len(written.traces_of()) == n_rows


@pytest.mark.parametrize("gone", [True, False])
def test_traces_of_a_run_that_was_replaced_are_an_error(tmp_path, gone):
    written = streamed(tmp_path / "run")
    read = fa.read_record(tmp_path / "run")
    assert len(read.traces_of([0])) == len(read.rounds)
    if gone:
        shutil.rmtree(tmp_path / "run")
    else:
        streamed(tmp_path / "run", seed=1)
    for record in (written, read):
        with pytest.raises(InvalidRecordError, match="since they were read"):
            record.traces_of([0])
        with pytest.raises(InvalidRecordError, match="since they were read"):
            record.write(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    "name", ["desktop.ini", "Icon\r", ".DS_Store", "._part-00000.parquet", ".nfs0001", "Thumbs.db"]
)
def test_files_that_systems_put_everywhere_are_passed_over(tmp_path, name):
    out = tmp_path / "run"
    n_rows = len(streamed(out).traces)
    for folder in (out, out / "traces", out / "figures"):
        (folder / name).write_bytes(b"of the system")
    read = fa.read_record(out)
    assert len(read.traces) == n_rows
    read.write(tmp_path / "copy")
    assert not (tmp_path / "copy" / "traces" / name).exists()
    streamed(out)  # replaces it all the same
    assert not (out / name).exists()


def test_a_folder_that_cannot_be_listed_gives_no_record(tmp_path, monkeypatch):
    scandir = os.scandir

    def fail(folder):
        if str(folder).endswith("traces"):
            raise OSError(errno.EIO, "Input/output error")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        streamed(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_must_be_in_the_checksums(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    seal(tmp_path, ["run.json"])
    with pytest.raises(OSError, match="a written file is missing"):
        seal(tmp_path, ["run.json", "nodes.parquet"])
