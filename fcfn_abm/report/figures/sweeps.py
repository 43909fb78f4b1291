"""Sweeps as figures: each outcome against each axis, with intervals over the replications."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fcfn_abm.errors import InvalidRecordError, as_names
from fcfn_abm.records.tables import NO_UNIT, columns_of
from fcfn_abm.report.estimates import ANY, BOUNDS, Average, average_paired, is_skewed
from fcfn_abm.report.figures.frames import require_columns, table_of
from fcfn_abm.report.theme import (
    ARM_COLOURS,
    ARM_DASHES,
    ARM_MARKERS,
    STAYS,
    escape_text,
    fix_ticks,
    letter_panels,
    theme,
)

MANY = 12
"""An axis with more numbers than these is cut into bins."""
_BINS = 8
_LEVELS = 6  # lines in a panel at most
_DECADES = 30.0  # from this ratio of its values on an outcome is drawn on a log scale
_LOG = 20.0  # from this ratio of its ends on an axis may be logarithmic
_LABEL = 24  # characters of a line beside an axis
_MARKERS = "osD^vP"
_ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1.14),  # above the letter of the panel
    "ncols": 3,
    "borderaxespad": 0,
    "columnspacing": 1.2,
}
_DASHES: tuple[Any, ...] = ("", (4, 1.5), (1, 1), (6, 2, 1, 2), (2, 1), (8, 2))


def sweep_outcome(frame: Any, axis: str, outcome: str, by: str | None = None) -> Figure:
    """Draw one outcome of a sweep against one of its axes.

    Parameters
    ----------
    frame : DataFrame or Sweep
        Table of a sweep, one row a run.
    axis, outcome : str
        Columns of it.
    by : str, optional
        Another axis with few values, which get a line each.

    Returns
    -------
    Figure
        Means over all runs with a value of the axis, and their 95 % t-intervals.
    """
    frame = table_of(frame, "frame")
    require_columns(frame, "status", axis, outcome, *([] if by is None else [by]), rows=False)
    with theme():
        figure = Figure(figsize=(6.5, 4.2))
        axes = figure.subplots()
        sampled = is_sampled(frame, [axis, *([by] if by else [])])
        _panel(axes, frame[frame["status"] == "done"], axis, outcome, by, sampled=sampled)
        axes.set(xlabel=escape_text(axis))
        if by:
            axes.legend(title=escape_text(by), loc="best")
    return fix_ticks(figure)


def sweep_overview(
    frame: Any,
    axes: Sequence[str],
    outcomes: Sequence[str],
    all_axes: Sequence[str] | None = None,
) -> Figure:
    """Draw outcomes of a sweep against its axes, in small panels.

    Parameters
    ----------
    frame : DataFrame or Sweep
        Table of a sweep, one row a run.
    axes, outcomes : sequence of str
        Columns of it: a column of panels for each axis, a row of them for each outcome.
    all_axes : sequence of str, optional
        Those whose values may get a line each; the drawn ones without it.

    Returns
    -------
    Figure
        Means over all runs with a value of the axis, and their 95 % t-intervals. Where another
        axis has few values, these get a line each.
    """
    frame = table_of(frame, "frame")
    axes, outcomes = _names("axes", axes), _names("outcomes", outcomes)
    all_axes = axes if all_axes is None else _names("all_axes", all_axes)
    require_columns(frame, "status", *axes, *outcomes, *all_axes, rows=False)
    done = frame[frame["status"] == "done"]
    with theme():
        figure = Figure(
            figsize=(max(6.5, 6.2 * min(len(axes), 2), 4.4 * len(axes)), 2.2 * len(outcomes) + 1.0)
        )
        grid = figure.subplots(len(outcomes), len(axes), squeeze=False, sharex="col", sharey="row")
        sampled = is_sampled(frame, all_axes or axes)
        for column, axis in enumerate(axes):
            by = lines_by(frame, axis, all_axes)
            for row, outcome in enumerate(outcomes):
                _panel(grid[row, column], done, axis, outcome, by, sampled=sampled)
                if column:
                    grid[row, column].set_ylabel("")
            grid[-1, column].set_xlabel(escape_text(axis))
            if by:
                grid[0, column].legend(title=escape_text(by), alignment="left", **_ABOVE)
        if grid.size > 1:
            letter_panels(grid.ravel())
    return fix_ticks(figure)


def _names(name: str, value: object) -> list[str]:
    """Return names of columns, one or more."""
    names = as_names(name, value, error=InvalidRecordError)
    if not names:
        raise InvalidRecordError(f"{name} must hold one name or more.")
    return names


def lines_by(frame: pd.DataFrame, axis: str, axes: Sequence[str]) -> str | None:
    """Return the other axis whose values get a line each: mechanisms, or the one with fewest."""
    few = {name: frame[name].nunique() for name in axes if name != axis}
    few = {name: n for name, n in few.items() if 1 < n <= _LEVELS}
    for first in ("sweep", "mechanism.kind"):
        if first in few:
            return first
    return min(few, key=lambda name: few[name]) if few else None


def label_of(outcome: str) -> str:
    """Return what an outcome is called in figures and tables, with its unit."""
    unit = next((c.unit for c in columns_of("sweep") if c.name == outcome), NO_UNIT)
    words = escape_text(outcome.replace("n_active", "nodes that take part").replace("_", " "))
    return words if unit == NO_UNIT else f"{words} ({unit})"


def group_values(values: pd.Series) -> pd.Series:
    """Return the group of each run: its value on an axis, or the middle of its bin of many.

    Examples
    --------
    >>> group_values(pd.Series([0.1, 0.2, 0.1])).tolist()
    [0.1, 0.2, 0.1]
    >>> group_values(pd.Series(range(80))).nunique()
    8
    """
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= MANY:
        return values
    bins = pd.qcut(values, _BINS, labels=False, duplicates="drop")
    return values.groupby(bins).transform("median")


def _panel(
    axes: Axes,
    done: pd.DataFrame,
    axis: str,
    outcome: str,
    by: str | None,
    *,
    sampled: bool,
) -> None:
    numeric = pd.api.types.is_numeric_dtype(done[axis]) and not _is_bool(done[axis])
    levels = [] if by is None else list(dict.fromkeys(done[by]))
    colours = _colours(levels)
    places = None if numeric else {value: i for i, value in enumerate(dict.fromkeys(done[axis]))}
    found = [
        _averages(done if by is None else done[done[by] == level], axis, outcome, sampled=sampled)
        for level in levels or [None]
    ]
    as_median = is_skewed(of for line in found for of in line.values())
    for i, (level, line) in enumerate(zip(levels or [None], found, strict=True)):
        name = str(level)
        marker = ARM_MARKERS.get(name, _MARKERS[i % len(_MARKERS)])
        dashes = ARM_DASHES.get(name, _DASHES[i % len(_DASHES)])
        points = {at: of.centre(as_median=as_median) for at, of in line.items()}
        points = {at: point for at, point in points.items() if math.isfinite(point[0])}
        x = pd.Series([at if places is None else places[at] for at in points], dtype=float)
        centre, low, high = np.array(list(points.values()), dtype=float).reshape(-1, 3).T
        bars = np.nan_to_num([centre - low, high - centre], posinf=0.0)
        shift = 0.0 if places is None or not levels else 0.12 * (i - (len(levels) - 1) / 2)
        axes.errorbar(
            x + shift,
            centre,
            yerr=bars,
            color=colours[i],
            marker=marker,
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            linestyle="-" if numeric and not dashes else (0, dashes) if numeric else "none",
            linewidth=1.4,
            elinewidth=1.2,
            capsize=2.5,
            label=_level(level),
        )
    if places is not None:
        axes.set_xticks(range(len(places)), [_level(value) for value in places])
        axes.set_xlim(-0.5, len(places) - 0.5)
    elif _even_in_log(done[axis]):
        axes.set_xscale("log")
        few = done[axis].max() / done[axis].min() < 1e3
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,), numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="minor", length=0)
    elif done[axis].nunique() <= _LEVELS:
        axes.set_xticks(sorted(done[axis].unique()))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.margins(y=0.1)
    label = label_of(outcome) + (", median" if as_median else "")
    axes.set_ylabel("\n".join(wrap(label, _LABEL)))
    known = done[outcome][np.isfinite(done[outcome])]
    if len(known) and known.min() > 0 and known.quantile(0.9) > _DECADES * known.quantile(0.1):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="minor", length=0)


def average_runs(runs: pd.DataFrame, outcome: str, *, sampled: bool) -> Average:
    """Average an outcome over runs of a sweep, with an interval of what is independent in them.

    Parameters
    ----------
    runs : DataFrame
        Rows of a sweep's table.
    outcome : str
        Which of its columns.
    sampled : bool
        Whether its points are a sample, see :func:`is_sampled`: then the interval is over runs.
        All points of a sweep share their seeds, so that in a grid runs of one replication are
        averaged first, the interval is over replications, and one replication gives none.
    """
    replications = None if sampled else runs.get("replication")
    return average_paired(runs[outcome], replications, BOUNDS.get(outcome, ANY))


def is_sampled(frame: pd.DataFrame, axes: Sequence[str]) -> bool:
    """Whether the points of a sweep are many, as a sample's are, and no grid of a few values."""
    return any(
        pd.api.types.is_numeric_dtype(frame[axis]) and frame[axis].nunique() > MANY for axis in axes
    )


