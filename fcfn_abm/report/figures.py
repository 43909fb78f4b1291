"""Figures from tidy frames: each function returns the figure; saving is the caller's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fcfn_abm.records import Record, sampled_rows
from fcfn_abm.report.theme import (
    ARM_COLOURS,
    ARM_DASHES,
    BOUND,
    LEAVES,
    STAYS,
    arm_label,
    theme,
)

CROWD = 2000
"""Up to so many nodes are drawn one by one."""


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
        totals.set(title="Total epsilon", xlabel="round", ylabel="sum of epsilon")
        if _spans_decades(rounds["total_epsilon"].max(), total_epsilon):
            totals.set(yscale="log")
        else:
            totals.set(ylim=(0, None))
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
    last = paths.iloc[-1][stays]
    decades = stays.any() and _spans_decades(float(paths.to_numpy().max()), float(last.median()))
    if decades:
        axes.set(yscale="log", ylabel="epsilon of a node (lines end at zero)")
        paths = paths.where(paths > 0)
    for stay, colour, label in ((False, LEAVES, "leaves"), (True, STAYS, "stays")):
        some = paths.loc[:, stays == stay]
        if some.shape[1]:
            axes.plot(some.index, some, color=colour, linewidth=0.9, alpha=0.75)
            axes.plot([], [], color=colour, label=f"{label} ({some.shape[1]} nodes)")
    most = float(np.nanmax(paths.to_numpy()))
    if decades:
        axes.set_ylim(0.01 * float(last.median()), 10 * most)
    else:
        axes.set_ylim(0, 1.22 * most or None)  # room for the legend
    axes.legend(loc="upper right", ncols=2, handlelength=1.2, columnspacing=1.0)


def _spans_decades(most: float, end: float) -> bool:
    """Whether a linear scale would show the end of a market as a line along its axis."""
    return bool(end > 0 and most > 100 * end)


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
        The nodes, what the mechanism leads to as a line, and the threshold. More than
        :data:`CROWD` nodes are counted in cells, and a second panel counts those of every cost.
    """
    crowd = len(nodes) > CROWD
    n_active = int(nodes["active"].sum())
    groups = {
        f"stays out ({len(nodes) - n_active:,})": ~nodes["active"],
        f"takes part ({n_active:,})": nodes["active"],
    }
    with theme():
        figure = Figure(figsize=(13, 4.5) if crowd else (7, 4.5))
        axes, *others = (
            figure.subplots(1, 2, width_ratios=(1.25, 1)) if crowd else [figure.subplots()]
        )
        right = _right_edge(nodes, threshold)
        form = shown = nodes[nodes["rho"] <= right].sort_values("rho")
        told = "closed form" if threshold > 0 else "as priced"
        if crowd and threshold > 0:
            rho = np.linspace(shown["rho"].iloc[0], right, CROWD)
            form = shown.iloc[
                np.unique(np.searchsorted(shown["rho"], rho).clip(max=len(shown) - 1))
            ]
        elif crowd:  # a price may be chance, not a curve
            bins = np.arange(len(shown)) * 100 // len(shown)
            form = shown[["rho", "equilibrium_epsilon"]].groupby(bins).mean()
            told = "as priced, on average"
        axes.plot(
            form["rho"],
            form["equilibrium_epsilon"],
            color="0.35",
            linewidth=1,
            label=told,
            zorder=4 if crowd else 2,
        )
        if crowd:
            _cells(figure, axes, shown)
        else:
            _dots(axes, shown, groups)
        axes.set(
            title="Who sells privacy, and how much",
            xlabel="unit privacy cost rho (currency per unit of epsilon)",
            ylabel="epsilon in the end",
        )
        axes.xaxis.set_major_locator(MaxNLocator(5))  # costs close together have long names
        _note_dearer(axes, nodes["rho"], right)
        for other in others:
            _costs(other, nodes["rho"], groups)
        if threshold > 0:
            for each in (axes, *others):
                each.axvline(
                    threshold, color=BOUND, dashes=(4, 2), label=rf"$\tau/(n-1)$ = {threshold:.3g}"
                )
        for each in (axes, *others):
            each.legend(loc="upper right", title=None)
    return figure


