"""A comparison of mechanisms as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fcfn_abm.report.compare import Averages, averages
from fcfn_abm.report.estimates import Average, is_skewed
from fcfn_abm.report.figures.frames import require_columns, table_of
from fcfn_abm.report.theme import ARM_COLOURS, ARM_MARKERS, fix_ticks, letter_panels, theme

_PANELS = {  # quantity: title and label of the axis
    "mean_node_utility": ("Node utility", "currency, mean of all nodes"),
    "server_utility": ("Server utility", "currency"),
    "welfare": ("Welfare", "currency, sum of all utilities"),
    "price_of_anarchy": ("Price of anarchy", "best welfare / welfare"),
    "participation": ("Participation", "share of the nodes"),
    "mean_epsilon": ("Mean ε", "ε, {over}"),
    "noise_multiplier": ("Noise", "noise / sensitivity, one release"),
}
_AVERAGED = {
    "active": "mean of active nodes",
    "population": "mean of all nodes",
    "effective": "over the effective number",
}
_DECADES = 30.0  # ratio from which an axis is logarithmic
_MANY_DECADES = 1e3  # ratio from which its ticks are at powers of ten only


def comparison(frame: Any) -> Figure:
    """Draw the outcome of each mechanism: means, their intervals, and single populations.

    Parameters
    ----------
    frame : DataFrame or Comparison
        Table of a comparison, one row per replication and mechanism.

    Returns
    -------
    Figure
        A panel for each quantity, with one row per mechanism, in the order of the frame.
    """
    frame = table_of(frame, "frame")
    same = ("replication", "average_over", "n_nodes", "budget")
    require_columns(frame, "mechanism", "status", *same, *_PANELS)
    names = list(dict.fromkeys(frame["mechanism"]))
    found = averages(frame)
    over = _AVERAGED[frame["average_over"].iloc[0]]
    with theme():
        figure = Figure(figsize=(13.5, 3.4 + 0.62 * len(names)))
        figure.set_layout_engine("constrained", wspace=0.05)
        grid = figure.subplots(2, 4, sharey=True).ravel()
        for axes, (quantity, (title, measure)) in zip(grid, _PANELS.items(), strict=False):
            axes.set_title(title)
            _panel(axes, frame, found, quantity, names)
            axes.set_xlabel(measure.format(over=over))
        for axes in grid:
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        grid[0].set_yticks(range(len(names)), names)
        grid[0].set_ylim(len(names) - 0.5, -0.5)
        letter_panels(grid[:-1])
        _caption(grid[-1], frame)
    return fix_ticks(figure)


def _panel(
    axes: Axes, frame: pd.DataFrame, found: Averages, quantity: str, names: Sequence[str]
) -> None:
    usable = frame[(frame["status"] != "no-solution") & np.isfinite(frame[quantity])]
    values = usable[quantity]
    logarithmic = len(values) > 0 and values.min() > 0 and values.max() / values.min() > _DECADES
    if logarithmic:
        axes.set_xscale("log")
        few = values.max() / values.min() < _MANY_DECADES
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,), numticks=5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    as_median = is_skewed(found[name, quantity] for name in names)
    if as_median:
        axes.set_title(f"{axes.get_title(loc='left')}, median")
    for row, name in enumerate(names):
        colour = ARM_COLOURS.get(name, "0.45")
        each = usable.loc[usable["mechanism"] == name, quantity]
        if len(each) > 1:
            spread = row + 0.22 + 0.1 * np.linspace(-1, 1, len(each))  # slightly below the mean
            axes.scatter(each, spread, s=9, color=colour, alpha=0.35, linewidth=0)
        of = found[name, quantity]
        centre, low, high = of.centre(as_median=as_median)
        if not math.isfinite(centre):
            _note_missing_mean(axes, row, of)
            continue
        if logarithmic:
            low = max(low, float(values.min()) / 2)  # a log axis has no zero
        high = min(high, 2 * float(values.max())) if math.isinf(high) else high
        axes.errorbar(
            centre,
            row,
            xerr=None if math.isnan(low) else [[centre - low], [high - centre]],
            fmt=ARM_MARKERS.get(name, "P"),
            color=colour,
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.6,
            elinewidth=1.8,
            capsize=4,
            zorder=3,
        )
    if (values < 0).any():
        axes.axvline(0, color="0.2", linewidth=0.8, zorder=1)
    axes.margins(x=0.08)


def _note_missing_mean(axes: Axes, row: int, of: Average) -> None:
    text = f"infinite in {of.n_infinite} of {of.n}" if of.n else "no value"
    axes.annotate(
        text,
        xy=(0.98, row),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        color="0.3",
        fontsize="small",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def _caption(axes: Axes, frame: pd.DataFrame) -> None:
    """Write the common settings into the last cell of the grid."""
    axes.set_axis_off()
    first = frame.drop_duplicates("replication")
    n, budgets = len(first), first["budget"]
    low, high = (f"{value:.4g}" for value in (budgets.min(), budgets.max()))
    cap = low if low == high else f"{low} to {high}"
    lines = [f"{n} population{'s' if n > 1 else ''} of {first['n_nodes'].iloc[0]} nodes"]
    lines += [f"payment cap B = {cap}"]
    if n > 1:
        lines += [
            "",
            "large: mean and 95 % t-interval,",
            "or median and its interval where",
            "values are skewed",
            "small: single populations",
        ]
    axes.set_title("Common to all mechanisms")
    axes.text(0.05, 0.98, "\n".join(lines), transform=axes.transAxes, va="top", color="0.25")
