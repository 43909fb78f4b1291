"""Draw the figures of docs/gallery.md from bundled scenarios.

python analysis/gallery.py [--results FOLDER] [--out docs/images/gallery]

Runs what is missing in the folder of results, which takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import fcfn_abm as fa
from fcfn_abm.build import solve_equilibrium
from fcfn_abm.process.workers import Processes, count_cores
from fcfn_abm.report.figures.files import write_png

QUICKSTART = "scenarios/quickstart.toml"
MILLION = "scenarios/stress/million.toml"
SPREAD = "scenarios/heterogeneity/spread.toml"
OUTCOMES = ["participation", "mean_epsilon", "server_utility"]
EPSILONS = [0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


def run_what_is_missing(folder: Path, workers: int) -> None:
    """Run everything without results."""
    quickstart = fa.load_scenario(QUICKSTART)
    if not (folder / "quickstart").is_dir():
        fa.run_scenario(quickstart, folder / "quickstart", progress=True, workers=workers)
    if not (folder / "million").is_dir():
        fa.run_scenario(fa.load_scenario(MILLION), folder / "million", progress=True)
    if not (folder / "comparison").is_dir():
        fa.compare_mechanisms(quickstart, out=folder / "comparison", progress=True)
    if not (folder / "calibration").is_dir():
        short = fa.load_scenario(QUICKSTART, ["training.rounds=12"])
        out = folder / "calibration"
        fa.calibrate_value(short, EPSILONS, 2, out, value=60.0, progress=True)
    if not (folder / "sweep").is_dir():
        spread = fa.load_scenario(SPREAD)
        fa.run_sweep(spread, folder / "sweep", Processes(workers), progress=True)


def figures(folder: Path) -> dict[str, Figure]:
    """Draw all figures from the results in a folder."""
    run, million = fa.read_record(folder / "quickstart"), fa.read_record(folder / "million")
    task, form = run.run["training"], run.run["equilibrium"]
    threshold = million.run["equilibrium"]["threshold"]
    prices = pd.read_parquet(folder / "comparison" / "comparison.parquet")
    values = pd.read_parquet(folder / "calibration" / "calibration.parquet")
    fit = json.loads((folder / "calibration" / "run.json").read_text(encoding="utf-8"))
    sweep = fa.read_sweep(folder / "sweep").frame()
    axes = ["population.rho.sigma", "population.n_nodes"]
    return {
        "equilibrium": solve_equilibrium(run.scenario).plot(),
        "convergence": fa.plot.convergence(run.rounds, run.traces, form["total_epsilon"]),
        "participation": fa.plot.participation(run.rounds, run.nodes),
        "rho_against_epsilon": fa.plot.rho_against_epsilon(run.nodes, form["threshold"]),
        "rho_against_epsilon_million": fa.plot.rho_against_epsilon(million.nodes, threshold),
        "utilities": fa.plot.utilities(run),
        "ledger": fa.plot.ledger(run.ledger, run.scenario.privacy.delta),
        "accuracy": fa.plot.accuracy(run.training, task["arms"], task["data"]),
        "comparison": fa.plot.comparison(prices),
        "calibration": fa.plot.calibration(values, fit),
        "sweep_outcome": fa.plot.sweep_outcome(sweep, axes[0], "participation", axes[1]),
        "sweep_overview": fa.plot.sweep_overview(sweep, axes, OUTCOMES),
    }


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results/gallery"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/gallery"))
    parser.add_argument("--workers", type=int, default=count_cores())
    args = parser.parse_args()
    run_what_is_missing(args.results, args.workers)
    for path in write_png(figures(args.results), args.out):
        print(path)


if __name__ == "__main__":
    main()
