"""Accuracy of the quick start at equal spending, over several seeds: the figure of the README.

    python analysis/studies/quickstart.py [--seeds 10] [--out FOLDER] [--image FILE]

Each seed is a separate run with its own costs, data partition, initial net and noise. Existing
runs are not repeated. Prints a table and draws the figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from common import half_interval
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from training_curves import curves

import fcfn_abm as fa
from fcfn_abm.process.workers import count_cores
from fcfn_abm.report.theme import ARM_COLOURS, theme
from fcfn_abm.rng import replication_seed

LABELS = {
    "stackelberg": "equilibrium",
    "no-noise": "its nodes, no noise",
    "random": "random, 1 to 10",
    "static": "static, 10",
}
TUNED = 2.5
"""The static epsilon of a server that knows all costs: the same total as at equilibrium."""


def run_seeds(n_seeds: int, out: Path) -> list[fa.Record]:
    """Run the quick start with several seeds, without repeating existing records."""
    quickstart, found = fa.load_scenario("quickstart"), []
    for index in range(n_seeds):
        seeded = quickstart.model_copy(update={"seed": replication_seed(quickstart.seed, index)})
        found.append(_run(seeded, out / str(index)))
    return found


def run_tuned(own: Sequence[fa.Record], out: Path) -> list[fa.Record]:
    """Run the same nodes with a static epsilon, each under the cap of its equilibrium."""
    found = []
    for index, record in enumerate(own):
        overrides = [
            f"seed={record.scenario.seed}",
            f'mechanism={{kind="static", epsilon={TUNED}}}',
            "server.kind=fixed",
            f"game.budget={record.run['market']['budget']!r}",
            "training.compare=[]",
        ]
        found.append(_run(fa.load_scenario("quickstart", overrides), out / f"tuned-{index}"))
    return found


def _run(scenario: fa.Scenario, folder: Path) -> fa.Record:
    if not folder.exists():
        fa.run_scenario(scenario, folder, progress=True, workers=count_cores())
    return fa.read_record(folder)


def list_trainings(records: Sequence[fa.Record]) -> pd.DataFrame:
    """Return the final results, one row per seed and training."""
    return pd.DataFrame([arm for record in records for arm in record.run["training"]["arms"]])


def write_table(arms: pd.DataFrame) -> str:
    """Return the final results of each way to spend the cap, as Markdown."""
    lines = [
        "| epsilon of a node | accuracy, % (95 %) | nodes that train | mean epsilon | they earn |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for label, group in arms.groupby("label", sort=False):
        accuracy, means = 100 * group["accuracy"], group.mean(numeric_only=True)
        epsilon = f"{means['mean_epsilon']:.1f}" if group["private"].all() else "no noise"
        lines.append(
            f"| {label} | {accuracy.mean():.1f} ± {half_interval(accuracy):.1f} "
            f"| {means['n_nodes']:.0f} | {epsilon} | {means['node_utility']:.1f} |"
        )
    return "\n".join(lines)


def draw(records: Sequence[fa.Record], arms: pd.DataFrame) -> Figure:
    """Draw accuracy by round, and participation."""
    frames = [record.training.assign(seed=index) for index, record in enumerate(records)]
    with theme():
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        curves(left, pd.concat(frames, ignore_index=True), "What the same money trains")
        names = [LABELS[name] for name in dict.fromkeys(arms["name"])]
        left.legend(left.get_legend_handles_labels()[0], names, loc="lower right")
        left.set(ylim=(0, 1))
        _draw_sellers(right, arms[arms["private"]], len(records[0].nodes))
    return figure


def _draw_sellers(axes: Axes, arms: pd.DataFrame, n_nodes: int) -> None:
    groups = dict(iter(arms.groupby("name", sort=False)))
    counts = [group["n_nodes"].mean() for group in groups.values()]
    colours = [ARM_COLOURS[str(name)] for name in groups]
    bars = axes.barh([LABELS[str(name)] for name in groups], counts, color=colours, height=0.55)
    epsilons = [f"epsilon {group['mean_epsilon'].mean():.1f}" for group in groups.values()]
    axes.bar_label(bars, epsilons, padding=5)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(title="Who sells, and how much", xlim=(0, n_nodes), xlabel=f"nodes, of {n_nodes}")


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("results/quickstart-seeds"))
    parser.add_argument("--image", type=Path, default=Path("docs/images/quickstart.png"))
    options = parser.parse_args()
    own = run_seeds(options.seeds, options.out)
    arms = list_trainings(own)
    arms = arms.assign(label=arms["name"].map(LABELS))
    draw(own, arms).savefig(options.image)
    tuned = list_trainings(run_tuned(own, options.out)).assign(label=f"static, {TUNED:g}")
    print(write_table(pd.concat([arms, tuned], ignore_index=True)))
    caps = [record.run["market"]["budget"] for record in own]
    nodes = pd.concat([record.nodes for record in own])
    print(f"\nThe cap is {min(caps):.1f} to {max(caps):.1f}; sold are at most", end=" ")
    print(
        f"{nodes['epsilon_sold'].max():.2f}, which are {nodes['epsilon_total'].max():.0f} for",
        end=" ",
    )
    print("somebody who reads the messages of a node.")


if __name__ == "__main__":
    main()
