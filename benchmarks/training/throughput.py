"""Speed and memory of federated training, as ratios within one run.

    python benchmarks/training/throughput.py [--quick] [--install FOLDER]
                                             [--pfl PYTHON] [--flower PYTHON]
                                             [--tables pytorch workers memory frameworks]

FOLDER receives separate environments for pfl-research and Flower, unless they exist. PYTHON is an
interpreter with one of them. Frameworks that are in neither, or cannot be installed, are omitted.

Prints GitHub Markdown. Each program is a separate process on the same core, with one thread of
torch, and they alternate: A runs a round, B runs a round, A runs a round ... So the ratio of two
consecutive rounds is under equal conditions, also on a shared and noisy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import psutil
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))

from work import N_CLASSES, SHAPE, TIMED, Work, create_timed_cnn

from fcfn_abm.training import NETS

HERE = Path(__file__).parent
VECTOR = 4 * sum(p.numel() for p in create_timed_cnn().parameters())  # bytes of a model vector
CORES = sorted(os.sched_getaffinity(0))

OURS = "ours"
# By default the C library may return memory after each step and fetch it again for the next,
# depending on the layout: nine times the page faults were seen. Here all programs keep it.
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(10**9), "MALLOC_TRIM_THRESHOLD_": str(2 * 10**9)}
FRAMEWORKS = {"pfl": ["pfl[pytorch]"], "flower": ["flwr[simulation]"]}
TABLES = ("pytorch", "workers", "memory", "frameworks")


@dataclass(frozen=True)
class Way:
    """A program and its options."""

    script: str
    variant: str = ""
    python: str = sys.executable
    n_cores: int = 1


@dataclass
class Times:
    """Durations of a program's rounds, in order, without the first."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def over(self, other: Times) -> str:
        """Format the ratio to another's times: best to best, turn by turn, CPU time."""
        turns = sorted(a / b for a, b in zip(self.wall, other.wall, strict=True))
        best, cpu = min(self.wall) / min(other.wall), sum(self.cpu) / sum(other.cpu)
        return f"{best:.2f} ({turns[0]:.2f} to {turns[-1]:.2f}; cpu {cpu:.2f})"


