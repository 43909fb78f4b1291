"""The stacked engine against the serial one: samples per second, on the available device.

    python benchmarks/training/engines.py [--device cuda] [--turns 3]

The serial engine works on one core, the stacked one on a CUDA device if there is one. Engines
alternate; CPUs are timed by CPU time, which excludes other jobs, and devices by wall time. The last
column is the difference between the nets after one round, relative to the length of the round's
step.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import numpy as np
import torch
from ours import create_plan
from work import Work

from fcfn_abm.training import FederatedTrainer

WORKS = [
    Work(nodes=40, samples=100, batch=100, variant="update"),
    Work(nodes=40, samples=100, batch=10, variant="update"),
    Work(nodes=200, samples=20, batch=20, variant="update"),
    Work(nodes=40, samples=100, batch=100, variant="dp-sgd"),
    Work(nodes=40, samples=100, batch=10, variant="dp-sgd"),
    Work(nodes=40, samples=100, batch=100, variant="paper+noise-of-sum"),
]


class Rounds:
    """A trainer whose rounds are timed one by one."""

    def __init__(self, work: Work, engine: str, device: str) -> None:
        self.trainer = FederatedTrainer(*create_plan(work), engine=engine, device=device)
        self._private = "noise" in work.variant
        self._epsilon = np.full(work.nodes, 50.0)
        self.seconds: list[float] = []
        on_device = self.trainer.engine.device == "cuda"
        self._now = time.perf_counter if on_device else time.process_time

    def run(self, rounds: int) -> None:
        """Train from the start; the first round, which warms up, does not count."""
        training = self.trainer.begin(private=self._private)
        ends = [self._now()]
        while not training.over:
            training.step(self._epsilon)
            ends.append(self._now())
            if training.round_index == 1:
                flat = torch.from_numpy(training.state()["flat"])
                self.led = flat - self.trainer.first_parameters
        self.seconds += [after - before for before, after in list(pairwise(ends))[-rounds:]]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--turns", type=int, default=2, help="trainings, each of one timed round")
    asked = parser.parse_args()
    print("| a round | serial: samples/s | stacked: samples/s | stacked over serial | apart |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for work in WORKS:
        work = Work(**{**vars(work), "rounds": 2})
        serial = Rounds(work, "serial", "cpu")
        stacked = Rounds(work, "stacked", asked.device)
        for _ in range(asked.turns):
            serial.run(1)
            stacked.run(1)
        rates = [work.samples_per_round / min(one.seconds) for one in (serial, stacked)]
        apart = float((serial.led - stacked.led).norm() / serial.led.norm())
        name = (
            f"{work.variant}, {work.nodes} nodes x {work.samples} samples, batch {work.batch}, "
            f"{work.epochs} epochs"
        )
        print(
            f"| {name} | {rates[0]:,.0f} | {rates[1]:,.0f} | {rates[1] / rates[0]:.2f} | "
            f"{apart:.0e} |",
            flush=True,
        )
    print(f"\nStacked: {stacked.trainer.engine.facts()}; torch {torch.__version__}.")


if __name__ == "__main__":
    main()
