"""Overhead of a sweep over the sum of its runs.

Plays the same short markets directly, one after another in this process after all imports, and as
sweeps: in this process, on processes, and on a local Dask cluster. Prints wall time times workers
and CPU time of all processes, relative to the direct runs, and the cost of a run besides the rounds
of its market. This includes the start of the workers.

    python benchmarks/sweep/overhead.py --runs 1000 --workers 1 2
    python benchmarks/sweep/overhead.py --runs 10000 --nodes 50 --workers 2 --no-dask
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import fcfn_abm as fa
from fcfn_abm.build import list_runs
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.process.cluster import Cluster
from fcfn_abm.process.workers import Processes, Serial, Workers
from fcfn_abm.runs.results import carry_out_run
from fcfn_abm.scenario import Scenario


def scenario(n_runs: int, n_nodes: int) -> Scenario:
    """Return a sweep of markets that converge within tens of rounds."""
    return Scenario.model_validate(
        {
            "seed": 1,
            "population": {"n_nodes": n_nodes, "rho": {"kind": "lognormal", "sigma": 0.2}},
            "game": {"budget": 5.0},
            "server": "fixed",
            "sweep": {
                "maximum": max(n_runs, 10_000),
                "replications": n_runs // 10,
                "axes": {"population.rho.sigma": {"low": 0.1, "high": 0.5, "n": 10}},
            },
        }
    )


def processor_seconds() -> float:
    """Return the CPU time of this process and of its finished children."""
    forkserver._forkserver._stop()  # its CPU time, and its workers', counts only after it has ended
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def measure_times(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), processor_seconds()
    work()
    return time.perf_counter() - wall, processor_seconds() - cpu


def play(scenario: Scenario) -> float:
    """Play a market as a sweep does, and return the CPU time of its rounds, in seconds."""
    market = PrivacyMarket(scenario, collect_nodes=False, is_checked=True)
    started = time.process_time()
    market.run_until()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000, help="multiple of ten")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--dask", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    sweep = scenario(args.runs, args.nodes)
    started = time.process_time()
    runs = list_runs(sweep)
    listed = time.process_time() - started
    for run in runs[:100]:  # imports, and compiles if necessary
        play(run.scenario)
    rounds = 0.0

    def play_all() -> None:
        nonlocal rounds
        rounds = sum(play(run.scenario) for run in runs)

    bare_wall, bare_cpu = measure_times(play_all)
    few = runs[:1000]
    _, run_cpu = measure_times(lambda: [carry_out_run(run, None) for run in few])
    of_rounds = sum(play(run.scenario) for run in few)
    print(f"{len(runs)} runs, bare: {bare_wall:.1f} s, {1000 * bare_wall / len(runs):.2f} ms each")
    print(
        f"{1000 * rounds / len(runs):.2f} ms are rounds; the rest of a run takes "
        f"{1000 * (run_cpu - of_rounds) / len(few):.2f} ms, and its entry in the list of runs "
        f"{1000 * listed / len(runs):.3f} ms"
    )
    places: list[tuple[str, int, Workers]] = [("this process", 1, Serial())]
    places += [(f"{n} process(es)", n, Processes(n)) for n in args.workers]
    if args.dask:
        places += [(f"Dask, local:{n}", n, Cluster(f"local:{n}")) for n in args.workers]
    print(f"{'':18}{'clock':>9}{'x workers':>12}{'processor':>12}{'ms a run':>12}")
    for name, n_workers, place in places:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            wall, cpu = measure_times(lambda out=out, place=place: fa.run_sweep(sweep, out, place))
        print(
            f"{name:18}{wall:7.1f} s{wall * n_workers / bare_wall - 1:+12.0%}"
            f"{cpu / bare_cpu - 1:+12.0%}{1000 * wall / len(runs):12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
