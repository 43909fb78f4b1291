"""Figures from tidy frames: each function returns the figure; saving is the caller's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fcfn_abm.records import Record
from fcfn_abm.report.theme import (
    ARM_COLOURS,
    ARM_DASHES,
    BOUND,
    LEAVES,
    STAYS,
    arm_label,
    theme,
)


def convergence(rounds: pd.DataFrame, traces: pd.DataFrame, total_epsilon: float) -> Figure:
    """Draw how epsilon and S reach the equilibrium.

    Parameters
    ----------
    rounds, traces : DataFrame
        Tables of a record.
    total_epsilon : float
        S of the closed form.

    Returns
    -------
    Figure
        Three panels: the traced nodes' epsilon, S and B, and the distances on a log scale.
    """
    with theme():
        figure = Figure(figsize=(13, 4))
        reports, totals, distances = figure.subplots(1, 3)
        _reports(reports, traces)

        totals.plot(rounds["round"], rounds["total_epsilon"], color=STAYS, label="S")
        totals.axhline(total_epsilon, color=BOUND, dashes=(4, 2), label="S of the closed form")
        totals.set(title="Total epsilon", xlabel="round", ylabel="sum of epsilon", ylim=(0, None))
        totals.legend(loc="best")

        for name, label, dashes in (
            ("distance", "distance to the closed form", ""),
            ("exploitability", "exploitability", (4, 1.5)),
            ("change", "change since the last round", (1, 1)),
        ):
            values = rounds[name].where((rounds[name] > 0) & np.isfinite(rounds[name]))
            distances.plot(rounds["round"], values, label=label, dashes=dashes or (None, None))
        distances.set(
            title="How far from equilibrium", xlabel="round", ylabel="relative", yscale="log"
        )
        distances.legend(loc="best")
        if not distances.dataLim.height > 0:  # at rest from the first round on
            distances.set(yscale="linear", xlim=totals.get_xlim(), yticks=[0])
        for axes in (reports, totals, distances):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _reports(axes: Axes, traces: pd.DataFrame) -> None:
    axes.set(title="What each node reports", xlabel="round", ylabel="epsilon of a node")
    if traces.empty:
        axes.text(0.5, 0.5, "no traces were kept", ha="center", transform=axes.transAxes)
        return
    paths = traces.pivot_table(index="round", columns="node", values="epsilon")
    stays = paths.iloc[-1] > 0
    for stay, colour, label in ((False, LEAVES, "leaves"), (True, STAYS, "stays")):
        some = paths.loc[:, stays == stay]
        if some.shape[1]:
            axes.plot(some.index, some, color=colour, linewidth=0.9, alpha=0.75)
            axes.plot([], [], color=colour, label=f"{label} ({some.shape[1]} nodes)")
    axes.set_ylim(0, 1.22 * float(paths.to_numpy().max()) or None)  # room for the legend
    axes.legend(loc="upper right", ncols=2, handlelength=1.2, columnspacing=1.0)


def rho_against_epsilon(nodes: pd.DataFrame, threshold: float) -> Figure:
    """Draw who takes part, and with how much, against what privacy costs them.

    Parameters
    ----------
    nodes : DataFrame
        Table of a record.
    threshold : float
        tau / (n - 1), the unit privacy cost from which on a node stays out; zero where there is
        none.

    Returns
    -------
    Figure
        One panel: the nodes, what the mechanism leads to as a line, and the threshold.
    """
    with theme():
        figure = Figure(figsize=(7, 4.5))
        axes = figure.subplots()
        frame = nodes.assign(
            group=np.where(
                nodes["active"],
                f"takes part ({nodes['active'].sum()})",
                f"stays out ({(~nodes['active']).sum()})",
            )
        )
        form = nodes.sort_values("rho")
        told = "closed form" if threshold > 0 else "as priced"
        axes.plot(form["rho"], form["equilibrium_epsilon"], color="0.35", linewidth=1, label=told)
        palette = {g: STAYS if g.startswith("takes") else LEAVES for g in frame["group"].unique()}
        markers = {g: "o" if g.startswith("takes") else "X" for g in palette}
        sns.scatterplot(
            frame.sort_values("active"),
            x="rho",
            y="epsilon",
            hue="group",
            style="group",
            palette=palette,
            markers=markers,
            s=45,
            linewidth=0.3,
            ax=axes,
            zorder=3,
        )
        if threshold > 0:
            axes.axvline(
                threshold, color=BOUND, dashes=(4, 2), label=rf"$\tau/(n-1)$ = {threshold:.3g}"
            )
        axes.set(
            title="Who sells privacy, and how much",
            xlabel="unit privacy cost rho (currency per unit of epsilon)",
            ylabel="epsilon in the end",
        )
        _zoom(axes, nodes["rho"], threshold)
        axes.legend(loc="upper right", title=None)
    return figure


def _zoom(axes: Axes, rho: pd.Series[float], threshold: float) -> None:
    """Leave out the dearest nodes where they would squeeze all others into a corner."""
    least = float(rho.min())
    right = threshold + 0.6 * (threshold - least)
    beyond = int((rho > right).sum())
    if threshold <= least or rho.max() < threshold + 2 * (threshold - least):
        return
    axes.set_xlim(least - 0.05 * (right - least), right)
    axes.annotate(
        f"{beyond} dearer nodes,\nup to rho = {rho.max():.3g}",
        xy=(1.0, 0.055),
        xytext=(0.98, 0.16),
        xycoords="axes fraction",
        ha="right",
        color="0.35",
        arrowprops={"arrowstyle": "->", "color": "0.35"},
    )


def accuracy(training: pd.DataFrame, arms: Sequence[Mapping[str, Any]], data_label: str) -> Figure:
    """Draw what each arm's epsilon buys: test accuracy, and what it leaves the nodes.

    Parameters
    ----------
    training : DataFrame
        Table of a record.
    arms : sequence of mapping
        The arms as they stand in a record's ``run.json``: name, nodes, utilities.
    data_label : str
        What the images are, for the title.

    Returns
    -------
    Figure
        Two panels: accuracy round by round, one line an arm; and the utility of all nodes
        together, one bar an arm whose epsilon is paid for.
    """
    names = [arm["name"] for arm in arms]
    colours = {name: ARM_COLOURS.get(name, "0.5") for name in names}
    with theme():
        figure = Figure(figsize=(11, 4.8))
        curves, bars = figure.subplots(1, 2, width_ratios=(3, 1.4))
        sns.lineplot(
            training,
            x="round",
            y="accuracy",
            hue="arm",
            style="arm",
            hue_order=names,
            style_order=names,
            palette=colours,
            dashes={name: ARM_DASHES.get(name, (3.0, 1.0)) for name in names},
            errorbar=None,
            ax=curves,
        )
        handles, labels = curves.get_legend_handles_labels()
        nodes = {arm["name"]: arm["n_nodes"] for arm in arms}
        curves.legend(handles, [f"{arm_label(name)} ({nodes[name]} nodes)" for name in labels])
        curves.yaxis.set_major_formatter(PercentFormatter(1.0))
        curves.set(
            title=f"Federated training on {data_label}",
            xlabel="communication round",
            ylabel="test accuracy",
            ylim=(0, 1),
        )
        _earnings(bars, [arm for arm in arms if arm["private"]], colours)
    return figure


def _earnings(axes: Axes, arms: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    utility = [arm["node_utility"] for arm in arms]
    names = [arm["name"] for arm in arms]
    drawn = axes.bar(names, utility, color=[colours[name] for name in names], width=0.6)
    notes = [f"{arm['node_utility']:.3g}\n{arm['n_losing']} nodes lose" for arm in arms]
    axes.bar_label(drawn, notes, padding=4)
    axes.axhline(0, color="0.2", linewidth=0.8)
    axes.margins(x=0.2, y=0.25)
    axes.set_xticks(range(len(names)), [arm_label(name) for name in names])
    axes.grid(visible=False, axis="x")
    axes.set(title="What the nodes earn", ylabel="utility of all nodes (currency)")


def write_figures(record: Record, folder: Path) -> list[Path]:
    """Draw all figures of a record as PNG files, and return their paths."""
    folder.mkdir(exist_ok=True)
    form = record.run["equilibrium"]
    figures = {
        "convergence": convergence(record.rounds, record.traces, form["total_epsilon"]),
        "rho_epsilon": rho_against_epsilon(record.nodes, form["threshold"]),
    }
    if not record.training.empty:
        task = record.run["training"]
        figures["accuracy"] = accuracy(record.training, task["arms"], task["data"])
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], metadata={"Software": "fcfn_abm"})
    return paths