class Runner:
    """A process that runs a round on request.

    Parameters
    ----------
    way : Way
        The program.
    work : Work
        The work of a round.
    environment : dict, optional
        Environment variables to set.

    Raises
    ------
    SystemExit
        If the process ends early; with its last output.
    """

    def __init__(self, way: Way, work: Work, environment: dict[str, str] | None = None) -> None:
        self._name = f"{way.script} {way.variant}"
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed on exit
        self._process = subprocess.Popen(
            [way.python, str(HERE / way.script), *replace(work, variant=way.variant).command()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, CORES[-way.n_cores :]),
        )

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        started = self.processes()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0 if exception[0] else 60)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def ready(self) -> None:
        """Wait until it is ready for a round."""
        self._read()

    def round(self) -> tuple[float, float]:
        """Run a round; return wall and CPU time in seconds."""
        before = self.cpu()
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        wall = float(self._read())
        return wall, self.cpu() - before

    def processes(self) -> list[psutil.Process]:
        """Return the process and all its children."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        return []

    def cpu(self) -> float:
        """Return the CPU time of all its processes, in seconds."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def measure_shared(self) -> int:
        """Return the current memory of all its processes, in bytes, counting shared memory once."""
        total = 0
        for process in self.processes():
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def reset_peak(self) -> None:
        """Reset the peak."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Return the peak of its own resident memory, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])

    def _read(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(f"{self._name} has ended:\n{self._log.read()[-2000:]}")
        return json.loads(line)


def race(ways: dict[str, Way], work: Work) -> dict[str, Times]:
    """Alternate programs; the first round of each is a warm-up and not counted."""
    times = {name: Times() for name in ways}
    with ExitStack() as stack:
        runners = {name: stack.enter_context(Runner(way, work, KEEP)) for name, way in ways.items()}
        for runner in runners.values():
            runner.ready()
        for turn in tqdm(range(work.rounds), desc=", ".join(ways), unit="turn", disable=None):
            for name, runner in runners.items():
                wall, cpu = runner.round()
                if turn:
                    times[name].wall.append(wall)
                    times[name].cpu.append(cpu)
    return times


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print a markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def describe_work(work: Work) -> str:
    return f"{work.nodes} nodes x {work.samples} samples, batch {work.batch}"


def against_pytorch(works: list[Work]) -> None:
    """Compare with loops that train one net on the same samples, and naive federated averaging."""
    ways = {
        OURS: Way("ours.py", "update"),
        "noise": Way("ours.py", "update+noise"),
        "sum": Way("ours.py", "update+noise-of-sum"),
        "dp-sgd": Way("ours.py", "dp-sgd"),
        "limit": Way("plain.py", "tuned"),
        "ordinary": Way("plain.py", "ordinary"),
        "naive": Way("naive.py"),
    }
    rows = []
    for work in works:
        times = race(ways, work)
        rows.append(
            [
                describe_work(work),
                f"{work.samples_per_round / min(times[OURS].wall):,.0f}",
                times["limit"].over(times[OURS]),
                times["limit"].over(times["noise"]),
                times["limit"].over(times["sum"]),
                times["limit"].over(times["dp-sgd"]),
                times["ordinary"].over(times[OURS]),
                times["naive"].over(times[OURS]),
            ]
        )
    print("**Samples per second against PyTorch alone, one core, fp32**\n")
    table(
        [
            "a round",
            "ours: samples/s",
            "ours over the tuned loop (the limit)",
            "the same, with noise per node",
            "the same, noise of the sum",
            "dp-sgd over the tuned loop",
            "ours over an ordinary loop",
            "ours over naive federated averaging",
        ],
        rows,
    )


def against_frameworks(pythons: dict[str, str | None], works: list[Work]) -> None:
    """Run the same rounds on pfl-research and on Flower's simulation."""
    scripts = {"pfl": "pfl_rounds.py", "flower": "flower_rounds.py"}
    for name, python in pythons.items():
        if python is None:
            continue
        ways = {
            OURS: Way("ours.py", "update"),
            "bf16": Way("ours.py", "update+bf16"),
            "default": Way(scripts[name], "", python),
            "channels last": Way(scripts[name], "channels_last", python),
        }
        rows = []
        for work in works:
            # one at a time: Ray's waiting processes still use some of the core
            times = [
                race({OURS: ways[OURS], "bf16": ways["bf16"], layout: ways[layout]}, work)
                for layout in ("default", "channels last")
            ]
            smallest = peak(ways[OURS], work)
            rows.append(
                [
                    describe_work(work),
                    times[0]["default"].over(times[0][OURS]),
                    times[1]["channels last"].over(times[1][OURS]),
                    times[0]["default"].over(times[0]["bf16"]),
                    f"{smallest / peak(ways['default'], work):.2f}",
                ]
            )
        print(f"**Against {versions(name, python)}: its time over ours, and memory, one core**\n")
        table(
            [
                "a round",
                "default",
                "channels last",
                "default, over our bf16",
                "our peak memory over its peak memory",
            ],
            rows,
        )


def versions(name: str, python: str) -> str:
    """Return the versions of the framework, torch and Python."""
    package = {"pfl": "pfl", "flower": "flwr"}[name]
    code = (
        "import platform; from importlib.metadata import version as v; "
        f"print('{package}', v('{package}'), 'on torch', v('torch'), "
        "'and Python', platform.python_version())"
    )
    return subprocess.check_output([python, "-c", code], text=True).strip()


def peak(way: Way, work: Work, every: float = 0.02) -> int:
    """Return the peak memory of a program, over all its processes, in bytes."""
    most, done = 0, threading.Event()

    with Runner(way, work) as runner:

        def look() -> None:
            nonlocal most
            while not done.wait(every):
                most = max(most, runner.measure_shared())

        looking = threading.Thread(target=look)
        looking.start()
        try:
            runner.ready()
            for _ in range(min(work.rounds, 3)):
                runner.round()
        finally:
            done.set()
            looking.join()
    return most


def growth(way: Way, work: Work) -> int:
    """Return the peak memory of training after one round, in bytes."""
    with Runner(way, work) as runner:
        runner.ready()
        runner.round()
        runner.reset_peak()
        runner.round()
        return runner.peak()


