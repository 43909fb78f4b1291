"""Kills, full disks, closed folders, crowds, a clock that jumps, damaged files."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from fcfn_abm.cli.base import INTERRUPTED
from fcfn_abm.errors import FcfnError
from soak.child import Command, Place, run
from soak.works import WORKS, Work, digests

type Counts = Counter[str]


@cache
def whole(work: Work, folder: Path) -> tuple[Path, float]:
    """Carry out a work without any fault; return its folder, and how long it took."""
    out, seconds = folder / f"{work.name}-whole", 0.0
    for _ in range(2):  # the first time all is still to be loaded and compiled
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        run(work.args(folder, out), folder / "log").require_code(0)
        seconds = time.perf_counter() - started
    return out, seconds


def kills(work: Work, folder: Path, n: int, rng: np.random.Generator) -> Counts:
    """Kill a command with signal 9 again and again, at random moments, until ``n`` kills hit.

    After each kill there is nothing under the final name, or all of it; and the command, given
    again and again, ends with the same bytes as if nothing had happened.
    """
    return _stopped(work, folder, n, rng, signal.SIGKILL)


def interrupts(work: Work, folder: Path, n: int, rng: np.random.Generator) -> Counts:
    """Interrupt a command as Ctrl-C does: the same must hold, and it says so and obeys."""
    return _stopped(work, folder, n, rng, signal.SIGINT)


def _stopped(
    work: Work, folder: Path, n: int, rng: np.random.Generator, how: signal.Signals
) -> Counts:
    reference, seconds = whole(work, folder)
    expected, counts = digests(reference), Counter[str]()
    while counts["stops"] < n:
        out = folder / f"{work.name}-stopped"
        shutil.rmtree(out, ignore_errors=True)
        args, in_a_row = work.args(folder, out), 0
        while True:
            command = Command(args, folder / "log")
            # a work that goes on gets nearer to its end each time; the last try is let alone
            patience = np.inf if in_a_row > 12 else rng.uniform(0, 1.1 * seconds)
            if not command.stop_after(min(patience, 600.0), how):
                command.end().require_code(0)
                break
            ended = command.end()
            if how == signal.SIGINT:
                ended.require_code(0, INTERRUPTED)
            in_a_row += 1
            counts["stops"] += 1
            if ended.code == 0 or (out.exists() and not work.resumes):
                counts["whole in spite of it"] += 1
                work.read(out)
                if ended.code != 0 and not work.resumes:  # the next command cleans up after it
                    run(args, folder / "log").require_code(2)
                break
        assert digests(out) == expected, f"{work.name}: other bytes after {in_a_row} stops"
        counts["works ended"] += 1
        hidden = [path.name for path in folder.iterdir() if path.name.startswith(f".{out.name}")]
        assert not hidden, f"left behind: {hidden}"
    return counts


def full_disks(work: Work, folder: Path, n: int, rng: np.random.Generator) -> Counts:
    """Let the disk fill up after a random number of bytes of a file."""
    reference, _ = whole(work, folder)
    expected, counts = digests(reference), Counter[str]()
    largest = max(path.stat().st_size for path in reference.rglob("*") if path.is_file())
    out = folder / f"{work.name}-full"
    for _ in range(n):
        shutil.rmtree(out, ignore_errors=True)
        size = int(rng.uniform(0, 1.05 * largest))
        ended = run(work.args(folder, out), folder / "full-log", Place(file_size=max(size, 4096)))
        _judge(ended, work, out, expected, counts)
    return counts


def small_disks(work: Work, folder: Path, n: int, rng: np.random.Generator) -> Counts:
    """Write to a file system that is too small, where this machine lets us make one."""
    reference, _ = whole(work, folder)
    expected, counts = digests(reference), Counter[str]()
    need = sum(path.stat().st_size for path in reference.rglob("*") if path.is_file())
    for _ in range(n):
        with _small(folder / "small", int(rng.uniform(0.02, 1.0) * need)) as disk:
            if disk is None:
                counts["not possible here"] += 1
                return counts
            ended = run(work.args(folder, disk / "out"), folder / "log")
            _judge(ended, work, disk / "out", expected, counts)
    return counts


def _judge(ended, work: Work, out: Path, expected: dict[str, str], counts: Counts) -> None:
    ended.require_code(0, 2)
    if ended.code == 0:
        assert digests(out) == expected
        counts["had room"] += 1
        return
    counts["reported"] += 1
    if out.exists() and not work.resumes:
        raise AssertionError(f"{out}: is there, after\n{ended.text}")


@contextmanager
def _small(folder: Path, size: int) -> Iterator[Path | None]:
    import subprocess

    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={max(size, 8192)}", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    try:
        yield folder if made else None
    finally:
        if made:
            subprocess.run(["umount", str(folder)], check=True)


def closed_folders(work: Work, folder: Path) -> Counts:
    """Try to write where nobody may."""
    closed = folder / "closed"
    closed.mkdir(exist_ok=True)
    closed.chmod(0o555)
    for out in (closed / "out", closed / "deeper" / "out"):
        args = work.args(folder, out)
        run(args, folder / "closed-log", Place(powerless=True)).require_code(2)
        assert not out.exists()
    return Counter({"reported": 2})


def crowds(work: Work, folder: Path, n: int, rng: np.random.Generator) -> Counts:
    """Start three processes on one output folder at once."""
    reference, seconds = whole(work, folder)
    expected, counts = digests(reference), Counter[str]()
    for _ in range(n):
        out = folder / f"{work.name}-crowd"
        shutil.rmtree(out, ignore_errors=True)
        commands = []
        for index in range(3):
            commands.append(Command(work.args(folder, out), folder / f"log-{index}"))
            time.sleep(float(rng.uniform(0, 0.3 * seconds)))
        ends = [command.end() for command in commands]
        for ended in ends:
            ended.require_code(0, 2)
        n_done = sum(ended.code == 0 for ended in ends)
        assert n_done >= 1, ends
        if not work.resumes:
            assert n_done == 1, ends
        assert digests(out) == expected
        counts["refused"] += 3 - n_done
        counts["done"] += n_done
    return counts


def jumping_clocks(work: Work, folder: Path, n: int, rng: np.random.Generator) -> Counts:
    """Let the clock jump to and fro by years."""
    reference, _ = whole(work, folder)
    expected, out = digests(reference), folder / f"{work.name}-clock"
    for _ in range(n):
        shutil.rmtree(out, ignore_errors=True)
        clock = tuple(rng.uniform(0, 4e9, size=7).tolist())
        run(work.args(folder, out), folder / "log", Place(clock=clock)).require_code(0)
        assert digests(out) == expected
    return Counter({"same bytes": n})


def damage(work: Work, folder: Path, n: int, rng: np.random.Generator) -> Counts:
    """Flip, cut off, empty, remove or replace files of a folder, and read it."""
    reference, _ = whole(work, folder)
    counts = Counter[str]()
    expected = repr(work.read(reference))
    files = sorted(
        path.relative_to(reference)
        for path in reference.rglob("*")
        if path.is_file() and path.suffix in {".parquet", ".json", ".toml", ""}
    )
    out = folder / f"{work.name}-damaged"
    for index in range(n):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(reference, out)
        file = out / files[index % len(files)]
        done = _spoil(file, rng)
        try:
            found = repr(work.read(out)).replace(str(out), str(reference))
        except FcfnError as error:
            counts["reported"] += 1
            assert str(out) in str(error), f"{file}, {done}: {error}"
        else:
            assert found == expected, f"{file}, {done}: read as if nothing had happened"
            counts["read the same"] += 1
    return counts


def _spoil(file: Path, rng: np.random.Generator) -> str:
    kind = rng.choice(["flip", "cut", "empty", "gone", "noise"])
    data = bytearray(file.read_bytes())
    if kind == "flip" and data:
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[int(rng.integers(len(data) + 1)) :]
    elif kind == "empty":
        data.clear()
    elif kind == "noise":
        data[:] = rng.bytes(int(rng.integers(1, 2000)))
    if kind == "gone":
        file.unlink()
    else:
        file.write_bytes(data)
    return str(kind)


def by_name(name: str) -> Work:
    """Return a work."""
    return next(work for work in WORKS if work.name == name)
