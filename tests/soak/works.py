"""Small works that campaigns break: a command, what it leaves, and how that is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fcfn_abm as fa

ECONOMICS = """
seed = 5
record.traces = "all"
[population]
n_nodes = 200
[rounds]
maximum = 60
tolerance = 1e-30
"""
TRAINING = """
seed = 6
[population]
n_nodes = 6
[rounds]
maximum = 30
[privacy]
delta = 1e-4
[training]
rounds = 6
checkpoint_every = 1
learning_rate = 2.0
compare = ["no-noise"]
"""
EVERY_ROUND = TRAINING + 'schedule = "every-round"\n'
SWEEP = """
seed = 7
[population]
n_nodes = 8
[sweep]
replications = 3
[sweep.axes]
"population.rho.sigma" = [0.1, 0.3, 0.9]
"""


@dataclass(frozen=True)
class Work:
    """A command with an output folder."""

    name: str
    verb: str
    text: str
    read: Callable[[Path], object]
    options: tuple[str, ...] = ()
    resumes: bool = False
    """Whether Run the same command to resume after a kill, and may find its folder there."""

    def args(self, folder: Path, out: Path) -> list[str]:
        """Return the command; writes its scenario into a folder."""
        file = folder / f"{self.name}.toml"
        if not file.exists():
            file.write_text(self.text, encoding="utf-8")
        return [self.verb, str(file), "--out", str(out), *self.options]


def _run(path: Path) -> object:
    record = fa.read_record(path)
    return record.nodes, record.traces


def _sweep(path: Path) -> object:
    return fa.read_sweep(path).frame()


def _page(path: Path) -> object:
    from fcfn_abm.report.render import render_markdown
    from fcfn_abm.runs.report import read_page

    return render_markdown(read_page(path), str, str)


WORKS = (
    Work("economics", "run", ECONOMICS, _run),
    Work("training", "run", TRAINING, _run, ("--workers", "1")),
    Work("every-round", "run", EVERY_ROUND, _run, ("--workers", "1")),
    Work("sweep", "sweep", SWEEP, _sweep, ("--workers", "1"), resumes=True),
    Work("comparison", "compare", ECONOMICS, _page, ("--replications", "3")),
    Work(
        "calibration",
        "calibrate",
        TRAINING,
        _page,
        ("--epsilons", "10,300,10000", "--seeds", "1"),
    ),
)


def digests(out: Path) -> dict[str, str]:
    """Return the digest of each file in a folder, hidden ones too, without the times of a run."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(_without_times(path)).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def _without_times(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name == "run.json":
        facts = json.loads(data).items()
        return repr({k: v for k, v in facts if k not in ("seconds", "provenance")}).encode()
    if path.name == "SHA256SUMS":
        return b"".join(line for line in data.splitlines() if not line.endswith(b"  run.json"))
    return data
