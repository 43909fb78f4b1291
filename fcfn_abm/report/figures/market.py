"""The market in figures: convergence, participation and utilities."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fcfn_abm.errors import InvalidRecordError, abbreviate, as_number
from fcfn_abm.records import Record
from fcfn_abm.records.tables import empty
from fcfn_abm.report.figures.frames import require_columns, resolve_number, sample_traces, table_of
from fcfn_abm.report.theme import (
    BOUND,
    LEAVES,
    STAYS,
    fix_ticks,
    letter_panels,
    round_ticks,
    theme,
)

CROWD = 2000
"""Largest number of nodes that are drawn individually."""
_NAME_ROOM = 0.035  # distance between names, as a share of the largest epsilon
_NAME_LENGTH = 24  # longest name shown, in characters
_NAMES_AT_A_POINT = 2
_HALO = [withStroke(linewidth=2, foreground="white")]  # keeps text legible on lines
_WHOLE = FuncFormatter(lambda value, _: f"{value:,.0f}")
_APART: dict[str, Any] = {  # points that do not form a curve
    "linestyle": "none",
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
}
_LATE = 40  # rounds shown of a market that does not settle
_FAR = 100.0  # largest relative distance on the axis
_WILD = 0.5  # large change in a round, as a share of the largest epsilon
_BARS = 40  # most bars in the histogram of exits
_POINTS = 20_000  # from this number of points on, lines are rasterised, also in vector files


def convergence(
    rounds: pd.DataFrame | Record,
    traces: pd.DataFrame | None = None,
    total_epsilon: float | None = None,
) -> Figure:
    """Draw how epsilon and S approach the equilibrium.

    Parameters
    ----------
    rounds : DataFrame or Record
        Table of a record, or a record, which also has the other arguments.
    traces : DataFrame, optional
        Table of a record.
    total_epsilon : float, optional
        S of the closed form.

    Returns
    -------
    Figure
        Three panels: epsilon of the traced nodes, S, and the distances on a log scale. For a long
        market that still jumps at the end, only the last rounds are drawn.
    """
    total_epsilon = resolve_number(total_epsilon, rounds, "S", "equilibrium", "total_epsilon")
    if traces is None:
        traces = sample_traces(rounds) if isinstance(rounds, Record) else empty("traces")
    traces = table_of(traces, "traces")
    rounds = table_of(rounds, "rounds")
    require_columns(rounds, "round", "total_epsilon", "distance", "exploitability", "change")
    if len(traces):  # possibly none were recorded
        require_columns(traces, "round", "node", "epsilon")
    n_rounds = len(rounds)
    if n_rounds > 2 * _LATE and rounds["change"].tail(_LATE).median() > _WILD:
        rounds = rounds.tail(_LATE)
        traces = traces[traces["round"] >= rounds["round"].iloc[0]]
    with theme():
        figure = Figure(figsize=(13, 4))
        reports, totals, distances = figure.subplots(1, 3)
        _reports(reports, traces)

        totals.plot(rounds["round"], rounds["total_epsilon"], color=STAYS, label="S")
        label, dashes = "S of the closed form", (4, 2)
        if "equilibrium_total_epsilon" in rounds:  # it moves if nodes come and go
            form = rounds["equilibrium_total_epsilon"]
            totals.plot(rounds["round"], form, color=BOUND, dashes=dashes, label=label)
        else:
            totals.axhline(total_epsilon, color=BOUND, dashes=dashes, label=label)
        totals.set(title="Total epsilon", xlabel="round", ylabel="S, sum of all ε")
        if _spans_decades(rounds["total_epsilon"].max(), total_epsilon):
            totals.set(yscale="log")
        else:
            totals.margins(y=0.08)
            totals.set(ylim=(0, None))
        totals.legend(loc="best")

        for name, label, style, colour in (
            ("distance", "distance to the closed form", "-", STAYS),
            ("exploitability", "exploitability", "--", BOUND),
            ("change", "change since the previous round", ":", "0.35"),
        ):
            values = rounds[name].where((rounds[name] > 0) & np.isfinite(rounds[name]))
            distances.plot(rounds["round"], values, label=label, linestyle=style, color=colour)
        distances.set(
            title="Distance from equilibrium", xlabel="round", ylabel="relative", yscale="log"
        )
        low, high = distances.get_ylim()
        distances.set_ylim(low, min(high, _FAR))  # the first change may start near zero
        distances.legend(loc="best")
        if not distances.dataLim.height > 0:  # at rest from the first round on
            distances.set(yscale="linear", xlim=totals.get_xlim(), yticks=[0])
        for axes in (reports, totals, distances):
            axes.xaxis.set_major_locator(round_ticks())
            if len(rounds) < n_rounds:
                axes.set_xlabel(f"round (last {_LATE} of {n_rounds:,})")
        letter_panels((reports, totals, distances))
    return fix_ticks(figure)


def _reports(axes: Axes, traces: pd.DataFrame) -> None:
    axes.set(title="Reports of the nodes", xlabel="round", ylabel="ε of a node")
    if traces.empty:
        axes.text(0.5, 0.5, "no traces were recorded", ha="center", transform=axes.transAxes)
        return
    paths = traces.pivot_table(index="round", columns="node", values="epsilon")
    stays = paths.iloc[-1] > 0
    last = paths.iloc[-1][stays]
    decades = stays.any() and _spans_decades(float(paths.to_numpy().max()), float(last.median()))
    if decades:
        axes.set(yscale="log", ylabel="ε of a node (lines end at zero)")
        paths = paths.where(paths > 0)
    for stay, colour, label in ((False, LEAVES, "leaves"), (True, STAYS, "stays")):
        some = paths.loc[:, stays == stay]
        if some.shape[1]:
            axes.plot(
                some.index,
                some,
                color=colour,
                linewidth=0.9,
                alpha=0.75,
                rasterized=paths.size > _POINTS,
            )
            axes.plot([], [], color=colour, label=f"{label} ({some.shape[1]} nodes)")
    most = float(np.nanmax(paths.to_numpy()))
    if decades:
        axes.set_ylim(0.01 * float(last.median()), 10 * most)
    else:
        axes.set_ylim(0, 1.22 * most or None)  # room for the legend
    axes.legend(loc="upper right", ncols=2, handlelength=1.2, columnspacing=1.0)


def _spans_decades(most: float, end: float) -> bool:
    """Whether a linear scale would show the end of a market as a line along the axis."""
    return bool(end > 0 and most > 100 * end)


def participation(rounds: pd.DataFrame | Record, nodes: pd.DataFrame | None = None) -> Figure:
    """Draw how many nodes take part in each round, and when the others left.

    Parameters
    ----------
    rounds : DataFrame or Record
        Table of a record, or a record.
    nodes : DataFrame, optional
        Table of a record; a record holds it.

    Returns
    -------
    Figure
        Two panels: active nodes and nodes that exited in an earlier round, with the number of
        active nodes in the closed form; and the number of nodes that left for good in each round.
    """
    nodes = table_of(rounds if nodes is None else nodes, "nodes")
    rounds = table_of(rounds, "rounds")
    require_columns(rounds, "round", "n_active", "n_exited")
    require_columns(nodes, "equilibrium_epsilon", "exit_round", rows=False)
    expected = int((nodes["equilibrium_epsilon"] > 0).sum())
    with theme():
        figure = Figure(figsize=(11, 3.6))
        counts, exits = figure.subplots(1, 2)
        for name, label, colour, style in (
            ("n_active", "active", STAYS, "-"),
            ("n_exited", "exited", LEAVES, "--"),
        ):
            counts.plot(
                rounds["round"],
                rounds[name],
                color=colour,
                linestyle=style,
                drawstyle="steps-post",
                label=label,
            )
        counts.axhline(expected, color=BOUND, dashes=(1, 1), label=f"closed form: {expected:,}")
        most = int(max(len(nodes), rounds["n_active"].max(), rounds["n_exited"].max()))
        wide = _spans_decades(most, expected)
        counts.set(title="Participation", xlabel="round", ylabel="nodes")
        if wide:
            counts.set(yscale="symlog", ylim=(0, 3 * most))
        else:
            counts.set(ylim=(0, 1.05 * most))
            counts.yaxis.set_major_locator(round_ticks())
        counts.yaxis.set_major_formatter(_WHOLE)
        counts.legend(loc="best")
        _exits(exits, nodes["exit_round"].dropna().to_numpy(dtype=int), int(rounds["round"].max()))
        for axes in (counts, exits):
            axes.xaxis.set_major_locator(round_ticks())
        letter_panels((counts, exits))
    return fix_ticks(figure)


def _exits(axes: Axes, left: npt.NDArray[np.int_], last: int) -> None:
    axes.set(title="Exits", xlabel="round", ylabel="nodes that left for good")
    if not left.size:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no node left", ha="center", color="0.35", transform=axes.transAxes)
        return
    end = min(last, int(left.max()) + 2)
    width = max(1, -(-end // _BARS))
    edges = np.arange(0.5, end + width + 0.5, width).tolist()
    counts, _, _ = axes.hist(left, bins=edges, color=LEAVES, edgecolor="white", linewidth=0.6)
    if _spans_decades(float(np.max(counts)), 1.0):
        axes.set(yscale="log", ylim=(0.7, None))
    else:
        axes.yaxis.set_major_locator(round_ticks())
    axes.yaxis.set_major_formatter(_WHOLE)
    axes.tick_params(which="minor", length=0)
    if width > 1:
        axes.set_ylabel(f"nodes that left for good, per {width} rounds")


def utilities(
    rounds: pd.DataFrame | Record, equilibrium: Mapping[str, Any] | None = None
) -> Figure:
    """Draw the utilities of the server and the nodes in each round.

    Parameters
    ----------
    rounds : DataFrame or Record
        Table of a record, or a record, which also has the other argument.
    equilibrium : mapping, optional
        ``equilibrium`` of a record's ``run.json``, to draw the levels of the closed form.

    Returns
    -------
    Figure
        Two panels, in currency: the server's utility and its payment; and the utility of all
        nodes together.
    """
    if equilibrium is None and isinstance(rounds, Record):
        equilibrium = rounds.run["equilibrium"]
    levels = {} if equilibrium is None else _read_levels(equilibrium)
    rounds = table_of(rounds, "rounds")
    require_columns(rounds, "round", "server_utility", "payment", "node_utility")
    if "equilibrium_total_epsilon" in rounds:  # it moves if nodes come and go
        levels = {}
    with theme():
        figure = Figure(figsize=(11, 3.6))
        server, nodes = figure.subplots(1, 2)
        at = rounds["round"]
        server.plot(at, rounds["server_utility"], color=STAYS, label="utility of the server")
        server.plot(at, rounds["payment"], color=BOUND, dashes=(4, 1.5), label="payment")
        nodes.plot(at, rounds["node_utility"], color=STAYS, label="utility of all nodes")
        if levels:
            form = {"color": "0.35", "dashes": (1, 2), "linewidth": 1.1, "zorder": 1}
            label = "closed form" if levels["threshold"] else "as priced"
            server.axhline(levels["server_utility"], label=label, **form)
            server.axhline(levels["payment"], **form)
            nodes.axhline(levels["node_utility"], label=label, **form)
        server.set(title="The server", xlabel="round", ylabel="currency per round")
        nodes.set(title="All nodes together", xlabel="round", ylabel="utility (currency per round)")
        for axes in (server, nodes):
            axes.axhline(0, color="0.35", linewidth=0.8)
            axes.legend(loc="best")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axes.xaxis.set_major_locator(round_ticks())
        letter_panels((server, nodes))
    return fix_ticks(figure)


def _read_levels(equilibrium: Mapping[str, Any]) -> dict[str, float]:
    names = ("threshold", "payment", "server_utility", "node_utility")
    if not isinstance(equilibrium, Mapping) or not all(name in equilibrium for name in names):
        raise InvalidRecordError(
            "The figure needs the equilibrium of a record's run.json, a mapping with "
            f"{', '.join(names)}, not {abbreviate(equilibrium)}."
        )
    return {name: as_number(name, equilibrium[name], error=InvalidRecordError) for name in names}


def rho_against_epsilon(nodes: pd.DataFrame | Record, threshold: float | None = None) -> Figure:
    """Draw each node's epsilon against its unit privacy cost.

    Parameters
    ----------
    nodes : DataFrame
        Table of a record.
    threshold : float
        tau / (n - 1), the unit privacy cost from which a node stays out; zero if there is none.

    Returns
    -------
    Figure
        The nodes, the outcome of the mechanism as a line, and the threshold. More than
        :data:`CROWD` nodes are counted in cells, and a second panel shows their cost distribution.
    """
    threshold = resolve_number(threshold, nodes, "the threshold", "equilibrium", "threshold")
    nodes = table_of(nodes, "nodes")
    require_columns(nodes, "rho", "epsilon", "active", "equilibrium_epsilon", rows=False)
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
        label = "closed form" if threshold > 0 else "as priced"
        if crowd and threshold > 0:
            rho = np.linspace(shown["rho"].iloc[0], right, CROWD)
            form = shown.iloc[
                np.unique(np.searchsorted(shown["rho"], rho).clip(max=len(shown) - 1))
            ]
        elif crowd:  # epsilon may be random, not a curve
            bins = np.arange(len(shown)) * 100 // len(shown)
            form = shown[["rho", "equilibrium_epsilon"]].groupby(bins).mean()
            label = "as priced, on average"
        axes.plot(
            form["rho"],
            form["equilibrium_epsilon"],
            color="0.35",
            linewidth=1,
            label=label,
            **({} if threshold > 0 or crowd else _APART),
            zorder=4 if crowd else 2,
        )
        if crowd:
            _cells(figure, axes, shown)
        else:
            _dots(axes, shown, groups)
        axes.set(
            title="Privacy sold by cost",
            xlabel="unit privacy cost ρ (currency per unit of ε)",
            ylabel="final ε",
        )
        axes.xaxis.set_major_locator(
            MaxNLocator(5, steps=[1, 2, 5, 10])
        )  # close costs have long labels
        _note_costlier(axes, nodes["rho"], right, 0.15 if "name" in nodes else 0.05)
        for other in others:
            _costs(other, nodes["rho"], groups)
        if threshold > 0:
            for each in (axes, *others):
                each.axvline(
                    threshold, color=BOUND, dashes=(4, 2), label=f"τ/(n−1) = {threshold:.3g}"
                )
        for each in (axes, *others):
            each.legend(loc="upper right", title=None)
        if others:
            letter_panels((axes, *others))
    return fix_ticks(figure)


def equilibrium(game: Any) -> Figure:
    """Draw a closed-form equilibrium: epsilon against unit privacy cost.

    Parameters
    ----------
    game : Equilibrium
        As returned by :func:`fcfn_abm.nash_equilibrium` or
        :func:`fcfn_abm.stackelberg_equilibrium`.

    Returns
    -------
    Figure
        As :func:`rho_against_epsilon`, for the nodes in equilibrium.
    """
    if not (hasattr(game, "to_frame") and hasattr(game, "threshold")):
        raise InvalidRecordError(
            "The figure needs an equilibrium such as that of fa.nash_equilibrium, not "
            f"{abbreviate(game)}."
        )
    frame = game.to_frame()
    return rho_against_epsilon(frame.assign(equilibrium_epsilon=frame["epsilon"]), game.threshold)


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
    if "name" in nodes:
        _name_sellers(axes, nodes[list(groups.values())[-1].reindex(nodes.index)])


def _name_sellers(axes: Axes, nodes: pd.DataFrame) -> None:
    """Write names next to nodes, from the largest epsilon down, where they fit."""
    named = nodes[nodes["name"].notna()].sort_values(["epsilon", "rho"], ascending=False)
    largest, lowest = named["epsilon"].max(), {"left": np.inf, "right": np.inf}
    room = _NAME_ROOM * largest
    heights = (named["epsilon"] / largest).round(4) * largest  # rounds of play leave differences
    points = zip(heights, named["rho"], named["name"], strict=True)
    for (epsilon, rho), same in groupby(points, key=itemgetter(0, 1)):
        free = [side for side in ("right", "left") if lowest[side] - epsilon >= room]
        if not free:
            continue
        lowest[free[0]] = epsilon
        label = _join_names(sorted(name for *_, name in same))
        axes.annotate(
            label.replace("$", r"\$"),  # a dollar sign would begin a formula
            (rho, epsilon),
            xytext=(6 if free[0] == "right" else -6, 0),
            textcoords="offset points",
            ha="left" if free[0] == "right" else "right",
            va="center",
            color="0.25",
            fontsize=7.5,
            path_effects=_HALO,
        )


def _join_names(names: list[str]) -> str:
    """Join the names of nodes at the same point; long names are cut."""
    cut = [n if len(n) <= _NAME_LENGTH else f"{n[: _NAME_LENGTH - 1]}…" for n in names]
    if len(cut) > _NAMES_AT_A_POINT:
        cut = [*cut[:_NAMES_AT_A_POINT], f"{len(cut) - _NAMES_AT_A_POINT} more"]
    return ", ".join(cut)


def _cells(figure: Figure, axes: Axes, nodes: pd.DataFrame) -> None:
    """Count nodes in the cells of a grid."""
    counts, rho, epsilon = np.histogram2d(nodes["rho"], nodes["epsilon"], bins=(80, 50))
    mesh = axes.pcolormesh(
        rho,
        epsilon,
        np.ma.masked_equal(counts.T, 0),
        norm=LogNorm(1, max(float(counts.max()), 10.0)),
        cmap=sns.color_palette("blend:#A6CEE8,#0072B2,#00243B", as_cmap=True),
        rasterized=True,  # thousands of cells
        zorder=3,
    )
    figure.colorbar(mesh, ax=axes, label="nodes in a cell")


def _costs(axes: Axes, rho: pd.Series[float], groups: Mapping[str, pd.Series[bool]]) -> None:
    """Draw the distribution of costs, on the scale that spreads it better."""
    wide = _spans_decades(float(rho.max()), float(rho.min()))
    edges = np.geomspace if wide else np.linspace
    bins = edges(float(rho.min()), float(rho.max()), 61).tolist()
    most = 1.0
    for (label, members), colour in zip(groups.items(), (LEAVES, STAYS), strict=True):
        counts, _, _ = axes.hist(rho[members], bins=bins, color=colour, alpha=0.8, label=label)
        most = max(most, float(np.max(counts)))
    axes.set(
        title="Privacy costs of all nodes",
        xlabel="unit privacy cost ρ (currency per unit of ε)",
        ylabel="nodes",
        xscale="log" if wide else "linear",
        yscale="log",
        ylim=(0.7, most**1.35),  # room for the legend
    )


def _right_edge(nodes: pd.DataFrame, threshold: float) -> float:
    """Return a right end of the axis that leaves out outlying high costs."""
    rho = nodes["rho"]
    least, most = float(rho.min()), float(rho.max())
    if threshold <= least or most < threshold + 2 * (threshold - least):
        return most
    dearest_active = float(rho[nodes["active"]].max()) if nodes["active"].any() else least
    return max(threshold + 0.6 * (threshold - least), dearest_active)


def _note_costlier(axes: Axes, rho: pd.Series[float], right: float, margin: float) -> None:
    beyond = int((rho > right).sum())
    if not beyond:
        return
    axes.set_xlim(rho.min() - margin * (right - rho.min()), right)
    axes.annotate(
        f"{beyond:,} nodes with higher\ncosts, up to ρ = {rho.max():.3g}",
        xy=(1.0, 0.055),
        xytext=(0.98, 0.16),
        xycoords="axes fraction",
        ha="right",
        color="0.35",
        arrowprops={"arrowstyle": "->", "color": "0.35"},
        path_effects=_HALO,
    )
