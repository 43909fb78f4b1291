"""The benchmark of mechanisms as one figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from fcfn_abm.report.bench import (
    CELL,
    MODES,
    Estimate,
    average_paired_difference,
    cells_of,
    mean_of,
    payment_ratio,
    select_trained_rows,
)
from fcfn_abm.report.figures.frames import require_columns, table_of
from fcfn_abm.report.theme import escape_text, fix_ticks, theme

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#332288", "#999933")
_MARKERS = "osD^vPX*"
_SPREAD = 0.36  # half the height of a row that its points use

type Measure = Callable[[pd.DataFrame, str], Estimate]


def benchmark(frame: Any, run: Mapping[str, Any]) -> Figure:
    """Draw a benchmark: a panel per quantity, a row per mechanism, a point per cell.

    Parameters
    ----------
    frame : DataFrame or Benchmark
        Table of a benchmark, one row per cell, mode, mechanism and population.
    run : mapping
        Its ``run.json``.

    Returns
    -------
    Figure
        Points are means with their 95 % intervals, in the cells with the cap for which nets were
        trained (without training, the largest cap).
    """
    frame = table_of(frame, "frame")
    require_columns(frame, *CELL, "mode", "mechanism", "replication", "status", "accuracy")
    reference, trained = run["reference"], select_trained_rows(frame)
    budget = float(frame["budget"].max() if trained.empty else trained["budget"].iloc[0])
    shown = frame[frame["budget"] == budget]

    def against(rows: pd.DataFrame, name: str) -> Estimate:
        return average_paired_difference(rows, "server_utility", name, reference)

    def ratio(rows: pd.DataFrame, name: str) -> Estimate:
        return payment_ratio(rows, name, reference)

    def share(rows: pd.DataFrame, name: str) -> Estimate:
        return mean_of(rows, "expensive_third", name)

    panels: list[tuple[str, str, str, Measure]] = [
        ("equal-cap", "Server's utility", f"currency, minus that under {reference}", against),
        ("equal-epsilon", "Price of the same ε", f"payments / payments under {reference}", ratio),
        ("equal-spending", "Expensive third", "share that takes part", share),
    ]
    panels = [panel for panel in panels if panel[0] in run["modes"]]
    n_panels = len(panels) + (not trained.empty)
    names = list(run["mechanisms"])
    with theme():
        figure = Figure(figsize=(2.4 + 3.1 * n_panels, 1.6 + 0.42 * len(names)))
        figure.set_layout_engine("constrained", w_pad=0.06)
        grid = figure.subplots(1, n_panels, sharey=True, squeeze=False).ravel()
        for axes, (mode, title, measure, of) in zip(grid, panels, strict=False):
            _draw_cells(axes, cells_of(shown, mode), names, of, run)
            axes.set_title(f"{title}\n{MODES[mode].lower()}", fontsize="medium")
            axes.set_xlabel(measure)
        for axes, (mode, *_) in zip(grid, panels, strict=False):
            if mode == "equal-epsilon":
                _use_log_axis(axes)
            elif mode == "equal-spending":
                axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
                axes.set_xlim(-0.04, 1.04)
            else:
                axes.axvline(0, color="0.3", linewidth=0.8, zorder=1)
        if not trained.empty:
            _draw_training(grid[-1], trained, names)
        for axes in grid:
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        grid[0].set_yticks(range(len(names)), [escape_text(name) for name in names])
        grid[0].set_ylim(len(names) - 0.5, -0.5)
        _add_legend(figure, run, budget)
    return fix_ticks(figure)


def _draw_cells(
    axes: Axes,
    cells: Mapping[tuple[Any, ...], pd.DataFrame],
    names: Sequence[str],
    measure: Measure,
    run: Mapping[str, Any],
) -> None:
    """Draw a point for each mechanism and cell; the cells of a mechanism are stacked."""
    step = 2 * _SPREAD / max(len(cells) - 1, 1)
    for row, name in enumerate(names):
        drawn, pays = False, True
        for place, ((costs, data, _), rows) in enumerate(cells.items()):
            found = measure(rows, name)
            own = rows[rows["mechanism"] == name]
            pays = pays and not (own["server_payment"] == 0).all()
            if not math.isfinite(found.mean):
                continue
            drawn = True
            _draw_point(
                axes,
                found,
                row - _SPREAD + step * place,
                _COLOURS[run["costs"].index(costs) % len(_COLOURS)],
                _MARKERS[run["costs"].index(costs) % len(_MARKERS)],
                filled=run["data"].index(data) == 0,
            )
        if not drawn:
            _write(axes, row, "not reachable" if pays else "pays nothing")


def _draw_point(
    axes: Axes,
    found: Estimate,
    y: float,
    colour: str,
    marker: str,
    *,
    filled: bool,
    size: float = 4,
) -> None:
    if math.isfinite(found.low):
        axes.plot([found.low, found.high], [y, y], color=colour, linewidth=1.1, zorder=2)
    axes.plot(
        [found.mean],
        [y],
        marker=marker,
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=size,
        linestyle="none",
        zorder=3,
    )


def _draw_training(axes: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    first = rows.iloc[0]
    for row, name in enumerate(names):
        found = mean_of(rows, "accuracy", name)
        if found.n == 0:
            _write(axes, row, "not reachable")
            continue
        _draw_point(axes, found, row, "0.15", "o", filled=True, size=5)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_title(f"Accuracy\n{MODES[first['mode']].lower()}", fontsize="medium")
    axes.set_xlabel(f"of the nets (costs {first['costs']}, data {first['data']})")
    axes.margins(x=0.08)


def _write(axes: Axes, row: int, text: str) -> None:
    axes.annotate(
        text,
        xy=(0.5, row),
        xycoords=("axes fraction", "data"),
        ha="center",
        va="center",
        color="0.45",
        fontsize="x-small",
    )


def _use_log_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.axvline(1, color="0.3", linewidth=0.8, zorder=1)


def _add_legend(figure: Figure, run: Mapping[str, Any], budget: float) -> None:
    handles = [
        Line2D([], [], marker=_MARKERS[i % len(_MARKERS)], color=_COLOURS[i % len(_COLOURS)],
               linestyle="none", label=f"costs {escape_text(name)}")
        for i, name in enumerate(run["costs"])
    ]  # fmt: skip
    for place, name in enumerate(run["data"][:2] if len(run["data"]) > 1 else ()):
        face = "0.4" if place == 0 else "white"
        label = f"data {escape_text(name)}"
        handles.append(Line2D([], [], marker="o", color="0.4", markerfacecolor=face,
                              linestyle="none", label=label))  # fmt: skip
    title = (
        f"cap B = {budget:g}, {run['n_nodes']:,} nodes, {run['replications']} populations per "
        "cell; mean and 95 % interval"
    )
    figure.legend(
        handles=handles, loc="outside lower center", ncols=6, title=title, fontsize="small",
        title_fontsize="small",
    )  # fmt: skip
