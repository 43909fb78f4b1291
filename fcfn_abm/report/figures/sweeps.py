"""Sweeps as figures: each outcome against each axis, with intervals over replications."""

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
"""Largest number of values on an axis that is not binned."""
_BINS = 8
_LEVELS = 6  # most lines in a panel
_DECADES = 30.0  # ratio of the values from which an outcome has a log scale
_LOG = 20.0  # ratio of the ends from which an axis may be logarithmic
_LABEL = 24  # characters per line of an axis label
_MARKERS = "osD^vP"
_ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1.14),  # above the panel's letter
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
        Table of a sweep, one row per run.
    axis, outcome : str
        Columns of it.
    by : str, optional
        Another axis with few values, which get one line each.

    Returns
    -------
    Figure
        Means over all runs with the same value of the axis, with 95 % t-intervals.
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
        Table of a sweep, one row per run.
    axes, outcomes : sequence of str
        Columns of it: a column of panels per axis, a row of panels per outcome.
    all_axes : sequence of str, optional
        Axes whose values may get one line each; by default the drawn ones.

    Returns
    -------
    Figure
        Means over all runs with the same value of the axis, with 95 % t-intervals. If another axis
        has few values, each gets its own line.
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
    """Return one or more column names as a list."""
    names = as_names(name, value, error=InvalidRecordError)
    if not names:
        raise InvalidRecordError(f"{name} must contain at least one name.")
    return names


def lines_by(frame: pd.DataFrame, axis: str, axes: Sequence[str]) -> str | None:
    """Return the axis whose values get one line each: mechanisms, or the one with fewest values."""
    few = {name: frame[name].nunique() for name in axes if name != axis}
    few = {name: n for name, n in few.items() if 1 < n <= _LEVELS}
    for first in ("sweep", "mechanism.kind"):
        if first in few:
            return first
    return min(few, key=lambda name: few[name]) if few else None


def label_of(outcome: str) -> str:
    """Return the label of an outcome in figures and tables, with its unit."""
    unit = next((c.unit for c in columns_of("sweep") if c.name == outcome), NO_UNIT)
    words = escape_text(outcome.replace("n_active", "nodes that take part").replace("_", " "))
    return words if unit == NO_UNIT else f"{words} ({unit})"


def group_values(values: pd.Series) -> pd.Series:
    """Return the group of each run: its value on the axis, or the centre of its bin.

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
    elif _is_even_in_log(done[axis]):
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
    """Average an outcome over runs of a sweep, with an interval over the independent units.

    Parameters
    ----------
    runs : DataFrame
        Rows of a sweep's table.
    outcome : str
        Column to average.
    sampled : bool
        Whether the points are a random sample, see :func:`is_sampled`: the interval is then over
        runs. In a grid, all points share their seeds, so the runs of one replication are averaged
        first, the interval is over replications, and one replication gives none.
    """
    replications = None if sampled else runs.get("replication")
    return average_paired(runs[outcome], replications, BOUNDS.get(outcome, ANY))


def is_sampled(frame: pd.DataFrame, axes: Sequence[str]) -> bool:
    """Whether the points of a sweep are a sample of many, and not a grid of a few values."""
    return any(
        pd.api.types.is_numeric_dtype(frame[axis]) and frame[axis].nunique() > MANY for axis in axes
    )


def _averages(runs: pd.DataFrame, axis: str, outcome: str, *, sampled: bool) -> dict[Any, Average]:
    """Return the average at each value of an axis, in drawing order."""
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


def _is_even_in_log(values: pd.Series) -> bool:
    """Whether the values of an axis are spread more evenly on a log scale."""
    known = np.unique(values.dropna().to_numpy(dtype=float))
    if known.size < 2 or known[0] <= 0 or known[-1] < _LOG * known[0]:
        return False
    middle = float(np.median(known))
    share = (middle - known[0]) / (known[-1] - known[0])
    return known.size == 2 or share < 1 / 3
