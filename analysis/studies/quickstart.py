"""What the quick start's equilibrium buys at equal spending, over several seeds: README's picture.

    python analysis/studies/quickstart.py [SCENARIO] [--seeds 5] [--out FOLDER] [--image FILE]

Each seed is a run of its own: other costs, another deal of the images, another first net, other
noise. Beside what the scenario compares with, three more ways to spend the same cap are trained.
Runs that are there are not done again. Prints a table of all, and draws what the scenario compares.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
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
    "no-noise": "its nodes, without noise",
    "random": "random, 1 to 10",
    "static": "static, 10",
}
WAYS = {  # beside the scenario's own: what is trained, and the names of its arms
    "tuned": (
        ["training.compare=['static']", "compared.static.epsilon=2.5"],
        {"static": "static, 2.5"},
    ),
    "compulsory": (
        [
            "training.compare=['random', 'static']",
            "compared.random.voluntary=false",
            "compared.static.voluntary=false",
        ],
        {"random": "random, nobody may leave", "static": "static, nobody may leave"},
    ),
}


def run_seeds(path: str, overrides: Sequence[str], n_seeds: int, out: Path) -> list[fa.Record]:
    """Run a scenario with several seeds, as far as there are no records yet."""
    scenario, found = fa.load_scenario(path, overrides), []
    for index in range(n_seeds):
        folder = out / str(index)
        if not folder.exists():
            seeded = scenario.model_copy(update={"seed": replication_seed(scenario.seed, index)})
            fa.run_scenario(seeded, folder, progress=True, workers=count_cores())
        found.append(fa.read_record(folder))
    return found


def list_arms(records: Sequence[fa.Record]) -> pd.DataFrame:
    """Return one row a seed and arm: how it ended, and the largest epsilon that a node sold."""
    rows = []
    for index, record in enumerate(records):
        sold = record.nodes["epsilon_sold"].max()
        rows += [{"seed": index, "sold": sold, **arm} for arm in record.run["training"]["arms"]]
    return pd.DataFrame(rows)


def write_table(arms: pd.DataFrame) -> str:
    """Say how each way of spending the cap ended, as Markdown."""
    lines = [
        "| epsilon of a node | accuracy, % (95 %) | nodes that train | mean epsilon "
        "| all nodes earn | nodes that lose |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for label, group in arms.groupby("label", sort=False):
        accuracy, means = 100 * group["accuracy"], group.mean(numeric_only=True)
        epsilon = f"{means['mean_epsilon']:.1f}" if group["private"].all() else "no noise"
        lines.append(
            f"| {label} | {accuracy.mean():.1f} ± {half_interval(accuracy):.1f} "
            f"| {means['n_nodes']:.0f} | {epsilon} | {means['node_utility']:.1f} "
            f"| {means['n_losing']:.0f} |"
        )
    return "\n".join(lines)


def draw(records: Sequence[fa.Record], arms: pd.DataFrame) -> Figure:
    """Draw accuracy by round, and who takes part."""
    frames = [record.training.assign(seed=index) for index, record in enumerate(records)]
    with theme():
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        curves(left, pd.concat(frames, ignore_index=True), f"The net, {len(records)} seeds")
        handles, names = left.get_legend_handles_labels()
        known = {name: name for name in names} | {"equilibrium": LABELS["stackelberg"]}
        left.legend(handles, [known[name] for name in names], loc="lower right")
        left.set(ylim=(0, 1))
        _draw_takers(right, arms[arms["private"]], len(records[0].nodes))
    return figure


def _draw_takers(axes: Axes, arms: pd.DataFrame, n_nodes: int) -> None:
    groups = dict(iter(arms.groupby("name", sort=False)))
    labels = [LABELS.get(str(name), str(name)) for name in groups]
    n = [group["n_nodes"].mean() for group in groups.values()]
    bars = axes.barh(labels, n, color=[ARM_COLOURS[str(name)] for name in groups], height=0.55)
    notes = [
        f"{count:.0f} nodes earn {group['node_utility'].mean():.1f}"
        for count, group in zip(n, groups.values(), strict=True)
    ]
    axes.bar_label(bars, notes, padding=5)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(title=f"Who of {n_nodes} nodes sells at that cap", xlim=(0, n_nodes), xlabel="nodes")


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", default="quickstart")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/quickstart-seeds"))
    parser.add_argument("--image", type=Path, default=Path("docs/images/quickstart.png"))
    options = parser.parse_args()
    own = run_seeds(options.scenario, [], options.seeds, options.out / "own")
    arms = list_arms(own)
    tables = [arms.assign(label=arms["name"].map(LABELS))]
    for name, (overrides, labels) in WAYS.items():
        other = list_arms(run_seeds(options.scenario, overrides, options.seeds, options.out / name))
        kept = other[other["name"].isin(labels)]
        tables.append(kept.assign(label=kept["name"].map(labels)))
    print(write_table(pd.concat(tables, ignore_index=True)))
    cap = np.mean([record.rounds["budget"].iloc[-1] for record in own])
    print(f"\nThe cap is {cap:.1f} in the mean; no node sells more than {arms['sold'].max():.2f}.")
    draw(own, arms).savefig(options.image)


if __name__ == "__main__":
    main()
