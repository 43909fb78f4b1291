"""Results of scenarios/privacy at a total epsilon of 10: a table, its data, and a figure.

    fcfn run scenarios/privacy/emnist.toml --out results/privacy/emnist     # hours; can be resumed
    python analysis/studies/private_training.py results/privacy/*

Each folder is the record of a run. Writes accuracy by round to ``docs/data/private_training.csv``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from fcfn_abm import read_record
from fcfn_abm.report.theme import theme

DOCS = Path(__file__).parents[2] / "docs"
VIEWS = {"central": "against the server", "local": "against everybody"}


def main() -> None:
    """Print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "private_training.csv")
    parser.add_argument("--image", type=Path, default=DOCS / "images" / "private_training.png")
    options = parser.parse_args()
    curves = []
    print("| images | nodes | total epsilon of 10 | rounds | parameters | accuracy, % |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    with theme():
        figure, axes = plt.subplots(figsize=(7.0, 4.0))
        for folder in options.records:
            record = read_record(folder)
            training, facts = record.training, record.run["training"]
            data, view = facts["data"].partition(",")[0], VIEWS[record.scenario.privacy.view]
            last = training.iloc[-1]
            print(
                f"| {facts['data']} | {len(record.nodes)} | {view} | {last['round']} | "
                f"{facts['n_parameters']:,} | {100 * last['accuracy']:.1f} |"
            )
            curves.append(training[["round", "accuracy"]].assign(data=data, epsilon_holds=view))
            share = training["round"] / last["round"]
            axes.plot(share, training["accuracy"], label=f"{data}, {view}, {last['round']} rounds")
        axes.set(xlabel="share of the rounds", ylabel="test accuracy", ylim=(0, None))
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.legend(loc="lower right")
        figure.savefig(options.image)
    columns = ["data", "epsilon_holds", "round", "accuracy"]
    pd.concat(curves)[columns].round(4).to_csv(options.data, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
