"""The k-th system call fails: ``make soak-calls``, or ``python -m soak.calls``.

Works are small ones of each command. Each injection is a fork of a process that has loaded
everything, in which one call on the work's own folders fails, stops half-way, or brings a signal
(``failing_calls.c``, loaded with LD_PRELOAD). What must hold then:

- the exit code is 0 or 2, with one sentence, and no traceback; a signal that kills is obeyed;
- under the final name stands what was there before, or all of the new results: never a half, and
  never new results after an exit code that says otherwise;
- the same command, given again, ends with the bytes of the work that nothing has disturbed, and
  leaves nothing else behind.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import gc
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from soak.child import TRACEBACK

SOURCE = Path(__file__).with_name("failing_calls.c")
CALLS = {
    "o": "open to read", "O": "open to write", "c": "close", "r": "read", "w": "write",
    "W": "write", "y": "fsync", "l": "lock", "s": "stat", "t": "truncate", "m": "chmod",
    "M": "mkdir", "u": "remove", "n": "rename", "d": "open a folder", "i": "list a folder",
}  # fmt: skip
FAULTS: dict[str, tuple[str, Callable[[], dict[str, int]]]] = {
    "EIO": ("".join(CALLS), lambda: {"error": errno.EIO}),
    "ENOSPC": ("OwWyMn", lambda: {"error": errno.ENOSPC}),
    "EMFILE": ("oOd", lambda: {"error": errno.EMFILE}),
    "EINTR": ("oOrwyl", lambda: {"error": errno.EINTR}),
    "ENOLCK": ("l", lambda: {"error": errno.ENOLCK}),
    "short": ("rw", lambda: {"short": 1}),
    "SIGKILL": ("".join(CALLS), lambda: {"sig": signal.SIGKILL}),
    "SIGTERM": ("".join(CALLS), lambda: {"sig": signal.SIGTERM}),
    "SIGHUP": ("".join(CALLS), lambda: {"sig": signal.SIGHUP}),
}
"""Faults by name: in which calls they are injected, and what the shim is told."""

MARKET = 'seed = 5\nrecord.traces = "all"\npopulation.n_nodes = 12\nrounds.maximum = 4\n'
TRAINING = """
seed = 6
population.n_nodes = 3
rounds.maximum = 4
privacy.delta = 1e-4
[training]
rounds = 2
checkpoint_every = 1
learning_rate = 2.0
compare = []
"""
SWEEP = """
seed = 7
population.n_nodes = 5
rounds.maximum = 5
[sweep]
replications = 2
"""


@dataclass(frozen=True)
class SmallWork:
    """A command that is broken at each of its calls."""

    name: str
    command: str
    """With the placeholders SCENARIO and OUT."""
    scenario: str = ""
    begins_with: str = ""
    """Work whose results lie there before."""
    resumes: bool = False
    """Whether unfinished results stand under the final name, and the command goes on with them."""

    @property
    def repeats(self) -> bool:
        """Whether the command may be given again once its results are there."""
        return self.resumes or "--overwrite" in self.command or self.command.startswith("report")


WORKS = (
    SmallWork("run", "run SCENARIO --out OUT -q", MARKET),
    SmallWork("run, replaced", "run SCENARIO --out OUT -q --overwrite --set seed=6", MARKET, "run"),
    SmallWork("training", "run SCENARIO --out OUT -q --workers 1", TRAINING),
    SmallWork("sweep", "sweep SCENARIO --out OUT -q", SWEEP, resumes=True),
    SmallWork(
        "sweep with records",
        "sweep SCENARIO --out OUT -q",
        SWEEP + 'keep = "record"\n',
        resumes=True,
    ),
    SmallWork("comparison", "compare SCENARIO --out OUT -q --replications 1", MARKET),
    SmallWork(
        "calibration",
        "calibrate SCENARIO --out OUT -q --workers 1 --seeds 1 --epsilons 10,300,10000",
        TRAINING,
    ),
    SmallWork("report", "report OUT", begins_with="run"),
    SmallWork("report in Markdown", "report OUT --format md", begins_with="run"),
)


@dataclass(frozen=True)
class Ended:
    """How an injection ended."""

    code: int
    text: str
    n_calls: int
    calls: str
    """One letter a call; see `CALLS`."""


class Shop:
    """Forks works from this process, which must have the shim loaded."""

    def __init__(self, folder: Path, works: Sequence[SmallWork] = WORKS) -> None:
        self.folder, self.root = folder, folder / "root"
        self._shim = ctypes.CDLL(None)
        self._wholes: dict[str, tuple[dict[str, str], dict[str, str], str]] = {}
        _load(trains=any(work.scenario == TRAINING for work in works))
        gc.freeze()  # so that forks share what is loaded, and copy none of it

    def whole(self, work: SmallWork) -> tuple[dict[str, str], dict[str, str], str]:
        """Return the trees before and after a work that nothing disturbs, and its calls."""
        if work.name not in self._wholes:
            before = self.set_up(work)
            ended = self.fork(work, trace=True)
            assert ended.code == 0, f"{work.name}: {ended.text}"
            after = tree(self.root)
            self._wholes[work.name] = before, after, ended.calls
            shutil.copytree(self.root / "out", self.folder / f"kept-{work.name}")
        return self._wholes[work.name]

    def set_up(self, work: SmallWork) -> dict[str, str]:
        """Lay out what is there before a work; return its tree."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        if work.begins_with:
            kept = self.folder / f"kept-{work.begins_with}"
            if not kept.exists():
                self.whole(next(w for w in WORKS if w.name == work.begins_with))
                return self.set_up(work)
            shutil.copytree(kept, self.root / "out")
        return tree(self.root)

    def fork(self, work: SmallWork, *, trace: bool = False, at: int = -1, **fault: int) -> Ended:
        """Carry a work out in a fork; ``at``: its call that gets the fault."""
        scenario, log = self.folder / f"{work.name}.toml", self.folder / "log"
        scenario.write_text(work.scenario, encoding="utf-8")
        words = {"SCENARIO": str(scenario), "OUT": str(self.root / "out")}
        args = [words.get(word, word) for word in work.command.split()]
        room = ctypes.create_string_buffer(100_000 if trace else 1)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            gc.disable()
            os.close(reader)
            code = 70
            try:
                kept = room if trace else None
                code = _carry_out(args, log, lambda: self._arm(at, fault, kept))
                facts = self._shim.soak_count(), room.value.decode()
                os.write(writer, json.dumps(facts).encode())
            finally:
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            facts = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        n_calls, calls = json.loads(facts) if facts else (-1, "")
        text = log.read_text(encoding="utf-8", errors="replace")
        return Ended(status, text, n_calls, calls)

    def _arm(self, at: int, fault: dict[str, int], room: Any) -> None:
        what = (fault.get(name, 0) for name in ("error", "sig", "short"))
        size = ctypes.c_long(len(room) - 1 if room else 0)
        self._shim.soak_arm(os.fsencode(self.root), ctypes.c_long(at), *what, room, size)

    def inject(self, work: SmallWork, at: int, fault: str) -> str:
        """Inject a fault, and judge; return how it went, or raise AssertionError."""
        before, after, _ = self.whole(work)
        self.set_up(work)
        settings = FAULTS[fault][1]()
        ended = self.fork(work, at=at, **settings)
        found = tree(self.root)
        self._judge(work, ended, settings.get("sig", 0), found)
        if found == before and ended.code != 0:
            return "nothing left"
        if found == after and ended.code == 0:
            return "done all the same"
        again = self.fork(work)
        taken = visible(found) == visible(after) and not work.repeats
        wanted = 2 if taken else 0
        assert again.code == wanted, f"given again: exit code {again.code}\n{again.text}"
        last = tree(self.root)
        assert last == after, f"given again: {_compare(last, after)}"
        return "whole, clean at the next" if visible(found) == visible(after) else "gone on with"

    def _judge(self, work: SmallWork, ended: Ended, sig: int, found: dict[str, str]) -> None:
        before, after, _ = self.whole(work)
        assert TRACEBACK not in ended.text, ended.text
        assert ended.code in ((-sig, 0) if sig else (0, 2)), f"exit code {ended.code}\n{ended.text}"
        if ended.code == 2:
            assert ended.text.startswith("fcfn: "), ended.text
        shown = visible(found)
        if ended.code == 0:
            assert shown == visible(after), f"exit code 0: {_compare(shown, visible(after))}"
            return
        if not work.resumes:
            states = [visible(before), visible(after)] if sig else [visible(before)]
            if work.name == "report in Markdown":  # its figures are files of their own
                shown, *states = (leave_out_figures(state) for state in (shown, *states))
            assert shown in states, (
                f"exit code {ended.code}: {_compare(shown, states[0])}\n{ended.text}"
            )


