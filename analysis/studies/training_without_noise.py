"""How well the nets learn without noise: accuracy by round, the most that privacy can leave.

    python analysis/studies/training_without_noise.py [--set KEY=VALUE ...] SCENARIO CURVE.csv

Trains the scenario's nodes with its learning rates and rounds, but neither clips nor adds noise, so
the market does not matter: every node takes part in each round. An interrupted training resumes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from fcfn_abm import build, load_scenario
from fcfn_abm.process.workers import count_cores

NO_CLIPPING = 1e9


def main() -> None:
    """Train, and write a row a round after each of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario")
    parser.add_argument("curve", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--workers", type=int, default=count_cores())
    options = parser.parse_args()
    scenario = load_scenario(
        options.scenario,
        [
            "privacy.unit=client",
            "privacy.placement=update",
            f"privacy.clipping_norm={NO_CLIPPING}",
            *options.set,
        ],
    )
    trainer = build.prepare_trainer(scenario, options.workers)
    kept = options.curve.with_suffix(".npz")
    resume = dict(np.load(kept, allow_pickle=False)) if kept.exists() else None
    training = trainer.begin(private=False, resume=resume)
    epsilon, began = np.ones(scenario.population.n_nodes), time.perf_counter()
    while not training.over:
        result = training.step(epsilon)
        partial = kept.with_suffix(".partial.npz")
        np.savez(partial, **training.state())
        partial.replace(kept)
        curve = pd.DataFrame(training.results)[["round", "accuracy", "loss"]]
        curve.to_csv(options.curve, index=False, float_format="%.5f", lineterminator="\n")
        seconds = time.perf_counter() - began
        print(f"round {result.round}: {result.accuracy:.1%} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
