"""Files and folders on disks that are not like ours, and that fail."""

import errno
import os
from pathlib import Path

import pytest

from fcfn_abm.errors import OutputError
from fcfn_abm.process import files, locks
from fcfn_abm.process.files import list_files, read_file, write_file
from fcfn_abm.process.folders import create_hidden_folder, remove_abandoned, remove_folder
from fcfn_abm.process.locks import Lock
from fcfn_abm.records import new_folder

fcntl = pytest.importorskip("fcntl")

NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]  # NFS, Lustre, FUSE


def fails(number):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(params=NO_LOCKS, ids=errno.errorcode.get)
def no_locks(request, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", fails(request.param))
    locks._warn_once.cache_clear()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_results_are_written_and_one_line_says_what_is_not_guarded(tmp_path, caplog):
    for name in ("one", "two"):
        with new_folder(tmp_path / name) as folder:
            (folder / "run.json").write_text("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert [record.message.split(":")[1] for record in caplog.records] == [
        " this file system has no locks"
    ]


@pytest.mark.usefixtures("no_locks")
def test_without_locks_no_folder_is_taken_for_abandoned(tmp_path):
    folder, _ = create_hidden_folder(tmp_path / "run")
    remove_abandoned(tmp_path / "run")
    assert folder.is_dir()


def test_a_lock_is_of_one_process_and_free_once_it_is_released(tmp_path, hold_lock):
    one, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    with hold_lock(tmp_path / "lock"):
        assert not one.acquire()
    assert one.acquire()
    assert one.guards
    assert not other.acquire()
    one.release(remove=True)
    assert not (tmp_path / "lock").exists()
    assert other.acquire()


def test_a_lock_that_fails_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", fails(errno.EIO))
    with (
        pytest.raises(OutputError, match="run: cannot be written: Input/output"),
        new_folder(tmp_path / "run"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_where_no_mode_can_be_changed_results_are_written(tmp_path, monkeypatch):
    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, fails(errno.EPERM))
    with new_folder(tmp_path / "run") as folder:
        (folder / "run.json").write_text("{}")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_where_nothing_can_be_synced_files_are_written(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", fails(number))
    write_file(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_a_file_that_cannot_be_synced_does_not_take_its_name(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        write_file(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_once_it_has_its_name_nothing_fails_a_file(tmp_path, monkeypatch):
    def sync(path):
        if path == tmp_path:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "sync", sync)
    write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_once_it_has_its_name_nothing_fails_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("fcfn_abm.process.folders.sync", fails(errno.EIO))
    with new_folder(tmp_path / "run") as folder:
        (folder / "run.json").write_text("{}")
        monkeypatch.setattr(Path, "unlink", fails(errno.EIO))
    assert (tmp_path / "run" / "run.json").exists()


def test_a_folder_that_cannot_be_removed_fails_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.rmtree", fails(errno.EIO))  # as of fstat, which it passes on
    with new_folder(tmp_path / "run") as folder:
        (folder / "run.json").write_text("{}")
    remove_folder(tmp_path / "run")
    assert (tmp_path / "run" / "run.json").exists()


def test_what_cannot_be_listed_is_an_error_and_not_empty(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").touch()
    scandir = os.scandir
    assert [path.name for path in list_files(tmp_path)] == ["file"]
    monkeypatch.setattr(
        os, "scandir", lambda p: fails(errno.EIO)() if Path(p).name == "inner" else scandir(p)
    )
    with pytest.raises(OSError, match="Input/output"):
        list(list_files(tmp_path))


def test_files_are_listed_in_the_order_of_their_paths(tmp_path):
    for name in ("b.py", "a/z.py", "a.py", "a/b/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(list_files(tmp_path)) == sorted(p for p in tmp_path.rglob("*") if p.is_file())


def test_results_that_were_moved_aside_get_their_name_back(tmp_path):
    # where two folders cannot be swapped, a command may be killed between two renames
    aside = tmp_path / ".run.partial-dead"
    (aside / "run").mkdir(parents=True)
    (aside / "run" / "run.json").write_text("{}")
    remove_abandoned(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that opens but fails")
def test_a_file_that_opens_but_cannot_be_read_is_named():
    with pytest.raises(OSError, match="Input/output error: '/proc/self/mem'"):
        read_file(Path("/proc/self/mem"))
