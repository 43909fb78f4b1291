"""Cost of training on a cluster: two workers against two threads, and a simulation of more.

    python benchmarks/training/cluster.py [--rounds 8]

Rounds of both alternate, so that other load on the machine affects both equally. A simulation then
combines the measurements: the time of a round on 1 to 64 workers.
"""

from __future__ import annotations

import argparse
import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil
from ours import create_plan
from work import Work

from fcfn_abm.process.cluster import Cluster, ClusterWorkers
from fcfn_abm.process.workers import format_bytes
from fcfn_abm.training import FederatedTrainer
from fcfn_abm.training.distributed import BlockWorkers
from fcfn_abm.training.sums import count_block_nodes

WORKS = (
    Work(nodes=50, samples=100, batch=100),
    Work(nodes=50, samples=100, batch=10),
    Work(nodes=200, samples=10, batch=10),
)
COUNTS = (1, 2, 4, 8, 16, 32, 64)
BANDWIDTH = 1.25e9
"""Bytes per second of the server's link in the simulation: 10 Gbit/s."""


@dataclass(frozen=True)
class Parts:
    """Components of a round, in seconds."""

    node: float
    """Training of a node."""
    block: float
    """Cost of a block to its worker, besides its nodes."""
    merge: float
    """Cost of a block to the server, besides the bytes on its link."""
    start: float
    """Cost of a round before the first block, besides the parameters on the link."""


def simulate_round(
    n_nodes: int, n_parameters: int, n_workers: int, parts: Parts, *, noisy: bool
) -> float:
    """Return the duration of a round, in seconds.

    Workers take the next block as they become free; sums queue for the server's link and then for
    the server. Parameters go to one worker from the server, and from it to the others one after
    another (Dask may be faster, because workers that have them send them too).

    >>> alone = Parts(node=0.01, block=0.0, merge=0.0, start=0.0)
    >>> round(simulate_round(1000, 0, 1, alone, noisy=False), 6)
    10.0
    >>> round(simulate_round(1000, 0, 5, alone, noisy=False), 6)  # 125 blocks of 8
    2.0
    """
    size = count_block_nodes(n_nodes)
    blocks = [min(size, n_nodes - first) for first in range(0, n_nodes, size)]
    vector = 4 * n_parameters / BANDWIDTH
    begun = parts.start + vector * n_workers
    free = [begun] * n_workers
    done = []
    for n in blocks:
        end = heapq.heappop(free) + n * parts.node + parts.block
        heapq.heappush(free, end)
        done.append(end)
    server = begun
    for end in sorted(done):
        server = max(server, end) + (1 + noisy) * vector + parts.merge
    return float(server)


class Timing:
    """Workers of a cluster, with the CPU time of their computations."""

    def __init__(self, workers: ClusterWorkers) -> None:
        self._workers, self.seconds = workers, 0.0
        self.place, self.count = workers.place, workers.count

    def compute[R](
        self, function: Callable[..., R], calls: Sequence[tuple[object, ...]]
    ) -> Iterator[R]:
        """Yield the result of each call of a function."""
        for found, seconds in self._workers.compute(compute_timed, [(function, *c) for c in calls]):
            self.seconds += seconds
            yield found


def compute_timed[R](function: Callable[..., R], *arguments: object) -> tuple[R, float]:
    """Return the result of a function, and its CPU time in this thread."""
    started = time.thread_time()
    return function(*arguments), time.thread_time() - started


def send_sums(net: object, flat: np.ndarray) -> tuple[np.ndarray, ...]:  # noqa: ARG001
    """Do the work of a block besides training: receive parameters and send sums."""
    return flat.copy(), flat.copy(), 0.5


def create_training(work: Work, workers: int | BlockWorkers) -> Callable[[], object]:
    """Return a function that trains one round."""
    trainer = FederatedTrainer(*create_plan(work), workers, engine="serial")
    training = trainer.begin()
    epsilon = np.full(work.nodes, 1e6)
    return lambda: training.step(epsilon)


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children so far."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(found.user + found.system for found in times)


def measure_messages(workers: ClusterWorkers, n_parameters: int, n_calls: int) -> float:
    """Return the CPU time of all processes for a block without nodes."""
    flat = workers.place(np.zeros(n_parameters, dtype=np.float32))
    list(workers.compute(send_sums, [("", flat)] * 4))
    before = cpu_seconds()
    list(workers.compute(send_sums, [("", flat)] * n_calls))
    return (cpu_seconds() - before) / n_calls


def main() -> None:
    """Measure, and simulate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    n_rounds = parser.parse_args().rounds
    print("load", psutil.getloadavg())
    with Cluster("local:2", timeout=120).connect() as cluster:
        message = measure_messages(cluster, 277_610, 100)
        print(f"CPU time of a block without nodes: {1e3 * message:.1f} ms", flush=True)
        for work in WORKS:
            work = replace(work, rounds=n_rounds + 2)
            timing = Timing(cluster)
            threads, workers = create_training(work, 2), create_training(work, timing)
            threads()
            workers()
            timing.seconds = here = 0.0
            walls: list[tuple[float, float]] = []
            for _ in range(n_rounds):
                before, started = time.process_time(), time.perf_counter()
                threads()
                here += time.process_time() - before
                middle = time.perf_counter()
                workers()
                walls.append((middle - started, time.perf_counter() - middle))
            n_blocks = -(-work.nodes // count_block_nodes(work.nodes))
            there = timing.seconds / n_rounds + n_blocks * message
            ratios = sorted(one / other for one, other in walls)
            print(
                f"{work.nodes} nodes x {work.samples}, batch {work.batch}, CPU times: "
                f"threads {here / n_rounds:.3f} s, workers {timing.seconds / n_rounds:.3f} s and "
                f"{n_blocks} blocks {n_blocks * message:.3f} s: {here / n_rounds / there:.2f}; "
                f"wall {ratios[0]:.2f} to {ratios[-1]:.2f}",
                flush=True,
            )
    print("load", psutil.getloadavg())
    print_simulation(Parts(node=100 / 6124, block=0.002, merge=message / 2, start=0.02))


def print_simulation(parts: Parts) -> None:
    """Print a table of rounds on more workers."""
    print("| nodes | parameters | sent | received | " + " | ".join(map(str, COUNTS)) + " |")
    for n_nodes, n_parameters in ((1000, 277_610), (10_000, 277_610), (10_000, 1_000_000)):
        scaled = replace(parts, node=parts.node * n_parameters / 277_610)
        n_blocks = -(-n_nodes // count_block_nodes(n_nodes))
        times = [simulate_round(n_nodes, n_parameters, n, scaled, noisy=True) for n in COUNTS]
        print(
            f"| {n_nodes:,} | {n_parameters:,} | {format_bytes(64 * 4 * n_parameters)} | "
            f"{format_bytes(n_blocks * 8 * n_parameters)} | "
            + " | ".join(f"{t:.1f}" for t in times)
            + " |"
        )


if __name__ == "__main__":
    main()
