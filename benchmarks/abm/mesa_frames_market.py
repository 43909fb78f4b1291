"""The market in mesa-frames (agents as a Polars frame) with simultaneous moves, for comparison.

    PYTHON benchmarks/abm/mesa_frames_market.py N

with a Python in whose environment mesa-frames is installed (it needs other versions than this
package). Prints the shortest time of a round, in seconds.
"""

import sys
import time

import numpy as np
import polars as pl
from mesa_frames import AgentSetPolars, ModelDF


class Nodes(AgentSetPolars):
    """Nodes that go half of the way to their best response, cautiously, in one expression."""

    def __init__(self, model, rho, epsilon):
        super().__init__(model)
        zeros = np.zeros(rho.size, dtype=np.int64)
        self += pl.DataFrame(
            {
                "unique_id": np.arange(rho.size),
                "rho": rho,
                "epsilon": epsilon,
                "caution": np.ones(rho.size),
                "idle_rounds": zeros,
            }
        )

    def step(self):
        """Respond to the last round's reports."""
        budget = self.model.budget
        rho, own = pl.col("rho"), pl.col("epsilon")
        others = self.agents["epsilon"].sum() - own
        surplus = budget - rho * others
        root = budget**0.5 / rho.sqrt() * others.sqrt()
        best = pl.when(surplus > 0).then(root * (surplus / budget) / (1.0 + others / root))
        steep = 4.0 * rho * others / budget
        care = pl.min_horizontal(
            pl.when((steep > 0.0) & (steep < 1.0)).then(steep.sqrt()).otherwise(1.0),
            1.5 * pl.col("caution"),
        )
        gain = self.model.gain
        self.agents = (
            self.agents.with_columns(best=best.otherwise(0.0), caution=care)
            .with_columns(
                epsilon=own + gain * (pl.col("best") - own) * pl.col("caution"),
                idle_rounds=pl.when(pl.col("best") > 0)
                .then(0)
                .otherwise(pl.col("idle_rounds") + 1),
            )
            .with_columns(epsilon=pl.when(pl.col("idle_rounds") >= 3).then(0.0).otherwise(own))
            .drop("best")
        )


class Market(ModelDF):
    """One round per step."""

    def __init__(self, n_nodes):
        super().__init__()
        self.budget, self.gain = 3.0, 0.5
        rho = np.random.default_rng(1).uniform(0.0005, 0.0015, n_nodes)
        self.agents += Nodes(self, rho, self.budget / (n_nodes * rho))

    def step(self):
        """Play one round."""
        self.agents.do("step")


if __name__ == "__main__":
    market = Market(int(sys.argv[1]))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        market.step()
        times.append(time.perf_counter() - start)
    print(min(times))