def _dots(axes: Axes, nodes: pd.DataFrame, groups: Mapping[str, pd.Series[bool]]) -> None:
    for (label, members), colour, marker in zip(groups.items(), (LEAVES, STAYS), "Xo", strict=True):
        some = nodes[members.reindex(nodes.index)]
        if members.any():
            axes.scatter(
                some["rho"],
                some["epsilon"],
                color=colour,
                marker=marker,
                s=45,
                linewidth=0.3,
                edgecolor="white",
                label=label,
                zorder=3,
            )


def _cells(figure: Figure, axes: Axes, nodes: pd.DataFrame) -> None:
    """Count nodes in cells of a grid."""
    counts, rho, epsilon = np.histogram2d(nodes["rho"], nodes["epsilon"], bins=(80, 50))
    drawn = axes.pcolormesh(
        rho,
        epsilon,
        np.ma.masked_equal(counts.T, 0),
        norm=LogNorm(1, max(float(counts.max()), 10.0)),
        cmap=sns.color_palette("blend:#A6CEE8,#0072B2,#00243B", as_cmap=True),
        zorder=3,
    )
    figure.colorbar(drawn, ax=axes, label="nodes in a cell")


def _costs(axes: Axes, rho: pd.Series[float], groups: Mapping[str, pd.Series[bool]]) -> None:
    """Count the nodes of every cost, on whichever scale spreads them better."""
    wide = _spans_decades(float(rho.max()), float(rho.min()))
    edges = np.geomspace if wide else np.linspace
    bins = edges(float(rho.min()), float(rho.max()), 61).tolist()
    most = 1.0
    for (label, members), colour in zip(groups.items(), (LEAVES, STAYS), strict=True):
        counts, _, _ = axes.hist(rho[members], bins=bins, color=colour, alpha=0.8, label=label)
        most = max(most, float(np.max(counts)))
    axes.set(
        title="What privacy costs all nodes",
        xlabel="unit privacy cost rho (currency per unit of epsilon)",
        ylabel="nodes",
        xscale="log" if wide else "linear",
        yscale="log",
        ylim=(0.7, most**1.35),  # room for the legend
    )


def _right_edge(nodes: pd.DataFrame, threshold: float) -> float:
    """Leave out the dearest nodes where they would squeeze all others into a corner."""
    rho = nodes["rho"]
    least, most = float(rho.min()), float(rho.max())
    if threshold <= least or most < threshold + 2 * (threshold - least):
        return most
    dearest_active = float(rho[nodes["active"]].max()) if nodes["active"].any() else least
    return max(threshold + 0.6 * (threshold - least), dearest_active)


def _note_dearer(axes: Axes, rho: pd.Series[float], right: float) -> None:
    beyond = int((rho > right).sum())
    if not beyond:
        return
    axes.set_xlim(rho.min() - 0.05 * (right - rho.min()), right)
    axes.annotate(
        f"{beyond:,} dearer nodes,\nup to rho = {rho.max():.3g}",
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


def _few(record: Record) -> pd.DataFrame:
    """Return the traces of as many nodes as a sample holds, whatever was kept."""
    nodes, settings = record.nodes, record.scenario.record
    if settings.traces in ("none", "sample") or len(nodes) <= settings.sample_size:
        return record.traces
    expected = (nodes["equilibrium_epsilon"] > 0).to_numpy()
    return record.traces_of(sampled_rows(nodes["rho"].to_numpy(), settings.sample_size, expected))


def write_figures(record: Record, folder: Path) -> list[Path]:
    """Draw all figures of a record as PNG files, and return their paths."""
    folder.mkdir(exist_ok=True)
    form = record.run["equilibrium"]
    figures = {
        "convergence": convergence(record.rounds, _few(record), form["total_epsilon"]),
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