def tree(folder: Path) -> dict[str, str]:
    """Return all that lies below a folder: digests of files, and the names of folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def visible(found: dict[str, str]) -> dict[str, str]:
    """Return what is not hidden."""
    return {name: digest for name, digest in found.items() if not _is_hidden(name)}


def leave_out_figures(found: dict[str, str]) -> dict[str, str]:
    """Return what is neither a figure nor its data."""
    return {n: d for n, d in found.items() if not n.endswith((".svg", ".csv"))}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _compare(found: dict[str, str], expected: dict[str, str]) -> str:
    more, less = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    other = sorted(n for n in set(found) & set(expected) if found[n] != expected[n])
    return f"more: {more[:6]}, less: {less[:6]}, other bytes: {other[:6]}"


def _load(*, trains: bool) -> None:
    """Load what commands need, and make what does not touch folders cheap: forks start here."""
    import matplotlib.figure
    from typer.main import get_command

    import fcfn_abm as fa
    from fcfn_abm import cli
    from fcfn_abm.process import options
    from fcfn_abm.process.workers import Serial
    from fcfn_abm.report import figures
    from fcfn_abm.report.figures import records
    from fcfn_abm.runs import facts, training_workers  # noqa: F401 - with the true select_workers

    def save(_: Any, file: Any, **__: Any) -> None:
        if isinstance(file, io.TextIOBase):
            file.write("<svg/>")
        elif hasattr(file, "write"):
            file.write(b"<svg/>")
        else:
            Path(file).write_bytes(b"a picture")

    empty = matplotlib.figure.Figure()
    matplotlib.figure.Figure.savefig = save
    records.main_figures = lambda _: {"convergence": empty}
    figures.comparison = figures.calibration = lambda *_, **__: empty
    options.select_workers = lambda *_, **__: Serial()
    cli.app = get_command(cli.app)
    facts.describe_program()
    made = facts.describe_provenance(0.0)  # with the times of day
    facts.describe_provenance = lambda *_: made
    for text in (MARKET, TRAINING) if trains else (MARKET,):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            fa.run_scenario(fa.load_scenario(file.name))
    time.perf_counter = lambda: 0.0  # which stands in the facts of a run


def _carry_out(args: list[str], log: Path, arm: Callable[[], None]) -> int:
    from fcfn_abm.cli import main

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["fcfn", *args]
    arm()
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


def build_shim(folder: Path) -> Path | None:
    """Compile the shim; None where there is no compiler, or no LD_PRELOAD."""
    compiler, shim = shutil.which("cc"), folder / "failing_calls.so"
    if compiler is None or sys.platform != "linux":
        return None
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(shim), str(SOURCE), "-ldl"]
    made = subprocess.run(command, capture_output=True, check=False)
    return shim if made.returncode == 0 else None


def run_with_shim(args: list[str]) -> subprocess.CompletedProcess[str] | None:
    """Run this module in a process with the shim loaded; None where there can be none."""
    with tempfile.TemporaryDirectory() as folder:
        shim = build_shim(Path(folder))
        if shim is None:
            return None
        return subprocess.run(
            [sys.executable, "-m", "soak.calls", "--loaded", *args],
            env={
                **os.environ,
                "LD_PRELOAD": str(shim),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(SOURCE.parents[1]), *sys.path]),
            },
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )


def injections(shop: Shop, works: Sequence[SmallWork]) -> Iterator[tuple[SmallWork, int, str]]:
    """Yield every fault at every call of every work."""
    for work in works:
        calls = shop.whole(work)[2]
        for at, letter in enumerate(calls):
            for fault, (letters, _) in FAULTS.items():
                if letter in letters:
                    yield work, at, fault


def main() -> None:
    """Inject what is asked for, and what was not injected before; print the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="file of what was done, to go on from")
    parser.add_argument("--sample", type=int, help="so many of all, at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=np.inf)
    parser.add_argument("--works", help="names, with semicolons between; without it all")
    parser.add_argument("--loaded", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.loaded:
        ended = run_with_shim(sys.argv[1:])
        if ended is None:
            print("left out: there is no C compiler (cc) here, or no LD_PRELOAD.")
            return
        print(ended.stdout, end="")
        sys.exit(ended.returncode)
    names = given.works.split(";") if given.works else [work.name for work in WORKS]
    began = time.monotonic()
    known: dict[str, str] = {}
    if given.results and given.results.exists():
        lines = map(json.loads, given.results.read_text(encoding="utf-8").splitlines())
        known = {line["what"]: line["how"] for line in lines}
    tqdm.monitor_interval = 0  # no thread besides: this process forks
    with tempfile.TemporaryDirectory() as folder:
        works = [work for work in WORKS if work.name in names]
        shop = Shop(Path(folder), works)
        todo = list(injections(shop, works))
        if given.sample is not None:
            rng = np.random.default_rng(given.seed)
            todo = [todo[i] for i in rng.permutation(len(todo))[: given.sample]]
        found = Counter[str]()
        for work, at, fault in tqdm(todo, unit="fault", disable=None):
            calls = shop.whole(work)[2]
            what = f"{work.name}: {fault} at call {at} ({CALLS[calls[at]]})"
            if what not in known:
                if time.monotonic() - began > given.seconds:
                    break
                try:
                    known[what] = shop.inject(work, at, fault)
                except AssertionError as error:
                    known[what] = f"BROKEN: {error}"
                if given.results:
                    with given.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"what": what, "how": known[what]}) + "\n")
            how = known[what]
            if how.startswith("BROKEN"):
                tqdm.write(f"{what}: {how}", file=sys.stderr)
            found["BROKEN" if how.startswith("BROKEN") else how] += 1
    print(json.dumps({"injected": found.total(), **found}))
    sys.exit(1 if found["BROKEN"] else 0)


if __name__ == "__main__":
    main()
