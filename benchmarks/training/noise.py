"""Cost of drawing noise and adding it to an update, compared with other generators.

    python benchmarks/training/noise.py [--turns 200]

Prints a Markdown table: nanoseconds of CPU time per number, the minimum over all turns, in which
each generator draws once, on one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from fcfn_abm.dp.noise import node_noise

N_NUMBERS = 277_610  # parameters of the net that the other benchmarks train


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=200)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    rng, update = np.random.default_rng(1), torch.zeros(N_NUMBERS)
    drawn, chance = torch.empty(N_NUMBERS), torch.Generator().manual_seed(1)
    ways: dict[str, Callable[[], object]] = {
        "NumPy, `standard_normal`, 64 bits": lambda: rng.standard_normal(N_NUMBERS),
        "NumPy, `standard_normal`, 32 bits": lambda: rng.standard_normal(N_NUMBERS, np.float32),
        "torch, `normal_`": lambda: drawn.normal_(generator=chance),
        "ours, `node_noise`": lambda: node_noise(N_NUMBERS, 0.1, 1, 2, 3),
        "ours, and added to an update": lambda: node_noise(N_NUMBERS, 0.1, 1, 2, 3).add_(update),
    }
    least = dict.fromkeys(ways, np.inf)
    for _ in range(turns):
        for name, draw in ways.items():
            start = time.process_time_ns()
            draw()
            least[name] = min(least[name], (time.process_time_ns() - start) / N_NUMBERS)
    print("| generator | ns per number |\n| --- | ---: |")
    for name, cost in least.items():
        print(f"| {name} | {cost:.2f} |")


if __name__ == "__main__":
    main()
