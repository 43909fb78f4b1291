"""Accuracy of training with the epsilons of several mechanisms, over several seeds.

    python analysis/studies/training_curves.py [--seeds 3] [--out FOLDER] [--image FILE] SCENARIO...

Each seed is a separate run with its own record; interrupted runs are resumed, and existing ones are
not repeated. Prints a table, and draws one panel per scenario.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from common import band, half_interval

from fcfn_abm import load_scenario, read_record, run_scenario
from fcfn_abm.process.workers import count_cores
from fcfn_abm.report.theme import ARM_COLOURS, ARM_DASHES, theme, training_label
from fcfn_abm.rng import replication_seed


def records(path: Path, n_seeds: int, out: Path):
    """Yield the records of a scenario's seeds, running missing ones."""
    scenario = load_scenario(path)
    for index in range(n_seeds):
        folder = out / f"{path.stem}-{index}"
        if not folder.exists():
            seeded = scenario.model_copy(update={"seed": replication_seed(scenario.seed, index)})
            run_scenario(seeded, folder, progress=True, workers=count_cores())
        yield read_record(folder)


def curves(axes, training: pd.DataFrame, title: str) -> None:
    """Draw accuracy by round, one line per training, with the interval of its mean."""
    arms = list(dict.fromkeys(training["arm"]))
    sns.lineplot(
        training,
        x="round",
        y="accuracy",
        hue="arm",
        style="arm",
        hue_order=arms,
        style_order=arms,
        palette=ARM_COLOURS,
        dashes=ARM_DASHES,
        errorbar=band,
        err_kws={"alpha": 0.07, "linewidth": 0},
        ax=axes,
    )
    axes.set(title=title, xlabel="communication round", ylabel="test accuracy")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:.0%}")
    handles, labels = axes.get_legend_handles_labels()
    labels = [training_label(label) for label in labels]
    axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5))


def final_table(training: pd.DataFrame, arms: pd.DataFrame) -> str:
    """Return the final results of each training, as Markdown."""
    last = training[training["round"] == training["round"].max()]
    lines = [
        "| mechanism | mean epsilon per round | nodes' utility per round | accuracy, % (95 %) |",
        "| --- | ---: | ---: | ---: |",
    ]
    for arm, group in last.groupby("arm", sort=False):
        of_arm = arms[arms["name"] == arm]
        private = bool(of_arm["private"].all())
        epsilon = f"{of_arm['mean_epsilon'].mean():.1f}" if private else "no noise"
        accuracy = 100 * group["accuracy"]
        lines.append(
            f"| {training_label(str(arm))} | {epsilon} | {of_arm['node_utility'].mean():.3f} | "
            f"{accuracy.mean():.1f} +- {half_interval(accuracy):.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/training"))
    parser.add_argument("--image", type=Path, default=Path("results/training/curves.png"))
    options = parser.parse_args()
    with theme():
        n_panels = len(options.scenarios)
        figure, panels = plt.subplots(1, n_panels, figsize=(8.4 * n_panels, 4.2), squeeze=False)
        for axes, path in zip(panels[0], options.scenarios, strict=True):
            found = list(records(path, options.seeds, options.out))
            training = pd.concat(
                [record.training.assign(seed=i) for i, record in enumerate(found)],
                ignore_index=True,
            )
            arms = pd.DataFrame([arm for record in found for arm in record.run["training"]["arms"]])
            label = found[0].run["training"]["data"]
            print(f"**{label}, {len(found[0].nodes)} nodes, {options.seeds} seeds**\n")
            print(final_table(training, arms), end="\n\n", flush=True)
            curves(axes, training, label.split(",")[0])
        figure.savefig(options.image)
    print(f"Figure: {options.image}; seconds of training per run: ", end="")
    seconds = [r.run["seconds"]["training"] for r in found]
    print(f"{np.mean(seconds):.0f}.")


if __name__ == "__main__":
    main()
