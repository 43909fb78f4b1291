"""Fits of three forms to the gain of a training round: the numbers of docs/closed_loop.md.

Trains the quick start's net with constant, stepwise or random mean epsilons, and fits the
gains of all rounds by least squares, with alpha on a grid:

    none       beta ln(1 + alpha eps)
    loss       beta ln(1 + alpha eps) - k S
    ceiling    beta ln(1 + alpha eps) (1 - S / ceiling)

where S is the accuracy gained before the round. Two minutes on two cores:

    python benchmarks/training/gain_forms.py
"""

from __future__ import annotations

import numpy as np

import fcfn_abm as fa
from fcfn_abm import build

ROUNDS = 40
LOW, HIGH = 0.5, 6.0
GROUPS = [(rate, 0.0, seed) for rate in (1.0, 2.0, 3.0) for seed in (7, 8)]
GROUPS += [(3.0, 0.8, 7), (2.0, 0.8, 7), (3.0, 0.6, 7)]


def list_epsilons() -> list[np.ndarray]:
    """Return the mean epsilon of each round, of four trainings."""
    random = np.exp(np.random.default_rng(1).uniform(np.log(LOW), np.log(HIGH), ROUNDS))
    steps = np.where(np.arange(ROUNDS) // 8 % 2, HIGH, 2 * LOW)
    return [random, steps, np.full(ROUNDS, 1.0), np.full(ROUNDS, 3.0)]


def measure(rate: float, decay: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return epsilon, stock before and gain of each round of four trainings."""
    averaging = f"{{kind = 'ema', decay = {decay}}}" if decay else "none"
    settings = [
        f"training.learning_rate={rate}",
        f"training.averaging={averaging}",
        f"training.rounds={ROUNDS}",
        f"seed={seed}",
    ]
    scenario = fa.load_scenario("quickstart", settings)
    trainer, n_nodes = build.prepare_trainer(scenario), scenario.population.n_nodes
    rows = []
    for epsilons in list_epsilons():
        training = trainer.begin(misreport=np.ones(n_nodes), private=True)
        for epsilon in epsilons:
            training.step(np.full(n_nodes, epsilon))
        accuracy = np.array([result.accuracy for result in training.results])
        rows.append((epsilons, accuracy[:-1] - accuracy[0], np.diff(accuracy)))
    epsilon, stock, gain = (np.concatenate(part) for part in zip(*rows, strict=True))
    return epsilon, stock, gain


def fit(form: str, epsilon: np.ndarray, stock: np.ndarray, gain: np.ndarray) -> tuple[float, float]:
    """Return the smallest sum of squares of a form, and its alpha."""
    found = []
    for alpha in np.geomspace(0.01, 100.0, 41):
        curve = np.log1p(alpha * epsilon)
        second = {"none": [], "loss": [-stock], "ceiling": [-curve * stock]}[form]
        columns = np.column_stack([curve, *second])
        best = np.linalg.lstsq(columns, gain, rcond=None)[0]
        found.append((float(((gain - columns @ best) ** 2).sum()), float(alpha)))
    return min(found)


def main() -> None:
    """Print one line per group of trainings."""
    print("rate  decay  seed  sum of squares (alpha) of each form")
    for group in GROUPS:
        measured = measure(*group)
        fits = {form: fit(form, *measured) for form in ("none", "loss", "ceiling")}
        said = ", ".join(f"{form} {rest:.4f} ({alpha:.2g})" for form, (rest, alpha) in fits.items())
        print("{:4g}  {:5g}  {:4d}  ".format(*group) + said, flush=True)


if __name__ == "__main__":
    main()