def workers(works: list[Work]) -> None:
    """Compare two training threads on two cores with one."""
    if len(CORES) < 2:
        print("No table of worker threads on a single core.\n")
        return
    rows = []
    for work in works:
        times = race(
            {
                "one": Way("ours.py", "update", n_cores=2),
                "two": Way("ours.py", "update+2workers", n_cores=2),
            },
            work,
        )
        rows.append([describe_work(work), times["one"].over(times["two"])])
    print("**Speed-up of two worker threads on two cores**\n")
    table(["a round", "two over one"], rows)


def memory(n_nodes: int) -> None:
    """Measure the memory per node and per worker."""
    work = Work(nodes=n_nodes, samples=10, batch=10, rounds=3)
    alone = replace(work, nodes=1, samples=10 * n_nodes)
    one = growth(Way("ours.py", "update"), alone)
    idle = growth(Way("ours.py", "update+idle"), work)
    all_ = growth(Way("ours.py", "update"), work)
    bare = growth(Way("plain.py", "tuned"), alone)
    rows = [
        ["each idle node", f"{(idle - one) / n_nodes / 1e3:.1f} kB"],
        ["each node that trains", f"{(all_ - one) / n_nodes / 1e3:.1f} kB"],
        ["all, above a plain loop on the same data", f"{(all_ - bare) / 1e6:.0f} MB"],
    ]
    extra = 4
    for batch in (10, 1):  # with one sample almost only vectors
        few = replace(work, nodes=100, batch=batch)
        sizes = [
            growth(Way("ours.py", f"update+{n_workers}workers"), few)
            for n_workers in (1, 1 + extra)
        ]
        added = (sizes[1] - sizes[0]) / extra
        rows.append(
            [
                f"each further worker, batch {batch}",
                f"{added / 1e6:.1f} MB, or {added / VECTOR:.1f} model vectors",
            ]
        )
    print(f"**Memory while training, N = {n_nodes:,} nodes of 10 samples, batch 10**\n")
    table(["", f"peak resident memory (a model vector: {VECTOR / 1e6:.2f} MB)"], rows)


def install(name: str, folder: Path) -> str | None:
    """Return a Python with a framework and our version of torch, or None if that is impossible."""
    place, made = folder / name, folder / name / "made"
    python = place / "bin" / "python"
    if not made.exists():
        torch = f"torch=={version('torch').partition('+')[0]}"
        for command in (
            [sys.executable, "-m", "venv", str(place)],
            [str(python), "-m", "pip", "install", "--quiet", *FRAMEWORKS[name], torch, "numpy"],
        ):
            if subprocess.run(command).returncode:
                print(f"{name} cannot be installed in {place} and is omitted.\n")
                return None
        made.touch()
    return str(python)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer nodes and turns")
    parser.add_argument(
        "--install", metavar="FOLDER", type=Path, help="install pfl and Flower here"
    )
    parser.add_argument("--pfl", metavar="PYTHON", help="a Python that has pfl")
    parser.add_argument("--flower", metavar="PYTHON", help="a Python that has flwr")
    parser.add_argument("--turns", type=int, help="counted rounds of each; default 8")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="only these")
    options = parser.parse_args()
    theirs = NETS.create(TIMED["kind"], TIMED["options"]).build(SHAPE, N_CLASSES)
    if str(theirs) != str(create_timed_cnn()):
        raise SystemExit("work.py and fcfn_abm build different nets.")
    quick = options.quick
    rounds = 1 + (options.turns or (2 if quick else 8))
    few = 5 if quick else 1  # divisor of the number of nodes
    works = [
        Work(nodes=40 // few, samples=128, batch=128, rounds=rounds),
        Work(nodes=50 // few, samples=100, batch=100, rounds=rounds),
        Work(nodes=50 // few, samples=100, batch=10, rounds=rounds),
        Work(nodes=200 // few, samples=10, batch=10, rounds=rounds),
    ]
    if "pytorch" in options.tables:
        against_pytorch(works)
    if "workers" in options.tables:
        workers(works[1:])
    if "memory" in options.tables:
        memory(200 if quick else 1000)
    if "frameworks" in options.tables:
        pythons = {"pfl": options.pfl, "flower": options.flower}
        if options.install:
            pythons = {
                name: given or install(name, options.install) for name, given in pythons.items()
            }
        against_frameworks(pythons, works[1:])


if __name__ == "__main__":
    main()