def _averages(runs: pd.DataFrame, axis: str, outcome: str, *, sampled: bool) -> dict[Any, Average]:
    """Return the average at each value of an axis, in the order in which they are drawn."""
    numeric = pd.api.types.is_numeric_dtype(runs[axis])
    groups = runs.groupby(group_values(runs[axis]), sort=numeric)
    return {at: average_runs(some, outcome, sampled=sampled) for at, some in groups}


def _colours(levels: Sequence[Any]) -> list[Any]:
    if not levels:
        return [STAYS]
    if all(str(level) in ARM_COLOURS for level in levels):
        return [ARM_COLOURS[str(level)] for level in levels]
    return list(sns.color_palette("viridis", len(levels) + 1))[: len(levels)]  # the last is pale


def _level(level: Any) -> str:
    if isinstance(level, (float, np.floating)):
        return f"{level:.3g}"
    return escape_text(str(level))


def _is_bool(values: pd.Series) -> bool:
    return bool(pd.api.types.is_bool_dtype(values))


def _even_in_log(values: pd.Series) -> bool:
    """Whether an axis is spread more evenly in its logarithm."""
    known = np.unique(values.dropna().to_numpy(dtype=float))
    if known.size < 2 or known[0] <= 0 or known[-1] < _LOG * known[0]:
        return False
    middle = float(np.median(known))
    share = (middle - known[0]) / (known[-1] - known[0])
    return known.size == 2 or share < 1 / 3
